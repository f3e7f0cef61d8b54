//! Which flows the engines of a server know together: counts they share with each other and with the XDP program
//! ([`tidegate_abi::known_flows`]).

use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};
use std::sync::Arc;

use tidegate_abi::known_flows::FlowSlots;

use crate::wire::FlowKey;
use crate::wire::address::v4_octets;

/// A count that is as high as it gets stays there, since nobody knows any more when it would be zero.
const FULL: u8 = u8::MAX;

/// One engine's hold on the counts of all.
#[derive(Clone)]
pub struct KnownFlows {
    slots: FlowSlots,
    counts: Arc<dyn AsRef<[AtomicU8]> + Send + Sync>,
}

impl fmt::Debug for KnownFlows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever knows the numbers of the hash can aim at its collisions.
        f.debug_struct("KnownFlows")
            .field("slots", &self.slots.count())
            .finish_non_exhaustive()
    }
}

impl KnownFlows {
    /// The counts of `slots`, all zero at first.
    ///
    /// # Panics
    ///
    /// When there are fewer counts than slots.
    pub fn new(slots: FlowSlots, counts: Arc<dyn AsRef<[AtomicU8]> + Send + Sync>) -> Self {
        let length = (*counts).as_ref().len();
        assert!(
            length >= slots.count() as usize,
            "{length} counts of {} slots",
            slots.count()
        );
        Self { slots, counts }
    }

    /// An engine has a record of the flow from now on.
    pub(crate) fn add(&self, key: &FlowKey) {
        self.change(key, |count| (count != FULL).then(|| count + 1));
    }

    /// An engine has no record of the flow any more, which it had.
    pub(crate) fn remove(&self, key: &FlowKey) {
        self.change(key, |count| (count != FULL && count != 0).then(|| count - 1));
    }

    /// Whether an engine may have a record of the flow. Without doubt only that none has.
    pub(crate) fn may_hold(&self, key: &FlowKey) -> bool {
        self.count(key).load(Ordering::Relaxed) != 0
    }

    // The counts order nothing else: a record is in the memory of one engine alone.
    fn change(&self, key: &FlowKey, change: impl Fn(u8) -> Option<u8>) {
        // A count that does not change is as it should be.
        let _ = self
            .count(key)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    }

    fn count(&self, key: &FlowKey) -> &AtomicU8 {
        &(*self.counts).as_ref()[self.slot(key) as usize]
    }

    fn slot(&self, key: &FlowKey) -> u32 {
        let ports = (u32::from(key.remote_port) << 16 | u32::from(key.local_port)).to_be();
        if key.is_v4() {
            let [remote, local] = [&key.remote, &key.local].map(|address| u32::from_ne_bytes(v4_octets(address)));
            self.slots.v4(remote, local, ports)
        } else {
            self.slots.v6(words(&key.remote), words(&key.local), ports)
        }
    }
}

fn words(address: &[u8; 16]) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *address;
    [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known_flows(flows: u64) -> KnownFlows {
        let slots = FlowSlots::new(flows, [3, 5, 7, 11, 13, 17, 19, 23, 29, 31]);
        let counts: Vec<AtomicU8> = (0..slots.count()).map(|_| AtomicU8::new(0)).collect();
        KnownFlows::new(slots, Arc::new(counts))
    }

    fn key(port: u16) -> FlowKey {
        FlowKey::new("198.18.0.1:80".parse().unwrap(), ([198, 18, 0, 2], port).into())
    }

    #[test]
    fn a_flow_is_known_as_often_as_it_was_added() {
        let flows = known_flows(1000);
        let other = flows.clone();
        assert!(!flows.may_hold(&key(1)));
        flows.add(&key(1));
        other.add(&key(1));
        flows.remove(&key(1));
        assert!(flows.may_hold(&key(1)) && other.may_hold(&key(1)));
        other.remove(&key(1));
        assert!(!flows.may_hold(&key(1)) && !other.may_hold(&key(1)));
    }

    #[test]
    fn a_count_never_wraps() {
        // All flows share eight slots.
        let flows = known_flows(0);
        for port in 0..10_000 {
            flows.add(&key(port));
        }
        for port in 0..10_000 {
            flows.remove(&key(port));
        }
        assert!((0..100).all(|port| flows.may_hold(&key(port))), "a full count stays");
        let flows = known_flows(0);
        flows.remove(&key(1));
        assert!(!flows.may_hold(&key(1)));
    }

    #[test]
    fn addresses_are_the_words_of_the_header() {
        let flows = known_flows(1 << 20);
        let v4 = key(0x1234);
        let [client, server, ports] = [0xc612_0002_u32, 0xc612_0001, 0x1234_0050].map(u32::to_be);
        assert_eq!(flows.slot(&v4), flows.slots.v4(client, server, ports));
        let v6 = FlowKey::new("[2001:2::1]:80".parse().unwrap(), "[2001:2::3:2]:4660".parse().unwrap());
        let (client, server) = ([0x2001_0002, 0, 0, 0x0003_0002_u32], [0x2001_0002, 0, 0, 1_u32]);
        let [client, server] = [client, server].map(|address| address.map(u32::to_be));
        assert_eq!(flows.slot(&v6), flows.slots.v6(client, server, ports));
    }
}
