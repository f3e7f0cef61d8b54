//! The settings of an interface that tidegate changes, and how they are read and written.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use netlink_bindings::ethtool;
use serde::{Deserialize, Serialize};

use crate::ethtool_ioctl::{FlowRule, Target};
use crate::facts::{Channels, Facts};
use crate::kernel::Kernel;
use crate::read::{command, irq_cpus};

const HUGE_PAGES: &str = "/proc/sys/vm/nr_hugepages";

/// One setting with a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Setting {
    /// Numbers of channels.
    Channels {
        /// Those that only receive.
        rx: u32,
        /// Those that only send.
        tx: u32,
        /// Those that do both.
        combined: u32,
    },
    /// Descriptors of a receive and of a transmit ring.
    Rings {
        /// Of a receive ring.
        rx: u32,
        /// Of a transmit ring.
        tx: u32,
    },
    /// A feature of `ethtool -k`.
    Feature {
        /// Its name.
        name: String,
        /// Whether it is on.
        on: bool,
    },
    /// The microseconds from a received frame to the interrupt.
    RxUsecs(u32),
    /// The receive queue of each remainder of the RSS hash.
    RssTable(Vec<u32>),
    /// A further RSS table, for the flows that rules send to it.
    RssContext {
        /// Its number, once it is there.
        id: Option<u32>,
        /// Its table; empty: there is none.
        table: Vec<u32>,
    },
    /// A rule that sends the segments to an address and port to a queue.
    FlowRule {
        /// The rule.
        rule: FlowRule,
        /// Its place, once it is there.
        location: Option<u32>,
        /// Whether it is there.
        present: bool,
    },
    /// `napi_defer_hard_irqs`.
    DeferHardIrqs(u32),
    /// `gro_flush_timeout`, in nanoseconds.
    GroFlushTimeout(u64),
    /// The CPUs that may handle an interrupt.
    IrqCpus {
        /// The interrupt's number.
        irq: u32,
        /// A list of CPUs: `0-3,8`.
        cpus: String,
    },
    /// Huge pages of the machine (`vm.nr_hugepages`).
    HugePages(u64),
}

impl Setting {
    /// The setting's name, without its value.
    pub fn name(&self) -> String {
        match self {
            Self::Channels { .. } => "channels".to_owned(),
            Self::Rings { .. } => "rings".to_owned(),
            Self::Feature { name, .. } => name.clone(),
            Self::RxUsecs(_) => "rx-usecs".to_owned(),
            Self::RssTable(_) => "RSS table".to_owned(),
            Self::RssContext { .. } => "RSS context".to_owned(),
            Self::FlowRule { rule, .. } => format!("rule for {}", rule.destination),
            Self::DeferHardIrqs(_) => "napi_defer_hard_irqs".to_owned(),
            Self::GroFlushTimeout(_) => "gro_flush_timeout".to_owned(),
            Self::IrqCpus { irq, .. } => format!("CPUs of interrupt {irq}"),
            Self::HugePages(_) => "vm.nr_hugepages".to_owned(),
        }
    }

    /// The value, as people read it.
    pub fn value(&self) -> String {
        match self {
            Self::Channels { rx, tx, combined } => match (rx, tx) {
                (0, 0) => format!("combined {combined}"),
                _ => format!("rx {rx} tx {tx} combined {combined}"),
            },
            Self::Rings { rx, tx } => format!("rx {rx} tx {tx}"),
            Self::Feature { on, .. } => if *on { "on" } else { "off" }.to_owned(),
            Self::RssTable(table) | Self::RssContext { table, .. } => queues_of(table),
            Self::FlowRule { rule, present, .. } => match (present, rule.target) {
                (false, _) => "none".to_owned(),
                (true, Target::Queue(queue)) => format!("queue {queue}"),
                (true, Target::Context(_)) => "RSS context".to_owned(),
            },
            Self::RxUsecs(number) | Self::DeferHardIrqs(number) => number.to_string(),
            Self::GroFlushTimeout(number) | Self::HugePages(number) => number.to_string(),
            Self::IrqCpus { cpus, .. } => cpus.clone(),
        }
    }

    /// Whether it is a setting of the machine rather than of the interface.
    pub(crate) fn is_of_the_machine(&self) -> bool {
        matches!(self, Self::HugePages(_))
    }

    /// The order in which settings are put back: a change of channels or features may take the RSS table to its
    /// default, which comes last for that.
    pub(crate) fn undo_rank(&self) -> u32 {
        match self {
            Self::FlowRule { .. } => 0,
            Self::RssContext { .. } => 1,
            Self::Channels { .. } => 2,
            Self::RssTable(_) => 4,
            _ => 3,
        }
    }
}

/// The queues in an RSS table, with the number of entries each has.
fn queues_of(table: &[u32]) -> String {
    let (Some(first), Some(last)) = (table.iter().min(), table.iter().max()) else {
        return "none".to_owned();
    };
    let even = (0..table.len()).all(|index| table[index] == first + index as u32 % (last - first + 1));
    format!("queues {first} to {last}{}", if even { "" } else { ", unevenly" })
}

/// An RSS table that spreads evenly over some queues.
pub(crate) fn even_table(entries: usize, first: u32, count: u32) -> Vec<u32> {
    (0..entries).map(|index| first + index as u32 % count.max(1)).collect()
}

/// Something whose settings can be read and written.
pub trait Device {
    /// The present value of what `setting` is about; `None` if it has none.
    ///
    /// # Errors
    ///
    /// The kernel's, or the driver's: it cannot be told.
    fn current(&mut self, setting: &Setting) -> io::Result<Option<Setting>>;

    /// Sets it, and returns it with what the driver has added: places and numbers.
    ///
    /// # Errors
    ///
    /// The kernel's, or the driver's.
    fn set(&mut self, setting: &Setting) -> io::Result<Setting>;

    /// The number of flow rules, whoever's.
    ///
    /// # Errors
    ///
    /// The kernel's, or the driver's: it cannot be told.
    fn flow_rules(&mut self) -> io::Result<usize>;
}

/// An interface of the running kernel.
pub struct Nic<'kernel, K> {
    kernel: &'kernel mut K,
    name: String,
    index: u32,
    /// The transformations before the RSS hash.
    transform: u8,
}

impl<'kernel, K: Kernel> Nic<'kernel, K> {
    /// The interface that `facts` are about.
    pub fn new(kernel: &'kernel mut K, facts: &Facts) -> Self {
        Self {
            kernel,
            name: facts.name.clone(),
            index: facts.index,
            transform: facts.rss_hash.transform as u8,
        }
    }

    fn sysfs(&self, file: &str) -> PathBuf {
        Path::new("/sys/class/net").join(&self.name).join(file)
    }

    fn find_rule(&mut self, wanted: &FlowRule) -> io::Result<Option<u32>> {
        for location in self.kernel.flow_rules(&self.name)?.locations {
            match self.kernel.flow_rule(&self.name, location) {
                Ok(Some(rule)) if rule == *wanted => return Ok(Some(location)),
                Ok(_) => {}
                // It was removed meanwhile.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn insert_rule(&mut self, rule: &FlowRule) -> io::Result<Setting> {
        let rules = self.kernel.flow_rules(&self.name)?;
        // The last free place is that of the lowest rank.
        let free = (0..rules.capacity)
            .rev()
            .find(|location| !rules.locations.contains(location));
        let location = if rules.any_location { None } else { free };
        let location = self.kernel.insert_flow_rule(&self.name, rule, location)?;
        Ok(Setting::FlowRule {
            rule: *rule,
            location: Some(location),
            present: true,
        })
    }

    fn set_channels(&mut self, rx: u32, tx: u32, combined: u32) -> io::Result<()> {
        let present = Facts::read(self.kernel, &self.name)?.channels.unwrap_or_default();
        if rx + combined < present.rx + present.combined {
            // A table that somebody has set keeps the queues it names from going. Where there is none, that fails.
            let _ = self.kernel.set_rss_table(&self.name, self.transform, &[]);
        }
        let mut request = ethtool::Request::new().op_channels_set_do();
        request.header_mut().cmd = command::CHANNELS_SET;
        {
            let mut encoder = request.encode().nested_header().push_dev_index(self.index).end_nested();
            // A kind of channels that the driver does not have must not be named.
            if combined > 0 {
                encoder = encoder.push_combined_count(combined);
            }
            if rx > 0 {
                encoder = encoder.push_rx_count(rx);
            }
            if tx > 0 {
                encoder.push_tx_count(tx);
            }
        }
        self.kernel.request(&request, |_| {})
    }

    fn set_rings(&mut self, rx: u32, tx: u32) -> io::Result<()> {
        let mut request = ethtool::Request::new().op_rings_set_do();
        request.header_mut().cmd = command::RINGS_SET;
        let encoder = request.encode().nested_header().push_dev_index(self.index).end_nested();
        encoder.push_rx(rx).push_tx(tx);
        self.kernel.request(&request, |_| {})
    }

    fn set_feature(&mut self, name: &str, on: bool) -> io::Result<()> {
        let mut request = ethtool::Request::new().op_features_set_do();
        request.header_mut().cmd = command::FEATURES_SET;
        {
            let encoder = request.encode().nested_header().push_dev_index(self.index).end_nested();
            let bit = encoder
                .nested_wanted()
                .nested_bits()
                .nested_bit()
                .push_name_bytes(name.as_bytes());
            if on {
                bit.push_value(());
            }
        }
        self.kernel.request(&request, |_| {})?;
        // What a driver does not want it leaves as it was, without an error.
        let now = Facts::read(self.kernel, &self.name)?;
        match now.is_on(name) == on {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
        }
    }

    fn set_rx_usecs(&mut self, usecs: u32) -> io::Result<()> {
        let mut request = ethtool::Request::new().op_coalesce_set_do();
        request.header_mut().cmd = command::COALESCE_SET;
        let encoder = request.encode().nested_header().push_dev_index(self.index).end_nested();
        encoder.push_rx_usecs(usecs);
        self.kernel.request(&request, |_| {})
    }

    fn set_rss_table(&mut self, table: &[u32]) -> io::Result<()> {
        let queues = Facts::read(self.kernel, &self.name)?.rx_queues;
        // As the driver has it by itself, so that it may follow the number of channels again.
        if *table == even_table(table.len(), 0, queues) {
            return self.kernel.set_rss_table(&self.name, self.transform, &[]);
        }
        self.kernel.set_rss_table(&self.name, self.transform, table)
    }
}

impl<K: Kernel> Device for Nic<'_, K> {
    fn current(&mut self, setting: &Setting) -> io::Result<Option<Setting>> {
        if let Setting::HugePages(_) = setting {
            let pages = self.kernel.read(Path::new(HUGE_PAGES))?;
            return Ok(pages.trim().parse().ok().map(Setting::HugePages));
        }
        if let Setting::FlowRule { rule, .. } = setting {
            let location = self.find_rule(rule)?;
            return Ok(Some(Setting::FlowRule {
                rule: *rule,
                location,
                present: location.is_some(),
            }));
        }
        // A context is what was made here, and its table nobody else's.
        if let Setting::RssContext { .. } = setting {
            return Ok(Some(setting.clone()));
        }
        Ok(value_in(&Facts::read(self.kernel, &self.name)?, setting))
    }

    fn set(&mut self, setting: &Setting) -> io::Result<Setting> {
        match setting {
            Setting::Channels { rx, tx, combined } => self.set_channels(*rx, *tx, *combined)?,
            Setting::Rings { rx, tx } => self.set_rings(*rx, *tx)?,
            Setting::Feature { name, on } => self.set_feature(name, *on)?,
            Setting::RxUsecs(usecs) => self.set_rx_usecs(*usecs)?,
            Setting::RssTable(table) => self.set_rss_table(table)?,
            Setting::RssContext { id: None, table } if table.is_empty() => {}
            Setting::RssContext { id, table } => {
                let id = self.kernel.set_rss_context(&self.name, *id, self.transform, table)?;
                return Ok(Setting::RssContext {
                    id: Some(id),
                    table: table.clone(),
                });
            }
            Setting::FlowRule {
                rule, present: true, ..
            } => return self.insert_rule(rule),
            Setting::FlowRule {
                rule,
                location,
                present: false,
            } => {
                let location = match location {
                    Some(location) => Some(*location),
                    None => self.find_rule(rule)?,
                };
                if let Some(location) = location {
                    self.kernel.delete_flow_rule(&self.name, location)?;
                }
            }
            Setting::DeferHardIrqs(count) => {
                let file = self.sysfs("napi_defer_hard_irqs");
                self.kernel.write(&file, &count.to_string())?;
            }
            Setting::GroFlushTimeout(nanoseconds) => {
                let file = self.sysfs("gro_flush_timeout");
                self.kernel.write(&file, &nanoseconds.to_string())?;
            }
            Setting::IrqCpus { irq, cpus } => self.kernel.write(&irq_cpus(*irq), cpus)?,
            Setting::HugePages(pages) => self.kernel.write(Path::new(HUGE_PAGES), &pages.to_string())?,
        }
        Ok(setting.clone())
    }

    fn flow_rules(&mut self) -> io::Result<usize> {
        Ok(self.kernel.flow_rules(&self.name)?.locations.len())
    }
}

/// The value that `facts` have of what `setting` is about.
pub(crate) fn value_in(facts: &Facts, setting: &Setting) -> Option<Setting> {
    Some(match setting {
        Setting::Channels { .. } => {
            let Channels { rx, tx, combined, .. } = facts.channels?;
            Setting::Channels { rx, tx, combined }
        }
        Setting::Rings { .. } => Setting::Rings {
            rx: facts.rings?.rx,
            tx: facts.rings?.tx,
        },
        Setting::Feature { name, .. } => Setting::Feature {
            name: name.clone(),
            on: facts.features.get(name)?.active,
        },
        Setting::RxUsecs(_) => Setting::RxUsecs(facts.coalesce?.rx_usecs?),
        Setting::RssTable(_) => Setting::RssTable(Some(facts.rss_table.clone()).filter(|table| !table.is_empty())?),
        Setting::DeferHardIrqs(_) => Setting::DeferHardIrqs(facts.defer_hard_irqs?),
        Setting::GroFlushTimeout(_) => Setting::GroFlushTimeout(facts.gro_flush_timeout?),
        Setting::IrqCpus { irq, .. } => Setting::IrqCpus {
            irq: *irq,
            cpus: facts.irqs.iter().find(|known| known.number == *irq)?.cpus.clone(),
        },
        Setting::RssContext { .. } | Setting::FlowRule { .. } | Setting::HugePages(_) => return None,
    })
}

/// A rule for the segments to `destination`.
pub(crate) fn rule(destination: SocketAddr, target: Target, present: bool) -> Setting {
    Setting::FlowRule {
        rule: FlowRule { destination, target },
        location: None,
        present,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;

    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::kernel::Linux;

    /// Sets `setting` on `interface`, and returns what it is then.
    fn set(interface: &str, setting: &Setting) -> Setting {
        let mut kernel = Linux::new().expect("sockets");
        let facts = Facts::read(&mut kernel, interface).expect("an interface");
        let mut nic = Nic::new(&mut kernel, &facts);
        let before = nic.current(setting).expect("an answer").expect("a value");
        assert_ne!(&before, setting);
        nic.set(setting)
            .unwrap_or_else(|error| panic!("{}: {error}", setting.name()));
        nic.current(setting).expect("an answer").expect("a value")
    }

    #[test]
    fn the_running_kernel_takes_what_is_set() {
        let inside = || {
            // Without root there is nothing to be set.
            if unshare(CloneFlags::CLONE_NEWNET).is_err() {
                eprintln!("SKIPPED: needs root (a network namespace)");
                return;
            }
            for on in [false, true] {
                let gro = Setting::Feature {
                    name: "rx-gro".to_owned(),
                    on,
                };
                assert_eq!(set("lo", &gro), gro);
            }
            let pair = "link add nic0 numtxqueues 2 numrxqueues 2 type veth peer name nic1";
            let added = Command::new("ip").args(pair.split(' ')).status().expect("ip runs");
            assert!(added.success());
            for count in [1, 2] {
                let channels = Setting::Channels {
                    rx: count,
                    tx: count,
                    combined: 0,
                };
                assert_eq!(set("nic0", &channels), channels);
            }
            let mut kernel = Linux::new().expect("sockets");
            let facts = Facts::read(&mut kernel, "nic0").expect("an interface");
            let fixed = Setting::Feature {
                name: "rx-lro".to_owned(),
                on: true,
            };
            Nic::new(&mut kernel, &facts)
                .set(&fixed)
                .expect_err("a driver without it");
        };
        thread::spawn(inside).join().expect("it does as told");
    }

    #[test]
    fn a_rule_is_there_is_not_or_cannot_be_told() {
        use crate::facts::FlowRules;
        use crate::fake::Device as FakeDevice;
        let device = FakeDevice::of("ice");
        let mut kernel = device.kernel();
        let ours = rule("198.18.0.1:80".parse().expect("an address"), Target::Queue(0), true);
        let current = |kernel: &mut _| Nic::new(kernel, &device.facts()).current(&ours);
        current(&mut kernel).expect_err("no answer");
        // One is gone since the places were told.
        kernel.flow_rules = Some(FlowRules {
            locations: vec![3, 5],
            capacity: 8,
            any_location: false,
        });
        let none = current(&mut kernel).expect("an answer").map(|setting| setting.value());
        assert_eq!(none.as_deref(), Some("none"));
        let Setting::FlowRule { rule, .. } = ours.clone() else {
            unreachable!()
        };
        kernel.rules.insert(5, rule);
        let there = current(&mut kernel).expect("an answer").map(|setting| setting.value());
        assert_eq!(there.as_deref(), Some("queue 0"));
    }

    #[test]
    fn only_fewer_channels_take_the_rss_table_to_its_default() {
        use crate::fake::Device as FakeDevice;
        use crate::rss::RssHash;
        let mut device = FakeDevice::of("ice");
        device.rss_hash = RssHash {
            function: 1,
            key: vec![0x6d; 40],
            transform: 1,
            ..RssHash::default()
        };
        for (combined, tables) in [(8, vec![]), (4, vec![]), (2, vec![(1, Vec::new())])] {
            let mut kernel = device.kernel();
            kernel
                .replies
                .insert(("ethtool", command::CHANNELS_SET.into()), Vec::new());
            let channels = Setting::Channels { rx: 0, tx: 0, combined };
            Nic::new(&mut kernel, &device.facts()).set(&channels).expect("channels");
            assert_eq!(kernel.rss_tables, tables, "{combined} channels of 4");
        }
    }

    #[test]
    fn tables_are_told_by_their_queues() {
        for (table, text) in [
            (&[0, 1, 0, 1][..], "queues 0 to 1"),
            (&[2, 3, 4, 2], "queues 2 to 4"),
            (&[0, 0, 1, 1], "queues 0 to 1, unevenly"),
            (&[], "none"),
        ] {
            assert_eq!(Setting::RssTable(table.to_vec()).value(), text);
        }
    }
}
