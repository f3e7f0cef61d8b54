//! Frames that arrived on another queue than that of their connection's shard.

use tidegate_runtime::ShardReport;
use tidegate_tcp::counters::Counter;

/// The frames that were handed from shard to shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Misrouted {
    /// Frames that arrived, each counted once.
    pub(crate) arrived: u64,
    /// The number of times one of them was shown to a further engine after that of the shard it arrived at.
    pub(crate) visits: u64,
}

impl Misrouted {
    /// Returns the numbers of all shards together.
    pub(crate) fn of(shards: &[ShardReport]) -> Self {
        let arrived: u64 = shards.iter().map(|shard| shard.port.rx_frames).sum();
        let shown: u64 = shards.iter().map(|shard| shard.tcp.get(Counter::FramesIn)).sum();
        Self {
            arrived,
            visits: shown.saturating_sub(arrived),
        }
    }

    /// A sentence if it is more than one in ten.
    pub(crate) fn warning(self) -> Option<String> {
        let Self { arrived, visits } = self;
        (visits > arrived / 10).then(|| {
            format!(
                "frames arrived on another queue than their connection's and were handed over, {visits} times for \
                 {arrived} frames, so the client may be the limit"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use tidegate_runtime::PortCounters;
    use tidegate_tcp::counters::Counters;

    use super::*;

    fn shard(arrived: u64, shown: u64) -> ShardReport {
        let mut tcp = Counters::default();
        tcp.add(Counter::FramesIn, shown);
        ShardReport {
            tcp,
            port: PortCounters {
                rx_frames: arrived,
                ..PortCounters::default()
            },
            ..ShardReport::default()
        }
    }

    #[test]
    fn visits_are_what_engines_saw_beyond_what_arrived() {
        let found = Misrouted::of(&[shard(100, 130), shard(50, 40)]);
        assert_eq!(
            found,
            Misrouted {
                arrived: 150,
                visits: 20
            }
        );
        assert_eq!(Misrouted::of(&[shard(7, 7)]).visits, 0);
        assert_eq!(Misrouted::of(&[]).warning(), None);
    }

    #[test]
    fn more_than_a_tenth_is_worth_a_sentence() {
        for (visits, is_told) in [(0, false), (100, false), (101, true)] {
            let warning = Misrouted { arrived: 1_000, visits }.warning();
            assert_eq!(warning.is_some(), is_told, "{visits}: {warning:?}");
        }
    }
}
