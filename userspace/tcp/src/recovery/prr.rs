//! Proportional rate reduction (RFC 6937, RFC 9937): spreads the reduction of the window over the acknowledgments of a
//! recovery.

/// State of one recovery, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prr {
    delivered: u32,
    out: u32,
    /// RecoverFS: what was outstanding when recovery began.
    recover_fs: u32,
}

impl Prr {
    /// Outside of recovery.
    pub(crate) const NONE: Self = Self {
        delivered: 0,
        out: 0,
        recover_fs: 0,
    };

    /// A recovery begins with `flight` bytes outstanding.
    pub(crate) fn new(flight: u32) -> Self {
        Self {
            recover_fs: flight.max(1),
            ..Self::NONE
        }
    }

    /// An acknowledgment told of `delivered` bytes, leaving `pipe` in the network; returns the congestion window.
    /// `safe`: it moved SND.UNA and showed no further loss.
    pub(crate) fn window(&mut self, delivered: u32, pipe: u32, ssthresh: u32, safe: bool, mss: u32) -> u32 {
        self.delivered = self.delivered.saturating_add(delivered);
        let mut send = if pipe > ssthresh {
            let target = u64::from(self.delivered) * u64::from(ssthresh);
            let target = target.div_ceil(u64::from(self.recover_fs)).min(u64::from(u32::MAX)) as u32;
            target.saturating_sub(self.out)
        } else {
            // PRR-SSRB: slow start back to ssthresh while there is no further loss, otherwise what was delivered.
            let mut limit = self.delivered.saturating_sub(self.out).max(delivered);
            if safe {
                limit = limit.saturating_add(mss);
            }
            limit.min(ssthresh - pipe)
        };
        if self.out == 0 && send == 0 {
            // The fast retransmit itself.
            send = mss;
        }
        pipe.saturating_add(send)
    }

    /// `bytes` were sent during the recovery.
    #[inline]
    pub(crate) fn sent(&mut self, bytes: u32) {
        self.out = self.out.saturating_add(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    #[test]
    fn sends_half_of_what_is_delivered_down_to_half_of_the_window() {
        let mut prr = Prr::new(20 * MSS);
        let ssthresh = 10 * MSS;
        let mut pipe = 19 * MSS;
        let mut sent = 0;
        for _ in 0..19 {
            let window = prr.window(MSS, pipe, ssthresh, false, MSS);
            while window >= pipe + MSS {
                pipe += MSS;
                sent += 1;
                prr.sent(MSS);
            }
            pipe -= MSS;
        }
        assert!((9..=11).contains(&sent), "{sent}");
    }

    #[test]
    fn heavy_loss_is_repaired_by_slow_start_up_to_ssthresh() {
        let mut prr = Prr::new(20 * MSS);
        let window = prr.window(MSS, MSS, 10 * MSS, true, MSS);
        assert_eq!(window, 3 * MSS);
        prr.sent(2 * MSS);
        assert!(prr.window(2 * MSS, 9 * MSS, 10 * MSS, true, MSS) <= 10 * MSS);
    }

    #[test]
    fn the_first_retransmission_is_always_allowed() {
        let mut prr = Prr::new(4 * MSS);
        assert_eq!(prr.window(0, 10 * MSS, 2 * MSS, false, MSS), 11 * MSS);
    }
}
