//! The packets of a flood: addresses, ports and numbers at random, everything else as real hosts send it.
//!
//! A packet is a set of 32-bit words in host byte order, its first octet in the highest bits of the first word. All
//! indexes are constants and all loops are unrolled, for the sake of the BPF verifier.

use crate::{Flood, MIN_FRAME, Random, is_benchmark_v4, is_benchmark_v6, kind};

/// Octets of an Ethernet header.
pub const ETHERNET_HEADER: usize = 14;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;

/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// 32-bit words of an IPv4 header without options.
pub const IPV4_WORDS: usize = 5;

/// 32-bit words of an IPv6 header.
pub const IPV6_WORDS: usize = 10;

/// 32-bit words of the longest TCP header made: one with 24 octets of options.
pub const TRANSPORT_WORDS: usize = 11;

/// Octets of the longest IPv4 frame.
pub const MAX_FRAME_V4: usize = ETHERNET_HEADER + 4 * (IPV4_WORDS + TRANSPORT_WORDS);

/// Octets of the longest IPv6 frame.
pub const MAX_FRAME_V6: usize = ETHERNET_HEADER + 4 * (IPV6_WORDS + TRANSPORT_WORDS);

const TCP: u32 = 6;
const UDP: u32 = 17;
/// The fragment header of IPv6 (RFC 8200, section 4.5).
const IPV6_FRAGMENT: u32 = 44;

/// Octets of a TCP header without options.
const TCP_HEADER: u32 = 20;
/// Octets of a UDP datagram: its header and as much random content as there is room for.
const DATAGRAM: u32 = 4 * TRANSPORT_WORDS as u32;

/// Control bits (RFC 9293, section 3.1), in the word that also holds data offset and window.
const FIN: u32 = 0x01 << 16;
const SYN: u32 = 0x02 << 16;
const RST: u32 = 0x04 << 16;
const ACK: u32 = 0x10 << 16;
/// ECE and CWR: an offer of ECN (RFC 3168, section 6.1.1).
const ECN_SETUP: u32 = 0xc0 << 16;

/// The lowest source port, below which few systems choose one.
const FIRST_PORT: u32 = 1024;

/// The most routers a packet seems to have passed.
const MAX_HOPS: u32 = 31;

/// "Don't fragment" and "more fragments" (RFC 791, section 3.1).
const DONT_FRAGMENT: u32 = 0x4000;
const MORE_FRAGMENTS: u32 = 0x2000;

/// Octets of a fragment's contents, a multiple of 8: with an IPv6 fragment header no more than [`TRANSPORT_WORDS`].
const FRAGMENT: u32 = 32;

/// Octets by which an IPv6 header is longer than one of IPv4, and the MSS smaller.
const IPV6_MORE: u32 = 20;

/// A packet with an IP header of `IP` words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<const IP: usize> {
    /// The IP header.
    pub ip: [u32; IP],
    /// The segment or datagram, zeros behind its end.
    pub transport: [u32; TRANSPORT_WORDS],
    /// Octets of the frame, Ethernet header and padding included.
    pub frame_length: usize,
}

/// The next IPv4 packet of `flood`; `None` if its addresses would not be those of a benchmark.
#[inline(always)]
pub fn ipv4(flood: &Flood, random: &mut Random) -> Option<Packet<IPV4_WORDS>> {
    let [random_source, identification] = random.next_words();
    let [random_target, _] = random.next_words();
    let source = chosen(flood.source[0], flood.source_mask[0], random_source);
    let target = chosen(flood.target[0], flood.target_mask[0], random_target);
    if !is_benchmark_v4(source) || !is_benchmark_v4(target) {
        return None;
    }
    let mut transport = transport(flood, 0, random);
    transport.fill_checksum(u64::from(source) + u64::from(target));

    let total_length = 4 * IPV4_WORDS as u32 + transport.length;
    let mut ip = [
        0x4500_0000 | total_length,
        identification & 0xffff_0000 | transport.fragment,
        transport.hop_limit << 24 | transport.protocol << 16,
        source,
        target,
    ];
    let sum = u64::from(ip[0]) + u64::from(ip[1]) + u64::from(ip[2]) + u64::from(source) + u64::from(target);
    ip[2] |= u32::from(checksum(sum));
    let length = ETHERNET_HEADER + total_length as usize;
    Some(Packet {
        ip,
        transport: transport.words,
        frame_length: length.max(MIN_FRAME),
    })
}

/// The next IPv6 packet of `flood`; `None` if its addresses would not be those of a benchmark.
#[inline(always)]
pub fn ipv6(flood: &Flood, random: &mut Random) -> Option<Packet<IPV6_WORDS>> {
    let source = chosen_v6(&flood.source, &flood.source_mask, random);
    let target = chosen_v6(&flood.target, &flood.target_mask, random);
    if !is_benchmark_v6(&source) || !is_benchmark_v6(&target) {
        return None;
    }
    let [flow, identification] = random.next_words();
    let mut transport = transport(flood, IPV6_MORE, random);
    transport.fill_checksum(sum_of(&source) + sum_of(&target));
    if transport.fragment != DONT_FRAGMENT {
        transport.put_fragment_header(identification);
    }

    let length = ETHERNET_HEADER + 4 * IPV6_WORDS + transport.length as usize;
    let [e, f, g, h] = source;
    let [i, j, k, l] = target;
    Some(Packet {
        ip: [
            // Version, and a flow label.
            0x6000_0000 | flow >> 12,
            transport.length << 16 | transport.protocol << 8 | transport.hop_limit,
            e,
            f,
            g,
            h,
            i,
            j,
            k,
            l,
        ],
        transport: transport.words,
        frame_length: length.max(MIN_FRAME),
    })
}

/// The segment or datagram behind an IP header, and the fields of that header that depend on it.
struct Transport {
    words: [u32; TRANSPORT_WORDS],
    /// Octets that count.
    length: u32,
    protocol: u32,
    hop_limit: u32,
    /// The flags and the fragment offset of IPv4.
    fragment: u32,
}

impl Transport {
    /// Puts the fragment header of IPv6 in front.
    #[inline(always)]
    fn put_fragment_header(&mut self, identification: u32) {
        let [a, b, c, d, e, f, g, h, ..] = self.words;
        let offset = (self.fragment & !MORE_FRAGMENTS) << 3;
        let header = self.protocol << 24 | offset | u32::from(self.fragment & MORE_FRAGMENTS != 0);
        self.words = [header, identification, a, b, c, d, e, f, g, h, 0];
        self.length += 8;
        self.protocol = IPV6_FRAGMENT;
    }

    /// Puts the checksum where it belongs; `addresses` is the sum of both addresses. A fragment keeps what it has: the
    /// checksum would be that of a segment nobody ever has whole.
    #[inline(always)]
    fn fill_checksum(&mut self, addresses: u64) {
        if self.fragment != DONT_FRAGMENT {
            return;
        }
        let [a, b, c, d, e, f, g, h, i, j, k] = self.words;
        let sum = addresses
            + u64::from(self.protocol)
            + u64::from(self.length)
            + u64::from(a)
            + u64::from(b)
            + u64::from(c)
            + u64::from(d)
            + u64::from(e)
            + u64::from(f)
            + u64::from(g)
            + u64::from(h)
            + u64::from(i)
            + u64::from(j)
            + u64::from(k);
        let checksum = u32::from(checksum(sum));
        if self.protocol == TCP {
            self.words[4] = checksum << 16;
        } else {
            // Zero would say that there is none (RFC 768).
            self.words[1] |= if checksum == 0 { 0xffff } else { checksum };
        }
    }
}

/// The next segment or datagram, without its checksum. The MSS in it is `mss_less` below that of IPv4 over Ethernet.
#[inline(always)]
fn transport(flood: &Flood, mss_less: u32, random: &mut Random) -> Transport {
    let [sequence, acknowledgement] = random.next_words();
    let [stamp, echo] = random.next_words();
    let [choices, numbers] = random.next_words();

    let source_port = FIRST_PORT + (((numbers & 0xffff) * (0x1_0000 - FIRST_PORT)) >> 16);
    let ports = source_port << 16 | u32::from(flood.target_port);
    let window = numbers >> 16;
    let hops = choices >> 4 & MAX_HOPS;
    let with_timestamps = choices & 1 << 9 != 0;
    let kind = if flood.kind == kind::MIX {
        ((choices >> 16) * kind::COUNT) >> 16
    } else {
        flood.kind
    };

    if kind == kind::UDP {
        let content = [sequence, acknowledgement, stamp, echo, choices, numbers];
        return datagram(ports, content, hops);
    }
    if kind == kind::FRAGMENT {
        return fragment(ports, [sequence, acknowledgement, stamp, echo, choices, numbers], hops);
    }
    if kind == kind::SYN_DATA {
        let system = system(choices & 7, mss_less, stamp).with_text([echo, acknowledgement, numbers]);
        return opening(ports, sequence, None, system, hops);
    }
    if kind == kind::SYN || kind == kind::SYN_ACK {
        let acknowledged = if kind == kind::SYN_ACK {
            Some(acknowledgement)
        } else {
            None
        };
        return opening(
            ports,
            sequence,
            acknowledged,
            system(choices & 0xf, mss_less, stamp),
            hops,
        );
    }
    let (flags, acknowledgement, with_timestamps) = if kind == kind::RST {
        (RST, 0, false)
    } else if kind == kind::FIN {
        (FIN | ACK, acknowledgement, with_timestamps)
    } else {
        (ACK, acknowledgement, with_timestamps)
    };
    let (options_length, a, b, c) = if with_timestamps {
        (12, 0x0101_080a, stamp, echo)
    } else {
        (0, 0, 0, 0)
    };
    Transport {
        words: [
            ports,
            sequence,
            acknowledgement,
            data_offset(options_length) | flags | window,
            0,
            a,
            b,
            c,
            0,
            0,
            0,
        ],
        length: TCP_HEADER + options_length,
        protocol: TCP,
        hop_limit: 64 - hops,
        fragment: DONT_FRAGMENT,
    }
}

/// A fragment of a segment: the first, with the header of a SYN or of an ACK and some text, or one from within, or the
/// last.
#[inline(always)]
fn fragment(ports: u32, content: [u32; 6], hops: u32) -> Transport {
    let [a, b, c, d, choices, numbers] = content;
    let is_first = choices & 1 << 10 != 0;
    let (first, offset) = if is_first {
        (ports, 0)
    } else {
        // Behind any first one, and never past the end of a datagram.
        (a ^ numbers, FRAGMENT / 8 + (choices >> 16 & 0xfff))
    };
    let fourth = if is_first {
        let flags = if choices & 1 << 11 != 0 { SYN } else { ACK };
        data_offset(0) | flags | numbers >> 16
    } else {
        d ^ numbers
    };
    let more = if is_first || choices & 1 << 12 != 0 {
        MORE_FRAGMENTS
    } else {
        0
    };
    Transport {
        words: [first, a, b, fourth, c & 0xffff_0000, d, a ^ c, b ^ d, 0, 0, 0],
        length: FRAGMENT,
        protocol: TCP,
        hop_limit: 64 - hops,
        fragment: more | offset,
    }
}

/// A UDP datagram with random content.
#[inline(always)]
fn datagram(ports: u32, content: [u32; 6], hops: u32) -> Transport {
    let [a, b, c, d, e, f] = content;
    Transport {
        words: [ports, DATAGRAM << 16, a, b, c, d, e, f, a ^ c, b ^ d, e ^ c],
        length: DATAGRAM,
        protocol: UDP,
        hop_limit: 64 - hops,
        fragment: DONT_FRAGMENT,
    }
}

/// A SYN, or a SYN-ACK if it has acknowledged something.
#[inline(always)]
fn opening(ports: u32, sequence: u32, acknowledged: Option<u32>, system: System, hops: u32) -> Transport {
    let (acknowledgement, flags) = match acknowledged {
        Some(number) => (number, SYN | ACK),
        None => (0, SYN | system.ecn),
    };
    let [a, b, c, d, e, f] = system.options;
    Transport {
        words: [
            ports,
            sequence,
            acknowledgement,
            data_offset(system.options_length) | flags | system.window,
            0,
            a,
            b,
            c,
            d,
            e,
            f,
        ],
        length: TCP_HEADER + system.options_length + system.text_length,
        protocol: TCP,
        hop_limit: system.hop_limit - hops,
        fragment: DONT_FRAGMENT,
    }
}

/// The manner in which a system opens a connection.
struct System {
    /// The options, and the text behind them.
    options: [u32; 6],
    /// Octets of options.
    options_length: u32,
    /// Octets of text.
    text_length: u32,
    window: u32,
    hop_limit: u32,
    /// The control bits of its SYN beside SYN.
    ecn: u32,
}

impl System {
    /// The same with text, as much as there is room for behind its options, of which there are 12 or 20 octets.
    #[inline(always)]
    const fn with_text(mut self, text: [u32; 3]) -> Self {
        let [a, b, c, d, e, _] = self.options;
        let [f, g, h] = text;
        if self.options_length == 12 {
            self.options = [a, b, c, f, g, h];
            self.text_length = 12;
        } else {
            self.options = [a, b, c, d, e, f];
            self.text_length = 4;
        }
        self
    }
}

/// One of the systems that are common on the Internet, each as often as its share of the 16 values of `choice`.
#[inline(always)]
fn system(choice: u32, mss_less: u32, stamp: u32) -> System {
    match choice {
        // Linux: MSS, SACK permitted, timestamps, no operation, window scale 7.
        0..=4 => System {
            options: [mss(1460 - mss_less), 0x0402_080a, stamp, 0, 0x0103_0307, 0],
            options_length: 20,
            text_length: 0,
            window: 64_240,
            hop_limit: 64,
            ecn: 0,
        },
        // Windows: MSS, no operation, window scale 8, two of no operation, SACK permitted.
        5..=9 => System {
            options: [mss(1460 - mss_less), 0x0103_0308, 0x0101_0402, 0, 0, 0],
            options_length: 12,
            text_length: 0,
            window: 64_240,
            hop_limit: 128,
            ecn: 0,
        },
        // macOS: MSS, no operation, window scale 6, two of no operation, timestamps, SACK permitted, end of list.
        10..=12 => System {
            options: [mss(1460 - mss_less), 0x0103_0306, 0x0101_080a, stamp, 0, 0x0402_0000],
            options_length: 24,
            text_length: 0,
            window: 65_535,
            hop_limit: 64,
            ecn: ECN_SETUP,
        },
        // Android behind a mobile network: as Linux, with a smaller MSS and window scale 9.
        13..=14 => System {
            options: [mss(1400 - mss_less), 0x0402_080a, stamp, 0, 0x0103_0309, 0],
            options_length: 20,
            text_length: 0,
            window: 65_535,
            hop_limit: 64,
            ecn: 0,
        },
        // Embedded or old: MSS alone.
        _ => System {
            options: [mss(1460 - mss_less), 0, 0, 0, 0, 0],
            options_length: 4,
            text_length: 0,
            window: 5_840,
            hop_limit: 255,
            ecn: 0,
        },
    }
}

/// The maximum segment size option (RFC 9293, section 3.7.1).
#[inline(always)]
const fn mss(octets: u32) -> u32 {
    0x0204_0000 | octets
}

/// The data offset of a TCP header with `options_length` octets of options.
#[inline(always)]
const fn data_offset(options_length: u32) -> u32 {
    ((TCP_HEADER + options_length) / 4) << 28
}

/// A word of an address: the prefix where the mask says so, else at random.
#[inline(always)]
const fn chosen(prefix: u32, mask: u32, random: u32) -> u32 {
    prefix & mask | random & !mask
}

/// An IPv6 address within a prefix.
#[inline(always)]
const fn chosen_v6(prefix: &[u32; 4], mask: &[u32; 4], random: &mut Random) -> [u32; 4] {
    let [a, b] = random.next_words();
    let [c, d] = random.next_words();
    [
        chosen(prefix[0], mask[0], a),
        chosen(prefix[1], mask[1], b),
        chosen(prefix[2], mask[2], c),
        chosen(prefix[3], mask[3], d),
    ]
}

#[inline(always)]
fn sum_of(&[a, b, c, d]: &[u32; 4]) -> u64 {
    u64::from(a) + u64::from(b) + u64::from(c) + u64::from(d)
}

/// The Internet checksum (RFC 1071) of what was summed up as 32-bit words.
#[inline(always)]
const fn checksum(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    !(sum as u16)
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
