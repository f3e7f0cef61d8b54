//! Reads the facts about an interface.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use netlink_bindings::{ethtool, netdev, rt_addr, rt_link};

use crate::facts::{AttachedProgram, Channels, Coalesce, Facts, Feature, Irq, Napi, ProgramMode, Relative, Rings, Xdp};
use crate::kernel::Kernel;
use crate::rss::RssHash;

/// `IFF_UP`.
const IFF_UP: u32 = 1;

/// Bit sets as bits alone, without names (`ETHTOOL_FLAG_COMPACT_BITSETS`).
const COMPACT_BITSETS: u32 = 1;

/// The set of strings that names features (`ETH_SS_FEATURES`).
const FEATURE_NAMES: u32 = 4;

/// Headers go to buffers of their own (`ETHTOOL_TCP_DATA_SPLIT_ENABLED`).
const DATA_SPLIT: u8 = 2;

const SYSFS: &str = "/sys/class/net";

/// Numbers of ethtool's requests (include/uapi/linux/ethtool_netlink.h). netlink-bindings 0.3.5 counts the
/// notifications between them as well, of which the kernel knows nothing.
pub(crate) mod command {
    pub(crate) const FEATURES_GET: u8 = 11;
    pub(crate) const FEATURES_SET: u8 = 12;
    pub(crate) const RINGS_GET: u8 = 15;
    pub(crate) const RINGS_SET: u8 = 16;
    pub(crate) const CHANNELS_GET: u8 = 17;
    pub(crate) const CHANNELS_SET: u8 = 18;
    pub(crate) const COALESCE_GET: u8 = 19;
    pub(crate) const COALESCE_SET: u8 = 20;
    pub(crate) const RSS_GET: u8 = 38;
}

/// One link of the network namespace.
#[derive(Clone, Debug, Default)]
struct Link {
    index: u32,
    name: String,
    kind: Option<String>,
    /// The index of the link it is a part of.
    master: Option<u32>,
    /// The index of the link below it; another namespace's has a number of its own.
    lower: Option<u32>,
}

impl Facts {
    /// Reads everything about the interface `name` of the calling thread's network namespace. Sysfs is left out where
    /// it shows another one.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there is no such interface, or the kernel's error when it does not tell of links. Whatever else it
    /// does not tell is missing from the facts.
    pub fn read<K: Kernel>(kernel: &mut K, name: &str) -> io::Result<Self> {
        let mut facts = Self::default();
        let mut links = Vec::new();
        kernel.request(
            &rt_link::Request::new().op_getlink_dump(&rt_link::Ifinfomsg::default()),
            |(header, attributes)| {
                let link = link(&header, &attributes);
                if link.name == name {
                    facts.take_link(&header, &attributes);
                }
                links.push(link);
            },
        )?;
        if facts.name.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        facts.take_relatives(&links);
        facts.read_addresses(kernel);
        facts.driver = kernel.driver(name).ok().filter(|driver| !driver.name.is_empty());
        facts.flow_rules = kernel.flow_rules(name).ok();
        facts.read_channels(kernel);
        facts.read_rings(kernel);
        facts.read_coalesce(kernel);
        facts.read_rss(kernel);
        facts.read_features(kernel);
        facts.read_netdev(kernel);
        facts.read_sysfs(kernel);
        Ok(facts)
    }

    /// The names of all interfaces of the calling thread's network namespace, in the kernel's order.
    ///
    /// # Errors
    ///
    /// The kernel's error when it does not tell of links.
    pub fn interfaces<K: Kernel>(kernel: &mut K) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        kernel.request(
            &rt_link::Request::new().op_getlink_dump(&rt_link::Ifinfomsg::default()),
            |(header, attributes)| names.push(link(&header, &attributes).name),
        )?;
        Ok(names)
    }

    fn take_link(&mut self, header: &rt_link::Ifinfomsg, attributes: &rt_link::IterableLinkAttrs<'_>) {
        let link = link(header, attributes);
        (self.name, self.index, self.kind) = (link.name, link.index, link.kind);
        self.up = header.ifi_flags & IFF_UP != 0;
        self.link_type = header.ifi_type;
        self.carrier = self.up && attributes.get_carrier().is_ok_and(|carrier| carrier != 0);
        self.mtu = attributes.get_mtu().unwrap_or_default();
        self.max_mtu = attributes.get_max_mtu().ok().filter(|mtu| *mtu != 0);
        self.mac = attributes.get_address().ok().and_then(|mac| mac.try_into().ok());
        self.permanent_mac = attributes.get_perm_address().ok().and_then(|mac| mac.try_into().ok());
        self.rx_queues = attributes.get_num_rx_queues().unwrap_or(1);
        self.tx_queues = attributes.get_num_tx_queues().unwrap_or(1);
        if let Ok(xdp) = attributes.get_xdp() {
            let one = xdp.get_prog_id().ok();
            for (mode, number, id) in [
                (ProgramMode::Native, 1, xdp.get_drv_prog_id().ok()),
                (ProgramMode::Generic, 2, xdp.get_skb_prog_id().ok()),
                (ProgramMode::Offloaded, 3, xdp.get_hw_prog_id().ok()),
            ] {
                // With one program the kernel may say what it is by the mode alone.
                let id = id.or(one.filter(|_| xdp.get_attached().ok() == Some(number)));
                self.programs.extend(id.map(|id| AttachedProgram { mode, id }));
            }
        }
    }

    fn take_relatives(&mut self, links: &[Link]) {
        let by_index = |index: u32| links.iter().find(|link| link.index == index);
        let own = by_index(self.index).cloned().unwrap_or_default();
        self.master = own.master.and_then(by_index).map(|master| Relative {
            name: master.name.clone(),
            kind: master.kind.clone().unwrap_or_default(),
        });
        if self.kind.as_deref() == Some("vlan") {
            self.lower = own.lower.and_then(by_index).map(|lower| lower.name.clone());
        }
        for link in links {
            if link.master == Some(self.index) {
                self.members.push(link.name.clone());
            }
            if link.kind.as_deref() == Some("vlan") && link.lower == Some(self.index) {
                self.vlans.push(link.name.clone());
            }
        }
    }

    fn read_addresses<K: Kernel>(&mut self, kernel: &mut K) {
        let request = rt_addr::Request::new().op_getaddr_dump(&rt_addr::Ifaddrmsg::default());
        let _ = kernel.request(&request, |(header, attributes)| {
            if header.ifa_index == self.index {
                // On a point-to-point link the address is the peer's.
                let address = attributes.get_local().or_else(|_| attributes.get_address());
                self.addresses.extend(address);
            }
        });
    }

    fn read_channels<K: Kernel>(&mut self, kernel: &mut K) {
        let mut request = ethtool::Request::new().op_channels_get_do();
        request.header_mut().cmd = command::CHANNELS_GET;
        request.encode().nested_header().push_dev_index(self.index);
        let _ = kernel.request(&request, |reply| {
            self.channels = Some(Channels {
                rx: reply.get_rx_count().unwrap_or_default(),
                tx: reply.get_tx_count().unwrap_or_default(),
                combined: reply.get_combined_count().unwrap_or_default(),
                rx_max: reply.get_rx_max().unwrap_or_default(),
                tx_max: reply.get_tx_max().unwrap_or_default(),
                combined_max: reply.get_combined_max().unwrap_or_default(),
            });
        });
        // A link has room for as many queues as there can ever be.
        if let Some(channels) = self.channels {
            self.rx_queues = channels.rx + channels.combined;
            self.tx_queues = channels.tx + channels.combined;
        }
    }

    fn read_rings<K: Kernel>(&mut self, kernel: &mut K) {
        let mut request = ethtool::Request::new().op_rings_get_do();
        request.header_mut().cmd = command::RINGS_GET;
        request.encode().nested_header().push_dev_index(self.index);
        let _ = kernel.request(&request, |reply| {
            self.rings = Some(Rings {
                rx: reply.get_rx().unwrap_or_default(),
                tx: reply.get_tx().unwrap_or_default(),
                rx_max: reply.get_rx_max().unwrap_or_default(),
                tx_max: reply.get_tx_max().unwrap_or_default(),
                header_split: reply.get_tcp_data_split().is_ok_and(|split| split == DATA_SPLIT),
            });
        });
    }

    fn read_coalesce<K: Kernel>(&mut self, kernel: &mut K) {
        let mut request = ethtool::Request::new().op_coalesce_get_do();
        request.header_mut().cmd = command::COALESCE_GET;
        request.encode().nested_header().push_dev_index(self.index);
        let _ = kernel.request(&request, |reply| {
            self.coalesce = Some(Coalesce {
                rx_usecs: reply.get_rx_usecs().ok(),
                tx_usecs: reply.get_tx_usecs().ok(),
                adaptive_rx: reply.get_use_adaptive_rx().ok().map(|adaptive| adaptive != 0),
                adaptive_tx: reply.get_use_adaptive_tx().ok().map(|adaptive| adaptive != 0),
            });
        });
    }

    fn read_rss<K: Kernel>(&mut self, kernel: &mut K) {
        let mut request = ethtool::Request::new().op_rss_get_do();
        request.header_mut().cmd = command::RSS_GET;
        request.encode().nested_header().push_dev_index(self.index);
        let _ = kernel.request(&request, |reply| {
            let table = reply.get_indir().unwrap_or_default();
            self.rss_table = table
                .as_chunks()
                .0
                .iter()
                .map(|entry| u32::from_ne_bytes(*entry))
                .collect();
            let fields = reply.get_flow_hash().ok();
            self.rss_hash = RssHash {
                function: reply.get_hfunc().unwrap_or_default(),
                key: reply.get_hkey().unwrap_or_default().into(),
                transform: reply.get_input_xfrm().unwrap_or_default(),
                tcp_fields: [
                    fields.as_ref().and_then(|fields| fields.get_tcp4().ok()),
                    fields.as_ref().and_then(|fields| fields.get_tcp6().ok()),
                ],
            };
        });
    }

    fn read_features<K: Kernel>(&mut self, kernel: &mut K) {
        let mut names = BTreeMap::new();
        let mut request = ethtool::Request::new().op_strset_get_do();
        {
            let encoder = request.encode().nested_header().push_dev_index(self.index).end_nested();
            encoder.nested_stringsets().nested_stringset().push_id(FEATURE_NAMES);
        }
        let _ = kernel.request(&request, |reply| {
            let Ok(sets) = reply.get_stringsets() else { return };
            // Attributes of other kinds come before the strings, and end the iterators that the bindings have for
            // these.
            let strings = sets.get_stringset().flat_map(|set| {
                set.filter_map(|attribute| match attribute {
                    Ok(ethtool::Stringset::Strings(strings)) => Some(strings),
                    _ => None,
                })
            });
            for string in strings.flat_map(|strings| strings.get_string()) {
                if let (Ok(index), Ok(name)) = (string.get_index(), string.get_value()) {
                    names.insert(index as usize, name.to_string_lossy().into_owned());
                }
            }
        });
        let mut request = ethtool::Request::new().op_features_get_do();
        request.header_mut().cmd = command::FEATURES_GET;
        request
            .encode()
            .nested_header()
            .push_dev_index(self.index)
            .push_flags(COMPACT_BITSETS);
        let _ = kernel.request(&request, |reply| {
            let bits = |set: Result<ethtool::IterableBitset<'_>, _>| {
                set.ok()
                    .and_then(|set| set.get_value().ok().map(<[u8]>::to_vec))
                    .unwrap_or_default()
            };
            let (changeable, active, fixed) = (
                bits(reply.get_hw()),
                bits(reply.get_active()),
                bits(reply.get_nochange()),
            );
            for (index, name) in &names {
                if name.is_empty() {
                    continue;
                }
                let feature = Feature {
                    active: bit(&active, *index),
                    changeable: bit(&changeable, *index) && !bit(&fixed, *index),
                };
                self.features.insert(name.clone(), feature);
            }
        });
    }

    fn read_netdev<K: Kernel>(&mut self, kernel: &mut K) {
        let mut request = netdev::Request::new().op_dev_get_do();
        request.encode().push_ifindex(self.index);
        let _ = kernel.request(&request, |reply| {
            self.xdp = Some(Xdp {
                features: reply.get_xdp_features().unwrap_or_default(),
                zc_max_segs: reply.get_xdp_zc_max_segs().unwrap_or_default(),
                rx_metadata: reply.get_xdp_rx_metadata_features().unwrap_or_default(),
                xsk_features: reply.get_xsk_features().unwrap_or_default(),
            });
        });
        let mut request = netdev::Request::new().op_napi_get_dump();
        request.encode().push_ifindex(self.index);
        let _ = kernel.request(&request, |reply| {
            self.napi.push(Napi {
                id: reply.get_id().unwrap_or_default(),
                irq: reply.get_irq().ok(),
                defer_hard_irqs: reply.get_defer_hard_irqs().ok(),
                gro_flush_timeout: reply.get_gro_flush_timeout().ok(),
            });
        });
        self.napi.sort_by_key(|napi| napi.id);
        let mut request = netdev::Request::new().op_queue_get_dump();
        request.encode().push_ifindex(self.index);
        let mut rx_napi = BTreeMap::new();
        let _ = kernel.request(&request, |reply| {
            if reply.get_type().is_ok_and(|kind| kind == netdev::QueueType::Rx as u32) {
                rx_napi.insert(reply.get_id().unwrap_or_default(), reply.get_napi_id().ok());
            }
        });
        self.rx_napi = rx_napi.into_values().collect();
    }

    fn read_sysfs<K: Kernel>(&mut self, kernel: &mut K) {
        let directory = Path::new(SYSFS).join(&self.name);
        if number(kernel, &directory.join("ifindex")) != Some(u64::from(self.index)) {
            // Another namespace's.
            return;
        }
        let queues = kernel.list(&directory.join("queues"));
        let count = |prefix| queues.iter().filter(|queue| queue.starts_with(prefix)).count() as u32;
        if !queues.is_empty() {
            (self.rx_queues, self.tx_queues) = (count("rx-"), count("tx-"));
        }
        self.is_device = !kernel.list(&directory.join("device")).is_empty();
        self.defer_hard_irqs =
            number(kernel, &directory.join("napi_defer_hard_irqs")).and_then(|count| count.try_into().ok());
        self.gro_flush_timeout = number(kernel, &directory.join("gro_flush_timeout"));
        // The interrupts of a virtio device are those of the PCI device above it.
        let irqs = ["device/msi_irqs", "device/../msi_irqs"].map(|path| kernel.list(&directory.join(path)));
        let numbers = irqs.into_iter().find(|irqs| !irqs.is_empty()).unwrap_or_default();
        let mut numbers: Vec<u32> = numbers.iter().filter_map(|number| number.parse().ok()).collect();
        numbers.sort_unstable();
        for number in numbers {
            if let Ok(cpus) = kernel.read(&irq_cpus(number)) {
                let cpus = cpus.trim().to_owned();
                self.irqs.push(Irq { number, cpus });
            }
        }
    }
}

/// The file with the CPUs that may handle an interrupt.
pub(crate) fn irq_cpus(irq: u32) -> PathBuf {
    PathBuf::from(format!("/proc/irq/{irq}/smp_affinity_list"))
}

fn link(header: &rt_link::Ifinfomsg, attributes: &rt_link::IterableLinkAttrs<'_>) -> Link {
    let kind = attributes.get_linkinfo().ok().and_then(|info| {
        let kind = info.get_kind().ok()?;
        Some(kind.to_string_lossy().into_owned())
    });
    Link {
        index: header.ifi_index as u32,
        name: attributes
            .get_ifname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        kind,
        master: attributes.get_master().ok(),
        lower: attributes
            .get_link()
            .ok()
            .filter(|_| attributes.get_link_netnsid().is_err()),
    }
}

/// The number in a file.
fn number<K: Kernel>(kernel: &mut K, file: &Path) -> Option<u64> {
    kernel.read(file).ok()?.trim().parse().ok()
}

/// A bit of a set, which the kernel sends as words in its own order of octets.
fn bit(set: &[u8], index: usize) -> bool {
    let words = set.as_chunks().0;
    words
        .get(index / 32)
        .is_some_and(|word| u32::from_ne_bytes(*word) & 1 << (index % 32) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Device, Other};
    use crate::kernel::Linux;

    #[test]
    fn answers_of_the_kernel_become_facts() {
        let mut device = Device::of("igb");
        device.features[1].1 = true;
        device.program = Some(42);
        device.others = vec![
            Other::Vlan("nic0.5"),
            Other::Master("bond0", "bond"),
            Other::Member("port0"),
        ];
        let facts = device.facts();
        assert_eq!((facts.index, facts.mtu, facts.up, facts.carrier), (7, 1500, true, true));
        assert_eq!(facts.driver_name(), Some("igb"));
        assert_eq!((facts.channels, facts.rings), (device.channels, device.rings));
        assert_eq!((facts.rx_queues, facts.tx_queues), (4, 4));
        assert_eq!(facts.rss_table, device.rss_table);
        assert!(facts.is_on("rx-gro-hw") && !facts.is_on("rx-lro") && !facts.is_on("rx-gro"));
        assert!(facts.features["rx-lro"].changeable);
        let xdp = facts.xdp.expect("a kernel that tells");
        assert!(xdp.native() && xdp.zero_copy() && !xdp.frags() && !xdp.tx_checksum());
        assert_eq!(
            facts.programs,
            [AttachedProgram {
                mode: ProgramMode::Native,
                id: 42
            }]
        );
        assert_eq!(
            facts.master,
            Some(Relative {
                name: "bond0".to_owned(),
                kind: "bond".to_owned()
            })
        );
        assert_eq!(
            (facts.vlans.as_slice(), facts.members.as_slice()),
            (&["nic0.5".to_owned()][..], &["port0".to_owned()][..])
        );
        assert!(facts.is_device && facts.flow_rules.is_none() && facts.coalesce.is_none());
    }

    #[test]
    fn sysfs_of_another_namespace_is_left_out() {
        let mut kernel = Device::of("igb").kernel();
        kernel.file("/sys/class/net/nic0/napi_defer_hard_irqs", "2\n");
        kernel.file("/sys/class/net/nic0/device/msi_irqs/41", "msix\n");
        kernel.file("/proc/irq/41/smp_affinity_list", "0-3\n");
        let facts = Facts::read(&mut kernel, "nic0").expect("an interface");
        assert_eq!(facts.defer_hard_irqs, Some(2));
        assert_eq!(
            facts.irqs,
            [Irq {
                number: 41,
                cpus: "0-3".to_owned()
            }]
        );
        kernel.file("/sys/class/net/nic0/ifindex", "8\n");
        let facts = Facts::read(&mut kernel, "nic0").expect("an interface");
        assert_eq!(
            (facts.defer_hard_irqs, facts.irqs.len(), facts.is_device),
            (None, 0, false)
        );
    }

    #[test]
    fn the_loopback_interface_is_read_from_the_running_kernel() {
        let mut kernel = Linux::new().expect("sockets");
        assert!(
            Facts::interfaces(&mut kernel)
                .expect("links")
                .contains(&"lo".to_owned())
        );
        let facts = Facts::read(&mut kernel, "lo").expect("a loopback interface");
        assert_eq!((facts.name.as_str(), facts.link_type), ("lo", libc::ARPHRD_LOOPBACK));
        assert!(!facts.is_device && facts.kind.is_none() && facts.rss_table.is_empty());
        assert!(facts.features.contains_key("rx-gro"), "{:?}", facts.features);
        let error = Facts::read(&mut kernel, "no-such-link0").expect_err("no such interface");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
