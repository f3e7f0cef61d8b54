//! A SYN becomes the SYN-ACK that answers it, with a cookie for a sequence number, and goes back where it came from.
//!
//! Nothing is kept and nothing is longer than it came: an option is only answered if it was there, and with its
//! padding to a multiple of 4 octets the answer's options take no more room than the same options of the SYN.

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_DROP, XDP_TX},
        xdp_md,
    },
    helpers::{bpf_ktime_get_coarse_ns, bpf_xdp_adjust_tail, bpf_xdp_load_bytes, bpf_xdp_store_bytes},
    macros::map,
    maps::{Array, PerCpuArray},
};
use tidegate_abi::siphash::Key;
use tidegate_abi::syn_ack::{SynAck, cookie_switch};
use tidegate_abi::syn_cookie::{
    self, Addresses, Handshake, MAX_WINDOW_SCALE, MSS_V4, MSS_V6, NO_WINDOW_SCALE, Options, mss_index,
};
use tidegate_abi::{MAX_QUEUES, XdpCounter};

use crate::parse::{ETHERNET_HEADER, Frame, IPV4_HEADER, IPV6_HEADER, Segment, TCP_HEADER, protocol};
use crate::sources;

/// The keys of both key ids.
#[map]
static COOKIE_KEYS: Array<[u64; 2]> = Array::with_max_entries(2, 0);

/// A [`cookie_switch`] for each receive queue.
#[map]
static COOKIE_SWITCHES: Array<u32> = Array::with_max_entries(MAX_QUEUES, 0);

#[map]
static SYN_ACK: Array<SynAck> = Array::with_max_entries(1, 0);

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

/// Lengths of the IP headers in 32-bit words.
const IPV4_WORDS: usize = IPV4_HEADER / 4;
const IPV6_WORDS: usize = IPV6_HEADER / 4;

/// Octets of the longest TCP header.
const MAX_TCP_HEADER: usize = 60;

/// Room for the longest headers, in 32-bit words: a power of two, so that a mask keeps an index within it.
const HEADER_WORDS: usize = 32;

/// Kinds of options without a length (RFC 9293, section 3.2).
const END_OF_OPTION_LIST: u8 = 0;
const NO_OPERATION: u8 = 1;

/// Options, padding included: one octet is the shortest.
const MAX_OPTIONS: usize = 40;

/// The most 32-bit words of options (RFC 9293, section 3.1).
const MAX_OPTION_WORDS: usize = 10;

/// What the SYN offers, in one word.
#[derive(Clone, Copy)]
struct Offer(u64);

impl Offer {
    const MSS_SHIFT: u32 = 32;
    const WINDOW_SCALE_SHIFT: u32 = 48;
    const HAS_MSS: u64 = 1 << 52;
    const HAS_TIMESTAMP: u64 = 1 << 53;
    const SACK_PERMITTED: u64 = 1 << 54;
    const ECN: u64 = 1 << 55;

    /// No options at all.
    const NONE: Self = Self((NO_WINDOW_SCALE as u64) << Self::WINDOW_SCALE_SHIFT);

    #[inline(always)]
    fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    #[inline(always)]
    fn with_mss(self, mss: u16) -> Self {
        let others = self.0 & !(0xffff << Self::MSS_SHIFT);
        Self(others | u64::from(mss) << Self::MSS_SHIFT | Self::HAS_MSS)
    }

    /// The MSS, if there is one.
    #[inline(always)]
    fn mss(self) -> u16 {
        (self.0 >> Self::MSS_SHIFT) as u16
    }

    #[inline(always)]
    fn with_window_scale(self, shift: u8) -> Self {
        let others = self.0 & !(15 << Self::WINDOW_SCALE_SHIFT);
        Self(others | u64::from(shift & 15) << Self::WINDOW_SCALE_SHIFT)
    }

    #[inline(always)]
    fn window_scale(self) -> u8 {
        (self.0 >> Self::WINDOW_SCALE_SHIFT & 15) as u8
    }

    #[inline(always)]
    fn with_timestamp(self, value: u32) -> Self {
        Self(self.0 & !0xffff_ffff | u64::from(value) | Self::HAS_TIMESTAMP)
    }

    /// TSval, if there is one.
    #[inline(always)]
    fn timestamp(self) -> u32 {
        self.0 as u32
    }
}

/// Answers a SYN if cookies are on for `queue`: the verdict, and what to count.
#[inline(always)]
pub fn answer(frame: Frame<'_>, segment: &Segment, version: u8, queue: u32) -> Option<(u32, XdpCounter)> {
    let switch = COOKIE_SWITCHES.get(queue).copied().unwrap_or(cookie_switch::OFF);
    if switch == cookie_switch::OFF {
        return None;
    }
    if segment.plain && !sources::is_answerable(frame, segment, version) {
        return Some((XDP_DROP, XdpCounter::DropBadSource));
    }
    let key_id = switch.wrapping_sub(cookie_switch::on(0)) & 1;
    let verdict = if segment.plain && rewrite(frame, segment, version, key_id).is_some() {
        (XDP_TX, XdpCounter::TxSynCookie)
    } else {
        (XDP_DROP, XdpCounter::DropSynMalformed)
    };
    Some(verdict)
}

/// Makes the SYN a SYN-ACK.
#[inline(always)]
fn rewrite(frame: Frame<'_>, segment: &Segment, version: u8, key_id: u32) -> Option<()> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // What follows is then verified once, and not for each way to this place.
    let (ip, header_length) = Headers(scratch).forget(segment.ip, segment.header_length);
    let context = frame.context();
    if version == 4 {
        // SAFETY: the context is that of the running program, and the map's value has room for the longest headers.
        let loaded = unsafe { load(context, scratch, ip, IPV4_HEADER + header_length) };
        if !loaded || !read_options_v4(scratch, header_length) {
            return None;
        }
        let cookie = cookie_v4(scratch, key_id);
        if !write_v4(scratch, header_length, cookie) {
            return None;
        }
        // SAFETY: as above.
        unsafe { store(context, scratch, ip, IPV4_HEADER + header_length) }.then_some(())?;
    } else {
        // SAFETY: as above.
        let loaded = unsafe { load(context, scratch, ip, IPV6_HEADER + header_length) };
        if !loaded || !read_options_v6(scratch, header_length) {
            return None;
        }
        let cookie = cookie_v6(scratch, key_id);
        if !write_v6(scratch, header_length, cookie) {
            return None;
        }
        // SAFETY: as above.
        unsafe { store(context, scratch, ip, IPV6_HEADER + header_length) }.then_some(())?;
    }
    (turn_round(frame) && cut(frame, segment.length, segment.header_length)).then_some(())
}

/// Copies `length` octets at `offset` of the frame.
///
/// # Safety
///
/// `context` is that of the running program, and `scratch` its CPU's.
#[inline(always)]
unsafe fn load(context: *mut xdp_md, scratch: *mut Scratch, offset: usize, length: usize) -> bool {
    // SAFETY: see above; `length` is checked against the room there is.
    (IPV4_HEADER + TCP_HEADER..=IPV6_HEADER + MAX_TCP_HEADER).contains(&length)
        && unsafe { bpf_xdp_load_bytes(context, offset as u32, scratch.cast(), length as u32) } == 0
}

/// Copies them back.
///
/// # Safety
///
/// As for [`load`].
#[inline(always)]
unsafe fn store(context: *mut xdp_md, scratch: *mut Scratch, offset: usize, length: usize) -> bool {
    // SAFETY: see above; `length` is checked against the room there is.
    (IPV4_HEADER + TCP_HEADER..=IPV6_HEADER + MAX_TCP_HEADER).contains(&length)
        && unsafe { bpf_xdp_store_bytes(context, offset as u32, scratch.cast(), length as u32) } == 0
}

// The steps are functions of their own: one after the other, each has what is left of the 512 octets of stack.

#[inline(never)]
fn read_options_v4(scratch: *mut Scratch, header_length: usize) -> bool {
    read_options::<IPV4_WORDS>(Headers(scratch), header_length)
}

#[inline(never)]
fn read_options_v6(scratch: *mut Scratch, header_length: usize) -> bool {
    read_options::<IPV6_WORDS>(Headers(scratch), header_length)
}

#[inline(never)]
fn write_v4(scratch: *mut Scratch, header_length: usize, cookie: u64) -> bool {
    write::<IPV4_WORDS>(Headers(scratch), header_length, cookie).is_some()
}

#[inline(never)]
fn write_v6(scratch: *mut Scratch, header_length: usize, cookie: u64) -> bool {
    write::<IPV6_WORDS>(Headers(scratch), header_length, cookie).is_some()
}

/// Writes both headers. `TCP`: where the TCP header begins, in words from the IP header's first.
#[inline(always)]
fn write<const TCP: usize>(headers: Headers, header_length: usize, cookie: u64) -> Option<()> {
    write_tcp::<TCP>(headers, header_length, cookie, SYN_ACK.get(0)?)?;
    write_ip::<TCP>(headers, header_length);
    Some(())
}

/// Reads what the SYN offers (RFC 9293, section 3.1). False: an option has an impossible length.
#[inline(always)]
fn read_options<const TCP: usize>(headers: Headers, header_length: usize) -> bool {
    let flags = headers.octet(TCP * 4 + 13);
    let ecn = if flags & ECN_SETUP == ECN_SETUP { Offer::ECN } else { 0 };
    headers.set_offer(Offer(Offer::NONE.0 | ecn));
    headers.set_at(TCP * 4 + TCP_HEADER);
    let end = TCP * 4 + header_length;
    for _ in 0..MAX_OPTIONS {
        let at = headers.at();
        if at >= end {
            break;
        }
        let kind = headers.octet(at);
        if kind == END_OF_OPTION_LIST {
            break;
        }
        if kind == NO_OPERATION {
            headers.set_at(at + 1);
            continue;
        }
        // Past the end of the options this is an octet of an earlier SYN, and whatever it says is too long.
        let length = usize::from(headers.octet(at + 1));
        if length < 2 || at + length > end {
            return false;
        }
        let offer = headers.offer();
        match (kind, length) {
            (2, 4) => headers.set_offer(offer.with_mss(headers.number(at + 2, 2) as u16)),
            (3, 3) => {
                let shift = headers.octet(at + 2).min(MAX_WINDOW_SCALE);
                headers.set_offer(offer.with_window_scale(shift));
            }
            (4, 2) => headers.set_offer(Offer(offer.0 | Offer::SACK_PERMITTED)),
            (8, 10) => headers.set_offer(offer.with_timestamp(headers.number(at + 2, 4))),
            _ => {}
        }
        headers.set_at(at + length);
    }
    true
}

/// The cookie for an IPv4 SYN: the ISN in the upper half, the TSval in the lower half.
#[inline(never)]
fn cookie_v4(scratch: *mut Scratch, key_id: u32) -> u64 {
    let headers = Headers(scratch);
    make_cookie::<IPV4_WORDS>(headers, Addresses::V4(headers.long(3)), key_id).unwrap_or(0)
}

/// The same for IPv6.
#[inline(never)]
fn cookie_v6(scratch: *mut Scratch, key_id: u32) -> u64 {
    let headers = Headers(scratch);
    let addresses = [headers.long(2), headers.long(4), headers.long(6), headers.long(8)];
    make_cookie::<IPV6_WORDS>(headers, Addresses::V6(addresses), key_id).unwrap_or(0)
}

#[inline(always)]
fn make_cookie<const TCP: usize>(headers: Headers, addresses: Addresses, key_id: u32) -> Option<u64> {
    let &[low, high] = COOKIE_KEYS.get(key_id)?;
    let template = SYN_ACK.get(0)?;
    let offer = headers.offer();
    let ports = headers.word(TCP);
    let handshake = Handshake {
        addresses,
        client_port: (ports >> 16) as u16,
        server_port: ports as u16,
        client_isn: headers.word(TCP + 1),
        timestamps: offer.has(Offer::HAS_TIMESTAMP),
    };
    let (table, default_mss) = if TCP == IPV4_WORDS {
        (&MSS_V4, DEFAULT_MSS_V4)
    } else {
        (&MSS_V6, DEFAULT_MSS_V6)
    };
    let mss = if offer.has(Offer::HAS_MSS) {
        offer.mss()
    } else {
        default_mss
    };
    let options = Options {
        mss_index: mss_index(table, mss),
        window_scale: offer.window_scale(),
        sack_permitted: offer.has(Offer::SACK_PERMITTED),
        ecn: template.ecn != 0 && offer.has(Offer::ECN),
    };
    let cookie = syn_cookie::make(Key(low, high), key_id, &handshake, options);
    // Some milliseconds late, and several times as fast: reading the processor's counter takes as long as hashing.
    // SAFETY: the helper takes nothing and reads a clock.
    let clock_ms = unsafe { bpf_ktime_get_coarse_ns() } / 1_000_000;
    Some(u64::from(cookie.isn) << 32 | u64::from(cookie.timestamp(clock_ms as u32)))
}

/// Writes the TCP header over that of the SYN, which is as long. The addresses are still the SYN's; their sum is the same
/// either way. `None`: there is no room, which no SYN with whole options leaves.
#[inline(always)]
fn write_tcp<const TCP: usize>(headers: Headers, header_length: usize, cookie: u64, template: &SynAck) -> Option<()> {
    let offer = headers.offer();
    let end = TCP * 4 + header_length;
    let scales = offer.window_scale() != NO_WINDOW_SCALE;
    let answered = match (offer.has(Offer::HAS_TIMESTAMP), offer.has(Offer::SACK_PERMITTED)) {
        (true, _) => 12,
        (false, true) => 4,
        (false, false) => 0,
    } + if scales { 4 } else { 0 };
    if TCP_HEADER + answered > header_length {
        return None;
    }
    let ports = headers.word(TCP);
    let client_isn = headers.word(TCP + 1);
    let ecn = template.ecn != 0 && offer.has(Offer::ECN);
    let flags = SYN_AND_ACK | if ecn { ECE_BIT } else { 0 };
    let words = [
        ports.rotate_left(16),
        (cookie >> 32) as u32,
        client_isn.wrapping_add(1),
        (header_length as u32) << 26 | flags | u32::from(template.window),
    ];
    let mut sum = headers.sum_of_addresses::<TCP>() + u64::from(protocol::TCP) + header_length as u64;
    for (index, word) in words.into_iter().enumerate() {
        headers.set_word(TCP + index, word);
        sum += u64::from(word);
    }

    headers.set_at(TCP * 4 + TCP_HEADER);
    let mut put = |word: u32| {
        let at = headers.at();
        headers.set_word(at / 4, word);
        headers.set_at(at + 4);
        sum += u64::from(word);
    };
    // A client that sent no MSS gets ours only where there is room.
    if TCP_HEADER + answered + 4 <= header_length {
        let mss = if TCP == IPV4_WORDS {
            template.mss_v4
        } else {
            template.mss_v6
        };
        put(0x0204_0000 | u32::from(mss));
    }
    if offer.has(Offer::HAS_TIMESTAMP) {
        put(if offer.has(Offer::SACK_PERMITTED) {
            0x0402_080a
        } else {
            0x0101_080a
        });
        put(cookie as u32);
        put(offer.timestamp());
    } else if offer.has(Offer::SACK_PERMITTED) {
        put(0x0101_0402);
    }
    if scales {
        put(0x0103_0300 | u32::from(template.window_shift));
    }
    // End of option list, to where the SYN's options ended.
    for _ in 0..MAX_OPTION_WORDS {
        if headers.at() >= end {
            break;
        }
        put(0);
    }
    headers.set_word(TCP + 4, u32::from(checksum(sum)) << 16);
    Some(())
}

/// Writes the IP header, with the addresses in the other order.
#[inline(always)]
fn write_ip<const TCP: usize>(headers: Headers, header_length: usize) {
    let half = if TCP == IPV4_WORDS { 1 } else { 4 };
    let first = TCP - 2 * half;
    for index in first..first + half {
        let (client, server) = (headers.word(index), headers.word(index + half));
        headers.set_word(index, server);
        headers.set_word(index + half, client);
    }
    if TCP == IPV4_WORDS {
        let length = (IPV4_HEADER + header_length) as u32;
        // Identification 0: "don't fragment" is set (RFC 6864, section 4.1).
        let words = [
            0x4500_0000 | length,
            0x0000_4000,
            u32::from(HOP_LIMIT) << 24 | u32::from(protocol::TCP) << 16,
        ];
        let mut sum = headers.sum_of_addresses::<TCP>();
        for word in words {
            sum += u64::from(word);
        }
        headers.set_word(0, words[0]);
        headers.set_word(1, words[1]);
        headers.set_word(2, words[2] | u32::from(checksum(sum)));
    } else {
        headers.set_word(0, 0x6000_0000);
        let next_header = u32::from(protocol::TCP) << 8 | u32::from(HOP_LIMIT);
        headers.set_word(1, (header_length as u32) << 16 | next_header);
    }
}

/// Where the headers are changed. In the frame, whose octets are not aligned, each would be loaded and stored by itself.
/// And the verifier knows nothing of what is in a map: the values that the loop over the options collects it would
/// otherwise follow through every branch, and there are more ways than it walks.
#[repr(C)]
struct Scratch {
    /// The IP header and the TCP header as they are in the frame.
    headers: [u32; HEADER_WORDS],
    at: u64,
    offer: u64,
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// The running CPU's [`Scratch`]. All access is volatile, so that LLVM does not keep the values in variables after all.
#[derive(Clone, Copy)]
struct Headers(*mut Scratch);

impl Headers {
    /// The octet at `index`.
    #[inline(always)]
    fn octet(self, index: usize) -> u8 {
        // SAFETY: a reference to a local variable. What LLVM knows of the index it would use to leave the mask out.
        let index = unsafe { (&raw const index).read_volatile() };
        // SAFETY: the map's value lives as long as the map, only this CPU uses it, and the mask keeps within it.
        unsafe {
            (&raw const (*self.0).headers)
                .cast::<u8>()
                .add(index & (HEADER_WORDS * 4 - 1))
                .read_volatile()
        }
    }

    /// `count` octets from `index` on, in network byte order.
    #[inline(always)]
    fn number(self, index: usize, count: usize) -> u32 {
        let mut number = 0;
        for offset in 0..count {
            number = number << 8 | u32::from(self.octet(index + offset));
        }
        number
    }

    /// The `index`th word, in host byte order.
    #[inline(always)]
    fn word(self, index: usize) -> u32 {
        // SAFETY: as in `octet`; the words are aligned.
        let word = unsafe {
            (&raw const (*self.0).headers)
                .cast::<u32>()
                .add(index & (HEADER_WORDS - 1))
                .read_volatile()
        };
        u32::from_be(word)
    }

    /// The `index`th word and the one behind it.
    #[inline(always)]
    fn long(self, index: usize) -> u64 {
        u64::from(self.word(index)) << 32 | u64::from(self.word(index + 1))
    }

    #[inline(always)]
    fn set_word(self, index: usize, word: u32) {
        // SAFETY: as in `octet`: a reference to a local variable.
        let index = unsafe { (&raw const index).read_volatile() };
        // SAFETY: as in `word`.
        unsafe {
            (&raw mut (*self.0).headers)
                .cast::<u32>()
                .add(index & (HEADER_WORDS - 1))
                .write_volatile(word.to_be());
        }
    }

    /// The sum of both addresses.
    #[inline(always)]
    fn sum_of_addresses<const TCP: usize>(self) -> u64 {
        let first = if TCP == IPV4_WORDS { 3 } else { 2 };
        let mut sum = 0;
        for index in first..TCP {
            sum += u64::from(self.word(index));
        }
        sum
    }

    /// The two numbers, of which the verifier then knows no more than that they are small.
    #[inline(always)]
    fn forget(self, first: usize, second: usize) -> (usize, usize) {
        self.set_at(first);
        let first = self.at() & 63;
        self.set_at(second);
        (first, self.at() & 63)
    }

    #[inline(always)]
    fn at(self) -> usize {
        // SAFETY: as in `octet`, and the field is aligned.
        unsafe { (&raw const (*self.0).at).read_volatile() as usize }
    }

    #[inline(always)]
    fn set_at(self, at: usize) {
        // SAFETY: as in `at`.
        unsafe { (&raw mut (*self.0).at).write_volatile(at as u64) }
    }

    #[inline(always)]
    fn offer(self) -> Offer {
        // SAFETY: as in `at`.
        Offer(unsafe { (&raw const (*self.0).offer).read_volatile() })
    }

    #[inline(always)]
    fn set_offer(self, offer: Offer) {
        // SAFETY: as in `at`.
        unsafe { (&raw mut (*self.0).offer).write_volatile(offer.0) }
    }
}

/// The Ethernet addresses change places.
#[inline(always)]
fn turn_round(frame: Frame<'_>) -> bool {
    let Some(&ethernet) = frame.header::<ETHERNET_HEADER>(0) else {
        return false;
    };
    let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = ethernet;
    frame.write(0, [g, h, i, j, k, l, a, b, c, d, e, f])
}

/// Cuts off the text that came with the SYN, which the client will send again.
#[inline(always)]
fn cut(frame: Frame<'_>, length: usize, header_length: usize) -> bool {
    if length <= header_length {
        return true;
    }
    let text = (length - header_length) as i32;
    // SAFETY: the context is that of the running program; no reference into the frame is used after this.
    unsafe { bpf_xdp_adjust_tail(frame.context(), -text) == 0 }
}

/// The Internet checksum (RFC 1071) of what was summed up as 32-bit words.
#[inline(always)]
fn checksum(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    !(sum as u16)
}
