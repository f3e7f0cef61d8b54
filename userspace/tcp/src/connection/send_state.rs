//! The sender's state that a connection has only while it has something to send or outstanding, or has learned
//! something of its path.
//!
//! Of many open connections few are sending at a time. An idle one gives this part of itself back to its engine, where
//! the next one that has something to send finds it, with the memory of its queues.

use core::ops::{Deref, DerefMut};
use core::time::Duration;

use super::timers::SendDeadlines;
use super::{PathMtu, Undo};
use crate::config::Config;
use crate::congestion::{CongestionControl, INITIAL_SSTHRESH, initial_window};
use crate::recovery::Phase;
use crate::recovery::frto::Frto;
use crate::recovery::prr::Prr;
use crate::recovery::rack::Rack;
use crate::recovery::scoreboard::Scoreboard;
use crate::send_queue::SendQueue;
use crate::seq::SeqNumber;
use crate::time::Instant;

/// The knowledge of a path is forgotten when nothing was sent for this long; RACK's least round-trip time is as old at
/// most.
const PATH_MEMORY: Duration = Duration::from_secs(300);

/// The sender's part of a transmission control block.
pub(crate) struct SendState {
    /// Text that the application has given and the peer has not acknowledged.
    pub(crate) send_queue: SendQueue,
    /// The part of the memory held by `send_queue` that the engine's totals include.
    pub(crate) counted_queued: usize,
    pub(crate) scoreboard: Scoreboard,
    pub(crate) deadlines: SendDeadlines,
    /// The value SND.UNA has to reach by `deadlines.user_timeout`.
    pub(crate) progress_point: SeqNumber,
    /// The time something was last sent that occupies sequence space; [`Instant::ZERO`]: nothing to remember.
    pub(crate) last_sent: Instant,
    /// End of the last segment sent that was not full (Minshall).
    pub(crate) snd_sml: Option<SeqNumber>,
    /// The retransmission timer is a window probe's.
    pub(crate) persist: bool,
    /// The congestion window was what ended the last sending.
    pub(crate) cwnd_limited: bool,
    /// The first unacknowledged segment has to be sent again.
    pub(crate) retransmit_head: bool,
    /// The window was reduced because of ECE; the next new segment carries CWR.
    pub(crate) cwr_pending: bool,
    pub(crate) phase: Phase,
    /// Duplicate acknowledgments of a peer without SACK, each standing for a segment that arrived out of order.
    pub(crate) duplicate_acks: u16,
    /// The pacing rate has let go all that was sent until then; [`Instant::ZERO`]: nothing is paced.
    pub(crate) paced_until: Instant,
    /// The fraction to be added to that, in microseconds times the rate: less than one.
    pub(crate) pace_rest: u64,
    /// `None` while the window is the initial one and has never limited sending.
    pub(crate) congestion: Option<Box<dyn CongestionControl>>,
    /// SND.NXT when a tail loss probe was sent, and whether it was a retransmission (TLP.end_seq, TLP.is_retrans).
    pub(crate) tail_probe: Option<(SeqNumber, bool)>,
    pub(crate) undo: Option<Undo>,
    /// The judgment of the last retransmission timeout, while it is open.
    pub(crate) frto: Frto,
    /// RecoveryPoint (RFC 6675): SND.NXT when the last recovery began.
    pub(crate) recovery_point: Option<SeqNumber>,
    /// SND.NXT when the window was last reduced because of ECE.
    pub(crate) cwr_point: Option<SeqNumber>,
    pub(crate) rack: Rack,
    pub(crate) prr: Prr,
    pub(crate) path_mtu: PathMtu,
    /// The time the SYN was sent, if that is known and it was sent only once.
    pub(crate) syn_sent_at: Option<Instant>,
}

/// The state that an idle connection reads as.
static IDLE: SendState = SendState::new();

impl Default for SendState {
    fn default() -> Self {
        Self::new()
    }
}

impl SendState {
    const fn new() -> Self {
        Self {
            send_queue: SendQueue::new(),
            counted_queued: 0,
            scoreboard: Scoreboard::new(),
            deadlines: SendDeadlines::NONE,
            progress_point: SeqNumber(0),
            last_sent: Instant::ZERO,
            snd_sml: None,
            persist: false,
            cwnd_limited: false,
            retransmit_head: false,
            cwr_pending: false,
            phase: Phase::Open,
            duplicate_acks: 0,
            paced_until: Instant::ZERO,
            pace_rest: 0,
            congestion: None,
            tail_probe: None,
            undo: None,
            frto: Frto::Off,
            recovery_point: None,
            cwr_point: None,
            rack: Rack::new(),
            prr: Prr::NONE,
            path_mtu: PathMtu::FULL_SIZE,
            syn_sent_at: None,
        }
    }

    /// Makes it as good as new, but for the memory of its queues.
    fn reset(&mut self) {
        // Every field by name, so that none is forgotten.
        let Self {
            send_queue,
            counted_queued,
            scoreboard,
            deadlines,
            progress_point,
            last_sent,
            snd_sml,
            persist,
            cwnd_limited,
            retransmit_head,
            cwr_pending,
            phase,
            duplicate_acks,
            paced_until,
            pace_rest,
            congestion,
            tail_probe,
            undo,
            frto,
            recovery_point,
            cwr_point,
            rack,
            prr,
            path_mtu,
            syn_sent_at,
        } = self;
        send_queue.clear();
        *counted_queued = 0;
        scoreboard.clear();
        *deadlines = SendDeadlines::NONE;
        *progress_point = SeqNumber(0);
        *last_sent = Instant::ZERO;
        *snd_sml = None;
        *persist = false;
        *cwnd_limited = false;
        *retransmit_head = false;
        *cwr_pending = false;
        *phase = Phase::Open;
        *duplicate_acks = 0;
        *paced_until = Instant::ZERO;
        *pace_rest = 0;
        *congestion = None;
        *tail_probe = None;
        *undo = None;
        *frto = Frto::Off;
        *recovery_point = None;
        *cwr_point = None;
        *rack = Rack::new();
        *prr = Prr::NONE;
        *path_mtu = PathMtu::FULL_SIZE;
        *syn_sent_at = None;
    }

    /// Whether an acknowledgment of everything outstanding can tell nothing of losses: there are none, nor probes for
    /// them. A recovery that is over can still turn out to have been needless, but only by a D-SACK.
    #[inline]
    pub(crate) fn is_undisturbed(&self) -> bool {
        self.phase == Phase::Open && self.tail_probe.is_none() && self.scoreboard.is_undisturbed()
    }

    /// Nothing is outstanding; what is queued still has to be acknowledged in time, and so does what an application has
    /// still to queue that waits for room (`more`): the queue holds little of it at a time.
    #[inline]
    pub(crate) fn stop_timers(&mut self, more: bool) {
        self.persist = false;
        self.deadlines.retransmit = Instant::NEVER;
        self.deadlines.probe = Instant::NEVER;
        self.deadlines.reorder = Instant::NEVER;
        if self.send_queue.len() == 0 && !more {
            self.deadlines.user_timeout = Instant::NEVER;
        }
    }

    /// Something is about to be queued where there was nothing: from now on the peer has `user_timeout` to acknowledge
    /// some of it.
    #[inline]
    pub(crate) fn begin_to_wait(&mut self, una: SeqNumber, now: Instant, config: &Config) {
        self.progress_point = una;
        self.deadlines.user_timeout = now + config.user_timeout;
    }

    /// From now on the peer has `user_timeout` to acknowledge what is queued, or `min_send_progress` bytes of it: a few
    /// octets at a time, or a window that opens and closes, do not keep a connection (RFC 9293, section 3.9.1.1, has
    /// all data acknowledged within the time, of which nothing would be left to a slow reader of a long queue). An
    /// application with `more` than the queue has room for has at least as much to be acknowledged, however little is
    /// queued at a time.
    #[inline]
    pub(crate) fn expect_progress(&mut self, una: SeqNumber, more: bool, now: Instant, config: &Config) {
        let queued = if more { usize::MAX } else { self.send_queue.len() };
        let expected = queued.min(config.min_send_progress as usize);
        self.progress_point = una + expected as u32;
        self.deadlines.user_timeout = now + config.user_timeout;
    }

    /// SND.UNA has moved to `una`, and something is still queued or outstanding, or the application has `more`.
    pub(crate) fn note_progress(&mut self, una: SeqNumber, more: bool, now: Instant, config: &Config) {
        if una.at_or_after(self.progress_point) {
            self.expect_progress(una, more, now, config);
        }
    }

    /// Whether nothing is being done, given that nothing is outstanding: nothing is queued, and nothing waits for the
    /// peer.
    fn is_idle(&self) -> bool {
        self.send_queue.len() == 0
            && self.counted_queued == 0
            && self.phase == Phase::Open
            && !self.retransmit_head
            && !self.cwr_pending
            && self.syn_sent_at.is_none()
            && self.deadlines.awaited() == Instant::NEVER
    }

    /// Whether the path has shown nothing that the next sending should know. What may have to be undone is in the
    /// congestion window.
    fn has_learned_nothing(&self, mss: u16) -> bool {
        let unused_window = |controller: &dyn CongestionControl| {
            controller.window() <= initial_window(u32::from(mss)) && controller.ssthresh() == INITIAL_SSTHRESH
        };
        self.tail_probe.is_none()
            && self.path_mtu.is_full_size()
            && !self.rack.has_learned()
            && self.congestion.as_deref().is_none_or(unused_window)
    }

    /// Forgets what the path has shown, if that is long ago.
    pub(crate) fn forget_path(&mut self, now: Instant) {
        if !self.is_idle() || now.since(self.last_sent) < PATH_MEMORY {
            return;
        }
        self.undo = None;
        self.tail_probe = None;
        self.rack = Rack::new();
        self.path_mtu.forget_suspicions();
        self.paced_until = Instant::ZERO;
        self.pace_rest = 0;
        self.congestion = None;
        self.scoreboard.forget_rate();
    }
}

/// A connection's [`SendState`], which it has only while it needs it. Without, it reads like a new one, and is made by
/// the first write; [`LazySendState::acquire`] before that saves the allocation.
#[derive(Default)]
pub(crate) struct LazySendState(Option<Box<SendState>>);

impl LazySendState {
    /// If the connection has it.
    #[inline]
    pub(crate) fn active(&self) -> Option<&SendState> {
        self.0.as_deref()
    }

    /// If the connection has it: for what is not worth making it.
    #[inline]
    pub(crate) fn active_mut(&mut self) -> Option<&mut SendState> {
        self.0.as_deref_mut()
    }

    /// Takes one from the pool, unless the connection has it.
    #[inline]
    pub(crate) fn acquire(&mut self, pool: &mut SendStatePool) {
        if self.0.is_none() {
            self.0 = Some(pool.take());
        }
    }

    /// Gives it back to the pool if the connection, of which nothing is outstanding, can do without.
    #[inline]
    pub(crate) fn release_if_expendable(&mut self, mss: u16, now: Instant, pool: &mut SendStatePool) {
        let Some(sending) = self.active_mut().filter(|sending| sending.is_idle()) else {
            return;
        };
        if sending.has_learned_nothing(mss) {
            pool.put(self);
        } else if sending.deadlines.forget == Instant::NEVER {
            let due = sending.last_sent + PATH_MEMORY;
            sending.deadlines.forget = if due > now { due } else { now + PATH_MEMORY };
        }
    }
}

impl Deref for LazySendState {
    type Target = SendState;

    #[inline]
    fn deref(&self) -> &SendState {
        self.0.as_deref().unwrap_or(&IDLE)
    }
}

impl DerefMut for LazySendState {
    #[inline]
    fn deref_mut(&mut self) -> &mut SendState {
        self.0.get_or_insert_with(without_pool)
    }
}

/// For the rare writes to an idle connection; kept out of the many places that write.
#[cold]
#[inline(never)]
fn without_pool() -> Box<SendState> {
    Box::default()
}

/// The maximum an engine keeps for connections to come: as many as begin and end to send in one burst, and more.
const MAX_SPARE: usize = 4096;

/// An engine's spare ones, as good as new.
#[derive(Default)]
pub(crate) struct SendStatePool(Vec<LazySendState>);

impl SendStatePool {
    fn take(&mut self) -> Box<SendState> {
        self.0.pop().and_then(|spare| spare.0).unwrap_or_default()
    }

    /// Gives back all of them.
    pub(crate) fn give_back(&mut self) {
        self.0 = Vec::new();
    }

    /// Takes back what the connection has, whatever is in it.
    #[inline]
    pub(crate) fn put(&mut self, sending: &mut LazySendState) {
        let Some(mut spare) = sending.0.take() else { return };
        if self.0.len() < MAX_SPARE {
            spare.reset();
            self.0.push(LazySendState(Some(spare)));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::congestion::Algorithm;

    const MSS: u16 = 1000;

    fn controller() -> Box<dyn CongestionControl> {
        Algorithm::CUBIC.start(u32::from(MSS))
    }

    #[test]
    fn reading_makes_nothing_and_writing_does() {
        let mut sending = LazySendState::default();
        assert_eq!(sending.send_queue.len(), 0);
        assert_eq!(sending.phase, Phase::Open);
        assert!(sending.active().is_none());
        sending.cwnd_limited = true;
        assert!(sending.active().is_some_and(|sending| sending.cwnd_limited));
    }

    #[test]
    fn what_comes_back_is_as_good_as_new() {
        let mut pool = SendStatePool::default();
        let mut sending = LazySendState::default();
        sending.acquire(&mut pool);
        sending.send_queue.push(Bytes::from_static(b"text"), None);
        sending
            .scoreboard
            .push(SeqNumber(0), SeqNumber(4), Instant::from_millis(1));
        sending.deadlines.retransmit = Instant::from_millis(2);
        sending.phase = Phase::Loss;
        sending.undo = Some(Undo::new(SeqNumber(0)));
        pool.put(&mut sending);
        assert!(sending.active().is_none());
        sending.acquire(&mut pool);
        assert!(pool.0.is_empty());
        assert!(
            sending
                .active()
                .is_some_and(|sending| sending.is_idle() && sending.has_learned_nothing(MSS))
        );
        assert_eq!(sending.scoreboard.len(), 0);
    }

    #[test]
    fn what_was_learned_is_kept() {
        let keeps = |learn: fn(&mut SendState)| {
            let mut pool = SendStatePool::default();
            let mut sending = LazySendState::default();
            sending.acquire(&mut pool);
            learn(&mut sending);
            sending.release_if_expendable(MSS, Instant::from_millis(5), &mut pool);
            sending.active().is_some()
        };
        assert!(!keeps(|_| {}));
        assert!(!keeps(|sending| sending.last_sent = Instant::from_millis(5)));
        assert!(!keeps(|sending| sending.congestion = Some(controller())));
        assert!(keeps(|sending| {
            let mut grown = controller();
            grown.set_window(20 * u32::from(MSS));
            sending.congestion = Some(grown);
        }));
        assert!(keeps(|sending| sending
            .send_queue
            .push(Bytes::from_static(b"text"), None)));
        assert!(keeps(|sending| sending.deadlines.fin_wait_2 = Instant::from_millis(5)));
        assert!(keeps(|sending| sending.rack.dsack(SeqNumber(0), SeqNumber(1))));
        assert!(!keeps(|sending| sending.undo = Some(Undo::new(SeqNumber(0)))));
        assert!(keeps(|sending| sending.tail_probe = Some((SeqNumber(0), true))));
        assert!(keeps(|sending| sending.cwr_pending = true));
    }

    #[test]
    fn what_was_learned_is_forgotten_after_minutes_of_silence() {
        let mut pool = SendStatePool::default();
        let mut sending = LazySendState::default();
        let start = Instant::from_millis(5000);
        sending.acquire(&mut pool);
        sending.last_sent = start;
        sending.undo = Some(Undo::new(SeqNumber(0)));
        sending.tail_probe = Some((SeqNumber(0), true));
        sending.rack.dsack(SeqNumber(0), SeqNumber(1));
        let mut small = controller();
        small.on_timeout(start, 10_000, false, u32::from(MSS));
        sending.congestion = Some(small);
        sending.release_if_expendable(MSS, start, &mut pool);
        let due = sending.deadlines.forget;
        assert_eq!(due, start + PATH_MEMORY);
        // Something was sent meanwhile.
        sending.last_sent = start + PATH_MEMORY / 2;
        sending.deadlines.forget = Instant::NEVER;
        sending.forget_path(due);
        sending.release_if_expendable(MSS, due, &mut pool);
        assert_eq!(sending.deadlines.forget, due + PATH_MEMORY / 2);
        let due = due + PATH_MEMORY / 2;
        sending.deadlines.forget = Instant::NEVER;
        sending.forget_path(due);
        sending.release_if_expendable(MSS, due, &mut pool);
        assert!(sending.active().is_none());
    }

    #[test]
    fn the_pool_is_bounded() {
        let mut pool = SendStatePool::default();
        for _ in 0..=MAX_SPARE {
            let mut sending = LazySendState(Some(Box::default()));
            pool.put(&mut sending);
        }
        assert_eq!(pool.0.len(), MAX_SPARE);
    }
}
