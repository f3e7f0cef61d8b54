//! Runs a fixed amount of work for callgrind, which counts what happens within one function here; see
//! `scripts/bench-instructions.sh`. Prints the number of operations that were done within it.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tidegate_abi::siphash::Key;
use tidegate_abi::syn_cookie::{self, Accepted, Addresses, Content, Handshake, Keys};
use tidegate_engine_bench::{Burst, Driver, EngineServer, Frames, Page, Server};
use tidegate_tcp::time::Instant;
use tidegate_tcp::timer_wheel::TimerWheel;
use tidegate_tcp::wire::{FlowKey, checksum};

/// Operations of workloads without connections.
const OPERATIONS: u32 = 10_000;

#[derive(Parser)]
#[command(about = "Runs a fixed amount of work, for callgrind to count its instructions")]
struct Arguments {
    workload: Workload,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Workload {
    /// Whole connections of 7 segments, 64 at a time
    Connection,
    /// Requests on 64 persistent connections
    Request,
    /// Requests on 1,024 persistent connections
    #[value(name = "request_1024")]
    Request1024,
    /// Making a SYN cookie
    CookieMake,
    /// Checking a genuine SYN cookie
    CookieCheck,
    /// The TCP checksum of a full segment
    Checksum,
    /// Arming a timer, moving it back, cancelling it or letting it fire
    Timer,
}

fn main() {
    let operations = match Arguments::parse().workload {
        Workload::Connection => connections(),
        Workload::Request => requests(64),
        Workload::Request1024 => requests(1024),
        Workload::CookieMake => cookie_make(),
        Workload::CookieCheck => cookie_check(),
        Workload::Checksum => tcp_checksum(),
        Workload::Timer => timers(),
    };
    println!("{operations}");
}

/// The function callgrind is told to count. Its name is in the script, and in no other function's.
#[inline(never)]
fn counted_by_callgrind(work: &mut dyn FnMut()) {
    work();
    // Keeps the call above from becoming a jump, after which this function would not be on the stack.
    black_box(());
}

/// A server whose work is counted once it is told to.
struct Counted {
    server: EngineServer,
    counting: bool,
}

impl Server for Counted {
    fn deliver(&mut self, now: Instant, burst: Burst<'_>, out: &mut Frames) {
        if self.counting {
            counted_by_callgrind(&mut || self.server.deliver(now, burst, out));
        } else {
            self.server.deliver(now, burst, out);
        }
    }
}

fn driver(connections: u32) -> Driver<Counted> {
    let server = Counted {
        // Valgrind of 2022 and before does not know openat2, by which files are opened.
        server: EngineServer::with_page(Page::BuiltIn, connections, connections),
        counting: false,
    };
    Driver::new(server, connections)
}

fn connections() -> u64 {
    let mut driver = driver(64);
    driver.whole_connections(20 * 64);
    driver.server_mut().counting = true;
    driver.whole_connections(50 * 64).operations
}

fn requests(connections: u32) -> u64 {
    let mut driver = driver(connections);
    driver.open_all();
    driver.requests(5 * u64::from(connections));
    driver.server_mut().counting = true;
    driver.requests(5 * 1024).operations
}

fn handshake() -> Handshake {
    Handshake {
        addresses: Addresses::v4([198, 18, 0, 2], [198, 18, 0, 1]),
        client_port: 40_000,
        server_port: 80,
        client_isn: 0x1234_5678,
        timestamps: true,
    }
}

const COOKIE_OPTIONS: syn_cookie::Options = syn_cookie::Options {
    mss_index: 7,
    window_scale: 7,
    sack_permitted: true,
    ecn: false,
};

fn cookie_make() -> u64 {
    let (key, key_id) = Keys::new(Key(1, 2), 7, false).current();
    let handshake = handshake();
    repeat(&mut || {
        let cookie = syn_cookie::make(
            key,
            key_id,
            black_box(&handshake),
            black_box(Content::Options(COOKIE_OPTIONS)),
        );
        black_box(cookie);
    })
}

fn cookie_check() -> u64 {
    let keys = Keys::new(Key(1, 2), 7, false);
    let (key, key_id) = keys.current();
    let handshake = handshake();
    let cookie = syn_cookie::make(key, key_id, &handshake, Content::Options(COOKIE_OPTIONS));
    let echo = cookie.timestamp(1_000_000);
    repeat(&mut || {
        black_box(keys.check(
            black_box(&handshake),
            black_box(cookie.isn),
            black_box(Some(echo)),
            Accepted::All,
        ));
    })
}

fn tcp_checksum() -> u64 {
    let parse = |address: &str| -> SocketAddr { address.parse().expect("a socket address") };
    let key = FlowKey::new(parse("198.18.0.1:80"), parse("198.18.0.2:40000"));
    let segment = [0x5a_u8; 1460];
    repeat(&mut || {
        black_box(checksum::tcp(&key.local, &key.remote, black_box(&segment[..])));
    })
}

fn repeat(work: &mut dyn FnMut()) -> u64 {
    counted_by_callgrind(&mut || {
        for _ in 0..OPERATIONS {
            work();
        }
    });
    u64::from(OPERATIONS)
}

fn timers() -> u64 {
    let mut wheel = TimerWheel::default();
    let mut random = fastrand::Rng::with_seed(1);
    let deadlines: Vec<Instant> = (0..OPERATIONS)
        .map(|_| Instant::from_micros(random.u64(..75_000_000)))
        .collect();
    let mut left = usize::MAX;
    // The wheel grows outside of what is counted.
    for id in 0..OPERATIONS {
        wheel.arm(id, Instant::ZERO);
        wheel.cancel(id);
    }
    counted_by_callgrind(&mut || {
        for (id, &deadline) in (0..OPERATIONS).zip(&deadlines) {
            wheel.arm(id, deadline);
            wheel.arm_no_later(id, deadline + Duration::from_secs(1));
            if id % 2 == 0 {
                wheel.cancel(id);
            }
        }
        while let Some(id) = wheel.fire(Instant::from_millis(75_000), &mut left) {
            black_box(id);
        }
    });
    assert_eq!(wheel.armed(), 0, "timers are left");
    u64::from(OPERATIONS)
}
