//! The interface while it is served: whether it is still there, and what changes about it.
//!
//! The kernel tells of changes by netlink. What it tells is only taken as a reason to look, and a look is taken every
//! second anyway: a message that was lost does no harm, and not all drivers tell of new queues.

use core::time::Duration;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::errno::Errno;
use nix::net::if_::{if_indextoname, if_nametoindex};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};

use crate::config::MAX_JUMBO_MTU;
use crate::error::Error;
use crate::interface::{LinkState, SYSFS};

/// The interval at which the interface is looked at without notice of a change.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Messages taken at a time; the rest waits for the next time.
const MAX_MESSAGES: usize = 256;

/// The properties with which an interface is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    /// Queues with a shard, from queue 0 on.
    pub(crate) queues: u32,
    /// The MTU segments are made for.
    pub(crate) mtu: u32,
    /// The largest MTU whose packets fit the frames.
    pub(crate) max_mtu: u32,
}

/// A look at an interface from time to time.
pub(crate) struct LinkWatch {
    /// `None` if the kernel refused it; then there are only the looks in between.
    messages: Option<OwnedFd>,
    index: u32,
    sysfs: PathBuf,
    state: LinkState,
    served: Served,
    /// The most receive queues it had.
    rx_queues: u32,
    /// Whether it ever had a carrier.
    had_carrier: bool,
    /// The time at which `look` looked last; other looks do not ask whether the program is attached.
    /// `None`: it is time to look.
    looked_at: Option<Instant>,
}

impl LinkWatch {
    /// Watches the interface that is called `name` now.
    ///
    /// # Errors
    ///
    /// [`Error::LinkGone`] when it has gone meanwhile, [`Error::Io`] when it cannot be looked at.
    pub(crate) fn new(name: &str, served: Served) -> Result<Self, Error> {
        let messages = subscribe()
            .inspect_err(|error| {
                tracing::warn!("the kernel does not tell of changes of {name} ({error}); it is looked at every second")
            })
            .ok();
        // From here on every change is told of.
        let index = if_nametoindex(name).map_err(|_| Error::LinkGone { name: name.to_owned() })?;
        let state = LinkState::read(Path::new(SYSFS), name)?;
        if let Some(sentence) = no_carrier_yet(&state) {
            tracing::warn!("{sentence}");
        }
        Ok(Self {
            messages,
            index,
            sysfs: SYSFS.into(),
            rx_queues: state.rx_queues,
            had_carrier: state.carrier,
            state,
            served,
            looked_at: Some(Instant::now()),
        })
    }

    /// Its name now.
    pub(crate) fn name(&self) -> &str {
        &self.state.name
    }

    /// The most receive queues the interface had since the beginning.
    pub(crate) fn rx_queues(&self) -> u32 {
        self.rx_queues
    }

    /// The MTU that new connections are to be made for: the interface's, but never more than it was served with.
    pub(crate) fn mtu_to_use(&self) -> u32 {
        self.state.mtu.min(self.served.mtu)
    }

    /// Looks at the interface, if something was told or it is time, and says whether it did. `is_attached` says whether
    /// the XDP program still is.
    ///
    /// # Errors
    ///
    /// [`Error::LinkGone`] or [`Error::ProgramDetached`]: it is served no more.
    pub(crate) fn look(&mut self, is_attached: impl FnOnce() -> bool) -> Result<bool, Error> {
        let told = self.messages.as_ref().is_some_and(has_messages);
        let looks = told || self.looked_at.is_none_or(|at| at.elapsed() >= POLL_INTERVAL);
        if looks {
            self.looked_at = Some(Instant::now());
            self.look_now(is_attached)?;
        }
        Ok(looks)
    }

    /// Takes this for the interface's MTU.
    #[cfg(test)]
    pub(crate) fn set_mtu(&mut self, mtu: u32) {
        self.state.mtu = mtu;
    }

    /// Has the next [`LinkWatch::look`] look, whether anything was told or not.
    pub(crate) fn look_soon(&mut self) {
        self.looked_at = None;
    }

    /// Brings what is known of the interface up to date. Whether it is gone, [`LinkWatch::look`] says as soon as ever.
    pub(crate) fn refresh(&mut self) {
        let _ = self.look_now(|| true);
    }

    fn look_now(&mut self, is_attached: impl FnOnce() -> bool) -> Result<(), Error> {
        let gone = || Error::LinkGone {
            name: self.state.name.clone(),
        };
        let is_attached = is_attached();
        // nix takes the null pointer of a failure for a name, which is empty then.
        let name = if_indextoname(self.index)
            .ok()
            .filter(|name| !name.is_empty())
            .ok_or_else(gone)?;
        let Ok(now) = LinkState::read(&self.sysfs, &name.to_string_lossy()) else {
            // It may be renamed, or vanish, just now.
            return Ok(());
        };
        if !is_attached {
            return Err(Error::ProgramDetached { name: now.name });
        }
        for change in changes(&self.state, &now, &self.served, self.had_carrier) {
            tracing::warn!("{change}");
        }
        self.had_carrier |= now.carrier;
        self.rx_queues = self.rx_queues.max(now.rx_queues);
        self.state = now;
        Ok(())
    }
}

/// A sentence about an interface that is up without a carrier when it is begun to be served.
pub(crate) fn no_carrier_yet(state: &LinkState) -> Option<String> {
    (state.up && !state.carrier).then(|| {
        format!(
            "interface {} has no carrier yet: nothing arrives until it has; some drivers negotiate their link anew, for \
             seconds, when an XDP program is attached, and otherwise nothing is at the other end",
            state.name
        )
    })
}

/// Sentences about the changes from `before`, until which it had a carrier some time or not, to `now`.
fn changes(before: &LinkState, now: &LinkState, served: &Served, had_carrier: bool) -> Vec<String> {
    let name = &now.name;
    let mut changes = Vec::new();
    if now.name != before.name {
        changes.push(format!(
            "interface {} is called {name} from now on; it is served as before",
            before.name
        ));
    }
    match (before.up, now.up) {
        (true, false) => changes.push(format!(
            "interface {name} was set down; connections wait, for at most tcp.user_timeout, and responses \
             http.send_timeout, until it is up again"
        )),
        (false, true) => changes.push(format!("interface {name} is up again")),
        _ => {}
    }
    if before.up && now.up && before.carrier != now.carrier {
        changes.push(if now.carrier {
            let again = if had_carrier { "again" } else { "now" };
            format!("interface {name} has a carrier {again}")
        } else {
            format!(
                "interface {name} has lost its carrier; connections wait, for at most tcp.user_timeout, and responses \
                 http.send_timeout, until it is back"
            )
        });
    }
    if now.rx_queues != before.rx_queues {
        let (queues, was) = (now.rx_queues, before.rx_queues);
        if queues > served.queues {
            changes.push(format!(
                "interface {name} has {queues} receive queues now, {was} before, and {0} are served: connections on \
                 the others are left to the kernel (xdp_pass_no_socket); start tidegate again to serve them all, or \
                 take them back with `ethtool -L {name} combined {0}`",
                served.queues
            ));
        } else {
            changes.push(format!(
                "interface {name} has {queues} receive queues now, {was} before"
            ));
        }
    }
    if now.mtu != before.mtu {
        changes.push(mtu_change(now, before.mtu, served));
    }
    changes
}

fn mtu_change(now: &LinkState, was: u32, served: &Served) -> String {
    let (name, mtu) = (&now.name, now.mtu);
    if mtu > served.max_mtu {
        format!(
            "interface {name} has an MTU of {mtu} now, {was} before, and the frames take one of at most {0}: longer \
             packets are lost; take it back with `ip link set dev {name} mtu {0}`{1}",
            served.max_mtu,
            if mtu > MAX_JUMBO_MTU {
                ""
            } else {
                ", or set afxdp.frame_size = 4096 and start tidegate again"
            }
        )
    } else if mtu < served.mtu {
        format!(
            "interface {name} has an MTU of {mtu} now, {was} before: new connections keep to it, the others may have \
             to find out by loss; start tidegate again, or take it back with `ip link set dev {name} mtu {}`",
            served.mtu
        )
    } else {
        format!(
            "interface {name} has an MTU of {mtu} now, {was} before; segments are as long as an MTU of {} allows",
            served.mtu
        )
    }
}

/// A socket that is told of every change of a link in this network namespace.
fn subscribe() -> io::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkRoute,
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, libc::RTMGRP_LINK as u32))?;
    Ok(socket)
}

/// Takes what the kernel has told, and says whether that was anything.
fn has_messages(socket: &OwnedFd) -> bool {
    let mut message = [0; 8192];
    for count in 0..MAX_MESSAGES {
        match recv(socket.as_raw_fd(), &mut message, MsgFlags::empty()) {
            Ok(_) => {}
            Err(Errno::EAGAIN) => return count > 0,
            // Messages were lost, among others.
            Err(_) => return true,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> LinkState {
        LinkState {
            name: "nic0".to_owned(),
            up: true,
            carrier: true,
            mtu: 1500,
            rx_queues: 2,
        }
    }

    const SERVED: Served = Served {
        queues: 2,
        mtu: 1500,
        max_mtu: 1770,
    };

    /// The only thing said of a change to `now`.
    fn said(before: &LinkState, now: LinkState) -> String {
        let changes = changes(before, &now, &SERVED, true);
        assert_eq!(changes.len(), 1, "{changes:?}");
        changes[0].clone()
    }

    #[test]
    fn every_change_is_said_once_with_what_to_do() {
        let before = state();
        assert!(changes(&before, &before, &SERVED, true).is_empty());
        let with = |change: fn(&mut LinkState)| {
            let mut now = state();
            change(&mut now);
            said(&before, now)
        };
        assert!(with(|now| now.name = "wan0".to_owned()).contains("nic0 is called wan0"));
        assert!(with(|now| (now.up, now.carrier) = (false, false)).contains("was set down"));
        assert!(with(|now| now.carrier = false).contains("lost its carrier"));
        let queues = with(|now| now.rx_queues = 4);
        assert!(
            queues.contains("4 receive queues now, 2 before, and 2 are served"),
            "{queues}"
        );
        assert!(queues.contains("ethtool -L nic0 combined 2"), "{queues}");
        assert!(with(|now| now.rx_queues = 1).contains("1 receive queues now"));
        let raised = with(|now| now.mtu = 1771);
        assert!(
            raised.contains("ip link set dev nic0 mtu 1770") && raised.contains("frame_size = 4096"),
            "{raised}"
        );
        let raised = with(|now| now.mtu = 9001);
        assert!(
            raised.contains("mtu 1770") && !raised.contains("start tidegate again"),
            "{raised}"
        );
        assert!(with(|now| now.mtu = 1770).contains("segments are as long as an MTU of 1500 allows"));
        assert!(with(|now| now.mtu = 1400).contains("mtu 1500"));
    }

    #[test]
    fn what_comes_back_is_said_too() {
        let down = LinkState {
            up: false,
            carrier: false,
            ..state()
        };
        assert!(said(&down, state()).contains("up again"));
        let no_carrier = LinkState {
            carrier: false,
            ..state()
        };
        assert!(said(&no_carrier, state()).contains("carrier again"));
    }

    #[test]
    fn a_carrier_that_is_not_there_at_the_beginning_is_said_and_its_coming_too() {
        assert_eq!(no_carrier_yet(&state()), None);
        let without = LinkState {
            carrier: false,
            ..state()
        };
        let sentence = no_carrier_yet(&without).expect("a sentence");
        assert!(sentence.contains("nic0 has no carrier yet"), "{sentence}");
        let changes = changes(&without, &state(), &SERVED, false);
        assert_eq!(changes, ["interface nic0 has a carrier now"]);
        let down = LinkState { up: false, ..without };
        assert_eq!(no_carrier_yet(&down), None, "that is said otherwise");
    }

    #[test]
    fn an_interface_that_is_there_is_looked_at() {
        let served = Served {
            queues: 1,
            mtu: 65_536,
            max_mtu: 65_536,
        };
        let mut watch = LinkWatch::new("lo", served).expect("a loopback interface");
        assert!(watch.messages.is_some());
        watch.look_now(|| true).expect("it is there");
        for (now, used) in [(1400, 1400), (65_536, 65_536), (70_000, 65_536)] {
            watch.set_mtu(now);
            assert_eq!(watch.mtu_to_use(), used, "MTU {now}");
        }
        let error = watch.look_now(|| false).expect_err("without its program");
        assert!(matches!(error, Error::ProgramDetached { .. }), "{error}");
        watch.index = u32::MAX >> 1;
        let error = watch.look_now(|| true).expect_err("no such index");
        assert!(matches!(error, Error::LinkGone { .. }), "{error}");
        assert!(matches!(
            LinkWatch::new("no-such-link0", served),
            Err(Error::LinkGone { .. })
        ));
    }

    #[test]
    fn reading_the_counters_hides_no_detached_program() {
        let served = Served {
            queues: 1,
            mtu: 65_536,
            max_mtu: 65_536,
        };
        let mut watch = LinkWatch::new("lo", served).expect("a loopback interface");
        watch.messages = None;
        watch.look_soon();
        watch.refresh();
        let error = watch.look(|| false).expect_err("without its program");
        assert!(matches!(error, Error::ProgramDetached { .. }), "{error}");
    }
}
