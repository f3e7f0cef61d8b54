//! The cost of a segment by the number of established connections, which come in random order: request, response and
//! acknowledgment. Five million connections only with `TIDEGATE_BENCH_LARGE=1`, for they take gigabytes.
#![allow(missing_docs)]

mod common;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidegate_engine_bench::{BURST, Driver, EngineServer, is_large_run};

/// Bursts until the timers that every request leaves behind fire as often as they are set: more than a retransmission
/// timeout at 20 microseconds a burst and its acknowledgments.
const SETTLE: u64 = 12_000;

fn segments(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("segment among established connections");
    group.throughput(Throughput::Elements(1));
    let mut sizes = vec![1024, 100_000];
    if is_large_run() {
        sizes.push(5_000_000);
    }
    for size in common::sizes(&sizes) {
        let mut driver = None;
        group.bench_function(BenchmarkId::new("engine", size), |bencher| {
            let driver = driver.get_or_insert_with(|| {
                let mut driver = Driver::new(EngineServer::new(size, 1), size);
                driver.open_all();
                driver.random_segments(if common::is_measuring() { SETTLE } else { 1 });
                driver
            });
            bencher.iter_custom(|iterations| {
                let bursts = iterations.div_ceil(3 * BURST as u64);
                driver.random_segments(bursts).time_of_segments(iterations)
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = segments
}
criterion_main!(benches);
