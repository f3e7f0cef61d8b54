//! Latency by percentile as SVG that can stand in a page. What is black in it is in the page's text colour.

use std::ops::Range;

use anyhow::anyhow;
use hdrhistogram::Histogram;
use plotters::prelude::*;

use super::micros;
use super::page::Colour;

/// Size in pixels; the page scales it.
const SIZE: (u32, u32) = (960, 460);

const FONT: &str = "sans-serif";

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

/// A distribution as a line.
pub(super) struct Line {
    colour: Colour,
    /// The logarithm of 1 / (1 - quantile), and that of the latency in microseconds, both to base 10.
    points: Vec<(f64, f64)>,
}

impl Line {
    /// The line of `histogram`, which is in nanoseconds.
    pub(super) fn of(histogram: &Histogram<u64>, colour: Colour) -> Self {
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
        Self { colour, points }
    }
}

/// Latency against percentile. Both axes are logarithmic: that of percentiles in what is left to 100 %.
///
/// # Errors
///
/// It cannot be drawn.
pub(super) fn percentiles(lines: &[Line]) -> anyhow::Result<String> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let x = axis(points().map(|&(x, _)| x), 0.0..1.0);
    let y = axis(points().map(|&(_, y)| y), 1.0..4.0);
    let mut svg = String::new();
    draw(&mut svg, lines, 0.0..x.end, y).map_err(|error| anyhow!("cannot draw a plot: {error}"))?;
    Ok(svg.replace("#000000", "currentColor"))
}

/// The whole decades that hold all `values`, and never none; `otherwise` if there are no values.
fn axis(values: impl Iterator<Item = f64> + Clone, otherwise: Range<f64>) -> Range<f64> {
    let lowest = values.clone().fold(f64::INFINITY, f64::min);
    let highest = values.fold(f64::NEG_INFINITY, f64::max);
    if lowest.is_finite() {
        lowest.floor()..highest.ceil().max(lowest.floor() + 1.0)
    } else {
        otherwise
    }
}

/// How many whole decades begin or end in `range`.
fn decades(range: &Range<f64>) -> usize {
    (range.end - range.start) as usize + 1
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

fn draw(
    svg: &mut String,
    lines: &[Line],
    x: Range<f64>,
    y: Range<f64>,
) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let (columns, rows) = (decades(&x), decades(&y));
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .margin_right(36)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d(x, y)?;
    let grey = RGBColor(128, 128, 128);
    chart
        .configure_mesh()
        .x_labels(columns)
        .y_labels(rows)
        .x_label_formatter(&|&exponent| percentile(exponent))
        .y_label_formatter(&|&exponent| duration(exponent))
        .x_desc("percentile")
        .y_desc("latency")
        .label_style((FONT, 16))
        .axis_desc_style((FONT, 16))
        .axis_style(grey)
        .bold_line_style(grey.mix(0.25))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for line in lines {
        let (red, green, blue) = line.colour;
        let style = RGBColor(red, green, blue).filled().stroke_width(2);
        chart.draw_series(LineSeries::new(line.points.iter().copied(), style).point_size(2))?;
    }
    root.present()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 120_000_000_000, 3).unwrap();
        for value in values {
            histogram.record(value).unwrap();
        }
        histogram
    }

    #[test]
    fn a_plot_has_its_lines_its_axes_and_no_black() {
        // 1 us to 10 ms.
        let line = Line::of(&histogram((1..=10_000).map(|value| value * 1_000)), (1, 2, 3));
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
        let line = Line::of(&histogram((1..=1_000).map(|value| value * 1_000)), (0, 0, 1));
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
        let one = Line::of(&histogram([42_000]), (0, 0, 1));
        assert!(percentiles(&[one]).is_ok());
        let none = Line::of(&histogram([]), (0, 0, 1));
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
