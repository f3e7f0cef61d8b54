//! A client's expectations of responses, and their heads.

use sha2::Digest;

use crate::body::{Body, Verify, hex};
use crate::errors::{Failure, Kind};
use crate::http::{BodyEnd, MAX_HEAD, Malformed, parse_head_within};
use crate::responses::LongBody;
use crate::statuses::class;

/// The expectations of all connections of a client, learned from the responses themselves.
///
/// The body has to be as long as that of the first response; it may have to be equal to it ([`Verify`]). The head of
/// the last response is kept: the next one is nearly always equal, byte for byte, and is then read by one comparison.
/// Only where it differs (a new second in the Date field) it is parsed.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) verify: Verify,
    /// The longest head, and the longest line of a body in chunks, in bytes.
    pub(crate) max_head: usize,
    /// Responses have no body, as those to HEAD.
    heads_only: bool,
    /// Bytes of the body, from the first response.
    length: Option<u64>,
    /// The head that was read last, with what it says.
    last: Vec<u8>,
    last_head: Head,
    /// The length of a whole response with that head, that of its body, and what the head says, where the body is only
    /// counted.
    last_whole: Option<(usize, u64, Answer)>,
    /// The hash of the body that is right: the first, if it was not given.
    sha256: Option<[u8; 32]>,
    /// The Location field of the first redirect.
    location: Option<String>,
    /// Bodies that are not in use.
    #[expect(clippy::vec_box, reason = "connections have them in boxes")]
    pub(crate) spare: Vec<Box<LongBody>>,
}

impl Default for Expected {
    fn default() -> Self {
        Self::new(Verify::Length)
    }
}

/// The parts of a head that the client goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The index of its class.
    pub(crate) class: u8,
    /// The response is none that was hoped for.
    pub(crate) fails: bool,
    /// The server ends the connection after it.
    pub(crate) is_last: bool,
}

/// A head, read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// Its bytes.
    pub(crate) end: usize,
    /// `None` for an interim response (RFC 9110, section 15.2), which no body follows.
    pub(crate) answer: Option<Answer>,
    pub(crate) body: BodyEnd,
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
            last_whole: None,
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
    pub(crate) fn verify(&mut self, mut body: Box<LongBody>) -> Result<(), Failure> {
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

    /// Returns the length of the response at the start of `data`, that of its body, and what its head says; `None` if
    /// it is not all there, or takes more than a look. Nearly all responses of most servers are found by this.
    #[inline]
    pub(crate) fn whole_response(&self, data: &[u8]) -> Option<(usize, u64, Answer)> {
        self.last_whole
            .filter(|&(length, ..)| data.len() >= length && data.starts_with(&self.last))
    }

    /// Reads the head at the start of `data`; `None` if there is more to come.
    pub(crate) fn read_head(&mut self, data: &[u8]) -> Result<Option<Head>, Failure> {
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
            class: class(status),
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
        let is_hashed = answer.compares() && self.verify.hashes();
        self.last_whole = match body {
            BodyEnd::Length(body) if !is_hashed => usize::try_from(body)
                .ok()
                .and_then(|length| end.checked_add(length))
                .map(|length| (length, body, answer)),
            _ => None,
        };
        Ok(Some(self.last_head))
    }
}

impl Answer {
    /// Whether the body has to be like the others.
    pub(crate) fn compares(self) -> bool {
        self.status < 300
    }
}
