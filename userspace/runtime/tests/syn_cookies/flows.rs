//! SYNs of flows that an engine has, which are its to answer.

use std::net::IpAddr;

use tidegate_abi::XdpCounter;
use tidegate_abi::flow_filter::{FlowHash, FlowHasher};

use super::{TAGS, answering};
use crate::frames::segment::{Segment, clients};
use crate::frames::{SERVER_V4, SERVER_V6, with_vlan_tags};
use crate::program::{BUCKETS, Program};

/// Room for `flows` flows.
pub(crate) fn hasher(flows: u64) -> FlowHasher {
    // Numbers as random as any.
    let hasher = FlowHasher::new(
        flows,
        std::array::from_fn(|index| (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
    );
    assert!(hasher.buckets() <= BUCKETS);
    hasher
}

/// The hash of a segment's flow.
pub(crate) fn hash_of(hasher: &FlowHasher, segment: &Segment) -> FlowHash {
    let words = |address: [u8; 16]| {
        let mut words = [0; 4];
        for (word, octets) in words.iter_mut().zip(address.as_chunks().0) {
            *word = u32::from_ne_bytes(*octets);
        }
        words
    };
    let ports = (u32::from(segment.source_port) << 16 | u32::from(segment.destination_port)).to_be();
    match segment.source {
        IpAddr::V4(client) => hasher.v4(u32::from(client).to_be(), u32::from_ne_bytes(SERVER_V4), ports),
        IpAddr::V6(client) => hasher.v6(words(client.octets()), words(SERVER_V6), ports),
    }
}

/// The ways in which the bucket of a segment's flow may be filled, and whether the flow is a known one then.
pub(crate) fn fillings(hasher: &FlowHasher, hash: FlowHash) -> Vec<([u32; 16], bool)> {
    let fingerprint = hasher.fingerprint(hash);
    let mut fillings = vec![([0; 16], false)];
    for place in 1..16 {
        for owner in [0, 63] {
            let mut words = [0; 16];
            words[place] = fingerprint.entry(owner);
            fillings.push((words, true));
            // One bit less or more is another flow.
            words[place] ^= 1 << 31;
            fillings.push((words, false));
        }
    }
    let mut without_room = [0; 16];
    without_room[0] = 1;
    fillings.push((without_room, true));
    fillings.push(([0; 16], false));
    fillings
}

/// Fills the bucket of a segment's flow.
pub(crate) fn fill(program: &mut Program, hasher: &FlowHasher, hash: FlowHash, words: [u32; 16]) {
    program.set_bucket(hasher.bucket(hash), words);
}

#[test]
fn a_syn_of_a_known_flow_goes_to_the_engine_until_it_is_forgotten() {
    let Some(mut program) = answering() else { return };
    for flows in [u64::from(BUCKETS) * 7, 1000, 0] {
        let hasher = hasher(flows);
        program.set_flow_hasher(hasher);
        for client in clients() {
            for source_port in [1, 1024, 40_000, 65_535] {
                let syn = Segment {
                    source_port,
                    ..Segment::syn(client)
                };
                let hash = hash_of(&hasher, &syn);
                for tags in TAGS {
                    let frame = with_vlan_tags(&syn.frame(), tags);
                    for (words, is_known) in fillings(&hasher, hash) {
                        let expected = if is_known {
                            XdpCounter::RedirectSyn
                        } else {
                            XdpCounter::TxSynCookie
                        };
                        fill(&mut program, &hasher, hash, words);
                        program.expect(
                            expected,
                            &frame,
                            format!("{client} port {source_port}, tags {tags:x?}, {flows} flows, {words:x?}"),
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn its_neighbours_are_answered_with_cookies() {
    let Some(mut program) = answering() else { return };
    let hasher = hasher(0);
    program.set_flow_hasher(hasher);
    for client in clients() {
        let known = Segment::syn(client);
        let hash = hash_of(&hasher, &known);
        let mut words = [0; 16];
        words[7] = hasher.fingerprint(hash).entry(3);
        fill(&mut program, &hasher, hash, words);
        for port in 1..2000 {
            let syn = Segment {
                source_port: port,
                ..Segment::syn(client)
            };
            let expected = if port == known.source_port {
                XdpCounter::RedirectSyn
            } else {
                XdpCounter::TxSynCookie
            };
            program.expect(expected, &syn.frame(), format!("{client} port {port}"));
        }
        fill(&mut program, &hasher, hash, [0; 16]);
    }
}

#[test]
fn a_source_that_cannot_be_answered_is_dropped_all_the_same() {
    let Some(mut program) = answering() else { return };
    let hasher = hasher(0);
    program.set_flow_hasher(hasher);
    // Everything is suspected of being a known flow's.
    let mut full = [0; 16];
    full[0] = 1;
    let own = [IpAddr::from(SERVER_V4), IpAddr::from(SERVER_V6)];
    let others = [
        "0.0.0.0",
        "0.255.255.255",
        "127.0.0.1",
        "127.255.255.255",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "ff00::",
        "ff02::1",
    ];
    for source in others
        .map(|source| source.parse().expect("an address"))
        .into_iter()
        .chain(own)
    {
        let syn = Segment::syn(source);
        fill(&mut program, &hasher, hash_of(&hasher, &syn), full);
        program.expect(XdpCounter::DropBadSource, &syn.frame(), source);
    }
}

#[test]
fn sources_next_to_those_that_cannot_be_answered_are_answered() {
    let Some(program) = answering() else { return };
    for source in [
        "1.0.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "223.255.255.255",
        "::2",
        "::1:0:1",
        "1::",
        "feff::1",
    ] {
        let source: IpAddr = source.parse().expect("an address");
        let syn = Segment::syn(source);
        program.expect(XdpCounter::TxSynCookie, &syn.frame(), source);
        let without_port = Segment { source_port: 0, ..syn };
        program.expect(XdpCounter::DropBadSource, &without_port.frame(), source);
    }
}
