//! Two engines over a link that loses, delays, reorders and duplicates: the active open against the passive one.

use std::collections::BinaryHeap;
use std::time::Duration;

use crate::common::*;
use bytes::Bytes;
use tidegate_tcp::Engine;
use tidegate_tcp::application::CloseReason;
use tidegate_tcp::config::Config;
use tidegate_tcp::engine::{ConnectError, OnNoFlow, Population};
use tidegate_tcp::time::Instant;
use tidegate_tcp::wire::LinkHeader;

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }
}

#[derive(Clone, Copy)]
struct Impairment {
    loss: u64,
    duplicate: u64,
    reorder: u64,
    corrupt: u64,
    delay: Duration,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct InFlight {
    arrives: std::cmp::Reverse<(Instant, u64)>,
    to_server: bool,
    frame: Vec<u8>,
}

struct Link {
    random: Random,
    impairment: Impairment,
    queue: BinaryHeap<InFlight>,
    sent: u64,
}

impl Link {
    fn carry(&mut self, now: Instant, wire: &mut Wire, to_server: bool) {
        for mut frame in wire.frames.drain(..) {
            let impairment = self.impairment;
            if self.random.percent(impairment.loss) {
                continue;
            }
            if self.random.percent(impairment.corrupt) {
                let bit = self.random.next() as usize % (frame.len() * 8);
                frame[bit / 8] ^= 1 << (bit % 8);
            }
            let copies = 1 + usize::from(self.random.percent(impairment.duplicate));
            for _ in 0..copies {
                let mut delay = impairment.delay;
                if self.random.percent(impairment.reorder) {
                    delay += impairment.delay * (self.random.next() % 300) as u32 / 100;
                }
                self.sent += 1;
                self.queue.push(InFlight {
                    arrives: std::cmp::Reverse((now + delay, self.sent)),
                    to_server,
                    frame: frame.clone(),
                });
            }
        }
    }
}

fn pattern(length: usize, seed: u64) -> Bytes {
    let mut random = Random(seed);
    (0..length).map(|_| random.next() as u8).collect::<Vec<u8>>().into()
}

/// Client sends `up`, server answers everything back and closes after the client's FIN.
fn run(seed: u64, length: usize, impairment: Impairment, ipv6: bool) {
    let config = Config {
        receive_buffer: 64 << 10,
        send_buffer: 64 << 10,
        ..config()
    };
    let data = pattern(length, seed);
    let (server_address, client_address) = if ipv6 {
        ("[2001:2::1]:7", "[2001:2::2]:40000")
    } else {
        ("198.18.0.1:7", "198.18.0.2:40000")
    };
    let mut server = Engine::new(
        config.clone(),
        secrets(seed),
        App {
            echo: true,
            close_at_end: true,
            ..App::default()
        },
    );
    server.listen(server_address.parse().unwrap());
    let mut client = Engine::new(
        config,
        secrets(seed + 1),
        App {
            greeting: data.clone(),
            shutdown_after_greeting: true,
            close_at_end: true,
            ..App::default()
        },
    );
    let mut link = Link {
        random: Random(seed ^ 0xabcd),
        impairment,
        queue: BinaryHeap::new(),
        sent: 0,
    };
    let now = Instant::from_millis(seed % 10_000);
    let (mut to_client, mut to_server) = (Wire::default(), Wire::default());
    let header = LinkHeader::new(SERVER_MAC, CLIENT_MAC, !ipv6);
    let (local, remote) = (client_address.parse().unwrap(), server_address.parse().unwrap());
    client.connect(now, local, remote, &header, &mut to_server).unwrap();
    assert_eq!(
        client.connect(now, local, remote, &header, &mut to_server),
        Err(ConnectError::InUse)
    );
    finish(
        seed,
        &mut link,
        now,
        [(&mut server, &mut to_client), (&mut client, &mut to_server)],
    );
    assert_eq!(server.application().received.len(), length, "seed {seed}");
    assert!(
        server.application().received == data,
        "seed {seed}: bytes differ at the server"
    );
    assert!(
        client.application().received == data,
        "seed {seed}: bytes differ at the client"
    );
    for engine in [&server, &client] {
        assert_eq!(engine.population(), Population::default(), "seed {seed}");
        assert_eq!(engine.reassembly_bytes(), 0, "seed {seed}");
        assert_eq!(engine.application().closed, [CloseReason::Finished], "seed {seed}");
        assert_eq!(engine.application().ends, 1, "seed {seed}");
    }
}

/// Lets server and client, each with the frames it has sent, exchange frames until there is nothing left to do.
fn finish(seed: u64, link: &mut Link, mut now: Instant, sides: [(&mut Engine<App>, &mut Wire); 2]) {
    let [(server, to_client), (client, to_server)] = sides;
    let limit = now + Duration::from_secs(3600);
    loop {
        link.carry(now, to_server, true);
        link.carry(now, to_client, false);
        let next = [
            link.queue.peek().map(|frame| frame.arrives.0.0),
            server.next_deadline(),
            client.next_deadline(),
        ];
        let Some(next) = next.into_iter().flatten().min() else {
            return;
        };
        now = now.max(next);
        assert!(now < limit, "seed {seed}: no end after an hour");
        while link.queue.peek().is_some_and(|frame| frame.arrives.0.0 <= now) {
            let arrived = link.queue.pop().unwrap();
            if arrived.to_server {
                server.receive(now, &arrived.frame, OnNoFlow::Reject, to_client);
            } else {
                client.receive(now, &arrived.frame, OnNoFlow::Reject, to_server);
            }
        }
        server.poll(now, to_client);
        client.poll(now, to_server);
    }
}

const CLEAN: Impairment = Impairment {
    loss: 0,
    duplicate: 0,
    reorder: 0,
    corrupt: 0,
    delay: Duration::from_millis(5),
};

#[test]
fn a_clean_link_carries_a_megabyte_each_way() {
    run(1, 1 << 20, CLEAN, false);
    run(2, 1 << 20, CLEAN, true);
}

#[test]
fn an_impaired_link_loses_no_byte_and_doubles_none() {
    for seed in 0..60 {
        let impairment = Impairment {
            loss: seed % 7,
            duplicate: seed % 5,
            reorder: seed % 30,
            corrupt: seed % 3,
            ..CLEAN
        };
        run(100 + seed, 100_000, impairment, seed % 2 == 0);
    }
}

#[test]
fn a_terrible_link_still_gets_everything_through() {
    for seed in 0..10 {
        let impairment = Impairment {
            loss: 20,
            duplicate: 10,
            reorder: 50,
            corrupt: 3,
            ..CLEAN
        };
        run(1000 + seed, 20_000, impairment, false);
    }
}
