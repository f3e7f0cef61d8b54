//! The root directory, out of which no path leads.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::status::Status;

/// How often opening is tried again when a rename at the same moment made the kernel lose track.
const RACE_RETRIES: usize = 8;

/// The directory that is served.
pub(super) struct Root {
    directory: File,
}

/// What a path names.
#[derive(Debug)]
pub(super) enum Opened {
    /// A regular file, open for reading.
    File(File, Stamp),
    Directory,
}

/// Identity and state of a file: as long as none of it changes, neither did the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Length in bytes.
    pub(super) length: u64,
    /// Last modification in seconds since 1970.
    pub(super) modified: i64,
    /// Nanoseconds of the last modification within its second.
    pub(super) modified_nanos: i64,
}

impl Stamp {
    fn new(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: metadata.mtime(),
            modified_nanos: metadata.mtime_nsec(),
        }
    }
}

impl Root {
    /// Opens the directory and makes sure that the kernel can confine paths to it.
    ///
    /// # Errors
    ///
    /// There is no such directory, it may not be read, or the kernel has no openat2 (before Linux 5.6, or a seccomp
    /// filter that refuses it).
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_DIRECTORY.bits())
            .open(path)?;
        let root = Self { directory };
        root.open_beneath(b".").map_err(|errno| match errno {
            Errno::ENOSYS | Errno::EPERM => io::Error::new(
                io::ErrorKind::Unsupported,
                "openat2 is not available; it needs Linux 5.6 and a seccomp filter that lets it through",
            ),
            errno => errno.into(),
        })?;
        Ok(root)
    }

    /// Opens what the relative path `path` (not empty) names. Symbolic links are followed as long as they stay
    /// beneath the root.
    ///
    /// # Errors
    ///
    /// The status to answer with.
    pub(super) fn find(&self, path: &[u8]) -> Result<Opened, Status> {
        let file = self.open_beneath(path).map_err(status_of)?;
        let metadata = file.metadata().map_err(|_| Status::InternalServerError)?;
        if metadata.is_file() {
            Ok(Opened::File(file, Stamp::new(&metadata)))
        } else if metadata.is_dir() {
            Ok(Opened::Directory)
        } else {
            Err(Status::Forbidden)
        }
    }

    fn open_beneath(&self, path: &[u8]) -> nix::Result<File> {
        // O_NONBLOCK: opening a FIFO must not wait for a writer. O_NOCTTY: nor may a terminal become ours.
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let mut retries = RACE_RETRIES;
        loop {
            match openat2(&self.directory, path, how) {
                Err(Errno::EAGAIN | Errno::EINTR) if retries > 0 => retries -= 1,
                result => return result.map(File::from),
            }
        }
    }
}

fn status_of(errno: Errno) -> Status {
    match errno {
        Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG | Errno::ELOOP => Status::NotFound,
        // EXDEV: a symbolic link leads out of the root. ENXIO: a socket, or a device that is not there.
        Errno::EACCES | Errno::EPERM | Errno::EXDEV | Errno::ENXIO | Errno::ENODEV => Status::Forbidden,
        _ => Status::InternalServerError,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use tempfile::TempDir;

    use super::*;

    fn site() -> (TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        let www = directory.path().join("www");
        fs::create_dir_all(www.join("docs")).unwrap();
        fs::write(directory.path().join("secret"), "secret").unwrap();
        fs::write(www.join("docs/page.html"), "page").unwrap();
        let root = Root::open(&www).unwrap();
        (directory, root)
    }

    fn status(root: &Root, path: &str) -> Option<Status> {
        root.find(path.as_bytes()).err()
    }

    #[test]
    fn files_and_directories_are_found() {
        let (_directory, root) = site();
        let opened = root.find(b"docs/page.html").unwrap();
        assert!(matches!(opened, Opened::File(_, stamp) if stamp.length == 4));
        assert!(matches!(root.find(b"docs").unwrap(), Opened::Directory));
        assert_eq!(status(&root, "nothing"), Some(Status::NotFound));
        assert_eq!(status(&root, "docs/page.html/more"), Some(Status::NotFound));
        assert_eq!(status(&root, &"a".repeat(300)), Some(Status::NotFound));
    }

    #[test]
    fn no_path_leads_out() {
        let (directory, root) = site();
        let www = directory.path().join("www");
        symlink("../secret", www.join("relative")).unwrap();
        symlink(directory.path().join("secret"), www.join("absolute")).unwrap();
        symlink("..", www.join("parent")).unwrap();
        symlink("/proc/self/root", www.join("magic")).unwrap();
        for path in [
            "relative",
            "absolute",
            "parent/secret",
            "magic/etc",
            "../secret",
            "docs/../../secret",
            "/etc",
        ] {
            assert_eq!(status(&root, path), Some(Status::Forbidden), "{path}");
        }
    }

    #[test]
    fn links_within_the_root_are_followed() {
        let (directory, root) = site();
        let www = directory.path().join("www");
        symlink("docs/page.html", www.join("link")).unwrap();
        symlink("../www/docs", www.join("through_parent")).unwrap();
        symlink("../docs", www.join("docs/up")).unwrap();
        symlink("circle", www.join("circle")).unwrap();
        assert_eq!(status(&root, "link"), None);
        assert_eq!(status(&root, "docs/up/page.html"), None);
        assert_eq!(status(&root, "through_parent/page.html"), Some(Status::Forbidden));
        assert_eq!(status(&root, "circle"), Some(Status::NotFound));
    }

    #[test]
    fn what_is_no_regular_file_is_forbidden_and_does_not_block() {
        let (directory, root) = site();
        let www = directory.path().join("www");
        mkfifo(&www.join("fifo"), Mode::S_IRWXU).unwrap();
        let _socket = UnixListener::bind(www.join("socket")).unwrap();
        assert_eq!(status(&root, "fifo"), Some(Status::Forbidden));
        assert_eq!(status(&root, "socket"), Some(Status::Forbidden));
    }

    #[test]
    fn the_root_must_be_a_directory() {
        let (directory, _root) = site();
        assert!(Root::open(&directory.path().join("secret")).is_err());
        assert!(Root::open(&directory.path().join("nothing")).is_err());
    }

    #[test]
    fn the_stamp_changes_with_the_file() {
        let (directory, root) = site();
        let stamp = |path: &[u8]| match root.find(path).unwrap() {
            Opened::File(_, stamp) => stamp,
            Opened::Directory => panic!("a directory"),
        };
        let before = stamp(b"docs/page.html");
        assert_eq!(stamp(b"docs/page.html"), before);
        fs::write(directory.path().join("www/docs/page.html"), "longer page").unwrap();
        assert_ne!(stamp(b"docs/page.html"), before);
    }
}
