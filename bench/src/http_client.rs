//! The client's side of HTTP/1.1: an address to ask, the request, and a reader for the response.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// Longest response head in bytes.
const HEAD_LIMIT: usize = 16 * 1024;

/// Most fields in a response head.
const FIELD_LIMIT: usize = 64;

/// `http://ADDRESS[:PORT]/PATH`, with an IP address: nothing is resolved, so nothing but the server is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    /// Where to connect to.
    pub(crate) address: SocketAddr,
    /// What to ask for, starting with `/`.
    pub(crate) path: String,
    authority: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text
            .strip_prefix("http://")
            .ok_or_else(|| "the URL must start with http://".to_owned())?;
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        let address = authority
            .parse::<SocketAddr>()
            .ok()
            .or_else(|| {
                let bracketed = authority.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                let ip = match bracketed {
                    Some(inner) => IpAddr::V6(inner.parse().ok()?),
                    None => IpAddr::V4(authority.parse().ok()?),
                };
                Some(SocketAddr::new(ip, 80))
            })
            .ok_or_else(|| format!("`{authority}` is not an IP address with a port; IPv6 addresses go in brackets"))?;
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the path must be printable ASCII; encode other bytes as %XX".to_owned());
        }
        Ok(Self {
            address,
            path: path.to_owned(),
            authority: authority.to_owned(),
        })
    }
}

impl Url {
    /// A GET request for this URL. With `keep_alive` false it asks the server to close the connection after the response.
    pub(crate) fn request(&self, keep_alive: bool) -> Vec<u8> {
        let Self { path, authority, .. } = self;
        let connection = if keep_alive { "" } else { "Connection: close\r\n" };
        format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: tidegate-bench\r\n{connection}\r\n")
            .into_bytes()
    }
}

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
    keep_alive: bool,
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
                None if self.buffer.len() > HEAD_LIMIT => {
                    return Err(Malformed(format!("a response head of more than {HEAD_LIMIT} bytes")));
                }
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
/// The bytes are no response head this client reads.
pub(crate) fn parse_head(bytes: &[u8]) -> Result<Option<Head>, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; FIELD_LIMIT];
    let mut response = httparse::Response::new(&mut fields);
    let end = match response.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(Malformed(format!("not an HTTP response head: {error}"))),
    };
    let status = response.code.unwrap_or_default();
    let mut keep_alive = response.version == Some(1);
    let mut length = None;
    for field in response.headers.iter() {
        let value = std::str::from_utf8(field.value).unwrap_or_default().trim();
        if field.name.eq_ignore_ascii_case("content-length") {
            let number = value
                .parse::<u64>()
                .map_err(|_| Malformed(format!("Content-Length is `{value}`")))?;
            if length.is_some_and(|earlier| earlier != number) {
                return Err(Malformed("two different Content-Length fields".to_owned()));
            }
            length = Some(number);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(Malformed(format!(
                "Transfer-Encoding is `{value}`; this client reads bodies by length only"
            )));
        } else if field.name.eq_ignore_ascii_case("connection") {
            for option in value.split(',').map(str::trim) {
                if option.eq_ignore_ascii_case("close") {
                    keep_alive = false;
                } else if option.eq_ignore_ascii_case("keep-alive") && response.version == Some(0) {
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
        keep_alive,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(body: &[u8]) -> [u8; 32] {
        Sha256::digest(body).into()
    }

    #[test]
    fn urls() {
        for (text, address, path) in [
            ("http://198.18.0.1:8080/a?b", "198.18.0.1:8080", "/a?b"),
            ("http://198.18.0.1", "198.18.0.1:80", "/"),
            ("http://[2001:2::1]:81/", "[2001:2::1]:81", "/"),
            ("http://[2001:2::1]/x", "[2001:2::1]:80", "/x"),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!(
                (url.address.to_string().as_str(), url.path.as_str()),
                (address, path),
                "{text}"
            );
        }
        for text in [
            "198.18.0.1/",
            "https://198.18.0.1/",
            "http://name/",
            "http://198.18.0.1:0x/",
            "http://2001:2::1/",
            "http://1.1.1.1/a b",
        ] {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_request_asks_to_close_only_without_keep_alive() {
        let url: Url = "http://198.18.0.1:8080/x".parse().unwrap();
        let request = String::from_utf8(url.request(true)).unwrap();
        assert!(request.starts_with("GET /x HTTP/1.1\r\nHost: 198.18.0.1:8080\r\n"));
        assert!(request.ends_with("\r\n\r\n"));
        assert!(!request.contains("close"));
        assert!(
            String::from_utf8(url.request(false))
                .unwrap()
                .ends_with("Connection: close\r\n\r\n")
        );
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
        ] {
            let text = format!("{head}\r\nContent-Length: 0\r\n\r\n");
            let response = ResponseReader::new().feed(text.as_bytes()).unwrap().unwrap();
            assert_eq!(response.keep_alive, keep_alive, "{head}");
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
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(ResponseReader::new().feed(text.as_bytes()).is_err(), "{text}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_LIMIT));
        assert!(ResponseReader::new().feed(endless.as_bytes()).is_err());
    }
}
