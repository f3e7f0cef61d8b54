//! The privileges of a server that serves: the capabilities, files and system calls that are left to its threads once
//! everything is set up. `docs/security.md` lists them with their reasons.
//!
//! Capabilities, identity and Landlock's rules belong to threads. The main thread gives up what it can just before the
//! first shard is started, so that all that are started later have as little; a thread that is started before calls
//! [`confine_helper`]. The filter of system calls is put on all threads at once.

mod capabilities;
mod files;
mod system_calls;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use landlock::RulesetCreated;
use nix::unistd::User;
use serde::Deserialize;
use tikv_jemalloc_ctl::background_thread;
use tracing::{debug, warn};

use crate::failure::Failure;
use crate::settings::Settings;
use capabilities::Capabilities;
pub(crate) use files::Access;
use files::Reach;

/// The table `[privileges]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The user to serve as; without it the process's own.
    pub(crate) user: Option<String>,
    /// Whether files other than those that serving takes are out of reach.
    pub(crate) landlock: bool,
    /// Files and directories that may be read besides.
    pub(crate) read: Vec<PathBuf>,
    /// The treatment of system calls that serving does not take.
    pub(crate) seccomp: Seccomp,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            user: None,
            landlock: true,
            read: Vec::new(),
            seccomp: Seccomp::On,
        }
    }
}

/// The treatment of system calls that serving does not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Seccomp {
    /// They fail as if the kernel had them not (ENOSYS).
    #[default]
    On,
    /// They are made, and logged by the kernel.
    Log,
    /// They are made.
    Off,
}

/// The limits of this process.
struct Policy {
    /// User and group to become.
    identity: Option<(u32, u32)>,
    kept: Capabilities,
    files: Option<(RulesetCreated, Reach)>,
    seccomp: Seccomp,
}

static POLICY: OnceLock<Policy> = OnceLock::new();

/// Decides what a server with `settings` is confined to. To be called before threads are started.
///
/// # Errors
///
/// A usage failure: the user is nobody's name, or the devices could not be put back as that user.
pub(crate) fn prepare(settings: &Settings) -> Result<(), Failure> {
    let config = &settings.config.privileges;
    let identity = config.user.as_deref().map(identity_of).transpose()?;
    if identity.is_some() && settings.tune.is_some() {
        return Err(Failure::Usage(
            "with --tune the server stays root, to put settings of devices back; leave out --tune or the key \
             `privileges.user`, and use `tidegate nic apply` instead"
                .to_owned(),
        ));
    }
    if let Some(identity) = identity
        && settings.config.afxdp.take_over.is_some()
    {
        let config = &settings.config;
        for path in [&config.afxdp.take_over, &config.control.path].into_iter().flatten() {
            files::check_writable(path, identity).map_err(Failure::Usage)?;
        }
    }
    let files = if config.landlock {
        files::ruleset(settings)?
    } else {
        None
    };
    let _ = POLICY.set(Policy {
        identity,
        kept: Capabilities::of(settings),
        files,
        seccomp: config.seccomp,
    });
    Ok(())
}

fn identity_of(name: &str) -> Result<(u32, u32), Failure> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok((user.uid.as_raw(), user.gid.as_raw())),
        _ => Err(Failure::Usage(format!(
            "{name} is not a user here; give the name of one (key `privileges.user`)"
        ))),
    }
}

/// Confines the calling thread, and all that it starts from now on, to what serving takes, and all threads to the
/// system calls of it. A second call does nothing.
///
/// # Errors
///
/// The kernel does not take a capability away, or the user. That it lacks Landlock or seccomp is only logged.
pub(crate) fn confine() -> io::Result<()> {
    static DONE: OnceLock<()> = OnceLock::new();
    let Some(policy) = POLICY.get().filter(|_| DONE.set(()).is_ok()) else {
        return Ok(());
    };
    // The allocator has had a thread since the first allocation. Its next one has no more than this one.
    let ended = background_thread::write(false);
    policy.confine_thread(policy.kept)?;
    system_calls::filter(policy.seccomp);
    if let Err(error) = ended.and_then(|()| background_thread::write(true)) {
        warn!("the allocator's thread cannot be started again: {error}");
    }
    Ok(())
}

/// Confines the calling thread, which needs no capability: one that was started before [`confine`] was called.
pub(crate) fn confine_helper() {
    let Some(policy) = POLICY.get() else { return };
    if let Err(error) = policy.confine_thread(Capabilities::NONE) {
        warn!("cannot give the privileges of a thread up: {error}");
    }
}

/// Why the process can no longer use the file at `path`, whatever its mode, as a clause with a remedy; `None`: it can.
pub(crate) fn objection(path: &Path, access: Access) -> Option<String> {
    let (_, reach) = POLICY.get().filter(|_| files::is_enforced())?.files.as_ref()?;
    reach.objection(path, access)
}

impl Policy {
    fn confine_thread(&self, kept: Capabilities) -> io::Result<()> {
        if let Some((rules, _)) = &self.files {
            files::confine_thread(rules);
        }
        kept.keep_only(self.identity)?;
        debug!("privileges kept: {kept}");
        Ok(())
    }
}
