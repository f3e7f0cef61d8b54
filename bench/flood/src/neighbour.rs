//! The Ethernet address that frames past the kernel are sent to, as the kernel resolves it.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::BindToDevice;
use serde_json::Value;

/// The time an address has to be resolved.
const TIMEOUT: Duration = Duration::from_secs(3);

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The port of the datagram that has the kernel resolve the address: discard (RFC 863).
const DISCARD: u16 = 9;

/// The Ethernet address of `target` on `interface`.
///
/// # Errors
///
/// The kernel has no way to `target` by this interface, or nobody answers for it in time.
pub fn resolve(interface: &str, target: IpAddr) -> anyhow::Result<[u8; 6]> {
    provoke(interface, target).with_context(|| {
        format!(
            "cannot send to {target} by {interface}, as resolving its Ethernet address takes; give {interface} an \
             address of the same network, or use --target-mac"
        )
    })?;
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(mac) = look_up(interface, target)? {
            return Ok(mac);
        }
        if Instant::now() >= deadline {
            bail!(
                "nobody on {interface} answers for {target} within {} s; if it is behind a router, give the router's \
                 address by --target-mac",
                TIMEOUT.as_secs()
            );
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Has the kernel send a datagram, which it can only do once it knows the Ethernet address.
fn provoke(interface: &str, target: IpAddr) -> anyhow::Result<()> {
    let any: IpAddr = if target.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).context("cannot open a socket")?;
    setsockopt(&socket, BindToDevice, &OsString::from(interface)).context("cannot bind it to the interface")?;
    socket.send_to(&[], SocketAddr::new(target, DISCARD))?;
    Ok(())
}

/// The Ethernet address of `target`, if the kernel knows it by now.
fn look_up(interface: &str, target: IpAddr) -> anyhow::Result<Option<[u8; 6]>> {
    let output = Command::new("ip")
        .args(["-j", "neigh", "show", "to", &target.to_string(), "dev", interface])
        .stdin(Stdio::null())
        .output()
        .context("cannot run `ip`, which is part of iproute2")?;
    if !output.status.success() {
        bail!(
            "`ip neigh show` failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    from_listing(&output.stdout).context("cannot read what `ip -j neigh show` says")
}

/// The first Ethernet address in what `ip -j neigh show` lists.
fn from_listing(listing: &[u8]) -> anyhow::Result<Option<[u8; 6]>> {
    // Older versions print nothing at all instead of an empty list.
    if listing.trim_ascii().is_empty() {
        return Ok(None);
    }
    let entries: Value = serde_json::from_slice(listing)?;
    let addresses = entries.as_array().into_iter().flatten().filter(|entry| {
        // What had an address and then failed to answer for it may still list it.
        let mut states = entry["state"].as_array().into_iter().flatten();
        !states.any(|state| state == "FAILED")
    });
    Ok(addresses
        .filter_map(|entry| entry["lladdr"].as_str())
        .find_map(|text| parse_mac(text).ok()))
}

/// Parses an Ethernet address, `02:54:47:00:00:01`.
///
/// # Errors
///
/// A sentence when it is none, or the address of a group or of nobody.
pub fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let wrong = || format!("`{text}` is not an Ethernet address; write it like 02:54:47:00:00:01");
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut mac {
        *octet = parts
            .next()
            .filter(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|part| u8::from_str_radix(part, 16).ok())
            .ok_or_else(wrong)?;
    }
    if parts.next().is_some() {
        return Err(wrong());
    }
    if mac[0] & 1 != 0 || mac == [0; 6] {
        return Err(format!("{text} is not the address of a single station"));
    }
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ethernet_addresses_are_read() {
        assert_eq!(parse_mac("02:54:47:00:00:aF"), Ok([0x02, 0x54, 0x47, 0, 0, 0xaf]));
        for text in [
            "",
            "02:54:47:00:00",
            "02:54:47:00:00:01:02",
            "02-54-47-00-00-01",
            "2:54:47:0:0:1",
            "02:54:47:00:00:0g",
            "+2:54:47:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
        ] {
            assert!(parse_mac(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_kernels_listing_is_understood() {
        let found = |listing: &str| from_listing(listing.as_bytes()).unwrap();
        assert_eq!(
            found(r#"[{"dst":"198.18.0.1","lladdr":"02:54:47:00:00:01","state":["REACHABLE"]}]"#),
            Some([2, 0x54, 0x47, 0, 0, 1])
        );
        assert_eq!(
            found(r#"[{"dst":"198.18.0.1","lladdr":"02:54:47:00:00:01","state":["FAILED"]}]"#),
            None
        );
        assert_eq!(found(r#"[{"dst":"198.18.0.1","state":["INCOMPLETE"]}]"#), None);
        assert_eq!(found("[ ]"), None);
        assert_eq!(found("\n"), None);
        assert!(from_listing(b"Error").is_err());
    }
}
