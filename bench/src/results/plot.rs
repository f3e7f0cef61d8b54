//! Latency by percentile.

use hdrhistogram::Histogram;

use super::chart::{self, Axis, Layout, Line};
use super::micros;
use super::page::Colour;

const LAYOUT: Layout = Layout {
    size: (960, 460),
    left: 76,
    right: 36,
    point: 2,
};

/// Points for each half of the distance that is left to 100 %.
const TICKS_PER_HALF_DISTANCE: u32 = 10;

/// Colours of lines, in the order in which they are given out. They can be told apart on white, on black, and by most
/// who do not see all colours.
pub(super) const COLOURS: [Colour; 6] = [
    (0, 122, 204),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
];

/// The line of `histogram`, which is in nanoseconds. Its points are the logarithm of 1 / (1 - quantile), and that of the
/// latency in microseconds, both to base 10.
pub(super) fn line(histogram: &Histogram<u64>, colour: Colour) -> Line<f64> {
    // The longest of n stands where one of n is longer; further right there is nothing to know.
    let last = (histogram.len().max(1) as f64).log10();
    let points = histogram
        .iter_quantiles(TICKS_PER_HALF_DISTANCE)
        .map(|step| {
            let rest = 1.0 - step.quantile_iterated_to();
            let x = if rest > 0.0 { (-rest.log10()).min(last) } else { last };
            (x, micros(step.value_iterated_to()).max(1.0).log10())
        })
        .collect();
    Line { colour, points }
}

/// Latency against percentile. Both axes are logarithmic: that of percentiles in what is left to 100 %.
///
/// # Errors
///
/// It cannot be drawn.
pub(super) fn percentiles(lines: &[Line<f64>]) -> anyhow::Result<String> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let x = 0.0..chart::decades(points().map(|&(x, _)| x), 0.0..1.0).end;
    let y = chart::decades(points().map(|&(_, y)| y), 1.0..4.0);
    let x = Axis {
        title: "percentile",
        labels: chart::decade_count(&x),
        range: x,
        text: &percentile,
    };
    let y = Axis {
        title: "latency",
        labels: chart::decade_count(&y),
        range: y,
        text: &duration,
    };
    chart::lines(LAYOUT, &x, &y, lines)
}

/// The percentile at which 1 / (1 - quantile) is the power of ten `exponent`: `0 %`, `90 %`, `99 %`, `99.9 %`. Empty
/// where the exponent is not a whole number.
fn percentile(exponent: f64) -> String {
    match whole(exponent) {
        None => String::new(),
        Some(0) => "0 %".to_owned(),
        Some(1) => "90 %".to_owned(),
        Some(2) => "99 %".to_owned(),
        Some(nines) => format!("99.{} %", "9".repeat(nines - 2)),
    }
}

/// The power of ten `exponent`, in microseconds, as people write it. Empty where the exponent is not a whole number.
fn duration(exponent: f64) -> String {
    let Some(exponent) = whole(exponent) else {
        return String::new();
    };
    let unit = ["us", "ms", "s"].get(exponent / 3);
    unit.map(|unit| format!("{} {unit}", 10_u32.pow((exponent % 3) as u32)))
        .unwrap_or_else(|| format!("1e{exponent} us"))
}

fn whole(number: f64) -> Option<usize> {
    let rounded = number.round();
    ((number - rounded).abs() < 1e-6 && rounded >= 0.0).then_some(rounded as usize)
}

#[cfg(test)]
mod tests {
    use super::super::testing::histogram;
    use super::*;

    #[test]
    fn a_plot_has_its_lines_its_axes_and_no_black() {
        // 1 us to 10 ms.
        let line = line(&histogram((1..=10_000).map(|value| value * 1_000)), (1, 2, 3));
        let svg = percentiles(&[line]).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(svg.contains("#010203") && svg.contains("currentColor") && !svg.contains("#000000"));
        for text in ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "10 us", "1 ms", "10 ms"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(!svg.contains("99.999 %"), "there are too few values for that");
    }

    #[test]
    fn points_are_where_the_quantiles_are() {
        let line = line(&histogram((1..=1_000).map(|value| value * 1_000)), (0, 0, 1));
        let (x, y) = line.points[0];
        assert_eq!((x, y), (0.0, 0.0));
        let &(x, y) = line.points.last().unwrap();
        assert!((x - 3.0).abs() < 1e-9 && (y - 3.0).abs() < 1e-3, "{x} {y}");
        assert!(
            line.points
                .is_sorted_by(|one, other| one.0 <= other.0 && one.1 <= other.1)
        );
    }

    #[test]
    fn a_plot_with_one_value_or_none_is_still_one() {
        let one = line(&histogram([42_000]), (0, 0, 1));
        assert!(percentiles(&[one]).is_ok());
        let none = line(&histogram([]), (0, 0, 1));
        assert!(none.points.is_empty());
        assert!(percentiles(&[none]).is_ok());
        assert!(percentiles(&[]).is_ok());
    }

    #[test]
    fn labels_are_as_people_write_them() {
        let written: Vec<String> = [0.0, 1.0, 2.0, 3.0, 5.0, 0.5].map(percentile).into();
        assert_eq!(written, ["0 %", "90 %", "99 %", "99.9 %", "99.999 %", ""]);
        let written: Vec<String> = [0.0, 2.0, 3.0, 5.0, 6.0, 8.0, 1.5].map(duration).into();
        assert_eq!(written, ["1 us", "100 us", "1 ms", "100 ms", "1 s", "100 s", ""]);
    }
}
