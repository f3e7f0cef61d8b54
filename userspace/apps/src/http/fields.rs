//! Pieces that header field values are made of (RFC 9110, section 5.6).

/// The members of a comma-separated list, without the empty ones.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// Whether `text` is `wanted`, which consists of small letters and hyphens, but for the case of its letters. `text` has
/// no CR, which would pass for a hyphen: httparse lets none into names and values of fields. (HTAB is in values.)
#[inline]
pub(super) fn is_word<const N: usize>(text: &[u8], wanted: &[u8; N]) -> bool {
    /// The bit that tells small letters from capital ones; hyphens have it, too.
    const SMALL: u8 = 0x20;
    debug_assert!(wanted.iter().all(|&byte| byte.is_ascii_lowercase() || byte == b'-'));
    let Ok(text) = <&[u8; N]>::try_from(text) else {
        return false;
    };
    // Eight at a time: a comparison of one byte after the other would be the longest part of reading a head.
    let (words, rest) = text.as_chunks::<8>();
    let (wanted_words, wanted_rest) = wanted.as_chunks::<8>();
    let mut pairs = words.iter().zip(wanted_words);
    pairs
        .all(|(&word, &wanted)| u64::from_ne_bytes(word) | u64::from_ne_bytes([SMALL; 8]) == u64::from_ne_bytes(wanted))
        && rest
            .iter()
            .zip(wanted_rest)
            .all(|(&byte, &wanted)| byte | SMALL == wanted)
}

/// A decimal number without sign; one that does not fit is the largest that does.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, &byte| {
        byte.is_ascii_digit()
            .then(|| number.saturating_mul(10).saturating_add(u64::from(byte - b'0')))
    })
}

/// The parts before and after the first `separator`.
pub(super) fn split_once(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&byte| byte == separator)?;
    Some((&text[..at], &text[at + 1..]))
}

/// Bytes a token may have (RFC 9110, section 5.6.2).
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Bytes a field value or quoted string may have (RFC 9110, section 5.5).
pub(super) fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_skip_empty_members_and_white_space() {
        let members: Vec<_> = list(b" a ,,\tb,c d, ").collect();
        assert_eq!(members, [&b"a"[..], b"b", b"c d"]);
        assert_eq!(list(b"").count(), 0);
    }

    #[test]
    fn words_are_compared_without_regard_to_case() {
        let wanted = b"transfer-encoding";
        for same in [&b"transfer-encoding"[..], b"Transfer-Encoding", b"TRANSFER-ENCODING"] {
            assert!(is_word(same, wanted));
        }
        for at in 0..wanted.len() {
            for byte in (0..=255).filter(|&byte| byte != b'\r') {
                let mut other = *wanted;
                other[at] = byte;
                assert_eq!(
                    is_word(&other, wanted),
                    other.eq_ignore_ascii_case(wanted),
                    "{byte} at {at}"
                );
            }
        }
        assert!(!is_word(b"transfer-encodin", wanted) && !is_word(b"", wanted));
        assert!(is_word(b"", b""));
    }

    #[test]
    fn numbers_have_digits_only_and_saturate() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"0042"), Some(42));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(decimal(b"99999999999999999999999"), Some(u64::MAX));
        for wrong in [&b""[..], b"+1", b"-1", b"1 ", b"0x1", b"1a"] {
            assert_eq!(decimal(wrong), None);
        }
    }

    #[test]
    fn the_first_separator_splits() {
        assert_eq!(split_once(b"a=b=c", b'='), Some((&b"a"[..], &b"b=c"[..])));
        assert_eq!(split_once(b"abc", b'='), None);
    }
}
