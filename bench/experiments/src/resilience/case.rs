//! One measurement: a flood, and what it does to a server or to a bare XDP program.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use tidegate_args::url::Url;
use tidegate_flood::{Bare, BareKind, Generator, Kind, Plan, Rate, Sink};
use tidegate_lab::Cores;
use tidegate_lab::Family;
use tidegate_lab::arrangement::{self, CLIENT_DEVICE, SERVER_DEVICE};
use tidegate_lab::machine::{CoreTime, Memory};
use tidegate_lab::{Lab, Place};
use tidegate_load::{Body, Client, Close, KernelClient, Progress, Verify, Workload};

use super::background_load::BackgroundLoad;
use super::plan::{Case, Limit, Offered, Scale, Subject, Target};
use super::report::Measurement;
use super::served::{BULK, SMALL};
use super::target::Servers;

/// The time beyond what is needed that the generator would run if nobody stopped it.
const SPARE: Duration = Duration::from_secs(10);

/// The state that all measurements share.
pub(super) struct Bench<'a> {
    /// Where they are made.
    pub(super) lab: &'a Lab,
    /// The time their parts take.
    pub(super) scale: Scale,
    /// Which core does what.
    pub(super) cores: Cores,
    /// Starts the servers.
    pub(super) servers: Servers<'a>,
    /// Counts what comes back from the server to the spoofed sources.
    pub(super) sink: Sink,
    /// Bytes per second of the open connections, all together.
    pub(super) open_rate: f64,
    /// Seed of the floods.
    pub(super) seed: u64,
    /// The body of the open connections.
    pub(super) bulk: Arc<[u8]>,
    /// The body of the clients of the window.
    pub(super) small: Body,
}

/// The result of a case.
pub(super) enum Measured {
    /// A server.
    Row(Box<Measurement>),
    /// A bare XDP program met so many SYNs per second.
    Limit(Family, Limit, f64),
}

/// The counters at one moment.
struct Sample {
    at: Instant,
    /// Frames of the flood.
    sent: u64,
    /// SYN-ACKs that answer it.
    answered: u64,
    core: CoreTime,
    /// Bytes on the open connections.
    bytes: u64,
}

impl Sample {
    fn seconds_since(&self, earlier: &Self) -> f64 {
        (self.at - earlier.at).as_secs_f64()
    }
}

/// `count` in so many seconds, per second.
fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

impl Bench<'_> {
    /// Measures `case`. Clients that are late are waited for during `tail`.
    ///
    /// # Errors
    ///
    /// The server does not start or ends, or the flood cannot be made. Clients that fail are no error.
    pub(super) fn measure(&self, case: &Case, tail: Duration) -> anyhow::Result<Measured> {
        match case.subject {
            Subject::Server(target) => {
                let row = self.measure_server(target, case, tail)?;
                Ok(Measured::Row(Box::new(row)))
            }
            Subject::Bare(limit) => {
                let rate = self.measure_bare(limit, case)?;
                Ok(Measured::Limit(case.family, limit, rate))
            }
        }
    }

    fn measure_server(&self, target: Target, case: &Case, tail: Duration) -> anyhow::Result<Measurement> {
        let scale = &self.scale;
        let mut server = self.servers.start(target, case.family)?;
        arrangement::bind_devices(self.lab, self.cores)?;
        let bulk_url = url(target, case.family, &BULK.path())?;
        let open = self
            .lab
            .inside(Place::Client, || {
                BackgroundLoad::open(&bulk_url, &self.bulk, self.open_rate)
            })
            .with_context(|| format!("{} does not answer", target.name()))?;
        thread::sleep(scale.lead_in);
        let earlier = self.sample(None, Some(&open))?;
        thread::sleep(scale.before);
        let calm = self.sample(None, Some(&open))?;
        let memory_before = Memory::with(server.id())?;

        let flood = self.start_flood(case, target.port(), tail)?;
        thread::sleep(scale.settle);
        let (first, last, outcome) = self.with_clients(target, case, tail, flood.as_ref(), &open)?;
        let totals = flood.map(Generator::stop).transpose().context("the flood failed")?;
        let memory_after = Memory::with(server.id());
        let damage = open.finish(scale.finish);
        if !server.is_running()? {
            bail!("{} ended in mid-run", target.name());
        }
        let memory_after = memory_after?;

        let seconds = last.seconds_since(&first);
        Ok(Measurement {
            target,
            family: case.family,
            offered: case.offered,
            offered_per_s: per_second(last.sent.saturating_sub(first.sent), seconds),
            answered_per_s: per_second(last.answered.saturating_sub(first.answered), seconds),
            syns_sent: totals.map_or(0, |totals| totals.sent),
            frames_taken: totals.and_then(|totals| totals.interface_sent),
            live_frames: totals.map(|totals| totals.live_frames),
            legit_tried: scale.clients,
            legit_ok: u32::try_from(outcome.operations).unwrap_or(u32::MAX),
            connect: outcome.connect.quantiles(),
            first_byte: outcome.latency.quantiles(),
            first_failure: outcome.errors.first().map(str::to_owned),
            server_core_busy: last.core.busy_since(first.core),
            rss_delta_bytes: difference(memory_after.resident, memory_before.resident),
            kernel_memory_delta_bytes: difference(memory_after.kernel, memory_before.kernel),
            open_before_bytes_per_s: per_second(calm.bytes.saturating_sub(earlier.bytes), calm.seconds_since(&earlier)),
            open_during_bytes_per_s: per_second(last.bytes.saturating_sub(first.bytes), seconds),
            damage,
        })
    }

    /// Runs the clients, with a sample at the begin and one at the end of their window.
    fn with_clients(
        &self,
        target: Target,
        case: &Case,
        tail: Duration,
        flood: Option<&Generator>,
        open: &BackgroundLoad,
    ) -> anyhow::Result<(Sample, Sample, tidegate_load::Measured)> {
        let plan = tidegate_load::Plan {
            url: url(target, case.family, &SMALL.path())?,
            workload: Workload::Cps { close: Close::Server },
            connections: self.scale.clients,
            warm_up: Duration::ZERO,
            duration: self.scale.window,
            verify: Verify::Equal(self.small),
            spread: Some(tail),
            cpu: None,
        };
        let lab = self.lab;
        let first = self.sample(flood, Some(open))?;
        thread::scope(|scope| {
            let clients =
                scope.spawn(|| lab.inside(Place::Client, || KernelClient::new().run(&plan, &Progress::hidden())));
            thread::sleep(self.scale.window);
            let last = self.sample(flood, Some(open));
            let outcome = clients
                .join()
                .unwrap_or_else(|_| Err(anyhow!("the clients' thread panicked")))?;
            Ok((first, last?, outcome))
        })
    }

    fn measure_bare(&self, limit: Limit, case: &Case) -> anyhow::Result<f64> {
        let kind = match limit {
            Limit::Transmit => BareKind::Reflect,
            Limit::Drop => BareKind::Drop,
        };
        let bare = self
            .lab
            .inside(Place::Server, || Bare::attach(SERVER_DEVICE, kind))
            .with_context(|| format!("cannot attach the program that does nothing else to {SERVER_DEVICE}"))?;
        arrangement::bind_devices(self.lab, self.cores)?;
        let flood = self.start_flood(case, Target::TidegateAuto.port(), Duration::ZERO)?;
        thread::sleep(self.scale.settle);
        let first = self.sample(flood.as_ref(), None)?;
        let first_count = bare.count();
        thread::sleep(self.scale.window);
        let last = self.sample(flood.as_ref(), None)?;
        let last_count = bare.count();
        if let Some(flood) = flood {
            flood.stop().context("the flood failed")?;
        }
        let count = match limit {
            Limit::Transmit => last.answered.saturating_sub(first.answered),
            Limit::Drop => last_count.saturating_sub(first_count),
        };
        Ok(per_second(count, last.seconds_since(&first)))
    }

    fn start_flood(&self, case: &Case, port: u16, tail: Duration) -> anyhow::Result<Option<Generator>> {
        let rate = match case.offered {
            Offered::Nothing => return Ok(None),
            Offered::Pps(rate) => Rate::Pps(rate),
            Offered::Max => Rate::Max,
        };
        let plan = Plan {
            rate,
            duration: self.scale.settle + self.scale.window + tail + SPARE,
            cpu: Some(self.cores.client),
            seed: self.seed,
            ..Plan::new(CLIENT_DEVICE, (case.family.server(), port).into(), Kind::Syn)
        };
        let generator = self
            .lab
            .inside(Place::Client, || Generator::start(plan))
            .context("cannot start the flood")?;
        Ok(Some(generator))
    }

    fn sample(&self, flood: Option<&Generator>, open: Option<&BackgroundLoad>) -> anyhow::Result<Sample> {
        let [core] = CoreTime::of([self.cores.server])?;
        Ok(Sample {
            at: Instant::now(),
            sent: flood.map_or(0, Generator::sent),
            answered: self.sink.counts().syn_acks,
            core,
            bytes: open.map_or(0, BackgroundLoad::bytes),
        })
    }
}

fn url(target: Target, family: Family, path: &str) -> anyhow::Result<Url> {
    let address = std::net::SocketAddr::new(family.server(), target.port());
    format!("http://{address}{path}").parse().map_err(anyhow::Error::msg)
}

fn difference(after: u64, before: u64) -> i64 {
    i64::try_from(i128::from(after) - i128::from(before)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_may_shrink() {
        assert_eq!(difference(10, 4), 6);
        assert_eq!(difference(4, 10), -6);
    }

    #[test]
    fn nothing_in_no_time_is_nothing() {
        assert_eq!(per_second(10, 2.0), 5.0);
        assert_eq!(per_second(10, 0.0), 0.0);
    }

    #[test]
    fn every_target_has_an_address_of_its_own() {
        let mut addresses = Vec::new();
        for family in [Family::V4, Family::V6] {
            for target in Target::ALL {
                addresses.push(url(target, family, "/").unwrap().address);
            }
        }
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), 8);
    }

    #[test]
    fn a_flood_stays_within_the_generators_limit() {
        for scale in [Scale::FULL, Scale::QUICK] {
            let longest = scale.settle + scale.window + scale.tail + SPARE;
            assert!(longest <= Duration::from_secs(60), "{longest:?}");
        }
    }
}
