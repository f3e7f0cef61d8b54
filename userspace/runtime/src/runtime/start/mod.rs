//! Starting: everything is checked, the interface taken, and a shard made and started for each queue.

mod checked;
mod keys;
mod opened;
mod program;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use nix::net::if_::if_nametoindex;
use tidegate_exchange::FlowFilter;
use tidegate_nic::statistics;
use tidegate_tcp::application::{Application, ListenerId};
use tidegate_tcp::engine::Engine;

use self::checked::Checked;
use self::opened::{Opened, first_devices, share};
use self::program::Program;
use super::reload::Retiring;
use super::shard_thread::run_shard;
use super::take_over::{each, sockets_of};
use super::{Listener, Runtime, Settings};
use crate::config::{Config, NextHop};
use crate::cookies::{Control, CookieSetup};
use crate::driver_counters::DriverCounters;
use crate::error::Error;
use crate::huge_pages::HugePages;
use crate::next_hop::NextHopWatch;
use crate::shard::{Parts, Shard, Shared};
use crate::shard_task::ShardTask;
use crate::take_over::{Earlier, Limits, Predecessor, Succession, relayed, tell_taken};
use crate::watchdog::Watchdog;
use crate::xdp;

/// Checks everything, loads and attaches the XDP program, binds the sockets and starts one shard per queue.
///
/// `application` makes the application of a shard; it is called on the caller's thread, once per shard, in order. Every
/// engine gets random keys of its own.
///
/// # Errors
///
/// An [`Error`] with a remedy; nothing is left behind.
pub fn start<A, F>(settings: &Settings<'_>, mut application: F) -> Result<Runtime, Error>
where
    A: Application + Send + 'static,
    A::Connection: Send,
    F: FnMut(u32) -> A,
{
    start_with_tasks(settings, |queue| (application(queue), ()))
}

/// As [`start`], with shards that do something of their own accord, as clients do: `parts` makes the application of a
/// shard and its [`ShardTask`].
///
/// A segment of a connection may arrive on any queue. One that arrives on another than that of the shard that opened
/// the connection is handed over, as a server's are.
///
/// # Errors
///
/// As [`start`].
pub fn start_with_tasks<A, D, F>(settings: &Settings<'_>, parts: F) -> Result<Runtime, Error>
where
    A: Application + Send + 'static,
    A::Connection: Send,
    D: ShardTask<A> + 'static,
    F: FnMut(u32) -> (A, D),
{
    let mut checked = Checked::new(settings)?;
    let config = settings.afxdp;
    let limits = Limits::of(config);
    let path = config.take_over.as_deref();
    let mut predecessor = path.map(|path| Predecessor::call(path, limits)).transpose()?.flatten();
    let flow_hasher = match &mut predecessor {
        None => keys::flow_hasher(&checked.tcp, checked.queues)?,
        Some(predecessor) => {
            checked.cookie_secret.take_over(predecessor.secret());
            xdp::flow_hasher(predecessor)?
        }
    };
    let names: Vec<&str> = checked
        .devices
        .iter()
        .map(|device| device.interface.name.as_str())
        .collect();
    let listeners = checked.addresses.addresses();
    let program_settings = checked.program_settings(settings, &listeners, flow_hasher);
    let (first, others) = predecessor.as_ref().map_or_else(
        || (0, Arc::new([]) as Arc<[u16]>),
        |predecessor| (predecessor.first, predecessor.numbers()),
    );
    let program = Program::new(predecessor, &names, checked.queues, config, &program_settings)?;
    let flow_filter = program.flow_filter().of_process(first, others);
    // Before another process has to release its sockets: it takes a while.
    let mut engines = make_engines(settings, &checked, &flow_filter, parts)?;

    let (mut steering, earlier) = program.serve(config, &program_settings)?;
    let Opened {
        ports,
        infos,
        links,
        plan,
    } = Opened::open(settings, &checked, &names, &steering)?;
    let places = earlier.len() as u16;
    let (shared, polls) = share(&ports, places, config)?;
    let cookies = CookieSetup::new(
        settings.syn_cookies,
        checked.cookie_secret,
        !earlier.is_empty(),
        checked.tcp.max_half_open,
        &mut steering,
        &shared.mailboxes,
    )?;
    let succession = path
        .map(|path| Succession::new(path, checked.cookie_secret.key, limits))
        .transpose()?;
    (settings.opened)().map_err(|error| Error::io("cannot give privileges up (table [privileges])", error))?;
    let next_hops = match config.next_hop {
        NextHop::Reflect => None,
        NextHop::Kernel => Some(NextHopWatch::start(
            &first_devices(&checked.devices),
            config.neighbour_rate,
        )?),
    };
    for (index, (engine, _)) in (0..).zip(&mut engines) {
        engine.set_cookies(cookies.cookies(index));
        if let Some(next_hops) = &next_hops {
            engine.set_next_hops(next_hops.next_hops());
        }
    }
    let sockets: Vec<_> = ports.iter().map(sockets_of).collect();
    let parts = engines.into_iter().zip(ports.into_iter().zip(polls)).enumerate();
    let parts = parts.map(|(index, ((engine, task), (port, poll)))| Parts {
        engine,
        task,
        port,
        poll,
        alarm: cookies.alarm(index as u16),
    });
    let shards = make_shards(parts, &shared, &earlier, config)?;
    let mut retiring = Retiring::default();
    if !earlier.is_empty() {
        // Last of what may fail, so that seldom another process has to put back what it had there.
        retiring.add(&steering.claim(&program_settings)?);
    }
    // Fill rings are full, so frames may come in from here on; they wait in the RX rings.
    for (device, queue, socket) in each(&sockets) {
        steering.set_socket(device, queue, socket)?;
    }

    let indexes = checked
        .devices
        .iter()
        .map(|device| if_nametoindex(device.interface.name.as_str()));
    let ifindexes = indexes.map(|index| index.unwrap_or(0)).collect();

    let mut runtime = Runtime {
        threads: Vec::new(),
        cookies: Control::new(cookies.gauges()),
        mailboxes: Arc::clone(&shared.mailboxes),
        failure: Arc::new(OnceLock::new()),
        queues: infos,
        links: Mutex::new(links),
        addresses: checked.addresses,
        next_hops,
        watchdog: Watchdog::default(),
        driver: checked
            .devices
            .first()
            .and_then(|device| device.interface.driver.clone()),
        reattached: 0,
        first,
        earlier,
        places,
        succession,
        kept: None,
        sockets,
        afxdp: config.clone(),
        plan,
        driver_counters: checked
            .devices
            .iter()
            .map(|device| DriverCounters::new(statistics(&device.interface.name)))
            .collect::<Vec<_>>()
            .into(),
        devices: checked
            .devices
            .into_iter()
            .map(|device| device.interface.name)
            .collect(),
        tcp: checked.tcp,
        sources: settings.sources.clone(),
        retiring,
        has_flow_filter: settings.afxdp.flow_filter,
        anywhere: settings.balancers.is_any(),
        is_draining: false,
        captures: Arc::default(),
        ifindexes,
        steering,
    };
    // The shards alone keep the UMEMs: a socket is closed when the last of them is gone.
    drop(shared);
    start_threads(&mut runtime, shards)?;
    runtime.cookies.start(cookies)?;
    if let Some(path) = path
        && let Err(error) = tell_taken(&runtime.earlier, path)
    {
        // They are that one's again.
        runtime.cookies.leave();
        return Err(error);
    }
    Ok(runtime)
}

/// Makes the engine and the task of each shard.
fn make_engines<A, D, F>(
    settings: &Settings<'_>,
    checked: &Checked,
    flow_filter: &FlowFilter,
    mut parts: F,
) -> Result<Vec<(Engine<A>, D)>, Error>
where
    A: Application,
    F: FnMut(u32) -> (A, D),
{
    let served = checked.addresses.served();
    let shards = checked.queues as u16;
    let huge_pages = Arc::new(HugePages::default());
    let make = |index| {
        let (application, task) = parts(u32::from(index));
        let mut engine = Engine::new(checked.tcp.clone(), keys::secrets()?, application);
        engine.set_memory_advisor(huge_pages.clone());
        engine.share_flows(Box::new(flow_filter.of_shard(index, shards)));
        engine.set_source_limits(settings.sources.connection_limits());
        listen(&mut engine, settings.listeners, &served);
        Ok((engine, task))
    };
    (0..shards).map(make).collect()
}

/// Has an engine serve `listeners` at `addresses`.
fn listen<A: Application>(engine: &mut Engine<A>, listeners: &[Listener], addresses: &[(SocketAddr, ListenerId)]) {
    for listener in listeners {
        let id = engine.add_listener();
        if let Some(keepalive) = listener.keepalive {
            engine.set_keepalive(id, keepalive);
        }
        engine.set_congestion(id, listener.congestion);
    }
    engine.set_addresses(addresses);
}

/// Makes the shards of these parts, which relay to `earlier` processes what is theirs.
fn make_shards<A, D>(
    parts: impl ExactSizeIterator<Item = Parts<A, D>>,
    shared: &Shared,
    earlier: &[Earlier],
    config: &Config,
) -> Result<Vec<Shard<A, D>>, Error>
where
    A: Application + 'static,
    D: ShardTask<A>,
{
    let (shards, places) = (parts.len() as u16, earlier.len() as u16);
    let make = |(index, parts)| {
        let mut shard = Shard::new(index, parts, shared.clone(), config);
        shard.relay(relayed(earlier, places, &shared.exchange, index, shards))?;
        Ok(shard)
    };
    (0..).zip(parts).map(make).collect()
}

/// Starts a thread for each shard.
fn start_threads<A, D>(runtime: &mut Runtime, shards: Vec<Shard<A, D>>) -> Result<(), Error>
where
    A: Application + Send + 'static,
    A::Connection: Send,
    D: ShardTask<A> + 'static,
{
    for (shard, info) in shards.into_iter().zip(runtime.queues.clone()) {
        let failure = Arc::clone(&runtime.failure);
        let thread = thread::Builder::new()
            .name(format!("shard-{}", info.queue))
            .spawn(move || run_shard(shard, info, &failure))
            .map_err(|error| Error::io("cannot start a thread", error))?;
        runtime.threads.push(Some(thread));
    }
    Ok(())
}
