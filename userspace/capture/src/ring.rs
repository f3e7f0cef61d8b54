//! The way of captured frames from a thread that must not wait to the one that writes them: a ring of octets, bounded,
//! without locks. A frame for which there is no room is lost and counted.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};

use crate::filter::Filter;

/// The way of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the device.
    Received,
    /// To the device.
    Sent,
}

/// The properties of a captured frame beside its octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub time: u64,
    /// Octets of the whole frame.
    pub length: u32,
    /// Those of them that were captured.
    pub captured: u32,
    /// The number of the device.
    pub device: u8,
    /// The way it took.
    pub direction: Direction,
}

/// Octets of a [`Record`] in the ring.
const HEADER: usize = 24;

impl Record {
    fn to_octets(self) -> [u8; HEADER] {
        let mut octets = [0; HEADER];
        octets[..8].copy_from_slice(&self.time.to_ne_bytes());
        octets[8..12].copy_from_slice(&self.length.to_ne_bytes());
        octets[12..16].copy_from_slice(&self.captured.to_ne_bytes());
        octets[16] = self.device;
        octets[17] = u8::from(self.direction == Direction::Sent);
        octets
    }

    fn from_octets(octets: &[u8; HEADER]) -> Self {
        let word = |at: usize| u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
        let mut time = [0; 8];
        time.copy_from_slice(&octets[..8]);
        Self {
            time: u64::from_ne_bytes(time),
            length: word(8),
            captured: word(12),
            device: octets[16],
            direction: if octets[17] == 0 {
                Direction::Received
            } else {
                Direction::Sent
            },
        }
    }
}

/// The end at which one thread puts in the frames that match.
#[derive(Debug)]
pub struct Tap {
    filter: Arc<Filter>,
    snaplen: usize,
    ring: Producer<u8>,
    lost: Arc<AtomicU64>,
}

/// The outcome of offering a frame to a [`Tap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It does not match.
    Other,
    /// It is in the ring.
    Captured,
    /// There was no room.
    Lost,
}

/// The end at which another thread takes them out.
#[derive(Debug)]
pub struct Source {
    ring: Consumer<u8>,
    lost: Arc<AtomicU64>,
}

/// A tap and its other end, with room for `capacity` octets between them. Of each frame that `filter` matches
/// `snaplen` octets are kept.
pub fn tap(filter: Arc<Filter>, snaplen: usize, capacity: usize) -> (Tap, Source) {
    let (producer, consumer) = RingBuffer::new(capacity);
    let lost = Arc::new(AtomicU64::new(0));
    let tap = Tap {
        filter,
        snaplen,
        ring: producer,
        lost: Arc::clone(&lost),
    };
    (tap, Source { ring: consumer, lost })
}

impl Tap {
    /// Puts a copy of a frame into the ring if it matches; `now` tells the time, in nanoseconds of CLOCK_MONOTONIC.
    pub fn offer(&mut self, frame: &[u8], device: u8, direction: Direction, now: impl FnOnce() -> u64) -> Offered {
        if !self.filter.matches(frame, frame.len(), direction) {
            return Offered::Other;
        }
        let captured = frame.len().min(self.snaplen);
        if self.ring.slots() < HEADER + captured {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return Offered::Lost;
        }
        let record = Record {
            time: now(),
            length: frame.len() as u32,
            captured: captured as u32,
            device,
            direction,
        };
        // There is room, which nobody else takes.
        let _ = self.ring.push_entire_slice(&record.to_octets());
        let _ = self.ring.push_entire_slice(&frame[..captured]);
        Offered::Captured
    }

    /// Whether nobody will take what is put here.
    pub fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }
}

impl Source {
    /// The oldest frame that was not taken yet.
    pub fn peek(&mut self) -> Option<Record> {
        let chunk = self.ring.read_chunk(HEADER).ok()?;
        let (first, second) = chunk.as_slices();
        let mut octets = [0; HEADER];
        octets[..first.len()].copy_from_slice(first);
        octets[first.len()..].copy_from_slice(second);
        Some(Record::from_octets(&octets))
    }

    /// Takes the oldest frame, whose octets are in one piece or in two.
    pub fn take<T>(&mut self, write: impl FnOnce(Record, [&[u8]; 2]) -> T) -> Option<T> {
        let record = self.peek()?;
        // Its octets may still be on their way.
        let chunk = self.ring.read_chunk(HEADER + record.captured as usize).ok()?;
        let (first, second) = chunk.as_slices();
        let behind = HEADER.saturating_sub(first.len());
        let written = write(record, [first.get(HEADER..).unwrap_or_default(), &second[behind..]]);
        chunk.commit_all();
        Some(written)
    }

    /// Whether a quarter of the room is taken.
    pub fn is_filling(&self) -> bool {
        self.ring.slots() >= self.ring.buffer().capacity() / 4
    }

    /// Frames that found no room.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether nobody puts anything here any more.
    pub fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::frame;

    fn taken(source: &mut Source) -> Option<(Record, Vec<u8>)> {
        source.take(|record, pieces| (record, pieces.concat()))
    }

    #[test]
    fn frames_come_out_as_they_were_put_in() {
        // Not a multiple of what a frame takes, so that records lie across the end of the ring in many ways.
        let (mut tap, mut source) = tap(Arc::default(), 40, 1000);
        for time in 0..100 {
            let frame = frame(&[time as u8; 9]);
            let direction = if time % 2 == 0 {
                Direction::Received
            } else {
                Direction::Sent
            };
            assert_eq!(tap.offer(&frame, 3, direction, || time), Offered::Captured);
            let expected = Record {
                time,
                length: frame.len() as u32,
                captured: 40,
                device: 3,
                direction,
            };
            assert_eq!(source.peek(), Some(expected));
            assert_eq!(taken(&mut source), Some((expected, frame[..40].to_vec())));
        }
        assert_eq!((source.peek(), source.lost()), (None, 0));
    }

    #[test]
    fn what_finds_no_room_is_lost_and_counted_and_the_rest_is_whole() {
        let (mut tap, mut source) = tap(Arc::default(), usize::MAX, 200);
        let frame = frame(b"text");
        let offered: Vec<Offered> = (0..4)
            .map(|time| tap.offer(&frame, 0, Direction::Sent, || time))
            .collect();
        assert_eq!(
            offered,
            [Offered::Captured, Offered::Captured, Offered::Lost, Offered::Lost]
        );
        assert_eq!(source.lost(), 2);
        assert_eq!(
            taken(&mut source).map(|(record, octets)| (record.time, octets)),
            Some((0, frame.clone()))
        );
        assert_eq!(tap.offer(&frame, 0, Direction::Sent, || 4), Offered::Captured);
        let left: Vec<u64> = core::iter::from_fn(|| taken(&mut source))
            .map(|(record, _)| record.time)
            .collect();
        assert_eq!(left, [1, 4]);
    }

    #[test]
    fn a_quarter_of_the_room_is_filling() {
        // A record takes 82 octets.
        let (mut tap, mut source) = tap(Arc::default(), usize::MAX, 8 * 82);
        tap.offer(&frame(b"text"), 0, Direction::Sent, || 0);
        assert!(!source.is_filling());
        tap.offer(&frame(b"text"), 0, Direction::Sent, || 1);
        assert!(source.is_filling());
        taken(&mut source);
        assert!(!source.is_filling());
    }

    #[test]
    fn what_does_not_match_takes_no_room_and_no_time() {
        let (mut tap, mut source) = tap(Arc::new("udp".parse().expect("a filter")), 100, 1000);
        let offered = tap.offer(&frame(b""), 0, Direction::Received, || panic!("nobody asks"));
        assert_eq!((offered, source.peek()), (Offered::Other, None));
        assert!(!tap.is_abandoned() && !source.is_abandoned());
        drop(source);
        assert!(tap.is_abandoned());
    }
}
