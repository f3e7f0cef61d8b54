//! The figures that the live view shows.

use std::collections::VecDeque;
use std::time::Duration;

use tidegate_load::{Phase, Plan, Ramp, Snapshot, Tick};
use tidegate_report::Quantiles;

use super::super::run::workload_name;
use super::super::series::MIN_LENGTH;

/// Seconds whose rates are kept: as many as the widest screen has columns.
const MAX_RATES: usize = 1_000;

/// The state of a run.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) heading: String,
    pub(super) client: String,
    pub(super) total: Duration,
    pub(super) tick: Tick,
    /// The time at which the phase began.
    pub(super) phase_since: Duration,
    /// The rates of the last seconds.
    pub(super) rates: VecDeque<f64>,
    /// Those of the last second.
    pub(super) latency: Option<Quantiles>,
    pub(super) connect: Option<Quantiles>,
    pub(super) connects_per_second: f64,
    /// All that count so far.
    pub(super) latency_so_far: Option<Quantiles>,
    pub(super) connect_so_far: Option<Quantiles>,
    pub(super) open_max: u32,
    pub(super) errors: Vec<(&'static str, u64)>,
    /// It was asked to end.
    pub(super) is_ending: bool,
    plan: Plan,
}

impl Model {
    /// Nothing has happened yet.
    pub(super) fn new(plan: &Plan, client: &str) -> Self {
        let mut heading = format!("tidegate-bench {}  {}", workload_name(plan.workload), plan.url);
        if let Some(rate) = plan.workload.rate() {
            heading += &format!("  {rate} {}/s", plan.workload.unit());
        }
        Self {
            heading,
            client: format!("{client}, {} connections", plan.connections),
            total: plan.total(),
            tick: Tick {
                elapsed: Duration::ZERO,
                phase: Phase::Initial,
                per_second: 0.0,
                unit: plan.workload.unit(),
                open: 0,
            },
            phase_since: Duration::ZERO,
            rates: VecDeque::new(),
            latency: None,
            connect: None,
            connects_per_second: 0.0,
            latency_so_far: None,
            connect_so_far: None,
            open_max: 0,
            errors: Vec::new(),
            is_ending: false,
            plan: plan.clone(),
        }
    }

    /// The present state.
    pub(super) fn tick(&mut self, tick: &Tick) {
        if tick.phase != self.tick.phase {
            self.phase_since = tick.elapsed;
        }
        self.tick = *tick;
    }

    /// A second has passed.
    pub(super) fn second(&mut self, snapshot: &Snapshot<'_>) {
        let Some(point) = snapshot.series.last() else {
            return;
        };
        if point.length >= MIN_LENGTH {
            self.rates.push_back(point.per_second());
            self.connects_per_second = point.connects as f64 / point.length.as_secs_f64();
        }
        if self.rates.len() > MAX_RATES {
            self.rates.pop_front();
        }
        self.latency = point.latency;
        self.connect = snapshot.connect.quantiles();
        self.latency_so_far = snapshot.latency_so_far.quantiles();
        self.connect_so_far = snapshot.connect_so_far.quantiles();
        self.open_max = self.open_max.max(point.open_max);
        self.errors.clear();
        self.errors.extend(snapshot.errors.iter());
    }

    /// The time the phase takes, if the plan says it.
    pub(super) fn phase_length(&self) -> Option<Duration> {
        let Ramp { initial, up, down } = self.plan.ramp;
        match self.tick.phase {
            Phase::Initial => Some(initial),
            Phase::Ramp => Some(up),
            Phase::WarmUp => Some(self.plan.warm_up),
            Phase::Sustain => Some(self.plan.duration),
            Phase::RampDown => Some(down).filter(|down| !down.is_zero()),
            Phase::Opening | Phase::Drain => None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tidegate_load::{Close, Errors, Kind, Point, Workload};
    use tidegate_report::Latencies;

    use super::super::super::samples::{point, run};
    use super::*;

    /// A run that has gone on for 12 s of 14.
    pub(in super::super) fn model() -> Model {
        let mut run = run(Workload::Cps { close: Close::Client });
        run.plan.ramp.up = Duration::from_secs(1);
        run.plan.warm_up = Duration::from_secs(1);
        run.plan.duration = Duration::from_secs(12);
        let mut model = Model::new(&run.plan, "kernel");
        let mut errors = Errors::default();
        errors.add(Kind::Reset, "reset");
        errors.add(Kind::Refused, "refused");
        let mut series: Vec<Point> = Vec::new();
        for second in 0..12 {
            series.push(Point {
                operations: 1_000 * u64::from(second),
                ..point(Phase::Sustain, second)
            });
            model.second(&Snapshot {
                series: &series,
                connect: &run.measured.connect,
                latency_so_far: &run.measured.latency,
                connect_so_far: &Latencies::new(),
                errors: &errors,
            });
        }
        let tick = |elapsed, phase| Tick {
            elapsed: Duration::from_secs(elapsed),
            phase,
            per_second: 41_234.0,
            unit: "connections",
            open: 63,
        };
        model.tick(&tick(2, Phase::Sustain));
        model.tick(&tick(12, Phase::Sustain));
        model
    }

    #[test]
    fn the_figures_are_those_of_the_last_second() {
        let model = model();
        assert_eq!((model.rates.len(), model.rates.back()), (12, Some(&11_000.0)));
        assert_eq!((model.connects_per_second, model.open_max), (3.0, 64));
        assert_eq!(model.errors, [("refused", 1), ("reset", 1)]);
        assert_eq!(model.phase_since, Duration::from_secs(2));
        assert_eq!(model.phase_length(), Some(Duration::from_secs(12)));
        assert_eq!(model.total, Duration::from_secs(14));
    }
}
