//! SYN cookies (RFC 4987, section 3.6): the acknowledgment of a SYN-ACK that nobody remembers having sent.
//!
//! The XDP program answers SYNs with cookies; here a segment that fits no connection is checked for one. A genuine
//! cookie brings back what the SYN offered, and the connection begins as if this engine had answered the SYN itself.
//! Until then nothing is kept, so forged acknowledgments cost a look-up and a hash each.

use tidegate_abi::syn_ack::SynAck;
use tidegate_abi::syn_cookie::{self, Accepted, Addresses, Keys, MSS_V4, MSS_V6, NO_WINDOW_SCALE, TIMESTAMP_TAG_BITS};

use super::{Engine, OnNoFlow, Received};
use crate::application::{Application, ListenerId};
use crate::config::Config;
use crate::connection::Connection;
use crate::connection::open::{Handshake, Negotiated, Origin};
use crate::connection::send::offered_mss;
use crate::connection::window::{syn_ack_window, window_shift};
use crate::counters::Counter;
use crate::flow_table::FlowSlot;
use crate::isn::TupleHash;
use crate::time::Instant;
use crate::transmit::Transmit;
use crate::wire::options::MAX_WINDOW_SCALE;
use crate::wire::{Flags, FlowKey, Segment};

/// Milliseconds the SYN-ACK's TSval may have been behind the clock it was taken from.
const TIMESTAMP_SLACK: u32 = 1 << TIMESTAMP_TAG_BITS;

/// The cookies an engine accepts.
#[derive(Clone, Copy, Debug)]
pub struct Cookies {
    /// The keys they were made with.
    pub keys: Keys,
    /// Those without timestamps that are accepted.
    pub accepted: Accepted,
    /// The number of this engine's shard, below `shards`.
    pub shard: u16,
    /// Shards of the server, at least 1. A cookie belongs to one of them, whichever it reaches first, so that an
    /// acknowledgment that comes twice does not make two connections: to the one that
    /// [`SharedFlows`](crate::shared_flows::SharedFlows) name, or else to one by its hash.
    pub shards: u16,
}

/// A cookie that was found to be genuine.
pub(super) struct GenuineCookie {
    options: syn_cookie::Options,
    /// The shard it belongs to by its hash.
    shard: u16,
}

impl Cookies {
    fn check(&self, segment: &Segment<'_>) -> Option<GenuineCookie> {
        let timestamps = segment.options.timestamps;
        let handshake = syn_cookie::Handshake {
            addresses: addresses(&segment.key),
            client_port: segment.key.remote_port,
            server_port: segment.key.local_port,
            client_isn: (segment.seq - 1).0,
            timestamps: timestamps.is_some(),
        };
        let echo = timestamps.map(|timestamps| timestamps.echo);
        let checked = self.keys.check(&handshake, (segment.ack - 1).0, echo, self.accepted)?;
        Some(GenuineCookie {
            options: checked.options,
            shard: (checked.hash % u32::from(self.shards.max(1))) as u16,
        })
    }
}

fn addresses(key: &FlowKey) -> Addresses {
    if key.is_v4() {
        let [.., a, b, c, d] = key.remote;
        let [.., e, f, g, h] = key.local;
        Addresses::v4([a, b, c, d], [e, f, g, h])
    } else {
        Addresses::v6(key.remote, key.local)
    }
}

/// The contents of every SYN-ACK of an engine with this configuration, so that those with cookies say the same.
pub fn syn_ack_of(config: &Config) -> SynAck {
    SynAck {
        window: syn_ack_window(config),
        mss_v4: offered_mss(config, true),
        mss_v6: offered_mss(config, false),
        window_shift: window_shift(config.receive_buffer),
        ecn: u8::from(config.ecn),
        // The engine knows no jiffies.
        ms_per_jiffy: 0,
    }
}

/// Whether a segment with these flags can be the first after a SYN-ACK.
fn follows_a_syn_ack(flags: Flags) -> bool {
    flags.contains(Flags::ACK) && !flags.intersects(Flags::SYN | Flags::RST)
}

impl<A: Application> Engine<A> {
    /// From now on accepts the cookies of these keys. `None`, as at the beginning: none, and acknowledgments are not
    /// checked.
    ///
    /// Cookies should be accepted for two epochs after the last was made.
    pub fn set_cookies(&mut self, cookies: Option<Cookies>) {
        self.cookies = cookies;
    }

    /// The cookie `segment` acknowledges, if it is genuine.
    pub(super) fn genuine_cookie(&self, segment: &Segment<'_>) -> Option<GenuineCookie> {
        let cookies = self.cookies.as_ref().filter(|_| follows_a_syn_ack(segment.flags))?;
        cookies.check(segment)
    }

    /// A segment, not a SYN, that fits nothing this engine knows: it acknowledges a cookie, or is of another shard's
    /// flow, or of none.
    pub(super) fn stray_receives<T: Transmit>(
        &mut self,
        now: Instant,
        listener: ListenerId,
        segment: &Segment<'_>,
        on_no_flow: OnNoFlow,
        out: &mut T,
    ) -> Received {
        if let Some(cookie) = self.genuine_cookie(segment) {
            return self.cookie_acknowledged(now, listener, cookie, segment, on_no_flow, out);
        }
        let may_be_early = self.cookies.is_some() && follows_a_syn_ack(segment.flags);
        if may_be_early && self.is_ours_to_open(&segment.key) {
            // The acknowledgment was seen on the way here. No RST for want of room: its sender has done nothing wrong.
            if !self.waits_for_cookie(segment) {
                self.counters.bump(Counter::DropEarly);
            }
            return Received::Done;
        }
        let others = self.others(&segment.key, on_no_flow);
        if others != 0 {
            return Received::NoFlow { others, then: 0 };
        }
        if may_be_early && self.waits_for_cookie(segment) {
            return Received::Done;
        }
        if may_be_early {
            self.counters.bump(Counter::DropBadCookie);
            self.reset(now, segment, out);
        } else if !segment.flags.intersects(Flags::ACK | Flags::RST) {
            // A scan's, to a listener: dropped (RFC 9293, section 3.10.7.2, fourth).
            self.counters.bump(Counter::DropNoAck);
        } else {
            self.reject(now, segment, out);
        }
        Received::Done
    }

    /// `segment` completes a handshake that nothing is known of but its genuine cookie.
    pub(super) fn cookie_acknowledged<T: Transmit>(
        &mut self,
        now: Instant,
        listener: ListenerId,
        cookie: GenuineCookie,
        segment: &Segment<'_>,
        on_no_flow: OnNoFlow,
        out: &mut T,
    ) -> Received {
        let key = segment.key;
        let owner = self.chosen_owner(&key).unwrap_or(cookie.shard);
        // Whom a copy of this segment has reached before.
        let had_by = if on_no_flow == OnNoFlow::Ask && self.shared_flows.is_some() {
            self.others(&key, on_no_flow)
        } else {
            0
        };
        let is_ours = self.cookies.as_ref().is_some_and(|cookies| cookies.shard == owner);
        if !is_ours {
            // What is kept here would answer segments of the connection that another shard is about to have.
            self.give_way(&key);
            if on_no_flow != OnNoFlow::Reject {
                return Received::NoFlow {
                    others: had_by & !(1 << (owner & 63)),
                    then: 1 << (owner & 63),
                };
            }
            // No RST: the client has done nothing wrong, and sends it again.
            self.counters.bump(Counter::DropCookieShard);
            return Received::Done;
        }
        if had_by != 0 {
            return Received::NoFlow {
                others: had_by,
                then: 0,
            };
        }
        if !self.accepts_connections() {
            self.counters.bump(Counter::DropDraining);
            return Received::Done;
        }
        let Some(link) = self.acquire_answer_link(segment) else {
            self.counters.bump(Counter::DropLinkTableFull);
            return Received::Done;
        };
        let Some(source) = self.admit_cookie(now, segment, out) else {
            self.links.release(link);
            return Received::Done;
        };
        // Before what gives way has ended: between the two, what follows this segment would be of no flow.
        self.flow_begins(&key);
        self.give_way(&key);
        self.counters.bump(Counter::CookieConnections);
        let handshake = Handshake {
            origin: Origin {
                key: &key,
                link,
                listener: Some(listener),
                iss: segment.ack - 1,
                timestamp_offset: self.offset_after_cookie(now, segment),
                keepalive: self.keepalive(listener),
            },
            irs: segment.seq - 1,
            negotiated: self.negotiated_by_cookie(&cookie.options, segment),
        };
        let connection = Connection::accepted(handshake, &self.common.config, now);
        let slot = self.connections.insert(connection);
        self.sources.open(slot, source);
        self.table.insert(self.table.hash(&key), FlowSlot::Connection(slot));
        self.complete_handshake(now, slot, segment, None, out);
        self.receive_early(now, &key, out);
        Received::Done
    }

    /// The shard that was chosen on the way here to have the connection of a handshake.
    fn chosen_owner(&self, key: &FlowKey) -> Option<u16> {
        self.shared_flows.as_ref()?.handshake_owner(key)
    }

    /// Whether this engine was chosen.
    pub(super) fn is_ours_to_open(&self, key: &FlowKey) -> bool {
        let own = self.cookies.as_ref().map(|cookies| cookies.shard);
        own.is_some() && self.chosen_owner(key) == own
    }

    /// Forgets what is left of an older handshake, or of a connection in TIME-WAIT, with the same addresses and ports.
    fn give_way(&mut self, key: &FlowKey) {
        match self.find(key) {
            Some(FlowSlot::HalfOpen(slot)) => self.remove_half_open(slot),
            Some(FlowSlot::TimeWait(slot)) => {
                self.remove_time_wait(slot);
                self.counters.bump(Counter::TimeWaitReused);
            }
            Some(FlowSlot::Connection(_)) | None => {}
        }
    }

    /// The offset with which the connection's clock goes on after the SYN-ACK's TSval, which the client echoes. That
    /// was of another clock, maybe of another host, and a connection whose timestamps went back would be dead (RFC
    /// 7323, PAWS).
    fn offset_after_cookie(&self, now: Instant, segment: &Segment<'_>) -> u32 {
        match segment.options.timestamps {
            Some(timestamps) => timestamps
                .echo
                .wrapping_add(TIMESTAMP_SLACK)
                .wrapping_sub(now.as_millis() as u32),
            None => TupleHash::new(self.secrets.isn, &segment.key).timestamp_offset(),
        }
    }

    /// The agreement of the SYN and the SYN-ACK with the cookie.
    fn negotiated_by_cookie(&self, options: &syn_cookie::Options, segment: &Segment<'_>) -> Negotiated {
        let table = if segment.key.is_v4() { &MSS_V4 } else { &MSS_V6 };
        Negotiated {
            mss: table[usize::from(options.mss_index) % table.len()],
            window_scale: (options.window_scale != NO_WINDOW_SCALE).then(|| options.window_scale.min(MAX_WINDOW_SCALE)),
            sack_permitted: options.sack_permitted,
            timestamp: segment.options.timestamps.map(|timestamps| timestamps.value),
            ecn: options.ecn && self.common.config.ecn,
        }
    }
}
