//! The options of a SYN (RFC 9293, section 3.1).

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use tidegate_abi::syn_cookie::{MAX_WINDOW_SCALE, NO_WINDOW_SCALE};

use crate::frame::Frame;
use crate::scratch::Scratch;

/// Kinds of options without a length (RFC 9293, section 3.2).
const END_OF_OPTION_LIST: u8 = 0;
const NO_OPERATION: u8 = 1;

/// Octets of a timestamps option before TSval, and before TSecr (RFC 7323, section 3.2).
const VALUE: usize = 2;
const ECHO: usize = 6;

/// Options, padding included: one octet is the shortest.
const MAX_OPTIONS: usize = 40;

/// The options a SYN offers, in one word.
#[derive(Clone, Copy)]
pub struct Offer(u64);

impl Offer {
    const MSS_SHIFT: u32 = 32;
    const WINDOW_SCALE_SHIFT: u32 = 48;
    const HAS_MSS: u64 = 1 << 52;
    const HAS_TIMESTAMP: u64 = 1 << 53;
    const SACK_PERMITTED: u64 = 1 << 54;

    /// Not an offer: they could not be read.
    const UNREAD: u64 = 1 << 63;

    /// No options at all.
    const NONE: Self = Self((NO_WINDOW_SCALE as u64) << Self::WINDOW_SCALE_SHIFT);

    /// Reads the `length` octets of options at `offset`, at most 40. `None`: one has an impossible length.
    #[inline(always)]
    pub fn read(frame: Frame<'_>, scratch: Scratch, offset: usize, length: usize) -> Option<Self> {
        scratch.set_offer(Self::UNREAD);
        if let Some(offer) = usual(frame, offset, length) {
            scratch.set_offer(offer.0);
        }
        let words = scratch.offer();
        if words & Self::UNREAD == 0 {
            return Some(Self(words));
        }
        // What these were compared with, the verifier has learned.
        let (at, left) = scratch.launder_both(offset, length);
        let octets = read_octets(frame.context(), at, left, VALUE);
        (octets & Self::UNREAD == 0).then_some(Self(octets))
    }

    /// The MSS, if there is one.
    #[inline(always)]
    pub fn mss(self) -> Option<u16> {
        (self.0 & Self::HAS_MSS != 0).then_some((self.0 >> Self::MSS_SHIFT) as u16)
    }

    /// The shift, or [`NO_WINDOW_SCALE`].
    #[inline(always)]
    pub fn window_scale(self) -> u8 {
        (self.0 >> Self::WINDOW_SCALE_SHIFT & 15) as u8
    }

    /// TSval, if there is one.
    #[inline(always)]
    pub fn timestamp(self) -> Option<u32> {
        (self.0 & Self::HAS_TIMESTAMP != 0).then_some(self.0 as u32)
    }

    /// Whether SACK is permitted.
    #[inline(always)]
    pub fn sack_permitted(self) -> bool {
        self.0 & Self::SACK_PERMITTED != 0
    }

    /// The offer of its MSS alone.
    #[inline(always)]
    pub fn only_mss(self) -> Self {
        Self(self.0 & (Self::HAS_MSS | 0xffff << Self::MSS_SHIFT) | Self::NONE.0)
    }

    #[inline(always)]
    fn with_mss(self, mss: u16) -> Self {
        let others = self.0 & !(0xffff << Self::MSS_SHIFT);
        Self(others | u64::from(mss) << Self::MSS_SHIFT | Self::HAS_MSS)
    }

    #[inline(always)]
    fn with_window_scale(self, shift: u8) -> Self {
        let others = self.0 & !(15 << Self::WINDOW_SCALE_SHIFT);
        Self(others | u64::from(shift & 15) << Self::WINDOW_SCALE_SHIFT)
    }

    #[inline(always)]
    fn with_timestamp(self, value: u32) -> Self {
        Self(self.0 & !0xffff_ffff | u64::from(value) | Self::HAS_TIMESTAMP)
    }
}

/// TSecr of the `length` octets of options at `offset`, at most 40, if there are timestamps. `None`: one has an
/// impossible length.
#[inline(always)]
pub fn echo(frame: Frame<'_>, scratch: Scratch, offset: usize, length: usize) -> Option<Option<u32>> {
    let (at, left) = scratch.launder_both(offset, length);
    let octets = read_octets(frame.context(), at, left, ECHO);
    (octets & Offer::UNREAD == 0).then_some(Offer(octets).timestamp())
}

/// Reads any options, and of timestamps the number at octet `timestamp` of theirs, [`VALUE`] or [`ECHO`]. Returns the
/// offer as a word, [`Offer::UNREAD`] if one has an impossible length. A function of its own, so that the verifier goes
/// through it once.
#[inline(never)]
fn read_octets(context: *mut xdp_md, offset: usize, length: usize, timestamp: usize) -> u64 {
    let Some(scratch) = Scratch::get() else {
        return Offer::UNREAD;
    };
    let context = XdpContext::new(context);
    if any(Frame::new(&context), offset, length, timestamp, scratch).is_none() {
        return Offer::UNREAD;
    }
    scratch.offer()
}

/// Reads options that systems are used to send: each begins, with its padding, at a multiple of 4 octets. `None`: these
/// do not.
#[inline(always)]
fn usual(frame: Frame<'_>, offset: usize, length: usize) -> Option<Offer> {
    let mut offer = Offer::NONE;
    // Words of timestamps still to come.
    let mut timestamps = 0;
    let mut words = frame.from(offset).word_cursor();
    for index in 0..MAX_OPTIONS / 4 {
        if index * 4 >= length {
            break;
        }
        let word = words.read()?;
        if timestamps > 0 {
            if timestamps == 2 {
                offer = offer.with_timestamp(word);
            }
            timestamps -= 1;
        } else if word >> 16 == 0x0204 {
            offer = offer.with_mss(word as u16);
        } else if word >> 8 == 0x01_0303 {
            offer = offer.with_window_scale((word as u8).min(MAX_WINDOW_SCALE));
        } else if word == 0x0402_080a {
            offer = Offer(offer.0 | Offer::SACK_PERMITTED);
            timestamps = 2;
        } else if word == 0x0101_080a {
            timestamps = 2;
        } else if word == 0x0101_0402 || word == 0x0402_0101 || word == 0x0402_0000 {
            offer = Offer(offer.0 | Offer::SACK_PERMITTED);
        } else if word >> 24 == u32::from(END_OF_OPTION_LIST) {
            break;
        } else {
            return None;
        }
    }
    (timestamps == 0).then_some(offer)
}

#[inline(always)]
fn any(frame: Frame<'_>, offset: usize, length: usize, timestamp: usize, scratch: Scratch) -> Option<()> {
    scratch.set_offer(Offer::NONE.0);
    scratch.set_at(0);
    for _ in 0..MAX_OPTIONS {
        let at = scratch.at();
        if at >= length {
            break;
        }
        let option = frame.from(offset + at);
        let &[kind] = option.first()?;
        if kind == END_OF_OPTION_LIST {
            break;
        }
        if kind == NO_OPERATION {
            scratch.set_at(at + 1);
            continue;
        }
        // Past the end of the options this is an octet of the text, if of anything.
        let &[_, option_length] = option.first()?;
        let option_length = usize::from(option_length);
        if option_length < 2 || at + option_length > length {
            return None;
        }
        let offer = Offer(scratch.offer());
        let offer = match (kind, option_length) {
            (2, 4) => {
                let &[_, _, high, low] = option.first()?;
                offer.with_mss(u16::from_be_bytes([high, low]))
            }
            (3, 3) => {
                let &[_, _, shift] = option.first()?;
                offer.with_window_scale(shift.min(MAX_WINDOW_SCALE))
            }
            (4, 2) => Offer(offer.0 | Offer::SACK_PERMITTED),
            (8, 10) => {
                let octets = frame.from(offset + at + timestamp).first()?;
                offer.with_timestamp(u32::from_be_bytes(*octets))
            }
            _ => offer,
        };
        scratch.set_offer(offer.0);
        scratch.set_at(at + option_length);
    }
    Some(())
}
