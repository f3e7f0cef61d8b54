//! SYNs that are not answered, though cookies are on.

use std::net::IpAddr;

use tidegate_abi::XdpCounter;
use tidegate_abi::syn_ack::cookie_switch;

use super::offer::{NOP, mixes};
use super::{answering, expect_answer, syn_with_all_options};
use crate::frames::segment::{FIN, RST, SYN, Segment, clients};
use crate::frames::{
    CLIENT_V4, IP, PORT, extension_header, set_u16, with_extension_headers, with_ipv4_options, with_vlan_tags,
};
use crate::program::Program;
use crate::{SERVICE_VLAN, VLAN, WALKED};

/// Fails the test unless `frame` is dropped as malformed, and goes to the engine once cookies are off.
#[track_caller]
fn expect_malformed(program: &mut Program, frame: &[u8], what: &str) {
    program.expect(XdpCounter::DropSynMalformed, frame, what);
    program.set_cookie_switch(0, cookie_switch::OFF);
    program.expect(XdpCounter::RedirectSyn, frame, format!("{what}, without cookies"));
    program.set_cookie_switch(0, cookie_switch::on(0));
}

#[test]
fn options_of_an_impossible_length() {
    let Some(mut program) = answering() else { return };
    let cases: [&[u8]; 16] = [
        &[2, 0, 0x05, 0xb4],
        &[2, 1, 0x05, 0xb4],
        &[2, 5, 0x05, 0xb4],
        &[2, 255, 0x05, 0xb4],
        &[NOP, 2, 4, 0x05],
        &[3, 0, 7, 0],
        &[NOP, NOP, 3, 3],
        &[4, 1, 0, 0],
        &[8, 10, 0, 0, 0, 1, 0, 0],
        &[8, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        &[254, 0, 0, 0],
        &[254, 1, 0, 0],
        &[254, 41, 0, 0],
        // A kind without a length: the last octet.
        &[NOP, NOP, NOP, 2],
        &[NOP, NOP, NOP, 254],
        &[2, 4, 0x05, 0xb4, 3, 3, 7, 8],
    ];
    for client in clients() {
        for case in cases {
            for before in [vec![], vec![NOP; 4], vec![2, 4, 0x05, 0xb4]] {
                let options = [&before[..], case].concat();
                let what = format!("{client}, {options:x?}");
                let syn = Segment {
                    options,
                    ..Segment::syn(client)
                };
                expect_malformed(&mut program, &syn.frame(), &what);
                let tagged = with_vlan_tags(&syn.frame(), &[SERVICE_VLAN, VLAN]);
                expect_malformed(&mut program, &tagged, &format!("{what}, tagged"));
            }
        }
    }
}

/// At every place of a header of any length.
#[test]
fn an_option_that_ends_behind_the_header() {
    let Some(mut program) = answering() else { return };
    for client in clients() {
        for words in 1..=10 {
            let length = 4 * words;
            for at in 0..length {
                // One option, and not padding, of which only so much is looked at.
                let mut options = match at {
                    0 => vec![],
                    1 => vec![NOP],
                    _ => vec![253, at as u8],
                };
                options.resize(at, 0xaa);
                options.push(254);
                options.resize(length, (length - at + 1) as u8);
                let what = format!("{client}, an option at {at} of {length}");
                let syn = Segment {
                    options,
                    ..Segment::syn(client)
                };
                expect_malformed(&mut program, &syn.frame(), &what);
            }
        }
    }
}

/// Nothing of a SYN before is taken for the length that is missing.
#[test]
fn an_option_cut_short_behind_a_longer_syn() {
    let Some(program) = answering() else { return };
    for client in clients() {
        for octet in 0..=u8::MAX {
            let mut longer = vec![NOP, 254, 0, NOP];
            longer.resize(40, octet);
            for options in [longer, vec![NOP, NOP, NOP, 2]] {
                let syn = Segment {
                    options,
                    ..Segment::syn(client)
                };
                let what = format!("{client}, {:x?}", syn.options);
                program.expect(XdpCounter::DropSynMalformed, &syn.frame(), what);
            }
        }
    }
}

#[test]
fn a_syn_with_ipv4_options_or_extension_headers() {
    let Some(mut program) = answering() else { return };
    for mix in mixes() {
        for client in clients() {
            let syn = Segment {
                options: mix.options.clone(),
                ..Segment::syn(client)
            };
            let frame = syn.frame();
            match client {
                IpAddr::V4(_) => {
                    for words in 1..=10 {
                        let frame = with_ipv4_options(&frame, words);
                        let what = format!("{}, {words} words of IPv4 options", mix.what);
                        expect_malformed(&mut program, &frame, &what);
                    }
                }
                IpAddr::V6(_) => {
                    for kind in WALKED {
                        for number in [1, 6] {
                            let headers = vec![(kind, extension_header(0)); number];
                            let frame = with_extension_headers(&frame, &headers);
                            let what = format!("{}, {number} extension headers of kind {kind}", mix.what);
                            expect_malformed(&mut program, &frame, &what);
                        }
                    }
                }
            }
            expect_answer(&program, &frame, &syn, &mix.offer, "without them");
        }
    }
}

/// Segments to ports that are not served are the kernel's, whatever they are.
#[test]
fn a_syn_that_is_not_for_us_is_passed() {
    let Some(program) = answering() else { return };
    for client in clients() {
        for flags in [SYN, SYN | FIN, SYN | RST] {
            for options in [vec![], vec![2, 0, 0, 0], syn_with_all_options(client).0.options] {
                for port in [0, 22, PORT - 1, PORT + 1, PORT.swap_bytes()] {
                    let syn = Segment {
                        destination_port: port,
                        flags,
                        options: options.clone(),
                        ..Segment::syn(client)
                    };
                    let what = format!("{client}, port {port}, control bits {flags:#04x}, {options:x?}");
                    program.expect(XdpCounter::PassNotServed, &syn.frame(), what);
                }
                let syn = Segment {
                    flags,
                    options,
                    ..Segment::syn(client)
                };
                let mut frame = syn.frame();
                let last_octet = syn.offset() - 1;
                frame[last_octet] ^= 1;
                program.expect(XdpCounter::PassNotServed, &frame, format!("{client}, another address"));
            }
        }
    }
}

/// Loose and strict source routes (RFC 791, section 3.1), finished and not: no cookie goes where they lead. That the
/// engine drops the segment is its part.
#[test]
fn a_syn_with_a_source_route_is_not_answered() {
    const LOOSE: u8 = 131;
    const STRICT: u8 = 137;
    let Some(mut program) = answering() else { return };
    let syn = syn_with_all_options(CLIENT_V4.into()).0;
    for kind in [LOOSE, STRICT] {
        for pointer in [4, 8] {
            let mut frame = with_ipv4_options(&syn.frame(), 2);
            frame[IP + 20..IP + 28].copy_from_slice(&[kind, 7, pointer, 198, 18, 0, 9, 0]);
            expect_malformed(&mut program, &frame, &format!("option {kind}, pointer {pointer}"));
        }
    }
}

#[test]
fn a_syn_that_is_no_whole_packet_is_passed() {
    let Some(program) = answering() else { return };
    for client in clients() {
        let (syn, _) = syn_with_all_options(client);
        let whole = syn.frame();
        for length in syn.offset()..whole.len() {
            let what = format!("{client}, {length} octets");
            program.expect(XdpCounter::PassMalformed, &whole[..length], what);
        }
    }
    let (syn, _) = syn_with_all_options(CLIENT_V4.into());
    let mut fragment = syn.frame();
    set_u16(&mut fragment, IP + 6, 0x2000);
    program.expect(XdpCounter::PassFragment, &fragment, "the first fragment");
}
