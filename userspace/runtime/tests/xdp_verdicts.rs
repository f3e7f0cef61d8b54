//! Every verdict of the XDP program and every reason for it, by BPF_PROG_TEST_RUN on crafted frames.
//!
//! No interface is touched. Loading a program takes root (CAP_BPF and CAP_NET_ADMIN).

mod decapsulation;
mod flow_filter;
mod frames;
mod program;
mod random;
mod remotes;
mod several_buffers;
mod sources;
mod syn_cookies;
mod too_big;

use frames::segment::{RST, Segment, clients};
use frames::{
    IP, PORT, SERVER_V4, SERVER_V6, V4_TCP, V6_TCP, extension_header, served_v4, served_v6, set_u16, tcp_v4, tcp_v4_to,
    tcp_v6, tcp_v6_to, with_extension_headers, with_ipv4_options, with_tcp_options, with_vlan_tags,
};
use program::Program;
use tidegate_abi::syn_ack::{feature, source_rule};
use tidegate_abi::{ListenerKey, MAX_LISTENERS, MAX_QUEUES, XdpCounter};

/// The shortest frame BPF_PROG_TEST_RUN takes: an Ethernet header.
const SHORTEST: usize = 14;

const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;

const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
const WALKED: [u8; 3] = [HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS];

#[test]
fn a_served_destination_with_a_socket_is_redirected() {
    let Some(program) = Program::serving() else { return };
    program.expect(XdpCounter::Redirect, &tcp_v4(), "IPv4");
    program.expect(XdpCounter::Redirect, &tcp_v6(), "IPv6");
}

#[test]
fn a_served_destination_without_a_socket_is_passed() {
    let Some(mut program) = Program::load() else { return };
    program.serve(served_v4());
    program.serve(served_v6());
    program.expect(XdpCounter::PassNoSocket, &tcp_v4(), "IPv4");
    program.expect(XdpCounter::PassNoSocket, &tcp_v6(), "IPv6");
    program.open_socket();
    program.expect(XdpCounter::Redirect, &tcp_v4(), "IPv4, with a socket by now");
    // The kernel takes a closed socket out of the map: what a killed server leaves is a program that passes.
    program.close_socket();
    program.expect(XdpCounter::PassNoSocket, &tcp_v4(), "IPv4, with the socket closed");
}

#[test]
fn a_program_that_outlives_its_engines_leaves_everything_to_the_kernel() {
    let Some(mut program) = syn_cookies::answering() else {
        return;
    };
    for client in clients() {
        program.set_source_rule(client, if client.is_ipv4() { 32 } else { 128 }, source_rule::DENY);
    }
    let of_engines = feature::SOURCE_RULES | feature::FLOW_FILTER | feature::COOKIES;
    for (features, has_socket) in [
        (0, true),
        (feature::SOURCE_RULES, true),
        (0, false),
        (feature::SOURCE_RULES, false),
    ] {
        if !has_socket {
            program.close_socket();
        }
        program.set_features(features | feature::FLOW_FILTER | feature::COOKIES | feature::OUTLIVES);
        for client in clients() {
            let syn = Segment::syn(client);
            let stray = Segment {
                flags: RST,
                ..syn.clone()
            };
            for (segment, verdict) in [(syn, XdpCounter::TxSynCookie), (stray, XdpCounter::DropNoFlow)] {
                let expected = match (has_socket, features) {
                    (false, _) => XdpCounter::PassNoSocket,
                    (true, 0) => verdict,
                    (true, _) => XdpCounter::DropSourceDenied,
                };
                program.expect(
                    expected,
                    &segment.frame(),
                    format!("{client}, {features:#x}, {has_socket}"),
                );
            }
        }
    }
    program.set_features(of_engines);
    for client in clients() {
        let frame = Segment::syn(client).frame();
        program.expect(XdpCounter::DropSourceDenied, &frame, "one that goes with them");
    }
}

#[test]
fn a_destination_that_is_not_served_is_passed() {
    let Some(mut program) = Program::load() else { return };
    program.open_socket();
    program.expect(XdpCounter::PassNotServed, &tcp_v4(), "nothing is served, IPv4");
    program.expect(XdpCounter::PassNotServed, &tcp_v6(), "nothing is served, IPv6");
    program.serve(served_v4());
    program.serve(served_v6());
    for port in [0, 22, PORT - 1, PORT + 1, PORT.swap_bytes(), u16::MAX] {
        let what = format!("port {port}");
        program.expect(XdpCounter::PassNotServed, &tcp_v4_to(SERVER_V4, port), &what);
        program.expect(XdpCounter::PassNotServed, &tcp_v6_to(SERVER_V6, port), &what);
    }
    for octet in 0..4 {
        let mut address = SERVER_V4;
        address[octet] ^= 1;
        program.expect(
            XdpCounter::PassNotServed,
            &tcp_v4_to(address, PORT),
            format!("{address:?}"),
        );
    }
    for octet in 0..16 {
        let mut address = SERVER_V6;
        address[octet] ^= 1;
        program.expect(
            XdpCounter::PassNotServed,
            &tcp_v6_to(address, PORT),
            format!("{address:?}"),
        );
    }
    let mapped = tcp_v6_to(served_v4().address(), PORT);
    program.expect(
        XdpCounter::PassNotServed,
        &mapped,
        "an IPv4-mapped destination is no IPv4 one",
    );
    let mut answer = tcp_v4();
    answer[V4_TCP..V4_TCP + 4].rotate_left(2);
    program.expect(XdpCounter::PassNotServed, &answer, "the served port as the source port");
}

#[test]
fn only_unicast_frames_are_looked_at() {
    let Some(program) = Program::serving() else { return };
    let mut frame = tcp_v4();
    for destination in [
        [0xff; 6],
        [0x01, 0x00, 0x5e, 0, 0, 1],
        [0x33, 0x33, 0, 0, 0, 1],
        [0x03, 0, 0, 0, 0, 1],
    ] {
        frame[..6].copy_from_slice(&destination);
        program.expect(XdpCounter::PassNotUnicast, &frame, format!("{destination:x?}"));
    }
    for destination in [[0xfe; 6], [0x00, 0xff, 0xff, 0xff, 0xff, 0xff]] {
        frame[..6].copy_from_slice(&destination);
        program.expect(XdpCounter::Redirect, &frame, format!("{destination:x?}"));
    }
}

#[test]
fn other_ethertypes_are_passed() {
    let Some(program) = Program::serving() else { return };
    let mut frame = tcp_v4();
    // ARP, the neighbours of IPv4 and IPv6, MPLS, PPPoE, LLDP, an old double tag, an IEEE 802.3 length.
    for ethertype in [
        0x0806, 0x07ff, 0x0801, 0x86dc, 0x86de, 0x8847, 0x8864, 0x88cc, 0x9100, 46, 0, 0xffff,
    ] {
        set_u16(&mut frame, 12, ethertype);
        program.expect(XdpCounter::PassNotIp, &frame, format!("ethertype {ethertype:#06x}"));
        let tagged = with_vlan_tags(&frame, &[VLAN]);
        program.expect(
            XdpCounter::PassNotIp,
            &tagged,
            format!("ethertype {ethertype:#06x} in a VLAN"),
        );
    }
}

#[test]
fn two_vlan_tags_are_skipped_and_a_third_is_not() {
    let Some(program) = Program::serving() else { return };
    for frame in [tcp_v4(), tcp_v6()] {
        for outer in [VLAN, SERVICE_VLAN] {
            program.expect(XdpCounter::Redirect, &with_vlan_tags(&frame, &[outer]), "one tag");
            for inner in [VLAN, SERVICE_VLAN] {
                let tagged = with_vlan_tags(&frame, &[outer, inner]);
                program.expect(XdpCounter::Redirect, &tagged, "two tags");
                for innermost in [VLAN, SERVICE_VLAN] {
                    let tagged = with_vlan_tags(&frame, &[outer, inner, innermost]);
                    program.expect(XdpCounter::PassVlanDepth, &tagged, "three tags");
                }
            }
        }
    }
    // With its ethertype the third tag is known, whether it is whole or not.
    let tagged = with_vlan_tags(&tcp_v4(), &[VLAN; 3]);
    program.expect(XdpCounter::PassMalformed, &tagged[..21], "the second tag is cut short");
    program.expect(XdpCounter::PassVlanDepth, &tagged[..22], "two whole tags and no third");
}

/// Whatever is missing at the end of a frame, the packet's length no longer fits.
#[test]
fn a_frame_cut_short_is_never_redirected() {
    let Some(program) = Program::serving() else { return };
    for whole in [
        tcp_v4(),
        tcp_v6(),
        with_vlan_tags(&tcp_v4(), &[SERVICE_VLAN, VLAN]),
        with_ipv4_options(&tcp_v4(), 10),
        with_extension_headers(&tcp_v6(), &[(DESTINATION_OPTIONS, extension_header(1))]),
        with_tcp_options(&tcp_v6(), V6_TCP, 10),
    ] {
        program.expect(XdpCounter::Redirect, &whole, "the whole frame");
        for length in SHORTEST..whole.len() {
            program.expect(
                XdpCounter::PassMalformed,
                &whole[..length],
                format!("{length} of {} octets", whole.len()),
            );
        }
    }
}

/// The packet's length fits the frame here, so that the TCP header's own checks decide.
#[test]
fn a_packet_without_a_whole_tcp_header_is_never_redirected() {
    let Some(program) = Program::serving() else { return };
    for words in [0, 3, 10] {
        let v4 = with_tcp_options(&tcp_v4(), V4_TCP, words);
        let v6 = with_tcp_options(&tcp_v6(), V6_TCP, words);
        for missing in 1..=v4.len() - V4_TCP {
            let mut cut = v4[..v4.len() - missing].to_vec();
            let total_length = (cut.len() - IP) as u16;
            set_u16(&mut cut, IP + 2, total_length);
            program.expect(
                XdpCounter::PassMalformed,
                &cut,
                format!("IPv4, {missing} octets of TCP missing"),
            );

            let mut cut = v6[..v6.len() - missing].to_vec();
            let payload_length = (cut.len() - V6_TCP) as u16;
            set_u16(&mut cut, IP + 4, payload_length);
            program.expect(
                XdpCounter::PassMalformed,
                &cut,
                format!("IPv6, {missing} octets of TCP missing"),
            );
        }
    }
}

#[test]
fn padding_after_the_packet_is_not_part_of_it() {
    let Some(program) = Program::serving() else { return };
    let mut padded = tcp_v4();
    padded.resize(60, 0);
    program.expect(XdpCounter::Redirect, &padded, "padded to Ethernet's minimum");
    set_u16(&mut padded, IP + 2, 39);
    program.expect(
        XdpCounter::PassMalformed,
        &padded,
        "IPv4, the TCP header ends in the padding",
    );
    let mut padded = tcp_v6();
    padded.resize(100, 0);
    program.expect(XdpCounter::Redirect, &padded, "IPv6, padded");
    set_u16(&mut padded, IP + 4, 19);
    program.expect(
        XdpCounter::PassMalformed,
        &padded,
        "IPv6, the TCP header ends in the padding",
    );
}

#[test]
fn an_ip_version_that_contradicts_the_ethertype_is_malformed() {
    let Some(program) = Program::serving() else { return };
    for version in 0..16 {
        let mut v4 = tcp_v4();
        v4[IP] = (version << 4) | 5;
        let reason = if version == 4 {
            XdpCounter::Redirect
        } else {
            XdpCounter::PassMalformed
        };
        program.expect(reason, &v4, format!("version {version} as IPv4"));

        let mut v6 = tcp_v6();
        v6[IP] = version << 4;
        let reason = if version == 6 {
            XdpCounter::Redirect
        } else {
            XdpCounter::PassMalformed
        };
        program.expect(reason, &v6, format!("version {version} as IPv6"));
    }
}

#[test]
fn ipv4_header_lengths() {
    let Some(program) = Program::serving() else { return };
    for words in 0..5 {
        let mut frame = tcp_v4();
        frame[IP] = 0x40 | words;
        program.expect(
            XdpCounter::PassMalformed,
            &frame,
            format!("a header of {words} times 4 octets"),
        );
    }
    for words in 0..=10 {
        let frame = with_ipv4_options(&tcp_v4(), words);
        program.expect(
            XdpCounter::Redirect,
            &frame,
            format!("options of {words} times 4 octets"),
        );
    }
    let mut frame = tcp_v4();
    frame[IP] = 0x4b;
    program.expect(XdpCounter::PassMalformed, &frame, "a header past the packet's end");
}

#[test]
fn packet_lengths_against_the_frame() {
    let Some(program) = Program::serving() else { return };
    let mut v4 = tcp_v4();
    let whole = (v4.len() - IP) as u16;
    for (length, reason) in [
        (0, XdpCounter::PassMalformed),
        (19, XdpCounter::PassMalformed),
        (20, XdpCounter::PassMalformed),
        (whole - 1, XdpCounter::PassMalformed),
        (whole, XdpCounter::Redirect),
        (whole + 1, XdpCounter::PassMalformed),
        (u16::MAX, XdpCounter::PassMalformed),
    ] {
        set_u16(&mut v4, IP + 2, length);
        program.expect(reason, &v4, format!("IPv4 total length {length} of {whole}"));
    }

    let mut v6 = tcp_v6();
    let whole = (v6.len() - V6_TCP) as u16;
    for (length, reason) in [
        // A jumbogram's length (RFC 2675) is no exception: no frame here is that long.
        (0, XdpCounter::PassMalformed),
        (whole - 1, XdpCounter::PassMalformed),
        (whole, XdpCounter::Redirect),
        (whole + 1, XdpCounter::PassMalformed),
        (u16::MAX, XdpCounter::PassMalformed),
    ] {
        set_u16(&mut v6, IP + 4, length);
        program.expect(reason, &v6, format!("IPv6 payload length {length} of {whole}"));
    }
}

#[test]
fn ipv4_fragments_are_passed() {
    let Some(program) = Program::serving() else { return };
    let mut frame = tcp_v4();
    for (flags_and_offset, reason) in [
        (0x0000, XdpCounter::Redirect),
        (0x4000, XdpCounter::Redirect),
        (0x2000, XdpCounter::PassFragment),
        (0x0001, XdpCounter::PassFragment),
        (0x1000, XdpCounter::PassFragment),
        (0x1fff, XdpCounter::PassFragment),
        (0x2001, XdpCounter::PassFragment),
        (0x6000, XdpCounter::PassFragment),
    ] {
        set_u16(&mut frame, IP + 6, flags_and_offset);
        program.expect(reason, &frame, format!("flags and offset {flags_and_offset:#06x}"));
    }
    frame[IP + 9] = UDP;
    program.expect(XdpCounter::PassFragment, &frame, "a fragment of anything");
}

/// RFC 6946: whole packets, which Linux gives to TCP as well.
#[test]
fn ipv6_atomic_fragments_are_redirected_and_real_ones_passed() {
    let Some(program) = Program::serving() else { return };
    let header = |offset_and_more: u16, reserved: u8| {
        let mut octets = extension_header(0);
        octets[1] = reserved;
        set_u16(&mut octets, 2, offset_and_more);
        octets[4..].copy_from_slice(&[0xde, 0xad, 0xbe, 0xef]);
        (FRAGMENT, octets)
    };
    // The two bits between the offset and "more fragments" are reserved, and to be ignored.
    for offset_and_more in [
        0x0000, 0x0002, 0x0004, 0x0006, 0x0001, 0x0007, 0x0008, 0x0009, 0x8000, 0xfff8, 0xffff,
    ] {
        for reserved in [0, 1, u8::MAX] {
            let reason = if offset_and_more & 0xfff9 == 0 {
                XdpCounter::Redirect
            } else {
                XdpCounter::PassFragment
            };
            let fragment = header(offset_and_more, reserved);
            let options = (DESTINATION_OPTIONS, extension_header(1));
            for headers in [
                vec![fragment.clone()],
                vec![options.clone(), fragment.clone()],
                vec![fragment.clone(), options.clone()],
                vec![fragment.clone(), fragment.clone()],
            ] {
                let frame = with_extension_headers(&tcp_v6(), &headers);
                let what = format!("{offset_and_more:#06x}, reserved {reserved}, {} headers", headers.len());
                program.expect(reason, &frame, &what);
                program.expect(reason, &with_vlan_tags(&frame, &[SERVICE_VLAN, VLAN]), &what);
            }
        }
    }
    // The last of six is walked past; of a seventh nothing is read.
    for (number, reason) in [(6, XdpCounter::Redirect), (7, XdpCounter::PassFragment)] {
        let frame = with_extension_headers(&tcp_v6(), &vec![header(0, 0); number]);
        program.expect(reason, &frame, format!("{number} fragment headers"));
    }
    // A payload that ends within the header, and one that ends right behind it.
    let whole = with_extension_headers(&tcp_v6(), &[header(0, 0)]);
    for length in [0, 4, 7, 8, 27] {
        let mut frame = whole.clone();
        set_u16(&mut frame, IP + 4, length);
        program.expect(XdpCounter::PassMalformed, &frame, format!("payload length {length}"));
    }
    let mut datagram = whole;
    datagram[V6_TCP] = UDP;
    program.expect(XdpCounter::PassNotTcp, &datagram, "a whole datagram");
}

#[test]
fn ipv4_protocols_other_than_tcp_are_passed() {
    let Some(program) = Program::serving() else { return };
    let mut frame = tcp_v4();
    for protocol in 0..=u8::MAX {
        frame[IP + 9] = protocol;
        let reason = if protocol == TCP {
            XdpCounter::Redirect
        } else {
            XdpCounter::PassNotTcp
        };
        program.expect(reason, &frame, format!("protocol {protocol}"));
    }
}

#[test]
fn tcp_data_offsets() {
    let Some(program) = Program::serving() else { return };
    for (plain, tcp) in [(tcp_v4(), V4_TCP), (tcp_v6(), V6_TCP)] {
        for words in 0..5 {
            let mut frame = plain.clone();
            frame[tcp + 12] = words << 4;
            program.expect(XdpCounter::PassMalformed, &frame, format!("data offset {words}"));
        }
        for words in 0..=10 {
            let mut frame = with_tcp_options(&plain, tcp, words);
            program.expect(XdpCounter::Redirect, &frame, format!("data offset {}", words + 5));
            if words < 10 {
                frame[tcp + 12] += 1 << 4;
                program.expect(
                    XdpCounter::PassMalformed,
                    &frame,
                    format!("data offset {} past the segment's end", words + 6),
                );
            }
        }
    }
}

/// Each value of the next-header field, with eight zeros where it points: an extension header without segments left.
#[test]
fn ipv6_next_headers() {
    let Some(program) = Program::serving() else { return };
    for next_header in 0..=u8::MAX {
        let frame = with_extension_headers(&tcp_v6(), &[(next_header, extension_header(0))]);
        let reason = match next_header {
            // Of the fragment headers the one of an atomic fragment.
            HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS => XdpCounter::Redirect,
            // ESP, authentication, mobility, host identity, shim6, and the two for experiments.
            50 | 51 | 135 | 139 | 140 | 253 | 254 => XdpCounter::PassExtensionHeader,
            // Read as a TCP header, the eight zeros and the segment behind them have data offset 0.
            TCP => XdpCounter::PassMalformed,
            _ => XdpCounter::PassNotTcp,
        };
        program.expect(reason, &frame, format!("next header {next_header}"));
    }
}

#[test]
fn six_extension_headers_are_walked_and_a_seventh_is_not() {
    let Some(program) = Program::serving() else { return };
    for kind in WALKED {
        for units in [0, 1, 5] {
            for number in 1..=8 {
                let headers = vec![(kind, extension_header(units)); number];
                let reason = if number <= 6 {
                    XdpCounter::Redirect
                } else {
                    XdpCounter::PassExtensionHeader
                };
                program.expect(
                    reason,
                    &with_extension_headers(&tcp_v6(), &headers),
                    format!("{number} headers of kind {kind}, length {units}"),
                );
            }
        }
    }
    let headers = WALKED.map(|kind| (kind, extension_header(2)));
    program.expect(
        XdpCounter::Redirect,
        &with_extension_headers(&tcp_v6(), &headers),
        "one of each",
    );
    let longest = with_extension_headers(&tcp_v6(), &[(DESTINATION_OPTIONS, extension_header(u8::MAX))]);
    program.expect(XdpCounter::Redirect, &longest, "2,048 octets of options");
    program.expect(
        XdpCounter::Redirect,
        &with_vlan_tags(&longest, &[SERVICE_VLAN, VLAN]),
        "and two tags",
    );
}

#[test]
fn what_follows_the_extension_headers_decides() {
    let Some(program) = Program::serving() else { return };
    for number in 0..=6 {
        let headers = vec![(DESTINATION_OPTIONS, extension_header(0)); number];
        for (last, reason) in [
            (UDP, XdpCounter::PassNotTcp),
            (58, XdpCounter::PassNotTcp),
            (59, XdpCounter::PassNotTcp),
            (FRAGMENT, XdpCounter::PassFragment),
            (50, XdpCounter::PassExtensionHeader),
            (51, XdpCounter::PassExtensionHeader),
            (TCP, XdpCounter::Redirect),
        ] {
            let mut plain = tcp_v6();
            plain[IP + 6] = last;
            program.expect(
                reason,
                &with_extension_headers(&plain, &headers),
                format!("{number} headers, then {last}"),
            );
        }
    }
}

#[test]
fn a_source_route_is_left_to_the_kernel() {
    let Some(program) = Program::serving() else { return };
    for (segments_left, reason) in [
        (0, XdpCounter::Redirect),
        (1, XdpCounter::PassExtensionHeader),
        (u8::MAX, XdpCounter::PassExtensionHeader),
    ] {
        let mut routing = extension_header(2);
        routing[3] = segments_left;
        let frame = with_extension_headers(&tcp_v6(), &[(ROUTING, routing.clone())]);
        program.expect(reason, &frame, format!("{segments_left} segments left"));
        let frame = with_extension_headers(
            &tcp_v6(),
            &[(DESTINATION_OPTIONS, extension_header(0)), (ROUTING, routing.clone())],
        );
        program.expect(reason, &frame, format!("{segments_left} segments left, second header"));
        // The fourth octet means this in a routing header only.
        let frame = with_extension_headers(&tcp_v6(), &[(DESTINATION_OPTIONS, routing)]);
        program.expect(XdpCounter::Redirect, &frame, "destination options");
    }
}

#[test]
fn an_extension_header_past_the_packet_is_malformed() {
    let Some(program) = Program::serving() else { return };
    let payload = (tcp_v6().len() - V6_TCP) as u8;
    for kind in WALKED {
        // One unit more is within the packet, but leaves too little of it for a TCP header;
        // the others are past its end.
        for units in [1, payload / 8 + 1, u8::MAX] {
            let mut header = extension_header(0);
            header[1] = units;
            let frame = with_extension_headers(&tcp_v6(), &[(kind, header)]);
            program.expect(
                XdpCounter::PassMalformed,
                &frame,
                format!("kind {kind} claims {units} units more"),
            );
        }
    }
    // The packet ends with the extension header, though it promises TCP and the frame goes on.
    let mut frame = with_extension_headers(&tcp_v6(), &[(DESTINATION_OPTIONS, extension_header(0))]);
    set_u16(&mut frame, IP + 4, 8);
    program.expect(XdpCounter::PassMalformed, &frame, "nothing after the extension header");
    set_u16(&mut frame, IP + 4, 7);
    program.expect(XdpCounter::PassMalformed, &frame, "the extension header cut short");
}

#[test]
fn every_frame_counts_once_over_all_queues() {
    let Some(program) = Program::serving() else { return };
    for (number, frame) in (1..).zip([tcp_v4(), tcp_v6(), tcp_v4_to(SERVER_V4, 22), vec![0xff; 60]]) {
        program.reason(&frame);
        assert_eq!(program.total(), number);
    }
}

/// The names under which userspace finds the maps are the object's, and so are their sizes.
/// Some of so many share a slot, and then one of them is found there and the others in the map behind it.
#[test]
fn each_of_many_listeners_is_found_and_its_neighbours_are_not() {
    let Some(mut program) = Program::load() else { return };
    program.open_socket();
    for port in (0..1000).step_by(2) {
        program.serve(ListenerKey::v4(SERVER_V4, port));
        program.serve(ListenerKey::v6(SERVER_V6, port));
    }
    for port in 0..1000 {
        let expected = if port % 2 == 0 {
            XdpCounter::Redirect
        } else {
            XdpCounter::PassNotServed
        };
        program.expect(expected, &tcp_v4_to(SERVER_V4, port), format!("IPv4, port {port}"));
        program.expect(expected, &tcp_v6_to(SERVER_V6, port), format!("IPv6, port {port}"));
    }
}

#[test]
fn the_maps_have_the_shared_names_and_sizes() {
    let Some(mut program) = Program::load() else { return };
    assert_eq!(program.total(), 0);
    for port in 0..MAX_LISTENERS as u16 {
        program.serve(ListenerKey::v4(SERVER_V4, port));
    }
    assert_eq!(program.queues(), MAX_QUEUES);
}
