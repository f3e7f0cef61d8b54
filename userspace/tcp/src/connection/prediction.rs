//! Header prediction (Van Jacobson, 1990): of an open connection nearly every segment is the one that was expected. Whether
//! it is, a few comparisons say, and then most of what RFC 9293, section 3.10.7.4, has to be looked at is settled.

use super::{Connection, Context, State, Tcb};
use crate::application::Application;
use crate::counters::Counter;
use crate::seq::SeqNumber;
use crate::wire::{Flags, Segment};

impl Tcb {
    /// Whether the segment is in order, acknowledges all that was sent, and has nothing else to it but text that fits the
    /// window.
    #[inline]
    fn is_plainly_next(&self, segment: &Segment<'_>) -> bool {
        let timestamps_fit = || match segment.options.timestamps {
            Some(timestamps) => SeqNumber(timestamps.value).at_or_after(SeqNumber(self.ts_recent)),
            None => false,
        };
        segment.flags | Flags::PSH == Flags::ACK | Flags::PSH
            && segment.seq == self.rcv_nxt
            && segment.ack == self.snd_nxt
            && segment.payload.len() as u32 <= self.rcv_edge.saturating_since(self.rcv_nxt)
            && !segment.congestion_experienced
            && segment.options.sack.is_empty()
            && (!self.timestamps || timestamps_fit())
    }

    /// Whether the segment is the next one in order, with nothing but an acknowledgment of all that was sent and text that
    /// fits the window, on a connection of which nothing is lost, held back, closed or waited for.
    #[inline]
    pub(crate) fn predicts(&self, segment: &Segment<'_>) -> bool {
        self.state == State::Established
            && self.is_plainly_next(segment)
            && !(self.wants_writable | self.read_closed | self.abort)
            && self.receiving.is_none()
            && self.sending.active().is_none_or(|sending| sending.is_undisturbed())
    }

    /// Whether the segment completes the handshake of a listener's connection, and does so as nearly all do.
    #[inline]
    pub(crate) fn predicts_establishment(&self, segment: &Segment<'_>) -> bool {
        self.state == State::SynReceived
            && self.listener.is_some()
            && self.is_plainly_next(segment)
            && self.sending.active().is_none()
    }
}

impl<C> Connection<C> {
    /// Takes in a segment that [`Tcb::predicts`]: what [`Connection::segment_arrives`] does with one then.
    #[inline]
    pub(crate) fn predicted_arrives<A, T>(
        &mut self,
        segment: &Segment<'_>,
        application: &mut A,
        context: &mut Context<'_, T>,
    ) where
        A: Application<Connection = C>,
    {
        let tcb = &mut self.tcb;
        let flight = tcb.flight();
        if flight > 0 {
            tcb.take_full_acknowledgment(segment, flight, context);
        }
        tcb.update_send_window(segment, u32::from(segment.window) << tcb.snd_wind_shift, context);
        self.predicted_text(segment, application, context);
    }

    /// Takes in a segment that [`Tcb::predicts_establishment`], likewise.
    #[inline]
    pub(crate) fn predicted_establishes<A, T>(
        &mut self,
        segment: &Segment<'_>,
        application: &mut A,
        context: &mut Context<'_, T>,
    ) where
        A: Application<Connection = C>,
    {
        let tcb = &mut self.tcb;
        tcb.snd_una = segment.ack;
        (tcb.snd_wl1, tcb.snd_wl2) = (segment.seq, segment.ack);
        tcb.snd_wnd = u32::from(segment.window) << tcb.snd_wind_shift;
        tcb.max_snd_wnd = tcb.snd_wnd;
        context.counters.bump(Counter::PassiveOpens);
        self.establish(application, context);
        self.predicted_text(segment, application, context);
    }

    #[inline]
    fn predicted_text<A, T>(&mut self, segment: &Segment<'_>, application: &mut A, context: &mut Context<'_, T>)
    where
        A: Application<Connection = C>,
    {
        let tcb = &mut self.tcb;
        tcb.accept(context.now);
        tcb.update_ts_recent(segment, context.now);
        if !segment.payload.is_empty() {
            tcb.note_segment_size(segment.payload.len());
            self.deliver(segment.payload, application, context);
            self.tcb.schedule_ack(context);
        }
    }
}
