//! The file of the running program: whether another is in its place by now, as after an upgrade.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use tracing::warn;

/// The file that the process was started from.
static STARTED_FROM: OnceLock<Option<Executable>> = OnceLock::new();

/// A program's file, as it was at a time.
#[derive(Debug)]
struct Executable {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Executable {
    fn at(path: PathBuf) -> std::io::Result<Self> {
        let metadata = fs::metadata(&path)?;
        Ok(Self {
            path,
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    /// Whether another file is at the path. False where there is none: nothing could be started from it.
    fn is_replaced(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) != (self.device, self.inode))
    }
}

/// Remembers the file of this process. Has to be called at the start: later another one may be at its path.
pub(crate) fn remember() {
    STARTED_FROM.get_or_init(|| {
        std::env::current_exe()
            .and_then(Executable::at)
            .inspect_err(|error| warn!("the program's own file cannot be found: {error}"))
            .ok()
    });
}

/// Whether another file is at the path that this process was started from.
pub(crate) fn is_replaced() -> bool {
    let remembered = STARTED_FROM.get();
    remembered.is_some_and(|file| file.as_ref().is_some_and(Executable::is_replaced))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_at_the_path_is_seen_and_a_missing_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        fs::write(&path, "old").unwrap();
        let executable = Executable::at(path.clone()).unwrap();
        assert!(!executable.is_replaced());
        // As dpkg and install(1) do: a file made beside it, and moved in its place.
        let newer = folder.path().join("newer");
        fs::write(&newer, "new").unwrap();
        fs::rename(&newer, &path).unwrap();
        assert!(executable.is_replaced());
        fs::remove_file(&path).unwrap();
        assert!(!executable.is_replaced());
    }
}
