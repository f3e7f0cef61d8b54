//! Applies a plan, and puts back what was.
//!
//! The former values are in a file before anything is changed, so that they can be put back after whatever happens
//! meanwhile. The file also tells when there is nothing to be put back any more: after the machine was started anew, or
//! where the interface is another.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::plan::{Change, NTUPLE, Plan, served};
use crate::setting::{Device, Setting};
use crate::{FlowRule, Target};

/// Where the files are unless told otherwise.
pub const STATE_DIRECTORY: &str = "/var/lib/tidegate/nic";

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// Why a plan was not applied, or not undone.
#[derive(Debug)]
pub enum Failure {
    /// The changes of another run have not been undone.
    AlreadyApplied {
        /// The file that says so.
        file: PathBuf,
    },
    /// Another process keeps the [`Lock`].
    Busy {
        /// The interface.
        interface: String,
    },
    /// The changes that were applied are of an interface of the same name in another network namespace.
    AnotherNamespace {
        /// The file that says so.
        file: PathBuf,
        /// The interface.
        interface: String,
    },
    /// The file with what was cannot be written, read or understood.
    State {
        /// The file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A change that the plan is of no use without was refused.
    Refused {
        /// The setting and the value it was to have.
        what: String,
        /// The kernel's error.
        error: io::Error,
        /// The settings that could not be put back after that.
        left: Vec<String>,
    },
}

impl std::error::Error for Failure {}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::AlreadyApplied { file } => write!(
                f,
                "settings are applied already, or were left by a run that was killed ({}); put them back with \
                 `tidegate nic undo IFACE` first",
                file.display()
            ),
            Self::Busy { interface } => write!(f, "{interface} is being served with --tune by another process"),
            Self::AnotherNamespace { file, interface } => write!(
                f,
                "{} is about {interface} of another network namespace; put that back there, or give another directory \
                 by --state-dir",
                file.display()
            ),
            Self::State { file, error } => {
                write!(
                    f,
                    "cannot keep what was in {}: {error}; give another directory by --state-dir",
                    file.display()
                )
            }
            Self::Refused { what, error, left } => {
                write!(f, "{what} was refused ({error})")?;
                left.iter().try_for_each(|left| write!(f, "; {left}"))
            }
        }
    }
}

/// The right to change an interface's settings, which one process has at a time, until this is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes it.
    ///
    /// # Errors
    ///
    /// [`Failure::Busy`] when another process has it, or [`Failure::State`] when there can be no such file.
    pub fn take(directory: &Path, interface: &str) -> Result<Self, Failure> {
        let path = directory.join(format!("{interface}.lock"));
        let opened = fs::create_dir_all(directory).and_then(|()| File::create(&path));
        let failure = |error| Failure::State {
            file: path.clone(),
            error,
        };
        let file = opened.map_err(failure)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Failure::Busy {
                interface: interface.to_owned(),
            }),
            Err(TryLockError::Error(error)) => Err(failure(error)),
        }
    }
}

/// The settings before a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    boot_id: String,
    /// The inode of the network namespace.
    #[serde(default)]
    namespace: Option<u64>,
    /// Whether it is to last until somebody undoes it, rather than as long as the process that applied it.
    #[serde(default)]
    kept: bool,
    /// Queues that tidegate is to serve.
    #[serde(default)]
    queues: u32,
    interface: String,
    index: u32,
    permanent_mac: Option<[u8; 6]>,
    changes: Vec<Change>,
}

/// A plan that is applied, or was by another run, as the file in the state directory tells.
#[derive(Debug)]
pub struct Applied {
    file: PathBuf,
    state: State,
}

/// The outcome of undoing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// Settings that have their old values again.
    pub restored: Vec<String>,
    /// The changes that no longer apply, as sentences.
    pub left: Vec<String>,
    /// The settings that could not be put back, and stay in the file, as sentences.
    pub kept: Vec<String>,
}

/// The kernel's name for the time since the machine was started.
pub fn boot_id() -> String {
    fs::read_to_string(BOOT_ID)
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// The inode of the calling thread's network namespace.
fn namespace() -> Option<u64> {
    fs::metadata(NAMESPACE).ok().map(|metadata| metadata.ino())
}

impl Applied {
    /// Applies `plan` to the device that `facts` are about; `told` hears of changes that were refused and are not
    /// needed.
    ///
    /// # Errors
    ///
    /// [`Failure`]; then everything is as before, but for what the failure says.
    pub fn apply(
        plan: &Plan,
        facts: &Facts,
        device: &mut impl Device,
        directory: &Path,
        mut told: impl FnMut(String),
    ) -> Result<Self, Failure> {
        if let Some(earlier) = Self::load(directory, &facts.name)? {
            if earlier.state.boot_id == boot_id() {
                return Err(Failure::AlreadyApplied { file: earlier.file });
            }
            told(earlier.gone_with_boot());
        }
        let mut applied = Self {
            file: state_file(directory, &facts.name),
            state: State {
                boot_id: boot_id(),
                namespace: namespace(),
                kept: false,
                queues: plan.queues,
                interface: facts.name.clone(),
                index: facts.index,
                permanent_mac: facts.permanent_mac,
                changes: Vec::new(),
            },
        };
        let Err(mut failure) = applied.make(&plan.changes, facts, device, &mut told) else {
            return Ok(applied);
        };
        // From memory: the file may be older, or not be there.
        match (applied.undo(facts, device), &mut failure) {
            (Ok(undone), Failure::Refused { left, .. }) => left.extend(undone.left.into_iter().chain(undone.kept)),
            (Ok(undone), _) => undone.left.into_iter().chain(undone.kept).for_each(&mut told),
            // Told after everything is put back; where the file could not be written, that is the failure already.
            (Err(error), Failure::Refused { .. }) => failure = error,
            (Err(_), _) => {}
        }
        Err(failure)
    }

    fn make(
        &mut self,
        changes: &[Change],
        facts: &Facts,
        device: &mut impl Device,
        told: &mut impl FnMut(String),
    ) -> Result<(), Failure> {
        let mut context = None;
        for change in changes {
            let mut change = change.clone();
            with_context(&mut change, context);
            // Before it is made: a run that is killed right after it has to be undone, too.
            self.state.changes.push(change.clone());
            self.save()?;
            match device.set(&change.after) {
                Ok(set) => {
                    if let Setting::RssContext { id, .. } = set {
                        context = id;
                    }
                    self.state.changes.last_mut().expect("it was pushed").note(set);
                    self.save()?;
                }
                Err(error) if change.essential => {
                    let what = format!("{} {}", change.after.name(), change.after.value());
                    self.state.changes.pop();
                    let left = Vec::new();
                    return Err(Failure::Refused { what, error, left });
                }
                Err(error) => {
                    told(format!(
                        "{} is left at {}: {error}",
                        change.after.name(),
                        change.before.value()
                    ));
                    self.state.changes.pop();
                    if let Setting::Channels { .. } = change.after {
                        self.state.queues = served(facts);
                    }
                    self.save()?;
                }
            }
        }
        Ok(())
    }

    /// The changes that were applied to `interface` and are not undone; `None` if there are none.
    ///
    /// # Errors
    ///
    /// [`Failure::State`] when the file cannot be read, and [`Failure::AnotherNamespace`].
    pub fn load(directory: &Path, interface: &str) -> Result<Option<Self>, Failure> {
        let file = state_file(directory, interface);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::State { file, error }),
        };
        match serde_json::from_str::<State>(&text) {
            // Namespaces of an earlier boot are gone.
            Ok(state)
                if state.boot_id == boot_id() && state.namespace.is_some_and(|known| Some(known) != namespace()) =>
            {
                Err(Failure::AnotherNamespace {
                    file,
                    interface: interface.to_owned(),
                })
            }
            Ok(state) => Ok(Some(Self { file, state })),
            Err(error) => Err(Failure::State {
                file,
                error: error.into(),
            }),
        }
    }

    /// Has it last until somebody undoes it.
    ///
    /// # Errors
    ///
    /// [`Failure::State`] when the file cannot be written.
    pub fn keep(&mut self) -> Result<(), Failure> {
        self.state.kept = true;
        self.save()
    }

    /// Whether it lasts until somebody undoes it, on the interface that `facts` are about.
    pub fn is_kept(&self, facts: &Facts) -> bool {
        let lasts = |change: &Change| self.no_longer(change, facts).is_none();
        self.state.kept
            && self.state.index == facts.index
            && self.state.boot_id == boot_id()
            && self.state.changes.iter().all(lasts)
    }

    /// Queues that tidegate is to serve, from queue 0 on.
    pub fn queues(&self) -> u32 {
        self.state.queues
    }

    /// The changes.
    pub fn changes(&self) -> &[Change] {
        &self.state.changes
    }

    /// Removes the file, and puts nothing back.
    ///
    /// # Errors
    ///
    /// [`Failure::State`] when the file cannot be removed.
    pub fn forget(self) -> Result<(), Failure> {
        fs::remove_file(&self.file).or_else(|error| match error.kind() {
            // Nothing was changed.
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(Failure::State { file: self.file, error }),
        })
    }

    /// Puts everything back that is still as it was left, and removes the file, or leaves in it what could not be put
    /// back. `facts` are those of the interface now.
    ///
    /// # Errors
    ///
    /// [`Failure::State`] when the file cannot be removed or written.
    pub fn undo(self, facts: &Facts, device: &mut impl Device) -> Result<Undone, Failure> {
        self.undo_if(&boot_id(), Some(facts), device)
    }

    /// As [`Applied::undo`], where there is no such interface: the file stays, since it may come back.
    ///
    /// # Errors
    ///
    /// As [`Applied::undo`].
    pub fn undo_without_interface(self, device: &mut impl Device) -> Result<Undone, Failure> {
        self.undo_if(&boot_id(), None, device)
    }

    fn undo_if(mut self, boot_id: &str, facts: Option<&Facts>, device: &mut impl Device) -> Result<Undone, Failure> {
        let mut undone = Undone::default();
        if self.state.boot_id != boot_id {
            undone.left.push(self.gone_with_boot());
            self.forget()?;
            return Ok(undone);
        }
        let mut kept = Vec::new();
        // Looked at before anything is changed: drivers change other settings along with some.
        let mut found = Vec::new();
        for (place, change) in self.state.changes.iter().enumerate() {
            if facts.is_none() && !change.after.is_of_the_machine() {
                let (name, interface) = (change.after.name(), &self.state.interface);
                undone
                    .kept
                    .push(format!("{name}: there is no interface {interface} any more"));
                kept.push(place);
            } else if let Some(sentence) = facts.and_then(|facts| self.no_longer(change, facts)) {
                undone.left.push(sentence);
            } else {
                found.push((place, change, device.current(&change.after)));
            }
        }
        found.reverse();
        found.sort_by_key(|(_, change, _)| change.after.undo_rank());
        for (place, change, current) in found {
            if !put_back(change, current, device, &mut undone) {
                kept.push(place);
            }
        }
        if kept.is_empty() {
            self.forget()?;
            return Ok(undone);
        }
        let mut place = 0..;
        self.state
            .changes
            .retain(|_| place.next().is_some_and(|place| kept.contains(&place)));
        self.state.kept = false;
        self.save()?;
        Ok(undone)
    }

    fn gone_with_boot(&self) -> String {
        let names: Vec<String> = self.changes().iter().map(|change| change.after.name()).collect();
        format!(
            "the machine was started anew since, and what was set is gone with that: {}",
            names.join(", ")
        )
    }

    /// Why a change cannot be put back on the interface that has the name now.
    fn no_longer(&self, change: &Change, facts: &Facts) -> Option<String> {
        let State {
            interface,
            index,
            permanent_mac,
            ..
        } = &self.state;
        if change.after.is_of_the_machine() {
            return None;
        }
        let name = change.after.name();
        if facts.permanent_mac != *permanent_mac {
            return Some(format!(
                "{name}: {interface} is another device now, by its permanent address"
            ));
        }
        (facts.index != *index && permanent_mac.is_none())
            .then(|| format!("{name}: {interface} was made anew since, and has what its driver gave it"))
    }

    fn save(&self) -> Result<(), Failure> {
        let failure = |error| Failure::State {
            file: self.file.clone(),
            error,
        };
        let write = || -> io::Result<()> {
            let directory = self.file.parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(directory)?;
            let new = self.file.with_extension("new");
            let mut file = File::create(&new)?;
            file.write_all(serde_json::to_string_pretty(&self.state)?.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &self.file)
        };
        write().map_err(failure)
    }
}

impl Change {
    /// Notes what the driver has added to what was set.
    fn note(&mut self, set: Setting) {
        match (&mut self.before, &set) {
            (Setting::RssContext { id, .. }, Setting::RssContext { id: given, .. }) => *id = *given,
            (Setting::FlowRule { location, .. }, Setting::FlowRule { location: given, .. }) => *location = *given,
            _ => {}
        }
        self.after = set;
    }
}

/// Has a rule send to the context that was made.
fn with_context(change: &mut Change, context: Option<u32>) {
    let Some(id) = context else { return };
    for setting in [&mut change.before, &mut change.after] {
        if let Setting::FlowRule {
            rule: FlowRule {
                target: target @ Target::Context(_),
                ..
            },
            ..
        } = setting
        {
            *target = Target::Context(id);
        }
    }
}

/// Returns whether that is done with; otherwise it is to be tried again.
fn put_back(
    change: &Change,
    current: io::Result<Option<Setting>>,
    device: &mut impl Device,
    undone: &mut Undone,
) -> bool {
    let (name, was) = (change.after.name(), change.before.value());
    let current = match current {
        Ok(current) => current,
        Err(error) => {
            undone
                .kept
                .push(format!("{name}: it cannot be told ({error}); it was {was}"));
            return false;
        }
    };
    match current {
        None => undone.left.push(format!("{name}: it is gone")),
        Some(current) if same(&current, &change.before) => undone.restored.push(format!("{name}: {was} already")),
        Some(current) if !same(&current, &change.after) => undone.left.push(format!(
            "{name}: somebody has set it to {} since, and it is left at that; it was {was}",
            current.value()
        )),
        Some(_) if matches!(&change.before, Setting::Feature { name, on: false } if name == NTUPLE) => {
            match device.flow_rules() {
                Ok(0) => return set_back(change, device, undone),
                // Rules of our own are gone by now.
                Ok(count) if undone.kept.is_empty() => undone.left.push(format!(
                    "{name}: it is left on, since {count} rules that are not tidegate's would go with it"
                )),
                Ok(_) => {
                    undone
                        .kept
                        .push(format!("{name}: it is left on, since there are still rules"));
                    return false;
                }
                Err(error) => {
                    undone.kept.push(format!(
                        "{name}: whether there are still rules cannot be told ({error})"
                    ));
                    return false;
                }
            }
        }
        Some(_) => return set_back(change, device, undone),
    }
    true
}

/// Sets what was, and returns whether that is done.
fn set_back(change: &Change, device: &mut impl Device, undone: &mut Undone) -> bool {
    let (name, was) = (change.after.name(), change.before.value());
    match device.set(&change.before) {
        Ok(_) => {
            undone.restored.push(format!("{name}: {was}"));
            true
        }
        Err(error) => {
            undone.kept.push(format!("{name}: {was} was refused ({error})"));
            false
        }
    }
}

/// Whether two values are the same, wherever a rule is.
fn same(one: &Setting, other: &Setting) -> bool {
    match (one, other) {
        (
            Setting::FlowRule { rule, present, .. },
            Setting::FlowRule {
                rule: other_rule,
                present: other_present,
                ..
            },
        ) => rule == other_rule && present == other_present,
        (Setting::RssContext { table, .. }, Setting::RssContext { table: other, .. }) => table == other,
        _ => one == other,
    }
}

fn state_file(directory: &Path, interface: &str) -> PathBuf {
    directory.join(format!("{interface}.json"))
}

#[cfg(test)]
mod tests;
