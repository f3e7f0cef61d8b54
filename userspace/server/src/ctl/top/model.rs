//! The rates between two replies.

use std::collections::BTreeMap;
use std::time::Instant;

use tidegate_control::{Counters, Info, Latency, Peer, Top};

use crate::admin::is_loss;

/// The contents of the screen.
pub(super) struct Model {
    pub(super) info: Info,
    now: Reading,
    before: Option<Reading>,
}

struct Reading {
    counters: Counters,
    latencies: BTreeMap<String, Latency>,
    states: Vec<(String, u64)>,
    complete: bool,
    peers: Vec<Peer>,
    at: Instant,
}

impl Reading {
    fn new(top: Top, at: Instant) -> Self {
        let mut states: Vec<_> = top.states.into_iter().collect();
        states.sort_by_key(|&(_, count)| core::cmp::Reverse(count));
        Self {
            counters: Counters { counters: top.counters },
            latencies: top.latencies_us,
            states,
            complete: top.complete,
            peers: top.peers,
            at,
        }
    }
}

/// A line of the table of shards. Rates are per second.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Row {
    pub(super) opened: f64,
    pub(super) requests: f64,
    pub(super) syns: f64,
    pub(super) rx_frames: f64,
    pub(super) rx_bits: f64,
    pub(super) tx_frames: f64,
    pub(super) tx_bits: f64,
    pub(super) lost: f64,
    pub(super) connections: u64,
    pub(super) half_open: u64,
    pub(super) cookies: bool,
}

impl Model {
    pub(super) fn new(info: Info, first: Top, at: Instant) -> Self {
        Self {
            info,
            now: Reading::new(first, at),
            before: None,
        }
    }

    pub(super) fn update(&mut self, top: Top, at: Instant) {
        self.before = Some(core::mem::replace(&mut self.now, Reading::new(top, at)));
    }

    /// The number of shards.
    pub(super) fn shards(&self) -> usize {
        let counter = self.now.counters.get("tcp_connections");
        counter.map_or(0, |counter| counter.queues.len())
    }

    /// One shard's line, or with `None` that of all together.
    pub(super) fn row(&self, shard: Option<usize>) -> Row {
        let value = |counters: &Counters, name: &str| match shard {
            Some(shard) => counters.of_queue(name, shard),
            None => counters.total(name),
        };
        let gauge = |name: &str| value(&self.now.counters, name);
        let rate = |name: &str| self.per_second(gauge(name), |before| value(before, name));
        let losses = self
            .now
            .counters
            .counters
            .iter()
            .filter(|counter| is_loss(&counter.name));
        Row {
            opened: rate("tcp_passive_opens"),
            requests: rate("http_requests"),
            syns: rate("xdp_redirect_syn") + rate("xdp_tx_syn_cookie"),
            rx_frames: rate("afxdp_rx_frames"),
            rx_bits: 8.0 * rate("afxdp_rx_bytes"),
            tx_frames: rate("afxdp_tx_frames"),
            tx_bits: 8.0 * rate("afxdp_tx_bytes"),
            lost: losses.map(|counter| rate(&counter.name)).sum(),
            connections: gauge("tcp_connections"),
            half_open: gauge("tcp_half_open"),
            cookies: gauge("syn_cookies_active") > 0,
        }
    }

    /// The change per second of a value that is `now`, and was what `before` finds.
    fn per_second(&self, now: u64, before: impl FnOnce(&Counters) -> u64) -> f64 {
        let Some(earlier) = &self.before else { return 0.0 };
        let seconds = self.now.at.duration_since(earlier.at).as_secs_f64();
        now.saturating_sub(before(&earlier.counters)) as f64 / seconds.max(0.001)
    }

    /// The change per second of the counter of this name.
    pub(super) fn rate(&self, name: &str) -> f64 {
        self.per_second(self.now.counters.total(name), |before| before.total(name))
    }

    /// Connections by state, most first; false: not all connections were looked at.
    pub(super) fn states(&self) -> (&[(String, u64)], bool) {
        (&self.now.states, self.now.complete)
    }

    /// By name, in microseconds.
    pub(super) fn latencies(&self) -> impl Iterator<Item = (&str, Latency)> {
        let latencies = self.now.latencies.iter();
        latencies.map(|(name, &latency)| (name.as_str(), latency))
    }

    pub(super) fn peers(&self) -> &[Peer] {
        &self.now.peers
    }

    /// Losses, with rate and total; those that go on come first.
    pub(super) fn losses(&self) -> Vec<(&str, f64, u64)> {
        let all = self.now.counters.counters.iter();
        let mut losses: Vec<_> = all
            .filter(|counter| is_loss(&counter.name) && counter.total > 0)
            .map(|counter| (counter.name.as_str(), self.rate(&counter.name), counter.total))
            .collect();
        losses.sort_by(|a, b| b.1.total_cmp(&a.1).then(b.2.cmp(&a.2)));
        losses
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use tidegate_control::{Counter, State};

    use super::*;

    /// A counter, and its values by shard before and now.
    pub(in super::super) type Entry = (&'static str, [u64; 2], [u64; 2]);

    /// A server of two shards, a second after the first look.
    pub(in super::super) fn model(names: &[Entry]) -> Model {
        let top = |of: fn(&Entry) -> [u64; 2]| Top {
            counters: names
                .iter()
                .map(|entry| Counter {
                    name: entry.0.to_owned(),
                    total: of(entry).iter().sum(),
                    queues: of(entry).to_vec(),
                })
                .collect(),
            latencies_us: [(
                "rtt".to_owned(),
                Latency {
                    count: 4,
                    p50: Some(120),
                    p90: Some(1500),
                    p99: None,
                },
            )]
            .into(),
            states: [("ESTABLISHED".to_owned(), 5), ("TIME-WAIT".to_owned(), 70)].into(),
            complete: false,
            peers: vec![Peer {
                address: "198.18.0.2".parse().unwrap(),
                connections: 12,
                bytes_received: 3000,
                bytes_sent: 2_500_000,
            }],
        };
        let info = Info {
            version: "0.1.0".to_owned(),
            pid: 77,
            interfaces: vec!["eth1".to_owned()],
            state: State::Serving,
            replaced: Some(false),
            watchdog_usec: None,
        };
        let at = Instant::now();
        let mut model = Model::new(info, top(|entry| entry.1), at);
        model.update(top(|entry| entry.2), at + Duration::from_secs(1));
        model
    }

    #[test]
    fn rates_are_reckoned_by_shard_and_together() {
        let model = model(&[
            ("tcp_connections", [1, 2], [3, 4]),
            ("tcp_passive_opens", [10, 20], [15, 40]),
            ("xdp_redirect_syn", [0, 0], [5, 0]),
            ("xdp_tx_syn_cookie", [0, 0], [100, 0]),
            ("syn_cookies_active", [0, 0], [1, 0]),
            ("afxdp_rx_bytes", [0, 0], [1000, 0]),
            ("tcp_drop_checksum", [0, 5], [0, 7]),
            ("tcp_drop_paws", [0, 0], [1, 0]),
            ("xdp_drop_no_flow", [9, 0], [9, 0]),
        ]);
        assert_eq!(model.shards(), 2);
        let row = model.row(Some(0));
        assert_eq!((row.opened, row.syns, row.rx_bits, row.lost), (5.0, 105.0, 8000.0, 1.0));
        assert_eq!(
            (row.connections, row.cookies, model.row(Some(1)).cookies),
            (3, true, false)
        );
        let all = model.row(None);
        assert_eq!((all.opened, all.lost, all.connections), (25.0, 3.0, 7));
        let losses = model.losses();
        assert_eq!(
            losses,
            [
                ("tcp_drop_checksum", 2.0, 7),
                ("tcp_drop_paws", 1.0, 1),
                ("xdp_drop_no_flow", 0.0, 9)
            ]
        );
        assert_eq!(model.states().0[0].0, "TIME-WAIT");
    }

    #[test]
    fn one_reply_gives_no_rate() {
        let mut model = model(&[("tcp_passive_opens", [10, 20], [15, 40])]);
        model.before = None;
        assert_eq!(model.row(None).opened, 0.0);
    }
}
