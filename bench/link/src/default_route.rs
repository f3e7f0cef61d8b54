//! Which devices this machine reaches the rest of the world by.

use std::fs;
use std::io;

use anyhow::Context;

/// `RTF_REJECT` of linux/route.h: a route that says there is none.
const REJECT: u32 = 0x0200;

/// Whether `device` carries a default route of this network namespace, of either family.
///
/// # Errors
///
/// The kernel's tables cannot be read.
pub(crate) fn is_on(device: &str) -> anyhow::Result<bool> {
    let ipv4 = table("/proc/self/net/route")?;
    let ipv6 = table("/proc/self/net/ipv6_route")?;
    let mut devices = ipv4
        .lines()
        .filter_map(ipv4_default)
        .chain(ipv6.lines().filter_map(ipv6_default));
    Ok(devices.any(|name| name == device))
}

/// An empty table where the kernel does not know the protocol.
fn table(path: &str) -> anyhow::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        result => result.with_context(|| format!("cannot read {path}")),
    }
}

/// The device in a line of `/proc/net/route` if that is a default route.
fn ipv4_default(line: &str) -> Option<&str> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let flags = u32::from_str_radix(fields.get(3)?, 16).ok()?;
    let default = *fields.get(1)? == "00000000" && *fields.get(7)? == "00000000" && flags & REJECT == 0;
    default.then_some(fields[0])
}

/// The device in a line of `/proc/net/ipv6_route` if that is a default route.
fn ipv6_default(line: &str) -> Option<&str> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let flags = u32::from_str_radix(fields.get(8)?, 16).ok()?;
    let any = fields[0].bytes().all(|byte| byte == b'0');
    let default = any && fields[1] == "00" && flags & REJECT == 0;
    default.then_some(*fields.get(9)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_told_from_others() {
        let header = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT";
        let default = "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0";
        let network = "eth1\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0";
        // One half of all addresses.
        let half = "tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0";
        let reject = "*\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0";
        assert_eq!(ipv4_default(default), Some("eth0"));
        for line in [header, network, half, reject, ""] {
            assert_eq!(ipv4_default(line), None, "{line}");
        }
    }

    #[test]
    fn default_routes_of_ipv6_are_told_from_others() {
        let any = "00000000000000000000000000000000";
        let gateway = "fe800000000000000000000000000001";
        let default = format!("{any} 00 {any} 00 {gateway} 00000400 00000001 00000000 00000003     eth0");
        let network = format!("{gateway} 40 {any} 00 {any} 00000100 00000001 00000000 00000001     eth1");
        let reject = format!("{any} 00 {any} 00 {any} ffffffff 00000001 00000000 00200200       lo");
        assert_eq!(ipv6_default(&default), Some("eth0"));
        for line in [network.as_str(), reject.as_str(), ""] {
            assert_eq!(ipv6_default(line), None, "{line}");
        }
    }
}
