//! The verdicts on ICMP: "too big" about a served flow is redirected, everything else is the kernel's.

use tidegate_abi::XdpCounter;

use crate::frames::icmp::{
    ICMP_HEADER, icmp_v4, icmp_v6, packet_v4, packet_v4_from, packet_v6, packet_v6_from, too_big_v4, too_big_v6,
};
use crate::frames::{
    IP, PORT, SERVER_V4, SERVER_V6, V4_TCP, V6_TCP, extension_header, served_v4, served_v6, set_u16,
    with_extension_headers, with_ipv4_options, with_vlan_tags,
};
use crate::program::Program;
use crate::random::Random;
use crate::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING, SERVICE_VLAN, SHORTEST, TCP, UDP, VLAN, WALKED};

const ICMPV4: u8 = 1;
const ICMPV6: u8 = 58;

/// Offset of the quote in an untagged frame: the ICMP message begins where the TCP header of [`crate::frames`] does.
const V4_QUOTE: usize = V4_TCP + ICMP_HEADER;
const V6_QUOTE: usize = V6_TCP + ICMP_HEADER;

/// The least a quote has to hold: an IP header, both ports and the sequence number.
const V4_LEAST: usize = 20 + 8;
const V6_LEAST: usize = 40 + 8;

/// A quote as long as RFC 1812 and RFC 4443 would have it.
const LONG: usize = 500;

#[test]
fn about_a_served_flow_it_is_redirected() {
    let Some(program) = Program::serving() else { return };
    for (v4, v6, what) in [
        (packet_v4(b""), packet_v6(b""), "the whole of a short packet"),
        (packet_v4(&[7; LONG]), packet_v6(&[7; LONG]), "a long quote"),
        (
            packet_v4(b"")[..V4_LEAST].to_vec(),
            packet_v6(b"")[..V6_LEAST].to_vec(),
            "the least there can be",
        ),
    ] {
        for (frame, version) in [(too_big_v4(&v4), 4), (too_big_v6(&v6), 6)] {
            program.expect(XdpCounter::RedirectTooBig, &frame, format!("IPv{version}, {what}"));
            for tags in [&[VLAN][..], &[SERVICE_VLAN, VLAN]] {
                let tagged = with_vlan_tags(&frame, tags);
                program.expect(
                    XdpCounter::RedirectTooBig,
                    &tagged,
                    format!("IPv{version}, {what}, tagged"),
                );
            }
        }
    }
}

#[test]
fn without_a_socket_it_is_passed() {
    let Some(mut program) = Program::load() else { return };
    program.serve(served_v4());
    program.serve(served_v6());
    for frame in [too_big_v4(&packet_v4(b"")), too_big_v6(&packet_v6(b""))] {
        program.expect(XdpCounter::PassNoSocket, &frame, "no socket");
    }
}

#[test]
fn about_a_flow_that_is_not_served_it_is_the_kernels() {
    let Some(program) = Program::serving() else { return };
    for port in [0, 22, PORT - 1, PORT + 1, PORT.swap_bytes(), u16::MAX] {
        let v4 = too_big_v4(&packet_v4_from(SERVER_V4, port, b""));
        program.expect(XdpCounter::PassNotTcp, &v4, format!("IPv4, port {port}"));
        let v6 = too_big_v6(&packet_v6_from(SERVER_V6, port, b""));
        program.expect(XdpCounter::PassNotTcp, &v6, format!("IPv6, port {port}"));
    }
    for octet in 0..4 {
        let mut address = SERVER_V4;
        address[octet] ^= 1;
        let frame = too_big_v4(&packet_v4_from(address, PORT, b""));
        program.expect(XdpCounter::PassNotTcp, &frame, format!("{address:?}"));
    }
    for octet in 0..16 {
        let mut address = SERVER_V6;
        address[octet] ^= 1;
        let frame = too_big_v6(&packet_v6_from(address, PORT, b""));
        program.expect(XdpCounter::PassNotTcp, &frame, format!("{address:?}"));
    }
    let mapped = too_big_v6(&packet_v6_from(served_v4().address(), PORT, b""));
    program.expect(XdpCounter::PassNotTcp, &mapped, "an IPv4-mapped source is no IPv4 one");

    // A packet to the served address and port, which some other host sent.
    let mut v4 = too_big_v4(&packet_v4(b""));
    v4[V4_QUOTE + 12..V4_QUOTE + 20].rotate_left(4);
    v4[V4_QUOTE + 20..V4_QUOTE + 24].rotate_left(2);
    program.expect(XdpCounter::PassNotTcp, &v4, "the other direction, IPv4");
    let mut v6 = too_big_v6(&packet_v6(b""));
    v6[V6_QUOTE + 8..V6_QUOTE + 40].rotate_left(16);
    v6[V6_QUOTE + 40..V6_QUOTE + 44].rotate_left(2);
    program.expect(XdpCounter::PassNotTcp, &v6, "the other direction, IPv6");
}

#[test]
fn other_icmp_about_a_served_flow_is_the_kernels() {
    let Some(program) = Program::serving() else { return };
    let (v4, v6) = (packet_v4(b""), packet_v6(b""));
    for kind in 0..=u8::MAX {
        for code in [0, 3, 4, 5, u8::MAX] {
            let reason = match (kind, code) {
                (3, 4) => XdpCounter::RedirectTooBig,
                _ => XdpCounter::PassNotTcp,
            };
            program.expect(reason, &icmp_v4(kind, code, &v4), format!("ICMPv4 {kind}, code {code}"));
            // The code of an ICMPv6 message "too big" is to be ignored.
            let reason = match kind {
                2 => XdpCounter::RedirectTooBig,
                _ => XdpCounter::PassNotTcp,
            };
            program.expect(reason, &icmp_v6(kind, code, &v6), format!("ICMPv6 {kind}, code {code}"));
        }
    }
}

#[test]
fn icmp_of_one_version_in_ip_of_the_other_is_passed() {
    let Some(program) = Program::serving() else { return };
    let mut frame = icmp_v4(2, 0, &packet_v6(b""));
    frame[IP + 9] = ICMPV6;
    program.expect(XdpCounter::PassNotTcp, &frame, "ICMPv6 in IPv4");
    let mut frame = icmp_v6(3, 4, &packet_v4(b""));
    frame[IP + 6] = ICMPV4;
    program.expect(XdpCounter::PassNotTcp, &frame, "ICMPv4 in IPv6");
    let quote = [packet_v4(b""), vec![0; 40]].concat();
    program.expect(XdpCounter::PassNotTcp, &too_big_v6(&quote), "IPv4 quoted by ICMPv6");
    program.expect(
        XdpCounter::PassNotTcp,
        &too_big_v4(&packet_v6(b"")),
        "IPv6 quoted by ICMPv4",
    );
}

/// Whatever is missing at the end of a frame, the packet's length no longer fits.
#[test]
fn a_frame_cut_short_is_malformed() {
    let Some(program) = Program::serving() else { return };
    for whole in [
        too_big_v4(&packet_v4(b"")),
        too_big_v6(&packet_v6(b"")),
        with_vlan_tags(&too_big_v4(&packet_v4(b"")), &[SERVICE_VLAN, VLAN]),
        with_ipv4_options(&too_big_v4(&packet_v4(b"")), 10),
    ] {
        program.expect(XdpCounter::RedirectTooBig, &whole, "the whole frame");
        for length in SHORTEST..whole.len() {
            program.expect(
                XdpCounter::PassMalformed,
                &whole[..length],
                format!("{length} of {} octets", whole.len()),
            );
        }
    }
}

/// The packet's length fits the frame here, so that what is read of the message decides.
#[test]
fn a_message_cut_short_is_the_kernels() {
    let Some(program) = Program::serving() else { return };
    let (v4, v6) = (too_big_v4(&packet_v4(b"")), too_big_v6(&packet_v6(b"")));
    for length in V4_TCP..v4.len() {
        let mut cut = v4[..length].to_vec();
        set_u16(&mut cut, IP + 2, (length - IP) as u16);
        let reason = if length < V4_QUOTE + V4_LEAST {
            XdpCounter::PassNotTcp
        } else {
            XdpCounter::RedirectTooBig
        };
        program.expect(reason, &cut, format!("IPv4, {} octets of ICMP", length - V4_TCP));
        // What follows the packet is not part of it.
        cut.extend_from_slice(&v4[length..]);
        program.expect(
            reason,
            &cut,
            format!("IPv4, {} octets of ICMP, padded", length - V4_TCP),
        );
    }
    for length in V6_TCP..v6.len() {
        let mut cut = v6[..length].to_vec();
        set_u16(&mut cut, IP + 4, (length - V6_TCP) as u16);
        let reason = if length < V6_QUOTE + V6_LEAST {
            XdpCounter::PassNotTcp
        } else {
            XdpCounter::RedirectTooBig
        };
        program.expect(reason, &cut, format!("IPv6, {} octets of ICMP", length - V6_TCP));
        cut.extend_from_slice(&v6[length..]);
        program.expect(
            reason,
            &cut,
            format!("IPv6, {} octets of ICMP, padded", length - V6_TCP),
        );
    }
}

#[test]
fn ip_options_and_extension_headers_around_the_message() {
    let Some(program) = Program::serving() else { return };
    for words in 0..=10 {
        let frame = with_ipv4_options(&too_big_v4(&packet_v4(b"")), words);
        program.expect(
            XdpCounter::RedirectTooBig,
            &frame,
            format!("options of {words} times 4 octets"),
        );
    }
    for kind in WALKED {
        let frame = with_extension_headers(&too_big_v6(&packet_v6(b"")), &[(kind, extension_header(0))]);
        program.expect(
            XdpCounter::PassNotTcp,
            &frame,
            format!("behind an extension header of kind {kind}"),
        );
    }
}

#[test]
fn fragments_of_a_message_are_passed() {
    let Some(program) = Program::serving() else { return };
    let mut frame = too_big_v4(&packet_v4(b""));
    for flags_and_offset in [0x2000, 0x2001, 0x0001, 0x1fff] {
        set_u16(&mut frame, IP + 6, flags_and_offset);
        program.expect(
            XdpCounter::PassFragment,
            &frame,
            format!("flags and offset {flags_and_offset:#06x}"),
        );
    }
    for (offset_and_more, reason) in [(0, XdpCounter::PassNotTcp), (1, XdpCounter::PassFragment)] {
        let mut fragment = extension_header(0);
        set_u16(&mut fragment, 2, offset_and_more);
        let frame = with_extension_headers(&too_big_v6(&packet_v6(b"")), &[(FRAGMENT, fragment)]);
        program.expect(reason, &frame, format!("a fragment header, {offset_and_more}"));
    }
}

#[test]
fn ipv4_options_in_the_quote() {
    let Some(program) = Program::serving() else { return };
    for words in 0..=10_u8 {
        let plain = packet_v4(b"");
        let mut quote = plain[..20].to_vec();
        quote.resize(20 + 4 * usize::from(words), 1);
        quote.extend_from_slice(&plain[20..28]);
        quote[0] += words;
        program.expect(
            XdpCounter::RedirectTooBig,
            &too_big_v4(&quote),
            format!("{words} times 4 octets"),
        );
        quote.pop();
        program.expect(
            XdpCounter::PassNotTcp,
            &too_big_v4(&quote),
            format!("{words} times 4 octets, the sequence number cut short"),
        );
    }
}

#[test]
fn a_quote_that_makes_no_sense_is_the_kernels() {
    let Some(program) = Program::serving() else { return };
    let (v4, v6) = (too_big_v4(&packet_v4(b"")), too_big_v6(&packet_v6(b"")));
    for version in (0..16).filter(|&version| version != 4) {
        let mut frame = v4.clone();
        frame[V4_QUOTE] = (version << 4) | 5;
        program.expect(
            XdpCounter::PassNotTcp,
            &frame,
            format!("version {version} quoted by ICMPv4"),
        );
    }
    for version in (0..16).filter(|&version| version != 6) {
        let mut frame = v6.clone();
        frame[V6_QUOTE] = version << 4;
        program.expect(
            XdpCounter::PassNotTcp,
            &frame,
            format!("version {version} quoted by ICMPv6"),
        );
    }
    // Up to 4 the header is too short; from 9 on it leaves too little of the 40 octets for the segment.
    for words in (0..5).chain(9..16) {
        let mut frame = v4.clone();
        frame[V4_QUOTE] = 0x40 | words;
        program.expect(
            XdpCounter::PassNotTcp,
            &frame,
            format!("a quoted header of {words} times 4 octets"),
        );
    }
    for (flags_and_offset, reason) in [
        (0x4000, XdpCounter::RedirectTooBig),
        (0x2000, XdpCounter::RedirectTooBig),
        (0x0001, XdpCounter::PassNotTcp),
        (0x5fff, XdpCounter::PassNotTcp),
    ] {
        let mut frame = v4.clone();
        set_u16(&mut frame, V4_QUOTE + 6, flags_and_offset);
        program.expect(
            reason,
            &frame,
            format!("quoted flags and offset {flags_and_offset:#06x}"),
        );
    }
    for protocol in [
        HOP_BY_HOP,
        ICMPV4,
        UDP,
        ROUTING,
        FRAGMENT,
        ICMPV6,
        DESTINATION_OPTIONS,
        u8::MAX,
    ] {
        assert_ne!(protocol, TCP);
        let mut frame = v4.clone();
        frame[V4_QUOTE + 9] = protocol;
        program.expect(XdpCounter::PassNotTcp, &frame, format!("quoted protocol {protocol}"));
        let mut frame = v6.clone();
        frame[V6_QUOTE + 6] = protocol;
        program.expect(XdpCounter::PassNotTcp, &frame, format!("quoted next header {protocol}"));
    }
}

#[test]
fn a_message_about_a_message_is_the_kernels() {
    let Some(program) = Program::serving() else { return };
    let (v4, v6) = (too_big_v4(&packet_v4(b"")), too_big_v6(&packet_v6(b"")));
    program.expect(XdpCounter::PassNotTcp, &too_big_v4(&v4[IP..]), "IPv4");
    program.expect(XdpCounter::PassNotTcp, &too_big_v6(&v6[IP..]), "IPv6");
}

#[test]
fn garbage_in_the_place_of_the_quote_is_the_kernels() {
    let Some(program) = Program::serving() else { return };
    let mut random = Random::new();
    for length in 0..200 {
        let garbage = random.octets(length);
        for body in [garbage, vec![0; length], vec![0xff; length]] {
            program.expect(XdpCounter::PassNotTcp, &too_big_v4(&body), format!("{body:x?}"));
            program.expect(XdpCounter::PassNotTcp, &too_big_v6(&body), format!("{body:x?}"));
        }
    }
}
