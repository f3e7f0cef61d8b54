//! Congestion control: the amount of data that may be in flight, and the rate at which it leaves.
//!
//! The sender tells a [`CongestionControl`] what it sent and what the network did, and asks it for the window and the
//! pacing rate. Finding losses, and the rate at which the window shrinks during recovery, is the sender's part.
//!
//! An algorithm is one file that implements the trait, and an [`Algorithm`] that names it. Those that the configuration
//! file can name are in [`Algorithm::ALL`]; any other can be put into
//! [`Config::congestion`](crate::Config::congestion).

mod cubic;
mod hystart;
mod reno;

use core::fmt::{self, Debug};
use core::str::FromStr;
use core::time::Duration;

pub use cubic::Cubic;
pub use reno::Reno;

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
    /// The congestion window limited sending, and not the peer's window, the application or the pacing rate.
    pub limited: bool,
    /// Round-trip time measured by this acknowledgment, if it measured one.
    pub rtt: Option<Duration>,
    /// Smoothed round-trip time; `None` before the first measurement.
    pub srtt: Option<Duration>,
    /// SND.UNA after the acknowledgment.
    pub snd_una: SeqNumber,
    /// SND.NXT when the acknowledgment arrived.
    pub snd_nxt: SeqNumber,
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

    /// Data was acknowledged outside of fast recovery; slow start after a timeout counts as outside.
    fn on_ack(&mut self, acked: &Acked, mss: u32);

    /// A loss was found, or the peer echoed congestion (ECE), with `flight` bytes outstanding. Sets the threshold and
    /// leaves the window, which is then lowered by [`Self::set_window`].
    fn on_congestion(&mut self, now: Instant, flight: u32, mss: u32);

    /// The retransmission timer ran out with `flight` bytes outstanding: the window becomes one segment. The threshold
    /// is set unless this has `repeated` for the same data (RFC 5681, section 3.1).
    fn on_timeout(&mut self, now: Instant, flight: u32, repeated: bool, mss: u32);

    /// The recovery that [`Self::on_congestion`] began is over: the window becomes the threshold. Without effect when
    /// that congestion was undone or a timeout came after it.
    fn on_recovered(&mut self, mss: u32);

    /// Nothing was sent for longer than a retransmission timeout: the window becomes the restart window (RFC 5681,
    /// section 4.1) if it is larger.
    fn on_idle(&mut self, mss: u32);

    /// The last [`Self::on_congestion`] or first [`Self::on_timeout`] was spurious: everything becomes as it was
    /// before. A window that has grown beyond the earlier one since then stays, with its threshold (RFC 9438, section
    /// 4.9.2).
    fn undo(&mut self);
}

/// A congestion control algorithm: its name, and the way a connection begins with it.
#[derive(Clone, Copy)]
pub struct Algorithm {
    name: &'static str,
    start: fn(mss: u32) -> Box<dyn CongestionControl>,
}

impl Algorithm {
    /// RFC 5681: [`Reno`].
    pub const RENO: Self = Self::new("reno", |mss| Box::new(Reno::new(mss)));
    /// RFC 9438: [`Cubic`]. The default.
    pub const CUBIC: Self = Self::new("cubic", |mss| Box::new(Cubic::new(mss)));

    /// The algorithms that the configuration file can name.
    pub const ALL: &'static [Self] = &[Self::RENO, Self::CUBIC];

    /// An algorithm of this name, which no other has; `start` returns the state of a new connection with segments of at
    /// most `mss` bytes.
    pub const fn new(name: &'static str, start: fn(mss: u32) -> Box<dyn CongestionControl>) -> Self {
        Self { name, start }
    }

    /// The name used in configuration.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// The state of a new connection with segments of at most `mss` bytes.
    pub fn start(self, mss: u32) -> Box<dyn CongestionControl> {
        (self.start)(mss)
    }
}

impl Default for Algorithm {
    fn default() -> Self {
        Self::CUBIC
    }
}

impl PartialEq for Algorithm {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Algorithm {}

impl Debug for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL
            .iter()
            .copied()
            .find(|algorithm| algorithm.name == name)
            .ok_or_else(|| UnknownAlgorithm(name.to_owned()))
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Algorithm {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

/// A name that no [`Algorithm`] has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownAlgorithm(String);

impl fmt::Display for UnknownAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no congestion control {:?}; it must be one of:", self.0)?;
        for (index, algorithm) in Algorithm::ALL.iter().enumerate() {
            write!(f, "{} {algorithm}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl core::error::Error for UnknownAlgorithm {}

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
        },
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

    fn ack() -> impl Strategy<Value = Event> {
        let bytes = prop_oneof![1 => any::<u32>(), 4 => 1..200_000u32];
        let micros = prop_oneof![1 => any::<u32>(), 4 => 0..500_000u32];
        (micros, bytes, any::<bool>(), any::<Option<u32>>(), any::<Option<u32>>()).prop_map(
            |(micros, bytes, limited, rtt, srtt)| Event::Ack {
                micros,
                bytes,
                limited,
                rtt,
                srtt,
            },
        )
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            12 => ack(),
            2 => any::<u32>().prop_map(|flight| Event::Congestion { flight }),
            1 => (any::<u32>(), any::<bool>()).prop_map(|(flight, repeated)| Event::Timeout { flight, repeated }),
            2 => any::<u32>().prop_map(Event::Window),
            2 => Just(Event::Recovered),
            1 => Just(Event::Idle),
            1 => Just(Event::Undo),
        ]
    }

    fn algorithm() -> impl Strategy<Value = Algorithm> {
        prop_oneof![Just(Algorithm::RENO), Just(Algorithm::CUBIC)]
    }

    /// A controller with its clock and its place in sequence space.
    struct Run {
        controller: Box<dyn CongestionControl>,
        now: Instant,
        snd_una: SeqNumber,
        mss: u32,
    }

    impl Run {
        fn new(algorithm: Algorithm, mss: u32) -> Self {
            Self {
                controller: algorithm.start(mss),
                now: Instant::ZERO,
                snd_una: SeqNumber(0),
                mss,
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
                } => {
                    let duration = |micros: u32| Duration::from_micros(u64::from(micros));
                    let snd_nxt = self.snd_una + bytes;
                    self.now = self.now + duration(micros);
                    self.snd_una += bytes / 2;
                    let acked = Acked {
                        now: self.now,
                        bytes,
                        flight: bytes,
                        limited,
                        rtt: rtt.map(duration),
                        srtt: srtt.map(duration),
                        snd_una: self.snd_una,
                        snd_nxt,
                    };
                    self.controller.on_ack(&acked, mss);
                }
                Event::Congestion { flight } => self.controller.on_congestion(self.now, flight, mss),
                Event::Timeout { flight, repeated } => self.controller.on_timeout(self.now, flight, repeated, mss),
                Event::Window(cwnd) => self.controller.set_window(cwnd.max(mss)),
                Event::Recovered => self.controller.on_recovered(mss),
                Event::Idle => self.controller.on_idle(mss),
                Event::Undo => self.controller.undo(),
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
            for event in &events {
                let before = run.controller.window();
                run.apply(event);
                let (window, ssthresh) = (run.controller.window(), run.controller.ssthresh());
                prop_assert!((mss..=MAX_WINDOW).contains(&window), "window {window} after {event:?}");
                prop_assert!(ssthresh >= 2 * mss, "threshold {ssthresh} after {event:?}");
                match event {
                    Event::Ack { limited, .. } => {
                        prop_assert!(window >= before, "an acknowledgment lowered {before} to {window}");
                        prop_assert!(*limited || window == before, "{before} grew to {window} unused");
                    }
                    Event::Timeout { .. } => prop_assert_eq!(window, mss),
                    Event::Congestion { .. } => prop_assert_eq!(window, before),
                    Event::Idle => prop_assert!(window <= initial_window(mss)),
                    Event::Undo => prop_assert!(window >= before),
                    Event::Window(_) | Event::Recovered => {}
                }
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
                run.controller.set_window(1448);
            }
            run.controller.undo();
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
        let error = "bbr".parse::<Algorithm>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no congestion control \"bbr\"; it must be one of: reno, cubic"
        );
    }

    #[test]
    fn a_controller_is_small() {
        for (name, size) in [("reno", size_of::<Reno>()), ("cubic", size_of::<Cubic>())] {
            assert!(size <= 128, "{name}: {size} bytes");
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
            srtt: None,
            snd_una: SeqNumber(snd_una),
            snd_nxt: SeqNumber(snd_nxt),
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
