//! One shard's TCP: every flow it owns, their timers and their application.
//!
//! An engine does no I/O, reads no clock and starts no thread. Frames come in by [`Engine::receive`] or
//! [`Engine::receive_burst`], time comes with every call, frames leave through a [`Transmit`].

mod addresses;
mod admit;
mod configure;
mod early;
mod evict;
mod lifecycle;
mod listing;
mod memory;
mod next_hop;
mod observe;
mod open;
mod path_mtu;
mod prefetch;
mod receive;
mod sweep;
mod syn_cookie;
mod walk;

use core::net::SocketAddr;
use std::sync::Arc;

use tidegate_abi::siphash::Key;

use crate::application::{Application, CloseReason, ListenerId};
use crate::chunks::{Advice, ChunkedSlab, MemoryAdvisor, SlotQueue};
use crate::config::{Config, Keepalive};
use crate::congestion::Algorithm;
use crate::connection::keepalive::{KeepaliveId, KeepaliveTable};
use crate::connection::receive::Arrival;
use crate::connection::send_state::SendStatePool;
use crate::connection::{Common, Connection, Context, Outcome, Service, Tcb, Totals};
use crate::counters::{Counter, Counters};
use crate::fifo_slab::FifoSlab;
use crate::flow_table::FlowTable;
use crate::half_open::HalfOpen;
use crate::histogram::Latencies;
use crate::link::{LinkId, LinkTable};
use crate::rate_limit::{Limited, RateLimit};
use crate::recovery::rto::Bounds;
use crate::seq::SeqNumber;
use crate::shared_flows::SharedFlows;
use crate::sources::{SourceLimits, SourceTable};
use crate::time::Instant;
use crate::time_wait::TimeWait;
use crate::timer_wheel::TimerWheel;
use crate::transmit::{Purpose, Transmit};
use crate::wire::emit::{self, Header};
use crate::wire::{Flags, FlowKey, LinkHeader, Options, Segment};

use addresses::ServedAddresses;
use early::EarlySegments;
pub use listing::{ConnectionInfo, NegotiatedOptions, Population, Timer, Transfer};
pub use memory::TableMemory;
use next_hop::NextHopTables;
use observe::Observers;
pub use observe::{Happening, Observer};
pub use open::{ConnectError, ConnectionId};
pub use receive::LOOKUP_GROUP;
use sweep::Sweep;
pub use syn_cookie::{Cookies, syn_ack_of};
pub use walk::{Cursor, FlowInfo, SLICE};

/// Events of each kind that one call of [`Engine::poll`] handles at most, so that frames that arrive need not wait for
/// long however many timers are due at once: a burst of them.
pub const EVENTS_PER_TURN: usize = 64;

/// Frames after which a call of [`Engine::poll`] handles no further timers, or no further connections that had more to
/// send.
const FRAMES_PER_TURN: u64 = 256;

/// An engine's secrets, to be drawn at random: an attacker who knows them can guess sequence numbers or make look-ups
/// slow.
#[derive(Clone, Copy, Debug)]
pub struct Secrets {
    /// For initial sequence numbers, timestamp offsets and the limits that everybody shares. Different engines of a
    /// server must have different ones, so that the acknowledgment of a SYN-ACK tells which of them sent it.
    pub isn: Key,
    /// For the flow table.
    pub table: Key,
}

/// The fate of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The engine took care of it; that it was dropped and counted is included.
    Done,
    /// A good segment to a listener's address and port of a flow this engine does not know, or ICMP "too big" about
    /// such a flow: other shards may.
    NoFlow {
        /// 1 << shard, of those that may know the flow.
        others: u64,
        /// The same of the one that is to begin a connection if none of those knows it.
        then: u64,
    },
}

/// The treatment of a segment of an unknown flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnNoFlow {
    /// Answer it as RFC 9293, section 3.10.7.2, says (RST to what has ACK, within `rst_rate`).
    Reject,
    /// Leave it alone and return [`Received::NoFlow`] if another engine may know the flow, as [`SharedFlows`] have it;
    /// without those, if it is no SYN. Else as `Reject`.
    Ask,
    /// Leave it alone and return [`Received::NoFlow`].
    Report,
}

/// The settings that the connections to all addresses of a listener share.
struct Listener {
    keepalive: KeepaliveId,
}

/// The TCP engine of one shard.
pub struct Engine<A: Application> {
    common: Common,
    rto_bounds: Bounds,
    secrets: Secrets,
    application: A,
    counters: Counters,
    latencies: Latencies,
    listeners: Vec<Listener>,
    refuses_syns: bool,
    addresses: ServedAddresses,
    draining: bool,
    /// The work left to be done with every connection.
    sweep: Option<Sweep>,
    /// `None`: acknowledgments are not checked for cookies.
    cookies: Option<Cookies>,
    early: EarlySegments,
    /// `None`: nobody asks for what this engine knows.
    shared_flows: Option<Box<dyn SharedFlows + Send>>,
    /// `None`: what is sent goes back to where the peer's segments come from.
    next_hops: Option<NextHopTables>,
    observers: Observers,
    links: LinkTable,
    table: FlowTable,
    /// For the memory of tables that are made later.
    advice: Advice,
    connections: ChunkedSlab<Connection<A::Connection>>,
    connection_timers: TimerWheel,
    sources: SourceTable,
    half_open: FifoSlab<HalfOpen>,
    /// The oldest record whose first time-out is still to come: that of every newer one is, too.
    half_open_untimed: Option<u32>,
    half_open_timers: TimerWheel,
    /// In the order in which they expire.
    time_wait: FifoSlab<TimeWait>,
    /// The time of the last event.
    now: Instant,
    /// Connections that had more to send than there were frames, or than was fair.
    output_pending: SlotQueue,
    totals: Totals,
    send_states: SendStatePool,
    keepalives: KeepaliveTable,
    rst_limit: RateLimit,
    /// For answers that belong to no connection's own limit.
    challenge_limit: RateLimit,
}

/// Files the timer of a connection that stays. Returns whether it has more to send, and whether its peer has made its
/// first complete request.
#[inline]
fn settle_open(tcb: &mut Tcb, timers: &mut TimerWheel, slot: u32) -> (bool, bool) {
    tcb.settled = tcb.state;
    if let Some(deadline) = tcb.earliest_deadline() {
        timers.arm_no_later(slot, deadline);
    }
    (tcb.output_pending, tcb.service == Service::Begun)
}

/// The parts of an engine a connection needs, borrowed beside the connection itself.
macro_rules! context {
    ($engine:expr, $now:expr, $out:expr) => {
        Context {
            now: $now,
            config: &$engine.common,
            rto_bounds: $engine.rto_bounds,
            counters: &mut $engine.counters,
            latencies: &mut $engine.latencies,
            links: &mut $engine.links,
            totals: &mut $engine.totals,
            send_states: &mut $engine.send_states,
            keepalives: &$engine.keepalives,
            out: $out,
        }
    };
}
use context;

impl<A: Application> Engine<A> {
    /// An engine without listeners and connections.
    ///
    /// # Panics
    ///
    /// If `config` does not pass [`Config::validate`].
    pub fn new(config: Config, secrets: Secrets, application: A) -> Self {
        if let Err(reason) = config.validate() {
            panic!("{reason}");
        }
        let flows = config.max_connections as usize + config.max_half_open as usize + config.max_time_wait as usize;
        Self {
            table: FlowTable::new(flows, secrets.table),
            rst_limit: RateLimit::new(config.rst_rate, Limited::Reset, secrets.isn),
            challenge_limit: RateLimit::new(config.rst_rate, Limited::Challenge, secrets.isn),
            rto_bounds: Bounds::new(config.rto_min, config.rto_max),
            common: Common::keyed(config, secrets.table),
            secrets,
            application,
            counters: Counters::default(),
            latencies: Latencies::default(),
            listeners: Vec::new(),
            refuses_syns: false,
            addresses: ServedAddresses::default(),
            draining: false,
            sweep: None,
            cookies: None,
            early: EarlySegments::default(),
            shared_flows: None,
            next_hops: None,
            observers: Observers::default(),
            links: LinkTable::default(),
            advice: Advice::default(),
            connections: ChunkedSlab::default(),
            connection_timers: TimerWheel::default(),
            sources: SourceTable::new(SourceLimits::default(), secrets.table),
            half_open: FifoSlab::default(),
            half_open_untimed: None,
            half_open_timers: TimerWheel::default(),
            time_wait: FifoSlab::default(),
            now: Instant::ZERO,
            output_pending: SlotQueue::default(),
            totals: Totals::default(),
            send_states: SendStatePool::default(),
            keepalives: KeepaliveTable::default(),
        }
    }

    /// Accepts connections to `address`, which must be one concrete address and port, with the keepalive settings of
    /// the configuration.
    pub fn listen(&mut self, address: SocketAddr) -> ListenerId {
        let listener = self.add_listener();
        self.addresses.add(address, listener);
        listener
    }

    /// Makes a listener, with the keepalive settings of the configuration, that has no address so far.
    pub fn add_listener(&mut self) -> ListenerId {
        let keepalive = self.keepalives.number(self.common.config.keepalive());
        self.listeners.push(Listener { keepalive });
        ListenerId(self.listeners.len() as u16 - 1)
    }

    /// From now on accepts connections to these concrete addresses and ports, each for its listener, and to no others.
    /// Connections and handshakes to others that there are go on.
    pub fn set_addresses(&mut self, addresses: &[(SocketAddr, ListenerId)]) {
        self.addresses = ServedAddresses::default();
        for &(address, listener) in addresses {
            self.addresses.add(address, listener);
        }
    }

    /// Takes `mtu`, in bytes and without the Ethernet header (576 to 9,000; what is beyond counts as that), for the
    /// link's from now on: connections that are made then offer and use an MSS that fits it. Those there are keep
    /// theirs.
    pub fn set_mtu(&mut self, mtu: u16) {
        self.common.config.set_mtu(mtu);
    }

    /// Gives connections that `listener` accepts from now on keepalive settings of their own.
    pub fn set_keepalive(&mut self, listener: ListenerId, keepalive: Keepalive) {
        if let Some(listener) = self.listeners.get_mut(usize::from(listener.0)) {
            listener.keepalive = self.keepalives.number(keepalive);
        }
    }

    /// Gives connections that `listener` accepts congestion control of their own; `None`: that of the configuration. A
    /// connection begins with it when its window limits it for the first time, or again after it has been silent for
    /// five minutes, and keeps it meanwhile.
    pub fn set_congestion(&mut self, listener: ListenerId, algorithm: Option<Algorithm>) {
        if usize::from(listener.0) < self.listeners.len() {
            self.common.set_congestion(listener, algorithm);
        }
    }

    /// Limits what each source may have of this engine, and says what a source is. Without limits, as at the beginning,
    /// a source is an IPv4 address or 64 bits of an IPv6 address.
    ///
    /// # Panics
    ///
    /// If the engine has connections already, which would not be counted.
    pub fn set_source_limits(&mut self, limits: SourceLimits) {
        assert!(self.connections.is_empty(), "there are connections");
        self.sources = SourceTable::new(limits, self.secrets.table);
        self.sources.set_advice(self.advice.clone());
    }

    /// From now on tells `flows` which flows this engine has a record of, and asks them for those of other engines.
    ///
    /// # Panics
    ///
    /// If the engine has flows already, of which it did not tell.
    pub fn share_flows(&mut self, flows: Box<dyn SharedFlows + Send>) {
        let population = self.population();
        assert_eq!(population, Population::default(), "there are flows");
        self.shared_flows = Some(flows);
    }

    /// From now on tells `advisor` of the memory that tables are made of.
    pub fn set_memory_advisor(&mut self, advisor: Arc<dyn MemoryAdvisor>) {
        let advice = Advice::new(advisor);
        self.connections.set_advice(advice.clone());
        self.connection_timers.set_advice(advice.clone());
        self.sources.set_advice(advice.clone());
        if let Some(next_hops) = &mut self.next_hops {
            next_hops.set_advice(advice.clone());
        }
        self.half_open.set_advice(advice.clone());
        self.time_wait.set_advice(advice.clone());
        self.advice = advice;
    }

    /// Whether anybody is told of flows.
    #[inline]
    fn is_watched(&self) -> bool {
        self.shared_flows.is_some() || self.observers.are_any()
    }

    /// The flow has a record from now on.
    fn flow_begins(&self, key: &FlowKey) {
        if let Some(flows) = &self.shared_flows {
            flows.begin(key);
        }
    }

    /// The flow has no record any more.
    fn flow_ends(&self, key: &FlowKey) {
        if let Some(flows) = &self.shared_flows {
            flows.end(key);
        }
    }

    /// The shards that a segment of a flow unknown here is to be shown to, a bit each; 0: it is dealt with here.
    fn others(&self, key: &FlowKey, on_no_flow: OnNoFlow) -> u64 {
        match (on_no_flow, &self.shared_flows) {
            (OnNoFlow::Reject, _) => 0,
            (OnNoFlow::Report, _) | (OnNoFlow::Ask, None) => u64::MAX,
            (OnNoFlow::Ask, Some(flows)) => flows.others(key),
        }
    }

    /// The keepalive settings of a connection that `listener` accepts.
    #[inline]
    fn keepalive(&mut self, listener: ListenerId) -> KeepaliveId {
        match self.listeners.get(usize::from(listener.0)) {
            Some(listener) => listener.keepalive,
            None => self.keepalives.number(self.common.config.keepalive()),
        }
    }

    fn listener(&self, key: &FlowKey) -> Option<ListenerId> {
        self.addresses.listener(key)
    }

    /// Whether the peer's address is that of a listener.
    fn is_own_address(&self, key: &FlowKey) -> bool {
        self.addresses.has_peer(key)
    }

    /// Gives a segment to the connection at `slot`. False if there is none, or one of another flow.
    #[inline(always)]
    fn connection_receives<T: Transmit>(
        &mut self,
        now: Instant,
        slot: u32,
        segment: &Segment<'_>,
        out: &mut T,
    ) -> bool {
        // Of another flow's connection nothing is looked up.
        if self.is_next_hop_outdated(slot) && self.is_connection(slot, &segment.key) {
            self.look_up_connection(slot);
        }
        let Some(connection) = self.connections.get_mut(slot) else {
            return false;
        };
        if !connection.tcb.key.is(&segment.key) {
            return false;
        }
        let mut context = context!(self, now, out);
        let arrival = connection.segment_arrives(segment, &mut self.application, &mut context);
        if self.next_hops.as_ref().is_none_or(|hops| hops.is_heard(slot)) {
            connection.tcb.follow(segment, context.links);
        }
        let outcome = match arrival {
            Arrival::Done => connection.flush_output_inline(&mut context),
            Arrival::Reset => Outcome::Closed(CloseReason::ResetByPeer),
            Arrival::Refuse => {
                self.reject(now, segment, out);
                return true;
            }
        };
        if outcome == Outcome::Open && !self.observers.are_any() {
            let follow_up = settle_open(&mut connection.tcb, &mut self.connection_timers, slot);
            self.follow_up(slot, follow_up);
        } else {
            self.settle(now, slot, outcome);
        }
        true
    }

    /// Files the timer of a connection after an event, or ends it.
    #[inline(always)]
    fn settle(&mut self, now: Instant, slot: u32, outcome: Outcome) {
        if self.observers.are_any() {
            self.tell(slot, outcome);
        }
        match outcome {
            Outcome::Open => {
                let tcb = &mut self.connections[slot].tcb;
                let follow_up = settle_open(tcb, &mut self.connection_timers, slot);
                self.follow_up(slot, follow_up);
            }
            Outcome::TimeWait => self.enter_time_wait(now, slot),
            Outcome::Closed(reason) => {
                self.remove_connection(slot, reason);
            }
        }
    }

    /// Lists a connection that stays where it belongs now.
    #[inline(always)]
    fn follow_up(&mut self, slot: u32, (has_more, begins): (bool, bool)) {
        if has_more {
            self.queue_output(slot);
        }
        if begins {
            self.list_served(slot);
        }
    }

    #[inline(never)]
    fn queue_output(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        if !connection.tcb.output_queued {
            connection.tcb.output_queued = true;
            self.output_pending.push_back(slot);
        }
    }

    /// Fires the timers that are due, sends what found no frame before, and goes on with [`Engine::drain`] and
    /// [`Engine::abort_all`]: of each at most [`EVENTS_PER_TURN`]. Then memory of tables in which nothing is left goes
    /// back, a chunk of each. What is left to be done has its turn in the next call, which is due at once then, as
    /// [`Engine::next_deadline`] and [`Engine::wants_frames`] say.
    pub fn poll<T: Transmit>(&mut self, now: Instant, out: &mut T) {
        self.note_next_hop_generation();
        let mut left = EVENTS_PER_TURN;
        let frames_end = self.frames_out() + FRAMES_PER_TURN;
        let mut read = 0;
        while self.frames_out() < frames_end
            && let Some(slot) = self.connection_timers.fire(now, &mut left)
        {
            if read == 0 && self.connections.len() > prefetch::FEW_CONNECTIONS {
                read = self.prefetch_due(now);
            }
            read = read.saturating_sub(1);
            self.follow_next_hop(slot);
            let Some(connection) = self.connections.get_mut(slot) else {
                continue;
            };
            let mut context = context!(self, now, out);
            let outcome = connection.timer_fired(&mut self.application, &mut context);
            self.settle(now, slot, outcome);
        }
        self.now = now;
        let mut left = EVENTS_PER_TURN;
        while left > 0
            && let Some(slot) = self.first_syn_ack_due(now)
        {
            left -= 1;
            self.half_open_timer_fired(now, slot, out);
        }
        while let Some(slot) = self.half_open_timers.fire(now, &mut left) {
            self.half_open_timer_fired(now, slot, out);
        }
        self.expire_time_wait(now);
        self.give_up_early(now, out);
        self.send_pending(now, out);
        if self.sweep.is_some() {
            self.go_on_sweeping(now, out);
        }
        if self.has_memory_to_give_back() {
            self.give_back_memory();
        }
    }

    fn frames_out(&self) -> u64 {
        self.counters.get(Counter::FramesOut)
    }

    /// Sends for the connections that had more to send. What is put into the list meanwhile comes after all that is in
    /// it.
    fn send_pending<T: Transmit>(&mut self, now: Instant, out: &mut T) {
        let frames_end = self.frames_out() + FRAMES_PER_TURN;
        for _ in 0..self.output_pending.len().min(EVENTS_PER_TURN) {
            if self.frames_out() >= frames_end {
                return;
            }
            let Some(slot) = self.output_pending.pop_front() else {
                return;
            };
            self.follow_next_hop(slot);
            let Some(connection) = self.connections.get_mut(slot) else {
                continue;
            };
            if !connection.tcb.output_queued {
                continue;
            }
            connection.tcb.output_queued = false;
            connection.tcb.output_pending = false;
            let mut context = context!(self, now, out);
            let outcome = connection.flush_output(&mut context);
            self.settle(now, slot, outcome);
        }
    }

    /// The time at which [`Engine::poll`] is next needed; `None` when no timer is running. A time that has passed if
    /// the last call left something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        [
            self.sweep.as_ref().map(|sweep| sweep.due_at(self.now)),
            self.connection_timers.next_deadline(),
            self.half_open_timers.next_deadline(),
            self.first_syn_ack_timeout(),
            self.first_time_wait().map(|(_, expires_at)| expires_at),
            self.early.deadline(),
            self.has_memory_to_give_back().then_some(self.now),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The record in TIME-WAIT that expires first, and when.
    fn first_time_wait(&self) -> Option<(u32, Instant)> {
        let slot = self.time_wait.oldest()?;
        let record = self.time_wait.get(slot)?;
        Some((slot, record.expires_at()))
    }

    /// Whether something could not be sent and [`Engine::poll`] should be called as soon as frames are free.
    pub fn wants_frames(&self) -> bool {
        !self.output_pending.is_empty() || self.sweep.as_ref().is_some_and(Sweep::waits_for_frames)
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The latencies that were measured.
    pub fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// The application.
    pub fn application(&self) -> &A {
        &self.application
    }

    /// The application.
    pub fn application_mut(&mut self) -> &mut A {
        &mut self.application
    }

    /// Answers a segment with ACK that fits nothing (RFC 9293, section 3.10.7.2, second) with RST, within `rst_rate`.
    fn reject<T: Transmit>(&mut self, now: Instant, segment: &Segment<'_>, out: &mut T) {
        if !self.reset(now, segment, out) {
            self.counters.bump(Counter::DropNoConnection);
        }
    }

    /// Answers a segment with ACK of no connection with RST. False when it may not be answered: it is RST, or over
    /// `rst_rate`.
    fn reset<T: Transmit>(&mut self, now: Instant, segment: &Segment<'_>, out: &mut T) -> bool {
        if segment.flags.contains(Flags::RST) || !self.rst_limit.allow(now) {
            return false;
        }
        let header = Header {
            seq: segment.ack,
            ack: SeqNumber(0),
            flags: Flags::RST,
            window: 0,
            options: Options::default(),
            ecn_capable: false,
        };
        let link = self.answer_link(segment);
        if self.send_bare(&link, &segment.key, &header, Purpose::Control, out) {
            self.counters.bump(Counter::RstsOut);
        }
        true
    }

    /// Sends a segment without text that belongs to no connection's own state.
    fn send_bare<T: Transmit>(
        &mut self,
        link: &LinkHeader,
        key: &FlowKey,
        header: &Header,
        purpose: Purpose,
        out: &mut T,
    ) -> bool {
        send_bare(&mut self.counters, link, key, header, purpose, out)
    }

    /// [`Engine::send_bare`] for a record that has `link`.
    fn send_for_record<T: Transmit>(
        &mut self,
        key: &FlowKey,
        link: LinkId,
        header: &Header,
        purpose: Purpose,
        out: &mut T,
    ) -> bool {
        let found = self.look_up(key);
        let link = found.as_ref().unwrap_or_else(|| self.links.get(link));
        send_bare(&mut self.counters, link, key, header, purpose, out)
    }
}

fn send_bare<T: Transmit>(
    counters: &mut Counters,
    link: &LinkHeader,
    key: &FlowKey,
    header: &Header,
    purpose: Purpose,
    out: &mut T,
) -> bool {
    out.leave_by(link.device());
    let Some(buffer) = out.reserve(purpose) else {
        counters.bump(Counter::NoFrame);
        return false;
    };
    let length = emit::frame(buffer, link, key, header, 0, |_| {});
    out.commit(length);
    counters.bump(Counter::FramesOut);
    true
}
