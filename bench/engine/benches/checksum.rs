//! The TCP checksum over a bare header with options, a request, and a full segment.
#![allow(missing_docs)]

mod common;

use std::hint::black_box;
use std::net::SocketAddr;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidegate_tcp::wire::{FlowKey, checksum};

fn tcp_checksum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("TCP checksum");
    let parse = |address: &str| -> SocketAddr { address.parse().expect("a socket address") };
    let key = FlowKey::new(parse("198.18.0.1:80"), parse("198.18.0.2:40000"));
    let segment: Vec<u8> = (0..1460_u32).map(|at| (at * 31 % 251) as u8).collect();
    for length in [40, 150, 1460] {
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_with_input(
            BenchmarkId::from_parameter(length),
            &segment[..length],
            |bencher, segment| {
                bencher.iter(|| checksum::tcp(&key.local, &key.remote, black_box(segment)));
            },
        );
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = tcp_checksum
}
criterion_main!(benches);
