//! A kernel made of recorded answers.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use netlink_bindings::traits::{NetlinkRequest, Protocol};
use netlink_bindings::{ethtool, netdev, rt_link};

use crate::ethtool_ioctl::FlowRule;
use crate::facts::{Channels, DriverInfo, Facts, FlowRules, Rings};
use crate::kernel::Kernel;
use crate::rss::RssHash;

/// A family of netlink, and the number of a request in it.
pub(crate) type Question = (&'static str, u16);

/// Answers what it was told to, and `EOPNOTSUPP` to all else.
#[derive(Clone, Default)]
pub(crate) struct Fake {
    /// The messages that answer a request, as the kernel sends them.
    pub(crate) replies: BTreeMap<Question, Vec<Vec<u8>>>,
    pub(crate) files: BTreeMap<PathBuf, String>,
    pub(crate) driver: Option<DriverInfo>,
    pub(crate) flow_rules: Option<FlowRules>,
    pub(crate) rules: BTreeMap<u32, FlowRule>,
    /// The tables that were set, each with its transform.
    pub(crate) rss_tables: Vec<(u8, Vec<u32>)>,
}

/// A device as its driver describes it.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) driver: &'static str,
    pub(crate) mtu: u32,
    pub(crate) channels: Option<Channels>,
    pub(crate) rings: Option<Rings>,
    pub(crate) rss_table: Vec<u32>,
    /// The default for a driver that tells the table alone.
    pub(crate) rss_hash: RssHash,
    /// Names, and whether each is on.
    pub(crate) features: Vec<(&'static str, bool)>,
    /// `xdp-features`; `None` for a kernel that does not tell.
    pub(crate) xdp: Option<u64>,
    /// The number of an XDP program in the driver.
    pub(crate) program: Option<u32>,
    /// The kind of a virtual link.
    pub(crate) kind: Option<&'static str>,
    /// Other links of the namespace.
    pub(crate) others: Vec<Other>,
}

/// A link beside the device, which is number 7.
#[derive(Clone, Copy)]
pub(crate) enum Other {
    /// A VLAN on top of it.
    Vlan(&'static str),
    /// A bond or bridge that it is a part of.
    Master(&'static str, &'static str),
    /// A slave of it.
    Member(&'static str),
}

/// `xdp-features` of a driver with zero-copy.
pub(crate) const ZERO_COPY: u64 = 0b1111;

impl Device {
    /// A device with four combined channels of eight.
    pub(crate) fn of(driver: &'static str) -> Self {
        Self {
            driver,
            mtu: 1500,
            channels: Some(Channels {
                combined: 4,
                combined_max: 16,
                ..Channels::default()
            }),
            rings: Some(Rings {
                rx: 512,
                tx: 512,
                rx_max: 4096,
                tx_max: 4096,
                header_split: false,
            }),
            rss_table: (0..128).map(|entry| entry % 4).collect(),
            rss_hash: RssHash::default(),
            features: vec![("rx-lro", false), ("rx-gro-hw", false), ("rx-vlan-hw-parse", false)],
            xdp: Some(ZERO_COPY),
            program: None,
            kind: None,
            others: Vec::new(),
        }
    }

    pub(crate) fn facts(&self) -> Facts {
        Facts::read(&mut self.kernel(), "nic0").expect("the facts of a fake")
    }

    /// The kernel with this device as `nic0`.
    pub(crate) fn kernel(&self) -> Fake {
        let mut fake = Fake {
            driver: Some(DriverInfo {
                name: self.driver.to_owned(),
                ..DriverInfo::default()
            }),
            ..Fake::default()
        };
        fake.replies.insert(("route", 18), self.links());
        let mut reply = |question, encode: &dyn Fn(&mut Vec<u8>)| {
            let mut message = Vec::new();
            encode(&mut message);
            fake.replies.insert(question, vec![message]);
        };
        if let Some(channels) = self.channels {
            reply(("ethtool", 17), &|message| {
                ethtool::OpChannelsGetDo::encode_request(message)
                    .push_rx_max(channels.rx_max)
                    .push_tx_max(channels.tx_max)
                    .push_combined_max(channels.combined_max)
                    .push_rx_count(channels.rx)
                    .push_tx_count(channels.tx)
                    .push_combined_count(channels.combined);
            });
        }
        if let Some(rings) = self.rings {
            reply(("ethtool", 15), &|message| {
                ethtool::OpRingsGetDo::encode_request(message)
                    .push_rx_max(rings.rx_max)
                    .push_tx_max(rings.tx_max)
                    .push_rx(rings.rx)
                    .push_tx(rings.tx)
                    .push_tcp_data_split(1 + u8::from(rings.header_split));
            });
        }
        if !self.rss_table.is_empty() {
            let table: Vec<u8> = self.rss_table.iter().flat_map(|queue| queue.to_ne_bytes()).collect();
            reply(("ethtool", 38), &|message| {
                let mut reply = ethtool::OpRssGetDo::encode_request(message).push_indir(&table);
                let hash = &self.rss_hash;
                if *hash != RssHash::default() {
                    reply = reply
                        .push_hfunc(hash.function)
                        .push_hkey(&hash.key)
                        .push_input_xfrm(hash.transform);
                    let mut fields = reply.nested_flow_hash();
                    if let [Some(v4), Some(v6)] = hash.tcp_fields {
                        fields = fields.push_tcp4(v4).push_tcp6(v6);
                    }
                    fields.end_nested();
                }
            });
        }
        reply(("ethtool", 1), &|message| {
            let mut strings = ethtool::OpStrsetGetDo::encode_request(message)
                .nested_stringsets()
                .nested_stringset()
                .push_id(4)
                .nested_strings();
            for (index, (name, _)) in self.features.iter().enumerate() {
                let string = strings.nested_string().push_index(index as u32);
                strings = string.push_value_bytes(name.as_bytes()).end_nested();
            }
        });
        let on = self
            .features
            .iter()
            .enumerate()
            .map(|(index, (_, on))| u32::from(*on) << index)
            .sum::<u32>();
        reply(("ethtool", 11), &|message| {
            ethtool::OpFeaturesGetDo::encode_request(message)
                .nested_hw()
                .push_size(32)
                .push_value(&u32::MAX.to_ne_bytes())
                .end_nested()
                .nested_active()
                .push_size(32)
                .push_value(&on.to_ne_bytes());
        });
        if let Some(features) = self.xdp {
            reply(("netdev", 1), &|message| {
                netdev::OpDevGetDo::encode_request(message)
                    .push_ifindex(7)
                    .push_xdp_features(features)
                    .push_xdp_zc_max_segs(1)
                    .push_xsk_features(0);
            });
        }
        fake.file("/sys/class/net/nic0/ifindex", "7\n");
        if self.kind.is_none() {
            fake.file("/sys/class/net/nic0/device/vendor", "0x8086\n");
        }
        fake
    }

    /// The messages that answer RTM_GETLINK.
    fn links(&self) -> Vec<Vec<u8>> {
        let link = |index, name: &str, encode: &dyn Fn(rt_link::PushLinkAttrs<&mut Vec<u8>>)| {
            let mut header = rt_link::Ifinfomsg::new();
            (header.ifi_index, header.ifi_type, header.ifi_flags) = (index, 1, 0x1_0043);
            let mut message = Vec::new();
            encode(rt_link::OpGetlinkDump::encode_request(&mut message, &header).push_ifname_bytes(name.as_bytes()));
            message
        };
        let has_master = self.others.iter().any(|other| matches!(other, Other::Master(..)));
        let mut links = vec![link(7, "nic0", &|attributes| {
            let mut attributes = attributes
                .push_mtu(self.mtu)
                .push_carrier(1)
                .push_address(&[2, 0, 0, 0, 0, 1]);
            if has_master {
                attributes = attributes.push_master(20);
            }
            if let Some(kind) = self.kind {
                attributes = attributes
                    .nested_linkinfo()
                    .push_kind_bytes(kind.as_bytes())
                    .end_nested();
            }
            if let Some(id) = self.program {
                attributes
                    .nested_xdp()
                    .push_attached(1)
                    .push_prog_id(id)
                    .push_drv_prog_id(id);
            }
        })];
        for other in &self.others {
            links.push(match *other {
                Other::Vlan(name) => link(9, name, &|attributes| {
                    attributes.push_link(7).nested_linkinfo().push_kind_bytes(b"vlan");
                }),
                Other::Master(name, kind) => link(20, name, &|attributes| {
                    attributes.nested_linkinfo().push_kind_bytes(kind.as_bytes());
                }),
                Other::Member(name) => link(11, name, &|attributes| {
                    attributes.push_master(7);
                }),
            });
        }
        links
    }
}

impl Fake {
    pub(crate) fn file(&mut self, path: &str, text: &str) {
        self.files.insert(path.into(), text.to_owned());
    }
}

fn question<R: NetlinkRequest>(request: &R) -> Question {
    match request.protocol() {
        Protocol::Raw { request_type, .. } => ("route", request_type),
        Protocol::Generic(b"ethtool") => ("ethtool", request.payload()[0].into()),
        Protocol::Generic(b"netdev") => ("netdev", request.payload()[0].into()),
        Protocol::Generic(other) => panic!("family {} is asked for", String::from_utf8_lossy(other)),
    }
}

fn unsupported<T>() -> io::Result<T> {
    Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
}

impl Kernel for Fake {
    fn request<R: NetlinkRequest>(&mut self, request: &R, mut take: impl FnMut(R::ReplyType<'_>)) -> io::Result<()> {
        match self.replies.get(&question(request)) {
            Some(replies) => replies.iter().for_each(|reply| take(R::decode_reply(reply))),
            None => return unsupported(),
        }
        Ok(())
    }

    fn read(&mut self, path: &Path) -> io::Result<String> {
        self.files
            .get(path)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn write(&mut self, path: &Path, text: &str) -> io::Result<()> {
        self.files.insert(path.into(), text.to_owned());
        Ok(())
    }

    fn list(&mut self, path: &Path) -> Vec<String> {
        let below = self.files.keys().filter_map(|file| file.strip_prefix(path).ok());
        let mut names: Vec<String> = below
            .filter_map(|rest| Some(rest.iter().next()?.to_string_lossy().into_owned()))
            .collect();
        names.dedup();
        names
    }

    fn driver(&mut self, _: &str) -> io::Result<DriverInfo> {
        self.driver.clone().map_or_else(unsupported, Ok)
    }

    fn flow_rules(&mut self, _: &str) -> io::Result<FlowRules> {
        self.flow_rules.clone().map_or_else(unsupported, Ok)
    }

    fn flow_rule(&mut self, _: &str, location: u32) -> io::Result<Option<FlowRule>> {
        match self.rules.get(&location) {
            Some(rule) => Ok(Some(*rule)),
            None => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }

    fn insert_flow_rule(&mut self, _: &str, rule: &FlowRule, location: Option<u32>) -> io::Result<u32> {
        let Some(rules) = &mut self.flow_rules else {
            return unsupported();
        };
        let Some(location) = location.or(rules.any_location.then_some(rules.locations.len() as u32)) else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        rules.locations.push(location);
        self.rules.insert(location, *rule);
        Ok(location)
    }

    fn delete_flow_rule(&mut self, _: &str, location: u32) -> io::Result<()> {
        match self.rules.remove(&location) {
            Some(_) => Ok(()),
            None => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }

    fn set_rss_table(&mut self, _: &str, transform: u8, table: &[u32]) -> io::Result<()> {
        self.rss_tables.push((transform, table.to_vec()));
        Ok(())
    }

    fn set_rss_context(&mut self, _: &str, _: Option<u32>, _: u8, _: &[u32]) -> io::Result<u32> {
        unsupported()
    }
}
