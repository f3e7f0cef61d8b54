//! Verdicts by source: what comes from the servers that this host's clients talk to.

use std::net::IpAddr;

use tidegate_abi::syn_ack::feature::{REMOTES, SOURCE_RULES};
use tidegate_abi::syn_ack::source_rule::DENY;
use tidegate_abi::{ListenerKey, MAX_REMOTES, XdpCounter};

use crate::frames::icmp::{packet_v4, packet_v6, too_big_v4, too_big_v6};
use crate::frames::segment::{ACK, FIN, RST, SYN, Segment, clients};
use crate::frames::{
    CLIENT_V4, CLIENT_V6, IP, PORT, V4_TCP, V6_TCP, extension_header, served_v4, served_v6, set_u16,
    with_extension_headers, with_ipv4_options, with_vlan_tags,
};
use crate::program::Program;
use crate::{DESTINATION_OPTIONS, SERVICE_VLAN, VLAN};

/// The port of the remotes.
const REMOTE_PORT: u16 = 80;

/// The program with a socket and the senders of both families as remotes, but nothing served.
fn with_remotes() -> Option<Program> {
    let mut program = Program::load()?;
    program.steer_from(ListenerKey::v4(CLIENT_V4, REMOTE_PORT));
    program.steer_from(ListenerKey::v6(CLIENT_V6, REMOTE_PORT));
    program.set_features(REMOTES);
    program.open_socket();
    Some(program)
}

/// A segment of a remote.
fn from_remote(source: IpAddr, flags: u8) -> Segment {
    Segment {
        source_port: REMOTE_PORT,
        flags,
        ..Segment::syn(source)
    }
}

#[test]
fn what_a_remote_sends_to_any_port_is_redirected() {
    let Some(program) = with_remotes() else { return };
    for source in clients() {
        for destination_port in [1, 1024, PORT, REMOTE_PORT, u16::MAX] {
            for flags in [SYN, SYN | ACK, ACK, FIN | ACK, RST, RST | ACK, SYN | FIN] {
                let frame = Segment {
                    destination_port,
                    text: b"HTTP/1.1 200 OK".to_vec(),
                    ..from_remote(source, flags)
                }
                .frame();
                let what = format!("{source} to port {destination_port}, control bits {flags:#04x}");
                program.expect(XdpCounter::RedirectRemote, &frame, &what);
                let tagged = with_vlan_tags(&frame, &[SERVICE_VLAN, VLAN]);
                program.expect(XdpCounter::RedirectRemote, &tagged, format!("{what}, tagged"));
            }
        }
    }
}

#[test]
fn without_the_feature_remotes_are_not_looked_up() {
    let Some(mut program) = with_remotes() else { return };
    for features in [0, SOURCE_RULES, !REMOTES] {
        program.set_features(features);
        for source in clients() {
            let frame = from_remote(source, ACK).frame();
            program.expect(XdpCounter::PassNotServed, &frame, format!("{source}, {features:#x}"));
        }
    }
}

#[test]
fn any_other_source_is_passed() {
    let Some(program) = with_remotes() else { return };
    for (source, (address_at, octets)) in clients().into_iter().zip([(IP + 12, 4), (IP + 8, 16)]) {
        for source_port in [
            0,
            REMOTE_PORT - 1,
            REMOTE_PORT + 1,
            REMOTE_PORT.swap_bytes(),
            PORT,
            u16::MAX,
        ] {
            let frame = Segment {
                source_port,
                ..from_remote(source, ACK)
            }
            .frame();
            program.expect(
                XdpCounter::PassNotServed,
                &frame,
                format!("{source}, port {source_port}"),
            );
        }
        for octet in 0..octets {
            let mut frame = from_remote(source, ACK).frame();
            frame[address_at + octet] ^= 1;
            program.expect(XdpCounter::PassNotServed, &frame, format!("{source}, octet {octet}"));
        }
        let frame = Segment {
            source_port: PORT,
            destination_port: REMOTE_PORT,
            ..from_remote(source, ACK)
        }
        .frame();
        program.expect(
            XdpCounter::PassNotServed,
            &frame,
            "the remote's port as the destination",
        );
    }
}

#[test]
fn a_mapped_ipv6_source_is_no_ipv4_remote() {
    let Some(program) = with_remotes() else { return };
    let mut frame = from_remote(CLIENT_V6.into(), ACK).frame();
    frame[IP + 8..IP + 24].copy_from_slice(&ListenerKey::v4(CLIENT_V4, REMOTE_PORT).address());
    program.expect(XdpCounter::PassNotServed, &frame, "a v4-mapped source");
}

#[test]
fn behind_options_and_extension_headers_it_is_left_to_the_kernel() {
    let Some(program) = with_remotes() else { return };
    let frame = from_remote(CLIENT_V4.into(), ACK).frame();
    program.expect(
        XdpCounter::PassNotServed,
        &with_ipv4_options(&frame, 1),
        "an IPv4 option",
    );
    let frame = from_remote(CLIENT_V6.into(), ACK).frame();
    let headers = [(DESTINATION_OPTIONS, extension_header(0))];
    program.expect(
        XdpCounter::PassNotServed,
        &with_extension_headers(&frame, &headers),
        "an extension header",
    );
}

#[test]
fn a_listener_comes_before_a_remote() {
    let Some(mut program) = with_remotes() else { return };
    program.serve(served_v4());
    program.serve(served_v6());
    for source in clients() {
        program.expect(XdpCounter::Redirect, &from_remote(source, ACK).frame(), source);
        program.expect(XdpCounter::RedirectSyn, &from_remote(source, SYN).frame(), source);
    }
}

#[test]
fn rules_by_source_are_for_listeners_only() {
    let Some(mut program) = with_remotes() else { return };
    program.set_features(REMOTES | SOURCE_RULES);
    for source in clients() {
        program.set_source_rule(source, 0, DENY);
        program.expect(XdpCounter::RedirectRemote, &from_remote(source, ACK).frame(), source);
    }
}

#[test]
fn without_a_socket_it_is_passed() {
    let Some(mut program) = with_remotes() else { return };
    program.close_socket();
    for source in clients() {
        program.expect(XdpCounter::PassNoSocket, &from_remote(source, ACK).frame(), source);
    }
}

#[test]
fn a_segment_cut_short_is_malformed() {
    let Some(program) = with_remotes() else { return };
    for (source, tcp) in clients().into_iter().zip([V4_TCP, V6_TCP]) {
        let mut frame = from_remote(source, ACK).frame();
        frame.truncate(tcp + 4);
        let (field, length) = if tcp == V4_TCP { (IP + 2, 24) } else { (IP + 4, 4) };
        set_u16(&mut frame, field, length);
        program.expect(XdpCounter::PassMalformed, &frame, source);
    }
}

#[test]
fn too_big_about_what_a_client_sent_is_left_to_the_kernel() {
    let Some(mut program) = with_remotes() else { return };
    // The quoted segments went to these.
    let port = Segment::syn(CLIENT_V4.into()).source_port;
    program.steer_from(ListenerKey::v4(CLIENT_V4, port));
    program.steer_from(ListenerKey::v6(CLIENT_V6, port));
    let frames = [too_big_v4(&packet_v4(b"")), too_big_v6(&packet_v6(b""))];
    for frame in &frames {
        program.expect(XdpCounter::PassNotTcp, frame, "nothing is served");
    }
    program.serve(served_v4());
    program.serve(served_v6());
    for frame in &frames {
        program.expect(XdpCounter::RedirectTooBig, frame, "the quoted source is served");
    }
}

#[test]
fn the_map_has_room_for_all_remotes() {
    let Some(mut program) = Program::load() else { return };
    for port in 0..MAX_REMOTES as u16 {
        program.steer_from(ListenerKey::v4(CLIENT_V4, port));
    }
}
