//! One client that loads TCP servers, on two transports: the kernel's sockets ([`KernelClient`]) and tidegate's own
//! engine over AF_XDP ([`BypassClient`]).
//!
//! A [`Plan`] says what is measured ([`Workload`]) and how long, a [`Client`] does it and returns what it [`Measured`].
//!
//! `application` is what happens on each connection, `driver` keeps as many as there should be and knows what time it
//! is, `hold` is the workload that goes another way. They run on a `Connector`, which is all that the transports differ
//! in. `recorder` cuts what they find into seconds, and `monitor`, on another thread, puts these together and shows
//! them. [`http`] and [`thread_per_connection`] are for other clients, and for servers to test clients with.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::time::Duration;
//! use tidegate_load::thread_per_connection::serve_on_loopback;
//! use tidegate_load::{Arrival, Client, HttpOptions, KernelClient, Plan, Progress, Ramp, Verify, Workload};
//!
//! # fn main() -> anyhow::Result<()> {
//! let address = serve_on_loopback(|mut stream| {
//!     while matches!(stream.read(&mut [0; 1024]), Ok(1..))
//!         && stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").is_ok()
//!     {}
//! });
//! let plan = Plan {
//!     url: format!("http://{address}/").parse().expect("a URL"),
//!     workload: Workload::Rps { pipeline: 1 },
//!     connections: 2,
//!     ramp: Ramp::default(),
//!     warm_up: Duration::ZERO,
//!     duration: Duration::from_millis(20),
//!     verify: Verify::Alike,
//!     spread: None,
//!     arrival: Arrival::Constant,
//!     cpu: None,
//!     http: HttpOptions::default(),
//! };
//! let measured = KernelClient::new().run(&plan, &Progress::hidden())?;
//! assert!(measured.operations > 0 && measured.errors.total() == 0);
//! assert_eq!(measured.body.map(|body| body.length), Some(5));
//! # Ok(())
//! # }
//! ```

// In tests those of the standard library, whose output is captured.
#[cfg_attr(not(test), macro_use)]
extern crate tidegate_output;

mod application;
mod body;
mod bypass;
mod chunked;
mod connector;
mod driver;
mod effort;
mod errors;
mod expected;
mod hold;
pub mod http;
mod http_options;
mod in_flight;
mod kernel;
mod limit;
mod monitor;
mod open_files;
mod openings;
mod phase;
mod progress;
mod record;
mod recorder;
mod responses;
mod schedule;
mod series;
mod stalled;
mod stats;
mod statuses;
#[cfg(test)]
mod testing;
pub mod thread_per_connection;
mod window;

pub use body::{Body, Verify, hex};
pub use bypass::{BypassClient, Settings};
pub use effort::{Generator, Starts};
pub use errors::{Errors, Kind};
pub use http_options::HttpOptions;
pub use kernel::KernelClient;
pub use limit::{Limit, Limiter};
pub use phase::{Phase, Ramp};
pub use progress::{Progress, Tick, View};
pub use schedule::Arrival;
pub use series::{OpenConnections, Point, Snapshot};
pub use statuses::Statuses;
pub use window::Window;

use std::net::SocketAddr;
use std::time::Duration;

use tidegate_args::UsageError;
use tidegate_report::Latencies;

use crate::driver::Outcome;
use crate::series::Collected;
use crate::stats::Stats;
use tidegate_args::url::Url;

/// The number of requests under way on a connection, at most.
const MAX_PIPELINE: u32 = 64;

/// The side that ends a connection of the `cps` workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Close {
    /// The client sends FIN first, when it has the response: TIME-WAIT is the client's.
    Client,
    /// The request asks the server to close (`Connection: close`): TIME-WAIT is the server's.
    Server,
    /// The client sends RST when it has the response: nobody has TIME-WAIT.
    Rst,
}

/// Which way the bytes of the `throughput` workload go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Direction {
    /// From the server: the body of the URL, again and again on each connection.
    Down,
    /// To the server: to the address and port of the URL as a discard service (RFC 863).
    Up,
}

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Workload {
    /// New connections: each carries one request and its response, or as many as [`HttpOptions`] says, one at a time.
    Cps {
        /// The side that ends it.
        close: Close,
    },
    /// New connections as in [`Workload::Cps`], but at a fixed rate: each is due whether or not earlier ones are done,
    /// and its times count from then (coordinated omission). One that is due when there are as many as the plan has
    /// connections waits for an end.
    OpenCps {
        /// The side that ends it.
        close: Close,
        /// Connections per second.
        rate: u64,
    },
    /// Requests on connections that stay open, unless [`HttpOptions`] says for how many.
    Rps {
        /// Requests under way on each connection, 1 to 64.
        pipeline: u32,
    },
    /// Requests at a fixed rate on connections that stay open, due whether or not earlier ones were answered. Latency
    /// counts from when a request was due, so a server that stands still is seen as often as its users would see it
    /// (coordinated omission).
    Latency {
        /// Requests per second of all connections together.
        rate: u64,
    },
    /// Bytes.
    Throughput {
        /// Which way they go.
        direction: Direction,
    },
    /// Connections that are opened, stay open, and are all asked once at the end.
    Hold,
}

impl Workload {
    /// The unit of its operations.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Cps { .. } | Self::OpenCps { .. } | Self::Hold => "connections",
            Self::Rps { .. } | Self::Latency { .. } => "requests",
            Self::Throughput { .. } => "bytes",
        }
    }

    /// Requests under way on a connection at most.
    fn pipeline(self) -> u32 {
        match self {
            Self::Rps { pipeline } => pipeline,
            _ => 1,
        }
    }

    /// The rate of an open loop, per second.
    pub fn rate(self) -> Option<u64> {
        match self {
            Self::OpenCps { rate, .. } | Self::Latency { rate } => Some(rate),
            Self::Cps { .. } | Self::Rps { .. } | Self::Throughput { .. } | Self::Hold => None,
        }
    }

    /// The same at another rate, if it has one.
    pub fn with_rate(self, rate: u64) -> Self {
        match self {
            Self::OpenCps { close, .. } => Self::OpenCps { close, rate },
            Self::Latency { .. } => Self::Latency { rate },
            other => other,
        }
    }

    /// The workload that its connections see, whenever they are opened.
    pub(crate) fn on_connections(self) -> Self {
        match self {
            Self::OpenCps { close, .. } => Self::Cps { close },
            other => other,
        }
    }
}

/// A measurement with its target, size and times.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server and the path to request.
    pub url: Url,
    /// The measurement.
    pub workload: Workload,
    /// Connections at the same time.
    pub connections: u32,
    /// Times before the warm-up and after the measurement, in which the load is raised and lowered.
    pub ramp: Ramp,
    /// Time that passes under all of the load before anything is counted.
    pub warm_up: Duration,
    /// Time that is measured. For [`Workload::Hold`]: how long all connections are kept before they are asked.
    pub duration: Duration,
    /// The bodies that responses have to have.
    pub verify: Verify,
    /// Instead of keeping `connections`: they are begun evenly spread over the duration and tried once each, and the
    /// last are waited for so long after the duration. Only for [`Workload::Cps`], and without a ramp.
    pub spread: Option<Duration>,
    /// The spaces between what is due in an open loop.
    pub arrival: Arrival,
    /// The CPU the client's thread is bound to.
    pub cpu: Option<usize>,
    /// The requests, and the limits of responses.
    pub http: HttpOptions,
}

impl Plan {
    /// The server.
    pub fn target(&self) -> SocketAddr {
        self.url.address
    }

    /// The time that all of it takes, as far as that is known before.
    pub fn total(&self) -> Duration {
        let Ramp { initial, up, down } = self.ramp;
        [initial, up, self.warm_up, self.duration, down]
            .into_iter()
            .fold(Duration::ZERO, Duration::saturating_add)
    }

    /// Requests on each connection; `None` if it may have any number.
    pub fn requests_per_connection(&self) -> Option<u32> {
        match self.workload.on_connections() {
            Workload::Cps { .. } | Workload::OpenCps { .. } => Some(self.http.requests_per_connection.unwrap_or(1)),
            Workload::Rps { .. } | Workload::Latency { .. } => self.http.requests_per_connection,
            Workload::Throughput { .. } | Workload::Hold => None,
        }
    }

    /// Whether the client closes connections first, and has their TIME-WAIT.
    pub fn closes_first(&self) -> bool {
        match self.workload.on_connections() {
            Workload::Cps { close } => close == Close::Client,
            _ => self.requests_per_connection().is_some(),
        }
    }

    /// Checks that there is something to do, and that a client can do it.
    ///
    /// # Errors
    ///
    /// There are no connections or requests to make, more requests under way than a connection can have, requests that
    /// cannot be, or phases that the workload does not have.
    fn check(&self) -> Result<(), UsageError> {
        self.http.check(self)?;
        if self.connections == 0 {
            return Err(UsageError("at least one connection is needed".to_owned()));
        }
        self.check_phases()?;
        match self.workload {
            Workload::Rps { pipeline } if !(1..=MAX_PIPELINE).contains(&pipeline) => Err(UsageError(format!(
                "{pipeline} requests under way on a connection; it must be 1 to {MAX_PIPELINE}"
            ))),
            workload if workload.rate() == Some(0) => Err(UsageError(format!(
                "the rate must be at least 1 of the {} per second",
                workload.unit()
            ))),
            _ => Ok(()),
        }
    }

    /// Checks that the workload has the phases that are asked for.
    ///
    /// # Errors
    ///
    /// Connections are tried once each and are not those of [`Workload::Cps`], or there is a ramp for a load that is
    /// not raised or lowered.
    fn check_phases(&self) -> Result<(), UsageError> {
        let text = if self.spread.is_some() && !matches!(self.workload, Workload::Cps { .. }) {
            "connections that are spread over the duration are those of cps without a rate of its own"
        } else if self.spread.is_some() && self.ramp != Ramp::default() {
            "connections that are spread over the duration are not raised or lowered; leave the ramp out"
        } else if self.workload == Workload::Hold && self.ramp != Ramp::default() {
            "connections that are held are not raised or lowered; leave the ramp out"
        } else {
            return Ok(());
        };
        Err(UsageError(text.to_owned()))
    }
}

/// The results of a client.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Connections, requests, or bytes, as the workload says. For [`Workload::Hold`]: connections that answered.
    pub operations: u64,
    /// The time that was measured.
    pub seconds: f64,
    /// From the beginning of a request to the last byte of its response. The first request on a connection of
    /// [`Workload::Cps`] begins with the SYN; one of [`Workload::Latency`], and the first on a connection of
    /// [`Workload::OpenCps`], when it was due. Those of responses that came while measuring, and of those that were
    /// waited for after that; not of responses that were errors.
    pub latency: Latencies,
    /// From the SYN, or when it was due, to ESTABLISHED, where connections were opened while measuring.
    pub connect: Latencies,
    /// As `latency`, but until the first byte of the response.
    pub first_byte: Latencies,
    /// From the last byte of the last response until the server's FIN, where the server was asked to end the connection
    /// or announced it.
    pub close: Latencies,
    /// The responses, by the class of their status.
    pub statuses: Statuses,
    /// The Location field of the first redirect.
    pub first_location: Option<String>,
    /// Connections that were to stay open and whose end the server announced (`Connection: close`, HTTP/1.0). New ones
    /// took their place.
    pub announced_ends: u64,
    /// The errors.
    pub errors: Errors,
    /// Frames the client sent and received, if it knows: in all, with those before measuring.
    pub frames: Option<Frames>,
    /// Requests or connections in all, with those before measuring; to divide `frames` by.
    pub operations_with_warm_up: u64,
    /// The body of all responses, where it was verified.
    pub body: Option<Body>,
    /// The duration of the client's own TIME-WAIT, where it has any.
    pub time_wait: Option<Duration>,
    /// The client's own part.
    pub generator: Generator,
    /// The time that was measured, and the client's processor time in it; not for [`Workload::Hold`].
    pub window: Option<Window>,
    /// Connections on which all was done and that the server reset, or gave no answer on, rather than to end them by
    /// FIN.
    pub unclean_ends: u64,
    /// Connections that were open while measuring.
    pub open: OpenConnections,
    /// Each second of the run, whether it is measured or not.
    pub series: Vec<Point>,
    /// The run was ended before its time.
    pub cut_short: bool,
}

/// Ethernet frames, both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// Sent by the client.
    pub sent: u64,
    /// Received by the client.
    pub received: u64,
}

impl Measured {
    /// Operations in a second.
    pub fn per_second(&self) -> f64 {
        if self.seconds > 0.0 {
            self.operations as f64 / self.seconds
        } else {
            0.0
        }
    }
}

/// Returns the results of a client whose threads have found `outcome` together and whose TIME-WAIT, where it has any,
/// lasts for `time_wait`.
fn measured(plan: &Plan, outcome: Outcome, collected: Collected, time_wait: Duration) -> Measured {
    let Outcome {
        stats,
        measured,
        frames,
        body,
        generator,
        window,
        cut_short,
    } = outcome;
    let first_byte = collected.first_byte();
    let Collected {
        latency,
        connect,
        series,
        open,
        ..
    } = collected;
    let (operations, operations_with_warm_up) = (stats.operations(), stats.operations_with_warm_up());
    let Stats {
        close,
        announced_ends,
        statuses,
        location,
        unclean_ends,
        mut errors,
        ..
    } = stats;
    let seconds = measured.as_secs_f64();
    if operations == 0 && errors.total() == 0 && !cut_short {
        let unit = plan.workload.unit();
        let detail = format!("no {unit} were completed in the {seconds:.1} s that were measured");
        errors.add(Kind::Unfinished, detail);
    }
    Measured {
        operations,
        seconds,
        latency,
        connect,
        first_byte,
        close,
        statuses,
        first_location: location,
        announced_ends,
        errors,
        frames,
        operations_with_warm_up,
        body,
        time_wait: plan.closes_first().then_some(time_wait),
        generator,
        window,
        unclean_ends,
        open,
        series,
        cut_short,
    }
}

/// A client of either kind, ready to run once in the calling thread's network namespace.
pub trait Client {
    /// Does what the plan says; tells `progress` about it.
    ///
    /// [`Workload::Hold`] has no warm-up, and tries each connection once: those that cannot be made are errors, the
    /// others are kept and asked. The other workloads replace a connection that failed after 10 ms.
    ///
    /// Times are those at which the client's thread looked at the clock, once for each lot of events or frames, to the
    /// microsecond.
    ///
    /// # Errors
    ///
    /// It could not begin. Errors after that are counted in [`Measured::errors`].
    fn run(&mut self, plan: &Plan, progress: &Progress) -> anyhow::Result<Measured>;
}
