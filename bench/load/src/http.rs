//! The client's side of HTTP/1.1: the head of a response.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Read};
use std::mem::MaybeUninit;

pub use tidegate_args::url::Url;

/// The longest response head in bytes, however it comes, where nothing else is asked for.
pub const MAX_HEAD: usize = 64 * 1024;

/// The most fields in a response head.
const MAX_FIELDS: usize = 256;

/// Why bytes are not a response this client reads, as a phrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

/// The head of a response.
pub struct Head {
    /// Bytes of the head.
    pub end: usize,
    /// Status code.
    pub status: u16,
    /// The end of the body, for a request other than HEAD.
    pub body: BodyEnd,
    /// The server leaves the connection open for another request, unless its end is that of the body.
    pub keep_alive: bool,
    /// The Location field of a redirect.
    pub location: Option<String>,
}

/// The way a body ends (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// Its length in bytes.
    Length(u64),
    /// The last of the chunks it comes in.
    LastChunk,
    /// The end of the connection.
    Connection,
}

impl Head {
    /// Returns the number of bytes of the body, if the head says it.
    pub fn length(&self) -> Option<u64> {
        match self.body {
            BodyEnd::Length(length) => Some(length),
            BodyEnd::LastChunk | BodyEnd::Connection => None,
        }
    }
}

/// Reads a response head from `stream` and returns it with the bytes that came after it.
///
/// # Errors
///
/// Reading fails, the stream ends before the head does, or the bytes are no response head
/// ([`io::ErrorKind::InvalidData`]).
pub fn read_head(stream: &mut impl Read) -> io::Result<(Head, Vec<u8>)> {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => {
                let text = "the connection was closed before the head of the response was complete";
                return Err(io::Error::new(ErrorKind::UnexpectedEof, text));
            }
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        let invalid = |Malformed(text)| io::Error::new(ErrorKind::InvalidData, text);
        if let Some(head) = parse_head(&received).map_err(invalid)? {
            let rest = received.split_off(head.end);
            return Ok((head, rest));
        }
    }
}

/// Reads the head at the start of `bytes`; `None` if there is more to come.
///
/// # Errors
///
/// The bytes are no response head this client reads, or one of more than [`MAX_HEAD`] bytes.
pub fn parse_head(bytes: &[u8]) -> Result<Option<Head>, Malformed> {
    parse_head_within(MAX_HEAD, bytes)
}

/// As [`parse_head`], with another limit.
///
/// # Errors
///
/// The bytes are no response head this client reads, or one of more than `max_head` bytes.
pub fn parse_head_within(max_head: usize, bytes: &[u8]) -> Result<Option<Head>, Malformed> {
    let bytes = &bytes[..bytes.len().min(max_head)];
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    // A line that continues the one before is to be read as one line (RFC 9112, section 5.2).
    let result = httparse::ParserConfig::default()
        .allow_obsolete_multiline_headers_in_responses(true)
        .parse_response_with_uninit_headers(&mut response, bytes, &mut fields);
    let end = match result {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) if bytes.len() == max_head => {
            return Err(Malformed(format!("a response head of more than {max_head} bytes")));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Malformed(format!("a response head of more than {MAX_FIELDS} fields")));
        }
        Err(httparse::Error::Version) => match with_version_1_1(bytes) {
            Some(head) => return parse_head_within(max_head, &head),
            None => return Err(Malformed("not an HTTP response head of version 1".to_owned())),
        },
        Err(error) => return Err(Malformed(format!("not an HTTP response head: {error}"))),
    };
    let status = response.code.unwrap_or_default();
    let mut keep_alive = response.version == Some(1);
    let mut closes = false;
    let mut length = None;
    let mut coding = None;
    let mut location = None;
    for field in response.headers.iter() {
        let value = unfolded(field.value);
        let value = value.trim();
        if field.name.eq_ignore_ascii_case("content-length") {
            length = Some(content_length(value, length)?);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            // What was applied last says how the body ends.
            coding = value.rsplit(',').next().map(|last| last.trim().to_owned()).or(coding);
        } else if field.name.eq_ignore_ascii_case("location") && (300..400).contains(&status) {
            location = location.or_else(|| Some(value.to_owned()));
        } else if field.name.eq_ignore_ascii_case("connection") {
            for option in value.split(',').map(str::trim) {
                if option.eq_ignore_ascii_case("close") {
                    closes = true;
                } else if option.eq_ignore_ascii_case("keep-alive") {
                    keep_alive = true;
                }
            }
        }
    }
    if coding.is_some() && response.version == Some(0) {
        // RFC 9112, section 6.1.
        return Err(Malformed("Transfer-Encoding in a response of HTTP/1.0".to_owned()));
    }
    let body = match (coding, length) {
        // These never have a body, whatever the fields say.
        _ if status < 200 || matches!(status, 204 | 304) => BodyEnd::Length(0),
        // It takes the place of Content-Length.
        (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => BodyEnd::LastChunk,
        (Some(_), _) | (None, None) => BodyEnd::Connection,
        (None, Some(length)) => BodyEnd::Length(length),
    };
    Ok(Some(Head {
        end,
        status,
        body,
        keep_alive: keep_alive && !closes,
        location,
    }))
}

/// A copy of `bytes` with version 1.1 in the place of a later minor version, which is to be understood like it
/// (RFC 9110, section 2.5); `None` where there is another. What comes after the digit may not have come yet.
fn with_version_1_1(bytes: &[u8]) -> Option<Vec<u8>> {
    let rest = bytes.strip_prefix(b"HTTP/1.")?;
    if !matches!(rest, [b'2'..=b'9'] | [b'2'..=b'9', b' ', ..]) {
        return None;
    }
    Some([b"HTTP/1.1", &rest[1..]].concat())
}

/// A value with each line end in it, and the white space around that, replaced by a space.
fn unfolded(value: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(value);
    if text.contains('\n') {
        let lines: Vec<&str> = text.split('\n').map(str::trim).collect();
        return Cow::Owned(lines.join(" "));
    }
    text
}

/// The value of a Content-Length field, which may be repeated as long as all say the same. Numbers are digits: not all
/// that Rust takes for a number is one.
fn content_length(value: &str, earlier: Option<u64>) -> Result<u64, Malformed> {
    let mut length = earlier;
    for member in value.split(',').map(str::trim) {
        let number = member
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| member.parse::<u64>().ok())
            .flatten()
            .ok_or_else(|| Malformed(format!("Content-Length is `{value}`")))?;
        if length.is_some_and(|earlier| earlier != number) {
            return Err(Malformed("two different Content-Length fields".to_owned()));
        }
        length = Some(number);
    }
    length.ok_or_else(|| Malformed("Content-Length is empty".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the head of the final response in `text`, of which `step` bytes more come at a time.
    fn head_in_pieces(text: &[u8], step: usize) -> Result<Option<Head>, Malformed> {
        let mut start = 0;
        for end in (step..text.len() + step).step_by(step) {
            while let Some(head) = parse_head(&text[start..end.min(text.len())])? {
                if head.status >= 200 {
                    return Ok(Some(head));
                }
                start += head.end;
            }
        }
        Ok(None)
    }

    fn head(text: &str) -> Result<Option<Head>, Malformed> {
        head_in_pieces(text.as_bytes(), text.len())
    }

    #[test]
    fn a_head_is_read_from_a_stream_with_what_follows() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel";
        let (head, rest) = read_head(&mut &text[..]).unwrap();
        assert_eq!((head.status, head.length(), &rest[..]), (200, Some(5), &b"hel"[..]));
        let kind = |text: &[u8]| read_head(&mut &*text).err().map(|error| error.kind());
        assert_eq!(kind(&text[..20]), Some(ErrorKind::UnexpectedEof));
        assert_eq!(kind(b"220 smtp\r\n\r\n"), Some(ErrorKind::InvalidData));
    }

    #[test]
    fn persistence_follows_version_and_connection_field() {
        for (line, keep_alive) in [
            ("HTTP/1.1 200 OK", true),
            ("HTTP/1.1 200 OK\r\nConnection: Close", false),
            ("HTTP/1.0 200 OK", false),
            ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive", true),
            ("HTTP/1.0 200 OK\r\nConnection: close, keep-alive", false),
            ("HTTP/1.2 200 OK", true),
            ("HTTP/1.9 200 OK\r\nConnection: close", false),
            ("HTTP/1.1 200 OK\r\nConnection: x,\r\n close", false),
        ] {
            let text = format!("{line}\r\nContent-Length: 0\r\n\r\n");
            let found = head(&text).unwrap().unwrap();
            assert_eq!(found.keep_alive, keep_alive, "{line}");
        }
    }

    #[test]
    fn a_later_minor_version_comes_in_pieces_of_any_size() {
        for version in ["1.2", "1.9"] {
            let text =
                format!("HTTP/{version} 100 Continue\r\n\r\nHTTP/{version} 200 OK\r\nContent-Length: 2\r\n\r\nab");
            for step in 1..=text.len() {
                let head = head_in_pieces(text.as_bytes(), step).unwrap();
                let head = head.map(|head| (head.status, head.length(), head.keep_alive));
                assert_eq!(head, Some((200, Some(2), true)), "{version} in pieces of {step}");
            }
        }
        for version in ["1.22", "1.2x", "2.0", "1.a"] {
            let text = format!("HTTP/{version} 200 OK\r\nContent-Length: 0\r\n\r\n");
            for step in 1..=text.len() {
                let result = head_in_pieces(text.as_bytes(), step);
                assert!(result.is_err(), "{version} in pieces of {step}");
            }
        }
    }

    #[test]
    fn interim_responses_are_skipped_and_304_has_no_body() {
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n";
        let head = head(text).unwrap().unwrap();
        assert_eq!((head.status, head.length()), (304, Some(0)));
    }

    #[test]
    fn what_is_no_response_is_refused() {
        for text in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nContent-Length: 0x1\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nContent-Length: 1,\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nContent-Length: 1 1\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n 1\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nx",
            "HTTP/2.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(head(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_body_ends_as_the_fields_say() {
        for (text, body, keep_alive) in [
            ("200 OK\r\nTransfer-Encoding: chunked", BodyEnd::LastChunk, true),
            ("200 OK\r\nTransfer-Encoding: gzip, Chunked", BodyEnd::LastChunk, true),
            (
                "200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
                BodyEnd::LastChunk,
                true,
            ),
            (
                "200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5",
                BodyEnd::LastChunk,
                true,
            ),
            (
                "200 OK\r\nTransfer-Encoding: chunked, gzip\r\nContent-Length: 5",
                BodyEnd::Connection,
                true,
            ),
            ("200 OK", BodyEnd::Connection, true),
            ("204 No Content\r\nTransfer-Encoding: chunked", BodyEnd::Length(0), true),
            ("304 Not Modified", BodyEnd::Length(0), true),
            ("103 Early Hints\r\nLink: x", BodyEnd::Length(0), true),
        ] {
            let text = format!("HTTP/1.1 {text}\r\n\r\n");
            let head = parse_head(text.as_bytes()).unwrap().unwrap();
            assert_eq!((head.body, head.keep_alive), (body, keep_alive), "{text}");
        }
    }

    #[test]
    fn the_location_is_that_of_a_redirect() {
        for (status, location) in [("301 Moved", Some("/a b")), ("200 OK", None), ("201 Created", None)] {
            let text = format!("HTTP/1.1 {status}\r\nlocation: /a b\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(head(&text).unwrap().unwrap().location.as_deref(), location);
        }
    }

    #[test]
    fn a_head_may_have_many_fields_and_not_too_many() {
        for (count, right) in [(MAX_FIELDS, true), (MAX_FIELDS + 1, false)] {
            let text = format!("HTTP/1.1 204 No Content\r\n{}\r\n", "X: y\r\n".repeat(count));
            match head(&text) {
                Ok(found) => assert!(right && found.is_some(), "{count}"),
                Err(Malformed(detail)) => assert!(!right && detail.contains("256 fields"), "{count}: {detail}"),
            }
        }
    }

    #[test]
    fn a_length_may_be_repeated_and_fields_be_folded() {
        for fields in [
            "Content-Length: 5, 5",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length:\r\n 5",
            "X: a\r\n\tb\r\n c\r\nContent-Length: 5",
            "Content-Length: 5\r\nX:\r\n ",
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nhello");
            for step in 1..=text.len() {
                let head = head_in_pieces(text.as_bytes(), step).unwrap();
                let length = head.and_then(|head| head.length());
                assert_eq!(length, Some(5), "{fields:?} in pieces of {step}");
            }
        }
    }

    #[test]
    fn a_head_is_too_long_in_one_piece_and_in_many() {
        let head = |length: usize| {
            let (begin, end) = ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: ", "\r\n\r\n");
            format!("{begin}{}{end}", "x".repeat(length - begin.len() - end.len()))
        };
        for (length, right) in [(MAX_HEAD, true), (MAX_HEAD + 1, false), (80_000, false)] {
            let text = head(length);
            for size in [length, length - 1, length / 2 + 1, 1460] {
                let result = head_in_pieces(text.as_bytes(), size);
                assert_eq!(
                    matches!(result, Ok(Some(_))),
                    right,
                    "{length} bytes in pieces of {size}"
                );
                assert_eq!(result.is_err(), !right);
            }
        }
    }
}
