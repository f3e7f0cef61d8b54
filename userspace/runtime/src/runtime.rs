//! Starting and stopping.

use core::any::Any;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam::channel;
use mio::Poll;
use tidegate_abi::known_flows::{FlowSlots, RANDOM_WORDS};
use tidegate_abi::siphash::Key;
use tidegate_abi::{MAX_QUEUES, MAX_REMOTES};
use tidegate_tcp::application::Application;
use tidegate_tcp::config::Keepalive;
use tidegate_tcp::engine::{Engine, Secrets, syn_ack_of};
use tidegate_xsk::Umems;

use crate::affinity;
use crate::capability;
use crate::config::{Config, Sources, SynCookies};
use crate::cookies::secret::Secret;
use crate::cookies::{Control, CookieSetup};
use crate::drivers::BindPlan;
use crate::error::Error;
use crate::handover::Exchange;
use crate::interface::Interface;
use crate::link_watch::{LinkWatch, Served};
use crate::mailbox::{Command, Mailbox, tell_all, waker};
use crate::port::Port;
use crate::random;
use crate::report::{QueueInfo, Report, ShardReport, XdpCounts};
use crate::shard::{BELL, Parts, Shard, Shared};
use crate::shard_task::ShardTask;
use crate::xdp::{Attached, ProgramSettings, Steering};

/// The time a shard has to answer. It answers between two bursts, so within microseconds unless it hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The interval at which connections are counted while draining.
const DRAIN_STEP: Duration = Duration::from_millis(20);

/// The time the last frames have to leave.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(50);

/// The interval at which frames on their way are counted.
const FLUSH_STEP: Duration = Duration::from_millis(5);

/// The first failure of a shard.
#[derive(Debug)]
struct Failure {
    queue: u32,
    what: String,
}

impl Failure {
    fn to_error(&self) -> Error {
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
    /// The interface, which may change or vanish.
    link: Mutex<LinkWatch>,
    /// The configuration the engines were started with.
    tcp: tidegate_tcp::Config,
    is_draining: bool,
    steering: Steering,
}

/// An address and port to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// One concrete address of the interface, and a port above 0.
    pub address: SocketAddr,
    /// Keepalive settings of its connections; `None`: those of the engine's configuration.
    pub keepalive: Option<Keepalive>,
}

/// The settings of a runtime.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// The interface to take frames from.
    pub interface: &'a str,
    /// AF_XDP and the placement of shards.
    pub afxdp: &'a Config,
    /// The TCP engines. The MTU is replaced by the interface's.
    pub tcp: &'a tidegate_tcp::config::Config,
    /// When SYNs are answered with cookies.
    pub syn_cookies: &'a SynCookies,
    /// Which sources are served.
    pub sources: &'a Sources,
    /// The addresses and ports to serve, in the order of the [`ListenerId`](tidegate_tcp::application::ListenerId)s.
    pub listeners: &'a [Listener],
    /// The servers that connections are opened to ([`start_with_tasks`]), at most [`MAX_REMOTES`]: TCP from their
    /// addresses and ports goes to the engines, whatever address of this side it is for, and no rules by source apply
    /// to it. The local addresses of the connections need not be the interface's, but the servers need a route to them
    /// by it.
    pub remotes: &'a [SocketAddr],
}

/// Checks everything, loads and attaches the XDP program, binds the sockets and starts one shard per queue.
///
/// `application` makes the application of a shard; it is called on the caller's thread, once per shard, in order. Every
/// engine gets random keys of its own.
///
/// # Errors
///
/// An [`Error`] with a remedy; nothing is left behind.
pub fn start<A, F>(settings: &Settings<'_>, mut application: F) -> Result<Runtime, Error>
where
    A: Application + Send + 'static,
    A::Connection: Send,
    F: FnMut(u32) -> A,
{
    start_with_tasks(settings, |queue| (application(queue), ()))
}

/// As [`start`], with shards that do something of their own accord, as clients do: `parts` makes the application of a
/// shard and its [`ShardTask`].
///
/// A segment of a connection may arrive on any queue. One that arrives on another than that of the shard that opened
/// the connection is handed over, as a server's are.
///
/// # Errors
///
/// As [`start`].
pub fn start_with_tasks<A, D, F>(settings: &Settings<'_>, mut parts: F) -> Result<Runtime, Error>
where
    A: Application + Send + 'static,
    A::Connection: Send,
    D: ShardTask<A> + 'static,
    F: FnMut(u32) -> (A, D),
{
    let checked = Checked::new(settings)?;
    let Device {
        ports,
        infos,
        link,
        mut steering,
    } = Device::open(settings, &checked)?;
    let (shared, polls) = share(&ports, settings.afxdp)?;
    let tcp = checked.tcp;
    let cookies = CookieSetup::new(
        settings.syn_cookies,
        checked.cookie_secret,
        tcp.max_half_open,
        &mut steering,
        &shared.mailboxes,
    )?;

    let mut shards = Vec::new();
    for ((port, poll), info) in ports.into_iter().zip(polls).zip(&infos) {
        let index = info.queue as u16;
        let (application, task) = parts(info.queue);
        let mut engine = Engine::new(tcp.clone(), secrets()?, application);
        engine.set_cookies(cookies.cookies(index));
        listen(&mut engine, settings.listeners, &steering);
        // Its fill ring is full, so frames may come in from here on; they wait in the RX ring.
        steering.set_socket(info.queue, port.socket().fd())?;
        let own = Parts {
            engine,
            task,
            port,
            poll,
            alarm: cookies.alarm(index),
        };
        shards.push(Shard::new(index, own, shared.clone(), settings.afxdp));
    }

    let mut runtime = Runtime {
        threads: Vec::new(),
        cookies: Control::new(cookies.gauges()),
        mailboxes: Arc::clone(&shared.mailboxes),
        failure: Arc::new(OnceLock::new()),
        queues: infos,
        link: Mutex::new(link),
        tcp,
        is_draining: false,
        steering,
    };
    // The shards alone keep the UMEMs: a socket is closed when the last of them is gone.
    drop(shared);
    for (shard, info) in shards.into_iter().zip(runtime.queues.clone()) {
        let failure = Arc::clone(&runtime.failure);
        let thread = thread::Builder::new()
            .name(format!("shard-{}", info.queue))
            .spawn(move || run_shard(shard, info, &failure))
            .map_err(|error| Error::io("cannot start a thread", error))?;
        runtime.threads.push(Some(thread));
    }
    runtime.cookies.start(cookies)?;
    Ok(runtime)
}

/// The settings, with everything checked that can be before anything is attached.
struct Checked {
    interface: Interface,
    /// As configured, with the interface's MTU.
    tcp: tidegate_tcp::Config,
    addresses: Vec<SocketAddr>,
    queues: u32,
    /// The CPUs to pin shards to, if they are to be.
    cpus: Vec<usize>,
    cookie_secret: Secret,
}

impl Checked {
    fn new(settings: &Settings<'_>) -> Result<Self, Error> {
        let config = settings.afxdp;
        config.validate().map_err(Error::in_table("afxdp"))?;
        settings
            .syn_cookies
            .validate()
            .map_err(Error::in_table("syn_cookies"))?;
        settings.sources.validate().map_err(Error::in_table("sources"))?;
        settings.tcp.validate().map_err(Error::in_table("tcp"))?;
        let cookie_secret = Secret::load(settings.syn_cookies)?;
        let addresses: Vec<SocketAddr> = settings.listeners.iter().map(|listener| listener.address).collect();
        let interface = Interface::find(settings.interface)?;
        config.validate_mtu(&interface.name, interface.mtu)?;
        let mut tcp = settings.tcp.clone();
        tcp.mtu = interface.mtu as u16;
        // No key of the file is at fault here.
        tcp.validate()
            .map_err(|error| Error::Config(format!("interface {} cannot be served: {error}", interface.name)))?;
        interface.check_listeners(&addresses)?;
        check_remotes(settings.remotes)?;
        let queues = interface.queues(config.queues)?;
        if queues < interface.rx_queues {
            tracing::warn!(
                "{0} spreads what it receives over {1} queues and {queues} are served: connections on the others are \
                 left to the kernel; `ethtool -L {0} combined {queues}` makes them equal",
                interface.name,
                interface.rx_queues
            );
        }
        capability::check()?;
        let cpus = if config.pin_threads {
            affinity::allowed()?
        } else {
            Vec::new()
        };
        Ok(Self {
            interface,
            tcp,
            addresses,
            queues,
            cpus,
            cookie_secret,
        })
    }
}

/// The interface, taken: the XDP program is attached and a socket bound to each queue.
struct Device {
    ports: Vec<Port>,
    infos: Vec<QueueInfo>,
    link: LinkWatch,
    steering: Steering,
}

impl Device {
    fn open(settings: &Settings<'_>, checked: &Checked) -> Result<Self, Error> {
        let config = settings.afxdp;
        let Checked { interface, queues, .. } = checked;
        // Attached before the sockets are bound: drivers set their queues up for AF_XDP only below a program.
        let program_settings = ProgramSettings {
            listeners: &checked.addresses,
            remotes: settings.remotes,
            syn_ack: syn_ack_of(&checked.tcp),
            flow_slots: flow_slots(&checked.tcp, *queues, settings.listeners)?,
            sources: settings.sources,
        };
        let steering = Steering::attach(&interface.name, config.xdp_mode, &program_settings)?;
        let plan = BindPlan::new(config, settings.syn_cookies.mode, interface, steering.attached())?;
        let mut ports = Vec::new();
        let mut infos = Vec::new();
        for queue in 0..*queues {
            let port = Port::open(&interface.name, queue, config, &plan, steering.attached())?;
            infos.push(QueueInfo {
                queue,
                cpu: affinity::cpu_of(queue as usize, &checked.cpus),
                zero_copy: port.zero_copy(),
                frames: config.frames,
            });
            ports.push(port);
        }
        let max_mtus = infos.iter().map(|info| plan.max_mtu(info.zero_copy));
        let served = Served {
            queues: *queues,
            mtu: interface.mtu,
            max_mtu: max_mtus.min().unwrap_or(interface.mtu),
        };
        let link = LinkWatch::new(&interface.name, served)?;
        Ok(Self {
            ports,
            infos,
            link,
            steering,
        })
    }
}

/// Makes what the shards of these ports share, and the epoll each sleeps in.
fn share(ports: &[Port], config: &Config) -> Result<(Shared, Vec<Poll>), Error> {
    let mut polls = Vec::new();
    let mut mailboxes = Vec::new();
    for _ in ports {
        let made = Poll::new().and_then(|poll| waker(&poll, BELL).map(|waker| (poll, waker)));
        let (poll, waker) = made.map_err(|error| Error::io("cannot make an epoll", error))?;
        polls.push(poll);
        mailboxes.push(Mailbox::new(waker));
    }
    let shared = Shared {
        memory: Arc::new(Umems::of(ports.iter().map(Port::socket))),
        exchange: Arc::new(Exchange::new(
            ports.len() as u16,
            config.handover_queue as usize,
            config.frames as usize,
        )),
        mailboxes: mailboxes.into(),
    };
    Ok((shared, polls))
}

/// Has an engine serve `listeners`.
fn listen<A: Application>(engine: &mut Engine<A>, listeners: &[Listener], steering: &Steering) {
    // Where nobody listens no SYN asks for a flow.
    if !listeners.is_empty() {
        engine.set_known_flows(steering.known_flows());
    }
    for listener in listeners {
        // Without scope and flow label, which no segment carries.
        let address = SocketAddr::new(listener.address.ip(), listener.address.port());
        let id = engine.listen(address);
        if let Some(keepalive) = listener.keepalive {
            engine.set_keepalive(id, keepalive);
        }
    }
}

/// A shard's thread. What goes wrong in it is kept for [`Runtime::check`].
fn run_shard<A, D>(shard: Shard<A, D>, info: QueueInfo, failure: &OnceLock<Failure>) -> Option<ShardReport>
where
    A: Application,
    D: ShardTask<A>,
{
    let run = || {
        if let Some(cpu) = info.cpu {
            affinity::pin(cpu)?;
        }
        shard.run()
    };
    let what = match panic::catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(report)) => return Some(report),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => format!("it panicked: {}", panic_message(&*panic)),
    };
    // Only the first failure is kept; the others may well follow from it.
    let _ = failure.set(Failure {
        queue: info.queue,
        what,
    });
    None
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

/// Checks that the XDP program can steer by these.
fn check_remotes(remotes: &[SocketAddr]) -> Result<(), Error> {
    if remotes.len() > MAX_REMOTES as usize {
        return Err(Error::Config(format!(
            "{} remotes were given; there can be {MAX_REMOTES}",
            remotes.len()
        )));
    }
    match remotes.iter().find(|remote| remote.port() == 0) {
        Some(remote) => Err(Error::Config(format!(
            "remote {remote} has no port; give it one from 1 to 65535"
        ))),
        None => Ok(()),
    }
}

/// Slots for all flows that so many engines may have.
fn flow_slots(tcp: &tidegate_tcp::Config, engines: u32, listeners: &[Listener]) -> Result<FlowSlots, Error> {
    let each = u64::from(tcp.max_connections) + u64::from(tcp.max_time_wait);
    let flows = if listeners.is_empty() {
        0
    } else {
        each * u64::from(engines)
    };
    let bytes: [u8; RANDOM_WORDS * 8] = random::bytes()?;
    let mut numbers = [0; RANDOM_WORDS];
    for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks().0) {
        *number = u64::from_ne_bytes(*bytes);
    }
    Ok(FlowSlots::new(flows, numbers))
}

/// Random keys of one engine. Every engine has its own, so that the acknowledgment of a SYN-ACK tells which shard sent
/// it when a retransmitted SYN arrived on another queue than the first.
fn secrets() -> Result<Secrets, Error> {
    let keys: [u8; 32] = random::bytes()?;
    let (mut isn, mut table) = ([0; 16], [0; 16]);
    isn.copy_from_slice(&keys[..16]);
    table.copy_from_slice(&keys[16..]);
    Ok(Secrets {
        isn: Key::from_bytes(isn),
        table: Key::from_bytes(table),
    })
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

    /// The queues that are served, one shard each.
    pub fn queues(&self) -> &[QueueInfo] {
        &self.queues
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
        })
    }

    /// Whether all shards run and the interface is there. What else changed about the interface is logged. To be called
    /// several times a second.
    ///
    /// # Errors
    ///
    /// [`Error::Shard`] with the failure of the first shard that does not run, [`Error::LinkGone`] or
    /// [`Error::ProgramDetached`] when nothing arrives any more.
    pub fn check(&self) -> Result<(), Error> {
        self.check_shards()?;
        self.check_link()
    }

    fn check_link(&self) -> Result<(), Error> {
        let mut link = self.link();
        link.look(|| self.steering.is_attached())?;
        if let Some(mtu) = link.take_new_mtu() {
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

    fn link(&self) -> MutexGuard<'_, LinkWatch> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The XDP program's counters of every receive queue the interface has or had, served or not.
    fn xdp_counts(&self) -> Result<Vec<XdpCounts>, Error> {
        let mut link = self.link();
        link.refresh();
        let queues = link.rx_queues().clamp(1, MAX_QUEUES);
        self.steering.counts(queues)
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
            self.check_link()?;
            // A shard that does not answer will not finish anything either.
            let Ok(shards) = self.ask_all() else { break };
            let open: u64 = shards
                .iter()
                .map(|shard| u64::from(shard.population.connections) + u64::from(shard.population.half_open))
                .sum();
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
            }),
        }
    }

    /// Has the shards drain, if they do not yet.
    fn refuse_connections(&mut self) {
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
            let left: u64 = shards
                .iter()
                .filter(|shard| shard.sweeping)
                .map(|shard| u64::from(shard.population.connections) + u64::from(shard.population.half_open))
                .sum();
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
    fn every_engine_gets_keys_of_its_own() {
        let (first, second) = (secrets().expect("keys"), secrets().expect("keys"));
        assert!(first.isn != second.isn && first.table != second.table);
        assert!(first.isn != first.table);
    }

    #[test]
    fn remotes_have_ports_and_room_in_the_map() {
        let remote = |port| SocketAddr::from(([198, 18, 0, 1], port));
        let full: Vec<SocketAddr> = (1..=MAX_REMOTES as u16).map(remote).collect();
        for good in [&[][..], full.as_slice()] {
            check_remotes(good).expect("good remotes");
        }
        for (bad, phrase) in [
            (vec![remote(1), remote(0)], "198.18.0.1:0 has no port"),
            ([full.as_slice(), &[remote(99)]].concat(), "there can be 16"),
        ] {
            let error = check_remotes(&bad).expect_err(phrase);
            assert!(error.is_usage() && error.to_string().contains(phrase), "{error}");
        }
    }

    #[test]
    fn a_panic_is_told_by_its_message() {
        let literal: Box<dyn Any + Send> = Box::new("frames were lost");
        assert_eq!(panic_message(&*literal), "frames were lost");
        let formatted: Box<dyn Any + Send> = Box::new(format!("frame {}", 7));
        assert_eq!(panic_message(&*formatted), "frame 7");
        let other: Box<dyn Any + Send> = Box::new(7);
        assert_eq!(panic_message(&*other), "without a message");
    }

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
