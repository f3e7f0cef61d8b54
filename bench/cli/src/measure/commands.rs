//! The arguments of each subcommand, and what it measures.

use std::time::Duration;

use tidegate_args::duration::{self, ABOVE_ZERO};
use tidegate_args::url::UnresolvedUrl;
use tidegate_load::{Arrival, Close, Direction, Plan, Ramp, Workload};
use tidegate_report::ReportFiles;

use super::http::{MIN_TIMEOUT, RequestOptions};
use super::measurement::Measurement;
use super::open_loop::OpenLoop;
use super::options::{Load, MAX_DURATION, MIN_DURATION, Options};

/// The highest rate of an open loop, per second.
pub(crate) const MAX_RATE: u64 = 50_000_000;

/// Arguments of `tidegate-bench cps`.
#[derive(Debug, clap::Args)]
pub(crate) struct Cps {
    #[command(flatten)]
    pub(super) options: Options,
    #[command(flatten)]
    pub(super) load: Load,
    /// The side that ends a connection when the response is complete.
    #[arg(long, value_enum, default_value = "client")]
    pub(super) close: Close,
    /// Requests on each connection, one at a time, 1 to 1,000,000.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) requests_per_connection: u32,
    /// Connections per second that are due, 1 to 50M, whether or not earlier ones are done (an open loop);
    /// without it, as many as can be, each in the place of one that is done.
    #[arg(long, value_name = "RATE", value_parser = tidegate_args::rate::within(1..=MAX_RATE))]
    pub(super) rate: Option<u64>,
    #[command(flatten)]
    pub(super) open_loop: OpenLoop,
}

/// Arguments of `tidegate-bench rps`.
#[derive(Debug, clap::Args)]
pub(crate) struct Rps {
    #[command(flatten)]
    pub(super) options: Options,
    #[command(flatten)]
    pub(super) load: Load,
    /// Requests under way on each connection, 1 to 64.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(super) pipeline: u32,
    /// Requests on each connection, 1 to 1,000,000, after which the client closes it and another takes its place
    /// (default: any number)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) requests_per_connection: Option<u32>,
}

/// Arguments of `tidegate-bench latency`.
#[derive(Debug, clap::Args)]
pub(crate) struct Latency {
    #[command(flatten)]
    pub(super) options: Options,
    #[command(flatten)]
    pub(super) load: Load,
    /// Requests per second of all connections together, 1 to 50M.
    #[arg(long, value_name = "RATE", value_parser = tidegate_args::rate::within(1..=MAX_RATE))]
    pub(super) rate: u64,
    /// Requests on each connection, 1 to 1,000,000, after which the client closes it and another takes its place
    /// (default: any number)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) requests_per_connection: Option<u32>,
    #[command(flatten)]
    pub(super) open_loop: OpenLoop,
}

/// Arguments of `tidegate-bench throughput`.
#[derive(Debug, clap::Args)]
pub(crate) struct Throughput {
    #[command(flatten)]
    pub(super) options: Options,
    #[command(flatten)]
    pub(super) load: Load,
    /// Which way the bytes go.
    #[arg(long, value_enum)]
    pub(super) direction: Direction,
}

/// Arguments of `tidegate-bench hold`.
#[derive(Debug, clap::Args)]
pub(crate) struct Hold {
    #[command(flatten)]
    pub(super) options: Options,
    /// Connections to open and keep, 1 to 10,000,000.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..=10_000_000)
    )]
    pub(super) connections: u32,
    /// The time to keep all of them before they are asked, at most 600s.
    #[arg(long, default_value = "5s", value_parser = duration::within(MIN_DURATION..=MAX_DURATION))]
    pub(super) duration: Duration,
}

/// Arguments of `tidegate-bench load`: `rps --verify`, or `cps --close server --verify`, without a warm-up.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckedLoad {
    /// URL to request: http://HOST:PORT/PATH, with IPv6 addresses in brackets; a name is resolved once.
    #[arg(long)]
    url: UnresolvedUrl,
    /// Connections kept busy, 1 to 10,000.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// The time to send requests, at most 10m.
    #[arg(long, default_value = "3s", value_parser = duration::within(ABOVE_ZERO..=MAX_DURATION))]
    duration: Duration,
    /// Make a new connection for every request.
    #[arg(long)]
    no_keepalive: bool,
    /// The time a complete response may take, 1ms to 10m.
    #[arg(long, default_value = "10s", value_parser = duration::within(MIN_TIMEOUT..=MAX_DURATION))]
    timeout: Duration,
    #[command(flatten)]
    request: RequestOptions,
    #[command(flatten)]
    files: ReportFiles,
}

impl Cps {
    /// Measures and prints the results; see [`Measurement::run`].
    pub(crate) fn run(&self) -> anyhow::Result<bool> {
        let close = self.close;
        let requests = Some(self.requests_per_connection);
        let Some(rate) = self.rate else {
            self.open_loop.refuse()?;
            return Measurement::of(&self.options, &self.load, Workload::Cps { close }, requests)?.run();
        };
        Measurement::of(&self.options, &self.load, Workload::OpenCps { close, rate }, requests)?
            .arriving(self.open_loop.arrival()?)
            .run()
    }
}

impl Rps {
    /// Measures and prints the results; see [`Measurement::run`].
    pub(crate) fn run(&self) -> anyhow::Result<bool> {
        let workload = Workload::Rps {
            pipeline: self.pipeline,
        };
        Measurement::of(&self.options, &self.load, workload, self.requests_per_connection)?.run()
    }
}

impl Latency {
    /// Measures and prints the results; see [`Measurement::run`].
    pub(crate) fn run(&self) -> anyhow::Result<bool> {
        let workload = Workload::Latency { rate: self.rate };
        Measurement::of(&self.options, &self.load, workload, self.requests_per_connection)?
            .arriving(self.open_loop.arrival()?)
            .run()
    }
}

impl Throughput {
    /// Measures and prints the results; see [`Measurement::run`].
    pub(crate) fn run(&self) -> anyhow::Result<bool> {
        let workload = Workload::Throughput {
            direction: self.direction,
        };
        if self.direction == Direction::Up {
            self.options.client.refuse_requests()?;
        }
        Measurement::of(&self.options, &self.load, workload, None)?.run()
    }
}

impl Hold {
    /// Measures and prints the results; see [`Measurement::run`].
    pub(crate) fn run(&self) -> anyhow::Result<bool> {
        let plan = Plan {
            url: self.options.url.resolve()?,
            workload: Workload::Hold,
            connections: self.connections,
            ramp: Ramp::default(),
            warm_up: Duration::ZERO,
            duration: self.duration,
            verify: self.options.client.verify(),
            spread: None,
            arrival: Arrival::Constant,
            cpu: self.options.client.cpu,
            http: self.options.client.request.http(None, None),
        };
        Measurement {
            options: &self.options,
            plan,
            profile: None,
            fail_if: &[],
        }
        .run()
    }
}

impl CheckedLoad {
    /// Measures and prints the results; see [`Measurement::run`].
    pub(crate) fn run(self) -> anyhow::Result<bool> {
        let load = Load {
            connections: self.connections,
            ramp: None,
            warm_up: Some(Duration::ZERO),
            duration: Some(self.duration),
            timeout: self.timeout,
            profile: None,
            fail_if: Vec::new(),
        };
        let workload = if self.no_keepalive {
            Workload::Cps { close: Close::Server }
        } else {
            Workload::Rps { pipeline: 1 }
        };
        let options = Options::verifying(self.url, self.request, self.files);
        Measurement::of(&options, &load, workload, None)?.run()
    }
}
