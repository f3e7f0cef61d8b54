//! The commands of ethtool that netlink does not have, by ioctl (include/uapi/linux/ethtool.h).
//!
//! A command is a buffer that the kernel reads and writes. Its fields are put and got by their offsets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use serde::{Deserialize, Serialize};

use crate::facts::{DriverInfo, FlowRules};

const SIOCETHTOOL: libc::c_ulong = 0x8946;

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSTATS: u32 = 0x1d;
const ETHTOOL_GRXCLSRLCNT: u32 = 0x2e;
const ETHTOOL_GRXCLSRULE: u32 = 0x2f;
const ETHTOOL_GRXCLSRLALL: u32 = 0x30;
const ETHTOOL_SRXCLSRLDEL: u32 = 0x31;
const ETHTOOL_SRXCLSRLINS: u32 = 0x32;
const ETHTOOL_SRSSH: u32 = 0x47;

/// The set of strings that names statistics (`ETH_SS_STATS`).
const STATISTICS: u32 = 1;

/// Octets of one name (`ETH_GSTRING_LEN`).
const NAME: usize = 32;

/// The most counters that are read of one device.
const MAX_STATISTICS: usize = 1 << 15;

/// The most rules that are read of one device.
const MAX_RULES: usize = 1 << 16;

const TCP_V4_FLOW: u32 = 0x01;
const TCP_V6_FLOW: u32 = 0x05;
/// The rule has fields in its extension, or a driver (ixgbe) that always says so.
const FLOW_EXT: u32 = 0x8000_0000;
/// The flow goes to an RSS context instead of a queue.
const FLOW_RSS: u32 = 0x2000_0000;
/// An RSS context is to be made.
const ETH_RXFH_CONTEXT_ALLOC: u32 = 0xffff_ffff;
/// The driver finds a place for a rule; as a flag, that it can.
const RX_CLS_LOC_ANY: u32 = 0xffff_ffff;
const RX_CLS_LOC_SPECIAL: u64 = 0x8000_0000;

/// Offsets in `struct ethtool_rxnfc`: the flow's type, the rule's description and within it the fields matched, their
/// masks, the queue and the place.
mod rxnfc {
    pub(super) const DATA: usize = 8;
    pub(super) const FLOW_TYPE: usize = 16;
    pub(super) const MATCHED: usize = 20;
    pub(super) const MASK: usize = 20 + 52 + 20;
    /// Octets of the masks: of the flow, and of its extension.
    pub(super) const MASK_OCTETS: usize = 52 + 20;
    pub(super) const RING: usize = 16 + 152;
    pub(super) const LOCATION: usize = 16 + 160;
    pub(super) const COUNT: usize = 16 + 168;
    pub(super) const LOCATIONS: usize = COUNT + 4;
    pub(super) const SIZE: usize = 192;
}

/// Where a rule sends what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// To a receive queue.
    Queue(u32),
    /// To the queues of an RSS context.
    Context(u32),
}

/// A rule for TCP segments to one address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRule {
    /// Where the segments go to.
    pub destination: SocketAddr,
    /// Where the device puts them.
    pub target: Target,
}

/// A command to a driver, and the room for its answer.
struct Command {
    /// As words, since some fields are such.
    words: Vec<u64>,
}

impl Command {
    fn new(number: u32, size: usize) -> Self {
        let mut command = Self {
            words: vec![0; size.div_ceil(8)],
        };
        command.put(0, &number.to_ne_bytes());
        command
    }

    fn put(&mut self, offset: usize, octets: &[u8]) {
        for (at, octet) in (offset..).zip(octets) {
            let shift = position(at);
            let word = &mut self.words[at / 8];
            *word = *word & !(0xff << shift) | u64::from(*octet) << shift;
        }
    }

    fn octet(&self, offset: usize) -> u8 {
        (self.words[offset / 8] >> position(offset)) as u8
    }

    fn octets<const N: usize>(&self, offset: usize) -> [u8; N] {
        core::array::from_fn(|index| self.octet(offset + index))
    }

    fn u32(&self, offset: usize) -> u32 {
        u32::from_ne_bytes(self.octets(offset))
    }

    fn u64(&self, offset: usize) -> u64 {
        u64::from_ne_bytes(self.octets(offset))
    }

    /// The text in a field, up to its first zero.
    fn text(&self, offset: usize, room: usize) -> String {
        let octets: Vec<u8> = (offset..offset + room)
            .map(|at| self.octet(at))
            .take_while(|octet| *octet != 0)
            .collect();
        String::from_utf8_lossy(&octets).trim().to_owned()
    }
}

/// The place of an octet within its word.
const fn position(offset: usize) -> usize {
    let index = offset % 8;
    if cfg!(target_endian = "big") {
        (7 - index) * 8
    } else {
        index * 8
    }
}

/// A socket that ethtool's commands go through.
pub(crate) struct Ethtool {
    socket: OwnedFd,
}

impl Ethtool {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self {
            socket: socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?,
        })
    }

    /// Has the driver of `interface` execute `command`.
    ///
    /// # Safety
    ///
    /// The command must have room for all that the kernel answers to it.
    unsafe fn call(&self, interface: &str, command: &mut Command) -> io::Result<()> {
        // SAFETY: any bits will do for an ifreq.
        let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
        // A name of 16 octets has no room for the zero at its end.
        if interface.len() >= request.ifr_name.len() || interface.contains('\0') {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = command.words.as_mut_ptr().cast();
        // SAFETY: the request lives through the call, and so does the command it points to, in which there is room for
        // the answer, as the caller says.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL as _, &mut request) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    pub(crate) fn driver(&self, interface: &str) -> io::Result<DriverInfo> {
        let info = self.driver_information(interface)?;
        Ok(DriverInfo {
            name: info.text(4, 32),
            version: info.text(36, 32),
            firmware: info.text(68, 32),
            bus: info.text(100, 32),
        })
    }

    fn driver_information(&self, interface: &str) -> io::Result<Command> {
        let mut info = Command::new(ETHTOOL_GDRVINFO, 196);
        // SAFETY: a struct ethtool_drvinfo has 196 octets.
        unsafe { self.call(interface, &mut info)? };
        Ok(info)
    }

    pub(crate) fn statistics(&self, interface: &str) -> io::Result<Vec<(String, u64)>> {
        let count = self.driver_information(interface)?.u32(180) as usize;
        if count == 0 || count > MAX_STATISTICS {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        // Names and values have the kernel's number then, which queues that were added meanwhile may have raised.
        let room = count + MAX_STATISTICS;
        let mut names = Command::new(ETHTOOL_GSTRINGS, 12 + room * NAME);
        names.put(4, &STATISTICS.to_ne_bytes());
        names.put(8, &(count as u32).to_ne_bytes());
        // SAFETY: there is room for MAX_STATISTICS names more than the driver had a moment ago.
        unsafe { self.call(interface, &mut names)? };
        let mut values = Command::new(ETHTOOL_GSTATS, 8 + room * 8);
        values.put(4, &(count as u32).to_ne_bytes());
        // SAFETY: there is room for MAX_STATISTICS values more than the driver had a moment ago.
        unsafe { self.call(interface, &mut values)? };
        let count = (names.u32(8) as usize).min(values.u32(4) as usize).min(room);
        Ok((0..count)
            .map(|index| (names.text(12 + index * NAME, NAME), values.u64(8 + index * 8)))
            .collect())
    }

    pub(crate) fn flow_rules(&self, interface: &str) -> io::Result<FlowRules> {
        let mut count = Command::new(ETHTOOL_GRXCLSRLCNT, rxnfc::SIZE);
        // SAFETY: the answer is a struct ethtool_rxnfc, without places.
        unsafe { self.call(interface, &mut count)? };
        let any_location = count.u64(rxnfc::DATA) & RX_CLS_LOC_SPECIAL != 0;
        let rules = (count.u32(rxnfc::COUNT) as usize).min(MAX_RULES);
        let mut all = Command::new(ETHTOOL_GRXCLSRLALL, rxnfc::SIZE + rules * 4);
        all.put(rxnfc::COUNT, &(rules as u32).to_ne_bytes());
        // SAFETY: the kernel writes as many places as the command says there is room for.
        unsafe { self.call(interface, &mut all)? };
        let rules = rules.min(all.u32(rxnfc::COUNT) as usize);
        Ok(FlowRules {
            locations: (0..rules).map(|index| all.u32(rxnfc::LOCATIONS + index * 4)).collect(),
            capacity: all.u64(rxnfc::DATA) as u32,
            any_location,
        })
    }

    pub(crate) fn flow_rule(&self, interface: &str, location: u32) -> io::Result<Option<FlowRule>> {
        let mut rule = Command::new(ETHTOOL_GRXCLSRULE, rxnfc::SIZE);
        rule.put(rxnfc::LOCATION, &location.to_ne_bytes());
        // SAFETY: the answer is a struct ethtool_rxnfc, without places.
        unsafe { self.call(interface, &mut rule)? };
        Ok(decode_rule(&rule))
    }

    /// Adds a rule, at `location` or where the driver likes, and returns where it is.
    pub(crate) fn insert_flow_rule(&self, interface: &str, rule: &FlowRule, location: Option<u32>) -> io::Result<u32> {
        let mut command = encode_rule(rule);
        command.put(rxnfc::LOCATION, &location.unwrap_or(RX_CLS_LOC_ANY).to_ne_bytes());
        // SAFETY: the answer is the command, with the place in it.
        unsafe { self.call(interface, &mut command)? };
        Ok(command.u32(rxnfc::LOCATION))
    }

    pub(crate) fn delete_flow_rule(&self, interface: &str, location: u32) -> io::Result<()> {
        let mut command = Command::new(ETHTOOL_SRXCLSRLDEL, rxnfc::SIZE);
        command.put(rxnfc::LOCATION, &location.to_ne_bytes());
        // SAFETY: nothing is answered.
        unsafe { self.call(interface, &mut command) }
    }

    /// Sets the RSS table; an empty one stands for the driver's default. `transform` is what it is now.
    pub(crate) fn set_rss_table(&self, interface: &str, transform: u8, table: &[u32]) -> io::Result<()> {
        self.set_rss(interface, 0, transform, table).map(drop)
    }

    /// Makes an RSS context, or gives one another table; an empty one removes it. Returns its number.
    pub(crate) fn set_rss_context(
        &self,
        interface: &str,
        id: Option<u32>,
        transform: u8,
        table: &[u32],
    ) -> io::Result<u32> {
        self.set_rss(interface, id.unwrap_or(ETH_RXFH_CONTEXT_ALLOC), transform, table)
    }

    fn set_rss(&self, interface: &str, context: u32, transform: u8, table: &[u32]) -> io::Result<u32> {
        let mut command = encode_rss(context, transform, table);
        // SAFETY: the kernel reads as many entries as the command says, and answers no more than the number of a
        // context.
        unsafe { self.call(interface, &mut command)? };
        Ok(command.u32(4))
    }
}

/// A `struct ethtool_rxfh`. In its `hfunc` zero means no change; in its `input_xfrm` it switches off what is done
/// before the hash. Before Linux 6.8 that octet has to be zero, as which it is read there.
fn encode_rss(context: u32, transform: u8, table: &[u32]) -> Command {
    let mut command = Command::new(ETHTOOL_SRSSH, 24 + table.len() * 4);
    command.put(4, &context.to_ne_bytes());
    command.put(8, &(table.len() as u32).to_ne_bytes());
    command.put(17, &[transform]);
    for (index, queue) in table.iter().enumerate() {
        command.put(24 + index * 4, &queue.to_ne_bytes());
    }
    command
}

fn encode_rule(rule: &FlowRule) -> Command {
    let mut command = Command::new(ETHTOOL_SRXCLSRLINS, rxnfc::SIZE);
    let (mut flow_type, address, port) = match rule.destination.ip() {
        IpAddr::V4(address) => (TCP_V4_FLOW, Vec::from(address.octets()), 10),
        IpAddr::V6(address) => (TCP_V6_FLOW, Vec::from(address.octets()), 34),
    };
    // The source comes first: an address of the same length, of which nothing is asked.
    let at = address.len();
    command.put(rxnfc::MATCHED + at, &address);
    command.put(rxnfc::MASK + at, &vec![0xff; at]);
    command.put(rxnfc::MATCHED + port, &rule.destination.port().to_be_bytes());
    command.put(rxnfc::MASK + port, &[0xff; 2]);
    match rule.target {
        Target::Queue(queue) => command.put(rxnfc::RING, &u64::from(queue).to_ne_bytes()),
        Target::Context(context) => {
            flow_type |= FLOW_RSS;
            command.put(rxnfc::COUNT, &context.to_ne_bytes());
        }
    }
    command.put(rxnfc::FLOW_TYPE, &flow_type.to_ne_bytes());
    command
}

fn decode_rule(command: &Command) -> Option<FlowRule> {
    let flow_type = command.u32(rxnfc::FLOW_TYPE);
    let (ip, port): (IpAddr, usize) = match flow_type & !(FLOW_RSS | FLOW_EXT) {
        TCP_V4_FLOW => (Ipv4Addr::from(command.octets::<4>(rxnfc::MATCHED + 4)).into(), 10),
        TCP_V6_FLOW => (Ipv6Addr::from(command.octets::<16>(rxnfc::MATCHED + 16)).into(), 34),
        _ => return None,
    };
    let target = if flow_type & FLOW_RSS == 0 {
        Target::Queue(u32::try_from(command.u64(rxnfc::RING)).ok()?)
    } else {
        Target::Context(command.u32(rxnfc::COUNT))
    };
    let rule = FlowRule {
        destination: SocketAddr::new(ip, u16::from_be_bytes(command.octets(rxnfc::MATCHED + port))),
        target,
    };
    // A rule that asks for more, or less, is not of this form.
    let encoded = encode_rule(&rule);
    let mut masks = rxnfc::MASK..rxnfc::MASK + rxnfc::MASK_OCTETS;
    masks.all(|at| encoded.octet(at) == command.octet(at)).then_some(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_they_were_put() {
        let mut command = Command::new(7, 20);
        command.put(4, &0x1122_3344_u32.to_ne_bytes());
        command.put(8, &u64::MAX.to_ne_bytes());
        command.put(9, &[0]);
        command.put(16, b"ab\0c");
        assert_eq!((command.u32(0), command.u32(4)), (7, 0x1122_3344));
        assert_eq!(command.octets::<3>(8), [0xff, 0, 0xff]);
        assert_eq!(command.text(16, 4), "ab");
    }

    #[test]
    fn a_rule_is_read_as_it_was_written() {
        for (destination, target) in [
            ("198.18.0.1:80", Target::Queue(3)),
            ("[2001:2::1]:443", Target::Queue(0)),
            ("[2001:2::1]:443", Target::Context(2)),
        ] {
            let rule = FlowRule {
                destination: destination.parse().expect("an address"),
                target,
            };
            let mut command = encode_rule(&rule);
            assert_eq!(decode_rule(&command), Some(rule));
            // A source port is asked for, too.
            command.put(rxnfc::MASK + if rule.destination.is_ipv4() { 8 } else { 32 }, &[0xff]);
            assert_eq!(decode_rule(&command), None);
        }
    }

    #[test]
    fn an_extension_that_asks_for_nothing_makes_no_other_rule() {
        for target in [Target::Queue(3), Target::Context(2)] {
            let rule = FlowRule {
                destination: "198.18.0.1:80".parse().expect("an address"),
                target,
            };
            let mut command = encode_rule(&rule);
            let flow_type = command.u32(rxnfc::FLOW_TYPE) | FLOW_EXT;
            command.put(rxnfc::FLOW_TYPE, &flow_type.to_ne_bytes());
            assert_eq!(decode_rule(&command), Some(rule));
            // A VLAN is asked for, too.
            command.put(rxnfc::MASK + 52 + 4, &[0xff; 2]);
            assert_eq!(decode_rule(&command), None);
        }
    }

    #[test]
    fn the_layout_is_the_kernels() {
        // struct ethtool_tcpip4_spec within struct ethtool_rx_flow_spec: ip4src, ip4dst, psrc, pdst.
        let rule = FlowRule {
            destination: "198.18.0.1:80".parse().expect("an address"),
            target: Target::Queue(5),
        };
        let command = encode_rule(&rule);
        assert_eq!(command.u32(0), ETHTOOL_SRXCLSRLINS);
        assert_eq!(command.u32(16), TCP_V4_FLOW);
        assert_eq!(command.octets::<4>(24), [198, 18, 0, 1]);
        assert_eq!(command.octets::<2>(30), [0, 80]);
        assert_eq!(
            command.octets::<12>(92),
            [0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 255, 255]
        );
        assert_eq!(command.u64(168), 5);
    }

    #[test]
    fn a_table_leaves_the_rest_of_rss_as_it_is() {
        let command = encode_rss(ETH_RXFH_CONTEXT_ALLOC, 1, &[2, 3]);
        assert_eq!(command.u32(0), ETHTOOL_SRSSH);
        assert_eq!([4, 8, 12].map(|at| command.u32(at)), [u32::MAX, 2, 0]);
        // hfunc, input_xfrm, and what is reserved.
        assert_eq!(command.octets::<8>(16), [0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!([24, 28].map(|at| command.u32(at)), [2, 3]);
    }

    #[test]
    fn no_interface_is_an_error() {
        let ethtool = Ethtool::open().expect("a socket");
        for name in ["no-such-link0", "a-name-longer-than-any", "a\0b"] {
            let error = ethtool.driver(name).expect_err("no such interface");
            assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{name:?}");
        }
        let error = ethtool.statistics("lo").expect_err("no counters");
        assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
    }
}
