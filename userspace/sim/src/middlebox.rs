//! Changes that routers and middleboxes make to frames on purpose, and one that none should.

use tidegate_random::Random;

use crate::segment::{self, ETHERNET_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, SYN, View};

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const TIMESTAMPS: u8 = 8;

/// A box on the way that takes options out of SYN segments, as some firewalls do. Whatever two peers offer each other,
/// every combination of options comes about this way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Middlebox {
    /// Takes out timestamps.
    pub strip_timestamps: bool,
    /// Takes out SACK-permitted.
    pub strip_sack_permitted: bool,
    /// Takes out window scale.
    pub strip_window_scale: bool,
    /// Lowers the MSS to this many bytes.
    pub clamp_mss: Option<u16>,
}

impl Middlebox {
    fn strips(&self, kind: u8) -> bool {
        match kind {
            TIMESTAMPS => self.strip_timestamps,
            SACK_PERMITTED => self.strip_sack_permitted,
            WINDOW_SCALE => self.strip_window_scale,
            _ => false,
        }
    }

    /// Lets `frame` pass, changed if it is a SYN.
    pub fn process(&self, frame: &mut [u8]) {
        if *self == Self::default() {
            return;
        }
        let Some(layout) = View::read(frame).filter(|view| view.has(SYN)).map(|view| view.layout) else {
            return;
        };
        let options = &mut frame[layout.options..layout.text];
        let mut at = 0;
        let mut changed = false;
        while at < options.len() && options[at] != END {
            if options[at] == NOP {
                at += 1;
                continue;
            }
            let length = options.get(at + 1).map_or(0, |&length| usize::from(length));
            let Some(option) = options.get_mut(at..at + length).filter(|option| option.len() >= 2) else {
                break;
            };
            if self.strips(option[0]) {
                option.fill(NOP);
                changed = true;
            } else if let (&[MSS, 4, high, low], Some(clamp)) = (&*option, self.clamp_mss)
                && u16::from_be_bytes([high, low]) > clamp
            {
                option[2..4].copy_from_slice(&clamp.to_be_bytes());
                changed = true;
            }
            at += length;
        }
        if changed {
            segment::repair_tcp_checksum(frame);
        }
    }
}

/// Marks a packet of an ECN-capable transport as having met congestion (RFC 3168, section 5); false when it is none.
pub fn mark_congestion(frame: &mut [u8]) -> bool {
    let Some(&[high, low]) = frame.get(12..).and_then(|rest| rest.first_chunk::<2>()) else {
        return false;
    };
    if frame.len() < ETHERNET_HEADER + 20 {
        return false;
    }
    match u16::from_be_bytes([high, low]) {
        ETHERTYPE_IPV4 if matches!(frame[15] & 3, 1 | 2) => {
            frame[15] |= 3;
            segment::repair_ipv4_checksum(frame);
            true
        }
        // The traffic class stands across the first two bytes.
        ETHERTYPE_IPV6 if matches!((frame[15] >> 4) & 3, 1 | 2) => {
            frame[15] |= 0x30;
            true
        }
        _ => false,
    }
}

/// Changes one byte of text and makes the checksum right again; false when there is no text. No end can notice this, so
/// it shows whether the checks of a simulation do.
pub fn tamper(frame: &mut [u8], random: &mut Random) -> bool {
    let Some(layout) = View::read(frame)
        .filter(|view| !view.text.is_empty())
        .map(|view| view.layout)
    else {
        return false;
    };
    let at = random.between(layout.text as u64, layout.end as u64 - 1) as usize;
    frame[at] ^= random.between(1, 255) as u8;
    segment::repair_tcp_checksum(frame);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{ACK, Draft, Endpoint};
    use tidegate_tcp::wire::Segment;

    /// MSS 1460, SACK-permitted, timestamps, window scale 7.
    const OPTIONS: &[u8] = b"\x02\x04\x05\xb4\x04\x02\x08\x0a\0\0\0\x01\0\0\0\x02\x01\x03\x03\x07";

    fn frame(flags: u8, options: &[u8], text: &[u8]) -> Vec<u8> {
        let end = |number, address: &str| Endpoint {
            mac: [2, 0, 0, 0, 0, number],
            address: address.parse().unwrap(),
        };
        Draft {
            from: end(2, "198.18.0.2:40000"),
            to: end(1, "198.18.0.1:7"),
            seq: 1,
            ack: 2,
            flags,
            window: 3,
            options,
            text,
        }
        .frame()
    }

    #[test]
    fn a_syn_loses_the_options_and_nothing_else() {
        let middlebox = Middlebox {
            strip_timestamps: true,
            strip_window_scale: true,
            clamp_mss: Some(88),
            ..Middlebox::default()
        };
        let mut syn = frame(SYN, OPTIONS, b"");
        middlebox.process(&mut syn);
        let options = Segment::parse(&syn, true).unwrap().options;
        assert_eq!(options.mss, Some(88));
        assert!(options.sack_permitted && options.timestamps.is_none() && options.window_scale.is_none());

        let mut other = frame(ACK, OPTIONS, b"x");
        let before = other.clone();
        middlebox.process(&mut other);
        assert_eq!(other, before);
    }

    #[test]
    fn malformed_options_are_left_alone() {
        let middlebox = Middlebox {
            strip_timestamps: true,
            ..Middlebox::default()
        };
        for options in [
            &[TIMESTAMPS, 0, 1, 1][..],
            &[TIMESTAMPS, 1, 1, 1],
            &[TIMESTAMPS, 9, 1, 1],
        ] {
            let mut syn = frame(SYN, options, b"");
            let before = syn.clone();
            middlebox.process(&mut syn);
            assert_eq!(syn, before);
        }
    }

    #[test]
    fn only_capable_packets_are_marked() {
        let mut packet = frame(ACK, &[], b"x");
        assert!(!mark_congestion(&mut packet));
        packet[15] |= 2;
        segment::repair_ipv4_checksum(&mut packet);
        assert!(mark_congestion(&mut packet));
        assert_eq!(packet[15] & 3, 3);
        assert!(Segment::parse(&packet, true).is_ok());
        assert!(!mark_congestion(&mut packet), "marked already");
    }

    #[test]
    fn what_is_tampered_with_looks_right() {
        let mut random = Random::new(1);
        let before = frame(ACK, &[], b"some text");
        let mut after = before.clone();
        assert!(tamper(&mut after, &mut random));
        assert_ne!(after, before);
        assert_eq!(Segment::parse(&after, true).unwrap().payload.len(), 9);
        assert!(!tamper(&mut frame(ACK, &[], b""), &mut random));
    }
}
