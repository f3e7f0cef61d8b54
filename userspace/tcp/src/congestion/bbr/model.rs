//! The estimates: round trips, bandwidth, least round-trip time, aggregation of acknowledgments, and whether the path
//! is full (sections 5.3.1.2 and 5.5).

use core::time::Duration;

use super::{Ack, Bbr, micros};
use crate::time::Instant;

/// BBR.MinRTTFilterLen.
const MIN_RTT_FILTER: Duration = Duration::from_secs(10);

/// BBR.ProbeRTTInterval.
const PROBE_RTT_INTERVAL: Duration = Duration::from_secs(5);

/// BBR.ExtraAckedFilterLen, in round trips.
const EXTRA_ACKED_FILTER: u64 = 10;

/// Round trips without growth after which the path counts as full.
const FULL_PIPE_ROUNDS: u8 = 3;

/// The round-trip times that a mean is taken of.
const MEAN_SAMPLES: u32 = 64;

/// Packet-timed round trips.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rounds {
    /// BBR.next_round_delivered.
    pub(super) next_delivered: u64,
    /// BBR.round_count.
    pub(super) count: u64,
    /// BBR.round_start: the acknowledgment at hand begins a round trip.
    pub(super) start: bool,
    /// When the present one began.
    pub(super) since: Instant,
    /// The window limited sending in this round trip, and in the one before.
    limited: [bool; 2],
}

impl Rounds {
    /// C.is_cwnd_limited.
    pub(super) fn is_cwnd_limited(&self) -> bool {
        self.limited[0] || self.limited[1]
    }
}

/// BBR.max_bw: the highest rate of the present and the last cycle of `ProbeBW`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MaxBandwidth {
    last: u64,
    present: u64,
}

impl MaxBandwidth {
    pub(super) fn get(&self) -> u64 {
        self.last.max(self.present)
    }

    fn update(&mut self, rate: u64) {
        self.present = self.present.max(rate);
    }

    /// `AdvanceMaxBwFilter`. A cycle in which nothing was measured counts for none.
    pub(super) fn advance(&mut self) {
        if self.present > 0 {
            self.last = core::mem::take(&mut self.present);
        }
    }
}

/// BBR.min_rtt, and what is known of when it has to be measured anew.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MinRtt {
    min_rtt: Option<Duration>,
    stamp: Instant,
    /// BBR.probe_rtt_min_delay.
    probe_min: Option<Duration>,
    /// BBR.probe_rtt_min_stamp.
    pub(super) probe_stamp: Instant,
    /// BBR.probe_rtt_expired.
    pub(super) is_expired: bool,
    /// Set while the path counts as one that reorders.
    mean: Option<MeanRtt>,
}

/// The mean round-trip time of what was acknowledged of late.
#[derive(Clone, Copy, Debug, Default)]
struct MeanRtt {
    /// The sum of round-trip times in microseconds, each as often as it brought bytes.
    sum: u64,
    bytes: u64,
    count: u32,
    /// There was a mean.
    measured: bool,
}

impl MeanRtt {
    /// Takes a sample into account; returns the mean when there are enough for one.
    fn update(&mut self, rtt: Option<Duration>, bytes: u32) -> Option<Duration> {
        let bytes = u64::from(bytes);
        self.sum = self.sum.saturating_add(bytes * u64::from(micros(rtt?)));
        self.bytes += bytes;
        self.count += 1;
        if self.count < MEAN_SAMPLES {
            return None;
        }
        self.take()
    }

    /// The mean of the samples so far, if there are any; the next one begins.
    fn take(&mut self) -> Option<Duration> {
        let mean = self.sum.checked_div(self.bytes);
        *self = Self {
            measured: self.measured,
            ..Self::default()
        };
        mean.map(Duration::from_micros)
    }
}

impl MinRtt {
    pub(super) fn begin(&mut self, now: Instant) {
        self.stamp = now;
        self.probe_stamp = now;
    }

    /// `None`: infinite.
    pub(super) fn get(&self) -> Option<Duration> {
        self.min_rtt
    }

    /// Beyond the draft, where segments overtake each other the least of the means of round trips counts. The segment
    /// that overtakes most takes less time than the path needs to be full: it may take next to none, and what filled a
    /// path like that would be next to nothing.
    fn update(&mut self, ack: &Ack) {
        let now = ack.now;
        if !ack.reordering {
            self.mean = None;
        } else if self.mean.is_none() {
            self.mean = Some(MeanRtt::default());
            (self.min_rtt, self.probe_min) = (ack.srtt, ack.srtt);
        }
        let rtt = match &mut self.mean {
            Some(mean) => mean.update(ack.rtt, ack.newly_acked),
            None => ack.rtt,
        };
        self.is_expired = now > self.probe_stamp + PROBE_RTT_INTERVAL;
        self.note(rtt, now);
    }

    /// `ProbeRTT` has little enough in flight: no mean is taken of round trips from before and from now together.
    pub(super) fn begin_probe(&mut self) {
        if let Some(mean) = &mut self.mean {
            mean.take();
        }
    }

    /// `ProbeRTT` ends: the mean of what it measured, however little that is, is the one that it was for.
    pub(super) fn end_probe(&mut self, now: Instant) {
        let rtt = self.mean.as_mut().and_then(MeanRtt::take);
        if rtt.is_some() {
            self.note(rtt, now);
        }
        self.probe_stamp = now;
    }

    /// Takes a round-trip time, or a mean of some, into account.
    fn note(&mut self, rtt: Option<Duration>, now: Instant) {
        if let Some(mean) = self.mean.as_mut().filter(|mean| rtt.is_some() && !mean.measured) {
            mean.measured = true;
            // The smoothed time stood in for it, whatever it was at that moment.
            (self.min_rtt, self.probe_min) = (None, None);
        }
        if let Some(rtt) = rtt
            && (self.is_expired || self.probe_min.is_none_or(|min| rtt < min))
        {
            self.probe_min = Some(rtt);
            self.probe_stamp = now;
        }
        let Some(probe_min) = self.probe_min else {
            return;
        };
        if self.min_rtt.is_none_or(|min| probe_min < min) || now > self.stamp + MIN_RTT_FILTER {
            self.min_rtt = Some(probe_min);
            self.stamp = self.probe_stamp;
        }
    }
}

/// BBR.extra_acked: what acknowledgments tell at once beyond what the bandwidth explains.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Aggregation {
    /// BBR.extra_acked_interval_start.
    since: Instant,
    /// BBR.extra_acked_delivered.
    delivered: u64,
    /// The most of the last round trips, in two halves, and the round trip in which the later one began.
    most: [u32; 2],
    half_since: u64,
}

impl Aggregation {
    pub(super) fn restart(&mut self, now: Instant) {
        self.since = now;
        self.delivered = 0;
    }

    pub(super) fn extra_acked(&self) -> u32 {
        self.most[0].max(self.most[1])
    }

    /// `UpdateACKAggregation`.
    pub(super) fn update(&mut self, ack: &Ack, rounds: &Rounds, bw: u64, cwnd: u32, full: bool) {
        let mut expected = amount(bw, ack.now.since(self.since));
        if self.delivered <= expected {
            self.restart(ack.now);
            expected = 0;
        }
        self.delivered += u64::from(ack.newly_acked);
        let extra = (self.delivered - expected).min(u64::from(cwnd)) as u32;
        let half = if full { EXTRA_ACKED_FILTER / 2 } else { 1 };
        if rounds.count >= self.half_since + half {
            self.half_since = rounds.count;
            self.most = [self.most[1], 0];
            if !full {
                // In Startup only the present round trip counts.
                self.most[0] = 0;
            }
        }
        self.most[1] = self.most[1].max(extra);
    }
}

/// The estimator of a full pipe.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FullPipe {
    /// BBR.full_bw.
    bw: u64,
    /// BBR.full_bw_count.
    count: u8,
    /// BBR.full_bw_now.
    pub(super) now: bool,
    /// BBR.full_bw_reached.
    pub(super) reached: bool,
}

impl FullPipe {
    /// `ResetFullBW`, with `bw` as the baseline.
    pub(super) fn reset(&mut self, bw: u64) {
        self.bw = bw;
        self.count = 0;
        self.now = false;
    }

    /// `CheckFullBWReached`, but that growth counts whichever acknowledgment of a round trip shows it: that which
    /// begins one may happen to follow a loss, or to be one of many that arrived at once.
    pub(super) fn check(&mut self, ack: &Ack, round_start: bool) {
        let Some(rate) = ack.sample.rate else { return };
        if self.now || ack.sample.app_limited {
            return;
        }
        if rate >= self.bw.saturating_add(self.bw / 4) {
            self.reset(rate);
            return;
        }
        if !round_start {
            return;
        }
        self.count += 1;
        self.now = self.count >= FULL_PIPE_ROUNDS;
        self.reached |= self.now;
    }
}

/// Bytes that `rate` delivers in `time`.
pub(super) fn amount(rate: u64, time: Duration) -> u64 {
    (u128::from(rate) * u128::from(crate::time::micros(time)) / 1_000_000).min(u128::from(u64::MAX)) as u64
}

impl Bbr {
    /// `UpdateMaxBw`, with `UpdateRound`.
    pub(super) fn update_max_bw(&mut self, ack: &Ack) {
        let too_soon = self.is_too_soon(ack.now.since(self.rounds.since));
        let rounds = &mut self.rounds;
        rounds.start = ack.sample.prior_delivered >= rounds.next_delivered && !too_soon;
        if rounds.start {
            rounds.since = ack.now;
            rounds.next_delivered = self.delivered;
            rounds.count += 1;
            rounds.limited = [rounds.limited[1], false];
            self.cycle.rounds_since_probe_up = self.cycle.rounds_since_probe_up.saturating_add(1);
        }
        rounds.limited[1] |= ack.limited;
        let rate = ack.rate();
        if rate > 0 && (rate >= self.max_bw.get() || !ack.sample.app_limited) {
            self.max_bw.update(rate);
        }
    }

    /// Whether `time` is shorter than a round trip: where segments overtake each other, the first that was sent after
    /// another was delivered says neither that a round trip has passed, nor at which rate those before it arrive.
    pub(super) fn is_too_soon(&self, time: Duration) -> bool {
        self.min_rtt.mean.is_some() && self.min_rtt.get().is_some_and(|min_rtt| time < min_rtt)
    }

    /// `UpdateMinRTT`.
    pub(super) fn update_min_rtt(&mut self, ack: &Ack) {
        self.min_rtt.update(ack);
    }

    /// `BDPMultiple`, with `gain` in percent.
    pub(super) fn bdp_multiple(&self, bw: u64, gain: u32) -> Option<u64> {
        let min_rtt = u64::from(micros(self.min_rtt.get()?));
        let bdp = u128::from(bw) * u128::from(min_rtt) / 1_000_000;
        Some((bdp * u128::from(gain) / 100).min(u128::from(u32::MAX)) as u64)
    }

    /// BBR.bdp; the initial window before there is a round-trip time.
    pub(super) fn bdp(&self) -> u32 {
        let bdp = self.bdp_multiple(self.bw, 100);
        bdp.map_or(super::initial_window(self.mss), |bdp| bdp as u32)
    }
}
