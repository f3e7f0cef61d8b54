//! Header prediction (Van Jacobson, 1990): of an open connection nearly every segment is the one that was expected. Whether
//! it is, a few comparisons say, and then most of what RFC 9293, section 3.10.7.4, has to be looked at is settled.

use super::{Connection, Context, State, Tcb};
use crate::application::Application;
use crate::seq::SeqNumber;
use crate::wire::{Flags, Segment};

impl Tcb {
    /// Whether the segment is the next one in order, with nothing but an acknowledgment of all that was sent and text that
    /// fits the window, on a connection of which nothing is lost, held back, closed or waited for.
    #[inline]
    pub(crate) fn predicts(&self, segment: &Segment<'_>) -> bool {
        let timestamps_fit = || match segment.options.timestamps {
            Some(timestamps) => SeqNumber(timestamps.value).at_or_after(SeqNumber(self.ts_recent)),
            None => false,
        };
        self.state == State::Established
            && segment.flags | Flags::PSH == Flags::ACK | Flags::PSH
            && segment.seq == self.rcv_nxt
            && segment.ack == self.snd_nxt
            && segment.payload.len() as u32 <= self.rcv_edge.saturating_since(self.rcv_nxt)
            && !(segment.congestion_experienced | self.wants_writable | self.read_closed | self.abort)
            && segment.options.sack.is_empty()
            && self.receiving.is_none()
            && (!self.timestamps || timestamps_fit())
            && self.sending.active().is_none_or(|sending| sending.is_undisturbed())
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
        tcb.accept(context.now);
        tcb.update_ts_recent(segment, context.now);
        if !segment.payload.is_empty() {
            tcb.note_segment_size(segment.payload.len());
            self.deliver(segment.payload, application, context);
            self.tcb.schedule_ack(context);
        }
    }
}
