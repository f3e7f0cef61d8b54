//! The driver's own counters (`ethtool -S`) of frames that were lost, which nothing else counts.

use std::collections::BTreeMap;
use std::io;

/// Parts of the names of such counters. Drivers name them as they like, and these are in nearly all of them.
const WORDS: [&str; 16] = [
    "drop",
    "discard",
    "error",
    "_err",
    " err",
    "missed",
    "fail",
    "no_buf",
    "no buf",
    "of_buffer",
    "oom",
    "overrun",
    "overflow",
    "full",
    "no_dma",
    "exceeded",
];

/// The counters of lost frames of one device, since they were read first.
#[derive(Debug)]
pub(crate) struct DriverCounters {
    /// As they were read last; `None` if the driver has none.
    last: Option<BTreeMap<String, u64>>,
    /// Counted since they were read first.
    total: BTreeMap<String, u64>,
}

impl DriverCounters {
    /// Begins to count. `statistics` are the device's.
    pub(crate) fn new(statistics: io::Result<Vec<(String, u64)>>) -> Self {
        Self {
            last: statistics.ok().map(losses),
            total: BTreeMap::new(),
        }
    }

    /// Whether there is anything to be read.
    pub(crate) fn exist(&self) -> bool {
        self.last.is_some()
    }

    /// Returns the counts since the beginning that are more than zero.
    pub(crate) fn since_start(&mut self, statistics: io::Result<Vec<(String, u64)>>) -> BTreeMap<String, u64> {
        if let (Some(last), Ok(now)) = (&mut self.last, statistics.map(losses)) {
            for (name, &value) in &now {
                let before = last.get(name).copied().unwrap_or(0);
                // Some drivers begin anew when the interface is set down.
                let more = value.checked_sub(before).unwrap_or(value);
                if more > 0 {
                    *self.total.entry(name.clone()).or_default() += more;
                }
            }
            last.extend(now);
        }
        self.total.clone()
    }
}

/// The counters of losses. Those of one name, which vmxnet3 has for each queue, are added.
fn losses(statistics: Vec<(String, u64)>) -> BTreeMap<String, u64> {
    let mut losses = BTreeMap::new();
    for (name, value) in statistics {
        let lower = name.to_ascii_lowercase();
        if WORDS.iter().any(|word| lower.contains(word)) {
            let sum: &mut u64 = losses.entry(one_word(&name)).or_default();
            *sum = sum.wrapping_add(value);
        }
    }
    losses
}

/// A name without blanks, as the text of the counters needs it.
fn one_word(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(of: &[(&str, u64)]) -> io::Result<Vec<(String, u64)>> {
        Ok(of.iter().map(|&(name, value)| (name.to_owned(), value)).collect())
    }

    #[test]
    fn losses_since_the_beginning_are_kept_under_the_drivers_names() {
        let mut counters = DriverCounters::new(statistics(&[
            ("rx_packets", 5),
            ("rx_missed_errors", 7),
            ("rx_queue_0_drops", 1),
            ("rx_no_buffer_count", 3),
            ("  pkts rx OOB", 1),
            ("  rx buf alloc fail", 1),
            ("  rx buf alloc fail", 2),
        ]));
        let since = counters.since_start(statistics(&[
            ("rx_packets", 50),
            ("rx_missed_errors", 9),
            ("rx_queue_0_drops", 1),
            ("rx_queue_1_drops", 4),
            ("rx_no_buffer_count", 2),
            ("  rx buf alloc fail", 5),
            ("  rx buf alloc fail", 6),
        ]));
        let expected = [
            ("rx_buf_alloc_fail", 8),
            ("rx_missed_errors", 2),
            // They were taken back to zero meanwhile.
            ("rx_no_buffer_count", 2),
            ("rx_queue_1_drops", 4),
        ];
        assert_eq!(
            since
                .iter()
                .map(|(name, value)| (name.as_str(), *value))
                .collect::<Vec<_>>(),
            expected
        );
        // What was counted before a driver began anew stays counted.
        let since = counters.since_start(statistics(&[("rx_missed_errors", 1), ("rx_no_buffer_count", 12)]));
        assert_eq!((since["rx_missed_errors"], since["rx_no_buffer_count"]), (3, 12));
        let unread = counters.since_start(Err(io::Error::from_raw_os_error(libc::EIO)));
        assert_eq!(unread, since);
    }

    #[test]
    fn names_of_many_drivers_are_known_for_what_they_count() {
        // igb, ixgbe, i40e, mlx5, ena, virtio_net, bnxt, gve.
        let of = |names: &[&str]| {
            let all = names.iter().map(|name| ((*name).to_owned(), 1)).collect();
            losses(all).len()
        };
        let lost = [
            "rx_missed_errors",
            "rx_no_dma_resources",
            "port.rx_dropped",
            "rx_out_of_buffer",
            "pps_allowance_exceeded",
            "tx_xdp_tx_drops",
            "rx_total_oom_discards",
            "rx_buf_alloc_fail",
        ];
        assert_eq!(of(&lost), lost.len());
        let others = [
            "rx_packets",
            "tx_bytes",
            "rx0_xdp_redirects",
            "tx_deferred_ok",
            "interrupts",
            "tx_busy",
        ];
        assert_eq!(of(&others), 0);
    }

    #[test]
    fn a_driver_without_counters_has_none() {
        let mut counters = DriverCounters::new(Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)));
        assert!(!counters.exist());
        assert!(counters.since_start(statistics(&[("rx_dropped", 1)])).is_empty());
    }
}
