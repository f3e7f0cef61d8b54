//! The receiver's state that a connection has only while it holds text it could not deliver, or has to report.

use super::Totals;
use super::unread::{self, Unread};
use crate::config::Config;
use crate::reassembly::Reassembly;
use crate::wire::options::SackBlock;

/// Received and not yet delivered, or not yet reported to the peer.
#[derive(Default)]
pub(crate) struct RecvState {
    /// In-order data the application has not consumed.
    pub(crate) unread: Unread,
    /// The memory of `unread` that the engine's totals include.
    pub(crate) counted_unread: usize,
    /// Text that arrived out of order; `None` if nothing is held.
    pub(crate) reassembly: Option<Reassembly>,
    /// A range received twice, to be reported with the next acknowledgment (RFC 2883).
    pub(crate) dsack: Option<SackBlock>,
}

impl RecvState {
    /// Whether something is missing before what is held, or a duplicate was received, of which the peer learns by an
    /// acknowledgment without text only.
    pub(crate) fn is_to_be_reported(&self) -> bool {
        self.reassembly.is_some() || self.dsack.is_some()
    }

    /// Whether there is nothing left to remember.
    pub(crate) fn is_empty(&self) -> bool {
        self.unread.is_empty() && self.counted_unread == 0 && self.reassembly.is_none() && self.dsack.is_none()
    }

    /// Keeps `text`, which came in order, behind what is unread. False: there is no memory for it, even though all that
    /// was held out of order was given up for it (RFC 2018, section 8), and nothing of it is kept. What a single
    /// segment leaves to a connection that has nothing else unread always finds memory.
    pub(crate) fn keep(&mut self, text: &[u8], config: &Config, totals: &mut Totals) -> bool {
        let needed = self.unread.memory_with(text.len());
        let own = usize::from(config.mtu) + unread::OVERHEAD;
        let own = if self.unread.is_empty() { own.max(needed) } else { own };
        let total = config.receive_bytes_total;
        let mut others = totals.received() - self.counted_unread as u64;
        let missing = (others + needed as u64).saturating_sub(total);
        if needed > own
            && missing > 0
            && let Some(reassembly) = &mut self.reassembly
        {
            let given_up = reassembly.give_up(usize::try_from(missing).unwrap_or(usize::MAX)) as u64;
            totals.reassembly -= given_up;
            others -= given_up;
            if reassembly.is_empty() {
                self.reassembly = None;
            }
        }
        let shared = usize::try_from(total.saturating_sub(others)).unwrap_or(usize::MAX);
        let limit = shared.max(own);
        if needed > limit {
            return false;
        }
        self.unread.push(text, limit);
        self.count(totals);
        true
    }

    /// Brings the totals up to date.
    #[inline]
    pub(crate) fn count(&mut self, totals: &mut Totals) {
        let memory = self.unread.memory();
        totals.unread = totals.unread + memory as u64 - self.counted_unread as u64;
        self.counted_unread = memory;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_for_it_covers_it() {
        // With the allocator's share of two allocations.
        let memory = size_of::<RecvState>() + 2 * 32;
        assert!(memory <= unread::OVERHEAD, "{memory} bytes");
    }
}
