//! One measurement: an attack, and what it does to a server or to a bare XDP program.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use tidegate_args::url::Url;
use tidegate_flood::{Bare, Generator, Plan, Prefix, Rate, Sink, SinkCounts, Totals};
use tidegate_lab::Cores;
use tidegate_lab::Family;
use tidegate_lab::arrangement::{self, CLIENT_DEVICE, SERVER_DEVICE};
use tidegate_lab::machine::{self, CoreTime, DeviceCounts, Memory};
use tidegate_lab::{Child, Lab, Place};
use tidegate_load::{Arrival, Body, Client, Close, HttpOptions, KernelClient, Progress, Verify, Workload};

use super::attack::Attack;
use super::background_load::BackgroundLoad;
use super::plan::{Case, Limit, Offered, Subject, Target};
use super::recovery::time_until_served;
use super::report::{Measurement, Score};
use super::scale::Scale;
use super::score::undisturbed_p99_us;
use super::served::{BULK, SMALL};
use super::target::Servers;
use crate::probe;

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
    /// Counts what comes back from the server to the addresses of the attack.
    pub(super) sink: Sink,
    /// Bytes per second of the open connections, all together.
    pub(super) open_rate: f64,
    /// Seed of the attacks.
    pub(super) seed: u64,
    /// The body of the open connections.
    pub(super) bulk: Arc<[u8]>,
    /// The body of the clients of the window.
    pub(super) small: Vec<u8>,
}

/// The result of a case.
pub(super) enum Measured {
    /// A server.
    Row(Box<Measurement>),
    /// A bare XDP program met so many packets per second, of so many offered.
    Limit(f64, f64),
    /// The highest rate that a server stands.
    Score(Score),
}

/// The clients of a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clients {
    /// Their number.
    pub(super) count: u32,
    /// The time in which they begin, evenly.
    pub(super) window: Duration,
    /// The time those that are late are waited for.
    pub(super) tail: Duration,
}

/// The counters at one moment.
pub(super) struct Sample {
    at: Instant,
    /// Packets of the attack, or connections that it began.
    pub(super) sent: u64,
    /// Segments that answer it.
    answers: SinkCounts,
    /// The server's device.
    device: DeviceCounts,
    core: CoreTime,
    /// Of all processors.
    cores: Vec<CoreTime>,
    /// Bytes on the open connections.
    bytes: u64,
}

/// The measurements of an attack.
struct Met {
    first: Sample,
    last: Sample,
    outcome: tidegate_load::Measured,
    totals: Option<Totals>,
    served_after_begin: Option<Duration>,
    served_after_end: Option<Duration>,
}

impl Sample {
    pub(super) fn seconds_since(&self, earlier: &Self) -> f64 {
        (self.at - earlier.at).as_secs_f64()
    }

    /// The time that a hypervisor has taken from one of the processors since `earlier`.
    pub(super) fn stolen_since(&self, earlier: &Self) -> Duration {
        CoreTime::most_stolen(&earlier.cores, &self.cores)
    }
}

/// `count` in so many seconds, per second.
pub(super) fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

impl Bench<'_> {
    /// Measures `case`. Clients that are late are waited for during `tail`. `quiet_p99_us` is the connect p99 of the
    /// case's server without an attack, if it was measured.
    ///
    /// # Errors
    ///
    /// The server does not start or ends, or the attack cannot be made. Clients that fail are no error.
    pub(super) fn measure(&self, case: &Case, tail: Duration, quiet_p99_us: Option<f64>) -> anyhow::Result<Measured> {
        match case.subject {
            Subject::Server(target) => {
                let row = self.measure_server(target, case, tail)?;
                Ok(Measured::Row(Box::new(row)))
            }
            Subject::Bare(limit) => self.measure_bare(limit, case),
            Subject::Score(contender) => self.score(contender, case, quiet_p99_us).map(Measured::Score),
        }
    }

    /// Starts `target` and waits until it answers.
    pub(super) fn start(&self, target: Target, family: Family) -> anyhow::Result<Child> {
        let mut server = self.servers.start(target, family)?;
        arrangement::bind_devices(self.lab, self.cores)?;
        let url = url(target, family, &SMALL.path())?;
        self.lab
            .inside(Place::Client, || probe::wait_for(&url, &self.small, &mut server))
            .with_context(|| format!("{} does not answer", target.name()))?;
        Ok(server)
    }

    fn measure_server(&self, target: Target, case: &Case, tail: Duration) -> anyhow::Result<Measurement> {
        let scale = &self.scale;
        let mut server = self.start(target, case.family)?;
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

        let met = self.attack(target, case, tail, &open)?;
        let memory_after = Memory::with(server.id());
        let damage = open.finish(scale.finish);
        if !server.is_running()? {
            bail!("{} ended in mid-run", target.name());
        }
        let memory_after = memory_after?;

        let Met {
            first,
            last,
            outcome,
            totals,
            ..
        } = &met;
        let seconds = last.seconds_since(first);
        let rate = |of: fn(&Sample) -> u64| per_second(of(last).saturating_sub(of(first)), seconds);
        let received = rate(|sample| sample.device.received_octets);
        let steal = last.stolen_since(first);
        Ok(Measurement {
            target,
            family: case.family,
            attack: case.attack,
            offered: case.offered,
            offered_per_s: rate(|sample| sample.sent),
            answered_per_s: rate(|sample| sample.answers.syn_acks),
            taken_per_s: rate(|sample| sample.device.received),
            amplification: (totals.is_some() && received > 0.0)
                .then(|| rate(|sample| sample.answers.octets) / received),
            syns_sent: totals.map_or(0, |totals| totals.sent),
            frames_taken: totals.and_then(|totals| totals.interface_sent),
            live_frames: totals
                .filter(|totals| totals.connections.is_none())
                .map(|totals| totals.live_frames),
            attack_connections: totals.and_then(|totals| totals.connections).map(|all| all.kept),
            legit_tried: scale.clients,
            legit_ok: u32::try_from(outcome.operations).unwrap_or(u32::MAX),
            connect: outcome.connect.quantiles(),
            undisturbed_p99_us: undisturbed_p99_us(&outcome.connect, steal, seconds),
            steal,
            first_byte: outcome.latency.quantiles(),
            first_failure: outcome.errors.first().map(str::to_owned),
            served_after_begin: met.served_after_begin,
            served_after_end: met.served_after_end,
            server_core_busy: last.core.busy_since(first.core),
            rss_bytes: memory_after.resident,
            rss_delta_bytes: difference(memory_after.resident, memory_before.resident),
            kernel_memory_delta_bytes: difference(memory_after.kernel, memory_before.kernel),
            open_before_bytes_per_s: per_second(calm.bytes.saturating_sub(earlier.bytes), calm.seconds_since(&earlier)),
            open_during_bytes_per_s: rate(|sample| sample.bytes),
            damage,
        })
    }

    /// Attacks `target` while clients connect, and looks how long it takes until new ones are served.
    fn attack(&self, target: Target, case: &Case, tail: Duration, open: &BackgroundLoad) -> anyhow::Result<Met> {
        let scale = &self.scale;
        let settle = scale.settle_of(case);
        let url = &url(target, case.family, &SMALL.path())?;
        let clients = Clients {
            count: scale.clients,
            window: scale.window,
            tail,
        };
        let flood = self.start_case(case, target.port(), tail)?;
        let since = Instant::now();
        let deadline = since + settle + scale.window;
        let (met, served_after_begin) = thread::scope(|scope| {
            let is_attacked = flood.is_some();
            let until_served = scope.spawn(move || {
                is_attacked
                    .then(|| self.time_until_served(url, since, deadline))
                    .transpose()
            });
            thread::sleep(settle);
            let met = self.with_clients(target, case.family, clients, flood.as_ref(), Some(open));
            // It ends by itself.
            let served = until_served.join().unwrap_or(Ok(None));
            anyhow::Ok((met?, served?))
        })?;
        let totals = flood.map(Generator::stop).transpose().context("the attack failed")?;
        let since = Instant::now();
        let served_after_end = totals
            .map(|_| self.time_until_served(url, since, since + scale.recovery))
            .transpose()?;
        let (first, last, outcome) = met;
        Ok(Met {
            first,
            last,
            outcome,
            totals,
            served_after_begin: served_after_begin.flatten(),
            served_after_end: served_after_end.flatten(),
        })
    }

    fn time_until_served(&self, url: &Url, since: Instant, deadline: Instant) -> anyhow::Result<Option<Duration>> {
        self.lab.inside(Place::Client, || {
            Ok(time_until_served(url, &self.small, since, deadline))
        })
    }

    /// Runs the clients, with a sample at the begin and one at the end of their window.
    pub(super) fn with_clients(
        &self,
        target: Target,
        family: Family,
        clients: Clients,
        flood: Option<&Generator>,
        open: Option<&BackgroundLoad>,
    ) -> anyhow::Result<(Sample, Sample, tidegate_load::Measured)> {
        let plan = tidegate_load::Plan {
            url: url(target, family, &SMALL.path())?,
            workload: Workload::Cps { close: Close::Server },
            connections: clients.count,
            ramp: tidegate_load::Ramp::default(),
            warm_up: Duration::ZERO,
            duration: clients.window,
            verify: Verify::Equal(Body::of(&self.small)),
            spread: Some(clients.tail),
            arrival: Arrival::Constant,
            cpu: None,
            http: HttpOptions::default(),
        };
        let lab = self.lab;
        let first = self.sample(flood, open)?;
        thread::scope(|scope| {
            let run = || lab.inside(Place::Client, || KernelClient::new().run(&plan, &Progress::hidden()));
            let running = scope.spawn(run);
            thread::sleep(clients.window);
            let last = self.sample(flood, open);
            let outcome = running
                .join()
                .unwrap_or_else(|_| Err(anyhow!("the clients' thread panicked")))?;
            Ok((first, last?, outcome))
        })
    }

    fn measure_bare(&self, limit: Limit, case: &Case) -> anyhow::Result<Measured> {
        let bare = self
            .lab
            .inside(Place::Server, || match limit {
                Limit::Transmit => Bare::reflect(SERVER_DEVICE),
                Limit::Drop => Bare::filter(SERVER_DEVICE, Prefix::SOURCES_V4, Prefix::SOURCES_V6),
            })
            .with_context(|| format!("cannot attach the program that does nothing else to {SERVER_DEVICE}"))?;
        arrangement::bind_devices(self.lab, self.cores)?;
        let flood = self.start_case(case, Target::TidegateAuto.port(), Duration::ZERO)?;
        thread::sleep(self.scale.settle);
        let first = self.sample(flood.as_ref(), None)?;
        let first_count = bare.count();
        thread::sleep(self.scale.window);
        let last = self.sample(flood.as_ref(), None)?;
        let last_count = bare.count();
        if let Some(flood) = flood {
            flood.stop().context("the attack failed")?;
        }
        let count = match limit {
            Limit::Transmit => last.answers.syn_acks.saturating_sub(first.answers.syn_acks),
            Limit::Drop => last_count.saturating_sub(first_count),
        };
        let seconds = last.seconds_since(&first);
        let offered = last.sent.saturating_sub(first.sent);
        Ok(Measured::Limit(
            per_second(count, seconds),
            per_second(offered, seconds),
        ))
    }

    /// Starts the attack of a row on `port`, if it has one.
    fn start_case(&self, case: &Case, port: u16, tail: Duration) -> anyhow::Result<Option<Generator>> {
        let duration = self.scale.settle_of(case) + self.scale.window + tail + SPARE;
        let start = |attack| self.start_attack(attack, case.family, port, case.offered, duration, self.seed);
        case.attack.map(start).transpose()
    }

    /// Starts `attack` on `port` for `duration`, at most.
    pub(super) fn start_attack(
        &self,
        attack: Attack,
        family: Family,
        port: u16,
        offered: Offered,
        duration: Duration,
        seed: u64,
    ) -> anyhow::Result<Generator> {
        let rate = match offered {
            Offered::Nothing => bail!("{} at a rate of nothing", attack.name()),
            Offered::Pps(rate) => Rate::Pps(rate),
            Offered::Max => Rate::Max,
        };
        let plan = Plan {
            targets: attack.targets(family),
            rate,
            connections: attack.connections(),
            // A response that does not fit any window.
            path: BULK.path(),
            duration,
            cpu: Some(self.cores.client),
            seed,
            ..Plan::new(CLIENT_DEVICE, (family.server(), port).into(), attack.kind())
        };
        let start = || Generator::start_beside(plan, Some(&self.sink));
        // AF_XDP's set-up looks at the device in `/sys`.
        self.lab
            .inside_with_sysfs(Place::Client, start)
            .context("cannot start the attack")
    }

    fn sample(&self, flood: Option<&Generator>, open: Option<&BackgroundLoad>) -> anyhow::Result<Sample> {
        let [core] = CoreTime::of([self.cores.server])?;
        let device = self
            .lab
            .inside(Place::Server, || machine::device_counts(SERVER_DEVICE))?;
        Ok(Sample {
            at: Instant::now(),
            sent: flood.map_or(0, |flood| flood.connections().map_or(flood.sent(), |all| all.begun)),
            answers: self.sink.counts(),
            device,
            core,
            cores: CoreTime::of_all()?,
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
    use tidegate_flood::MAX_DURATION;

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
        assert_eq!(addresses.len(), 10);
    }

    #[test]
    fn a_flood_stays_within_the_generators_limit() {
        for scale in [Scale::FULL, Scale::QUICK] {
            let longest = scale.settle + scale.gather + scale.window + scale.tail + SPARE;
            assert!(longest <= MAX_DURATION, "{longest:?}");
        }
    }
}
