//! The devices while they are served: each is watched, and one of several that is gone leaves the others.

use std::path::Path;

use crate::devices::{Device, is_usable, routes, slaves};
use crate::error::Error;
use crate::interface::SYSFS;
use crate::link_watch::{LinkWatch, Served};
use crate::routes::Routes;

/// One device.
struct Watched {
    link: LinkWatch,
    /// The bond it is a slave of.
    bond: Option<String>,
    is_gone: bool,
}

/// A bond, with the slaves it had when it was last looked at.
struct Bond {
    name: String,
    slaves: Vec<String>,
}

/// A look at all devices from time to time.
pub(crate) struct Links {
    devices: Vec<Watched>,
    bonds: Vec<Bond>,
    /// As the shards know them.
    routes: Routes,
    /// The MTU that new connections are made for.
    told_mtu: u32,
}

impl Links {
    /// Watches `devices`, each with what it is served with.
    ///
    /// # Errors
    ///
    /// As [`LinkWatch::new`].
    pub(crate) fn new<'a>(devices: impl IntoIterator<Item = (&'a Device, Served)>) -> Result<Self, Error> {
        let mut links = Self {
            devices: Vec::new(),
            bonds: Vec::new(),
            routes: Routes::default(),
            told_mtu: u32::MAX,
        };
        for (device, served) in devices {
            links.told_mtu = links.told_mtu.min(served.mtu);
            links.devices.push(Watched {
                link: LinkWatch::new(&device.interface.name, served)?,
                bond: device.bond.clone(),
                is_gone: false,
            });
            if let Some(name) = &device.bond
                && !links.bonds.iter().any(|bond| bond.name == *name)
            {
                links.bonds.push(Bond {
                    name: name.clone(),
                    slaves: slaves(Path::new(SYSFS), name).unwrap_or_default(),
                });
            }
        }
        links.routes = links.routes_now();
        Ok(links)
    }

    /// The devices that are not gone, with their names now.
    pub(crate) fn names(&self) -> Vec<(usize, String)> {
        let devices = self.devices.iter().enumerate();
        devices
            .filter(|(_, device)| !device.is_gone)
            .map(|(index, device)| (index, device.link.name().to_owned()))
            .collect()
    }

    /// The devices by which frames leave.
    pub(crate) fn routes(&self) -> Routes {
        self.routes
    }

    /// The most receive queues any of them had since the beginning.
    pub(crate) fn rx_queues(&self) -> u32 {
        self.devices
            .iter()
            .map(|device| device.link.rx_queues())
            .max()
            .unwrap_or(1)
    }

    /// Has the next [`Links::look`] look at all of them.
    pub(crate) fn look_soon(&mut self) {
        for device in &mut self.devices {
            device.link.look_soon();
        }
    }

    /// Brings what is known of them up to date, as [`LinkWatch::refresh`] does.
    pub(crate) fn refresh(&mut self) {
        for device in self.devices.iter_mut().filter(|device| !device.is_gone) {
            device.link.refresh();
        }
    }

    /// The MTU that new connections are to be made for, if it is another than before: the smallest of the devices that
    /// are there.
    pub(crate) fn take_new_mtu(&mut self) -> Option<u32> {
        let there = self.devices.iter().filter(|device| !device.is_gone);
        let mtu = there.map(|device| device.link.mtu_to_use()).min()?;
        (mtu != self.told_mtu).then(|| {
            self.told_mtu = mtu;
            mtu
        })
    }

    /// Looks at the devices, if something was told or it is time. `is_attached` says whether the XDP program still is
    /// on one. Returns by which devices frames leave, if that has changed.
    ///
    /// # Errors
    ///
    /// [`Error::LinkGone`] or [`Error::ProgramDetached`] of the last of them: nothing is served any more.
    pub(crate) fn look(&mut self, is_attached: impl Fn(usize) -> bool) -> Result<Option<Routes>, Error> {
        let mut looked = false;
        let mut left = self.devices.iter().filter(|device| !device.is_gone).count();
        for (index, device) in self.devices.iter_mut().enumerate() {
            if device.is_gone {
                continue;
            }
            match device.link.look(|| is_attached(index)) {
                Ok(at_it) => looked |= at_it,
                Err(error) if left == 1 => return Err(error),
                Err(error) => {
                    let lost = error.lost_link().unwrap_or_else(|| error.to_string());
                    tracing::warn!(
                        "{lost}; the others are served on, and connections by it wait, for at most tcp.user_timeout; \
                         start tidegate again when it is back"
                    );
                    left -= 1;
                    device.is_gone = true;
                    looked = true;
                }
            }
        }
        if !looked {
            return Ok(None);
        }
        self.look_at_bonds();
        let routes = self.routes_now();
        if routes == self.routes {
            return Ok(None);
        }
        for (index, device) in self.devices.iter().enumerate() {
            let by = usize::from(routes.by(index as u8));
            if by != usize::from(self.routes.by(index as u8)) {
                let (name, by) = (device.link.name(), self.devices[by].link.name());
                let bond = device.bond.as_deref().unwrap_or_default();
                tracing::warn!("{bond}: what is for {name} leaves by {by} from now on");
            }
        }
        self.routes = routes;
        Ok(Some(routes))
    }

    /// Tells of slaves that came and went.
    fn look_at_bonds(&mut self) {
        for bond in &mut self.bonds {
            let now = slaves(Path::new(SYSFS), &bond.name).unwrap_or_default();
            for change in changes(bond, &now) {
                tracing::warn!("{change}");
            }
            bond.slaves = now;
        }
    }

    fn routes_now(&self) -> Routes {
        let bonds: Vec<Option<&str>> = self.devices.iter().map(|device| device.bond.as_deref()).collect();
        let gone: Vec<bool> = self.devices.iter().map(|device| device.is_gone).collect();
        routes(&bonds, &gone, |device| {
            is_usable(Path::new(SYSFS), self.devices[device].link.name())
        })
    }
}

/// Sentences about slaves of `bond` that are new or gone.
fn changes(bond: &Bond, now: &[String]) -> Vec<String> {
    let name = &bond.name;
    let added = now.iter().filter(|slave| !bond.slaves.contains(slave)).map(|slave| {
        format!(
            "{slave} is a slave of {name} now and is not served: connections that arrive by it are left to the \
             kernel; start tidegate again to serve it, or take it out with `ip link set dev {slave} nomaster`"
        )
    });
    let removed = bond.slaves.iter().filter(|slave| !now.contains(slave));
    let removed = removed.map(|slave| format!("{slave} is no slave of {name} any more"));
    added.chain(removed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slaves_that_come_and_go_are_told_of() {
        let bond = Bond {
            name: "bond0".to_owned(),
            slaves: vec!["eth1".to_owned(), "eth2".to_owned()],
        };
        assert!(changes(&bond, &bond.slaves).is_empty());
        let changes = changes(&bond, &["eth2".to_owned(), "eth3".to_owned()]);
        assert_eq!(changes.len(), 2, "{changes:?}");
        assert!(changes[0].contains("eth3 is a slave of bond0 now and is not served"));
        assert!(changes[1].contains("eth1 is no slave of bond0"));
    }

    #[test]
    fn one_of_several_that_is_gone_leaves_the_others_and_the_last_ends_it() {
        let served = Served {
            queues: 1,
            mtu: 65_536,
            max_mtu: 65_536,
        };
        let watched = || Watched {
            link: LinkWatch::new("lo", served).expect("a loopback interface"),
            bond: None,
            is_gone: false,
        };
        let mut links = Links {
            devices: vec![watched(), watched()],
            bonds: Vec::new(),
            routes: Routes::default(),
            told_mtu: 65_536,
        };
        assert_eq!(links.take_new_mtu(), None);
        links.devices[0].link.set_mtu(1400);
        assert_eq!((links.take_new_mtu(), links.take_new_mtu()), (Some(1400), None));
        for device in &mut links.devices {
            device.link.look_soon();
        }
        let routes = links.look(|device| device == 1).expect("one is left");
        let routes = routes.expect("a change");
        assert!(routes.is_gone(0) && !routes.is_gone(1));
        // That of the one that is gone counts no more, whatever becomes of it.
        assert_eq!(links.take_new_mtu(), Some(65_536));
        links.refresh();
        assert_eq!(links.devices[0].link.mtu_to_use(), 1400);
        links.devices[1].link.look_soon();
        assert_eq!(links.look(|_| true).expect("one is left"), None);
        links.devices[1].link.look_soon();
        let error = links.look(|_| false).expect_err("the last");
        assert!(matches!(error, Error::ProgramDetached { .. }), "{error}");
    }
}
