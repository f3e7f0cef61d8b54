//! The receive window: how much the peer may send (RFC 9293, section 3.8.6).

use core::time::Duration;

use super::{Context, Tcb, Totals, tuning_units};
use crate::config::Config;
use crate::seq::SeqNumber;
use crate::time::Instant;

/// The buffer that is offered while all connections together hold nearly as much as they may.
const MIN_RECEIVE_BUFFER: u32 = 16 << 10;

/// A peer that takes so long, and eight round trips, to fill half of the buffer has been idle, or has no use for so
/// much.
const IDLE: Duration = Duration::from_secs(1);

/// Round trips shorter than the clock's ticks and the peer's bursts are all alike.
const TUNING_SLACK: Duration = Duration::from_millis(5);

impl Tcb {
    /// The end of the receive window if all free buffer were offered.
    fn free_edge(&self, buffer: u32) -> SeqNumber {
        self.rcv_nxt + buffer.saturating_sub(self.unread() as u32)
    }

    /// The buffer this connection may fill: its own, the least when all connections together hold nearly as much as
    /// they may, and a segment when they do.
    fn effective_buffer<T>(&self, context: &Context<'_, T>) -> u32 {
        let (totals, config) = (&*context.totals, context.config);
        if !totals.is_receive_pressure(config) {
            self.rcv_buffer
        } else if totals.received() < config.receive_bytes_total {
            self.rcv_buffer.min(MIN_RECEIVE_BUFFER)
        } else {
            self.rcv_buffer.min(u32::from(config.mtu))
        }
    }

    /// The least step by which a window of at most `buffer` bytes is opened (RFC 9293, section 3.8.6.2.2).
    fn window_step(&self, buffer: u32, segments: u32) -> u32 {
        (buffer / 2).min(segments * u32::from(self.rcv_mss))
    }

    /// Whether consuming has freed enough to be worth telling the peer.
    pub(crate) fn window_may_open<T>(&self, context: &Context<'_, T>) -> bool {
        let buffer = self.effective_buffer(context);
        self.free_edge(buffer).saturating_since(self.rcv_edge) >= self.window_step(buffer, 2)
    }

    /// The window field for a segment sent now. The right edge never moves back, and forward only by a worthwhile step
    /// (RFC 9293, sections 3.8.6 and 3.8.6.2.2).
    pub(crate) fn offer_window<T>(&mut self, context: &Context<'_, T>) -> u16 {
        let buffer = self.effective_buffer(context);
        let free = self.free_edge(buffer);
        let edge = if free.saturating_since(self.rcv_edge) >= self.window_step(buffer, 1) {
            free
        } else {
            self.rcv_edge
        };
        let window = edge.saturating_since(self.rcv_nxt);
        let field = (window >> self.rcv_wind_shift).min(u32::from(u16::MAX));
        self.rcv_edge = self.rcv_edge.max(self.rcv_nxt + (field << self.rcv_wind_shift));
        field as u16
    }

    /// Enlarges the receive buffer while the peer fills half of it within two round trips, so that a long fat path is
    /// used and a slow connection is not given what it does not need. It becomes what it was in the beginning when the
    /// peer was idle, or when memory is short.
    #[inline]
    pub(crate) fn tune_receive_buffer<T>(&mut self, context: &Context<'_, T>) {
        if self.rcv_nxt - self.tuning_from >= self.rcv_buffer / 2 {
            self.measured_half_a_buffer(context.now, context.config, context.totals);
        }
    }

    fn measured_half_a_buffer(&mut self, now: Instant, config: &Config, totals: &Totals) {
        // A peer that only sends may never have been measured: its SYN-ACK was sent twice, or was a cookie.
        let taken = self.quiet_for(now);
        if totals.is_receive_pressure(config) || taken >= 8 * self.srtt() + IDLE {
            self.rcv_buffer = self.rcv_buffer.min(config.receive_buffer_initial);
        } else if taken <= 2 * self.srtt() + TUNING_SLACK && self.unread() < self.rcv_buffer as usize / 2 {
            self.rcv_buffer = (self.rcv_buffer * 2).min(config.receive_buffer);
        }
        self.lifetime.measured(self.tuning_from, self.rcv_nxt);
        self.tuning_from = self.rcv_nxt;
        self.tuning_since = tuning_units(now);
    }
}

/// The window offered with a SYN-ACK that answers a listener's SYN; it is never scaled (RFC 7323, section 2.2).
pub(crate) fn syn_ack_window(config: &Config) -> u16 {
    config
        .receive_buffer_initial
        .min(config.receive_buffer)
        .min(u32::from(u16::MAX)) as u16
}

/// The shift that lets a 16-bit window field cover `buffer` bytes (RFC 7323, section 2.3).
pub(crate) fn window_shift(buffer: u32) -> u8 {
    let bits = u32::BITS - buffer.leading_zeros();
    bits.saturating_sub(16).min(14) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shift_covers_the_buffer() {
        for buffer in [1, 65_535, 65_536, 1 << 20, (1 << 20) + 1, 1 << 30] {
            let shift = window_shift(buffer);
            assert!(
                u64::from(u16::MAX) << shift >= u64::from(buffer) - (1 << shift),
                "{buffer}"
            );
            assert!(shift == 0 || u64::from(u16::MAX) << (shift - 1) < u64::from(buffer));
        }
    }
}
