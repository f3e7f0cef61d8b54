//! Options that no one has thought of.

use std::net::IpAddr;

use tidegate_abi::XdpCounter;

use super::offer::{END, NOP, Offer};
use super::{SWITCHES, TAGS, answering, expect_answer_by};
use crate::frames::segment::{CWR, ECE, SYN, Segment, clients};
use crate::frames::with_vlan_tags;
use crate::random::Random;

const ROUNDS: u32 = 4000;

/// Whatever the options, a SYN is dropped, or answered by a SYN-ACK that is right and no longer than it.
#[test]
fn any_options_are_answered_in_kind_or_dropped() {
    let Some(mut program) = answering() else { return };
    let mut random = Random::new();
    let (mut answered, mut dropped) = (0, 0);
    for round in 0..ROUNDS {
        let syn = draw_syn(&mut random);
        let tags = random.one_of(&TAGS);
        let switch = random.one_of(&SWITCHES);
        program.set_cookie_switch(0, switch);
        let frame = with_vlan_tags(&syn.frame(), tags);
        let what = format!("round {round}, tags {tags:x?}, switch {switch}, {syn:x?}");
        match Offer::read(&syn.options) {
            Some(offer) => {
                let ecn = syn.flags & (ECE | CWR) == ECE | CWR;
                expect_answer_by(switch, &program, &frame, &syn, &Offer { ecn, ..offer }, what);
                answered += 1;
            }
            None => {
                program.expect(XdpCounter::DropSynMalformed, &frame, what);
                dropped += 1;
            }
        }
    }
    assert!(
        answered > ROUNDS / 4 && dropped > ROUNDS / 4,
        "{answered} answered, {dropped} dropped: not much of a test"
    );
}

fn draw_syn(random: &mut Random) -> Segment {
    let source = match random.one_of(&clients()) {
        IpAddr::V4(client) => {
            let [a, b, ..] = client.octets();
            IpAddr::from([a, b, random.number() as u8, random.number() as u8])
        }
        IpAddr::V6(client) => {
            let mut octets = client.octets();
            octets[8..].copy_from_slice(&random.octets(8));
            IpAddr::from(octets)
        }
    };
    let text = if random.below(4) == 0 { random.below(100) } else { 0 };
    Segment {
        source_port: 1 + random.below(u32::from(u16::MAX)) as u16,
        sequence_number: random.number(),
        flags: SYN | random.one_of(&[0, ECE, ECE | CWR]),
        options: draw_options(random),
        text: random.octets(text as usize),
        ..Segment::syn(source)
    }
}

/// Up to ten words of options: one after the other, the last one sometimes cut short, or any octets at all.
fn draw_options(random: &mut Random) -> Vec<u8> {
    let length = 4 * random.below(11) as usize;
    if random.below(8) == 0 {
        return random.octets(length);
    }
    let mut options = Vec::new();
    while options.len() < length {
        let option = draw_option(random);
        if options.len() + option.len() <= length || random.below(2) == 0 {
            options.extend_from_slice(&option);
        } else {
            break;
        }
    }
    options.resize(length, random.one_of(&[NOP, END]));
    options
}

fn draw_option(random: &mut Random) -> Vec<u8> {
    match random.below(32) {
        0..=7 => vec![NOP],
        8..=12 => [vec![2, 4], random.octets(2)].concat(),
        13..=17 => [vec![3, 3], random.octets(1)].concat(),
        18..=22 => vec![4, 2],
        23..=27 => [vec![8, 10], random.octets(8)].concat(),
        28..=30 => {
            let length = 2 + random.below(7) as usize;
            let kind = random.one_of(&[2, 3, 4, 5, 8, 19, 34, 253, 254]);
            [vec![kind, length as u8], random.octets(length - 2)].concat()
        }
        // An end, or nonsense.
        _ => random.octets(2),
    }
}
