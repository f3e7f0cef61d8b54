//! The page: a template that loads nothing, the report's JSON, and the sections to show.

use serde::Serialize;
use serde_json::Value;

use crate::Column;

/// The page without its report.
const TEMPLATE: &str = include_str!("page.html");

/// The place of the report in it.
const PLACE: &str = "{{report}}";

/// The content of a page. All texts are plain text; `**` around a part of a [`Section::Text`] or [`Section::HowToRead`]
/// makes it bold.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Page {
    /// The title.
    pub title: String,
    /// A sentence below it.
    pub introduction: String,
    /// The sections, from the top. The environment follows by itself.
    pub sections: Vec<Section>,
}

/// A part of a page. Rows are given by their index in the report.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Section {
    /// A heading.
    Heading(String),
    /// A paragraph.
    Text(String),
    /// A warning that the figures are not to be taken for what they look like.
    Alert(String),
    /// Paragraphs that explain, below a heading that says so.
    HowToRead(&'static [&'static str]),
    /// Numbers, large, each with a phrase that says what it is.
    Tiles(Vec<(String, String)>),
    /// A list of names and phrases.
    Facts(Vec<(String, String)>),
    /// Rows as a table.
    Table {
        /// Its columns.
        columns: &'static [Column],
        /// Its rows.
        rows: Vec<usize>,
    },
    /// Rows as bars. Neighbours stand side by side where there is room.
    Bars(Bars),
    /// Lines in a pair of axes. Neighbours stand side by side where there is room.
    Lines(Lines),
    /// Lines over time. Neighbours stand side by side where there is room.
    Course(Course),
}

/// Horizontal bars on one scale that begins at zero.
#[derive(Clone, Debug, Serialize)]
pub struct Bars {
    /// The title of the chart.
    pub title: String,
    /// The rows.
    pub rows: Vec<usize>,
    /// The bars of each row.
    pub bars: Vec<Bar>,
    /// The names of the pieces, if a bar is made of some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pieces: Option<Vec<&'static str>>,
    /// The format of the whole value (see [`format`](crate::format)).
    pub format: &'static str,
}

/// One bar of each row.
#[derive(Clone, Debug, Serialize)]
pub struct Bar {
    /// The label beside it, a template.
    pub label: &'static str,
    /// The name that its colour stands for, a template.
    pub series: &'static str,
    /// The path of its value; of each piece if there are pieces, where a `+` adds values. Over a bar without pieces, a
    /// line goes from `_min` to `_max` of the value.
    pub values: Vec<&'static str>,
}

impl Bars {
    /// Returns bars of the value at `path`, one for each of `rows`, named and coloured by their target.
    pub fn of_targets(title: impl Into<String>, rows: Vec<usize>, path: &'static str, format: &'static str) -> Self {
        let bar = Bar {
            label: "{target}",
            series: "{target}",
            values: vec![path],
        };
        Self {
            title: title.into(),
            rows,
            bars: vec![bar],
            pieces: None,
            format,
        }
    }
}

/// Lines in a pair of axes.
#[derive(Clone, Debug, Serialize)]
pub struct Lines {
    /// The title of the chart.
    pub title: String,
    /// The horizontal axis.
    pub x: XAxis,
    /// The vertical axis.
    pub y: YAxis,
    /// The lines.
    pub lines: Vec<Line>,
    /// Points to be pointed out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Mark>,
}

/// A point of a chart that is pointed out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mark {
    /// Where it is.
    pub at: (f64, f64),
    /// The word beside it.
    pub text: String,
}

/// The horizontal axis.
#[derive(Clone, Debug, Serialize)]
pub struct XAxis {
    /// The quantity.
    pub title: &'static str,
    /// The names of its steps, from 0; without any, and without a scale, x is the number of nines of a percentile: 2
    /// stands for 99 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<String>>,
    /// The scale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
}

/// The vertical axis.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct YAxis {
    /// The quantity.
    pub title: &'static str,
    /// The scale.
    pub scale: Scale,
}

/// The scale of an axis.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Percent, from 0 to 100.
    Percent,
    /// Microseconds, on decades.
    Micros,
    /// A number above zero, on decades; of horizontal axes only.
    Number,
    /// A number, from 0; of vertical axes only.
    Count,
}

/// Lines over time.
#[derive(Clone, Debug, Serialize)]
pub struct Course {
    /// The title of the chart.
    pub title: String,
    /// The quantity of the vertical axis.
    pub y: &'static str,
    /// Its scale.
    pub scale: Scale,
    /// Times in seconds at which something begins, with its name.
    pub marks: Vec<(f64, String)>,
    /// The lines, over seconds from 0.
    pub lines: Vec<Line>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Its points, from the left.
    pub points: Vec<(f64, f64)>,
}

/// Returns the page with `report`, which has a [`Page`] as its `page`.
pub(crate) fn html(report: &Value) -> String {
    // Nothing that begins with `<` can end or change the element that the JSON is in.
    TEMPLATE.replacen(PLACE, &report.to_string().replace('<', "\\u003c"), 1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        let report = json!({ "page": { "title": "</script><script>alert(1)</script><!--" } });
        let page = html(&report);
        assert!(!page.contains("alert(1)</script>") && page.contains(r"\u003c/script>\u003cscript>alert(1)"));
        assert_eq!(page.matches("<script").count(), TEMPLATE.matches("<script").count());
        let (_, from) = page.split_once(r#"id="report">"#).unwrap();
        let (inlined, _) = from.split_once("</script>").unwrap();
        assert_eq!(serde_json::from_str::<Value>(inlined).unwrap(), report);
    }

    #[test]
    fn the_template_loads_nothing_and_has_one_place_for_a_report() {
        assert_eq!(TEMPLATE.matches(PLACE).count(), 1);
        for text in [
            "url(",
            "@import",
            " src=",
            "fetch(",
            "XMLHttpRequest",
            "innerHTML",
            "eval(",
        ] {
            assert!(!TEMPLATE.contains(text), "{text}");
        }
        assert_eq!(
            TEMPLATE.matches(" href=").count(),
            TEMPLATE.matches(r#" href="data:,""#).count()
        );
    }

    #[test]
    fn sections_are_as_the_script_takes_them() {
        let bars = Bars::of_targets("Requests per second", vec![2, 0], "value", "short");
        let bar = json!({"label": "{target}", "series": "{target}", "values": ["value"]});
        let expected = json!({"bars": {
            "title": "Requests per second",
            "rows": [2, 0],
            "bars": [bar],
            "format": "short",
        }});
        assert_eq!(json!(Section::Bars(bars)), expected);
        let lines = Lines {
            title: "Clients answered".to_owned(),
            x: XAxis {
                title: "percentile",
                names: None,
                scale: None,
            },
            y: YAxis {
                title: "latency",
                scale: Scale::Micros,
            },
            lines: vec![Line {
                name: "connect".to_owned(),
                points: vec![(0.0, 2.5)],
            }],
            marks: Vec::new(),
        };
        let expected = json!({"lines": {
            "title": "Clients answered",
            "x": {"title": "percentile"},
            "y": {"title": "latency", "scale": "micros"},
            "lines": [{"name": "connect", "points": [[0.0, 2.5]]}],
        }});
        assert_eq!(json!(Section::Lines(lines)), expected);
        assert_eq!(
            json!(Section::Facts(vec![("kernel".to_owned(), "6.1".to_owned())])),
            json!({"facts": [["kernel", "6.1"]]})
        );
        let column = Column::figure("clients ok", "{legit_ok}/{legit_tried}").alert("legit_failed");
        let expected = json!({
            "title": "clients ok",
            "text": "{legit_ok}/{legit_tried}",
            "is_name": false,
            "alert": "legit_failed",
        });
        assert_eq!(json!(column), expected);
    }

    #[test]
    fn the_template_follows_the_screen_and_the_scheme() {
        for text in [
            "width=device-width",
            "(prefers-color-scheme: dark)",
            "color-scheme: light dark",
            "default-src 'none'",
            "<noscript>",
        ] {
            assert!(TEMPLATE.contains(text), "{text}");
        }
    }
}
