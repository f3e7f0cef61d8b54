//! Segments that arrived on another queue than their flow's.
//!
//! A segment whose flow the receiving shard does not know visits the shards that the flow filter names: its owner, and
//! now and then another that has a flow of the same fingerprint. The first that knows the flow takes the segment in,
//! and the frame goes home. When nobody knows it, it comes home unowned and is answered there. While every flow stays
//! on its queue no segment makes a visit, and nothing of this costs anything.
//!
//! Order within a flow is kept: its segments that arrive on one queue take the same way, and every queue on the way is
//! first-in, first-out. The way home always has room (a shard's frames are no more than its queue of returns holds), so
//! no frame is lost when a visit is cut short by a full queue.
//!
//! Shards of another process are visited, too: each has a queue here, behind those of this process, and the shard that
//! relays to it takes the visits out and sends them home or on when the answer has come.

use core::mem;
use std::sync::Arc;

use crate::sync::ArrayQueue;

/// A segment away from its shard.
pub struct Visit<S> {
    /// The shard whose frame it is.
    origin: u16,
    /// The shards it is still to be shown to, a bit each.
    others: u64,
    /// The same of those to which it is shown after that.
    then: u64,
    segment: S,
}

impl<S> Visit<S> {
    /// The segment.
    pub fn segment(&self) -> &S {
        &self.segment
    }
}

/// The outcome of the visits of a segment that comes home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A shard knew its flow and took it in.
    Taken,
    /// No other shard knew its flow.
    Unowned,
    /// A queue on its way was full.
    Dropped,
}

/// Segments of other shards that were looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// All of them.
    pub segments: u64,
    /// Those that were taken in.
    pub taken: u64,
    /// Those that went on to another shard.
    pub passed_on: u64,
}

/// The queues of one shard.
struct Inbox<S> {
    visits: ArrayQueue<Visit<S>>,
    returns: ArrayQueue<(S, Outcome)>,
}

/// The queues of all shards.
pub struct Exchange<S> {
    inboxes: Box<[Inbox<S>]>,
}

impl<S> Exchange<S> {
    /// Queues for `shards` shards: `visits` segments of others may wait at each, and `frames` of its own may come home.
    pub fn new(shards: u16, visits: usize, frames: usize) -> Self {
        Self::with_relayed(shards, 0, visits, frames)
    }

    /// As [`Exchange::new`], with queues for `relayed` shards of other processes, numbered from `shards` on. There are
    /// 64 of both together at most.
    pub fn with_relayed(shards: u16, relayed: u16, visits: usize, frames: usize) -> Self {
        let all = shards + relayed;
        // A shard that is alone never uses them.
        let (visits, frames) = if all > 1 { (visits, frames) } else { (1, 1) };
        Self {
            inboxes: (0..all)
                .map(|shard| Inbox {
                    visits: ArrayQueue::new(visits),
                    // No frame is another process's.
                    returns: ArrayQueue::new(if shard < shards { frames } else { 1 }),
                })
                .collect(),
        }
    }
}

impl<S> Drop for Exchange<S> {
    fn drop(&mut self) {
        // The UMEMs go with the shards, so the frames that are still under way need not come home.
        for inbox in &self.inboxes {
            while let Some(visit) = inbox.visits.pop() {
                mem::forget(visit.segment);
            }
            while let Some((segment, _)) = inbox.returns.pop() {
                mem::forget(segment);
            }
        }
    }
}

/// One shard's side of the exchange.
pub struct Handover<S> {
    exchange: Arc<Exchange<S>>,
    me: u16,
    /// A bit per shard that was sent something since it was last woken.
    to_wake: u64,
}

impl<S> Handover<S> {
    /// The side of shard `me`.
    pub fn new(exchange: Arc<Exchange<S>>, me: u16) -> Self {
        Self {
            exchange,
            me,
            to_wake: 0,
        }
    }

    /// Whether there is nobody to hand anything to.
    pub fn is_alone(&self) -> bool {
        self.exchange.inboxes.len() == 1
    }

    /// Whether something waits for this shard.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        !self.mine().visits.is_empty() || !self.mine().returns.is_empty()
    }

    /// The number of segments of other shards that wait here.
    pub fn foreign(&self) -> u32 {
        self.mine().visits.len() as u32
    }

    /// Sends a segment that arrived here to the shards in `others`, a bit each, one after the other, and to those in
    /// `then` after them.
    ///
    /// # Errors
    ///
    /// The segment itself when the first one's queue is full.
    pub fn send(&mut self, segment: S, others: u64, then: u64) -> Result<(), S> {
        let all = u64::MAX >> (64 - self.exchange.inboxes.len().clamp(1, 64)) & !(1 << self.me);
        let visit = Visit {
            origin: self.me,
            others: others & all,
            then: then & all,
            segment,
        };
        self.visit(visit).map_err(|visit| visit.segment)
    }

    /// Shows up to `limit` segments of other shards to `receive`, which says whether it took the segment in, and sends
    /// each home or on.
    pub fn serve(&mut self, limit: usize, mut receive: impl FnMut(&S) -> bool) -> Served {
        let mut served = Served::default();
        for _ in 0..limit {
            let Some(visit) = self.mine().visits.pop() else {
                break;
            };
            served.segments += 1;
            let taken = receive(&visit.segment);
            served.taken += u64::from(taken);
            served.passed_on += u64::from(self.finish(visit, taken));
        }
        served
    }

    /// Takes the next segment that waits here, to be shown to somebody who does not answer at once. It has to go to
    /// [`Handover::finish`].
    pub fn take(&mut self) -> Option<Visit<S>> {
        self.mine().visits.pop()
    }

    /// Sends a segment home if it was taken in, or else on to the next shard, if there is one. Returns whether it went
    /// on.
    pub fn finish(&mut self, visit: Visit<S>, taken: bool) -> bool {
        if taken {
            self.send_home(visit, Outcome::Taken);
            return false;
        }
        if visit.others | visit.then == 0 {
            self.send_home(visit, Outcome::Unowned);
            return false;
        }
        match self.visit(visit) {
            Ok(()) => true,
            Err(visit) => {
                self.send_home(visit, Outcome::Dropped);
                false
            }
        }
    }

    /// The next segment that came home, and what became of it.
    #[inline]
    pub fn returned(&mut self) -> Option<(S, Outcome)> {
        self.mine().returns.pop()
    }

    /// The shards to wake for what was sent to them since the last call, one bit each.
    #[inline]
    pub fn take_to_wake(&mut self) -> u64 {
        mem::take(&mut self.to_wake)
    }

    fn mine(&self) -> &Inbox<S> {
        &self.exchange.inboxes[usize::from(self.me)]
    }

    /// Sends a visit to the next of the shards it is still to be shown to, in ring order.
    fn visit(&mut self, mut visit: Visit<S>) -> Result<(), Visit<S>> {
        if visit.others == 0 {
            visit.others = mem::take(&mut visit.then);
        }
        if visit.others == 0 {
            self.send_home(visit, Outcome::Unowned);
            return Ok(());
        }
        let behind = visit.others & (u64::MAX << self.me << 1);
        let shard = if behind != 0 { behind } else { visit.others }.trailing_zeros();
        visit.others &= !(1 << shard);
        self.exchange.inboxes[shard as usize].visits.push(visit)?;
        self.to_wake |= 1 << shard;
        Ok(())
    }

    fn send_home(&mut self, visit: Visit<S>, outcome: Outcome) {
        let Visit { origin, segment, .. } = visit;
        if let Err((segment, _)) = self.exchange.inboxes[usize::from(origin)]
            .returns
            .push((segment, outcome))
        {
            // The queue holds as many as its shard has frames, so this takes a frame in two places.
            debug_assert!(false, "more frames came home to shard {origin} than it has");
            mem::forget(segment);
        }
        self.to_wake |= 1 << origin;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// The right to a frame, which must not be lost.
    struct Frame;

    impl Drop for Frame {
        fn drop(&mut self) {
            panic!("a frame was lost");
        }
    }

    /// A segment of flow `flow`, the `number`th of it.
    struct FakeSegment {
        frame: Frame,
        flow: u32,
        number: u32,
    }

    /// A shard that owns the flow of its own index and does what the real one does around the engine.
    struct FakeShard {
        owns: u32,
        handover: Handover<FakeSegment>,
        pool: Vec<Frame>,
        served: Served,
        taken: Vec<(u32, u32)>,
        outcomes: Vec<Outcome>,
    }

    const FRAMES: usize = 8;

    fn shards(count: u16, visits: usize) -> Vec<FakeShard> {
        let exchange = Arc::new(Exchange::new(count, visits, FRAMES));
        (0..count)
            .map(|me| FakeShard {
                owns: u32::from(me),
                handover: Handover::new(Arc::clone(&exchange), me),
                pool: (0..FRAMES).map(|_| Frame).collect(),
                served: Served::default(),
                taken: Vec::new(),
                outcomes: Vec::new(),
            })
            .collect()
    }

    impl Drop for FakeShard {
        fn drop(&mut self) {
            self.pool.drain(..).for_each(mem::forget);
        }
    }

    impl FakeShard {
        /// A segment of a flow this shard does not own arrives. False when it could not be sent on its way.
        fn arrives(&mut self, flow: u32, number: u32) -> bool {
            self.arrives_for(flow, number, u64::MAX, 0)
        }

        /// The same, and only the shards in `others` are asked, and then those in `then`.
        fn arrives_for(&mut self, flow: u32, number: u32, others: u64, then: u64) -> bool {
            let frame = self.pool.pop().expect("a frame");
            match self.handover.send(FakeSegment { frame, flow, number }, others, then) {
                Ok(()) => true,
                Err(segment) => {
                    self.pool.push(segment.frame);
                    false
                }
            }
        }

        fn serve(&mut self) -> u64 {
            let (owns, taken) = (self.owns, &mut self.taken);
            let Served {
                segments,
                taken,
                passed_on,
            } = self.handover.serve(usize::MAX, |segment| {
                if segment.flow == owns {
                    taken.push((segment.flow, segment.number));
                }
                segment.flow == owns
            });
            self.served.taken += taken;
            self.served.passed_on += passed_on;
            segments
        }

        fn take_back(&mut self) {
            while let Some((segment, outcome)) = self.handover.returned() {
                self.pool.push(segment.frame);
                self.outcomes.push(outcome);
            }
        }
    }

    /// Lets every shard work until nothing is under way.
    fn settle(shards: &mut [FakeShard]) {
        while shards.iter_mut().map(FakeShard::serve).sum::<u64>() > 0 {}
        for shard in shards {
            shard.take_back();
            assert_eq!(shard.pool.len(), FRAMES, "every frame came home");
            assert!(!shard.handover.is_waiting());
        }
    }

    #[test]
    fn a_segment_finds_its_shard_and_its_frame_comes_home() {
        let mut shards = shards(4, 8);
        assert!(shards[3].arrives(2, 0));
        settle(&mut shards);
        assert_eq!(shards[2].taken, [(2, 0)]);
        assert_eq!(shards[3].outcomes, [Outcome::Taken]);
        assert_eq!(shards[2].served.taken, 1);
        // On its way from 3 it visited 0 and 1.
        let passed_on: Vec<_> = shards.iter().map(|shard| shard.served.passed_on).collect();
        assert_eq!(passed_on, [1, 1, 0, 0]);
    }

    #[test]
    fn a_segment_nobody_knows_comes_home_after_one_round() {
        let mut shards = shards(3, 8);
        assert!(shards[1].arrives(99, 0));
        settle(&mut shards);
        assert_eq!(shards[1].outcomes, [Outcome::Unowned]);
        let passed_on: Vec<_> = shards.iter().map(|shard| shard.served.passed_on).collect();
        assert_eq!(passed_on, [0, 0, 1]);
    }

    #[test]
    fn only_those_who_may_know_a_flow_are_asked() {
        let mut shards = shards(8, 8);
        assert!(shards[1].arrives_for(6, 0, 1 << 6, 0));
        settle(&mut shards);
        assert_eq!(shards[6].taken, [(6, 0)]);
        assert!(shards[1].arrives_for(6, 1, 1 << 3 | 1 << 6, 0));
        assert!(shards[1].arrives_for(99, 2, 1 << 4, 0));
        settle(&mut shards);
        assert_eq!(shards[6].taken, [(6, 0), (6, 1)]);
        let passed_on: Vec<_> = shards.iter().map(|shard| shard.served.passed_on).collect();
        assert_eq!(passed_on, [0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(shards[1].outcomes, [Outcome::Taken, Outcome::Unowned, Outcome::Taken]);
        // One that would take anything is asked last.
        assert!(shards[1].arrives_for(5, 4, 1 << 7, 1 << 5));
        assert!(shards[1].arrives_for(7, 5, 1 << 7, 1 << 5));
        settle(&mut shards);
        assert_eq!(
            (shards[5].taken.as_slice(), shards[7].taken.as_slice()),
            (&[(5, 4)][..], &[(7, 5)][..])
        );
        // Nobody but the shard itself, or none there is.
        assert!(shards[1].arrives_for(99, 3, 1 << 1 | 1 << 8, 0));
        settle(&mut shards);
        assert_eq!(shards[1].outcomes.last(), Some(&Outcome::Unowned));
    }

    #[test]
    fn two_shards_exchange_both_ways() {
        let mut shards = shards(2, 8);
        assert!(shards[0].arrives(1, 0));
        assert!(shards[1].arrives(0, 0));
        settle(&mut shards);
        assert_eq!(shards[0].taken, [(0, 0)]);
        assert_eq!(shards[1].taken, [(1, 0)]);
    }

    #[test]
    fn the_order_within_a_flow_is_kept() {
        let mut shards = shards(3, 8);
        for number in 0..4 {
            assert!(shards[0].arrives(2, number));
            if number == 1 {
                shards[1].serve();
            }
        }
        settle(&mut shards);
        assert_eq!(shards[2].taken, [(2, 0), (2, 1), (2, 2), (2, 3)]);
    }

    #[test]
    fn a_full_queue_at_the_first_shard_gives_the_segment_back() {
        let mut shards = shards(2, 2);
        assert!(shards[0].arrives(1, 0));
        assert!(shards[0].arrives(1, 1));
        assert!(!shards[0].arrives(1, 2));
        assert_eq!(shards[1].handover.foreign(), 2);
        settle(&mut shards);
        assert_eq!(shards[1].taken, [(1, 0), (1, 1)]);
    }

    #[test]
    fn a_full_queue_on_the_way_sends_the_segment_home() {
        let mut shards = shards(3, 1);
        // The queue of shard 2 is full before the segment of shard 0 gets there.
        assert!(shards[1].arrives(2, 0));
        assert!(shards[0].arrives(2, 1));
        shards[1].serve();
        settle(&mut shards);
        assert_eq!(shards[0].outcomes, [Outcome::Dropped]);
        assert_eq!(shards[1].outcomes, [Outcome::Taken]);
        assert_eq!(shards[2].taken, [(2, 0)]);
    }

    #[test]
    fn serving_stops_at_its_limit() {
        let mut shards = shards(2, 8);
        for number in 0..3 {
            assert!(shards[0].arrives(1, number));
        }
        let all_taken = |segments| Served {
            segments,
            taken: segments,
            passed_on: 0,
        };
        assert_eq!(shards[1].handover.serve(2, |_| true), all_taken(2));
        assert!(shards[1].handover.is_waiting());
        assert_eq!(shards[1].handover.serve(2, |_| true), all_taken(1));
        settle(&mut shards);
    }

    #[test]
    fn those_who_were_sent_something_are_to_be_woken() {
        let mut shards = shards(3, 8);
        assert!(shards[2].arrives(0, 0));
        assert_eq!(shards[2].handover.take_to_wake(), 0b001);
        assert_eq!(shards[2].handover.take_to_wake(), 0);
        shards[0].serve();
        assert_eq!(shards[0].handover.take_to_wake(), 0b100);
        settle(&mut shards);
    }

    #[test]
    fn frames_under_way_at_the_end_are_let_go() {
        let mut shards = shards(2, 8);
        assert!(shards[0].arrives(1, 0));
        drop(shards);
    }

    #[test]
    fn a_shard_alone_knows_it() {
        assert!(shards(1, 8)[0].handover.is_alone());
        assert!(!shards(2, 8)[0].handover.is_alone());
    }
}
