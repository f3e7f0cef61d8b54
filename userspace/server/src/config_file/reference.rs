//! `docs/configuration.md` and `scripts/tidegate.example.toml` against the code: keys, defaults and ranges.

use std::collections::BTreeSet;

use tidegate_tcp::config::MAX_DURATION;

use super::tests::settings;
use super::*;

const DOCUMENT: &str = include_str!("../../../../docs/configuration.md");
const EXAMPLE: &str = include_str!("../../../../scripts/tidegate.example.toml");

/// The listener whose keys are tried.
const LISTENER: &str = "listener.\"http=198.18.0.1:80\"";

/// Values with which every other key has all of its range, by name.
const CONTEXT: [(&str, &str); 9] = [
    ("afxdp.burst", "1"),
    ("afxdp.completion_ring", "65536"),
    ("afxdp.control_reserve", "1"),
    ("afxdp.tx_ring", "64"),
    ("http.max_head", "256"),
    ("http.max_uri", "16"),
    ("tcp.receive_buffer_initial", "1048576"),
    ("tcp.rto_max", "\"3650days\""),
    ("tcp.rto_min", "\"1ns\""),
];

/// A row of the document. Keys are named with their table, as in `tcp.mtu`.
struct Row {
    key: String,
    kind: &'static str,
    default: &'static str,
    range: &'static str,
}

/// A key as the example shows it: `#key = value` with its default or, where it has none, `# key = value`.
struct Shown {
    key: String,
    value: &'static str,
    is_default: bool,
    /// From 0.
    line: usize,
}

fn rows() -> Vec<Row> {
    let mut table = "";
    let mut rows = Vec::new();
    for line in DOCUMENT.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            table = heading.split(['[', ']', '.']).nth(1).unwrap_or("");
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", key, kind, default, range, meaning, ""] = cells[..] else {
            assert!(!line.starts_with('|'), "a row of other columns: {line}");
            continue;
        };
        if matches!(key, "key" | "---") {
            continue;
        }
        assert!(meaning.ends_with('.'), "{key}: the meaning is no sentence: {meaning}");
        let key = key.trim_matches('`');
        rows.push(Row {
            key: if key.contains('.') {
                key.to_owned()
            } else {
                with_table(table, key)
            },
            kind,
            default: default.trim_matches('`'),
            range: range.split(';').next().unwrap_or(range),
        });
    }
    rows
}

fn shown() -> Vec<Shown> {
    let mut table = "";
    let mut shown = Vec::new();
    for (line, text) in EXAMPLE.lines().enumerate() {
        if let Some(name) = text.strip_prefix('[') {
            table = name.trim_end_matches(']');
        }
        // Keys of listeners are indented further, as is a command.
        let rest = text.strip_prefix("# ").or(text.strip_prefix('#')).unwrap_or("");
        if let Some((key, value)) = rest.split_once(" = ")
            && !key.contains([' ', '`'])
        {
            let is_default = !text.starts_with("# ");
            let key = with_table(table, key);
            shown.push(Shown {
                key,
                value,
                is_default,
                line,
            });
        }
    }
    shown
}

fn with_table(table: &str, key: &str) -> String {
    if table.is_empty() {
        key.to_owned()
    } else {
        format!("{table}.{key}")
    }
}

impl Row {
    /// Values at the edges of the range, as TOML; and values beyond them.
    fn edges(&self) -> (Vec<String>, Vec<String>) {
        let values = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
        let choices: Vec<&str> = self.range.split('`').skip(1).step_by(2).collect();
        match (self.kind, self.key.as_str()) {
            ("integer" | "duration", _) if !self.range.starts_with("`2048`") => self.bounds(),
            ("integer", _) => (values(&choices), values(&["0", "1024", "4097"])),
            ("boolean", _) => (values(&["true", "false"]), values(&["2", "\"true\""])),
            ("choice", _) => (
                choices.iter().map(|choice| format!("\"{choice}\"")).collect(),
                values(&["\"neither\"", "true"]),
            ),
            ("fraction", _) => (
                values(&["0.000001", "1.0", "1"]),
                values(&["0.0", "-0.5", "1.1", "nan", "true"]),
            ),
            (_, "iface") => (
                values(&["\"eth1\"", "[\"eth1\", \"bond0\"]"]),
                values(&["\"a/b\"", "\"\"", "1", "[\"eth1\", \"\"]", "[1]"]),
            ),
            (_, "admin_hosts") => (
                values(&["[]", "[\"host.example\"]"]),
                values(&["\"host.example\"", "[\"host.example:80\"]"]),
            ),
            (_, "listen") => (
                values(&["[]", "[\"echo=[2001:2::1]:7\"]"]),
                values(&["[\"http=127.0.0.1:80\"]"]),
            ),
            ("address and port", _) => (
                values(&["\"127.0.0.1:9464\"", "\"[::1]:0\""]),
                values(&["\"localhost\"", "9464"]),
            ),
            ("user", _) => (values(&["\"root\""]), values(&["\"\""])),
            (_, "privileges.user") => (values(&["\"nobody\""]), values(&["1"])),
            (_, "privileges.read") => (values(&["[]", "[\"/srv\"]"]), values(&["\"/srv\""])),
            ("path", _) => (values(&["\"/srv/a\""]), values(&["\"\""])),
            (_, "http.index") => (values(&["\"a.html\""]), values(&["\"a/b\"", "\"\""])),
            (_, "sources.allow" | "sources.deny" | "balancers.from") => {
                (values(&["[]", "[\"192.0.2.0/24\"]"]), values(&["[\"192.0.2.1/24\"]"]))
            }
            _ => panic!("{}: no values of the type {}", self.key, self.kind),
        }
    }

    fn bounds(&self) -> (Vec<String>, Vec<String>) {
        let parse = |text: &str| -> i128 {
            let text = text.trim_matches('`').replace(',', "");
            match self.kind {
                "integer" => text.parse().ok(),
                _ => humantime::parse_duration(&text)
                    .ok()
                    .map(|time| time.as_nanos() as i128),
            }
            .unwrap_or_else(|| panic!("{}: no bound: {text}", self.key))
        };
        let (text, step) = match self.range.strip_suffix(", a power of two") {
            Some(text) => (text, 2),
            None => (self.range, 1),
        };
        let longest = (self.kind == "duration").then_some(MAX_DURATION.as_nanos() as i128);
        let (min, max) = match text.split(' ').collect::<Vec<_>>()[..] {
            [min, "to", max] => (parse(min), Some(parse(max))),
            [min, "or", "more"] => (parse(min), longest),
            ["above", limit] => (parse(limit) + 1, longest),
            ["below", limit] => (0, Some(parse(limit) - 1)),
            _ => panic!("{}: no range: {text}", self.key),
        };
        let (below, above) = match (step, max) {
            (2, _) => (vec![min / 2, min + 1], max.map(|max| 2 * max)),
            // No duration is negative.
            _ if self.kind == "duration" && min == 0 => (vec![], max.map(|max| max + 1)),
            _ => (vec![min - 1], max.map(|max| max + 1)),
        };
        let literal = |value: i128| match self.kind {
            "integer" => value.to_string(),
            // Beyond what nanoseconds can be counted in, no bound is finer than a second.
            _ if value > 1 << 62 => format!("\"{}s {}ns\"", value / 1_000_000_000, value % 1_000_000_000),
            _ => format!("\"{value}ns\""),
        };
        (
            [min].into_iter().chain(max).map(literal).collect(),
            below.into_iter().chain(above).map(literal).collect(),
        )
    }

    /// A file with this key set to `value`, and the others such that it may be.
    fn file(&self, value: &str) -> String {
        let mut text = format!("listen = [\"http=198.18.0.1:80\"]\n{} = {value}\n", self.key);
        if let Some(rest) = self.key.strip_prefix("listener.") {
            text = format!("listen = [\"http=198.18.0.1:80\"]\n{LISTENER}.{rest} = {value}\n");
        } else if self.key == "listen" {
            text = format!("listen = {value}\n");
        }
        for (key, value) in CONTEXT {
            // The target of a request is a part of its head.
            let value = if self.key == "http.max_uri" && key == "http.max_head" {
                "1048576"
            } else {
                value
            };
            if key != self.key {
                text += &format!("{key} = {value}\n");
            }
        }
        text
    }
}

#[test]
fn the_document_has_the_keys_and_defaults_of_the_example() {
    let rows: Vec<(String, String)> = rows()
        .into_iter()
        .filter(|row| !row.key.starts_with("listener."))
        .map(|row| (row.key, row.default.to_owned()))
        .collect();
    let shown: Vec<(String, String)> = shown()
        .into_iter()
        .map(|shown| {
            let default = if shown.is_default { shown.value } else { "none" };
            (shown.key, default.to_owned())
        })
        .collect();
    assert_eq!(rows, shown);
    assert!(rows.len() > 80, "only {} keys found", rows.len());
}

#[test]
fn ranges_are_those_of_the_document() {
    for row in rows() {
        let (good, bad) = row.edges();
        assert!(!good.is_empty() && !bad.is_empty(), "{}", row.key);
        for value in good {
            let text = row.file(&value);
            parse(&text, "t.toml").unwrap_or_else(|error| panic!("{} = {value} is refused: {error}", row.key));
        }
        let name = row.key.rsplit('.').next().unwrap_or(&row.key);
        for value in bad {
            let text = row.file(&value);
            let Err(error) = parse(&text, "t.toml") else {
                panic!("{} = {value} is accepted", row.key);
            };
            assert!(error.contains(name), "{} = {value}: {error}", row.key);
        }
    }
}

#[test]
fn no_duration_is_too_long_for_the_sums_it_goes_into() {
    let mut keys = 0;
    for row in rows().iter().filter(|row| row.kind == "duration") {
        let error = parse(&row.file("\"584000000000years\""), "t.toml").expect_err(&row.key);
        let name = row.key.rsplit('.').next().unwrap_or(&row.key);
        assert!(
            error.contains(&format!("{name}`: {name} is 18")) || error.contains(&format!("`: {} is 18", row.key)),
            "{error}"
        );
        keys += 1;
    }
    assert!(keys >= 20, "only {keys} durations found");
}

#[test]
fn every_key_of_the_example_is_found_when_its_value_is_wrong() {
    let rows = rows();
    for shown in shown() {
        let row = rows
            .iter()
            .find(|row| row.key == shown.key)
            .expect("a row of the document");
        let name = shown.key.rsplit('.').next().unwrap_or(&shown.key);
        let wrong = format!("  {name} = {}", row.edges().1[0]);
        let text: String = EXAMPLE
            .lines()
            .enumerate()
            .map(|(other, line)| if other == shown.line { &wrong } else { line })
            .fold(String::new(), |all, line| all + line + "\n");
        let error = parse(&text, "t.toml").expect_err(&wrong);
        // Of a list, the place of the element.
        let column = wrong.find("[\"").map_or(3, |bracket| bracket + 2);
        let expected = format!("t.toml:{}:{column}: key `{}`: ", shown.line + 1, shown.key);
        assert!(error.starts_with(&expected), "{wrong}: {error}");
    }
}

#[test]
fn the_example_changes_nothing_as_it_stands_or_uncommented() {
    let mut lines: Vec<&str> = EXAMPLE.lines().collect();
    for shown in shown().iter().filter(|shown| shown.is_default) {
        lines[shown.line] = lines[shown.line].trim_start_matches('#');
    }
    let defaults = settings(ConfigFile::default());
    for text in [EXAMPLE.to_owned(), lines.join("\n")] {
        let file = parse(&text, "example").unwrap();
        assert_eq!(settings(file), defaults);
    }
}

#[test]
fn the_example_shows_every_key() {
    let shown: BTreeSet<String> = shown().into_iter().map(|shown| shown.key).collect();
    let tables: BTreeSet<&str> = shown.iter().filter_map(|key| Some(key.split_once('.')?.0)).collect();
    // The pretty-printed defaults have the top level indented by 4 and the tables' keys by 8.
    let debug = format!("{:#?}", ConfigFile::default());
    let mut table = "";
    let mut fields = 0;
    for line in debug.lines() {
        let Some((name, _)) = line.trim_start().split_once(": ") else {
            continue;
        };
        let key = match line.len() - line.trim_start().len() {
            4 => {
                table = name;
                name.to_owned()
            }
            8 => with_table(table, name),
            _ => continue,
        };
        fields += 1;
        // Set by the top level's `root`, and by the balancers; and a table for each listener that wants one.
        if key == "http.root" || key == "tcp.outer_headers" || key == "listener" || key.starts_with("origins") {
            continue;
        }
        assert!(
            shown.contains(&key) || tables.contains(&*key),
            "{key} is missing from the example"
        );
    }
    assert!(fields > 30, "only {fields} fields found in {debug}");
}
