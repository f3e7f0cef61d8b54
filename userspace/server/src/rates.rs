//! The line `--stats-interval` prints.

use tidegate_runtime::Report;

/// Sums over all shards of what a rate is taken of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    opened: u64,
    rx_frames: u64,
    rx_bytes: u64,
    tx_frames: u64,
    tx_bytes: u64,
    dropped: u64,
    connections: u64,
    half_open: u64,
    time_wait: u64,
}

impl Totals {
    /// The sums of `report`.
    pub(crate) fn of(report: &Report) -> Self {
        let mut totals = Self::default();
        for shard in &report.shards {
            for (counter, value) in shard.tcp.iter() {
                match counter {
                    tidegate_tcp::counters::Counter::PassiveOpens => totals.opened += value,
                    other if other.name().starts_with("drop_") => totals.dropped += value,
                    _ => {}
                }
            }
            totals.rx_frames += shard.port.rx_frames;
            totals.rx_bytes += shard.port.rx_bytes;
            totals.tx_frames += shard.port.tx_frames;
            totals.tx_bytes += shard.port.tx_bytes;
            totals.connections += u64::from(shard.population.connections);
            totals.half_open += u64::from(shard.population.half_open);
            totals.time_wait += u64::from(shard.population.time_wait);
        }
        totals
    }

    /// One line: what happened per second in the `seconds` since `before`, and what there is now.
    pub(crate) fn line_since(&self, before: &Self, seconds: f64) -> String {
        let rate = |now: u64, before: u64| {
            if seconds > 0.0 {
                now.saturating_sub(before) as f64 / seconds
            } else {
                0.0
            }
        };
        format!(
            "tidegate: {:.0} connections/s, in {:.0} frames/s {:.1} MB/s, out {:.0} frames/s {:.1} MB/s, \
             dropped {:.0} segments/s; {} connections, {} half-open, {} in TIME-WAIT\n",
            rate(self.opened, before.opened),
            rate(self.rx_frames, before.rx_frames),
            rate(self.rx_bytes, before.rx_bytes) / 1e6,
            rate(self.tx_frames, before.tx_frames),
            rate(self.tx_bytes, before.tx_bytes) / 1e6,
            rate(self.dropped, before.dropped),
            self.connections,
            self.half_open,
            self.time_wait
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences_per_second_and_populations_are_not() {
        let before = Totals {
            opened: 100,
            rx_bytes: 1_000_000,
            connections: 7,
            ..Totals::default()
        };
        let now = Totals {
            opened: 300,
            rx_frames: 50,
            rx_bytes: 4_000_000,
            dropped: 2,
            connections: 5,
            half_open: 3,
            time_wait: 4,
            ..before
        };
        assert_eq!(
            now.line_since(&before, 2.0),
            "tidegate: 100 connections/s, in 25 frames/s 1.5 MB/s, out 0 frames/s 0.0 MB/s, dropped 1 segments/s; \
             5 connections, 3 half-open, 4 in TIME-WAIT\n"
        );
    }

    #[test]
    fn no_time_gives_no_rate() {
        let now = Totals {
            opened: 1,
            ..Totals::default()
        };
        assert!(
            now.line_since(&Totals::default(), 0.0)
                .starts_with("tidegate: 0 connections/s")
        );
    }
}
