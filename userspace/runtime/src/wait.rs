//! The decision between spinning and sleeping when a turn of a shard's loop found nothing to do.

use core::time::Duration;

use tidegate_tcp::time::Instant;
use tidegate_xsk::Unsent;

use crate::config::{Config, WaitStrategy};

/// The longest sleep, so that a wake-up that got lost costs a second and not the service.
const MAX_SLEEP: Duration = Duration::from_secs(1);

/// The longest sleep while frames are short or the kernel takes none: nobody wakes a shard when that changes.
const RETRY: Duration = Duration::from_millis(1);

/// The longest sleep while the interface is down.
const RETRY_LINK_DOWN: Duration = Duration::from_millis(10);

/// The outcome of a turn that has just ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// Frames, segments of other shards or commands came in, or there is more to send and room for it.
    pub(crate) worked: bool,
    /// The time at which the engine's next timer is due, or the task wants its turn.
    pub(crate) deadline: Option<Instant>,
    /// The engine waits for frames to send, or the fill ring for frames to receive into.
    pub(crate) short_of_frames: bool,
    pub(crate) unsent: Unsent,
}

/// The next step of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Another turn at once.
    Again,
    /// Another turn after a pause of a few cycles, or a poll of the device.
    Spin,
    /// Sleep until woken, for at most this long.
    Sleep(Duration),
}

/// Decides by the strategy and by when there last was work.
#[derive(Debug)]
pub(crate) struct Waiter {
    strategy: WaitStrategy,
    spin: Duration,
    last_work: Instant,
}

impl Waiter {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            strategy: config.wait,
            spin: config.spin,
            last_work: Instant::ZERO,
        }
    }

    /// Whether spinning means to have the kernel poll the device.
    #[inline]
    pub(crate) fn polls_device(&self) -> bool {
        self.strategy == WaitStrategy::BusyPoll
    }

    /// Decides on the next step after a turn that began at `now`.
    #[inline]
    pub(crate) fn next(&mut self, now: Instant, turn: &Turn) -> Step {
        if turn.worked {
            self.last_work = now;
            return Step::Again;
        }
        if turn.deadline.is_some_and(|deadline| deadline <= now) {
            return Step::Again;
        }
        let recently = now.since(self.last_work) < self.spin;
        let spins = match self.strategy {
            WaitStrategy::Spin => true,
            WaitStrategy::Adaptive | WaitStrategy::BusyPoll => recently,
            // The kernel's room comes back within microseconds, long before a sleep ends.
            WaitStrategy::Poll => recently && turn.unsent == Unsent::Busy,
        };
        if spins {
            return Step::Spin;
        }
        let mut limit = MAX_SLEEP;
        if let Some(deadline) = turn.deadline {
            limit = limit.min(deadline.since(now));
        }
        match turn.unsent {
            Unsent::Nothing => {}
            Unsent::Busy => limit = limit.min(RETRY),
            Unsent::LinkDown => limit = limit.min(RETRY_LINK_DOWN),
        }
        if turn.short_of_frames {
            limit = limit.min(match turn.unsent {
                // Frames that cannot be sent do not come back either.
                Unsent::LinkDown => RETRY_LINK_DOWN,
                Unsent::Nothing | Unsent::Busy => RETRY,
            });
        }
        Step::Sleep(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Turn = Turn {
        worked: false,
        deadline: None,
        short_of_frames: false,
        unsent: Unsent::Nothing,
    };

    fn waiter(wait: WaitStrategy) -> Waiter {
        Waiter::new(&Config {
            wait,
            spin: Duration::from_micros(50),
            ..Config::default()
        })
    }

    fn at(micros: u64) -> Instant {
        Instant::from_micros(1_000_000 + micros)
    }

    fn worked(waiter: &mut Waiter) {
        let turn = Turn { worked: true, ..IDLE };
        assert_eq!(waiter.next(at(0), &turn), Step::Again);
    }

    #[test]
    fn poll_sleeps_at_once() {
        let mut waiter = waiter(WaitStrategy::Poll);
        worked(&mut waiter);
        assert_eq!(waiter.next(at(0), &IDLE), Step::Sleep(MAX_SLEEP));
    }

    #[test]
    fn adaptive_and_busy_poll_look_again_for_a_while() {
        for strategy in [WaitStrategy::Adaptive, WaitStrategy::BusyPoll] {
            let mut waiter = waiter(strategy);
            worked(&mut waiter);
            assert_eq!(waiter.next(at(49), &IDLE), Step::Spin);
            assert_eq!(waiter.next(at(50), &IDLE), Step::Sleep(MAX_SLEEP));
            assert_eq!(waiter.polls_device(), strategy == WaitStrategy::BusyPoll);
        }
    }

    #[test]
    fn a_shard_that_never_worked_does_not_spin() {
        let mut waiter = waiter(WaitStrategy::Adaptive);
        assert_eq!(waiter.next(at(0), &IDLE), Step::Sleep(MAX_SLEEP));
    }

    #[test]
    fn spin_never_sleeps() {
        let mut waiter = waiter(WaitStrategy::Spin);
        assert_eq!(waiter.next(at(10_000_000), &IDLE), Step::Spin);
    }

    #[test]
    fn a_sleep_ends_with_the_next_timer() {
        let mut waiter = waiter(WaitStrategy::Poll);
        let turn = Turn {
            deadline: Some(at(300)),
            ..IDLE
        };
        assert_eq!(waiter.next(at(100), &turn), Step::Sleep(Duration::from_micros(200)));
        assert_eq!(waiter.next(at(300), &turn), Step::Again);
        let far = Turn {
            deadline: Some(at(60_000_000)),
            ..IDLE
        };
        assert_eq!(waiter.next(at(0), &far), Step::Sleep(MAX_SLEEP));
    }

    #[test]
    fn what_nobody_wakes_us_for_is_tried_again() {
        let mut waiter = waiter(WaitStrategy::Poll);
        let short = Turn {
            short_of_frames: true,
            ..IDLE
        };
        assert_eq!(waiter.next(at(0), &short), Step::Sleep(RETRY));
        let busy = Turn {
            unsent: Unsent::Busy,
            ..IDLE
        };
        assert_eq!(waiter.next(at(0), &busy), Step::Sleep(RETRY));
        let down = Turn {
            unsent: Unsent::LinkDown,
            short_of_frames: true,
            ..IDLE
        };
        assert_eq!(waiter.next(at(0), &down), Step::Sleep(RETRY_LINK_DOWN));
    }

    #[test]
    fn even_poll_spins_while_the_kernel_has_no_room_for_a_moment() {
        let mut waiter = waiter(WaitStrategy::Poll);
        worked(&mut waiter);
        let busy = Turn {
            unsent: Unsent::Busy,
            ..IDLE
        };
        assert_eq!(waiter.next(at(10), &busy), Step::Spin);
        assert_eq!(waiter.next(at(50), &busy), Step::Sleep(RETRY));
    }
}
