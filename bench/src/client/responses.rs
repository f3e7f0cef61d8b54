//! Finding where responses end, cheaply: all are expected to be like the first.

use crate::client::errors::{Failure, Kind};
use crate::http_client::{Malformed, parse_head};

/// Longest response head in bytes.
const HEAD_LIMIT: usize = 16 * 1024;

/// What all connections of a client expect, learned from the responses themselves.
///
/// The body has to be as long as that of the first response. The head of the last response is kept: the next one is
/// nearly always equal, byte for byte, and is then read by one comparison. Only where it differs (a new second in the
/// Date field) it is parsed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    /// Bytes of the body, from the first response.
    length: Option<u64>,
    head: Vec<u8>,
}

/// A head, read.
#[derive(Clone, Copy, Debug)]
struct Head {
    /// Its bytes.
    end: usize,
    /// Bytes of the body that follows; `None` after an interim response, which has none (RFC 9110, section 15.2).
    body: Option<u64>,
}

impl Expected {
    /// Reads the head at the start of `data`; `None` if there is more to come.
    fn read_head(&mut self, data: &[u8]) -> Result<Option<Head>, Failure> {
        if self.length.is_some() && data.starts_with(&self.head) {
            return Ok(Some(Head {
                end: self.head.len(),
                body: self.length,
            }));
        }
        self.parse(data)
    }

    #[cold]
    fn parse(&mut self, data: &[u8]) -> Result<Option<Head>, Failure> {
        let head = match parse_head(data) {
            Ok(Some(head)) => head,
            Ok(None) if data.len() > HEAD_LIMIT => {
                let detail = format!("a response head of more than {HEAD_LIMIT} bytes");
                return Err(Failure::new(Kind::Malformed, detail));
            }
            Ok(None) => return Ok(None),
            Err(Malformed(detail)) => return Err(Failure::new(Kind::Malformed, detail)),
        };
        let end = head.end;
        if head.status < 200 {
            return Ok(Some(Head { end, body: None }));
        }
        if head.status != 200 {
            let detail = format!("the status is {}", head.status);
            return Err(Failure::new(Kind::Status, detail));
        }
        let Some(length) = head.length else {
            let detail = "a response without Content-Length; this client needs it to find the end of the body";
            return Err(Failure::new(Kind::Malformed, detail));
        };
        let first = *self.length.get_or_insert(length);
        if length != first {
            let detail = format!("a body of {length} bytes; the first had {first}");
            return Err(Failure::new(Kind::Length, detail));
        }
        self.head.clear();
        self.head.extend_from_slice(&data[..end]);
        Ok(Some(Head {
            end,
            body: Some(length),
        }))
    }
}

/// What was in some bytes of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Responses these bytes completed.
    pub(crate) responses: u32,
    /// Bytes of them that belong to bodies.
    pub(crate) body: u64,
}

/// How far one connection is in its present response. 16 bytes; more only while a head has come in part.
#[derive(Debug, Default)]
pub(crate) struct Responses(State);

#[derive(Debug, Default)]
enum State {
    /// Nothing of a response has come.
    #[default]
    Between,
    /// A part of a head has come. Rare, so it is kept elsewhere.
    Head(Box<PartialHead>),
    /// These many bytes of the body are to come.
    Body(u64),
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
    /// The bytes are no response, the status is not 200, or the body is of another length than the first. The
    /// connection is then of no further use.
    pub(crate) fn take(&mut self, expected: &mut Expected, mut data: &[u8]) -> Result<Taken, Failure> {
        let mut taken = Taken::default();
        loop {
            match &mut self.0 {
                State::Body(left) => {
                    let count = (*left).min(data.len() as u64);
                    *left -= count;
                    taken.body += count;
                    if *left > 0 {
                        return Ok(taken);
                    }
                    // Not more than data.len(), so it fits.
                    data = &data[count as usize..];
                    taken.responses += 1;
                    self.0 = State::Between;
                }
                _ if data.is_empty() => return Ok(taken),
                State::Between => match expected.read_head(data)? {
                    Some(head) => {
                        data = &data[head.end..];
                        self.begin_body(head);
                    }
                    None => {
                        self.0 = State::Head(Box::new(PartialHead { bytes: data.to_vec() }));
                        return Ok(taken);
                    }
                },
                State::Head(partial) => {
                    let before = partial.bytes.len();
                    partial.bytes.extend_from_slice(data);
                    match expected.read_head(&partial.bytes)? {
                        Some(head) => {
                            // The head was not complete before, so it ends in the new bytes.
                            data = &data[head.end.saturating_sub(before)..];
                            self.begin_body(head);
                        }
                        None => return Ok(taken),
                    }
                }
            }
        }
    }

    fn begin_body(&mut self, head: Head) {
        self.0 = head.body.map_or(State::Between, State::Body);
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
            assert_eq!(taken, Taken { responses: 3, body: 15 }, "pieces of {step}");
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
        assert_eq!(taken, Taken { responses: 4, body: 0 });
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
    fn what_is_wrong_is_told_by_kind() {
        for (text, kind) in [
            ("SSH-2.0-x\r\n\r\n", Kind::Malformed),
            ("HTTP/1.1 200 OK\r\n\r\nendless", Kind::Malformed),
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Kind::Status),
        ] {
            assert_eq!(kind_of(&mut Expected::default(), text), kind, "{text}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_LIMIT));
        assert_eq!(kind_of(&mut Expected::default(), &endless), Kind::Malformed);
    }
}
