//! Requests on persistent connections on one core: the request comes with the acknowledgment of the last response.
#![allow(missing_docs)]

mod common;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidegate_engine_bench::{Driver, EngineServer, Pair};

fn server_side(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("keep-alive requests, server side");
    group.throughput(Throughput::Elements(1));
    for size in common::sizes(&[64, 1024, 100_000]) {
        let mut driver = None;
        group.bench_function(BenchmarkId::new("engine", size), |bencher| {
            let driver = driver.get_or_insert_with(|| {
                let mut driver = Driver::new(EngineServer::new(size, 1), size);
                driver.open_all();
                driver
            });
            bencher.iter_custom(|iterations| driver.requests(iterations).time_of(iterations));
        });
    }
    group.finish();
}

fn two_engines(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("keep-alive requests, two engines");
    group.throughput(Throughput::Elements(1));
    for size in common::sizes(&[64, 1024]) {
        let open = || {
            let mut pair = Pair::new(size, true);
            pair.open_all();
            pair
        };
        let mut pair = None;
        group.bench_function(BenchmarkId::new("server", size), |bencher| {
            let pair = pair.get_or_insert_with(open);
            bencher.iter_custom(|iterations| pair.requests(iterations).server.time_of(iterations));
        });
        group.bench_function(BenchmarkId::new("client", size), |bencher| {
            let pair = pair.get_or_insert_with(open);
            bencher.iter_custom(|iterations| pair.requests(iterations).client.time_of(iterations));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = server_side, two_engines
}
criterion_main!(benches);
