//! Byte ranges (RFC 9110, section 14).

use super::fields::{decimal, list, split_once};

/// The part of a representation that a Range header field asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteRange {
    /// Everything: the field is to be ignored.
    Whole,
    /// `length` bytes (at least 1) from offset `first`.
    Part {
        /// Offset of the first byte.
        first: u64,
        /// Number of bytes.
        length: u64,
    },
    /// Nothing of the representation is in the range.
    Unsatisfiable,
}

/// Applies the Range field `value` to a representation of `length` bytes.
///
/// A set of several ranges is answered with the whole, as section 14.2 allows: a multipart response can be larger.
pub(super) fn resolve(value: &[u8], length: u64) -> ByteRange {
    let Some((unit, set)) = split_once(value, b'=') else {
        return ByteRange::Whole;
    };
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return ByteRange::Whole;
    }
    let mut ranges = list(set);
    let (Some(range), None) = (ranges.next(), ranges.next()) else {
        return ByteRange::Whole;
    };
    let Some((first, last)) = split_once(range, b'-') else {
        return ByteRange::Whole;
    };
    if first.is_empty() {
        return match decimal(last) {
            Some(0) => ByteRange::Unsatisfiable,
            Some(suffix) if length > 0 => {
                let suffix = suffix.min(length);
                ByteRange::Part {
                    first: length - suffix,
                    length: suffix,
                }
            }
            // Malformed, or satisfiable by an empty representation, whose Content-Range could not be written.
            _ => ByteRange::Whole,
        };
    }
    let Some(first) = decimal(first) else {
        return ByteRange::Whole;
    };
    let last = if last.is_empty() { Some(u64::MAX) } else { decimal(last) };
    match last {
        Some(last) if last >= first => {
            if first >= length {
                return ByteRange::Unsatisfiable;
            }
            ByteRange::Part {
                first,
                length: last.min(length - 1) - first + 1,
            }
        }
        _ => ByteRange::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(first: u64, length: u64) -> ByteRange {
        ByteRange::Part { first, length }
    }

    #[test]
    fn ranges_of_a_hundred_bytes() {
        for (value, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-99", part(0, 100)),
            ("bytes=0-", part(0, 100)),
            ("bytes=10-19", part(10, 10)),
            ("bytes=99-", part(99, 1)),
            ("bytes=90-1000", part(90, 10)),
            ("bytes=90-99999999999999999999999", part(90, 10)),
            ("bytes=-1", part(99, 1)),
            ("bytes=-100", part(0, 100)),
            ("bytes=-1000", part(0, 100)),
            ("Bytes= 1-2 ", part(1, 2)),
            ("bytes=1-2,", part(1, 2)),
            ("bytes=100-", ByteRange::Unsatisfiable),
            ("bytes=100-200", ByteRange::Unsatisfiable),
            ("bytes=99999999999999999999999-", ByteRange::Unsatisfiable),
            ("bytes=-0", ByteRange::Unsatisfiable),
            ("bytes=2-1", ByteRange::Whole),
            ("bytes=0-1,3-4", ByteRange::Whole),
            ("bytes=", ByteRange::Whole),
            ("bytes=-", ByteRange::Whole),
            ("bytes=a-b", ByteRange::Whole),
            ("bytes=1", ByteRange::Whole),
            ("bytes=1--2", ByteRange::Whole),
            ("bytes=+1-2", ByteRange::Whole),
            ("lines=1-2", ByteRange::Whole),
            ("bytes", ByteRange::Whole),
            ("", ByteRange::Whole),
        ] {
            assert_eq!(resolve(value.as_bytes(), 100), expected, "{value}");
        }
    }

    #[test]
    fn an_empty_representation_has_no_range() {
        assert_eq!(resolve(b"bytes=0-", 0), ByteRange::Unsatisfiable);
        assert_eq!(resolve(b"bytes=-5", 0), ByteRange::Whole);
    }
}
