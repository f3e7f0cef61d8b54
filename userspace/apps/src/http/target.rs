//! The request target (RFC 9112, section 3.2) and the path below the root that it names.

use std::borrow::Cow;

use super::host::is_host;

/// The target of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// The decoded path relative to the root: no dot segments, no empty segments, no leading slash. It is empty or
    /// ends with a slash where the request named a directory.
    pub(super) path: Cow<'a, [u8]>,
    /// The query behind the question mark, as it was sent.
    pub(super) query: Option<&'a str>,
}

/// Reads a target in origin-form or absolute-form; `None` where the request is malformed or leads out of the root.
pub(super) fn parse(target: &str) -> Option<Target<'_>> {
    if target.contains('#') {
        return None;
    }
    let local = if target.starts_with('/') {
        target
    } else {
        strip_authority(target)?
    };
    let (path, query) = match local.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (local, None),
    };
    // The path of an absolute-form may be empty, which means the root.
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = if is_plain(path) {
        Cow::Borrowed(path.as_bytes())
    } else {
        Cow::Owned(normalise(path)?)
    };
    Some(Target { path, query })
}

/// The part of an absolute-form behind scheme and authority.
fn strip_authority(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let authority = rest.find(['/', '?']).unwrap_or(rest.len());
    if authority == 0 || !is_host(&rest.as_bytes()[..authority]) {
        return None;
    }
    Some(&rest[authority..])
}

/// True where the path means what its bytes say. A false alarm (a dotfile) is only slower.
fn is_plain(path: &str) -> bool {
    let mut previous = b'/';
    for byte in path.bytes() {
        if matches!(byte, b'%' | b'\\') || (previous == b'/' && matches!(byte, b'/' | b'.')) {
            return false;
        }
        previous = byte;
    }
    true
}

/// Decodes segment by segment, so that an encoded slash never becomes a separator, and removes dot segments
/// (RFC 3986, section 5.2.4). Backslashes are refused: some path handling takes them for slashes.
fn normalise(path: &str) -> Option<Vec<u8>> {
    let mut normal = Vec::with_capacity(path.len());
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        let start = normal.len();
        decode(segment, &mut normal)?;
        let decoded = &normal[start..];
        if decoded.iter().any(|byte| matches!(byte, 0 | b'/' | b'\\')) {
            return None;
        }
        if matches!(decoded, b"" | b".") {
            normal.truncate(start);
        } else if decoded == b".." {
            normal.truncate(start);
            // The slash after the parent, which is missing above the root.
            normal.pop()?;
            let parent = normal
                .iter()
                .rposition(|&byte| byte == b'/')
                .map_or(0, |slash| slash + 1);
            normal.truncate(parent);
        } else if segments.peek().is_some() {
            normal.push(b'/');
        }
    }
    Some(normal)
}

/// Appends `segment` with its percent-encoding undone; `None` where a percent sign is not followed by two digits.
fn decode(segment: &str, out: &mut Vec<u8>) -> Option<()> {
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        out.push(if byte == b'%' {
            (hex(bytes.next()?)? << 4) | hex(bytes.next()?)?
        } else {
            byte
        });
    }
    Some(())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(target: &str) -> Option<String> {
        parse(target).map(|target| String::from_utf8(target.path.into_owned()).unwrap())
    }

    #[test]
    fn paths_are_decoded_and_normalised() {
        for (target, expected) in [
            ("/", ""),
            ("/index.html", "index.html"),
            ("/a/b/c.txt", "a/b/c.txt"),
            ("/a/", "a/"),
            ("//a//b", "a/b"),
            ("/./a/./b/.", "a/b/"),
            ("/a/../b", "b"),
            ("/a/b/..", "a/"),
            ("/a/b/../", "a/"),
            ("/a/..", ""),
            ("/a/%2e%2e/b", "b"),
            ("/a/%2E./b", "b"),
            ("/.hidden", ".hidden"),
            ("/...", "..."),
            ("/a%20b", "a b"),
            ("/%61", "a"),
            ("/%25", "%"),
            ("/%2541", "%41"),
            ("/%C3%A9", "\u{e9}"),
            ("/a?b=/../c", "a"),
            ("/?", ""),
            ("http://example.com", ""),
            ("http://example.com/", ""),
            ("HTTP://example.com:80/a/../b", "b"),
            ("https://example.com?x", ""),
        ] {
            assert_eq!(path(target).as_deref(), Some(expected), "{target}");
        }
    }

    #[test]
    fn what_leads_out_of_the_root_or_hides_something_is_refused() {
        for target in [
            "",
            "*",
            "a",
            "example.com:80",
            "ftp://example.com/",
            "http:///a",
            "http://a:xx/",
            "http://:80/",
            "http://user@a/",
            "http://[::1/",
            "://a/",
            "/..",
            "/../",
            "/../etc/passwd",
            "/a/../../b",
            "/%2e%2e/b",
            "/.%2e/b",
            "/a/%2e%2e/%2E%2e/b",
            "//../a",
            "/a%2fb",
            "/..%2fetc",
            "/a%2Fb",
            "/a%00",
            "/%00",
            "/a\\b",
            "/..\\b",
            "/a%5cb",
            "/%",
            "/%2",
            "/%zz",
            "/%+1",
            "/a#b",
            "http://example.com/../a",
        ] {
            assert_eq!(path(target), None, "{target}");
        }
    }

    #[test]
    fn the_query_is_kept_apart() {
        assert_eq!(parse("/a?b?c").unwrap().query, Some("b?c"));
        assert_eq!(parse("/a").unwrap().query, None);
    }

    #[test]
    fn a_plain_path_is_borrowed() {
        assert!(matches!(parse("/a/b.html").unwrap().path, Cow::Borrowed(_)));
        assert!(matches!(parse("/a/./b.html").unwrap().path, Cow::Owned(_)));
    }
}
