//! Events of connections, on their way from the engines to the reader of a trace.

use core::sync::atomic::{AtomicU64, Ordering};
use std::net::SocketAddr;
use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};
use tidegate_capture::Peer;
use tidegate_tcp::engine::{Happening, Observer};
use tidegate_tcp::wire::FlowKey;

use crate::taps::now;

/// Happenings of one shard that wait to be read.
const MAX_WAITING: usize = 8192;

/// Something that happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Happened {
    /// Nanoseconds: of CLOCK_MONOTONIC while in a ring, since 1970 once it is shown.
    pub time: u64,
    /// The peer.
    pub peer: SocketAddr,
    /// This side.
    pub local: SocketAddr,
    /// Its kind.
    pub happening: Happening,
}

/// The observer of the connections of some peers. It never waits: an event that finds no room is lost and counted.
pub(crate) struct Tracer {
    peer: Peer,
    ring: Producer<Happened>,
    lost: Arc<AtomicU64>,
}

/// The other end of a [`Tracer`], where the events it told of are read.
pub(crate) struct Happenings {
    pub(crate) ring: Consumer<Happened>,
    lost: Arc<AtomicU64>,
}

/// A tracer of the connections of `peer`, and its other end.
pub(crate) fn tracer(peer: Peer) -> (Tracer, Happenings) {
    let (producer, consumer) = RingBuffer::new(MAX_WAITING);
    let lost = Arc::new(AtomicU64::new(0));
    let tracer = Tracer {
        peer,
        ring: producer,
        lost: Arc::clone(&lost),
    };
    (tracer, Happenings { ring: consumer, lost })
}

impl Observer for Tracer {
    fn observe(&mut self, key: &FlowKey, happening: Happening) {
        let peer = key.peer();
        if self.peer.contains(peer) {
            let happened = Happened {
                time: now(),
                peer,
                local: key.local(),
                happening,
            };
            if self.ring.push(happened).is_err() {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn is_done(&self) -> bool {
        self.ring.is_abandoned()
    }
}

impl core::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Tracer")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Happenings {
    /// The number of those that found no room.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use tidegate_tcp::State;

    use super::*;

    const CLOSED: Happening = Happening::State {
        from: State::Established,
        to: State::Closed,
    };

    #[test]
    fn what_finds_no_room_is_counted_and_others_are_not_told_of() {
        let key = |peer: &str| FlowKey::new("198.18.0.1:80".parse().unwrap(), peer.parse().unwrap());
        let (mut tracer, mut told) = tracer("198.18.0.7".parse().unwrap());
        for _ in 0..MAX_WAITING + 3 {
            tracer.observe(&key("198.18.0.7:40000"), CLOSED);
            tracer.observe(&key("198.18.0.8:40000"), CLOSED);
        }
        assert_eq!(told.lost(), 3);
        let happened = told.ring.pop().unwrap();
        assert_eq!(
            (happened.peer, happened.happening),
            ("198.18.0.7:40000".parse().unwrap(), CLOSED)
        );
        assert_eq!(happened.local, "198.18.0.1:80".parse().unwrap());
        assert!(!tracer.is_done());
        drop(told);
        assert!(tracer.is_done());
    }
}
