//! The flow filter: segments that are no SYN, of flows that engines have, of handshakes by cookies, and of nobody.

use std::net::IpAddr;

use tidegate_abi::XdpCounter::{DropBadCookie, DropNoFlow, Redirect, RedirectCookie, RedirectNoFlow, RedirectTooBig};
use tidegate_abi::flow_filter::{FlowHasher, handshake};
use tidegate_abi::siphash::Key;
use tidegate_abi::syn_ack::feature::{ALL_COOKIES, COOKIES, FLOW_FILTER};
use tidegate_abi::syn_cookie::{self, Addresses, Content, Handshake, Options};

use crate::frames::icmp;
use crate::frames::segment::{ACK, FIN, RST, SYN, Segment, clients};
use crate::frames::{
    SERVER_V4, SERVER_V6, extension_header, with_extension_headers, with_ipv4_options, with_vlan_tags,
};
use crate::program::Program;
use crate::syn_cookies::answer::{KEYS, TEMPLATE};
use crate::syn_cookies::flows::{fill, fillings, hash_of, hasher};
use crate::{DESTINATION_OPTIONS, SERVICE_VLAN, VLAN};

const PSH: u8 = 0x08;
const ISN: u32 = 0x7fff_fff0;
/// TSval of the client, which says nothing.
const VALUE: [u8; 4] = [9, 8, 7, 6];
/// Every segment of no flow goes on.
const ALL: u32 = u32::MAX;

/// The program with everything served and the filter on, but without cookies; `strays` segments of no flow go on.
fn filtering(strays: u32) -> Option<(Program, FlowHasher)> {
    let mut program = Program::serving()?;
    let hasher = hasher(1000);
    program.set_flow_hasher(hasher);
    program.set_syn_ack(TEMPLATE);
    program.set_strays(strays);
    program.set_features(FLOW_FILTER);
    Some((program, hasher))
}

/// The same with cookies.
fn accepting(strays: u32) -> Option<(Program, FlowHasher)> {
    let (mut program, hasher) = filtering(strays)?;
    for (key_id, key) in (0..).zip(KEYS) {
        program.set_cookie_key(key_id, key);
    }
    program.set_features(FLOW_FILTER | COOKIES | ALL_COOKIES);
    Some((program, hasher))
}

/// A segment from `source` that is no SYN.
fn segment(source: IpAddr, flags: u8, text: &[u8]) -> Segment {
    Segment {
        flags,
        sequence_number: ISN.wrapping_add(1),
        text: text.to_vec(),
        ..Segment::syn(source)
    }
}

/// The ways in which options with timestamps may lie, given TSecr.
fn timestamp_layouts(echo: u32) -> [Vec<u8>; 4] {
    let option = [&[8, 10][..], &VALUE, &echo.to_be_bytes()].concat();
    [
        [&[1, 1][..], &option].concat(),
        [&option[..], &[1, 1]].concat(),
        [&[1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2][..], &option, &[0]].concat(),
        [&[1, 1][..], &option, &[1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2]].concat(),
    ]
}

/// The frame of `segment` acknowledging a cookie with options made by `key` for a client without timestamps, or with.
fn acknowledging(segment: &Segment, key: (Key, u32), layout: Option<usize>) -> Vec<u8> {
    let options = Options {
        mss_index: 5,
        window_scale: 7,
        sack_permitted: true,
        ecn: false,
    };
    acknowledging_one_of(Content::Options(options), segment, key, layout)
}

/// The same with a cookie of `content`.
fn acknowledging_one_of(
    content: Content,
    segment: &Segment,
    (key, key_id): (Key, u32),
    layout: Option<usize>,
) -> Vec<u8> {
    let handshake = Handshake {
        addresses: match segment.source {
            IpAddr::V4(client) => Addresses::v4(client.octets(), SERVER_V4),
            IpAddr::V6(client) => Addresses::v6(client.octets(), SERVER_V6),
        },
        client_port: segment.source_port,
        server_port: segment.destination_port,
        client_isn: ISN,
        timestamps: layout.is_some(),
    };
    let cookie = syn_cookie::make(key, key_id, &handshake, content);
    let options = match layout {
        Some(layout) => timestamp_layouts(cookie.timestamp(1_234_567))[layout].clone(),
        None => Vec::new(),
    };
    let mut frame = Segment {
        options,
        text: segment.text.clone(),
        ..*segment
    }
    .frame();
    let offset = segment.offset() + 8;
    frame[offset..offset + 4].copy_from_slice(&cookie.isn.wrapping_add(1).to_be_bytes());
    frame
}

#[test]
fn segments_of_known_flows_go_to_the_engine_and_others_do_not() {
    let Some((mut program, hasher)) = filtering(0) else {
        return;
    };
    for client in clients() {
        let ack = segment(client, ACK, b"");
        let hash = hash_of(&hasher, &ack);
        for (words, is_known) in fillings(&hasher, hash) {
            fill(&mut program, &hasher, hash, words);
            for flags in [ACK, ACK | PSH, ACK | FIN, RST, RST | ACK, 0, FIN, SYN | ACK] {
                let expected = if is_known { Redirect } else { DropNoFlow };
                program.expect(
                    expected,
                    &segment(client, flags, b"GET").frame(),
                    format!("{client}, flags {flags:#x}, {words:x?}"),
                );
            }
        }
    }
}

#[test]
fn the_flow_is_the_same_behind_tags_options_and_extension_headers() {
    let Some((mut program, hasher)) = filtering(0) else {
        return;
    };
    for client in clients() {
        let ack = segment(client, ACK, b"text");
        let hash = hash_of(&hasher, &ack);
        let frame = ack.frame();
        let behind = match client {
            IpAddr::V4(_) => with_ipv4_options(&frame, 7),
            IpAddr::V6(_) => with_extension_headers(&frame, &[(DESTINATION_OPTIONS, extension_header(3))]),
        };
        for (frame, what) in [(&frame, "plain"), (&behind, "behind options")] {
            for tags in [&[][..], &[VLAN], &[SERVICE_VLAN, VLAN]] {
                let frame = with_vlan_tags(frame, tags);
                let mut words = [0; 16];
                for expected in [DropNoFlow, Redirect] {
                    fill(&mut program, &hasher, hash, words);
                    program.expect(expected, &frame, format!("{client}, {what}, tags {tags:x?}"));
                    words[15] = hasher.fingerprint(hash).entry(1);
                }
                fill(&mut program, &hasher, hash, [0; 16]);
            }
        }
    }
}

#[test]
fn as_many_strays_as_may_be_answered_go_on() {
    for strays in [0, 5, ALL] {
        let Some((program, _)) = filtering(strays) else { return };
        let mut passed = 0;
        for round in 0..50 {
            for client in clients() {
                let stray = Segment {
                    source_port: 1000 + round,
                    ..segment(client, ACK, b"x")
                };
                match program.reason(&stray.frame()) {
                    RedirectNoFlow => passed += 1,
                    reason => assert_eq!(reason, DropNoFlow),
                }
            }
        }
        match strays {
            // Another second may have begun meanwhile.
            5 => assert!((5..100).contains(&passed) && passed % 5 == 0, "{passed}"),
            0 => assert_eq!(passed, 0),
            _ => assert_eq!(passed, 100),
        }
    }
}

#[test]
fn a_segment_that_no_reset_answers_never_goes_on() {
    let Some((program, _)) = accepting(ALL) else { return };
    for client in clients() {
        for flags in [RST, RST | ACK, 0, FIN, PSH] {
            program.expect(
                DropNoFlow,
                &segment(client, flags, b"").frame(),
                format!("{client} {flags:#x}"),
            );
        }
        for flags in [ACK, SYN | ACK, ACK | FIN] {
            program.expect(
                RedirectNoFlow,
                &segment(client, flags, b"").frame(),
                format!("{client} {flags:#x}"),
            );
        }
    }
}

#[test]
fn without_the_filter_everything_goes_on() {
    let Some((mut program, _)) = accepting(0) else { return };
    program.set_features(COOKIES);
    for client in clients() {
        for flags in [ACK, RST, 0, SYN | ACK] {
            program.expect(
                Redirect,
                &segment(client, flags, b"").frame(),
                format!("{client} {flags:#x}"),
            );
        }
    }
}

#[test]
fn a_genuine_cookie_goes_on_and_so_does_what_follows_it() {
    let Some((mut program, hasher)) = accepting(0) else {
        return;
    };
    let layouts = [None, Some(0), Some(1), Some(2), Some(3)];
    let mut source_port = 1000;
    for client in clients() {
        for layout in layouts {
            for (key_id, key) in (0..).zip(KEYS) {
                for text in [&b""[..], b"GET / HTTP/1.1\r\n\r\n"] {
                    source_port += 1;
                    let what = format!("{client}, layout {layout:?}, key id {key_id}, {} octets", text.len());
                    let ack = Segment {
                        source_port,
                        ..segment(client, ACK, text)
                    };
                    let follower = |flags| {
                        let follower = Segment {
                            source_port,
                            sequence_number: ISN.wrapping_add(1 + 14_600),
                            ..segment(client, flags, b"more")
                        };
                        follower.frame()
                    };
                    program.expect(DropBadCookie, &follower(ACK), format!("{what}: before it"));
                    let frame = acknowledging(&ack, (key, key_id), layout);
                    program.expect(RedirectCookie, &frame, &what);
                    let hash = hash_of(&hasher, &ack);
                    let entry = program.handshake(hash);
                    assert!(handshake::is_of(entry, hash) && handshake::owner(entry) == 0, "{what}");
                    for flags in [ACK, ACK | FIN, RST, RST | ACK] {
                        program.expect(
                            Redirect,
                            &follower(flags),
                            format!("{what}: after it, flags {flags:#x}"),
                        );
                    }
                    program.expect(Redirect, &frame, format!("{what}: again"));
                    program.set_handshake(hash, 0);
                }
            }
        }
    }
}

#[test]
fn no_other_cookie_goes_on() {
    let Some((mut program, hasher)) = accepting(0) else {
        return;
    };
    for client in clients() {
        let ack = segment(client, ACK, b"");
        let (sequence, acknowledgment) = (ack.offset() + 4, ack.offset() + 8);
        for layout in [None, Some(0)] {
            let good = acknowledging(&ack, (KEYS[0], 0), layout);
            for place in (sequence..acknowledgment + 4).chain([ack.offset() + 1]) {
                let mut bad = good.clone();
                bad[place] ^= 1;
                program.expect(DropBadCookie, &bad, format!("{client}, octet {place}, {layout:?}"));
            }
            program.expect(
                DropBadCookie,
                &acknowledging(&ack, (Key(1, 2), 0), layout),
                "another key",
            );
        }
        // Timestamps that do not belong there, none where there were some, and options that contradict themselves.
        let (with, without) = (
            acknowledging(&ack, (KEYS[0], 0), Some(0)),
            acknowledging(&ack, (KEYS[0], 0), None),
        );
        let cookie = |from: &[u8], options: &[u8]| {
            let mut frame = Segment {
                options: options.to_vec(),
                ..segment(client, ACK, b"")
            }
            .frame();
            frame[acknowledgment..acknowledgment + 4].copy_from_slice(&from[acknowledgment..acknowledgment + 4]);
            frame
        };
        program.expect(DropBadCookie, &cookie(&with, &[]), "left out");
        program.expect(DropBadCookie, &cookie(&without, &timestamp_layouts(7)[0]), "added");
        program.expect(DropBadCookie, &cookie(&without, &[8, 1, 1, 1]), "malformed");
        program.expect(RedirectCookie, &cookie(&without, &[1, 1, 1, 1]), "padding");
        program.set_handshake(hash_of(&hasher, &ack), 0);
    }
}

#[test]
fn without_timestamps_strong_cookies_go_on_and_others_only_while_all_do() {
    let Some((mut program, hasher)) = accepting(0) else {
        return;
    };
    for all in [true, false, true] {
        program.set_features(FLOW_FILTER | COOKIES | if all { ALL_COOKIES } else { 0 });
        for client in clients() {
            let ack = segment(client, ACK, b"");
            for (key_id, key) in (0..).zip(KEYS) {
                let usual = |layout| acknowledging(&ack, (key, key_id), layout);
                let strong = |index| acknowledging_one_of(Content::Mss(index), &ack, (key, key_id), None);
                let mut cases = vec![(usual(None), all), (usual(Some(0)), true), (usual(Some(1)), true)];
                cases.extend((0..8).map(|index| (strong(index), true)));
                for (number, (frame, is_accepted)) in cases.iter().enumerate() {
                    let what = format!("{client}, key id {key_id}, all {all}, case {number}");
                    let expected = if *is_accepted { RedirectCookie } else { DropBadCookie };
                    program.expect(expected, frame, &what);
                    program.set_handshake(hash_of(&hasher, &ack), 0);
                    // No bit of SEG.ACK may be changed.
                    for bit in 0..32 {
                        let mut bad = frame.clone();
                        bad[ack.offset() + 8 + bit / 8] ^= 1 << (bit % 8);
                        program.expect(DropBadCookie, &bad, format!("{what}, bit {bit}"));
                    }
                }
            }
        }
    }
}

#[test]
fn the_next_epochs_key_is_accepted_where_there_is_one() {
    let Some((mut program, hasher)) = accepting(0) else {
        return;
    };
    let next = (Key(5, 6), 1);
    for client in clients() {
        let ack = segment(client, ACK, b"");
        let frame = acknowledging(&ack, next, Some(0));
        program.expect(DropBadCookie, &frame, client);
        program.set_cookie_key(2, next.0);
        program.expect(RedirectCookie, &frame, client);
        program.set_handshake(hash_of(&hasher, &ack), 0);
        program.set_cookie_key(2, Key(0, 0));
    }
}

#[test]
fn without_cookies_none_is_looked_at() {
    let Some((mut program, _)) = accepting(0) else { return };
    program.set_features(FLOW_FILTER);
    for client in clients() {
        let frame = acknowledging(&segment(client, ACK, b""), (KEYS[0], 0), None);
        program.expect(DropNoFlow, &frame, client);
    }
}

#[test]
fn a_slot_is_taken_over_when_its_handshake_is_over() {
    let Some((mut program, hasher)) = accepting(0) else {
        return;
    };
    for client in clients() {
        let ack = segment(client, ACK, b"");
        let hash = hash_of(&hasher, &ack);
        let frame = acknowledging(&ack, (KEYS[0], 0), None);
        program.expect(RedirectCookie, &frame, client);
        let mine = program.handshake(hash);
        let tick = mine as u16;
        // Of another flow: of a moment ago, and of long ago.
        let other = |age| mine & !0xffff ^ 1 << 40 | u64::from(tick.wrapping_sub(age));
        for (entry, is_replaced) in [(other(0), false), (other(100), true), (0, true)] {
            program.set_handshake(hash, entry);
            program.expect(RedirectCookie, &frame, format!("{client}: {entry:x}"));
            let left = program.handshake(hash);
            assert_eq!(handshake::is_of(left, hash), is_replaced, "{client}: {entry:x}");
            assert_eq!(left == entry, !is_replaced, "{client}: {entry:x}");
        }
        // Its own of long ago does not hold, and is made anew.
        program.set_handshake(hash, mine & !0xffff | u64::from(tick.wrapping_sub(100)));
        let follower = Segment {
            sequence_number: 1,
            ..segment(client, ACK, b"")
        };
        program.expect(DropBadCookie, &follower.frame(), client);
        program.expect(RedirectCookie, &frame, client);
        program.expect(Redirect, &follower.frame(), client);
        program.set_handshake(hash, 0);
    }
}

#[test]
fn too_big_about_a_known_flow_goes_to_the_engine_and_about_others_does_not() {
    let Some((mut program, hasher)) = filtering(ALL) else {
        return;
    };
    let messages = [
        icmp::too_big_v4(&icmp::packet_v4(b"text")),
        icmp::too_big_v6(&icmp::packet_v6(b"text")),
    ];
    for (client, message) in clients().into_iter().zip(messages) {
        let hash = hash_of(&hasher, &segment(client, ACK, b""));
        for (words, is_known) in fillings(&hasher, hash) {
            fill(&mut program, &hasher, hash, words);
            for tags in [&[][..], &[VLAN]] {
                let expected = if is_known { RedirectTooBig } else { DropNoFlow };
                let what = format!("{client}, tags {tags:x?}, {words:x?}");
                program.expect(expected, &with_vlan_tags(&message, tags), what);
            }
        }
    }
    program.set_features(0);
    program.expect(
        RedirectTooBig,
        &icmp::too_big_v4(&icmp::packet_v4(b"text")),
        "no filter",
    );
}
