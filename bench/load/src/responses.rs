//! Finding where responses end, cheaply: all are expected to be like the first.

use sha2::{Digest, Sha256};

use crate::body::{Body, Verify, hex};
use crate::chunked::Chunked;
use crate::errors::{Failure, Kind};
use crate::http::{BodyEnd, MAX_HEAD, Malformed, parse_head_within};
use crate::statuses::class;

/// The expectations of all connections of a client, learned from the responses themselves.
///
/// The body has to be as long as that of the first response; it may have to be equal to it ([`Verify`]). The head of
/// the last response is kept: the next one is nearly always equal, byte for byte, and is then read by one comparison.
/// Only where it differs (a new second in the Date field) it is parsed.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    verify: Verify,
    /// The longest head, and the longest line of a body in chunks, in bytes.
    max_head: usize,
    /// Responses have no body, as those to HEAD.
    heads_only: bool,
    /// Bytes of the body, from the first response.
    length: Option<u64>,
    /// The head that was read last, with what it says.
    last: Vec<u8>,
    last_head: Head,
    /// The hash of the body that is right: the first, if it was not given.
    sha256: Option<[u8; 32]>,
    /// The Location field of the first redirect.
    location: Option<String>,
    /// Bodies that are not in use.
    #[expect(clippy::vec_box, reason = "connections have them in boxes")]
    spare: Vec<Box<LongBody>>,
}

impl Default for Expected {
    fn default() -> Self {
        Self::new(Verify::Length)
    }
}

/// What a head says about its response.
#[derive(Clone, Copy, Debug)]
struct Answer {
    status: u16,
    /// The response is none that was hoped for.
    fails: bool,
    /// The server ends the connection after it.
    is_last: bool,
}

/// A head, read.
#[derive(Clone, Copy, Debug)]
struct Head {
    /// Its bytes.
    end: usize,
    /// `None` for an interim response (RFC 9110, section 15.2), which no body follows.
    answer: Option<Answer>,
    body: BodyEnd,
}

impl Expected {
    /// The bodies are to be as `verify` says.
    pub(crate) fn new(verify: Verify) -> Self {
        let given = match verify {
            Verify::Equal(body) => Some(body),
            Verify::Any | Verify::Length | Verify::Alike => None,
        };
        Self {
            verify,
            max_head: MAX_HEAD,
            heads_only: false,
            length: given.map(|body| body.length),
            last: Vec::new(),
            last_head: Head {
                end: 0,
                answer: None,
                body: BodyEnd::Connection,
            },
            sha256: given.map(|body| body.sha256),
            location: None,
            spare: Vec::new(),
        }
    }

    /// The same with heads of up to `max_head` bytes, and without bodies if `heads_only`.
    pub(crate) fn with_heads(self, max_head: usize, heads_only: bool) -> Self {
        Self {
            max_head,
            heads_only,
            ..self
        }
    }

    /// The body that all responses had; `None` if none has come, or they were not verified.
    pub(crate) fn body(&self) -> Option<Body> {
        Some(Body {
            length: self.length?,
            sha256: self.sha256?,
        })
    }

    /// The Location field of the first redirect.
    pub(crate) fn location(&self) -> Option<&str> {
        self.location.as_deref()
    }

    fn check_length(&mut self, length: u64) -> Result<(), Failure> {
        let right = *self.length.get_or_insert(length);
        if length == right || self.verify == Verify::Any {
            return Ok(());
        }
        let detail = format!("a body of {length} bytes; it should have {right}");
        Err(Failure::new(Kind::Length, detail))
    }

    /// Compares the body whose last byte has come.
    fn verify(&mut self, mut body: Box<LongBody>) -> Result<(), Failure> {
        let compares = body.answer.compares();
        let sha256 = (body.hashes).then(|| body.hasher.finalize_reset().into());
        let received = body.received;
        self.spare.push(body);
        if let Some(sha256) = sha256 {
            let right = *self.sha256.get_or_insert(sha256);
            if sha256 != right {
                let detail = format!("a body with SHA-256 {}; it should be {}", hex(&sha256), hex(&right));
                return Err(Failure::new(Kind::Content, detail));
            }
        }
        if compares {
            self.check_length(received)?;
        }
        Ok(())
    }

    /// Reads the head at the start of `data`; `None` if there is more to come.
    fn read_head(&mut self, data: &[u8]) -> Result<Option<Head>, Failure> {
        if !self.last.is_empty() && data.starts_with(&self.last) {
            return Ok(Some(self.last_head));
        }
        self.parse(data)
    }

    #[cold]
    fn parse(&mut self, data: &[u8]) -> Result<Option<Head>, Failure> {
        let head = match parse_head_within(self.max_head, data) {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(None),
            Err(Malformed(detail)) => return Err(Failure::new(Kind::Malformed, detail)),
        };
        let (end, status) = (head.end, head.status);
        if status == 101 {
            let detail = "the status is 101: the server speaks another protocol from here on";
            return Err(Failure::new(Kind::Status, detail));
        }
        if status < 200 {
            return Ok(Some(Head {
                end,
                answer: None,
                body: BodyEnd::Length(0),
            }));
        }
        if self.location.is_none() {
            self.location = head.location;
        }
        let body = if self.heads_only { BodyEnd::Length(0) } else { head.body };
        let answer = Answer {
            status,
            // Where bodies are verified, a redirect has not the right one.
            fails: status >= 400 || (status >= 300 && self.verify.hashes()),
            is_last: !head.keep_alive || body == BodyEnd::Connection,
        };
        if let (BodyEnd::Length(length), true) = (body, answer.compares()) {
            self.check_length(length)?;
        }
        self.last.clear();
        self.last.extend_from_slice(&data[..end]);
        self.last_head = Head {
            end,
            answer: Some(answer),
            body,
        };
        Ok(Some(self.last_head))
    }
}

impl Answer {
    /// Whether the body has to be like the others.
    fn compares(self) -> bool {
        self.status < 300
    }
}

/// The content of some bytes of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Responses these bytes completed.
    pub(crate) responses: u32,
    /// Bytes of them that belong to bodies of responses that were hoped for.
    pub(crate) body: u64,
    /// The server has announced that it ends the connection after the last of them: further requests on it will not be
    /// answered (RFC 9112, section 9.6).
    pub(crate) is_last: bool,
    /// Responses these bytes completed, by the class of their status, 2xx to 5xx.
    pub(crate) classes: [u32; 4],
    /// The responses that were not hoped for: bit n is response n of these, and bit 63 stands for all from there on.
    pub(crate) failures: u64,
    /// The status of the first of those.
    pub(crate) failed_status: u16,
    /// The first of them had begun in earlier bytes.
    pub(crate) began_before: bool,
}

impl Taken {
    fn complete(&mut self, answer: Answer) {
        self.classes[class(answer.status)] += 1;
        if answer.fails {
            if self.failures == 0 {
                self.failed_status = answer.status;
            }
            self.failures |= 1 << self.responses.min(63);
        }
        self.responses += 1;
        self.is_last = answer.is_last;
    }
}

/// The place of one connection in its present response. 16 bytes; more only while a head has come in part, and for
/// bodies that take more than counting.
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
    Body { left: u64, answer: Answer },
    /// As [`State::Body`], but it comes in chunks, or the end of the connection is its end, or its hash is taken.
    Long(Box<LongBody>),
    /// The last response of the connection has come.
    Ended,
}

#[derive(Clone, Debug)]
struct LongBody {
    answer: Answer,
    end: BodyEnd,
    received: u64,
    chunked: Chunked,
    hashes: bool,
    hasher: Sha256,
}

#[derive(Debug)]
struct PartialHead {
    bytes: Vec<u8>,
    /// The number of bytes at which it is looked at again, whatever came: what is no head is not waited for, and a long
    /// head in small pieces is not read again with each.
    look_at: usize,
}

impl LongBody {
    fn new(answer: Answer) -> Self {
        Self {
            answer,
            end: BodyEnd::Connection,
            received: 0,
            chunked: Chunked::default(),
            hashes: false,
            hasher: Sha256::new(),
        }
    }

    /// Takes what is of this body in `data`. Returns how many bytes that were, and whether it is complete.
    fn take(&mut self, data: &[u8], max_line: usize) -> Result<(usize, bool), Failure> {
        let left = match self.end {
            BodyEnd::Length(length) => length - self.received,
            BodyEnd::LastChunk | BodyEnd::Connection => u64::MAX,
        };
        let Self {
            received,
            hashes,
            hasher,
            chunked,
            ..
        } = self;
        let mut add = |part: &[u8]| {
            *received += part.len() as u64;
            if *hashes {
                hasher.update(part);
            }
        };
        if self.end == BodyEnd::LastChunk {
            return chunked.take(data, max_line, add);
        }
        // Not more than data.len(), so it fits.
        let count = left.min(data.len() as u64) as usize;
        add(&data[..count]);
        Ok((count, count as u64 == left))
    }
}

impl Responses {
    /// Takes what arrived. Returns which responses it completed, and how many bytes were of bodies.
    ///
    /// # Errors
    ///
    /// The bytes are no response or come after the last one, or the body is not the one that was expected. The
    /// connection is then of no further use.
    pub(crate) fn take(&mut self, expected: &mut Expected, mut data: &[u8]) -> Result<Taken, Failure> {
        let mut taken = Taken {
            began_before: self.is_within(),
            ..Taken::default()
        };
        loop {
            match &mut self.0 {
                State::Body { left, answer } => {
                    let count = (*left).min(data.len() as u64);
                    *left -= count;
                    if !answer.fails {
                        taken.body += count;
                    }
                    if *left > 0 {
                        return Ok(taken);
                    }
                    // Not more than data.len(), so it fits.
                    data = &data[count as usize..];
                    taken.complete(*answer);
                    self.0 = next(*answer);
                }
                State::Long(body) => {
                    let before = body.received;
                    let (count, is_complete) = body.take(data, expected.max_head)?;
                    if !body.answer.fails {
                        taken.body += body.received - before;
                    }
                    if !is_complete {
                        return Ok(taken);
                    }
                    data = &data[count..];
                    let answer = body.answer;
                    taken.complete(answer);
                    if let State::Long(body) = std::mem::replace(&mut self.0, next(answer)) {
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
                        let look_at = 2 * data.len();
                        let bytes = data.to_vec();
                        self.0 = State::Head(Box::new(PartialHead { bytes, look_at }));
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
                    match partial.look(before, expected)? {
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

    /// Whether a part of a response has come, and not all.
    pub(crate) fn is_within(&self) -> bool {
        !matches!(self.0, State::Between | State::Ended)
    }

    /// Returns the place in the present response as a phrase.
    pub(crate) fn place(&self) -> String {
        match &self.0 {
            State::Between | State::Ended => "before the response began".to_owned(),
            State::Head(partial) => format!("after {} bytes of the head of a response", partial.bytes.len()),
            State::Body { left, .. } => format!("{left} bytes before the end of a body"),
            State::Long(body) => match body.end {
                BodyEnd::Length(length) => format!("{} bytes before the end of a body", length - body.received),
                _ => format!("after {} bytes of a body, before its last chunk", body.received),
            },
        }
    }

    /// The server closed its side. Returns what that completes, if it completes a response.
    ///
    /// # Errors
    ///
    /// It does, and the body is not the one that was expected.
    pub(crate) fn end_of_stream(&mut self, expected: &mut Expected) -> Result<Option<Taken>, Failure> {
        let answer = match &self.0 {
            State::Long(body) if body.end == BodyEnd::Connection => body.answer,
            _ => return Ok(None),
        };
        let mut taken = Taken {
            began_before: true,
            ..Taken::default()
        };
        taken.complete(answer);
        if let State::Long(body) = std::mem::replace(&mut self.0, State::Ended) {
            expected.verify(body)?;
        }
        Ok(Some(taken))
    }

    fn begin_body(&mut self, expected: &mut Expected, head: Head) {
        let Some(answer) = head.answer else {
            self.0 = State::Between;
            return;
        };
        let hashes = answer.compares() && expected.verify.hashes();
        if let (BodyEnd::Length(left), false) = (head.body, hashes) {
            self.0 = State::Body { left, answer };
            return;
        }
        let mut body = expected.spare.pop().unwrap_or_else(|| Box::new(LongBody::new(answer)));
        body.answer = answer;
        body.end = head.body;
        body.received = 0;
        body.chunked.reset();
        body.hashes = hashes;
        self.0 = State::Long(body);
    }
}

impl PartialHead {
    /// Reads the head, if it is worth it with what came after the first `before` bytes.
    fn look(&mut self, before: usize, expected: &mut Expected) -> Result<Option<Head>, Failure> {
        // The line end before the empty line may have come before.
        let new = &self.bytes[before.saturating_sub(2)..];
        let may_end = new.windows(2).any(|bytes| bytes == b"\n\n") || new.windows(3).any(|bytes| bytes == b"\n\r\n");
        if !may_end && self.bytes.len() < self.look_at.min(expected.max_head) {
            return Ok(None);
        }
        self.look_at = 2 * self.bytes.len();
        expected.read_head(&self.bytes)
    }
}

/// The state after a response.
fn next(answer: Answer) -> State {
    if answer.is_last { State::Ended } else { State::Between }
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
                    ..Taken::default()
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
                classes: [4, 0, 0, 0],
                ..Taken::default()
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
                let completed = responses.end_of_stream(&mut expected).unwrap();
                assert_eq!(
                    completed.map(|taken| taken.classes),
                    Some([1, 0, 0, 0]),
                    "pieces of {step}"
                );
                assert_eq!(responses.end_of_stream(&mut expected), Ok(None), "only once");
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
            assert_eq!(responses.end_of_stream(&mut expected), Ok(None));
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
        for length in [MAX_HEAD + 1, 80_000] {
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
    /// The responses in `text`, of which `step` bytes come at a time, with the end of the connection after them.
    fn take_in_pieces(expected: &mut Expected, text: &[u8], step: usize) -> Result<Taken, Failure> {
        let mut responses = Responses::default();
        let mut all = Taken::default();
        let mut add = |taken: Taken| {
            for (count, more) in all.classes.iter_mut().zip(taken.classes) {
                *count += more;
            }
            all.failures |= taken.failures << all.responses;
            all.responses += taken.responses;
            all.body += taken.body;
            all.is_last |= taken.is_last;
            all.failed_status = all.failed_status.max(taken.failed_status);
        };
        for piece in text.chunks(step) {
            add(responses.take(expected, piece)?);
        }
        if let Some(taken) = responses.end_of_stream(expected)? {
            add(taken);
        }
        Ok(all)
    }

    #[test]
    fn chunks_are_a_body_like_any_other() {
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nhel\r\n2\r\nlo\r\n0\r\nA: 1\r\n\r\n";
        let text = [&chunked.repeat(2)[..], HELLO, chunked].concat();
        for verify in [
            Verify::Any,
            Verify::Length,
            Verify::Alike,
            Verify::Equal(Body::of(b"hello")),
        ] {
            for step in 1..=text.len() {
                let mut expected = Expected::new(verify);
                let all = take_in_pieces(&mut expected, &text, step).unwrap();
                assert_eq!(
                    (all.responses, all.is_last),
                    (4, false),
                    "{verify:?} in pieces of {step}"
                );
                assert_eq!(expected.body().is_some(), verify.hashes());
            }
        }
        for (verify, kind) in [
            (Verify::Length, Kind::Length),
            (Verify::Equal(Body::of(b"hullo")), Kind::Content),
        ] {
            let mut expected = Expected::new(verify);
            let hell = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhell\r\n0\r\n\r\n";
            let found = take_in_pieces(&mut expected, &[chunked, &hell[..]].concat(), 7);
            assert_eq!(found.map_err(|failure| failure.kind), Err(kind));
            let mut any = Expected::new(Verify::Any);
            assert!(take_in_pieces(&mut any, &[chunked, &hell[..]].concat(), 7).is_ok());
        }
    }

    #[test]
    fn other_statuses_are_counted_and_their_bodies_read_to_the_end() {
        let text = [
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
            HELLO,
            b"HTTP/1.1 301 Moved\r\nLocation: /b\r\nContent-Length: 3\r\n\r\nbye",
            b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n?\r\n0\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: /c\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nlate",
            HELLO,
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nConnection: close\r\n\r\n",
        ]
        .concat();
        for (verify, failures) in [(Verify::Length, 0b001_0100), (Verify::Alike, 0b101_1110)] {
            for step in 1..=text.len() {
                let mut expected = Expected::new(verify);
                let all = take_in_pieces(&mut expected, &text, step).unwrap();
                let body = if verify == Verify::Length { 13 } else { 10 };
                assert_eq!(
                    (all.responses, all.body, all.is_last),
                    (7, body, true),
                    "pieces of {step}"
                );
                assert_eq!(
                    (all.classes, all.failures),
                    ([2, 3, 1, 1], failures),
                    "pieces of {step}"
                );
                assert!(all.failed_status >= 301);
                assert_eq!(expected.location(), Some("/b"));
            }
        }
        assert_eq!(
            kind_of(&mut Expected::default(), "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"),
            Kind::Status
        );
    }

    #[test]
    fn responses_to_head_have_no_body() {
        let text = [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        ]
        .concat();
        for step in 1..=text.len() {
            let mut expected = Expected::new(Verify::Alike).with_heads(MAX_HEAD, true);
            let all = take_in_pieces(&mut expected, &text, step).unwrap();
            assert_eq!((all.responses, all.body, all.is_last), (5, 0, true), "pieces of {step}");
        }
    }

    #[test]
    fn the_first_response_may_have_begun_before() {
        let mut expected = Expected::default();
        let mut responses = Responses::default();
        for (piece, began_before, is_within) in [
            (&HELLO[..10], false, true),
            (&HELLO[10..50], true, true),
            (&[&HELLO[50..], HELLO, &HELLO[..1]].concat(), true, true),
            (&HELLO[1..], true, false),
            (HELLO, false, false),
        ] {
            let taken = responses.take(&mut expected, piece).unwrap();
            assert_eq!((taken.began_before, responses.is_within()), (began_before, is_within));
        }
    }

    #[test]
    fn the_place_in_a_response_is_told() {
        for (text, verify, place) in [
            ("", Verify::Length, "before the response began"),
            ("HTTP/1.1 200", Verify::Length, "after 12 bytes of the head"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe",
                Verify::Length,
                "3 bytes before the end",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe",
                Verify::Alike,
                "3 bytes before the end",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
                Verify::Length,
                "after 2 bytes of a body",
            ),
        ] {
            let mut responses = Responses::default();
            responses.take(&mut Expected::new(verify), text.as_bytes()).unwrap();
            let found = responses.place();
            assert!(found.contains(place), "{found}");
        }
    }

    #[test]
    fn the_longest_head_is_an_option() {
        for (max_head, step, right) in [
            (1_024, 7, true),
            (1_024, 2_000, true),
            (1_023, 7, false),
            (1_023, 2_000, false),
        ] {
            let begin = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: ";
            let head = format!("{begin}{}\r\n\r\n", "x".repeat(1_024 - begin.len() - 4));
            let mut expected = Expected::default().with_heads(max_head, false);
            match take_in_pieces(&mut expected, head.as_bytes(), step) {
                Ok(all) => assert!(right && all.responses == 1),
                Err(failure) => assert!(!right && failure.detail.contains("more than 1023 bytes"), "{failure:?}"),
            }
        }
    }
}
