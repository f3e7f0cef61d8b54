//! The service manager's side of life (sd_notify(3)): readiness, a status in words, and a watchdog that is fed only
//! while every shard turns. Without `NOTIFY_SOCKET` in the environment nothing is told to anybody.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tidegate_runtime::Error;
use tracing::warn;

/// The time that a stop takes beyond draining: connections are reset, shards ended, devices put back.
const STOP_MARGIN: Duration = Duration::from_secs(30);

/// That the service serves, and what: it is this process, which may have taken over from another.
pub(crate) fn ready(status: &str) {
    let main = NotifyState::MainPid(std::process::id());
    tell(&[main, NotifyState::Ready, NotifyState::Status(status)]);
}

/// The status in words, as `systemctl status` shows it.
pub(crate) fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// That the service stops, which takes `drain` and a little more: neither the limit for stopping nor the watchdog is to
/// end it before.
pub(crate) fn stopping(drain: Duration) {
    let limit = drain.saturating_add(STOP_MARGIN).as_micros();
    tell(&[
        NotifyState::Stopping,
        NotifyState::Custom(&format!("EXTEND_TIMEOUT_USEC={limit}")),
        NotifyState::Custom(&format!("WATCHDOG_USEC={limit}")),
        NotifyState::Watchdog,
        NotifyState::Status(&format!("stopping; connections have {drain:?} to end")),
    ]);
}

/// Tells the service manager, if there is one. That it cannot be told is logged once.
fn tell(states: &[NotifyState<'_>]) {
    static FAILED: AtomicBool = AtomicBool::new(false);
    if let Err(error) = sd_notify::notify(states)
        && !FAILED.swap(true, Ordering::Relaxed)
    {
        warn!("the service manager cannot be told how the service is (NOTIFY_SOCKET): {error}");
    }
}

/// Tells the service manager regularly that every shard turns. One that does not is named in the log, and the service
/// manager acts when it was told nothing for `WatchdogSec=`.
#[derive(Debug)]
pub(crate) struct Watchdog {
    /// Half of the time after which the service manager acts; `None`: it does not.
    interval: Option<Duration>,
    told_at: Instant,
    hangs: bool,
}

/// The time after which the service manager acts (`WATCHDOG_USEC`), if it is to.
pub(crate) fn watchdog_limit() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

impl Watchdog {
    /// The watchdog that the service manager asks for, if it does.
    pub(crate) fn from_environment() -> Self {
        Self::every(watchdog_limit().map(|limit| limit / 2))
    }

    fn every(interval: Option<Duration>) -> Self {
        Self {
            interval,
            told_at: Instant::now(),
            hangs: false,
        }
    }

    /// Feeds the watchdog if that is due and `connections` has the answer of every shard.
    pub(crate) fn feed(&mut self, connections: impl FnOnce() -> Result<u64, Error>) {
        if let Some(states) = self.look(Instant::now(), connections) {
            let states: Vec<_> = states.iter().map(|state| NotifyState::Custom(state)).collect();
            tell(&states);
        }
    }

    /// The messages that are due at `now`.
    fn look(&mut self, now: Instant, connections: impl FnOnce() -> Result<u64, Error>) -> Option<Vec<String>> {
        let interval = self.interval?;
        // A shard that hangs is asked again at every look: there is as much time left for it to go on as there was.
        if !self.hangs && now.saturating_duration_since(self.told_at) < interval {
            return None;
        }
        match connections() {
            Ok(connections) => {
                if self.hangs {
                    warn!("every shard answers again");
                }
                self.hangs = false;
                self.told_at = now;
                let status = format!("STATUS={connections} connections, every shard turns");
                Some(vec![NotifyState::Watchdog.to_string(), status])
            }
            Err(error) if !self.hangs => {
                warn!("{error}; the service manager's watchdog is not fed until it does");
                self.hangs = true;
                Some(vec![format!("STATUS={error}")])
            }
            Err(_) => None,
        }
    }
}

/// Feeds the watchdog while there are no shards: nothing is there that could hang.
pub(crate) fn feed_without_shards() {
    tell(&[NotifyState::Watchdog]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hung() -> Error {
        Error::Shard {
            queue: 3,
            what: "it did not answer within 1s".to_owned(),
        }
    }

    #[test]
    fn it_is_fed_at_its_interval_while_every_shard_answers_and_not_before() {
        let mut watchdog = Watchdog::every(Some(Duration::from_secs(10)));
        let began = watchdog.told_at;
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(watchdog.look(at(9), || unreachable!("nobody is asked yet")), None);
        let told = watchdog.look(at(10), || Ok(7));
        assert_eq!(told.unwrap(), ["WATCHDOG=1", "STATUS=7 connections, every shard turns"]);
        assert_eq!(watchdog.look(at(19), || unreachable!("nobody is asked yet")), None);
        assert!(watchdog.look(at(20), || Ok(0)).is_some());
    }

    #[test]
    fn a_shard_that_hangs_is_named_once_and_stops_the_feeding_until_it_goes_on() {
        let mut watchdog = Watchdog::every(Some(Duration::from_secs(10)));
        let began = watchdog.told_at;
        let at = |seconds| began + Duration::from_secs(seconds);
        let told = watchdog.look(at(10), || Err(hung())).unwrap();
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("STATUS=") && told[0].contains("queue 3"), "{told:?}");
        for seconds in 11..15 {
            assert_eq!(watchdog.look(at(seconds), || Err(hung())), None);
        }
        // At once, not an interval later.
        assert_eq!(watchdog.look(at(15), || Ok(1)).unwrap()[0], "WATCHDOG=1");
        assert_eq!(watchdog.look(at(24), || unreachable!("nobody is asked yet")), None);
    }

    #[test]
    fn without_a_watchdog_no_shard_is_asked() {
        let mut watchdog = Watchdog::every(None);
        let later = watchdog.told_at + Duration::from_secs(3600);
        assert_eq!(watchdog.look(later, || unreachable!("nobody is asked")), None);
    }
}
