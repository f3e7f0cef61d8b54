//! The score of a server under an attack: the highest rate at which its clients notice next to nothing.

use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use tidegate_flood::{Bare, Prefix};
use tidegate_lab::Child;
use tidegate_report::Latencies;

use super::case::{Bench, Clients, per_second};
use super::plan::{Case, Contender, Offered};
use super::report::{Score, Try};
use super::scale::Scoring;
use super::search::{self, Probe};

/// The lowest rate of packets that is tried.
const LOWEST: u64 = 10_000;

/// The lowest rate of connections.
const LOWEST_CONNECTIONS: u64 = 100;

/// The part of the clients that has to be served.
const SERVED: f64 = 0.999;

/// The connect p99 may be this many times the one without an attack.
const TIMES_QUIET: f64 = 3.0;

/// It may be this in any case, in microseconds.
const ALWAYS_ALLOWED_US: f64 = 2_000.0;

/// The time between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// No more of the clients than this part are taken to have waited for the hypervisor.
const MAX_DISTURBED: f64 = 0.1;

/// The connect p99, in microseconds, of the clients that a hypervisor did not make wait, when it took a processor away
/// for `steal` of the `seconds` in which they began, evenly; `None` if nobody connected. What it takes away is not the
/// server's, and of a window of a second p99 shows nothing but a stall of a hundredth of that.
pub(super) fn undisturbed_p99_us(connect: &Latencies, steal: Duration, seconds: f64) -> Option<f64> {
    let disturbed = (steal.as_secs_f64() / seconds).min(MAX_DISTURBED);
    connect.at(0.99 - disturbed)
}

/// Returns whether clients notice next to nothing, if of those that `tried` the server served `served`, and 99 of 100
/// connected within `connect_p99_us`.
fn is_stood(tried: u32, served: u64, connect_p99_us: Option<f64>, quiet_p99_us: Option<f64>) -> bool {
    let allowed = quiet_p99_us
        .map_or(0.0, |quiet| quiet * TIMES_QUIET)
        .max(ALWAYS_ALLOWED_US);
    served as f64 >= f64::from(tried) * SERVED && connect_p99_us.is_some_and(|p99| p99 <= allowed)
}

impl Bench<'_> {
    /// Searches for the score of `contender`, whose connect p99 without an attack is `quiet_p99_us`.
    pub(super) fn score(&self, contender: Contender, case: &Case, quiet_p99_us: Option<f64>) -> anyhow::Result<Score> {
        let attack = case.attack.context("a score without an attack")?;
        let mut server = self.start(contender.target(), case.family)?;
        let filter = (contender == Contender::Filtered)
            .then(|| Bare::filter_before(server.id(), Prefix::SOURCES_V4, Prefix::SOURCES_V6))
            .transpose()
            .context("cannot put the bare filter before tidegate's program")?;
        let mut tries = Vec::new();
        let lowest = if attack.needs_connections() {
            LOWEST_CONNECTIONS
        } else {
            LOWEST
        };
        let per_s = search::highest(self.scale.scoring.steps, lowest, |offered, seed| {
            let found = self.probe(contender, case, &mut server, offered, seed, quiet_p99_us)?;
            tries.push(found);
            Ok(Probe {
                per_s: found.offered_per_s,
                is_stood: found.is_stood,
            })
        })?;
        if let Some(filter) = &filter
            && filter.count() == 0
        {
            bail!("the bare filter has dropped nothing, so it was no filter");
        }
        // The server goes before the filter, which keeps its program in reach.
        drop(server);
        Ok(Score {
            contender,
            family: case.family,
            attack,
            per_s,
            tries,
        })
    }

    fn probe(
        &self,
        contender: Contender,
        case: &Case,
        server: &mut Child,
        offered: Offered,
        seed: u64,
        quiet_p99_us: Option<f64>,
    ) -> anyhow::Result<Try> {
        let Scoring {
            clients, window, tail, ..
        } = self.scale.scoring;
        let attack = case.attack.context("a score without an attack")?;
        let target = contender.target();
        let duration = self.scale.settle + window + tail + Duration::from_secs(10);
        let seed = self.seed.wrapping_add(seed);
        let flood = self.start_attack(attack, case.family, target.port(), offered, duration, seed)?;
        thread::sleep(self.scale.settle);
        let clients = Clients {
            count: clients,
            window,
            tail,
        };
        let (first, last, outcome) = self.with_clients(target, case.family, clients, Some(&flood), None)?;
        flood.stop().context("the attack failed")?;
        if !server.is_running()? {
            bail!("{} ended in mid-run", target.name());
        }
        thread::sleep(PAUSE);
        let (seconds, steal) = (last.seconds_since(&first), last.stolen_since(&first));
        let undisturbed = undisturbed_p99_us(&outcome.connect, steal, seconds);
        Ok(Try {
            offered_per_s: per_second(last.sent.saturating_sub(first.sent), seconds),
            legit_ok: outcome.operations,
            connect_p99_us: outcome.connect.at(0.99),
            steal,
            is_stood: is_stood(clients.count, outcome.operations, undisturbed, quiet_p99_us),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_of_a_thousand_may_be_lost_and_no_more() {
        assert!(is_stood(1_000, 999, Some(100.0), None));
        assert!(!is_stood(1_000, 998, Some(100.0), None));
        assert!(!is_stood(250, 249, Some(100.0), None));
        assert!(!is_stood(1_000, 0, None, None));
    }

    #[test]
    fn who_waits_for_the_hypervisor_is_not_counted_and_nobody_else_is_left_out() {
        let late = |part: u32| {
            let mut connect = Latencies::new();
            for number in 0..1_000 {
                let micros = if number < part { 1_000_000 } else { 100 };
                connect.record(Duration::from_micros(micros));
            }
            connect
        };
        let is_late = |late_ones: u32, steal_ms: u64, seconds: f64| {
            undisturbed_p99_us(&late(late_ones), Duration::from_millis(steal_ms), seconds).unwrap() > 1_000.0
        };
        assert!(!is_late(9, 0, 1.0) && is_late(11, 0, 1.0));
        assert!(!is_late(39, 30, 1.0) && is_late(41, 30, 1.0));
        assert!(!is_late(24, 30, 2.0) && is_late(26, 30, 2.0));
        // A processor that was away for half of the time says nothing of the server.
        assert!(!is_late(109, 500, 1.0) && is_late(111, 500, 1.0));
        assert_eq!(undisturbed_p99_us(&Latencies::new(), Duration::ZERO, 1.0), None);
    }

    #[test]
    fn connecting_may_take_three_times_as_long_or_two_milliseconds() {
        assert!(is_stood(10, 10, Some(2_000.0), Some(100.0)));
        assert!(!is_stood(10, 10, Some(2_001.0), Some(100.0)));
        assert!(is_stood(10, 10, Some(3_000.0), Some(1_000.0)));
        assert!(!is_stood(10, 10, Some(3_001.0), Some(1_000.0)));
    }
}
