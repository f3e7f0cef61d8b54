//! The client's side of HTTP/1.1: the request, and a reader for the response.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

pub(crate) use tidegate_args::url::Url;

/// The longest response head in bytes, however it comes.
const MAX_HEAD: usize = 16 * 1024;

/// The most fields in a response head.
const MAX_FIELDS: usize = 64;

/// A complete response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// Status code.
    pub(crate) status: u16,
    /// Bytes of the body.
    pub(crate) length: u64,
    /// SHA-256 of the body.
    pub(crate) hash: [u8; 32],
    /// The server leaves the connection open for another request.
    pub(crate) keep_alive: bool,
}

/// Why bytes are not a response this client reads, as a phrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) String);

/// The head of a response.
pub(crate) struct Head {
    /// Bytes of the head.
    pub(crate) end: usize,
    /// Status code.
    pub(crate) status: u16,
    /// Bytes of the body; `None` if the end of the connection is its end.
    pub(crate) length: Option<u64>,
    /// The server leaves the connection open for another request.
    pub(crate) keep_alive: bool,
}

/// Reads one response after the other from pieces of any size.
pub(crate) struct ResponseReader {
    buffer: Vec<u8>,
    head: Option<Head>,
    received: u64,
    hasher: Sha256,
}

impl ResponseReader {
    /// A reader that waits for the first byte of a response.
    pub(crate) fn new() -> Self {
        Self {
            buffer: Vec::new(),
            head: None,
            received: 0,
            hasher: Sha256::new(),
        }
    }

    /// Takes what arrived. `Some` when it completed a response; the reader is then ready for the next.
    ///
    /// # Errors
    ///
    /// The bytes are no response, or go on after its end although nothing else was asked for.
    pub(crate) fn feed(&mut self, input: &[u8]) -> Result<Option<Response>, Malformed> {
        if self.head.is_some() {
            return self.body(input);
        }
        self.buffer.extend_from_slice(input);
        let head = loop {
            match parse_head(&self.buffer)? {
                None => return Ok(None),
                // An interim response (RFC 9110, section 15.2) stands before the one that counts.
                Some(interim) if interim.status < 200 => {
                    self.buffer.drain(..interim.end);
                }
                Some(head) => break head,
            }
        };
        let end = head.end;
        self.head = Some(head);
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.body(&buffer[end..]);
        buffer.clear();
        self.buffer = buffer;
        result
    }

    /// The server closed its side. `Some` when that is what ends the response under way.
    pub(crate) fn end_of_stream(&mut self) -> Option<Response> {
        if matches!(self.head, Some(Head { length: None, .. })) {
            self.finish()
        } else {
            None
        }
    }

    fn body(&mut self, data: &[u8]) -> Result<Option<Response>, Malformed> {
        let length = self.head.as_ref().and_then(|head| head.length);
        self.received += data.len() as u64;
        if let Some(length) = length
            && self.received > length
        {
            let excess = self.received - length;
            return Err(Malformed(format!("{excess} bytes after the end of the response")));
        }
        self.hasher.update(data);
        if length == Some(self.received) {
            return Ok(self.finish());
        }
        Ok(None)
    }

    fn finish(&mut self) -> Option<Response> {
        let head = self.head.take()?;
        let hasher = std::mem::replace(&mut self.hasher, Sha256::new());
        Some(Response {
            status: head.status,
            length: std::mem::take(&mut self.received),
            hash: hasher.finalize().into(),
            keep_alive: head.keep_alive && head.length.is_some(),
        })
    }
}

/// Reads the head at the start of `bytes`; `None` if there is more to come.
///
/// # Errors
///
/// The bytes are no response head this client reads, or one of more than 16 KiB.
pub(crate) fn parse_head(bytes: &[u8]) -> Result<Option<Head>, Malformed> {
    let bytes = &bytes[..bytes.len().min(MAX_HEAD)];
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    // A line that continues the one before is to be read as one line (RFC 9112, section 5.2).
    let result = httparse::ParserConfig::default()
        .allow_obsolete_multiline_headers_in_responses(true)
        .parse_response(&mut response, bytes);
    let end = match result {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) if bytes.len() == MAX_HEAD => {
            return Err(Malformed(format!("a response head of more than {MAX_HEAD} bytes")));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::Version) => match with_version_1_1(bytes) {
            Some(head) => return parse_head(&head),
            None => return Err(Malformed("not an HTTP response head of version 1".to_owned())),
        },
        Err(error) => return Err(Malformed(format!("not an HTTP response head: {error}"))),
    };
    let status = response.code.unwrap_or_default();
    let mut keep_alive = response.version == Some(1);
    let mut closes = false;
    let mut length = None;
    for field in response.headers.iter() {
        let value = unfolded(field.value);
        let value = value.trim();
        if field.name.eq_ignore_ascii_case("content-length") {
            length = Some(content_length(value, length)?);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(Malformed(format!(
                "Transfer-Encoding is `{value}`; this client reads bodies by length only"
            )));
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
    // These never have a body, whatever Content-Length says (RFC 9112, section 6.3).
    if matches!(status, 204 | 304) {
        length = Some(0);
    }
    Ok(Some(Head {
        end,
        status,
        length,
        keep_alive: keep_alive && !closes,
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

    fn hash(body: &[u8]) -> [u8; 32] {
        Sha256::digest(body).into()
    }

    #[test]
    fn any_split_gives_the_same_responses() {
        let one = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        for step in 1..=one.len() {
            let mut reader = ResponseReader::new();
            for _ in 0..2 {
                let mut last = None;
                for piece in one.chunks(step) {
                    assert_eq!(last, None);
                    last = reader.feed(piece).unwrap();
                }
                let expected = Response {
                    status: 200,
                    length: 5,
                    hash: hash(b"hello"),
                    keep_alive: true,
                };
                assert_eq!(last, Some(expected), "pieces of {step}");
            }
        }
    }

    #[test]
    fn the_end_of_the_stream_ends_a_body_without_length_only() {
        let mut reader = ResponseReader::new();
        assert_eq!(reader.feed(b"HTTP/1.1 200 OK\r\n\r\nabc").unwrap(), None);
        let response = reader.end_of_stream().unwrap();
        assert_eq!(
            (response.length, response.hash, response.keep_alive),
            (3, hash(b"abc"), false)
        );

        let mut reader = ResponseReader::new();
        assert_eq!(
            reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc").unwrap(),
            None
        );
        assert_eq!(reader.end_of_stream(), None);
        assert_eq!(ResponseReader::new().end_of_stream(), None);
    }

    #[test]
    fn persistence_follows_version_and_connection_field() {
        for (head, keep_alive) in [
            ("HTTP/1.1 200 OK", true),
            ("HTTP/1.1 200 OK\r\nConnection: Close", false),
            ("HTTP/1.0 200 OK", false),
            ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive", true),
            ("HTTP/1.0 200 OK\r\nConnection: close, keep-alive", false),
            ("HTTP/1.2 200 OK", true),
            ("HTTP/1.9 200 OK\r\nConnection: close", false),
            ("HTTP/1.1 200 OK\r\nConnection: x,\r\n close", false),
        ] {
            let text = format!("{head}\r\nContent-Length: 0\r\n\r\n");
            let response = ResponseReader::new().feed(text.as_bytes()).unwrap().unwrap();
            assert_eq!(response.keep_alive, keep_alive, "{head}");
        }
    }

    #[test]
    fn a_later_minor_version_comes_in_pieces_of_any_size() {
        for version in ["1.2", "1.9"] {
            let text =
                format!("HTTP/{version} 100 Continue\r\n\r\nHTTP/{version} 200 OK\r\nContent-Length: 2\r\n\r\nab");
            for step in 1..=text.len() {
                let mut reader = ResponseReader::new();
                let mut last = None;
                for piece in text.as_bytes().chunks(step) {
                    assert_eq!(last, None);
                    last = reader.feed(piece).unwrap();
                }
                let response = last.map(|response| (response.status, response.length, response.keep_alive));
                assert_eq!(response, Some((200, 2, true)), "{version} in pieces of {step}");
            }
        }
        for version in ["1.22", "1.2x", "2.0", "1.a"] {
            let text = format!("HTTP/{version} 200 OK\r\nContent-Length: 0\r\n\r\n");
            for step in 1..=text.len() {
                let mut reader = ResponseReader::new();
                let result = text
                    .as_bytes()
                    .chunks(step)
                    .try_fold(None, |_, piece| reader.feed(piece));
                assert!(result.is_err(), "{version} in pieces of {step}");
            }
        }
    }

    #[test]
    fn interim_responses_are_skipped_and_304_has_no_body() {
        let text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n";
        let response = ResponseReader::new().feed(text).unwrap().unwrap();
        assert_eq!((response.status, response.length), (304, 0));
    }

    #[test]
    fn what_is_no_response_is_refused() {
        for text in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
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
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(ResponseReader::new().feed(text.as_bytes()).is_err(), "{text}");
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
                let mut reader = ResponseReader::new();
                let mut last = None;
                for piece in text.as_bytes().chunks(step) {
                    last = reader.feed(piece).unwrap();
                }
                assert_eq!(
                    last.map(|response| response.length),
                    Some(5),
                    "{fields:?} in pieces of {step}"
                );
            }
        }
    }

    #[test]
    fn a_head_is_too_long_in_one_piece_and_in_many() {
        let head = |length: usize| {
            let (begin, end) = ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: ", "\r\n\r\n");
            format!("{begin}{}{end}", "x".repeat(length - begin.len() - end.len()))
        };
        for (length, right) in [(MAX_HEAD, true), (MAX_HEAD + 1, false), (20_000, false)] {
            let text = head(length);
            for size in [length, length - 1, length / 2 + 1, 1460] {
                let mut reader = ResponseReader::new();
                let result = text
                    .as_bytes()
                    .chunks(size)
                    .try_fold(None, |_, piece| reader.feed(piece));
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
