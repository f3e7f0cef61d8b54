//! Settings of the program under test, in its maps.

use std::net::IpAddr;

use aya::Pod;
use aya::maps::lpm_trie::Key as Prefix;
use aya::maps::{Array, HashMap, LpmTrie, MapData};
use tidegate_abi::flow_filter::{Bucket, Counts, FlowHash, FlowHasher, handshake};
use tidegate_abi::siphash::Key;
use tidegate_abi::syn_ack::{Settings, SynAck, SynRate};
use tidegate_abi::{
    ListenerKey, MAP_BALANCERS_V4, MAP_BALANCERS_V6, MAP_COOKIE_KEYS, MAP_COOKIE_SWITCHES, MAP_FEATURES,
    MAP_FLOW_COUNTS, MAP_FLOWS, MAP_GUE_PORT, MAP_HANDSHAKES, MAP_OWN_ADDRESSES, MAP_SETTINGS, MAP_SOURCE_RULES_V4,
    MAP_SOURCE_RULES_V6, MAP_SYN_RATE,
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
        self.change_settings(|settings| settings.syn_ack = syn_ack);
    }

    /// Sets the place of each flow: with at most [`super::BUCKETS`] buckets.
    pub(crate) fn set_flow_hasher(&mut self, hasher: FlowHasher) {
        self.change_settings(|settings| settings.flow_hasher = hasher);
    }

    /// Sets the number of segments of no flow that go on in a second.
    pub(crate) fn set_strays(&mut self, strays: u32) {
        self.change_settings(|settings| settings.strays = strays);
    }

    fn change_settings(&mut self, change: impl FnOnce(&mut Settings)) {
        let map = self.ebpf.map_mut(MAP_SETTINGS).expect("the object has the map");
        let mut map = Array::<&mut MapData, Settings>::try_from(map).expect("the value has the map's size");
        let mut settings = map.get(&0, 0).expect("the entry is in the map");
        change(&mut settings);
        map.set(0, settings, 0).expect("the index is in the map");
    }

    /// Sets the words of bucket `bucket`, and its count.
    pub(crate) fn set_bucket(&mut self, bucket: u32, words: [u32; 16]) {
        let mut pairs: Bucket = [0; 8];
        for (pair, words) in pairs.iter_mut().zip(words.as_chunks::<2>().0) {
            *pair = u64::from(words[0]) | u64::from(words[1]) << 32;
        }
        self.set(MAP_FLOWS, bucket, pairs);
        let count = words[1..].iter().filter(|&&entry| entry != 0).count() as u8 + u8::from(words[0] != 0);
        let (index, place) = (bucket / 8, bucket as usize % 8);
        let map = self.ebpf.map_mut(MAP_FLOW_COUNTS).expect("the object has the map");
        let map = Array::<&mut MapData, Counts>::try_from(map).expect("the value has the map's size");
        let mut counts = map.get(&index, 0).expect("the entry is in the map");
        counts[place] = count;
        self.set(MAP_FLOW_COUNTS, index, counts);
    }

    /// The entry in the slot of a handshake.
    pub(crate) fn handshake(&mut self, hash: FlowHash) -> u64 {
        let map = self.ebpf.map_mut(MAP_HANDSHAKES).expect("the object has the map");
        let map = Array::<&mut MapData, u64>::try_from(map).expect("the value has the map's size");
        map.get(&handshake::slot(hash), 0).expect("the slot is in the map")
    }

    /// Sets the entry in the slot of a handshake.
    pub(crate) fn set_handshake(&mut self, hash: FlowHash, entry: u64) {
        self.set(MAP_HANDSHAKES, handshake::slot(hash), entry);
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

    /// Has `balancer` be one, which sends to `own`, and takes `gue_port` for GUE's.
    pub(crate) fn set_balancer(&mut self, balancer: IpAddr, own: IpAddr, gue_port: u16) {
        match balancer {
            IpAddr::V4(v4) => self.set_rule(MAP_BALANCERS_V4, Prefix::new(32, v4.octets()), 1),
            IpAddr::V6(v6) => self.set_rule(MAP_BALANCERS_V6, Prefix::new(128, v6.octets()), 1),
        }
        let key = match own {
            IpAddr::V4(v4) => ListenerKey::v4(v4.octets(), 0),
            IpAddr::V6(v6) => ListenerKey::v6(v6.octets(), 0),
        };
        let map = self.ebpf.map_mut(MAP_OWN_ADDRESSES).expect("the object has the map");
        let mut map =
            HashMap::<&mut MapData, ListenerKey, u32>::try_from(map).expect("key and value have the map's sizes");
        map.insert(key, 1, 0).expect("the map has room for an address");
        self.set(MAP_GUE_PORT, 0, u32::from(gue_port));
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
