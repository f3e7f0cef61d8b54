//! The SYN-cookie codec: making a cookie, and checking genuine and forged ones.
#![allow(missing_docs)]

mod common;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate_abi::siphash::Key;
use tidegate_abi::syn_cookie::{Accepted, Addresses, Content, Handshake, Keys, Options, make};

const OPTIONS: Options = Options {
    mss_index: 7,
    window_scale: 7,
    sack_permitted: true,
    ecn: false,
};

/// The server's timestamp clock, in milliseconds.
const CLOCK: u32 = 1_000_000;

fn handshake(addresses: Addresses) -> Handshake {
    Handshake {
        addresses,
        client_port: 40_000,
        server_port: 80,
        client_isn: 0x1234_5678,
        timestamps: true,
    }
}

fn cookie(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("SYN cookie");
    group.throughput(Throughput::Elements(1));
    let keys = Keys::new(Key(1, 2), 7, false);
    let (key, key_id) = keys.current();
    let (mut client, mut server) = ([0; 16], [0; 16]);
    client[..4].copy_from_slice(&[0x20, 0x01, 0, 2]);
    server[..4].copy_from_slice(&[0x20, 0x01, 0, 2]);
    client[15] = 2;
    server[15] = 1;
    for (family, addresses) in [
        ("IPv4", Addresses::v4([198, 18, 0, 2], [198, 18, 0, 1])),
        ("IPv6", Addresses::v6(client, server)),
    ] {
        let handshake = handshake(addresses);
        group.bench_function(format!("make, {family}"), |bencher| {
            bencher.iter(|| {
                let cookie = make(key, key_id, black_box(&handshake), black_box(Content::Options(OPTIONS)));
                (cookie.isn, cookie.timestamp(black_box(CLOCK)))
            });
        });
        let cookie = make(key, key_id, &handshake, Content::Options(OPTIONS));
        let (isn, echo) = (cookie.isn, cookie.timestamp(CLOCK));
        assert!(keys.check(&handshake, isn, Some(echo), Accepted::All).is_some());
        group.bench_function(format!("check a genuine one, {family}"), |bencher| {
            bencher.iter(|| {
                keys.check(
                    black_box(&handshake),
                    black_box(isn),
                    black_box(Some(echo)),
                    Accepted::All,
                )
            });
        });
        let forged = isn ^ 1;
        assert!(keys.check(&handshake, forged, Some(echo), Accepted::All).is_none());
        group.bench_function(format!("check a forged one, {family}"), |bencher| {
            bencher.iter(|| {
                keys.check(
                    black_box(&handshake),
                    black_box(forged),
                    black_box(Some(echo)),
                    Accepted::All,
                )
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = cookie
}
criterion_main!(benches);
