//! The network interface: what it is, and whether it can be served.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::slice::from_ref;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::SockaddrStorage;
use tidegate_abi::{MAX_LISTENERS, MAX_QUEUES};

use crate::devices::Device;
use crate::error::Error;

pub(crate) const SYSFS: &str = "/sys/class/net";

/// The flag of an interface that is up (`IFF_UP`).
const IFF_UP: u32 = 1;

/// Kinds of links with an Ethernet header before each packet (include/uapi/linux/if_arp.h): Ethernet, and the loopback
/// interface, whose addresses are zero.
const ETHERNET: [u32; 2] = [1, 772];

/// The properties of an interface that a client opens connections by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceInfo {
    /// Its Ethernet address; `None` if it is not one of Ethernet's.
    pub mac: Option<[u8; 6]>,
    /// Its IP addresses, of both families, in the kernel's order.
    pub addresses: Vec<IpAddr>,
    /// Queues that can both receive and send, at most [`MAX_QUEUES`]: as many shards as there can be. Of a bond, those
    /// of the slave with the fewest.
    pub queues: u32,
    /// Queues it receives on; of a bond, those of the slave with the most. What arrives on those without a shard is
    /// left to the kernel.
    pub rx_queues: u32,
}

/// Asks the kernel about the interface `name` of the calling thread's network namespace.
///
/// # Errors
///
/// [`Error::NoSuchInterface`], [`Error::InterfaceDown`], [`Error::NotEthernet`], [`Error::ForeignSysfs`], or
/// [`Error::Io`].
pub fn interface_info(name: &str) -> Result<InterfaceInfo, Error> {
    let interface = Interface::find(name)?;
    let devices = Device::below(from_ref(&interface))?;
    let below = devices.iter().map(|device| &device.interface);
    Ok(InterfaceInfo {
        mac: mac(name)?,
        queues: queues(below.clone(), None)?,
        rx_queues: below.map(|device| device.rx_queues).max().unwrap_or(1),
        addresses: interface.addresses,
    })
}

/// An interface that exists and is up.
#[derive(Clone, Debug)]
pub(crate) struct Interface {
    pub(crate) name: String,
    /// In bytes, without the Ethernet header.
    pub(crate) mtu: u32,
    pub(crate) rx_queues: u32,
    pub(crate) tx_queues: u32,
    pub(crate) addresses: Vec<IpAddr>,
    /// The driver of the device; `None` if there is no device below the interface, or it does not say.
    pub(crate) driver: Option<String>,
    /// Whether there is no device below the interface: veth, tap, bridge, loopback and such.
    pub(crate) is_virtual: bool,
}

/// The properties of an interface that may change while it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkState {
    pub(crate) name: String,
    pub(crate) up: bool,
    /// False while it is down.
    pub(crate) carrier: bool,
    /// In bytes, without the Ethernet header.
    pub(crate) mtu: u32,
    pub(crate) rx_queues: u32,
}

impl LinkState {
    /// Reads sysfs about `name`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], also when it vanishes meanwhile.
    pub(crate) fn read(sysfs: &Path, name: &str) -> Result<Self, Error> {
        let directory = sysfs.join(name);
        let up = number(&directory.join("flags"))? & IFF_UP != 0;
        Ok(Self {
            name: name.to_owned(),
            up,
            // Cannot be read while it is down.
            carrier: up && number(&directory.join("carrier")).is_ok_and(|carrier| carrier != 0),
            mtu: number(&directory.join("mtu"))?,
            rx_queues: count(&names(&directory.join("queues"))?, "rx-"),
        })
    }
}

/// Frames that interface `name` received and those its device had to drop. `None` if it does not say.
pub(crate) fn received(sysfs: &Path, name: &str) -> Option<u64> {
    let statistic = |counter: &str| -> Option<u64> {
        let text = fs::read_to_string(sysfs.join(name).join("statistics").join(counter)).ok()?;
        text.trim().parse().ok()
    };
    Some(statistic("rx_packets")?.wrapping_add(statistic("rx_missed_errors")?))
}

impl Interface {
    /// Reads what the kernel says about `name`.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchInterface`], [`Error::InterfaceDown`], [`Error::NotEthernet`], [`Error::ForeignSysfs`], or
    /// [`Error::Io`].
    pub(crate) fn find(name: &str) -> Result<Self, Error> {
        let mut interface = Self::read(Path::new(SYSFS), name, if_nametoindex(name).ok())?;
        interface.addresses = addresses(name)?;
        Ok(interface)
    }

    /// Everything but the addresses. `index` is what the kernel calls the interface in this network namespace, which
    /// the mounted sysfs need not show.
    fn read(sysfs: &Path, name: &str, index: Option<u32>) -> Result<Self, Error> {
        let known = names(sysfs)?;
        let listed = known.iter().any(|known| known == name);
        let Some(index) = index else {
            return Err(Error::NoSuchInterface {
                name: name.to_owned(),
                known,
            });
        };
        let directory = sysfs.join(name);
        if !listed || number(&directory.join("ifindex"))? != index {
            return Err(Error::ForeignSysfs { name: name.to_owned() });
        }
        let kind = number(&directory.join("type"))?;
        if !ETHERNET.contains(&kind) {
            return Err(Error::NotEthernet {
                name: name.to_owned(),
                kind,
            });
        }
        if number(&directory.join("flags"))? & IFF_UP == 0 {
            return Err(Error::InterfaceDown { name: name.to_owned() });
        }
        let queues = names(&directory.join("queues"))?;
        let device = directory.join("device");
        let driver = fs::read_link(device.join("driver")).ok();
        Ok(Self {
            driver: driver
                .as_deref()
                .and_then(Path::file_name)
                .map(|name| name.to_string_lossy().into_owned()),
            is_virtual: !device.exists(),
            name: name.to_owned(),
            mtu: number(&directory.join("mtu"))?,
            rx_queues: count(&queues, "rx-"),
            tx_queues: count(&queues, "tx-"),
            addresses: Vec::new(),
        })
    }

    /// The number of queues to serve: all that can both receive and send, or as many as were asked for.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyQueues`] when more were asked for than there are.
    pub(crate) fn queues(&self, asked: Option<u32>) -> Result<u32, Error> {
        let has = self.rx_queues.min(self.tx_queues).max(1);
        match asked {
            None => Ok(has.min(MAX_QUEUES)),
            Some(asked) if asked > has => Err(Error::TooManyQueues {
                name: self.name.clone(),
                asked,
                has,
            }),
            Some(asked) => Ok(asked),
        }
    }
}

/// The number of queues of each device to serve, and so of shards: as many as the device with the fewest has, or as
/// were asked for.
///
/// # Errors
///
/// As [`Interface::queues`].
pub(crate) fn queues<'a>(devices: impl IntoIterator<Item = &'a Interface>, asked: Option<u32>) -> Result<u32, Error> {
    devices
        .into_iter()
        .try_fold(MAX_QUEUES, |fewest, device| Ok(fewest.min(device.queues(asked)?)))
}

/// Checks that every listener is an address of one of these interfaces, unless it may be `anywhere`, or all of its
/// family, and a port of its own.
///
/// # Errors
///
/// [`Error::AddressNotOnInterface`], or [`Error::Config`].
pub(crate) fn check_listeners(interfaces: &[Interface], listeners: &[SocketAddr], anywhere: bool) -> Result<(), Error> {
    if listeners.len() > MAX_LISTENERS as usize {
        return Err(Error::Config(format!(
            "{} listeners were asked for; there can be {MAX_LISTENERS}",
            listeners.len()
        )));
    }
    let mut seen = HashSet::new();
    for listener in listeners {
        if listener.port() == 0 {
            return Err(Error::Config(format!(
                "listener {listener} has no port; give it one from 1 to 65535"
            )));
        }
        let known = interfaces.iter().flat_map(|interface| &interface.addresses);
        let is_known = known.clone().any(|address| *address == listener.ip());
        if !anywhere && !listener.ip().is_unspecified() && !is_known {
            return Err(Error::AddressNotOnInterface {
                address: listener.ip(),
                names: interfaces.iter().map(|interface| interface.name.clone()).collect(),
                known: known.copied().collect(),
            });
        }
        if !seen.insert((listener.ip(), listener.port())) {
            return Err(Error::Config(format!("listener {listener} is given twice")));
        }
    }
    Ok(())
}

/// The addresses of `name`, of all families.
fn all_addresses(name: &str) -> Result<impl Iterator<Item = SockaddrStorage>, Error> {
    let all = getifaddrs().map_err(|errno| Error::io("cannot read the interfaces' addresses", errno.into()))?;
    Ok(all
        .filter(move |entry| entry.interface_name == name)
        .filter_map(|entry| entry.address))
}

/// The Ethernet address.
fn mac(name: &str) -> Result<Option<[u8; 6]>, Error> {
    Ok(all_addresses(name)?.find_map(|address| {
        let link = address.as_link_addr()?;
        link.addr().filter(|_| link.hatype() == libc::ARPHRD_ETHER)
    }))
}

/// The IP addresses of `name`, in the kernel's order.
///
/// # Errors
///
/// [`Error::Io`].
pub(crate) fn addresses(name: &str) -> Result<Vec<IpAddr>, Error> {
    Ok(all_addresses(name)?
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))
        })
        .collect())
}

/// The names of the directories in a directory (and of links to such), sorted.
fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let read = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.path().is_dir() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    };
    read().map_err(|source| Error::io(format!("cannot list {}", directory.display()), source))
}

/// The number in a file of sysfs.
fn number(file: &Path) -> Result<u32, Error> {
    let text =
        fs::read_to_string(file).map_err(|source| Error::io(format!("cannot read {}", file.display()), source))?;
    parse_number(&text).ok_or_else(|| {
        Error::io(
            format!("cannot read {}", file.display()),
            io::Error::other(format!("{:?} is no number", text.trim())),
        )
    })
}

/// A number as sysfs writes it: decimal, or hexadecimal after `0x`.
fn parse_number(text: &str) -> Option<u32> {
    let text = text.trim();
    match text.strip_prefix("0x") {
        Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The number of a device's queues of one direction.
fn count(queues: &[String], prefix: &str) -> u32 {
    queues.iter().filter(|queue| queue.starts_with(prefix)).count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sysfs with interface `tgs0` (index 7) and its flags.
    fn sysfs(flags: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary directory");
        let device = root.path().join("tgs0");
        for queue in ["rx-0", "rx-1", "rx-2", "tx-0", "tx-1"] {
            fs::create_dir_all(device.join("queues").join(queue)).expect("a queue");
        }
        fs::create_dir(root.path().join("lo")).expect("another interface");
        for (file, text) in [
            ("ifindex", "7\n"),
            ("type", "1\n"),
            ("mtu", "1500\n"),
            ("flags", flags),
            ("carrier", "1\n"),
        ] {
            fs::write(device.join(file), text).expect("an attribute");
        }
        root
    }

    fn interface(addresses: &[&str]) -> Interface {
        Interface {
            name: "tgs0".to_owned(),
            mtu: 1500,
            rx_queues: 3,
            tx_queues: 2,
            addresses: addresses
                .iter()
                .map(|address| address.parse().expect("an address"))
                .collect(),
            driver: None,
            is_virtual: true,
        }
    }

    fn listeners(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses
            .iter()
            .map(|address| address.parse().expect("an address and port"))
            .collect()
    }

    #[test]
    fn an_interface_is_read() {
        let sysfs = sysfs("0x1003\n");
        let interface = Interface::read(sysfs.path(), "tgs0", Some(7)).expect("an interface");
        assert_eq!(interface.mtu, 1500);
        assert_eq!((interface.rx_queues, interface.tx_queues), (3, 2));
        assert_eq!((interface.driver.as_deref(), interface.is_virtual), (None, true));
        let state = LinkState::read(sysfs.path(), "tgs0").expect("an interface");
        assert_eq!(
            (state.up, state.carrier, state.mtu, state.rx_queues),
            (true, true, 1500, 3)
        );
    }

    #[test]
    fn what_a_device_received_includes_what_it_dropped() {
        let sysfs = sysfs("0x1003\n");
        assert_eq!(received(sysfs.path(), "tgs0"), None);
        let statistics = sysfs.path().join("tgs0/statistics");
        fs::create_dir(&statistics).expect("a directory");
        fs::write(statistics.join("rx_packets"), "5000000000\n").expect("an attribute");
        fs::write(statistics.join("rx_missed_errors"), "7\n").expect("an attribute");
        assert_eq!(received(sysfs.path(), "tgs0"), Some(5_000_000_007));
    }

    #[test]
    fn the_driver_is_the_devices() {
        let sysfs = sysfs("0x1003\n");
        let device = sysfs.path().join("tgs0/device");
        fs::create_dir(&device).expect("a device");
        std::os::unix::fs::symlink("../../../bus/pci/drivers/igb", device.join("driver")).expect("a driver");
        let interface = Interface::read(sysfs.path(), "tgs0", Some(7)).expect("an interface");
        assert_eq!(
            (interface.driver.as_deref(), interface.is_virtual),
            (Some("igb"), false)
        );
    }

    #[test]
    fn an_interface_without_ethernet_headers_is_refused() {
        let sysfs = sysfs("0x1003\n");
        let kind = sysfs.path().join("tgs0/type");
        // tun, and IP over InfiniBand.
        for other in ["65534\n", "32\n"] {
            fs::write(&kind, other).expect("an attribute");
            let error = Interface::read(sysfs.path(), "tgs0", Some(7)).expect_err("no Ethernet");
            assert!(matches!(error, Error::NotEthernet { .. }), "{error}");
        }
        fs::write(&kind, "772\n").expect("an attribute");
        Interface::read(sysfs.path(), "tgs0", Some(7)).expect("a loopback interface");
    }

    #[test]
    fn what_is_wrong_with_an_interface_is_said() {
        let up = sysfs("0x1003\n");
        let error = Interface::read(up.path(), "eth9", None).expect_err("no such interface");
        assert!(matches!(&error, Error::NoSuchInterface { known, .. } if known == &["lo", "tgs0"]));
        for (name, index) in [("tgs0", 8), ("tgs1", 9)] {
            let error = Interface::read(up.path(), name, Some(index)).expect_err("another namespace's");
            assert!(matches!(error, Error::ForeignSysfs { .. }), "{error}");
        }
        let down = sysfs("0x1002\n");
        let error = Interface::read(down.path(), "tgs0", Some(7)).expect_err("down");
        assert!(matches!(error, Error::InterfaceDown { .. }));
    }

    #[test]
    fn only_queues_that_receive_and_send_are_served() {
        let interface = interface(&[]);
        assert_eq!(interface.queues(None).expect("all"), 2);
        assert_eq!(interface.queues(Some(1)).expect("fewer"), 1);
        let more = Interface {
            rx_queues: 4,
            tx_queues: 4,
            ..interface.clone()
        };
        assert_eq!(queues([&more, &interface], None).expect("of both"), 2);
        assert_eq!(queues([&more, &interface], Some(1)).expect("fewer"), 1);
        assert!(queues([&more, &interface], Some(3)).is_err(), "one has fewer");
        let error = interface.queues(Some(3)).expect_err("more");
        assert!(matches!(error, Error::TooManyQueues { asked: 3, has: 2, .. }));
    }

    #[test]
    fn listeners_must_be_addresses_of_the_interface() {
        let interface = interface(&["198.18.0.1", "2001:2::1"]);
        let check = |given: &[&str]| check_listeners(from_ref(&interface), &listeners(given), false);
        check(&[
            "198.18.0.1:80",
            "[2001:2::1]:80",
            "198.18.0.1:7",
            "0.0.0.0:80",
            "[::]:80",
        ])
        .expect("good listeners");
        for other in ["198.18.2.2:80", "198.18.2.1:80"] {
            let error = check(&[other]).expect_err("not an address of the interface");
            assert!(matches!(error, Error::AddressNotOnInterface { .. }));
        }
        let both = [interface.clone(), super::tests::interface(&["198.18.2.1"])];
        check_listeners(&both, &listeners(&["198.18.0.1:80", "198.18.2.1:80"]), false).expect("addresses of either");
        check_listeners(from_ref(&interface), &listeners(&["198.18.2.1:80"]), true)
            .expect("behind balancers it may be another's");
        for twice_or_without_port in [&["198.18.0.1:80", "198.18.0.1:80"][..], &["198.18.0.1:0"][..]] {
            let error = check(twice_or_without_port).expect_err("a usage error");
            assert!(error.is_usage());
        }
    }

    #[test]
    fn numbers_are_read_as_sysfs_writes_them() {
        assert_eq!(parse_number("0x1003\n"), Some(0x1003));
        assert_eq!(parse_number(" 1500\n"), Some(1500));
        assert_eq!(parse_number("up"), None);
    }
}
