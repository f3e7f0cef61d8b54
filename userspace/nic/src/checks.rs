//! Whether an interface can be served as asked, and what stands in the way of doing it well.

use crate::drivers::{Driver, QueueRule, Version, driver};
use crate::facts::Facts;
use crate::finding::Finding;

/// Up to this MTU a packet fits one buffer of every driver; above it a program that knows of several is attached.
pub const MAX_MTU_OF_ONE_BUFFER: u32 = 3498;

/// The subject of findings about the place of the interface among others.
const LINKS: &str = "links";

/// Where the XDP program is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver if it can, else in the kernel's stack.
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the kernel's stack.
    Generic,
}

/// The intended use of an interface.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// The running kernel, where it tells.
    pub kernel: Option<Version>,
    /// Where the XDP program is to run.
    pub mode: Mode,
    /// Whether nothing but zero-copy will do.
    pub require_zero_copy: bool,
    /// Queues to be served, from queue 0 on.
    pub queues: u32,
    /// CPUs that are online.
    pub cpus: u32,
}

/// Why the driver will refuse an XDP program on the interface, as sentences with remedies; empty if it will not, as far
/// as is known.
pub fn native_refusals(facts: &Facts, kernel: Option<Version>) -> Vec<String> {
    let known = driver(facts.driver_name());
    let mut refusals = Vec::new();
    if !has_native(facts, known, kernel) {
        refusals.push(match facts.driver_name() {
            Some(driver) => format!(
                "the driver of {}, {driver}, has no native XDP{}",
                facts.name,
                since(known, kernel)
            ),
            None => format!("interface {} has no native XDP", facts.name),
        });
        return refusals;
    }
    let (name, driver) = (&facts.name, known.name);
    let takes_frags = facts.mtu > MAX_MTU_OF_ONE_BUFFER && facts.xdp.is_some_and(|xdp| xdp.frags());
    if let Some(max) = known.max_mtu
        && facts.mtu > max
        && !takes_frags
    {
        refusals.push(format!(
            "the driver of {name}, {driver}, takes an XDP program up to an MTU of {max}, and that of {name} is {}; lower \
             it with `ip link set dev {name} mtu {max}`",
            facts.mtu
        ));
    }
    if let (Some(QueueRule::TwiceTheChannels), Some(channels)) = (known.queue_rule, facts.channels) {
        let (now, max) = if channels.combined_max > 0 {
            (channels.combined, channels.combined_max)
        } else {
            (channels.rx.max(channels.tx), channels.rx_max.min(channels.tx_max))
        };
        if max > 1 && 2 * now > max {
            refusals.push(format!(
                "the driver of {name}, {driver}, takes an XDP program with at most half of its {max} channels, and has \
                 {now}; lower them with `{}`",
                channels_command(facts, max / 2)
            ));
        }
    }
    for feature in known.refuses_with.iter().filter(|feature| facts.is_on(feature)) {
        refusals.push(format!(
            "the driver of {name}, {driver}, takes no XDP program while {feature} is on; switch it off with \
             `ethtool -K {name} {feature} off`"
        ));
    }
    if known.refuses_header_split && facts.rings.is_some_and(|rings| rings.header_split) {
        refusals.push(format!(
            "the driver of {name}, {driver}, takes no XDP program while headers have buffers of their own; switch that off \
             with `ethtool -G {name} tcp-data-split off`"
        ));
    }
    refusals
}

/// Why the interface will not be served in zero-copy mode, as a sentence, or a part of one; `None` if it will be, as
/// far as the kernel says.
pub fn zero_copy_refusal(facts: &Facts, kernel: Option<Version>) -> Option<String> {
    let known = driver(facts.driver_name());
    let has = match facts.xdp {
        Some(xdp) => xdp.zero_copy(),
        None => known
            .zero_copy_since
            .is_some_and(|since| kernel.is_some_and(|kernel| kernel >= since)),
    };
    if has {
        return None;
    }
    Some(match facts.driver_name() {
        Some(driver) => format!("the driver of {}, {driver}, has no zero-copy here", facts.name),
        None => format!("interface {} has no zero-copy", facts.name),
    })
}

/// Everything that is to be said of an interface that is to be used so.
pub fn device(facts: &Facts, wanted: &Use) -> Vec<Finding> {
    let mut findings = vec![driver_line(facts)];
    findings.extend(native(facts, wanted));
    findings.extend(zero_copy(facts, wanted));
    findings.extend(relatives(facts));
    findings.push(queues(facts, wanted));
    findings.extend(queues_of_xdp(facts, wanted));
    findings.extend(rings(facts));
    findings.push(offloads(facts));
    findings
}

/// Whether the driver has XDP: as the kernel says, or where it does not, the table.
fn has_native(facts: &Facts, known: &Driver, kernel: Option<Version>) -> bool {
    match facts.xdp {
        Some(xdp) => xdp.native(),
        // Of a driver that is not known, only the attempt shows.
        None if known.name.is_empty() => facts.driver.is_some(),
        None => known
            .native_since
            .is_some_and(|since| kernel.is_none_or(|kernel| kernel >= since)),
    }
}

/// The kernel since which the driver has XDP, if this one is older.
fn since(known: &Driver, kernel: Option<Version>) -> String {
    match (known.native_since, kernel) {
        (Some(since), Some(kernel)) if kernel < since => format!(" before Linux {since}"),
        _ => String::new(),
    }
}

fn driver_line(facts: &Facts) -> Finding {
    let Some(info) = &facts.driver else {
        let kind = facts.kind.as_deref().unwrap_or("no");
        return Finding::ok("driver", format!("{kind} driver that tells its name"));
    };
    let known = driver(Some(&info.name));
    let mut line = format!("{} {}", info.name, info.version);
    if !info.firmware.is_empty() && info.firmware != "N/A" {
        line += &format!(", firmware {}", info.firmware);
    }
    if known.name.is_empty() {
        return Finding::ok("driver", line + ": nothing particular is known of it");
    }
    let mut parts = vec![match known.native_since {
        Some(since) => format!("native XDP since Linux {since}"),
        None => "generic XDP only".to_owned(),
    }];
    parts.push(match known.zero_copy_since {
        Some(since) => format!("zero-copy since {since}"),
        None => "no zero-copy".to_owned(),
    });
    if let Some(mtu) = known.max_mtu {
        parts.push(format!("MTU up to {mtu}"));
    }
    if known.buffer_unit > 1 || known.only_frames_of_4096 {
        parts.push("zero-copy in frames of 4096".to_owned());
    }
    if known.drops_xdp_tx {
        parts.push("zero-copy without SYN cookies".to_owned());
    }
    parts.extend(known.note.map(str::to_owned));
    Finding::ok("driver", format!("{line}: {}", parts.join(", ")))
}

fn native(facts: &Facts, wanted: &Use) -> Vec<Finding> {
    if wanted.mode == Mode::Generic {
        return vec![Finding::ok("xdp", "generic, as asked")];
    }
    let refusals = native_refusals(facts, wanted.kernel);
    if refusals.is_empty() {
        let told = if facts.xdp.is_some() {
            "as the kernel says"
        } else {
            "as far as is known"
        };
        return vec![Finding::ok("xdp", format!("native, {told}"))];
    }
    let finding = |refusal: String| match wanted.mode {
        Mode::Native => Finding::failure(
            "xdp",
            format!("{refusal}: with xdp_mode = \"native\" nothing is served"),
        ),
        _ => Finding::warning("xdp", format!("{refusal}: generic mode is used, which is slower")),
    };
    refusals.into_iter().map(finding).collect()
}

fn zero_copy(facts: &Facts, wanted: &Use) -> Option<Finding> {
    let refusal = zero_copy_refusal(facts, wanted.kernel);
    match refusal {
        Some(refusal) if wanted.require_zero_copy => Some(Finding::failure(
            "zero-copy",
            format!("{refusal}, and zero_copy = \"require\""),
        )),
        Some(refusal) => Some(Finding::ok("zero-copy", format!("copy mode: {refusal}"))),
        None => None,
    }
}

fn relatives(facts: &Facts) -> Vec<Finding> {
    let name = &facts.name;
    let mut findings = Vec::new();
    if let Some(master) = &facts.master
        && master.kind != "bond"
    {
        findings.push(Finding::warning(
            LINKS,
            format!(
                "interface {name} is a part of {}, a {}: what tidegate leaves to the kernel arrives there; take it out with \
                 `ip link set dev {name} nomaster` if its addresses are to be its own",
                master.name, master.kind
            ),
        ));
    }
    if let Some(lower) = &facts.lower {
        findings.push(Finding::warning(
            LINKS,
            format!(
                "interface {name} is a VLAN of {lower}: XDP runs in generic mode here, after the kernel's own work"
            ),
        ));
    }
    findings
}

fn queues(facts: &Facts, wanted: &Use) -> Finding {
    let name = &facts.name;
    let served = wanted.queues;
    let mut line = format!(
        "{} to receive, {} to send, {served} served",
        facts.rx_queues, facts.tx_queues
    );
    if let Some(channels) = facts.channels {
        line += &format!(", of at most {}", channels.combined_max.max(channels.rx_max));
    }
    if served >= facts.rx_queues {
        return Finding::ok("queues", line);
    }
    // Without a table there is nothing that would keep frames from a queue.
    let elsewhere = facts.rss_table.is_empty() || facts.rss_table.iter().any(|queue| *queue >= served);
    let by_rules = facts
        .flow_rules
        .as_ref()
        .is_some_and(|rules| !rules.locations.is_empty());
    if elsewhere && !by_rules {
        return Finding::warning(
            "queues",
            format!(
                "{name} spreads what it receives over {0} queues and {served} are served: connections on the others are \
                 left to the kernel; `{1}` makes them equal",
                facts.rx_queues,
                channels_command(facts, served)
            ),
        );
    }
    let how = if by_rules {
        "flow rules bring connections there"
    } else {
        "RSS uses no others"
    };
    Finding::ok("queues", format!("{line}; {how}"))
}

fn queues_of_xdp(facts: &Facts, wanted: &Use) -> Option<Finding> {
    let known = driver(facts.driver_name());
    let channels = facts.channels?;
    if known.queue_rule != Some(QueueRule::ChannelsAndCpus)
        || wanted.mode == Mode::Generic
        || channels.combined + wanted.cpus <= channels.combined_max
    {
        return None;
    }
    let fitting = channels.combined_max.saturating_sub(wanted.cpus);
    let remedy = if fitting == 0 {
        String::new()
    } else {
        format!("; `{}` leaves one for each CPU", channels_command(facts, fitting))
    };
    Some(Finding::warning(
        "queues",
        format!(
            "the driver of {}, {}, has no queue for each CPU that XDP programs send from ({} channels and {} CPUs, {} \
             queues at the most), so that they share queues under a lock{remedy}",
            facts.name, known.name, channels.combined, wanted.cpus, channels.combined_max
        ),
    ))
}

fn rings(facts: &Facts) -> Option<Finding> {
    let rings = facts.rings?;
    let line = format!(
        "{} of {} to receive, {} of {} to send",
        rings.rx, rings.rx_max, rings.tx, rings.tx_max
    );
    Some(Finding::ok("rings", line))
}

fn offloads(facts: &Facts) -> Finding {
    let name = &facts.name;
    // What the driver refuses XDP with is said there.
    let refused = driver(facts.driver_name()).refuses_with;
    let merging: Vec<&str> = ["rx-lro", "rx-gro-hw"]
        .into_iter()
        .filter(|feature| facts.is_on(feature) && !refused.contains(feature))
        .collect();
    if let [first, rest @ ..] = merging.as_slice() {
        let off: String = rest.iter().map(|feature| format!(" {feature} off")).collect();
        return Finding::warning(
            "offloads",
            format!(
                "the device of {name} merges segments before the XDP program sees them ({}), and what it merges fits no \
                 frame; switch it off with `ethtool -K {name} {first} off{off}`",
                merging.join(", ")
            ),
        );
    }
    if facts.is_on("rx-vlan-hw-parse") && facts.is_device && !facts.vlans.is_empty() {
        return Finding::warning(
            "offloads",
            format!(
                "the device of {name} strips VLAN tags before the XDP program sees frames, so that segments of {} look as \
                 if they had none and are answered without; switch it off with `ethtool -K {name} rxvlan off`",
                facts.vlans.join(", ")
            ),
        );
    }
    Finding::ok("offloads", "none that hurts")
}

/// The command that gives the device so many channels.
fn channels_command(facts: &Facts, channels: u32) -> String {
    let name = &facts.name;
    let none_combined = facts.channels.is_some_and(|channels| channels.combined_max == 0);
    if none_combined || driver(facts.driver_name()).separate_channels {
        format!("ethtool -L {name} rx {channels} tx {channels}")
    } else {
        format!("ethtool -L {name} combined {channels}")
    }
}

#[cfg(test)]
mod tests;
