//! The options of IPv4 headers, and those of IPv6 hop-by-hop and destination headers. None of them changes anything
//! here; they are read for those that forbid to take the packet.

use super::ParseError;

const V4_END: u8 = 0;
const V4_NO_OPERATION: u8 = 1;
const V4_LOOSE_SOURCE_ROUTE: u8 = 131;
const V4_STRICT_SOURCE_ROUTE: u8 = 137;

const V6_PAD_1: u8 = 0;
const V6_PAD_N: u8 = 1;
/// The action of a host that does not know an option: 0 is to skip it, anything else to discard the packet (RFC 8200,
/// section 4.2).
const V6_ACTION: u8 = 0b1100_0000;

/// Options of one IPv6 header that are not padding, and octets of padding in a row; Linux's defaults. More of either
/// serve nothing but to be walked through.
const V6_MAX_OPTIONS: usize = 8;
const V6_MAX_PADDING: usize = 7;

/// Reads the options of an IPv4 header.
///
/// # Errors
///
/// [`ParseError::SourceRoute`] for a source route, finished or not, and [`ParseError::Malformed`] for lengths that do
/// not fit.
pub(super) fn check_v4(mut options: &[u8]) -> Result<(), ParseError> {
    loop {
        options = match *options {
            [] | [V4_END, ..] => return Ok(()),
            [V4_NO_OPERATION, ref rest @ ..] => rest,
            [V4_LOOSE_SOURCE_ROUTE | V4_STRICT_SOURCE_ROUTE, ..] => return Err(ParseError::SourceRoute),
            [_, length @ 2..=u8::MAX, ..] => options.get(usize::from(length)..).ok_or(ParseError::Malformed)?,
            _ => return Err(ParseError::Malformed),
        };
    }
}

/// Whether a packet with these options in a hop-by-hop or destination header may be taken, as Linux decides it.
pub(super) fn is_acceptable_v6(mut options: &[u8]) -> bool {
    let (mut count, mut padding) = (0, 0);
    loop {
        options = match *options {
            [] => return true,
            [V6_PAD_1, ref rest @ ..] => {
                padding += 1;
                rest
            }
            [kind, length, ref rest @ ..] => {
                let Some((data, rest)) = rest.split_at_checked(usize::from(length)) else {
                    return false;
                };
                if kind == V6_PAD_N {
                    padding += 2 + data.len();
                    if data.iter().any(|&octet| octet != 0) {
                        return false;
                    }
                } else {
                    padding = 0;
                    count += 1;
                    if kind & V6_ACTION != 0 {
                        return false;
                    }
                }
                rest
            }
            [_] => return false,
        };
        if count > V6_MAX_OPTIONS || padding > V6_MAX_PADDING {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn options_of_ipv4_are_skipped_but_for_source_routes() {
        // Record route, timestamp, router alert, and one nobody knows.
        let harmless: [&[u8]; 5] = [
            &[7, 7, 4, 0, 0, 0, 0, 0],
            &[68, 8, 5, 0, 0, 0, 0, 0],
            &[148, 4, 0, 0],
            &[222, 2, 1, 1],
            &[0, 131, 3, 4],
        ];
        for options in harmless {
            assert_eq!(check_v4(options), Ok(()), "{options:?}");
        }
        // With the pointer at an address and behind the last one, and behind other options.
        for options in [
            &[131, 7, 4, 198, 18, 0, 9, 0][..],
            &[131, 7, 8, 198, 18, 0, 9, 0],
            &[137, 7, 4, 198, 18, 0, 9, 0],
            &[1, 7, 3, 4, 1, 137, 3, 4],
        ] {
            assert_eq!(check_v4(options), Err(ParseError::SourceRoute), "{options:?}");
        }
        for options in [&[7, 1, 0, 0][..], &[7, 0, 0, 0], &[7, 5, 4, 0], &[1, 1, 1, 7]] {
            assert_eq!(check_v4(options), Err(ParseError::Malformed), "{options:?}");
        }
    }

    #[test]
    fn options_of_ipv6_decide_by_their_action_bits() {
        let acceptable: [&[u8]; 4] = [
            &[1, 4, 0, 0, 0, 0],
            &[5, 2, 0, 0, 1, 0],
            &[0x1e, 0, 0x3e, 0, 0, 0],
            &[4, 1, 4, 0, 0, 0],
        ];
        for options in acceptable {
            assert!(is_acceptable_v6(options), "{options:?}");
        }
        for kind in [0x40, 0x5e, 0x80, 0xc0, 0xc2, 0xc9, 0xff] {
            assert!(!is_acceptable_v6(&[kind, 4, 0, 0, 0, 0]), "{kind:#x}");
            assert!(!is_acceptable_v6(&[5, 2, 0, 0, kind, 0]), "{kind:#x}");
        }
    }

    #[test]
    fn options_of_ipv6_that_do_not_end_with_their_header_or_only_fill_it_are_refused() {
        for options in [&[5, 5, 0, 0, 0, 0][..], &[1, 4, 0, 0, 1, 0], &[0, 0, 0, 0, 0, 5]] {
            assert!(!is_acceptable_v6(options), "{options:?}");
        }
        assert!(is_acceptable_v6(&[0; V6_MAX_PADDING]));
        assert!(!is_acceptable_v6(&[0; V6_MAX_PADDING + 1]));
        assert!(!is_acceptable_v6(&[1, 6, 0, 0, 0, 0, 0, 0]));
        assert!(is_acceptable_v6(&[0x1e, 0].repeat(V6_MAX_OPTIONS)));
        assert!(!is_acceptable_v6(&[0x1e, 0].repeat(V6_MAX_OPTIONS + 1)));
    }

    proptest! {
        #[test]
        fn anything_may_be_checked(options in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = check_v4(&options);
            is_acceptable_v6(&options);
        }
    }
}
