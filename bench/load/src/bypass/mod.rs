//! The client over AF_XDP: tidegate's own engine opens the connections, past the kernel's TCP.
//!
//! [`connector`] opens the connections, and [`tuples`] says from where. There is one shard for each queue of the
//! interface, with its part of the connections.

mod connector;
mod misrouted;
mod settings;
#[cfg(test)]
mod tests;
mod tuples;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

use anyhow::{Context, bail};
use tidegate_affinity::Pinned;
use tidegate_args::UsageError;
use tidegate_nic::{Facts, Linux};
use tidegate_runtime::{
    Attached, Balancers, CookieMode, InterfaceInfo, Runtime, ShardReport, Sources, SynCookies, WaitStrategy,
};
use tidegate_tcp::engine::{ConnectionId, Engine};
use tidegate_tcp::transmit::Transmit;
use tidegate_tcp::wire::LinkHeader;

pub use self::settings::Settings;

use self::connector::{Dialer, EngineConnector};
use self::misrouted::Misrouted;
use self::tuples::{Addresses, Share, Steering};
use crate::application::Requests;
use crate::driver::{Driver, Outcome, Task};
use crate::monitor::Monitor;
use crate::progress::Progress;
use crate::{Client, Measured, Plan, Workload, measured};
use tidegate_flood::neighbour;

/// The client over AF_XDP. It takes root, or the capabilities that tidegate itself needs.
#[derive(Clone, Debug)]
pub struct BypassClient {
    settings: Settings,
}

impl BypassClient {
    /// A client.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// The header of all frames to the target.
    fn link(&self, plan: &Plan, interface: &InterfaceInfo) -> anyhow::Result<LinkHeader> {
        let name = &self.settings.interface;
        let source = interface
            .mac
            .with_context(|| format!("{name} is not an Ethernet interface"))?;
        let target = plan.target().ip();
        let destination = match self.settings.target_mac {
            Some(mac) => mac,
            None => neighbour::resolve(name, target)?,
        };
        Ok(LinkHeader::new(destination, source, target.is_ipv4()))
    }

    /// The queues on which answers arrive, where the device says how it chooses them and every shard has a pair for
    /// each of its connections.
    fn steering(&self, plan: &Plan, addresses: Addresses, queues: u32) -> Option<Steering> {
        let Settings { interface, ports, .. } = &self.settings;
        let facts = Linux::new()
            .and_then(|mut kernel| Facts::read(&mut kernel, interface))
            .ok()?;
        let steering = Steering::new(addresses, ports, facts.queues_from(plan.target())?, queues);
        let mut shares = (0..queues).map(|index| Share { index, of: queues });
        shares
            .all(|share| steering.count(share) >= task(plan, share).connections.max(1))
            .then_some(steering)
    }

    /// Attaches the XDP program and starts the shards, which begin at once.
    fn start(&self, plan: &Plan, progress: &Progress, outcome: &Sender<Outcome>) -> anyhow::Result<(Runtime, Monitor)> {
        let settings = &self.settings;
        let interface = tidegate_runtime::interface_info(&settings.interface).map_err(usage)?;
        check_queues(&settings.interface, &interface)?;
        let queues = interface.queues;
        if plan.cpu.is_some() && queues > 1 {
            return Err(UsageError(format!(
                "{name} has {queues} queues, which need a CPU each; give it one with `ethtool -L {name} combined 1`, \
                 or do not bind the client to a CPU",
                name = settings.interface
            ))
            .into());
        }
        check_shares(plan, queues)?;
        let addresses = settings.addresses(plan.target().ip(), &interface)?;
        let link = self.link(plan, &interface)?;
        let mut shards = Vec::new();
        // The first shard has the most connections.
        let connections = task(plan, Share { index: 0, of: queues }).connections;
        let mut pairs = 0;
        let steering = (queues > 1)
            .then(|| self.steering(plan, addresses, queues))
            .flatten()
            .map(Arc::new);
        let (monitor, recorders) = Monitor::new(plan, progress, queues as usize);
        for (index, recorder) in (0..queues).zip(recorders) {
            let share = Share { index, of: queues };
            let task = task(plan, share);
            let mut tuples = settings.tuples(addresses, share, task.connections, steering.as_ref())?;
            tuples.begin_at(RandomState::new().hash_one(share.index));
            pairs = pairs.max(tuples.len());
            let driver = ShardDriver {
                driver: Driver::new(task, recorder),
                dialer: Dialer::new(plan.target(), link, tuples),
                outcome: outcome.clone(),
            };
            shards.push((Requests::new(plan, &task), driver));
        }
        let mut shards = shards.into_iter();
        let cookies = SynCookies {
            mode: CookieMode::Never,
            ..SynCookies::default()
        };
        let runtime = tidegate_runtime::start_with_tasks(
            &tidegate_runtime::Settings {
                interfaces: std::slice::from_ref(&settings.interface),
                afxdp: &settings.afxdp(plan, queues),
                tcp: &settings.tcp(plan, connections, pairs),
                syn_cookies: &cookies,
                sources: &Sources::default(),
                balancers: &Balancers::default(),
                listeners: &[],
                remotes: &[plan.target()],
                opened: || Ok(()),
            },
            |_| {
                shards
                    .next()
                    .expect("as many shards were made as queues were asked for")
            },
        )
        .map_err(usage)?;
        if runtime.attached() != Attached::Native {
            eprintln!(
                "tidegate-bench: the driver of {} refuses native XDP, so the client's XDP program runs in generic mode, \
                 which is slower: the client may be the limit",
                settings.interface
            );
        }
        Ok((runtime, monitor))
    }
}

impl Client for BypassClient {
    fn run(&mut self, plan: &Plan, progress: &Progress) -> anyhow::Result<Measured> {
        plan.check()?;
        check_wait(plan.workload, self.settings.wait)?;
        let pin = |cpu| Pinned::to(cpu).with_context(|| format!("cannot run the client on CPU {cpu}; is there one?"));
        let bound = plan.cpu.map(pin).transpose()?;
        let (sender, outcomes) = channel();
        let (mut runtime, mut monitor) = self.start(plan, progress, &sender)?;
        // The shards have the CPU from here on; this thread only looks after them.
        drop(bound);
        // The shards alone hold the channel: without them there is nothing to wait for.
        drop(sender);
        let mut total = watch(&mut monitor, &mut runtime, &outcomes)?;
        // Connections that are still open are reset at once.
        let report = runtime.stop()?;
        let collected = monitor.finish();
        let misrouted = Misrouted::of(&report.shards);
        // To the engines every visit is a frame.
        if let Some(frames) = &mut total.frames {
            frames.received = frames.received.saturating_sub(misrouted.visits);
        }
        total.generator.lost_frames = report.shards.iter().map(lost_frames).sum();
        if let Some(warning) = misrouted.warning() {
            eprintln!("tidegate-bench: {warning}");
        }
        Ok(measured(plan, total, collected, 2 * self.settings.msl))
    }
}

/// The driver of one shard.
struct ShardDriver {
    driver: Driver,
    dialer: Dialer,
    /// Told once, at the end.
    outcome: Sender<Outcome>,
}

impl tidegate_runtime::ShardTask<Requests<ConnectionId>> for ShardDriver {
    fn turn<T: Transmit>(
        &mut self,
        engine: &mut Engine<Requests<ConnectionId>>,
        now: tidegate_tcp::time::Instant,
        out: &mut T,
    ) -> Option<tidegate_tcp::time::Instant> {
        let mut connector = EngineConnector {
            dialer: &mut self.dialer,
            engine,
            now,
            out,
        };
        let due = self.driver.turn(&mut connector, now);
        if let Some(outcome) = self.driver.take_outcome() {
            // The receiver may have given up.
            let _ = self.outcome.send(outcome);
        }
        due
    }

    fn arrived_elsewhere(&mut self, frame: &[u8]) {
        self.dialer.arrived_elsewhere(frame);
    }
}

/// The frames that the client's own rings, queues or memory for frames had no room for.
fn lost_frames(shard: &ShardReport) -> u64 {
    let kernel = &shard.xdp_statistics;
    kernel.rx_dropped
        + kernel.rx_ring_full
        + kernel.rx_fill_ring_empty_descs
        + shard.port.tx_refused
        + shard.port.handover_full
}

/// Latencies are to be the server's, to the microsecond.
fn check_wait(workload: Workload, wait: WaitStrategy) -> Result<(), UsageError> {
    if workload.rate().is_some() && wait != WaitStrategy::Spin {
        let text = "a fixed rate needs --wait spin: a client that sleeps wakes up to 1 ms late, which would count as \
                    the server's";
        return Err(UsageError(text.to_owned()));
    }
    Ok(())
}

/// Checks that there is a shard for every queue: what arrives on another one goes to the kernel, which knows nothing of
/// the client's connections.
fn check_queues(name: &str, interface: &InterfaceInfo) -> Result<(), UsageError> {
    let InterfaceInfo { queues, rx_queues, .. } = *interface;
    if rx_queues > queues {
        return Err(UsageError(format!(
            "{name} spreads what it receives over {rx_queues} queues, of which the client can serve {queues}; make them \
             equal with `ethtool -L {name} combined {queues}`, or `ethtool -L {name} rx {queues}` where the driver has \
             queues for receiving only"
        )));
    }
    Ok(())
}

/// Every shard needs a part of what is asked for.
fn check_shares(plan: &Plan, queues: u32) -> Result<(), UsageError> {
    let connections = u64::from(plan.connections);
    let least = plan.workload.rate().map_or(connections, |rate| rate.min(connections));
    if least < u64::from(queues) {
        return Err(UsageError(format!(
            "the interface has {queues} queues; ask for at least as many connections, and as many per second"
        )));
    }
    Ok(())
}

/// An error of the runtime, as one of the arguments if it is.
fn usage(error: tidegate_runtime::Error) -> anyhow::Error {
    if error.is_usage() {
        UsageError(error.to_string()).into()
    } else {
        error.into()
    }
}

/// Returns the part of the plan that one shard does.
fn task(plan: &Plan, share: Share) -> Task {
    let rate = plan.workload.rate().map_or(0, |rate| share.part(rate));
    Task {
        workload: plan.workload.with_rate(rate),
        connections: share.part(u64::from(plan.connections)) as u32,
        arrival: plan.arrival.of_shard(share.index),
        ..Task::of(plan)
    }
}

/// Shows how the shards are getting on until all are through. Returns what they found together.
fn watch(monitor: &mut Monitor, runtime: &mut Runtime, outcomes: &Receiver<Outcome>) -> anyhow::Result<Outcome> {
    let mut total: Option<Outcome> = None;
    let mut missing = monitor.shards();
    while missing > 0 {
        monitor.look();
        runtime.check()?;
        // All end at about the same time.
        while missing > 0 {
            match outcomes.try_recv() {
                Ok(outcome) => {
                    missing -= 1;
                    match &mut total {
                        Some(total) => total.add(&outcome),
                        None => total = Some(outcome),
                    }
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => bail!("the client's shards ended before their time"),
            }
        }
    }
    total.context("the interface has no queues")
}
