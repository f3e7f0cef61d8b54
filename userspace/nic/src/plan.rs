//! The changes of an interface that serve tidegate well, and their reasons.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::drivers::{QueueRule, driver};
use crate::ethtool_ioctl::Target;
use crate::facts::{Channels, Facts};
use crate::setting::{Setting, even_table, rule, value_in};

/// Descriptors of a receive ring that take a burst while a shard is busy.
const RX_RING: u32 = 2048;

/// The microseconds beyond which waiting for the interrupt is a good part of a response's time.
const MAX_RX_USECS: u32 = 50;

/// With these, a queue's interrupts stay off while a shard polls it, and come back when it does not for 0.2 ms.
const DEFER_HARD_IRQS: u32 = 2;
const GRO_FLUSH_TIMEOUT: u64 = 200_000;

/// Some drivers (igb, igc) delete all rules, whoever's, when it is switched off.
pub(crate) const NTUPLE: &str = "rx-ntuple-filter";

/// The use that an interface is to be prepared for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Queues for tidegate; by default half of those there are, but not more than CPUs.
    pub queues: Option<u32>,
    /// The CPUs of the shards, in their order.
    pub cpus: Vec<usize>,
    /// The addresses and ports that are listened on.
    pub listeners: Vec<SocketAddr>,
    /// Whether balancers send segments to them in packets of another destination.
    pub balancers: bool,
    /// Whether shards have the kernel poll the device.
    pub busy_poll: bool,
    /// Huge pages that are to be there, and how many there are now.
    pub huge_pages: Option<(u64, u64)>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The value before.
    pub before: Setting,
    /// The value after.
    pub after: Setting,
    /// Why, as a clause.
    pub reason: String,
    /// Whether the whole plan is of no use without it.
    pub essential: bool,
}

/// A way to prepare an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The way, as a clause.
    pub way: String,
    /// Queues that tidegate is to serve, from queue 0 on.
    pub queues: u32,
    /// The changes, in order.
    pub changes: Vec<Change>,
}

/// The ways to prepare an interface, the best first: each is for the case that the driver refuses the one before. The
/// last changes nothing that steers frames, or only the number of channels.
pub fn plans(facts: &Facts, wanted: &Wanted) -> Vec<Plan> {
    let has = served(facts);
    let cpus = (wanted.cpus.len() as u32).max(1);
    let queues = wanted.queues.unwrap_or((has / 2).clamp(1, cpus)).clamp(1, has);
    let mut plans = Vec::new();
    // Rules of others while it is off: whether they work, and outlast a change of it, only the driver knows.
    let rules = facts.flow_rules.as_ref();
    let takes_rules = rules.is_some_and(|rules| facts.is_on(NTUPLE) || rules.locations.is_empty());
    let can_steer = !facts.rss_table.is_empty() && takes_rules && !wanted.listeners.is_empty();
    let missed = missed_by_rules(wanted).filter(|_| can_steer && queues < has);
    if can_steer && queues < has && missed.is_none() {
        plans.push(dedicated(facts, wanted, queues, has));
        if queues > 1 {
            plans.push(dedicated(facts, wanted, 1, has));
        }
    }
    let fitting = max_channels(facts, cpus).unwrap_or(has);
    let mut shared = simple(facts, wanted, has.min(cpus).min(fitting).max(1));
    if let Some(missed) = missed {
        shared.way += &format!(", since {missed}");
    }
    plans.push(shared);
    for plan in &mut plans {
        plan.changes.extend(interrupts(facts, wanted, plan.queues));
        plan.changes.retain(|change| change.before != change.after);
    }
    plans
}

/// Segments for tidegate that no rule catches: with queues of its own, it would not see them.
fn missed_by_rules(wanted: &Wanted) -> Option<&'static str> {
    if wanted.balancers {
        return Some("no rule catches what balancers send");
    }
    let is_any = wanted.listeners.iter().any(|listener| listener.ip().is_unspecified());
    is_any.then_some("no rule catches what is for addresses that are added later, on which there is a listener, too")
}

/// Queues for tidegate alone: connections get there by rules, and all else by RSS to the other queues.
fn dedicated(facts: &Facts, wanted: &Wanted, queues: u32, has: u32) -> Plan {
    let mut changes = common(facts, wanted);
    changes.extend(essential(
        facts,
        Setting::Feature {
            name: NTUPLE.to_owned(),
            on: true,
        },
        "rules work only with it",
    ));
    let entries = facts.rss_table.len();
    changes.extend(essential(
        facts,
        Setting::RssTable(even_table(entries, queues, has - queues)),
        "what is not for tidegate stays with the host's queues",
    ));
    let mut target = Target::Queue(0);
    if queues > 1 {
        // Its number is known when it is there.
        target = Target::Context(0);
        changes.push(Change {
            before: Setting::RssContext {
                id: None,
                table: Vec::new(),
            },
            after: Setting::RssContext {
                id: None,
                table: even_table(entries, 0, queues),
            },
            reason: "connections are spread over tidegate's queues".to_owned(),
            essential: true,
        });
    }
    changes.extend(
        BTreeSet::from_iter(&wanted.listeners)
            .into_iter()
            .map(|destination| Change {
                before: rule(*destination, target, false),
                after: rule(*destination, target, true),
                reason: "segments to a listener go to tidegate's queues".to_owned(),
                essential: true,
            }),
    );
    let host = has - queues;
    Plan {
        way: format!("dedicated queues: {queues} of {has} for tidegate, {host} for the host"),
        queues,
        changes,
    }
}

/// All queues for tidegate: as many as are asked for, where their number can be changed.
fn simple(facts: &Facts, wanted: &Wanted, by_default: u32) -> Plan {
    let mut changes = common(facts, wanted);
    let asked = wanted.queues.unwrap_or(by_default).max(1);
    // All that there are: one that is not served would keep its connections from tidegate.
    let mut queues = served(facts);
    if let Some(after) = facts.channels.and_then(|channels| with_queues(&channels, asked)) {
        if let Setting::Channels { rx, tx, combined } = after {
            queues = combined + rx.min(tx);
        }
        let change = changed(
            facts,
            after,
            "a queue that is not served would keep its connections from tidegate",
        );
        let change = change.filter(|change| change.before != change.after);
        if change.is_some() && !facts.rss_table.is_empty() {
            // Drivers take it to their default when the channels change, or keep one that names queues that are gone.
            let table = Setting::RssTable(even_table(facts.rss_table.len(), 0, queues));
            changes.extend(change);
            changes.extend(changed(
                facts,
                table,
                "the device is to use all queues that there are then",
            ));
        } else {
            changes.extend(change);
        }
    }
    Plan {
        way: format!("shared queues: {queues} for tidegate and the host"),
        queues,
        changes,
    }
}

/// Queues that can be served: those that receive and send.
pub(crate) fn served(facts: &Facts) -> u32 {
    facts.rx_queues.min(facts.tx_queues).max(1)
}

/// Channels for as many queues, or as many as there can be; `None` where there is no kind of which the number can be
/// changed.
fn with_queues(channels: &Channels, queues: u32) -> Option<Setting> {
    if channels.combined > 0 {
        return Some(Setting::Channels {
            rx: channels.rx,
            tx: channels.tx,
            combined: queues.min(channels.combined_max.max(1)),
        });
    }
    let queues = queues.min(channels.rx_max).min(channels.tx_max);
    (queues > 0).then_some(Setting::Channels {
        rx: queues,
        tx: queues,
        combined: 0,
    })
}

/// The changes that help in every way.
fn common(facts: &Facts, wanted: &Wanted) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut off = |name: &str, reason: &str| {
        if facts
            .features
            .get(name)
            .is_some_and(|feature| feature.active && feature.changeable)
        {
            let name = name.to_owned();
            changes.extend(changed(facts, Setting::Feature { name, on: false }, reason));
        }
    };
    off(
        "rx-lro",
        "the device would merge segments before the XDP program sees them",
    );
    off(
        "rx-gro-hw",
        "the device would merge segments before the XDP program sees them",
    );
    if !facts.vlans.is_empty() {
        off(
            "rx-vlan-hw-parse",
            "the device would strip VLAN tags before the XDP program sees frames",
        );
    }
    if let Some(rings) = facts.rings {
        let rx = rings.rx.max(RX_RING.min(rings.rx_max));
        let reason = "a burst that comes while a shard is busy is lost where it does not fit";
        changes.extend(changed(facts, Setting::Rings { rx, tx: rings.tx }, reason));
    }
    if let Some(coalesce) = facts.coalesce
        && coalesce.adaptive_rx != Some(true)
        && coalesce.rx_usecs.is_some_and(|usecs| usecs > MAX_RX_USECS)
    {
        let reason = "a shard that sleeps hears of a frame no earlier";
        changes.extend(changed(facts, Setting::RxUsecs(MAX_RX_USECS), reason));
    }
    if wanted.busy_poll {
        let reason = "while shards poll the device, interrupts would only disturb them";
        changes.extend(changed(facts, Setting::GroFlushTimeout(GRO_FLUSH_TIMEOUT), reason));
        changes.extend(changed(facts, Setting::DeferHardIrqs(DEFER_HARD_IRQS), reason));
    }
    if let Some((needed, now)) = wanted.huge_pages
        && needed > now
    {
        changes.push(Change {
            before: Setting::HugePages(now),
            after: Setting::HugePages(needed),
            reason: "UMEMs are to be in huge pages, which have to be reserved".to_owned(),
            essential: false,
        });
    }
    changes
}

/// Each served queue's interrupt to the CPU of its shard, where the kernel tells which is whose.
fn interrupts(facts: &Facts, wanted: &Wanted, queues: u32) -> Vec<Change> {
    let by_queue = |queue: u32| {
        let napi = facts.rx_napi.get(queue as usize).copied().flatten()?;
        let irq = facts.napi.iter().find(|known| known.id == napi)?.irq?;
        let cpu = wanted.cpus.get(queue as usize % wanted.cpus.len().max(1))?;
        let setting = Setting::IrqCpus {
            irq,
            cpus: cpu.to_string(),
        };
        changed(
            facts,
            setting,
            "the kernel's part of receiving runs where its shard does",
        )
    };
    (0..queues).filter_map(by_queue).collect()
}

fn changed(facts: &Facts, after: Setting, reason: &str) -> Option<Change> {
    Some(Change {
        before: value_in(facts, &after)?,
        after,
        reason: reason.to_owned(),
        essential: false,
    })
}

fn essential(facts: &Facts, after: Setting, reason: &str) -> Option<Change> {
    let change = changed(facts, after, reason)?;
    Some(Change {
        essential: true,
        ..change
    })
}

/// The largest number of channels that leaves a driver its queues for XDP, where it has a rule.
fn max_channels(facts: &Facts, cpus: u32) -> Option<u32> {
    let max = facts.channels?.combined_max;
    match driver(facts.driver_name()).queue_rule? {
        QueueRule::TwiceTheChannels => Some(max / 2),
        QueueRule::ChannelsAndCpus => Some(max.saturating_sub(cpus)).filter(|channels| *channels > 0),
    }
}
