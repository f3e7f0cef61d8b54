//! The connections of one thread that are being opened, as far as its application is told of them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use foldhash::fast::RandomState;
use tidegate_tcp::time::Instant;

/// The number of openings that are remembered at least before those that came to nothing are looked for.
const MIN_REMEMBERED: usize = 1 << 16;

/// A connection that is being opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening<I> {
    /// The time at which its SYN was sent, or was due in an open loop.
    pub(crate) since: Instant,
    pub(crate) id: I,
}

/// Connections that are being opened, with the time each was begun. The engine opens them unannounced, so they are
/// found by their local address; the host of the kernel's sockets announces each.
#[derive(Debug)]
pub(crate) struct Openings<I> {
    /// With the time at which the SYN was sent.
    by_address: HashMap<u64, (Instant, Opening<I>), RandomState>,
    announced: Option<Opening<I>>,
    /// The number at which those that came to nothing are looked for.
    remembered: usize,
}

impl<I> Openings<I> {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self {
            by_address: HashMap::default(),
            announced: None,
            remembered: MIN_REMEMBERED,
        }
    }

    /// The SYN of `opening` was sent from `local` at `now`. Those that were sent longer ago than `timeout` have come to
    /// nothing.
    pub(crate) fn note(&mut self, now: Instant, local: SocketAddr, opening: Opening<I>, timeout: Duration) {
        if self.by_address.len() >= self.remembered {
            self.by_address.retain(|_, (sent, _)| now.since(*sent) <= timeout);
            self.remembered = (2 * self.by_address.len()).max(MIN_REMEMBERED);
        }
        self.by_address.insert(key(local), (now, opening));
    }

    /// The next connection to be opened is `id`, which was begun at `since`.
    pub(crate) fn announce(&mut self, id: I, since: Instant) {
        self.announced = Some(Opening { since, id });
    }

    /// Returns the connection that opens now: the one that was announced, or the one from `local`.
    pub(crate) fn take(&mut self, local: impl FnOnce() -> SocketAddr) -> Option<Opening<I>> {
        let announced = self.announced.take();
        announced.or_else(|| self.by_address.remove(&key(local())).map(|(_, opening)| opening))
    }

    /// The beginnings of those that were noted and have not opened. Those that failed may be among them.
    pub(crate) fn noted(&self) -> impl Iterator<Item = Instant> + '_ {
        self.by_address.values().map(|&(sent, _)| sent)
    }

    /// The beginning of the one from `local`.
    pub(crate) fn since(&self, local: SocketAddr) -> Option<Instant> {
        self.by_address.get(&key(local)).map(|&(sent, _)| sent)
    }
}

/// A local address and port by which an opening is found again: no two of one client differ only in the upper half of
/// an IPv6 address.
fn key(local: SocketAddr) -> u64 {
    let address = match local.ip() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits() as u64,
    };
    address << 16 | u64::from(local.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings_are_told_apart_by_address_and_port() {
        let keys = [
            "198.19.0.1:1024",
            "198.19.0.1:1025",
            "198.19.1.1:1024",
            "[2001:2::1]:1024",
            "[2001:2::2]:1024",
        ];
        for (index, one) in keys.iter().enumerate() {
            for other in &keys[..index] {
                assert_ne!(key(one.parse().unwrap()), key(other.parse().unwrap()), "{one}, {other}");
            }
        }
    }
}
