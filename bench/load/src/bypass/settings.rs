//! The client's use of AF_XDP, and what follows from it and the plan for its engine.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tidegate_args::UsageError;
use tidegate_runtime::{InterfaceInfo, NextHop, WaitStrategy};

use crate::bypass::tuples::{Addresses, Share, Steering, Tuples};
use crate::{Direction, Plan, Workload};
use tidegate_flood::Prefix;

/// The time a peer may acknowledge nothing before a connection is given up. Standards ask for longer, but a benchmark
/// ends sooner.
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// New connections per second for whose TIME-WAIT there is room: more than one core opens.
const TIME_WAIT_RATE: u128 = 500_000;

/// Connections in TIME-WAIT at most. There are no more than pairs of local address and port.
const MAX_TIME_WAIT: u128 = 1 << 24;

/// Connections that only have to end, at least, beside those asked for.
const MIN_CLOSING: u32 = 1 << 16;

/// Send buffer, in bytes, where nothing is uploaded: at least this.
const MIN_SEND_BUFFER: usize = 64 << 10;

/// Send buffer for uploads, in bytes.
const UPLOAD_SEND_BUFFER: u32 = 2 << 20;

/// Settings of the client over AF_XDP.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The interface to open connections by. The client takes what the target sends there, whatever local address and
    /// port it is for, so no other program can talk to the target's address and port meanwhile.
    pub interface: String,
    /// Local addresses; by default the interface's own of the target's family. They need not be the interface's, but
    /// the target needs a route to them: `ip route add PREFIX via ADDRESS`, with an address that the interface does
    /// have, so that the target's kernel finds the Ethernet address. (tidegate answers to where a segment came from.)
    pub sources: Option<Prefix>,
    /// Local ports. Addresses times ports have to be enough for the connections, and for those in TIME-WAIT.
    pub ports: RangeInclusive<u16>,
    /// The target's Ethernet address, or its router's; by default the kernel is asked.
    pub target_mac: Option<[u8; 6]>,
    /// The way the client's threads wait.
    pub wait: WaitStrategy,
    /// Back the memory of the frames by huge pages, which have to be reserved (`vm.nr_hugepages`).
    pub huge_pages: bool,
    /// Maximum segment lifetime: the client's TIME-WAIT lasts twice as long. Above zero.
    pub msl: Duration,
}

impl Settings {
    /// The defaults for an interface.
    pub fn new(interface: impl Into<String>) -> Self {
        Self {
            interface: interface.into(),
            sources: None,
            ports: 1024..=65_535,
            target_mac: None,
            wait: WaitStrategy::Spin,
            huge_pages: false,
            msl: Duration::from_secs(1),
        }
    }

    /// The local addresses for `target`, of those that the interface has, or those that were given.
    ///
    /// # Errors
    ///
    /// A [`UsageError`] when there are none of the target's family, or no ports.
    pub(crate) fn addresses(&self, target: IpAddr, interface: &InterfaceInfo) -> Result<Addresses, UsageError> {
        if self.ports.is_empty() || *self.ports.start() == 0 {
            return Err(UsageError(format!(
                "local ports {} to {}; they must be from 1 to 65535, the first not above the last",
                self.ports.start(),
                self.ports.end()
            )));
        }
        if let Some(prefix) = &self.sources {
            if prefix.is_ipv4() != target.is_ipv4() {
                return Err(UsageError(format!(
                    "{prefix} and the target {target} are of different families"
                )));
            }
            return Ok(Addresses::of(prefix));
        }
        let own = interface.addresses.iter().find(|address| match address {
            IpAddr::V4(_) => target.is_ipv4(),
            IpAddr::V6(v6) => target.is_ipv6() && !v6.is_unicast_link_local(),
        });
        own.map(|&address| Addresses::one(address)).ok_or_else(|| {
            UsageError(format!(
                "{} has no address of the family of {target}; give it one, or give the client a prefix of addresses",
                self.interface
            ))
        })
    }

    /// The pairs of local address and port of one shard: those that `steering` says are its own, or its share.
    ///
    /// # Errors
    ///
    /// A [`UsageError`] when there are fewer than it shall have `connections`.
    pub(crate) fn tuples(
        &self,
        addresses: Addresses,
        share: Share,
        connections: u32,
        steering: Option<&Arc<Steering>>,
    ) -> Result<Tuples, UsageError> {
        let tuples = Tuples::new(addresses, &self.ports, share, steering.cloned());
        if tuples.len() < connections.max(1) {
            return Err(UsageError(format!(
                "{connections} connections need as many pairs of local address and port, and there are {}; give the \
                 client a larger prefix of addresses",
                tuples.len()
            )));
        }
        Ok(tuples)
    }

    /// The AF_XDP settings for `queues` shards.
    pub(crate) fn afxdp(&self, plan: &Plan, queues: u32) -> tidegate_runtime::Config {
        tidegate_runtime::Config {
            queues: Some(queues),
            wait: self.wait,
            huge_pages: self.huge_pages,
            next_hop: if self.target_mac.is_some() {
                NextHop::Reflect
            } else {
                NextHop::Kernel
            },
            // To the CPU that the thread that starts them is bound to.
            pin_threads: plan.cpu.is_some(),
            ..tidegate_runtime::Config::default()
        }
    }

    /// The engine's settings for one shard that has `connections`, from `pairs` pairs of local address and port.
    pub(crate) fn tcp(&self, plan: &Plan, connections: u32, pairs: u32) -> tidegate_tcp::Config {
        let time_wait = TIME_WAIT_RATE * (2 * self.msl).as_millis() / 1000;
        // Not more than MAX_TIME_WAIT, so it fits.
        let time_wait = time_wait.clamp(u128::from(MIN_CLOSING), MAX_TIME_WAIT) as u32;
        let (closing, max_time_wait) = match plan.workload.on_connections() {
            _ if plan.closes_first() => (connections.max(MIN_CLOSING), time_wait.min(pairs.max(1))),
            Workload::Cps { .. } => (connections.max(MIN_CLOSING), MIN_CLOSING),
            _ => (MIN_CLOSING, MIN_CLOSING),
        };
        let send_buffer = match plan.workload {
            Workload::Throughput {
                direction: Direction::Up,
            } => UPLOAD_SEND_BUFFER,
            workload => {
                let requests = plan.http.request.to_bytes(&plan.url, false).len() * workload.pipeline() as usize;
                // Twice, since what was answered may not have been acknowledged.
                (2 * requests).clamp(MIN_SEND_BUFFER, 1 << 30) as u32
            }
        };
        tidegate_tcp::Config {
            max_connections: connections.saturating_add(closing),
            // Nothing is served.
            max_half_open: 1,
            max_time_wait,
            send_buffer,
            send_bytes_total: u64::MAX,
            user_timeout: USER_TIMEOUT,
            msl: self.msl,
            nagle: false,
            keepalive_idle: Duration::ZERO,
            // As Linux, which only agrees to it (net.ipv4.tcp_ecn = 2).
            ecn: false,
            ..tidegate_tcp::Config::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ramp;
    use crate::body::Verify;
    use crate::{Arrival, Close};

    const ALONE: Share = Share { index: 0, of: 1 };

    fn interface() -> InterfaceInfo {
        InterfaceInfo {
            mac: Some([2, 0, 0, 0, 0, 2]),
            addresses: ["198.18.0.2", "fe80::1", "2001:2::2"]
                .iter()
                .map(|address| address.parse().unwrap())
                .collect(),
            queues: 1,
            rx_queues: 1,
        }
    }

    fn plan(workload: Workload) -> Plan {
        Plan {
            url: "http://198.18.0.1/".parse().unwrap(),
            workload,
            connections: 64,
            ramp: Ramp::default(),
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(1),
            verify: Verify::default(),
            spread: None,
            arrival: Arrival::Constant,
            cpu: None,
            http: crate::HttpOptions::default(),
        }
    }

    fn target(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    #[test]
    fn by_default_the_interface_has_the_address() {
        let settings = Settings::new("tgc0");
        for (address, own) in [("198.18.0.1", "198.18.0.2"), ("2001:2::1", "2001:2::2")] {
            let found = settings.addresses(target(address), &interface()).unwrap();
            assert_eq!(found, Addresses::one(target(own)));
        }
        let bare = InterfaceInfo {
            addresses: vec![target("fe80::1")],
            ..interface()
        };
        for address in ["198.18.0.1", "2001:2::1"] {
            let error = settings.addresses(target(address), &bare).unwrap_err();
            assert!(error.0.contains("has no address of the family"), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut settings = Settings::new("tgc0");
        settings.sources = Some("198.19.0.0/24".parse().unwrap());
        assert!(settings.addresses(target("198.18.0.1"), &interface()).is_ok());
        let error = settings.addresses(target("2001:2::1"), &interface()).unwrap_err();
        assert!(error.0.contains("different families"), "{error}");
        let (first, last) = (2000, 1000);
        for ports in [0..=10, first..=last] {
            settings.ports = ports;
            let error = settings.addresses(target("198.18.0.1"), &interface()).unwrap_err();
            assert!(error.0.contains("from 1 to 65535"), "{error}");
        }
    }

    #[test]
    fn every_connection_needs_a_pair() {
        let mut settings = Settings::new("tgc0");
        settings.ports = 1024..=1123;
        let one = Addresses::one(target("198.18.0.2"));
        assert_eq!(settings.tuples(one, ALONE, 100, None).unwrap().len(), 100);
        let error = settings.tuples(one, ALONE, 101, None).unwrap_err();
        assert!(error.0.starts_with("101 connections need"), "{error}");
    }

    #[test]
    fn the_configurations_are_valid() {
        let settings = Settings::new("tgc0");
        for workload in [
            Workload::Cps { close: Close::Client },
            Workload::Cps { close: Close::Rst },
            Workload::Rps { pipeline: 64 },
            Workload::Latency { rate: 1 },
            Workload::OpenCps {
                close: Close::Client,
                rate: 1,
            },
            Workload::Throughput {
                direction: Direction::Up,
            },
            Workload::Hold,
        ] {
            let plan = plan(workload);
            for connections in [1, 5_000_000] {
                settings.tcp(&plan, connections, 64_512).validate().unwrap();
            }
            settings.afxdp(&plan, 2).validate().unwrap();
        }
    }
}
