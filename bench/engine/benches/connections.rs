//! Whole HTTP connections on one core: 7 segments with template clients, 6 between two engines.
#![allow(missing_docs)]

mod common;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidegate_engine_bench::{Driver, EngineServer, Pair};

/// TIME-WAIT records of an engine with default settings.
const DEFAULT_TIME_WAIT: u32 = 131_072;

fn server_side(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("whole connections of 7 segments, server side");
    group.throughput(Throughput::Elements(1));
    for size in common::sizes(&[64, 1024, 100_000]) {
        let mut driver = None;
        group.bench_function(BenchmarkId::new("engine", size), |bencher| {
            let driver = driver.get_or_insert_with(|| Driver::new(EngineServer::new(size, size), size));
            bencher.iter_custom(|iterations| driver.whole_connections(iterations).time_of(iterations));
        });
    }
    let (size, time_wait) = (common::scaled(1024), common::scaled(DEFAULT_TIME_WAIT));
    let mut driver = None;
    group.bench_function(BenchmarkId::new("engine, TIME-WAIT full", size), |bencher| {
        let driver = driver.get_or_insert_with(|| {
            let mut driver = Driver::new(EngineServer::new(size, time_wait), size);
            driver.whole_connections(u64::from(time_wait));
            driver
        });
        bencher.iter_custom(|iterations| driver.whole_connections(iterations).time_of(iterations));
    });
    group.finish();
}

fn two_engines(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("whole connections of 6 segments, two engines");
    group.throughput(Throughput::Elements(1));
    for size in common::sizes(&[64, 1024]) {
        let mut pair = None;
        group.bench_function(BenchmarkId::new("server", size), |bencher| {
            let pair = pair.get_or_insert_with(|| Pair::new(size, false));
            bencher.iter_custom(|iterations| pair.whole_connections(iterations).server.time_of(iterations));
        });
        group.bench_function(BenchmarkId::new("client", size), |bencher| {
            let pair = pair.get_or_insert_with(|| Pair::new(size, false));
            bencher.iter_custom(|iterations| pair.whole_connections(iterations).client.time_of(iterations));
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
