//! Questions about an engine's connections.

use core::net::SocketAddr;
use core::time::Duration;

use super::Engine;
use super::admit::SYN_ACK_TIMEOUT;
use crate::application::{Application, ListenerId};
use crate::congestion::{CongestionControl, INITIAL_SSTHRESH, PathModel};
use crate::connection::{Connection, State, Tcb};
use crate::half_open::HalfOpen;
use crate::recovery::rto::Bounds;
use crate::time::Instant;
use crate::time_wait::TimeWait;

/// The number of flows of each kind an engine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Population {
    /// Connections from ESTABLISHED to LAST-ACK, and those this side is opening.
    pub connections: u32,
    /// Connections in SYN-RECEIVED that came from a listener.
    pub half_open: u32,
    /// Connections in TIME-WAIT.
    pub time_wait: u32,
}

impl Population {
    /// Adds another engine's.
    pub fn merge(&mut self, other: Self) {
        self.connections += other.connections;
        self.half_open += other.half_open;
        self.time_wait += other.time_wait;
    }
}

/// The agreement of a connection's SYNs, as it is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NegotiatedOptions {
    /// Bytes of text in a full segment: the smaller of both sides' MSS, less the room that timestamps take, or less
    /// still where the path asks for it.
    pub mss: u16,
    /// Shift of the windows the peer offers, 0 to 14 (RFC 7323: Snd.Wind.Shift).
    pub send_window_shift: u8,
    /// Shift of the windows this side offers, 0 to 14 (RFC 7323: Rcv.Wind.Shift). Both are 0 without window scaling.
    pub receive_window_shift: u8,
    /// Segments carry timestamps (RFC 7323).
    pub timestamps: bool,
    /// Acknowledgments are selective (RFC 2018).
    pub sack: bool,
    /// Both sides do ECN (RFC 3168).
    pub ecn: bool,
}

/// A timer of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Retransmission, of a SYN-ACK too (RFC 6298).
    Retransmit,
    /// The next window probe (RFC 9293, section 3.8.6.1).
    Persist,
    /// Tail loss probe (RFC 8985, section 7).
    Probe,
    /// RACK's reordering window (RFC 8985, section 6.2).
    Reorder,
    /// Delayed acknowledgment.
    DelayedAck,
    /// Keepalive (RFC 9293, section 3.8.4).
    Keepalive,
    /// The end of the user timeout.
    UserTimeout,
    /// The end of the wait for the peer's FIN in FIN-WAIT-2, or for the application to read what is left.
    FinWait2,
    /// Pacing lets go what it held back.
    Pace,
    /// The metrics of the path are forgotten.
    Forget,
    /// The application's own.
    Application,
    /// The end of TIME-WAIT.
    TimeWait,
}

impl Timer {
    /// The timer in a word, after `ss`'s where it has one.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retransmit => "on",
            Self::Persist => "persist",
            Self::Probe => "probe",
            Self::Reorder => "reorder",
            Self::DelayedAck => "delack",
            Self::Keepalive => "keepalive",
            Self::UserTimeout => "user-timeout",
            Self::FinWait2 => "fin-wait-2",
            Self::Pace => "pace",
            Self::Forget => "forget",
            Self::Application => "application",
            Self::TimeWait => "timewait",
        }
    }
}

/// The state of a connection's transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Congestion window in bytes.
    pub cwnd: u32,
    /// Slow start threshold in bytes; `None` before the first loss.
    pub ssthresh: Option<u32>,
    /// Pacing rate in bytes per second; `None` if text leaves as fast as the window lets it.
    pub pacing_rate: Option<u64>,
    /// The path as congestion control models it, if it does.
    pub model: Option<PathModel>,
    /// Bytes of sequence space that are sent and not acknowledged.
    pub in_flight: u32,
    /// SND.WND in bytes.
    pub send_window: u32,
    /// The window in bytes that is offered to the peer.
    pub receive_window: u32,
    /// Variance of the round-trip time; `None` before the first measurement.
    pub rttvar: Option<Duration>,
    /// Retransmission timeout, back-off included.
    pub rto: Duration,
    /// The number of times the retransmission timer has run out in a row.
    pub backoffs: u8,
    /// Bytes of text sent, those sent again counted each time.
    pub bytes_sent: u64,
    /// Bytes of text that the peer has acknowledged.
    pub bytes_acked: u64,
    /// Bytes of text received in order.
    pub bytes_received: u64,
    /// Segments sent again since the connection was opened.
    pub retransmitted_segments: u32,
    /// Bytes of text in them; 4 GiB stand for that or more.
    pub retransmitted_bytes: u64,
    /// The time since something was last received.
    pub idle: Duration,
    /// The time since the connection was opened, in whole seconds.
    pub age: Duration,
}

/// One line of a connection listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// This side.
    pub local: SocketAddr,
    /// The peer; for a listener the unspecified address and port 0.
    pub peer: SocketAddr,
    /// The state.
    pub state: State,
    /// The listener that accepted the connection.
    pub listener: Option<ListenerId>,
    /// Bytes received that the application has not consumed.
    pub unread: usize,
    /// Bytes queued for sending and not acknowledged.
    pub unacknowledged: usize,
    /// Smoothed round-trip time; `None` before the first measurement.
    pub srtt: Option<Duration>,
    /// The agreement of the SYNs; `None` for listeners, before ESTABLISHED, and in TIME-WAIT.
    pub options: Option<NegotiatedOptions>,
    /// The timer that fires first, and when; `None` when none is running.
    pub timer: Option<(Timer, Instant)>,
    /// `None` for listeners, half-open connections and in TIME-WAIT.
    pub transfer: Option<Transfer>,
}

impl ConnectionInfo {
    pub(super) fn bare(local: SocketAddr, peer: SocketAddr, state: State, listener: Option<ListenerId>) -> Self {
        Self {
            local,
            peer,
            state,
            listener,
            unread: 0,
            unacknowledged: 0,
            srtt: None,
            options: None,
            timer: None,
            transfer: None,
        }
    }

    pub(super) fn of_time_wait(record: &TimeWait) -> Self {
        let key = record.key.get();
        Self {
            timer: Some((Timer::TimeWait, record.expires_at())),
            ..Self::bare(key.local(), key.peer(), State::TimeWait, None)
        }
    }

    pub(super) fn of_connection<C>(connection: &Connection<C>, now: Instant, rto_bounds: Bounds) -> Self {
        let tcb = &connection.tcb;
        Self {
            local: tcb.key.get().local(),
            peer: tcb.key.get().peer(),
            state: tcb.state,
            listener: tcb.listener(),
            unread: tcb.unread(),
            unacknowledged: tcb.queued(),
            srtt: tcb.rto.srtt(),
            options: connection.application.as_ref().map(|_| NegotiatedOptions {
                mss: tcb.mss,
                send_window_shift: tcb.snd_wind_shift,
                receive_window_shift: tcb.rcv_wind_shift,
                timestamps: tcb.timestamps,
                sack: tcb.sack_permitted,
                ecn: tcb.ecn,
            }),
            timer: first_timer(tcb),
            transfer: Some(Transfer::of(tcb, now, rto_bounds)),
        }
    }
}

impl Transfer {
    fn of(tcb: &Tcb, now: Instant, rto_bounds: Bounds) -> Self {
        let controller = tcb.sending.congestion.as_deref();
        Self {
            cwnd: tcb.cwnd(),
            ssthresh: Some(tcb.ssthresh()).filter(|&ssthresh| ssthresh != INITIAL_SSTHRESH),
            pacing_rate: controller.and_then(CongestionControl::pacing_rate),
            model: controller.and_then(CongestionControl::path_model),
            in_flight: tcb.flight(),
            send_window: tcb.snd_wnd,
            receive_window: tcb.rcv_edge.saturating_since(tcb.rcv_nxt),
            rttvar: tcb.rto.rttvar(),
            rto: tcb.rto.timeout(rto_bounds),
            backoffs: tcb.rto.backoffs(),
            bytes_sent: tcb.bytes_sent(),
            bytes_acked: tcb.bytes_acked(),
            bytes_received: tcb.bytes_received(),
            retransmitted_segments: tcb.lifetime.retransmitted_segments(),
            retransmitted_bytes: tcb.bytes_retransmitted(),
            idle: now.since(tcb.last_received),
            age: Duration::from_secs(u64::from(tcb.age_seconds(now))),
        }
    }
}

/// The timer of a connection that fires first, and when.
fn first_timer(tcb: &Tcb) -> Option<(Timer, Instant)> {
    let sending = &*tcb.sending;
    let (deadlines, send_deadlines) = (&tcb.deadlines, &sending.deadlines);
    let retransmit = if sending.persist {
        Timer::Persist
    } else {
        Timer::Retransmit
    };
    [
        (retransmit, send_deadlines.retransmit),
        (Timer::Probe, send_deadlines.probe),
        (Timer::Reorder, send_deadlines.reorder),
        (Timer::DelayedAck, tcb.delayed_ack.near(tcb.last_received)),
        (Timer::Keepalive, deadlines.keepalive),
        (Timer::UserTimeout, send_deadlines.user_timeout),
        (Timer::FinWait2, send_deadlines.fin_wait_2),
        (Timer::Pace, send_deadlines.pace),
        (Timer::Forget, send_deadlines.forget),
        (Timer::Application, deadlines.application),
    ]
    .into_iter()
    .filter(|&(_, at)| at != Instant::NEVER)
    .min_by_key(|&(_, at)| at)
}

impl<A: Application> Engine<A> {
    /// The number of flows of each kind.
    pub fn population(&self) -> Population {
        Population {
            connections: self.connections.len(),
            half_open: self.half_open.len(),
            time_wait: self.time_wait.len(),
        }
    }

    /// Connections in SYN-RECEIVED that came from a listener.
    pub fn half_open(&self) -> u32 {
        self.half_open.len()
    }

    /// Memory of what all connections hold out of order, in bytes; at most `reassembly_bytes_total`.
    pub fn reassembly_bytes(&self) -> u64 {
        self.totals.reassembly
    }

    /// Memory held by what all connections have queued for sending, in bytes, overhead included.
    pub fn send_bytes(&self) -> u64 {
        self.totals.queued
    }

    /// Memory of all that connections have received and hold, in order or not, in bytes; at most `receive_bytes_total`,
    /// and for each connection a segment.
    pub fn received_bytes(&self) -> u64 {
        self.totals.received()
    }

    /// Every listener and every connection, in no particular order. [`Engine::walk`] has them in slices.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionInfo> + '_ {
        let listeners = self.addresses.iter().map(move |(local, listener)| {
            let anyone = match local {
                SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
                SocketAddr::V6(_) => SocketAddr::from(([0_u16; 8], 0)),
            };
            ConnectionInfo::bare(local, anyone, State::Listen, Some(listener))
        });
        listeners.chain(self.flows())
    }

    pub(super) fn half_open_info(&self, slot: u32, record: &HalfOpen) -> ConnectionInfo {
        let deadline = self.half_open_timers.deadline(slot);
        let first = || record.first_sent_at(self.now) + SYN_ACK_TIMEOUT;
        ConnectionInfo {
            timer: Some((Timer::Retransmit, deadline.unwrap_or_else(first))),
            ..ConnectionInfo::bare(
                record.key.local(),
                record.key.peer(),
                State::SynReceived,
                Some(record.listener),
            )
        }
    }
}
