//! Delivery rate samples (draft-ietf-ccwg-bbr, section 4.1): the rate at which the path delivers what is sent, measured
//! by each acknowledgment over about a round trip.
//!
//! Only connections whose congestion control wants them have this. For each outstanding segment it keeps what was
//! delivered and lost when the segment was sent last; nothing here looks at more segments than an acknowledgment
//! acknowledges or shows to be lost.

use core::time::Duration;
use std::collections::VecDeque;

use super::scoreboard::KEPT_CAPACITY;
use crate::congestion::{LostSegment, RateSample};
use crate::seq::SeqNumber;
use crate::time::{self, Instant};

/// The connection's state when a segment was sent last. Counts are the low halves of the connection's: a window is too
/// small for more to come between.
#[derive(Clone, Copy, Debug)]
struct Snapshot {
    /// P.delivered_time.
    delivered_time: Instant,
    /// P.first_send_time.
    first_sent_time: Instant,
    /// P.delivered.
    delivered: u32,
    /// P.lost.
    lost: u32,
    /// P.tx_in_flight, in bytes.
    tx_in_flight: u32,
    /// P.is_app_limited.
    app_limited: bool,
}

/// The newest segment that an acknowledgment delivered.
#[derive(Clone, Copy, Debug)]
struct Newest {
    snapshot: Snapshot,
    sent_at: Instant,
}

/// The delivery rate of one connection.
#[derive(Debug)]
pub(crate) struct DeliveryRate {
    /// One for each segment of the scoreboard, from number `first` on.
    segments: VecDeque<Snapshot>,
    first: u64,
    /// C.delivered, in bytes.
    delivered: u64,
    /// C.delivered_time.
    delivered_time: Instant,
    /// C.first_send_time.
    first_sent_time: Instant,
    /// C.app_limited; zero: sending is not limited by the application.
    app_limited: u64,
    /// C.lost, in bytes.
    lost: u64,
    /// C.min_rtt: the least round-trip time ever.
    min_rtt: Duration,
    newest: Option<Newest>,
    losses: Vec<LostSegment>,
}

impl DeliveryRate {
    /// Begins at `first`, the number of the first outstanding segment; [`DeliveryRate::sent`] follows for each.
    pub(super) fn new(first: u64) -> Self {
        Self {
            segments: VecDeque::new(),
            first,
            delivered: 0,
            delivered_time: Instant::ZERO,
            first_sent_time: Instant::ZERO,
            app_limited: 0,
            lost: 0,
            min_rtt: Duration::MAX,
            newest: None,
            losses: Vec::new(),
        }
    }

    fn snapshot(&mut self, in_flight: u32, length: u32, now: Instant) -> Snapshot {
        if in_flight <= length {
            // Nothing else is in flight: whatever is acknowledged from now on was delivered from now on.
            self.first_sent_time = now;
            self.delivered_time = now;
        }
        Snapshot {
            delivered_time: self.delivered_time,
            first_sent_time: self.first_sent_time,
            delivered: self.delivered as u32,
            lost: self.lost as u32,
            tx_in_flight: in_flight,
            app_limited: self.app_limited != 0,
        }
    }

    /// A segment of `length` octets was sent for the first time; with it, `in_flight` bytes are in flight.
    pub(super) fn sent(&mut self, in_flight: u32, length: u32, now: Instant) {
        let snapshot = self.snapshot(in_flight, length, now);
        self.segments.push_back(snapshot);
    }

    /// Segment `id` was sent again.
    pub(super) fn sent_again(&mut self, id: u64, in_flight: u32, length: u32, now: Instant) {
        let snapshot = self.snapshot(in_flight, length, now);
        self.segments[(id - self.first) as usize] = snapshot;
    }

    /// Segment `id` is newly delivered, and was sent later, at `sent_at`, than any that the same acknowledgment
    /// delivered before.
    pub(super) fn note_newest(&mut self, id: u64, sent_at: Instant) {
        let snapshot = self.segments[(id - self.first) as usize];
        self.newest = Some(Newest { snapshot, sent_at });
    }

    /// The segments before number `first` are acknowledged.
    pub(super) fn release(&mut self, first: u64) {
        self.segments.drain(..(first - self.first) as usize);
        self.first = first;
        if self.segments.is_empty() && self.segments.capacity() > KEPT_CAPACITY {
            self.segments = VecDeque::new();
        }
    }

    /// The last segment was cut in two.
    pub(super) fn split_last(&mut self) {
        let last = self.segments.back().copied();
        self.segments.extend(last);
    }

    /// Every segment was cut into as many pieces as `pieces` says.
    pub(super) fn split_all(&mut self, pieces: impl Iterator<Item = usize>) {
        let whole = core::mem::take(&mut self.segments);
        for (snapshot, count) in whole.into_iter().zip(pieces) {
            self.segments.extend(core::iter::repeat_n(snapshot, count));
        }
    }

    /// Segment `id` counts as lost.
    pub(super) fn mark_lost(&mut self, id: u64, seq: SeqNumber, length: u32) {
        self.lost += u64::from(length);
        let sent = self.segments[(id - self.first) as usize];
        self.losses.push(LostSegment {
            seq,
            bytes: length,
            tx_in_flight: sent.tx_in_flight,
            lost: (self.lost as u32).wrapping_sub(sent.lost),
            app_limited: sent.app_limited,
        });
    }

    /// This many bytes count as lost because the retransmission timer ran out.
    pub(super) fn mark_all_lost(&mut self, bytes: u32) {
        self.lost += u64::from(bytes);
    }

    /// The losses since this was last asked, in the order in which they were found.
    pub(crate) fn take_losses(&mut self) -> Vec<LostSegment> {
        core::mem::take(&mut self.losses)
    }

    /// Keeps the memory of what [`DeliveryRate::take_losses`] gave.
    pub(crate) fn give_back(&mut self, mut losses: Vec<LostSegment>) {
        if losses.capacity() <= 16 * KEPT_CAPACITY {
            losses.clear();
            self.losses = losses;
        }
    }

    /// C.delivered, in bytes.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Sending has stopped with `in_flight` bytes in flight for want of text: until those are delivered, what is
    /// measured is the application (section 4.1.2.4).
    pub(crate) fn mark_app_limited(&mut self, in_flight: u32) {
        self.app_limited = (self.delivered + u64::from(in_flight)).max(1);
    }

    /// Whether what is sent now is limited by the application.
    pub(crate) fn is_app_limited(&self) -> bool {
        self.app_limited != 0
    }

    /// An acknowledgment delivered `bytes` at `now`.
    pub(crate) fn deliver(&mut self, bytes: u32, rtt: Option<Duration>, now: Instant) {
        if bytes > 0 {
            self.delivered += u64::from(bytes);
            self.delivered_time = now;
        }
        if self.app_limited != 0 && self.delivered > self.app_limited {
            self.app_limited = 0;
        }
        if let Some(rtt) = rtt {
            self.min_rtt = self.min_rtt.min(rtt);
        }
    }

    /// An acknowledgment begins to be taken in, of which nothing is known to be delivered yet.
    pub(crate) fn forget_newest(&mut self) {
        self.newest = None;
    }

    /// The sample of an acknowledgment that arrived at `now` and was told of by [`DeliveryRate::deliver`]; `None` if it
    /// delivered no segment.
    pub(crate) fn take_sample(&mut self, now: Instant) -> Option<RateSample> {
        let Newest { snapshot, sent_at } = self.newest.take()?;
        self.first_sent_time = sent_at;
        let send_elapsed = sent_at.micros_since(snapshot.first_sent_time);
        let ack_elapsed = now.micros_since(snapshot.delivered_time);
        let interval = Duration::from_micros(send_elapsed.max(ack_elapsed));
        let delivered = (self.delivered as u32).wrapping_sub(snapshot.delivered);
        let rate = if interval >= self.min_rtt {
            (u64::from(delivered) * 1_000_000).checked_div(time::micros(interval))
        } else {
            // A spurious retransmission was acknowledged by what was sent before it: too short.
            None
        };
        Some(RateSample {
            rate: rate.filter(|&rate| rate > 0),
            delivered,
            prior_delivered: self.delivered - u64::from(delivered),
            app_limited: snapshot.app_limited,
            tx_in_flight: snapshot.tx_in_flight,
            lost: (self.lost as u32).wrapping_sub(snapshot.lost),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(1000 + millis)
    }

    /// `count` segments sent a millisecond apart, from `millis` on, after `outstanding` others.
    fn send(rate: &mut DeliveryRate, outstanding: u32, count: u32, millis: u64) {
        for sent in 0..count {
            rate.sent((outstanding + sent + 1) * MSS, MSS, at(millis + u64::from(sent)));
        }
    }

    fn acknowledge(rate: &mut DeliveryRate, id: u64, sent_at: u64, now: u64) -> RateSample {
        rate.note_newest(id, at(sent_at));
        rate.deliver(MSS, Some(Duration::from_millis(now - sent_at)), at(now));
        rate.release(id + 1);
        rate.take_sample(at(now)).expect("a segment was delivered")
    }

    #[test]
    fn the_rate_is_what_was_delivered_in_the_longer_of_both_times() {
        let mut rate = DeliveryRate::new(0);
        send(&mut rate, 0, 10, 0);
        // Acknowledged two milliseconds apart, so the path delivers half as fast as was sent.
        for id in 0..10 {
            let sample = acknowledge(&mut rate, id, id, 20 + 2 * id);
            assert_eq!(sample.delivered, (id as u32 + 1) * MSS);
            assert_eq!(sample.prior_delivered, 0);
            let elapsed = 20 + 2 * id;
            assert_eq!(sample.rate, Some((id + 1) * u64::from(MSS) * 1000 / elapsed));
        }
        assert_eq!(rate.delivered(), 10 * u64::from(MSS));
        // Compressed acknowledgments: what was sent over 10 ms is acknowledged at once.
        send(&mut rate, 0, 20, 100);
        let mut last = None;
        for id in 10..30 {
            last = Some(acknowledge(&mut rate, id, 100 + id - 10, 150));
        }
        let sample = last.unwrap();
        assert_eq!(sample.delivered, 20 * MSS);
        assert_eq!(sample.rate, Some(20 * u64::from(MSS) * 1000 / 50));
    }

    #[test]
    fn an_interval_shorter_than_any_round_trip_says_nothing_of_the_rate() {
        let mut rate = DeliveryRate::new(0);
        send(&mut rate, 0, 2, 0);
        acknowledge(&mut rate, 0, 0, 20);
        // The second is sent again at 30 ms, and its first copy acknowledged a millisecond later.
        rate.mark_lost(1, SeqNumber(0), MSS);
        rate.sent_again(1, MSS, MSS, at(30));
        rate.note_newest(1, at(30));
        rate.deliver(MSS, None, at(31));
        let sample = rate.take_sample(at(31)).unwrap();
        assert_eq!((sample.rate, sample.delivered), (None, MSS));
    }

    #[test]
    fn samples_are_limited_by_the_application_until_the_gap_has_left_the_network() {
        let mut rate = DeliveryRate::new(0);
        send(&mut rate, 0, 2, 0);
        rate.mark_app_limited(2 * MSS);
        assert!(!acknowledge(&mut rate, 0, 0, 20).app_limited, "sent before");
        send(&mut rate, 1, 3, 20);
        assert!(!acknowledge(&mut rate, 1, 1, 21).app_limited, "sent before");
        assert!(
            rate.is_app_limited(),
            "what was in flight is delivered, but nothing behind it"
        );
        assert!(acknowledge(&mut rate, 2, 20, 40).app_limited);
        assert!(!rate.is_app_limited());
        send(&mut rate, 2, 1, 41);
        assert!(acknowledge(&mut rate, 3, 21, 42).app_limited, "sent while it was");
        acknowledge(&mut rate, 4, 22, 43);
        assert!(!acknowledge(&mut rate, 5, 41, 61).app_limited);
    }

    #[test]
    fn losses_are_counted_from_when_a_segment_was_sent() {
        let mut rate = DeliveryRate::new(7);
        send(&mut rate, 0, 3, 0);
        rate.mark_lost(7, SeqNumber(0), MSS);
        rate.sent_again(7, 3 * MSS, MSS, at(10));
        rate.mark_lost(8, SeqNumber(MSS), MSS);
        let losses = rate.take_losses();
        let seen: Vec<_> = losses.iter().map(|lost| (lost.lost, lost.tx_in_flight)).collect();
        assert_eq!(seen, [(MSS, MSS), (2 * MSS, 2 * MSS)]);
        assert!(rate.take_losses().is_empty());
        rate.note_newest(9, at(2));
        rate.deliver(MSS, None, at(20));
        assert_eq!(
            rate.take_sample(at(20)).unwrap().lost,
            2 * MSS,
            "both since it was sent"
        );
        rate.note_newest(7, at(10));
        rate.deliver(MSS, None, at(21));
        assert_eq!(
            rate.take_sample(at(21)).unwrap().lost,
            MSS,
            "one since it was sent again"
        );
    }

    #[test]
    fn pieces_keep_what_the_whole_was_sent_with() {
        let mut rate = DeliveryRate::new(0);
        send(&mut rate, 0, 3, 0);
        rate.split_all([1, 3, 1].into_iter());
        rate.split_last();
        let flights: Vec<u32> = rate.segments.iter().map(|segment| segment.tx_in_flight).collect();
        assert_eq!(flights, [1, 2, 2, 2, 3, 3].map(|count| count * MSS));
    }
}
