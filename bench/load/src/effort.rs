//! The client's own part in a measurement: how busy its thread was, and how it kept to the times of an open loop.

use std::path::Path;
use std::time::Duration;

use procfs::FromRead;
use procfs::process::Schedstat;
use tidegate_tcp::time::Instant;

use crate::window::thread_time;

/// The scheduler's times of the calling thread.
const SCHEDSTAT: &str = "/proc/thread-self/schedstat";

/// A start of an open loop is late when it comes so much after it was due.
pub(crate) const LATE: Duration = Duration::from_millis(1);

/// The client's own part in a measurement, by which [`Measured::limit`](crate::Measured::limit) judges.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Generator {
    /// The part of the time that was measured in which its busiest thread worked, 0 to 1. Looking again and again
    /// whether something has come is no work.
    pub busy: f64,
    /// The part of the time in which that thread had work to do, and waited for a processor that others used; 0 where
    /// the kernel does not tell.
    pub waited: f64,
    /// The starts of an open loop.
    pub starts: Option<Starts>,
    /// Frames that were lost or held up because a ring, or the memory for frames, was full: in all, with those before
    /// measuring.
    pub lost_frames: u64,
}

/// Requests or connections of an open loop that were due while measuring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Starts {
    /// All of them.
    pub due: u64,
    /// Those that were begun, however late.
    pub begun: u64,
    /// Those that were begun more than 1 ms late although a connection was free for them: the client was too slow.
    pub late: u64,
    /// Those that were begun more than 1 ms late because all connections waited for the server.
    pub held_back: u64,
    /// Earlier ones, which were without an answer when measuring began.
    pub under_way: u64,
}

impl Starts {
    /// Those that were never begun.
    pub fn missed(&self) -> u64 {
        self.due.saturating_sub(self.begun)
    }

    fn add(&mut self, other: &Self) {
        self.due += other.due;
        self.begun += other.begun;
        self.late += other.late;
        self.held_back += other.held_back;
        self.under_way += other.under_way;
    }
}

impl Generator {
    /// Adds another thread's part at the same time.
    pub(crate) fn add(&mut self, other: &Self) {
        if other.busy + other.waited > self.busy + self.waited {
            (self.busy, self.waited) = (other.busy, other.waited);
        }
        self.lost_frames += other.lost_frames;
        match (&mut self.starts, &other.starts) {
            (Some(starts), Some(more)) => starts.add(more),
            (starts, more) => *starts = starts.or(*more),
        }
    }
}

/// The processor's times of a thread.
#[derive(Clone, Copy, Debug, Default)]
struct ThreadTimes {
    /// It ran.
    run: Duration,
    /// It could have run, and waited.
    delay: Duration,
}

impl ThreadTimes {
    /// Those of the calling thread.
    fn now() -> Self {
        Self {
            run: thread_time().unwrap_or_default(),
            delay: Schedstat::from_file(Path::new(SCHEDSTAT))
                .map_or(Duration::ZERO, |times| Duration::from_nanos(times.run_delay)),
        }
    }
}

/// The times and starts of one thread, noted by itself.
#[derive(Debug, Default)]
pub(crate) struct Effort {
    /// The beginning of the measurement, and the thread's times then.
    begun: Option<(Instant, ThreadTimes)>,
    /// Its end.
    times: Option<(Duration, ThreadTimes)>,
    /// The time of the last turn, and what had arrived by then.
    last: (Instant, u64),
    /// Something was begun in that turn.
    acted: bool,
    /// Time in which nothing arrived and nothing was begun.
    idle: Duration,
    starts: Starts,
    /// No connection was free at the end of the last turn.
    is_full: bool,
    /// The last time up to which no connection was free.
    full_until: Option<Instant>,
}

impl Effort {
    /// A turn begins at `now`; `arrived` grows with all that comes from the server.
    pub(crate) fn turn(&mut self, now: Instant, arrived: u64) {
        let (at, before) = self.last;
        if arrived == before && !self.acted && self.begun.is_some() && self.times.is_none() {
            self.idle += now.since(at);
        }
        self.last = (now, arrived);
        self.acted = false;
        if self.is_full {
            // What has come since the last turn may have made one free, but only now.
            self.full_until = Some(now);
        }
    }

    /// Something was begun in this turn.
    pub(crate) fn act(&mut self) {
        self.acted = true;
    }

    /// The measurement begins, with so many operations under way.
    pub(crate) fn begin(&mut self, now: Instant, under_way: u64) {
        self.begun = Some((now, ThreadTimes::now()));
        self.starts.under_way = under_way;
    }

    /// The measurement ends.
    pub(crate) fn end(&mut self, now: Instant) {
        if let Some((since, before)) = self.begun {
            let after = ThreadTimes::now();
            let times = ThreadTimes {
                run: after.run.saturating_sub(before.run),
                delay: after.delay.saturating_sub(before.delay),
            };
            self.times = Some((now.since(since), times));
        }
    }

    /// The turn ends, and says whether no connection is free for a start.
    pub(crate) fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
    }

    /// Notes that an operation which was due at `due` was begun at `now`.
    pub(crate) fn start(&mut self, due: Instant, now: Instant) {
        self.acted = true;
        if self.begun.is_none_or(|(since, _)| due < since) {
            return;
        }
        self.starts.begun += 1;
        if now.since(due) > LATE {
            match self.full_until {
                Some(at) if at >= due => self.starts.held_back += 1,
                _ => self.starts.late += 1,
            }
        }
    }

    /// All that was found out. `missed` starts of an open loop came to nothing.
    pub(crate) fn generator(&self, missed: Option<u64>) -> Generator {
        let (wall, times) = self.times.unwrap_or_default();
        // A thread that sleeps takes no processor time. One that spins takes all there is, and where others have the
        // processor meanwhile, nothing came of that as long as nothing arrived.
        let wanted = times.run + times.delay;
        let needed = wanted.min(wall.saturating_sub(self.idle));
        // The part of the time that was measured, split as the thread ran and waited.
        let part = |time: Duration| match (wall.as_secs_f64(), wanted.as_secs_f64()) {
            (0.0, _) | (_, 0.0) => 0.0,
            (wall, wanted) => needed.as_secs_f64() / wall * (time.as_secs_f64() / wanted),
        };
        Generator {
            busy: part(times.run),
            waited: part(times.delay),
            starts: missed.map(|missed| Starts {
                due: self.starts.begun + missed,
                ..self.starts
            }),
            lost_frames: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_millis(1_000);

    fn at(micros: u64) -> Instant {
        START + Duration::from_micros(micros)
    }

    #[test]
    fn turns_in_which_nothing_happens_are_idle() {
        let mut effort = Effort::default();
        effort.turn(at(0), 5);
        effort.begin(at(0), 0);
        // Nothing, something arrives, nothing, something is begun and nothing arrives, nothing.
        for (micros, arrived, acts) in [
            (100, 5, false),
            (250, 6, false),
            (400, 6, true),
            (700, 6, false),
            (900, 6, false),
        ] {
            effort.turn(at(micros), arrived);
            if acts {
                effort.act();
            }
        }
        assert_eq!(effort.idle, Duration::from_micros(100 + 150 + 200));
        effort.end(at(1_000));
        effort.turn(at(5_000), 6);
        assert_eq!(effort.idle, Duration::from_micros(450), "it is over");
    }

    #[test]
    fn a_thread_that_spins_is_not_busy_and_one_that_works_is() {
        let busy = |idle_micros| {
            let mut effort = Effort::default();
            effort.begin(at(0), 0);
            effort.times = Some((
                Duration::from_millis(1),
                ThreadTimes {
                    run: Duration::from_micros(990),
                    delay: Duration::from_micros(10),
                },
            ));
            effort.idle = Duration::from_micros(idle_micros);
            effort.generator(None)
        };
        let generator = busy(0);
        assert!((generator.busy - 0.99).abs() < 1e-9 && (generator.waited - 0.01).abs() < 1e-9);
        assert_eq!(generator.starts, None);
        // Most of what it ran, or waited for a processor, it had nothing to do.
        let generator = busy(900);
        assert!((generator.busy - 0.099).abs() < 1e-9 && (generator.waited - 0.001).abs() < 1e-9);
        assert_eq!(Effort::default().generator(None), Generator::default());
    }

    #[test]
    fn work_takes_processor_time() {
        let mut effort = Effort::default();
        effort.begin(at(0), 0);
        let end = std::time::Instant::now() + Duration::from_secs(20);
        // However busy the machine is, some of it comes to this thread.
        while ThreadTimes::now().run < effort.begun.unwrap().1.run + Duration::from_millis(5) {
            assert!(std::time::Instant::now() < end);
        }
        effort.end(at(5_000));
        // Others may have had the processor meanwhile.
        let Generator { busy, waited, .. } = effort.generator(None);
        assert!(busy > 0.0 && (busy + waited - 1.0).abs() < 1e-9, "{busy} {waited}");
    }

    #[test]
    fn starts_are_late_by_the_client_or_by_the_server() {
        let mut effort = Effort::default();
        effort.start(at(0), at(0));
        assert_eq!(effort.starts, Starts::default(), "it is not measured yet");
        effort.begin(at(100), 6);
        // Of the warm-up.
        effort.start(at(99), at(5_000));
        effort.start(at(100), at(1_100));
        effort.start(at(200), at(1_201));
        effort.set_full(true);
        effort.turn(at(2_000), 1);
        effort.set_full(false);
        effort.turn(at(4_000), 2);
        effort.start(at(1_500), at(4_000));
        effort.start(at(2_500), at(4_000));
        let starts = effort.generator(Some(3)).starts.unwrap();
        assert_eq!(
            starts,
            Starts {
                due: 7,
                begun: 4,
                late: 2,
                held_back: 1,
                under_way: 6
            }
        );
        assert_eq!(starts.missed(), 3);
    }

    #[test]
    fn of_several_threads_the_busiest_counts() {
        let part = |busy, waited, begun| Generator {
            busy,
            waited,
            starts: Some(Starts {
                due: 10,
                begun,
                late: 1,
                held_back: 2,
                under_way: 5,
            }),
            lost_frames: 1,
        };
        let mut both = part(0.5, 0.1, 9);
        both.add(&part(0.3, 0.6, 8));
        both.add(&part(0.2, 0.0, 10));
        assert_eq!((both.busy, both.waited, both.lost_frames), (0.3, 0.6, 3));
        let starts = both.starts.unwrap();
        assert_eq!(
            (
                starts.due,
                starts.begun,
                starts.late,
                starts.held_back,
                starts.under_way
            ),
            (30, 27, 3, 6, 15)
        );
    }
}
