//! A running server: its counters, its interface, and how it stops. [`start`](start()) makes one.

mod reload;
mod shard_thread;
mod start;
mod take_over;

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam::channel;
use tidegate_abi::{MAX_QUEUES, XdpCounter};
use tidegate_capture::tap;
use tidegate_nic::statistics;
use tidegate_tcp::config::Keepalive;
use tidegate_tcp::congestion::Algorithm;
use tidegate_tcp::engine::syn_ack_of;

pub use reload::Reload;
use reload::Retiring;
pub use start::{start, start_with_tasks};

use crate::capture::{Capture, CaptureSettings};
use crate::config::{Balancers, Config, CookieMode, Sources, SynCookies};
use crate::cookies::Control;
use crate::driver_counters::DriverCounters;
use crate::drivers::BindPlan;
use crate::error::Error;
use crate::inspection::Shards;
use crate::interface::{self, SYSFS};
use crate::links::Links;
use crate::listeners::ServedAddresses;
use crate::mailbox::{Command, Mailbox, tell_all};
use crate::next_hop::NextHopWatch;
use crate::report::{DeviceCounts, NextHopCounts, QueueInfo, Report, ShardReport, XdpCounts};
use crate::take_over::{Earlier, Succession};
use crate::trace::tracer;
use crate::watchdog::{Counts, Stall, Watchdog, arrived_at_socket};
use crate::xdp::{Attached, Kept, Steering};

/// The time a shard has to answer. It answers between two bursts, so within microseconds unless it hangs.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The interval at which connections are counted while draining.
const DRAIN_STEP: Duration = Duration::from_millis(20);

/// The time the last frames have to leave.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(50);

/// The interval at which frames on their way are counted.
const FLUSH_STEP: Duration = Duration::from_millis(5);

/// The first failure of a shard.
#[derive(Debug)]
pub(crate) struct Failure {
    queue: u32,
    what: String,
}

impl Failure {
    pub(crate) fn to_error(&self) -> Error {
        Error::Shard {
            queue: self.queue,
            what: self.what.clone(),
        }
    }
}

/// Running shards. Dropping it stops them without draining.
pub struct Runtime {
    // By shard. Their threads own ports and engines; both are gone before the fields below are dropped.
    threads: Vec<Option<JoinHandle<Option<ShardReport>>>>,
    cookies: Control,
    mailboxes: Arc<[Mailbox]>,
    failure: Arc<OnceLock<Failure>>,
    queues: Vec<QueueInfo>,
    /// The devices, which may change or vanish.
    links: Mutex<Links>,
    /// Their names at the start.
    devices: Vec<String>,
    /// The addresses that are served.
    addresses: ServedAddresses,
    /// `None`: nobody asks for the kernel's routes.
    next_hops: Option<NextHopWatch>,
    /// Whether they deliver.
    watchdog: Watchdog,
    /// The driver of the first.
    driver: Option<String>,
    /// Times the XDP program was attached anew.
    reattached: u64,
    /// By device.
    driver_counters: Mutex<Vec<DriverCounters>>,
    /// The number of the first shard in the flow filter.
    first: u16,
    /// Processes that had the devices before, and have connections yet.
    earlier: Vec<Earlier>,
    /// The number of those there were at first.
    places: u16,
    /// `None`: no other process can take over.
    succession: Option<Succession>,
    /// The contents of the XDP program's maps before another process had them, while it may fail.
    kept: Option<Kept>,
    /// The sockets of the shards, by queue and device. They close them.
    sockets: Vec<Vec<RawFd>>,
    /// The way in which sockets are bound.
    afxdp: Config,
    plan: BindPlan,
    /// The configuration of the engines.
    tcp: tidegate_tcp::Config,
    /// The sources that are served.
    sources: Sources,
    retiring: Retiring,
    /// The queue of segments of no flow is limited by the program.
    has_flow_filter: bool,
    /// Listeners need not have addresses of the interfaces.
    anywhere: bool,
    is_draining: bool,
    /// One more than there are captures.
    captures: Arc<()>,
    /// By device, the kernel's number at the start, or 0.
    ifindexes: Vec<u32>,
    steering: Steering,
}

/// An address and port to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// A concrete address, of an interface unless there are balancers, or the unspecified one for all those of its
    /// family that the interfaces have and that have no listener of their own on this port, as they come and go; and a
    /// port above 0.
    pub address: SocketAddr,
    /// Keepalive settings of its connections; `None`: those of the engine's configuration.
    pub keepalive: Option<Keepalive>,
    /// Congestion control of its connections; `None`: that of the engine's configuration.
    pub congestion: Option<Algorithm>,
}

/// The settings of a runtime.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// The interfaces to take frames from. A bond stands for its slaves. A connection is answered by the device it was
    /// last heard from; with slaves of a bond, by one that the bond sends by.
    pub interfaces: &'a [String],
    /// AF_XDP and the placement of shards.
    pub afxdp: &'a Config,
    /// The TCP engines. The MTU is replaced by the smallest of the interfaces.
    pub tcp: &'a tidegate_tcp::config::Config,
    /// The conditions in which SYNs are answered with cookies.
    pub syn_cookies: &'a SynCookies,
    /// Which sources are served.
    pub sources: &'a Sources,
    /// The load balancers before this host. With any, listeners may have addresses that are not the interface's.
    pub balancers: &'a Balancers,
    /// The addresses and ports to serve, in the order of the [`ListenerId`](tidegate_tcp::application::ListenerId)s.
    pub listeners: &'a [Listener],
    /// The servers that connections are opened to ([`start_with_tasks`]), at most
    /// [`MAX_REMOTES`](tidegate_abi::MAX_REMOTES): TCP from their addresses and ports goes to the engines, whatever
    /// address of this side it is for, and no rules by source apply to it. The local addresses of the connections need
    /// not be the interface's, but the servers need a route to them by it.
    pub remotes: &'a [SocketAddr],
    /// Called on the thread of the caller of [`start`](start()), when everything is done that takes other capabilities
    /// than CAP_NET_ADMIN and before any thread is started: who gives the others up in it leaves them to no thread. An
    /// error ends the start.
    pub opened: fn() -> io::Result<()>,
}

impl Runtime {
    /// Where the kernel runs the XDP program.
    pub fn attached(&self) -> Attached {
        self.steering.attached()
    }

    /// Whether the XDP program is attached by a bpf_link, which the kernel closes even when this process is killed.
    pub fn by_link(&self) -> bool {
        self.steering.by_link()
    }

    /// The names of the devices that frames are taken from: the interfaces, or the slaves of those that are bonds.
    pub fn devices(&self) -> &[String] {
        &self.devices
    }

    /// The queues that are served, those of one number of all devices by one shard.
    pub fn queues(&self) -> &[QueueInfo] {
        &self.queues
    }

    /// The shards, for threads that ask about connections.
    pub fn shards(&self) -> Shards {
        Shards::new(&self.mailboxes, &self.failure)
    }

    /// The mode by which SYNs are answered with cookies.
    pub fn cookie_mode(&self) -> CookieMode {
        self.cookies.mode()
    }

    /// Answers SYNs with cookies by this mode from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a runtime that was started with the mode `never`, which has set up nothing for cookies.
    pub fn set_cookie_mode(&mut self, mode: CookieMode) -> Result<(), Error> {
        self.cookies.set_mode(mode)
    }

    /// A snapshot of all counters. Each shard takes its own between two bursts.
    ///
    /// # Errors
    ///
    /// [`Error::Shard`] when one does not answer within a second, [`Error::Load`] when the XDP counters cannot be read.
    pub fn report(&self) -> Result<Report, Error> {
        Ok(Report {
            shards: self.ask_all()?,
            xdp: self.xdp_counts()?,
            syn_cookies: self.cookies.counts(&self.queues),
            next_hops: self.next_hop_counts(),
            device: self.device_counts(),
        })
    }

    /// Begins to copy what matches of all that is received and sent from now on, and of what the XDP program drops and
    /// answers, until the result is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyCaptures`], or [`Error::Shard`] when a shard takes no more commands.
    pub fn capture(&self, settings: &CaptureSettings) -> Result<Capture, Error> {
        let running = Arc::strong_count(&self.captures) - 1;
        if running >= settings.max_captures {
            return Err(Error::TooManyCaptures { running });
        }
        let mut sources = Vec::new();
        let mut happenings = Vec::new();
        let (taken, is_taken) = channel::bounded(self.queues.len());
        for info in &self.queues {
            let (tap, source) = tap(Arc::clone(&settings.filter), settings.snaplen as usize, settings.ring);
            self.mailboxes[info.queue as usize]
                .send(Command::Tap {
                    tap: Box::new(tap),
                    tracer: settings.connections_of.map(|peer| {
                        let (tracer, told) = tracer(peer);
                        happenings.push(told);
                        Box::new(tracer)
                    }),
                    taken: taken.clone(),
                })
                .map_err(|_| Error::Shard {
                    queue: info.queue,
                    what: "it takes no more commands".to_owned(),
                })?;
            sources.push((info.queue, source));
        }
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        // Of a shard that does not answer there is nothing to capture, either.
        let _ = (0..sources.len()).try_for_each(|_| is_taken.recv_deadline(deadline));
        let one_of = Arc::clone(&self.captures);
        let devices = self.devices.iter().cloned().zip(self.ifindexes.iter().copied());
        let devices = devices.collect();
        Ok(Capture::new(
            settings,
            devices,
            (sources, happenings),
            one_of,
            &self.steering,
        ))
    }

    /// The counters of all devices together.
    fn device_counts(&self) -> DeviceCounts {
        let mut driver = BTreeMap::new();
        let names = self.links().names();
        let mut all = self.driver_counters.lock().unwrap_or_else(PoisonError::into_inner);
        for (device, name) in names {
            let counters = &mut all[device];
            if counters.exist() {
                for (counter, value) in counters.since_start(statistics(&name)) {
                    *driver.entry(counter).or_default() += value;
                }
            }
        }
        DeviceCounts {
            reattached: self.reattached,
            driver,
        }
    }

    /// Whether all shards run and one of the interfaces is there. What else changed about them is logged. To be called
    /// several times a second.
    ///
    /// # Errors
    ///
    /// [`Error::Shard`] with the failure of the first shard that does not run, [`Error::LinkGone`] or
    /// [`Error::ProgramDetached`] when nothing arrives any more.
    pub fn check(&mut self) -> Result<(), Error> {
        self.check_shards()?;
        self.check_take_over()?;
        if self.has_no_devices() {
            return Ok(());
        }
        self.check_link()?;
        self.check_addresses();
        self.check_retiring();
        self.check_delivery()
    }

    /// Serves the addresses that the interface has now, if they are others than before.
    fn check_addresses(&mut self) {
        let Some(change) = self.addresses.look() else { return };
        // What is not served any more is the kernel's before the shards forget it, and what is new comes when all know.
        for address in &change.removed {
            match self.steering.remove_listener(address) {
                Ok(()) => tracing::warn!("{}", self.addresses.removed_sentence(address)),
                Err(error) => tracing::warn!("{address} cannot be left to the kernel: {error}"),
            }
        }
        self.retiring.forget(&change.removed);
        self.retiring.forget(&change.added);
        let (taken, is_taken) = channel::bounded(self.mailboxes.len());
        let command = || Command::Addresses {
            addresses: Arc::clone(&change.served),
            taken: taken.clone(),
        };
        tell_all(&self.mailboxes, &self.threads, command, ANSWER_TIMEOUT);
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        // A shard that does not answer drops SYNs until it does.
        let _ = (0..self.mailboxes.len()).try_for_each(|_| is_taken.recv_deadline(deadline));
        for address in &change.added {
            match self.steering.add_listener(address) {
                Ok(()) => tracing::warn!("{address} is served from now on"),
                Err(error) => tracing::warn!("{address} cannot be served: {error}"),
            }
        }
    }

    fn check_link(&self) -> Result<(), Error> {
        let mut links = self.links();
        if let Some(routes) = links.look(|device| self.steering.is_attached(device))? {
            tell_all(
                &self.mailboxes,
                &self.threads,
                || Command::Routes(routes),
                ANSWER_TIMEOUT,
            );
        }
        if let Some(mtu) = links.take_new_mtu() {
            let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
            let mut tcp = self.tcp.clone();
            tcp.set_mtu(mtu);
            if let Err(error) = self.steering.set_syn_ack(syn_ack_of(&tcp)) {
                tracing::warn!("SYN-ACKs with cookies keep to the MTU before: {error}");
            }
            tell_all(&self.mailboxes, &self.threads, || Command::Mtu(mtu), ANSWER_TIMEOUT);
        }
        Ok(())
    }

    /// Tells of devices that deliver nothing, and attaches the XDP program anew if the driver does not run it. Several
    /// are looked at together: one of them that delivers hides the others.
    fn check_delivery(&mut self) -> Result<(), Error> {
        if !self.watchdog.is_due() {
            return Ok(());
        }
        let (devices, queues) = {
            let links = self.links();
            (links.names(), links.rx_queues().clamp(1, MAX_QUEUES))
        };
        let mut watchdog = core::mem::take(&mut self.watchdog);
        let stalls = watchdog.look(&Compared {
            runtime: self,
            devices: &devices,
            queues,
        });
        self.watchdog = watchdog;
        let names: Vec<&str> = devices.iter().map(|(_, name)| name.as_str()).collect();
        for stall in stalls {
            let sentence = stall.sentence(&names.join(" and "), self.driver.as_deref());
            match stall {
                Stall::Socket { .. } | Stall::Answers { .. } => tracing::warn!("{sentence}"),
                // A program before this one may have dropped all there was.
                Stall::Program { .. } if !self.steering.is_alone() => {}
                Stall::Program { reattach: true, .. } if self.by_link() => {
                    tracing::warn!("{sentence}; it is attached anew");
                    for (device, name) in &devices {
                        // Without its program it is lost, which the next look at the devices finds.
                        if let Err(error) = self.steering.reattach(*device, name) {
                            tracing::warn!("{error}");
                        }
                    }
                    self.reattached += 1;
                }
                Stall::Program { .. } => tracing::warn!("{sentence}; start tidegate again, or with --xdp-mode generic"),
            }
        }
        Ok(())
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The XDP program's counters of every receive queue the interface has or had, served or not.
    fn xdp_counts(&self) -> Result<Vec<XdpCounts>, Error> {
        let mut links = self.links();
        links.refresh();
        let queues = links.rx_queues().clamp(1, MAX_QUEUES);
        self.steering.counts(queues)
    }

    fn next_hop_counts(&self) -> NextHopCounts {
        self.next_hops
            .as_ref()
            .map_or_else(NextHopCounts::default, NextHopWatch::counts)
    }

    fn check_shards(&self) -> Result<(), Error> {
        if let Some(failure) = self.failure.get() {
            return Err(failure.to_error());
        }
        for (thread, info) in self.threads.iter().zip(&self.queues) {
            if thread.as_ref().is_some_and(JoinHandle::is_finished) {
                return Err(Error::Shard {
                    queue: info.queue,
                    what: "its thread has ended".to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Answers no SYN from now on: to clients it is as if they had been lost on the way. Handshakes that have begun may
    /// be completed.
    pub fn refuse_syns(&mut self) {
        self.cookies.stop();
        tell_all(&self.mailboxes, &self.threads, || Command::RefuseSyns, ANSWER_TIMEOUT);
    }

    /// The number of connections, half-open ones among them, and those in TIME-WAIT not.
    ///
    /// # Errors
    ///
    /// [`Error::Shard`] when a shard does not answer within a second.
    pub fn connections(&self) -> Result<u64, Error> {
        Ok(open(&self.ask_all()?))
    }

    /// Accepts no new connections from now on, and waits until there are none but those in TIME-WAIT, for at most
    /// `timeout` or until `stop_now` is true or a shard has failed.
    ///
    /// # Errors
    ///
    /// [`Error::LinkGone`] or [`Error::ProgramDetached`] when the connections can end no more.
    pub fn drain(&mut self, timeout: Duration, stop_now: &AtomicBool) -> Result<(), Error> {
        self.refuse_connections();
        let began = Instant::now();
        while !stop_now.load(Ordering::Relaxed) && began.elapsed() < timeout {
            if !self.has_no_devices() {
                self.check_link()?;
            }
            // A shard that does not answer will not finish anything either.
            let Ok(open) = self.connections() else { break };
            if open == 0 {
                break;
            }
            thread::sleep(DRAIN_STEP.min(timeout.saturating_sub(began.elapsed())));
        }
        Ok(())
    }

    /// Stops: accepts no new connections, resets those there are, ends the shards and detaches the XDP program. Returns
    /// the last counters. [`Runtime::drain`] before it lets the connections end by themselves.
    ///
    /// # Errors
    ///
    /// [`Error::Shard`] when a shard had failed; everything is stopped and detached all the same.
    pub fn stop(mut self) -> Result<Report, Error> {
        self.refuse_connections();
        tell_all(&self.mailboxes, &self.threads, || Command::Abort, ANSWER_TIMEOUT);
        self.wait_for_sweeps();
        self.wait_for_last_frames();
        let shards = self.end();
        let xdp = self.xdp_counts()?;
        match self.failure.get() {
            Some(failure) => Err(failure.to_error()),
            None => Ok(Report {
                shards,
                xdp,
                syn_cookies: self.cookies.counts(&self.queues),
                next_hops: self.next_hop_counts(),
                device: self.device_counts(),
            }),
        }
    }

    /// Accepts no new connections from now on, resets the half-open ones, and has the applications of all others
    /// finish.
    pub fn refuse_connections(&mut self) {
        if !self.is_draining {
            self.is_draining = true;
            // SYNs are dropped from here on: a cookie would promise what is not kept.
            self.cookies.stop();
            tell_all(&self.mailboxes, &self.threads, || Command::Drain, ANSWER_TIMEOUT);
        }
    }

    /// Waits until every connection has been reset, for as long as they become fewer.
    fn wait_for_sweeps(&self) {
        let mut fewest = u64::MAX;
        let mut fewer_since = Instant::now();
        while let Ok(shards) = self.ask_all() {
            let left = open(shards.iter().filter(|shard| shard.sweeping));
            if left < fewest {
                (fewest, fewer_since) = (left, Instant::now());
            }
            if left == 0 || fewer_since.elapsed() >= ANSWER_TIMEOUT {
                return;
            }
            thread::sleep(FLUSH_STEP);
        }
    }

    /// Waits a moment for the RSTs and FINs to leave.
    fn wait_for_last_frames(&self) {
        let began = Instant::now();
        while began.elapsed() < FLUSH_TIMEOUT {
            match self.ask_all() {
                Ok(shards) if shards.iter().any(|shard| shard.frames.tx + shard.frames.in_hand > 0) => {
                    thread::sleep(FLUSH_STEP);
                }
                _ => break,
            }
        }
    }

    /// A report of every shard, by shard.
    fn ask_all(&self) -> Result<Vec<ShardReport>, Error> {
        self.check_shards()?;
        let mut answers = Vec::with_capacity(self.queues.len());
        for info in &self.queues {
            let (reply, answer) = channel::bounded(1);
            self.mailboxes[info.queue as usize]
                .send(Command::Report(reply))
                .map_err(|_| Error::Shard {
                    queue: info.queue,
                    what: "it takes no more commands".to_owned(),
                })?;
            answers.push(answer);
        }
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut reports = Vec::with_capacity(answers.len());
        for (answer, info) in answers.into_iter().zip(&self.queues) {
            match answer.recv_deadline(deadline) {
                Ok(report) => reports.push(report),
                Err(_) => {
                    self.check_shards()?;
                    return Err(Error::Shard {
                        queue: info.queue,
                        what: format!("it did not answer within {ANSWER_TIMEOUT:?}"),
                    });
                }
            }
        }
        Ok(reports)
    }

    /// Ends all shards and waits for them. Returns the reports of those that ended well.
    fn end(&mut self) -> Vec<ShardReport> {
        self.cookies.stop();
        // Without a limit: the threads are waited for, and one that was not told to end would not.
        tell_all(&self.mailboxes, &self.threads, || Command::Stop, Duration::MAX);
        self.threads
            .iter_mut()
            .filter_map(Option::take)
            // A thread catches its own panics, so joining fails for none.
            .filter_map(|thread| thread.join().ok().flatten())
            .collect()
    }
}

/// The number of connections, half-open ones among them.
fn open<'a>(shards: impl IntoIterator<Item = &'a ShardReport>) -> u64 {
    let populations = shards.into_iter().map(|shard| &shard.population);
    let open = populations.map(|population| u64::from(population.connections) + u64::from(population.half_open));
    open.sum()
}

/// The counters that the watchdog compares.
struct Compared<'a> {
    runtime: &'a Runtime,
    devices: &'a [(usize, String)],
    queues: u32,
}

impl Counts for Compared<'_> {
    fn received(&self) -> Option<u64> {
        let received = |(_, name): &(usize, String)| interface::received(Path::new(SYSFS), name);
        self.devices.iter().map(received).sum()
    }

    fn queues(&self) -> u32 {
        self.queues
    }

    fn program(&self, counter: XdpCounter, queue: u32) -> Option<u64> {
        self.runtime.steering.count(counter, queue).ok()
    }

    fn answers_lost(&self) -> u64 {
        self.runtime.device_counts().lost_of_xdp_tx()
    }

    fn sockets(&self) -> Option<Vec<u64>> {
        let shards = self.runtime.ask_all().ok()?;
        Some(shards.iter().map(arrived_at_socket).collect())
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.end();
    }
}

impl core::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Runtime")
            .field("attached", &self.attached())
            .field("queues", &self.queues)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_the_one_that_is_told() {
        let failure = OnceLock::new();
        for queue in [3, 1] {
            let _ = failure.set(Failure {
                queue,
                what: "gone".to_owned(),
            });
        }
        let error = failure.get().map(Failure::to_error).expect("a failure");
        assert_eq!(error.to_string(), "the shard of queue 3 has failed: gone");
    }
}
