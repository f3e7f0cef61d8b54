//! The frame of an HTML page that needs nothing but itself: no script, no font, no image from elsewhere.

use std::fmt::Write;

use serde_json::{Map, Value};

/// Red, green and blue.
pub(crate) type Colour = (u8, u8, u8);

const HEAD: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>"#;

const STYLE: &str = r#"</title>
<style>
:root {
  color-scheme: light dark;
  --text: #1b1f24; --soft: #59636e; --page: #f6f8fa; --card: #ffffff; --line: #d8dee4; --bad: #b42318;
}
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --soft: #9198a1; --page: #0d1117; --card: #151b23; --line: #2f3742; --bad: #ff8a7a; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 1320px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .8rem; }
p { max-width: 75ch; }
.soft { color: var(--soft); }
.bad { color: var(--bad); font-weight: 600; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem; }
.tiles, .plots { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); }
.alone { grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); }
.small { grid-template-columns: repeat(auto-fit, minmax(min(100%, 230px), 1fr)); }
.tile strong { display: block; font-size: 2rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
figure { margin: 0; color: var(--text); }
figcaption { font-weight: 600; margin-bottom: .3rem; }
svg { width: 100%; height: auto; display: block; }
ul.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; padding: 0; margin: .8rem 0; }
ul.legend span { display: inline-block; width: .8em; height: .8em; border-radius: 50%; margin-right: .45em; }
.scroll { overflow-x: auto; padding: 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
thead th { color: var(--soft); font-weight: 600; }
tbody tr:last-child td { border-bottom: 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
</style>
</head>
<body>
<main>
"#;

/// What ends a page that [`begin`] began.
pub(crate) const END: &str = "</main>\n</body>\n</html>\n";

/// What ends a table that [`begin_table`] began.
pub(crate) const END_OF_TABLE: &str = "</tbody>\n</table></div>\n";

/// A page up to its introduction. Both arguments are plain text.
pub(crate) fn begin(title: &str, introduction: &str) -> String {
    let title = escape(title);
    let introduction = escape(introduction);
    format!("{HEAD}{title}{STYLE}<h1>{title}</h1>\n<p class=\"soft\">{introduction}</p>\n")
}

/// A number, large, and what it is, small. Goes into a `div` of class `tiles`.
pub(crate) fn tile(page: &mut String, number: &str, what: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        page,
        "<div class=\"card tile\"><strong>{}</strong>{}</div>",
        escape(number),
        escape(what)
    );
}

/// Which line of the plots that follow is which.
pub(crate) fn legend<'a>(page: &mut String, lines: impl IntoIterator<Item = (Colour, &'a str)>) {
    page.push_str("<ul class=\"legend\">\n");
    for ((red, green, blue), name) in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "<li><span style=\"background:rgb({red},{green},{blue})\"></span>{}</li>",
            escape(name)
        );
    }
    page.push_str("</ul>\n");
}

/// A plot that [`chart::svg`](super::chart::svg) drew, below its title. Goes into a `div` of class `plots`.
pub(crate) fn figure(page: &mut String, title: &str, svg: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        page,
        "<figure class=\"card\"><figcaption>{}</figcaption>\n{svg}</figure>",
        escape(title)
    );
}

/// A table up to the names of its columns. `tr` elements follow, and then [`END_OF_TABLE`].
pub(crate) fn begin_table(page: &mut String, columns: &[&str]) {
    page.push_str("<div class=\"card scroll\"><table>\n<thead><tr>");
    for column in columns {
        // Writing to a String cannot fail.
        let _ = write!(page, "<th>{}</th>", escape(column));
    }
    page.push_str("</tr></thead>\n<tbody>\n");
}

/// Names and what they stand for, as a list.
pub(crate) fn list<'a>(page: &mut String, entries: impl IntoIterator<Item = (&'a str, &'a str)>) {
    page.push_str("<dl class=\"card\">\n");
    for (name, text) in entries {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(text));
    }
    page.push_str("</dl>\n");
}

/// The section that says what the results depend on.
pub(crate) fn environment(page: &mut String, environment: &Map<String, Value>) {
    page.push_str("<h2>Environment</h2>\n");
    let entries: Vec<(String, String)> = environment
        .iter()
        .map(|(name, value)| {
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            (name.replace('_', " "), text)
        })
        .collect();
    list(page, entries.iter().map(|(name, text)| (name.as_str(), text.as_str())));
}

/// `text` as it may stand in an element or in a quoted attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Panics if `page` refers to anything outside of itself.
#[cfg(test)]
#[track_caller]
pub(crate) fn assert_loads_nothing(page: &str) {
    // The name of the language of plots looks like an address.
    let rest = page.replace("http://www.w3.org/2000/svg", "");
    for text in ["url(", "<link", "<script", "@import", " src=", " href="] {
        assert!(!rest.contains(text), "{text}");
    }
}

/// Panics unless `page` goes on to its end and has all `texts`.
#[cfg(test)]
#[track_caller]
pub(crate) fn assert_whole_with(page: &str, texts: &[&str]) {
    for text in texts {
        assert!(page.contains(text), "{text}");
    }
    assert!(page.trim_end().ends_with("</html>"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("a<b>&\"'"), "a&lt;b&gt;&amp;&quot;&#39;");
        let mut page = begin("<title>", "<p>");
        tile(&mut page, "<1>", "<what>");
        legend(&mut page, [((1, 2, 3), "<line>")]);
        let mut map = Map::new();
        map.insert("cpu_<model>".to_owned(), Value::from("<script>"));
        environment(&mut page, &map);
        figure(&mut page, "<plot>", "<svg></svg>");
        begin_table(&mut page, &["<column>"]);
        page.push_str(END_OF_TABLE);
        page.push_str(END);
        assert_whole_with(
            &page,
            &[
                "<h1>&lt;title&gt;</h1>",
                "&lt;p&gt;",
                "<strong>&lt;1&gt;</strong>&lt;what&gt;",
                "rgb(1,2,3)\"></span>&lt;line&gt;",
                "<dt>cpu &lt;model&gt;</dt><dd>&lt;script&gt;</dd>",
                "<figcaption>&lt;plot&gt;</figcaption>\n<svg></svg></figure>",
                "<th>&lt;column&gt;</th></tr></thead>\n<tbody>\n</tbody>\n</table></div>\n",
            ],
        );
    }

    #[test]
    fn the_frame_is_whole_and_loads_nothing() {
        let page = begin("a title", "an introduction") + END;
        assert!(page.starts_with("<!DOCTYPE html>"));
        for element in ["html", "head", "title", "style", "body", "main", "h1"] {
            for tag in [format!("<{element}"), format!("</{element}>")] {
                assert!(page.contains(&tag), "{tag}");
            }
        }
        assert_loads_nothing(&page);
    }
}
