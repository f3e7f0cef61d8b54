//! The settings of the XDP program, written before it is attached.

use std::net::{IpAddr, SocketAddr};

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData};
use nix::time::{ClockId, clock_getres};
use tidegate_abi::flow_filter::FlowHasher;
use tidegate_abi::syn_ack::{Settings, SynAck, feature};
use tidegate_abi::{
    ListenerKey, MAP_REMOTE_SLOTS, MAP_REMOTES, MAX_OWN_ADDRESSES, PROGRAM_STEER, PROGRAM_STEER_BALANCED,
    PROGRAM_STEER_FRAGS,
};

use super::rules::Rules;
use super::{map_error, missing};
use crate::config::{Balancers, Sources};
use crate::error::Error;

/// Settings of the XDP program, as a process begins with them.
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
    /// Writes those that are in the maps of `ebpf` alone. What another process has written there is gone then, but for
    /// its remotes, whose connections it may have yet.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] when a map is not there, or the kernel refuses an entry.
    pub(super) fn write(&self, ebpf: &mut Ebpf) -> Result<(), Error> {
        add_keys(ebpf, MAP_REMOTES, MAP_REMOTE_SLOTS, self.remotes)?;
        self.rules().write(ebpf)
    }

    /// The rules by source, and the balancers.
    pub(super) fn rules(&self) -> Rules {
        let mut rules = Rules {
            sources: self.sources.rules().collect(),
            syn_rate: self.sources.limit(),
            ..Rules::default()
        };
        if self.balancers.is_any() {
            let addresses = room_for(self.own_addresses).iter();
            rules.balancers = self.balancers.from.iter().map(|&prefix| (prefix, 1)).collect();
            rules.own_addresses = addresses
                .map(|&address| listener_key(&SocketAddr::new(address, 0)))
                .collect();
            rules.gue_port = u32::from(self.balancers.gue_port);
        }
        rules
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

    /// The bits of [`feature`] that are needed, without those of cookies.
    pub(super) fn features(&self) -> u32 {
        let remotes = if self.remotes.is_empty() { 0 } else { feature::REMOTES };
        let filter = if self.filter_for_rst_rate.is_some() {
            feature::FLOW_FILTER
        } else {
            0
        };
        let outlives = if self.outlives { feature::OUTLIVES } else { 0 };
        self.sources.features() | remotes | filter | outlives
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

/// The key of an address and port.
pub(super) fn listener_key(address: &SocketAddr) -> ListenerKey {
    match address {
        SocketAddr::V4(v4) => ListenerKey::v4(v4.ip().octets(), v4.port()),
        SocketAddr::V6(v6) => ListenerKey::v6(v6.ip().octets(), v6.port()),
    }
}

/// The address and port of a key.
pub(super) fn listener_address(key: &ListenerKey) -> SocketAddr {
    let octets = key.address();
    let address = match octets {
        [.., a, b, c, d] if key.version() == 4 => IpAddr::from([a, b, c, d]),
        _ => IpAddr::from(octets),
    };
    SocketAddr::new(address, key.port())
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
        for text in ["198.18.0.1:80", "[2001:2::1]:443"] {
            let address: SocketAddr = text.parse().expect("an address");
            assert_eq!(listener_address(&listener_key(&address)), address);
        }
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
