//! The limit of SYNs per source. At one an hour, nothing is earned while a test runs.

use tidegate_abi::XdpCounter;
use tidegate_abi::syn_ack::feature::{SOURCE_RULES, SYN_RATE};
use tidegate_abi::syn_ack::source_rule::{ALLOW, DENY};
use tidegate_abi::syn_ack::{SynRate, cookie_switch};

use super::address;
use crate::frames::segment::{ACK, FIN, RST, SYN, Segment, clients};
use crate::frames::{PORT, with_vlan_tags};
use crate::program::Program;
use crate::syn_cookies::answering;
use crate::{SERVICE_VLAN, VLAN};

const HOUR_NS: u64 = 3_600_000_000_000;

/// One SYN an hour of one address, and three at once.
const LIMIT: SynRate = SynRate {
    cost_ns: HOUR_NS,
    burst_ns: 3 * HOUR_NS,
    prefix_v4: 32,
    prefix_v6: 64,
};

/// The program with both destinations served, and SYNs limited.
fn limited(limit: SynRate) -> Option<Program> {
    let mut program = Program::serving()?;
    program.set_syn_rate(limit);
    program.set_features(SYN_RATE);
    Some(program)
}

/// Fails the test unless the next SYN of `source` is served, or dropped.
#[track_caller]
fn expect_syn(program: &Program, source: &str, served: bool) {
    let reason = if served {
        XdpCounter::RedirectSyn
    } else {
        XdpCounter::DropSynRate
    };
    program.expect(reason, &Segment::syn(address(source)).frame(), source);
}

#[test]
fn a_burst_and_then_no_more() {
    let Some(program) = limited(LIMIT) else { return };
    for source in ["198.18.0.2", "198.18.0.3", "2001:2::2", "2001:2:0:1::2"] {
        for _ in 0..3 {
            expect_syn(&program, source, true);
        }
        for _ in 0..100 {
            expect_syn(&program, source, false);
        }
    }
    let syn = Segment::syn(address("198.18.0.2")).frame();
    let tagged = with_vlan_tags(&syn, &[SERVICE_VLAN, VLAN]);
    program.expect(XdpCounter::DropSynRate, &tagged, "the same source in a VLAN");
    expect_syn(&program, "198.18.0.4", true);
    expect_syn(&program, "2001:2:0:2::2", true);
}

#[test]
fn a_burst_of_one() {
    let Some(program) = limited(SynRate {
        burst_ns: HOUR_NS,
        ..LIMIT
    }) else {
        return;
    };
    for source in ["198.18.0.2", "2001:2::2"] {
        expect_syn(&program, source, true);
        expect_syn(&program, source, false);
    }
}

/// A source may have saved up more than the time since the system was started.
#[test]
fn a_burst_longer_than_the_system_is_up() {
    let Some(program) = limited(SynRate {
        burst_ns: 1 << 62,
        ..LIMIT
    }) else {
        return;
    };
    for source in ["198.18.0.2", "2001:2::2"] {
        for _ in 0..100 {
            expect_syn(&program, source, true);
        }
    }
}

#[test]
fn addresses_of_one_prefix_are_one_source() {
    for (bits, same, another) in [
        (32, ["198.18.0.2"; 3], "198.18.0.3"),
        (31, ["198.18.0.2", "198.18.0.3", "198.18.0.2"], "198.18.0.4"),
        (24, ["198.18.0.0", "198.18.0.128", "198.18.0.255"], "198.18.1.0"),
        (16, ["198.18.0.0", "198.18.128.0", "198.18.255.255"], "198.19.0.0"),
        (1, ["198.18.0.2", "198.19.0.2", "200.0.0.1"], "100.0.0.1"),
    ] {
        let Some(program) = limited(SynRate {
            prefix_v4: bits,
            ..LIMIT
        }) else {
            return;
        };
        for source in same {
            expect_syn(&program, source, true);
        }
        for source in same {
            expect_syn(&program, source, false);
        }
        expect_syn(&program, another, true);
        expect_syn(&program, "2001:2::2", true);
    }
    for (bits, same, another) in [
        (
            64,
            ["2001:2::", "2001:2::2", "2001:2::ffff:ffff:ffff:ffff"],
            "2001:2:0:1::",
        ),
        (63, ["2001:2::", "2001:2:0:1::2", "2001:2::2"], "2001:2:0:2::"),
        (48, ["2001:2::", "2001:2:0:8000::", "2001:2:0:ffff::"], "2001:2:1::"),
        (1, ["2001:2::", "2001:2:0:1::", "7fff::"], "8000::"),
    ] {
        let Some(program) = limited(SynRate {
            prefix_v6: bits,
            ..LIMIT
        }) else {
            return;
        };
        for source in same {
            expect_syn(&program, source, true);
        }
        for source in same {
            expect_syn(&program, source, false);
        }
        expect_syn(&program, another, true);
        expect_syn(&program, "198.18.0.2", true);
    }
}

#[test]
fn with_no_bits_a_family_is_one_source() {
    let Some(program) = limited(SynRate {
        prefix_v4: 0,
        prefix_v6: 0,
        ..LIMIT
    }) else {
        return;
    };
    for sources in [
        ["10.0.0.1", "100.64.0.1", "198.18.0.2", "223.255.255.254"],
        ["1::", "2001:2::2", "8000::", "fd00::1"],
    ] {
        for source in &sources[..3] {
            expect_syn(&program, source, true);
        }
        for source in sources {
            expect_syn(&program, source, false);
        }
    }
}

/// Other segments are neither dropped nor paid for, and neither is a SYN that is dropped for another reason.
#[test]
fn only_syns_are_counted() {
    let Some(program) = limited(LIMIT) else { return };
    for client in clients() {
        for syn in [
            XdpCounter::RedirectSyn,
            XdpCounter::RedirectSyn,
            XdpCounter::RedirectSyn,
            XdpCounter::DropSynRate,
        ] {
            for _ in 0..4 {
                for (flags, reason) in [
                    (ACK, XdpCounter::Redirect),
                    (SYN | ACK, XdpCounter::Redirect),
                    (FIN | ACK, XdpCounter::Redirect),
                    (RST, XdpCounter::Redirect),
                    (SYN | FIN, XdpCounter::DropSynFlags),
                    (SYN | RST, XdpCounter::DropSynFlags),
                ] {
                    let segment = Segment {
                        flags,
                        ..Segment::syn(client)
                    };
                    let what = format!("{client}, control bits {flags:#04x}");
                    program.expect(reason, &segment.frame(), what);
                }
            }
            program.expect(syn, &Segment::syn(client).frame(), client);
        }
    }
}

#[test]
fn only_syns_to_what_is_served_are_counted() {
    let Some(program) = limited(LIMIT) else { return };
    for client in clients() {
        let elsewhere = Segment {
            destination_port: PORT + 1,
            ..Segment::syn(client)
        };
        let syn = Segment::syn(client).frame();
        for served in [true, true, true, false] {
            for _ in 0..4 {
                program.expect(XdpCounter::PassNotServed, &elsewhere.frame(), client);
            }
            let reason = if served {
                XdpCounter::RedirectSyn
            } else {
                XdpCounter::DropSynRate
            };
            program.expect(reason, &syn, client);
        }
    }
}

#[test]
fn without_the_feature_or_a_cost_there_is_no_limit() {
    let Some(mut program) = limited(LIMIT) else { return };
    for features in [0, SOURCE_RULES] {
        program.set_features(features);
        for _ in 0..10 {
            expect_syn(&program, "198.18.0.2", true);
            expect_syn(&program, "2001:2::2", true);
        }
    }
    program.set_features(SYN_RATE);
    program.set_syn_rate(SynRate { cost_ns: 0, ..LIMIT });
    for _ in 0..10 {
        expect_syn(&program, "198.18.0.2", true);
        expect_syn(&program, "2001:2::2", true);
    }
}

/// A SYN costs the same whether a cookie answers it or the engine.
#[test]
fn cookies_are_limited_too() {
    let Some(mut program) = answering() else { return };
    program.set_syn_rate(LIMIT);
    program.set_features(SYN_RATE);
    for client in clients() {
        let syn = Segment::syn(client).frame();
        for reason in [
            XdpCounter::TxSynCookie,
            XdpCounter::TxSynCookie,
            XdpCounter::TxSynCookie,
            XdpCounter::DropSynRate,
            XdpCounter::DropSynRate,
        ] {
            program.expect(reason, &syn, client);
        }
    }
    program.set_cookie_switch(0, cookie_switch::OFF);
    for client in clients() {
        program.expect(XdpCounter::DropSynRate, &Segment::syn(client).frame(), client);
    }
}

/// A denied source is dropped before its SYNs are counted; an allowed one is limited all the same.
#[test]
fn rules_come_before_the_limit() {
    let Some(mut program) = limited(LIMIT) else { return };
    program.set_features(SOURCE_RULES | SYN_RATE);
    let denied = address("198.18.0.2");
    program.set_source_rule(denied, 32, DENY);
    for _ in 0..10 {
        program.expect(XdpCounter::DropSourceDenied, &Segment::syn(denied).frame(), "denied");
    }
    program.set_source_rule(denied, 32, ALLOW);
    for served in [true, true, true, false] {
        expect_syn(&program, "198.18.0.2", served);
    }
}
