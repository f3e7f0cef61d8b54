//! Starting: everything is checked, the interface taken, and a shard made and started for each queue.

use core::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use mio::Poll;
use nix::net::if_::if_nametoindex;
use tidegate_abi::MAX_REMOTES;
use tidegate_abi::flow_filter::{FlowHasher, RANDOM_WORDS};
use tidegate_abi::siphash::Key;
use tidegate_exchange::{Exchange, FlowFilter, Handover};
use tidegate_nic::statistics;
use tidegate_tcp::application::{Application, ListenerId};
use tidegate_tcp::config::InvalidSetting;
use tidegate_tcp::engine::{Engine, Secrets, syn_ack_of};
use tidegate_xsk::Umems;

use super::reload::Retiring;
use super::take_over::{each, sockets_of};
use super::{Failure, Listener, Runtime, Settings};
use crate::affinity;
use crate::capability;
use crate::config::{Attach, Config, NextHop};
use crate::cookies::secret::Secret;
use crate::cookies::{Control, CookieSetup};
use crate::devices::{Device, check_sharing};
use crate::doctor;
use crate::driver_counters::DriverCounters;
use crate::drivers::{BindPlan, max_mtu_in_one_buffer};
use crate::error::Error;
use crate::huge_pages::HugePages;
use crate::interface::{self, Interface, check_listeners};
use crate::link_watch::Served;
use crate::links::Links;
use crate::listeners::ServedAddresses;
use crate::mailbox::{Mailbox, waker};
use crate::next_hop::NextHopWatch;
use crate::port::Port;
use crate::random;
use crate::report::{QueueInfo, ShardReport};
use crate::shard::{BELL, Exit, Parts, Shard, Shared};
use crate::shard_port::ShardPort;
use crate::shard_task::ShardTask;
use crate::take_over::{
    Earlier, Limits, MAX_SHARED_QUEUES, NewPort, Predecessor, Release, Succession, relayed, tell_taken,
};
use crate::watchdog::Watchdog;
use crate::xdp::{self, Offered, ProgramSettings, Steering};

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
pub fn start_with_tasks<A, D, F>(settings: &Settings<'_>, mut parts: F) -> Result<Runtime, Error>
where
    A: Application + Send + 'static,
    A::Connection: Send,
    D: ShardTask<A> + 'static,
    F: FnMut(u32) -> (A, D),
{
    let mut checked = Checked::new(settings)?;
    let config = settings.afxdp;
    let limits = Limits::of(config);
    let mut predecessor = config
        .take_over
        .as_deref()
        .map(|path| Predecessor::call(path, limits))
        .transpose()?
        .flatten();
    let flow_hasher = match &mut predecessor {
        None => flow_hasher(&checked.tcp, checked.queues)?,
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
    let tcp = checked.tcp.clone();
    let served = checked.addresses.served();
    let shards = checked.queues as u16;
    // Before another process has to release its sockets: it takes a while.
    let huge_pages = Arc::new(HugePages::default());
    let mut engines = Vec::new();
    for index in 0..shards {
        let (application, task) = parts(u32::from(index));
        let mut engine = Engine::new(tcp.clone(), secrets()?, application);
        engine.set_memory_advisor(huge_pages.clone());
        engine.share_flows(Box::new(flow_filter.of_shard(index, shards)));
        engine.set_source_limits(settings.sources.connection_limits());
        listen(&mut engine, settings.listeners, &served);
        engines.push((engine, task));
    }

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
        tcp.max_half_open,
        &mut steering,
        &shared.mailboxes,
    )?;
    let succession = match &config.take_over {
        Some(path) => Some(Succession::new(path, checked.cookie_secret.key, limits)?),
        None => None,
    };
    (settings.opened)().map_err(|error| Error::io("cannot give privileges up (table [privileges])", error))?;
    let next_hops = match config.next_hop {
        NextHop::Reflect => None,
        NextHop::Kernel => Some(NextHopWatch::start(
            &first_devices(&checked.devices),
            config.neighbour_rate,
        )?),
    };
    let mut shards_made = Vec::new();
    let mut sockets = Vec::new();
    for (((port, poll), info), (mut engine, task)) in ports.into_iter().zip(polls).zip(&infos).zip(engines) {
        let index = info.queue as u16;
        engine.set_cookies(cookies.cookies(index));
        if let Some(next_hops) = &next_hops {
            engine.set_next_hops(next_hops.next_hops());
        }
        sockets.push(sockets_of(&port));
        let own = Parts {
            engine,
            task,
            port,
            poll,
            alarm: cookies.alarm(index),
        };
        let mut shard = Shard::new(index, own, shared.clone(), config);
        shard.relay(relayed(&earlier, places, &shared.exchange, index, shards))?;
        shards_made.push(shard);
    }
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
        tcp,
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
    for (shard, info) in shards_made.into_iter().zip(runtime.queues.clone()) {
        let failure = Arc::clone(&runtime.failure);
        let thread = thread::Builder::new()
            .name(format!("shard-{}", info.queue))
            .spawn(move || run_shard(shard, info, &failure))
            .map_err(|error| Error::io("cannot start a thread", error))?;
        runtime.threads.push(Some(thread));
    }
    runtime.cookies.start(cookies)?;
    if let Some(path) = &config.take_over
        && let Err(error) = tell_taken(&runtime.earlier, path)
    {
        // They are that one's again.
        runtime.cookies.leave();
        return Err(error);
    }
    Ok(runtime)
}

/// The XDP program, before it steers to sockets of this process.
enum Program {
    /// On the devices.
    Attached(Box<Steering>),
    /// As another process has it on the devices.
    Offered(Box<(Predecessor, Offered)>),
}

impl Program {
    fn new(
        predecessor: Option<Predecessor>,
        names: &[&str],
        queues: u32,
        config: &Config,
        settings: &ProgramSettings<'_>,
    ) -> Result<Self, Error> {
        let Some(predecessor) = predecessor else {
            // Attached before the sockets are bound: drivers set their queues up for AF_XDP only below a program.
            return Ok(Self::Attached(Box::new(Steering::attach(names, config, settings)?)));
        };
        predecessor.check(names, queues, settings.program())?;
        let offered = Offered::load(&predecessor, config, settings)?;
        Ok(Self::Offered(Box::new((predecessor, offered))))
    }

    fn flow_filter(&self) -> &FlowFilter {
        match self {
            Self::Attached(steering) => steering.flow_filter(),
            Self::Offered(offered) => offered.1.flow_filter(),
        }
    }

    /// Has another process release its sockets, if there is one.
    fn serve(self, config: &Config, settings: &ProgramSettings<'_>) -> Result<(Steering, Vec<Earlier>), Error> {
        match self {
            Self::Attached(steering) => Ok((*steering, Vec::new())),
            Self::Offered(offered) => {
                let (mut predecessor, offered) = *offered;
                predecessor.release()?;
                let steering = offered.take_over(&mut predecessor, config, settings)?;
                Ok((steering, predecessor.into_earlier()))
            }
        }
    }
}

/// The settings, with everything checked that can be before anything is attached.
struct Checked {
    devices: Vec<Device>,
    /// As configured, with the smallest MTU of the interfaces.
    tcp: tidegate_tcp::Config,
    addresses: ServedAddresses,
    /// Of the interfaces.
    own_addresses: Vec<IpAddr>,
    queues: u32,
    /// The CPUs to pin shards to, if they are to be.
    cpus: Vec<usize>,
    cookie_secret: Secret,
}

impl Checked {
    fn new(settings: &Settings<'_>) -> Result<Self, Error> {
        let config = settings.afxdp;
        config.validate().map_err(Error::in_table("afxdp"))?;
        settings
            .syn_cookies
            .validate()
            .map_err(Error::in_table("syn_cookies"))?;
        settings.sources.validate().map_err(Error::in_table("sources"))?;
        settings.balancers.validate().map_err(Error::in_table("balancers"))?;
        settings.tcp.validate().map_err(Error::in_table("tcp"))?;
        let cookie_secret = Secret::load(settings.syn_cookies)?;
        let addresses: Vec<SocketAddr> = settings.listeners.iter().map(|listener| listener.address).collect();
        let interfaces = settings.interfaces.iter().map(|name| Interface::find(name));
        let interfaces = interfaces.collect::<Result<Vec<_>, _>>()?;
        let devices = Device::below(&interfaces)?;
        check_sharing(config, &devices)?;
        let mut tcp = settings.tcp.clone();
        let Some(smallest) = devices
            .iter()
            .map(|device| &device.interface)
            .min_by_key(|device| device.mtu)
        else {
            return Err(Error::Config("there is no interface to serve".to_owned()));
        };
        for device in &devices {
            config.validate_mtu(&device.interface.name, device.interface.mtu)?;
            settings
                .balancers
                .check_mtu(&device.interface.name, device.interface.mtu)?;
        }
        config.validate_devices(devices.len() as u32)?;
        tcp.mtu = smallest.mtu as u16;
        // What balancers' outer headers say of congestion goes with them (RFC 6040, section 4.2).
        tcp.ecn &= !settings.balancers.is_any();
        tcp.outer_headers = settings.balancers.outer_headers();
        // No key of the file is at fault here.
        tcp.validate()
            .map_err(|error| Error::Config(format!("interface {} cannot be served: {error}", smallest.name)))?;
        let anywhere = settings.balancers.is_any();
        check_listeners(&interfaces, &addresses, anywhere)?;
        let addresses = ServedAddresses::new(&interfaces, addresses, anywhere)?;
        check_remotes(settings.remotes)?;
        let queues = interface::queues(devices.iter().map(|device| &device.interface), config.queues)?;
        check_take_over(config, queues)?;
        capability::check(config.attach)?;
        for Device { interface, .. } in &devices {
            if config.multi_buffer(interface.mtu).is_some() {
                capability::check_multi_buffer(&interface.name, interface.mtu)?;
            }
        }
        let names = devices.iter().map(|device| device.interface.name.as_str());
        for finding in doctor::warnings(config, names, queues) {
            tracing::warn!("{}", finding.sentence);
        }
        let cpus = if config.pin_threads {
            affinity::allowed()?
        } else {
            Vec::new()
        };
        Ok(Self {
            own_addresses: interfaces
                .into_iter()
                .flat_map(|interface| interface.addresses)
                .collect(),
            devices,
            tcp,
            addresses,
            queues,
            cpus,
            cookie_secret,
        })
    }

    fn program_settings<'a>(
        &'a self,
        settings: &Settings<'a>,
        listeners: &'a [SocketAddr],
        flow_hasher: FlowHasher,
    ) -> ProgramSettings<'a> {
        let config = settings.afxdp;
        ProgramSettings {
            listeners,
            remotes: settings.remotes,
            syn_ack: syn_ack_of(&self.tcp),
            flow_hasher,
            filter_for_rst_rate: config.flow_filter.then_some(self.tcp.rst_rate),
            sources: settings.sources,
            balancers: settings.balancers,
            own_addresses: &self.own_addresses,
            outlives: config.attach == Attach::Dispatcher,
            frags: self
                .devices
                .iter()
                .filter(|device| config.multi_buffer(device.interface.mtu).is_some())
                .map(|device| max_mtu_in_one_buffer(&device.interface))
                .min(),
        }
    }
}

/// The devices, taken: a socket is bound to each queue.
struct Opened {
    ports: Vec<Port>,
    infos: Vec<QueueInfo>,
    links: Links,
    plan: BindPlan,
}

impl Opened {
    fn open(settings: &Settings<'_>, checked: &Checked, names: &[&str], steering: &Steering) -> Result<Self, Error> {
        let config = settings.afxdp;
        let Checked { devices, queues, .. } = checked;
        let plans = devices
            .iter()
            .zip(steering.attached_to())
            .map(|(device, attached)| BindPlan::new(config, settings.syn_cookies.mode, &device.interface, attached));
        let plans = plans.collect::<Result<Vec<_>, _>>()?;
        let Some(plan) = BindPlan::of_all(plans.iter().copied()) else {
            return Err(Error::Config("there is no interface to serve".to_owned()));
        };
        let mut ports = Vec::new();
        let mut infos = Vec::new();
        for queue in 0..*queues {
            let port = Port::open(names, queue, config, &plan, steering.attached())?;
            infos.push(QueueInfo {
                queue,
                cpu: affinity::cpu_of(queue as usize, &checked.cpus),
                zero_copy: port.zero_copy(),
                frames: config.frames,
            });
            ports.push(port);
        }
        let mtu = u32::from(checked.tcp.mtu);
        let max_mtus = infos.iter().map(|info| plan.max_mtu(info.zero_copy));
        let served = Served {
            queues: *queues,
            mtu,
            max_mtu: max_mtus.min().unwrap_or(mtu),
        };
        let links = Links::new(devices.iter().map(|device| (device, served)))?;
        for port in &mut ports {
            port.set_routes(links.routes());
        }
        Ok(Self {
            ports,
            infos,
            links,
            plan,
        })
    }
}

/// The interfaces above the devices, each with the number of the first device below it.
fn first_devices(devices: &[Device]) -> Vec<(&str, u8)> {
    let mut first: Vec<(&str, u8)> = Vec::new();
    for (number, device) in (0..).zip(devices) {
        let name = device.bond.as_deref().unwrap_or(&device.interface.name);
        if first.iter().all(|(known, _)| *known != name) {
            first.push((name, number));
        }
    }
    first
}

/// Makes what the shards of these ports share with each other and `earlier` processes, and the epoll each sleeps in.
fn share(ports: &[Port], earlier: u16, config: &Config) -> Result<(Shared, Vec<Poll>), Error> {
    let mut polls = Vec::new();
    let mut mailboxes = Vec::new();
    for _ in ports {
        let made = Poll::new().and_then(|poll| waker(&poll, BELL).map(|waker| (poll, waker)));
        let (poll, waker) = made.map_err(|error| Error::io("cannot make an epoll", error))?;
        polls.push(poll);
        mailboxes.push(Mailbox::new(waker));
    }
    let shared = Shared {
        memory: Arc::new(Umems::of(ports.iter().map(Port::socket))),
        exchange: Arc::new(Exchange::with_relayed(
            ports.len() as u16,
            earlier * ports.len() as u16,
            config.handover_queue as usize,
            config.frames as usize,
        )),
        mailboxes: mailboxes.into(),
    };
    Ok((shared, polls))
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

/// A shard's thread. What goes wrong in it is kept for [`Runtime::check`].
fn run_shard<A, D>(shard: Shard<A, D>, info: QueueInfo, failure: &OnceLock<Failure>) -> Option<ShardReport>
where
    A: Application + 'static,
    D: ShardTask<A>,
{
    let run = || {
        if let Some(cpu) = info.cpu {
            affinity::pin(cpu)?;
        }
        run_with_ports(shard)
    };
    let what = match panic::catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(report)) => return Some(report),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => format!("it panicked: {}", panic_message(&*panic)),
    };
    // Only the first failure is kept; the others may well follow from it.
    let _ = failure.set(Failure {
        queue: info.queue,
        what,
    });
    None
}

/// Runs a shard whose port may go to another process, and come back.
fn run_with_ports<A, D>(mut shard: Shard<A, D>) -> Result<ShardReport, Error>
where
    A: Application + 'static,
    D: ShardTask<A>,
{
    loop {
        let release = match shard.run()? {
            Exit::Stop => return Ok(shard.report()),
            Exit::Port(new) => {
                shard = with_new_port(shard, *new)?;
                continue;
            }
            Exit::Release(release) => *release,
        };
        let Release { mut port, released, .. } = release;
        port.keep_statistics(shard.report().xdp_statistics);
        let memory = port.relay();
        let alone = Handover::new(Arc::new(Exchange::new(1, 1, 1)), 0);
        let mut relayed = shard.with_port(port, memory, alone);
        // With the last of the shards all their sockets are closed.
        let _ = released.send(());
        loop {
            match relayed.run()? {
                Exit::Stop => return Ok(relayed.report()),
                // It has none.
                Exit::Release(_) => {}
                Exit::Port(new) => {
                    shard = with_new_port(relayed, *new)?;
                    break;
                }
            }
        }
    }
}

fn with_new_port<A, D, P>(shard: Shard<A, D, P>, new: NewPort) -> Result<Shard<A, D>, Error>
where
    A: Application + 'static,
    D: ShardTask<A>,
    P: ShardPort,
{
    let mut shard = shard.with_port(new.port, new.memory, new.handover);
    shard.relay(new.relays)?;
    Ok(shard)
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

/// Checks that another process could take over so many queues.
fn check_take_over(config: &Config, queues: u32) -> Result<(), Error> {
    if config.take_over.is_none() || queues <= MAX_SHARED_QUEUES {
        return Ok(());
    }
    let message = format!(
        "take_over is set, and {queues} queues are served; another process can take over {MAX_SHARED_QUEUES} at most: \
         leave it out, or set queues to {MAX_SHARED_QUEUES} or less"
    );
    Err(Error::in_table("afxdp")(InvalidSetting::new(
        ["take_over", "queues"],
        message,
    )))
}

/// Checks that the XDP program can steer by these.
fn check_remotes(remotes: &[SocketAddr]) -> Result<(), Error> {
    if remotes.len() > MAX_REMOTES as usize {
        return Err(Error::Config(format!(
            "{} remotes were given; there can be {MAX_REMOTES}",
            remotes.len()
        )));
    }
    match remotes.iter().find(|remote| remote.port() == 0) {
        Some(remote) => Err(Error::Config(format!(
            "remote {remote} has no port; give it one from 1 to 65535"
        ))),
        None => Ok(()),
    }
}

/// Room for all flows that so many engines may have.
fn flow_hasher(tcp: &tidegate_tcp::Config, engines: u32) -> Result<FlowHasher, Error> {
    let each = [tcp.max_connections, tcp.max_half_open, tcp.max_time_wait].map(u64::from);
    let bytes: [u8; RANDOM_WORDS * 8] = random::bytes()?;
    let mut numbers = [0; RANDOM_WORDS];
    for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks().0) {
        *number = u64::from_ne_bytes(*bytes);
    }
    Ok(FlowHasher::new(each.iter().sum::<u64>() * u64::from(engines), numbers))
}

/// Random keys of one engine. Every engine has its own, so that the acknowledgment of a SYN-ACK tells which shard sent
/// it when a retransmitted SYN arrived on another queue than the first.
fn secrets() -> Result<Secrets, Error> {
    let keys: [u8; 32] = random::bytes()?;
    let (mut isn, mut table) = ([0; 16], [0; 16]);
    isn.copy_from_slice(&keys[..16]);
    table.copy_from_slice(&keys[16..]);
    Ok(Secrets {
        isn: Key::from_bytes(isn),
        table: Key::from_bytes(table),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_gets_keys_of_its_own() {
        let (first, second) = (secrets().expect("keys"), secrets().expect("keys"));
        assert!(first.isn != second.isn && first.table != second.table);
        assert!(first.isn != first.table);
    }

    #[test]
    fn remotes_have_ports_and_room_in_the_map() {
        let remote = |port| SocketAddr::from(([198, 18, 0, 1], port));
        let full: Vec<SocketAddr> = (1..=MAX_REMOTES as u16).map(remote).collect();
        for good in [&[][..], full.as_slice()] {
            check_remotes(good).expect("good remotes");
        }
        for (bad, phrase) in [
            (vec![remote(1), remote(0)], "198.18.0.1:0 has no port"),
            ([full.as_slice(), &[remote(99)]].concat(), "there can be 16"),
        ] {
            let error = check_remotes(&bad).expect_err(phrase);
            assert!(error.is_usage() && error.to_string().contains(phrase), "{error}");
        }
    }

    #[test]
    fn a_server_that_can_be_taken_over_has_half_of_the_shards_there_can_be() {
        let mut config = Config::default();
        check_take_over(&config, 64).expect("nobody can take over");
        config.take_over = Some("/run/take-over".into());
        check_take_over(&config, 32).expect("as many as there is room for");
        let error = check_take_over(&config, 33).expect_err("one more");
        assert!(error.is_usage() && error.to_string().contains("33 queues"), "{error}");
    }

    #[test]
    fn a_panic_is_told_by_its_message() {
        let literal: Box<dyn Any + Send> = Box::new("frames were lost");
        assert_eq!(panic_message(&*literal), "frames were lost");
        let formatted: Box<dyn Any + Send> = Box::new(format!("frame {}", 7));
        assert_eq!(panic_message(&*formatted), "frame 7");
        let other: Box<dyn Any + Send> = Box::new(7);
        assert_eq!(panic_message(&*other), "without a message");
    }
}
