//! All peers of a flood: which are due to do something, and what becomes of each.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tidegate_args::UsageError;
use tidegate_random::Random;

use super::Connections;
use super::peer::{Answer, Arrival, Event, Outgoing, Peer, State};
use super::script::Script;
use super::tuples::Tuples;
use crate::plan::Plan;

/// The time the answer to a SYN is waited for before it is sent again.
const SYN_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections that are remembered where none is kept: what the server does with older ones is not counted.
const MAX_REMEMBERED: u32 = 1 << 20;

/// The peers. Everything that is sent is appended to `outgoing`, with the number of its peer.
pub(super) struct Crowd {
    pub(super) script: Box<dyn Script>,
    pub(super) tuples: Tuples,
    pub(super) counts: Connections,
    seed: u64,
    /// By the remainder of a peer's number; in the same place, one follows the other.
    peers: Vec<Peer>,
    /// The numbers that are used: so many that every place has the same number of them.
    numbers: u32,
    /// Places without a connection, those that have been so for longest first.
    vacant: VecDeque<u32>,
    /// The times at which SYNs are due to be sent again, in order, with the numbers of their peers.
    opening: VecDeque<(Instant, u32)>,
    /// The times at which the intervals of peers are over, in order, with their numbers.
    intervals: VecDeque<(Instant, u32)>,
}

impl Crowd {
    /// The peers of `plan`, none of which has begun.
    ///
    /// # Errors
    ///
    /// There are fewer pairs of address and port than connections.
    pub(super) fn new(script: Box<dyn Script>, plan: &Plan) -> Result<Self, UsageError> {
        let tuples = Tuples::new(&plan.sources());
        let count = if script.is_kept() {
            plan.connections
        } else {
            MAX_REMEMBERED.min(tuples.len())
        };
        if tuples.len() < count {
            return Err(UsageError(format!(
                "{count} connections need as many pairs of address and port, and {} has {}; give a shorter prefix",
                plan.sources(),
                tuples.len()
            )));
        }
        let numbers = tuples.len() / count * count;
        // What follows the last one of each place is its first.
        let peers = (numbers - count..numbers).map(Peer::closed);
        Ok(Self {
            script,
            tuples,
            counts: Connections::default(),
            seed: plan.seed,
            peers: peers.collect(),
            numbers,
            vacant: (0..count).collect(),
            opening: VecDeque::new(),
            intervals: VecDeque::new(),
        })
    }

    /// Begins up to `count` connections, as far as there are places without one, and `outgoing` grows to `room` at
    /// most.
    pub(super) fn begin(&mut self, now: Instant, count: u32, room: usize, outgoing: &mut Vec<(u32, Outgoing)>) {
        for _ in 0..count {
            if outgoing.len() >= room {
                break;
            }
            let Some(place) = self.vacant.pop_front() else { break };
            let following = self.peers[place as usize].number + self.peers.len() as u32;
            let number = if following < self.numbers { following } else { place };
            let iss = Random::new(self.seed ^ u64::from(number)).word() as u32;
            let peer = Peer::new(number, iss);
            outgoing.push((number, peer.syn(&*self.script)));
            self.peers[place as usize] = peer;
            self.opening.push_back((now + SYN_TIMEOUT, number));
            self.counts.begun += 1;
        }
    }

    /// Takes a segment for the peer with this number.
    pub(super) fn segment_arrives(
        &mut self,
        now: Instant,
        number: u32,
        arrival: &Arrival,
        outgoing: &mut Vec<(u32, Outgoing)>,
    ) {
        let place = self.place(number);
        let is_kept = self.script.is_kept();
        let peer = &mut self.peers[place as usize];
        if peer.number != number || peer.state == State::Closed {
            // The RST that let go of it was lost, or it is left of an earlier flood (RFC 9293, section 3.10.7.1).
            if is_kept && let Some(seq) = arrival.reset_seq() {
                outgoing.push((number, Outgoing::reset(seq)));
            }
            return;
        }
        let before = peer.state;
        let (event, answer) = peer.segment_arrives(arrival, &*self.script);
        match answer {
            Some(Answer::Segment) => outgoing.push((number, peer.segment(&*self.script))),
            Some(Answer::Reset(seq)) => outgoing.push((number, Outgoing::reset(seq))),
            None => {}
        }
        match event {
            Some(Event::Completed) => {
                self.counts.completed += 1;
                if !is_kept {
                    self.vacant.push_back(place);
                    return;
                }
                self.counts.kept += 1;
                if let Some(interval) = self.script.interval() {
                    self.intervals.push_back((now + interval, number));
                }
            }
            Some(Event::Reset) => self.counts.reset += 1,
            Some(Event::Ended) => self.counts.ended += 1,
            None => return,
        }
        if peer.state == State::Closed {
            match before {
                State::Established if !is_kept => return,
                State::Established => self.counts.kept -= 1,
                _ => {}
            }
            self.vacant.push_back(place);
        }
    }

    /// Sends what is due by itself, until `outgoing` has grown to `room`.
    pub(super) fn time_passes(&mut self, now: Instant, room: usize, outgoing: &mut Vec<(u32, Outgoing)>) {
        while outgoing.len() < room
            && let Some(number) = pop_due(&mut self.opening, now)
        {
            let place = self.place(number);
            let peer = &mut self.peers[place as usize];
            if peer.number != number || peer.state != State::SynSent {
                continue;
            }
            if peer.retries() {
                outgoing.push((number, peer.syn(&*self.script)));
                self.opening.push_back((now + SYN_TIMEOUT, number));
            } else {
                self.counts.unanswered += 1;
                self.vacant.push_back(place);
            }
        }
        let Some(interval) = self.script.interval() else { return };
        while outgoing.len() < room
            && let Some(number) = pop_due(&mut self.intervals, now)
        {
            let place = self.place(number);
            let peer = &mut self.peers[place as usize];
            if peer.number != number || peer.state != State::Established {
                continue;
            }
            peer.interval_passes(&*self.script);
            outgoing.push((number, peer.segment(&*self.script)));
            self.intervals.push_back((now + interval, number));
        }
    }

    fn place(&self, number: u32) -> u32 {
        number % self.peers.len() as u32
    }
}

/// The number of the first in `queue`, if that is due.
fn pop_due(queue: &mut VecDeque<(Instant, u32)>, now: Instant) -> Option<u32> {
    let &(due, number) = queue.front()?;
    (due <= now).then(|| {
        queue.pop_front();
        number
    })
}
