//! The scoreboard as it would be if no walk were too long. Random scripts compare the two, and count the work of the
//! real one.

use proptest::prelude::*;

use super::*;

const MSS: u32 = 100;

#[derive(Clone, Copy)]
struct Segment {
    seq: SeqNumber,
    end: SeqNumber,
    sent_at: Instant,
    sacked: bool,
    lost: bool,
    again: bool,
}

impl Segment {
    fn length(&self) -> u32 {
        self.end - self.seq
    }
}

#[derive(Default)]
struct Naive {
    segments: Vec<Segment>,
    fack: SeqNumber,
}

impl Naive {
    fn push(&mut self, seq: SeqNumber, end: SeqNumber, now: Instant) {
        if self.segments.is_empty() {
            self.fack = seq;
        }
        self.segments.push(Segment {
            seq,
            end,
            sent_at: now,
            sacked: false,
            lost: false,
            again: false,
        });
    }

    fn sum(&self, of: fn(&Segment) -> bool) -> u32 {
        let segments = self.segments.iter().filter(|segment| of(segment));
        segments.map(Segment::length).sum()
    }

    fn note(&self, segment: &Segment, delivered: &mut Delivered) {
        let newer = delivered
            .newest
            .is_none_or(|(sent_at, end, _)| (segment.sent_at, 0) > (sent_at, i64::from((end - segment.end) as i32)));
        if newer {
            delivered.newest = Some((segment.sent_at, segment.end, segment.again));
        }
        if segment.again {
            delivered.retransmitted = true;
        } else {
            delivered.timed = delivered.timed.max(Some(segment.sent_at));
            if segment.end.before(self.fack) {
                let first = delivered.reordered.unwrap_or(segment.sent_at);
                delivered.reordered = Some(first.min(segment.sent_at));
            }
        }
    }

    fn acknowledge(&mut self, una: SeqNumber, delivered: &mut Delivered) {
        let count = self.segments.partition_point(|segment| segment.end.at_or_before(una));
        let acknowledged: Vec<Segment> = self.segments.drain(..count).collect();
        for segment in acknowledged.iter().filter(|segment| !segment.sacked) {
            delivered.bytes += segment.length();
            self.note(segment, delivered);
        }
        if let Some(front) = self.segments.first_mut().filter(|front| front.seq.before(una)) {
            if !front.sacked {
                delivered.bytes += una - front.seq;
            }
            front.seq = una;
        }
        if delivered.retransmitted {
            delivered.timed = None;
        }
        self.fack = self.fack.max(una);
    }

    fn sack(&mut self, blocks: &[SackBlock], una: SeqNumber, nxt: SeqNumber, delivered: &mut Delivered) {
        let mut fack = self.fack;
        for &(left, right) in blocks {
            if !left.before(right) || left.before(una) || right.after(nxt) {
                continue;
            }
            fack = fack.max(right);
            for index in 0..self.segments.len() {
                let segment = &mut self.segments[index];
                if segment.sacked || segment.seq.before(left) || segment.end.after(right) {
                    continue;
                }
                (segment.sacked, segment.lost) = (true, false);
                delivered.bytes += segment.length();
                delivered.newly_sacked += 1;
                let segment = *segment;
                self.note(&segment, delivered);
            }
        }
        self.fack = fack;
    }

    fn mark_lost_by_sack(&mut self, mss: u32) {
        let (mut bytes, mut blocks, mut within) = (0, 0, false);
        for segment in self.segments.iter_mut().rev() {
            if segment.sacked {
                bytes += segment.length();
                blocks += u32::from(!within);
            } else if !segment.again && (blocks >= DUP_THRESH || bytes > (DUP_THRESH - 1) * mss) {
                segment.lost = true;
            }
            within = segment.sacked;
        }
    }

    fn mark_lost_by_time(&mut self, xmit: Instant, end: SeqNumber, allowance: Duration, now: Instant) -> Overdue {
        let (mut wait, mut lost_again) = (None, false);
        for segment in &mut self.segments {
            let earlier = segment.sent_at < xmit || (segment.sent_at == xmit && segment.end.before(end));
            if !earlier || segment.sacked || segment.lost {
                continue;
            }
            let due = segment.sent_at + allowance;
            segment.lost = due <= now;
            if segment.lost {
                lost_again |= segment.again;
            } else {
                wait = wait.max(Some(due.since(now)));
            }
        }
        Overdue { wait, lost_again }
    }

    fn mark_all_lost(&mut self) {
        let reneged = self.segments.first().is_some_and(|front| front.sacked);
        for segment in &mut self.segments {
            segment.sacked &= !reneged;
            segment.lost = !segment.sacked;
        }
    }

    fn mark_longer_lost(&mut self, length: u32) {
        for segment in &mut self.segments {
            segment.lost |= !segment.sacked && segment.length() > length;
        }
    }

    fn mark_head_lost(&mut self) {
        if let Some(head) = self.segments.iter_mut().find(|segment| !segment.sacked) {
            head.lost = true;
        }
    }

    fn next_lost(&self) -> Option<usize> {
        self.segments.iter().position(|segment| segment.lost)
    }

    fn split(&mut self, index: usize, length: u32) -> usize {
        if length == 0 || self.segments[index].length() <= length {
            return index;
        }
        let last = self.segments.len() - 1;
        let seq = self.segments[index].seq;
        for at in (0..=last).rev() {
            let chosen = if index == last {
                at == last
            } else {
                !self.segments[at].sacked || at == index
            };
            while chosen && self.segments[at].length() > length {
                let whole = self.segments[at];
                // Of the last one only the first piece, otherwise all, from behind.
                let middle = if index == last {
                    whole.seq + length
                } else {
                    whole.seq + (whole.length() - 1) / length * length
                };
                self.segments[at].end = middle;
                self.segments.insert(at + 1, Segment { seq: middle, ..whole });
                if index == last {
                    break;
                }
            }
        }
        self.segments.iter().position(|segment| segment.seq == seq).unwrap()
    }

    fn retransmitted(&mut self, index: usize, now: Instant) {
        let segment = &mut self.segments[index];
        (segment.lost, segment.again, segment.sent_at) = (false, true, now);
    }
}

/// A script's state: both boards, and what a connection would know.
struct Pair {
    real: Scoreboard,
    naive: Naive,
    una: SeqNumber,
    nxt: SeqNumber,
    now: Instant,
    /// RACK.xmit_ts and RACK.end_seq.
    newest: (Instant, SeqNumber),
}

#[derive(Clone, Debug)]
enum Step {
    /// Segments of this many octets are sent.
    Send(Vec<u32>),
    Wait(u64),
    /// In shares of what is outstanding: the acknowledgment, and blocks; then what detects loss.
    Acknowledge(u16, Vec<(u16, u16)>, Detection),
    /// The same blocks as before with their ends moved.
    Repeat(Vec<i32>, Detection),
    Timeout,
    Retransmit(u8),
    /// The one at a share of the queue, though it may not be lost.
    Probe(u16),
    Shorter(u32),
    Head,
    Undo,
}

#[derive(Clone, Copy, Debug)]
enum Detection {
    None,
    Sack(u32),
    /// After this many milliseconds.
    Time(u64),
}

fn detection() -> impl Strategy<Value = Detection> {
    prop_oneof![
        Just(Detection::None),
        prop_oneof![Just(MSS), Just(1), Just(1000)].prop_map(Detection::Sack),
        (0..40_u64).prop_map(Detection::Time),
        (0..40_u64).prop_map(Detection::Time),
    ]
}

fn blocks() -> impl Strategy<Value = Vec<(u16, u16)>> {
    proptest::collection::vec((any::<u16>(), prop_oneof![0..200_u16, any::<u16>()]), 0..5)
}

fn step() -> impl Strategy<Value = Step> {
    let acknowledgment = prop_oneof![3 => Just(0), 1 => 0..4000_u16, 1 => any::<u16>()];
    prop_oneof![
        4 => proptest::collection::vec(prop_oneof![Just(MSS), 1..=MSS], 1..200).prop_map(Step::Send),
        2 => (0..30_u64).prop_map(Step::Wait),
        8 => (acknowledgment, blocks(), detection()).prop_map(|(una, blocks, by)| Step::Acknowledge(una, blocks, by)),
        3 => (proptest::collection::vec(-150..300_i32, 4), detection()).prop_map(|(moves, by)| Step::Repeat(moves, by)),
        1 => Just(Step::Timeout),
        5 => (1..20_u8).prop_map(Step::Retransmit),
        1 => any::<u16>().prop_map(Step::Probe),
        1 => (20..MSS).prop_map(Step::Shorter),
        1 => Just(Step::Head),
        1 => Just(Step::Undo),
    ]
}

impl Pair {
    fn new() -> Self {
        let start = SeqNumber(u32::MAX - 5000);
        Self {
            real: Scoreboard::new(),
            naive: Naive::default(),
            una: start,
            nxt: start,
            now: Instant::from_millis(1000),
            newest: (Instant::ZERO, SeqNumber(0)),
        }
    }

    fn at(&self, share: u16) -> SeqNumber {
        let flight = u64::from(self.nxt - self.una);
        self.una + (flight * u64::from(share) / u64::from(u16::MAX)) as u32
    }

    fn take(&mut self, una: SeqNumber, blocks: &[SackBlock], by: Detection) {
        self.real.take_work();
        let segments = self.real.len().max(1);
        let (mut real, mut naive) = (Delivered::default(), Delivered::default());
        if una.after(self.una) {
            self.una = una;
            self.real.acknowledge(una, &mut real);
            self.naive.acknowledge(una, &mut naive);
        }
        self.real.sack(blocks, self.una, self.nxt, &mut real);
        self.naive.sack(blocks, self.una, self.nxt, &mut naive);
        assert_eq!(
            (
                real.bytes,
                real.newly_sacked,
                real.newest,
                real.timed,
                real.reordered,
                real.retransmitted
            ),
            (
                naive.bytes,
                naive.newly_sacked,
                naive.newest,
                naive.timed,
                naive.reordered,
                naive.retransmitted
            )
        );
        if let Some((sent_at, end, _)) = real.newest
            && (sent_at > self.newest.0 || (sent_at == self.newest.0 && end.after(self.newest.1)))
        {
            self.newest = (sent_at, end);
            self.real.remember_newest(&real);
        }
        match by {
            Detection::None => {}
            Detection::Sack(mss) => {
                self.real.mark_lost_by_sack(mss);
                self.naive.mark_lost_by_sack(mss);
            }
            Detection::Time(millis) => {
                let (xmit, end) = self.newest;
                let allowance = Duration::from_millis(millis);
                assert_eq!(
                    self.real.mark_lost_by_time(xmit, end, allowance, self.now),
                    self.naive.mark_lost_by_time(xmit, end, allowance, self.now)
                );
            }
        }
        let work = self.real.take_work();
        assert!(work.is_bounded(segments), "{work:?} for {segments} segments");
    }

    fn retransmit(&mut self, index: usize, length: u32) {
        let real = self.real.split(index, length);
        assert_eq!(self.naive.split(index, length), real);
        self.real.retransmitted(real, self.now);
        self.naive.retransmitted(real, self.now);
    }

    fn run(&mut self, steps: &[Step]) {
        let mut last: Vec<SackBlock> = Vec::new();
        let mut length = MSS;
        for step in steps {
            match step {
                Step::Send(lengths) => {
                    for &length in lengths {
                        self.real.push(self.nxt, self.nxt + length, self.now);
                        self.naive.push(self.nxt, self.nxt + length, self.now);
                        self.nxt += length;
                    }
                }
                Step::Wait(millis) => self.now = self.now + Duration::from_millis(*millis),
                Step::Acknowledge(una, blocks, by) => {
                    last = blocks
                        .iter()
                        .map(|&(left, size)| (self.at(left), self.at(left) + u32::from(size)))
                        .collect();
                    self.take(self.at(*una), &last, *by);
                }
                Step::Repeat(moves, by) => {
                    for (block, by) in last.iter_mut().zip(moves) {
                        block.1 = SeqNumber(block.1.0.wrapping_add_signed(*by));
                    }
                    self.take(self.una, &last, *by);
                }
                Step::Timeout => {
                    self.real.mark_all_lost();
                    self.naive.mark_all_lost();
                }
                Step::Retransmit(count) => {
                    for _ in 0..*count {
                        assert_eq!(self.real.next_lost(), self.naive.next_lost());
                        if let Some(index) = self.real.next_lost() {
                            self.retransmit(index, length);
                        }
                    }
                }
                Step::Probe(share) => {
                    if let Some(last) = self.real.len().checked_sub(1) {
                        self.retransmit(last * usize::from(*share) / usize::from(u16::MAX), length);
                    }
                }
                Step::Shorter(shorter) => {
                    length = *shorter;
                    self.real.mark_longer_lost(length);
                    self.naive.mark_longer_lost(length);
                }
                Step::Head => {
                    self.real.mark_head_lost();
                    self.naive.mark_head_lost();
                }
                Step::Undo => {
                    if self.real.unmark_lost() {
                        self.naive.segments.iter_mut().for_each(|segment| segment.lost = false);
                    }
                }
            }
            self.compare();
        }
    }

    fn compare(&mut self) {
        assert_eq!(self.real.len(), self.naive.segments.len());
        for (index, segment) in self.naive.segments.iter().enumerate() {
            let real = self.real.segments[index];
            assert_eq!(
                (real.seq, real.end, real.sent_at),
                (segment.seq, segment.end, segment.sent_at)
            );
            let flags = self.real.flags(self.real.first + index as u64);
            let expected = (segment.sacked, segment.lost, segment.again);
            assert_eq!((flags.sacked, flags.lost, flags.again), expected, "{index}");
        }
        assert_eq!(self.real.sacked(), self.naive.sum(|segment| segment.sacked));
        assert_eq!(self.real.lost(), self.naive.sum(|segment| segment.lost));
        let lost = self.naive.segments.iter().filter(|segment| segment.lost).count();
        assert_eq!(self.real.lost_segments as usize, lost);
        let plain = self
            .naive
            .sum(|segment| segment.sacked || segment.lost || segment.again)
            == 0;
        assert!(plain || !self.real.is_undisturbed());
        let waiting = self
            .real
            .disturbed
            .as_ref()
            .map_or(0, |disturbed| disturbed.again.len());
        let waits = |segment: &&Segment| segment.again && !segment.sacked && !segment.lost;
        assert_eq!(waiting, self.naive.segments.iter().filter(waits).count());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever a peer reports and whatever time passes, both know the same, and the work is bounded.
    #[test]
    fn knows_what_a_walk_would_find(steps in proptest::collection::vec(step(), 1..80)) {
        Pair::new().run(&steps);
    }
}
