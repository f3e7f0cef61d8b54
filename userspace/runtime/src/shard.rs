//! One shard: the loop that carries segments between a port and an engine.

use core::hint;
use core::time::Duration;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;

use mio::{Events, Poll, Token};
use nix::time::{ClockId, clock_gettime};
use tidegate_exchange::{Exchange, Handover, Outcome};
use tidegate_tcp::application::{Application, ListenerId};
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::{Engine, LOOKUP_GROUP, OnNoFlow, Received};
use tidegate_tcp::time::Instant;

use crate::clock::Clock;
use crate::config::Config;
use crate::cookies::alarm::Alarm;
use crate::error::Error;
use crate::mailbox::{Command, Configuration, Mailbox};
use crate::port::Port;
use crate::relay::Relays;
use crate::report::{PortCounters, ShardReport};
use crate::shard_port::ShardPort;
use crate::shard_task::ShardTask;
use crate::take_over::{NewPort, Release};
use crate::wait::{Step, Turn, Waiter};

/// The mailbox's bell among the events of a shard's poll.
pub(crate) const BELL: Token = Token(0);

/// Turns in which a shard that is to release its port deals with what it has received.
const MAX_LAST_TURNS: u32 = 1024;

/// After as many turns in which something came in, what was sent meanwhile leaves, however little it is.
const MAX_TURNS_UNSENT: u8 = 8;

/// The parts that all shards of a runtime share.
pub(crate) struct Shared<P: ShardPort = Port> {
    pub(crate) memory: Arc<P::Memory>,
    pub(crate) exchange: Arc<Exchange<P::Frame>>,
    /// By shard.
    pub(crate) mailboxes: Arc<[Mailbox]>,
}

impl<P: ShardPort> Clone for Shared<P> {
    fn clone(&self) -> Self {
        Self {
            memory: Arc::clone(&self.memory),
            exchange: Arc::clone(&self.exchange),
            mailboxes: Arc::clone(&self.mailboxes),
        }
    }
}

/// The parts of one shard.
pub(crate) struct Parts<A: Application, D, P = Port> {
    pub(crate) engine: Engine<A>,
    pub(crate) task: D,
    pub(crate) port: P,
    /// The one that the bell of the shard's mailbox rings.
    pub(crate) poll: Poll,
    /// Tells of SYNs, if anybody asks.
    pub(crate) alarm: Option<Alarm>,
}

/// Why a shard stopped to run.
pub(crate) enum Exit {
    /// It was told to end.
    Stop,
    /// Another process takes its port.
    Release(Box<Release>),
    /// It is to have a port again.
    Port(Box<NewPort>),
}

/// A port, an engine, and what they need to run.
pub(crate) struct Shard<A: Application, D, P: ShardPort = Port> {
    index: u16,
    engine: Engine<A>,
    task: D,
    /// The latest time for the task's next turn.
    task_deadline: Option<Instant>,
    port: P,
    handover: Handover<P::Frame>,
    /// The shards of earlier processes that have flows of this queue.
    relays: Relays<P::Frame>,
    on_no_flow: OnNoFlow,
    memory: Arc<P::Memory>,
    mailboxes: Arc<[Mailbox]>,
    clock: Clock,
    waiter: Waiter,
    /// Tells of SYNs, if anybody asks.
    alarm: Option<Alarm>,
    poll: Poll,
    events: Events,
    /// Room for the segments of one group.
    group: Vec<P::Frame>,
    burst: usize,
    /// Turns in a row that left what they sent to a later one.
    turns_unsent: u8,
    counters: PortCounters,
}

impl<A: Application + 'static, D: ShardTask<A>, P: ShardPort> Shard<A, D, P> {
    /// A shard ready to run.
    pub(crate) fn new(index: u16, parts: Parts<A, D, P>, shared: Shared<P>, config: &Config) -> Self {
        let Parts {
            engine,
            task,
            port,
            poll,
            alarm,
        } = parts;
        let handover = Handover::new(shared.exchange, index);
        let on_no_flow = on_no_flow::<P>(&handover);
        Self {
            index,
            engine,
            task,
            task_deadline: None,
            port,
            handover,
            relays: Relays::default(),
            on_no_flow,
            memory: shared.memory,
            mailboxes: shared.mailboxes,
            clock: Clock::default(),
            waiter: Waiter::new(config),
            alarm,
            poll,
            events: Events::with_capacity(8),
            group: Vec::with_capacity(LOOKUP_GROUP),
            burst: config.burst as usize,
            turns_unsent: 0,
            counters: PortCounters::default(),
        }
    }

    /// Asks shards of earlier processes, too.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when their bells cannot wake it.
    pub(crate) fn relay(&mut self, shards: Vec<crate::relay::RelayedShard<P::Frame>>) -> Result<(), Error> {
        self.relays = Relays::new(shards, &self.poll).map_err(|error| Error::io("cannot wait for a relay", error))?;
        Ok(())
    }

    /// The same shard with another port.
    pub(crate) fn with_port<Q: ShardPort>(
        self,
        port: Q,
        memory: Arc<Q::Memory>,
        handover: Handover<Q::Frame>,
    ) -> Shard<A, D, Q> {
        let mut counters = self.counters;
        counters.merge(self.port.counters());
        self.relays.leave(&self.poll);
        Shard {
            index: self.index,
            engine: self.engine,
            task: self.task,
            task_deadline: self.task_deadline,
            port,
            on_no_flow: on_no_flow::<Q>(&handover),
            handover,
            relays: Relays::default(),
            memory,
            mailboxes: self.mailboxes,
            clock: self.clock,
            waiter: self.waiter,
            alarm: self.alarm,
            poll: self.poll,
            events: self.events,
            group: Vec::with_capacity(LOOKUP_GROUP),
            burst: self.burst,
            turns_unsent: 0,
            counters,
        }
    }

    /// Runs until told to stop, or to have another port.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the shard cannot sleep.
    pub(crate) fn run(&mut self) -> Result<Exit, Error> {
        loop {
            let now = self.clock.now();
            let mut worked = self.turn(now);
            self.counters.turns += 1;
            self.counters.turns_worked += u64::from(worked);
            // One a turn: what arrives waits for no more of them than for that.
            if let Some(command) = self.command() {
                worked = true;
                if let Some(exit) = self.handle_command(command, now) {
                    self.port.flush();
                    return Ok(exit);
                }
            }
            self.wait(now, worked)
                .map_err(|error| Error::io("a shard cannot sleep", error))?;
        }
    }

    /// The next command. A look costs less than trying to take one.
    #[inline]
    fn command(&self) -> Option<Command> {
        let mailbox = &self.mailboxes[usize::from(self.index)];
        if mailbox.is_empty() { None } else { mailbox.take() }
    }

    /// Does what there is to do, at most about a burst of each kind. Returns whether anything came in.
    fn turn(&mut self, now: Instant) -> bool {
        self.port.reap_completions();
        let mut worked = false;
        // As with commands, a look costs less than trying.
        if self.on_no_flow == OnNoFlow::Ask && self.handover.is_waiting() {
            worked |= self.take_back(now);
            worked |= self.serve_others(now);
        }
        worked |= self.receive(now);
        if !self.relays.is_empty() {
            worked |= self
                .relays
                .turn(&mut self.port, &self.memory, self.burst, &mut self.counters);
        }
        self.port.replenish_fill();
        // With nothing due this costs less than asking for the next deadline.
        self.engine.poll(now, &mut self.port);
        self.task_deadline = self.task.turn(&mut self.engine, now, &mut self.port);
        // While more comes in, what answers it is sent together: a system call for two or three frames costs more than
        // the frames.
        if worked && self.turns_unsent < MAX_TURNS_UNSENT && self.port.queued() < LOOKUP_GROUP {
            self.turns_unsent += 1;
        } else {
            self.port.flush();
            self.turns_unsent = 0;
        }
        self.wake_others();
        if let Some(alarm) = &mut self.alarm {
            let counters = self.engine.counters();
            alarm.turn(
                counters.get(Counter::SynsIn),
                counters.get(Counter::DropBadCookie),
                self.engine.half_open(),
            );
        }
        debug_assert!(
            self.port.census(0).is_whole(),
            "frames were lost: {:?}",
            self.port.census(0)
        );
        worked
    }

    /// Frames of this shard that other shards are done with.
    fn take_back(&mut self, now: Instant) -> bool {
        let mut worked = false;
        while let Some((segment, outcome)) = self.handover.returned() {
            worked = true;
            self.port.note_returned();
            self.counters.handover_returned += 1;
            match outcome {
                Outcome::Taken => {}
                Outcome::Dropped => self.counters.handover_full += 1,
                Outcome::Unowned => {
                    self.counters.handover_unowned += 1;
                    let frame = P::contents(&self.memory, &segment);
                    // Rejecting always takes care of it.
                    let _ = self.engine.receive(now, frame, OnNoFlow::Reject, &mut self.port);
                }
            }
            self.port.recycle(segment);
        }
        worked
    }

    /// Segments of other shards.
    fn serve_others(&mut self, now: Instant) -> bool {
        let Self {
            engine,
            task,
            port,
            handover,
            memory,
            counters,
            burst,
            ..
        } = self;
        let served = handover.serve(*burst, |segment| {
            let frame = P::contents(memory, segment);
            let taken = engine.receive(now, frame, OnNoFlow::Report, port) == Received::Done;
            if taken {
                task.arrived_elsewhere(frame.bytes);
            }
            taken
        });
        counters.handover_in += served.taken;
        counters.handover_passed_on += served.passed_on;
        served.segments > 0
    }

    /// Processes what arrived on this shard's own queue: up to a burst, in groups that are looked up together. What
    /// answers a group is sent before the next is processed, so that the peers can go on meanwhile.
    fn receive(&mut self, now: Instant) -> bool {
        let mut left = self.burst;
        loop {
            let limit = left.min(LOOKUP_GROUP);
            let received = self.receive_group(now, limit);
            left -= received;
            if received < limit || left == 0 {
                return left < self.burst;
            }
            self.port.flush();
        }
    }

    /// Processes up to `limit` segments, at most [`LOOKUP_GROUP`]. Returns how many there were.
    fn receive_group(&mut self, now: Instant, limit: usize) -> usize {
        let Self {
            engine,
            port,
            handover,
            on_no_flow,
            memory,
            group,
            counters,
            ..
        } = self;
        port.receive(group, limit);
        let received = group.len();
        if received == 0 {
            return 0;
        }
        let mut outcomes = [Received::Done; LOOKUP_GROUP];
        let frames = group.iter().map(|segment| P::contents(memory, segment));
        engine.receive_burst(now, frames, *on_no_flow, port, |index, outcome| {
            outcomes[index] = outcome
        });
        for (segment, outcome) in group.drain(..).zip(outcomes) {
            match outcome {
                Received::Done => port.recycle(segment),
                Received::NoFlow { .. } if P::IS_RELAY => port.give_back(segment),
                Received::NoFlow { others, then } => match handover.send(segment, others, then) {
                    Ok(()) => {
                        port.note_handed_over();
                        counters.handover_out += 1;
                    }
                    Err(segment) => {
                        counters.handover_full += 1;
                        port.recycle(segment);
                    }
                },
            }
        }
        received
    }

    /// Wakes the shards that were sent something in this turn.
    #[inline]
    fn wake_others(&mut self) {
        let mut to_wake = self.handover.take_to_wake() | self.relays.take_to_wake();
        while to_wake != 0 {
            let shard = to_wake.trailing_zeros() as usize;
            to_wake &= to_wake - 1;
            // The shards of other processes have the numbers behind those of this one, whose shards relay to them.
            self.mailboxes[shard % self.mailboxes.len()].bell().ring();
        }
    }

    /// Does what a command asks for. Returns why the shard is to stop to run, if it is.
    #[cold]
    fn handle_command(&mut self, command: Command, now: Instant) -> Option<Exit> {
        match command {
            Command::Report(reply) => {
                self.engine.application_mut().publish();
                // The asking thread may have given up waiting.
                let _ = reply.try_send(self.report());
            }
            Command::Connections(request) => request.answer(&mut self.engine, now, &mut self.port),
            Command::Cookies { cookies, taken } => {
                self.engine.set_cookies(cookies);
                // As above.
                let _ = taken.try_send(());
            }
            Command::Addresses { addresses, taken } => {
                self.engine.set_addresses(&addresses);
                // As above.
                let _ = taken.try_send(());
            }
            Command::Configure { configuration, taken } => {
                self.configure(&configuration);
                // As above.
                let _ = taken.try_send(());
            }
            Command::Application { change, taken } => {
                // As above.
                let _ = taken.try_send(change.make(self.engine.application_mut()));
            }
            Command::Mtu(mtu) => self.engine.set_mtu(mtu),
            Command::RefuseSyns => self.engine.refuse_syns(),
            Command::Routes(routes) => self.port.set_routes(routes),
            Command::Tap { tap, tracer, taken } => {
                self.port.add_tap(*tap);
                if let Some(tracer) = tracer {
                    self.engine.add_observer(tracer);
                }
                // As above.
                let _ = taken.try_send(());
            }
            Command::Drain => self.engine.drain(now, &mut self.port),
            Command::Abort => self.engine.abort_all(now, &mut self.port),
            Command::Release(release) => {
                self.come_to_rest(now, &release);
                return Some(Exit::Release(release));
            }
            Command::Port(port) => return Some(Exit::Port(port)),
            Command::Forget(first) => self.relays.forget(first, &self.poll, &mut self.counters),
            Command::Stop => return Some(Exit::Stop),
        }
        self.port.flush();
        None
    }

    /// Deals with all that was received, and waits until no segment is with another shard and all that was sent has
    /// left, as long as the others do the same.
    fn come_to_rest(&mut self, now: Instant, release: &Release) {
        // Nothing new comes in, so this ends; it would also if something did.
        for _ in 0..MAX_LAST_TURNS {
            if !self.receive(now) {
                break;
            }
        }
        let mut has_arrived = false;
        while !release.is_over() {
            self.take_back(now);
            self.serve_others(now);
            self.relays
                .turn(&mut self.port, &self.memory, self.burst, &mut self.counters);
            self.port.flush();
            self.port.reap_completions();
            self.wake_others();
            let census = self.port.census(0);
            if !has_arrived && census.handed_over == 0 && self.relays.is_quiet() {
                has_arrived = true;
                release.arrive();
            }
            if release.have_all_arrived() && census.tx + census.in_hand <= 1 {
                return;
            }
            thread::yield_now();
        }
    }

    fn configure(&mut self, configuration: &Configuration) {
        let engine = &mut self.engine;
        engine.set_config(configuration.tcp.clone());
        engine.change_source_limits(configuration.source_limits);
        while engine.listener_count() < configuration.keepalive.len() {
            engine.add_listener();
        }
        for (id, &keepalive) in (0..).map(ListenerId).zip(&configuration.keepalive) {
            engine.set_keepalive(id, keepalive);
        }
        for (id, &congestion) in (0..).map(ListenerId).zip(&configuration.congestion) {
            engine.set_congestion(id, congestion);
        }
        engine.set_addresses(&configuration.addresses);
    }

    /// The counters, and where the frames are.
    pub(crate) fn report(&self) -> ShardReport {
        let mut port = *self.port.counters();
        port.merge(&self.counters);
        ShardReport {
            queue: u32::from(self.index),
            tcp: self.engine.counters().clone(),
            latencies: self.engine.latencies().clone(),
            port,
            xdp_statistics: self.port.statistics(),
            population: self.engine.population(),
            sweeping: self.engine.is_sweeping(),
            frames: self.port.census(self.handover.foreign()),
            cpu_time: cpu_time(),
        }
    }

    /// Passes the time until there is something to do again.
    #[inline]
    fn wait(&mut self, now: Instant, worked: bool) -> io::Result<()> {
        let wants_frames = self.engine.wants_frames();
        // The engine also stops in mid-output to be fair to what comes in; with frames at hand it goes on at once.
        let has_more = wants_frames && self.port.can_send();
        let worked = worked || has_more;
        let turn = Turn {
            worked,
            // After work the next turn follows at once, whatever is due.
            deadline: if worked { None } else { self.deadline() },
            short_of_frames: wants_frames || self.port.is_fill_short(),
            unsent: self.port.unsent(),
        };
        match self.waiter.next(now, &turn) {
            Step::Again => Ok(()),
            Step::Spin if self.waiter.polls_device() => {
                self.port.poll_device();
                Ok(())
            }
            Step::Spin => {
                hint::spin_loop();
                Ok(())
            }
            Step::Sleep(limit) => self.sleep(limit),
        }
    }

    /// The time at which the engine's next timer is due, or the task wants its turn.
    fn deadline(&self) -> Option<Instant> {
        [self.engine.next_deadline(), self.task_deadline]
            .into_iter()
            .flatten()
            .min()
    }

    fn sleep(&mut self, limit: Duration) -> io::Result<()> {
        let Self {
            index,
            port,
            handover,
            relays,
            mailboxes,
            poll,
            counters,
            ..
        } = self;
        if !relays.is_empty() {
            relays.announce_sleep();
        }
        let mailbox = &mailboxes[usize::from(*index)];
        let slept = mailbox.bell().sleep(
            port,
            |port| mailbox.is_empty() && !handover.is_waiting() && !port.has_received() && !relays.is_waiting(),
            |port| {
                counters.sleeps += 1;
                port.sleep(poll.as_raw_fd(), limit)
            },
        );
        if !relays.is_empty() {
            relays.end_sleep();
        }
        let Some(result) = slept else {
            return Ok(());
        };
        let result = match result {
            // The bell is silenced.
            Ok(true) => self.poll.poll(&mut self.events, Some(Duration::ZERO)),
            other => other.map(|_| ()),
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result,
        }
    }
}

/// The treatment of segments of no flow of this shard's: a relay tells the other process of them.
fn on_no_flow<P: ShardPort>(handover: &Handover<P::Frame>) -> OnNoFlow {
    if P::IS_RELAY {
        OnNoFlow::Report
    } else if handover.is_alone() {
        OnNoFlow::Reject
    } else {
        OnNoFlow::Ask
    }
}

/// The processor time of this thread since its start.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests;
