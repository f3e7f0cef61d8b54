//! Prefixes that are allowed or denied.

use std::net::IpAddr;

use tidegate_abi::XdpCounter;
use tidegate_abi::syn_ack::feature::{SOURCE_RULES, SYN_RATE};
use tidegate_abi::syn_ack::source_rule::{ALLOW, DENY};

use super::address;
use crate::frames::segment::{ACK, FIN, RST, SYN, Segment, clients};
use crate::frames::{PORT, with_vlan_tags};
use crate::program::Program;
use crate::syn_cookies::answering;
use crate::{SERVICE_VLAN, VLAN};

/// The program with both destinations served, rules switched on, and these in the tries.
fn with_rules(rules: &[(&str, u32, u32)]) -> Option<Program> {
    let mut program = Program::serving()?;
    program.set_features(SOURCE_RULES);
    for &(prefix, length, rule) in rules {
        program.set_source_rule(address(prefix), length, rule);
    }
    Some(program)
}

/// Fails the test unless segments of all kinds from `source` are served, or else all dropped.
#[track_caller]
fn expect_served(program: &Program, source: IpAddr, served: bool) {
    for (flags, verdict_if_served) in [
        (SYN, XdpCounter::RedirectSyn),
        (SYN | FIN, XdpCounter::DropSynFlags),
        (SYN | ACK, XdpCounter::Redirect),
        (ACK, XdpCounter::Redirect),
        (FIN | ACK, XdpCounter::Redirect),
        (RST, XdpCounter::Redirect),
    ] {
        let reason = if served {
            verdict_if_served
        } else {
            XdpCounter::DropSourceDenied
        };
        let frame = Segment {
            flags,
            ..Segment::syn(source)
        }
        .frame();
        let what = format!("{source}, control bits {flags:#04x}");
        program.expect(reason, &frame, &what);
        let tagged = with_vlan_tags(&frame, &[SERVICE_VLAN, VLAN]);
        program.expect(reason, &tagged, format!("{what}, tagged"));
    }
}

#[test]
fn the_longest_prefix_decides() {
    let Some(program) = with_rules(&[
        ("198.18.7.0", 24, DENY),
        ("198.18.7.9", 32, ALLOW),
        ("2001:2:0:7::", 64, DENY),
        ("2001:2:0:7::9", 128, ALLOW),
        ("2001:2:5::", 48, DENY),
        ("2001:2:5:8000::", 49, ALLOW),
    ]) else {
        return;
    };
    for (source, served) in [
        ("198.18.6.255", true),
        ("198.18.7.0", false),
        ("198.18.7.8", false),
        ("198.18.7.9", true),
        ("198.18.7.10", false),
        ("198.18.7.255", false),
        ("198.18.8.0", true),
        ("2001:2:0:6:ffff:ffff:ffff:ffff", true),
        ("2001:2:0:7::8", false),
        ("2001:2:0:7::9", true),
        ("2001:2:0:7:ffff:ffff:ffff:ffff", false),
        ("2001:2:0:8::", true),
        ("2001:2:4:ffff::", true),
        ("2001:2:5::", false),
        ("2001:2:5:7fff:ffff:ffff:ffff:ffff", false),
        ("2001:2:5:8000::", true),
        ("2001:2:5:ffff::", true),
        ("2001:2:6::", true),
    ] {
        expect_served(&program, address(source), served);
    }
}

#[test]
fn all_denied_but_one() {
    let Some(program) = with_rules(&[
        ("0.0.0.0", 0, DENY),
        ("198.18.0.2", 32, ALLOW),
        ("::", 0, DENY),
        ("2001:2::2", 128, ALLOW),
    ]) else {
        return;
    };
    for client in clients() {
        expect_served(&program, client, true);
    }
    for source in ["198.18.0.3", "198.19.255.255", "2001:2::3", "2001:2::198.18.0.2"] {
        expect_served(&program, address(source), false);
    }
}

#[test]
fn a_rule_is_for_one_family() {
    let Some(program) = with_rules(&[("0.0.0.0", 0, DENY)]) else {
        return;
    };
    for client in clients() {
        expect_served(&program, client, client.is_ipv6());
    }
    let Some(program) = with_rules(&[("::", 0, DENY)]) else {
        return;
    };
    for client in clients() {
        expect_served(&program, client, client.is_ipv4());
    }
}

/// At every length: the last bit of the prefix counts, and the first one behind it does not.
#[test]
fn every_length_of_a_prefix() {
    let Some(mut program) = with_rules(&[]) else { return };
    for client in clients() {
        let bits = if client.is_ipv4() { 32 } else { 128 };
        for length in 0..=bits {
            program.set_source_rule(client, length, DENY);
            expect_served(&program, client, false);
            if length > 0 {
                expect_served(&program, with_bit_flipped(client, length - 1), true);
            }
            if length < bits {
                expect_served(&program, with_bit_flipped(client, length), false);
            }
            // What is outside the next, longer prefix is served again.
            program.set_source_rule(client, length, ALLOW);
        }
    }
}

/// `source` with its bit `index`, counted from the first one, flipped.
fn with_bit_flipped(source: IpAddr, index: u32) -> IpAddr {
    match source {
        IpAddr::V4(v4) => IpAddr::from((u32::from(v4) ^ 1 << (31 - index)).to_be_bytes()),
        IpAddr::V6(v6) => IpAddr::from((u128::from(v6) ^ 1 << (127 - index)).to_be_bytes()),
    }
}

#[test]
fn without_the_feature_no_rule_is_looked_at() {
    let Some(mut program) = with_rules(&[("0.0.0.0", 0, DENY), ("::", 0, DENY)]) else {
        return;
    };
    for (features, served) in [(0, true), (SYN_RATE, true), (SOURCE_RULES, false)] {
        program.set_features(features);
        for client in clients() {
            expect_served(&program, client, served);
        }
    }
}

#[test]
fn only_what_is_served_is_denied() {
    let Some(program) = with_rules(&[("0.0.0.0", 0, DENY), ("::", 0, DENY)]) else {
        return;
    };
    for client in clients() {
        for flags in [SYN, ACK] {
            let mut segment = Segment {
                flags,
                ..Segment::syn(client)
            };
            program.expect(XdpCounter::DropSourceDenied, &segment.frame(), client);
            segment.destination_port = PORT + 1;
            program.expect(XdpCounter::PassNotServed, &segment.frame(), client);
        }
    }
}

#[test]
fn a_denied_source_gets_no_cookie() {
    let Some(mut program) = answering() else { return };
    for client in clients() {
        program.set_source_rule(client, 32, DENY);
        let syn = Segment::syn(client).frame();
        program.set_features(SOURCE_RULES);
        program.expect(XdpCounter::DropSourceDenied, &syn, client);
        program.set_features(0);
        program.expect(XdpCounter::TxSynCookie, &syn, client);
    }
}
