//! A SYN becomes the SYN-ACK that answers it, with a cookie for a sequence number, and goes back where it came from.
//!
//! Nothing is kept and nothing is longer than it came: an option is only answered if it was there, and with its
//! padding to a multiple of 4 octets the answer's options take no more room than the same options of the SYN.

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_DROP, XDP_TX},
        xdp_md,
    },
    helpers::{bpf_jiffies64, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use tidegate_abi::XdpCounter;
use tidegate_abi::siphash::Key;
use tidegate_abi::syn_ack::{SynAck, cookie_switch};
use tidegate_abi::syn_cookie::{
    self, Addresses, Content, Cookie, Handshake, MSS_V4, MSS_V6, NO_WINDOW_SCALE, Options, mss_index,
};

use crate::frame::{Frame, WordCursor, Words};
use crate::headers::{IPV4_HEADER, IPV6_HEADER, TCP_HEADER, protocol};
use crate::maps::{COOKIE_KEYS, COOKIE_SWITCHES, SETTINGS};
use crate::parse::Segment;
use crate::scratch::Scratch;
use crate::syn_options::Offer;
use crate::{capture, flow_filter, sources};

/// MSS of a peer that sends none (RFC 9293, section 3.7.1).
const DEFAULT_MSS_V4: u16 = 536;
const DEFAULT_MSS_V6: u16 = 1220;

/// Hop limit and time to live of what is sent, as the engine's.
const HOP_LIMIT: u8 = 64;

/// Control bits (RFC 9293, section 3.1), in the word that also holds data offset and window.
const SYN_AND_ACK: u32 = 0x12 << 16;
const ECE_BIT: u32 = 0x40 << 16;
/// ECE and CWR: a client that does ECN asks with both (RFC 3168, section 6.1.1).
const ECN_SETUP: u8 = 0xc0;

/// Lengths of the IP headers in 32-bit words, and with the TCP header behind them.
const IPV4_WORDS: usize = IPV4_HEADER / 4;
const IPV6_WORDS: usize = IPV6_HEADER / 4;
const V4_WORDS: usize = IPV4_WORDS + TCP_HEADER / 4;
const V6_WORDS: usize = IPV6_WORDS + TCP_HEADER / 4;

/// The most 32-bit words of options (RFC 9293, section 3.1).
const MAX_OPTION_WORDS: usize = 10;

/// Answers a SYN if cookies are on for `queue` and no engine may know its flow: the verdict, and what to count.
#[inline(always)]
pub fn answer(frame: Frame<'_>, segment: &Segment, version: u8, queue: u32) -> Option<(u32, XdpCounter)> {
    let switch = COOKIE_SWITCHES.get(queue).copied().unwrap_or(cookie_switch::OFF);
    if switch == cookie_switch::OFF {
        return None;
    }
    let settings = SETTINGS.get(0)?;
    if segment.is_plain() {
        let packet = frame.from(segment.ip);
        let (is_answerable, hash) = if version == 4 {
            let words = packet.words::<{ IPV4_WORDS + 1 }>()?;
            let [client, server, ports] = [words.raw(3), words.raw(4), words.raw(5)];
            (
                sources::is_answerable_v4(client, server, ports),
                settings.flow_hasher.v4(client, server, ports),
            )
        } else {
            let words = packet.words::<{ IPV6_WORDS + 1 }>()?;
            let address = |first: usize| [0, 1, 2, 3].map(|index| words.raw(first + index));
            let (client, server, ports) = (address(2), address(6), words.raw(10));
            (
                sources::is_answerable_v6(client, server, ports),
                settings.flow_hasher.v6(client, server, ports),
            )
        };
        if !is_answerable {
            return Some((XDP_DROP, XdpCounter::DropBadSource));
        }
        // An old connection is challenged (RFC 5961, section 4.2), and TIME-WAIT decides where the new one begins (RFC
        // 6191). As on Linux, such a SYN needs no cookie: whoever sends it had to acknowledge one, or a SYN-ACK,
        // before.
        if flow_filter::is_known(&settings.flow_hasher, hash) {
            return None;
        }
    }
    let rewritten = segment.is_plain() && {
        // The verifier then goes on from here once, and not for each of the ways to here.
        let packed = Scratch::get()?.launder(segment.packed(version));
        write_answer(frame.context(), packed, switch) != 0
    };
    let verdict = if rewritten {
        (XDP_TX, XdpCounter::TxSynCookie)
    } else {
        (XDP_DROP, XdpCounter::DropSynMalformed)
    };
    Some(verdict)
}

/// Makes the SYN its answer; 0: it contradicts itself. A function of its own, so that not all that it needs is on the
/// stack of the others.
#[inline(never)]
fn write_answer(context: *mut xdp_md, segment: u64, switch: u32) -> u32 {
    let context = XdpContext::new(context);
    let (segment, version) = Segment::unpacked(segment);
    let Some(settings) = SETTINGS.get(0) else {
        return 0;
    };
    let written = rewrite_by_version(Frame::new(&context), &segment, version, switch, &settings.syn_ack);
    u32::from(written.is_some())
}

#[inline(always)]
fn rewrite_by_version(frame: Frame<'_>, segment: &Segment, version: u8, switch: u32, template: &SynAck) -> Option<()> {
    let &[low, high] = COOKIE_KEYS.get(cookie_switch::key_id(switch))?;
    let key = (Key(low, high), switch);
    let scratch = Scratch::get()?;
    let (ip, syn) = (segment.ip, Syn::of(segment));
    if version == 4 {
        rewrite::<IPV4_WORDS, V4_WORDS>(frame, scratch, ip, syn, key, template)
    } else {
        rewrite::<IPV6_WORDS, V6_WORDS>(frame, scratch, ip, syn, key, template)
    }
}

/// The properties of a SYN that its answer depends on, in one word.
#[derive(Clone, Copy)]
struct Syn(u64);

impl Syn {
    #[inline(always)]
    fn of(segment: &Segment) -> Self {
        Self(segment.length as u64 | (segment.header_length as u64) << 24 | (segment.flags as u64) << 32)
    }

    /// Octets of the segment.
    #[inline(always)]
    fn length(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    /// Octets of options, a multiple of 4.
    #[inline(always)]
    fn options_length(self) -> usize {
        ((self.0 >> 24 & 0x3c) as usize).saturating_sub(TCP_HEADER)
    }

    /// The control bits.
    #[inline(always)]
    fn flags(self) -> u8 {
        (self.0 >> 32) as u8
    }
}

/// Makes the SYN a SYN-ACK. `TCP`: where the TCP header begins, in words from the IP header's first; `ALL`: where its
/// options do.
#[inline(always)]
fn rewrite<const TCP: usize, const ALL: usize>(
    frame: Frame<'_>,
    scratch: Scratch,
    ip: usize,
    syn: Syn,
    (key, switch): (Key, u32),
    template: &SynAck,
) -> Option<()> {
    let packet = frame.from(ip);
    let offer = Offer::read(frame, scratch, ip + ALL * 4, syn.options_length())?;
    // Nor is the verifier to go on with what it has learned of these numbers on each of the ways through the options.
    let syn = Syn(scratch.launder(syn.0));
    capture::answered(frame.context());
    let is_strong = cookie_switch::is_strong(switch) && offer.timestamp().is_none();
    let offer = if is_strong { offer.only_mss() } else { offer };
    let ecn = template.ecn != 0 && syn.flags() & ECN_SETUP == ECN_SETUP && !is_strong;
    let headers = packet.words::<ALL>()?;
    let cookie = make_cookie::<TCP, ALL>(headers, offer, ecn, (key, cookie_switch::key_id(switch)), is_strong);
    let sum = write_options::<TCP>(headers.cursor_behind(), syn.options_length(), offer, &cookie, template)?;
    let header_length = TCP_HEADER + syn.options_length();
    write_headers::<TCP, ALL>(headers, header_length, ecn, &cookie, template, sum);
    frame.swap_macs()?;
    trim_payload(frame, syn.length(), header_length).then_some(())
}

/// The cookie for a SYN.
#[inline(always)]
fn make_cookie<const TCP: usize, const ALL: usize>(
    headers: Words<ALL>,
    offer: Offer,
    ecn: bool,
    (key, key_id): (Key, u32),
    is_strong: bool,
) -> Cookie {
    let long = |index| u64::from(headers.get(index)) << 32 | u64::from(headers.get(index + 1));
    let (addresses, table, default_mss) = if TCP == IPV4_WORDS {
        (Addresses::V4(long(3)), &MSS_V4, DEFAULT_MSS_V4)
    } else {
        (
            Addresses::V6([long(2), long(4), long(6), long(8)]),
            &MSS_V6,
            DEFAULT_MSS_V6,
        )
    };
    let ports = headers.get(TCP);
    let handshake = Handshake {
        addresses,
        client_port: (ports >> 16) as u16,
        server_port: ports as u16,
        client_isn: headers.get(TCP + 1),
        timestamps: offer.timestamp().is_some(),
    };
    let options = Options {
        mss_index: mss_index(table, offer.mss().unwrap_or(default_mss)),
        window_scale: offer.window_scale(),
        sack_permitted: offer.sack_permitted(),
        ecn,
    };
    let content = if is_strong {
        Content::Mss(options.mss_index)
    } else {
        Content::Options(options)
    };
    syn_cookie::make(key, key_id, &handshake, content)
}

/// Writes the options over those of the SYN, which have as much `room`, and returns the sum of their words as they lie
/// in memory. `None`: there is no room, which no SYN with whole options leaves.
#[inline(always)]
fn write_options<const TCP: usize>(
    mut options: WordCursor,
    room: usize,
    offer: Offer,
    cookie: &Cookie,
    template: &SynAck,
) -> Option<u64> {
    let scales = offer.window_scale() != NO_WINDOW_SCALE;
    let answered = match (offer.timestamp(), offer.sack_permitted()) {
        (Some(_), _) => 12,
        (None, true) => 4,
        (None, false) => 0,
    } + if scales { 4 } else { 0 };
    if answered > room {
        return None;
    }
    let mut sum = 0;
    let mut at = 0;
    let mut put = |word: u32| {
        let word = word.to_be();
        options.write_raw(word)?;
        at += 4;
        sum += u64::from(word);
        Some(())
    };
    // A client that sent no MSS gets ours only where there is room.
    if answered + 4 <= room {
        let mss = if TCP == IPV4_WORDS {
            template.mss_v4
        } else {
            template.mss_v6
        };
        put(0x0204_0000 | u32::from(mss))?;
    }
    if let Some(echo) = offer.timestamp() {
        put(if offer.sack_permitted() {
            0x0402_080a
        } else {
            0x0101_080a
        })?;
        // Some milliseconds late, and no call: the kernel puts the read of a variable in its place. Reading the
        // processor's counter takes as long as hashing.
        // SAFETY: the helper takes nothing and reads a clock.
        let jiffies = unsafe { bpf_jiffies64() };
        put(cookie.timestamp(template.clock_ms(jiffies)))?;
        put(echo)?;
    } else if offer.sack_permitted() {
        put(0x0101_0402)?;
    }
    if scales {
        put(0x0103_0300 | u32::from(template.window_shift))?;
    }
    // End of option list, to where the SYN's options ended.
    for _ in 0..MAX_OPTION_WORDS {
        if at >= room {
            break;
        }
        options.write_raw(0)?;
        at += 4;
    }
    Some(sum)
}

/// Writes both headers, but for the options, whose sum is `sum`.
///
/// The sums are of words as they lie in memory, and so is the checksum (RFC 1071, section 2 (B)).
#[inline(always)]
fn write_headers<const TCP: usize, const ALL: usize>(
    headers: Words<ALL>,
    header_length: usize,
    ecn: bool,
    cookie: &Cookie,
    template: &SynAck,
    sum: u64,
) {
    // The addresses change places, and their sum is the same either way.
    let half = if TCP == IPV4_WORDS { 1 } else { 4 };
    let mut addresses = 0;
    for index in TCP - 2 * half..TCP - half {
        let (client, server) = (headers.raw(index), headers.raw(index + half));
        headers.set_raw(index, server);
        headers.set_raw(index + half, client);
        addresses += u64::from(client) + u64::from(server);
    }
    write_ip::<TCP, ALL>(headers, header_length as u32, addresses);

    let flags = SYN_AND_ACK | if ecn { ECE_BIT } else { 0 };
    let words = [
        headers.raw(TCP).rotate_left(16),
        cookie.isn.to_be(),
        headers.get(TCP + 1).wrapping_add(1).to_be(),
        ((header_length as u32) << 26 | flags | u32::from(template.window)).to_be(),
    ];
    let pseudo_header = u32::from(protocol::TCP) << 16 | header_length as u32;
    let mut sum = sum + addresses + u64::from(pseudo_header.to_be());
    for (index, word) in words.into_iter().enumerate() {
        headers.set_raw(TCP + index, word);
        sum += u64::from(word);
    }
    // Before two octets of zero: no urgent pointer.
    headers.set_raw(TCP + 4, u32::from(checksum(sum).to_le()).to_le());
}

/// Writes the IP header, but for the addresses, whose sum is `addresses`.
#[inline(always)]
fn write_ip<const TCP: usize, const ALL: usize>(headers: Words<ALL>, header_length: u32, addresses: u64) {
    if TCP == IPV4_WORDS {
        // Identification 0: "don't fragment" is set (RFC 6864, section 4.1).
        let words = [
            0x4500_0000 | (IPV4_HEADER as u32 + header_length),
            0x0000_4000,
            u32::from(HOP_LIMIT) << 24 | u32::from(protocol::TCP) << 16,
        ]
        .map(u32::to_be);
        let mut sum = addresses;
        for word in words {
            sum += u64::from(word);
        }
        headers.set_raw(0, words[0]);
        headers.set_raw(1, words[1]);
        // Behind two octets of zero.
        let checksum = u32::from(checksum(sum).to_be()).to_be();
        headers.set_raw(2, words[2] | checksum);
    } else {
        headers.set(0, 0x6000_0000);
        let next_header = u32::from(protocol::TCP) << 8 | u32::from(HOP_LIMIT);
        headers.set(1, header_length << 16 | next_header);
    }
}

/// Cuts off the text that came with the SYN, which the client will send again.
#[inline(always)]
fn trim_payload(frame: Frame<'_>, length: usize, header_length: usize) -> bool {
    if length <= header_length {
        return true;
    }
    let text = (length - header_length) as i32;
    // SAFETY: the context is that of the running program; no reference into the frame is used after this.
    unsafe { bpf_xdp_adjust_tail(frame.context(), -text) == 0 }
}

/// The Internet checksum (RFC 1071) of what was summed up as 32-bit words, in their byte order.
#[inline(always)]
fn checksum(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    !(sum as u16)
}
