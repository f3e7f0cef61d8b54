//! Congestion control: the amount of data that may be in flight, and the rate at which it leaves.
//!
//! The sender tells a [`CongestionControl`] what it sent and what the network did, and asks it for the window and the
//! pacing rate. Finding losses, and the rate at which the window shrinks during recovery, is the sender's part.
//!
//! An algorithm is one file that implements the trait, and an [`Algorithm`] that names it. Those that the configuration
//! file can name are in [`Algorithm::ALL`]; any other can be put into
//! [`Config::congestion`](crate::Config::congestion).

mod algorithm;
mod bbr;
mod cubic;
mod hystart;
mod reno;
mod sample;
mod slow_start;

use core::fmt::Debug;
use core::time::Duration;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use bbr::Bbr;
pub use cubic::Cubic;
pub use reno::Reno;
pub use sample::{Delivery, LossContext, LostSegment, PathModel, RateSample};

use crate::config::Config;
use crate::seq::SeqNumber;
use crate::time::Instant;

/// The largest congestion window in bytes: the largest window a peer can offer (RFC 7323, section 2.3).
pub const MAX_WINDOW: u32 = 1 << 30;

/// The slow start threshold of a connection that has met no congestion yet (RFC 5681, section 3.1: arbitrarily high).
pub const INITIAL_SSTHRESH: u32 = u32::MAX;

/// A segment with text that was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// The time it was sent.
    pub now: Instant,
    /// Bytes of its text.
    pub bytes: u32,
    /// Bytes outstanding with it (SND.NXT - SND.UNA).
    pub flight: u32,
    /// SND.NXT with it.
    pub snd_nxt: SeqNumber,
    /// It was sent before.
    pub again: bool,
    /// The application had less to send than the path could take, of late. Told only to controllers that want
    /// [samples](CongestionControl::wants_rate_samples).
    pub app_limited: bool,
}

/// An acknowledgment as congestion control sees it.
#[derive(Clone, Copy, Debug)]
pub struct Acked {
    /// The time the acknowledgment arrived.
    pub now: Instant,
    /// Bytes newly acknowledged (cumulatively or by SACK).
    pub bytes: u32,
    /// Bytes outstanding before the acknowledgment (SND.NXT - SND.UNA).
    pub flight: u32,
    /// The congestion window limited sending, and not the peer's window, the application or the pacing rate; in slow
    /// start also if it would have without the pacing rate.
    pub limited: bool,
    /// Round-trip time measured by this acknowledgment, if it measured one.
    pub rtt: Option<Duration>,
    /// The path delivers segments in another order than that in which they were sent: it was seen to, on this
    /// connection or an earlier one, not so long ago that it is forgotten.
    pub reordering: bool,
    /// Smoothed round-trip time; `None` before the first measurement.
    pub srtt: Option<Duration>,
    /// SND.UNA after the acknowledgment.
    pub snd_una: SeqNumber,
    /// SND.NXT when the acknowledgment arrived.
    pub snd_nxt: SeqNumber,
    /// For controllers that want [samples](CongestionControl::wants_rate_samples).
    pub delivery: Option<Delivery>,
}

/// Round trips, counted by acknowledgments: one ends when all that had been sent at its beginning is acknowledged.
///
/// A controller that needs rounds keeps one of these and shows it every acknowledgment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// The round ends when this is acknowledged; `None` until the next acknowledgment begins a round.
    end: Option<SeqNumber>,
}

impl Round {
    /// A round that the next acknowledgment begins.
    pub const fn new() -> Self {
        Self { end: None }
    }

    /// Takes an acknowledgment into account; true if it ends the round. What is outstanding then is the next round.
    pub fn on_ack(&mut self, acked: &Acked) -> bool {
        let end = *self.end.get_or_insert(acked.snd_nxt);
        let is_over = acked.snd_una.at_or_after(end);
        if is_over {
            self.end = acked.snd_nxt.after(acked.snd_una).then_some(acked.snd_nxt);
        }
        is_over
    }
}

/// A congestion control algorithm of one connection.
///
/// Its life begins when the connection's window limits sending for the first time, or when there is congestion; until
/// then the window is [`initial_window`]. What the path has shown is forgotten, and the controller dropped, when
/// nothing was sent for five minutes.
///
/// All amounts are bytes; `mss` is the largest payload of a segment at the time of the call, above zero; it may change
/// between calls when the path MTU does. Every call that gets an `mss` leaves a window of at least one segment, and
/// every threshold that is set is at least two segments.
pub trait CongestionControl: Debug + Send + Sync {
    /// The congestion window (cwnd), at most [`MAX_WINDOW`].
    fn window(&self) -> u32;

    /// The slow start threshold, [`INITIAL_SSTHRESH`] while no congestion was met.
    fn ssthresh(&self) -> u32;

    /// The rate in bytes per second at which text may leave; `None`: as fast as the window lets it. The sender asks
    /// after each segment, and sends at most two milliseconds' worth and a segment at once. The first segment after a
    /// timeout and probes are not held back, but count.
    fn pacing_rate(&self) -> Option<u64> {
        None
    }

    /// Takes over what the configuration says of the algorithm, before anything else.
    fn configure(&mut self, config: &Config) {
        let _ = config;
    }

    /// Whether the sender measures the [delivery rate](RateSample) for it, which takes 32 bytes of memory for each
    /// outstanding segment. The answer never changes. Such a controller is told of every acknowledgment that delivers
    /// something or shows a loss, and of each loss ([`Self::on_lost`]).
    fn wants_rate_samples(&self) -> bool {
        false
    }

    /// Whether it sets its window itself during fast recovery: acknowledgments are told then, too, and no rate
    /// reduction sets the window. The answer never changes.
    fn drives_recovery(&self) -> bool {
        false
    }

    /// The path as it sees it, for those who look at a connection.
    fn path_model(&self) -> Option<PathModel> {
        None
    }

    /// Sets the congestion window: proportional rate reduction (RFC 6937) does so during fast recovery.
    fn set_window(&mut self, cwnd: u32);

    /// An earlier connection over the same path had this threshold in the end. To be called before anything else. A
    /// controller that takes it begins with no less than its window as its threshold.
    fn recall_ssthresh(&mut self, ssthresh: u32) {
        let _ = ssthresh;
    }

    /// A segment with text was sent, new or again.
    fn on_sent(&mut self, sent: &Sent, mss: u32) {
        let _ = (sent, mss);
    }

    /// Data was acknowledged outside of fast recovery, unless the controller [drives it](Self::drives_recovery); slow
    /// start after a timeout counts as outside.
    fn on_ack(&mut self, acked: &Acked, mss: u32);

    /// A segment was found to be lost. Told, to controllers that want [samples](Self::wants_rate_samples), after
    /// [`Self::on_congestion`] or [`Self::on_timeout`] if the loss brings one about, and before the [`Self::on_ack`] of
    /// the acknowledgment that shows it.
    fn on_lost(&mut self, lost: &LostSegment, context: &LossContext, mss: u32) {
        let _ = (lost, context, mss);
    }

    /// A loss was found with `flight` bytes outstanding. Sets the threshold and leaves the window, which is then
    /// lowered by [`Self::set_window`], unless the controller [drives recovery](Self::drives_recovery) itself.
    fn on_congestion(&mut self, now: Instant, flight: u32, mss: u32);

    /// The peer echoed congestion (ECE) outside of any recovery: the window shrinks at once.
    fn on_mark(&mut self, now: Instant, flight: u32, mss: u32) {
        self.on_congestion(now, flight, mss);
        self.on_recovered(mss);
    }

    /// The retransmission timer ran out with `flight` bytes outstanding: the window becomes one segment. The threshold
    /// is set unless this has `repeated` for the same data (RFC 5681, section 3.1).
    fn on_timeout(&mut self, now: Instant, flight: u32, repeated: bool, mss: u32);

    /// The recovery that [`Self::on_congestion`] or [`Self::on_timeout`] began is over. After congestion the window
    /// becomes the threshold, unless that congestion was undone; after a timeout it stays.
    fn on_recovered(&mut self, mss: u32);

    /// Nothing was sent for longer than a retransmission timeout: the window becomes the restart window (RFC 5681,
    /// section 4.1) if it is larger, unless what is sent next is paced at the rate the path was seen to carry.
    fn on_idle(&mut self, mss: u32);

    /// The last [`Self::on_congestion`] or first [`Self::on_timeout`] was spurious: everything becomes as it was
    /// before. A window that has grown beyond the earlier one since then stays, with its threshold (RFC 9438, section
    /// 4.9.2).
    fn undo(&mut self, now: Instant);
}

/// Initial window (RFC 6928, section 2) and restart window (RFC 5681, section 4.1), in bytes.
#[inline]
pub fn initial_window(mss: u32) -> u32 {
    let two_segments = mss.saturating_mul(2);
    mss.saturating_mul(10).min(two_segments.max(14_600)).min(MAX_WINDOW)
}

/// The window that congestion is answered from. During fast recovery the window follows what is in the pipe and may be
/// far below the threshold it is meant to end at.
fn window_at_congestion(cwnd: u32, ssthresh: u32, recovering: bool) -> u32 {
    if recovering { cwnd.max(ssthresh) } else { cwnd }
}

/// The threshold after an idle time that ended with a window of `cwnd` (RFC 7661, section 4.4.3): most of what the path
/// was last known to carry may be probed for in slow start.
fn ssthresh_after_idle(cwnd: u32, ssthresh: u32) -> u32 {
    ssthresh.max(cwnd - cwnd / 4)
}

/// Whole microseconds, at most what 32 bits hold (71 minutes).
fn micros(duration: Duration) -> u32 {
    crate::time::micros(duration).min(u64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Event {
        Ack {
            micros: u32,
            bytes: u32,
            limited: bool,
            rtt: Option<u32>,
            srtt: Option<u32>,
            sample: Sample,
        },
        /// A segment is found to be lost of this many bytes in flight, a thousandth of which were.
        Lost {
            tx_in_flight: u32,
            permille: u32,
        },
        Sent {
            bytes: u32,
            app_limited: bool,
        },
        Mark,
        Congestion {
            flight: u32,
        },
        Timeout {
            flight: u32,
            repeated: bool,
        },
        Window(u32),
        Recovered,
        Idle,
        Undo,
    }

    /// The rate sample of an acknowledgment.
    #[derive(Clone, Copy, Debug)]
    struct Sample {
        rate: Option<u64>,
        /// Bytes delivered since the segment was sent, besides what the acknowledgment itself acknowledges.
        before: u32,
        tx_in_flight: u32,
        lost: u32,
        in_flight: u32,
        app_limited: bool,
        selective: bool,
    }

    fn sample() -> impl Strategy<Value = Sample> {
        let amount = || prop_oneof![1 => any::<u32>(), 4 => 0..300_000u32];
        let rate = prop_oneof![1 => any::<Option<u64>>(), 6 => (1_000..1_000_000_000u64).prop_map(Some)];
        let amounts = (amount(), amount(), amount(), amount());
        (rate, amounts, any::<bool>(), any::<bool>()).prop_map(
            |(rate, (before, tx_in_flight, lost, in_flight), app_limited, selective)| Sample {
                rate,
                before,
                tx_in_flight,
                lost,
                in_flight,
                app_limited,
                selective,
            },
        )
    }

    fn ack() -> impl Strategy<Value = Event> {
        let bytes = prop_oneof![1 => any::<u32>(), 4 => 1..200_000u32];
        let micros = prop_oneof![1 => any::<u32>(), 4 => 0..500_000u32];
        let rtts = (any::<Option<u32>>(), any::<Option<u32>>());
        (micros, bytes, any::<bool>(), rtts, sample()).prop_map(|(micros, bytes, limited, (rtt, srtt), sample)| {
            Event::Ack {
                micros,
                bytes,
                limited,
                rtt,
                srtt,
                sample,
            }
        })
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            12 => ack(),
            2 => any::<u32>().prop_map(|flight| Event::Congestion { flight }),
            2 => (1..300_000u32, 0..=1000u32)
                .prop_map(|(tx_in_flight, permille)| Event::Lost { tx_in_flight, permille }),
            1 => (1..9000u32, any::<bool>()).prop_map(|(bytes, app_limited)| Event::Sent { bytes, app_limited }),
            1 => Just(Event::Mark),
            1 => (any::<u32>(), any::<bool>()).prop_map(|(flight, repeated)| Event::Timeout { flight, repeated }),
            2 => any::<u32>().prop_map(Event::Window),
            2 => Just(Event::Recovered),
            1 => Just(Event::Idle),
            1 => Just(Event::Undo),
        ]
    }

    fn algorithm() -> impl Strategy<Value = Algorithm> {
        proptest::sample::select(Algorithm::ALL)
    }

    /// A controller with its clock and its place in sequence space.
    struct Run {
        controller: Box<dyn CongestionControl>,
        now: Instant,
        snd_una: SeqNumber,
        mss: u32,
        delivered: u64,
    }

    impl Run {
        fn new(algorithm: Algorithm, mss: u32) -> Self {
            Self {
                controller: algorithm.start(mss),
                now: Instant::ZERO,
                snd_una: SeqNumber(0),
                mss,
                delivered: 0,
            }
        }

        fn apply(&mut self, event: &Event) {
            let mss = self.mss;
            match *event {
                Event::Ack {
                    micros,
                    bytes,
                    limited,
                    rtt,
                    srtt,
                    sample,
                } => {
                    let duration = |micros: u32| Duration::from_micros(u64::from(micros));
                    let snd_nxt = self.snd_una + bytes;
                    self.now = self.now + duration(micros);
                    self.snd_una += bytes / 2;
                    self.delivered += u64::from(bytes);
                    let delivered = u64::from(bytes.saturating_add(sample.before)).min(self.delivered);
                    let delivery = Delivery {
                        delivered: self.delivered,
                        in_flight: sample.in_flight,
                        selective: sample.selective,
                        sample: Some(RateSample {
                            rate: sample.rate,
                            delivered: delivered as u32,
                            prior_delivered: self.delivered - delivered,
                            app_limited: sample.app_limited,
                            tx_in_flight: sample.tx_in_flight,
                            lost: sample.lost,
                        }),
                    };
                    let acked = Acked {
                        now: self.now,
                        bytes,
                        flight: bytes,
                        limited,
                        rtt: rtt.map(duration),
                        reordering: false,
                        srtt: srtt.map(duration),
                        snd_una: self.snd_una,
                        snd_nxt,
                        delivery: self.controller.wants_rate_samples().then_some(delivery),
                    };
                    self.controller.on_ack(&acked, mss);
                }
                Event::Lost { tx_in_flight, permille } => {
                    let lost = LostSegment {
                        seq: self.snd_una,
                        bytes: mss.min(tx_in_flight),
                        tx_in_flight,
                        lost: (u64::from(tx_in_flight) * u64::from(permille) / 1000) as u32,
                        app_limited: false,
                    };
                    let context = LossContext {
                        now: self.now,
                        delivered: self.delivered,
                        selective: true,
                    };
                    self.controller.on_lost(&lost, &context, mss);
                }
                Event::Sent { bytes, app_limited } => {
                    let sent = Sent {
                        now: self.now,
                        bytes,
                        flight: bytes,
                        snd_nxt: self.snd_una + bytes,
                        again: false,
                        app_limited,
                    };
                    self.controller.on_sent(&sent, mss);
                }
                Event::Mark => self.controller.on_mark(self.now, mss, mss),
                Event::Congestion { flight } => self.controller.on_congestion(self.now, flight, mss),
                Event::Timeout { flight, repeated } => self.controller.on_timeout(self.now, flight, repeated, mss),
                Event::Window(cwnd) => self.controller.set_window(cwnd.max(mss)),
                Event::Recovered => self.controller.on_recovered(mss),
                Event::Idle => self.controller.on_idle(mss),
                Event::Undo => self.controller.undo(self.now),
            }
        }
    }

    proptest! {
        #[test]
        fn window_and_threshold_stay_in_range_whatever_happens(
            algorithm in algorithm(),
            mss in 48..=65_495u32,
            events in proptest::collection::vec(event(), 1..200),
        ) {
            let mut run = Run::new(algorithm, mss);
            // One that goes by a model of the path lowers its window with the model, and keeps it over an idle time.
            let models = run.controller.drives_recovery();
            for event in &events {
                let before = run.controller.window();
                run.apply(event);
                let (window, ssthresh) = (run.controller.window(), run.controller.ssthresh());
                prop_assert!((mss..=MAX_WINDOW).contains(&window), "window {window} after {event:?}");
                prop_assert!(ssthresh >= 2 * mss, "threshold {ssthresh} after {event:?}");
                match event {
                    Event::Ack { .. } | Event::Idle if models => {}
                    Event::Ack { limited, .. } => {
                        prop_assert!(window >= before, "an acknowledgment lowered {before} to {window}");
                        prop_assert!(*limited || window == before, "{before} grew to {window} unused");
                    }
                    Event::Timeout { .. } => prop_assert_eq!(window, mss),
                    Event::Congestion { .. } => prop_assert_eq!(window, before),
                    Event::Idle => prop_assert!(window <= initial_window(mss)),
                    Event::Undo => prop_assert!(window >= before),
                    Event::Window(_) | Event::Recovered | Event::Lost { .. } | Event::Mark | Event::Sent { .. } => {}
                }
                prop_assert!(run.controller.pacing_rate() != Some(0), "a rate of zero after {event:?}");
            }
        }

        #[test]
        fn spurious_congestion_leaves_no_trace(
            algorithm in algorithm(),
            events in proptest::collection::vec(ack(), 0..50),
            timeout in any::<bool>(),
            flight in any::<u32>(),
        ) {
            let mut run = Run::new(algorithm, 1448);
            for event in &events {
                run.apply(event);
            }
            let before = (run.controller.window(), run.controller.ssthresh());
            if timeout {
                run.controller.on_timeout(run.now, flight, false, 1448);
                run.controller.on_timeout(run.now, flight, true, 1448);
            } else {
                run.controller.on_congestion(run.now, flight, 1448);
                if !run.controller.drives_recovery() {
                    run.controller.set_window(1448);
                }
            }
            run.controller.undo(run.now);
            run.controller.on_recovered(1448);
            prop_assert_eq!((run.controller.window(), run.controller.ssthresh()), before);
        }
    }

    #[test]
    fn the_initial_window_follows_rfc_6928() {
        assert_eq!(initial_window(1460), 14_600);
        assert_eq!(initial_window(536), 5360);
        assert_eq!(initial_window(8960), 17_920);
    }

    #[test]
    fn algorithms_are_known_by_name() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.to_string().parse::<Algorithm>(), Ok(*algorithm));
        }
        let error = "vegas".parse::<Algorithm>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no congestion control \"vegas\"; it must be one of: reno, cubic, bbr"
        );
    }

    #[test]
    fn a_controller_is_small() {
        for (name, size, most) in [
            ("reno", size_of::<Reno>(), 128),
            ("cubic", size_of::<Cubic>(), 128),
            ("bbr", size_of::<Bbr>(), 512),
        ] {
            assert!(size <= most, "{name}: {size} bytes");
        }
    }

    #[test]
    fn a_round_ends_when_what_was_outstanding_at_its_beginning_is_acknowledged() {
        let acked = |snd_una, snd_nxt| Acked {
            now: Instant::ZERO,
            bytes: 1,
            flight: 0,
            limited: true,
            rtt: None,
            reordering: false,
            srtt: None,
            snd_una: SeqNumber(snd_una),
            snd_nxt: SeqNumber(snd_nxt),
            delivery: None,
        };
        let mut round = Round::new();
        assert!(!round.on_ack(&acked(10, 30)));
        assert!(!round.on_ack(&acked(29, 60)));
        assert!(round.on_ack(&acked(30, 60)));
        assert!(round.on_ack(&acked(60, 60)), "nothing is outstanding");
        assert!(
            !round.on_ack(&acked(70, 90)),
            "the next acknowledgment begins the next round"
        );
        assert!(round.on_ack(&acked(90, 100)));
    }
}
