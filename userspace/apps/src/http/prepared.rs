//! Responses that are put together once and sent many times.
//!
//! A GET request of HTTP/1.1 without conditions and ranges is answered with the same bytes as the one before, until
//! the file or the second of the Date field changes. So these bytes are kept, and sending them is counting a reference.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tidegate_tcp::application::Stream;
use tidegate_tcp::wire::checksum::TextSum;

use super::counters::{Counter, Counters};
use super::date::Clock;
use super::head::{self, CONNECTION_CLOSE, HEAD_SIZE};
use super::representation::{Content, Representation};
use super::response::{After, Body, Outgoing, Progress};
use super::status::Status;

/// Content up to this size (bytes) is kept once more behind each prepared head, so that a response is one piece. With
/// more of it a second piece costs little next to the segments it fills, and the copies would take much of the cache.
pub(super) const WHOLE_LIMIT: usize = 4 << 10;

/// Content that is served from memory, with the 200 responses that send all of it.
pub(super) struct Prepared {
    representation: Arc<Representation>,
    content: Bytes,
    /// For connections that stay open; not there before it was asked for, as the other.
    keep_alive: Option<Dated>,
    /// With `Connection: close`.
    close: Option<Dated>,
}

/// A head, with content of at most [`WHOLE_LIMIT`] bytes behind it.
struct Dated {
    /// The second that Date names.
    second: u64,
    bytes: Bytes,
    sum: TextSum,
}

/// A 200 response to be sent.
pub(super) struct CachedResponse<'a> {
    /// The head, or all of the response.
    pub(super) first: &'a Bytes,
    sum: TextSum,
    /// The content where it is not in `first`.
    rest: Option<&'a Bytes>,
    /// Bytes of the content.
    pub(super) content_length: usize,
}

impl CachedResponse<'_> {
    /// Gives the stream as much of it as it takes, and returns what is left to be sent, after which `after` follows.
    #[inline(always)]
    pub(super) fn send<S: Stream>(&self, stream: &mut S, after: After, counters: &mut Counters) -> Option<Outgoing> {
        counters.response(Status::Ok);
        if stream.send_whole(self.first, self.sum) {
            counters.add(Counter::BytesSent, self.first.len() as u64);
            match self.rest {
                None => None,
                Some(rest) => send_rest(Bytes::new(), rest.clone(), stream, after, counters),
            }
        } else {
            let rest = self.rest.cloned().unwrap_or_default();
            send_rest(self.first.clone(), rest, stream, after, counters)
        }
    }
}

/// Gives the stream as much of `first` and `rest` as it takes, and returns what is left to be sent.
fn send_rest<S: Stream>(
    first: Bytes,
    rest: Bytes,
    stream: &mut S,
    after: After,
    counters: &mut Counters,
) -> Option<Outgoing> {
    let mut outgoing = Outgoing {
        status: Status::Ok,
        interim: Bytes::new(),
        head: first,
        body: Body::Memory(rest),
        after,
        access: None,
        complete_at: None,
    };
    // Nothing of it comes from a file, which could fail.
    (outgoing.send(stream, 0, counters) != Progress::Complete).then_some(outgoing)
}

impl Prepared {
    /// `content` with the representation that `describe` makes of it. Nothing is prepared yet.
    pub(super) fn in_memory(content: Bytes, describe: impl FnOnce(Content) -> Representation) -> Self {
        Self {
            representation: Arc::new(describe(Content::Memory(content.clone()))),
            content,
            keep_alive: None,
            close: None,
        }
    }

    /// The representation of the content.
    pub(super) fn representation(&self) -> &Arc<Representation> {
        &self.representation
    }

    /// The content alone.
    pub(super) fn into_content(self) -> Bytes {
        self.content
    }

    /// Length of the content in bytes.
    pub(super) fn content_length(&self) -> usize {
        self.content.len()
    }

    /// The response of the second `clock` shows, for a connection that stays open after it if `persistent`.
    #[inline(always)]
    pub(super) fn response(&mut self, persistent: bool, clock: &Clock) -> CachedResponse<'_> {
        let is_whole = self.content.len() <= WHOLE_LIMIT;
        let slot = if persistent {
            &mut self.keep_alive
        } else {
            &mut self.close
        };
        if slot.as_ref().is_none_or(|dated| dated.second != clock.seconds()) {
            *slot = None;
        }
        let dated = slot.get_or_insert_with(|| {
            let connection = if persistent { "" } else { CONNECTION_CLOSE };
            let content = if is_whole { &self.content[..] } else { &[] };
            let bytes = put_together(&self.representation, content, connection, clock.text());
            Dated {
                second: clock.seconds(),
                sum: TextSum::of(&bytes),
                bytes,
            }
        });
        CachedResponse {
            first: &dated.bytes,
            sum: dated.sum,
            rest: (!is_whole).then_some(&self.content),
            content_length: self.content.len(),
        }
    }
}

/// The maximum number of bytes held for content of `length` bytes, those of the prepared responses included.
pub(super) fn content_memory(length: usize) -> usize {
    if length <= WHOLE_LIMIT { 3 * length } else { length }
}

#[cold]
fn put_together(representation: &Representation, content: &[u8], connection: &str, date: &str) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEAD_SIZE + content.len());
    head::append(
        &mut bytes,
        Status::Ok,
        date,
        connection,
        format_args!("{}", representation.whole),
    );
    bytes.extend_from_slice(content);
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::super::etag::EntityTag;
    use super::super::files::Stamp;
    use super::*;

    const SECOND: u64 = 784_111_777;

    fn prepared(size: usize) -> Prepared {
        let stamp = Stamp::for_test(size as u64, 0);
        Prepared::in_memory(Bytes::from(vec![b'x'; size]), |content| {
            Representation::of_file(b"a.txt", &stamp, EntityTag::of_settled(&stamp), content, SECOND)
        })
    }

    fn clock(second: u64) -> Clock {
        let mut clock = Clock::new();
        clock.hold(second);
        clock
    }

    #[test]
    fn a_response_is_put_together_once_a_second() {
        let mut prepared = prepared(100);
        for persistent in [true, false] {
            let first = prepared.response(persistent, &clock(SECOND)).first.clone();
            let again = prepared.response(persistent, &clock(SECOND)).first.clone();
            assert_eq!(first.as_ptr(), again.as_ptr());
            let later = prepared.response(persistent, &clock(SECOND + 1)).first.clone();
            assert_ne!(first.as_ptr(), later.as_ptr());
            assert_ne!(first, later);
            assert_eq!(first.len(), later.len());
        }
    }

    #[test]
    fn both_kinds_are_kept_side_by_side() {
        let mut prepared = prepared(100);
        let clock = clock(SECOND);
        let open = prepared.response(true, &clock).first.clone();
        let close = prepared.response(false, &clock).first.clone();
        assert_eq!(open.len() + CONNECTION_CLOSE.len(), close.len());
        assert_eq!(prepared.response(true, &clock).first.as_ptr(), open.as_ptr());
        assert_eq!(prepared.response(false, &clock).first.as_ptr(), close.as_ptr());
    }

    #[test]
    fn long_content_is_not_copied() {
        for (size, copied) in [(0, true), (WHOLE_LIMIT, true), (WHOLE_LIMIT + 1, false)] {
            let mut prepared = prepared(size);
            let content = prepared.content.clone();
            let ready = prepared.response(true, &clock(SECOND));
            assert_eq!(ready.rest.is_none(), copied, "{size} bytes");
            assert_eq!(ready.first.ends_with(b"\r\n\r\n"), size == 0 || !copied, "{size} bytes");
            if let Some(rest) = ready.rest {
                assert_eq!(rest.as_ptr(), content.as_ptr());
            }
            assert_eq!(content_memory(size), if copied { 3 * size } else { size });
        }
    }
}
