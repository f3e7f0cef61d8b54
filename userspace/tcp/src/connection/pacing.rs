//! Pacing: where congestion control gives a rate, text leaves at that rate instead of in bursts.

use super::Tcb;
use crate::congestion::Sent;
use crate::recovery::delivery_rate::DeliveryRate;
use crate::time::Instant;

/// The time by which a sender may be ahead of its rate, or behind it and catch up, in microseconds: timers are no
/// finer.
const MAX_AHEAD: u64 = 1_000;

impl Tcb {
    /// Whether the pacing rate holds text back. If so it is sent when the timer fires that this starts.
    #[inline]
    pub(crate) fn is_held_back(&mut self, now: Instant) -> bool {
        let held_back = self.is_ahead(now);
        if held_back && let Some(sending) = self.sending.active_mut() {
            // The timer comes up to a tick later, at which a millisecond's worth leaves.
            let paced_until = sending.paced_until.as_micros();
            sending.deadlines.pace = Instant::from_micros(paced_until.saturating_sub(MAX_AHEAD));
        }
        held_back
    }

    /// Whether more has been sent than the pacing rate lets go.
    #[inline]
    pub(crate) fn is_ahead(&self, now: Instant) -> bool {
        self.sending.paced_until > now.plus_micros(MAX_AHEAD)
    }

    /// Whether text that is held back would, with the `flight` bytes that were outstanding, fill `window`: a sender
    /// that is paced uses its window no less than one that is not (RFC 9002, section 7.8).
    pub(crate) fn is_paced_below(&self, window: u32, flight: u32) -> bool {
        self.sending.deadlines.pace != Instant::NEVER
            && flight.saturating_add(self.unsent()).min(self.snd_wnd) >= window
    }

    /// Tells congestion control, if there is any yet, of a segment with `bytes` of text that was sent (`again`).
    #[inline]
    pub(crate) fn note_sent(&mut self, bytes: u32, again: bool, now: Instant) {
        if bytes > 0 && self.sending.congestion.is_some() {
            self.pace(bytes, again, now);
        }
    }

    fn pace(&mut self, bytes: u32, again: bool, now: Instant) {
        let sent = Sent {
            now,
            bytes,
            flight: self.flight(),
            snd_nxt: self.snd_nxt,
            again,
            app_limited: self.sending.scoreboard.rate().is_some_and(DeliveryRate::is_app_limited),
        };
        let mss = u32::from(self.mss);
        let sending = &mut *self.sending;
        let Some(controller) = &mut sending.congestion else {
            return;
        };
        controller.on_sent(&sent, mss);
        if let Some(rate) = controller.pacing_rate() {
            let behind = Instant::from_micros(now.as_micros().saturating_sub(MAX_AHEAD));
            // Of a segment that takes two microseconds, a part of one is much.
            let rate = rate.max(1);
            let owed = u64::from(bytes) * 1_000_000 + sending.pace_rest.min(rate - 1);
            let takes = owed / rate;
            sending.pace_rest = owed % rate;
            sending.paced_until = sending.paced_until.max(behind).plus_micros(takes);
        }
    }
}
