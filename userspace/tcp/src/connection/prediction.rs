//! Header prediction (Van Jacobson, 1990): of an open connection nearly every segment is the one that was expected.
//! Whether it is, a few comparisons say, and then most of what RFC 9293, section 3.10.7.4, has to be looked at is
//! settled.

#[cfg(debug_assertions)]
use core::cell::Cell;

use super::{Connection, Context, State, Tcb};
use crate::application::Application;
use crate::counters::Counter;
use crate::seq::SeqNumber;
use crate::wire::{Flags, Segment};

#[cfg(debug_assertions)]
thread_local! {
    static SWITCHED_OFF: Cell<bool> = const { Cell::new(false) };
}

/// Runs `action` while header prediction is switched off in this thread, so that every segment takes the long way. For
/// the test that compares the two; a release has no such switch.
#[cfg(debug_assertions)]
pub fn without_prediction<R>(action: impl FnOnce() -> R) -> R {
    let before = SWITCHED_OFF.replace(true);
    let result = action();
    SWITCHED_OFF.set(before);
    result
}

impl Tcb {
    /// Whether the segment is in order, acknowledges all that was sent, and has nothing else to it but `flags`, with or
    /// without PSH, and text that fits the window.
    #[inline]
    fn is_plainly_next(&self, segment: &Segment<'_>, flags: Flags) -> bool {
        let timestamps_fit = || match segment.options.timestamps {
            Some(timestamps) => SeqNumber(timestamps.value).at_or_after(SeqNumber(self.ts_recent)),
            None => false,
        };
        !is_switched_off()
            && segment.flags | Flags::PSH == flags | Flags::PSH
            && segment.seq == self.rcv_nxt
            && segment.ack == self.snd_nxt
            && segment.payload.len() as u32 <= self.rcv_edge.saturating_since(self.rcv_nxt)
            && !segment.congestion_experienced
            && segment.options.sack.is_empty()
            && (!self.timestamps || timestamps_fit())
    }

    /// Whether the segment is the next one in order, with nothing but an acknowledgment of all that was sent and text
    /// that fits the window, on a connection of which nothing is lost, held back, closed or waited for.
    #[inline]
    fn predicts(&self, segment: &Segment<'_>) -> bool {
        self.state == State::Established
            && self.is_plainly_next(segment, Flags::ACK)
            && !(self.wants_writable | self.read_closed | self.abort)
            && self.receiving.is_none()
            && self.sending.active().is_none_or(|sending| sending.is_undisturbed())
    }

    /// Whether the segment completes the handshake of a listener's connection, which is in SYN-RECEIVED, and does so as
    /// nearly all do.
    #[inline]
    fn predicts_establishment(&self, segment: &Segment<'_>) -> bool {
        self.listener().is_some() && self.is_plainly_next(segment, Flags::ACK) && self.sending.active().is_none()
    }

    /// Whether the segment is the peer's FIN after this side's, which it acknowledges or which was acknowledged before
    /// (FIN-WAIT-1 and FIN-WAIT-2), with nothing else to it. That the application may want to write makes no difference
    /// any more.
    #[inline]
    fn predicts_end(&self, segment: &Segment<'_>) -> bool {
        self.is_plainly_next(segment, Flags::FIN | Flags::ACK)
            && segment.payload.is_empty()
            && self.rcv_edge.after(self.rcv_nxt)
            && !self.abort
            && self.receiving.is_none()
            && self.sending.active().is_none_or(|sending| sending.is_undisturbed())
    }

    /// Takes in the acknowledgment of a segment that is predicted.
    #[inline]
    fn take_predicted<T>(&mut self, segment: &Segment<'_>, context: &mut Context<'_, T>) {
        let flight = self.flight();
        if flight > 0 {
            self.take_full_acknowledgment(segment, flight, context);
        }
        let window = u32::from(segment.window) << self.snd_wind_shift;
        self.update_send_window(segment, window, flight > 0, context);
    }

    /// Takes in the acknowledgment of this side's SYN.
    #[inline]
    fn take_establishing<T>(&mut self, segment: &Segment<'_>, context: &mut Context<'_, T>) {
        self.set_una(segment.ack);
        self.snd_wl1 = segment.seq;
        self.snd_wnd = u32::from(segment.window) << self.snd_wind_shift;
        self.max_snd_wnd = self.snd_wnd;
        context.counters.bump(Counter::PassiveOpens);
    }

    /// Notes what every predicted segment says beside its acknowledgment.
    #[inline(always)]
    fn note_predicted<T>(&mut self, segment: &Segment<'_>, context: &mut Context<'_, T>) {
        context.counters.bump(Counter::PredictedIn);
        self.accept(context.now);
        self.update_ts_recent(segment, context.now);
        if !segment.payload.is_empty() {
            self.note_segment_size(segment.payload.len());
        }
    }
}

/// Whether every segment is to take the long way.
#[inline]
fn is_switched_off() -> bool {
    #[cfg(debug_assertions)]
    return SWITCHED_OFF.get();
    #[cfg(not(debug_assertions))]
    false
}

impl<C> Connection<C> {
    /// Takes in a segment of an open connection if it is one that was expected, as [`Connection::segment_arrives`]
    /// would go on to do. False: it is another, and nothing has changed.
    #[inline(always)]
    pub(super) fn take_if_predicted<A, T>(
        &mut self,
        segment: &Segment<'_>,
        application: &mut A,
        context: &mut Context<'_, T>,
    ) -> bool
    where
        A: Application<Connection = C>,
    {
        if !self.tcb.predicts(segment) {
            return false;
        }
        self.tcb.take_predicted(segment, context);
        self.tcb.note_predicted(segment, context);
        if !segment.payload.is_empty() {
            self.deliver_directly(segment.payload, application, context);
            self.tcb.schedule_ack(context);
        }
        true
    }

    /// As [`Connection::take_if_predicted`], for the segment that completes the handshake of a listener's connection,
    /// and for that which ends a connection this side has closed.
    #[inline]
    pub(super) fn take_if_predicted_once<A, T>(
        &mut self,
        segment: &Segment<'_>,
        application: &mut A,
        context: &mut Context<'_, T>,
    ) -> bool
    where
        A: Application<Connection = C>,
    {
        match self.tcb.state {
            State::SynReceived if self.tcb.predicts_establishment(segment) => {
                self.tcb.take_establishing(segment, context);
                self.establish(application, context);
                self.tcb.note_predicted(segment, context);
                if !segment.payload.is_empty() {
                    // The application may have closed the connection that it was just told of.
                    self.deliver(segment.payload, application, context);
                    self.tcb.schedule_ack(context);
                }
            }
            State::FinWait1 | State::FinWait2 if self.tcb.predicts_end(segment) => {
                self.tcb.take_predicted(segment, context);
                self.tcb.state = State::FinWait2;
                self.tcb.note_predicted(segment, context);
                self.fin(context);
                self.offer_unread(application, context);
                self.tcb.schedule_ack(context);
            }
            _ => return false,
        }
        true
    }
}
