//! Responses on their way: what is still to be sent, and what the connection does afterwards.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tidegate_tcp::application::Stream;

use super::access::Entry;
use super::counters::{Counter, Counters};
use super::open_files::{OpenFile, ReadError};
use super::status::Status;

/// The interim response that asks for the body (RFC 9110, section 15.2.1).
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The step that follows a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    NextRequest,
    Close,
    /// The peer may still be sending what will not be read: close, but not in a way that makes it lose the response.
    Linger,
}

/// The content of a response.
#[derive(Debug)]
pub(super) enum Body {
    Empty,
    Memory(Bytes),
    File(FilePart),
}

impl Body {
    /// Bytes that are still to be given to the stream.
    pub(super) fn left(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(part) => part.remaining,
        }
    }
}

/// A part of a file that is still to be read and sent.
#[derive(Debug)]
pub(super) struct FilePart {
    pub(super) file: Arc<OpenFile>,
    pub(super) offset: u64,
    pub(super) remaining: u64,
}

/// A response that is being sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) status: Status,
    /// The rest of the interim response that goes before.
    pub(super) interim: Bytes,
    pub(super) head: Bytes,
    pub(super) body: Body,
    pub(super) after: After,
    /// The request's entry in the access log, if it is to have one.
    pub(super) access: Option<Entry>,
    /// The time at which the request was complete or refused; `None` for a response from memory that has not waited.
    pub(super) complete_at: Option<Instant>,
}

/// The progress of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Complete,
    /// The send buffer is full: go on when there is room.
    Blocked,
    /// The content cannot be had any more, though its length was promised.
    Failed,
    /// The file has another content by now.
    Changed,
}

impl Outgoing {
    /// Gives the stream as much as it takes. Files are read in pieces of at most `read_chunk` bytes.
    pub(super) fn send<S: Stream>(&mut self, stream: &mut S, read_chunk: usize, counters: &mut Counters) -> Progress {
        for part in [&mut self.interim, &mut self.head] {
            if send_bytes(part, stream, counters) == Progress::Blocked {
                return Progress::Blocked;
            }
        }
        match &mut self.body {
            Body::Empty => Progress::Complete,
            Body::Memory(bytes) => send_bytes(bytes, stream, counters),
            Body::File(part) => part.send(stream, read_chunk, counters),
        }
    }

    /// Bytes that are still to be given to the stream, without the interim response.
    pub(super) fn left(&self) -> u64 {
        self.head.len() as u64 + self.body.left()
    }

    /// Microseconds since the request was complete.
    pub(super) fn age(&self) -> u64 {
        self.complete_at
            .map_or(0, |complete_at| complete_at.elapsed().as_micros() as u64)
    }

    /// Gives the stream as much of the interim response as it takes.
    pub(super) fn send_interim<S: Stream>(&mut self, stream: &mut S, counters: &mut Counters) {
        send_bytes(&mut self.interim, stream, counters);
    }
}

impl FilePart {
    fn send<S: Stream>(&mut self, stream: &mut S, read_chunk: usize, counters: &mut Counters) -> Progress {
        while self.remaining > 0 {
            let room = stream.send_space().min(read_chunk) as u64;
            if room == 0 {
                return Progress::Blocked;
            }
            let mut buffer = vec![0; self.remaining.min(room) as usize];
            match self.file.read_at(&mut buffer, self.offset) {
                Ok(0) => return Progress::Failed,
                Ok(length) => buffer.truncate(length),
                Err(ReadError::Changed) => return Progress::Changed,
                Err(ReadError::Failed) => return Progress::Failed,
            }
            let mut bytes = Bytes::from(buffer);
            let sent = stream.send(&mut bytes) as u64;
            counters.add(Counter::BytesSent, sent);
            self.offset += sent;
            self.remaining -= sent;
            if !bytes.is_empty() {
                return Progress::Blocked;
            }
        }
        Progress::Complete
    }
}

/// Gives the stream as much of `bytes` as it takes.
#[inline]
fn send_bytes<S: Stream>(bytes: &mut Bytes, stream: &mut S, counters: &mut Counters) -> Progress {
    if bytes.is_empty() {
        return Progress::Complete;
    }
    let sent = stream.send(bytes);
    counters.add(Counter::BytesSent, sent as u64);
    if bytes.is_empty() {
        Progress::Complete
    } else {
        Progress::Blocked
    }
}
