//! The seconds of a run, as JSON and as charts.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_load::{Point, Workload};
use tidegate_report::format::three_digits;
use tidegate_report::{Course, Line, Scale, Section};

use super::run::Run;

/// Seconds that are shorter have a rate of chance, which is not drawn.
pub(super) const MIN_LENGTH: Duration = Duration::from_millis(200);

/// The explanation of the charts.
pub(super) const HOW_TO_READ_COURSE: &[&str] = &[
    "The charts over time have a point for each second of the run, at its end, and a mark where a phase begins. Only \
     **sustain** is in the figures. A percentile is that of a second, and cannot be averaged.",
];

/// Returns the seconds as JSON.
pub(super) fn json(series: &[Point]) -> Value {
    series.iter().map(point).collect()
}

fn point(point: &Point) -> Value {
    json!({
        "phase": point.phase.name(),
        "start_seconds": three_digits(point.start.as_secs_f64()),
        "seconds": three_digits(point.length.as_secs_f64()),
        "operations": point.operations,
        "per_second": three_digits(point.per_second()),
        "errors": point.errors,
        "latency_us": point.latency.map(|latency| json!({
            "p50": latency.p50,
            "p99": latency.p99,
            "max": latency.max,
        })),
        "connects": point.connects,
        "open": point.open,
        "open_mean": three_digits(point.open_mean),
        "open_max": point.open_max,
        "client_resident_bytes": point.resident,
    })
}

/// Returns the charts, if there are seconds enough for a line.
pub(super) fn charts(run: &Run) -> Vec<Section> {
    let points: Vec<&Point> = run
        .measured
        .series
        .iter()
        .filter(|point| point.length >= MIN_LENGTH)
        .collect();
    if points.len() < 2 {
        return Vec::new();
    }
    let line = |name: &str, value: &dyn Fn(&Point) -> Option<f64>| Line {
        name: name.to_owned(),
        points: points
            .iter()
            .filter_map(|&point| Some((end(point), value(point)?)))
            .collect(),
    };
    let chart = |title: &str, y: &'static str, scale, lines: Vec<Line>| {
        Section::Course(Course {
            title: title.to_owned(),
            y,
            scale,
            marks: marks(&points),
            lines: lines.into_iter().filter(|line| !line.points.is_empty()).collect(),
        })
    };
    let per = |count: u64, point: &Point| count as f64 / point.length.as_secs_f64();
    let (title, unit, factor) = match run.plan.workload {
        Workload::Throughput { .. } => ("Bits per second", "bit/s", 8.0),
        Workload::Hold => ("Operations per second", "connections/s", 1.0),
        _ => ("Operations per second", run.unit(), 1.0),
    };
    let charts = [
        chart(
            title,
            unit,
            Scale::Count,
            vec![
                line("operations", &|point| Some(point.per_second() * factor)),
                line("errors", &|point| Some(per(point.errors, point))),
            ],
        ),
        chart(
            "Latency of each second",
            "latency",
            Scale::Micros,
            vec![
                line("p50", &|point| Some(point.latency?.p50)),
                line("p99", &|point| Some(point.latency?.p99)),
                line("max", &|point| Some(point.latency?.max)),
            ],
        ),
        chart(
            "Connections",
            "connections",
            Scale::Count,
            vec![
                line("open", &|point| Some(f64::from(point.open))),
                line("established each second", &|point| Some(per(point.connects, point))),
            ],
        ),
    ];
    let has_lines = |section: &Section| !matches!(section, Section::Course(course) if course.lines.is_empty());
    charts.into_iter().filter(has_lines).collect()
}

fn end(point: &Point) -> f64 {
    three_digits((point.start + point.length).as_secs_f64())
}

/// The beginnings of the phases, in seconds, with their names.
fn marks(points: &[&Point]) -> Vec<(f64, String)> {
    let mut marks: Vec<(f64, String)> = Vec::new();
    for point in points {
        let name = point.phase.name();
        if marks.last().is_none_or(|(_, last)| last != name) {
            marks.push((three_digits(point.start.as_secs_f64()), name.to_owned()));
        }
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::super::samples::run;
    use super::*;

    fn course(section: &Section) -> &Course {
        let Section::Course(course) = section else {
            panic!("{section:?}");
        };
        course
    }

    #[test]
    fn seconds_are_written_as_they_are() {
        let json = json(&run(Workload::Rps { pipeline: 1 }).measured.series);
        assert_eq!(
            json[2],
            json!({
                "phase": "sustain",
                "start_seconds": 1.5,
                "seconds": 1.0,
                "operations": 600,
                "per_second": 600.0,
                "errors": 1,
                "latency_us": {"p50": 500.0, "p99": 990.0, "max": 1_000.0},
                "connects": 3,
                "open": 64,
                "open_mean": 63.5,
                "open_max": 64,
                "client_resident_bytes": 5_000_000,
            })
        );
        assert_eq!(json[0]["latency_us"], Value::Null);
    }

    #[test]
    fn lines_have_the_values_of_seconds_at_their_ends() {
        let sections = charts(&run(Workload::Rps { pipeline: 1 }));
        let [rate, latency, connections] = &sections[..] else {
            panic!("{sections:?}");
        };
        let rate = course(rate);
        assert_eq!((rate.y, rate.lines[0].name.as_str()), ("requests/s", "operations"));
        assert_eq!(
            rate.lines[0].points,
            [(1.0, 1_000.0), (1.5, 1_000.0), (2.5, 600.0), (3.5, 400.0)]
        );
        assert_eq!(
            rate.marks,
            [
                (0.0, "ramp".to_owned()),
                (1.0, "warm-up".to_owned()),
                (1.5, "sustain".to_owned())
            ]
        );
        // What has no value is not a zero.
        assert_eq!(course(latency).lines[1].points, [(2.5, 990.0), (3.5, 990.0)]);
        assert_eq!(course(connections).lines[1].points[2], (2.5, 3.0));
    }

    #[test]
    fn bytes_are_drawn_as_bits_and_nothing_is_not_drawn() {
        let mut run = run(Workload::Throughput {
            direction: tidegate_load::Direction::Up,
        });
        assert_eq!(course(&charts(&run)[0]).lines[0].points[0], (1.0, 8_000.0));
        for point in &mut run.measured.series {
            point.latency = None;
        }
        let titles: Vec<String> = charts(&run)
            .iter()
            .map(|section| course(section).title.clone())
            .collect();
        assert_eq!(titles, ["Bits per second", "Connections"]);
        run.measured.series.truncate(1);
        assert!(charts(&run).is_empty());
    }
}
