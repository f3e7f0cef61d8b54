//! Sequence numbers: 32 bits that wrap (RFC 9293, section 3.4).

use core::ops::{Add, AddAssign, Sub};

/// A TCP sequence number. Comparisons are modulo 2^32 and make sense for numbers less than 2^31 apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SeqNumber(pub u32);

impl SeqNumber {
    /// Whether this number comes before `other`.
    #[inline]
    pub const fn before(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// Whether this number comes after `other`.
    #[inline]
    pub const fn after(self, other: Self) -> bool {
        other.before(self)
    }

    /// Whether this number is `other` or comes before it.
    #[inline]
    pub const fn at_or_before(self, other: Self) -> bool {
        !other.before(self)
    }

    /// Whether this number is `other` or comes after it.
    #[inline]
    pub const fn at_or_after(self, other: Self) -> bool {
        !self.before(other)
    }

    /// Whether this number, the end of something that was sent, is not acknowledged: SND.UNA < it =< SND.NXT. A number
    /// remembered from long ago is not, though it seems to come after `una` again when 2^31 more octets were sent.
    #[inline]
    pub const fn is_unacknowledged(self, una: Self, nxt: Self) -> bool {
        self.after(una) && self.at_or_before(nxt)
    }

    /// The later of the two.
    #[inline]
    pub const fn max(self, other: Self) -> Self {
        if self.before(other) { other } else { self }
    }

    /// The earlier of the two.
    #[inline]
    pub const fn min(self, other: Self) -> Self {
        if self.before(other) { self } else { other }
    }

    /// The distance of this number from `earlier`, zero if it does not lie after it.
    #[inline]
    pub const fn saturating_since(self, earlier: Self) -> u32 {
        if self.before(earlier) {
            0
        } else {
            self.0.wrapping_sub(earlier.0)
        }
    }
}

impl Add<u32> for SeqNumber {
    type Output = Self;

    #[inline]
    fn add(self, bytes: u32) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

impl AddAssign<u32> for SeqNumber {
    #[inline]
    fn add_assign(&mut self, bytes: u32) {
        self.0 = self.0.wrapping_add(bytes);
    }
}

impl Sub<u32> for SeqNumber {
    type Output = Self;

    #[inline]
    fn sub(self, bytes: u32) -> Self {
        Self(self.0.wrapping_sub(bytes))
    }
}

impl Sub for SeqNumber {
    type Output = u32;

    /// The distance from `earlier` to this number, modulo 2^32.
    #[inline]
    fn sub(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn order_survives_the_wrap() {
        let last = SeqNumber(u32::MAX);
        assert!(last.before(last + 1));
        assert!((last + 1).after(last));
        assert_eq!(last + 1, SeqNumber(0));
        assert_eq!((last + 5) - last, 5);
        assert_eq!(last.max(last + 1), SeqNumber(0));
        assert_eq!(last.min(last + 1), last);
        assert_eq!(last.saturating_since(last + 1), 0);
    }

    #[test]
    fn only_the_end_of_what_is_outstanding_is_unacknowledged() {
        let (una, nxt) = (SeqNumber(u32::MAX - 10), SeqNumber(20));
        for end in [una + 1, SeqNumber(0), nxt] {
            assert!(end.is_unacknowledged(una, nxt), "{end:?}");
        }
        for end in [una, una - 1, nxt + 1, una + (1 << 31), nxt + (1 << 31), una - (1 << 30)] {
            assert!(!end.is_unacknowledged(una, nxt), "{end:?}");
        }
    }

    proptest! {
        #[test]
        fn before_agrees_with_distance(start: u32, distance in 1..i32::MAX as u32) {
            let (a, b) = (SeqNumber(start), SeqNumber(start) + distance);
            prop_assert!(a.before(b) && !b.before(a) && a.at_or_before(b) && b.at_or_after(a));
            prop_assert_eq!(b - a, distance);
        }
    }
}
