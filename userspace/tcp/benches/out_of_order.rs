//! The cost of a segment while an attacker holds many out-of-order ranges open (every second byte of the window).
//!
//! The cost must not grow with the number of ranges held: the trees behind them are logarithmic, and the limits end it.
#![allow(missing_docs)]

#[path = "../tests/common/mod.rs"]
mod common;

use common::*;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidegate_tcp::config::Config;
use tidegate_tcp::engine::OnNoFlow;
use tidegate_tcp::wire::Options;

/// A connection that holds `ranges` ranges of one byte each, with a byte missing between any two.
fn attacked(ranges: u32) -> Rig {
    let limits = Config {
        receive_buffer: 1 << 20,
        receive_buffer_initial: 1 << 20,
        reassembly_bytes: 1 << 30,
        reassembly_bytes_total: 1 << 30,
        reassembly_ranges: u32::MAX,
        ..config()
    };
    let mut rig = Rig::new(limits, App::default());
    rig.connect_with(Options {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        ..Options::default()
    });
    // The window offered with the SYN-ACK is not scaled; an answer to data offers all of it.
    rig.peer(ACK, &[0; 1460]);
    rig.peer(ACK, &[0; 1460]);
    for range in 0..ranges {
        rig.peer_at(rig.seq + 1 + 2 * range, ACK, b"x");
    }
    rig.wire.frames.clear();
    rig
}

fn out_of_order(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("out_of_order");
    group.throughput(Throughput::Elements(1000));
    for ranges in [100, 1000, 10_000, 100_000, 500_000] {
        // The second byte of a thousand ranges in the middle of those held: each joins one.
        let frames: Vec<Vec<u8>> = {
            let rig = attacked(0);
            let middle = ranges / 2;
            (0..1000)
                .map(|index| {
                    let seq = rig.seq + 1 + 2 * ((middle + index) % ranges);
                    rig.frame(seq, rig.ack, ACK, Options::default(), b"x")
                })
                .collect()
        };
        let mut rig = attacked(ranges);
        group.bench_with_input(BenchmarkId::new("held again", ranges), &frames, |bencher, frames| {
            bencher.iter_batched(
                || (),
                |()| {
                    for frame in frames {
                        rig.engine.receive(rig.now, frame, OnNoFlow::Reject, &mut rig.wire);
                        rig.wire.frames.clear();
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, out_of_order);
criterion_main!(benches);
