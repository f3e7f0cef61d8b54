//! `tidegate nic`: shows an interface, plans what to change about it, changes it and puts it back.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::errno::Errno;
use serde_json::json;
use tidegate_nic::apply::{Applied, Failure as NotApplied, Lock, STATE_DIRECTORY, Undone};
use tidegate_nic::plan::{Plan, Wanted, plans};
use tidegate_nic::setting::Nic;
use tidegate_nic::{Facts, Linux};
use tidegate_runtime::WaitStrategy;
use tracing::{info, warn};

use crate::arguments::{NicArguments, NicCommand};
use crate::failure::Failure;
use crate::output;
use crate::say;
use crate::settings::Settings;

/// Octets of a huge page of the size that the kernel makes by itself.
const HUGE_PAGE: u64 = 2 << 20;

/// Does what `command` says.
///
/// # Errors
///
/// A usage failure, or what the kernel refused.
pub(crate) fn run(command: NicCommand) -> Result<ExitCode, Failure> {
    match command {
        NicCommand::Show { iface, json } => {
            let facts = read(&mut kernel()?, &iface)?;
            say(&if json {
                format!("{:#}\n", json!(facts))
            } else {
                show(&facts)
            });
        }
        NicCommand::Plan { arguments, json } => {
            let settings = gather(&arguments)?;
            let facts = device(&arguments.interface)?;
            let plans = plans(&facts, &wanted(&settings));
            say(&if json {
                format!("{:#}\n", json!(plans))
            } else {
                text_of(&plans)
            });
        }
        NicCommand::Apply { arguments } => {
            let settings = gather(&arguments)?;
            let facts = device(&arguments.interface)?;
            let directory = state_directory(arguments.serve.state_dir.as_deref());
            let _lock = Lock::take(&directory, &facts.name).map_err(refused)?;
            let mut applied = apply(&facts, &wanted(&settings), &directory, &mut |sentence| {
                let _ = writeln!(output::Log, "tidegate: {sentence}");
            })?;
            applied.keep().map_err(refused)?;
            say(&format!(
                "{}\nserve with --queues {}\n",
                list(&applied),
                applied.queues()
            ));
        }
        NicCommand::Undo {
            iface,
            state_dir,
            forget,
        } => {
            let directory = state_directory(state_dir.as_deref());
            let _lock = Lock::take(&directory, &iface).map_err(refused)?;
            let Some(applied) = Applied::load(&directory, &iface).map_err(refused)? else {
                say(&format!("nothing of tidegate's is applied to {iface}\n"));
                return Ok(ExitCode::SUCCESS);
            };
            let undone = undo(applied, &iface)?;
            let mut text = String::new();
            for line in &undone.restored {
                let _ = writeln!(text, "restored {line}");
            }
            for line in &undone.left {
                let _ = writeln!(text, "left     {line}");
            }
            for line in &undone.kept {
                let _ = writeln!(text, "failed   {line}");
            }
            say(&text);
            match Applied::load(&directory, &iface).map_err(refused)? {
                Some(rest) if forget => rest.forget().map_err(refused)?,
                Some(_) => return Err(not_all(&iface)),
                None => {}
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The devices of a run, prepared until this is dropped.
pub(crate) struct Tuning {
    devices: Vec<Tuned>,
    /// Of each device.
    pub(crate) queues: u32,
    /// Let go after the devices.
    _locks: Vec<Lock>,
}

impl Tuning {
    /// Whether one of the devices is gone or another one: what was set is gone with it then.
    pub(crate) fn is_stale(&self) -> bool {
        let is_same = |device: &Tuned| {
            let facts = kernel().and_then(|mut kernel| read(&mut kernel, &device.interface));
            facts.is_ok_and(|facts| facts.index == device.index)
        };
        !self.devices.iter().all(is_same)
    }
}

/// An interface that is prepared until this is dropped.
struct Tuned {
    interface: String,
    index: u32,
    queues: u32,
    /// `None` when nothing is to be undone.
    applied: Option<Applied>,
}

/// Prepares the devices of `settings` for a run: what a run that was killed has left is undone first, and what
/// `tidegate nic apply` has prepared is left as it is.
///
/// # Errors
///
/// Another process serves one of them so, the file with what was cannot be read or written, or a driver refuses every
/// plan.
pub(crate) fn tune(settings: &Settings, state_directory: &Path) -> Result<Tuning, Failure> {
    let mut locks = Vec::new();
    let mut devices = Vec::new();
    let mut prepared = Vec::new();
    for interface in &settings.interfaces {
        let facts = read(&mut kernel()?, interface)?;
        // A bond stands for its slaves.
        let names = if is_bond(&facts) {
            facts.members
        } else {
            vec![facts.name]
        };
        for name in names {
            locks.push(Lock::take(state_directory, &name).map_err(refused)?);
            if let Some(left) = Applied::load(state_directory, &name).map_err(refused)? {
                let facts = device(&name)?;
                if left.is_kept(&facts) {
                    info!("{name} is served as `tidegate nic apply` has prepared it");
                    prepared.push(Tuned {
                        interface: name,
                        index: facts.index,
                        queues: left.queues(),
                        applied: None,
                    });
                    continue;
                }
                info!("putting back what a run before has left of {name}");
                let undone = undo(left, &name)?;
                warn_of(&undone);
                if !undone.kept.is_empty() {
                    return Err(not_all(&name));
                }
            }
            devices.push(device(&name)?);
        }
    }
    let mut wanted = wanted(settings);
    // Of each device as many queues are served as of the one with the fewest.
    let of_each = devices.iter().map(|facts| plans(facts, &wanted)[0].queues);
    let fewest = of_each.chain(prepared.iter().map(|tuned| tuned.queues)).min();
    wanted.queues = fewest;
    let mut tuned = apply_to_all(&devices, &wanted, state_directory)?;
    let of_all = |tuned: &[Tuned]| tuned.iter().chain(&prepared).map(|tuned| tuned.queues).min();
    let mut queues = of_all(&tuned);
    if tuned.iter().any(|tuned| Some(tuned.queues) != queues) && queues != fewest {
        // A driver has refused the plan that the others were prepared by.
        drop(tuned);
        wanted.queues = queues;
        tuned = apply_to_all(&devices, &wanted, state_directory)?;
        queues = of_all(&tuned);
    }
    tuned.extend(prepared);
    let queues = queues.unwrap_or(1);
    for device in tuned.iter().filter(|device| device.queues > queues) {
        warn!(
            "{} has {} queues for tidegate, of which {queues} are served, as many as of every device: connections to \
             the others are the kernel's",
            device.interface, device.queues
        );
    }
    Ok(Tuning {
        devices: tuned,
        queues,
        _locks: locks,
    })
}

/// Prepares devices; if one cannot be, none is.
fn apply_to_all(devices: &[Facts], wanted: &Wanted, state_directory: &Path) -> Result<Vec<Tuned>, Failure> {
    let prepare = |facts: &Facts| {
        let told = &mut |sentence| info!("{}: {sentence}", facts.name);
        let applied = apply(facts, wanted, state_directory, told)?;
        Ok(Tuned {
            interface: facts.name.clone(),
            index: facts.index,
            queues: applied.queues(),
            applied: Some(applied),
        })
    };
    devices.iter().map(prepare).collect()
}

/// Prepares the device that `facts` are about: by the first plan that its driver takes.
fn apply(
    facts: &Facts,
    wanted: &Wanted,
    state_directory: &Path,
    told: &mut dyn FnMut(String),
) -> Result<Applied, Failure> {
    let mut kernel = kernel()?;
    for plan in &plans(facts, wanted) {
        let mut device = Nic::new(&mut kernel, facts);
        match Applied::apply(plan, facts, &mut device, state_directory, &mut *told) {
            Ok(applied) => {
                told(plan.way.clone());
                return Ok(applied);
            }
            Err(failure @ NotApplied::Refused { .. }) => {
                told(format!("{}: {failure}; what was set before it is put back", plan.way));
            }
            Err(failure) => return Err(refused(failure)),
        }
    }
    Err(Failure::Nic(format!("the driver of {} refuses every plan", facts.name)))
}

impl Drop for Tuned {
    fn drop(&mut self) {
        let Some(applied) = self.applied.take() else { return };
        match undo(applied, &self.interface) {
            Ok(undone) => {
                warn_of(&undone);
                if !undone.kept.is_empty() {
                    warn!("{}", not_all(&self.interface));
                }
            }
            Err(failure) => warn!(
                "{failure}; put the settings back with `tidegate nic undo {}`",
                self.interface
            ),
        }
    }
}

fn undo(applied: Applied, interface: &str) -> Result<Undone, Failure> {
    let mut kernel = kernel()?;
    let undone = match Facts::read(&mut kernel, interface) {
        Ok(facts) => applied.undo(&facts, &mut Nic::new(&mut kernel, &facts)),
        Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => {
            applied.undo_without_interface(&mut Nic::new(&mut kernel, &Facts::default()))
        }
        Err(source) => return Err(cannot_ask(interface, source)),
    };
    undone.map_err(refused)
}

fn warn_of(undone: &Undone) {
    let sentences = undone.left.iter().chain(&undone.kept);
    sentences.for_each(|sentence| warn!("{sentence}"));
}

fn not_all(interface: &str) -> Failure {
    Failure::Nic(format!(
        "not all settings of {interface} are put back: `tidegate nic undo {interface}` tries again, and gives up on \
         the rest with --forget"
    ))
}

fn kernel() -> Result<Linux, Failure> {
    Linux::new().map_err(|source| Failure::System {
        what: "cannot open a socket to ask the kernel by".to_owned(),
        source,
    })
}

fn read(kernel: &mut Linux, interface: &str) -> Result<Facts, Failure> {
    Facts::read(kernel, interface).map_err(|source| cannot_ask(interface, source))
}

fn cannot_ask(interface: &str, source: io::Error) -> Failure {
    Failure::System {
        what: format!("cannot ask the kernel about interface {interface}"),
        source,
    }
}

fn is_bond(facts: &Facts) -> bool {
    facts.kind.as_deref() == Some("bond")
}

/// The facts about an interface that is a device of its own.
fn device(interface: &str) -> Result<Facts, Failure> {
    let facts = read(&mut kernel()?, interface)?;
    if is_bond(&facts) {
        return Err(Failure::Usage(format!(
            "interface {interface} is a bond; prepare its slaves: {}",
            facts.members.join(", ")
        )));
    }
    Ok(facts)
}

fn refused(failure: NotApplied) -> Failure {
    Failure::Nic(failure.to_string())
}

/// The settings of the interface that the arguments name, or the configuration file.
fn gather(arguments: &NicArguments) -> Result<Settings, Failure> {
    let mut serve = arguments.serve.clone();
    serve.iface = vec![arguments.interface.clone()];
    Settings::gather_to_check(&serve)?.ok_or_else(|| Failure::Usage("no interface is given".to_owned()))
}

fn wanted(settings: &Settings) -> Wanted {
    let config = &settings.config;
    let cpus = tidegate_affinity::allowed().unwrap_or_default();
    let queues = config.afxdp.queues;
    let umems = u64::from(queues.unwrap_or(cpus.len() as u32));
    let octets = umems * u64::from(config.afxdp.frames) * u64::from(config.afxdp.frame_size.unwrap_or(4096));
    Wanted {
        queues,
        cpus,
        listeners: config.listen.iter().map(|listen| listen.address).collect(),
        balancers: !config.balancers.from.is_empty(),
        busy_poll: config.afxdp.wait == WaitStrategy::BusyPoll,
        huge_pages: config
            .afxdp
            .huge_pages
            .then(|| (octets.div_ceil(HUGE_PAGE), huge_pages())),
    }
}

/// Huge pages that are reserved.
fn huge_pages() -> u64 {
    let text = fs::read_to_string("/proc/sys/vm/nr_hugepages").unwrap_or_default();
    text.trim().parse().unwrap_or_default()
}

/// The first plan with its reasons, and what comes in its place if the driver refuses it.
fn text_of(plans: &[Plan]) -> String {
    let mut text = String::new();
    for (index, plan) in plans.iter().enumerate() {
        let _ = match index {
            0 => writeln!(text, "{}", plan.way),
            _ => writeln!(text, "if the driver refuses that: {}", plan.way),
        };
        for change in &plan.changes {
            let (before, after) = (change.before.value(), change.after.value());
            let _ = writeln!(
                text,
                "  {}: {before} -> {after}  ({})",
                change.after.name(),
                change.reason
            );
        }
        if plan.changes.is_empty() {
            text += "  nothing to change\n";
        }
    }
    text
}

fn list(applied: &Applied) -> String {
    let lines = applied.changes().iter().map(|change| {
        format!(
            "{}: {} -> {}",
            change.after.name(),
            change.before.value(),
            change.after.value()
        )
    });
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        "nothing to change".to_owned()
    } else {
        lines.join("\n")
    }
}

/// The settings that can be changed, with their present values.
fn show(facts: &Facts) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| text += &format!("{name:<14} {value}\n");
    let driver = facts.driver.clone().unwrap_or_default();
    line(
        "interface",
        format!("{} ({}), MTU {}", facts.name, facts.index, facts.mtu),
    );
    line("driver", format!("{} {} {}", driver.name, driver.version, driver.bus));
    line(
        "queues",
        format!("{} to receive, {} to send", facts.rx_queues, facts.tx_queues),
    );
    if let Some(channels) = facts.channels {
        line(
            "channels",
            format!(
                "rx {} of {}, tx {} of {}, combined {} of {}",
                channels.rx, channels.rx_max, channels.tx, channels.tx_max, channels.combined, channels.combined_max
            ),
        );
    }
    if let Some(rings) = facts.rings {
        line(
            "rings",
            format!(
                "rx {} of {}, tx {} of {}",
                rings.rx, rings.rx_max, rings.tx, rings.tx_max
            ),
        );
    }
    if let Some(coalesce) = facts.coalesce {
        line(
            "coalescing",
            format!(
                "rx-usecs {:?}, adaptive-rx {:?}",
                coalesce.rx_usecs, coalesce.adaptive_rx
            ),
        );
    }
    if !facts.rss_table.is_empty() {
        let used: std::collections::BTreeSet<u32> = facts.rss_table.iter().copied().collect();
        line("RSS", format!("{} entries, queues {used:?}", facts.rss_table.len()));
    }
    if let Some(rules) = &facts.flow_rules {
        line("rules", format!("{} of {}", rules.locations.len(), rules.capacity));
    }
    for name in ["rx-lro", "rx-gro-hw", "rx-gro", "rx-vlan-hw-parse", "rx-ntuple-filter"] {
        if let Some(feature) = facts.features.get(name) {
            let fixed = if feature.changeable { "" } else { " [fixed]" };
            line(name, format!("{}{fixed}", if feature.active { "on" } else { "off" }));
        }
    }
    let number = |value: Option<u64>| value.map_or_else(|| "not told".to_owned(), |value| value.to_string());
    line("defer irqs", number(facts.defer_hard_irqs.map(u64::from)));
    line("flush timeout", number(facts.gro_flush_timeout));
    for irq in &facts.irqs {
        line("interrupt", format!("{} on CPUs {}", irq.number, irq.cpus));
    }
    text
}

/// The directory that was given, or the default.
pub(crate) fn state_directory(given: Option<&Path>) -> PathBuf {
    given.unwrap_or(Path::new(STATE_DIRECTORY)).to_owned()
}
