//! SYN cookies (RFC 4987, section 3.6): a SYN-ACK whose sequence number and timestamp are all that is remembered of the
//! SYN.
//!
//! # What is where
//!
//! | bits of the SYN-ACK's ISN | |
//! |---|---|
//! | 31..23 | the SYN's options (9 bits: ECN, SACK-permitted, window scale, MSS index), masked |
//! | 22 | key id: the lowest bit of the epoch whose key was used |
//! | 21..0 | 22 bits of the tag |
//!
//! If the SYN carried timestamps, the 10 lowest bits of the SYN-ACK's TSval are 10 more bits of the tag, and an
//! acknowledgment without them, or with others, is refused. Who guesses blindly has to hit 22 bits without timestamps
//! (one in 4,194,304) and 32 bits with them; he may choose which, so 22 bits is what holds against him.
//!
//! While many guess, those without timestamps are made with more bits of the tag and less of the options, which is then
//! all that is accepted without timestamps ([`Accepted::Strong`]): 29 bits hold against a guess (28 in the seconds in
//! which other hosts may make cookies with the next key already).
//!
//! | bits of a strong cookie | |
//! |---|---|
//! | 31..30 | one of every other MSS, masked by the lowest bits of the mask; there are no other options |
//! | 29..23 | 7 more bits of the tag: 28..22 |
//! | 22..0 | as in the others |
//!
//! For the tag their options are 512 more than what is in the two highest bits, which no others are.
//!
//! Mask and tag come from one hash: SipHash-2-4 over both addresses, both ports, the client's ISN, the key id and
//! whether there are timestamps.
//!
//! | bytes hashed | |
//! |---|---|
//! | 8, or 32 for IPv6 | the addresses, client's first, as big-endian words, each hashed in little-endian order |
//! | 8 | client's port, server's port and client's ISN, as one word in that order from the highest bit on |
//! | 1 | the key id, and 2 if there are timestamps |
//!
//! | bits of the hash | |
//! |---|---|
//! | 63..55 | mask the options: else most of the ISN would be known to whoever knows what the client's SYNs look like |
//! | 54..32 | the flow's timestamp clock minus the host's, in units of 512 ms; with the lowest bit set, the factor |
//! | 31..0 | to these the options times that factor are added, modulo 2^32: the sum's 32 bits are the tag |
//!
//! The factor is odd, so no other options go with the same tag. Who was given a cookie could compute it for other
//! options of the same handshake, which he could have had for the asking; everybody else guesses.
//!
//! # Keys
//!
//! Time is cut into epochs of the same length, counted from 1970. Each has its own key, derived from one secret
//! ([`key_of_epoch`]), so that all hosts with the same secret and the same time make and accept the same cookies. A
//! cookie is accepted in the epoch that made it and in the next one ([`Keys`]).

use crate::siphash::{Key, siphash24, siphash24_with_tail};

/// Bits of the tag in the ISN.
pub const ISN_TAG_BITS: u32 = 22;

/// Bits of the tag in the TSval.
pub const TIMESTAMP_TAG_BITS: u32 = 10;

/// Bits of the tag of a strong cookie above those.
pub const STRONG_TAG_BITS: u32 = 7;

const ISN_TAG: u32 = (1 << ISN_TAG_BITS) - 1;
const STRONG_TAG: u32 = (1 << STRONG_TAG_BITS) - 1;
const TIMESTAMP_TAG: u32 = (1 << TIMESTAMP_TAG_BITS) - 1;
const KEY_ID_SHIFT: u32 = ISN_TAG_BITS;
const OPTIONS_SHIFT: u32 = KEY_ID_SHIFT + 1;

/// The window scale of a SYN without one.
pub const NO_WINDOW_SCALE: u8 = 15;

/// The largest shift (RFC 7323, section 2.3).
pub const MAX_WINDOW_SCALE: u8 = 14;

/// Maximum segment sizes a cookie can hold for IPv4: of Ethernet, PPPoE, common tunnels and the default of RFC 9293, in
/// bytes. The first stands for everything too small to be served as asked. Strong cookies know every other one.
pub const MSS_V4: [u16; 8] = [48, 256, 512, 536, 1300, 1380, 1440, 1460];

/// The same for IPv6. Tunnels that clamp it leave less than 1,220, which a link has to carry, too.
pub const MSS_V6: [u16; 8] = [48, 536, 1160, 1220, 1340, 1380, 1420, 1440];

/// A one in each of three lanes of 21 bits: room for a 16-bit number, a carry, and a little more.
const LANES: u64 = 1 | 1 << 21 | 1 << 42;

/// Index of the largest of `table`, which ascends, that is not above `mss`, or 0.
#[inline(always)]
pub fn mss_index(table: &[u16; 8], mss: u16) -> u8 {
    // Without a branch, since the verifier follows each of them: three comparisons at once, each of which carries into
    // its lane's bit 20 unless `mss` is less.
    let above_all = 1 << 17;
    let candidate = |index: usize| table.get(index).map_or(above_all, |&candidate| u64::from(candidate));
    let lane = |index: usize| (1 << 20) - candidate(index);
    let lanes = |first: usize| lane(first) | lane(first + 1) << 21 | lane(first + 2) << 42;
    let all = u64::from(mss).wrapping_mul(LANES);
    let carries = |first: usize| all.wrapping_add(lanes(first)) >> 20 & LANES;
    let counts = carries(1) + carries(4) + carries(7);
    (counts.wrapping_mul(LANES) >> 42 & 7) as u8
}

/// The options of a SYN that a cookie remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Index into [`MSS_V4`] or [`MSS_V6`].
    pub mss_index: u8,
    /// The client's shift, at most [`MAX_WINDOW_SCALE`], or [`NO_WINDOW_SCALE`].
    pub window_scale: u8,
    /// The client takes SACK.
    pub sack_permitted: bool,
    /// The client does ECN (RFC 3168).
    pub ecn: bool,
}

impl Options {
    /// No options but an MSS.
    #[inline(always)]
    pub const fn only_mss(mss_index: u8) -> Self {
        Self {
            mss_index,
            window_scale: NO_WINDOW_SCALE,
            sack_permitted: false,
            ecn: false,
        }
    }

    #[inline(always)]
    fn to_bits(self) -> u32 {
        u32::from(self.mss_index & 7)
            | u32::from(self.window_scale & 15) << 3
            | (self.sack_permitted as u32) << 7
            | (self.ecn as u32) << 8
    }

    #[inline(always)]
    fn from_bits(bits: u32) -> Self {
        Self {
            mss_index: (bits & 7) as u8,
            window_scale: (bits >> 3 & 15) as u8,
            sack_permitted: bits >> 7 & 1 != 0,
            ecn: bits >> 8 & 1 != 0,
        }
    }
}

/// The addresses of a handshake, as they follow each other in the client's IP header: the client's, then the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// IPv4, as one big-endian word.
    V4(u64),
    /// IPv6, as four big-endian words.
    V6([u64; 4]),
}

impl Addresses {
    /// IPv4 addresses, as octets in network byte order.
    pub fn v4(client: [u8; 4], server: [u8; 4]) -> Self {
        Self::V4(u64::from(u32::from_be_bytes(client)) << 32 | u64::from(u32::from_be_bytes(server)))
    }

    /// IPv6 addresses, as octets in network byte order.
    pub fn v6(client: [u8; 16], server: [u8; 16]) -> Self {
        let ([a, b], [c, d]) = (words(client), words(server));
        Self::V6([a, b, c, d])
    }
}

/// The contents of a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// All options of the SYN.
    Options(Options),
    /// Nothing but the index of its MSS, of which the lowest bit is lost: a strong cookie, for SYNs without timestamps.
    Mss(u8),
}

/// The cookies without timestamps that are accepted; with timestamps all are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Strong ones and those with options.
    All,
    /// Strong ones.
    Strong,
}

/// A handshake: who, and the client's initial sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Both addresses.
    pub addresses: Addresses,
    /// The client's port, host byte order.
    pub client_port: u16,
    /// The server's port, host byte order.
    pub server_port: u16,
    /// The client's ISN (SEG.SEQ of the SYN), host byte order.
    pub client_isn: u32,
    /// Whether the SYN carried timestamps.
    pub timestamps: bool,
}

impl Handshake {
    #[inline(always)]
    fn hash(&self, key: Key, key_id: u32) -> Hash {
        let ports = u64::from(self.client_port) << 48 | u64::from(self.server_port) << 32 | u64::from(self.client_isn);
        let meta = u64::from(key_id) | (self.timestamps as u64) << 1;
        Hash(match self.addresses {
            Addresses::V4(addresses) => siphash24_with_tail(key, &[addresses, ports], meta, 1),
            Addresses::V6([a, b, c, d]) => siphash24_with_tail(key, &[a, b, c, d, ports], meta, 1),
        })
    }
}

/// The hash of a handshake.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    #[inline(always)]
    fn mask(self) -> u32 {
        (self.0 >> 55) as u32
    }

    /// The tag that goes with these options.
    #[inline(always)]
    fn tag(self, options: u32) -> u32 {
        let factor = (self.0 >> 32) as u32 & 0x7f_ffff | 1;
        (self.0 as u32).wrapping_add(options.wrapping_mul(factor))
    }

    /// The milliseconds by which the flow's clock is ahead of the host's. The mask is not among its bits.
    #[inline(always)]
    fn clock_offset(self) -> u32 {
        ((self.0 >> 32) as u32) << 9
    }
}

fn words(address: [u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    [
        u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        u64::from_be_bytes([i, j, k, l, m, n, o, p]),
    ]
}

/// A SYN-ACK's cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// The SYN-ACK's ISN (SEG.SEQ).
    pub isn: u32,
    tag: u32,
    clock_offset: u32,
}

impl Cookie {
    /// The SYN-ACK's TSval on a clock that shows `clock_ms` milliseconds: one value of the last 1,024 of this flow's
    /// clock, never a later one, since the client would take what follows for old (PAWS, RFC 7323, section 5).
    #[inline(always)]
    pub fn timestamp(&self, clock_ms: u32) -> u32 {
        let now = clock_ms.wrapping_add(self.clock_offset);
        let stamped = now & !TIMESTAMP_TAG | timestamp_tag(self.tag);
        let ahead = stamped & TIMESTAMP_TAG > now & TIMESTAMP_TAG;
        stamped.wrapping_sub((ahead as u32) << TIMESTAMP_TAG_BITS)
    }
}

#[inline(always)]
fn timestamp_tag(tag: u32) -> u32 {
    tag >> ISN_TAG_BITS
}

/// The options' bits of a strong cookie of an MSS, which no other options have.
#[inline(always)]
fn strong_bits(mss: u32) -> u32 {
    1 << 9 | mss
}

/// The bits above the key id of a strong cookie with this tag and MSS.
#[inline(always)]
fn strong_top(hash: Hash, mss: u32, tag: u32) -> u32 {
    (mss ^ hash.mask() & 3) << STRONG_TAG_BITS | timestamp_tag(tag) & STRONG_TAG
}

/// The cookie of a SYN, made with the key of an epoch whose lowest bit is `key_id`. Without timestamps only
/// [`Content::Mss`] makes a strong one.
#[inline(always)]
pub fn make(key: Key, key_id: u32, handshake: &Handshake, content: Content) -> Cookie {
    let key_id = key_id & 1;
    let hash = handshake.hash(key, key_id);
    let (top, tag) = match content {
        Content::Options(options) => {
            let bits = options.to_bits();
            (bits ^ hash.mask(), hash.tag(bits))
        }
        Content::Mss(index) => {
            let mss = u32::from(index) >> 1 & 3;
            let tag = hash.tag(strong_bits(mss));
            (strong_top(hash, mss, tag), tag)
        }
    };
    Cookie {
        isn: top << OPTIONS_SHIFT | key_id << KEY_ID_SHIFT | tag & ISN_TAG,
        tag,
        clock_offset: hash.clock_offset(),
    }
}

/// The key id of a cookie with this ISN: the lowest bit of its epoch.
#[inline(always)]
pub fn key_id(isn: u32) -> u32 {
    isn >> KEY_ID_SHIFT & 1
}

/// A cookie that was found to be genuine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The options of the SYN.
    pub options: Options,
    /// A hash of the handshake that all holders of the key agree on.
    pub hash: u32,
}

/// Checks the cookie that an acknowledgment repeats: `isn` is its SEG.ACK minus 1, `echo` its TSecr if it carries
/// timestamps ([`Handshake::timestamps`] is taken from there, too). `None`: `key` did not make it, or it is not
/// `accepted`.
#[inline(always)]
pub fn check(key: Key, handshake: &Handshake, isn: u32, echo: Option<u32>, accepted: Accepted) -> Option<Checked> {
    let handshake = Handshake {
        timestamps: echo.is_some(),
        ..*handshake
    };
    let hash = handshake.hash(key, key_id(isn));
    if echo.is_none() {
        let mss = isn >> (OPTIONS_SHIFT + STRONG_TAG_BITS) ^ hash.mask() & 3;
        let tag = hash.tag(strong_bits(mss));
        if (strong_top(hash, mss, tag) ^ isn >> OPTIONS_SHIFT) | (tag ^ isn) & ISN_TAG == 0 {
            return Some(Checked {
                options: Options::only_mss((mss << 1) as u8),
                hash: (hash.0 >> 32) as u32,
            });
        }
        if accepted == Accepted::Strong {
            return None;
        }
    }
    let bits = isn >> OPTIONS_SHIFT ^ hash.mask();
    let tag = hash.tag(bits);
    let stamped = match echo {
        Some(echo) => echo & TIMESTAMP_TAG ^ timestamp_tag(tag),
        None => 0,
    };
    if (tag ^ isn) & ISN_TAG | stamped != 0 {
        return None;
    }
    Some(Checked {
        options: Options::from_bits(bits),
        hash: (hash.0 >> 32) as u32,
    })
}

/// The key of epoch `epoch`, derived from `secret`.
pub fn key_of_epoch(secret: Key, epoch: u64) -> Key {
    Key(siphash24(secret, &[epoch, 0]), siphash24(secret, &[epoch, 1]))
}

/// The keys by which cookies are accepted at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    key_id: u32,
    current: Key,
    previous: Key,
    next: Option<Key>,
}

impl Keys {
    /// The keys of `epoch` and the one before it. `next_too`: the clocks of other hosts may already be in the epoch
    /// after it, so its cookies are accepted as well.
    pub fn new(secret: Key, epoch: u64, next_too: bool) -> Self {
        Self {
            key_id: epoch as u32 & 1,
            current: key_of_epoch(secret, epoch),
            previous: key_of_epoch(secret, epoch.wrapping_sub(1)),
            next: next_too.then(|| key_of_epoch(secret, epoch.wrapping_add(1))),
        }
    }

    /// The key to make cookies with, and its id.
    pub fn current(&self) -> (Key, u32) {
        (self.current, self.key_id)
    }

    /// The keys as the XDP program has them: that of key id 0, that of key id 1, and the next epoch's if that is
    /// accepted.
    pub fn slots(&self) -> [Option<Key>; 3] {
        let by_id = if self.key_id == 0 {
            [self.current, self.previous]
        } else {
            [self.previous, self.current]
        };
        [Some(by_id[0]), Some(by_id[1]), self.next]
    }

    /// [`check`] with the keys that may have made this cookie: one, but for moments around the beginning of an epoch.
    pub fn check(&self, handshake: &Handshake, isn: u32, echo: Option<u32>, accepted: Accepted) -> Option<Checked> {
        let check = |key| check(key, handshake, isn, echo, accepted);
        if key_id(isn) == self.key_id {
            return check(self.current);
        }
        check(self.previous).or_else(|| self.next.and_then(check))
    }
}

#[cfg(test)]
#[path = "syn_cookie_tests.rs"]
mod tests;
