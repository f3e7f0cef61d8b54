//! Finding where responses end, cheaply: all are expected to be like the first.

use sha2::{Digest, Sha256};

use crate::body::{Body, Verify, hex};
use crate::errors::{Failure, Kind};
use crate::http::{Malformed, parse_head};

/// The expectations of all connections of a client, learned from the responses themselves.
///
/// The body has to be as long as that of the first response; it may have to be equal to it ([`Verify`]). The head of
/// the last response is kept: the next one is nearly always equal, byte for byte, and is then read by one comparison.
/// Only where it differs (a new second in the Date field) it is parsed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    /// Bytes of the body, from the first response.
    length: Option<u64>,
    head: Vec<u8>,
    /// The server ends the connection after the response with that head.
    head_is_last: bool,
    /// The hash of bodies is to be taken, and compared.
    verifies: bool,
    /// The one that is right: the first, if it was not given.
    sha256: Option<[u8; 32]>,
    /// Hashers that are not in use.
    #[expect(clippy::vec_box, reason = "connections have them in boxes")]
    hashers: Vec<Box<HashedBody>>,
}

/// In place of the bytes of a body that the end of the connection ends.
const UNTIL_END: u64 = u64::MAX;

/// A head, read.
#[derive(Clone, Copy, Debug)]
struct Head {
    /// Its bytes.
    end: usize,
    /// Bytes of the body that follows, or [`UNTIL_END`]; `None` after an interim response, which has none (RFC 9110,
    /// section 15.2).
    body: Option<u64>,
    /// The server ends the connection after this response.
    is_last: bool,
}

impl Expected {
    /// The bodies are to be as `verify` says.
    pub(crate) fn new(verify: Verify) -> Self {
        let given = match verify {
            Verify::Equal(body) => Some(body),
            Verify::Length | Verify::Alike => None,
        };
        Self {
            length: given.map(|body| body.length),
            sha256: given.map(|body| body.sha256),
            verifies: verify != Verify::Length,
            ..Self::default()
        }
    }

    /// The body that all responses had; `None` if none has come, or they were not verified.
    pub(crate) fn body(&self) -> Option<Body> {
        Some(Body {
            length: self.length?,
            sha256: self.sha256?,
        })
    }

    fn check_length(&mut self, length: u64) -> Result<(), Failure> {
        let right = *self.length.get_or_insert(length);
        if length == right {
            return Ok(());
        }
        let detail = format!("a body of {length} bytes; it should have {right}");
        Err(Failure::new(Kind::Length, detail))
    }

    /// Compares the body whose last byte has come.
    fn verify(&mut self, mut body: Box<HashedBody>) -> Result<(), Failure> {
        let sha256 = body.hasher.finalize_reset().into();
        self.hashers.push(body);
        let right = *self.sha256.get_or_insert(sha256);
        if sha256 == right {
            return Ok(());
        }
        let detail = format!("a body with SHA-256 {}; it should be {}", hex(&sha256), hex(&right));
        Err(Failure::new(Kind::Content, detail))
    }

    /// Reads the head at the start of `data`; `None` if there is more to come.
    fn read_head(&mut self, data: &[u8]) -> Result<Option<Head>, Failure> {
        if !self.head.is_empty() && data.starts_with(&self.head) {
            return Ok(Some(Head {
                end: self.head.len(),
                body: self.length,
                is_last: self.head_is_last,
            }));
        }
        self.parse(data)
    }

    #[cold]
    fn parse(&mut self, data: &[u8]) -> Result<Option<Head>, Failure> {
        let head = match parse_head(data) {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(None),
            Err(Malformed(detail)) => return Err(Failure::new(Kind::Malformed, detail)),
        };
        let end = head.end;
        if head.status < 200 {
            return Ok(Some(Head {
                end,
                body: None,
                is_last: false,
            }));
        }
        if head.status != 200 {
            let detail = format!("the status is {}", head.status);
            return Err(Failure::new(Kind::Status, detail));
        }
        let Some(length) = head.length else {
            return Ok(Some(Head {
                end,
                body: Some(UNTIL_END),
                is_last: true,
            }));
        };
        self.check_length(length)?;
        self.head.clear();
        self.head.extend_from_slice(&data[..end]);
        self.head_is_last = !head.keep_alive;
        Ok(Some(Head {
            end,
            body: Some(length),
            is_last: self.head_is_last,
        }))
    }
}

/// The content of some bytes of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Responses these bytes completed.
    pub(crate) responses: u32,
    /// Bytes of them that belong to bodies.
    pub(crate) body: u64,
    /// The server has announced that it ends the connection after the last of them: further requests on it will not be
    /// answered (RFC 9112, section 9.6).
    pub(crate) is_last: bool,
}

/// The place of one connection in its present response. 16 bytes; more only while a head has come in part.
#[derive(Debug, Default)]
pub(crate) struct Responses(State);

#[derive(Debug, Default)]
enum State {
    /// Nothing of a response has come.
    #[default]
    Between,
    /// A part of a head has come. Rare, so it is kept elsewhere.
    Head(Box<PartialHead>),
    /// Bytes of the body are to come.
    Body { left: u64, is_last: bool },
    /// As [`State::Body`], and its hash is taken.
    Hashed(Box<HashedBody>),
    /// The last response of the connection has come.
    Ended,
}

#[derive(Clone, Debug, Default)]
struct HashedBody {
    left: u64,
    is_last: bool,
    hasher: Sha256,
}

#[derive(Debug)]
struct PartialHead {
    bytes: Vec<u8>,
}

impl Responses {
    /// Takes what arrived. Returns how many responses it completed, and how many bytes were of bodies.
    ///
    /// # Errors
    ///
    /// The bytes are no response or come after the last one, the status is not 200, or the body is not the one that was
    /// expected. The connection is then of no further use.
    pub(crate) fn take(&mut self, expected: &mut Expected, mut data: &[u8]) -> Result<Taken, Failure> {
        let mut taken = Taken::default();
        loop {
            match &mut self.0 {
                State::Body { left, is_last } => {
                    let count = (*left).min(data.len() as u64);
                    *left -= count;
                    taken.body += count;
                    if *left > 0 {
                        return Ok(taken);
                    }
                    // Not more than data.len(), so it fits.
                    data = &data[count as usize..];
                    taken.responses += 1;
                    taken.is_last = *is_last;
                    self.0 = if *is_last { State::Ended } else { State::Between };
                }
                State::Hashed(body) => {
                    let count = body.left.min(data.len() as u64);
                    // Not more than data.len(), so it fits.
                    let (part, rest) = data.split_at(count as usize);
                    body.hasher.update(part);
                    body.left -= count;
                    taken.body += count;
                    if body.left > 0 {
                        return Ok(taken);
                    }
                    data = rest;
                    taken.responses += 1;
                    taken.is_last = body.is_last;
                    let next = if body.is_last { State::Ended } else { State::Between };
                    if let State::Hashed(body) = std::mem::replace(&mut self.0, next) {
                        expected.verify(body)?;
                    }
                }
                _ if data.is_empty() => return Ok(taken),
                State::Between => match expected.read_head(data)? {
                    Some(head) => {
                        data = &data[head.end..];
                        self.begin_body(expected, head);
                    }
                    None => {
                        self.0 = State::Head(Box::new(PartialHead { bytes: data.to_vec() }));
                        return Ok(taken);
                    }
                },
                State::Ended => {
                    let detail = format!("{} bytes after the last response of the connection", data.len());
                    return Err(Failure::new(Kind::Malformed, detail));
                }
                State::Head(partial) => {
                    let before = partial.bytes.len();
                    partial.bytes.extend_from_slice(data);
                    match expected.read_head(&partial.bytes)? {
                        Some(head) => {
                            // The head was not complete before, so it ends in the new bytes.
                            data = &data[head.end.saturating_sub(before)..];
                            self.begin_body(expected, head);
                        }
                        None => return Ok(taken),
                    }
                }
            }
        }
    }

    /// The server closed its side. Returns whether that completes a response.
    ///
    /// # Errors
    ///
    /// It does, and the body is not the one that was expected.
    pub(crate) fn end_of_stream(&mut self, expected: &mut Expected) -> Result<bool, Failure> {
        let left = match &self.0 {
            State::Body { left, .. } => *left,
            State::Hashed(body) => body.left,
            _ => return Ok(false),
        };
        let received = UNTIL_END - left;
        // A body whose length was given is shorter than half of all that can be told.
        if left < UNTIL_END / 2 {
            return Ok(false);
        }
        if let State::Hashed(body) = std::mem::replace(&mut self.0, State::Ended) {
            expected.verify(body)?;
        }
        expected.check_length(received)?;
        Ok(true)
    }

    fn begin_body(&mut self, expected: &mut Expected, head: Head) {
        self.0 = match head.body {
            Some(left) if expected.verifies => {
                let mut body = expected.hashers.pop().unwrap_or_default();
                (body.left, body.is_last) = (left, head.is_last);
                State::Hashed(body)
            }
            Some(left) => State::Body {
                left,
                is_last: head.is_last,
            },
            None => State::Between,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nDate: 1\r\nContent-Length: 5\r\n\r\nhello";

    fn kind_of(expected: &mut Expected, text: &str) -> Kind {
        let mut responses = Responses::default();
        responses.take(expected, text.as_bytes()).unwrap_err().kind
    }

    #[test]
    fn a_connection_between_responses_is_small() {
        assert!(size_of::<Responses>() <= 16);
    }

    #[test]
    fn any_split_gives_the_same_responses() {
        let three = HELLO.repeat(3);
        for step in 1..=three.len() {
            let mut expected = Expected::default();
            let mut responses = Responses::default();
            let mut taken = Taken::default();
            for piece in three.chunks(step) {
                let more = responses.take(&mut expected, piece).unwrap();
                taken.responses += more.responses;
                taken.body += more.body;
            }
            assert_eq!(
                taken,
                Taken {
                    responses: 3,
                    body: 15,
                    is_last: false
                },
                "pieces of {step}"
            );
        }
    }

    #[test]
    fn a_response_counts_when_its_last_byte_is_there() {
        let mut expected = Expected::default();
        let mut responses = Responses::default();
        let (most, last) = HELLO.split_at(HELLO.len() - 1);
        assert_eq!(responses.take(&mut expected, most).unwrap().responses, 0);
        assert_eq!(responses.take(&mut expected, last).unwrap().responses, 1);
    }

    #[test]
    fn a_head_may_differ_in_all_but_the_length() {
        let mut expected = Expected::default();
        let mut responses = Responses::default();
        assert_eq!(responses.take(&mut expected, HELLO).unwrap().responses, 1);
        let later = b"HTTP/1.1 200 OK\r\nDate: 12\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(responses.take(&mut expected, later).unwrap().responses, 1);
        assert_eq!(responses.take(&mut expected, HELLO).unwrap().responses, 1);
        let longer = "HTTP/1.1 200 OK\r\nDate: 1\r\nContent-Length: 6\r\n\r\nhello!";
        assert_eq!(kind_of(&mut expected, longer), Kind::Length);
    }

    #[test]
    fn responses_without_a_body_count() {
        let mut expected = Expected::default();
        let empty = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".repeat(4);
        let taken = Responses::default().take(&mut expected, &empty).unwrap();
        assert_eq!(
            taken,
            Taken {
                responses: 4,
                body: 0,
                is_last: false
            }
        );
    }

    #[test]
    fn the_end_of_the_stream_ends_a_body_without_length_only() {
        let text = b"HTTP/1.0 200 OK\r\n\r\nhello";
        for verify in [Verify::Length, Verify::Alike, Verify::Equal(Body::of(b"hello"))] {
            let mut expected = Expected::new(verify);
            for step in 1..=text.len() {
                let mut responses = Responses::default();
                for piece in text.chunks(step) {
                    let taken = responses.take(&mut expected, piece).unwrap();
                    assert_eq!((taken.responses, taken.is_last), (0, false));
                }
                assert!(responses.end_of_stream(&mut expected).unwrap(), "pieces of {step}");
                assert!(!responses.end_of_stream(&mut expected).unwrap(), "only once");
            }
            for (other, kind) in [("hell", Kind::Length), ("hullo", Kind::Content)] {
                let mut responses = Responses::default();
                let text = format!("HTTP/1.0 200 OK\r\n\r\n{other}");
                responses.take(&mut expected, text.as_bytes()).unwrap();
                let failure = responses.end_of_stream(&mut expected).err().map(|failure| failure.kind);
                let expected = match (verify, kind) {
                    (Verify::Length, Kind::Content) => None,
                    (Verify::Length, _) => Some(Kind::Length),
                    _ => Some(Kind::Content),
                };
                assert_eq!(failure, expected, "{other}, {verify:?}");
            }
        }
        let mut expected = Expected::default();
        let (most, _) = HELLO.split_at(HELLO.len() - 1);
        for part in [&HELLO[..0], most, HELLO] {
            let mut responses = Responses::default();
            responses.take(&mut expected, part).unwrap();
            assert!(!responses.end_of_stream(&mut expected).unwrap());
        }
    }

    #[test]
    fn interim_responses_are_skipped() {
        let text = [b"HTTP/1.1 100 Continue\r\n\r\n", HELLO].concat();
        for step in 1..=text.len() {
            let mut expected = Expected::default();
            let mut responses = Responses::default();
            let mut count = 0;
            for piece in text.chunks(step) {
                count += responses.take(&mut expected, piece).unwrap().responses;
            }
            assert_eq!(count, 1, "pieces of {step}");
        }
    }

    #[test]
    fn a_server_may_announce_the_last_response() {
        for (head, is_last) in [
            ("HTTP/1.1 200 OK", false),
            ("HTTP/1.1 200 OK\r\nConnection: close", true),
            ("HTTP/1.0 200 OK", true),
            ("HTTP/1.0 200 OK\r\nConnection: keep-alive", false),
        ] {
            let text = format!("{head}\r\nContent-Length: 5\r\n\r\nhello");
            let mut expected = Expected::default();
            // The second head is read by comparison.
            for _ in 0..2 {
                for step in 1..=text.len() {
                    let mut responses = Responses::default();
                    let mut last = Taken::default();
                    for piece in text.as_bytes().chunks(step) {
                        last = responses.take(&mut expected, piece).unwrap();
                    }
                    assert_eq!((last.responses, last.is_last), (1, is_last), "{head}");
                    let more = responses.take(&mut expected, text.as_bytes());
                    assert_eq!(more.is_err(), is_last, "{head}");
                }
            }
        }
    }

    #[test]
    fn bodies_are_compared_with_the_first_or_with_the_one_that_was_given() {
        let hullo = b"HTTP/1.1 200 OK\r\nDate: 1\r\nContent-Length: 5\r\n\r\nhullo";
        for verify in [Verify::Alike, Verify::Equal(Body::of(b"hello"))] {
            for step in 1..=HELLO.len() {
                let mut expected = Expected::new(verify);
                let mut responses = Responses::default();
                for piece in HELLO.repeat(2).chunks(step) {
                    responses.take(&mut expected, piece).unwrap();
                }
                assert_eq!(expected.body(), Some(Body::of(b"hello")));
                let found = hullo
                    .chunks(step)
                    .try_for_each(|piece| responses.take(&mut expected, piece).map(drop));
                assert_eq!(found.unwrap_err().kind, Kind::Content, "{verify:?} in pieces of {step}");
            }
        }
        let mut expected = Expected::new(Verify::Equal(Body::of(b"hell")));
        assert_eq!(
            Responses::default().take(&mut expected, HELLO).unwrap_err().kind,
            Kind::Length
        );
        let mut expected = Expected::new(Verify::Length);
        Responses::default()
            .take(&mut expected, &[HELLO, hullo].concat())
            .unwrap();
        assert_eq!(expected.body(), None);
    }

    #[test]
    fn what_is_wrong_is_told_by_kind() {
        for (text, kind) in [
            ("SSH-2.0-x\r\n\r\n", Kind::Malformed),
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Kind::Status),
        ] {
            assert_eq!(kind_of(&mut Expected::default(), text), kind, "{text}");
        }
        for length in [16_385, 20_000] {
            let begin = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: ";
            let head = format!("{begin}{}\r\n\r\n", "x".repeat(length - begin.len() - 4));
            for size in [length, length - 1, length / 2, 1460] {
                let (mut responses, mut expected) = (Responses::default(), Expected::default());
                let failure = head
                    .as_bytes()
                    .chunks(size)
                    .find_map(|piece| responses.take(&mut expected, piece).err());
                assert_eq!(
                    failure.map(|failure| failure.kind),
                    Some(Kind::Malformed),
                    "{length} by {size}"
                );
            }
        }
    }
}
