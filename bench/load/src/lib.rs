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
//! use tidegate_load::{Client, KernelClient, Plan, Progress, Ramp, Verify, Workload};
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
//!     cpu: None,
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
mod connector;
mod driver;
mod errors;
mod hold;
pub mod http;
mod in_flight;
mod kernel;
mod monitor;
mod open_files;
mod openings;
mod phase;
mod progress;
mod recorder;
mod responses;
mod schedule;
mod series;
mod stalled;
mod stats;
pub mod thread_per_connection;

pub use body::{Body, Verify, hex};
pub use bypass::{BypassClient, Settings};
pub use errors::{Errors, Kind};
pub use kernel::KernelClient;
pub use phase::{Phase, Ramp};
pub use progress::{Progress, Tick, View};
pub use series::{OpenConnections, Point, Snapshot};

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
    /// New connections: each carries one request and its response.
    Cps {
        /// The side that ends it.
        close: Close,
    },
    /// Requests on connections that stay open.
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
            Self::Cps { .. } | Self::Hold => "connections",
            Self::Rps { .. } | Self::Latency { .. } => "requests",
            Self::Throughput { .. } => "bytes",
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
    /// Instead of keeping `connections`: they are begun evenly spread over the duration and tried once each, a response
    /// may take 10 s, and the last are waited for so long after the duration.
    pub spread: Option<Duration>,
    /// The CPU the client's thread is bound to.
    pub cpu: Option<usize>,
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

    /// Checks that there is something to do, and that a client can do it.
    ///
    /// # Errors
    ///
    /// There are no connections or requests to make, or more requests under way than a connection can have.
    fn check(&self) -> Result<(), UsageError> {
        if self.connections == 0 {
            return Err(UsageError("at least one connection is needed".to_owned()));
        }
        match self.workload {
            Workload::Rps { pipeline } if !(1..=MAX_PIPELINE).contains(&pipeline) => Err(UsageError(format!(
                "{pipeline} requests under way on a connection; it must be 1 to {MAX_PIPELINE}"
            ))),
            Workload::Latency { rate: 0 } => {
                Err(UsageError("the rate must be at least 1 request per second".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

/// The results of a client.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Connections, requests, or bytes, as the workload says. For [`Workload::Hold`]: connections that answered.
    pub operations: u64,
    /// The time that was measured.
    pub seconds: f64,
    /// From the beginning of a request to its last byte; for [`Workload::Cps`] from the SYN to the last byte of the
    /// response; for [`Workload::Latency`] from when it was due.
    pub latency: Latencies,
    /// From the SYN to ESTABLISHED, where connections were opened while measuring.
    pub connect: Latencies,
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
        cut_short,
    } = outcome;
    let Collected {
        latency,
        connect,
        series,
        open,
    } = collected;
    let (operations, operations_with_warm_up) = (stats.operations(), stats.operations_with_warm_up());
    let Stats {
        announced_ends,
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
    let has_time_wait = plan.workload == Workload::Cps { close: Close::Client };
    Measured {
        operations,
        seconds,
        latency,
        connect,
        announced_ends,
        errors,
        frames,
        operations_with_warm_up,
        body,
        time_wait: has_time_wait.then_some(time_wait),
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
