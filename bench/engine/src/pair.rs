//! Two engines back to back: what the server costs, and what the client does.
//!
//! Unlike template clients, an engine offers timestamps, so segments of both directions carry them here.

use core::ops::AddAssign;

use tidegate_tcp::time::Instant;
use tidegate_tcp::wire::LinkHeader;
use tidegate_tcp::{Config, Engine};

use crate::addresses::{CLIENT_MAC, CLIENTS, Endpoint, SERVER, SERVER_MAC};
use crate::cost::Cost;
use crate::driver::{BURST_TIME, START};
use crate::frames::{BURST, Burst, Frames};
use crate::getter::Getter;
use crate::server::{EngineServer, Server, deliver, secrets};

/// The cost of each side; both count the same operations.
#[derive(Clone, Copy, Debug, Default)]
pub struct SplitCost {
    /// The accepting side.
    pub server: Cost,
    /// The opening side.
    pub client: Cost,
}

impl AddAssign for SplitCost {
    fn add_assign(&mut self, other: Self) {
        self.server += other.server;
        self.client += other.client;
    }
}

impl SplitCost {
    fn add_operations(&mut self, operations: u64) {
        self.server.operations += operations;
        self.client.operations += operations;
    }
}

/// A server's engine and a client's, and the frames between them.
pub struct Pair {
    server: EngineServer,
    client: Engine<Getter>,
    to_server: Frames,
    to_client: Frames,
    now: Instant,
    flows: u32,
    /// Number of the next connection's client.
    next: u64,
}

impl Pair {
    /// Two engines with nothing open; there will be `flows` connections at a time, which stay open after a response
    /// (`persistent`) or do not.
    pub fn new(flows: u32, persistent: bool) -> Self {
        let config = Config {
            max_connections: flows,
            max_half_open: 1,
            max_time_wait: 1,
            ..Config::default()
        };
        // A segment of every connection and what timers send.
        let frames = flows as usize + BURST;
        Self {
            server: EngineServer::new(flows, flows),
            client: Engine::new(config, secrets(2), Getter::new(persistent)),
            to_server: Frames::with_capacity(frames),
            to_client: Frames::with_capacity(frames),
            now: START,
            flows,
            next: 0,
        }
    }

    /// Opens every connection and sends the first request on each, for [`Pair::requests`]. An operation is a handshake.
    ///
    /// # Panics
    ///
    /// If connections are open already.
    pub fn open_all(&mut self) -> SplitCost {
        let mut cost = SplitCost {
            client: self.connect(),
            ..SplitCost::default()
        };
        cost += self.round();
        cost.add_operations(u64::from(self.flows));
        cost
    }

    /// Requests on the open connections, at least so many. An operation is a request of 2 segments.
    ///
    /// # Panics
    ///
    /// If a request is not answered.
    pub fn requests(&mut self, at_least: u64) -> SplitCost {
        let mut cost = SplitCost::default();
        while cost.server.operations < at_least {
            let before = self.client.application().responses();
            cost += self.round();
            let answered = self.client.application().responses() - before;
            assert_eq!(
                answered,
                u64::from(self.flows),
                "responses to a request on each connection"
            );
            cost.add_operations(answered);
        }
        cost
    }

    /// Whole connections, at least so many, `flows` at a time. An operation is a connection of 6 segments: SYN;
    /// SYN-ACK; ACK with request; response with FIN; FIN; ACK.
    ///
    /// # Panics
    ///
    /// If a connection does not come to its end.
    pub fn whole_connections(&mut self, at_least: u64) -> SplitCost {
        let mut cost = SplitCost::default();
        while cost.server.operations < at_least {
            let before = self.client.application().responses();
            cost.client += self.connect();
            while !self.to_server.is_empty() {
                cost += self.round();
            }
            let answered = self.client.application().responses() - before;
            let open = self.client.population().connections;
            assert_eq!(
                (answered, open),
                (u64::from(self.flows), 0),
                "responses and open connections"
            );
            cost.add_operations(answered);
        }
        cost
    }

    /// The client sends a SYN from each of `flows` new addresses.
    fn connect(&mut self) -> Cost {
        let link = LinkHeader::new(SERVER_MAC, CLIENT_MAC, true);
        if self.next + u64::from(self.flows) > CLIENTS {
            self.next = 0;
        }
        let end = self.next + u64::from(self.flows);
        let mut cost = Cost::default();
        self.to_server.clear();
        while self.next < end {
            self.now = self.now + BURST_TIME;
            let last = end.min(self.next + BURST as u64);
            cost += Cost::of(0, &mut self.to_server, |out| {
                for number in self.next..last {
                    let local = Endpoint::of_client(number).socket_address();
                    self.client
                        .connect(self.now, local, SERVER, &link, out)
                        .expect("connections are open already");
                }
            });
            self.next = last;
        }
        cost
    }

    /// Delivers the frames on their way to the server, then those on their way to the client.
    fn round(&mut self) -> SplitCost {
        self.to_client.clear();
        let server = carry(
            &mut self.now,
            &self.to_server,
            &mut self.to_client,
            |now, burst, out| {
                self.server.deliver(now, burst, out);
            },
        );
        self.to_server.clear();
        let client = carry(
            &mut self.now,
            &self.to_client,
            &mut self.to_server,
            |now, burst, out| {
                deliver(&mut self.client, now, burst, out);
            },
        );
        SplitCost { server, client }
    }
}

/// Has `frames` delivered burst by burst.
fn carry(
    now: &mut Instant,
    frames: &Frames,
    out: &mut Frames,
    mut deliver: impl FnMut(Instant, Burst<'_>, &mut Frames),
) -> Cost {
    let mut cost = Cost::default();
    for burst in frames.bursts() {
        *now = *now + BURST_TIME;
        cost += Cost::of(burst.len(), out, |out| deliver(*now, burst, out));
    }
    cost
}
