//! One connection: its transmission control block and what happens to it.
//!
//! `open` brings it to ESTABLISHED, `receive` processes segments in the order of RFC 9293, section 3.10.7, `ack` what
//! acknowledgments say about what was sent, `send` decides what leaves, `path_mtu` how large it may be, `timers` what happens when nothing arrives, `socket` is what the application sees.

pub(crate) mod ack;
pub(crate) mod open;
pub(crate) mod path_mtu;
pub(crate) mod receive;
pub(crate) mod send;
pub(crate) mod socket;
pub(crate) mod state;
pub(crate) mod timers;

use bytes::BytesMut;

use crate::application::{CloseReason, ListenerId};
use crate::config::{Config, Keepalive};
use crate::congestion::{CongestionControl, Controller};
use crate::counters::Counters;
use crate::link::{LinkId, LinkTable};
use crate::reassembly::Reassembly;
use crate::recovery::Phase;
use crate::recovery::prr::Prr;
use crate::recovery::rack::Rack;
use crate::recovery::rto::Rto;
use crate::recovery::scoreboard::Scoreboard;
use crate::send_queue::SendQueue;
use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::wire::FlowKey;
use crate::wire::options::{SackBlock, Timestamps};

pub(crate) use path_mtu::PathMtu;
pub use state::State;
pub(crate) use timers::Deadlines;

/// What a connection needs of its engine while something happens to it.
pub(crate) struct Context<'a, T> {
    pub(crate) now: Instant,
    pub(crate) config: &'a Config,
    pub(crate) counters: &'a mut Counters,
    pub(crate) links: &'a mut LinkTable,
    pub(crate) totals: &'a mut Totals,
    pub(crate) out: &'a mut T,
}

/// What becomes of a connection after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It stays.
    Open,
    /// It goes to TIME-WAIT.
    TimeWait,
    /// It is gone.
    Closed(CloseReason),
}

/// Memory held by all connections of an engine together, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    /// Out-of-order data with its overhead.
    pub(crate) reassembly: u64,
    /// In-order data no application has consumed.
    pub(crate) unread: u64,
    /// Data queued for sending.
    pub(crate) queued: u64,
}

/// What is needed to find out that retransmission was spurious, and to take its consequences back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Undo {
    /// TSval of the first retransmission and of the last.
    pub(crate) stamps: Option<(u32, u32)>,
    /// SND.UNA has moved since.
    pub(crate) answered: bool,
    /// Something was sent again.
    pub(crate) sent: bool,
    /// Retransmissions the peer has not reported as duplicates.
    pub(crate) retransmits: u32,
}

/// What every connection may queue for sending, even when all together hold too much.
const LEAST_SEND_BUFFER: usize = 16 << 10;

/// What a connection may queue for sending while its congestion window is small.
const INITIAL_SEND_BUFFER: u32 = 256 << 10;

/// A connection with what its application keeps.
pub(crate) struct Connection<C> {
    pub(crate) tcb: Tcb,
    /// `None` before ESTABLISHED.
    pub(crate) application: Option<C>,
}

/// The transmission control block (RFC 9293, section 3.3.1).
pub(crate) struct Tcb {
    pub(crate) key: FlowKey,
    pub(crate) link: LinkId,
    pub(crate) listener: Option<ListenerId>,
    pub(crate) state: State,

    /// SND.UNA: the first byte of the send queue, unless the SYN is not acknowledged.
    pub(crate) snd_una: SeqNumber,
    /// SND.NXT: never goes back; what is sent again, the scoreboard knows.
    pub(crate) snd_nxt: SeqNumber,
    /// SND.WND, in bytes.
    pub(crate) snd_wnd: u32,
    /// End of the last segment sent that was not full (Minshall).
    pub(crate) snd_sml: SeqNumber,
    /// The largest SND.WND seen.
    pub(crate) max_snd_wnd: u32,
    /// SND.WL1.
    pub(crate) snd_wl1: SeqNumber,
    /// SND.WL2.
    pub(crate) snd_wl2: SeqNumber,
    /// Snd.Wind.Shift (RFC 7323).
    pub(crate) snd_wind_shift: u8,
    /// Bytes of text in a full segment, options already subtracted.
    pub(crate) mss: u16,
    pub(crate) path_mtu: PathMtu,

    /// RCV.NXT.
    pub(crate) rcv_nxt: SeqNumber,
    /// The furthest RCV.NXT + RCV.WND that was offered.
    pub(crate) rcv_edge: SeqNumber,
    /// Rcv.Wind.Shift (RFC 7323).
    pub(crate) rcv_wind_shift: u8,
    /// The largest text received in one segment.
    pub(crate) rcv_mss: u16,
    /// Last.ACK.sent (RFC 7323).
    pub(crate) last_ack_sent: SeqNumber,
    /// The buffer the window is offered from; grows up to `receive_buffer`.
    pub(crate) rcv_buffer: u32,
    /// RCV.NXT and the time at which the present measurement of the peer's rate began.
    pub(crate) tuning_from: SeqNumber,
    pub(crate) tuning_since: Instant,
    /// A range received twice, to be reported with the next acknowledgment (RFC 2883).
    pub(crate) dsack: Option<SackBlock>,

    /// Timestamps were negotiated.
    pub(crate) timestamps: bool,
    /// SACK was negotiated.
    pub(crate) sack_permitted: bool,
    pub(crate) timestamp_offset: u32,
    /// TS.Recent.
    pub(crate) ts_recent: u32,
    /// When TS.Recent was set.
    pub(crate) ts_recent_age: Instant,

    /// The last segment passed the checks that a blind attacker fails.
    pub(crate) accepted: bool,
    /// An acknowledgment has to go out now.
    pub(crate) ack_now: bool,
    /// Segments of text to be acknowledged each by itself.
    pub(crate) quick_acks: u8,
    /// The application wants FIN sent after the queue.
    pub(crate) fin_queued: bool,
    /// FIN has been sent; it stands right before SND.NXT.
    pub(crate) fin_sent: bool,
    /// The peer's FIN has been received in order.
    pub(crate) fin_received: bool,
    /// The application was told of the peer's FIN.
    pub(crate) end_of_stream_told: bool,
    /// The application called close: what still comes is thrown away.
    pub(crate) read_closed: bool,
    /// The application called abort.
    pub(crate) abort: bool,
    /// The send buffer was found full; the application is told when there is room.
    pub(crate) wants_writable: bool,
    /// The engine has this connection in its list of those that could not send.
    pub(crate) output_pending: bool,
    /// It is in that list.
    pub(crate) output_queued: bool,
    /// The retransmission timer is a window probe's.
    pub(crate) persist: bool,
    /// The first unacknowledged segment has to be sent again.
    pub(crate) retransmit_head: bool,

    pub(crate) phase: Phase,
    /// Duplicate acknowledgments of a peer without SACK, each standing for a segment that arrived out of order.
    pub(crate) duplicate_acks: u16,
    pub(crate) keepalive_probes_sent: u8,
    pub(crate) keepalive: Keepalive,
    /// RecoveryPoint (RFC 6675): SND.NXT when the last recovery began.
    pub(crate) recovery_point: SeqNumber,
    /// When the SYN was sent, if that is known and it was sent only once.
    pub(crate) syn_sent_at: Option<Instant>,
    /// The congestion window was what ended the last sending.
    pub(crate) cwnd_limited: bool,
    pub(crate) scoreboard: Scoreboard,
    pub(crate) rack: Rack,
    pub(crate) prr: Prr,
    pub(crate) undo: Option<Undo>,
    /// SND.NXT when a tail loss probe was sent, and whether it was a retransmission (TLP.end_seq, TLP.is_retrans).
    pub(crate) tail_probe: Option<(SeqNumber, bool)>,
    pub(crate) rto: Rto,
    pub(crate) congestion: Controller,

    /// ECN was negotiated (RFC 3168).
    pub(crate) ecn: bool,
    /// A CE mark was received; acknowledgments carry ECE until the peer answers with CWR.
    pub(crate) ece_pending: bool,
    /// The window was reduced because of ECE; the next new segment carries CWR.
    pub(crate) cwr_pending: bool,
    /// SND.NXT when the window was last reduced because of ECE.
    pub(crate) cwr_point: SeqNumber,

    pub(crate) deadlines: Deadlines,
    /// When something was last received.
    pub(crate) last_received: Instant,
    /// When SND.UNA last moved or sending began after silence.
    pub(crate) progress_at: Instant,
    /// When something was last sent that occupies sequence space.
    pub(crate) last_sent: Instant,
    /// The second of the last challenge ACK, and how many were sent in it.
    challenge_second: u32,
    challenge_count: u32,

    /// What of `unread` and `send_queue` the engine's totals include.
    pub(crate) counted_unread: usize,
    pub(crate) counted_queued: usize,
    pub(crate) send_queue: SendQueue,
    /// In-order data the application has not consumed.
    pub(crate) unread: BytesMut,
    pub(crate) reassembly: Option<Box<Reassembly>>,
}

impl Tcb {
    /// Bytes of sequence space sent and not acknowledged.
    #[inline]
    pub(crate) fn flight(&self) -> u32 {
        self.snd_nxt - self.snd_una
    }

    /// Bytes queued and never sent.
    #[inline]
    pub(crate) fn unsent(&self) -> u32 {
        let flight = self.flight();
        let fin_in_flight = self.fin_sent && flight > 0;
        self.send_queue.len() as u32 - (flight - u32::from(fin_in_flight))
    }

    /// Bytes the application may have queued at the same time. With more than a few congestion windows, one that has
    /// filled them would hear from the connection only seconds later.
    #[inline]
    pub(crate) fn send_limit(&self, config: &Config, totals: &Totals) -> usize {
        let windows = self.congestion.window().saturating_mul(4);
        let own = config.send_buffer.min(windows.max(INITIAL_SEND_BUFFER)) as usize;
        // What was queued in this callback is not in the totals yet; it is bounded by the buffer itself.
        let shared = config.send_bytes_total.saturating_sub(totals.queued);
        let shared = usize::try_from(shared).unwrap_or(usize::MAX);
        own.min(self.send_queue.len().saturating_add(shared).max(LEAST_SEND_BUFFER))
    }

    /// Bytes the application may still queue.
    #[inline]
    pub(crate) fn send_space(&self, config: &Config, totals: &Totals) -> usize {
        if self.fin_queued || self.abort || !self.state.may_send() {
            return 0;
        }
        self.send_limit(config, totals).saturating_sub(self.send_queue.len())
    }

    /// Brings the engine's totals up to date.
    pub(crate) fn account(&mut self, totals: &mut Totals) {
        let (unread, queued) = (self.unread.len(), self.send_queue.len());
        totals.unread = totals.unread + unread as u64 - self.counted_unread as u64;
        totals.queued = totals.queued + queued as u64 - self.counted_queued as u64;
        self.counted_unread = unread;
        self.counted_queued = queued;
    }

    /// This connection's timestamp clock: milliseconds with an offset of its own.
    #[inline]
    pub(crate) fn timestamp_now(&self, now: Instant) -> u32 {
        (now.as_millis() as u32).wrapping_add(self.timestamp_offset)
    }

    #[inline]
    pub(crate) fn timestamps_option(&self, now: Instant) -> Option<Timestamps> {
        self.timestamps.then(|| Timestamps {
            value: self.timestamp_now(now),
            echo: self.ts_recent,
        })
    }

    /// Whether one more challenge ACK, or ACK to a segment outside of the window, may be sent in this second.
    pub(crate) fn allow_challenge(&mut self, now: Instant, rate: u32) -> bool {
        let second = (now.as_millis() / 1000) as u32;
        if self.challenge_second != second {
            self.challenge_second = second;
            self.challenge_count = 0;
        }
        self.challenge_count = self.challenge_count.saturating_add(1);
        self.challenge_count <= rate
    }
}
