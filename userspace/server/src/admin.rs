//! The admin listener: metrics, health, an API and a dashboard by HTTP, on a kernel socket, in a thread of its own.

mod api;
#[cfg(test)]
mod browser;
#[cfg(test)]
mod document;
mod families;
mod host;
mod http;
mod latency;
mod metrics;
mod page;
mod snapshots;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{Shutdown, shutdown};
use tidegate_control::State;
use tidegate_runtime::{CookieMode, QueueInfo, Report, Runtime};
use tracing::warn;

pub(crate) use self::api::is_loss;
pub(crate) use self::latency::latency;
use crate::config_file::ConfigFile;
use crate::counter_rows::{Row, counter_rows};
use crate::failure::Failure;
use crate::main_loop::{Caller, MainLoop};
use crate::output;
use crate::privileges;
use crate::service_counters::ServiceCounts;
use host::Hosts;
pub(crate) use host::check_name;
use http::Limits;
use snapshots::Snapshots;

/// Counters and facts of one moment.
pub(crate) struct Snapshot {
    /// The time of the snapshot.
    pub(crate) at: Instant,
    pub(crate) info: Info,
    pub(crate) state: State,
    pub(crate) report: Report,
    /// By shard.
    pub(crate) services: Vec<Arc<ServiceCounts>>,
    pub(crate) output_lost: u64,
}

/// The parts of a snapshot that seldom change.
pub(crate) struct Info {
    /// The time at which the process began to serve.
    pub(crate) started: Instant,
    pub(crate) interfaces: Vec<String>,
    /// Empty while the interfaces are gone, as the next.
    pub(crate) devices: Vec<String>,
    pub(crate) queues: Vec<QueueInfo>,
    /// Where the kernel runs the XDP program.
    pub(crate) xdp: String,
    /// Service and address of each.
    pub(crate) listeners: Vec<String>,
    pub(crate) cookie_mode: CookieMode,
}

impl Snapshot {
    /// # Errors
    ///
    /// A sentence why there is none: a shard does not answer, or nothing has been served yet.
    fn take(main: &MainLoop<'_>, started: Instant) -> Result<Self, String> {
        let (report, published) = main.counts()?.ok_or("nothing has been served yet")?;
        let runtime = main.serving.as_ref().map(|serving| &serving.runtime);
        let config = &main.settings.config;
        Ok(Self {
            at: Instant::now(),
            info: Info {
                started,
                interfaces: main.settings.interfaces.clone(),
                devices: runtime.map_or_else(Vec::new, |runtime| runtime.devices().to_vec()),
                queues: runtime.map_or_else(Vec::new, |runtime| runtime.queues().to_vec()),
                xdp: runtime.map_or_else(|| "none".to_owned(), |runtime| runtime.attached().to_string()),
                listeners: config
                    .listen
                    .iter()
                    .map(|listen| format!("{}={}", listen.service.name(), listen.address))
                    .collect(),
                cookie_mode: runtime.map_or(config.syn_cookies.mode, Runtime::cookie_mode),
            },
            state: main.state(),
            report,
            services: published.iter().map(|published| published.counts()).collect(),
            output_lost: output::lost(),
        })
    }

    /// Whether SYN cookies are on because a queue is under pressure.
    fn is_flooded(&self) -> bool {
        self.info.cookie_mode == CookieMode::Auto && self.report.syn_cookies.iter().any(|cookies| cookies.active)
    }

    /// All counters by name.
    fn rows(&self) -> Vec<Row> {
        counter_rows(&self.report, &self.services, self.output_lost)
    }

    /// Time since the process began to serve.
    fn uptime(&self) -> Duration {
        self.at.duration_since(self.info.started)
    }
}

/// The time that a server which was taken over from has to leave the address.
const TAKE_OVER_LIMIT: Duration = Duration::from_secs(5);

/// The interval at which that is tried.
const TAKE_OVER_STEP: Duration = Duration::from_millis(20);

/// A running listener, which lives as long as the process.
pub(crate) struct Admin {
    /// The address it listens on.
    pub(crate) address: SocketAddr,
    stopping: Arc<AtomicBool>,
    listener: TcpListener,
}

/// Has a listener take no more connections, and leaves its address to another process.
pub(crate) fn close(listener: &TcpListener) {
    // It fails only where that is so already.
    let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
}

/// Binds `address`; where this process takes over from another, as soon as that has left it.
fn bind(address: SocketAddr, takes_over: bool) -> io::Result<TcpListener> {
    let began = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Err(error)
                if takes_over && error.kind() == io::ErrorKind::AddrInUse && began.elapsed() < TAKE_OVER_LIMIT =>
            {
                thread::sleep(TAKE_OVER_STEP);
            }
            bound => return bound,
        }
    }
}

impl Admin {
    /// Listens on `address`, with the limits that `config` has.
    ///
    /// # Errors
    ///
    /// The address cannot be bound, or there can be no thread.
    pub(crate) fn start(
        address: SocketAddr,
        config: &ConfigFile,
        caller: &Caller,
        takes_over: bool,
    ) -> Result<Self, Failure> {
        let started = Instant::now();
        let caller = caller.clone();
        let take = move || {
            let taken = caller.call(move |main| Snapshot::take(main, started));
            taken.unwrap_or_else(|error| Err(error.to_string()))
        };
        let limits = Limits {
            connections: config.admin_connections,
            ..Limits::default()
        };
        let hosts = Hosts::new(&config.admin_hosts);
        let admin = bind(address, takes_over)
            .and_then(|listener| Self::serve(listener, Snapshots::new(take), hosts, limits))
            .map_err(|source| Failure::System {
                what: format!("cannot listen on {address} for --admin (key `admin`)"),
                source,
            })?;
        if !address.ip().is_loopback() {
            warn!(
                "the admin listener on {address} is not on loopback: all hosts that reach it see the counters, \
                 without authentication"
            );
        }
        Ok(admin)
    }

    fn serve(listener: TcpListener, snapshots: Snapshots, hosts: Hosts, limits: Limits) -> io::Result<Self> {
        let kept = listener.try_clone()?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let site = http::Site::new(snapshots, hosts, Arc::clone(&stopping));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // One takes snapshots, and the others wait for it.
            .max_blocking_threads(1)
            .build()?;
        thread::Builder::new().name("admin".to_owned()).spawn(move || {
            privileges::confine_helper();
            runtime.block_on(http::accept(listener, Arc::new(site), limits))
        })?;
        Ok(Self {
            address,
            stopping,
            listener: kept,
        })
    }

    /// The socket, for [`close`].
    pub(crate) fn listener(&self) -> Option<TcpListener> {
        self.listener.try_clone().ok()
    }

    /// From now on the server is not ready, and is not asked any more.
    pub(crate) fn note_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}
