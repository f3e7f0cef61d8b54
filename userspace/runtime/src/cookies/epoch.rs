//! Which key is in use at a time.

use core::time::Duration;

/// The most that the clocks of hosts with a common key file may be apart.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(2);

/// The keys that are accepted at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The epoch whose key makes cookies; its cookies and those of the one before are accepted.
    pub(crate) epoch: u64,
    /// Other hosts may have begun the next epoch.
    pub(crate) next_too: bool,
}

/// Time, cut into epochs of the same length from 1970 on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epochs {
    length: Duration,
    shared: bool,
}

impl Epochs {
    /// Epochs of `length`, which must be above zero. `shared`: other hosts make cookies with the same keys.
    pub(crate) fn new(length: Duration, shared: bool) -> Self {
        Self { length, shared }
    }

    /// The moment at `unix`, the time since 1970.
    pub(crate) fn at(&self, unix: Duration) -> Moment {
        Moment {
            epoch: (unix.as_nanos() / self.length.as_nanos()) as u64,
            next_too: self.shared && self.left(unix) <= CLOCK_DIFFERENCE,
        }
    }

    /// The time from `unix` until the moment changes.
    pub(crate) fn until_change(&self, unix: Duration) -> Duration {
        let left = self.left(unix);
        if self.shared && left > CLOCK_DIFFERENCE {
            left - CLOCK_DIFFERENCE
        } else {
            left
        }
    }

    /// The rest of the epoch; never zero.
    fn left(&self, unix: Duration) -> Duration {
        let gone = unix.as_nanos() % self.length.as_nanos();
        self.length - Duration::from_nanos(gone as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(epoch: u64, next_too: bool) -> Moment {
        Moment { epoch, next_too }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_random_secret_has_no_next_epoch() {
        let epochs = Epochs::new(Duration::from_secs(30), false);
        for (time, expected, left) in [
            (0, moment(0, false), 30_000),
            (29_999, moment(0, false), 1),
            (30_000, moment(1, false), 30_000),
            (95_000, moment(3, false), 25_000),
        ] {
            assert_eq!(epochs.at(at(time)), expected, "at {time}");
            assert_eq!(epochs.until_change(at(time)), at(left), "at {time}");
        }
    }

    #[test]
    fn a_shared_secret_accepts_the_next_epoch_shortly_before_it_begins() {
        let epochs = Epochs::new(Duration::from_secs(30), true);
        for (time, expected, left) in [
            (0, moment(0, false), 28_000),
            (27_999, moment(0, false), 1),
            (28_000, moment(0, true), 2000),
            (29_999, moment(0, true), 1),
            (30_000, moment(1, false), 28_000),
        ] {
            assert_eq!(epochs.at(at(time)), expected, "at {time}");
            assert_eq!(epochs.until_change(at(time)), at(left), "at {time}");
        }
    }

    #[test]
    fn every_change_is_announced() {
        for shared in [false, true] {
            let epochs = Epochs::new(Duration::from_millis(7500), shared);
            let mut unix = Duration::from_secs(1_700_000_000);
            for _ in 0..10 {
                let before = epochs.at(unix);
                let change = epochs.until_change(unix);
                assert_eq!(epochs.at(unix + change - Duration::from_nanos(1)), before);
                unix += change;
                assert_ne!(epochs.at(unix), before);
            }
        }
    }
}
