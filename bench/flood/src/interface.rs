//! The interface a flood leaves by.

use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// An Ethernet interface that is up.
pub struct Interface {
    pub(crate) index: u32,
    /// Its Ethernet address.
    pub mac: [u8; 6],
}

impl Interface {
    /// The interface called `name` in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// There is none, it is not one of Ethernet's, or it is down.
    pub fn find(name: &str) -> anyhow::Result<Self> {
        // Every interface has an entry with its link-layer address, whether it has others or not.
        let mut known = Vec::new();
        for entry in getifaddrs().context("cannot list the network interfaces")? {
            let Some(address) = entry.address.as_ref().and_then(|address| address.as_link_addr()) else {
                continue;
            };
            if entry.interface_name != name {
                known.push(entry.interface_name);
                continue;
            }
            let mac = address.addr().filter(|_| address.hatype() == libc::ARPHRD_ETHER);
            let Some(mac) = mac.filter(|_| !entry.flags.contains(InterfaceFlags::IFF_LOOPBACK)) else {
                bail!("{name} is not an Ethernet interface; a flood can only be sent on one");
            };
            if !entry.flags.contains(InterfaceFlags::IFF_UP) {
                bail!("{name} is down; run `ip link set dev {name} up`");
            }
            return Ok(Self {
                index: u32::try_from(address.ifindex()).context("the interface's number is out of range")?,
                mac,
            });
        }
        known.sort();
        Err(anyhow!(
            "there is no network interface {name} in this network namespace; there are: {}",
            known.join(", ")
        ))
    }
}

/// Frames that interface `name` of the calling thread's network namespace says it has sent.
///
/// # Errors
///
/// The kernel's table cannot be read, or the interface is gone.
pub(crate) fn frames_sent(name: &str) -> anyhow::Result<u64> {
    let table = Path::new("/proc/thread-self/net/dev");
    let text = fs::read_to_string(table).with_context(|| format!("cannot read {}", table.display()))?;
    text.lines()
        .find_map(|line| sent_by(line, name))
        .with_context(|| format!("{} does not list {name}", table.display()))
}

/// The frames sent in a line of that table, if it is about `name`.
fn sent_by(line: &str, name: &str) -> Option<u64> {
    let (listed, numbers) = line.split_once(':')?;
    if listed.trim() != name {
        return None;
    }
    // Eight numbers about receiving, then the octets and frames sent.
    numbers.split_whitespace().nth(9)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_that_cannot_be_used_are_refused_with_a_sentence() {
        let error = Interface::find("lo").map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("not an Ethernet interface"), "{error}");
        let error = Interface::find("no-such-dev").map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("there is no network interface no-such-dev"), "{error}");
        assert!(error.contains("lo"), "{error}");
    }

    #[test]
    fn the_frames_sent_are_found_in_the_table() {
        let line = "  tgc0: 9876 98 0 0 0 0 0 0 12345 67 1 2 0 0 0 0";
        assert_eq!(sent_by(line, "tgc0"), Some(67));
        assert_eq!(sent_by(line, "tgc"), None);
        assert_eq!(sent_by("  face |bytes    packets errs", "face"), None);
        assert!(frames_sent("lo").is_ok());
        assert!(frames_sent("no-such-dev").is_err());
    }
}
