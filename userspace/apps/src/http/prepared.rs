//! Responses that are put together once and sent many times.
//!
//! A GET request of HTTP/1.1 without conditions and ranges is answered with the same bytes as the one before, until
//! the file or the second of the Date field changes. So these bytes are kept, and sending them is counting a reference.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::date::Clock;
use super::head::{self, CONNECTION_CLOSE, HEAD_SIZE};
use super::representation::{Content, Representation};
use super::status::Status;

/// Content up to this size (bytes) is kept once more behind each prepared head, so that a response is one piece. With
/// more of it a second piece costs little next to the segments it fills, and the copies would take much of the cache.
const WHOLE_LIMIT: usize = 4 << 10;

/// What is served from memory, with the 200 responses that send all of it.
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
}

/// A 200 response to be sent.
pub(super) struct Ready {
    /// The head, or all of the response.
    pub(super) first: Bytes,
    /// The content where it is not in `first`.
    pub(super) rest: Option<Bytes>,
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

    /// What is served.
    pub(super) fn representation(&self) -> &Arc<Representation> {
        &self.representation
    }

    /// How many bytes of content are held at most, those of the prepared responses included.
    pub(super) fn content_memory(&self) -> usize {
        let length = self.content.len();
        if length <= WHOLE_LIMIT { 3 * length } else { length }
    }

    /// The response of the second `clock` shows, for a connection that stays open after it if `persistent`.
    pub(super) fn ready(&mut self, persistent: bool, clock: &Clock) -> Ready {
        let is_whole = self.content.len() <= WHOLE_LIMIT;
        let slot = if persistent {
            &mut self.keep_alive
        } else {
            &mut self.close
        };
        let first = match &*slot {
            Some(dated) if dated.second == clock.seconds() => dated.bytes.clone(),
            _ => {
                let connection = if persistent { "" } else { CONNECTION_CLOSE };
                let content = if is_whole { &self.content[..] } else { &[] };
                let bytes = put_together(&self.representation, content, connection, clock.text());
                *slot = Some(Dated {
                    second: clock.seconds(),
                    bytes: bytes.clone(),
                });
                bytes
            }
        };
        Ready {
            first,
            rest: (!is_whole).then(|| self.content.clone()),
        }
    }
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
    use super::super::files::Stamp;
    use super::*;

    const SECOND: u64 = 784_111_777;

    fn prepared(size: usize) -> Prepared {
        let stamp = Stamp {
            device: 0,
            inode: 0,
            length: size as u64,
            modified: 0,
            modified_nanos: 0,
        };
        Prepared::in_memory(Bytes::from(vec![b'x'; size]), |content| {
            Representation::of_file(b"a.txt", &stamp, content, SECOND)
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
            let first = prepared.ready(persistent, &clock(SECOND)).first;
            let again = prepared.ready(persistent, &clock(SECOND)).first;
            assert_eq!(first.as_ptr(), again.as_ptr());
            let later = prepared.ready(persistent, &clock(SECOND + 1)).first;
            assert_ne!(first.as_ptr(), later.as_ptr());
            assert_ne!(first, later);
            assert_eq!(first.len(), later.len());
        }
    }

    #[test]
    fn both_kinds_are_kept_side_by_side() {
        let mut prepared = prepared(100);
        let clock = clock(SECOND);
        let open = prepared.ready(true, &clock).first;
        let close = prepared.ready(false, &clock).first;
        assert_eq!(open.len() + CONNECTION_CLOSE.len(), close.len());
        assert_eq!(prepared.ready(true, &clock).first.as_ptr(), open.as_ptr());
        assert_eq!(prepared.ready(false, &clock).first.as_ptr(), close.as_ptr());
    }

    #[test]
    fn long_content_is_not_copied() {
        for (size, copied) in [(0, true), (WHOLE_LIMIT, true), (WHOLE_LIMIT + 1, false)] {
            let mut prepared = prepared(size);
            let content = prepared.content.clone();
            let ready = prepared.ready(true, &clock(SECOND));
            assert_eq!(ready.rest.is_none(), copied, "{size} bytes");
            assert_eq!(ready.first.ends_with(b"\r\n\r\n"), size == 0 || !copied, "{size} bytes");
            if let Some(rest) = ready.rest {
                assert_eq!(rest.as_ptr(), content.as_ptr());
            }
            assert_eq!(prepared.content_memory(), if copied { 3 * size } else { size });
        }
    }
}
