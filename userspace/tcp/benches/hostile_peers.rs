//! The cost of an acknowledgment when the peer means to make it expensive, beside honest ones: microseconds, and
//! outstanding segments looked at, for each script of `tests/common/hostile.rs`, for small and large segments and both
//! ways of finding loss. What is sent in answer to the acknowledgment is part of its time, and counted beside it, since
//! it costs the peer what it costs this side: the aim is for the work of an acknowledgment and of each segment sent.
//!
//! `cargo bench -p tidegate-tcp --bench hostile_peers [-- SCRIPT]`; a name in part will do.
#![allow(missing_docs)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::hostile::{Hostile, Script, hostile_config};
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::recovery::LossDetection;

/// Acknowledgments of a script.
const ACKS: u32 = 10_000;

/// The aim for every script, on average.
const AIM: Duration = Duration::from_micros(2);

/// No acknowledgment takes so long: the thread was interrupted meanwhile, and the time says nothing.
const INTERRUPTED: Duration = Duration::from_millis(2);

fn run(script: Script, detection: LossDetection, mss: u16, piece: usize) -> bool {
    let segments = Config::default().max_outstanding_segments;
    let mut peer = Hostile::new(hostile_config(segments, detection), mss, piece);
    let outstanding = peer.outstanding();
    let visited = |peer: &Hostile| peer.rig.count(Counter::OutstandingVisited);
    let before = visited(&peer);
    let (mut total, mut longest) = (Duration::ZERO, Duration::ZERO);
    let (mut acks, mut sent) = (0_u32, 0);
    for _ in 0..ACKS {
        let Some(frame) = peer.prepare(script) else { continue };
        let start = Instant::now();
        peer.rig.inject(&frame);
        let time = start.elapsed();
        if time < INTERRUPTED {
            total += time;
            longest = longest.max(time);
            acks += 1;
            sent += peer.rig.wire.frames.len();
        }
        peer.take();
    }
    let after = visited(&peer);
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let acknowledgments = f64::from(acks.max(1));
    let each = micros(total) / (acknowledgments + sent as f64);
    println!(
        "{:<18} {detection:>5} {mss:>5} {piece:>6} {outstanding:>9} {:>8.2} {:>8.1} {:>8.1} {:>8.2} {each:>8.2}",
        format!("{script:?}"),
        micros(total) / acknowledgments,
        micros(longest),
        (after - before) as f64 / peer.acks.max(1) as f64,
        sent as f64 / acknowledgments,
    );
    each <= micros(AIM)
}

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    println!("script              loss   mss pieces  segments   us/ACK  longest  visited     sent  us each");
    let mut beyond = 0;
    for &script in Script::ALL {
        let name = format!("{script:?}").to_lowercase();
        if !wanted.is_empty() && !wanted.iter().any(|wanted| name.contains(&wanted.to_lowercase())) {
            continue;
        }
        for (mss, piece) in [(48, 0), (536, 0), (1460, 0), (1460, 100)] {
            for detection in [LossDetection::Rack, LossDetection::Sack] {
                beyond += u32::from(!run(script, detection, mss, piece));
            }
        }
    }
    println!("{beyond} of them took longer than {AIM:?} on average");
}
