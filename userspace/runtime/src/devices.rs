//! The devices below the interfaces that are served: an interface is one itself, and below a bond each slave is.
//!
//! A bond has one queue, whatever its slaves have, and AF_XDP takes frames from a queue of a device. The kernel takes
//! XDP programs on slaves as long as the bond has none, and runs them before it looks whether the slave is active.

use std::fs;
use std::path::Path;

use tidegate_xsk::MAX_DEVICES;

use crate::config::{Attach, Config, MAX_MTU};
use crate::error::Error;
use crate::interface::{Interface, SYSFS};
use crate::routes::Routes;

// A device's number is the same on both sides.
const _: () = assert!(MAX_DEVICES == tidegate_abi::MAX_DEVICES as usize);

/// A device that frames are taken from.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) interface: Interface,
    /// The bond it is a slave of, if it is one's.
    pub(crate) bond: Option<String>,
}

impl Device {
    /// The devices below `interfaces`, in their order.
    ///
    /// # Errors
    ///
    /// [`Error::NoSlaves`] for a bond without; [`Error::Config`] when one is there twice, or there are too many;
    /// otherwise as [`Interface::find`].
    pub(crate) fn below(interfaces: &[Interface]) -> Result<Vec<Self>, Error> {
        let mut devices: Vec<Self> = Vec::new();
        for interface in interfaces {
            match slaves(Path::new(SYSFS), &interface.name) {
                None => devices.push(Self {
                    interface: interface.clone(),
                    bond: None,
                }),
                Some(slaves) if slaves.is_empty() => {
                    return Err(Error::NoSlaves {
                        name: interface.name.clone(),
                    });
                }
                Some(slaves) => {
                    for slave in slaves {
                        devices.push(Self {
                            interface: Interface::find(&slave)?,
                            bond: Some(interface.name.clone()),
                        });
                    }
                }
            }
        }
        check(devices.iter().map(|device| device.interface.name.as_str()))?;
        Ok(devices)
    }
}

/// Checks that there are not too many devices, and none twice.
fn check<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Result<(), Error> {
    let count = names.clone().count();
    if count > MAX_DEVICES {
        return Err(Error::Config(format!(
            "{count} devices are to be served, the slaves of bonds counted; there can be {MAX_DEVICES}"
        )));
    }
    for (index, name) in names.clone().enumerate() {
        if names.clone().take(index).any(|before| before == name) {
            return Err(Error::Config(format!("interface {name} is given twice")));
        }
    }
    Ok(())
}

/// Checks that the program of these devices can be run beside others, if it is to be.
///
/// # Errors
///
/// [`Error::Config`]: below a dispatcher there can be one device, whose packets lie in one buffer each.
pub(crate) fn check_sharing(config: &Config, devices: &[Device]) -> Result<(), Error> {
    if config.attach != Attach::Dispatcher {
        return Ok(());
    }
    if devices.len() > 1 {
        return Err(Error::Config(format!(
            "{} devices are to be served; beside other programs (attach = \"dispatcher\") there can be one",
            devices.len()
        )));
    }
    match devices.iter().find(|device| device.interface.mtu > MAX_MTU) {
        Some(Device { interface, .. }) => Err(Error::Config(format!(
            "interface {name} has an MTU of {mtu}; beside other programs (attach = \"dispatcher\") it can be {MAX_MTU} \
             at most: `ip link set dev {name} mtu {MAX_MTU}`",
            name = interface.name,
            mtu = interface.mtu
        ))),
        None => Ok(()),
    }
}

/// The slaves of the bond `name`; `None` if it is none.
pub(crate) fn slaves(sysfs: &Path, name: &str) -> Option<Vec<String>> {
    let text = fs::read_to_string(sysfs.join(name).join("bonding/slaves")).ok()?;
    Some(text.split_whitespace().map(str::to_owned).collect())
}

/// Whether the bond of the slave `name` sends by it: not by the backup of an active-backup bond, a port outside of the
/// aggregate (802.3ad), a slave without a link, or one that is in the bond no more.
pub(crate) fn is_usable(sysfs: &Path, name: &str) -> bool {
    let reads = |file, expected| {
        let text = fs::read_to_string(sysfs.join(name).join("bonding_slave").join(file));
        text.is_ok_and(|text| text.trim() == expected)
    };
    reads("state", "active") && reads("mii_status", "up")
}

/// The devices by which frames leave. `bonds` has the bond of each device, if it is a slave, and `is_usable` says
/// whether the bond sends by it: if not, the first does by which it does.
pub(crate) fn routes(bonds: &[Option<&str>], gone: &[bool], is_usable: impl Fn(usize) -> bool) -> Routes {
    let mut routes = Routes::default();
    let usable: Vec<bool> = (0..bonds.len())
        .map(|device| bonds[device].is_some() && !gone[device] && is_usable(device))
        .collect();
    for device in 0..bonds.len() {
        if gone[device] {
            routes.set_gone(device);
        }
        if let Some(bond) = bonds[device]
            && !usable[device]
            && let Some(other) = (0..bonds.len()).find(|&other| usable[other] && bonds[other] == Some(bond))
        {
            routes.set(device, other);
        }
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_other_programs_one_device_is_served_with_packets_in_one_buffer() {
        let device = |mtu| Device {
            interface: Interface {
                name: format!("eth{mtu}"),
                mtu,
                rx_queues: 1,
                tx_queues: 1,
                addresses: Vec::new(),
                driver: None,
                is_virtual: true,
            },
            bond: None,
        };
        let beside = Config {
            attach: Attach::Dispatcher,
            ..Config::default()
        };
        check_sharing(&beside, &[device(3498)]).expect("one device, one buffer");
        for (devices, phrase) in [
            (vec![device(3499)], "`ip link set dev eth3499 mtu 3498`"),
            (vec![device(1500), device(1400)], "2 devices are to be served"),
        ] {
            let error = check_sharing(&beside, &devices).expect_err(phrase);
            assert!(error.is_usage() && error.to_string().contains(phrase), "{error}");
            check_sharing(&Config::default(), &devices).expect("alone");
        }
    }

    #[test]
    fn the_slaves_of_a_bond_and_whether_it_sends_by_them_are_read() {
        let sysfs = tempfile::tempdir().expect("a temporary directory");
        let write = |file: &str, text: &str| {
            let path = sysfs.path().join(file);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            fs::write(path, text).expect("an attribute");
        };
        write("bond0/bonding/slaves", "eth1 eth2\n");
        write("bond1/bonding/slaves", "\n");
        write("eth1/mtu", "1500\n");
        assert_eq!(
            slaves(sysfs.path(), "bond0"),
            Some(vec!["eth1".to_owned(), "eth2".to_owned()])
        );
        assert_eq!(slaves(sysfs.path(), "bond1"), Some(Vec::new()));
        assert_eq!(slaves(sysfs.path(), "eth1"), None);
        assert!(!is_usable(sysfs.path(), "eth1"), "no slave");
        for (state, link, usable) in [
            ("active\n", "up\n", true),
            ("backup\n", "up\n", false),
            ("active\n", "down\n", false),
        ] {
            write("eth2/bonding_slave/state", state);
            write("eth2/bonding_slave/mii_status", link);
            assert_eq!(is_usable(sysfs.path(), "eth2"), usable, "{state} {link}");
        }
    }

    #[test]
    fn only_slaves_stand_in_for_each_other() {
        let bonds = [None, Some("bond0"), Some("bond0"), Some("bond1"), Some("bond0"), None];
        let by = |gone: [bool; 6], usable: &[usize]| {
            let routes = routes(&bonds, &gone, |device| usable.contains(&device));
            [0, 1, 2, 3, 4, 5].map(|device| (routes.by(device), routes.is_gone(device.into())))
        };
        let here = |by: [u8; 6]| by.map(|by| (by, false));
        assert_eq!(by([false; 6], &[1, 2, 3, 4]), here([0, 1, 2, 3, 4, 5]));
        // An active-backup bond, and after its fail-over.
        assert_eq!(by([false; 6], &[1, 3]), here([0, 1, 1, 3, 1, 5]));
        assert_eq!(by([false; 6], &[4, 3]), here([0, 4, 4, 3, 4, 5]));
        // One of several that send is without a link.
        assert_eq!(by([false; 6], &[2, 4, 3]), here([0, 2, 2, 3, 4, 5]));
        // Without any that does, each waits for itself.
        assert_eq!(by([false; 6], &[]), here([0, 1, 2, 3, 4, 5]));
        let gone = [true, true, false, false, false, false];
        let expected = [(0, true), (2, true), (2, false), (3, false), (2, false), (5, false)];
        assert_eq!(by(gone, &[1, 2]), expected);
    }

    #[test]
    fn too_many_devices_and_one_twice_are_refused() {
        check(["eth0", "eth1"].into_iter()).expect("two");
        for bad in [&["eth0"; 9][..], &["eth0", "eth1", "eth0"]] {
            let error = check(bad.iter().copied()).expect_err("refused");
            assert!(error.is_usage(), "{error}");
        }
    }
}
