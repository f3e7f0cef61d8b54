//! What happens to a connection when nothing arrives.

use super::send::Probe;
use super::{Connection, Context, Fate, Recovery, State, Tcb};
use crate::application::{Application, CloseReason};
use crate::config::Config;
use crate::congestion::CongestionControl;
use crate::counters::Counter;
use crate::time::Instant;
use crate::transmit::Transmit;

/// The deadlines of a connection; [`Instant::NEVER`] where a timer is not running. The wheel holds one entry per connection,
/// filed at or before the earliest of these.
pub(crate) struct Deadlines {
    /// Retransmission, or the window probe while `persist` is set.
    pub(crate) retransmit: Instant,
    pub(crate) delayed_ack: Instant,
    pub(crate) keepalive: Instant,
    pub(crate) fin_wait_2: Instant,
    pub(crate) application: Instant,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            retransmit: Instant::NEVER,
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
    }

    /// Starts waiting for keepalive, from the last segment received.
    pub(crate) fn start_keepalive(&mut self, config: &Config) {
        if !config.keepalive_idle.is_zero() {
            self.deadlines.keepalive = self.last_received + config.keepalive_idle;
        }
    }

    /// Whether the peer has left data, FIN or probes without an answer for too long (RFC 9293, section 3.8.3).
    fn user_timeout_passed(&self, now: Instant, config: &Config) -> bool {
        now.since(self.progress_at) >= config.user_timeout
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
        if due(&mut self.tcb.deadlines.fin_wait_2, now) && self.tcb.state == State::FinWait2 {
            return Fate::Closed(CloseReason::TimedOut);
        }
        if due(&mut self.tcb.deadlines.retransmit, now) {
            if self.tcb.user_timeout_passed(now, context.config) {
                self.tcb.send_reset(context);
                return Fate::Closed(CloseReason::TimedOut);
            }
            self.retransmission_timeout(context);
        }
        if due(&mut self.tcb.deadlines.keepalive, now) && !self.keepalive(context) {
            self.tcb.send_reset(context);
            return Fate::Closed(CloseReason::TimedOut);
        }
        if due(&mut self.tcb.deadlines.delayed_ack, now) {
            self.tcb.ack_now = true;
        }
        if due(&mut self.tcb.deadlines.application, now) {
            self.call(context, |state, socket| application.timeout(state, socket));
            self.offer_unread(application, context);
        }
        self.finish(context)
    }

    fn retransmission_timeout<T: Transmit>(&mut self, context: &mut Context<'_, T>) {
        let tcb = &mut self.tcb;
        if tcb.persist {
            tcb.persist = false;
            context.counters.bump(Counter::WindowProbes);
            tcb.send_probe(Probe::Window, context);
            tcb.rto.back_off();
            tcb.start_persist_timer(context.now, context.config);
            return;
        }
        if tcb.flight() == 0 {
            return;
        }
        let repeated = tcb.rto.backoffs() > 0;
        tcb.congestion.on_timeout(tcb.flight(), repeated, u32::from(tcb.mss));
        tcb.rto.back_off();
        // Karn's algorithm: what is sent again is not timed.
        tcb.timed = None;
        tcb.recovery = Recovery::Timeout;
        tcb.recover = tcb.snd_nxt;
        tcb.high_rxt = tcb.snd_una;
        tcb.duplicate_acks = 0;
        tcb.retransmit_head = false;
        tcb.restart_retransmit_timer(context.now, context.config);
        context.counters.bump(Counter::RtoRetransmits);
    }

    /// Sends a keepalive probe if the peer has been silent long enough (RFC 9293, section 3.8.4); false when it has left all
    /// of them unanswered.
    fn keepalive<T: Transmit>(&mut self, context: &mut Context<'_, T>) -> bool {
        let tcb = &mut self.tcb;
        let config = context.config;
        let idle_until = tcb.last_received + config.keepalive_idle;
        if idle_until > context.now {
            tcb.keepalive_probes_sent = 0;
            tcb.deadlines.keepalive = idle_until;
            return true;
        }
        if tcb.flight() > 0 {
            // The retransmission timer watches over the peer.
            tcb.deadlines.keepalive = context.now + config.keepalive_interval;
            return true;
        }
        if tcb.keepalive_probes_sent >= config.keepalive_probes {
            return false;
        }
        tcb.keepalive_probes_sent += 1;
        context.counters.bump(Counter::KeepaliveProbes);
        tcb.send_probe(Probe::Keepalive, context);
        tcb.deadlines.keepalive = context.now + config.keepalive_interval;
        true
    }
}
