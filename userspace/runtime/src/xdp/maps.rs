//! The maps of the XDP program that are used while it runs.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use tidegate_abi::siphash::Key;
use tidegate_abi::syn_ack::{Settings, SynAck, feature};
use tidegate_abi::syn_cookie::Accepted;
use tidegate_abi::{
    ListenerKey, MAP_COOKIE_KEYS, MAP_COOKIE_SWITCHES, MAP_COUNTERS, MAP_FEATURES, MAP_LISTENER_SLOTS, MAP_LISTENERS,
    MAP_SETTINGS, XdpCounter,
};

use super::settings::strays;
use super::{map_error, missing};
use crate::cookies::controller::Given;
use crate::error::Error;
use crate::report::XdpCounts;

/// The program's counters.
pub(crate) struct CounterMap(PerCpuArray<MapData, u64>);

impl CounterMap {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let map = ebpf.take_map(MAP_COUNTERS).ok_or_else(|| missing(MAP_COUNTERS))?;
        let map = PerCpuArray::<MapData, u64>::try_from(map).map_err(|error| map_error(MAP_COUNTERS, &error))?;
        Ok(Self(map))
    }

    /// The value of `counter` for receive queue `queue`, summed over CPUs.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    pub(crate) fn get(&self, counter: XdpCounter, queue: u32) -> Result<u64, Error> {
        let per_cpu = self
            .0
            .get(&counter.index(queue), 0)
            .map_err(|error| map_error(MAP_COUNTERS, &error))?;
        Ok(per_cpu.iter().sum())
    }

    /// All counters of the first `queues` receive queues.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    pub(crate) fn of_queues(&self, queues: u32) -> Result<Vec<XdpCounts>, Error> {
        (0..queues)
            .map(|queue| {
                let mut counts = XdpCounts::default();
                for &counter in XdpCounter::ALL {
                    counts.0[counter as usize] = self.get(counter, queue)?;
                }
                Ok(counts)
            })
            .collect()
    }
}

/// The addresses and ports that are served.
pub(crate) struct ListenerMaps {
    keys: HashMap<MapData, ListenerKey, u32>,
    slots: Array<MapData, ListenerKey>,
}

impl ListenerMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let keys = ebpf.take_map(MAP_LISTENERS).ok_or_else(|| missing(MAP_LISTENERS))?;
        let slots = ebpf
            .take_map(MAP_LISTENER_SLOTS)
            .ok_or_else(|| missing(MAP_LISTENER_SLOTS))?;
        Ok(Self {
            keys: HashMap::try_from(keys).map_err(|error| map_error(MAP_LISTENERS, &error))?,
            slots: Array::try_from(slots).map_err(|error| map_error(MAP_LISTENER_SLOTS, &error))?,
        })
    }

    /// Steers what is for `key` from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    pub(crate) fn add(&mut self, key: ListenerKey) -> Result<(), Error> {
        // In this order: a slot that is not empty has the program look further.
        self.keys
            .insert(key, 0, 0)
            .map_err(|error| map_error(MAP_LISTENERS, &error))?;
        if self.slot(key.slot())?.is_empty_slot() {
            self.set_slot(key.slot(), key)?;
        }
        Ok(())
    }

    /// All that is steered.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    pub(super) fn keys(&self) -> Result<HashSet<ListenerKey>, Error> {
        let keys = self.keys.keys().collect::<Result<_, _>>();
        keys.map_err(|error| map_error(MAP_LISTENERS, &error))
    }

    /// Leaves what is for `key` to the kernel from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    pub(crate) fn remove(&mut self, key: ListenerKey) -> Result<(), Error> {
        self.keys
            .remove(&key)
            .map_err(|error| map_error(MAP_LISTENERS, &error))?;
        if self.slot(key.slot())? == key {
            let others = self.keys.keys().flatten();
            let next = others.into_iter().find(|other| other.slot() == key.slot());
            self.set_slot(key.slot(), next.unwrap_or(ListenerKey::EMPTY_SLOT))?;
        }
        Ok(())
    }

    fn slot(&self, slot: u32) -> Result<ListenerKey, Error> {
        self.slots
            .get(&slot, 0)
            .map_err(|error| map_error(MAP_LISTENER_SLOTS, &error))
    }

    fn set_slot(&mut self, slot: u32, key: ListenerKey) -> Result<(), Error> {
        self.slots
            .set(slot, key, 0)
            .map_err(|error| map_error(MAP_LISTENER_SLOTS, &error))
    }
}

/// The parts of the program that are on, as bits of [`feature`]: cookies and others.
pub(crate) struct FeaturesMap(Array<MapData, u32>);

/// The same, for all who change some of it.
pub(crate) type SharedFeatures = Arc<Mutex<FeaturesMap>>;

impl FeaturesMap {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<SharedFeatures, Error> {
        let map = ebpf.take_map(MAP_FEATURES).ok_or_else(|| missing(MAP_FEATURES))?;
        let map = Array::<MapData, u32>::try_from(map).map_err(|error| map_error(MAP_FEATURES, &error))?;
        Ok(Arc::new(Mutex::new(Self(map))))
    }

    /// The bits that are on.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    pub(super) fn get(&self) -> Result<u32, Error> {
        self.0.get(&0, 0).map_err(|error| map_error(MAP_FEATURES, &error))
    }

    /// Has the program do what the bits `on` say, of those in `of`, and the others as before.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    pub(super) fn set(&mut self, of: u32, on: u32) -> Result<(), Error> {
        let before = self.get()?;
        self.0
            .set(0, before & !of | on, 0)
            .map_err(|error| map_error(MAP_FEATURES, &error))
    }
}

/// The keys of SYN cookies, and for each queue the switch that says which one makes them.
pub(crate) struct CookieMaps {
    keys: Array<MapData, [u64; 2]>,
    switches: Array<MapData, u32>,
    features: SharedFeatures,
}

impl CookieMaps {
    pub(super) fn take(ebpf: &mut Ebpf, features: SharedFeatures) -> Result<Self, Error> {
        let keys = ebpf.take_map(MAP_COOKIE_KEYS).ok_or_else(|| missing(MAP_COOKIE_KEYS))?;
        let switches = ebpf
            .take_map(MAP_COOKIE_SWITCHES)
            .ok_or_else(|| missing(MAP_COOKIE_SWITCHES))?;
        Ok(Self {
            keys: Array::<MapData, [u64; 2]>::try_from(keys).map_err(|error| map_error(MAP_COOKIE_KEYS, &error))?,
            switches: Array::<MapData, u32>::try_from(switches)
                .map_err(|error| map_error(MAP_COOKIE_SWITCHES, &error))?,
            features,
        })
    }

    /// Has the program make and accept cookies by these keys, or accept none.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    pub(crate) fn accept(&mut self, given: Option<Given>) -> Result<(), Error> {
        if let Some(given) = given {
            for (slot, key) in (0..).zip(given.keys.slots()) {
                let Key(first, second) = key.unwrap_or(Key(0, 0));
                self.keys
                    .set(slot, [first, second], 0)
                    .map_err(|error| map_error(MAP_COOKIE_KEYS, &error))?;
            }
        }
        let on = match given.map(|given| given.accepted) {
            None => 0,
            Some(Accepted::Strong) => feature::COOKIES,
            Some(Accepted::All) => feature::COOKIES | feature::ALL_COOKIES,
        };
        let mut features = self.features.lock().unwrap_or_else(PoisonError::into_inner);
        features.set(feature::COOKIES | feature::ALL_COOKIES, on)
    }

    /// Sets the switch of receive queue `queue` to a value of [`tidegate_abi::syn_ack::cookie_switch`].
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    pub(crate) fn set_switch(&mut self, queue: u32, switch: u32) -> Result<(), Error> {
        self.switches
            .set(queue, switch, 0)
            .map_err(|error| map_error(MAP_COOKIE_SWITCHES, &error))
    }
}

/// The settings of the program for all segments.
pub(crate) struct SettingsMap {
    map: Array<MapData, Settings>,
    settings: Settings,
}

impl SettingsMap {
    /// The map, in which `settings` are to be.
    pub(super) fn take(ebpf: &mut Ebpf, settings: Settings) -> Result<Self, Error> {
        let map = ebpf.take_map(MAP_SETTINGS).ok_or_else(|| missing(MAP_SETTINGS))?;
        let map = Array::<MapData, Settings>::try_from(map).map_err(|error| map_error(MAP_SETTINGS, &error))?;
        Ok(Self { map, settings })
    }

    /// From now on SYNs are answered as `syn_ack` says; how long a jiffy takes stays as it is.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    pub(crate) fn set_syn_ack(&mut self, syn_ack: SynAck) -> Result<(), Error> {
        self.settings = with_syn_ack(self.settings, syn_ack);
        self.write()
    }

    /// From now on as many segments of no flow go to an engine as one answers that has this `rst_rate`.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    pub(super) fn set_rst_rate(&mut self, rst_rate: u32) -> Result<(), Error> {
        self.settings.strays = strays(rst_rate);
        self.write()
    }

    /// Writes them as they are.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    pub(super) fn write(&mut self) -> Result<(), Error> {
        self.map
            .set(0, self.settings, 0)
            .map_err(|error| map_error(MAP_SETTINGS, &error))
    }
}

/// `settings` with another SYN-ACK. The engine, whose it is, knows no jiffies.
fn with_syn_ack(settings: Settings, syn_ack: SynAck) -> Settings {
    Settings {
        syn_ack: SynAck {
            ms_per_jiffy: settings.syn_ack.ms_per_jiffy,
            ..syn_ack
        },
        ..settings
    }
}

#[cfg(test)]
mod tests {
    use tidegate_abi::flow_filter::{FlowHasher, RANDOM_WORDS};
    use tidegate_tcp::Config;
    use tidegate_tcp::engine::syn_ack_of;

    use super::*;

    #[test]
    fn a_new_mtu_changes_the_mss_of_syn_acks_and_nothing_else() {
        let mut config = Config::default();
        config.set_mtu(1500);
        let settings = Settings {
            flow_hasher: FlowHasher::new(1000, [7; RANDOM_WORDS]),
            syn_ack: SynAck {
                ms_per_jiffy: SynAck::per_jiffy(4_000_000),
                ..syn_ack_of(&config)
            },
            strays: 7,
        };
        config.set_mtu(1300);
        let mut expected = settings;
        (expected.syn_ack.mss_v4, expected.syn_ack.mss_v6) = (1260, 1240);
        assert_eq!(with_syn_ack(settings, syn_ack_of(&config)), expected);
    }
}
