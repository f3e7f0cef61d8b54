//! Host and port, as in the Host field and in absolute targets (RFC 9110, section 7.2; RFC 3986, section 3.2).

use std::net::Ipv6Addr;

/// The bytes a name may have unencoded: unreserved ones and sub-delims.
static NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&'..=b',' | b';' | b'='
            );
        byte += 1;
    }
    table
};

/// True where `value` is a host, with or without a port, or empty, which the Host field is where the target has no
/// authority. User information is none of a host's.
#[inline]
pub(super) fn is_host(value: &[u8]) -> bool {
    // All bytes are looked at: there are few, and nearly always all pass.
    is_plain(value) || is_unusual_host(value)
}

#[inline]
fn is_plain(value: &[u8]) -> bool {
    value
        .iter()
        .fold(true, |all, &byte| all & NAME_BYTES[usize::from(byte)])
}

/// The same for a value that has a port, brackets or percent signs, if it is a host at all.
#[inline(never)]
fn is_unusual_host(value: &[u8]) -> bool {
    let end = match value.strip_prefix(b"[") {
        Some(rest) => match rest.iter().position(|&byte| byte == b']') {
            Some(length) if is_ip_literal(&rest[..length]) => length + 2,
            _ => return false,
        },
        None => {
            let end = value.iter().position(|&byte| byte == b':').unwrap_or(value.len());
            if end == 0 || !is_name(&value[..end]) {
                return false;
            }
            end
        }
    };
    match &value[end..] {
        [] => true,
        [b':', port @ ..] => is_port(port),
        _ => false,
    }
}

/// A name, whose percent signs stand before two hexadecimal digits.
fn is_name(name: &[u8]) -> bool {
    let mut pieces = name.split(|&byte| byte == b'%');
    pieces.next().is_some_and(is_plain)
        && pieces.all(|piece| match piece {
            [high, low, rest @ ..] => high.is_ascii_hexdigit() && low.is_ascii_hexdigit() && is_plain(rest),
            _ => false,
        })
}

/// The inside of brackets: an IPv6 address without a zone, or an address of a version to come.
fn is_ip_literal(literal: &[u8]) -> bool {
    if let [b'v' | b'V', future @ ..] = literal {
        let dot = future.iter().position(|&byte| byte == b'.');
        return dot.is_some_and(|dot| {
            let (version, address) = (&future[..dot], &future[dot + 1..]);
            !version.is_empty()
                && version.iter().all(u8::is_ascii_hexdigit)
                && !address.is_empty()
                && address
                    .iter()
                    .all(|&byte| byte == b':' || NAME_BYTES[usize::from(byte)])
        });
    }
    std::str::from_utf8(literal).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// A port, which may be empty.
fn is_port(port: &[u8]) -> bool {
    port.iter()
        .try_fold(0_u16, |number, &byte| {
            let digit = byte.is_ascii_digit().then(|| u16::from(byte - b'0'))?;
            number.checked_mul(10)?.checked_add(digit)
        })
        .is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for host in [
            "",
            "a",
            "a:",
            "a:80",
            "a:080",
            "a:65535",
            "example.com.",
            "xn--bcher-kva.example:8080",
            "a_b",
            "a%20b",
            "a%C3%A9:1",
            "198.18.0.1",
            "198.18.0.1:80",
            "[2001:2::1]",
            "[2001:2::1]:",
            "[2001:2::1]:80",
            "[::ffff:198.18.0.1]:80",
            "[v1.a:b]",
            "a,b;c=d",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn what_is_no_host() {
        for text in [
            ":",
            ":80",
            "a:xx",
            "a:-1",
            "a:+1",
            "a:8 0",
            "a:65536",
            "a:99999999999999999999",
            "a:80:80",
            "a::80",
            "2001:2::1",
            "user@a",
            "user:password@a:80",
            "a/b",
            "a b",
            "a\tb",
            "a, b",
            "a%",
            "a%2",
            "a%zz",
            "[",
            "[]",
            "]",
            "[]:80",
            "[2001:2::1",
            "2001:2::1]",
            "[2001:2::1]80",
            "[2001:2::1]:xx",
            "[2001:2::1]a",
            "a[2001:2::1]",
            "[[2001:2::1]]",
            "[198.18.0.1]",
            "[fe80::1%eth0]",
            "[fe80::1%25eth0]",
            "[2001:2::1::]",
            "[v.a]",
            "[v1.]",
            "[vx.a]",
            "a#b",
            "a?b",
            "a\\b",
            "a\"b",
            "<a>",
            "b\u{fc}cher",
        ] {
            assert!(!is_host(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_name_is_made_of_the_bytes_of_a_name() {
        for byte in 0..=255_u8 {
            let expected = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte);
            assert_eq!(is_name(&[b'a', byte, b'z']), expected, "{byte:#x}");
        }
    }
}
