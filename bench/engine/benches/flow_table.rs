//! Looking up a flow that is not there, in tables of different sizes: acknowledgments from strangers, which the engine
//! only reports. Reading the frame is part of it, and measured by itself beside it.
#![allow(missing_docs)]

mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidegate_engine_bench::{BURST, CLIENTS, Driver, EngineServer, Frames, Step, TemplateClient, is_large_run};
use tidegate_tcp::engine::OnNoFlow;
use tidegate_tcp::wire::Segment;

/// Clients that have no connection.
const STRANGERS: u32 = 1 << 20;

/// Bursts of acknowledgments from strangers in random order.
struct Strangers {
    client: TemplateClient,
    random: fastrand::Rng,
    frames: Frames,
}

impl Strangers {
    fn new() -> Self {
        Self {
            client: TemplateClient::new(CLIENTS - u64::from(STRANGERS), STRANGERS),
            random: fastrand::Rng::with_seed(2),
            frames: Frames::with_capacity(BURST),
        }
    }

    /// The time `work` takes for `segments` of them, which are given to it one by one.
    fn time(&mut self, segments: u64, mut work: impl FnMut(&[u8])) -> Duration {
        let bursts = segments.div_ceil(BURST as u64);
        let mut time = Duration::ZERO;
        for _ in 0..bursts {
            self.frames.clear();
            for _ in 0..BURST {
                let flow = self.random.u32(..STRANGERS);
                self.client.write(Step::Ack, flow, &mut self.frames);
            }
            let begin = Instant::now();
            for frame in self.frames.all().iter() {
                work(frame);
            }
            time += begin.elapsed();
        }
        time.mul_f64(segments as f64 / (bursts * BURST as u64) as f64)
    }
}

fn flow_table(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("flow table");
    group.throughput(Throughput::Elements(1));
    let mut strangers = Strangers::new();
    group.bench_function("reading the frame alone", |bencher| {
        bencher.iter_custom(|iterations| {
            strangers.time(iterations, |frame| {
                let _ = black_box(Segment::parse(frame, true));
            })
        });
    });
    let mut sizes = vec![1024, 100_000];
    if is_large_run() {
        sizes.push(5_000_000);
    }
    for size in common::sizes(&sizes) {
        let mut driver = None;
        let mut out = Frames::with_capacity(BURST);
        group.bench_function(BenchmarkId::new("unknown flow", size), |bencher| {
            let driver = driver.get_or_insert_with(|| {
                let mut driver = Driver::new(EngineServer::new(size, 1), size);
                driver.open_all();
                driver
            });
            let now = driver.now();
            let engine = driver.server_mut().engine_mut();
            bencher.iter_custom(|iterations| {
                strangers.time(iterations, |frame| {
                    black_box(engine.receive(now, frame, OnNoFlow::Report, &mut out));
                })
            });
            assert!(out.is_empty(), "strangers were answered");
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = flow_table
}
criterion_main!(benches);
