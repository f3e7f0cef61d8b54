//! Horizontal bars.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::results::chart::{self, Area, DrawingError};
use crate::results::page::Colour;
use crate::results::spread::Spread;

/// Width in pixels, with the height of a bar's line; the page scales both.
const WIDTH: i32 = 640;
const LINE: i32 = 46;

/// Height of a bar.
const BAR: i32 = 26;

/// Where the bars begin: right of their names.
const LEFT: i32 = 150;

/// Where the longest one ends: left of its value.
const RIGHT: i32 = WIDTH - 110;

const FONT: (&str, f64) = (chart::FONT, 20.0);

/// One bar.
pub(super) struct Bar {
    /// What stands left of it.
    pub(super) name: String,
    /// Its pieces, from the left: colour and value, which is not below zero.
    pub(super) pieces: Vec<(Colour, f64)>,
    /// How far the measurements are apart; a line over the bar's end.
    pub(super) spread: Option<Spread>,
    /// What stands right of it.
    pub(super) value: String,
}

impl Bar {
    fn length(&self) -> f64 {
        self.pieces.iter().map(|&(_, value)| value).sum()
    }

    fn end(&self) -> f64 {
        self.spread.map_or(0.0, |spread| spread.max).max(self.length())
    }
}

/// All `bars` on one scale that begins at zero.
///
/// # Errors
///
/// They cannot be drawn.
pub(super) fn bars(bars: &[Bar]) -> anyhow::Result<String> {
    let lines = i32::try_from(bars.len()).unwrap_or(i32::MAX / LINE).max(1);
    let size = (WIDTH.unsigned_abs(), (lines * LINE).unsigned_abs());
    chart::svg(size, |area| draw(area, bars))
}

fn draw(area: &Area<'_>, bars: &[Bar]) -> Result<(), DrawingError> {
    let longest = bars.iter().map(Bar::end).fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| LEFT + (value / longest * f64::from(RIGHT - LEFT)).round() as i32;
    let text = |anchor: HPos| TextStyle::from(FONT).pos(Pos::new(anchor, VPos::Center));
    for (line, bar) in (0..).zip(bars) {
        let middle = line * LINE + LINE / 2;
        area.draw_text(&bar.name, &text(HPos::Right), (LEFT - 12, middle))?;
        let mut sum = 0.0;
        for &((red, green, blue), value) in &bar.pieces {
            let corners = [(x(sum), middle - BAR / 2), (x(sum + value), middle + BAR / 2)];
            area.draw(&Rectangle::new(corners, RGBColor(red, green, blue).filled()))?;
            sum += value;
        }
        if let Some(Spread { min, max, .. }) = bar.spread {
            for (from, to) in [
                ((x(min), middle), (x(max), middle)),
                ((x(min), middle - 6), (x(min), middle + 6)),
                ((x(max), middle - 6), (x(max), middle + 6)),
            ] {
                area.draw(&PathElement::new(vec![from, to], BLACK.stroke_width(2)))?;
            }
        }
        area.draw_text(&bar.value, &text(HPos::Left), (x(bar.end()) + 10, middle))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(pieces: &[f64], spread: Option<Spread>) -> Bar {
        Bar {
            name: "a <server>".to_owned(),
            pieces: pieces.iter().map(|&value| ((1, 2, 3), value)).collect(),
            spread,
            value: "12k".to_owned(),
        }
    }

    #[test]
    fn a_plot_has_its_pieces_their_names_and_no_black() {
        let spread = Spread {
            median: 2.0,
            min: 1.0,
            max: 3.0,
        };
        let svg = bars(&[bar(&[2.0], Some(spread)), bar(&[0.5, 0.25], None)]).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert_eq!(svg.matches("#010203").count(), 3);
        assert!(svg.contains("currentColor") && !svg.contains("#000000"));
        assert_eq!(svg.matches("a &lt;server&gt;").count(), 2);
        assert_eq!(svg.matches("12k").count(), 2);
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let svg = bars(&[bar(&[2.0], None), bar(&[1.0], None)]).unwrap();
        let whole = RIGHT - LEFT;
        for width in [whole, whole / 2] {
            assert!(svg.contains(&format!("width=\"{width}\"")), "{width}: {svg}");
        }
    }

    #[test]
    fn nothing_is_still_a_plot() {
        assert!(bars(&[]).is_ok());
        assert!(bars(&[bar(&[0.0], None)]).is_ok());
    }
}
