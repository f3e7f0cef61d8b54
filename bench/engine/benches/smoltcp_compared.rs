//! smoltcp under the workloads of `connections` and `requests`, with the same clients and responses.
#![allow(missing_docs)]

mod common;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidegate_engine_bench::{Driver, SmoltcpServer};

fn connections(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("whole connections of 7 segments, server side");
    group.throughput(Throughput::Elements(1));
    for size in common::sizes(&[64, 1024]) {
        let mut driver = None;
        group.bench_function(BenchmarkId::new("smoltcp", size), |bencher| {
            let driver = driver.get_or_insert_with(|| Driver::new(SmoltcpServer::new(size), size));
            bencher.iter_custom(|iterations| driver.whole_connections(iterations).time_of(iterations));
        });
    }
    group.finish();
}

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("keep-alive requests, server side");
    group.throughput(Throughput::Elements(1));
    for size in common::sizes(&[64, 1024]) {
        let mut driver = None;
        group.bench_function(BenchmarkId::new("smoltcp", size), |bencher| {
            let driver = driver.get_or_insert_with(|| {
                let mut driver = Driver::new(SmoltcpServer::new(size), size);
                driver.open_all();
                driver
            });
            bencher.iter_custom(|iterations| driver.requests(iterations).time_of(iterations));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = connections, requests
}
criterion_main!(benches);
