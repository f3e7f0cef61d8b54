//! One session: a server is started, meets its clients and loads, and is stopped. Or the bare reflect.

use std::time::Duration;

use anyhow::{Context, bail};
use tidegate_args::url::Url;
use tidegate_flood::Prefix;
use tidegate_lab::Child;
use tidegate_lab::Cores;
use tidegate_lab::arrangement::CLIENT_DEVICE;
use tidegate_lab::machine::{self, CoreTime};
use tidegate_lab::{Lab, Place};
use tidegate_load::{
    Arrival, BypassClient, Client, Close, HttpOptions, KernelClient, Measured, Plan, Progress, Ramp, Settings, Verify,
    Workload,
};

use super::cpu;
use super::frame_pattern::Lengths;
use super::plan::{Case, ClientKind, Load, Scale, Session, Shape, Target};
use super::reflect::{self, Reflected};
use super::report::Run;
use super::target::Servers;
use crate::probe::{self, Answer};

/// The bypass client's maximum segment lifetime. In the lab no segment lives for longer, and with fewer connections in
/// TIME-WAIT the client, which is the slower side of `cps`, is faster, whoever serves.
const CLIENT_MSL: Duration = Duration::from_millis(100);

/// Connections at the same time, in all workloads, and frames under way of the bare reflect.
pub(crate) const CONNECTIONS: u32 = 64;

/// The part of the requests of `latency` that is beyond the highest percentile that is compared.
const TAIL: f64 = 0.01;

/// Parts of the source addresses. Each attempt takes the next one, so that none of its connections has the addresses
/// and ports of one the kernel may still remember.
const SOURCE_PARTS: u32 = 16;

/// The state that all measurements share.
pub(crate) struct Bench<'a> {
    /// Where they are made.
    pub(crate) lab: &'a Lab,
    /// The time their parts take.
    pub(crate) scale: Scale,
    /// Which core does what.
    pub(crate) cores: Cores,
    /// Starts the servers.
    pub(crate) servers: Servers<'a>,
    /// The URL of all requests.
    pub(crate) url: Url,
    /// The side that ends the connections of `cps`. If it is the client, TIME-WAIT is the client's, and no server has
    /// it cheaper than another.
    pub(crate) close: Close,
    /// The body of every response.
    pub(crate) page: Vec<u8>,
    /// Attempts made so far.
    pub(crate) count: u32,
    /// The last answer of tidegate.
    pub(crate) tidegate: Option<Answer>,
}

/// The findings of a session.
pub(crate) struct Found {
    /// The runs, in the order they were made.
    pub(crate) runs: Vec<Run>,
    /// The parts of the server's response; `None` of the bare reflect.
    pub(crate) answer: Option<Answer>,
}

impl Bench<'_> {
    /// Takes `session` as part of round `round`. `rate` gives the requests per second of `latency` for a client.
    ///
    /// # Errors
    ///
    /// The server does not start, answers something else, or ends; a client cannot begin; no frame comes back.
    pub(crate) fn take(
        &mut self,
        session: &Session,
        round: u32,
        rate: &dyn Fn(ClientKind) -> anyhow::Result<u64>,
    ) -> anyhow::Result<Found> {
        match session {
            Session::Server(target, loads) => self.serve(*target, loads, round, rate),
            Session::Reflect => self.reflect(round),
        }
    }

    fn serve(
        &mut self,
        target: Target,
        loads: &[(ClientKind, Load)],
        round: u32,
        rate: &dyn Fn(ClientKind) -> anyhow::Result<u64>,
    ) -> anyhow::Result<Found> {
        let mut server = self.servers.start(target)?;
        let (url, page) = (&self.url, &self.page);
        let answer = self
            .lab
            .inside(Place::Client, || probe::wait_for(url, page, &mut server))
            .with_context(|| format!("{} does not answer as it should", target.name()))?;
        if target == Target::Tidegate {
            self.tidegate = Some(answer);
        }
        let mut runs = Vec::new();
        for &(client, load) in loads {
            let case = Case::Server { load, client, target };
            let workload = match load {
                Load::Cps => Workload::Cps { close: self.close },
                Load::Rps => Workload::Rps { pipeline: 1 },
                Load::Latency => Workload::Latency { rate: rate(client)? },
            };
            let run = self.measure(case, client, workload, round, &server);
            runs.push(run.with_context(|| case.title())?);
            if !server.is_running()? {
                bail!("{} ended in mid-run", target.name());
            }
        }
        Ok(Found {
            runs,
            answer: Some(answer),
        })
    }

    fn measure(
        &mut self,
        case: Case,
        client: ClientKind,
        workload: Workload,
        round: u32,
        server: &Child,
    ) -> anyhow::Result<Run> {
        let plan = Plan {
            url: self.url.clone(),
            workload,
            connections: CONNECTIONS,
            ramp: Ramp::default(),
            warm_up: self.scale.warm_up,
            duration: self.scale.duration,
            verify: Verify::default(),
            spread: None,
            arrival: Arrival::Constant,
            cpu: Some(self.cores.client),
            http: HttpOptions::default(),
        };
        let asked_per_s = match workload {
            Workload::Latency { rate } => Some(rate),
            _ => None,
        };
        let mut kept: Option<Run> = None;
        for _ in 0..self.scale.attempts {
            let sources = sources(self.url.address.is_ipv4(), self.count)?;
            self.count += 1;
            let before = CoreTime::of_all()?;
            let (measured, observed) = cpu::watch(self.lab, self.cores, Some(server.id()), || {
                self.lab.inside_with_sysfs(Place::Client, || {
                    machine::pin_this_thread(self.cores.client)?;
                    new_client(client, sources).run(&plan, &Progress::hidden())
                })
            })?;
            let steal = CoreTime::most_stolen(&before, &CoreTime::of_all()?);
            // A stall is a small part of the rate that other workloads find, and all that p99 shows of a few seconds.
            let is_disturbed =
                asked_per_s.is_some() && measured.errors.total() == 0 && measured.may_be_late_by(steal, TAIL);
            if !is_disturbed || kept.as_ref().is_none_or(|kept| steal < kept.steal) {
                kept = Some(server_run(case, round, asked_per_s, &measured, observed, steal));
            }
            if !is_disturbed {
                break;
            }
        }
        kept.context("no run was asked for")
    }

    fn reflect(&self, round: u32) -> anyhow::Result<Found> {
        let answer = self
            .tidegate
            .context("tidegate has not answered, so the lengths of its frames are not known")?;
        let lengths = self.lengths(answer);
        let reflected = reflect::measure(
            self.lab,
            self.cores,
            lengths,
            self.close,
            CONNECTIONS as usize,
            &self.scale,
        )
        .context("the bare AF_XDP reflect")?;
        Ok(Found {
            runs: reflected.iter().map(|one| reflect_run(round, one)).collect(),
            answer: None,
        })
    }

    /// The lengths of tidegate's frames.
    pub(crate) fn lengths(&self, answer: Answer) -> Lengths {
        let request = self.url.request(true).len();
        Lengths::of(request, answer.length(), self.url.address.is_ipv4())
    }
}

fn new_client(kind: ClientKind, sources: Prefix) -> Box<dyn Client> {
    match kind {
        ClientKind::Kernel => Box::new(KernelClient::new()),
        ClientKind::Bypass => Box::new(BypassClient::new(Settings {
            sources: Some(sources),
            msl: CLIENT_MSL,
            ..Settings::new(CLIENT_DEVICE)
        })),
    }
}

/// The source addresses of attempt number `count`: a part of those a flood has, for which there are routes.
fn sources(is_ipv4: bool, count: u32) -> anyhow::Result<Prefix> {
    let part = count % SOURCE_PARTS;
    let text = if is_ipv4 {
        format!("198.19.{}.0/20", part * 16)
    } else {
        format!("2001:2:0:{:x}::/112", 0x8000 + part)
    };
    text.parse().map_err(anyhow::Error::msg)
}

fn server_run(
    case: Case,
    round: u32,
    asked_per_s: Option<u64>,
    measured: &Measured,
    observed: Option<cpu::Observed>,
    steal: Duration,
) -> Run {
    let per_s = measured.per_second();
    let frames_per_op = measured.frames.and_then(|frames| {
        let all = measured.operations_with_warm_up;
        (all > 0).then(|| (frames.sent + frames.received) as f64 / all as f64)
    });
    Run {
        case,
        round,
        per_s,
        quantiles: measured.latency.quantiles(),
        usage: observed.map(|observed| observed.usage.per_operation(per_s)),
        frames_per_op,
        interface_frames_per_s: observed.map(|observed| observed.interface_frames_per_s),
        asked_per_s,
        steal,
        errors: measured.errors.total(),
        errors_by_kind: measured
            .errors
            .iter()
            .map(|(kind, count)| (kind.to_owned(), count))
            .collect(),
        first_error: measured.errors.first().map(str::to_owned),
        time_wait: measured.time_wait,
    }
}

fn reflect_run(round: u32, reflected: &Reflected) -> Run {
    let per_s = reflected.frames as f64 / reflected.seconds.max(Duration::from_micros(1).as_secs_f64());
    let lost = reflected.lost as u64;
    Run {
        case: Case::Reflect(reflected.shape),
        round,
        per_s,
        quantiles: None,
        usage: reflected.observed.map(|observed| observed.usage.per_operation(per_s)),
        frames_per_op: Some(1.0),
        interface_frames_per_s: reflected.observed.map(|observed| observed.interface_frames_per_s),
        asked_per_s: None,
        steal: Duration::ZERO,
        errors: lost,
        errors_by_kind: (lost > 0).then(|| ("lost".to_owned(), lost)).into_iter().collect(),
        first_error: (lost > 0).then(|| format!("{lost} frames did not come back ({})", shape_name(reflected.shape))),
        time_wait: None,
    }
}

const fn shape_name(shape: Shape) -> &'static str {
    Case::Reflect(shape).workload_name()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_take_parts_of_the_sources_in_turn() {
        for (is_ipv4, all) in [(true, Prefix::SOURCES_V4), (false, Prefix::SOURCES_V6)] {
            let parts: Vec<Prefix> = (0..SOURCE_PARTS)
                .map(|count| sources(is_ipv4, count).unwrap())
                .collect();
            for (index, part) in parts.iter().enumerate() {
                assert!(!parts[..index].contains(part), "{part}");
                let ((address, mask), (outer, outer_mask)) = (part.words(), all.words());
                let fixed = |words: [u32; 4]| -> Vec<u32> {
                    words.iter().zip(outer_mask).map(|(word, mask)| word & mask).collect()
                };
                assert_eq!(fixed(address), outer, "{part} is not in {all}");
                assert_eq!(fixed(mask), outer_mask, "{part} is not in {all}");
            }
            assert_eq!(sources(is_ipv4, SOURCE_PARTS).unwrap(), parts[0]);
        }
    }

    #[test]
    fn a_run_of_the_reflect_counts_frames_and_those_lost() {
        let reflected = Reflected {
            shape: Shape::Request,
            frames: 3_000_000,
            seconds: 2.0,
            lost: 3,
            observed: None,
        };
        let run = reflect_run(1, &reflected);
        assert_eq!((run.per_s, run.frames_per_s()), (1_500_000.0, Some(1_500_000.0)));
        assert_eq!(run.errors, 3);
        assert!(run.first_error.unwrap().contains("3 frames"));
    }
}
