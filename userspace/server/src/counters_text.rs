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

use crate::counter_rows::Row;

/// The counters as text.
pub(crate) fn counters_text(rows: &[Row]) -> String {
    let mut text = String::new();
    for Row { name, queues, .. } in rows {
        for (queue, value) in queues {
            let _ = writeln!(text, "{name}{{queue=\"{queue}\"}} {value}");
        }
    }
    for Row { name, total, .. } in rows {
        let _ = writeln!(text, "{name} {total}");
    }
    text
}

#[cfg(test)]
mod tests {
    use tidegate_runtime::{
        DeviceCounts, FrameCensus, NextHopCounts, PortCounters, Report, ShardReport, SocketStatistics, SynCookieCounts,
        XdpCounts,
    };
    use tidegate_tcp::counters::{Counter, Counters};
    use tidegate_tcp::engine::Population;

    use super::*;
    use crate::counter_rows::{Kind, counter_rows};

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
            frames: FrameCensus {
                pool: 50,
                ..FrameCensus::default()
            },
            ..ShardReport::default()
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
        let text = counters_text(&counter_rows(&report, &[], 70));
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
            "access_log_lost_queue_full 0",
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
        let row = |name: &str, queues: [(u32, u64); 2]| Row {
            name: name.to_owned(),
            kind: Kind::Counter,
            description: "".into(),
            total: queues.iter().map(|(_, value)| value).sum(),
            queues: queues.into(),
        };
        let rows = [
            row("xdp_redirect", [(0, 3), (1, 4)]),
            row("xdp_pass_not_ip", [(0, 0), (1, 0)]),
        ];
        assert_eq!(
            counters_text(&rows),
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
        assert_eq!(counters_text(&[]), "");
    }
}
