//! The frames and events of all shards and of the XDP program, in the order of their time.

use core::ops::ControlFlow;
use std::sync::Arc;

use tidegate_abi::capture::Sample;
use tidegate_capture::{Direction, Filter, Record, Source};

use crate::trace::{Happened, Happenings};

/// A frame or an event that is taken out of its ring.
pub(super) enum Taken<'a> {
    /// A frame of a shard.
    Frame {
        queue: u32,
        record: Record,
        octets: [&'a [u8]; 2],
    },
    /// An event of a shard's engine.
    Happened(Happened),
    /// A frame that the XDP program dropped or answered.
    Sample(Sample),
}

/// The rings of a capture. Each is in the order of its time by itself.
pub(super) struct Merge<D> {
    filter: Arc<Filter>,
    /// By shard, with its queue.
    pub(super) sources: Vec<(u32, Source)>,
    /// By shard, if the capture is of a trace.
    pub(super) happenings: Vec<Happenings>,
    /// The samples of the program, matching or not.
    pub(super) drops: D,
    /// The oldest sample that was not taken.
    sample: Option<Sample>,
    /// Whether it is known to match.
    matches: bool,
    /// Whether `drops` may have more: asking it for each frame would cost more than the frame.
    has_drops: bool,
}

/// The ring that has the oldest.
#[derive(Clone, Copy)]
enum Origin {
    /// The frames of the shard of this index.
    Shard(usize),
    /// The events of its engine.
    Engine(usize),
    /// The samples of the XDP program.
    Program,
}

impl<D: Iterator<Item = Sample>> Merge<D> {
    pub(super) fn new(filter: Arc<Filter>, sources: Vec<(u32, Source)>, happenings: Vec<Happenings>, drops: D) -> Self {
        Self {
            filter,
            sources,
            happenings,
            drops,
            sample: None,
            matches: false,
            has_drops: false,
        }
    }

    /// Gives `see` what is not later than `until`, in nanoseconds of CLOCK_MONOTONIC, the oldest first, until it
    /// breaks. With `until` in the past this comes to an end however fast frames come.
    pub(super) fn take<B>(&mut self, until: u64, mut see: impl FnMut(Taken<'_>) -> ControlFlow<B>) -> ControlFlow<B> {
        self.has_drops = true;
        while let Some(origin) = self.oldest(until) {
            match origin {
                Origin::Shard(index) => {
                    let (queue, source) = &mut self.sources[index];
                    let queue = *queue;
                    match source.take(|record, octets| see(Taken::Frame { queue, record, octets })) {
                        // Its octets are still being written.
                        None => break,
                        Some(flow) => flow?,
                    }
                }
                Origin::Engine(index) => {
                    if let Ok(happened) = self.happenings[index].ring.pop() {
                        see(Taken::Happened(happened))?;
                    }
                }
                Origin::Program => {
                    self.matches = false;
                    if let Some(sample) = self.sample.take() {
                        see(Taken::Sample(sample))?;
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// The ring with the oldest of all that is not later than `until`.
    fn oldest(&mut self, until: u64) -> Option<Origin> {
        let program = self.next_sample(until).map(|time| (time, Origin::Program));
        let sources = self.sources.iter_mut().enumerate();
        let shards = sources.filter_map(|(index, (_, source))| Some((source.peek()?.time, Origin::Shard(index))));
        let happenings = self.happenings.iter_mut().enumerate();
        let engines = happenings.filter_map(|(index, told)| Some((told.ring.peek().ok()?.time, Origin::Engine(index))));
        // Of the same time the frame comes before what it did.
        let oldest = program
            .into_iter()
            .chain(shards)
            .chain(engines)
            .min_by_key(|&(time, _)| time);
        oldest.filter(|&(time, _)| time <= until).map(|(_, origin)| origin)
    }

    /// The time of the oldest sample that matches, if it is not later than `until`.
    fn next_sample(&mut self, until: u64) -> Option<u64> {
        loop {
            if self.sample.is_none() && self.has_drops {
                self.sample = self.drops.next();
                self.has_drops = self.sample.is_some();
            }
            let sample = self.sample.as_ref()?;
            if sample.time > until {
                return None;
            }
            let octets = sample.octets();
            self.matches |= self.filter.matches(octets, sample.length as usize, direction(sample));
            if self.matches {
                return Some(sample.time);
            }
            self.sample = None;
        }
    }
}

pub(super) fn direction(sample: &Sample) -> Direction {
    if sample.is_sent == 0 {
        Direction::Received
    } else {
        Direction::Sent
    }
}

#[cfg(test)]
mod tests {
    use core::convert::Infallible;
    use core::iter;

    use tidegate_abi::capture::MAX_OCTETS;
    use tidegate_capture::{Tap, tap};

    use super::*;

    const FRAME: [u8; 60] = [7; 60];

    fn sample(time: u64) -> Sample {
        Sample {
            time,
            length: 60,
            captured: 60,
            counter: 0,
            queue: 0,
            ifindex: 0,
            is_sent: 0,
            octets: [7; MAX_OCTETS],
        }
    }

    fn put(tap: &mut Tap, time: u64) {
        tap.offer(&FRAME, 0, Direction::Received, || time);
    }

    fn source() -> (Tap, Source) {
        tap(Arc::default(), 60, 1 << 16)
    }

    /// The times and origins of what is taken until `until`; `meanwhile` is called after each.
    fn taken<D: Iterator<Item = Sample>>(
        merge: &mut Merge<D>,
        until: u64,
        mut meanwhile: impl FnMut(u64),
    ) -> Vec<(u64, &'static str)> {
        let mut taken = Vec::new();
        let flow = merge.take(until, |one| {
            let (time, origin) = match one {
                Taken::Frame { record, queue: 0, .. } => (record.time, "first"),
                Taken::Frame { record, .. } => (record.time, "other"),
                Taken::Happened(happened) => (happened.time, "event"),
                Taken::Sample(sample) => (sample.time, "program"),
            };
            taken.push((time, origin));
            assert!(taken.len() < 1000, "this does not end");
            meanwhile(time);
            ControlFlow::<Infallible>::Continue(())
        });
        assert_eq!(flow, ControlFlow::Continue(()));
        taken
    }

    #[test]
    fn all_come_in_the_order_of_their_time_and_later_ones_stay() {
        let ((mut first_tap, first), (mut other_tap, other)) = (source(), source());
        let drops = [2, 6].map(sample).into_iter();
        let mut merge = Merge::new(Arc::default(), vec![(0, first), (1, other)], Vec::new(), drops);
        [1, 4, 7].into_iter().for_each(|time| put(&mut first_tap, time));
        [3, 5].into_iter().for_each(|time| put(&mut other_tap, time));
        let early = taken(&mut merge, 4, |_| {});
        assert_eq!(early, [(1, "first"), (2, "program"), (3, "other"), (4, "first")]);
        assert_eq!(
            taken(&mut merge, 100, |_| {}),
            [(5, "other"), (6, "program"), (7, "first")]
        );
    }

    #[test]
    fn frames_that_come_as_fast_as_they_are_taken_do_not_put_off_the_end() {
        let (mut tap, source) = source();
        put(&mut tap, 0);
        let mut merge = Merge::new(Arc::default(), vec![(0, source)], Vec::new(), iter::empty());
        let taken = taken(&mut merge, 10, |time| put(&mut tap, time + 1));
        assert_eq!((taken.len(), taken.last()), (11, Some(&(10, "first"))));
    }

    #[test]
    fn samples_that_do_not_match_do_not_put_off_the_end_either() {
        let filter = Arc::new("udp".parse().expect("a filter"));
        let mut asked = 0;
        let drops = (0..).map(sample).inspect(|_| asked += 1);
        let mut merge = Merge::new(filter, Vec::new(), Vec::new(), drops);
        assert!(taken(&mut merge, 10, |_| {}).is_empty());
        drop(merge);
        assert_eq!(asked, 12);
    }
}
