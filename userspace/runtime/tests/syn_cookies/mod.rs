//! SYN cookies: what a SYN is answered with ([`answer`]), and which SYNs are not answered ([`refused`]) or left to the
//! engine ([`flows`]).

pub(crate) mod answer;
pub(crate) mod flows;
mod offer;
mod random_options;
mod refused;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_getres};
use tidegate_abi::XdpCounter;
use tidegate_abi::syn_ack::{SynAck, cookie_switch};
use tidegate_abi::syn_cookie::{self, Content, MSS_V4, MSS_V6};

use self::answer::{KEYS, TEMPLATE, expect_answer, expect_answer_by};
use self::offer::{NOP, Offer, mixes};
use crate::frames::segment::{ACK, CWR, ECE, FIN, RST, SYN, Segment, clients};
use crate::frames::{IP, set_u16, with_vlan_tags};
use crate::program::Program;
use crate::{SERVICE_VLAN, VLAN};

/// Tags of a frame, the outermost first.
const TAGS: [&[u16]; 4] = [&[], &[VLAN], &[SERVICE_VLAN], &[SERVICE_VLAN, VLAN]];

/// Switches that are on, with usual cookies and with strong ones.
const SWITCHES: [u32; 2] = [cookie_switch::on(0), cookie_switch::on_strong(0)];

/// The program with both destinations served, and cookies of key id 0 on queue 0.
pub(crate) fn answering() -> Option<Program> {
    let mut program = Program::serving()?;
    for (key_id, key) in (0..).zip(KEYS) {
        program.set_cookie_key(key_id, key);
    }
    program.set_syn_ack(TEMPLATE);
    program.set_cookie_switch(0, cookie_switch::on(0));
    Some(program)
}

/// A SYN as Linux sends it, and what it offers: everything but ECN.
fn syn_with_all_options(client: IpAddr) -> (Segment, Offer) {
    let linux = mixes()
        .into_iter()
        .find(|mix| mix.what == "Linux")
        .expect("it is among them");
    let syn = Segment {
        options: linux.options,
        ..Segment::syn(client)
    };
    (syn, linux.offer)
}

#[test]
fn every_mix_of_options_is_answered_in_kind() {
    let Some(mut program) = answering() else { return };
    for switch in SWITCHES {
        program.set_cookie_switch(0, switch);
        for mix in mixes() {
            let mut padded = mix.options.clone();
            padded.resize(padded.len().next_multiple_of(4), 0);
            assert_eq!(Offer::read(&padded), Some(mix.offer), "{}", mix.what);
            for client in clients() {
                let syn = Segment {
                    options: mix.options.clone(),
                    ..Segment::syn(client)
                };
                for tags in TAGS {
                    let frame = with_vlan_tags(&syn.frame(), tags);
                    let what = format!("{client}, {}, tags {tags:x?}, switch {switch}", mix.what);
                    expect_answer_by(switch, &program, &frame, &syn, &mix.offer, what);
                }
            }
        }
    }
}

/// The index of the largest MSS in the cookie's table that is not above the client's.
#[test]
fn every_mss_is_rounded_down() {
    let Some(mut program) = answering() else { return };
    for switch in SWITCHES {
        program.set_cookie_switch(0, switch);
        for (client, table) in clients().into_iter().zip([MSS_V4, MSS_V6]) {
            let around = table.into_iter().flat_map(|mss| [mss - 1, mss, mss + 1]);
            for mss in around.chain([0, 1, 0x0100, 9000, u16::MAX]) {
                let [high, low] = mss.to_be_bytes();
                let syn = Segment {
                    options: vec![2, 4, high, low],
                    ..Segment::syn(client)
                };
                let offer = Offer {
                    mss: Some(mss),
                    ..Offer::default()
                };
                let what = format!("{client}, MSS {mss}, switch {switch}");
                expect_answer_by(switch, &program, &syn.frame(), &syn, &offer, what);
            }
        }
    }
}

#[test]
fn every_window_scale_is_remembered_and_none_above_14() {
    let Some(program) = answering() else { return };
    for client in clients() {
        for shift in 0..=u8::MAX {
            let syn = Segment {
                options: vec![NOP, 3, 3, shift],
                ..Segment::syn(client)
            };
            let offer = Offer {
                window_scale: Some(shift.min(14)),
                ..Offer::default()
            };
            expect_answer(&program, &syn.frame(), &syn, &offer, format!("{client}, shift {shift}"));
        }
    }
}

#[test]
fn the_timestamp_and_the_sequence_number_come_back() {
    let Some(program) = answering() else { return };
    for client in clients() {
        for number in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX] {
            let syn = Segment {
                options: [&[8_u8, 10][..], &number.to_be_bytes(), &[0; 4]].concat(),
                sequence_number: number,
                ..Segment::syn(client)
            };
            let offer = Offer {
                timestamp: Some(number),
                ..Offer::default()
            };
            expect_answer(
                &program,
                &syn.frame(),
                &syn,
                &offer,
                format!("{client}, {number:#010x}"),
            );
        }
    }
}

/// The client would take what follows for old if the SYN-ACK's timestamp were ahead of the connection's clock (PAWS,
/// RFC 7323, section 5).
#[test]
fn the_timestamp_is_one_of_the_last_1024_of_the_flows_clock() {
    let Some(mut program) = answering() else { return };
    // A clock that stands.
    program.set_syn_ack(SynAck {
        ms_per_jiffy: 0,
        ..TEMPLATE
    });
    for client in clients() {
        for source_port in 1024..1100 {
            let (mut syn, offer) = syn_with_all_options(client);
            syn.source_port = source_port;
            let answer = expect_answer(&program, &syn.frame(), &syn, &offer, format!("port {source_port}"));
            let cookie = syn_cookie::make(KEYS[0], 0, &answer.handshake, Content::Options(answer.options));
            assert_eq!(cookie.isn, answer.isn);
            assert_eq!(answer.timestamp, Some(cookie.timestamp(0)), "port {source_port}");
        }
    }
}

#[test]
fn the_timestamps_clock_goes_on_with_the_kernels() {
    let Some(mut program) = answering() else { return };
    let jiffy = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).expect("every system has this clock");
    program.set_syn_ack(SynAck {
        ms_per_jiffy: SynAck::per_jiffy(jiffy.tv_nsec() as u32),
        ..TEMPLATE
    });
    let (syn, offer) = syn_with_all_options(clients()[0]);
    let timestamp = |when: &str| {
        let answer = expect_answer(&program, &syn.frame(), &syn, &offer, when);
        answer.timestamp.expect("the SYN had one")
    };
    let start = Instant::now();
    let first = timestamp("first");
    let shortest = start.elapsed();
    std::thread::sleep(Duration::from_millis(2100));
    let waited = start.elapsed() - shortest;
    let passed = timestamp("later").wrapping_sub(first);
    let longest = start.elapsed();
    // Each timestamp is up to 1,023 ms behind the clock, and the clock a jiffy behind the time.
    let slack = 1024 + jiffy.tv_nsec() as u32 / 1_000_000;
    let (waited, longest) = (waited.as_millis() as u32, longest.as_millis() as u32);
    assert!(
        (waited - slack..=longest + slack).contains(&passed),
        "{passed} ms in {waited} to {longest} ms"
    );
}

#[test]
fn ecn_takes_both_sides() {
    let Some(mut program) = answering() else { return };
    for ours in [1, 0] {
        program.set_syn_ack(SynAck { ecn: ours, ..TEMPLATE });
        for client in clients() {
            for asked in [0, ECE, CWR, ECE | CWR] {
                let (mut syn, mut offer) = syn_with_all_options(client);
                syn.flags = SYN | asked;
                offer.ecn = ours == 1 && asked == ECE | CWR;
                let what = format!("{client}, ecn = {ours}, asked by {asked:#04x}");
                expect_answer(&program, &syn.frame(), &syn, &offer, what);
            }
        }
    }
}

#[test]
fn strong_cookies_leave_ecn_out_where_there_are_no_timestamps() {
    let Some(mut program) = answering() else { return };
    let switch = cookie_switch::on_strong(0);
    program.set_cookie_switch(0, switch);
    let mut agreed = [0, 0];
    for mix in mixes() {
        for client in clients() {
            let syn = Segment {
                flags: SYN | ECE | CWR,
                options: mix.options.clone(),
                ..Segment::syn(client)
            };
            let offer = Offer { ecn: true, ..mix.offer };
            let what = format!("{client}, {}", mix.what);
            let answer = expect_answer_by(switch, &program, &syn.frame(), &syn, &offer, what);
            assert_eq!(answer.options.ecn, answer.timestamp.is_some());
            agreed[usize::from(answer.options.ecn)] += 1;
        }
    }
    assert!(agreed.iter().all(|&number| number > 0), "{agreed:?}");
}

#[test]
fn text_is_cut_off() {
    let Some(program) = answering() else { return };
    for client in clients() {
        for length in [1, 2, 5, 6, 7, 64, 1000, 1400] {
            for options in [vec![], vec![2, 4, 0x05, 0xb4]] {
                let syn = Segment {
                    text: vec![0xa5; length],
                    ..Segment::syn(client)
                };
                let offer = Offer {
                    mss: (!options.is_empty()).then_some(1460),
                    ..Offer::default()
                };
                let syn = Segment { options, ..syn };
                for tags in TAGS {
                    let frame = with_vlan_tags(&syn.frame(), tags);
                    let what = format!("{client}, {length} octets, tags {tags:x?}");
                    expect_answer(&program, &frame, &syn, &offer, what);
                }
            }
        }
    }
}

#[test]
fn padding_behind_the_packet_is_no_text() {
    let Some(program) = answering() else { return };
    for client in clients() {
        for length in [0, 2] {
            let syn = Segment {
                text: vec![0xa5; length],
                ..Segment::syn(client)
            };
            for padding in [1, 4, 40] {
                let mut frame = syn.frame();
                frame.resize(frame.len() + padding, 0xee);
                let what = format!("{client}, {length} octets of text, {padding} of padding");
                expect_answer(&program, &frame, &syn, &Offer::default(), what);
            }
        }
    }
}

/// Everything the SYN says in a field that a SYN-ACK has no use for.
#[test]
fn nothing_else_of_the_syn_is_left() {
    let Some(program) = answering() else { return };
    for client in clients() {
        let (syn, offer) = syn_with_all_options(client);
        let mut frame = syn.frame();
        match client {
            IpAddr::V4(_) => {
                // Type of service, identification, and "don't fragment" is not set.
                frame[IP + 1] = 0xbb;
                set_u16(&mut frame, IP + 4, 0x1234);
                set_u16(&mut frame, IP + 6, 0);
            }
            IpAddr::V6(_) => {
                // Traffic class and flow label.
                set_u16(&mut frame, IP, 0x6bbf);
                set_u16(&mut frame, IP + 2, 0xbeef);
            }
        }
        let tcp = syn.offset();
        // SEG.ACK without ACK, the reserved bits, and an urgent pointer without URG.
        set_u16(&mut frame, tcp + 8, 0xdead);
        frame[tcp + 12] |= 0x0f;
        set_u16(&mut frame, tcp + 18, 0xbeef);
        expect_answer(&program, &frame, &syn, &offer, client);
    }
}

#[test]
fn the_switch_says_which_key() {
    let Some(mut program) = answering() else { return };
    for key_id in [1, 0, 1] {
        for switch in [cookie_switch::on(key_id), cookie_switch::on_strong(key_id)] {
            program.set_cookie_switch(0, switch);
            for client in clients() {
                for (syn, offer) in [syn_with_all_options(client), (Segment::syn(client), Offer::default())] {
                    let what = format!("{client}, switch {switch}");
                    let answer = expect_answer_by(switch, &program, &syn.frame(), &syn, &offer, what);
                    assert_eq!(syn_cookie::key_id(answer.isn), key_id, "{client}");
                }
            }
        }
    }
}

#[test]
fn only_the_switch_of_the_queue_counts() {
    let Some(mut program) = answering() else { return };
    let (syn, offer) = syn_with_all_options(clients()[0]);
    for queue in 1..program.queues() {
        program.set_cookie_switch(queue, cookie_switch::OFF);
    }
    expect_answer(&program, &syn.frame(), &syn, &offer, "on for queue 0 alone");
    program.set_cookie_switch(0, cookie_switch::OFF);
    for queue in 1..program.queues() {
        program.set_cookie_switch(queue, cookie_switch::on(queue));
    }
    program.expect(XdpCounter::RedirectSyn, &syn.frame(), "on for all queues but 0");
    program.set_cookie_switch(0, cookie_switch::on(0));
    expect_answer(&program, &syn.frame(), &syn, &offer, "on again");
}

/// Each combination of control bits, with cookies and without.
#[test]
fn only_a_syn_that_opens_a_connection_is_answered() {
    let Some(mut program) = answering() else { return };
    for cookies in [true, false] {
        program.set_cookie_switch(
            0,
            if cookies {
                cookie_switch::on(0)
            } else {
                cookie_switch::OFF
            },
        );
        for client in clients() {
            for flags in 0..=u8::MAX {
                let (mut syn, mut offer) = syn_with_all_options(client);
                syn.flags = flags;
                offer.ecn = flags & (ECE | CWR) == ECE | CWR;
                let what = format!("{client}, control bits {flags:#04x}, cookies {cookies}");
                let reason = if flags & (SYN | ACK) != SYN {
                    XdpCounter::Redirect
                } else if flags & (FIN | RST) != 0 {
                    XdpCounter::DropSynFlags
                } else if cookies {
                    expect_answer(&program, &syn.frame(), &syn, &offer, what);
                    continue;
                } else {
                    XdpCounter::RedirectSyn
                };
                program.expect(reason, &syn.frame(), what);
            }
        }
    }
}
