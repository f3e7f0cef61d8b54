//! Filters of captures: a subset of `pcap-filter(7)`, parsed once and then asked for each frame.
//!
//! ```
//! use tidegate_capture::{Direction, Filter};
//!
//! let filter: Filter = "tcp port 80 and not src net 198.18.0.0/24".parse()?;
//! assert!(!filter.matches(&[0; 60], 60, Direction::Received));
//! let error = "tcp prot 80".parse::<Filter>().unwrap_err();
//! assert_eq!(error.column, 5);
//! # Ok::<(), tidegate_capture::FilterError>(())
//! ```

mod parse;

use core::fmt;
use core::ops::RangeInclusive;
use core::str::FromStr;

use ipnet::IpNet;

use crate::packet::{Packet, Prefix, TCP};
use crate::ring::Direction;

/// Octets that an expression may have.
pub const MAX_EXPRESSION: usize = 1024;

/// A compiled expression. The default one matches every frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    root: Option<Node>,
}

/// An expression that is no filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    /// The column of what is at fault, from 1.
    pub column: usize,
    /// The fault.
    pub what: String,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "filter, column {}: {}", self.column, self.what)
    }
}

impl core::error::Error for FilterError {}

impl FromStr for Filter {
    type Err = FilterError;

    /// Parses an expression; an empty one matches every frame.
    ///
    /// # Errors
    ///
    /// The first fault, with its column.
    fn from_str(text: &str) -> Result<Self, FilterError> {
        parse::parse(text).map(|root| Self { root })
    }
}

impl Filter {
    /// The TCP segments from and to an address, or all those of a prefix, on one port of theirs if one is given.
    pub fn of_peer(peer: IpNet, port: Option<u16>) -> Self {
        let end = |end: End| {
            let mut all = vec![Node::Net(end, peer.into())];
            all.extend(port.map(|port| Node::Ports(end, None, port..=port)));
            Node::chain(Operator::And, all)
        };
        // The peer is where it comes from, or where it goes to.
        let received = Node::chain(
            Operator::And,
            vec![Node::Direction(Direction::Received), end(End::Source)],
        );
        let sent = Node::chain(
            Operator::And,
            vec![Node::Direction(Direction::Sent), end(End::Destination)],
        );
        Self {
            root: Some(Node::chain(Operator::Or, vec![received, sent])),
        }
    }

    /// Whether a frame of `length` octets matches, of which `octets`, from its Ethernet header on, are there.
    pub fn matches(&self, octets: &[u8], length: usize, direction: Direction) -> bool {
        self.root.as_ref().is_none_or(|root| {
            root.matches(&Candidate {
                packet: Packet::of(octets),
                direction,
                length,
            })
        })
    }
}

/// A frame that may match.
struct Candidate<'a> {
    packet: Option<Packet<'a>>,
    direction: Direction,
    length: usize,
}

/// The ends of a packet that a primitive is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Source,
    Destination,
    Either,
    Both,
}

impl End {
    fn any(self, source: bool, destination: bool) -> bool {
        match self {
            Self::Source => source,
            Self::Destination => destination,
            Self::Either => source || destination,
            Self::Both => source && destination,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    And,
    Or,
}

/// One step of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Net(End, Prefix),
    /// Of this protocol, or of TCP or UDP.
    Ports(End, Option<u8>, RangeInclusive<u16>),
    Protocol(u8),
    /// IP of this version.
    Version(u8),
    /// Whether the control bits of `mask` are `value`.
    Flags {
        mask: u8,
        value: u8,
        equal: bool,
    },
    Direction(Direction),
    /// Octets of a frame.
    Length(RangeInclusive<usize>),
    Not(Box<Node>),
    /// From left to right, as `and` and `or` bind equally.
    Chain(Box<Node>, Vec<(Operator, Node)>),
}

impl Node {
    /// `nodes`, of which there is one at least, joined by `operator`.
    fn chain(operator: Operator, nodes: Vec<Node>) -> Self {
        let mut nodes = nodes.into_iter();
        let first = nodes.next().unwrap_or(Self::Length(0..=usize::MAX));
        let rest: Vec<_> = nodes.map(|node| (operator, node)).collect();
        if rest.is_empty() {
            first
        } else {
            Self::Chain(Box::new(first), rest)
        }
    }

    fn matches(&self, candidate: &Candidate<'_>) -> bool {
        let packet = candidate.packet.as_ref();
        match self {
            Self::Net(end, prefix) => packet.is_some_and(|packet| {
                let (source, destination) = packet.ends_in(prefix);
                end.any(source, destination)
            }),
            Self::Ports(end, protocol, ports) => packet
                .map(Packet::payload)
                .filter(|payload| protocol.is_none_or(|protocol| payload.protocol == protocol))
                .and_then(|payload| payload.ports())
                .is_some_and(|(source, destination)| end.any(ports.contains(&source), ports.contains(&destination))),
            Self::Protocol(protocol) => packet.is_some_and(|packet| packet.payload().protocol == *protocol),
            Self::Version(version) => packet.is_some_and(|packet| packet.is_ipv4() == (*version == 4)),
            Self::Flags { mask, value, equal } => packet
                .and_then(Packet::tcp)
                .is_some_and(|tcp| (tcp.flags & mask == *value) == *equal),
            Self::Direction(direction) => candidate.direction == *direction,
            Self::Length(range) => range.contains(&candidate.length),
            Self::Not(node) => !node.matches(candidate),
            Self::Chain(first, rest) => {
                rest.iter()
                    .fold(first.matches(candidate), |so_far, (operator, node)| match operator {
                        Operator::And => so_far && node.matches(candidate),
                        Operator::Or => so_far || node.matches(candidate),
                    })
            }
        }
    }

    /// TCP, and `self`.
    fn of_tcp(self) -> Self {
        Self::chain(Operator::And, vec![Self::Protocol(TCP), self])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::frame;

    fn matches(expression: &str, direction: Direction) -> bool {
        let filter: Filter = expression
            .parse()
            .unwrap_or_else(|error| panic!("{expression}: {error}"));
        filter.matches(&frame(b"text"), 58, direction)
    }

    /// Of a segment of 198.18.0.1:40000 to 198.18.0.2:80 that acknowledges.
    #[test]
    fn expressions_match_as_tcpdumps_do() {
        for (expression, expected) in [
            ("", true),
            ("tcp", true),
            ("ip", true),
            ("ip6", false),
            ("udp", false),
            ("icmp or icmp6", false),
            ("host 198.18.0.1", true),
            ("src host 198.18.0.2", false),
            ("dst 198.18.0.2", true),
            ("src and dst net 198.18.0.0/24", true),
            ("src or dst host 198.18.0.9", false),
            ("net 198.18.0.0/31", true),
            ("src net 198.18.0.0/32", false),
            ("net 2001:2::/48", false),
            ("port 80", true),
            ("src port 80", false),
            ("port http", true),
            ("tcp dst port 80", true),
            ("udp port 80", false),
            ("ip6 host 198.18.0.1 or tcp", true),
            ("portrange 1-100", true),
            ("dst portrange 81-100", false),
            ("port 22 or 80", true),
            ("host 198.18.0.7 or 198.18.0.2", true),
            ("not port 80", false),
            ("! port 80 || tcp", true),
            // Both bind equally, from left to right.
            ("tcp or udp and icmp", false),
            ("tcp or (udp and icmp)", true),
            ("not (udp or icmp) and port 80", true),
            ("tcp[tcpflags] & tcp-ack != 0", true),
            ("tcp[tcpflags] & (tcp-syn|tcp-fin|tcp-rst) != 0", false),
            ("tcp[13] = 0x10", true),
            ("tcp[tcpflags] == tcp-syn|tcp-ack", false),
            ("greater 58", true),
            ("greater 59", false),
            ("less 58 and less 60", true),
            ("inbound", true),
            ("outbound", false),
            ("ip proto 6", true),
            ("proto tcp", true),
        ] {
            assert_eq!(matches(expression, Direction::Received), expected, "{expression}");
        }
        assert!(matches("outbound and port 80", Direction::Sent));
    }

    /// The frame is a segment from 2001:2::1 to 2001:2:0:1::2.
    #[test]
    fn prefixes_of_one_family_hold_no_address_of_the_other() {
        let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv6(
                "2001:2::1".parse::<std::net::Ipv6Addr>().expect("an address").octets(),
                "2001:2:0:1::2"
                    .parse::<std::net::Ipv6Addr>()
                    .expect("an address")
                    .octets(),
                64,
            )
            .tcp(40_000, 80, 1000, 2000);
        let mut frame = Vec::new();
        builder.write(&mut frame, b"").expect("a frame");
        for (expression, expected) in [
            ("ip6", true),
            ("ip", false),
            ("src net 2001:2::/64", true),
            ("dst net 2001:2::/64", false),
            ("src and dst net 2001:2::/48", true),
            ("dst net 2001:2:0:1::2/127", true),
            ("host 2001:2:0:1::2", true),
            ("host 2001:2:0:1::3", false),
            ("net ::/0", true),
            ("net 0.0.0.0/0", false),
            ("tcp dst port 80", true),
        ] {
            let filter: Filter = expression.parse().expect("a filter");
            assert_eq!(
                filter.matches(&frame, frame.len(), Direction::Received),
                expected,
                "{expression}"
            );
        }
        assert!(!matches("net ::/0", Direction::Received));
        assert!(matches("net 0.0.0.0/0", Direction::Received));
    }

    #[test]
    fn a_fault_is_told_with_its_column() {
        for (expression, column, phrase) in [
            ("tcp prot 80", 5, "\"prot\""),
            ("host", 5, "an address"),
            ("host 1.2.3", 6, "\"1.2.3\" is no address"),
            ("tcp and", 8, "ends"),
            ("(tcp or udp", 12, "\")\""),
            ("tcp)", 4, "\")\""),
            ("port 65536", 6, "65536"),
            ("portrange 9-1", 11, "9-1"),
            ("net 10.0.0.1/8", 5, "10.0.0.0/8"),
            ("net 10.0.0.0/33", 5, "10.0.0.0/33"),
            ("tcp[12] & 1 != 0", 5, "tcpflags"),
            ("tcp[tcpflags] & tcp-sny != 0", 17, "tcp-sny"),
            ("tcp[tcpflags] < 1", 15, "\"<\""),
            ("vlan 5", 1, "\"vlan\""),
            ("80", 1, "\"80\""),
            ("tcp # udp", 5, "\"#\""),
        ] {
            let error = expression.parse::<Filter>().expect_err(expression);
            assert_eq!(error.column, column, "{expression}: {error}");
            assert!(error.what.contains(phrase), "{expression}: {error}");
        }
        let deep = format!("{}tcp{}", "(".repeat(100), ")".repeat(100));
        assert!(deep.parse::<Filter>().is_err());
        assert!("tcp or ".repeat(200).parse::<Filter>().is_err());
    }

    #[test]
    fn a_peer_is_the_one_at_the_other_end() {
        let of = |peer: &str, port| Filter::of_peer(peer.parse().expect("a prefix"), port);
        let frame = frame(b"");
        for (filter, received, sent) in [
            (of("198.18.0.1/32", None), true, false),
            (of("198.18.0.2/32", None), false, true),
            (of("198.18.0.0/24", None), true, true),
            (of("198.18.0.1/32", Some(40_000)), true, false),
            (of("198.18.0.1/32", Some(80)), false, false),
            (of("198.18.0.2/32", Some(80)), false, true),
        ] {
            assert_eq!(
                filter.matches(&frame, frame.len(), Direction::Received),
                received,
                "{filter:?}"
            );
            assert_eq!(filter.matches(&frame, frame.len(), Direction::Sent), sent, "{filter:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_expression_and_no_frame_makes_it_panic(expression in "[a-z0-9 ()|&!\\[\\].:/=-]{0,40}", frame: Vec<u8>) {
            if let Ok(filter) = expression.parse::<Filter>() {
                filter.matches(&frame, frame.len(), Direction::Received);
            }
        }
    }
}
