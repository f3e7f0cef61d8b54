//! RACK-TLP: loss found by time (RFC 8985).

use core::time::Duration;

use super::scoreboard::{DUP_THRESH, Delivered, Overdue, Scoreboard};
use crate::seq::SeqNumber;
use crate::time::Instant;

/// The least round-trip time of the last minutes is wanted; an older one is forgotten. In microseconds.
const MIN_RTT_AGE: u64 = 300_000_000;

/// The smoothed round-trip time, and the longest that most round trips take
/// ([`Rto::longest`](super::rto::Rto::longest)).
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoundTrips {
    pub(crate) smoothed: Duration,
    pub(crate) longest: Duration,
}

/// Recoveries a widened reordering window lasts (RFC 8985, section 6.2, step 4).
const REO_WND_PERSIST: u8 = 16;

/// RACK's variables of one connection. Times are microseconds; 32 bits hold more than an hour.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rack {
    /// RACK.xmit_ts and RACK.end_seq: the delivered segment that was sent last.
    xmit: Instant,
    end: SeqNumber,
    /// RACK.rtt.
    rtt: u32,
    /// RACK.min_RTT and when it was measured.
    min_rtt: Option<u32>,
    min_rtt_at: Instant,
    /// The longest that a segment was seen to arrive after the RTT of one that was sent later.
    reordering_extent: u32,
    /// RACK.dsack_round: until SND.UNA passes it, D-SACKs are of the same round.
    dsack_round: Option<SeqNumber>,
    /// RACK.reordering_seen.
    reordering_seen: bool,
    /// That was on an earlier connection over the same path, and not on this one.
    recalled: bool,
    /// RACK.reo_wnd_mult.
    reo_wnd_mult: u8,
    /// RACK.reo_wnd_persist.
    reo_wnd_persist: u8,
}

fn duration(micros: u32) -> Duration {
    Duration::from_micros(u64::from(micros))
}

fn micros_between(earlier: Instant, later: Instant) -> u32 {
    later.micros_since(earlier).min(u64::from(u32::MAX)) as u32
}

impl Rack {
    /// Nothing is known of the path.
    pub(crate) const fn new() -> Self {
        Self {
            xmit: Instant::ZERO,
            end: SeqNumber(0),
            rtt: 0,
            min_rtt: None,
            min_rtt_at: Instant::ZERO,
            reordering_extent: 0,
            dsack_round: None,
            reordering_seen: false,
            recalled: false,
            reo_wnd_mult: 1,
            reo_wnd_persist: REO_WND_PERSIST,
        }
    }

    /// Whether an acknowledgment was looked at that could tell of losses.
    pub(crate) fn has_measured(&self) -> bool {
        self.min_rtt.is_some()
    }

    /// Whether there is something to remember that neither the next round trip would tell nor the memory of paths.
    pub(crate) fn has_learned(&self) -> bool {
        (self.reordering_seen && !self.recalled) || self.reo_wnd_mult > 1 || self.dsack_round.is_some()
    }

    /// Steps 1 to 3: takes over what an acknowledgment delivered. `echo_before`: the acknowledgment echoes a timestamp
    /// from before the newest delivered segment was last sent, so that it is the earlier copy that arrived. Returns
    /// whether the newest delivered segment is the newest known now.
    pub(crate) fn update(&mut self, delivered: &Delivered, echo_before: bool, now: Instant) -> bool {
        if let Some(sent_at) = delivered.timed {
            let rtt = micros_between(sent_at, now);
            if self.min_rtt.is_none_or(|min| rtt <= min) || now.micros_since(self.min_rtt_at) > MIN_RTT_AGE {
                self.min_rtt = Some(rtt);
                self.min_rtt_at = now;
            }
        }
        if let Some(sent_at) = delivered.reordered {
            self.note_reordering(sent_at, now);
        }
        let Some((sent_at, end, retransmitted)) = delivered.newest else {
            return false;
        };
        let rtt = micros_between(sent_at, now);
        let too_soon = self.min_rtt.is_some_and(|min| rtt < min);
        if retransmitted && (echo_before || too_soon) {
            // It was late, and not lost. Where all that is late is sent again before it arrives, nothing else tells how
            // late that is. What is echoed with a SACK is of an earlier segment, whichever copy arrived.
            if (too_soon || delivered.cumulative) && delivered.first_sent_at < self.xmit {
                self.note_reordering(delivered.first_sent_at, now);
            }
            return false;
        }
        self.rtt = rtt;
        let newer = sent_at > self.xmit || (sent_at == self.xmit && end.after(self.end));
        if newer {
            self.xmit = sent_at;
            self.end = end;
        }
        newer
    }

    /// A segment that was sent at `sent_at` has arrived after one that was sent later.
    fn note_reordering(&mut self, sent_at: Instant, now: Instant) {
        self.reordering_seen = true;
        self.recalled = false;
        if sent_at < self.xmit {
            let extent = micros_between(sent_at, now).saturating_sub(self.rtt);
            if extent >= self.reordering_extent {
                self.reordering_extent = extent;
                self.reo_wnd_persist = REO_WND_PERSIST;
            }
        }
    }

    /// Whether the path was seen to reorder.
    pub(crate) fn reordering_seen(&self) -> bool {
        self.reordering_seen
    }

    /// Whether the path counts as one that reorders: a segment was overtaken, and since then fewer than 16 recoveries
    /// have passed without one that was overtaken by as much; or an earlier connection over the same path knew of it.
    pub(crate) fn is_reordering(&self) -> bool {
        self.reordering_extent > 0
    }

    /// An earlier connection over the same path has seen segments overtaken by this, in microseconds.
    pub(crate) fn recall(&mut self, extent: u32) {
        if !self.reordering_seen {
            self.reordering_seen = true;
            self.recalled = true;
            self.reordering_extent = extent;
        }
    }

    /// By how much this connection saw segments overtaken at most, in microseconds; 0: not at all.
    pub(crate) fn observed_reordering(&self) -> u32 {
        if self.reordering_seen && !self.recalled {
            self.reordering_extent.max(1)
        } else {
            0
        }
    }

    /// Step 4's account of D-SACKs: each round with one widens the reordering window, and so it stays for 16
    /// recoveries.
    pub(crate) fn dsack(&mut self, una: SeqNumber, nxt: SeqNumber) {
        if self.dsack_round.is_some_and(|round| round.is_unacknowledged(una, nxt)) {
            return;
        }
        self.dsack_round = Some(nxt);
        self.reo_wnd_mult = self.reo_wnd_mult.saturating_add(1);
        self.reo_wnd_persist = REO_WND_PERSIST;
    }

    /// A recovery has ended.
    pub(crate) fn recovered(&mut self) {
        self.reo_wnd_persist = self.reo_wnd_persist.saturating_sub(1);
        if self.reo_wnd_persist == 0 {
            self.reo_wnd_persist = REO_WND_PERSIST;
            self.reo_wnd_mult = 1;
            self.reordering_extent = 0;
        }
    }

    /// RACK.reo_wnd (step 4), but never less than the reordering that was measured, up to the longest round trip. Where
    /// segments overtake by half a round trip, the least round trip is next to nothing; a quarter of it waits for none
    /// of those they overtook, and D-SACKs widen it by as little. SRTT would not do, nor twice that: where
    /// acknowledgments overtake each other, too, most news is of the fast ones.
    fn reordering_window(&self, in_recovery: bool, sacked: u32, round_trips: RoundTrips, mss: u32) -> Duration {
        if !self.reordering_seen && (in_recovery || sacked >= DUP_THRESH * mss) {
            return Duration::ZERO;
        }
        let RoundTrips { smoothed, longest } = round_trips;
        let base = self.min_rtt.map_or(smoothed, duration) / 4;
        (base * u32::from(self.reo_wnd_mult))
            .min(smoothed)
            .max(duration(self.reordering_extent).min(longest))
    }

    /// Step 5: marks what is lost.
    pub(crate) fn detect_loss(
        &self,
        board: &mut Scoreboard,
        in_recovery: bool,
        round_trips: RoundTrips,
        mss: u32,
        now: Instant,
    ) -> Overdue {
        let window = self.reordering_window(in_recovery, board.sacked(), round_trips, mss);
        board.mark_lost_by_time(self.xmit, self.end, duration(self.rtt) + window, now)
    }

    /// A retransmission timeout: what was sent longer than a round trip ago is lost (section 6.3).
    pub(crate) fn timeout(&self, board: &mut Scoreboard, round_trips: RoundTrips, mss: u32, now: Instant) {
        let window = self.reordering_window(true, board.sacked(), round_trips, mss);
        let never = Instant::NEVER;
        let allowance = duration(self.rtt).max(round_trips.smoothed) + window;
        board.mark_lost_by_time(never, self.end, allowance, now);
        board.mark_head_lost();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 100;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    /// Round trips of this many milliseconds, of which none takes more than twice as long.
    fn trips(millis: u64) -> RoundTrips {
        let smoothed = Duration::from_millis(millis);
        RoundTrips {
            smoothed,
            longest: 2 * smoothed,
        }
    }

    fn board() -> Scoreboard {
        let mut board = Scoreboard::new();
        for index in 0..10_u32 {
            let seq = SeqNumber(index * MSS);
            board.push(seq, seq + MSS, at(1000 + u64::from(index)));
        }
        board
    }

    fn sacked(board: &mut Scoreboard, rack: &mut Rack, left: u32, right: u32, now: Instant) {
        let mut delivered = Delivered::default();
        board.sack(
            &[(SeqNumber(left), SeqNumber(right))],
            SeqNumber(0),
            SeqNumber(1000),
            &mut delivered,
        );
        rack.update(&delivered, false, now);
    }

    #[test]
    fn waits_a_quarter_of_the_round_trip_before_the_first_loss() {
        let (mut board, mut rack) = (board(), Rack::new());
        let srtt = trips(40);
        sacked(&mut board, &mut rack, 100, 200, at(1041));
        let again = rack.detect_loss(&mut board, false, srtt, MSS, at(1041));
        assert_eq!(board.lost(), 0);
        assert_eq!(again.wait, Some(Duration::from_millis(9)));
        let again = rack.detect_loss(&mut board, false, srtt, MSS, at(1050));
        assert_eq!((again.wait, again.lost_again), (None, false));
        assert_eq!(board.lost(), 100);
    }

    #[test]
    fn three_segments_above_leave_no_doubt_unless_reordering_was_seen() {
        for reordering in [false, true] {
            let (mut board, mut rack) = (board(), Rack::new());
            rack.reordering_seen = reordering;
            sacked(&mut board, &mut rack, 100, 400, at(1043));
            rack.detect_loss(&mut board, false, trips(40), MSS, at(1043));
            assert_eq!(board.lost() > 0, !reordering);
        }
    }

    #[test]
    fn reordering_that_is_remembered_is_waited_for_and_not_passed_on() {
        let (mut board, mut rack) = (board(), Rack::new());
        assert_eq!(rack.observed_reordering(), 0);
        rack.recall(15_000);
        assert!(!rack.has_learned(), "it can be recalled again");
        assert_eq!(rack.observed_reordering(), 0);
        let srtt = trips(20);
        sacked(&mut board, &mut rack, 100, 400, at(1023));
        let again = rack.detect_loss(&mut board, false, srtt, MSS, at(1023));
        assert_eq!((board.lost(), again.wait), (0, Some(Duration::from_millis(12))));
        // Until it is seen here, too.
        sacked(&mut board, &mut rack, 0, 100, at(1024));
        assert_eq!(rack.observed_reordering(), 15_000);
        assert!(rack.has_learned());
    }

    #[test]
    fn reordering_that_was_seen_is_waited_for_until_sixteen_recoveries_had_none() {
        let (mut board, mut rack) = (board(), Rack::new());
        let srtt = trips(20);
        // The last segment overtakes all others: its round trip took 1 ms, that of the first one takes 20 ms.
        sacked(&mut board, &mut rack, 900, 1000, at(1010));
        sacked(&mut board, &mut rack, 0, 100, at(1020));
        assert_eq!(rack.reordering_window(false, 100, srtt, MSS), Duration::from_millis(19));
        sacked(&mut board, &mut rack, 100, 200, at(1061));
        assert_eq!(rack.reordering_window(false, 100, srtt, MSS), srtt.longest);
        for _ in 0..16 {
            assert!(rack.reordering_window(false, 100, srtt, MSS) > srtt.smoothed);
            assert!(rack.is_reordering());
            rack.recovered();
        }
        assert_eq!(
            rack.reordering_window(false, 100, srtt, MSS),
            Duration::from_micros(250)
        );
        assert!(!rack.is_reordering());
    }

    #[test]
    fn reordering_is_waited_for_as_long_as_round_trips_take_however_short_most_are() {
        let (mut board, mut rack) = (board(), Rack::new());
        sacked(&mut board, &mut rack, 900, 1000, at(1010));
        sacked(&mut board, &mut rack, 0, 100, at(1020));
        for (longest, window) in [(12, 12), (40, 19)] {
            let round_trips = RoundTrips {
                smoothed: Duration::from_millis(4),
                longest: Duration::from_millis(longest),
            };
            let is = rack.reordering_window(false, 100, round_trips, MSS);
            assert_eq!(is, Duration::from_millis(window));
        }
    }

    #[test]
    fn what_is_sent_again_and_arrives_after_all_tells_how_late_it_is() {
        for (echo_before, acknowledged) in [(true, 1030), (false, 1020)] {
            let (mut board, mut rack) = (board(), Rack::new());
            let srtt = trips(20);
            // The last two segments overtake the others, and the first is sent again before it arrives.
            sacked(&mut board, &mut rack, 800, 1000, at(1019));
            board.retransmitted(0, at(1019));
            let mut delivered = Delivered::default();
            board.acknowledge(SeqNumber(100), &mut delivered);
            rack.update(&delivered, echo_before, at(acknowledged));
            let late = Duration::from_millis(acknowledged - 1000) - Duration::from_millis(10);
            assert_eq!(rack.reordering_window(false, 100, srtt, MSS), late);
        }
        // A retransmission that may have arrived itself tells nothing.
        for (selective, echo_before) in [(false, false), (true, true)] {
            let (mut board, mut rack) = (board(), Rack::new());
            sacked(&mut board, &mut rack, 800, 1000, at(1019));
            board.retransmitted(usize::from(selective), at(1019));
            let mut delivered = Delivered::default();
            if selective {
                let blocks = [(SeqNumber(100), SeqNumber(200))];
                board.sack(&blocks, SeqNumber(0), SeqNumber(1000), &mut delivered);
            } else {
                board.acknowledge(SeqNumber(100), &mut delivered);
            }
            rack.update(&delivered, echo_before, at(1039));
            assert_eq!(rack.reordering_extent, 0);
        }
    }

    #[test]
    fn duplicates_widen_the_window_once_a_round_and_at_most_to_a_round_trip() {
        let mut rack = Rack {
            reordering_seen: true,
            min_rtt: Some(40_000),
            ..Rack::new()
        };
        let srtt = trips(50);
        let window = |rack: &Rack| rack.reordering_window(false, 0, srtt, MSS);
        assert_eq!(window(&rack), Duration::from_millis(10));
        rack.dsack(SeqNumber(0), SeqNumber(1000));
        rack.dsack(SeqNumber(500), SeqNumber(1500));
        assert_eq!(window(&rack), Duration::from_millis(20));
        for round in 1..20 {
            rack.dsack(SeqNumber(round * 2000), SeqNumber(round * 2000 + 1000));
        }
        assert_eq!(window(&rack), srtt.smoothed);
        for _ in 0..16 {
            rack.recovered();
        }
        assert_eq!(window(&rack), Duration::from_millis(10));
    }

    #[test]
    fn a_round_of_long_ago_is_over() {
        let mut rack = Rack::new();
        rack.dsack(SeqNumber(0), SeqNumber(1000));
        let una = SeqNumber(1000 + (1 << 31) + 1);
        rack.dsack(una, una + 1000);
        assert_eq!(rack.reo_wnd_mult, 3);
    }

    #[test]
    fn a_lost_retransmission_is_found_by_what_was_sent_after_it() {
        let (mut board, mut rack) = (board(), Rack::new());
        let srtt = trips(40);
        sacked(&mut board, &mut rack, 100, 400, at(1043));
        rack.detect_loss(&mut board, false, srtt, MSS, at(1043));
        board.retransmitted(0, at(1044));
        board.push(SeqNumber(1000), SeqNumber(1100), at(1045));
        let mut delivered = Delivered::default();
        board.sack(
            &[(SeqNumber(1000), SeqNumber(1100))],
            SeqNumber(0),
            SeqNumber(1100),
            &mut delivered,
        );
        rack.update(&delivered, false, at(1085));
        assert!(rack.detect_loss(&mut board, true, srtt, MSS, at(1085)).lost_again);
        assert!(board.is_lost(0));
    }
}
