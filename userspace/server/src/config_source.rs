//! The text of a configuration file, and where in it a key stands.

use std::fmt;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::config_file::with_nearest;

/// A configuration file as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    name: String,
    text: String,
}

/// A place in the file, as `FILE:LINE:COLUMN`. Both count from 1, columns in characters.
#[derive(Debug)]
struct Position<'a> {
    name: &'a str,
    line: usize,
    column: usize,
}

impl fmt::Display for Position<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.name, self.line, self.column)
    }
}

/// An entry that is found by an offset.
struct Found {
    path: Vec<String>,
    start: usize,
    is_table: bool,
}

impl Source {
    /// The content `text` of the file called `name`.
    pub(crate) fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
        }
    }

    /// `error` with the place of the entry it is about.
    pub(crate) fn locate(&self, error: &toml::de::Error) -> String {
        let message = with_nearest(&error.message().replace('\n', " "));
        let offset = error.span().map_or(0, |span| span.start);
        // A file that is no TOML has no keys to name.
        let found = DeTable::parse(&self.text)
            .ok()
            .and_then(|root| find(root.get_ref(), offset, &mut Vec::new()));
        match found {
            Some(found) => {
                let position = self.position(found.start);
                let path = found.path.join(".");
                if found.is_table {
                    format!("{position}: table [{path}]: {message}")
                } else {
                    format!("{position}: key `{path}`: {message}")
                }
            }
            None => format!("{}: {message}", self.position(offset)),
        }
    }

    /// The place of the key at `path`, for a message; `None` if it is not set.
    pub(crate) fn place_of(&self, path: &[&str]) -> Option<String> {
        let root = DeTable::parse(&self.text).ok()?;
        let (last, tables) = path.split_last()?;
        let mut table = root.get_ref();
        for name in tables {
            table = match entry(table, name)?.1.get_ref() {
                DeValue::Table(table) => table,
                _ => return None,
            };
        }
        let (key, _) = entry(table, last)?;
        Some(self.position(key.span().start).to_string())
    }

    fn position(&self, offset: usize) -> Position<'_> {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            name: &self.name,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

fn entry<'a, 't>(table: &'a DeTable<'t>, name: &str) -> Option<(&'a Spanned<DeString<'t>>, &'a Spanned<DeValue<'t>>)> {
    table.iter().find(|(key, _)| key.get_ref() == name)
}

/// The innermost entry of `table` that byte `offset` belongs to; of an array, the element. `path` is the table's.
fn find(table: &DeTable<'_>, offset: usize, path: &mut Vec<String>) -> Option<Found> {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        let inner = match value.get_ref() {
            DeValue::Table(table) => find(table, offset, path),
            _ => None,
        };
        if inner.is_some() {
            return inner;
        }
        if key.span().contains(&offset) || value.span().contains(&offset) {
            let start = match value.get_ref() {
                DeValue::Array(elements) => elements
                    .iter()
                    .find(|element| element.span().contains(&offset))
                    .map_or(key.span().start, |element| element.span().start),
                _ => key.span().start,
            };
            return Some(Found {
                path: path.clone(),
                start,
                is_table: matches!(value.get_ref(), DeValue::Table(_)),
            });
        }
        path.pop();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_however_they_are_written() {
        for (text, path, place) in [
            ("drain = \"1s\"", &["drain"][..], "t.toml:1:1"),
            ("[tcp]\n  mtu = 1500", &["tcp", "mtu"], "t.toml:2:3"),
            ("tcp.mtu = 1500", &["tcp", "mtu"], "t.toml:1:5"),
            (
                "# ä\ntcp = { nagle = true, mtu = 1500 }",
                &["tcp", "mtu"],
                "t.toml:2:23",
            ),
            ("[\"tcp\"]\n\"mtu\" = 1", &["tcp", "mtu"], "t.toml:2:1"),
            (
                "[listener.\"http=192.0.2.1:80\"]\nkeepalive_probes = 0",
                &["listener", "http=192.0.2.1:80", "keepalive_probes"],
                "t.toml:2:1",
            ),
            (
                "\n[listener.\"http=192.0.2.1:80\"]\n",
                &["listener", "http=192.0.2.1:80"],
                "t.toml:2:11",
            ),
            ("x = \"ä\" # ö\n[tcp] \nmtu = 1", &["tcp"], "t.toml:2:2"),
        ] {
            let source = Source::new("t.toml", text);
            assert_eq!(source.place_of(path).as_deref(), Some(place), "{text}");
        }
        let source = Source::new("t.toml", "[tcp]\nmtu = 1500\n");
        for path in [&["tcp", "msl"][..], &["mtu"], &["tcp", "mtu", "x"], &["http", "mtu"]] {
            assert_eq!(source.place_of(path), None, "{path:?}");
        }
    }
}
