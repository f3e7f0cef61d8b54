//! The SYN-ACK that a SYN has to be answered with.

use std::fmt::Display;
use std::net::IpAddr;

use etherparse::{Ipv4Header, Ipv6FlowLabel, Ipv6Header, TcpHeader, TcpOptionElement, TcpOptionsIterator, ip_number};
use tidegate_abi::XdpCounter;
use tidegate_abi::siphash::Key;
use tidegate_abi::syn_ack::{SynAck, cookie_switch};
use tidegate_abi::syn_cookie::{self, Accepted, Addresses, Handshake, MSS_V4, MSS_V6, NO_WINDOW_SCALE, Options};

use super::offer::Offer;
use crate::frames::segment::Segment;
use crate::frames::{SERVER_V4, SERVER_V6, ip_offset};
use crate::program::Program;

/// The keys of both key ids.
pub(crate) const KEYS: [Key; 2] = [
    Key(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908),
    Key(0x1716_1514_1312_1110, 0x1f1e_1d1c_1b1a_1918),
];

/// The part of all SYN-ACKs that is the same: values that no SYN here carries.
pub(crate) const TEMPLATE: SynAck = SynAck {
    window: 29_185,
    mss_v4: 1452,
    mss_v6: 1432,
    window_shift: 9,
    ecn: 1,
    ms_per_jiffy: SynAck::per_jiffy(4_000_000),
};

/// The hop limit of what the engine sends.
const HOP_LIMIT: u8 = 64;

/// MSS of a peer that sends none (RFC 9293, section 3.7.1).
const DEFAULT_MSS_V4: u16 = 536;
const DEFAULT_MSS_V6: u16 = 1220;

/// A SYN-ACK that was found to be right.
pub(crate) struct Answer {
    /// The handshake it belongs to.
    pub(crate) handshake: Handshake,
    /// Its ISN.
    pub(crate) isn: u32,
    /// Its TSval.
    pub(crate) timestamp: Option<u32>,
    /// The options that its cookie remembers.
    pub(crate) options: Options,
}

/// [`expect_answer_by`] a switch that is on with key id 0.
#[track_caller]
pub(crate) fn expect_answer(
    program: &Program,
    frame: &[u8],
    syn: &Segment,
    offer: &Offer,
    what: impl Display,
) -> Answer {
    expect_answer_by(cookie_switch::on(0), program, frame, syn, offer, what)
}

/// Fails the test unless the program, whose switch is `switch`, answers `frame`, which brings `syn` and offers `offer`,
/// by the SYN-ACK that it has to be, whose cookie is genuine. `what` is what is special about it.
#[track_caller]
pub(crate) fn expect_answer_by(
    switch: u32,
    program: &Program,
    frame: &[u8],
    syn: &Segment,
    offer: &Offer,
    what: impl Display,
) -> Answer {
    let is_strong = cookie_switch::is_strong(switch) && offer.timestamp.is_none();
    let offer = if is_strong { &offer.only_mss() } else { offer };
    let (reason, sent) = program.verdict(frame);
    assert_eq!(reason, XdpCounter::TxSynCookie, "{what}");
    assert_eq!(
        sent.len(),
        frame.len() - syn.text.len(),
        "{what}: the text is cut off, and nothing else"
    );
    let ip = ip_offset(frame);
    assert_eq!(sent[..6], frame[6..12], "{what}: Ethernet destination");
    assert_eq!(sent[6..12], frame[..6], "{what}: Ethernet source");
    assert_eq!(sent[12..ip], frame[12..ip], "{what}: VLAN tags and ethertype");

    let segment = segment_of(&sent[ip..], syn, &what);
    assert_eq!(segment[12] & 0x0f, 0, "{what}: reserved bits");
    let (tcp, text) = TcpHeader::from_slice(segment).expect("a whole TCP header");
    assert!(text.is_empty(), "{what}: text");
    assert_eq!(tcp, header_of(&tcp, syn, offer), "{what}: the TCP header");

    let answered = Answered::read(tcp.options.as_slice(), &what);
    answered.expect(syn.source, offer, &what);

    let timestamp = answered.timestamp.map(|(value, _)| value);
    let handshake = Handshake {
        addresses: match syn.source {
            IpAddr::V4(client) => Addresses::v4(client.octets(), SERVER_V4),
            IpAddr::V6(client) => Addresses::v6(client.octets(), SERVER_V6),
        },
        client_port: syn.source_port,
        server_port: syn.destination_port,
        client_isn: syn.sequence_number,
        timestamps: timestamp.is_some(),
    };
    let isn = tcp.sequence_number;
    let key_id = syn_cookie::key_id(isn);
    assert_eq!(key_id, cookie_switch::key_id(switch), "{what}: the key");
    let check = |accepted| syn_cookie::check(KEYS[key_id as usize], &handshake, isn, timestamp, accepted);
    let Some(checked) = check(Accepted::All) else {
        panic!("{what}: the cookie {isn:#010x} is not genuine");
    };
    assert_eq!(
        check(Accepted::Strong).is_some(),
        is_strong || timestamp.is_some(),
        "{what}: whether it is a strong one"
    );
    let mut remembered = options_of(syn.source, offer);
    if is_strong {
        remembered.mss_index &= !1;
    }
    assert_eq!(checked.options, remembered, "{what}: the cookie");
    Answer {
        handshake,
        isn,
        timestamp,
        options: checked.options,
    }
}

/// The segment in `packet`, whose IP header has to be right.
#[track_caller]
fn segment_of<'a>(packet: &'a [u8], syn: &Segment, what: &impl Display) -> &'a [u8] {
    let length = syn.header_length();
    let rest = match syn.source {
        IpAddr::V4(client) => {
            let (header, rest) = Ipv4Header::from_slice(packet).expect("an IPv4 header");
            let mut expected = Ipv4Header::new(length as u16, HOP_LIMIT, ip_number::TCP, SERVER_V4, client.octets())
                .expect("a header is no long packet");
            expected.dont_fragment = true;
            expected.header_checksum = expected.calc_header_checksum();
            assert_eq!(header, expected, "{what}: the IPv4 header");
            rest
        }
        IpAddr::V6(client) => {
            let (header, rest) = Ipv6Header::from_slice(packet).expect("an IPv6 header");
            let expected = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: length as u16,
                next_header: ip_number::TCP,
                hop_limit: HOP_LIMIT,
                source: SERVER_V6,
                destination: client.octets(),
            };
            assert_eq!(header, expected, "{what}: the IPv6 header");
            rest
        }
    };
    &rest[..length]
}

/// The SYN-ACK that `answer` has to be, given its ISN and options.
fn header_of(answer: &TcpHeader, syn: &Segment, offer: &Offer) -> TcpHeader {
    let mut header = TcpHeader::new(
        syn.destination_port,
        syn.source_port,
        answer.sequence_number,
        TEMPLATE.window,
    );
    header.acknowledgment_number = syn.sequence_number.wrapping_add(1);
    header.syn = true;
    header.ack = true;
    header.ece = offer.ecn;
    header.options = answer.options.clone();
    header.checksum = match syn.source {
        IpAddr::V4(client) => header.calc_checksum_ipv4_raw(SERVER_V4, client.octets(), &[]),
        IpAddr::V6(client) => header.calc_checksum_ipv6_raw(SERVER_V6, client.octets(), &[]),
    }
    .expect("no text is not too long");
    header
}

/// The options of a SYN-ACK.
#[derive(Debug, Default)]
struct Answered {
    mss: Option<u16>,
    window_scale: Option<u8>,
    sack_permitted: bool,
    /// TSval and TSecr.
    timestamp: Option<(u32, u32)>,
    /// Octets behind the options.
    left: usize,
}

impl Answered {
    #[track_caller]
    fn read(options: &[u8], what: &impl Display) -> Self {
        let mut answered = Self::default();
        let mut length = 0;
        for option in TcpOptionsIterator::from_slice(options) {
            let fresh = match option.expect("a whole option") {
                TcpOptionElement::Noop => {
                    length += 1;
                    true
                }
                TcpOptionElement::MaximumSegmentSize(mss) => {
                    length += 4;
                    answered.mss.replace(mss).is_none()
                }
                TcpOptionElement::WindowScale(shift) => {
                    length += 3;
                    answered.window_scale.replace(shift).is_none()
                }
                TcpOptionElement::SelectiveAcknowledgementPermitted => {
                    length += 2;
                    !std::mem::replace(&mut answered.sack_permitted, true)
                }
                TcpOptionElement::Timestamp(value, echo) => {
                    length += 10;
                    answered.timestamp.replace((value, echo)).is_none()
                }
                TcpOptionElement::SelectiveAcknowledgement(..) => panic!("{what}: SACK blocks in a SYN-ACK"),
            };
            assert!(fresh, "{what}: an option is there twice: {options:x?}");
        }
        answered.left = options.len() - length;
        assert_eq!(
            options[length..],
            [0; 40][..answered.left],
            "{what}: behind the options"
        );
        answered
    }

    /// Fails the test unless these options answer `offer`: each one that is there, and no other.
    #[track_caller]
    fn expect(&self, client: IpAddr, offer: &Offer, what: &impl Display) {
        let mss = match client {
            IpAddr::V4(_) => TEMPLATE.mss_v4,
            IpAddr::V6(_) => TEMPLATE.mss_v6,
        };
        match (offer.mss, self.mss) {
            // Without it the client takes a default that may be far too small, so it is told where there is room.
            (None, None) => assert!(self.left < 4, "{what}: there is room for an MSS: {self:?}"),
            (_, answered) => assert_eq!(answered, Some(mss), "{what}: MSS"),
        }
        let shift = offer.window_scale.map(|_| TEMPLATE.window_shift);
        assert_eq!(self.window_scale, shift, "{what}: window scale");
        assert_eq!(self.sack_permitted, offer.sack_permitted, "{what}: SACK-permitted");
        let echo = self.timestamp.map(|(_, echo)| echo);
        assert_eq!(echo, offer.timestamp, "{what}: TSecr");
    }
}

/// The part of an offer that a cookie has to remember.
fn options_of(client: IpAddr, offer: &Offer) -> Options {
    let (table, default) = match client {
        IpAddr::V4(_) => (MSS_V4, DEFAULT_MSS_V4),
        IpAddr::V6(_) => (MSS_V6, DEFAULT_MSS_V6),
    };
    let mss = offer.mss.unwrap_or(default);
    Options {
        mss_index: table.iter().rposition(|&entry| entry <= mss).unwrap_or(0) as u8,
        window_scale: offer.window_scale.unwrap_or(NO_WINDOW_SCALE),
        sack_permitted: offer.sack_permitted,
        ecn: offer.ecn,
    }
}
