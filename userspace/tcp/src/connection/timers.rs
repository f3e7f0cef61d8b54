//! Timers: the events of a connection when nothing arrives.

use super::keepalive::KeepaliveTable;
use super::send::Probe;
use super::{Connection, Context, Outcome, State, Tcb, Undo};
use crate::application::{Application, CloseReason};
use crate::counters::Counter;
use crate::recovery::rto::Bounds;
use crate::recovery::{LossDetection, Phase};
use crate::time::Instant;
use crate::transmit::Transmit;

/// The longest a peer may delay its acknowledgment, for tail loss probes (RFC 8985, section 7.2: TLP.max_ack_delay); in
/// microseconds.
const MAX_ACK_DELAY: u64 = 200_000;

/// The least time before a tail loss probe: a few ticks of the wheel; in microseconds.
const MIN_PROBE_TIMEOUT: u64 = 10_000;

/// An instant less than half an hour before or after one that is known, in 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NearInstant(u32);

impl NearInstant {
    /// [`Instant::NEVER`].
    pub(crate) const NEVER: Self = Self(0);

    /// This instant, or one a microsecond later.
    #[inline]
    pub(crate) fn new(instant: Instant) -> Self {
        Self((instant.as_micros() as u32).max(1))
    }

    /// Whether it is another than [`NearInstant::NEVER`].
    #[inline]
    pub(crate) fn is_set(self) -> bool {
        self != Self::NEVER
    }

    /// The instant, which is near `known`.
    #[inline]
    pub(crate) fn near(self, known: Instant) -> Instant {
        if !self.is_set() {
            return Instant::NEVER;
        }
        let distance = self.0.wrapping_sub(known.as_micros() as u32) as i32;
        Instant::from_micros(known.as_micros().saturating_add_signed(i64::from(distance)))
    }
}

/// The deadlines of a connection; [`Instant::NEVER`] where a timer is not running. The wheel holds one entry per
/// connection, filed at or before the earliest of these, of [`SendDeadlines`] and of [`Tcb::delayed_ack`].
pub(crate) struct Deadlines {
    pub(crate) keepalive: Instant,
    pub(crate) application: Instant,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            keepalive: Instant::NEVER,
            application: Instant::NEVER,
        }
    }
}

/// The deadlines an idle connection does not have; [`Instant::NEVER`] where a timer is not running.
pub(crate) struct SendDeadlines {
    /// Retransmission, or the window probe while `persist` is set.
    pub(crate) retransmit: Instant,
    /// Tail loss probe (RFC 8985, section 7).
    pub(crate) probe: Instant,
    /// RACK's reordering window (RFC 8985, section 6.2).
    pub(crate) reorder: Instant,
    /// By when the peer has to have acknowledged enough of what is queued (RFC 9293, section 3.8.3). It runs whatever
    /// becomes of the other timers, since what the peer sends can put those off.
    pub(crate) user_timeout: Instant,
    /// In FIN-WAIT-2 for the peer's FIN; in TIME-WAIT and CLOSED for the application to read what is left.
    pub(crate) fin_wait_2: Instant,
    /// The pacing rate lets go what it held back.
    pub(crate) pace: Instant,
    /// Forgetting what was learned of the path.
    pub(crate) forget: Instant,
}

impl SendDeadlines {
    /// No timer is running.
    pub(crate) const NONE: Self = Self {
        retransmit: Instant::NEVER,
        probe: Instant::NEVER,
        reorder: Instant::NEVER,
        user_timeout: Instant::NEVER,
        fin_wait_2: Instant::NEVER,
        pace: Instant::NEVER,
        forget: Instant::NEVER,
    };

    /// The earliest; [`Instant::NEVER`] when no timer is running.
    #[inline]
    pub(crate) fn earliest(&self) -> Instant {
        self.awaited().min(self.forget).min(self.pace)
    }

    /// The earliest of those that wait for the peer.
    #[inline]
    pub(crate) fn awaited(&self) -> Instant {
        let sending = self.retransmit.min(self.probe).min(self.reorder);
        sending.min(self.user_timeout).min(self.fin_wait_2)
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
    /// The earliest deadline; `None` when no timer is running.
    #[inline]
    pub(crate) fn earliest_deadline(&self) -> Option<Instant> {
        let Deadlines { keepalive, application } = self.deadlines;
        let mut earliest = keepalive.min(application);
        if self.delayed_ack.is_set() {
            earliest = earliest.min(self.delayed_ack.near(self.last_received));
        }
        if let Some(sending) = self.sending.active() {
            earliest = earliest.min(sending.deadlines.earliest());
        }
        (earliest != Instant::NEVER).then_some(earliest)
    }

    /// Starts the retransmission timer if it is not running (RFC 6298, rule 5.1).
    #[inline]
    pub(crate) fn start_retransmit_timer(&mut self, now: Instant, bounds: Bounds) {
        let timeout = self.rto.timeout_micros(bounds);
        let sending = &mut *self.sending;
        if sending.deadlines.retransmit == Instant::NEVER || sending.persist {
            sending.persist = false;
            sending.deadlines.retransmit = now.plus_micros(timeout);
        }
    }

    /// Starts the retransmission timer anew (RFC 6298, rule 5.3).
    #[inline]
    pub(crate) fn restart_retransmit_timer(&mut self, now: Instant, bounds: Bounds) {
        let timeout = self.rto.timeout_micros(bounds);
        let sending = &mut *self.sending;
        sending.persist = false;
        sending.deadlines.retransmit = now.plus_micros(timeout);
    }

    /// Starts probing the peer's window, if it is not being probed.
    pub(crate) fn start_persist_timer(&mut self, now: Instant, bounds: Bounds) {
        if !self.sending.persist {
            self.restart_retransmit_timer(now, bounds);
            self.sending.persist = true;
        }
    }

    /// Nothing is outstanding and nothing waits for the peer's window.
    #[inline]
    pub(crate) fn stop_retransmit_timer(&mut self) {
        let more = self.has_more();
        if let Some(sending) = self.sending.active_mut() {
            sending.stop_timers(more);
        }
    }

    /// Schedules a tail loss probe (RFC 8985, section 7.2), unless the retransmission timer comes first.
    pub(crate) fn schedule_probe<T>(&mut self, context: &Context<'_, T>) {
        let flight = self.flight();
        let sending = &mut *self.sending;
        sending.deadlines.probe = Instant::NEVER;
        let wanted = context.config.loss_detection == LossDetection::Rack
            && self.sack_permitted
            && sending.phase == Phase::Open
            && sending.tail_probe.is_none()
            && sending.scoreboard.sacked() == 0
            && flight > 0
            && !sending.persist;
        let Some(srtt) = self.rto.srtt_micros().filter(|_| wanted) else {
            return;
        };
        let mut timeout = 2 * u64::from(srtt);
        if sending.scoreboard.len() == 1 {
            timeout += MAX_ACK_DELAY;
        }
        let deadline = context.now.plus_micros(timeout.max(MIN_PROBE_TIMEOUT));
        if deadline < sending.deadlines.retransmit {
            sending.deadlines.probe = deadline;
        }
    }

    /// Starts waiting for keepalive, from the last segment received.
    pub(crate) fn start_keepalive(&mut self, settings: &KeepaliveTable) {
        let keepalive = settings.get(self.keepalive);
        if !keepalive.idle.is_zero() {
            self.deadlines.keepalive = self.last_received + keepalive.idle;
        }
    }

    /// Takes one of the sender's deadlines if it has passed.
    fn sending_due(&mut self, now: Instant, deadline: fn(&mut SendDeadlines) -> &mut Instant) -> bool {
        let sending = self.sending.active_mut();
        sending.is_some_and(|sending| due(deadline(&mut sending.deadlines), now))
    }

    fn retransmission_timeout<T: Transmit>(&mut self, context: &mut Context<'_, T>) {
        if self.sending.persist {
            self.sending.persist = false;
            if self.send_small(context) {
                return;
            }
            context.counters.bump(Counter::WindowProbes);
            self.send_probe(Probe::Window, context);
            self.rto.back_off();
            self.start_persist_timer(context.now, context.rto_bounds);
            return;
        }
        if self.flight() == 0 {
            return;
        }
        context.counters.bump(Counter::Timeouts);
        let repeated = self.rto.backoffs() > 0;
        let (flight, mss) = (self.flight(), u32::from(self.mss));
        self.congestion(context.config)
            .on_timeout(context.now, flight, repeated, mss);
        let (round_trips, frto) = (self.round_trips(), self.frto_at_timeout(repeated));
        let sending = &mut *self.sending;
        sending.frto = frto;
        if context.config.loss_detection == LossDetection::Rack && self.sack_permitted && !repeated {
            sending
                .rack
                .timeout(&mut sending.scoreboard, round_trips, mss, context.now);
        } else {
            sending.scoreboard.mark_all_lost();
        }
        self.report_losses(context);
        self.rto.back_off();
        self.avoid_black_hole(context);
        let sending = &mut *self.sending;
        if !repeated {
            sending.undo = Some(Undo::new(self.snd_una));
        }
        sending.phase = Phase::Loss;
        // The earliest segment is sent again whatever else is thought to be in the network (RFC 6298, rule 5.4).
        sending.retransmit_head = sending.scoreboard.len() > 0;
        sending.recovery_point = Some(self.snd_nxt);
        sending.duplicate_acks = 0;
        sending.tail_probe = None;
        sending.syn_sent_at = None;
        sending.deadlines.probe = Instant::NEVER;
        sending.deadlines.reorder = Instant::NEVER;
        self.restart_retransmit_timer(context.now, context.rto_bounds);
    }

    /// Sends a keepalive probe if the peer has been silent long enough (RFC 9293, section 3.8.4); false when it has
    /// left all of them unanswered.
    fn keepalive_due<T: Transmit>(&mut self, context: &mut Context<'_, T>) -> bool {
        let keepalive = context.keepalives.get(self.keepalive);
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
    pub(crate) fn timer_fired<A, T>(&mut self, application: &mut A, context: &mut Context<'_, T>) -> Outcome
    where
        A: Application<Connection = C>,
        T: Transmit,
    {
        let now = context.now;
        let tcb = &mut self.tcb;
        tcb.check_app_limited();
        let waits = matches!(tcb.state, State::FinWait2 | State::TimeWait | State::Closed);
        if tcb.sending_due(now, |deadlines| &mut deadlines.fin_wait_2) && waits {
            return Outcome::Closed(CloseReason::TimedOut);
        }
        let waited = tcb.sending_due(now, |deadlines| &mut deadlines.user_timeout);
        if waited && tcb.awaits_acknowledgment() {
            if tcb.last_received + context.config.user_timeout > now {
                context.counters.bump(Counter::TimedOutSlow);
            }
            tcb.send_reset(context);
            return Outcome::Closed(CloseReason::TimedOut);
        }
        if tcb.sending_due(now, |deadlines| &mut deadlines.reorder) && tcb.flight() > 0 {
            let lost_again = tcb.rack_loss(now);
            if tcb.needs_recovery(lost_again) {
                tcb.begin_recovery(tcb.flight(), context);
                if !tcb.controller_drives_recovery() {
                    tcb.reduce_window(0, false, context.config);
                }
            }
            tcb.report_losses(context);
        }
        let probe = tcb.sending_due(now, |deadlines| &mut deadlines.probe);
        if probe && tcb.flight() > 0 && tcb.sending.phase == Phase::Open {
            tcb.send_tail_probe(context);
        }
        // What was held back leaves at the end of this.
        tcb.sending_due(now, |deadlines| &mut deadlines.pace);
        if tcb.sending_due(now, |deadlines| &mut deadlines.forget) && tcb.flight() == 0 {
            tcb.forget_path(now, context.config);
        }
        if tcb.sending_due(now, |deadlines| &mut deadlines.retransmit) {
            tcb.retransmission_timeout(context);
        }
        if due(&mut tcb.deadlines.keepalive, now) && !tcb.keepalive_due(context) {
            tcb.send_reset(context);
            return Outcome::Closed(CloseReason::TimedOut);
        }
        if tcb.delayed_ack.near(tcb.last_received) <= now {
            tcb.delayed_ack = NearInstant::NEVER;
            tcb.ack_now = true;
        }
        if due(&mut tcb.deadlines.application, now) {
            self.call(context, |state, socket| application.timeout(state, socket));
            self.offer_unread(application, context);
        }
        self.flush_output(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_instant_near_a_known_one_is_told_to_the_microsecond(
            known in 1_u64 << 32..1 << 60,
            distance in -0x7fff_fffe_i64..0x7fff_fffe,
        ) {
            let instant = Instant::from_micros(known.saturating_add_signed(distance));
            let near = NearInstant::new(instant);
            prop_assert!(near.is_set());
            let told = near.near(Instant::from_micros(known));
            // None of them ends in zeros only.
            let late = u64::from(instant.as_micros() as u32 == 0);
            prop_assert_eq!(told, instant.plus_micros(late));
        }
    }

    #[test]
    fn zeros_only_are_told_a_microsecond_later() {
        let wrap = Instant::from_micros(7 << 32);
        assert_eq!(NearInstant::new(wrap).near(wrap), wrap.plus_micros(1));
        assert_eq!(NearInstant::NEVER.near(wrap), Instant::NEVER);
    }
}
