//! Checks against what the drivers of the table answer.

use super::*;
use crate::drivers::DRIVERS;
use crate::facts::{Channels, Xdp};
use crate::fake::{Device, Other};
use crate::finding::Severity;

const LINUX: Version = Version(7, 3);

fn wanted(mode: Mode) -> Use {
    Use {
        kernel: Some(LINUX),
        mode,
        require_zero_copy: false,
        queues: 4,
        cpus: 4,
    }
}

/// A device whose kernel tells of XDP what the table says of its driver.
fn told_by_table(row: &'static Driver) -> Device {
    let features = match (row.native_since, row.zero_copy_since) {
        (None, _) => 0,
        (Some(_), None) => 0b111,
        (Some(_), Some(_)) => 0b1111,
    };
    Device {
        xdp: Some(features),
        ..Device::of(row.name)
    }
}

fn of(facts: &Facts, wanted: &Use, subject: &str) -> Vec<(Severity, String)> {
    let all = device(facts, wanted);
    let about = all.into_iter().filter(|finding| finding.subject == subject);
    about
        .map(|finding| (finding.severity, finding.sentence.to_string()))
        .collect()
}

/// The only finding about `subject`.
fn only(facts: &Facts, wanted: &Use, subject: &str) -> (Severity, String) {
    let found = of(facts, wanted, subject);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

#[test]
fn each_driver_gets_the_mode_it_has() {
    for row in DRIVERS {
        let facts = told_by_table(row).facts();
        let expected = if row.native_since.is_some() {
            Severity::Ok
        } else {
            Severity::Warning
        };
        let (severity, sentence) = only(&facts, &wanted(Mode::Auto), "xdp");
        assert_eq!(severity, expected, "{}: {sentence}", row.name);
        let (severity, _) = only(&facts, &wanted(Mode::Native), "xdp");
        assert_eq!(
            severity == Severity::Failure,
            row.native_since.is_none(),
            "{}",
            row.name
        );
        assert_eq!(
            only(&facts, &wanted(Mode::Generic), "xdp").0,
            Severity::Ok,
            "{}",
            row.name
        );
        assert_eq!(
            zero_copy_refusal(&facts, Some(LINUX)).is_none(),
            row.zero_copy_since.is_some(),
            "{}",
            row.name
        );
        let required = Use {
            require_zero_copy: true,
            ..wanted(Mode::Auto)
        };
        let failed = of(&facts, &required, "zero-copy")
            .iter()
            .any(|(severity, _)| *severity == Severity::Failure);
        assert_eq!(failed, row.zero_copy_since.is_none(), "{}", row.name);
    }
}

#[test]
fn each_driver_is_described_by_what_is_known_of_it() {
    for row in DRIVERS {
        let (severity, line) = only(&told_by_table(row).facts(), &wanted(Mode::Auto), "driver");
        assert!(severity == Severity::Ok && line.starts_with(row.name), "{line}");
        for (known, words) in [
            (row.native_since.is_none(), "generic XDP only"),
            (row.max_mtu.is_some(), "MTU up to"),
            (row.buffer_unit > 1 || row.only_frames_of_4096, "frames of 4096"),
            (row.drops_xdp_tx, "without SYN cookies"),
        ] {
            assert_eq!(line.contains(words), known, "{line}");
        }
        if let Some(note) = row.note {
            assert!(line.contains(note), "{line}");
        }
    }
}

#[test]
fn each_driver_has_its_own_limit_of_the_mtu() {
    for row in DRIVERS.iter().filter(|row| row.native_since.is_some()) {
        let Some(max) = row.max_mtu else { continue };
        let mut of_row = told_by_table(row);
        of_row.mtu = max;
        assert_eq!(
            only(&of_row.facts(), &wanted(Mode::Native), "xdp").0,
            Severity::Ok,
            "{}",
            row.name
        );
        of_row.mtu = max + 1;
        let (severity, sentence) = only(&of_row.facts(), &wanted(Mode::Auto), "xdp");
        assert_eq!(severity, Severity::Warning, "{}", row.name);
        assert!(
            sentence.contains(&format!("`ip link set dev nic0 mtu {max}`")),
            "{sentence}"
        );
        assert_eq!(
            only(&of_row.facts(), &wanted(Mode::Native), "xdp").0,
            Severity::Failure,
            "{}",
            row.name
        );
        // A program that knows of several buffers is taken where the kernel says so.
        of_row.mtu = 9000;
        of_row.xdp = of_row.xdp.map(|features| features | 1 << 5);
        assert_eq!(
            only(&of_row.facts(), &wanted(Mode::Native), "xdp").0,
            Severity::Ok,
            "{}",
            row.name
        );
    }
}

#[test]
fn each_driver_has_its_own_rule_of_queues() {
    for row in DRIVERS.iter().filter(|row| row.native_since.is_some()) {
        let mut of_row = told_by_table(row);
        let all = Channels {
            combined: 4,
            combined_max: 4,
            ..Channels::default()
        };
        of_row.channels = Some(all);
        let facts = of_row.facts();
        let (xdp, queues) = (
            of(&facts, &wanted(Mode::Auto), "xdp"),
            of(&facts, &wanted(Mode::Auto), "queues"),
        );
        assert_eq!(
            xdp[0].1.contains("half of its 4 channels"),
            row.queue_rule == Some(QueueRule::TwiceTheChannels)
        );
        let shared = queues
            .iter()
            .any(|(_, sentence)| sentence.contains("share queues under a lock"));
        assert_eq!(
            shared,
            row.queue_rule == Some(QueueRule::ChannelsAndCpus),
            "{}",
            row.name
        );
        of_row.channels = Some(Channels { combined_max: 8, ..all });
        for (severity, sentence) in device(&of_row.facts(), &wanted(Mode::Auto))
            .iter()
            .map(|f| (f.severity, &f.sentence))
        {
            assert_eq!(severity, Severity::Ok, "{}: {sentence}", row.name);
        }
    }
    let mut gve = told_by_table(driver(Some("gve")));
    gve.channels = Some(Channels {
        rx: 8,
        tx: 8,
        rx_max: 8,
        tx_max: 8,
        ..Channels::default()
    });
    let (_, sentence) = only(&gve.facts(), &wanted(Mode::Auto), "xdp");
    assert!(sentence.contains("`ethtool -L nic0 rx 4 tx 4`"), "{sentence}");
}

#[test]
fn each_driver_has_its_own_offloads_that_it_refuses_xdp_with() {
    for row in DRIVERS.iter().filter(|row| row.native_since.is_some()) {
        for (index, feature) in ["rx-lro", "rx-gro-hw"].into_iter().enumerate() {
            let mut of_row = told_by_table(row);
            of_row.features[index].1 = true;
            let facts = of_row.facts();
            let refuses = row.refuses_with.contains(&feature);
            let subject = if refuses { "xdp" } else { "offloads" };
            let (severity, sentence) = only(&facts, &wanted(Mode::Auto), subject);
            assert_eq!(severity, Severity::Warning, "{}: {sentence}", row.name);
            assert!(
                sentence.contains(&format!("`ethtool -K nic0 {feature} off`")),
                "{sentence}"
            );
            let native = only(&facts, &wanted(Mode::Native), "xdp").0;
            assert_eq!(native == Severity::Failure, refuses, "{}", row.name);
        }
        let mut of_row = told_by_table(row);
        of_row.rings.as_mut().expect("rings").header_split = true;
        let (severity, sentence) = only(&of_row.facts(), &wanted(Mode::Auto), "xdp");
        assert_eq!(
            severity == Severity::Warning,
            row.refuses_header_split,
            "{}: {sentence}",
            row.name
        );
    }
}

#[test]
fn a_kernel_that_does_not_tell_is_explained_by_the_table() {
    for (name, kernel, native, zero_copy) in [
        ("igb", Version(5, 9), false, false),
        ("igb", Version(5, 10), true, false),
        ("ice", Version(5, 15), true, true),
        ("e1000e", Version(6, 1), false, false),
        ("unknown", Version(6, 1), true, false),
    ] {
        let device = Device {
            xdp: None,
            ..Device::of(name)
        };
        let facts = device.facts();
        let refusals = native_refusals(&facts, Some(kernel));
        assert_eq!(refusals.is_empty(), native, "{name} on {kernel}: {refusals:?}");
        assert_eq!(
            zero_copy_refusal(&facts, Some(kernel)).is_none(),
            zero_copy,
            "{name} on {kernel}"
        );
    }
    let device = Device {
        xdp: None,
        ..Device::of("igb")
    };
    let refusals = native_refusals(&device.facts(), Some(Version(5, 9)));
    assert!(refusals[0].contains("before Linux 5.10"), "{refusals:?}");
}

#[test]
fn stripped_vlan_tags_are_said_where_there_are_vlans() {
    let mut device = Device::of("ice");
    device.features[2].1 = true;
    assert_eq!(only(&device.facts(), &wanted(Mode::Auto), "offloads").0, Severity::Ok);
    device.others = vec![Other::Vlan("nic0.5")];
    let (severity, sentence) = only(&device.facts(), &wanted(Mode::Auto), "offloads");
    assert_eq!(severity, Severity::Warning);
    assert!(
        sentence.contains("nic0.5") && sentence.contains("`ethtool -K nic0 rxvlan off`"),
        "{sentence}"
    );
}

#[test]
fn queues_that_are_not_served_are_said_unless_nothing_gets_there() {
    let two = Use {
        queues: 2,
        ..wanted(Mode::Auto)
    };
    let mut device = Device::of("ice");
    let (severity, sentence) = only(&device.facts(), &two, "queues");
    assert_eq!(severity, Severity::Warning);
    assert!(
        sentence.contains("over 4 queues and 2 are served") && sentence.contains("combined 2`"),
        "{sentence}"
    );
    // As of veth.
    let apart = Channels {
        rx: 4,
        tx: 4,
        rx_max: 4,
        tx_max: 4,
        ..Channels::default()
    };
    let veth = Device {
        channels: Some(apart),
        ..device.clone()
    };
    let (_, sentence) = only(&veth.facts(), &two, "queues");
    assert!(sentence.contains("`ethtool -L nic0 rx 2 tx 2`"), "{sentence}");
    device.rss_table = vec![0, 1, 0, 1];
    let (severity, sentence) = only(&device.facts(), &two, "queues");
    assert!(
        severity == Severity::Ok && sentence.contains("RSS uses no others"),
        "{sentence}"
    );
}

#[test]
fn the_place_among_other_links_is_said() {
    let mut device = Device::of("ice");
    device.others = vec![Other::Master("bond0", "bond")];
    assert!(of(&device.facts(), &wanted(Mode::Auto), "links").is_empty());
    device.others = vec![Other::Master("br0", "bridge")];
    let (severity, sentence) = only(&device.facts(), &wanted(Mode::Auto), "links");
    assert!(
        severity == Severity::Warning && sentence.contains("a part of br0, a bridge"),
        "{sentence}"
    );
}

#[test]
fn the_command_is_what_stands_between_backticks() {
    let device = Device {
        xdp: Some(Xdp::default().features),
        ..Device::of("e1000e")
    };
    let all = super::device(&device.facts(), &wanted(Mode::Auto));
    assert!(
        all.iter().all(|finding| finding.sentence.command().is_none()),
        "{all:?}"
    );
    let finding = Finding::warning("x", "it is off; put it on with `switch it on`, or not with `that`");
    assert_eq!(finding.sentence.command(), Some("switch it on"));
}
