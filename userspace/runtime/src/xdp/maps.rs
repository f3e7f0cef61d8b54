//! The maps of the XDP program that are used while it runs.

use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray};
use tidegate_abi::siphash::Key;
use tidegate_abi::syn_ack::{SynAck, SynSettings};
use tidegate_abi::{MAP_COOKIE_KEYS, MAP_COOKIE_SWITCHES, MAP_COUNTERS, MAP_SYN_SETTINGS, XdpCounter};

use super::{map_error, missing};
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

/// The keys of SYN cookies, and for each queue the switch that says which one makes them.
pub(crate) struct CookieMaps {
    keys: Array<MapData, [u64; 2]>,
    switches: Array<MapData, u32>,
}

impl CookieMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let keys = ebpf.take_map(MAP_COOKIE_KEYS).ok_or_else(|| missing(MAP_COOKIE_KEYS))?;
        let switches = ebpf
            .take_map(MAP_COOKIE_SWITCHES)
            .ok_or_else(|| missing(MAP_COOKIE_SWITCHES))?;
        Ok(Self {
            keys: Array::<MapData, [u64; 2]>::try_from(keys).map_err(|error| map_error(MAP_COOKIE_KEYS, &error))?,
            switches: Array::<MapData, u32>::try_from(switches)
                .map_err(|error| map_error(MAP_COOKIE_SWITCHES, &error))?,
        })
    }

    /// Writes a key into the slot of `key_id`, 0 or 1.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    pub(crate) fn set_key(&mut self, key_id: u32, Key(first, second): Key) -> Result<(), Error> {
        self.keys
            .set(key_id, [first, second], 0)
            .map_err(|error| map_error(MAP_COOKIE_KEYS, &error))
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

/// The settings of the program for SYNs.
pub(crate) struct SynSettingsMap {
    map: Array<MapData, SynSettings>,
    settings: SynSettings,
}

impl SynSettingsMap {
    pub(super) fn take(ebpf: &mut Ebpf, settings: SynSettings) -> Result<Self, Error> {
        let map = ebpf
            .take_map(MAP_SYN_SETTINGS)
            .ok_or_else(|| missing(MAP_SYN_SETTINGS))?;
        let map = Array::<MapData, SynSettings>::try_from(map).map_err(|error| map_error(MAP_SYN_SETTINGS, &error))?;
        let mut taken = Self { map, settings };
        taken.write()?;
        Ok(taken)
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

    fn write(&mut self) -> Result<(), Error> {
        self.map
            .set(0, self.settings, 0)
            .map_err(|error| map_error(MAP_SYN_SETTINGS, &error))
    }
}

/// `settings` with another SYN-ACK. The engine, whose it is, knows no jiffies.
fn with_syn_ack(settings: SynSettings, syn_ack: SynAck) -> SynSettings {
    SynSettings {
        syn_ack: SynAck {
            ms_per_jiffy: settings.syn_ack.ms_per_jiffy,
            ..syn_ack
        },
        ..settings
    }
}

#[cfg(test)]
mod tests {
    use tidegate_abi::known_flows::{FlowSlots, RANDOM_WORDS};
    use tidegate_tcp::Config;
    use tidegate_tcp::engine::syn_ack_of;

    use super::*;

    #[test]
    fn a_new_mtu_changes_the_mss_of_syn_acks_and_nothing_else() {
        let mut config = Config::default();
        config.set_mtu(1500);
        let settings = SynSettings {
            flow_slots: FlowSlots::new(1000, [7; RANDOM_WORDS]),
            syn_ack: SynAck {
                ms_per_jiffy: SynAck::per_jiffy(4_000_000),
                ..syn_ack_of(&config)
            },
            unused: 0,
        };
        config.set_mtu(1300);
        let mut expected = settings;
        (expected.syn_ack.mss_v4, expected.syn_ack.mss_v6) = (1260, 1240);
        assert_eq!(with_syn_ack(settings, syn_ack_of(&config)), expected);
    }
}
