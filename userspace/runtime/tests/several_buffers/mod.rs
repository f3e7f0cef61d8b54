//! Frames in several buffers, as they come with a large MTU: of 3,520 octets and more in a test run.

use tidegate_abi::XdpCounter;
use tidegate_abi::syn_ack::cookie_switch;

use crate::frames::segment::{ACK, Segment, clients};
use crate::frames::{IP, ip_offset, set_u16, tcp_v4, tcp_v6, with_vlan_tags};
use crate::program::Program;
use crate::syn_cookies::answer::{KEYS, TEMPLATE};
use crate::{SERVICE_VLAN, VLAN};

/// Octets of text: frames at the end of the first buffer, in the second, and of an MTU of 9,000.
const LENGTHS: [usize; 6] = [3400, 3466, 3467, 5000, 7500, 8948];

/// A segment in each family with as many octets of text.
fn segments(length: usize) -> [Segment; 2] {
    clients().map(|client| Segment {
        flags: ACK,
        text: (0..length).map(|octet| octet as u8).collect(),
        ..Segment::syn(client)
    })
}

#[test]
fn a_whole_packet_is_redirected_in_however_many_buffers_it_lies() {
    let Some(program) = Program::serving_several_buffers() else {
        return;
    };
    for frame in [tcp_v4(), tcp_v6()] {
        program.expect(XdpCounter::Redirect, &frame, "one buffer");
    }
    for length in LENGTHS {
        for segment in segments(length) {
            let frame = segment.frame();
            let what = format!("{}, {length} octets of text", segment.source);
            program.expect(XdpCounter::Redirect, &frame, &what);
            let tagged = with_vlan_tags(&frame, &[SERVICE_VLAN, VLAN]);
            program.expect(XdpCounter::Redirect, &tagged, format!("{what}, two tags"));
        }
    }
}

#[test]
fn a_packet_cut_short_is_passed_and_one_with_padding_is_not() {
    let Some(program) = Program::serving_several_buffers() else {
        return;
    };
    for length in LENGTHS {
        for segment in segments(length) {
            let what = format!("{}, {length} octets of text", segment.source);
            let whole = segment.frame();
            for missing in [1, 2, 100, length / 2, length] {
                program.expect(
                    XdpCounter::PassMalformed,
                    &whole[..whole.len() - missing],
                    format!("{what}, {missing} of them missing"),
                );
            }
            let mut padded = whole;
            padded.extend([0; 4]);
            program.expect(XdpCounter::Redirect, &padded, format!("{what}, padded"));
            let length_field = if segment.source.is_ipv4() { IP + 2 } else { IP + 4 };
            set_u16(&mut padded, length_field, u16::MAX);
            program.expect(
                XdpCounter::PassMalformed,
                &padded,
                format!("{what}, too great a length"),
            );
        }
    }
}

#[test]
fn a_syn_in_several_buffers_is_answered_without_its_text() {
    let Some(mut program) = Program::serving_several_buffers() else {
        return;
    };
    program.set_cookie_key(0, KEYS[0]);
    program.set_syn_ack(TEMPLATE);
    program.set_cookie_switch(0, cookie_switch::on(0));
    for length in LENGTHS {
        for client in clients() {
            let mut syn = Segment::syn(client);
            syn.text = vec![0xa5; length];
            let frame = syn.frame();
            let (reason, answer) = program.verdict(&frame);
            let what = format!("{client}, {length} octets of text");
            assert_eq!(reason, XdpCounter::TxSynCookie, "{what}");
            assert_eq!(answer.len(), frame.len() - length, "{what}");
            assert_eq!(ip_offset(&answer), ip_offset(&frame), "{what}");
        }
    }
}
