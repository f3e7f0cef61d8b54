//! Plots as SVG that can stand in a page. What is black in them is in the page's text colour.

use std::ops::Range;

use anyhow::anyhow;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use super::page::Colour;

/// The font of labels.
pub(crate) const FONT: &str = "sans-serif";

const GREY: RGBColor = RGBColor(128, 128, 128);

/// What is drawn on.
pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Why something cannot be drawn.
pub(crate) type DrawingError = DrawingAreaErrorKind<std::io::Error>;

/// What `draw` draws on an area of `size` pixels; the page scales it.
///
/// # Errors
///
/// It cannot be drawn.
pub(crate) fn svg(
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> Result<(), DrawingError>,
) -> anyhow::Result<String> {
    let mut svg = String::new();
    draw_into(&mut svg, size, draw).map_err(|error| anyhow!("cannot draw a plot: {error}"))?;
    Ok(svg.replace("#000000", "currentColor"))
}

fn draw_into(
    svg: &mut String,
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> Result<(), DrawingError>,
) -> Result<(), DrawingError> {
    let area = SVGBackend::with_string(svg, size).into_drawing_area();
    draw(&area)?;
    area.present()
}

/// Sizes in a plot of lines, in pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Width and height of the whole.
    pub(crate) size: (u32, u32),
    /// Space for the vertical axis's labels.
    pub(crate) left: u32,
    /// Space for what the last of the horizontal axis's labels stands out.
    pub(crate) right: u32,
    /// Radius of a point.
    pub(crate) point: u32,
}

/// An axis.
pub(crate) struct Axis<'a, T> {
    /// What it is of.
    pub(crate) title: &'a str,
    /// Where it begins and ends.
    pub(crate) range: Range<T>,
    /// How many labels it has at most.
    pub(crate) labels: usize,
    /// The label of a value.
    pub(crate) text: &'a dyn Fn(T) -> String,
}

/// A line with a point for each measurement.
pub(crate) struct Line<X> {
    /// Its colour.
    pub(crate) colour: Colour,
    /// Its points, from the left.
    pub(crate) points: Vec<(X, f64)>,
}

/// Lines in a pair of axes.
///
/// # Errors
///
/// They cannot be drawn.
pub(crate) fn lines<X>(layout: Layout, x: &Axis<'_, X>, y: &Axis<'_, f64>, lines: &[Line<X>]) -> anyhow::Result<String>
where
    X: Copy + 'static,
    Range<X>: AsRangedCoord<Value = X>,
    <Range<X> as AsRangedCoord>::CoordDescType: ValueFormatter<X>,
{
    svg(layout.size, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .margin_right(layout.right)
            .x_label_area_size(44)
            .y_label_area_size(layout.left)
            .build_cartesian_2d(x.range.clone(), y.range.clone())?;
        chart
            .configure_mesh()
            .x_labels(x.labels)
            .y_labels(y.labels)
            .x_label_formatter(&|value: &X| (x.text)(*value))
            .y_label_formatter(&|value: &f64| (y.text)(*value))
            .x_desc(x.title)
            .y_desc(y.title)
            .label_style((FONT, 16))
            .axis_desc_style((FONT, 16))
            .axis_style(GREY)
            .bold_line_style(GREY.mix(0.25))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for line in lines {
            let (red, green, blue) = line.colour;
            let style = RGBColor(red, green, blue).filled().stroke_width(2);
            chart.draw_series(LineSeries::new(line.points.iter().copied(), style).point_size(layout.point))?;
        }
        Ok(())
    })
}

/// The whole decades that hold all `values`, which are logarithms to base 10, and never none; `otherwise` if there are no
/// values.
pub(crate) fn decades(values: impl Iterator<Item = f64> + Clone, otherwise: Range<f64>) -> Range<f64> {
    let lowest = values.clone().fold(f64::INFINITY, f64::min);
    let highest = values.fold(f64::NEG_INFINITY, f64::max);
    if lowest.is_finite() {
        lowest.floor()..highest.ceil().max(lowest.floor() + 1.0)
    } else {
        otherwise
    }
}

/// How many whole decades begin or end in `range`.
pub(crate) fn decade_count(range: &Range<f64>) -> usize {
    (range.end - range.start) as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout {
        size: (640, 380),
        left: 70,
        right: 28,
        point: 4,
    };

    #[test]
    fn a_plot_has_its_axes_its_points_and_no_black() {
        let x = Axis {
            title: "rate",
            range: 0..2,
            labels: 3,
            text: &|index: i32| format!("rate {index}"),
        };
        let y = Axis {
            title: "success",
            range: 0.0..100.0,
            labels: 6,
            text: &|percent: f64| format!("{percent:.0} %"),
        };
        let line = Line {
            colour: (1, 2, 3),
            points: vec![(0, 100.0), (2, 50.0)],
        };
        let svg = lines(LAYOUT, &x, &y, &[line]).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains("currentColor") && !svg.contains("#000000"));
        for text in ["#010203", "rate 1", "success", "100 %"] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn an_axis_has_whole_decades() {
        let range = |values: &[f64]| decades(values.iter().copied(), 1.0..4.0);
        assert_eq!(range(&[0.5, 2.1]), 0.0..3.0);
        assert_eq!(range(&[2.0]), 2.0..3.0);
        assert_eq!(range(&[]), 1.0..4.0);
        assert_eq!(decade_count(&(1.0..4.0)), 4);
    }
}
