//! The program, its maps and its links, as one process has them of another.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use aya::Ebpf;
use aya::maps::{Array, Map, MapData, MapInfo};
use tidegate_abi::flow_filter::FlowHasher;
use tidegate_abi::syn_ack::{Settings, cookie_switch, feature};
use tidegate_abi::{ListenerKey, MAP_COOKIE_SWITCHES, MAP_SETTINGS};
use tidegate_exchange::FlowFilter;

use super::link::XdpLink;
use super::rules::Rules;
use super::settings::{listener_address, listener_key};
use super::{
    Hold, ProgramSettings, Steering, flow_filter, load, lock, map_error, missing, program_load_error, steering_program,
};
use crate::config::Config;
use crate::error::{Error, with_causes};
use crate::take_over::Predecessor;

/// Another process's program, before this one takes it over.
pub(crate) struct Offered {
    /// With the other process's maps.
    ebpf: Ebpf,
    flow_filter: FlowFilter,
}

impl Offered {
    /// Loads the program with the maps of `predecessor`, and changes nothing of them. The predecessor has the same
    /// object.
    ///
    /// # Errors
    ///
    /// [`Error::Load`], also when the maps are of other sizes.
    pub(crate) fn load(
        predecessor: &Predecessor,
        config: &Config,
        settings: &ProgramSettings<'_>,
    ) -> Result<Self, Error> {
        let mut ebpf = load(config, settings)?;
        for (name, map) in ebpf.maps() {
            let taken = predecessor.maps.iter().find(|(taken, _)| taken == name);
            let (Some((_, taken)), Some(map)) = (taken, data(map)) else {
                return Err(Error::Load(format!("the server before has no map {name}")));
            };
            replace(name, map, taken)?;
        }
        let name = settings.program();
        let program = steering_program(&mut ebpf, name)?;
        program.load().map_err(|error| program_load_error(name, &error))?;
        let flow_filter = flow_filter(&ebpf, settings)?;
        Ok(Self { ebpf, flow_filter })
    }

    /// The flows of all processes.
    pub(crate) fn flow_filter(&self) -> &FlowFilter {
        &self.flow_filter
    }

    /// The program as it is on the devices, which goes on. What its maps say is the predecessor's until
    /// [`Steering::claim`].
    ///
    /// # Errors
    ///
    /// [`Error::Load`].
    pub(crate) fn take_over(
        self,
        predecessor: &mut Predecessor,
        config: &Config,
        settings: &ProgramSettings<'_>,
    ) -> Result<Steering, Error> {
        let attached = predecessor.attached();
        let mut steering = Steering::with_maps(self.ebpf, attached.len(), config, settings)?;
        let links = predecessor.links.drain(..);
        steering.holds = links.map(|link| Hold::Link(XdpLink::taken(link))).collect();
        steering.attached = attached;
        Ok(steering)
    }
}

/// The contents of the maps of settings, as a process has them before it gives them to another.
pub(crate) struct Kept {
    listeners: HashSet<ListenerKey>,
    rules: Rules,
    features: u32,
}

impl Steering {
    /// Makes the program that another process had do what the settings say, with all cookies and captures off. Returns
    /// the addresses that it goes on to steer though they are not in the settings: that process may have connections
    /// there. If this one fails after that, the other has to [`restore`](Steering::restore) what it had.
    ///
    /// # Errors
    ///
    /// [`Error::Load`].
    pub(crate) fn claim(&mut self, settings: &ProgramSettings<'_>) -> Result<Vec<SocketAddr>, Error> {
        let mut others = self.listeners.keys()?;
        for address in settings.listeners {
            others.remove(&listener_key(address));
        }
        self.write(settings)?;
        self.turn_cookies_off()?;
        self.flow_filter.forget_handshakes();
        self.drops.take_back();
        Ok(others.iter().map(listener_address).collect())
    }

    /// Changes nothing in the maps from now on, and reads nothing out of the ring of captures, since another process
    /// may do so. Returns the contents.
    ///
    /// # Errors
    ///
    /// [`Error::Load`]; all goes on as before then.
    pub(crate) fn give_up(&mut self) -> Result<Kept, Error> {
        let kept = Kept {
            listeners: self.listeners.keys()?,
            rules: Rules::read(&mut self.program)?,
            features: lock(&self.features).get()?,
        };
        self.drops.give_up();
        Ok(kept)
    }

    /// Makes the program do again what it did before [`Steering::give_up`], with cookies off, whatever another process
    /// had it do.
    ///
    /// # Errors
    ///
    /// [`Error::Load`].
    pub(crate) fn restore(&mut self, kept: &Kept) -> Result<(), Error> {
        self.drops.take_back();
        let now = self.listeners.keys()?;
        for &listener in kept.listeners.difference(&now) {
            self.listeners.add(listener)?;
        }
        for &listener in now.difference(&kept.listeners) {
            self.listeners.remove(listener)?;
        }
        kept.rules.write(&mut self.program)?;
        self.turn_cookies_off()?;
        self.flow_filter.forget_handshakes();
        let cookies = feature::COOKIES | feature::ALL_COOKIES;
        lock(&self.features).set(u32::MAX, kept.features & !cookies)?;
        lock(&self.settings).write()
    }

    /// Leaves the program to another process. It stays on the devices by the links which that one has, and can be
    /// attached anew only when nobody else has any.
    pub(crate) fn leave(&mut self) {
        self.holds.clear();
    }

    /// Whoever controls cookies from now on begins with all of them off.
    fn turn_cookies_off(&self) -> Result<(), Error> {
        let failed = |error| map_error(MAP_COOKIE_SWITCHES, &error);
        let map = self.maps.iter().find(|(name, _)| name == MAP_COOKIE_SWITCHES);
        let (_, map) = map.ok_or_else(|| missing(MAP_COOKIE_SWITCHES))?;
        let map = MapData::from_fd(copy(map)?).map_err(failed)?;
        let mut map = Array::<MapData, u32>::try_from(Map::Array(map)).map_err(failed)?;
        (0..map.len()).try_for_each(|queue| map.set(queue, cookie_switch::OFF, 0).map_err(failed))
    }

    /// The name of the program.
    pub(crate) fn program(&self) -> &str {
        self.name
    }

    /// The names of all maps, with copies of their descriptors.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn maps(&self) -> io::Result<(Vec<String>, Vec<OwnedFd>)> {
        let names = self.maps.iter().map(|(name, _)| name.clone()).collect();
        let copies = self.maps.iter().map(|(_, map)| map.try_clone());
        Ok((names, copies.collect::<Result<_, _>>()?))
    }

    /// Copies of the descriptors of the links, by device.
    ///
    /// # Errors
    ///
    /// The kernel's, or that the program is not attached by links.
    pub(crate) fn links(&self) -> io::Result<Vec<OwnedFd>> {
        let links = self.holds.iter().map(|hold| match hold {
            Hold::Link(link) => link.copy(),
            _ => Err(io::Error::other("the program is not attached by a link")),
        });
        links.collect()
    }
}

/// The places of the flows of `predecessor` in its table.
///
/// # Errors
///
/// [`Error::Load`].
pub(crate) fn flow_hasher(predecessor: &Predecessor) -> Result<FlowHasher, Error> {
    let settings = predecessor.maps.iter().find(|(name, _)| name == MAP_SETTINGS);
    let (_, map) = settings.ok_or_else(|| missing(MAP_SETTINGS))?;
    let map = copy(map).and_then(|map| MapData::from_fd(map).map_err(|error| map_error(MAP_SETTINGS, &error)))?;
    let map = Array::<MapData, Settings>::try_from(Map::Array(map)).map_err(|error| map_error(MAP_SETTINGS, &error))?;
    let settings = map.get(&0, 0).map_err(|error| map_error(MAP_SETTINGS, &error))?;
    Ok(settings.flow_hasher)
}

/// Copies of the descriptors of all maps, by name.
pub(super) fn copies(ebpf: &Ebpf) -> Result<Vec<(String, OwnedFd)>, Error> {
    let maps = ebpf.maps().filter_map(|(name, map)| Some((name, data(map)?)));
    maps.map(|(name, map)| Ok((name.to_owned(), copy(map.fd().as_fd())?)))
        .collect()
}

fn copy(map: impl std::os::fd::AsFd) -> Result<OwnedFd, Error> {
    let copied = map.as_fd().try_clone_to_owned();
    copied.map_err(|error| Error::io("cannot copy the descriptor of a map", error))
}

/// A map of one of the kinds that the program has.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(map)
        | Map::HashMap(map)
        | Map::LpmTrie(map)
        | Map::LruHashMap(map)
        | Map::PerCpuArray(map)
        | Map::RingBuf(map)
        | Map::XskMap(map) => Some(map),
        _ => None,
    }
}

/// Puts `taken` in the place of a map that was just made, which must be of the same kind and size: what refers to its
/// descriptor, the program that is to be loaded included, refers to the other map from then on.
fn replace(name: &str, map: &MapData, taken: &OwnedFd) -> Result<(), Error> {
    let failed = |reason: String| Error::Load(format!("map {name} of the server before cannot be used: {reason}"));
    let taken_data = MapData::from_fd(copy(taken)?).map_err(|error| failed(with_causes(&error)))?;
    let [own, its] = [map, &taken_data].map(|map| map.info().map(|info| layout(&info)));
    let (own, its) = own
        .and_then(|own| Ok((own, its?)))
        .map_err(|error| failed(with_causes(&error)))?;
    if own != its {
        return Err(failed(format!(
            "its type, key size, value size and entries are {its:?}, and not {own:?}; the settings that decide on them \
             must be the same"
        )));
    }
    // SAFETY: both descriptors are open. That of the map stays open and belongs to it; what it is open for is another
    // map, which nobody has to be told of: no reference into the map exists, and its memory is not mapped yet.
    let replaced = unsafe { libc::dup3(taken.as_raw_fd(), map.fd().as_fd().as_raw_fd(), libc::O_CLOEXEC) };
    if replaced < 0 {
        return Err(failed(io::Error::last_os_error().to_string()));
    }
    Ok(())
}

fn layout(info: &MapInfo) -> [u32; 4] {
    let kind = info.map_type().map_or(0, |kind| kind as u32);
    [kind, info.key_size(), info.value_size(), info.max_entries()]
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use nix::unistd::geteuid;
    use tidegate_abi::flow_filter::RANDOM_WORDS;
    use tidegate_abi::syn_ack::SynAck;

    use super::*;
    use crate::config::{Balancers, Sources};

    /// The settings that a configuration decides on.
    struct Configured {
        listeners: Vec<SocketAddr>,
        sources: Sources,
        balancers: Balancers,
        own_addresses: Vec<IpAddr>,
    }

    impl Configured {
        fn new(listener: &str, denied: &[&str], balancers: &[&str], own: &[&str]) -> Self {
            let prefixes = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a prefix")).collect();
            Self {
                listeners: vec![listener.parse().expect("an address")],
                sources: Sources {
                    deny: prefixes(denied),
                    syn_rate: denied.len() as u32,
                    ..Sources::default()
                },
                balancers: Balancers {
                    from: prefixes(balancers),
                    ..Balancers::default()
                },
                own_addresses: own.iter().map(|text| text.parse().expect("an address")).collect(),
            }
        }

        fn settings(&self) -> ProgramSettings<'_> {
            ProgramSettings {
                listeners: &self.listeners,
                remotes: &[],
                syn_ack: SynAck::default(),
                flow_hasher: FlowHasher::new(1000, [7; RANDOM_WORDS]),
                filter_for_rst_rate: Some(7),
                sources: &self.sources,
                frags: None,
                balancers: &self.balancers,
                own_addresses: &self.own_addresses,
                outlives: false,
            }
        }
    }

    /// The program in the kernel, on no device; `None` without root.
    fn steering(configured: &Configured) -> Option<Steering> {
        if !geteuid().is_root() {
            eprintln!("SKIPPED: needs root: the maps of the XDP program can only be made with CAP_BPF");
            return None;
        }
        let config = Config {
            take_over: Some("/run/take-over".into()),
            ..Config::default()
        };
        let settings = configured.settings();
        let ebpf = load(&config, &settings).expect("the kernel takes it");
        let mut steering = Steering::with_maps(ebpf, 1, &config, &settings).expect("all maps are there");
        steering.write(&settings).expect("there is room");
        Some(steering)
    }

    fn map<V: aya::Pod>(steering: &Steering, name: &str) -> Array<MapData, V> {
        let (_, map) = steering.maps.iter().find(|(known, _)| known == name).expect(name);
        let map = MapData::from_fd(copy(map).expect("a descriptor")).expect(name);
        Array::try_from(Map::Array(map)).expect(name)
    }

    fn expect(steering: &mut Steering, configured: &Configured, listeners: &[&Configured]) {
        let settings = configured.settings();
        let rules = Rules::read(&mut steering.program).expect("the kernel tells");
        assert_eq!(rules, settings.rules());
        assert_eq!(
            lock(&steering.features).get().expect("the kernel tells"),
            settings.features()
        );
        let listeners = listeners.iter().flat_map(|configured| &configured.listeners);
        let expected: HashSet<ListenerKey> = listeners.map(listener_key).collect();
        assert_eq!(steering.listeners.keys().expect("the kernel tells"), expected);
        let switches = map::<u32>(steering, MAP_COOKIE_SWITCHES);
        assert!(
            switches
                .iter()
                .all(|switch| switch.is_ok_and(|switch| switch == cookie_switch::OFF))
        );
    }

    #[test]
    fn the_later_process_leaves_no_rule_of_the_earlier_one_which_has_all_back_if_that_fails() {
        let earlier = Configured::new(
            "198.18.0.1:80",
            &["192.0.2.0/24", "192.0.2.0/25", "2001:db8::/32", "0.0.0.0/0"],
            &["198.18.0.9", "2001:2::/64"],
            &["198.18.0.1", "2001:2::1"],
        );
        let later = Configured::new(
            "198.18.0.1:81",
            &["192.0.2.0/25", "2001:db8::/48"],
            &[],
            &["198.18.0.1"],
        );
        let Some(mut steering) = steering(&earlier) else { return };
        expect(&mut steering, &earlier, &[&earlier]);
        let cookies_on = |steering: &Steering| {
            let mut switches = map::<u32>(steering, MAP_COOKIE_SWITCHES);
            switches.set(1, cookie_switch::on(1), 0).expect("there is room");
            let mut features = lock(&steering.features);
            features.set(feature::COOKIES, feature::COOKIES).expect("there is room");
        };
        cookies_on(&steering);
        let kept = steering.give_up().expect("the kernel tells");
        let others = steering.claim(&later.settings()).expect("there is room");
        assert_eq!(others, earlier.listeners);
        // The earlier one may have connections where it listened.
        expect(&mut steering, &later, &[&earlier, &later]);
        cookies_on(&steering);
        let mut settings = map::<Settings>(&steering, MAP_SETTINGS);
        settings.set(0, Settings::default(), 0).expect("there is room");
        steering.restore(&kept).expect("there is room");
        expect(&mut steering, &earlier, &[&earlier]);
        let entry = earlier.settings().entry().expect("a jiffy");
        assert!(settings.get(&0, 0).expect("the kernel tells") == entry);
    }

    #[test]
    fn what_the_program_drops_is_told_to_one_process_at_a_time() {
        let configured = Configured::new("198.18.0.1:80", &[], &[], &[]);
        let Some(mut steering) = steering(&configured) else {
            return;
        };
        let switch = map::<u32>(&steering, tidegate_abi::MAP_CAPTURE_SWITCH);
        let is_on = || switch.get(&0, 0).expect("the kernel tells") != 0;
        let capture = steering.drops().subscribe();
        assert!(is_on());
        let kept = steering.give_up().expect("the kernel tells");
        drop(capture);
        assert!(is_on(), "it is the other process's");
        // As that one begins.
        steering.claim(&configured.settings()).expect("there is room");
        assert!(!is_on());
        steering.drops.give_up();
        let mut capture = steering.drops().subscribe();
        assert!(!is_on() && capture.next().is_none());
        steering.restore(&kept).expect("there is room");
        assert!(is_on());
        drop(capture);
        assert!(!is_on());
    }
}
