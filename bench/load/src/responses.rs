//! Finding where responses end, cheaply: all are expected to be like the first.

#[cfg(test)]
mod tests;

use sha2::{Digest, Sha256};

use crate::chunked::Chunked;
use crate::errors::{Failure, Kind};
use crate::expected::{Answer, Expected, Head};
use crate::http::BodyEnd;

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
        self.classes[usize::from(answer.class)] += 1;
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
pub(crate) struct LongBody {
    pub(crate) answer: Answer,
    end: BodyEnd,
    pub(crate) received: u64,
    chunked: Chunked,
    pub(crate) hashes: bool,
    pub(crate) hasher: Sha256,
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
                State::Between => {
                    if let Some((length, body, answer)) = expected.whole_response(data) {
                        data = &data[length..];
                        if !answer.fails {
                            taken.body += body;
                        }
                        taken.complete(answer);
                        if answer.is_last {
                            self.0 = State::Ended;
                        }
                        continue;
                    }
                    match expected.read_head(data)? {
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
                    }
                }
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
