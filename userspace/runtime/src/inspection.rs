//! Questions of other threads about the connections of running shards, and their end, a slice at a time.
//!
//! A shard does one slice between two turns, when its mailbox is asked for it, and keeps nothing in between: one that
//! asks and goes away leaves nothing behind, and however many connections there are, a segment waits for no more than
//! [`SLICE`] of them. Nor does one that counts or lists take more than a quarter of its time.
//!
//! [`SLICE`]: tidegate_tcp::engine::SLICE

use core::time::Duration;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use crossbeam::channel::{self, Sender};
use tidegate_tcp::State;
use tidegate_tcp::application::Application;
use tidegate_tcp::engine::{ConnectionInfo, Cursor, Engine, FlowInfo};
use tidegate_tcp::transmit::Transmit;

use crate::config::Prefix;
use crate::error::Error;
use crate::mailbox::{Command, Mailbox, OFFER_STEP};
use crate::runtime::{ANSWER_TIMEOUT, Failure};

/// The time for which connections that are to be reset wait for a frame that an RST can leave in. Then the link is
/// down, or what goes out does not keep up, and they end without.
const FRAME_TIMEOUT: Duration = Duration::from_millis(100);

/// The time that a walk leaves a shard for others after a slice, in times of the slice.
const REST: u32 = 3;

/// The most of it: a slice in which the shard had no processor is not made up for.
const MAX_REST: Duration = Duration::from_millis(5);

/// A choice of connections; the default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionFilter {
    /// Those in one of these states; empty: in any.
    pub states: Vec<State>,
    /// Those whose peer's address has this prefix.
    pub peer: Option<Prefix>,
    /// Those to this address and port of this side; with the unspecified address, to the port on any address of its
    /// family.
    pub local: Option<SocketAddr>,
}

impl ConnectionFilter {
    /// Whether it selects `flow`.
    pub fn selects(&self, flow: &FlowInfo) -> bool {
        (self.states.is_empty() || self.states.contains(&flow.state))
            && self.peer.is_none_or(|prefix| prefix.contains(flow.peer.ip()))
            && self.local.is_none_or(|local| {
                let is_any = local.ip().is_unspecified() && local.is_ipv4() == flow.local.is_ipv4();
                local.port() == flow.local.port() && (is_any || local.ip() == flow.local.ip())
            })
    }

    /// Whether it selects every connection.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

/// Numbers of connections by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateCounts([u64; State::ALL.len()]);

impl StateCounts {
    /// The number of those in `state`.
    pub fn get(&self, state: State) -> u64 {
        self.0[state as usize]
    }

    /// Every state with its number.
    pub fn iter(&self) -> impl Iterator<Item = (State, u64)> + '_ {
        State::ALL.into_iter().map(|state| (state, self.get(state)))
    }

    /// The number of all.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    fn add(&mut self, state: State) {
        self.0[state as usize] += 1;
    }
}

/// The connections of one slice of a walk that are selected.
#[derive(Clone, Debug)]
pub struct Slice {
    /// The shard they are of.
    pub shard: u32,
    /// The shard's time, from which their timers are reckoned.
    pub now: tidegate_tcp::time::Instant,
    /// Their number by state.
    pub states: StateCounts,
    /// All of them, if they were asked for.
    pub connections: Vec<ConnectionInfo>,
}

/// A request to a shard about the next slice of its connections.
#[derive(Clone, Copy, Debug)]
enum Action {
    Count,
    List,
    Reset { needs_frame: bool },
}

/// The request for one slice.
#[derive(Debug)]
pub(crate) struct SliceRequest {
    filter: Arc<ConnectionFilter>,
    from: Cursor,
    action: Action,
    /// Has room for the answer.
    reply: Sender<SliceAnswer>,
}

#[derive(Debug, Default)]
struct SliceAnswer {
    /// Time of the shard that it took.
    took: Duration,
    states: StateCounts,
    connections: Vec<ConnectionInfo>,
    now: tidegate_tcp::time::Instant,
    reset: u32,
    next: Option<Cursor>,
}

impl SliceRequest {
    /// Does what is asked for.
    pub(crate) fn answer<A: Application, T: Transmit>(
        self,
        engine: &mut Engine<A>,
        now: tidegate_tcp::time::Instant,
        out: &mut T,
    ) {
        let began = Instant::now();
        let mut answer = SliceAnswer {
            now,
            ..SliceAnswer::default()
        };
        let selects = |flow: &FlowInfo| self.filter.selects(flow);
        match self.action {
            Action::Count | Action::List => {
                let lists = matches!(self.action, Action::List);
                answer.next = engine.walk(self.from, |flow, info| {
                    if selects(flow) {
                        answer.states.add(flow.state);
                        if lists {
                            answer.connections.push(info());
                        }
                    }
                });
            }
            Action::Reset { needs_frame } => {
                (answer.reset, answer.next) = engine.reset_selected(now, self.from, needs_frame, selects, out);
            }
        }
        answer.took = began.elapsed();
        // The asking thread may have given up waiting.
        let _ = self.reply.try_send(answer);
    }
}

/// The shards of a runtime, for other threads than the one that has the [`Runtime`](crate::Runtime). It may outlive
/// that; then it finds that nobody answers.
#[derive(Clone)]
pub struct Shards {
    /// By shard.
    mailboxes: Arc<[Mailbox]>,
    failure: Arc<OnceLock<Failure>>,
}

impl Shards {
    pub(crate) fn new(mailboxes: &Arc<[Mailbox]>, failure: &Arc<OnceLock<Failure>>) -> Self {
        Self {
            mailboxes: Arc::clone(mailboxes),
            failure: Arc::clone(failure),
        }
    }

    /// The number of shards.
    pub fn len(&self) -> usize {
        self.mailboxes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.mailboxes.is_empty()
    }

    /// A walk over the connections that `filter` selects, shard by shard. One that is there during the whole walk is
    /// found at least once: twice if it changed from half-open to open, or from there to TIME-WAIT, meanwhile.
    pub fn walk(&self, filter: ConnectionFilter) -> Walk {
        Walk {
            shards: self.clone(),
            filter: Arc::new(filter),
            shard: 0,
            from: Cursor::default(),
            not_before: Instant::now(),
        }
    }

    /// Resets the connections that `filter` selects, but none in TIME-WAIT, of which nothing is left to be ended.
    /// Returns how many that were.
    ///
    /// # Errors
    ///
    /// [`Error::Shard`] when one does not answer within a second; some connections may have been reset by then.
    pub fn reset(&self, filter: ConnectionFilter) -> Result<u64, Error> {
        let filter = Arc::new(filter);
        let mut reset = 0;
        for shard in 0..self.len() {
            let mut next = Some(Cursor::default());
            let (mut needs_frame, mut moved_at) = (true, Instant::now());
            while let Some(from) = next {
                let answer = self.ask(shard, &filter, from, Action::Reset { needs_frame })?;
                reset += u64::from(answer.reset);
                if answer.next != next {
                    moved_at = Instant::now();
                } else if moved_at.elapsed() >= FRAME_TIMEOUT {
                    needs_frame = false;
                } else {
                    thread::sleep(OFFER_STEP);
                }
                next = answer.next;
            }
        }
        Ok(reset)
    }

    fn ask(
        &self,
        shard: usize,
        filter: &Arc<ConnectionFilter>,
        from: Cursor,
        action: Action,
    ) -> Result<SliceAnswer, Error> {
        let failed = |what: &str| match self.failure.get() {
            Some(failure) => failure.to_error(),
            None => Error::Shard {
                queue: shard as u32,
                what: what.to_owned(),
            },
        };
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let (reply, answer) = channel::bounded(1);
        let mut command = Command::Connections(SliceRequest {
            filter: Arc::clone(filter),
            from,
            action,
            reply,
        });
        while let Err(refused) = self.mailboxes[shard].send(command) {
            if Instant::now() >= deadline {
                return Err(failed("it takes no more commands"));
            }
            command = refused;
            thread::sleep(OFFER_STEP);
        }
        let answer = answer.recv_deadline(deadline);
        answer.map_err(|_| failed(&format!("it did not answer within {ANSWER_TIMEOUT:?}")))
    }
}

impl core::fmt::Debug for Shards {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Shards").field("count", &self.len()).finish()
    }
}

/// A walk over the connections of all shards; [`Shards::walk`] begins one.
#[derive(Clone, Debug)]
pub struct Walk {
    shards: Shards,
    filter: Arc<ConnectionFilter>,
    shard: usize,
    from: Cursor,
    /// The time until which the shard of the next slice has been left to others.
    pub(crate) not_before: Instant,
}

impl Walk {
    /// The next slice, with the connections of it if `lists`, else only their number; `None` when all shards are done.
    /// Waits as long as it takes for the slice before to have been a quarter of its shard's time, at most 5 ms.
    ///
    /// # Errors
    ///
    /// [`Error::Shard`] when one does not answer within a second.
    pub fn next_slice(&mut self, lists: bool) -> Result<Option<Slice>, Error> {
        if self.shard >= self.shards.len() {
            return Ok(None);
        }
        thread::sleep(self.not_before.saturating_duration_since(Instant::now()));
        let action = if lists { Action::List } else { Action::Count };
        let answer = self.shards.ask(self.shard, &self.filter, self.from, action)?;
        let slice = Slice {
            shard: self.shard as u32,
            now: answer.now,
            states: answer.states,
            connections: answer.connections,
        };
        if let Some(next) = answer.next {
            self.from = next;
            self.not_before = Instant::now() + (answer.took * REST).min(MAX_REST);
        } else {
            (self.shard, self.from) = (self.shard + 1, Cursor::default());
        }
        Ok(Some(slice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(local: &str, peer: &str, state: State) -> FlowInfo {
        FlowInfo {
            local: local.parse().unwrap(),
            peer: peer.parse().unwrap(),
            state,
            listener: None,
        }
    }

    #[test]
    fn a_filter_selects_by_state_peer_and_listener() {
        let v4 = flow("198.18.0.1:80", "198.18.0.2:4000", State::Established);
        let v6 = flow("[2001:2::1]:80", "[2001:2::2]:4000", State::TimeWait);
        let selects = |filter: ConnectionFilter| (filter.selects(&v4), filter.selects(&v6));
        let peer = |text: &str| ConnectionFilter {
            peer: Some(text.parse().unwrap()),
            ..ConnectionFilter::default()
        };
        let local = |text: &str| ConnectionFilter {
            local: Some(text.parse().unwrap()),
            ..ConnectionFilter::default()
        };
        let states = |states: &[State]| ConnectionFilter {
            states: states.to_vec(),
            ..ConnectionFilter::default()
        };
        assert!(ConnectionFilter::default().is_all() && !peer("0.0.0.0/0").is_all());
        assert_eq!(selects(ConnectionFilter::default()), (true, true));
        assert_eq!(selects(states(&[State::TimeWait, State::Closing])), (false, true));
        assert_eq!(selects(peer("198.18.0.0/31")), (false, false));
        assert_eq!(selects(peer("198.18.0.2")), (true, false));
        assert_eq!(selects(peer("::/0")), (false, true));
        assert_eq!(selects(peer("0.0.0.0/0")), (true, false));
        assert_eq!(selects(local("198.18.0.1:80")), (true, false));
        assert_eq!(selects(local("198.18.0.1:81")), (false, false));
        assert_eq!(selects(local("0.0.0.0:80")), (true, false));
        assert_eq!(selects(local("[::]:80")), (false, true));
    }

    #[test]
    fn states_are_counted_each_by_itself() {
        let mut counts = StateCounts::default();
        for state in State::ALL {
            counts.add(state);
        }
        counts.add(State::TimeWait);
        let mut sum = counts;
        sum.merge(&counts);
        assert_eq!((sum.get(State::TimeWait), sum.get(State::Listen)), (4, 2));
        assert_eq!((sum.total(), sum.iter().count()), (24, 11));
    }
}
