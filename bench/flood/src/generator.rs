//! A flood on its way: a thread that has frames made and sent, or connections begun, at the rate asked for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use nix::sys::prctl::set_timerslack;
use rustix::process::setpriority_process;

use crate::af_xdp::AfXdp;
use crate::interface::{self, Interface};
use crate::live_frames::{self, LiveFrames};
use crate::object::Counters;
use crate::peers::{Connections, Peers};
use crate::plan::{Maker, Plan};
use crate::rate::Pace;
use crate::sink::Sink;

/// The time peers sleep when there is nothing to do: far less than what arrives takes to fill a ring.
const PEERS_SLEEP: Duration = Duration::from_micros(100);

/// The nice value of those that come last.
const LOWEST_PRIORITY: i32 = 19;

/// The totals of a flood that has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Totals {
    /// Frames made and given to the interface.
    pub sent: u64,
    /// From the first frame to the last.
    pub seconds: f64,
    /// Whether the kernel made them, else they came through an AF_XDP socket.
    pub live_frames: bool,
    /// Frames the interface says it has sent meanwhile, others included, if it can be asked. Of a veth device these are
    /// the ones its peer has taken.
    pub interface_sent: Option<u64>,
    /// The connections, of a kind that needs them.
    pub connections: Option<Connections>,
}

impl Totals {
    /// Frames given to the interface in a second.
    pub fn per_second(&self) -> f64 {
        if self.seconds > 0.0 {
            self.sent as f64 / self.seconds
        } else {
            0.0
        }
    }
}

/// A running flood. Dropping it ends it.
pub struct Generator {
    thread: Option<JoinHandle<anyhow::Result<Totals>>>,
    stop: Arc<AtomicBool>,
    /// Frames an AF_XDP socket has sent.
    sent: Arc<AtomicU64>,
    /// Counts those the kernel makes.
    live_frames: Option<Arc<Counters>>,
    connections: Option<Arc<Mutex<Connections>>>,
}

impl Generator {
    /// Starts a flood on a thread of its own, in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// The plan is not allowed (a usage error), the interface or the CPU cannot be used, nobody answers for the target,
    /// or the kernel refuses the program or the socket.
    pub fn start(plan: Plan) -> anyhow::Result<Self> {
        Self::start_beside(plan, None)
    }

    /// [`Generator::start`] where there is a sink on the interface already, which a kind that needs connections
    /// otherwise attaches. The sink has to take what is for the plan's sources.
    ///
    /// # Errors
    ///
    /// As [`Generator::start`].
    pub fn start_beside(mut plan: Plan, sink: Option<&Sink>) -> anyhow::Result<Self> {
        let target_mac = plan.resolve()?;
        let source = Source::of(&plan, target_mac, sink)?;
        let live_frames = match &source {
            Source::Live(live_frames) => Some(live_frames.counter()),
            Source::AfXdp(_) | Source::Peers(_) => None,
        };
        let connections = match &source {
            Source::Peers(_) => Some(Arc::default()),
            Source::Live(_) | Source::AfXdp(_) => None,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let (ready, is_ready) = mpsc::sync_channel(1);
        let worker = Worker {
            source,
            plan,
            stop: Arc::clone(&stop),
            sent: Arc::clone(&sent),
            connections: connections.clone(),
        };
        let thread = thread::Builder::new()
            .name("flood".to_owned())
            .spawn(move || {
                let settled = worker.settle();
                let failed = settled.is_err();
                // The receiver waits for this one message.
                let _ = ready.send(settled);
                if failed {
                    return Err(anyhow!("the thread of the flood did not start"));
                }
                worker.run()
            })
            .context("cannot start a thread")?;
        is_ready
            .recv()
            .context("the thread of the flood ended before it was ready")??;
        Ok(Self {
            thread: Some(thread),
            stop,
            sent,
            live_frames,
            connections,
        })
    }

    /// The connections so far, of a kind that needs them.
    pub fn connections(&self) -> Option<Connections> {
        self.connections.as_ref().map(|connections| *lock(connections))
    }

    /// Frames made and given to the interface so far.
    pub fn sent(&self) -> u64 {
        match &self.live_frames {
            Some(counters) => live_frames::frames(counters),
            None => self.sent.load(Ordering::Relaxed),
        }
    }

    /// Whether the kernel makes the frames, else they go through an AF_XDP socket.
    pub fn is_live_frames(&self) -> bool {
        self.live_frames.is_some()
    }

    /// Whether it has ended, because its time is over or something went wrong.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it, if it has not ended by itself.
    ///
    /// # Errors
    ///
    /// The failure of the thread.
    pub fn stop(mut self) -> anyhow::Result<Totals> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the flood has been ended already")?;
        thread.join().map_err(|_| anyhow!("the thread of the flood panicked"))?
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A drop does not ask what went wrong.
            let _ = thread.join();
        }
    }
}

/// Where frames come from.
enum Source {
    Live(Box<LiveFrames>),
    AfXdp(Box<AfXdp>),
    Peers(Box<Peers>),
}

impl Source {
    fn of(plan: &Plan, target_mac: [u8; 6], sink: Option<&Sink>) -> anyhow::Result<Self> {
        let interface = Interface::find(&plan.interface)?;
        if plan.kind.needs_connections() {
            return Ok(Self::Peers(Box::new(Peers::prepare(plan, target_mac, sink)?)));
        }
        let settings = plan.settings(&interface, target_mac);
        let live_frames = match plan.maker {
            Maker::Auto | Maker::LiveFrames => LiveFrames::new(&settings, plan.seed)?,
            Maker::AfXdp => None,
        };
        match live_frames {
            Some(live_frames) => Ok(Self::Live(Box::new(live_frames))),
            None if plan.maker == Maker::LiveFrames => bail!(
                "this kernel has no live frames for BPF_PROG_TEST_RUN (Linux 5.18); leave --maker out for an AF_XDP \
                 socket"
            ),
            None => {
                let af_xdp = AfXdp::open(&plan.interface, settings, plan.seed)?;
                Ok(Self::AfXdp(Box::new(af_xdp)))
            }
        }
    }

    /// Frames sent so far.
    fn sent(&self) -> u64 {
        match self {
            Self::Live(live_frames) => live_frames::frames(&live_frames.counter()),
            Self::AfXdp(af_xdp) => af_xdp.sent(),
            Self::Peers(peers) => peers.sent(),
        }
    }
}

/// The counts, also of a thread that panicked with the lock: it did so between two counts.
fn lock(connections: &Mutex<Connections>) -> std::sync::MutexGuard<'_, Connections> {
    connections.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The work of the thread.
struct Worker {
    source: Source,
    plan: Plan,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    connections: Option<Arc<Mutex<Connections>>>,
}

impl Worker {
    /// Has the thread run where and be woken as it should.
    fn settle(&self) -> anyhow::Result<()> {
        if let Some(cpu) = self.plan.cpu {
            tidegate_affinity::pin_this_thread(cpu)
                .with_context(|| format!("cannot send from CPU {cpu}; is there one?"))?;
        }
        // It takes what the others on its CPU leave. Until a frame is due the program only turns round, and whoever
        // shares a CPU with it would wait for its time slices.
        setpriority_process(None, LOWEST_PRIORITY).context("cannot lower the priority")?;
        // The kernel else wakes a sleeper up to 50 microseconds late, to save wake-ups.
        set_timerslack(1).context("cannot set the timer slack")
    }

    fn run(mut self) -> anyhow::Result<Totals> {
        let frames_before = interface::frames_sent(&self.plan.interface).ok();
        let start = Instant::now();
        match &mut self.source {
            Source::Live(live_frames) => {
                live_frames.begin(self.plan.rate, self.plan.duration)?;
                while start.elapsed() < self.plan.duration && !self.stop.load(Ordering::Relaxed) {
                    live_frames.send()?;
                }
            }
            Source::AfXdp(af_xdp) => {
                let mut pace = Pace::new(self.plan.rate);
                loop {
                    let elapsed = start.elapsed();
                    if elapsed >= self.plan.duration || self.stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let due = pace.due(elapsed);
                    if due > 0 {
                        af_xdp.send(due)?;
                        self.sent.store(af_xdp.sent(), Ordering::Relaxed);
                    }
                    let pause = pace.pause(start.elapsed() - elapsed);
                    if !pause.is_zero() {
                        thread::sleep(pause.min(self.plan.duration.saturating_sub(start.elapsed())));
                    }
                }
            }
            Source::Peers(peers) => {
                let mut pace = Pace::new(self.plan.rate);
                loop {
                    let elapsed = start.elapsed();
                    if elapsed >= self.plan.duration || self.stop.load(Ordering::Relaxed) {
                        break;
                    }
                    if !peers.turn(start + elapsed, pace.due(elapsed))? {
                        thread::sleep(PEERS_SLEEP);
                    }
                    self.sent.store(peers.sent(), Ordering::Relaxed);
                    if let Some(connections) = &self.connections {
                        *lock(connections) = peers.connections();
                    }
                }
            }
        }
        // Nothing is sent after the end, but the kernel's last call may go on for a while.
        let seconds = start.elapsed().min(self.plan.duration).as_secs_f64();
        // What is on its way is counted where it arrives.
        thread::sleep(Duration::from_millis(10));
        let frames_after = interface::frames_sent(&self.plan.interface).ok();
        Ok(Totals {
            sent: self.source.sent(),
            seconds,
            live_frames: matches!(self.source, Source::Live(_)),
            interface_sent: frames_before
                .zip(frames_after)
                .map(|(before, after)| after.saturating_sub(before)),
            connections: self.connections.as_deref().map(|connections| *lock(connections)),
        })
    }
}

#[cfg(test)]
mod tests {
    use tidegate_args::UsageError;

    use super::*;
    use crate::plan::Kind;

    #[test]
    fn a_target_outside_of_the_ranges_is_refused_before_anything_is_done() {
        let plan = Plan {
            target_mac: Some([2, 0, 0, 0, 0, 1]),
            ..Plan::new("no-such-dev", "192.0.2.1:80".parse().unwrap(), Kind::Syn)
        };
        let error = Generator::start(plan).map(|_| ()).unwrap_err();
        assert!(error.is::<UsageError>(), "{error}");
    }

    #[test]
    fn the_rate_is_what_was_sent_in_the_time() {
        let mut totals = Totals {
            sent: 10,
            seconds: 2.0,
            live_frames: true,
            interface_sent: None,
            connections: None,
        };
        assert_eq!(totals.per_second(), 5.0);
        totals.seconds = 0.0;
        assert_eq!(totals.per_second(), 0.0);
    }
}
