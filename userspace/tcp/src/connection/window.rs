//! The receive window: how much the peer may send (RFC 9293, section 3.8.6).

use core::time::Duration;

use super::{Context, Tcb};
use crate::config::Config;
use crate::seq::SeqNumber;
use crate::time::Instant;

/// What every connection may buffer, even when all together hold too much.
const LEAST_RECEIVE_BUFFER: u32 = 16 << 10;

/// Round trips shorter than the clock's ticks and the peer's bursts are all alike.
const TUNING_SLACK: Duration = Duration::from_millis(5);

impl Tcb {
    /// Where the receive window would end if all free buffer were offered.
    fn free_edge(&self, buffer: u32) -> SeqNumber {
        self.rcv_nxt + buffer.saturating_sub(self.unread() as u32)
    }

    /// The buffer this connection may fill: its own, or the least when all connections together hold too much.
    fn effective_buffer<T>(&self, context: &Context<'_, T>) -> u32 {
        if context.totals.unread >= context.config.receive_bytes_total {
            self.rcv_buffer.min(LEAST_RECEIVE_BUFFER)
        } else {
            self.rcv_buffer
        }
    }

    /// The least step by which the window is opened (RFC 9293, section 3.8.6.2.2).
    fn window_step(&self, segments: u32) -> u32 {
        (self.rcv_buffer / 2).min(segments * u32::from(self.rcv_mss))
    }

    /// Whether consuming has freed enough to be worth telling the peer.
    pub(crate) fn window_may_open<T>(&self, context: &Context<'_, T>) -> bool {
        let free = self.free_edge(self.effective_buffer(context));
        free.saturating_since(self.rcv_edge) >= self.window_step(2)
    }

    /// The window field for a segment sent now. The right edge never moves back, and forward only by a worthwhile step
    /// (RFC 9293, sections 3.8.6 and 3.8.6.2.2).
    pub(crate) fn offer_window<T>(&mut self, context: &Context<'_, T>) -> u16 {
        let free = self.free_edge(self.effective_buffer(context));
        let edge = if free.saturating_since(self.rcv_edge) >= self.window_step(1) {
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
    /// used and an idle or slow connection is not given what it does not need.
    pub(crate) fn tune_receive_buffer(&mut self, now: Instant, config: &Config) {
        if self.rcv_nxt - self.tuning_from < self.rcv_buffer / 2 {
            return;
        }
        // A peer that only sends may never have been measured: its SYN-ACK was sent twice, or was a cookie.
        let quick = now.since(self.tuning_since) <= 2 * self.srtt() + TUNING_SLACK;
        if quick && self.unread() < self.rcv_buffer as usize / 2 {
            self.rcv_buffer = (self.rcv_buffer * 2).min(config.receive_buffer);
        }
        self.tuning_from = self.rcv_nxt;
        self.tuning_since = now;
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
