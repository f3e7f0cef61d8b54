//! The way all benchmarks are run, and their numbers of connections.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::time::Duration;

use criterion::Criterion;

/// Connections when the benchmark is only tried out, by `cargo test --benches`.
const TRIAL: u32 = 256;

/// Criterion with short runs: what is measured repeats thousands of times in each.
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
}

/// Whether figures are wanted. cargo passes `--bench` when they are.
pub fn is_measuring() -> bool {
    let has = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    has("--bench") && !has("--test")
}

/// `full` when figures are wanted, otherwise a number that needs next to no time.
pub fn scaled(full: u32) -> u32 {
    if is_measuring() { full } else { TRIAL }
}

/// Of `all` sizes, those that are to be run.
pub fn sizes(all: &[u32]) -> Vec<u32> {
    if is_measuring() { all.to_vec() } else { vec![TRIAL] }
}
