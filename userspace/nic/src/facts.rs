//! The facts that the kernel tells of one interface.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::rss::{PeerQueues, RssHash};

/// Everything read about one interface. What the kernel or the driver does not tell is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The interface's name.
    pub name: String,
    /// The interface's index in its network namespace.
    pub index: u32,
    /// Whether it is up (`IFF_UP`).
    pub up: bool,
    /// Whether it has a carrier.
    pub carrier: bool,
    /// The kind of link (`ARPHRD_*` of include/uapi/linux/if_arp.h).
    pub link_type: u16,
    /// The kind of a virtual link: `veth`, `bond`, `vlan` and such; `None` for a device.
    pub kind: Option<String>,
    /// Whether a device is below it.
    pub is_device: bool,
    /// Without the Ethernet header, in octets.
    pub mtu: u32,
    /// The largest MTU the driver takes.
    pub max_mtu: Option<u32>,
    /// The Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// The Ethernet address of the device, whatever was set.
    pub permanent_mac: Option<[u8; 6]>,
    /// The IP addresses.
    pub addresses: Vec<IpAddr>,
    /// The bond, bridge or other link that this one is a part of.
    pub master: Option<Relative>,
    /// The links that are parts of this one: the slaves of a bond, the ports of a bridge.
    pub members: Vec<String>,
    /// The VLANs on top of it.
    pub vlans: Vec<String>,
    /// The interface below a VLAN.
    pub lower: Option<String>,
    /// Receive queues in use.
    pub rx_queues: u32,
    /// Transmit queues in use.
    pub tx_queues: u32,
    /// The driver.
    pub driver: Option<DriverInfo>,
    /// The channels, as `ethtool -l` shows them.
    pub channels: Option<Channels>,
    /// The sizes of rings, as `ethtool -g` shows them.
    pub rings: Option<Rings>,
    /// The coalescing of interrupts, as `ethtool -c` shows it.
    pub coalesce: Option<Coalesce>,
    /// The receive queue of each remainder of the RSS hash (`ethtool -x`); empty without RSS.
    pub rss_table: Vec<u32>,
    /// The input of that hash.
    pub rss_hash: RssHash,
    /// The features that `ethtool -k` shows, by their names.
    pub features: BTreeMap<String, Feature>,
    /// The rules of `ethtool -n`; `None` where the driver has none.
    pub flow_rules: Option<FlowRules>,
    /// XDP, as family `netdev` tells of it; `None` before Linux 6.3.
    pub xdp: Option<Xdp>,
    /// The XDP programs that are attached.
    pub programs: Vec<AttachedProgram>,
    /// The NAPI instances (Linux 6.8), by their id.
    pub napi: Vec<Napi>,
    /// The NAPI instance of each receive queue, as far as the kernel tells (Linux 6.8).
    pub rx_napi: Vec<Option<u32>>,
    /// `napi_defer_hard_irqs` of the interface.
    pub defer_hard_irqs: Option<u32>,
    /// `gro_flush_timeout` of the interface, in nanoseconds.
    pub gro_flush_timeout: Option<u64>,
    /// The device's interrupts.
    pub irqs: Vec<Irq>,
}

impl Facts {
    /// Whether a feature of `ethtool -k` is on.
    pub fn is_on(&self, feature: &str) -> bool {
        self.features.get(feature).is_some_and(|feature| feature.active)
    }

    /// The receive queues of TCP segments from `source`; `None` if that cannot be computed.
    pub fn queues_from(&self, source: SocketAddr) -> Option<PeerQueues> {
        PeerQueues::new(&self.rss_hash, &self.rss_table, source)
    }

    /// The driver's name.
    pub fn driver_name(&self) -> Option<&str> {
        self.driver.as_ref().map(|driver| driver.name.as_str())
    }
}

/// Another interface, by name and kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relative {
    /// Its name.
    pub name: String,
    /// `bond`, `bridge` and such.
    pub kind: String,
}

/// The driver, as `ethtool -i` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverInfo {
    /// The driver's name.
    pub name: String,
    /// The driver's version; for most the kernel's.
    pub version: String,
    /// The version of the device's firmware.
    pub firmware: String,
    /// Where the device is.
    pub bus: String,
}

/// Numbers of channels, each with its maximum. A combined channel receives and sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channels {
    /// Channels that only receive.
    pub rx: u32,
    /// Channels that only send.
    pub tx: u32,
    /// Channels that receive and send.
    pub combined: u32,
    /// The maximum of `rx`.
    pub rx_max: u32,
    /// The maximum of `tx`.
    pub tx_max: u32,
    /// The maximum of `combined`.
    pub combined_max: u32,
}

/// Descriptors of the device's rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rings {
    /// Of a receive ring.
    pub rx: u32,
    /// Of a transmit ring.
    pub tx: u32,
    /// The maximum of `rx`.
    pub rx_max: u32,
    /// The maximum of `tx`.
    pub tx_max: u32,
    /// Whether headers go to buffers of their own (`tcp-data-split`).
    pub header_split: bool,
}

/// The conditions in which the device raises an interrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coalesce {
    /// Microseconds after a frame was received.
    pub rx_usecs: Option<u32>,
    /// Microseconds after a frame was sent.
    pub tx_usecs: Option<u32>,
    /// Whether the driver chooses `rx_usecs` by the load.
    pub adaptive_rx: Option<bool>,
    /// Whether the driver chooses `tx_usecs` by the load.
    pub adaptive_tx: Option<bool>,
}

/// An offload or another feature of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// Whether it is on.
    pub active: bool,
    /// Whether the device lets it be changed.
    pub changeable: bool,
}

/// The rules by which the device chooses a receive queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRules {
    /// The places of the rules there are.
    pub locations: Vec<u32>,
    /// The number of rules there can be; zero where the driver does not tell.
    pub capacity: u32,
    /// Whether the driver finds a place by itself.
    pub any_location: bool,
}

/// XDP, as family `netdev` tells of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Xdp {
    /// `xdp-features`, as bits.
    pub features: u64,
    /// Buffers of one frame in zero-copy mode.
    pub zc_max_segs: u32,
    /// `xdp-rx-metadata-features`, as bits.
    pub rx_metadata: u64,
    /// `xsk-features`, as bits.
    pub xsk_features: u64,
}

impl Xdp {
    const BASIC: u64 = 1 << 0;
    const REDIRECT: u64 = 1 << 1;
    const ZERO_COPY: u64 = 1 << 3;
    const RX_SG: u64 = 1 << 5;
    const TX_CHECKSUM: u64 = 1 << 1;

    /// Whether the driver runs programs that redirect to AF_XDP sockets.
    pub fn native(&self) -> bool {
        self.features & (Self::BASIC | Self::REDIRECT) == Self::BASIC | Self::REDIRECT
    }

    /// Whether the driver has AF_XDP's zero-copy mode.
    pub fn zero_copy(&self) -> bool {
        self.features & Self::ZERO_COPY != 0
    }

    /// Whether the driver takes programs for frames of several buffers (`xdp.frags`).
    pub fn frags(&self) -> bool {
        self.features & Self::RX_SG != 0
    }

    /// Whether the device fills in checksums for AF_XDP sockets.
    pub fn tx_checksum(&self) -> bool {
        self.xsk_features & Self::TX_CHECKSUM != 0
    }
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProgramMode {
    /// In the driver.
    Native,
    /// In the kernel's stack.
    Generic,
    /// In the device.
    Offloaded,
}

/// An XDP program on the interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedProgram {
    /// Where it runs.
    pub mode: ProgramMode,
    /// Its number, as `bpftool prog` shows it.
    pub id: u32,
}

/// One NAPI instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Napi {
    /// Its number.
    pub id: u32,
    /// Its interrupt.
    pub irq: Option<u32>,
    /// Consecutive empty polls before interrupts are enabled again.
    pub defer_hard_irqs: Option<u32>,
    /// Nanoseconds until it is polled again meanwhile.
    pub gro_flush_timeout: Option<u32>,
}

/// One interrupt of the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Irq {
    /// Its number.
    pub number: u32,
    /// The CPUs that may handle it, as a list: `0-3,8`.
    pub cpus: String,
}
