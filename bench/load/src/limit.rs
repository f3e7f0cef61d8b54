//! The verdict on a measurement: whether its figures are the server's, or those of the client.

use std::fmt;
use std::time::Duration;

use crate::effort::{LATE, Starts};
use crate::{Kind, Measured, Plan, Workload};

/// The part of the time from which a thread that works, or waits for a processor, has none left to speak of.
const BUSY: f64 = 0.95;

/// The part of all starts that may be late, and of what is due that may not be completed.
const TOLERANCE: f64 = 0.01;

/// The part of the client's frames that its rings may lose.
const LOST_FRAMES: f64 = 0.001;

/// The side that was at its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limiter {
    /// The client could not have done more: the figures are its own, and no result of the server.
    Client,
    /// The server: the client had time left and waited for it.
    Server,
    /// Neither: all that was due was begun in time and done.
    Neither,
}

impl Limiter {
    /// The name in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Neither => "none",
        }
    }
}

/// The side that was at its limit, and why it is thought to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The side.
    pub by: Limiter,
    /// A phrase.
    pub reason: String,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = &self.reason;
        match self.by {
            Limiter::Client => write!(f, "limited by the client: {reason}; not a result of the server"),
            Limiter::Server => write!(f, "limited by the server: {reason}"),
            Limiter::Neither => write!(f, "neither side: {reason}"),
        }
    }
}

impl Measured {
    /// Judges who was at the limit. `None` where nothing was completed, and where the question does not arise:
    /// [`Workload::Hold`], and connections that are tried once each.
    ///
    /// A closed loop always runs at a limit, an open one only if what was due was late or was not done.
    pub fn limit(&self, plan: &Plan) -> Option<Limit> {
        if self.operations == 0 || plan.workload == Workload::Hold || plan.spread.is_some() {
            return None;
        }
        let limit = |by, reason| Some(Limit { by, reason });
        if let Some(reason) = self.exhaustion() {
            return limit(Limiter::Client, reason);
        }
        let Some(starts) = self.generator.starts else {
            return limit(
                Limiter::Server,
                format!(
                    "the client was idle {} of the time, its {} connections waited for the server",
                    percent(1.0 - self.generator.busy - self.generator.waited),
                    plan.connections
                ),
            );
        };
        if let Some(reason) = self.not_kept_up(plan, &starts) {
            return limit(Limiter::Server, reason);
        }
        // What was late is no reason for what was not done: it was begun all the same.
        if let Some(reason) = self.lateness() {
            return limit(Limiter::Client, reason);
        }
        limit(
            Limiter::Neither,
            format!(
                "all that was due was begun in time and done, and the client was idle {} of the time",
                percent(1.0 - self.generator.busy - self.generator.waited)
            ),
        )
    }

    /// Why the client had nothing left to do more with: source ports, rings, or time of a processor. `None` if it had.
    pub fn exhaustion(&self) -> Option<String> {
        let generator = &self.generator;
        let no_port = self.errors.count(Kind::NoPort);
        if no_port > 0 {
            return Some(format!("{no_port} times it had no source port for a connection"));
        }
        if let Some(frames) = self.frames {
            let all = frames.sent + frames.received;
            let lost = generator.lost_frames;
            if lost as f64 > all as f64 * LOST_FRAMES {
                return Some(format!("its rings were full, {lost} times for {all} frames"));
            }
        }
        if generator.busy + generator.waited >= BUSY {
            let mut reason = format!("its thread was busy {} of the time", percent(generator.busy));
            if generator.waited >= TOLERANCE {
                reason.push_str(&format!(
                    ", and waited {} of it for a processor that others used",
                    percent(generator.waited)
                ));
            }
            return Some(reason);
        }
        None
    }

    /// Why an open loop was not what it should be, by the client alone; `None` if it was.
    fn lateness(&self) -> Option<String> {
        let starts = self.generator.starts?;
        (starts.late as f64 > starts.due as f64 * TOLERANCE).then(|| {
            format!(
                "{} of {} starts were more than {} ms late although a connection was free",
                starts.late,
                starts.due,
                LATE.as_millis()
            )
        })
    }

    /// Why an open loop was more than the server could take; `None` if it kept up.
    fn not_kept_up(&self, plan: &Plan, starts: &Starts) -> Option<String> {
        let waiting = starts.held_back + starts.missed();
        if waiting as f64 > starts.due as f64 * TOLERANCE {
            return Some(format!(
                "all {} connections waited for it when {waiting} of {} starts were due",
                plan.connections, starts.due
            ));
        }
        (!self.keeps_up()).then(|| format!("it completed {} of {} that were due", self.operations, starts.due))
    }

    /// Whether as much was completed while measuring as was due, to 1 %. What was due less than the shortest latency
    /// before the end is not expected: it can only be answered after that, unless as much was under way at the
    /// beginning, and was answered in its place. True of closed loops.
    pub fn keeps_up(&self) -> bool {
        let Some(starts) = self.generator.starts else {
            return true;
        };
        let due = starts.due as f64;
        let too_late = due * self.part_too_late();
        let carried = (too_late - starts.under_way as f64).max(0.0);
        self.operations as f64 + carried >= due * (1.0 - TOLERANCE)
    }

    /// Whether a part `tail`, 0 to 1, of all operations may be late because a processor was taken away for `steal`:
    /// what is due meanwhile is, and what is due until that is made up for, which takes as long again, or longer the
    /// less time the client has to spare.
    pub fn may_be_late_by(&self, steal: Duration, tail: f64) -> bool {
        let spare = (1.0 - self.generator.busy).clamp(0.01, 0.5);
        !steal.is_zero() && steal.as_secs_f64() / spare >= tail * self.seconds
    }

    /// The part of the time that was measured, 0 to 1, that is shorter than the shortest latency before its end.
    fn part_too_late(&self) -> f64 {
        if self.latency.is_empty() || self.seconds <= 0.0 {
            return 0.0;
        }
        let shortest = Duration::from_nanos(self.latency.histogram().min());
        (shortest.as_secs_f64() / self.seconds).min(1.0)
    }
}

fn percent(part: f64) -> String {
    format!("{:.0} %", part.max(0.0) * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{measured, plan};
    use crate::{Close, Frames, Generator};

    const OPEN: Workload = Workload::Latency { rate: 1_000 };
    const CLOSED: Workload = Workload::Rps { pipeline: 1 };

    fn starts(late: u64, held_back: u64, missed: u64) -> Generator {
        Generator {
            busy: 0.2,
            starts: Some(Starts {
                due: 1_000,
                begun: 1_000 - missed,
                late,
                held_back,
                under_way: 0,
            }),
            ..Generator::default()
        }
    }

    #[track_caller]
    fn assert_limit(measured: &Measured, workload: Workload, by: Limiter, phrase: &str) {
        let limit = measured.limit(&plan(workload)).unwrap();
        assert_eq!(limit.by, by, "{limit}");
        assert!(limit.to_string().contains(phrase), "{limit}");
    }

    #[test]
    fn a_closed_loop_is_at_the_limit_of_whoever_is_busy() {
        for (busy, waited, by, phrase) in [
            (
                0.4,
                0.1,
                Limiter::Server,
                "the client was idle 50 % of the time, its 3 connections",
            ),
            (
                0.99,
                0.0,
                Limiter::Client,
                "busy 99 % of the time; not a result of the server",
            ),
            (0.5, 0.46, Limiter::Client, "waited 46 % of it for a processor"),
        ] {
            let mut measured = measured(1_000);
            measured.generator = Generator {
                busy,
                waited,
                ..Generator::default()
            };
            assert_limit(&measured, CLOSED, by, phrase);
        }
    }

    #[test]
    fn an_open_loop_is_at_no_limit_as_long_as_it_keeps_its_times() {
        for (generator, operations, by, phrase) in [
            (starts(10, 10, 0), 1_000, Limiter::Neither, "idle 80 %"),
            (
                starts(11, 0, 0),
                1_000,
                Limiter::Client,
                "11 of 1000 starts were more than 1 ms late",
            ),
            (
                starts(0, 11, 0),
                1_000,
                Limiter::Server,
                "all 3 connections waited for it when 11 of 1000",
            ),
            (starts(0, 5, 6), 1_000, Limiter::Server, "when 11 of 1000"),
            (starts(20, 0, 0), 700, Limiter::Server, "it completed 700 of 1000"),
            (starts(0, 0, 0), 980, Limiter::Server, "it completed 980 of 1000"),
        ] {
            let mut measured = measured(operations);
            measured.generator = generator;
            assert_limit(&measured, OPEN, by, phrase);
        }
    }

    #[test]
    fn what_a_distant_server_answers_after_the_end_is_not_missing() {
        // Of 1,000 that are due in a second the last 50 are answered later, or more.
        for (operations, shortest, under_way, expected) in [
            (950, 50, 0, true),
            (941, 50, 0, true),
            (939, 50, 0, false),
            // After a warm-up as many are answered that were due before.
            (989, 50, 50, false),
            (990, 50, 50, true),
            // It takes longer and longer: some were fast.
            (950, 1, 0, false),
        ] {
            let mut measured = measured(operations);
            measured.generator = starts(0, 0, 0);
            let starts = measured.generator.starts.as_mut().unwrap();
            starts.under_way = under_way;
            for millis in [shortest, 60] {
                measured.latency.record(Duration::from_millis(millis));
            }
            let case = (operations, shortest, under_way);
            assert_eq!(measured.keeps_up(), expected, "{case:?}");
        }
    }

    #[test]
    fn steal_makes_more_late_the_less_time_the_client_has_to_spare() {
        let mut measured = measured(1_000);
        measured.seconds = 10.0;
        let due = Duration::from_millis(10);
        measured.generator.busy = 0.1;
        assert!(!measured.may_be_late_by(due, 0.01));
        assert!(measured.may_be_late_by(5 * due, 0.01), "until it has caught up");
        measured.generator.busy = 0.92;
        assert!(
            measured.may_be_late_by(due, 0.01),
            "it takes the client long to catch up"
        );
        assert!(!measured.may_be_late_by(due, 0.02));
        assert!(!measured.may_be_late_by(Duration::ZERO, 0.0));
    }

    #[test]
    fn ports_and_rings_are_the_clients() {
        let mut measured = measured(1_000);
        measured.generator = starts(0, 0, 0);
        measured.frames = Some(Frames {
            sent: 5_000,
            received: 5_000,
        });
        measured.generator.lost_frames = 10;
        assert_limit(&measured, OPEN, Limiter::Neither, "");
        measured.generator.lost_frames = 11;
        assert_limit(
            &measured,
            OPEN,
            Limiter::Client,
            "rings were full, 11 times for 10000 frames",
        );
        measured.errors.add(Kind::NoPort, "no port");
        let cps = Workload::Cps { close: Close::Client };
        assert_limit(&measured, cps, Limiter::Client, "1 times it had no source port");
    }

    #[test]
    fn where_nothing_was_measured_there_is_no_verdict() {
        assert_eq!(measured(0).limit(&plan(CLOSED)), None);
        assert_eq!(measured(1).limit(&plan(Workload::Hold)), None);
        let spread = Plan {
            spread: Some(Duration::ZERO),
            ..plan(Workload::Cps { close: Close::Server })
        };
        assert_eq!(measured(1).limit(&spread), None);
    }
}
