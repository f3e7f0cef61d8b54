//! The rules by source and the balancers, in the maps of the XDP program.

use std::collections::{HashMap as StdHashMap, HashSet};

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, MapData, MapError};
use aya::{Ebpf, Pod};
use tidegate_abi::syn_ack::SynRate;
use tidegate_abi::{
    ListenerKey, MAP_BALANCERS_V4, MAP_BALANCERS_V6, MAP_GUE_PORT, MAP_OWN_ADDRESSES, MAP_SOURCE_RULES_V4,
    MAP_SOURCE_RULES_V6, MAP_SYN_RATE, MAX_BALANCERS, MAX_SOURCE_RULES,
};

use super::{map_error, missing};
use crate::config::{Prefix, Sources, TriePrefix};
use crate::error::Error;

/// Prefixes with their values, of both families.
pub(super) type Prefixes = StdHashMap<Prefix, u32>;

/// The tries of IPv4 and of IPv6.
const SOURCE_RULES: [&str; 2] = [MAP_SOURCE_RULES_V4, MAP_SOURCE_RULES_V6];
const BALANCERS: [&str; 2] = [MAP_BALANCERS_V4, MAP_BALANCERS_V6];

/// The rules by source and the balancers, as they are in their maps.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rules {
    pub(super) sources: Prefixes,
    pub(super) syn_rate: SynRate,
    pub(super) balancers: Prefixes,
    /// As keys with port 0.
    pub(super) own_addresses: HashSet<ListenerKey>,
    pub(super) gue_port: u32,
}

impl Rules {
    /// Those that are in the maps.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    pub(super) fn read(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            sources: prefixes(ebpf, SOURCE_RULES)?,
            syn_rate: only_entry(ebpf, MAP_SYN_RATE)?,
            balancers: prefixes(ebpf, BALANCERS)?,
            own_addresses: own_addresses(ebpf)?.keys().collect::<Result<_, _>>().map_err(refused)?,
            gue_port: only_entry(ebpf, MAP_GUE_PORT)?,
        })
    }

    /// Has these in the maps, and no others.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] when the kernel refuses an entry; some may have been written then.
    pub(super) fn write(&self, ebpf: &mut Ebpf) -> Result<(), Error> {
        let before = Self::read(ebpf)?;
        replace_prefixes(ebpf, SOURCE_RULES, MAX_SOURCE_RULES, &before.sources, &self.sources)?;
        set_only_entry(ebpf, MAP_SYN_RATE, self.syn_rate)?;
        replace_prefixes(ebpf, BALANCERS, MAX_BALANCERS, &before.balancers, &self.balancers)?;
        let mut addresses = own_addresses(ebpf)?;
        for gone in before.own_addresses.difference(&self.own_addresses) {
            addresses.remove(gone).map_err(refused)?;
        }
        for new in self.own_addresses.difference(&before.own_addresses) {
            addresses.insert(new, 1, 0).map_err(refused)?;
        }
        set_only_entry(ebpf, MAP_GUE_PORT, self.gue_port)
    }
}

/// Writes other rules by source, and other limits of SYNs, in the place of those of `before`. What a source is stays as
/// it is.
///
/// # Errors
///
/// [`Error::Load`] when the kernel refuses an entry; some may have been written then.
pub(super) fn replace_sources(ebpf: &mut Ebpf, before: &Sources, now: &Sources) -> Result<(), Error> {
    let [old, new]: [Prefixes; 2] = [before, now].map(|sources| sources.rules().collect());
    replace_prefixes(ebpf, SOURCE_RULES, MAX_SOURCE_RULES, &old, &new)?;
    set_only_entry(ebpf, MAP_SYN_RATE, now.limit())
}

/// Adds a prefix to the trie of its family: the first is of IPv4.
fn add_prefix(ebpf: &mut Ebpf, names: [&'static str; 2], prefix: Prefix, value: u32) -> Result<(), Error> {
    match TriePrefix::from(prefix) {
        TriePrefix::V4(length, octets) => add_rule(ebpf, names[0], Key::new(length, octets), value),
        TriePrefix::V6(length, octets) => add_rule(ebpf, names[1], Key::new(length, octets), value),
    }
}

fn add_rule<K: Pod>(ebpf: &mut Ebpf, name: &'static str, prefix: Key<K>, rule: u32) -> Result<(), Error> {
    let mut map = trie(ebpf, name)?;
    map.insert(&prefix, rule, 0).map_err(|error| map_error(name, &error))
}

fn own_addresses(ebpf: &mut Ebpf) -> Result<HashMap<&mut MapData, ListenerKey, u32>, Error> {
    let map = ebpf.map_mut(MAP_OWN_ADDRESSES);
    HashMap::try_from(map.ok_or_else(|| missing(MAP_OWN_ADDRESSES))?).map_err(refused)
}

fn refused(error: MapError) -> Error {
    map_error(MAP_OWN_ADDRESSES, &error)
}

/// Has the tries of both families, with room for `room` prefixes each, hold `new`, of which they hold `old`.
fn replace_prefixes(
    ebpf: &mut Ebpf,
    names: [&'static str; 2],
    room: u32,
    old: &Prefixes,
    new: &Prefixes,
) -> Result<(), Error> {
    let gone = old.keys().filter(|prefix| !new.contains_key(*prefix));
    let changed = new.iter().filter(|(prefix, rule)| old.get(*prefix) != Some(*rule));
    // Those that are gone come last, so that no source is without its rule meanwhile; first where there is no room.
    let is_crowded = old.len() + new.len() > room as usize;
    if is_crowded {
        gone.clone()
            .try_for_each(|&prefix| remove_prefix(ebpf, names, prefix))?;
    }
    for (&prefix, &rule) in changed {
        add_prefix(ebpf, names, prefix, rule)?;
    }
    if !is_crowded {
        gone.clone()
            .try_for_each(|&prefix| remove_prefix(ebpf, names, prefix))?;
    }
    Ok(())
}

/// The prefixes in the tries of both families.
fn prefixes(ebpf: &mut Ebpf, [v4, v6]: [&'static str; 2]) -> Result<Prefixes, Error> {
    let mut found = Prefixes::new();
    for entry in trie::<[u8; 4]>(ebpf, v4)?.iter() {
        let (key, value) = entry.map_err(|error| map_error(v4, &error))?;
        found.insert(TriePrefix::V4(key.prefix_len(), key.data()).into(), value);
    }
    for entry in trie::<[u8; 16]>(ebpf, v6)?.iter() {
        let (key, value) = entry.map_err(|error| map_error(v6, &error))?;
        found.insert(TriePrefix::V6(key.prefix_len(), key.data()).into(), value);
    }
    Ok(found)
}

fn trie<'a, K: Pod>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<LpmTrie<&'a mut MapData, K, u32>, Error> {
    let map = ebpf.map_mut(name).ok_or_else(|| missing(name))?;
    LpmTrie::try_from(map).map_err(|error| map_error(name, &error))
}

/// Removes a prefix from the trie of its family: the first is of IPv4.
fn remove_prefix(ebpf: &mut Ebpf, names: [&'static str; 2], prefix: Prefix) -> Result<(), Error> {
    match TriePrefix::from(prefix) {
        TriePrefix::V4(length, octets) => remove_rule(ebpf, names[0], &Key::new(length, octets)),
        TriePrefix::V6(length, octets) => remove_rule(ebpf, names[1], &Key::new(length, octets)),
    }
}

fn remove_rule<K: Pod>(ebpf: &mut Ebpf, name: &'static str, prefix: &Key<K>) -> Result<(), Error> {
    let mut map = trie(ebpf, name)?;
    match map.remove(prefix) {
        // Gone already, when half a change is undone.
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result.map_err(|error| map_error(name, &error)),
    }
}

/// The one entry of the array `name`.
fn only_entry<V: Pod>(ebpf: &mut Ebpf, name: &'static str) -> Result<V, Error> {
    let map = ebpf.map_mut(name).ok_or_else(|| missing(name))?;
    let map = Array::<&mut MapData, V>::try_from(map).map_err(|error| map_error(name, &error))?;
    map.get(&0, 0).map_err(|error| map_error(name, &error))
}

/// Sets the one entry of the array `name`.
fn set_only_entry<V: Pod>(ebpf: &mut Ebpf, name: &'static str, value: V) -> Result<(), Error> {
    let map = ebpf.map_mut(name).ok_or_else(|| missing(name))?;
    let mut map = Array::<&mut MapData, V>::try_from(map).map_err(|error| map_error(name, &error))?;
    map.set(0, value, 0).map_err(|error| map_error(name, &error))
}
