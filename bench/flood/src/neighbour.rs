//! The Ethernet address that frames past the kernel are sent to, as the kernel resolves it.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;

/// The time an address has to be resolved.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The Ethernet address that what is for `target` is sent to on `interface`: its own, or its router's.
///
/// # Errors
///
/// The kernel has no way to `target` by this interface, or nobody answers for it in time.
pub fn resolve(interface: &str, target: IpAddr) -> anyhow::Result<[u8; 6]> {
    tidegate_runtime::resolve_next_hop(interface, target, TIMEOUT).context("give the Ethernet address by --target-mac")
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
}
