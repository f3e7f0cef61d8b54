//! The file that every server serves, as small as a welcome page is to a server that has it in memory.

use std::path::Path;

use anyhow::Context;

/// The file's name in the served directory.
const NAME: &str = "index.html";

/// Octets of the file.
const LENGTH: usize = 128;

/// The path that is requested.
pub(super) const PATH: &str = "/index.html";

/// Returns the content: text, so that nobody is tempted to compress or to guess.
pub(super) fn content() -> Vec<u8> {
    let text = "<!DOCTYPE html><title>tidegate</title><p>The same octets from every server.</p>\n";
    text.bytes().chain(std::iter::repeat(b' ')).take(LENGTH).collect()
}

/// Writes it to `directory`.
///
/// # Errors
///
/// It cannot be written.
pub(super) fn write(directory: &Path) -> anyhow::Result<()> {
    let file = directory.join(NAME);
    std::fs::write(&file, content()).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_where_the_request_looks_for_it() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path()).unwrap();
        let read = std::fs::read(directory.path().join(PATH.trim_start_matches('/'))).unwrap();
        assert_eq!(read.len(), LENGTH);
        assert_eq!(read, content());
        assert!(read.starts_with(b"<!DOCTYPE html>") && read.ends_with(b" "));
    }
}
