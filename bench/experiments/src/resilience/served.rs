//! The content that every target serves: two bodies, the same for all, that the clients know byte by byte.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

use tidegate_random::Random;

use crate::setup;

/// A body: its name, which is its path without the slash, its length in bytes and the seed of its content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body {
    name: &'static str,
    length: usize,
    seed: u64,
}

/// The body that a client of the window asks for.
pub(super) const SMALL: Body = Body {
    name: "small",
    length: 128,
    seed: 1,
};

/// The body that the open connections ask for, again and again. It is small enough for tidegate to keep it in memory,
/// as the kernel's server does.
pub(super) const BULK: Body = Body {
    name: "bulk",
    length: 1_000_000,
    seed: 2,
};

/// The time a server waits for a client that does nothing.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

impl Body {
    /// Both.
    pub(super) const ALL: [Self; 2] = [SMALL, BULK];

    /// Returns the path of a request, starting with `/`.
    pub(super) fn path(&self) -> String {
        format!("/{}", self.name)
    }

    /// The content, the same in every process.
    pub(super) fn content(&self) -> Vec<u8> {
        let mut content = vec![0; self.length];
        Random::new(self.seed).fill(&mut content);
        content
    }
}

/// Makes a directory with both bodies as files. It is removed when the result is dropped.
///
/// # Errors
///
/// It cannot be made or written.
pub(super) fn directory() -> anyhow::Result<TempDir> {
    let directory = setup::directory("resilience")?;
    for body in Body::ALL {
        write(directory.path(), &body)?;
    }
    Ok(directory)
}

fn write(directory: &Path, body: &Body) -> anyhow::Result<()> {
    let file = directory.join(body.name);
    std::fs::write(&file, body.content()).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_the_bodies() {
        let directory = directory().unwrap();
        for body in Body::ALL {
            let file = std::fs::read(directory.path().join(body.name)).unwrap();
            assert_eq!(file.len(), body.length);
            assert!(file == body.content(), "{body:?}");
        }
    }

    #[test]
    fn no_part_of_the_bulk_looks_like_another() {
        let content = BULK.content();
        let parts: std::collections::HashSet<&[u8]> = content.chunks_exact(16).collect();
        assert_eq!(parts.len(), content.len() / 16);
    }
}
