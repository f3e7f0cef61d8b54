//! The XDP program: embedded, loaded, attached, counted.

mod dispatcher;
mod drops;
mod link;
mod maps;
mod netlink;
mod present;
mod rejection;
mod rules;
mod settings;
mod shared_memory;
mod take_over;

use core::fmt;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{HashMap, MapData, MapError, XskMap};
use aya::programs::links::FdLink;
use aya::programs::xdp::XdpLinkId;
use aya::programs::{ProgramError, Xdp, XdpError, XdpMode as Mode};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfError, EbpfLoader};
use nix::net::if_::if_nametoindex;
use serde::Serialize;
use tidegate_abi::flow_filter::{BUCKET_WORDS, handshake};
use tidegate_abi::syn_ack::{SynAck, feature};
use tidegate_abi::{
    MAP_DEVICE_XSKS, MAP_DEVICES, MAP_FLOW_COUNTS, MAP_FLOWS, MAP_HANDSHAKES, MAP_SYN_SOURCES, MAP_XSKS, MAX_QUEUES,
    XdpCounter,
};
use tidegate_exchange::FlowFilter;

use crate::config::{Attach, Config, Sources, XdpMode};
use crate::doctor::native_hint;
use crate::error::{Error, with_causes};
use crate::report::XdpCounts;

use self::dispatcher::Membership;
pub(crate) use self::dispatcher::check_bpffs;
pub(crate) use self::drops::{Drops, Subscription};
use self::link::XdpLink;
pub(crate) use self::maps::{CookieMaps, CounterMap, ListenerMaps, SettingsMap};
use self::maps::{FeaturesMap, SharedFeatures};
pub use self::netlink::Place;
pub use self::present::{Holder, PresentProgram, present_programs};
pub use self::rejection::{Rejection, kernel_release};
pub(crate) use self::settings::ProgramSettings;
pub(crate) use self::take_over::{Kept, Offered, flow_hasher};

/// The first kernel that attaches XDP programs by a bpf_link.
const FIRST_WITH_LINK: KernelVersion = KernelVersion::new(5, 9, 0);

/// The XDP program as it is embedded: an ELF object, aligned for the loader.
pub fn object() -> &'static [u8] {
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tidegate.o"))
}

/// Where the kernel runs the XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Attached {
    /// In the driver.
    Native,
    /// In the kernel's stack.
    Generic,
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// The attachment of the program to a device.
enum Hold {
    /// Closing the link detaches the program; the kernel does it even after kill -9.
    Link(XdpLink),
    /// The program detaches when it is dropped, and stays behind when nothing is dropped.
    Program,
    /// It stays behind when nothing is dropped, and passes everything then.
    Dispatcher(Membership),
    /// Nothing: it was detached and could not be attached anew.
    Nothing,
}

impl Hold {
    fn of(link: Option<FdLink>) -> Self {
        link.map_or(Self::Program, |link| Self::Link(XdpLink::new(link)))
    }
}

/// The XDP program on its devices. Dropping this detaches it.
pub(crate) struct Steering {
    /// By device.
    holds: Vec<Hold>,
    /// The program's.
    name: &'static str,
    program: Ebpf,
    /// Copies of the descriptors of all maps, by name, where another process may take over.
    maps: Vec<(String, OwnedFd)>,
    /// [`ProgramSettings::frags`].
    frags: Option<u32>,
    xsks: XskMap<MapData>,
    counters: Arc<CounterMap>,
    flow_filter: FlowFilter,
    drops: Arc<Drops>,
    settings: Mutex<SettingsMap>,
    features: SharedFeatures,
    listeners: ListenerMaps,
    /// By device.
    attached: Vec<Attached>,
}

impl Steering {
    /// Loads the program, tells it what to do and attaches it to each of `interfaces`, the devices 0 and so on.
    ///
    /// # Errors
    ///
    /// [`Error::Load`], [`Error::AlreadyAttached`], [`Error::NativeRefused`], [`Error::Dispatcher`],
    /// or [`Error::NotPermitted`].
    pub(crate) fn attach(interfaces: &[&str], config: &Config, settings: &ProgramSettings<'_>) -> Result<Self, Error> {
        let name = settings.program();
        let mut ebpf = load(config, settings)?;
        if interfaces.len() > 1 {
            set_devices(&mut ebpf, interfaces)?;
        }
        let mut steering = Self::with_maps(ebpf, interfaces.len(), config, settings)?;
        steering.write(settings)?;
        (steering.holds, steering.attached) = match config.attach {
            Attach::Link => attach_alone(&mut steering.program, name, interfaces, config.xdp_mode, settings.frags)?,
            Attach::Dispatcher => {
                // The only one: see `check_sharing`.
                let interface = interfaces[0];
                let membership =
                    Membership::join(interface, config.xdp_mode, config.priority, name, &mut steering.program)?;
                let attached = membership.attached();
                (vec![Hold::Dispatcher(membership)], vec![attached])
            }
        };
        Ok(steering)
    }

    /// Writes the settings into the program's maps, of which nothing else is left there but listeners and remotes that
    /// another process serves.
    fn write(&mut self, settings: &ProgramSettings<'_>) -> Result<(), Error> {
        for address in settings.listeners {
            self.listeners.add(settings::listener_key(address))?;
        }
        settings.write(&mut self.program)?;
        lock(&self.features).set(u32::MAX, settings.features())?;
        lock(&self.settings).write()
    }

    /// The program on no device, with maps as they are.
    fn with_maps(
        mut ebpf: Ebpf,
        devices: usize,
        config: &Config,
        settings: &ProgramSettings<'_>,
    ) -> Result<Self, Error> {
        let maps = match &config.take_over {
            Some(_) => take_over::copies(&ebpf)?,
            None => Vec::new(),
        };
        let sockets = if devices > 1 { MAP_DEVICE_XSKS } else { MAP_XSKS };
        let xsks = ebpf.take_map(sockets).ok_or_else(|| missing(sockets))?;
        let xsks = XskMap::<MapData>::try_from(xsks).map_err(|error| map_error(sockets, &error))?;
        let counters = Arc::new(CounterMap::take(&mut ebpf)?);
        let flow_filter = flow_filter(&ebpf, settings)?;
        let entry = settings.entry()?;
        Ok(Self {
            holds: Vec::new(),
            name: settings.program(),
            maps,
            frags: settings.frags,
            xsks,
            counters,
            flow_filter,
            drops: Arc::new(Drops::take(&mut ebpf)?),
            settings: Mutex::new(SettingsMap::take(&mut ebpf, entry)?),
            features: FeaturesMap::take(&mut ebpf)?,
            listeners: ListenerMaps::take(&mut ebpf)?,
            attached: Vec::new(),
            program: ebpf,
        })
    }

    /// Where the kernel runs the program; in its stack, if it does so for one of several devices.
    pub(crate) fn attached(&self) -> Attached {
        if self.attached.contains(&Attached::Generic) {
            Attached::Generic
        } else {
            Attached::Native
        }
    }

    /// The same of each device.
    pub(crate) fn attached_to(&self) -> impl Iterator<Item = Attached> {
        self.attached.iter().copied()
    }

    /// Whether the program is attached by a bpf_link, so that it cannot outlive this process.
    pub(crate) fn by_link(&self) -> bool {
        self.holds.iter().all(|hold| matches!(hold, Hold::Link(_)))
    }

    /// Whether no other program is run before this one.
    pub(crate) fn is_alone(&self) -> bool {
        !self.holds.iter().any(|hold| matches!(hold, Hold::Dispatcher(_)))
    }

    /// Whether the program is still on `device`, as far as the kernel tells.
    pub(crate) fn is_attached(&self, device: usize) -> bool {
        match self.holds.get(device) {
            Some(Hold::Link(link)) => link.is_attached(),
            Some(Hold::Program) | None => true,
            Some(Hold::Nothing) => false,
            Some(Hold::Dispatcher(membership)) => membership.is_attached(),
        }
    }

    /// Detaches the program and attaches it to `interface`, which is `device`, anew, in the same mode. What arrives in
    /// between goes to the kernel; sockets and counters stay as they are. Only for a program that is attached by a
    /// link.
    ///
    /// # Errors
    ///
    /// As [`Steering::attach`]; it is detached then.
    pub(crate) fn reattach(&mut self, device: usize, interface: &str) -> Result<(), Error> {
        self.holds[device] = Hold::Nothing;
        let program = steering_program(&mut self.program, self.name)?;
        let mode = match self.attached[device] {
            Attached::Native => XdpMode::Native,
            Attached::Generic => XdpMode::Generic,
        };
        let (id, _) = attach(program, interface, mode, self.frags)?;
        self.holds[device] = Hold::of(take_link(program, id, interface)?);
        Ok(())
    }

    /// From now on what arrives on `queue` of `device` goes to `socket`.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    pub(crate) fn set_socket(&mut self, device: u8, queue: u32, socket: RawFd) -> Result<(), Error> {
        self.xsks
            .set(u32::from(device) * MAX_QUEUES + queue, socket, 0)
            .map_err(|error| map_error(MAP_XSKS, &error))
    }

    /// The counters of the first `queues` receive queues.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    pub(crate) fn counts(&self, queues: u32) -> Result<Vec<XdpCounts>, Error> {
        self.counters.of_queues(queues)
    }

    /// A counter of one receive queue.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    pub(crate) fn count(&self, counter: XdpCounter, queue: u32) -> Result<u64, Error> {
        self.counters.get(counter, queue)
    }

    /// The counters, to be read by another thread.
    pub(crate) fn counters(&self) -> Arc<CounterMap> {
        Arc::clone(&self.counters)
    }

    /// The flows of all shards, by which the program knows them.
    pub(crate) fn flow_filter(&self) -> &FlowFilter {
        &self.flow_filter
    }

    /// The frames that the program drops and answers, for those who capture.
    pub(crate) fn drops(&self) -> &Arc<Drops> {
        &self.drops
    }

    /// From now on the program answers SYNs as `syn_ack` says.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    pub(crate) fn set_syn_ack(&self, syn_ack: SynAck) -> Result<(), Error> {
        lock(&self.settings).set_syn_ack(syn_ack)
    }

    /// Steers what is for `address` from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    pub(crate) fn add_listener(&mut self, address: &SocketAddr) -> Result<(), Error> {
        self.listeners.add(settings::listener_key(address))
    }

    /// Leaves what is for `address` to the kernel from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    pub(crate) fn remove_listener(&mut self, address: &SocketAddr) -> Result<(), Error> {
        self.listeners.remove(settings::listener_key(address))
    }

    /// Treats sources as `now` says, in the place of `before`, from now on. What a source is stays as it is.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says; then all is as before, as far as the kernel lets it.
    pub(crate) fn replace_sources(&mut self, before: &Sources, now: &Sources) -> Result<(), Error> {
        if before == now {
            return Ok(());
        }
        let result = self.write_sources(before, now);
        if result.is_err() {
            // What was not changed is written as it is.
            let _ = self.write_sources(now, before);
        }
        result
    }

    fn write_sources(&mut self, before: &Sources, now: &Sources) -> Result<(), Error> {
        rules::replace_sources(&mut self.program, before, now)?;
        lock(&self.features).set(feature::SOURCE_RULES | feature::SYN_RATE, now.features())
    }

    /// Lets as many segments of no flow through to an engine from now on as one answers that has this `rst_rate`.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    pub(crate) fn set_rst_rate(&self, rst_rate: u32) -> Result<(), Error> {
        lock(&self.settings).set_rst_rate(rst_rate)
    }

    /// The maps that control SYN cookies, which can be taken once.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] when they are not there.
    pub(crate) fn take_cookie_maps(&mut self) -> Result<CookieMaps, Error> {
        CookieMaps::take(&mut self.program, Arc::clone(&self.features))
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the program's maps, and the program ready to be loaded.
fn load(config: &Config, settings: &ProgramSettings<'_>) -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    loader
        .map_max_entries(MAP_SYN_SOURCES, settings.sources.map_entries())
        .map_max_entries(MAP_FLOWS, settings.flow_hasher.buckets())
        .map_max_entries(MAP_FLOW_COUNTS, settings.flow_hasher.counts());
    match config.attach {
        Attach::Link => loader.load(object()),
        Attach::Dispatcher => loader
            .extension(settings.program())
            .load(&dispatcher::without_trimming(object())),
    }
    .map_err(|error| load_error(&error))
}

fn flow_filter(ebpf: &Ebpf, settings: &ProgramSettings<'_>) -> Result<FlowFilter, Error> {
    let buckets = settings.flow_hasher.buckets() as usize;
    Ok(FlowFilter::new(
        settings.flow_hasher,
        shared_memory::words(ebpf, MAP_FLOWS, buckets * BUCKET_WORDS)?,
        shared_memory::words(ebpf, MAP_FLOW_COUNTS, buckets)?,
        shared_memory::words(ebpf, MAP_HANDSHAKES, handshake::SLOTS as usize)?,
    ))
}

/// Tells the program the numbers of several devices.
fn set_devices(ebpf: &mut Ebpf, interfaces: &[&str]) -> Result<(), Error> {
    let map = ebpf.map_mut(MAP_DEVICES).ok_or_else(|| missing(MAP_DEVICES))?;
    let mut map = HashMap::<&mut MapData, u32, u32>::try_from(map).map_err(|error| map_error(MAP_DEVICES, &error))?;
    for (device, &interface) in (0..).zip(interfaces) {
        let index = if_nametoindex(interface).map_err(|_| Error::LinkGone {
            name: interface.to_owned(),
        })?;
        map.insert(index, device * MAX_QUEUES, 0)
            .map_err(|error| map_error(MAP_DEVICES, &error))?;
    }
    Ok(())
}

/// Loads the program and attaches it, as the only one on each of the interfaces.
fn attach_alone(
    ebpf: &mut Ebpf,
    name: &str,
    interfaces: &[&str],
    mode: XdpMode,
    frags: Option<u32>,
) -> Result<(Vec<Hold>, Vec<Attached>), Error> {
    let program = steering_program(ebpf, name)?;
    program.load().map_err(|error| program_load_error(name, &error))?;
    let mut holds = Vec::new();
    let mut attached = Vec::new();
    for interface in interfaces {
        let (id, mode) = attach(program, interface, mode, frags)?;
        let hold = Hold::of(take_link(program, id, interface)?);
        if matches!(hold, Hold::Program) {
            tracing::warn!(
                "this kernel attaches XDP programs without a link: after kill -9 the program stays on {interface} \
                 until `ip link set dev {interface} xdp off`"
            );
        }
        holds.push(hold);
        attached.push(mode);
    }
    Ok((holds, attached))
}

fn steering_program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, Error> {
    ebpf.program_mut(name)
        .ok_or_else(|| missing(name))?
        .try_into()
        .map_err(|error: ProgramError| Error::Load(with_causes(&error)))
}

fn attach(
    program: &mut Xdp,
    interface: &str,
    mode: XdpMode,
    frags: Option<u32>,
) -> Result<(XdpLinkId, Attached), Error> {
    if mode != XdpMode::Generic {
        match program.attach(interface, Mode::Driver) {
            Ok(link) => return Ok((link, Attached::Native)),
            Err(error) => {
                let mut reason = with_causes(&error);
                if let Some(max_mtu) = frags {
                    reason.push_str(&format!(
                        "; not every driver gives XDP programs packets of an MTU above {max_mtu}, which \
                         `ip link set dev {interface} mtu {max_mtu}` lowers"
                    ));
                }
                match Refusal::of(errno(&error)) {
                    Refusal::Unsupported if mode == XdpMode::Auto => warn_of_fallback(interface, &reason),
                    Refusal::Unsupported => {
                        return Err(Error::NativeRefused {
                            name: interface.to_owned(),
                            reason,
                            hint: native_hint(interface),
                        });
                    }
                    refusal => return Err(refusal.into_error(interface, reason)),
                }
            }
        }
    }
    match program.attach(interface, Mode::Skb) {
        Ok(link) => Ok((link, Attached::Generic)),
        Err(error) => Err(Refusal::of(errno(&error)).into_error(interface, with_causes(&error))),
    }
}

fn warn_of_fallback(interface: &str, reason: &str) {
    tracing::warn!(
        "the driver of {interface} refused native XDP ({reason}); falling back to generic mode, which is slower{}",
        native_hint(interface)
    );
}

/// Takes the link out of the program's keeping; `None` when the kernel attached it without one.
fn take_link(program: &mut Xdp, id: XdpLinkId, interface: &str) -> Result<Option<FdLink>, Error> {
    let has_links = KernelVersion::current().is_ok_and(|version| version >= FIRST_WITH_LINK);
    if !has_links {
        return Ok(None);
    }
    let link = program
        .take_link(id)
        .map_err(|error| Error::Load(with_causes(&error)))?;
    match FdLink::try_from(link) {
        Ok(link) => Ok(Some(link)),
        Err(error) => Err(Error::Load(format!(
            "the kernel attached it without a link ({}), so it is still on {interface}; remove it with \
             `ip link set dev {interface} xdp off`",
            with_causes(&error)
        ))),
    }
}

/// Why a program was not attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// There is one already, or one of the other mode.
    AlreadyAttached,
    NotPermitted,
    /// Anything else is the driver's: EOPNOTSUPP, EINVAL, ENOSPC (too few queues at a veth's peer), ERANGE (MTU).
    Unsupported,
}

impl Refusal {
    fn of(errno: Option<i32>) -> Self {
        match errno {
            Some(libc::EBUSY | libc::EEXIST) => Self::AlreadyAttached,
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted,
            _ => Self::Unsupported,
        }
    }

    fn into_error(self, interface: &str, reason: String) -> Error {
        match self {
            Self::AlreadyAttached => Error::already_attached(interface),
            Self::NotPermitted => Error::NotPermitted {
                what: format!("attaching the XDP program to {interface}"),
                capability: "CAP_NET_ADMIN",
            },
            Self::Unsupported => Error::Load(format!("{interface} does not take it: {reason}")),
        }
    }
}

/// The error number of the system call that failed when a program was loaded or attached, if it was one.
pub fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::XdpError(XdpError::NetlinkError(error)) | ProgramError::NetlinkError(error) => {
            error.raw_os_error()
        }
        ProgramError::LoadError { io_error, .. } => io_error.raw_os_error(),
        _ => None,
    }
}

fn program_load_error(program: &str, error: &ProgramError) -> Error {
    if errno(error) == Some(libc::EPERM) {
        return not_permitted();
    }
    match Rejection::of(program, error) {
        Some(rejection) => {
            tracing::info!("the verifier's log:\n{}", rejection.log());
            Error::Rejected(rejection)
        }
        None => Error::Load(with_causes(error)),
    }
}

fn load_error(error: &EbpfError) -> Error {
    match error {
        EbpfError::MapError(MapError::CreateError { io_error, .. }) if io_error.raw_os_error() == Some(libc::EPERM) => {
            not_permitted()
        }
        _ => Error::Load(with_causes(error)),
    }
}

fn not_permitted() -> Error {
    Error::NotPermitted {
        what: "loading the XDP program".to_owned(),
        capability: "CAP_BPF",
    }
}

fn map_error(map: &str, error: &MapError) -> Error {
    Error::Load(format!("map {map}: {}", with_causes(error)))
}

fn missing(name: &str) -> Error {
    Error::Load(format!("the object has no {name}; it was built from other sources"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_object_is_elf_and_aligned() {
        let object = object();
        assert_eq!(object.get(..4), Some(&b"\x7fELF"[..]));
        assert_eq!(object.as_ptr().align_offset(8), 0);
    }

    #[test]
    fn only_what_the_driver_refuses_falls_back() {
        for errno in [libc::EOPNOTSUPP, libc::EINVAL, libc::ENOSPC, libc::ERANGE] {
            assert_eq!(Refusal::of(Some(errno)), Refusal::Unsupported);
        }
        for errno in [libc::EBUSY, libc::EEXIST] {
            assert_eq!(Refusal::of(Some(errno)), Refusal::AlreadyAttached);
        }
        assert_eq!(Refusal::of(Some(libc::EPERM)), Refusal::NotPermitted);
        assert_eq!(Refusal::of(None), Refusal::Unsupported);
    }
}
