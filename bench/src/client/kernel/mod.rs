//! The client over the kernel's TCP: one thread that serves all connections by epoll.
//!
//! It runs beside the server on machines with few cores, so it does little for each request: nothing is allocated, and
//! there is no system call that the workload does not need.

mod bulk;
mod closed_loop;
mod event_loop;
pub(crate) mod files;
mod hold;
mod open_loop;
mod recorder;
mod retries;
mod slot;
mod start_times;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use anyhow::Context;

use crate::client::kernel::bulk::Bulk;
use crate::client::kernel::closed_loop::ClosedLoop;
use crate::client::kernel::event_loop::Driver;
use crate::client::kernel::files::allow_open_files;
use crate::client::kernel::hold::Hold;
use crate::client::kernel::open_loop::OpenLoop;
use crate::client::kernel::recorder::Recorder;
use crate::client::progress::Progress;
use crate::client::{Client, Close, Measured, Plan, Workload};

/// File descriptors needed beside the connections.
const OTHER_FILES: u64 = 64;

/// How long Linux keeps a connection in TIME-WAIT (TCP_TIMEWAIT_LEN), whatever its settings.
const TIME_WAIT: Duration = Duration::from_secs(60);

/// The client over the kernel's TCP. It needs no preparation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KernelClient;

impl KernelClient {
    /// A client.
    pub(crate) fn new() -> Self {
        Self
    }
}

impl Client for KernelClient {
    /// Does what the plan says; the calling thread stays bound to the plan's CPU afterwards.
    ///
    /// [`Workload::Hold`] has no warm-up, and tries each connection once: those that cannot be made are errors, the
    /// others are kept and asked. The other workloads replace a connection that failed after 10 ms.
    fn run(&mut self, plan: &Plan, progress: &Progress) -> anyhow::Result<Measured> {
        plan.check()?;
        allow_open_files(u64::from(plan.connections) + OTHER_FILES)?;
        if let Some(cpu) = plan.cpu {
            bind_to(cpu)?;
        }
        let Plan { url, connections, .. } = plan;
        let connections = *connections;
        let measured = match plan.workload {
            Workload::Cps { close } => {
                let mut driver = ClosedLoop::connections(url, connections, close);
                let measured = run(&mut driver, plan, progress, "connections")?;
                let time_wait = (close == Close::Client).then_some(TIME_WAIT);
                Measured { time_wait, ..measured }
            }
            Workload::Rps { pipeline } => {
                let mut driver = ClosedLoop::requests(url, connections, pipeline);
                run(&mut driver, plan, progress, "requests")?
            }
            Workload::Latency { rate } => {
                let mut driver = OpenLoop::new(url, connections, rate);
                run(&mut driver, plan, progress, "requests")?
            }
            Workload::Throughput { direction } => {
                let mut driver = Bulk::new(url, connections, direction);
                run(&mut driver, plan, progress, "bytes")?
            }
            Workload::Hold => {
                let mut driver = Hold::new(url, connections, plan.duration);
                let all = Plan {
                    warm_up: Duration::ZERO,
                    ..plan.clone()
                };
                let measured = run(&mut driver, &all, progress, "connections")?;
                let seconds = driver.kept().as_secs_f64();
                Measured { seconds, ..measured }
            }
        };
        Ok(measured)
    }
}

fn run<D: Driver>(driver: &mut D, plan: &Plan, progress: &Progress, unit: &'static str) -> anyhow::Result<Measured> {
    let recorder = Recorder::new(progress, unit, plan.warm_up, plan.duration, Instant::now());
    let (recorder, now) = event_loop::run(driver, plan.target(), recorder)?;
    Ok(recorder.finish(now))
}

fn bind_to(cpu: usize) -> anyhow::Result<()> {
    tidegate_affinity::pin_this_thread(cpu)
        .with_context(|| format!("cannot run the client on CPU {cpu}; is there one?"))
}
