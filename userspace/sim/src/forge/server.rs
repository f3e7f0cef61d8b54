//! The engine that forged acknowledgments are sent to.

use std::net::SocketAddr;

use tidegate_abi::siphash::Key;
use tidegate_abi::syn_cookie::{Accepted, Keys};
use tidegate_random::Random;
use tidegate_tcp::application::{Application, CloseReason, Stream};
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::{Cookies, OnNoFlow, Secrets};
use tidegate_tcp::time::Instant;
use tidegate_tcp::transmit::{Purpose, Transmit};
use tidegate_tcp::{Config, Engine};

use super::acknowledgment::{PORTS, servers};

/// The epoch in which guesses are made.
pub(super) const EPOCH: u64 = 58_000_000;

/// An engine that accepts the cookies of one secret.
pub(super) struct Server {
    engine: Engine<Accept>,
    sink: Sink,
    now: Instant,
    rst_rate: u32,
    accepted: Accepted,
}

impl Server {
    pub(super) fn new(random: &mut Random, secret: Key, accepted: Accepted) -> Self {
        let config = Config {
            max_connections: 1 << 16,
            max_half_open: 16,
            max_time_wait: 16,
            verify_checksums: false,
            ..Config::default()
        };
        let secrets = Secrets {
            isn: Key(random.word(), random.word()),
            table: Key(random.word(), random.word()),
        };
        let rst_rate = config.rst_rate;
        let mut engine = Engine::new(config, secrets, Accept);
        for ip in servers(true).into_iter().chain(servers(false)) {
            for port in PORTS {
                engine.listen(SocketAddr::new(ip, port));
            }
        }
        let mut server = Self {
            engine,
            sink: Sink([0; 2048]),
            now: Instant::ZERO,
            rst_rate,
            accepted,
        };
        server.set_epoch(secret, EPOCH);
        server
    }

    pub(super) fn set_epoch(&mut self, secret: Key, epoch: u64) {
        self.engine.set_cookies(Some(Cookies {
            keys: Keys::new(secret, epoch, false),
            accepted: self.accepted,
            shard: 0,
            shards: 1,
        }));
    }

    /// A frame a microsecond.
    pub(super) fn receive(&mut self, frame: &[u8]) {
        self.now = Instant::from_micros(self.now.as_micros() + 1);
        self.engine.receive(self.now, frame, OnNoFlow::Reject, &mut self.sink);
    }

    /// The value of this counter.
    pub(super) fn count(&self, counter: Counter) -> u64 {
        self.engine.counters().get(counter)
    }

    /// RSTs that may have been sent so far: half as many again as the rate in each second, of which the first and the
    /// last may only be parts.
    pub(super) fn resets_allowed(&self) -> u64 {
        let rate = u64::from(self.rst_rate);
        (rate + rate.div_ceil(2)) * (1 + self.now.as_millis().div_ceil(1000))
    }

    /// The cookies that are accepted.
    pub(super) fn accepted_cookies(&self) -> Accepted {
        self.accepted
    }

    /// Cookies that were found to be genuine.
    pub(super) fn accepted(&self) -> u64 {
        self.count(Counter::CookieConnections) + self.count(Counter::DropConnectionsFull)
    }

    pub(super) fn close_all(&mut self) {
        self.engine.abort_all(self.now, &mut self.sink);
        while self.engine.is_sweeping() {
            self.engine.poll(self.now, &mut self.sink);
        }
    }
}

/// Takes frames and forgets them.
struct Sink([u8; 2048]);

impl Transmit for Sink {
    fn reserve(&mut self, _: Purpose) -> Option<&mut [u8]> {
        Some(&mut self.0)
    }

    fn commit(&mut self, _: usize) {}
}

/// Accepts connections and does nothing with them.
struct Accept;

impl Application for Accept {
    type Connection = ();

    fn open<S: Stream>(&mut self, _: &mut S) {}

    fn receive<S: Stream>(&mut self, _: &mut (), _: &mut S, data: &[u8]) -> usize {
        data.len()
    }

    fn end_of_stream<S: Stream>(&mut self, _: &mut (), _: &mut S) {}

    fn writable<S: Stream>(&mut self, _: &mut (), _: &mut S) {}

    fn timeout<S: Stream>(&mut self, _: &mut (), _: &mut S) {}

    fn drain<S: Stream>(&mut self, _: &mut (), _: &mut S) {}

    fn closed(&mut self, _: (), _: CloseReason) {}
}
