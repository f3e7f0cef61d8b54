//! The timer wheel with ten million timers, all armed, over the time an idle HTTP connection may stay open.
#![allow(missing_docs)]

mod common;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidegate_tcp::time::Instant;
use tidegate_tcp::timer_wheel::TimerWheel;

const TIMERS: u32 = 10_000_000;

/// The furthest deadline from now, in microseconds.
const FURTHEST: u64 = 75_000_000;

struct Full {
    wheel: TimerWheel,
    timers: u32,
    now: Instant,
    random: fastrand::Rng,
}

impl Full {
    fn new() -> Self {
        let mut full = Self {
            wheel: TimerWheel::default(),
            timers: common::scaled(TIMERS),
            now: Instant::ZERO,
            random: fastrand::Rng::with_seed(1),
        };
        for id in 0..full.timers {
            let deadline = full.deadline();
            full.wheel.arm(id, deadline);
        }
        full
    }

    fn any(&mut self) -> u32 {
        self.random.u32(..self.timers)
    }

    fn deadline(&mut self) -> Instant {
        self.now + Duration::from_micros(self.random.u64(1000..FURTHEST))
    }

    /// Moves a deadline back, as almost every segment does: the wheel is left as it is.
    fn move_lazily(&mut self) {
        let (id, deadline) = (self.any(), self.now + Duration::from_micros(FURTHEST));
        self.wheel.arm_no_later(id, deadline);
    }

    /// Files a timer somewhere else.
    fn arm(&mut self) {
        let (id, deadline) = (self.any(), self.deadline());
        self.wheel.arm(id, deadline);
    }

    /// Takes a timer out and files it anew.
    fn cancel_and_arm(&mut self) {
        let (id, deadline) = (self.any(), self.deadline());
        self.wheel.cancel(id);
        self.wheel.arm(id, deadline);
    }

    /// Lets time pass until the next timer fires, and arms that one again.
    fn fire_and_arm(&mut self) {
        let mut left = usize::MAX;
        loop {
            if let Some(id) = self.wheel.fire(self.now, &mut left) {
                let deadline = self.deadline();
                self.wheel.arm(id, deadline);
                return;
            }
            self.now = self.now + Duration::from_millis(1);
        }
    }
}

fn timer_wheel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timer wheel");
    group.throughput(Throughput::Elements(1));
    let timers = common::scaled(TIMERS);
    let mut full = None;
    type Action = fn(&mut Full);
    let actions: [(&str, Action); 4] = [
        ("move lazily", Full::move_lazily),
        ("arm", Full::arm),
        ("cancel and arm", Full::cancel_and_arm),
        ("fire and arm", Full::fire_and_arm),
    ];
    for (name, action) in actions {
        group.bench_function(BenchmarkId::new(name, timers), |bencher| {
            let full = full.get_or_insert_with(Full::new);
            bencher.iter(|| action(full));
            assert_eq!(full.wheel.armed(), full.timers as usize);
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = timer_wheel
}
criterion_main!(benches);
