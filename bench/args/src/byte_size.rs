//! Byte sizes: `4096`, `64KiB`, `100MB`.

/// The unit suffixes, longest first within a family so that a prefix never wins.
const UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// Parses `100`, `100B`, `64KiB`, `100MB`. kB, MB and GB are powers of ten; KiB, MiB and GiB powers of two.
///
/// # Errors
///
/// A sentence, if the text is not a whole number with one of these units or does not fit 64 bits.
pub fn parse(text: &str) -> Result<u64, String> {
    let (digits, unit) = UNITS
        .iter()
        .find_map(|&(suffix, unit)| text.strip_suffix(suffix).map(|digits| (digits, unit)))
        .unwrap_or((text, 1));
    let wrong = || format!("`{text}` is not an amount of bytes; write it like 4096, 64KiB or 100MB");
    let digits = digits.trim_end();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_decimal_or_binary() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("12B", 12),
            ("1kB", 1000),
            ("1KB", 1000),
            ("64KiB", 65_536),
            ("100MB", 100_000_000),
            ("1 MiB", 1_048_576),
            ("2GB", 2_000_000_000),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in ["", "MB", "-1", "+1", "1.5MB", "1M", "1mb", "99999999999GB", "0x10"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
