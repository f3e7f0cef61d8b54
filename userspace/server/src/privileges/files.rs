//! The files within reach, by Landlock.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _,
    RulesetError, RulesetStatus, path_beneath_rules,
};
use tidegate_runtime::Attach;
use tracing::warn;

use crate::failure::Failure;
use crate::settings::Settings;

/// The rights that are handled: those of Linux 6.2. A kernel that has fewer denies those it has.
const RIGHTS: ABI = ABI::V3;

/// Read by every server: what the kernel tells, random numbers, and users by their names.
const READ: [&str; 8] = [
    "/proc",
    "/sys",
    "/dev/urandom",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/usr/lib",
    "/lib",
];

/// Where a service's logs are, unless the service manager says otherwise.
const LOGS: &str = "/var/log/tidegate";

/// Written to prepare devices and to put them back (`--tune`).
const TUNED: [&str; 3] = ["/proc/irq", "/proc/sys", "/sys"];

/// The files of a server.
#[derive(Debug, Default, PartialEq, Eq)]
struct Files {
    /// Read, with all that is below.
    read: Vec<PathBuf>,
    /// Written to: files that are there.
    written: Vec<PathBuf>,
    /// Folders in which files and sockets are made and removed.
    owned: Vec<PathBuf>,
}

impl Files {
    fn of(settings: &Settings) -> Self {
        let config = &settings.config;
        let mut files = Self {
            read: READ.iter().map(PathBuf::from).collect(),
            ..Self::default()
        };
        files.read.extend(config.http.root.clone());
        files.read.extend(config.privileges.read.iter().cloned());
        // The folders: files may be replaced by others of their names before they are read again.
        files.read.extend(settings.config_file.as_deref().map(folder_of));
        files.read.extend(config.syn_cookies.key_file.as_deref().map(folder_of));
        files.owned.extend(config.control.path.as_deref().map(folder_of));
        files.owned.extend(config.afxdp.take_over.as_deref().map(folder_of));
        files.owned.extend(config.access_log.path.as_deref().map(folder_of));
        files
            .owned
            .extend(log_folders(env::var_os("LOGS_DIRECTORY").as_deref()));
        if let Some(state) = &settings.tune {
            files.owned.push(state.clone());
            files.written.extend(TUNED.iter().map(PathBuf::from));
        }
        if config.afxdp.attach == Attach::Dispatcher {
            let mounted = env::var_os("LIBXDP_BPFFS").unwrap_or_else(|| "/sys/fs/bpf".into());
            files.owned.push(mounted.into());
        }
        files
    }
}

/// The folders that a service has for logs, whether it writes any yet or not: a reload may turn them on. `named` is
/// what the service manager says (`LogsDirectory=` of systemd.exec(5)).
fn log_folders(named: Option<&OsStr>) -> Vec<PathBuf> {
    let named = named.map(|named| env::split_paths(named).filter(|folder| folder.is_absolute()).collect());
    named.unwrap_or_else(|| vec![LOGS.into()])
}

/// The folder that a file is in.
fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A use of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It is read.
    Read,
    /// It is made, or written to.
    Write,
}

/// The files and folders within reach, as the kernel knows them: one of the same name that takes the place of another
/// is not that one.
#[derive(Debug)]
pub(super) struct Reach {
    read: Vec<Known>,
    owned: Vec<Known>,
}

/// A file or folder, by device and inode.
#[derive(Debug)]
struct Known {
    path: PathBuf,
    id: (u64, u64),
}

impl Known {
    /// `None`: there is none.
    fn at(path: &Path) -> Option<Self> {
        Some(Self {
            path: path.to_owned(),
            id: id_of(path)?,
        })
    }
}

/// Device and inode of what is at `path`.
fn id_of(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Reach {
    fn of(files: &Files) -> Self {
        let known = |paths: &[PathBuf]| paths.iter().filter_map(|path| Known::at(path)).collect();
        Self {
            read: known(&files.read),
            owned: known(&files.owned),
        }
    }

    /// Why the file at `path`, or a new one of that name, is out of reach, as a clause with a remedy. `None`: it is
    /// not, or there is no folder for it.
    pub(super) fn objection(&self, path: &Path, access: Access) -> Option<String> {
        // A pipe that is open already, as `/dev/stdout`, has a path to no folder.
        if fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) && fs::canonicalize(path).is_err() {
            return None;
        }
        let real = fs::canonicalize(path)
            .or_else(|_| fs::canonicalize(folder_of(path)))
            .ok()?;
        let read = if access == Access::Read { &self.read[..] } else { &[] };
        let known = || self.owned.iter().chain(read);
        let is_known = |place: &Path| id_of(place).is_some_and(|id| known().any(|known| known.id == id));
        if real.ancestors().any(is_known) {
            return None;
        }
        let folders = self.owned.iter().map(|known| known.path.display().to_string());
        let folders: BTreeSet<_> = folders.collect();
        Some(match access {
            Access::Read => format!(
                "{} is not among the files that this server can reach since its start (Landlock); to have it read the \
                 server needs a restart, or `privileges.read` that has a folder above it at the start",
                path.display()
            ),
            Access::Write if folders.is_empty() => format!(
                "this server can make no files since its start (Landlock), and {} would be one; it needs a restart",
                path.display()
            ),
            Access::Write => format!(
                "{} is in none of the folders in which this server can make files since its start (Landlock), which are \
                 {}; name a file there, or restart the server",
                path.display(),
                folders.into_iter().collect::<Vec<_>>().join(", ")
            ),
        })
    }
}

/// Whether Landlock is in force for a thread of this process.
static IS_ENFORCED: AtomicBool = AtomicBool::new(false);

pub(super) fn is_enforced() -> bool {
    IS_ENFORCED.load(Ordering::Relaxed)
}

/// Checks that the folder of `path` can be written to by this user and group, as sockets take that change hands.
///
/// # Errors
///
/// A sentence with the remedy.
pub(super) fn check_writable(path: &Path, (user, group): (u32, u32)) -> Result<(), String> {
    let folder = folder_of(path);
    let may_write = |folder: &fs::Metadata| {
        let mode = folder.mode();
        let is_own = folder.uid() == user && mode & 0o200 != 0;
        is_own || folder.gid() == group && mode & 0o020 != 0 || mode & 0o002 != 0
    };
    if fs::metadata(&folder).is_ok_and(|folder| may_write(&folder)) {
        return Ok(());
    }
    Err(format!(
        "to be taken over from, the user of the key `privileges.user` has to write to {}, the folder of {}; `chown` it",
        folder.display(),
        path.display()
    ))
}

/// The rules for a server with `settings`, and what they leave; `None`, logged, where the kernel has no Landlock.
///
/// # Errors
///
/// The folder for the state of devices cannot be made.
pub(super) fn ruleset(settings: &Settings) -> Result<Option<(RulesetCreated, Reach)>, Failure> {
    if let Some(state) = &settings.tune {
        fs::create_dir_all(state).map_err(|source| Failure::System {
            what: format!("cannot make {}", state.display()),
            source,
        })?;
    }
    let files = Files::of(settings);
    let rules = rules(&files).map_err(|error| warn!("files are not out of reach: Landlock says {error}"));
    Ok(rules.ok().map(|rules| (rules, Reach::of(&files))))
}

fn rules(files: &Files) -> Result<RulesetCreated, RulesetError> {
    let all = AccessFs::from_all(RIGHTS);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write: BitFlags<AccessFs> = read | AccessFs::WriteFile | AccessFs::Truncate;
    // Nothing is executed, and no device is made.
    let own = all & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock);
    Ruleset::default()
        .handle_access(all)?
        .create()?
        .add_rules(path_beneath_rules(&files.read, read))?
        .add_rules(path_beneath_rules(&files.written, write))?
        .add_rules(path_beneath_rules(&files.owned, own))
}

/// Confines the calling thread, and those that it starts.
pub(super) fn confine_thread(rules: &RulesetCreated) {
    let confined = rules
        .try_clone()
        .map_err(|error| error.to_string())
        .and_then(|rules| rules.restrict_self().map_err(|error| error.to_string()));
    match confined {
        Ok(status) if status.ruleset == RulesetStatus::NotEnforced => {
            warn!("files are not out of reach: this kernel has no Landlock, or it is not among `lsm=`");
        }
        Ok(_) => IS_ENFORCED.store(true, Ordering::Relaxed),
        Err(error) => warn!("files are not out of reach: Landlock says {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::thread;

    use super::*;

    #[test]
    fn a_folder_can_be_written_to_by_its_owner_its_group_or_everybody() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let (path, own) = (folder.path().join("socket"), fs::metadata(folder.path()).unwrap());
        let (user, group) = (own.uid(), own.gid());
        for (mode, who, is_fine) in [
            (0o700, (user, group + 1), true),
            (0o500, (user, group + 1), false),
            (0o770, (user + 1, group), true),
            (0o755, (user + 1, group), false),
            (0o757, (user + 1, group + 1), true),
        ] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(check_writable(&path, who).is_ok(), is_fine, "{mode:o} {who:?}");
        }
        let error = check_writable(Path::new("/nonexistent/socket"), (user, group)).unwrap_err();
        assert!(error.contains("/nonexistent"), "{error}");
    }

    #[test]
    fn a_thread_reaches_what_it_was_given_and_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        for folder in ["www", "own", "other"] {
            fs::create_dir(scratch.path().join(folder)).unwrap();
            fs::write(scratch.path().join(folder).join("file"), "text").unwrap();
        }
        let path = |name: &str| scratch.path().join(name);
        let rules = rules(&Files {
            read: vec![path("www"), path("missing")],
            written: vec![],
            owned: vec![path("own")],
        })
        .unwrap();
        let denied = |result: std::io::Result<()>| result.unwrap_err().kind() == ErrorKind::PermissionDenied;
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    let status = rules.try_clone().unwrap().restrict_self().unwrap();
                    if status.ruleset == RulesetStatus::NotEnforced {
                        return;
                    }
                    assert_eq!(fs::read_to_string(path("www/file")).unwrap(), "text");
                    assert!(denied(fs::write(path("www/file"), "other")));
                    assert!(denied(fs::write(path("www/new"), "other")));
                    assert!(denied(fs::read(path("other/file")).map(drop)));
                    fs::write(path("own/new"), "mine").unwrap();
                    fs::remove_file(path("own/file")).unwrap();
                    assert!(denied(std::process::Command::new("/bin/true").status().map(drop)));
                })
                .join()
                .unwrap();
        });
        // Others are as free as before.
        fs::read(path("other/file")).unwrap();
    }

    #[test]
    fn what_is_out_of_reach_is_known_by_the_folders_there_were_and_not_by_their_names() {
        let scratch = tempfile::tempdir().unwrap();
        for folder in ["www", "own", "own/below", "other"] {
            fs::create_dir(scratch.path().join(folder)).unwrap();
        }
        let path = |name: &str| scratch.path().join(name);
        fs::write(path("other/file"), "text").unwrap();
        std::os::unix::fs::symlink(path("other/file"), path("own/link")).unwrap();
        let reach = Reach::of(&Files {
            read: vec![path("www"), path("missing")],
            written: vec![],
            owned: vec![path("own")],
        });
        let is_refused = |name: &str, access| reach.objection(&path(name), access).is_some();
        for (name, reads, writes) in [
            ("www/file", true, false),
            ("www", true, false),
            ("own/new", true, true),
            ("own/below/new", true, true),
            ("own/../own/new", true, true),
            ("other/file", false, false),
            ("other/new", false, false),
            ("own/link", false, false),
        ] {
            let refused = [Access::Read, Access::Write].map(|access| is_refused(name, access));
            assert_eq!(refused, [!reads, !writes], "{name}");
        }
        // That there is no folder is said by the attempt.
        assert!(!is_refused("nowhere/new", Access::Write));
        let objection = reach.objection(&path("other/new"), Access::Write).unwrap();
        assert!(objection.contains(path("own").to_str().unwrap()), "{objection}");
        fs::rename(path("own"), path("older")).unwrap();
        fs::create_dir(path("own")).unwrap();
        assert!(is_refused("own/new", Access::Write) && !is_refused("older/new", Access::Write));
    }

    #[test]
    fn logs_may_be_turned_on_later_where_the_service_has_its_folder() {
        let folders = |named: Option<&str>| log_folders(named.map(OsStr::new));
        assert_eq!(folders(None), [Path::new("/var/log/tidegate")]);
        assert_eq!(
            folders(Some("/logs/a:/logs/b")),
            [Path::new("/logs/a"), Path::new("/logs/b")]
        );
        assert_eq!(folders(Some("")), Vec::<PathBuf>::new());
        let files = Files::of(&Settings::of_test());
        assert!(
            log_folders(env::var_os("LOGS_DIRECTORY").as_deref())
                .iter()
                .all(|folder| files.owned.contains(folder))
        );
    }

    #[test]
    fn the_folder_of_a_file_is_where_its_successors_are() {
        for (file, folder) in [
            ("/etc/tidegate/a.toml", "/etc/tidegate"),
            ("a.toml", "."),
            ("/a.toml", "/"),
        ] {
            assert_eq!(folder_of(Path::new(file)), Path::new(folder));
        }
    }
}
