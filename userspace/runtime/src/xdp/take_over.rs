//! The program, its maps and its links, as one process has them of another.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use aya::Ebpf;
use aya::maps::{Array, Map, MapData, MapInfo};
use tidegate_abi::flow_filter::FlowHasher;
use tidegate_abi::syn_ack::{Settings, cookie_switch};
use tidegate_abi::{MAP_COOKIE_SWITCHES, MAP_SETTINGS};
use tidegate_exchange::FlowFilter;

use super::link::XdpLink;
use super::{
    Hold, ProgramSettings, Steering, flow_filter, load, map_error, missing, program_load_error, steering_program,
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

    /// Makes the program do what the settings say. The one that is attached goes on.
    ///
    /// # Errors
    ///
    /// [`Error::Load`].
    pub(crate) fn take_over(
        mut self,
        predecessor: &mut Predecessor,
        config: &Config,
        settings: &ProgramSettings<'_>,
    ) -> Result<Steering, Error> {
        settings.write(&mut self.ebpf)?;
        self.turn_cookies_off()?;
        let attached = predecessor.attached();
        let mut steering = Steering::with_maps(self.ebpf, attached.len(), config, settings)?;
        let links = predecessor.links.drain(..);
        steering.holds = links.map(|link| Hold::Link(XdpLink::taken(link))).collect();
        steering.attached = attached;
        Ok(steering)
    }
}

impl Offered {
    /// Whoever controls cookies from now on begins with all of them off.
    fn turn_cookies_off(&mut self) -> Result<(), Error> {
        let failed = |error| map_error(MAP_COOKIE_SWITCHES, &error);
        let map = self.ebpf.map_mut(MAP_COOKIE_SWITCHES);
        let map = map.ok_or_else(|| missing(MAP_COOKIE_SWITCHES))?;
        let mut map = Array::<&mut MapData, u32>::try_from(map).map_err(failed)?;
        (0..map.len()).try_for_each(|queue| map.set(queue, cookie_switch::OFF, 0).map_err(failed))
    }
}

impl Steering {
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
