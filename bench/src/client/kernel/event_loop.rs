//! The loop all workloads run in: what is due, then what the kernel reports, again and again.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use mio::event::Event;
use mio::{Events, Poll, Registry};

use crate::client::kernel::recorder::Recorder;

/// Most events taken from the kernel at once.
const EVENTS: usize = 256;

/// Bytes read at once.
const BUFFER: usize = 64 * 1024;

/// What is left of a sleep that asks for whole milliseconds, as the kernel may wake late.
const SLEEP_MARGIN: Duration = Duration::from_micros(500);

/// What all connections share.
pub(super) struct Io<'a> {
    /// The server.
    pub(super) target: SocketAddr,
    /// Where new connections are registered.
    pub(super) registry: Registry,
    /// For reading; its content does not matter.
    pub(super) buffer: Vec<u8>,
    /// What was found.
    pub(super) recorder: Recorder<'a>,
}

/// What the kernel reported for a connection. It reports changes only (EPOLLET).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Readiness {
    /// There is something to read: data, the end of the stream, or an error.
    pub(super) readable: bool,
    /// The end of the stream or an error is among it.
    pub(super) closed: bool,
}

impl Readiness {
    fn of(event: &Event) -> Self {
        let closed = event.is_read_closed() || event.is_error();
        Self {
            readable: closed || event.is_readable(),
            closed,
        }
    }
}

/// A workload.
pub(super) trait Driver {
    /// What is due is due to the microsecond: the loop does not sleep shortly before it, but asks for events without
    /// waiting.
    const PRECISE: bool = false;

    /// Does what is due at `now`. Returns when something is due next, if not only after an event.
    fn turn(&mut self, io: &mut Io<'_>, now: Instant) -> Option<Instant>;

    /// The kernel reported `readiness` for the connection of slot `index`.
    fn ready(&mut self, io: &mut Io<'_>, index: usize, readiness: Readiness);

    /// The run is over at `now`.
    fn is_over(&mut self, io: &mut Io<'_>, now: Instant) -> bool {
        io.recorder.end().is_some_and(|end| now >= end)
    }
}

/// Runs `driver` until it is over. Returns what was found, and when it was over.
///
/// # Errors
///
/// The kernel refuses an epoll instance.
pub(super) fn run<'a, D: Driver>(
    driver: &mut D,
    target: SocketAddr,
    recorder: Recorder<'a>,
) -> anyhow::Result<(Recorder<'a>, Instant)> {
    let mut poll = Poll::new().context("cannot make an epoll instance")?;
    let registry = poll.registry().try_clone().context("cannot use the epoll instance")?;
    let mut io = Io {
        target,
        registry,
        buffer: vec![0; BUFFER],
        recorder,
    };
    let mut events = Events::with_capacity(EVENTS);
    loop {
        let now = Instant::now();
        io.recorder.turn(now);
        let due = driver.turn(&mut io, now);
        if driver.is_over(&mut io, now) {
            return Ok((io.recorder, now));
        }
        let timeout = timeout(now, due, io.recorder.next_turn(now), D::PRECISE);
        match poll.poll(&mut events, Some(timeout)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("cannot wait for the connections"),
        }
        for event in events.iter() {
            driver.ready(&mut io, event.token().0, Readiness::of(event));
        }
    }
}

/// How long to wait for events: until `due` or `latest`, whichever is first.
///
/// epoll_wait(2) sleeps whole milliseconds, mio rounds up to them, and the kernel may wake later still. Where `precise`
/// is wanted, it is therefore slept in whole milliseconds that end at least [`SLEEP_MARGIN`] early, and the rest is
/// spent asking again and again.
fn timeout(now: Instant, due: Option<Instant>, latest: Instant, precise: bool) -> Duration {
    let latest = latest.duration_since(now);
    let Some(due) = due.map(|due| due.duration_since(now)) else {
        return latest;
    };
    let due = if precise {
        let whole = due.saturating_sub(SLEEP_MARGIN).as_millis();
        Duration::from_millis(u64::try_from(whole).unwrap_or(u64::MAX))
    } else {
        due
    };
    due.min(latest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICROSECOND: Duration = Duration::from_micros(1);
    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn what_is_due_first_ends_the_wait() {
        let now = Instant::now();
        let latest = now + 9 * MILLISECOND;
        assert_eq!(timeout(now, None, latest, false), 9 * MILLISECOND);
        assert_eq!(
            timeout(now, Some(now + 5 * MICROSECOND), latest, false),
            5 * MICROSECOND
        );
        assert_eq!(timeout(now, Some(latest + MILLISECOND), latest, false), 9 * MILLISECOND);
        assert_eq!(timeout(now + MILLISECOND, Some(now), latest, false), Duration::ZERO);
    }

    #[test]
    fn a_precise_wait_ends_early() {
        let now = Instant::now();
        let latest = now + 100 * MILLISECOND;
        for (due, wait) in [
            (0_u32, 0_u32),
            (999, 0),
            (1_499, 0),
            (1_500, 1),
            (2_600, 2),
            (10_000, 9),
        ] {
            let due = now + due * MICROSECOND;
            assert_eq!(timeout(now, Some(due), latest, true), wait * MILLISECOND, "{due:?}");
        }
    }
}
