//! Success and latency against the rate of the flood. The points of a line are the index of the rate and the value.

use crate::results::chart::{self, Axis, Layout, Line};

const LAYOUT: Layout = Layout {
    size: (640, 380),
    left: 70,
    right: 28,
    point: 4,
};

/// Success in percent against the rates called `rates`.
///
/// # Errors
///
/// It cannot be drawn.
pub(super) fn success(rates: &[String], lines: &[Line<i32>]) -> anyhow::Result<String> {
    let axis = Axis {
        title: "clients answered, %",
        range: 0.0..100.0,
        labels: 6,
        text: &|percent: f64| format!("{percent:.0}"),
    };
    draw(rates, lines, &axis)
}

/// Latency against the rates called `rates`, on a logarithmic axis. Values are in microseconds, above zero.
///
/// # Errors
///
/// It cannot be drawn.
pub(super) fn latency(rates: &[String], lines: &[Line<i32>]) -> anyhow::Result<String> {
    let logarithms: Vec<Line<i32>> = lines
        .iter()
        .map(|line| Line {
            colour: line.colour,
            points: line
                .points
                .iter()
                .map(|&(rate, micros)| (rate, micros.max(1.0).log10()))
                .collect(),
        })
        .collect();
    let values = logarithms.iter().flat_map(|line| &line.points).map(|&(_, value)| value);
    let range = chart::decades(values, 1.0..7.0);
    let axis = Axis {
        title: "connect p99",
        labels: chart::decade_count(&range),
        range,
        text: &decade,
    };
    draw(rates, &logarithms, &axis)
}

/// The power of ten `exponent`, in microseconds, as people write it.
fn decade(exponent: f64) -> String {
    let micros = 10_f64.powf(exponent).round();
    if micros >= 1e6 {
        format!("{} s", micros / 1e6)
    } else if micros >= 1e3 {
        format!("{} ms", micros / 1e3)
    } else {
        format!("{micros} us")
    }
}

fn draw(rates: &[String], lines: &[Line<i32>], y: &Axis<'_, f64>) -> anyhow::Result<String> {
    let last = i32::try_from(rates.len()).unwrap_or(i32::MAX).saturating_sub(1).max(1);
    let rate = |index: i32| {
        let name = usize::try_from(index).ok().and_then(|index| rates.get(index));
        name.cloned().unwrap_or_default()
    };
    let x = Axis {
        title: "offered SYN/s",
        range: 0..last,
        labels: rates.len().max(2),
        text: &rate,
    };
    chart::lines(LAYOUT, &x, y, lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates() -> Vec<String> {
        ["0", "500k", "max"].map(str::to_owned).to_vec()
    }

    fn line(values: &[f64]) -> Line<i32> {
        Line {
            colour: (1, 2, 3),
            points: (0..).zip(values.iter().copied()).collect(),
        }
    }

    #[test]
    fn a_plot_has_its_lines_its_rates_and_no_black() {
        let svg = success(&rates(), &[line(&[100.0, 50.0, 0.0])]).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains("#010203"));
        assert!(svg.contains("currentColor") && !svg.contains("#000000"));
        for text in ["500k", "max", "offered SYN/s", "100"] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn latencies_are_on_decades() {
        let svg = latency(&rates(), &[line(&[80.0, 4_000.0, 2_500_000.0])]).unwrap();
        for text in ["10 us", "100 us", "1 ms", "10 ms", "100 ms", "1 s", "10 s"] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn a_plot_without_points_or_with_one_rate_is_still_one() {
        assert!(latency(&rates(), &[line(&[])]).is_ok());
        assert!(latency(&rates()[..1], &[line(&[100.0])]).is_ok());
        assert!(success(&[], &[]).is_ok());
    }
}
