//! What congestion control is told of the delivery rate, and of losses one by one, if it goes by them.

use core::time::Duration;

use super::{Context, State, Tcb};
use crate::congestion::{Delivery, LossContext};
use crate::time::Instant;

impl Tcb {
    /// Whether the delivery rate is measured, since the controller wants it.
    #[inline]
    pub(crate) fn measures_rate(&self) -> bool {
        self.sending.scoreboard.rate().is_some()
    }

    /// Whether the controller sets the window during fast recovery.
    pub(crate) fn controller_drives_recovery(&self) -> bool {
        let controller = self.sending.congestion.as_deref();
        controller.is_some_and(|controller| controller.drives_recovery())
    }

    /// Where the application has nothing to send although the window would let it go, the rate measured from now on is
    /// the application's (`CheckIfApplicationLimited`, draft-ietf-ccwg-bbr, section 4.1.2.4).
    #[inline]
    pub(crate) fn check_app_limited(&mut self) {
        if self.measures_rate() {
            self.look_for_text();
        }
    }

    fn look_for_text(&mut self) {
        // A sample that nobody has asked for is of no use to the next acknowledgment.
        if let Some(rate) = self.sending.scoreboard.rate_mut() {
            rate.forget_newest();
        }
        // A handshake's timeout may have made the controller.
        if matches!(self.state, State::SynSent | State::SynReceived) {
            return;
        }
        if self.unsent() > 0 || self.sending.scoreboard.lost() > 0 {
            return;
        }
        let in_flight = self.pipe();
        if in_flight < self.cwnd()
            && let Some(rate) = self.sending.scoreboard.rate_mut()
        {
            rate.mark_app_limited(in_flight);
        }
    }

    /// An acknowledgment delivered `bytes`; its round-trip time is in microseconds.
    #[inline]
    pub(crate) fn note_delivered(&mut self, bytes: u32, rtt: Option<u64>, now: Instant) {
        let sending = self.sending.active_mut();
        if let Some(rate) = sending.and_then(|sending| sending.scoreboard.rate_mut()) {
            rate.deliver(bytes, rtt.map(Duration::from_micros), now);
        }
    }

    /// Tells the controller of the losses found since this was last called.
    #[inline]
    pub(crate) fn report_losses<T>(&mut self, context: &Context<'_, T>) {
        if self.measures_rate() {
            self.report_each_loss(context.now);
        }
    }

    fn report_each_loss(&mut self, now: Instant) {
        let (mss, selective) = (u32::from(self.mss), self.sack_permitted);
        let sending = &mut *self.sending;
        let (Some(rate), Some(controller)) = (sending.scoreboard.rate_mut(), &mut sending.congestion) else {
            return;
        };
        let losses = rate.take_losses();
        let context = LossContext {
            now,
            delivered: rate.delivered(),
            selective,
        };
        for lost in &losses {
            controller.on_lost(lost, &context, mss);
        }
        rate.give_back(losses);
    }

    /// The rate sample of the acknowledgment that was told of by [`Tcb::note_delivered`].
    #[inline]
    pub(crate) fn take_delivery(&mut self, now: Instant) -> Option<Delivery> {
        if !self.measures_rate() {
            return None;
        }
        let (in_flight, selective) = (self.pipe(), self.sack_permitted);
        let rate = self.sending.scoreboard.rate_mut()?;
        Some(Delivery {
            delivered: rate.delivered(),
            in_flight,
            selective,
            sample: rate.take_sample(now),
        })
    }
}
