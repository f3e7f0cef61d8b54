//! `tidegate ctl counters`.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use tidegate_control::{Client, Counters, Request};

use super::{json, print};
use crate::failure::Failure;

/// Arguments of `tidegate ctl counters`.
#[derive(Debug, Args)]
pub(crate) struct CountersArguments {
    /// Go on with what has changed, every INTERVAL, such as 500ms, until interrupted
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "1s",
          value_parser = humantime::parse_duration)]
    watch: Option<Duration>,
    /// Print the server's replies, which docs/control.md describes, one a line
    #[arg(long)]
    json: bool,
}

/// Prints counters, once or again and again.
///
/// # Errors
///
/// The server cannot be reached any more, or refuses.
pub(super) fn run(client: &mut Client, arguments: &CountersArguments) -> Result<(), Failure> {
    let mut before: Option<(Counters, Instant)> = None;
    loop {
        let now = Instant::now();
        let counters: Counters = client.call(&Request::Counters)?;
        let text = match &before {
            _ if arguments.json => json(&counters)?,
            None => all(&counters),
            Some((before, at)) => changes(before, &counters, now - *at),
        };
        print(&text)?;
        let Some(interval) = arguments.watch else {
            return Ok(());
        };
        before = Some((counters, now));
        thread::sleep(interval);
    }
}

/// All of them, as SIGUSR1 has them printed.
fn all(counters: &Counters) -> String {
    let mut text = String::new();
    for counter in &counters.counters {
        for (queue, value) in counter.queues.iter().enumerate() {
            let _ = writeln!(text, "{}{{queue=\"{queue}\"}} {value}", counter.name);
        }
    }
    for counter in &counters.counters {
        let _ = writeln!(text, "{} {}", counter.name, counter.total);
    }
    text
}

/// Those whose total has changed, with its change in a second. What is no counter, such as the number of
/// connections, also goes back.
fn changes(before: &Counters, now: &Counters, time: Duration) -> String {
    let mut text = "\n".to_owned();
    for counter in &now.counters {
        let change = counter.total.wrapping_sub(before.total(&counter.name)) as i64;
        if change != 0 {
            let rate = change as f64 / time.as_secs_f64().max(0.001);
            let _ = writeln!(text, "{:<44} {:>16} {rate:>+14.1}/s", counter.name, counter.total);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use tidegate_control::Counter;

    use super::*;

    fn counters(totals: &[(&str, &[u64])]) -> Counters {
        let counter = |&(name, queues): &(&str, &[u64])| Counter {
            name: name.to_owned(),
            total: queues.iter().sum(),
            queues: queues.to_vec(),
        };
        Counters {
            counters: totals.iter().map(counter).collect(),
        }
    }

    #[test]
    fn queues_come_first_and_then_totals() {
        let text = all(&counters(&[("tcp_syns_in", &[1, 2]), ("output_lost", &[])]));
        assert_eq!(
            text,
            "tcp_syns_in{queue=\"0\"} 1\ntcp_syns_in{queue=\"1\"} 2\ntcp_syns_in 3\noutput_lost 0\n"
        );
    }

    #[test]
    fn what_has_changed_is_told_with_its_rate() {
        let before = counters(&[("tcp_syns_in", &[1, 2]), ("tcp_connections", &[9]), ("xdp_pass", &[7])]);
        let now = counters(&[("tcp_syns_in", &[1, 7]), ("tcp_connections", &[4]), ("xdp_pass", &[7])]);
        let text = changes(&before, &now, Duration::from_secs(2));
        let words: Vec<Vec<&str>> = text
            .trim()
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            words,
            [["tcp_syns_in", "8", "+2.5/s"], ["tcp_connections", "4", "-2.5/s"]]
        );
    }
}
