//! Request heads: what httparse finds, and what the fields mean for the connection.

use std::mem::MaybeUninit;

use httparse::Header;

use super::config::Config;
use super::fields::{decimal, is_word, list};
use super::host::is_host;
use super::status::Status;

/// Bytes of a request line that are not its target, generously: method, version, spaces and line end.
const REQUEST_LINE_EXTRA: usize = 64;

/// The method of a request, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    /// A method of RFC 9110 or RFC 5789 that no resource here has.
    NotAllowed,
    /// No method this server has heard of.
    Unknown,
}

/// The way the end of the body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// By the number of its bytes, which may be zero.
    Length(u64),
    Chunked,
}

/// A complete request head whose framing is beyond doubt.
#[derive(Debug)]
pub(super) struct Request<'h, 'b> {
    pub(super) method: Method,
    pub(super) target: &'b str,
    /// HTTP/1.1, not HTTP/1.0.
    pub(super) is_1_1: bool,
    /// The client lets the connection stay open after the response.
    pub(super) persistent: bool,
    pub(super) framing: Framing,
    /// The client waits for 100 (Continue) before it sends the body.
    pub(super) expects_continue: bool,
    /// There is at least one of the fields that depend on the representation: If-*, Range.
    pub(super) conditional: bool,
    headers: &'h [Header<'b>],
}

/// A head that cannot be answered as a request: the response is an error, and the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) status: Status,
    /// The method was HEAD: the response must not have a body.
    pub(super) head_only: bool,
}

impl From<Status> for Rejection {
    fn from(status: Status) -> Self {
        Self {
            status,
            head_only: false,
        }
    }
}

impl<'b> Request<'_, 'b> {
    /// The values of all fields with this (lower-case) name.
    pub(super) fn values(&self, name: &'static str) -> impl Iterator<Item = &'b [u8]> {
        self.headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }

    /// The value of a field that may occur only once; `None` where it is missing or occurs several times.
    pub(super) fn value(&self, name: &'static str) -> Option<&'b [u8]> {
        let mut values = self.values(name);
        let first = values.next()?;
        values.next().is_none().then_some(first)
    }
}

/// Length of the empty lines before a request line, which are to be ignored (RFC 9112, section 2.2).
#[inline]
pub(super) fn empty_lines(data: &[u8]) -> usize {
    let mut at = 0;
    loop {
        match data[at..] {
            [b'\r', b'\n', ..] => at += 2,
            [b'\n', ..] => at += 1,
            _ => return at,
        }
    }
}

/// True where more of an unfinished head can neither complete it nor make it too long, since no line has ended:
/// the first `scanned` bytes of `data` have already been found unfinished.
#[inline]
pub(super) fn is_surely_unfinished(data: &[u8], scanned: usize, config: &Config) -> bool {
    scanned > 0
        && data.len() < config.max_head.min(config.max_uri)
        && data.get(scanned..).is_some_and(|fresh| !fresh.contains(&b'\n'))
}

/// Reads the head at the start of `data`. Returns its length and meaning, `None` while it is unfinished.
///
/// # Errors
///
/// The head is malformed or too large, or its framing is doubtful.
#[inline(always)]
pub(super) fn parse<'h, 'b>(
    data: &'b [u8],
    storage: &'h mut [MaybeUninit<Header<'b>>],
    config: &Config,
) -> Result<Option<(usize, Request<'h, 'b>)>, Rejection> {
    let mut window = &data[..data.len().min(config.max_head)];
    // A request line that is too long is so whether its end has come or not.
    let max_line = config.max_uri.saturating_add(REQUEST_LINE_EXTRA);
    if window.len() > max_line && !window[..=max_line].contains(&b'\n') {
        window = &window[..=max_line];
    }
    let mut parsed = httparse::Request::new(&mut []);
    let result = parsed.parse_with_uninit_headers(window, storage);
    let head_only = parsed.method == Some("HEAD");
    let reject = |status| Err(Rejection { status, head_only });

    if parsed.path.is_some_and(|path| path.len() > config.max_uri) {
        return reject(Status::UriTooLong);
    }
    let line_finished = || window.contains(&b'\n');
    let length = match result {
        Ok(httparse::Status::Complete(length)) => length,
        // A version is judged when all of it has arrived, so that the answer does not depend on segment boundaries.
        Ok(httparse::Status::Partial) | Err(httparse::Error::Version) if !line_finished() => {
            let full = window.len() == config.max_head;
            if full || window.len() > max_line {
                return reject(Status::UriTooLong);
            }
            return Ok(None);
        }
        Ok(httparse::Status::Partial) if window.len() == config.max_head => {
            return reject(Status::RequestHeaderFieldsTooLarge);
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return reject(Status::RequestHeaderFieldsTooLarge),
        Err(httparse::Error::Version) if matches!(version(window), Some((1, 2..) | (2.., _))) => {
            return reject(Status::HttpVersionNotSupported);
        }
        Err(_) => return reject(Status::BadRequest),
    };
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return reject(Status::BadRequest);
    };
    let headers: &'h [Header<'b>] = parsed.headers;
    interpret(method, target, minor == 1, headers)
        .map(|request| Some((length, request)))
        .or_else(reject)
}

/// Major and minor version in a request line that is well-formed up to them, and where the line has them.
fn version_at(head: &[u8]) -> Option<(usize, (u8, u8))> {
    let line = head.split(|&byte| byte == b'\n').next()?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut spaces = line.iter().enumerate().filter(|&(_, &byte)| byte == b' ');
    let (_, second, third) = (spaces.next()?, spaces.next()?.0, spaces.next());
    match line[second + 1..] {
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            major @ b'0'..=b'9',
            b'.',
            minor @ b'0'..=b'9',
        ] if third.is_none() => Some((second + 1, (major - b'0', minor - b'0'))),
        _ => None,
    }
}

fn version(head: &[u8]) -> Option<(u8, u8)> {
    version_at(head).map(|(_, version)| version)
}

/// A copy of the head at the start of `data` that has version 1.1 in the place of a later minor version, which is to be
/// understood like it (RFC 9110, section 2.5); `None` where it has another version. It is cut where [`parse`] would
/// find the head too long.
pub(super) fn with_version_1_1(data: &[u8], config: &Config) -> Option<Vec<u8>> {
    let (at, (1, 2..)) = version_at(data)? else {
        return None;
    };
    let mut copy = data[..data.len().min(config.max_head)].to_vec();
    *copy.get_mut(at + b"HTTP/1.".len())? = b'1';
    Some(copy)
}

/// The meaning of the fields for the connection, the framing and the method.
#[inline]
fn interpret<'h, 'b>(
    method: &str,
    target: &'b str,
    is_1_1: bool,
    headers: &'h [Header<'b>],
) -> Result<Request<'h, 'b>, Status> {
    let mut fields = Fields::default();
    for header in headers {
        fields.add(*header, is_1_1)?;
    }
    if fields.hosts > 1 || (is_1_1 && fields.hosts == 0) {
        return Err(Status::BadRequest);
    }
    let framing = match (fields.chunked, fields.length) {
        // Two servers that disagree on which of the two counts can be made to see different requests.
        (true, Some(_)) => return Err(Status::BadRequest),
        (true, None) => Framing::Chunked,
        (false, length) => Framing::Length(length.unwrap_or(0)),
    };
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE" | "PATCH" => Method::NotAllowed,
        _ => Method::Unknown,
    };
    Ok(Request {
        method,
        target,
        is_1_1,
        persistent: !fields.close && (is_1_1 || fields.keep_alive),
        framing,
        expects_continue: fields.expects_continue,
        conditional: fields.conditional,
        headers,
    })
}

/// The fields that have a meaning for every request.
#[derive(Default)]
struct Fields {
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    conditional: bool,
}

impl Fields {
    /// Takes a field into account.
    ///
    /// # Errors
    ///
    /// The status to answer with.
    #[inline]
    fn add(&mut self, header: Header<'_>, is_1_1: bool) -> Result<(), Status> {
        let Header { name, value } = header;
        let name = name.as_bytes();
        // Length and first letter already rule out most of the fields that have no meaning here.
        let initial = name.first().map_or(0, u8::to_ascii_lowercase);
        match (name.len(), initial) {
            (4, b'h') if is_word(name, b"host") => {
                self.hosts += 1;
                if !is_host(value) {
                    return Err(Status::BadRequest);
                }
            }
            (5, b'r') if is_word(name, b"range") => self.conditional = true,
            (6, b'e') if is_word(name, b"expect") && is_1_1 => {
                for expectation in list(value) {
                    if !expectation.eq_ignore_ascii_case(b"100-continue") {
                        return Err(Status::ExpectationFailed);
                    }
                    self.expects_continue = true;
                }
            }
            (8, b'i') if is_word(name, b"if-match") || is_word(name, b"if-range") => self.conditional = true,
            (10, b'c') if is_word(name, b"connection") => self.connection(value),
            (13, b'i') if is_word(name, b"if-none-match") => self.conditional = true,
            (14, b'c') if is_word(name, b"content-length") => self.length = Some(content_length(value, self.length)?),
            (17, b't') if is_word(name, b"transfer-encoding") => {
                // HTTP/1.0 has no transfer codings, and what came through it is doubtful (RFC 9112, section 6.1).
                if !is_1_1 || self.chunked {
                    return Err(Status::BadRequest);
                }
                transfer_encoding(value)?;
                self.chunked = true;
            }
            (17, b'i') if is_word(name, b"if-modified-since") => self.conditional = true,
            (19, b'i') if is_word(name, b"if-unmodified-since") => self.conditional = true,
            _ => {}
        }
        Ok(())
    }

    #[inline]
    fn connection(&mut self, value: &[u8]) {
        // Nearly always it is one option.
        if is_word(value, b"close") {
            self.close = true;
            return;
        }
        for option in list(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
}

/// The value of a Content-Length field, which may be repeated as long as all say the same.
fn content_length(value: &[u8], earlier: Option<u64>) -> Result<u64, Status> {
    let mut length = earlier;
    for member in value.split(|&byte| byte == b',') {
        let number = decimal(member.trim_ascii()).ok_or(Status::BadRequest)?;
        if length.is_some_and(|length| length != number) {
            return Err(Status::BadRequest);
        }
        length = Some(number);
    }
    length.ok_or(Status::BadRequest)
}

/// Accepts `chunked` alone.
fn transfer_encoding(value: &[u8]) -> Result<(), Status> {
    let mut codings = list(value);
    match (codings.next(), codings.next()) {
        (Some(only), None) if only.eq_ignore_ascii_case(b"chunked") => Ok(()),
        (None, _) => Err(Status::BadRequest),
        (Some(first), _) if first.eq_ignore_ascii_case(b"chunked") => Err(Status::BadRequest),
        _ => Err(Status::NotImplemented),
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::MAX_HEADERS;
    use super::*;

    fn outcome(head: &str) -> Result<Option<usize>, Status> {
        let mut storage = [MaybeUninit::uninit(); MAX_HEADERS];
        parse(
            head.as_bytes(),
            &mut storage[..4],
            &Config {
                max_head: 300,
                max_uri: 100,
                ..Config::default()
            },
        )
        .map(|found| found.map(|(length, _)| length))
        .map_err(|rejection| rejection.status)
    }

    fn with_fields(fields: &str) -> Result<(Framing, bool, bool), Status> {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut storage = [MaybeUninit::uninit(); MAX_HEADERS];
        match parse(head.as_bytes(), &mut storage, &Config::default()) {
            Ok(Some((length, request))) => {
                assert_eq!(length, head.len());
                Ok((request.framing, request.persistent, request.expects_continue))
            }
            Ok(None) => panic!("unfinished: {head:?}"),
            Err(rejection) => Err(rejection.status),
        }
    }

    #[test]
    fn heads_that_are_no_requests() {
        for (head, status) in [
            ("GET /\r\n\r\n", Status::BadRequest),
            ("GET  / HTTP/1.1\r\n\r\n", Status::BadRequest),
            ("GET /  HTTP/1.1\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1 \r\n\r\n", Status::BadRequest),
            ("GET / XTTP/1.1\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/11\r\n\r\n", Status::BadRequest),
            ("G\0T / HTTP/1.1\r\n\r\n", Status::BadRequest),
            ("\x16\x03\x01\x02", Status::BadRequest),
            ("GET / HTTP/2.0\r\n\r\n", Status::HttpVersionNotSupported),
            ("GET / HTTP/3.1\r\n\r\n", Status::HttpVersionNotSupported),
            ("GET / HTTP/0.9\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.10\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.x\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/10.1\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/2\r\n\r\n", Status::BadRequest),
            ("GET / http/1.1\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.2 \r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Status::BadRequest),
            ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", Status::BadRequest),
            (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a:xx\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.0\r\nHost: [::1\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", Status::BadRequest),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Status::HttpVersionNotSupported),
            ("GET / HTTP/1.1\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", Status::BadRequest),
            (
                "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
                Status::BadRequest,
            ),
            (
                "GET / HTTP/1.0\r\nA:1\r\nA:1\r\nA:1\r\nA:1\r\nA:1\r\n\r\n",
                Status::RequestHeaderFieldsTooLarge,
            ),
        ] {
            assert_eq!(outcome(head), Err(status), "{head:?}");
        }
    }

    #[test]
    fn the_answer_does_not_depend_on_segment_boundaries() {
        for head in [
            "GET / HTTP/2.0\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: b\r\nC: d\r\n\r\n",
        ] {
            let line = head.find('\n').unwrap();
            for split in 0..line {
                assert_eq!(outcome(&head[..split]), Ok(None), "{:?}", &head[..split]);
            }
        }
    }

    #[test]
    fn limits() {
        let uri = |length: usize| format!("GET /{} HTTP/1.0\r\n", "a".repeat(length - 1));
        assert_eq!(outcome(&format!("{}\r\n", uri(100))), Ok(Some(uri(100).len() + 2)));
        assert_eq!(outcome(&format!("{}\r\n", uri(101))), Err(Status::UriTooLong));
        assert_eq!(outcome(&"a".repeat(100 + REQUEST_LINE_EXTRA)), Ok(None));
        assert_eq!(outcome(&"a".repeat(101 + REQUEST_LINE_EXTRA)), Err(Status::UriTooLong));

        // The end of a line that is too long makes no difference.
        let method = |length: usize| format!("{} / HTTP/1.0\r\n\r\n", "A".repeat(length - 12));
        let longest = 100 + REQUEST_LINE_EXTRA;
        assert_eq!(outcome(&method(longest)), Ok(Some(longest + 3)));
        for end in longest + 1..longest + 4 {
            assert_eq!(outcome(&method(longest + 1)[..end]), Err(Status::UriTooLong));
        }

        let line = "GET / HTTP/1.0\r\n";
        let fill = |total: usize| format!("{line}A: {}\r\n\r\n", "b".repeat(total - line.len() - 7));
        assert_eq!(outcome(&fill(300)), Ok(Some(300)));
        assert_eq!(outcome(&fill(301)), Err(Status::RequestHeaderFieldsTooLarge));
        assert_eq!(outcome(&fill(300)[..299]), Ok(None));
    }

    #[test]
    fn a_rejection_knows_that_the_method_was_head() {
        let mut storage = [MaybeUninit::uninit(); MAX_HEADERS];
        let rejection = parse(b"HEAD / HTTP/1.1\r\n\r\n", &mut storage, &Config::default()).unwrap_err();
        assert_eq!(
            rejection,
            Rejection {
                status: Status::BadRequest,
                head_only: true
            }
        );
    }

    #[test]
    fn framing_is_beyond_doubt() {
        for (fields, expected) in [
            ("", Ok(Framing::Length(0))),
            ("Content-Length: 5\r\n", Ok(Framing::Length(5))),
            ("Content-Length: 5\r\ncontent-length: 5\r\n", Ok(Framing::Length(5))),
            ("Content-Length: 5, 5\r\n", Ok(Framing::Length(5))),
            (
                "Content-Length: 99999999999999999999999\r\n",
                Ok(Framing::Length(u64::MAX)),
            ),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", Err(Status::BadRequest)),
            ("Content-Length: 5, 6\r\n", Err(Status::BadRequest)),
            ("Content-Length: \r\n", Err(Status::BadRequest)),
            ("Content-Length: +5\r\n", Err(Status::BadRequest)),
            ("Content-Length: -5\r\n", Err(Status::BadRequest)),
            ("Content-Length: 0x5\r\n", Err(Status::BadRequest)),
            ("Content-Length: 5 6\r\n", Err(Status::BadRequest)),
            ("Content-Length : 5\r\n", Err(Status::BadRequest)),
            ("Transfer-Encoding: Chunked\r\n", Ok(Framing::Chunked)),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
                Err(Status::BadRequest),
            ),
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                Err(Status::BadRequest),
            ),
            ("Transfer-Encoding: chunked, chunked\r\n", Err(Status::BadRequest)),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Err(Status::BadRequest),
            ),
            ("Transfer-Encoding: chunked, gzip\r\n", Err(Status::BadRequest)),
            ("Transfer-Encoding:\r\n", Err(Status::BadRequest)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(Status::NotImplemented)),
            ("Transfer-Encoding: identity\r\n", Err(Status::NotImplemented)),
            ("Transfer-Encoding: xchunked\r\n", Err(Status::NotImplemented)),
        ] {
            assert_eq!(with_fields(fields).map(|(framing, ..)| framing), expected, "{fields:?}");
        }
    }

    #[test]
    fn names_of_fields_have_no_case() {
        for (field, conditional) in [
            ("RANGE: bytes=0-1", true),
            ("iF-mATCH: *", true),
            ("if-range: x", true),
            ("If-None-Match: *", true),
            ("IF-MODIFIED-SINCE: x", true),
            ("if-Unmodified-Since: x", true),
            ("Renge: bytes=0-1", false),
            ("If-Watch: *", false),
            ("1f-match: *", false),
        ] {
            let head = format!("GET / HTTP/1.1\r\nhOST: a\r\n{field}\r\n\r\n");
            let mut storage = [MaybeUninit::uninit(); MAX_HEADERS];
            let (_, request) = parse(head.as_bytes(), &mut storage, &Config::default())
                .unwrap()
                .unwrap();
            assert_eq!(request.conditional, conditional, "{field:?}");
        }
    }

    #[test]
    fn expectations() {
        assert!(with_fields("Expect: 100-Continue\r\n").unwrap().2);
        for (fields, expected) in [
            ("Expect:\r\n", Ok(false)),
            ("Expect: ,\r\n", Ok(false)),
            ("Expect: 100-continue,\r\n", Ok(true)),
            ("Expect: , 100-continue ,100-CONTINUE\r\n", Ok(true)),
            ("Expect: 100-continue\r\nExpect: 100-continue\r\n", Ok(true)),
            ("Expect:\r\nExpect: 100-continue\r\n", Ok(true)),
            ("Expect: tea\r\n", Err(Status::ExpectationFailed)),
            ("Expect: 100-continue, tea\r\n", Err(Status::ExpectationFailed)),
            (
                "Expect: 100-continue\r\nExpect: tea\r\n",
                Err(Status::ExpectationFailed),
            ),
            ("Expect: 100-continue;q=1\r\n", Err(Status::ExpectationFailed)),
            ("Expect: \"100-continue\"\r\n", Err(Status::ExpectationFailed)),
        ] {
            assert_eq!(with_fields(fields).map(|(.., expects)| expects), expected, "{fields:?}");
        }
    }

    #[test]
    fn connection_options() {
        for (options, persistent) in [
            ("", true),
            ("Connection: keep-alive\r\n", true),
            ("Connection: close\r\n", false),
            ("Connection: Upgrade, CLOSE\r\n", false),
            ("Connection: keep-alive\r\nConnection: close\r\n", false),
            ("Connection: closed\r\n", true),
        ] {
            assert_eq!(with_fields(options).unwrap().1, persistent, "{options:?}");
        }
    }

    #[test]
    fn only_whole_empty_lines_are_skipped() {
        assert_eq!(empty_lines(b"\r\n\n\r\nGET"), 5);
        assert_eq!(empty_lines(b"\r\n\r"), 2);
        assert_eq!(empty_lines(b"GET"), 0);
        assert_eq!(empty_lines(b""), 0);
    }
}
