//! The counters of a report by name, for everything that shows them: text, JSON and metrics.

use std::borrow::Cow;
use std::sync::Arc;

use tidegate_runtime::{NextHopCounts, PortCounters, Report, SocketStatistics};

use crate::access_log;
use crate::service_counters::ServiceCounts;

/// The kind of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only ever grows.
    Counter,
    /// The state of now.
    Gauge,
}

/// One counter, of all queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// The documentation of the counter, which may have the marks of rustdoc.
    pub(crate) description: Cow<'static, str>,
    /// Queue, which is also the number of the shard, and value. Empty for what is counted for all together.
    pub(crate) queues: Vec<(u32, u64)>,
    /// The sum over all queues, modulo 2^64.
    pub(crate) total: u64,
}

impl Row {
    fn new(name: String, kind: Kind, description: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name,
            kind,
            description: description.into(),
            queues: Vec::new(),
            total: 0,
        }
    }

    fn add(&mut self, queue: u32, value: u64) {
        self.queues.push((queue, value));
        self.total = self.total.wrapping_add(value);
    }
}

/// Counters in the order in which they first came.
#[derive(Default)]
struct Rows(Vec<Row>);

impl Rows {
    /// Adds a queue's counters, which are the same and in the same order for every queue.
    fn add<D: Into<Cow<'static, str>>>(
        &mut self,
        prefix: &str,
        kind: Kind,
        queue: u32,
        counters: impl IntoIterator<Item = (&'static str, D, u64)>,
    ) {
        let mut next = 0;
        for (name, description, value) in counters {
            let name = format!("{prefix}{name}");
            let is_next = self.0.get(next).is_some_and(|row| row.name == name);
            let place = match is_next.then_some(next).or_else(|| self.place(&name)) {
                Some(place) => place,
                None => {
                    self.0.push(Row::new(name, kind, description));
                    self.0.len() - 1
                }
            };
            self.0[place].add(queue, value);
            next = place + 1;
        }
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|row| row.name == name)
    }

    /// Adds what is counted for all queues together.
    fn add_total(&mut self, name: String, description: impl Into<Cow<'static, str>>, total: u64) {
        self.0.push(Row {
            total,
            ..Row::new(name, Kind::Counter, description)
        });
    }
}

/// Names, descriptions and values.
fn described<'a>(
    counters: impl Iterator<Item = (&'static str, u64)> + 'a,
    descriptions: &'static [&'static str],
) -> impl Iterator<Item = (&'static str, &'static str, u64)> + 'a {
    counters
        .zip(descriptions)
        .map(|((name, value), &description)| (name, description, value))
}

/// All counters of `report`, those of the services of each shard in the order of the shards, and how many texts and
/// messages nobody has read.
pub(crate) fn counter_rows(report: &Report, services: &[Arc<ServiceCounts>], output_lost: u64) -> Vec<Row> {
    use Kind::{Counter, Gauge};
    let mut rows = Rows::default();
    for (queue, counts) in (0..).zip(&report.xdp) {
        let counts = counts.iter();
        let counts = counts.map(|(counter, value)| (counter.name(), counter.description(), value));
        rows.add("xdp_", Counter, queue, counts);
    }
    for cookies in &report.syn_cookies {
        let switched = [
            ("on", "Times SYN cookies were turned on.", cookies.turned_on),
            ("off", "Times SYN cookies were turned off.", cookies.turned_off),
        ];
        rows.add("syn_cookies_", Counter, cookies.queue, switched);
        let state = [
            (
                "active",
                "Whether SYNs are answered with cookies.",
                u64::from(cookies.active),
            ),
            (
                "strong",
                "Whether cookies for SYNs without timestamps are strong ones.",
                u64::from(cookies.strong),
            ),
        ];
        rows.add("syn_cookies_", Gauge, cookies.queue, state);
    }
    for shard in &report.shards {
        let counters = described(shard.port.iter(), PortCounters::DESCRIPTIONS);
        rows.add("afxdp_", Counter, shard.queue, counters);
    }
    for shard in &report.shards {
        let counters = described(shard.xdp_statistics.iter(), SocketStatistics::DESCRIPTIONS);
        rows.add("afxdp_kernel_", Counter, shard.queue, counters);
    }
    for shard in &report.shards {
        let counters = shard.tcp.iter();
        let counters = counters.map(|(counter, value)| (counter.name(), counter.description(), value));
        rows.add("tcp_", Counter, shard.queue, counters);
        let population = &shard.population;
        let flows = [
            (
                "connections",
                "Connections from ESTABLISHED to LAST-ACK.",
                population.connections,
            ),
            ("half_open", "Connections in SYN-RECEIVED.", population.half_open),
            ("time_wait", "Connections in TIME-WAIT.", population.time_wait),
        ];
        let flows = flows.map(|(name, description, count)| (name, description, u64::from(count)));
        rows.add("tcp_", Gauge, shard.queue, flows);
    }
    for (shard, counts) in report.shards.iter().zip(services) {
        rows.add("", Counter, shard.queue, counts.counters.described());
    }
    for shard in &report.shards {
        let frames = &shard.frames;
        let places = [
            ("total", "All frames of the UMEM.", frames.total),
            ("pool", "Free.", frames.pool),
            ("fill", "Given to the kernel for receiving.", frames.fill),
            ("tx", "Given to the kernel for sending.", frames.tx),
            ("in_hand", "Being written, or not yet in the TX ring.", frames.in_hand),
            (
                "handed_over",
                "Handed to other shards and not yet home.",
                frames.handed_over,
            ),
            ("foreign", "Of other shards, waiting for this one.", frames.foreign),
        ];
        let places = places.map(|(name, description, count)| (name, description, u64::from(count)));
        rows.add("frames_", Gauge, shard.queue, places);
    }
    add_totals(&mut rows, report, output_lost);
    rows.0
}

/// Adds what there is no queue for.
fn add_totals(rows: &mut Rows, report: &Report, output_lost: u64) {
    for (name, description, value) in described(report.next_hops.iter(), NextHopCounts::DESCRIPTIONS) {
        rows.add_total(format!("next_hop_{name}"), description, value);
    }
    rows.add_total(
        "device_reattached".to_owned(),
        "Times the XDP program was attached anew because the driver did not run it any more.",
        report.device.reattached,
    );
    for (name, &value) in &report.device.driver {
        let description = format!("Frames lost, as the driver counts them by the name {name}.");
        rows.add_total(format!("driver_{name}"), description, value);
    }
    for (name, description, value) in access_log::counts().described() {
        rows.add_total(format!("access_log_{name}"), description, value);
    }
    rows.add_total(
        "output_lost".to_owned(),
        "Texts and messages that nobody has read in time.",
        output_lost,
    );
}
