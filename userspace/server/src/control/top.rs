//! The command `top`: counters, states and busiest peers, every interval until the client leaves.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use tidegate_control::{Latency, Peer, Top};
use tidegate_runtime::{ConnectionFilter, Slice, StateCounts, Walk};
use tidegate_tcp::State;
use tidegate_tcp::engine::SLICE;

use super::Client;
use super::connections::{Target, by_name};
use super::counters::{Counted, Latencies};
use crate::admin::latency;

/// The least and the longest interval, in milliseconds.
const INTERVALS: core::ops::RangeInclusive<u64> = 100..=60_000;

/// Slices of connections that are looked at in an interval, at most: 32,768 connections, which take the shards some ten
/// milliseconds together, and with the rests between them four times as long.
const MAX_SLICES: usize = 32_768 / SLICE;

/// Peers that are told of.
const PEERS: usize = 20;

/// Peers that are remembered, at most.
const MAX_PEERS: usize = 65_536;

/// Replies every `interval_ms` milliseconds until the client leaves, or something goes wrong.
///
/// # Errors
///
/// The client has left.
pub(super) fn run(client: &Client<'_>, interval_ms: u64) -> io::Result<()> {
    if !INTERVALS.contains(&interval_ms) {
        return client.answer(Err::<(), _>(format!(
            "interval_ms is {interval_ms}; it can be {} to {}",
            INTERVALS.start(),
            INTERVALS.end()
        )));
    }
    let interval = Duration::from_millis(interval_ms);
    let mut sampler = Sampler::default();
    let mut before = None;
    loop {
        let began = Instant::now();
        let top = snapshot(client, &mut sampler, &mut before);
        let failed = top.is_err();
        client.answer(top)?;
        if failed {
            return Ok(());
        }
        thread::sleep(interval.saturating_sub(began.elapsed()));
    }
}

fn snapshot(client: &Client<'_>, sampler: &mut Sampler, before: &mut Option<Latencies>) -> Result<Top, String> {
    let counted = Counted::read(client)?;
    let now = counted.latencies.clone();
    let latencies_us = since(before.as_ref().unwrap_or(&now), &now)?;
    *before = Some(now);
    let begin = || Some(Target::of(client).ok()?.shards.walk(ConnectionFilter::default()));
    sampler.look(begin).map_err(|error| error.to_string())?;
    let round = sampler.shown();
    Ok(Top {
        counters: counted.into_counters().counters,
        latencies_us,
        states: by_name(&round.states),
        complete: round.complete,
        peers: round.peers.busiest(PEERS),
    })
}

/// The measurements between the two.
fn since(before: &Latencies, now: &Latencies) -> Result<BTreeMap<String, Latency>, String> {
    let measured = [
        ("rtt", &before.rtt, &now.rtt),
        ("accept", &before.accept, &now.accept),
        ("response", &before.response, &now.response),
    ];
    let told = measured.into_iter().map(|(name, before, now)| {
        let latency = serde_json::from_value(latency(before, now)).map_err(|error| error.to_string())?;
        Ok((name.to_owned(), latency))
    });
    told.collect()
}

/// Looks at the connections in rounds: each ends when all of them have been looked at, in one interval or several.
#[derive(Default)]
struct Sampler {
    walk: Option<Walk>,
    current: Round,
    /// The last one that has ended.
    last: Option<Round>,
}

/// The findings of a round.
#[derive(Default)]
struct Round {
    states: StateCounts,
    peers: Peers,
    /// It took one interval.
    complete: bool,
}

impl Sampler {
    /// Looks at the next connections, those of a new walk if the last has ended. Without one there are none: the
    /// interfaces are gone, though there are counters all the same.
    fn look(&mut self, begin: impl FnOnce() -> Option<Walk>) -> Result<(), tidegate_runtime::Error> {
        let began_now = self.walk.is_none();
        if began_now {
            self.walk = begin();
        }
        let Some(walk) = &mut self.walk else { return Ok(()) };
        for _ in 0..MAX_SLICES {
            match walk.next_slice(true) {
                Ok(Some(slice)) => self.current.add(&slice),
                Ok(None) => {
                    self.current.complete = began_now;
                    self.last = Some(core::mem::take(&mut self.current));
                    self.walk = None;
                    return Ok(());
                }
                Err(error) => {
                    *self = Self::default();
                    // One that began earlier may be of a runtime that is over; the next one asks that of then.
                    return if began_now { Err(error) } else { Ok(()) };
                }
            }
        }
        Ok(())
    }

    /// The last round, or the first while it goes on.
    fn shown(&self) -> &Round {
        self.last.as_ref().unwrap_or(&self.current)
    }
}

impl Round {
    fn add(&mut self, slice: &Slice) {
        self.states.merge(&slice.states);
        for info in &slice.connections {
            if let Some(transfer) = &info.transfer
                && info.state != State::SynSent
            {
                self.peers
                    .add(info.peer.ip(), transfer.bytes_received, transfer.bytes_sent);
            }
        }
    }
}

/// Open connections by the peer's address, of a bounded number of them.
#[derive(Default)]
struct Peers(HashMap<IpAddr, Peer>);

impl Peers {
    fn add(&mut self, address: IpAddr, received: u64, sent: u64) {
        if self.0.len() >= MAX_PEERS && !self.0.contains_key(&address) {
            // Those with least cannot be among the busiest but by what is still to come.
            self.0 = self
                .busiest(MAX_PEERS / 2)
                .into_iter()
                .map(|peer| (peer.address, peer))
                .collect();
        }
        let peer = self.0.entry(address).or_insert(Peer {
            address,
            connections: 0,
            bytes_received: 0,
            bytes_sent: 0,
        });
        peer.connections += 1;
        peer.bytes_received += received;
        peer.bytes_sent += sent;
    }

    /// Those with most bytes, the busiest first.
    fn busiest(&self, count: usize) -> Vec<Peer> {
        let mut peers: Vec<Peer> = self.0.values().copied().collect();
        peers.sort_by_key(|peer| core::cmp::Reverse((peer.bytes_received + peer.bytes_sent, peer.address)));
        peers.truncate(count);
        peers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_of_the_interval() {
        let mut before = Latencies::default();
        before.rtt.record(100_000);
        let mut now = before.clone();
        now.rtt.record(100);
        let since = since(&before, &now).unwrap();
        assert_eq!((since["rtt"].count, since["accept"].count), (1, 0));
        assert!(since["rtt"].p99.is_some_and(|p99| p99 < 200) && since["accept"].p99.is_none());
    }

    #[test]
    fn the_busiest_peers_come_first_and_few_are_remembered() {
        let mut peers = Peers::default();
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        for number in 0..200_000 {
            peers.add(address(number), u64::from(number % 100), 1);
            assert!(peers.0.len() <= MAX_PEERS);
        }
        for _ in 0..2 {
            peers.add(address(7), 1_000_000, 0);
        }
        let busiest = peers.busiest(3);
        assert_eq!(busiest.len(), 3);
        assert_eq!(
            (busiest[0].address, busiest[0].bytes_received >= 2_000_000),
            (address(7), true)
        );
        assert_eq!(busiest[1].bytes_received, 99);
    }
}
