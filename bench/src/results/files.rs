//! Files that results are written to.

use std::fs::OpenOptions;
use std::path::Path;

use anyhow::Context;

/// Finds out before anything is measured that results could not be written. What is in the file stays until there is
/// something to take its place.
///
/// # Errors
///
/// The file cannot be made or written.
pub(crate) fn check_writable(file: &Path) -> anyhow::Result<()> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .map(drop)
        .with_context(|| format!("cannot write the results to {}", file.display()))
}

/// Puts `content` in the place of what the file holds.
///
/// # Errors
///
/// The file cannot be written.
pub(crate) fn write(file: &Path, content: impl AsRef<[u8]>) -> anyhow::Result<()> {
    std::fs::write(file, content).with_context(|| format!("cannot write the results to {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_replace_what_was_there_only_when_there_are_some() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("results");
        std::fs::write(&file, "earlier results").unwrap();
        check_writable(&file).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "earlier results");
        write(&file, "new").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = check_writable(&directory.path().join("no-such-directory/file")).unwrap_err();
        assert!(error.to_string().contains("no-such-directory"), "{error}");
    }
}
