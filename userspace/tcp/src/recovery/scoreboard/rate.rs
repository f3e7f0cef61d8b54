//! The delivery rate of what is outstanding, for congestion control that goes by it.

use super::Scoreboard;
use crate::recovery::delivery_rate::DeliveryRate;

impl Scoreboard {
    /// Bytes outstanding that are neither selectively acknowledged nor lost.
    pub(super) fn in_flight(&self) -> u32 {
        match (self.segments.front(), self.segments.back()) {
            (Some(first), Some(last)) => (last.end - first.seq).saturating_sub(self.sacked + self.lost),
            _ => 0,
        }
    }

    /// Measures the delivery rate from now on, with what is outstanding.
    pub(crate) fn measure_rate(&mut self) {
        let mut rate = DeliveryRate::new(self.first);
        let mut in_flight = 0;
        for segment in &self.segments {
            in_flight += segment.length();
            rate.sent(in_flight, segment.length(), segment.first_sent_at());
        }
        self.rate = Some(Box::new(rate));
    }

    /// Measures the delivery rate no more.
    pub(crate) fn forget_rate(&mut self) {
        self.rate = None;
    }

    /// The delivery rate, if it is measured.
    #[inline]
    pub(crate) fn rate(&self) -> Option<&DeliveryRate> {
        self.rate.as_deref()
    }

    /// The delivery rate, if it is measured.
    #[inline]
    pub(crate) fn rate_mut(&mut self) -> Option<&mut DeliveryRate> {
        self.rate.as_deref_mut()
    }

    /// The segments before `self.first` are acknowledged.
    #[inline]
    pub(super) fn release_rate(&mut self) {
        if let Some(rate) = &mut self.rate {
            rate.release(self.first);
        }
    }
}
