//! The counters as text: at the end, and whenever SIGUSR1 asks.
//!
//! One line for each counter and queue, `name{queue="0"} value`, then one line for each counter's total over all
//! queues, `name value`. Names begin with what counts: `xdp_` the XDP program, `syn_cookies_` what turns its cookies on
//! and off, `afxdp_` the shard's port (`afxdp_kernel_` the kernel's XDP_STATISTICS of its socket), `tcp_` the engine,
//! `http_`, `echo_` and `discard_` the services, `frames_` where the frames of the UMEM are, and, with totals only,
//! `next_hop_` what follows the kernel's routes, `device_` the device, `driver_` its driver's own counters of losses,
//! as far as they are not zero, `access_log_` what became of requests to be logged, `output_` what the process prints.
//! Scripts may rely on this; names are only ever added.

use std::fmt::Write as _;
use std::sync::Arc;

use tidegate_runtime::Report;

use crate::access_log::{self, AccessLogCounts};
use crate::output;
use crate::service_counters::Published;

/// The values of one counter: queue and value.
struct Metric {
    name: String,
    values: Vec<(u32, u64)>,
}

/// Counters in the order in which they first came.
#[derive(Default)]
struct Metrics(Vec<Metric>);

impl Metrics {
    fn add(&mut self, prefix: &str, name: &str, queue: u32, value: u64) {
        let name = format!("{prefix}{name}");
        match self.0.iter_mut().find(|metric| metric.name == name) {
            Some(metric) => metric.values.push((queue, value)),
            None => self.0.push(Metric {
                name,
                values: vec![(queue, value)],
            }),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for Metric { name, values } in &self.0 {
            for (queue, value) in values {
                let _ = writeln!(text, "{name}{{queue=\"{queue}\"}} {value}");
            }
        }
        for Metric { name, values } in &self.0 {
            let total = values.iter().fold(0_u64, |sum, (_, value)| sum.wrapping_add(*value));
            let _ = writeln!(text, "{name} {total}");
        }
        text
    }
}

/// The counters of what all shards share.
#[derive(Default)]
pub(crate) struct ProcessCounts {
    /// Texts like this one, and messages, that nobody has read.
    pub(crate) output_lost: u64,
    /// What became of the records of the access log.
    pub(crate) access_log: AccessLogCounts,
}

impl ProcessCounts {
    /// As they are now.
    pub(crate) fn now() -> Self {
        Self {
            output_lost: output::lost(),
            access_log: access_log::counts(),
        }
    }
}

/// All counters of `report`, those of the services of each shard in the order of the shards, and those of what all
/// shards share.
pub(crate) fn counters_text(report: &Report, services: &[Arc<Published>], process: &ProcessCounts) -> String {
    let mut metrics = Metrics::default();
    for (queue, counts) in (0..).zip(&report.xdp) {
        for (counter, value) in counts.iter() {
            metrics.add("xdp_", counter.name(), queue, value);
        }
    }
    for cookies in &report.syn_cookies {
        metrics.add("syn_cookies_", "on", cookies.queue, cookies.turned_on);
        metrics.add("syn_cookies_", "off", cookies.queue, cookies.turned_off);
        metrics.add("syn_cookies_", "active", cookies.queue, u64::from(cookies.active));
        metrics.add("syn_cookies_", "strong", cookies.queue, u64::from(cookies.strong));
    }
    for shard in &report.shards {
        for (name, value) in shard.port.iter() {
            metrics.add("afxdp_", name, shard.queue, value);
        }
    }
    for shard in &report.shards {
        for (name, value) in shard.xdp_statistics.iter() {
            metrics.add("afxdp_kernel_", name, shard.queue, value);
        }
    }
    for shard in &report.shards {
        for (counter, value) in shard.tcp.iter() {
            metrics.add("tcp_", counter.name(), shard.queue, value);
        }
        let population = &shard.population;
        metrics.add("tcp_", "connections", shard.queue, u64::from(population.connections));
        metrics.add("tcp_", "half_open", shard.queue, u64::from(population.half_open));
        metrics.add("tcp_", "time_wait", shard.queue, u64::from(population.time_wait));
    }
    for (shard, counters) in report.shards.iter().zip(services) {
        for (name, value) in counters.iter() {
            metrics.add("", name, shard.queue, value);
        }
    }
    for shard in &report.shards {
        let frames = &shard.frames;
        for (name, count) in [
            ("total", frames.total),
            ("pool", frames.pool),
            ("fill", frames.fill),
            ("tx", frames.tx),
            ("in_hand", frames.in_hand),
            ("handed_over", frames.handed_over),
            ("foreign", frames.foreign),
        ] {
            metrics.add("frames_", name, shard.queue, u64::from(count));
        }
    }
    let mut text = metrics.text();
    for (name, value) in report.next_hops.iter() {
        let _ = writeln!(text, "next_hop_{name} {value}");
    }
    let _ = writeln!(text, "device_reattached {}", report.device.reattached);
    for (name, value) in &report.device.driver {
        let _ = writeln!(text, "driver_{name} {value}");
    }
    for (name, value) in process.access_log.iter() {
        let _ = writeln!(text, "access_log_{name} {value}");
    }
    let _ = writeln!(text, "output_lost {}", process.output_lost);
    text
}

#[cfg(test)]
mod tests {
    use tidegate_runtime::{
        DeviceCounts, FrameCensus, NextHopCounts, PortCounters, ShardReport, SocketStatistics, SynCookieCounts,
        XdpCounts,
    };
    use tidegate_tcp::counters::{Counter, Counters};
    use tidegate_tcp::engine::Population;

    use super::*;

    fn shard(queue: u32) -> ShardReport {
        let mut tcp = Counters::default();
        tcp.add(Counter::PassiveOpens, 10 + u64::from(queue));
        ShardReport {
            queue,
            tcp,
            port: PortCounters {
                rx_frames: 20,
                ..PortCounters::default()
            },
            xdp_statistics: SocketStatistics {
                rx_ring_full: 30,
                ..SocketStatistics::default()
            },
            population: Population {
                time_wait: 40,
                ..Population::default()
            },
            sweeping: false,
            frames: FrameCensus {
                pool: 50,
                ..FrameCensus::default()
            },
        }
    }

    #[test]
    fn everything_in_a_report_is_printed_under_its_prefix() {
        let report = Report {
            shards: vec![shard(0), shard(1)],
            xdp: vec![XdpCounts::default(); 3],
            syn_cookies: vec![
                SynCookieCounts::default(),
                SynCookieCounts {
                    queue: 1,
                    turned_on: 60,
                    turned_off: 59,
                    active: true,
                    strong: true,
                },
            ],
            next_hops: NextHopCounts {
                neighbour_requests: 80,
                ..NextHopCounts::default()
            },
            device: DeviceCounts {
                reattached: 80,
                driver: [("rx_missed_errors".to_owned(), 90)].into(),
            },
        };
        let process = ProcessCounts {
            output_lost: 70,
            access_log: AccessLogCounts {
                written: 71,
                lost_queue_full: 72,
                ..AccessLogCounts::default()
            },
        };
        let text = counters_text(&report, &[], &process);
        let lines: Vec<&str> = text.lines().collect();
        for line in [
            "xdp_redirect{queue=\"2\"} 0",
            "xdp_redirect 0",
            "syn_cookies_on{queue=\"1\"} 60",
            "syn_cookies_off 59",
            "syn_cookies_active{queue=\"0\"} 0",
            "syn_cookies_active 1",
            "syn_cookies_strong{queue=\"0\"} 0",
            "syn_cookies_strong 1",
            "tcp_passive_opens{queue=\"0\"} 10",
            "tcp_passive_opens{queue=\"1\"} 11",
            "tcp_passive_opens 21",
            "tcp_time_wait 80",
            "afxdp_rx_frames{queue=\"1\"} 20",
            "afxdp_kernel_rx_ring_full{queue=\"1\"} 30",
            "afxdp_kernel_rx_ring_full 60",
            "frames_pool{queue=\"0\"} 50",
            "next_hop_neighbour_requests 80",
            "device_reattached 80",
            "driver_rx_missed_errors 90",
            "access_log_written 71",
            "access_log_lost_queue_full 72",
            "output_lost 70",
        ] {
            assert_eq!(
                lines.iter().filter(|other| **other == line).count(),
                1,
                "{line} in\n{text}"
            );
        }
        let first_total = lines.iter().position(|line| !line.contains('{'));
        let last_of_queue = lines.iter().rposition(|line| line.contains('{'));
        assert!(last_of_queue < first_total, "{text}");
    }

    #[test]
    fn queues_first_then_totals_in_one_order() {
        let mut metrics = Metrics::default();
        for (queue, redirects) in [(0, 3), (1, 4)] {
            metrics.add("xdp_", "redirect", queue, redirects);
            metrics.add("xdp_", "pass_not_ip", queue, 0);
        }
        assert_eq!(
            metrics.text(),
            "xdp_redirect{queue=\"0\"} 3\n\
             xdp_redirect{queue=\"1\"} 4\n\
             xdp_pass_not_ip{queue=\"0\"} 0\n\
             xdp_pass_not_ip{queue=\"1\"} 0\n\
             xdp_redirect 7\n\
             xdp_pass_not_ip 0\n"
        );
    }

    #[test]
    fn an_empty_report_is_empty_text() {
        assert_eq!(Metrics::default().text(), "");
    }
}
