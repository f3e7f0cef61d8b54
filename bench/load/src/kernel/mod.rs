//! The client over the kernel's TCP: one thread that serves all connections by epoll.
//!
//! It runs beside the server on machines with few cores, so it does little for each request: nothing is allocated, and
//! there is no system call that the workload does not need.

#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tidegate_kernel_host::{ConnectionId, Host};
use tidegate_tcp::application::Stream;
use tidegate_tcp::time::Instant;

use crate::application::Requests;
use crate::connector::Connector;
use crate::driver::{Driver, Outcome, Task};
use crate::errors::{Failure, Kind};
use crate::monitor::Monitor;
use crate::open_files::allow_open_files;
use crate::progress::{INTERVAL, Progress};
use crate::record::Connection;
use crate::recorder::Recorder;
use crate::{Client, Frames, Measured, Plan, measured};

/// File descriptors needed beside the connections.
const OTHER_FILES: u64 = 64;

/// The time Linux keeps a connection in TIME-WAIT (TCP_TIMEWAIT_LEN), whatever its settings.
const TIME_WAIT: Duration = Duration::from_secs(60);

/// The part of a wait that is not slept, as the kernel may wake late.
const SLEEP_MARGIN: Duration = Duration::from_micros(500);

/// The client over the kernel's TCP. It needs no preparation.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelClient;

impl KernelClient {
    /// A client.
    pub fn new() -> Self {
        Self
    }
}

impl Client for KernelClient {
    /// The calling thread stays bound to the plan's CPU afterwards.
    fn run(&mut self, plan: &Plan, progress: &Progress) -> anyhow::Result<Measured> {
        plan.check()?;
        allow_open_files(u64::from(plan.connections) + OTHER_FILES)?;
        let (mut monitor, recorders) = Monitor::new(plan, progress, 1);
        thread::scope(|scope| {
            // It is started before this thread is bound to a CPU, which it would share, and ends with the recorder.
            let watch = move || {
                while monitor.look() {}
                monitor.finish()
            };
            let watching = thread::Builder::new()
                .name("monitor".to_owned())
                .spawn_scoped(scope, watch)
                .context("cannot start a thread")?;
            if let Some(cpu) = plan.cpu {
                tidegate_affinity::pin_this_thread(cpu)
                    .with_context(|| format!("cannot run the client on CPU {cpu}; is there one?"))?;
            }
            let outcome = recorders.into_iter().map(|recorder| load(plan, recorder)).next();
            let outcome = outcome.context("there is no recorder")??;
            let collected = watching.join().map_err(|_| anyhow!("the monitor's thread panicked"))?;
            Ok(measured(plan, outcome, collected, TIME_WAIT))
        })
    }
}

fn load(plan: &Plan, recorder: Recorder) -> anyhow::Result<Outcome> {
    let task = Task::of(plan);
    // What has a fixed rate is due to the microsecond.
    let precise = plan.workload.rate().is_some();
    let mut driver = Driver::new(task, recorder);
    let mut host = Host::new(Requests::new(plan, &task))?;
    let mut outcome = None;
    host.run_with(
        |host, now| {
            let mut connector = HostConnector {
                host,
                target: plan.target(),
            };
            let due = driver.turn(&mut connector, now);
            outcome = driver.take_outcome();
            if outcome.is_some() {
                return Ok(None);
            }
            Ok(Some(timeout(now, due, precise)))
        },
        |application, id, since| application.openings.announce(id, since),
    )?;
    outcome.context("the client ended before its time")
}

/// The time to wait for events: until `due`, or for [`INTERVAL`] if that is shorter.
///
/// epoll_wait(2) sleeps whole milliseconds, mio rounds up to them, and the kernel may wake later still. Where `precise`
/// is wanted, it is therefore slept in whole milliseconds that end at least [`SLEEP_MARGIN`] early, and the rest is
/// spent asking again and again.
fn timeout(now: Instant, due: Option<Instant>, precise: bool) -> Duration {
    let Some(due) = due.map(|due| due.since(now)) else {
        return INTERVAL;
    };
    let due = if precise {
        let whole = due.saturating_sub(SLEEP_MARGIN).as_millis();
        Duration::from_millis(u64::try_from(whole).unwrap_or(u64::MAX))
    } else {
        due
    };
    due.min(INTERVAL)
}

/// Sockets during a turn.
struct HostConnector<'a> {
    host: &'a mut Host<Requests<ConnectionId>>,
    target: SocketAddr,
}

impl Connector for HostConnector<'_> {
    type Id = ConnectionId;

    const PORTS_COME_FREE: bool = false;

    const ANSWERS_AFTERWARDS: bool = true;

    fn application(&self) -> &Requests<ConnectionId> {
        self.host.application()
    }

    fn application_mut(&mut self) -> &mut Requests<ConnectionId> {
        self.host.application_mut()
    }

    fn connections(&self) -> u32 {
        self.host.connections() as u32
    }

    fn connect(&mut self, due: Instant) -> Result<(), Failure> {
        match self.host.connect_since(self.target, due) {
            Ok(_) => Ok(()),
            Err(error) => Err(failure(&error)),
        }
    }

    fn with_connection<R>(
        &mut self,
        id: ConnectionId,
        action: impl FnOnce(&mut Requests<ConnectionId>, &mut Connection, &mut dyn Stream) -> R,
    ) -> Option<R> {
        self.host.with_connection(id, action)
    }

    fn take_failed(&mut self, mut tell: impl FnMut(&mut Requests<ConnectionId>, Failure)) {
        while let Some(error) = self.host.take_failed() {
            tell(self.host.application_mut(), failure(&error));
        }
    }

    fn count_opening(&self, is_stalled: impl Fn(Instant) -> bool) -> usize {
        self.host.opening_since().filter(|&begun| is_stalled(begun)).count()
    }

    fn bytes_sent(&self) -> u64 {
        self.host.sent()
    }

    fn frames(&self) -> Option<Frames> {
        None
    }

    fn arrived(&self) -> u64 {
        self.host.events()
    }
}

/// Why a connection was not opened.
fn failure(error: &io::Error) -> Failure {
    if error.kind() == ErrorKind::TimedOut {
        return Failure::new(Kind::TimedOut, "no answer to the SYN");
    }
    Failure::of(error, Kind::Connect)
}
