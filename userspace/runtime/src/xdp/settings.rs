//! The settings of the XDP program, written before it is attached.

use std::collections::HashMap as StdHashMap;
use std::net::{IpAddr, SocketAddr};

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, MapData, MapError};
use aya::{Ebpf, Pod};
use nix::time::{ClockId, clock_getres};
use tidegate_abi::flow_filter::FlowHasher;
use tidegate_abi::syn_ack::{Settings, SynAck, feature};
use tidegate_abi::{
    ListenerKey, MAP_BALANCERS_V4, MAP_BALANCERS_V6, MAP_FEATURES, MAP_GUE_PORT, MAP_LISTENER_SLOTS, MAP_LISTENERS,
    MAP_OWN_ADDRESSES, MAP_REMOTE_SLOTS, MAP_REMOTES, MAP_SOURCE_RULES_V4, MAP_SOURCE_RULES_V6, MAP_SYN_RATE,
    MAX_OWN_ADDRESSES, MAX_SOURCE_RULES, PROGRAM_STEER, PROGRAM_STEER_BALANCED, PROGRAM_STEER_FRAGS,
};

use super::{map_error, missing};
use crate::config::{Balancers, Prefix, Sources, TriePrefix};
use crate::error::Error;

/// Settings of the XDP program. But for what it answers SYNs with, they stay as they are while it is attached.
pub(crate) struct ProgramSettings<'a> {
    /// The addresses and ports to steer.
    pub(crate) listeners: &'a [SocketAddr],
    /// The peers whose segments are steered, whatever they are for.
    pub(crate) remotes: &'a [SocketAddr],
    /// The SYN-ACK the engines would send.
    pub(crate) syn_ack: SynAck,
    /// The place of each flow in the flow filter.
    pub(crate) flow_hasher: FlowHasher,
    /// RSTs per second that an engine answers segments of no flow with, on average; `None`: all such segments go to the
    /// engines.
    pub(crate) filter_for_rst_rate: Option<u32>,
    /// The rules by source.
    pub(crate) sources: &'a Sources,
    /// If frames may lie in several buffers: the largest MTU with which the driver would not need that.
    pub(crate) frags: Option<u32>,
    /// The balancers whose packets are decapsulated.
    pub(crate) balancers: &'a Balancers,
    /// The interface's addresses, which balancers may send to.
    pub(crate) own_addresses: &'a [IpAddr],
    /// Whether the program stays where it is when this process is killed.
    pub(crate) outlives: bool,
}

impl ProgramSettings<'_> {
    /// Writes them into the program's maps.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] when a map is not there, or the kernel refuses an entry.
    pub(super) fn write(&self, ebpf: &mut Ebpf) -> Result<(), Error> {
        add_keys(ebpf, MAP_LISTENERS, MAP_LISTENER_SLOTS, self.listeners)?;
        add_keys(ebpf, MAP_REMOTES, MAP_REMOTE_SLOTS, self.remotes)?;
        self.write_source_rules(ebpf)?;
        self.write_balancers(ebpf)?;
        set_only_entry(ebpf, MAP_SYN_RATE, self.sources.limit())?;
        set_only_entry(ebpf, MAP_FEATURES, self.features())
    }

    /// The name of the program that does what is needed.
    pub(crate) fn program(&self) -> &'static str {
        if self.frags.is_some() {
            PROGRAM_STEER_FRAGS
        } else if self.balancers.is_any() {
            PROGRAM_STEER_BALANCED
        } else {
            PROGRAM_STEER
        }
    }

    /// The entry of the map of settings for all segments.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] when the kernel does not tell how long a jiffy is.
    pub(super) fn entry(&self) -> Result<Settings, Error> {
        Ok(Settings {
            flow_hasher: self.flow_hasher,
            syn_ack: SynAck {
                ms_per_jiffy: SynAck::per_jiffy(jiffy_ns()?),
                ..self.syn_ack
            },
            strays: self.filter_for_rst_rate.map_or(0, strays),
        })
    }

    /// The bits of [`feature`] that are needed.
    fn features(&self) -> u32 {
        let remotes = if self.remotes.is_empty() { 0 } else { feature::REMOTES };
        let filter = if self.filter_for_rst_rate.is_some() {
            feature::FLOW_FILTER
        } else {
            0
        };
        let outlives = if self.outlives { feature::OUTLIVES } else { 0 };
        self.sources.features() | remotes | filter | outlives
    }

    fn write_source_rules(&self, ebpf: &mut Ebpf) -> Result<(), Error> {
        for (prefix, rule) in self.sources.rules() {
            add_prefix(ebpf, [MAP_SOURCE_RULES_V4, MAP_SOURCE_RULES_V6], prefix, rule)?;
        }
        Ok(())
    }

    fn write_balancers(&self, ebpf: &mut Ebpf) -> Result<(), Error> {
        if !self.balancers.is_any() {
            return Ok(());
        }
        for &prefix in &self.balancers.from {
            add_prefix(ebpf, [MAP_BALANCERS_V4, MAP_BALANCERS_V6], prefix, 1)?;
        }
        let map = ebpf
            .map_mut(MAP_OWN_ADDRESSES)
            .ok_or_else(|| missing(MAP_OWN_ADDRESSES))?;
        let mut map = HashMap::<&mut MapData, ListenerKey, u32>::try_from(map)
            .map_err(|error| map_error(MAP_OWN_ADDRESSES, &error))?;
        for &address in room_for(self.own_addresses) {
            map.insert(listener_key(&SocketAddr::new(address, 0)), 1, 0)
                .map_err(|error| map_error(MAP_OWN_ADDRESSES, &error))?;
        }
        set_only_entry(ebpf, MAP_GUE_PORT, u32::from(self.balancers.gue_port))
    }
}

/// The addresses that there is room for, with a warning if there is none for all.
fn room_for(addresses: &[IpAddr]) -> &[IpAddr] {
    match addresses.split_at_checked(MAX_OWN_ADDRESSES as usize) {
        Some((first, [left_out, ..])) => {
            tracing::warn!(
                "the interfaces have {} addresses, of which balancers may send to the first {MAX_OWN_ADDRESSES}: not \
                 to {left_out}, for example; remove some that are not needed",
                addresses.len()
            );
            first
        }
        _ => addresses,
    }
}

/// Segments of no flow that may go to an engine in a second, if it answers `rst_rate` of them on average: as many as it
/// answers in any of its seconds, so that which of them are answered is left to it, and cannot be told from outside.
pub(super) fn strays(rst_rate: u32) -> u32 {
    rst_rate.saturating_add(rst_rate.div_ceil(2))
}

/// Nanoseconds in a jiffy: what the coarse clocks go on by.
fn jiffy_ns() -> Result<u32, Error> {
    let resolution = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
        .map_err(|errno| Error::Load(format!("the kernel does not tell how long a jiffy is: {errno}")))?;
    Ok(resolution.tv_nsec() as u32)
}

/// Adds addresses and ports to the map `name`, and to its slots where nothing else is.
fn add_keys(
    ebpf: &mut Ebpf,
    name: &'static str,
    slots_name: &'static str,
    addresses: &[SocketAddr],
) -> Result<(), Error> {
    let map = ebpf.map_mut(name).ok_or_else(|| missing(name))?;
    let mut map = HashMap::<&mut MapData, ListenerKey, u32>::try_from(map).map_err(|error| map_error(name, &error))?;
    let keys = addresses.iter().map(listener_key);
    for (id, key) in keys.clone().enumerate() {
        map.insert(key, id as u32, 0).map_err(|error| map_error(name, &error))?;
    }
    let slots = ebpf.map_mut(slots_name).ok_or_else(|| missing(slots_name))?;
    let mut slots =
        Array::<&mut MapData, ListenerKey>::try_from(slots).map_err(|error| map_error(slots_name, &error))?;
    for key in keys {
        let first = slots
            .get(&key.slot(), 0)
            .map_err(|error| map_error(slots_name, &error))?;
        if first.is_empty_slot() {
            slots
                .set(key.slot(), key, 0)
                .map_err(|error| map_error(slots_name, &error))?;
        }
    }
    Ok(())
}

/// Adds a prefix to the trie of its family: the first is of IPv4.
fn add_prefix(ebpf: &mut Ebpf, names: [&'static str; 2], prefix: Prefix, value: u32) -> Result<(), Error> {
    match TriePrefix::from(prefix) {
        TriePrefix::V4(length, octets) => add_rule(ebpf, names[0], Key::new(length, octets), value),
        TriePrefix::V6(length, octets) => add_rule(ebpf, names[1], Key::new(length, octets), value),
    }
}

fn add_rule<K: Pod>(ebpf: &mut Ebpf, name: &'static str, prefix: Key<K>, rule: u32) -> Result<(), Error> {
    let map = ebpf.map_mut(name).ok_or_else(|| missing(name))?;
    let mut map = LpmTrie::<&mut MapData, K, u32>::try_from(map).map_err(|error| map_error(name, &error))?;
    map.insert(&prefix, rule, 0).map_err(|error| map_error(name, &error))
}

/// Writes other rules by source, and other limits of SYNs, in the place of those of `before`. What a source is stays as
/// it is.
///
/// # Errors
///
/// [`Error::Load`] when the kernel refuses an entry; some may have been written then.
pub(super) fn replace_sources(ebpf: &mut Ebpf, before: &Sources, now: &Sources) -> Result<(), Error> {
    const NAMES: [&str; 2] = [MAP_SOURCE_RULES_V4, MAP_SOURCE_RULES_V6];
    let [old, new]: [StdHashMap<Prefix, u32>; 2] = [before, now].map(|sources| sources.rules().collect());
    let gone = old.keys().filter(|prefix| !new.contains_key(*prefix));
    let changed = new.iter().filter(|(prefix, rule)| old.get(*prefix) != Some(*rule));
    // Those that are gone come last, so that no source is without its rule meanwhile; first where there is no room.
    let is_crowded = old.len() + new.len() > MAX_SOURCE_RULES as usize;
    if is_crowded {
        gone.clone()
            .try_for_each(|&prefix| remove_prefix(ebpf, NAMES, prefix))?;
    }
    for (&prefix, &rule) in changed {
        add_prefix(ebpf, NAMES, prefix, rule)?;
    }
    if !is_crowded {
        gone.clone()
            .try_for_each(|&prefix| remove_prefix(ebpf, NAMES, prefix))?;
    }
    set_only_entry(ebpf, MAP_SYN_RATE, now.limit())
}

/// Removes a prefix from the trie of its family: the first is of IPv4.
fn remove_prefix(ebpf: &mut Ebpf, names: [&'static str; 2], prefix: Prefix) -> Result<(), Error> {
    match TriePrefix::from(prefix) {
        TriePrefix::V4(length, octets) => remove_rule(ebpf, names[0], &Key::new(length, octets)),
        TriePrefix::V6(length, octets) => remove_rule(ebpf, names[1], &Key::new(length, octets)),
    }
}

fn remove_rule<K: Pod>(ebpf: &mut Ebpf, name: &'static str, prefix: &Key<K>) -> Result<(), Error> {
    let map = ebpf.map_mut(name).ok_or_else(|| missing(name))?;
    let mut map = LpmTrie::<&mut MapData, K, u32>::try_from(map).map_err(|error| map_error(name, &error))?;
    match map.remove(prefix) {
        // Gone already, when half a change is undone.
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result.map_err(|error| map_error(name, &error)),
    }
}

/// Sets the one entry of the array `name`.
fn set_only_entry<V: Pod>(ebpf: &mut Ebpf, name: &'static str, value: V) -> Result<(), Error> {
    let map = ebpf.map_mut(name).ok_or_else(|| missing(name))?;
    let mut map = Array::<&mut MapData, V>::try_from(map).map_err(|error| map_error(name, &error))?;
    map.set(0, value, 0).map_err(|error| map_error(name, &error))
}

/// The key of an address and port.
pub(super) fn listener_key(address: &SocketAddr) -> ListenerKey {
    match address {
        SocketAddr::V4(v4) => ListenerKey::v4(v4.ip().octets(), v4.port()),
        SocketAddr::V6(v6) => ListenerKey::v6(v6.ip().octets(), v6.port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_looked_up_by_family_address_and_port() {
        let v4 = listener_key(&"198.18.0.1:80".parse().expect("an address"));
        assert_eq!(v4, ListenerKey::v4([198, 18, 0, 1], 80));
        let v6 = listener_key(&"[2001:2::1]:443".parse().expect("an address"));
        assert_eq!((v6.version(), v6.port()), (6, 443));
        assert_eq!(v6.address()[..4], [0x20, 0x01, 0, 2]);
    }

    #[test]
    fn the_first_addresses_are_taken_that_there_is_room_for() {
        let addresses: Vec<IpAddr> = (0..=MAX_OWN_ADDRESSES)
            .map(|number| IpAddr::from((0xc612_0000 + number).to_be_bytes()))
            .collect();
        let room = MAX_OWN_ADDRESSES as usize;
        assert_eq!(room_for(&addresses), &addresses[..room]);
        assert_eq!(room_for(&addresses[..room]).len(), room);
        assert_eq!(room_for(&addresses[..1]).len(), 1);
    }

    #[test]
    fn a_jiffy_takes_from_a_millisecond_to_ten() {
        let nanoseconds = jiffy_ns().expect("every kernel tells");
        assert!((999_999..=10_000_000).contains(&nanoseconds), "{nanoseconds} ns");
    }

    #[test]
    fn features_are_on_where_they_are_needed() {
        let sources = Sources {
            syn_rate: 1,
            ..Sources::default()
        };
        let remote: SocketAddr = "198.18.0.1:80".parse().expect("an address");
        for (remotes, filter_for_rst_rate, outlives, expected) in [
            (&[][..], None, false, feature::SYN_RATE),
            (&[remote][..], None, false, feature::SYN_RATE | feature::REMOTES),
            (&[][..], Some(0), false, feature::SYN_RATE | feature::FLOW_FILTER),
            (&[][..], None, true, feature::SYN_RATE | feature::OUTLIVES),
        ] {
            let settings = ProgramSettings {
                listeners: &[],
                remotes,
                syn_ack: SynAck::default(),
                flow_hasher: FlowHasher::default(),
                filter_for_rst_rate,
                sources: &sources,
                frags: None,
                balancers: &Balancers::default(),
                own_addresses: &[],
                outlives,
            };
            assert_eq!(settings.features(), expected);
        }
    }
}
