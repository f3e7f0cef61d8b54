//! What happens to a connection when nothing arrives.

use core::time::Duration;

use super::send::Probe;
use super::{Connection, Context, Fate, State, Tcb, Undo};
use crate::application::{Application, CloseReason};
use crate::config::Config;
use crate::congestion::CongestionControl;
use crate::counters::Counter;
use crate::recovery::{LossDetection, Phase};
use crate::time::Instant;
use crate::transmit::Transmit;

/// The longest a peer may delay its acknowledgment, for tail loss probes (RFC 8985, section 7.2: TLP.max_ack_delay).
const MAX_ACK_DELAY: Duration = Duration::from_millis(200);

/// The least time before a tail loss probe: a few ticks of the wheel.
const MIN_PROBE_TIMEOUT: Duration = Duration::from_millis(10);

/// The deadlines of a connection; [`Instant::NEVER`] where a timer is not running. The wheel holds one entry per connection,
/// filed at or before the earliest of these.
pub(crate) struct Deadlines {
    /// Retransmission, or the window probe while `persist` is set.
    pub(crate) retransmit: Instant,
    /// Tail loss probe (RFC 8985, section 7).
    pub(crate) probe: Instant,
    /// RACK's reordering window (RFC 8985, section 6.2).
    pub(crate) reorder: Instant,
    pub(crate) delayed_ack: Instant,
    pub(crate) keepalive: Instant,
    /// In FIN-WAIT-2 for the peer's FIN; in TIME-WAIT and CLOSED for the application to read what is left.
    pub(crate) fin_wait_2: Instant,
    pub(crate) application: Instant,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            retransmit: Instant::NEVER,
            probe: Instant::NEVER,
            reorder: Instant::NEVER,
            delayed_ack: Instant::NEVER,
            keepalive: Instant::NEVER,
            fin_wait_2: Instant::NEVER,
            application: Instant::NEVER,
        }
    }
}

impl Deadlines {
    /// The earliest; `None` when no timer is running.
    #[inline]
    pub(crate) fn earliest(&self) -> Option<Instant> {
        let earliest = self
            .retransmit
            .min(self.probe)
            .min(self.reorder)
            .min(self.delayed_ack)
            .min(self.keepalive)
            .min(self.fin_wait_2)
            .min(self.application);
        (earliest != Instant::NEVER).then_some(earliest)
    }
}

/// Takes a deadline that has passed.
fn due(deadline: &mut Instant, now: Instant) -> bool {
    let due = *deadline <= now;
    if due {
        *deadline = Instant::NEVER;
    }
    due
}

impl Tcb {
    /// Starts the retransmission timer if it is not running (RFC 6298, rule 5.1).
    #[inline]
    pub(crate) fn start_retransmit_timer(&mut self, now: Instant, config: &Config) {
        if self.deadlines.retransmit == Instant::NEVER || self.persist {
            self.restart_retransmit_timer(now, config);
        }
    }

    /// Starts the retransmission timer anew (RFC 6298, rule 5.3).
    #[inline]
    pub(crate) fn restart_retransmit_timer(&mut self, now: Instant, config: &Config) {
        self.persist = false;
        self.deadlines.retransmit = now + self.rto.timeout(config.rto_max);
    }

    /// Starts probing the peer's window, if it is not being probed.
    pub(crate) fn start_persist_timer(&mut self, now: Instant, config: &Config) {
        if !self.persist {
            self.persist = true;
            self.deadlines.retransmit = now + self.rto.timeout(config.rto_max);
        }
    }

    /// Nothing is outstanding and nothing waits for the peer's window.
    #[inline]
    pub(crate) fn stop_retransmit_timer(&mut self) {
        self.persist = false;
        self.deadlines.retransmit = Instant::NEVER;
        self.deadlines.probe = Instant::NEVER;
        self.deadlines.reorder = Instant::NEVER;
    }

    /// Schedules a tail loss probe (RFC 8985, section 7.2), unless the retransmission timer comes first.
    pub(crate) fn schedule_probe<T>(&mut self, context: &Context<'_, T>) {
        self.deadlines.probe = Instant::NEVER;
        let wanted = context.config.loss_detection == LossDetection::Rack
            && self.sack_permitted
            && self.phase == Phase::Open
            && self.tail_probe.is_none()
            && self.scoreboard.sacked() == 0
            && self.flight() > 0
            && !self.persist;
        let Some(srtt) = self.rto.srtt().filter(|_| wanted) else {
            return;
        };
        let mut timeout = 2 * srtt;
        if self.scoreboard.len() == 1 {
            timeout += MAX_ACK_DELAY;
        }
        let deadline = context.now + timeout.max(MIN_PROBE_TIMEOUT);
        if deadline < self.deadlines.retransmit {
            self.deadlines.probe = deadline;
        }
    }

    /// Starts waiting for keepalive, from the last segment received.
    pub(crate) fn start_keepalive(&mut self) {
        if !self.keepalive.idle.is_zero() {
            self.deadlines.keepalive = self.last_received + self.keepalive.idle;
        }
    }

    /// Whether the peer has left data, FIN or probes without an answer for too long (RFC 9293, section 3.8.3).
    fn user_timeout_passed(&self, now: Instant, config: &Config) -> bool {
        now.since(self.progress_at) >= config.user_timeout
    }

    fn retransmission_timeout<T: Transmit>(&mut self, context: &mut Context<'_, T>) {
        if self.persist {
            self.persist = false;
            if self.send_small(context) {
                return;
            }
            context.counters.bump(Counter::WindowProbes);
            self.send_probe(Probe::Window, context);
            self.rto.back_off();
            self.start_persist_timer(context.now, context.config);
            return;
        }
        if self.flight() == 0 {
            return;
        }
        context.counters.bump(Counter::Timeouts);
        let repeated = self.rto.backoffs() > 0;
        let (flight, mss) = (self.flight(), u32::from(self.mss));
        self.congestion.on_timeout(context.now, flight, repeated, mss);
        if context.config.loss_detection == LossDetection::Rack && self.sack_permitted && !repeated {
            let srtt = self.srtt();
            self.rack.timeout(&mut self.scoreboard, srtt, mss, context.now);
        } else {
            self.scoreboard.mark_all_lost();
        }
        self.rto.back_off();
        self.avoid_black_hole(context);
        if !repeated {
            self.undo = Some(Undo::default());
        }
        self.phase = Phase::Loss;
        self.recovery_point = self.snd_nxt;
        self.duplicate_acks = 0;
        self.tail_probe = None;
        self.syn_sent_at = None;
        self.deadlines.probe = Instant::NEVER;
        self.deadlines.reorder = Instant::NEVER;
        self.restart_retransmit_timer(context.now, context.config);
    }

    /// Sends a keepalive probe if the peer has been silent long enough (RFC 9293, section 3.8.4); false when it has left all
    /// of them unanswered.
    fn keepalive_due<T: Transmit>(&mut self, context: &mut Context<'_, T>) -> bool {
        let keepalive = self.keepalive;
        let idle_until = self.last_received + keepalive.idle;
        if idle_until > context.now {
            self.keepalive_probes_sent = 0;
            self.deadlines.keepalive = idle_until;
            return true;
        }
        self.deadlines.keepalive = context.now + keepalive.interval;
        if self.flight() > 0 {
            // The retransmission timer watches over the peer.
            return true;
        }
        if self.keepalive_probes_sent >= keepalive.probes {
            return false;
        }
        self.keepalive_probes_sent += 1;
        context.counters.bump(Counter::KeepaliveProbes);
        self.send_probe(Probe::Keepalive, context);
        true
    }
}

impl<C> Connection<C> {
    /// Handles the deadlines that have passed.
    pub(crate) fn timer_fired<A, T>(&mut self, application: &mut A, context: &mut Context<'_, T>) -> Fate
    where
        A: Application<Connection = C>,
        T: Transmit,
    {
        let now = context.now;
        let tcb = &mut self.tcb;
        let waits = matches!(tcb.state, State::FinWait2 | State::TimeWait | State::Closed);
        if due(&mut tcb.deadlines.fin_wait_2, now) && waits {
            return Fate::Closed(CloseReason::TimedOut);
        }
        if due(&mut tcb.deadlines.reorder, now) && tcb.flight() > 0 {
            tcb.rack_loss(now);
            if tcb.phase == Phase::Open && tcb.scoreboard.lost() > 0 {
                tcb.begin_recovery(tcb.flight(), context);
                let (pipe, mss) = (tcb.pipe(), u32::from(tcb.mss));
                let cwnd = tcb.prr.window(0, pipe, tcb.congestion.ssthresh(), false, mss);
                tcb.congestion.set_window(cwnd.max(mss));
            }
        }
        if due(&mut tcb.deadlines.probe, now) && tcb.flight() > 0 && tcb.phase == Phase::Open {
            tcb.send_tail_probe(context);
        }
        if due(&mut tcb.deadlines.retransmit, now) {
            if tcb.user_timeout_passed(now, context.config) {
                tcb.send_reset(context);
                return Fate::Closed(CloseReason::TimedOut);
            }
            tcb.retransmission_timeout(context);
        }
        if due(&mut tcb.deadlines.keepalive, now) && !tcb.keepalive_due(context) {
            tcb.send_reset(context);
            return Fate::Closed(CloseReason::TimedOut);
        }
        if due(&mut tcb.deadlines.delayed_ack, now) {
            tcb.ack_now = true;
        }
        if due(&mut tcb.deadlines.application, now) {
            self.call(context, |state, socket| application.timeout(state, socket));
            self.offer_unread(application, context);
        }
        self.finish(context)
    }
}
