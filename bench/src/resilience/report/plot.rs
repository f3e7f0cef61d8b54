//! Plots as SVG that can stand in a page. What is black in them is in the page's text colour.

use anyhow::anyhow;
use plotters::prelude::*;

/// Size in pixels; the page scales it.
const SIZE: (u32, u32) = (640, 380);

const FONT: &str = "sans-serif";

/// A line with a point for each measurement.
pub(super) struct Line {
    /// Red, green and blue.
    pub(super) colour: (u8, u8, u8),
    /// The index of the rate, and the value.
    pub(super) points: Vec<(i32, f64)>,
}

/// The vertical axis.
struct Axis<'a> {
    title: &'a str,
    range: std::ops::Range<f64>,
    labels: usize,
    text: &'a dyn Fn(f64) -> String,
}

/// Success in percent against the rates called `rates`.
///
/// # Errors
///
/// It cannot be drawn.
pub(super) fn success(rates: &[String], lines: &[Line]) -> anyhow::Result<String> {
    let axis = Axis {
        title: "clients answered, %",
        range: 0.0..100.0,
        labels: 6,
        text: &|percent| format!("{percent:.0}"),
    };
    draw(rates, lines, &axis)
}

/// Latency against the rates called `rates`, on a logarithmic axis. Values are in microseconds, above zero.
///
/// # Errors
///
/// It cannot be drawn.
pub(super) fn latency(rates: &[String], lines: &[Line]) -> anyhow::Result<String> {
    let logarithms: Vec<Line> = lines
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
    let lowest = values.clone().fold(f64::INFINITY, f64::min);
    let highest = values.fold(f64::NEG_INFINITY, f64::max);
    let range = if lowest.is_finite() {
        // Whole decades, and never none.
        lowest.floor()..highest.ceil().max(lowest.floor() + 1.0)
    } else {
        1.0..7.0
    };
    let axis = Axis {
        title: "connect p99",
        labels: (range.end - range.start) as usize + 1,
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

fn draw(rates: &[String], lines: &[Line], axis: &Axis) -> anyhow::Result<String> {
    let mut svg = String::new();
    draw_to(&mut svg, rates, lines, axis).map_err(|error| anyhow!("cannot draw a plot: {error}"))?;
    Ok(svg.replace("#000000", "currentColor"))
}

fn draw_to(
    svg: &mut String,
    rates: &[String],
    lines: &[Line],
    axis: &Axis,
) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let last = i32::try_from(rates.len()).unwrap_or(i32::MAX).saturating_sub(1).max(1);
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .margin_right(28)
        .x_label_area_size(44)
        .y_label_area_size(70)
        .build_cartesian_2d(0..last, axis.range.clone())?;
    let grey = RGBColor(128, 128, 128);
    let rate = |index: &i32| {
        let name = usize::try_from(*index).ok().and_then(|index| rates.get(index));
        name.cloned().unwrap_or_default()
    };
    chart
        .configure_mesh()
        .x_labels(rates.len().max(2))
        .y_labels(axis.labels)
        .x_label_formatter(&rate)
        .y_label_formatter(&|value| (axis.text)(*value))
        .x_desc("offered SYN/s")
        .y_desc(axis.title)
        .label_style((FONT, 16))
        .axis_desc_style((FONT, 16))
        .axis_style(grey)
        .bold_line_style(grey.mix(0.25))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for line in lines {
        let (red, green, blue) = line.colour;
        let style = RGBColor(red, green, blue).filled().stroke_width(2);
        chart.draw_series(LineSeries::new(line.points.iter().copied(), style).point_size(4))?;
    }
    root.present()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates() -> Vec<String> {
        ["0", "500k", "max"].map(str::to_owned).to_vec()
    }

    fn line(values: &[f64]) -> Line {
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
