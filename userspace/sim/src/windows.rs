//! The windows that both sides offer, and whether the other keeps within them (RFC 9293, section 3.8.6).
//!
//! A receiver that is as it should be takes nothing beyond its window, so a sender that goes beyond loses no byte by it
//! and nothing else notices.

use crate::segment::{ACK, RST, SYN, View};
use crate::side::Side;

/// Kind of the window scale option (RFC 7323, section 2.2).
const WINDOW_SCALE: u8 = 3;

/// The offers of one side.
#[derive(Clone, Copy, Debug, Default)]
struct Offers {
    /// Its initial sequence number, which the other's offers are counted from.
    isn: Option<u32>,
    /// The shift in its SYN.
    shift: Option<u8>,
    /// The link takes that out of its SYN.
    stripped: bool,
    /// The furthest edge of its window; to take some of a window back is bad manners, but what was sent before that is
    /// no fault.
    edge: Option<u32>,
}

/// The offers of both sides, as their segments go onto the wire.
#[derive(Clone, Debug)]
pub(crate) struct Windows {
    offers: [Offers; 2],
    /// By side: the octets by which its text and FIN went beyond the window, the first time they did.
    exceeded: [Option<u32>; 2],
}

impl Windows {
    /// No offers yet. `stripped`, by the side that sends: the link takes window scale out of SYN segments.
    pub(crate) fn new(stripped: [bool; 2]) -> Self {
        Self {
            offers: stripped.map(|stripped| Offers {
                stripped,
                ..Offers::default()
            }),
            exceeded: [None; 2],
        }
    }

    /// `side` puts `frame` on the wire.
    pub(crate) fn note(&mut self, side: Side, frame: &[u8]) {
        let Some(view) = View::read(frame).filter(|view| !view.has(RST)) else {
            return;
        };
        let (own, other) = (side.index(), side.other().index());
        if view.has(SYN) {
            if self.offers[own].isn.replace(view.seq) != Some(view.seq) {
                self.offers[other].edge = None;
            }
            self.offers[own].shift = window_scale(view.options);
        }
        if view.has(ACK) {
            let shift = if view.has(SYN) { 0 } else { self.shift(side) };
            let edge = view.ack.wrapping_add(u32::from(view.window) << shift);
            let furthest = self.offers[own].edge.get_or_insert(edge);
            if is_after(edge, *furthest) {
                *furthest = edge;
            }
        }
        let end = view.seq.wrapping_add(view.length());
        if let Some(edge) = self.offers[other].edge
            && !view.has(SYN)
            && view.length() > 0
            && is_after(end, edge)
        {
            self.exceeded[own].get_or_insert(end.wrapping_sub(edge));
        }
    }

    /// The octets by which text and FIN of `side` went beyond the furthest edge offered to it, the first time they did.
    pub(crate) fn exceeded(&self, side: Side) -> Option<u32> {
        self.exceeded[side.index()]
    }

    /// The shift by which the other reads the windows of `side`: both have to have offered one.
    fn shift(&self, side: Side) -> u8 {
        let (own, other) = (&self.offers[side.index()], &self.offers[side.other().index()]);
        own.shift
            .filter(|_| other.shift.is_some() && !own.stripped)
            .unwrap_or(0)
    }
}

fn is_after(left: u32, right: u32) -> bool {
    left.wrapping_sub(right) as i32 > 0
}

fn window_scale(mut options: &[u8]) -> Option<u8> {
    loop {
        options = match *options {
            [WINDOW_SCALE, 3, shift, ..] => return Some(shift.min(14)),
            [1, ref rest @ ..] => rest,
            [0, ..] => return None,
            [_, length, ..] => options.get(usize::from(length).max(2)..)?,
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{Draft, Endpoint, FIN};

    fn frame(side: Side, seq: u32, ack: u32, flags: u8, window: u16, options: &[u8], text: &[u8]) -> Vec<u8> {
        let end = |side: Side| Endpoint {
            mac: [2, 0, 0, 0, 0, side.index() as u8],
            address: format!("198.18.0.{}:7", 1 + side.index()).parse().unwrap(),
        };
        Draft {
            from: end(side),
            to: end(side.other()),
            seq,
            ack,
            flags,
            window,
            options,
            text,
        }
        .frame()
    }

    /// After a handshake with these options, in which the server has offered 1000 octets from 101 on.
    fn after_handshake(stripped: bool, options: &[u8]) -> Windows {
        let mut windows = Windows::new([stripped; 2]);
        windows.note(Side::Client, &frame(Side::Client, 100, 0, SYN, 500, options, b""));
        let syn_ack = frame(Side::Server, 200, 101, SYN | ACK, 1000, options, b"");
        windows.note(Side::Server, &syn_ack);
        windows
    }

    #[test]
    fn text_is_within_the_window_up_to_its_edge() {
        for options in [&b""[..], b"\x02\x04\x05\xb4\x01\x03\x03\x07"] {
            let mut windows = after_handshake(false, options);
            let text = frame(Side::Client, 101, 201, ACK, 500, b"", &[1; 1000]);
            windows.note(Side::Client, &text);
            assert_eq!(windows.exceeded(Side::Client), None);
            windows.note(
                Side::Client,
                &frame(Side::Client, 1091, 201, ACK | FIN, 500, b"", &[1; 14]),
            );
            assert_eq!(windows.exceeded(Side::Client), Some(5));
            assert_eq!(windows.exceeded(Side::Server), None);
        }
    }

    #[test]
    fn windows_are_scaled_if_both_have_offered_it_and_it_was_not_stripped() {
        for (stripped, exceeded) in [(false, None), (true, Some(1))] {
            let mut windows = after_handshake(stripped, b"\x03\x03\x07\0");
            windows.note(Side::Server, &frame(Side::Server, 201, 1101, ACK, 1000, b"", b""));
            windows.note(Side::Client, &frame(Side::Client, 2100, 201, ACK, 500, b"", &[1; 2]));
            assert_eq!(windows.exceeded(Side::Client), exceeded);
        }
    }

    #[test]
    fn a_window_taken_back_is_no_fault_of_the_sender() {
        let mut windows = after_handshake(false, b"");
        windows.note(Side::Server, &frame(Side::Server, 201, 101, ACK, 0, b"", b""));
        windows.note(Side::Client, &frame(Side::Client, 101, 201, ACK, 500, b"", &[1; 1000]));
        assert_eq!(windows.exceeded(Side::Client), None);
    }
}
