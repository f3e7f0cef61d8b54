//! The root directory, out of which no path leads.

use std::fs::{File, Metadata, OpenOptions};
use std::hash::Hash;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::status::Status;

/// The reason a path cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenError {
    /// The path is at fault: the status says how.
    Refused(Status),
    /// The path is not: no descriptor or memory is left.
    Exhausted(Errno),
}

/// Further attempts to open when a rename at the same moment made the kernel lose track.
const RACE_RETRIES: usize = 8;

/// The directory that is served.
pub(super) struct Root {
    directory: File,
}

/// The object that a path names.
#[derive(Debug)]
pub(super) enum Opened {
    /// A regular file, open for reading.
    File(File, Stamp),
    Directory,
}

/// Identity and state of a file: as long as none of it changes, neither did the content, once the stamp is settled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Length in bytes.
    pub(super) length: u64,
    /// Last modification in seconds since 1970; it can be set at will.
    pub(super) modified: i64,
    /// Nanoseconds of the last modification within its second.
    pub(super) modified_nanos: i64,
    /// Last change of content or attributes in seconds since 1970; the kernel alone sets it.
    pub(super) changed: i64,
    /// Nanoseconds of the last change within its second.
    pub(super) changed_nanos: i64,
    /// Hard links, whose number changes with the file, but not with its content.
    links: u64,
}

/// The time within which two changes of a file can have the same time: the kernel's clock for files ticks every 10 ms
/// at the slowest.
const CLOCK_GRANULARITY: Duration = Duration::from_millis(20);

/// The same for file systems that keep whole seconds, or two.
const COARSE_GRANULARITY: Duration = Duration::from_secs(2);

impl Stamp {
    /// The stamp of an open file.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        file.metadata().map(|metadata| Self::new(&metadata))
    }

    fn new(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: metadata.mtime(),
            modified_nanos: metadata.mtime_nsec(),
            changed: metadata.ctime(),
            changed_nanos: metadata.ctime_nsec(),
            links: metadata.nlink(),
        }
    }

    /// The stamp that tells one version of a file from all others.
    pub(super) fn version(&self) -> impl Hash {
        (
            (self.device, self.inode, self.length),
            (self.modified, self.modified_nanos),
            (self.changed, self.changed_nanos),
        )
    }

    /// True where a change after `wall`, the time since 1970, changes the stamp: the last one is older than the
    /// granularity of the times. A change from the future, by a clock of another machine, never is.
    pub(super) fn is_settled(&self, wall: Duration) -> bool {
        let granularity = if self.changed_nanos == 0 {
            COARSE_GRANULARITY
        } else {
            CLOCK_GRANULARITY
        };
        let changed = i128::from(self.changed) * 1_000_000_000 + i128::from(self.changed_nanos);
        i128::try_from(wall.saturating_sub(granularity).as_nanos()).is_ok_and(|latest| changed < latest)
    }

    /// True where the time of modification is that of the last change, to the second: nobody has set it.
    pub(super) fn has_genuine_modification_time(&self) -> bool {
        self.modified == self.changed
    }

    /// True where the open file with this stamp, which now has the stamp `present`, may have been written to. A file
    /// that was linked, unlinked or replaced by rename was changed but not written to. Of other attributes that cannot
    /// be said: `cp -p` sets them, too.
    pub(super) fn may_have_other_content(&self, present: &Self) -> bool {
        let is_changed = (self.changed, self.changed_nanos) != (present.changed, present.changed_nanos);
        (self.length, self.modified, self.modified_nanos) != (present.length, present.modified, present.modified_nanos)
            || (is_changed && self.links == present.links)
    }

    /// A stamp of `length` bytes, last modified and changed at `modified`.
    #[cfg(test)]
    pub(super) fn for_test(length: u64, modified: i64) -> Self {
        Self {
            device: 1,
            inode: 2,
            length,
            modified,
            modified_nanos: 1,
            changed: modified,
            changed_nanos: 1,
            links: 1,
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

    /// Whether both are the same directory, which its path need not be.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let identity = |root: &Self| {
            let metadata = root.directory.metadata().ok()?;
            Some((metadata.dev(), metadata.ino()))
        };
        identity(self).is_some_and(|own| identity(other) == Some(own))
    }

    /// Opens what the relative path `path` (not empty) names. Symbolic links are followed as long as they stay
    /// beneath the root.
    ///
    /// # Errors
    ///
    /// There is nothing to be served, or it cannot be opened now.
    pub(super) fn find(&self, path: &[u8]) -> Result<Opened, OpenError> {
        let file = self.open_beneath(path).map_err(reason_of)?;
        let metadata = file
            .metadata()
            .map_err(|_| OpenError::Refused(Status::InternalServerError))?;
        if metadata.is_file() {
            Ok(Opened::File(file, Stamp::new(&metadata)))
        } else if metadata.is_dir() {
            Ok(Opened::Directory)
        } else {
            Err(OpenError::Refused(Status::Forbidden))
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

fn reason_of(errno: Errno) -> OpenError {
    OpenError::Refused(match errno {
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => return OpenError::Exhausted(errno),
        Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG | Errno::ELOOP => Status::NotFound,
        // EXDEV: a symbolic link leads out of the root. ENXIO: a socket, or a device that is not there.
        Errno::EACCES | Errno::EPERM | Errno::EXDEV | Errno::ENXIO | Errno::ENODEV => Status::Forbidden,
        _ => Status::InternalServerError,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
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
        root.find(path.as_bytes()).err().map(|error| match error {
            OpenError::Refused(status) => status,
            OpenError::Exhausted(errno) => panic!("{path}: {errno}"),
        })
    }

    #[test]
    fn what_is_exhausted_is_no_fault_of_the_path() {
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM] {
            assert_eq!(reason_of(errno), OpenError::Exhausted(errno));
        }
        for (errno, status) in [
            (Errno::ENOENT, Status::NotFound),
            (Errno::EACCES, Status::Forbidden),
            (Errno::EIO, Status::InternalServerError),
        ] {
            assert_eq!(reason_of(errno), OpenError::Refused(status));
        }
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

    fn stamp(root: &Root, path: &[u8]) -> Stamp {
        match root.find(path).unwrap() {
            Opened::File(_, stamp) => stamp,
            Opened::Directory => panic!("a directory"),
        }
    }

    #[test]
    fn the_stamp_changes_with_the_file() {
        let (directory, root) = site();
        let before = stamp(&root, b"docs/page.html");
        assert_eq!(stamp(&root, b"docs/page.html"), before);
        fs::write(directory.path().join("www/docs/page.html"), "longer page").unwrap();
        assert_ne!(stamp(&root, b"docs/page.html"), before);
    }

    #[test]
    fn a_stamp_is_settled_when_a_change_would_show() {
        let stamp = Stamp::for_test(1, 1000);
        assert!(!stamp.is_settled(Duration::from_secs(999)));
        assert!(!stamp.is_settled(Duration::from_millis(1_000_020)));
        assert!(stamp.is_settled(Duration::from_millis(1_000_021)));
        let coarse = Stamp {
            changed_nanos: 0,
            ..stamp
        };
        assert!(!coarse.is_settled(Duration::from_millis(1_001_999)));
        assert!(coarse.is_settled(Duration::from_millis(1_002_001)));
    }

    #[test]
    fn only_writing_gives_a_file_other_content() {
        let (directory, root) = site();
        let path = directory.path().join("www/docs/page.html");
        let Opened::File(file, before) = root.find(b"docs/page.html").unwrap() else {
            panic!("a directory");
        };
        let changed = || before.may_have_other_content(&Stamp::of(&file).unwrap());
        // Longer than the granularity, so that the times of what follows are others.
        std::thread::sleep(2 * CLOCK_GRANULARITY);
        assert!(!changed());
        fs::hard_link(&path, directory.path().join("link")).unwrap();
        assert!(!changed(), "linked");
        fs::remove_file(&path).unwrap();
        fs::remove_file(directory.path().join("link")).unwrap();
        assert!(!changed(), "unlinked");

        fs::write(&path, "page").unwrap();
        let Opened::File(file, before) = root.find(b"docs/page.html").unwrap() else {
            panic!("a directory");
        };
        std::thread::sleep(2 * CLOCK_GRANULARITY);
        let writer = File::options().write(true).open(&path).unwrap();
        let modified = writer.metadata().unwrap().modified().unwrap();
        fs::write(&path, "PAGE").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        writer.set_modified(modified).unwrap();
        assert!(before.may_have_other_content(&Stamp::of(&file).unwrap()), "written");
    }
}
