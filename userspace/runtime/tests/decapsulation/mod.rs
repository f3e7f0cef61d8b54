//! Packets of balancers lose their outer headers and are treated as the packets in them; all others stay as they came.

use tidegate_abi::siphash::Key;
use tidegate_abi::syn_ack::{cookie_switch, feature, source_rule};
use tidegate_abi::{MAX_BALANCERS, XdpCounter};

use crate::frames::icmp::{packet_v4, packet_v6, too_big_v4, too_big_v6};
use crate::frames::outer::{BALANCER_V4, BALANCER_V6, Between, GUE_PORT, OWN_V4, OWN_V6, Outer};
use crate::frames::segment::{Segment, clients};
use crate::frames::{
    IP, PORT, SERVER_V4, SERVER_V6, ip_offset, set_u16, tcp_v4, tcp_v4_to, tcp_v6, tcp_v6_to, with_ipv4_options,
    with_vlan_tags,
};
use crate::program::Program;
use crate::random::Random;
use crate::{SERVICE_VLAN, SHORTEST, VLAN};

/// The program behind a balancer of each family.
fn balanced() -> Option<Program> {
    let mut program = Program::serving()?;
    program.decapsulates();
    program.set_balancer(BALANCER_V4, OWN_V4, GUE_PORT);
    program.set_balancer(BALANCER_V6, OWN_V6, GUE_PORT);
    Some(program)
}

/// Fails the test unless `frame` in `outer` is treated as without.
#[track_caller]
fn expect_as_plain(program: &Program, outer: Outer, frame: &[u8]) {
    let (expected, answer) = program.verdict(frame);
    let (reason, is_decapsulated, left) = program.counted_verdict(&outer.around(frame));
    assert!(is_decapsulated, "{outer:?}: {reason:?}");
    assert_eq!((reason, left), (expected, answer), "{outer:?}");
}

#[test]
fn every_kind_is_treated_as_what_is_in_it() {
    let Some(program) = balanced() else { return };
    for outer in Outer::all() {
        for tags in [&[][..], &[VLAN], &[SERVICE_VLAN, VLAN]] {
            for frame in [
                tcp_v4(),
                tcp_v6(),
                with_ipv4_options(&tcp_v4(), 3),
                too_big_v4(&packet_v4(b"")),
                too_big_v6(&packet_v6(b"")),
            ] {
                expect_as_plain(&program, outer, &with_vlan_tags(&frame, tags));
            }
        }
    }
}

#[test]
fn text_and_padding_stay() {
    let Some(program) = balanced() else { return };
    for client in clients() {
        let segment = Segment {
            flags: crate::frames::segment::ACK,
            text: Random::new().octets(1300),
            ..Segment::syn(client)
        };
        for outer in Outer::all() {
            expect_as_plain(&program, outer, &segment.frame());
            let padded = [outer.around(&tcp_v4()), vec![7; 9]].concat();
            let (reason, is_decapsulated, left) = program.counted_verdict(&padded);
            assert_eq!((reason, is_decapsulated), (XdpCounter::Redirect, true), "{outer:?}");
            assert_eq!(left, [tcp_v4(), vec![7; 9]].concat(), "{outer:?}");
        }
    }
}

#[test]
fn a_syn_is_answered_without_outer_headers() {
    let Some(mut program) = balanced() else { return };
    program.set_cookie_key(0, Key(1, 2));
    program.set_cookie_switch(0, cookie_switch::on(0));
    for client in clients() {
        for outer in Outer::all() {
            for tags in [&[][..], &[VLAN], &[SERVICE_VLAN, VLAN]] {
                let syn = with_vlan_tags(&Segment::syn(client).frame(), tags);
                let (reason, _, _) = program.counted_verdict(&outer.around(&syn));
                assert_eq!(reason, XdpCounter::TxSynCookie);
                expect_as_plain(&program, outer, &syn);
            }
        }
    }
}

#[test]
fn rules_are_about_the_client_and_not_the_balancer() {
    let Some(mut program) = balanced() else { return };
    program.set_features(feature::SOURCE_RULES);
    program.set_source_rule(BALANCER_V4, 32, source_rule::DENY);
    program.set_source_rule(clients()[1], 128, source_rule::DENY);
    for outer in Outer::all() {
        for (frame, expected) in [
            (tcp_v4(), XdpCounter::Redirect),
            (tcp_v6(), XdpCounter::DropSourceDenied),
        ] {
            let (reason, is_decapsulated, _) = program.counted_verdict(&outer.around(&frame));
            assert_eq!((reason, is_decapsulated), (expected, true), "{outer:?}");
        }
    }
}

#[test]
fn without_balancers_nothing_is_decapsulated() {
    let Some(mut program) = Program::serving() else { return };
    for outer in Outer::all() {
        program.expect(XdpCounter::PassNotTcp, &outer.around(&tcp_v4()), "the plain program");
    }
    program.decapsulates();
    for outer in Outer::all() {
        program.expect(
            XdpCounter::PassNotTcp,
            &outer.around(&tcp_v4()),
            "no address of its own",
        );
    }
}

#[test]
fn where_nobody_serves_any_more_nothing_is_decapsulated() {
    let Some(mut program) = balanced() else { return };
    program.set_features(feature::OUTLIVES);
    for outer in Outer::all() {
        expect_as_plain(&program, outer, &tcp_v4());
    }
    program.close_socket();
    for outer in Outer::all() {
        program.expect(XdpCounter::PassNotTcp, &outer.around(&tcp_v4()), format!("{outer:?}"));
    }
}

#[test]
fn strangers_and_other_destinations_are_the_kernels() {
    let Some(program) = balanced() else { return };
    for outer in Outer::all() {
        let is_v4 = outer.source.is_ipv4();
        let stranger = Outer {
            source: if is_v4 { OWN_V4 } else { OWN_V6 },
            ..outer
        };
        program.expect(
            XdpCounter::PassNotBalancer,
            &stranger.around(&tcp_v4()),
            format!("{stranger:?}"),
        );
        let elsewhere = Outer {
            destination: if is_v4 { BALANCER_V4 } else { BALANCER_V6 },
            ..outer
        };
        program.expect(
            XdpCounter::PassNotTcp,
            &elsewhere.around(&tcp_v6()),
            format!("{elsewhere:?}"),
        );
        for (frame, what) in [
            (tcp_v4_to(SERVER_V4, PORT + 1), "another port"),
            (tcp_v6_to(SERVER_V6, PORT - 1), "another port"),
            (tcp_v4_to([198, 18, 1, 2], PORT), "another address"),
            (outer.around(&tcp_v4()), "twice"),
        ] {
            let frame = outer.around(&frame);
            program.expect(XdpCounter::PassNotTcp, &frame, format!("{outer:?}, {what}"));
        }
        let mut group = outer.around(&tcp_v4());
        group[0] |= 1;
        program.expect(XdpCounter::PassNotUnicast, &group, "to a group");
    }
}

#[test]
fn another_port_than_gues_is_the_kernels() {
    let Some(mut program) = balanced() else { return };
    let gue = |between| Outer {
        source: BALANCER_V4,
        destination: OWN_V4,
        between,
    };
    for between in [Between::Gue1, Between::Gue0] {
        let outer = gue(between);
        for port in [0, GUE_PORT + 1, GUE_PORT.swap_bytes()] {
            let mut frame = outer.around(&tcp_v4());
            set_u16(&mut frame, IP + 20 + 2, port);
            program.expect(XdpCounter::PassNotTcp, &frame, port);
        }
    }
    program.set_balancer(BALANCER_V4, OWN_V4, 0);
    for (between, port) in [(Between::Gue1, 0), (Between::Gue1, GUE_PORT)] {
        let mut frame = gue(between).around(&tcp_v4());
        set_u16(&mut frame, IP + 20 + 2, port);
        program.expect(XdpCounter::PassNotTcp, &frame, "no GUE");
    }
    let ipip = gue(Between::Ipip);
    let (_, is_decapsulated, _) = program.counted_verdict(&ipip.around(&tcp_v4()));
    assert!(is_decapsulated, "IPIP without GUE");
}

#[test]
fn headers_that_mean_something_else_are_the_kernels() {
    let Some(program) = balanced() else { return };
    let v4 = |between| Outer {
        source: BALANCER_V4,
        destination: OWN_V4,
        between,
    };
    let v6 = |between| Outer {
        source: BALANCER_V6,
        destination: OWN_V6,
        between,
    };
    let ipip = v4(Between::Ipip).around(&tcp_v4());
    let gue = v4(Between::Gue0).around(&tcp_v4());
    let limit = v6(Between::Limit).around(&tcp_v4());
    const GUE: usize = IP + 20 + 8;
    const OPTIONS: usize = IP + 40;
    for (frame, offset, value, reason, what) in [
        (&ipip, IP + 6, 0x20, XdpCounter::PassFragment, "the first fragment"),
        (&ipip, IP + 7, 1, XdpCounter::PassFragment, "a later fragment"),
        (&ipip, IP, 0x46, XdpCounter::PassNotTcp, "options"),
        (&ipip, IP + 9, 41, XdpCounter::PassNotTcp, "another version in it"),
        (&ipip, IP + 9, 47, XdpCounter::PassNotTcp, "GRE"),
        (&gue, GUE, 0x20, XdpCounter::PassNotTcp, "control"),
        (&gue, GUE, 1, XdpCounter::PassNotTcp, "optional fields"),
        (&gue, GUE, 0x80, XdpCounter::PassNotTcp, "version 2"),
        (&gue, GUE, 0x50, XdpCounter::PassNotTcp, "version 1 and no IP"),
        (&gue, GUE + 1, 6, XdpCounter::PassNotTcp, "TCP in GUE"),
        (&gue, GUE + 2, 0x80, XdpCounter::PassNotTcp, "flags"),
        (&gue, GUE + 3, 1, XdpCounter::PassNotTcp, "flags"),
        (
            &limit,
            OPTIONS,
            59,
            XdpCounter::PassNotTcp,
            "nothing behind the options",
        ),
        (&limit, OPTIONS + 2, 5, XdpCounter::PassNotTcp, "another option"),
    ] {
        let mut frame = frame.clone();
        frame[offset] = value;
        program.expect(reason, &frame, what);
    }
}

#[test]
fn what_is_cut_short_is_left_as_it_came() {
    let Some(program) = balanced() else { return };
    for outer in Outer::all() {
        for plain in [tcp_v4(), with_vlan_tags(&tcp_v6(), &[VLAN])] {
            let whole = outer.around(&plain);
            for length in SHORTEST..whole.len() {
                let (_, is_decapsulated, left) = program.counted_verdict(&whole[..length]);
                assert!(!is_decapsulated, "{outer:?}, {length} octets");
                assert_eq!(left, whole[..length], "{outer:?}, {length} octets");
            }
        }
    }
}

#[test]
fn whatever_comes_is_whole_or_without_its_outer_headers() {
    const FRAMES: usize = 20_000;
    let Some(program) = balanced() else { return };
    let mut random = Random::new();
    let all = Outer::all();
    let mut decapsulated = 0;
    for number in 0..FRAMES {
        let outer = all[number % all.len()];
        let tags = [&[][..], &[VLAN], &[SERVICE_VLAN, VLAN]][number % 3];
        let plain = with_vlan_tags(&if number % 2 == 0 { tcp_v4() } else { tcp_v6() }, tags);
        let mut frame = outer.around(&plain);
        for _ in 0..random.below(3) {
            let at = random.below(frame.len() as u32) as usize;
            frame[at] ^= 1 << random.below(8);
        }
        let ip = ip_offset(&frame[..frame.len().min(64)]);
        let (_, is_decapsulated, left) = program.counted_verdict(&frame);
        if !is_decapsulated {
            assert_eq!(left, frame);
            continue;
        }
        decapsulated += 1;
        let inner = ip + outer.length();
        assert_eq!(left[ip..], frame[inner..], "{outer:?}");
        assert_eq!(left[..ip - 2], frame[..ip - 2], "{outer:?}");
        let ethertype = if frame[inner] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
        assert_eq!(left[ip - 2..ip], ethertype, "{outer:?}");
    }
    assert!(decapsulated > FRAMES / 4, "{decapsulated} of {FRAMES}");
}

#[test]
fn there_is_room_for_as_many_balancers_as_are_allowed() {
    let Some(mut program) = Program::serving() else { return };
    program.decapsulates();
    for number in 0..MAX_BALANCERS {
        let [_, _, high, low] = number.to_be_bytes();
        program.set_balancer([198, 19, high, low].into(), OWN_V4, GUE_PORT);
    }
    let last = Outer {
        source: [198, 19, 3, 255].into(),
        destination: OWN_V4,
        between: Between::Ipip,
    };
    expect_as_plain(&program, last, &tcp_v4());
}
