//! A token bucket: the known limit of a server, for the verification of measurements.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time for which tokens that nobody needs are saved.
const SAVED: Duration = Duration::from_millis(10);

/// A token bucket of all threads. Whoever takes a token that is not there yet is told when it will be, and has it then:
/// as in a queue, none is lost.
#[derive(Debug)]
pub(super) struct Bucket {
    start: Instant,
    tokens: Mutex<Tokens>,
}

/// Times are in nanoseconds since the start.
#[derive(Clone, Debug)]
struct Tokens {
    /// Between two tokens.
    interval: f64,
    /// The time of the next token that nobody has.
    next: f64,
    through: Through,
}

/// The number of requests that were let through, the check by other means of what a client measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Through {
    /// In all.
    all: u64,
    /// In the second, counted from the start, in which the last was.
    in_second: (u64, u64),
    /// In the second with the most.
    max: u64,
}

impl Tokens {
    fn new(per_second: u64) -> Self {
        Self {
            interval: 1e9 / per_second as f64,
            next: 0.0,
            through: Through::default(),
        }
    }

    /// Takes a token. Returns how long it is to be waited for.
    fn take(&mut self, now: Duration) -> Duration {
        let now = now.as_nanos() as f64;
        let at = self.next.max(now - SAVED.as_nanos() as f64);
        self.next = at + self.interval;
        // Zero for a token that is there already.
        Duration::from_nanos((at - now) as u64)
    }

    /// Gives a token back that was not used.
    fn put_back(&mut self) {
        self.next -= self.interval;
    }

    fn let_through(&mut self, now: Duration) {
        let through = &mut self.through;
        let (second, count) = through.in_second;
        let count = if second == now.as_secs() { count + 1 } else { 1 };
        through.in_second = (now.as_secs(), count);
        through.max = through.max.max(count);
        through.all += 1;
    }
}

impl Bucket {
    /// A bucket with `per_second` tokens a second, above 0.
    pub(super) fn new(per_second: u64) -> Self {
        Self {
            start: Instant::now(),
            tokens: Mutex::new(Tokens::new(per_second)),
        }
    }

    /// Takes a token. Returns how long it is to be waited for.
    pub(super) fn take(&self) -> Duration {
        self.with(Tokens::take)
    }

    /// Gives a token back that was not used.
    pub(super) fn put_back(&self) {
        self.with(|tokens, _| tokens.put_back());
    }

    /// Counts a request that is let through now.
    pub(super) fn let_through(&self) {
        self.with(Tokens::let_through);
    }

    /// Returns how many were let through.
    pub(super) fn through(&self) -> Through {
        self.with(|tokens, _| tokens.through)
    }

    fn with<R>(&self, action: impl FnOnce(&mut Tokens, Duration) -> R) -> R {
        // No thread panics between two changes that belong together.
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        action(&mut tokens, self.start.elapsed())
    }
}

impl fmt::Display for Through {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} let through, at most {} in a second", self.all, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_has_more_than_its_tokens_and_those_that_were_saved() {
        for per_second in [1, 3, 1_000, 30_007] {
            let mut tokens = Tokens::new(per_second);
            // Twice as many are asked for, for 10 seconds: each has its token within 10 more.
            let mut at: Vec<Duration> = (0..20 * per_second)
                .map(|index| {
                    let now = Duration::from_secs_f64(index as f64 / (2 * per_second) as f64);
                    now + tokens.take(now)
                })
                .collect();
            at.sort_unstable();
            let saved = per_second / 100 + 1;
            for (index, &first) in at.iter().enumerate() {
                let end = first + Duration::from_secs(1);
                let within = at[index..].partition_point(|&time| time < end) as u64;
                assert!(within <= per_second + saved, "{within} of {per_second}");
            }
            let last = at.last().unwrap().as_secs_f64();
            assert!((18.9..=20.0).contains(&last), "{per_second}: {last}");
        }
    }

    #[test]
    fn whoever_comes_rarely_never_waits() {
        let mut tokens = Tokens::new(100);
        for millis in (0..10_000).step_by(11) {
            assert_eq!(tokens.take(Duration::from_millis(millis)), Duration::ZERO);
        }
    }

    #[test]
    fn a_token_that_is_given_back_is_the_next_ones() {
        let mut tokens = Tokens::new(10);
        let now = Duration::from_secs(1);
        let waits: Vec<Duration> = (0..3).map(|_| tokens.take(now)).collect();
        tokens.put_back();
        assert_eq!(tokens.take(now), waits[2]);
        assert!(tokens.take(now) > waits[2]);
    }

    #[test]
    fn what_is_let_through_is_counted_by_second() {
        let mut tokens = Tokens::new(10);
        for millis in [0, 100, 999, 1_000, 3_500] {
            tokens.let_through(Duration::from_millis(millis));
        }
        assert_eq!(tokens.through.to_string(), "5 let through, at most 3 in a second");
    }
}
