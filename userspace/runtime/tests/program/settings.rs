//! Settings of the program under test, in its maps.

use std::net::IpAddr;

use aya::Pod;
use aya::maps::lpm_trie::Key as Prefix;
use aya::maps::{Array, LpmTrie, MapData};
use tidegate_abi::known_flows::{FlowSlots, word_of};
use tidegate_abi::siphash::Key;
use tidegate_abi::syn_ack::{SynAck, SynRate, SynSettings};
use tidegate_abi::{
    MAP_COOKIE_KEYS, MAP_COOKIE_SWITCHES, MAP_FEATURES, MAP_KNOWN_FLOWS, MAP_SOURCE_RULES_V4, MAP_SOURCE_RULES_V6,
    MAP_SYN_RATE, MAP_SYN_SETTINGS,
};

use super::Program;

impl Program {
    /// Sets the key of `key_id`.
    pub(crate) fn set_cookie_key(&mut self, key_id: u32, Key(first, second): Key) {
        self.set(MAP_COOKIE_KEYS, key_id, [first, second]);
    }

    /// Sets the switch of `queue` to a value of [`tidegate_abi::syn_ack::cookie_switch`].
    pub(crate) fn set_cookie_switch(&mut self, queue: u32, switch: u32) {
        self.set(MAP_COOKIE_SWITCHES, queue, switch);
    }

    /// Sets what all SYN-ACKs say.
    pub(crate) fn set_syn_ack(&mut self, syn_ack: SynAck) {
        let settings = self.syn_settings();
        self.set(MAP_SYN_SETTINGS, 0, SynSettings { syn_ack, ..settings });
    }

    /// Sets where flows are counted: at most [`super::FLOW_SLOTS`] slots.
    pub(crate) fn set_flow_slots(&mut self, slots: FlowSlots) {
        let settings = SynSettings {
            flow_slots: slots,
            ..self.syn_settings()
        };
        self.set(MAP_SYN_SETTINGS, 0, settings);
    }

    fn syn_settings(&mut self) -> SynSettings {
        let map = self.ebpf.map_mut(MAP_SYN_SETTINGS).expect("the object has the map");
        let map = Array::<&mut MapData, SynSettings>::try_from(map).expect("the value has the map's size");
        map.get(&0, 0).expect("the entry is in the map")
    }

    /// Sets the counts of the eight slots around `slot`: `count` for itself, zero for the others.
    pub(crate) fn set_known(&mut self, slot: u32, count: u8) {
        let mut counts = [0; 8];
        counts[slot as usize % 8] = count;
        self.set(MAP_KNOWN_FLOWS, word_of(slot), u64::from_ne_bytes(counts));
    }

    /// Switches the bits of [`tidegate_abi::syn_ack::feature`] in `features` on, and the others off.
    pub(crate) fn set_features(&mut self, features: u32) {
        self.set(MAP_FEATURES, 0, features);
    }

    /// Sets the limit of SYNs.
    pub(crate) fn set_syn_rate(&mut self, limit: SynRate) {
        self.set(MAP_SYN_RATE, 0, limit);
    }

    /// Sets the [`tidegate_abi::syn_ack::source_rule`] for the prefix of `length` bits that `address` is in.
    pub(crate) fn set_source_rule(&mut self, address: IpAddr, length: u32, rule: u32) {
        match address {
            IpAddr::V4(v4) => self.set_rule(MAP_SOURCE_RULES_V4, Prefix::new(length, v4.octets()), rule),
            IpAddr::V6(v6) => self.set_rule(MAP_SOURCE_RULES_V6, Prefix::new(length, v6.octets()), rule),
        }
    }

    fn set_rule<K: Pod>(&mut self, name: &str, prefix: Prefix<K>, rule: u32) {
        let map = self.ebpf.map_mut(name).expect("the object has the map");
        let mut map = LpmTrie::<&mut MapData, K, u32>::try_from(map).expect("key and value have the map's sizes");
        map.insert(&prefix, rule, 0).expect("the map has room for a prefix");
    }

    fn set<V: Pod>(&mut self, name: &str, index: u32, value: V) {
        let map = self.ebpf.map_mut(name).expect("the object has the map");
        let mut map = Array::<&mut MapData, V>::try_from(map).expect("the value has the map's size");
        map.set(index, value, 0).expect("the index is in the map");
    }
}
