//! The drivers that are known, a row each: what they do otherwise than AF_XDP's documentation says, and what the kernel
//! does not tell of them.
//!
//! The kernel is asked first: a row only explains, or says what the kernel says yes to and does wrong. Versions are
//! those of the kernel with the driver in its tree.

use core::fmt;

/// A version of the kernel, without what follows its second number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// Reads a release as `uname -r` shows it.
    pub fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        Some(Self(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The number of queues that a driver needs free for XDP's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueRule {
    /// Channels and CPUs together must fit the maximum, or queues for sending are shared, under a lock.
    ChannelsAndCpus,
    /// Twice the channels must fit the maximum, or the program is refused.
    TwiceTheChannels,
}

/// The facts that are known of one driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Driver {
    /// Its name, as `ethtool -i` shows it.
    pub name: &'static str,
    /// The first kernel with XDP in the driver; `None` if there is none.
    pub native_since: Option<Version>,
    /// The first kernel with AF_XDP's zero-copy mode; `None` if there is none.
    pub zero_copy_since: Option<Version>,
    /// The largest MTU with which it takes a program that does not know frames of several buffers, in octets; `None`
    /// where it is not below that of other drivers.
    pub max_mtu: Option<u32>,
    /// In zero-copy mode the device splits a frame that is longer than its buffer, and the buffer is what is left of
    /// the frame of the UMEM rounded down to a multiple of so many octets.
    pub buffer_unit: u32,
    /// In zero-copy mode the driver refuses other frames than those of 4,096 octets.
    pub only_frames_of_4096: bool,
    /// In zero-copy mode the driver drops what an XDP program sends back (`XDP_TX`).
    pub drops_xdp_tx: bool,
    /// The queues XDP takes beside the channels.
    pub queue_rule: Option<QueueRule>,
    /// A change of the channels takes the RSS table back to its default.
    pub channels_reset_rss: bool,
    /// Switching `rx-ntuple-filter` on takes the RSS table back to its default.
    pub ntuple_resets_rss: bool,
    /// Receive and transmit channels are counted apart.
    pub separate_channels: bool,
    /// Features of `ethtool -k` with which the driver refuses the program.
    pub refuses_with: &'static [&'static str],
    /// It refuses the program while headers go to buffers of their own.
    pub refuses_header_split: bool,
    /// Another fact, as a sentence without its first capital and its full stop.
    pub note: Option<&'static str>,
    /// Where this is from: the file of the kernel's tree, or who has seen it.
    pub source: &'static str,
}

/// A driver of which nothing is known.
const NONE: Driver = Driver {
    name: "",
    native_since: None,
    zero_copy_since: None,
    max_mtu: None,
    buffer_unit: 1,
    only_frames_of_4096: false,
    drops_xdp_tx: false,
    queue_rule: None,
    channels_reset_rss: false,
    ntuple_resets_rss: false,
    separate_channels: false,
    refuses_with: &[],
    refuses_header_split: false,
    note: None,
    source: "",
};

const LRO: &str = "rx-lro";
const GRO_HW: &str = "rx-gro-hw";

/// Every driver that is known.
pub const DRIVERS: &[Driver] = &[
    Driver {
        name: "mlx5_core",
        native_since: Some(Version(4, 9)),
        zero_copy_since: Some(Version(5, 3)),
        max_mtu: Some(3498),
        note: Some("before Linux 6.2 its zero-copy queues are numbered above those of `ethtool -l`"),
        source: "drivers/net/ethernet/mellanox/mlx5/core/en/xdp.c: mlx5e_xdp_max_mtu",
        ..NONE
    },
    Driver {
        name: "ice",
        native_since: Some(Version(5, 5)),
        zero_copy_since: Some(Version(5, 5)),
        max_mtu: Some(3046),
        note: Some("it refuses to change its channels (EBUSY) while irdma is loaded"),
        source: "drivers/net/ethernet/intel/ice/ice_main.c: ice_max_xdp_frame_size",
        ..NONE
    },
    Driver {
        name: "i40e",
        native_since: Some(Version(4, 13)),
        zero_copy_since: Some(Version(4, 20)),
        max_mtu: Some(3046),
        source: "drivers/net/ethernet/intel/i40e/i40e_main.c: i40e_xdp_setup, i40e_max_vsi_frame_size",
        ..NONE
    },
    // Of the devices of this driver, the 82599 splits frames; the others limit the length by RLPML instead.
    Driver {
        name: "ixgbe",
        native_since: Some(Version(4, 12)),
        zero_copy_since: Some(Version(4, 20)),
        max_mtu: Some(3050),
        buffer_unit: 1024,
        queue_rule: Some(QueueRule::ChannelsAndCpus),
        ntuple_resets_rss: true,
        source: "drivers/net/ethernet/intel/ixgbe/ixgbe_main.c: ixgbe_xdp_setup, ixgbe_configure_srrctl",
        ..NONE
    },
    // SRRCTL.BSIZEPKT is in units of 1 KiB. Seen on Linux 7.3.4: segments above 1,024 octets arrive in two pieces, the
    // second of which is no frame.
    Driver {
        name: "igb",
        native_since: Some(Version(5, 10)),
        zero_copy_since: Some(Version(6, 14)),
        max_mtu: Some(3046),
        buffer_unit: 1024,
        channels_reset_rss: true,
        source: "drivers/net/ethernet/intel/igb/igb_main.c: igb_xdp_setup, igb_setup_srrctl, igb_init_rss",
        ..NONE
    },
    Driver {
        name: "igc",
        native_since: Some(Version(5, 13)),
        zero_copy_since: Some(Version(5, 14)),
        max_mtu: Some(1500),
        buffer_unit: 1024,
        source: "drivers/net/ethernet/intel/igc/igc_xdp.c: igc_xdp_set_prog; igc_main.c: igc_configure_rx_ring",
        ..NONE
    },
    // The vendor's own driver of the same name has zero-copy, in frames of 4,096 octets, from 2.13 on.
    Driver {
        name: "ena",
        native_since: Some(Version(5, 6)),
        max_mtu: Some(3498),
        only_frames_of_4096: true,
        queue_rule: Some(QueueRule::TwiceTheChannels),
        note: Some("its default MTU of 9001 is too large for XDP, and only the vendor's driver has zero-copy"),
        source: "drivers/net/ethernet/amazon/ena/ena_xdp.h: ENA_XDP_MAX_MTU, ena_xdp_legal_queue_count",
        ..NONE
    },
    Driver {
        name: "gve",
        native_since: Some(Version(6, 4)),
        zero_copy_since: Some(Version(6, 4)),
        max_mtu: Some(2032),
        queue_rule: Some(QueueRule::TwiceTheChannels),
        separate_channels: true,
        refuses_with: &[LRO],
        refuses_header_split: true,
        note: Some("it has XDP in queue format GQI, and later in DQO"),
        source: "drivers/net/ethernet/google/gve/gve_main.c: verify_xdp_configuration",
        ..NONE
    },
    // Frames of XDP_TX are sent as if they were in memory of the driver's own. Seen on Linux 7.3.4: all of them count
    // as tx_xdp_tx_drops.
    Driver {
        name: "virtio_net",
        native_since: Some(Version(4, 10)),
        zero_copy_since: Some(Version(6, 13)),
        drops_xdp_tx: true,
        queue_rule: Some(QueueRule::ChannelsAndCpus),
        note: Some("its zero-copy needs one DMA device for receiving and sending (iommu_platform=on in QEMU)"),
        source: "drivers/net/virtio_net.c: virtnet_xdp_set, virtnet_xsk_pool_enable",
        ..NONE
    },
    Driver {
        name: "idpf",
        native_since: Some(Version(6, 18)),
        zero_copy_since: Some(Version(6, 18)),
        source: "drivers/net/ethernet/intel/idpf/xdp.c",
        ..NONE
    },
    Driver {
        name: "bnxt_en",
        native_since: Some(Version(4, 11)),
        refuses_with: &[LRO, GRO_HW],
        source: "drivers/net/ethernet/broadcom/bnxt/bnxt_xdp.c: bnxt_xdp_set",
        ..NONE
    },
    Driver {
        name: "mana",
        native_since: Some(Version(5, 17)),
        source: "drivers/net/ethernet/microsoft/mana/mana_bpf.c",
        ..NONE
    },
    // Seen on Linux 7.3.4: after down and up the program is attached and not run, until it is attached anew.
    Driver {
        name: "vmxnet3",
        native_since: Some(Version(6, 6)),
        refuses_with: &[LRO],
        note: Some("after the interface was down and up again it runs no XDP program until tidegate is started again"),
        source: "drivers/net/vmxnet3/vmxnet3_xdp.c: vmxnet3_xdp_set",
        ..NONE
    },
    Driver {
        name: "fbnic",
        native_since: Some(Version(6, 18)),
        source: "drivers/net/ethernet/meta/fbnic/fbnic_netdev.c: fbnic_bpf",
        ..NONE
    },
    Driver {
        name: "ionic",
        native_since: Some(Version(6, 9)),
        source: "drivers/net/ethernet/pensando/ionic/ionic_lif.c: ionic_xdp_config",
        ..NONE
    },
    Driver {
        name: "hv_netvsc",
        native_since: Some(Version(5, 6)),
        refuses_with: &[LRO],
        note: Some("it attaches the program to the virtual function below it as well"),
        source: "drivers/net/hyperv/netvsc_bpf.c: netvsc_xdp_set",
        ..NONE
    },
    Driver {
        name: "veth",
        native_since: Some(Version(4, 19)),
        note: Some("the other end must not have more transmit queues than this one has receive queues"),
        source: "drivers/net/veth.c: veth_xdp_set",
        ..NONE
    },
    Driver {
        name: "tun",
        native_since: Some(Version(4, 14)),
        source: "drivers/net/tun.c: tun_xdp_set",
        ..NONE
    },
    Driver {
        name: "bonding",
        native_since: Some(Version(5, 15)),
        note: Some("it has one queue for AF_XDP: serve its slaves, each a device of its own"),
        source: "drivers/net/bonding/bond_main.c: bond_xdp_set",
        ..NONE
    },
    Driver {
        name: "tg3",
        separate_channels: true,
        source: "drivers/net/ethernet/broadcom/tg3.c: tg3_get_channels",
        ..NONE
    },
    Driver {
        name: "r8169",
        source: "drivers/net/ethernet/realtek/r8169_main.c: no ndo_bpf",
        ..NONE
    },
    Driver {
        name: "e1000e",
        source: "drivers/net/ethernet/intel/e1000e/netdev.c: no ndo_bpf",
        ..NONE
    },
];

/// The row of a driver by its name; nothing in particular for one that is not known, or `None`.
pub fn driver(name: Option<&str>) -> &'static Driver {
    name.and_then(|name| DRIVERS.iter().find(|driver| driver.name == name))
        .unwrap_or(&NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        assert_eq!(Version::parse("6.18.44-fc-v595"), Some(Version(6, 18)));
        assert_eq!(Version::parse("6.1.0-57-amd64"), Some(Version(6, 1)));
        assert_eq!(Version::parse("7.3.4+deb13-amd64"), Some(Version(7, 3)));
        assert_eq!(Version::parse("linux"), None);
        assert!(Version(6, 10) > Version(6, 9) && Version(7, 0) > Version(6, 19));
    }

    #[test]
    fn every_row_has_a_name_of_its_own_and_a_source() {
        for (index, row) in DRIVERS.iter().enumerate() {
            assert!(row.source.starts_with("drivers/net/"), "{}", row.name);
            assert!(
                !DRIVERS[..index].iter().any(|other| other.name == row.name),
                "{}",
                row.name
            );
            assert!(
                row.native_since.is_some() || row.zero_copy_since.is_none(),
                "{}",
                row.name
            );
            assert_eq!(driver(Some(row.name)), row);
        }
        assert_eq!(driver(Some("nosuch")), &NONE);
        assert_eq!(driver(None), &NONE);
    }
}
