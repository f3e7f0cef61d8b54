//! What a connection takes over from earlier ones to the same peer, and leaves to later ones (RFC 9040).

use super::{Common, Context, Tcb};
use crate::congestion::{CongestionControl, INITIAL_SSTHRESH};
use crate::counters::Counter;
use crate::path_memory::{MIN_ACKED, Path};
use crate::recovery::Phase;
use crate::time::Instant;

impl Tcb {
    /// Begins with what is remembered of the path. To be called once, when the connection becomes ESTABLISHED. A
    /// round-trip time that this connection has measured is not touched, nor is the initial window.
    #[inline]
    pub(super) fn recall_path<T>(&mut self, context: &mut Context<'_, T>) {
        let common = context.config;
        let age = common.config.path_memory_age;
        if let Some(path) = common.paths.recall(&self.key.get().remote, context.now, age) {
            self.begin_with(path, context);
        }
    }

    #[inline(never)]
    fn begin_with<T>(&mut self, path: Path, context: &mut Context<'_, T>) {
        context.counters.bump(Counter::PathMemoryHits);
        self.rto.recall(path.srtt, path.rttvar);
    }

    /// What is remembered of reordering, for the first acknowledgment that can tell of losses: until then a connection
    /// needs no memory for it.
    #[inline]
    pub(super) fn recall_reordering(&mut self, common: &Common, now: Instant) {
        if !self.sending.rack.has_measured() {
            let path = common
                .paths
                .recall(&self.key.get().remote, now, common.config.path_memory_age);
            if let Some(path) = path.filter(|path| path.reordering > 0) {
                self.sending.rack.recall(path.reordering);
            }
        }
    }

    /// The slow start threshold to begin with, if it is to be remembered.
    pub(super) fn recalled_ssthresh(&self, common: &Common) -> Option<u32> {
        if !common.config.path_memory_ssthresh {
            return None;
        }
        let age = common.config.path_memory_age;
        // What was received last was not long ago.
        let path = common.paths.recall(&self.key.get().remote, self.last_received, age)?;
        (path.ssthresh > 0).then_some(path.ssthresh)
    }

    /// What this connection leaves to others; `None`: it has seen too little of its path.
    #[inline]
    fn learned_path(&self) -> Option<Path> {
        if self.bytes_acked() < MIN_ACKED {
            return None;
        }
        self.path()
    }

    #[inline(never)]
    fn path(&self) -> Option<Path> {
        let (srtt, rttvar) = self.rto.measured()?;
        let mut path = Path {
            srtt,
            rttvar,
            ..Path::default()
        };
        if let Some(sending) = self.sending.active() {
            path.reordering = sending.rack.observed_reordering();
            if sending.phase == Phase::Open {
                let controller = sending.congestion.as_deref();
                // A model of the path has a window, but no threshold.
                let controller = controller.filter(|controller| controller.path_model().is_none());
                path.ssthresh = controller.map_or(0, threshold);
            }
        }
        Some(path)
    }
}

impl Common {
    /// Remembers what a connection that ends has learned of its path.
    #[inline]
    pub(crate) fn learn_path(&mut self, tcb: &Tcb, now: Instant) {
        if let Some(path) = tcb.learned_path() {
            let age = self.config.path_memory_age;
            self.paths.learn(&tcb.key.get().remote, path, now, age);
        }
    }
}

/// The threshold a controller leaves behind: in congestion avoidance the window shows that the path has room for it. As
/// in Linux. 0: none.
fn threshold(controller: &dyn CongestionControl) -> u32 {
    let (window, ssthresh) = (controller.window(), controller.ssthresh());
    match ssthresh {
        INITIAL_SSTHRESH => 0,
        _ if window >= ssthresh => ssthresh.max(window / 2),
        _ => ssthresh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::congestion::Algorithm;
    use crate::connection::testing::tcb;

    /// A connection of which `acked` bytes were acknowledged.
    fn acknowledged(acked: u32) -> Tcb {
        let mut tcb = tcb(true, false, 0);
        let una = tcb.snd_una + acked + 1;
        tcb.set_una(una);
        tcb.snd_nxt = una;
        tcb
    }

    #[test]
    fn only_measurements_of_this_connection_and_enough_text_are_left_to_others() {
        let least = MIN_ACKED as u32;
        let mut tcb = acknowledged(least);
        assert_eq!(tcb.learned_path(), None);
        tcb.rto.recall(50_000, 10_000);
        assert_eq!(tcb.learned_path(), None);
        tcb.rto.sample_micros(40_000);
        let learned = Path {
            srtt: 40_000,
            rttvar: 20_000,
            ..Path::default()
        };
        assert_eq!(tcb.learned_path(), Some(learned));
        let mut little = acknowledged(least - 1);
        little.rto.sample_micros(40_000);
        assert_eq!(little.learned_path(), None);
    }

    #[test]
    fn a_threshold_is_what_congestion_left_or_half_of_what_was_reached_since() {
        let mut tcb = acknowledged(1 << 20);
        tcb.rto.sample_micros(40_000);
        let ssthresh = |tcb: &Tcb| tcb.learned_path().map(|path| path.ssthresh);
        tcb.sending.congestion = Some(Algorithm::RENO.start(1000));
        assert_eq!(ssthresh(&tcb), Some(0));
        let mut controller = Algorithm::RENO.start(1000);
        controller.on_congestion(crate::time::Instant::ZERO, 20_000, 1000);
        for (window, expected) in [(1_000, 5_000), (5_000, 5_000), (9_000, 5_000), (30_000, 15_000)] {
            controller.set_window(window);
            assert_eq!(threshold(&*controller), expected);
        }
        tcb.sending.congestion = Some(controller);
        assert_eq!(ssthresh(&tcb), Some(15_000));
        tcb.sending.phase = Phase::Loss;
        assert_eq!(ssthresh(&tcb), Some(0), "in the middle of a loss");
    }
}
