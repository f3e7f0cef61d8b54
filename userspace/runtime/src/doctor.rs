//! Everything that is checked before an interface is served, as sentences: those that [`start`](crate::start) refuses
//! with, and those that it warns with.

use std::net::SocketAddr;
use std::path::Path;

use serde::Serialize;
use tidegate_nic::checks::{self, Mode, Use};
use tidegate_nic::drivers::Version;
use tidegate_nic::{Facts, Finding, Linux, Severity};

use crate::affinity;
use crate::capability;
use crate::config::{Attach, Config, XdpMode, ZeroCopy};
use crate::cookies::secret::Secret;
use crate::devices::{Device, check_sharing};
use crate::drivers::BindPlan;
use crate::error::{Error, with_causes};
use crate::interface::{Interface, LinkState, check_listeners, queues};
use crate::link_watch::no_carrier_yet;
use crate::machine;
use crate::runtime::Settings;
use crate::xdp::{Attached, PresentProgram, check_bpffs, present_programs};

const SYSFS: &str = "/sys";

/// Checks that the kernel itself answers when the interface is served.
const ANSWERED_LATER: [&str; 2] = ["xdp", "zero-copy"];

/// The findings about interfaces and the machine.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// The interfaces.
    pub interfaces: Vec<String>,
    /// The findings, in the order of the checks.
    pub findings: Vec<Finding>,
    /// The devices that frames are taken from: the interfaces, or the slaves of bonds.
    pub devices: Vec<DiagnosedDevice>,
}

/// A device that frames are taken from.
#[derive(Clone, Debug, Serialize)]
pub struct DiagnosedDevice {
    /// Its name.
    pub name: String,
    /// The way it will be served, if it can be.
    pub mode: Option<ExpectedMode>,
    /// The facts that the kernel tells of it.
    pub facts: Option<Facts>,
}

/// The way an interface will be served, as far as the kernel tells beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ExpectedMode {
    /// Where the XDP program will run.
    pub xdp: Attached,
    /// Whether the device reads and writes the UMEM itself.
    pub zero_copy: bool,
    /// The size of frames, in bytes.
    pub frame_size: u32,
    /// Queues, each with a shard.
    pub queues: u32,
}

/// Checks everything that [`start`](crate::start) checks, and what else can be known without it. Touches nothing.
pub fn diagnose(settings: &Settings<'_>) -> Diagnosis {
    let version = machine::version();
    let tells_xdp_features = read_facts("lo").is_some_and(|facts| facts.xdp.is_some());
    let mut diagnosis = Diagnosis {
        interfaces: settings.interfaces.to_vec(),
        findings: vec![machine::kernel(version, tells_xdp_features)],
        devices: Vec::new(),
    };
    let found = &mut diagnosis.findings;
    match capability::missing(settings.afxdp.attach) {
        Ok(missing) if missing.is_empty() => found.push(Finding::ok("permissions", "all that are needed")),
        Ok(missing) => found.extend(missing.iter().map(|error| failure("permissions", error))),
        Err(error) => found.push(failure("permissions", &error)),
    }
    let checked = [
        settings.afxdp.validate().map_err(Error::in_table("afxdp")),
        settings.syn_cookies.validate().map_err(Error::in_table("syn_cookies")),
        settings.sources.validate().map_err(Error::in_table("sources")),
        settings.balancers.validate().map_err(Error::in_table("balancers")),
        settings.tcp.validate().map_err(Error::in_table("tcp")),
        Secret::load(settings.syn_cookies).map(drop),
    ];
    let wrong = checked.into_iter().filter_map(Result::err);
    found.extend(wrong.map(|error| failure("settings", &error)));
    found.push(machine::clock_source(Path::new(SYSFS)));
    match affinity::allowed() {
        Ok(cpus) => found.push(machine::governor(Path::new(SYSFS), &cpus)),
        Err(error) => found.push(failure("cpu", &error)),
    }
    diagnosis.interfaces(settings, version);
    diagnosis
}

impl Diagnosis {
    /// Whether the interfaces can be served as configured.
    pub fn is_fit(&self) -> bool {
        !self
            .findings
            .iter()
            .any(|finding| finding.severity == Severity::Failure)
    }

    fn interfaces(&mut self, settings: &Settings<'_>, version: Option<Version>) {
        let found = &mut self.findings;
        let mut interfaces = Vec::new();
        for name in settings.interfaces {
            match Interface::find(name) {
                Ok(interface) => interfaces.push(interface),
                Err(error) => found.push(failure("interface", &error)),
            }
        }
        if interfaces.len() < settings.interfaces.len() {
            return;
        }
        found.extend(interfaces.iter().map(interface_line));
        let listeners: Vec<SocketAddr> = settings.listeners.iter().map(|listener| listener.address).collect();
        found.push(
            match check_listeners(&interfaces, &listeners, settings.balancers.is_any()) {
                Ok(()) if listeners.is_empty() => Finding::ok("listeners", "none are given to be checked"),
                Ok(()) => Finding::ok("listeners", format!("{} that can be served", listeners.len())),
                Err(error) => failure("listeners", &error),
            },
        );
        let devices = match Device::below(&interfaces) {
            Ok(devices) => devices,
            Err(error) => {
                found.push(failure("interface", &error));
                return;
            }
        };
        if let Err(error) = check_sharing(settings.afxdp, &devices) {
            found.push(failure("program", &error));
        }
        let queues = match queues(devices.iter().map(|device| &device.interface), settings.afxdp.queues) {
            Ok(queues) => Some(queues),
            Err(error) => {
                found.push(failure("queues", &error));
                None
            }
        };
        for device in &devices {
            self.device(settings, &device.interface, queues, version);
        }
        let sizes = self.devices.iter().filter_map(|device| device.mode);
        if let Some(frame_size) = sizes.map(|mode| mode.frame_size).max()
            && let Some(queues) = queues
        {
            let memory = machine::memory(settings.afxdp, queues, frame_size, version);
            self.findings.push(memory);
        }
    }

    /// A device, of which so many queues will be served, if there are.
    fn device(
        &mut self,
        settings: &Settings<'_>,
        interface: &Interface,
        queues: Option<u32>,
        version: Option<Version>,
    ) {
        let (config, found) = (settings.afxdp, &mut self.findings);
        if let Err(error) = check_mtu(settings, interface) {
            found.push(failure("mtu", &error));
        }
        let state = LinkState::read(&Path::new(SYSFS).join("class/net"), &interface.name);
        let no_carrier = state.ok().as_ref().and_then(no_carrier_yet);
        found.extend(no_carrier.map(|sentence| Finding::warning("interface", sentence)));
        if config.attach == Attach::Dispatcher
            && let Err(error) = check_bpffs(&interface.name)
        {
            found.push(failure("program", &error));
        }
        // Without the kernel's leave to know, attaching shows it.
        let programs = present_programs(&interface.name).unwrap_or_default();
        let shares = |program: &PresentProgram| config.attach == Attach::Dispatcher && program.is_dispatcher();
        if programs
            .first()
            .is_some_and(|first| programs.len() > 1 || !shares(first))
        {
            let name = interface.name.clone();
            found.push(failure("program", &Error::AlreadyAttached { name, programs }));
        }
        let facts = read_facts(&interface.name);
        let mut mode = None;
        if let (Some(queues), Some(facts)) = (queues, &facts) {
            found.extend(checks::device(facts, &use_of(config, queues, version)));
            match expected_mode(settings, interface, facts, queues, version) {
                Ok(expected) => mode = Some(expected),
                Err(error) => found.push(failure("zero-copy", &error)),
            }
        }
        self.devices.push(DiagnosedDevice {
            name: interface.name.clone(),
            mode,
            facts,
        });
    }
}

/// Checks that packets of the interface's MTU can be served, by the frames, the kernel and the engine.
fn check_mtu(settings: &Settings<'_>, interface: &Interface) -> Result<(), Error> {
    let (name, mtu) = (&interface.name, interface.mtu);
    settings.afxdp.validate_mtu(name, mtu)?;
    settings.balancers.check_mtu(name, mtu)?;
    if settings.afxdp.multi_buffer(mtu).is_some() {
        capability::check_multi_buffer(name, mtu)?;
    }
    let tcp = tidegate_tcp::Config {
        mtu: mtu as u16,
        outer_headers: settings.balancers.outer_headers(),
        ..settings.tcp.clone()
    };
    tcp.validate()
        .map_err(|error| Error::Config(format!("interface {name} cannot be served: {error}")))
}

/// The warnings with which devices are served, but for those that the kernel's own answers are about.
pub(crate) fn warnings<'a>(config: &Config, devices: impl Iterator<Item = &'a str>, queues: u32) -> Vec<Finding> {
    let version = machine::version();
    let mut findings = vec![machine::clock_source(Path::new(SYSFS))];
    findings.extend(affinity::allowed().map(|cpus| machine::governor(Path::new(SYSFS), &cpus)));
    for facts in devices.filter_map(read_facts) {
        findings.extend(checks::device(&facts, &use_of(config, queues, version)));
    }
    findings.retain(|finding| finding.severity != Severity::Ok && !ANSWERED_LATER.contains(&finding.subject));
    findings
}

/// Why the driver of `interface` has refused native XDP, as far as is known, as a clause to be appended.
pub(crate) fn native_hint(interface: &str) -> String {
    let Some(facts) = read_facts(interface) else {
        return String::new();
    };
    let mut hints = checks::native_refusals(&facts, machine::version());
    if facts.kind.as_deref() == Some("veth") {
        hints.push(
            "a veth pair needs as many RX queues here as its peer has TX queues, and an MTU above 3498 on both ends or on \
             none"
                .to_owned(),
        );
    }
    hints.iter().map(|hint| format!("; {hint}")).collect()
}

/// A table of all interfaces, for a choice among them.
///
/// # Errors
///
/// [`Error::Io`] when the kernel tells of none.
pub fn interfaces() -> Result<Vec<Facts>, Error> {
    let io = |error| Error::io("cannot ask the kernel about interfaces", error);
    let mut kernel = Linux::new().map_err(io)?;
    let names = Facts::interfaces(&mut kernel).map_err(io)?;
    Ok(names
        .iter()
        .filter_map(|name| Facts::read(&mut kernel, name).ok())
        .collect())
}

/// The mode that an interface has by itself: where an XDP program runs, and whether there is zero-copy.
pub fn mode_of(facts: &Facts) -> (Attached, bool) {
    let version = machine::version();
    let native = checks::native_refusals(facts, version).is_empty();
    let attached = if native { Attached::Native } else { Attached::Generic };
    (attached, native && checks::zero_copy_refusal(facts, version).is_none())
}

fn read_facts(interface: &str) -> Option<Facts> {
    let mut kernel = Linux::new().ok()?;
    Facts::read(&mut kernel, interface).ok()
}

fn use_of(config: &Config, queues: u32, kernel: Option<Version>) -> Use {
    Use {
        kernel,
        mode: match config.xdp_mode {
            XdpMode::Auto => Mode::Auto,
            XdpMode::Native => Mode::Native,
            XdpMode::Generic => Mode::Generic,
        },
        require_zero_copy: config.zero_copy == ZeroCopy::Require,
        queues,
        cpus: machine::online_cpus(Path::new(SYSFS)).unwrap_or(1),
    }
}

fn expected_mode(
    settings: &Settings<'_>,
    interface: &Interface,
    facts: &Facts,
    queues: u32,
    version: Option<Version>,
) -> Result<ExpectedMode, Error> {
    let config = settings.afxdp;
    let native = config.xdp_mode != XdpMode::Generic && checks::native_refusals(facts, version).is_empty();
    let xdp = if native { Attached::Native } else { Attached::Generic };
    let plan = BindPlan::new(config, settings.syn_cookies.mode, interface, xdp)?;
    let zero_copy = plan
        .zero_copy
        .filter(|_| native && checks::zero_copy_refusal(facts, version).is_none());
    Ok(ExpectedMode {
        xdp,
        zero_copy: zero_copy.is_some(),
        frame_size: zero_copy.or(plan.copy).unwrap_or(4096),
        queues,
    })
}

fn interface_line(interface: &Interface) -> Finding {
    let addresses: Vec<String> = interface.addresses.iter().map(ToString::to_string).collect();
    let addresses = match addresses.as_slice() {
        [] => "no addresses".to_owned(),
        some => some.join(", "),
    };
    Finding::ok(
        "interface",
        format!("{} is up, MTU {}, {addresses}", interface.name, interface.mtu),
    )
}

fn failure(subject: &'static str, error: &Error) -> Finding {
    Finding::failure(subject, with_causes(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Balancers, Sources, SynCookies};
    use crate::runtime::Listener;

    fn diagnosis(interface: &str, afxdp: &Config, listeners: &[Listener]) -> Diagnosis {
        diagnose(&Settings {
            interfaces: &[interface.to_owned()],
            afxdp,
            tcp: &tidegate_tcp::Config::default(),
            syn_cookies: &SynCookies::default(),
            sources: &Sources::default(),
            balancers: &Balancers::default(),
            listeners,
            remotes: &[],
            opened: || Ok(()),
        })
    }

    #[test]
    fn behind_balancers_packets_lie_in_one_buffer() {
        let settings = Settings {
            interfaces: &[],
            afxdp: &Config::default(),
            tcp: &tidegate_tcp::Config::default(),
            syn_cookies: &SynCookies::default(),
            sources: &Sources::default(),
            balancers: &Balancers {
                from: vec!["192.0.2.1".parse().expect("a prefix")],
                ..Balancers::default()
            },
            listeners: &[],
            remotes: &[],
            opened: || Ok(()),
        };
        let interface = |mtu| Interface {
            name: "eth1".to_owned(),
            mtu,
            rx_queues: 1,
            tx_queues: 1,
            addresses: Vec::new(),
            driver: None,
            is_virtual: true,
        };
        check_mtu(&settings, &interface(3498)).expect("one buffer");
        let error = check_mtu(&settings, &interface(3499)).expect_err("two buffers");
        assert!(error.to_string().contains("behind balancers"), "{error}");
    }

    fn failures(diagnosis: &Diagnosis) -> Vec<(&'static str, String)> {
        let failures = diagnosis
            .findings
            .iter()
            .filter(|finding| finding.severity == Severity::Failure);
        failures
            .map(|finding| (finding.subject, finding.sentence.to_string()))
            .collect()
    }

    #[test]
    fn an_interface_that_is_not_there_is_said_as_start_says_it() {
        let diagnosis = diagnosis("no-such-link0", &Config::default(), &[]);
        assert!(!diagnosis.is_fit() && diagnosis.devices.is_empty());
        let failures = failures(&diagnosis);
        let about: Vec<_> = failures.iter().filter(|(subject, _)| *subject == "interface").collect();
        assert!(
            matches!(about.as_slice(), [(_, sentence)] if sentence.contains("there is no interface")),
            "{failures:?}"
        );
    }

    #[test]
    fn every_failure_is_found_not_only_the_first() {
        let config = Config {
            frames: 1000,
            queues: Some(60),
            ..Config::default()
        };
        let listener = Listener {
            address: ([198, 18, 0, 1], 80).into(),
            keepalive: None,
            congestion: None,
        };
        let found = failures(&diagnosis("lo", &config, &[listener]));
        for (subject, words) in [
            ("settings", "frames is 1000"),
            ("mtu", "MTU of 65536"),
            ("listeners", "198.18.0.1 is not on interface lo"),
            ("queues", "60 queues were asked for"),
        ] {
            assert!(
                found
                    .iter()
                    .any(|(about, sentence)| *about == subject && sentence.contains(words)),
                "{found:?}"
            );
        }
    }
}
