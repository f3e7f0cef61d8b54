//! Where dispatchers are pinned: `xdp/dispatch-IFINDEX-ID` in the BPF file system, with a program and a link for each
//! place, `prog0-prog` and `prog0-link` on.

use core::time::Duration;
use std::env;
use std::fs::{self, DirBuilder, File, Metadata, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::thread;

use aya::programs::links::FdLink;
use aya::programs::{Extension, ProgramInfo};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use tidegate_abi::dispatcher::MAX_PROGRAMS;

use crate::error::with_causes;

/// Where the BPF file system is mounted, and the variable by which libxdp is told otherwise.
const BPFFS: &str = "/sys/fs/bpf";
const BPFFS_VARIABLE: &str = "LIBXDP_BPFFS";

/// The time for which others may have the lock. There is one for all interfaces, and a program is verified under it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);
const LOCK_STEP: Duration = Duration::from_millis(10);

/// Attempts to have a claim that others give up meanwhile.
const MAX_ATTEMPTS: u32 = 100;

/// The pins of an interface's dispatchers.
#[derive(Clone)]
pub(super) struct Pins {
    bpffs: PathBuf,
    index: u32,
}

/// The lock that libxdp takes around its changes.
pub(super) struct Lock(#[expect(dead_code, reason = "closing it unlocks")] File);

/// The claim of the one tidegate that may be below dispatchers of an interface. The kernel ends it with the process.
pub(super) struct Claim {
    directory: PathBuf,
    _file: File,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Never mind if another has it by now.
        let _ = fs::remove_dir(&self.directory);
    }
}

impl Pins {
    /// # Errors
    ///
    /// A sentence: there is no BPF file system.
    pub(super) fn open(index: u32) -> Result<Self, String> {
        let pins = Self { bpffs: bpffs()?, index };
        let root = pins.root();
        make(&root).map_err(|error| format!("cannot make {}: {error}", root.display()))?;
        Ok(pins)
    }

    /// # Errors
    ///
    /// A sentence: another process has the lock, for a minute.
    pub(super) fn lock(&self) -> Result<Lock, String> {
        let root = self.root();
        let failed = |error| format!("cannot lock {}: {error}", root.display());
        let file = File::open(&root).map_err(failed)?;
        let mut waited = Duration::ZERO;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock(file)),
                Err(TryLockError::WouldBlock) if waited < LOCK_TIMEOUT => {
                    thread::sleep(LOCK_STEP);
                    waited += LOCK_STEP;
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
    }

    /// # Errors
    ///
    /// A sentence: another tidegate has it.
    pub(super) fn claim(&self) -> Result<Claim, String> {
        // The same number may be another interface's in another network namespace.
        let namespace = fs::metadata("/proc/thread-self/ns/net").map_or(0, |metadata| metadata.ino());
        let directory = self.bpffs.join("tidegate").join(format!("{}-{namespace}", self.index));
        let failed = |error| format!("cannot lock {}: {error}", directory.display());
        make(&self.bpffs.join("tidegate")).map_err(failed)?;
        for _ in 0..MAX_ATTEMPTS {
            make(&directory).map_err(failed)?;
            let file = match File::open(&directory) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened.map_err(failed)?,
            };
            match file.try_lock() {
                Ok(()) if is_at(&file, &directory) => return Ok(Claim { directory, _file: file }),
                // Removed by its last owner since it was opened.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err("one of them is another tidegate's, which serves it".to_owned());
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
        Err(format!("others keep making and removing {}", directory.display()))
    }

    /// The program in a place of dispatcher `id`.
    pub(super) fn program(&self, id: u32, place: usize) -> PathBuf {
        self.directory(id).join(format!("prog{place}-prog"))
    }

    /// Pins a program and its link in a place of dispatcher `id`.
    ///
    /// # Errors
    ///
    /// The kernel's, as a sentence.
    pub(super) fn pin(&self, id: u32, place: usize, link: FdLink, program: &mut Extension) -> Result<(), String> {
        let directory = self.directory(id);
        let failed = |error: &dyn std::error::Error| {
            format!(
                "cannot pin a program below {}: {}",
                directory.display(),
                with_causes(error)
            )
        };
        make(&directory).map_err(|error| failed(&error))?;
        let path = directory.join(format!("prog{place}-link"));
        link.pin(path).map_err(|error| failed(&error))?;
        program.pin(self.program(id, place)).map_err(|error| failed(&error))
    }

    /// The place of program `program` below dispatcher `id`.
    pub(super) fn place_of(&self, id: u32, program: u32) -> Option<usize> {
        (0..MAX_PROGRAMS).find(|&place| {
            let pinned = ProgramInfo::from_pin(self.program(id, place));
            pinned.is_ok_and(|pinned| pinned.id() == program)
        })
    }

    /// Unpins dispatcher `id`, which is on no interface.
    pub(super) fn remove(&self, id: u32) {
        let directory = self.directory(id);
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            warn_unless_removed(&entry.path(), fs::remove_file(entry.path()));
        }
        warn_unless_removed(&directory, fs::remove_dir(&directory));
    }

    /// Unpins program `program` wherever it is, with its links: nobody knows what is on the interface.
    pub(super) fn forget(&self, program: u32) {
        let prefix = format!("dispatch-{}-", self.index);
        let directories = fs::read_dir(self.root()).into_iter().flatten().flatten();
        for id in directories.filter_map(|entry| entry.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok()) {
            let Some(place) = self.place_of(id, program) else {
                continue;
            };
            let directory = self.directory(id);
            for name in ["link", "prog"] {
                let path = directory.join(format!("prog{place}-{name}"));
                warn_unless_removed(&path, fs::remove_file(&path));
            }
            // It was the only one, or the others stay.
            let _ = fs::remove_dir(&directory);
        }
    }

    fn root(&self) -> PathBuf {
        self.bpffs.join("xdp")
    }

    fn directory(&self, id: u32) -> PathBuf {
        self.root().join(format!("dispatch-{}-{id}", self.index))
    }
}

/// The BPF file system.
///
/// # Errors
///
/// A sentence: there is none.
pub(super) fn bpffs() -> Result<PathBuf, String> {
    let path = env::var_os(BPFFS_VARIABLE).map_or_else(|| PathBuf::from(BPFFS), PathBuf::from);
    check_kind(&path).map(|()| path)
}

/// Checks that a directory is of a BPF file system: elsewhere nothing can be pinned.
fn check_kind(path: &Path) -> Result<(), String> {
    let reason = match statfs(path) {
        Ok(found) if found.filesystem_type() == BPF_FS_MAGIC => return Ok(()),
        Ok(_) => "it is of another kind".to_owned(),
        Err(errno) => errno.to_string(),
    };
    let path = path.display();
    Err(format!(
        "there is no BPF file system at {path} ({reason}); mount it with `mount -t bpf bpf {path}`"
    ))
}

/// Whether an open directory is still that at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let inode = |metadata: Metadata| (metadata.dev(), metadata.ino());
    let opened = file.metadata().map(inode).ok();
    opened.is_some() && opened == fs::metadata(path).map(inode).ok()
}

/// Makes a directory that may be there, for its owner alone as libxdp does.
fn make(directory: &Path) -> std::io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn warn_unless_removed(path: &Path, result: std::io::Result<()>) {
    if let Err(error) = result
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!("{} stays pinned: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_the_claim_until_it_ends() {
        let bpffs = tempfile::tempdir().expect("a temporary directory");
        let pins = Pins {
            bpffs: bpffs.path().to_owned(),
            index: 7,
        };
        let claim = pins.claim().expect("nobody has it");
        let refused = pins.claim().err().expect("it is taken");
        assert!(refused.contains("another tidegate"), "{refused}");
        drop(claim);
        pins.claim().expect("it is free again");
    }

    #[test]
    fn a_directory_that_was_removed_is_not_the_one_that_was_made_anew() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let path = parent.path().join("7-1");
        make(&path).expect("a directory");
        let file = File::open(&path).expect("it is there");
        assert!(is_at(&file, &path));
        fs::remove_dir(&path).expect("it is empty");
        assert!(!is_at(&file, &path));
        make(&path).expect("a directory");
        assert!(!is_at(&file, &path));
    }

    #[test]
    fn nothing_is_pinned_in_a_file_system_of_another_kind() {
        let other = tempfile::tempdir().expect("a temporary directory");
        for path in [other.path(), &other.path().join("nosuch")] {
            let sentence = check_kind(path).expect_err("no BPF file system");
            let remedy = format!("`mount -t bpf bpf {}`", path.display());
            assert!(
                sentence.contains("there is no BPF file system at") && sentence.ends_with(&remedy),
                "{sentence}"
            );
        }
    }

    #[test]
    fn dispatchers_are_pinned_where_libxdp_looks_for_them() {
        let pins = Pins {
            bpffs: PathBuf::from(BPFFS),
            index: 3,
        };
        assert_eq!(
            pins.program(12, 1),
            Path::new("/sys/fs/bpf/xdp/dispatch-3-12/prog1-prog")
        );
    }
}
