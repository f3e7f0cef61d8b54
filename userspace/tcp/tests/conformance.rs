//! docs/conformance.md against the sources: what it names exists, and every requirement has its three cases.
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const DOCUMENT: &str = "docs/conformance.md";

const COLUMNS: [&str; 8] = [
    "#",
    "level",
    "requirement",
    "RFC",
    "implemented in",
    "ordinary",
    "edge",
    "hostile",
];

/// The folders of tests whose name begins like this; other names are segment scripts, or programs beside this one.
const ROOTS: [(&str, &str); 8] = [
    ("unit/", "userspace/tcp/src"),
    ("sim/", "userspace/sim/tests/simulation"),
    ("xdp/", "userspace/runtime/tests"),
    ("lab/", "userspace/server/tests/lab"),
    ("apps/", "userspace/apps/src"),
    ("runtime/", "userspace/runtime/src"),
    ("exchange/", "userspace/exchange/src"),
    ("abi/", "ebpf/abi/src"),
];

/// The segment scripts, which are one program.
const SEGMENTS: &str = "userspace/tcp/tests/segments";

/// Tests that are a program each.
const PROGRAMS: &str = "userspace/tcp/tests";

/// Files there that show no requirement: this one, the list of the scripts, and a congestion control from outside.
const NO_SCRIPTS: [&str; 3] = ["conformance", "main", "custom_congestion"];

/// One requirement.
struct Row {
    id: String,
    level: String,
    requirement: String,
    files: Vec<String>,
    ordinary: Vec<String>,
    edge: Vec<String>,
    hostile: Vec<String>,
}

impl Row {
    fn tests(&self) -> impl Iterator<Item = &String> {
        self.ordinary.iter().chain(&self.edge).chain(&self.hostile)
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn cells(line: &str) -> Vec<&str> {
    let line = line.trim().trim_start_matches('|').trim_end_matches('|');
    line.split('|').map(str::trim).collect()
}

/// The texts between backticks.
fn names(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The rows of the tables that have the columns of requirements.
fn rows(document: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut within = false;
    for line in document.lines() {
        if !line.starts_with('|') {
            within = false;
        } else if cells(line) == COLUMNS {
            within = true;
        } else if within && !line.starts_with("|---") {
            let cells = cells(line);
            assert_eq!(cells.len(), COLUMNS.len(), "{line}");
            rows.push(Row {
                id: cells[0].to_owned(),
                level: cells[1].to_owned(),
                requirement: cells[2].to_owned(),
                files: names(cells[4]),
                ordinary: names(cells[5]),
                edge: names(cells[6]),
                hostile: names(cells[7]),
            });
        }
    }
    rows
}

fn requirements() -> Vec<Row> {
    let path = root().join(DOCUMENT);
    let document = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let rows = rows(&document);
    assert!(!rows.is_empty(), "{DOCUMENT} has no table of requirements");
    rows
}

/// The names of the functions under `#[test]`, those within `proptest!` included, those under `#[ignore]` not.
fn tests_in(source: &str) -> BTreeSet<&str> {
    let mut tests = BTreeSet::new();
    let (mut test, mut ignored) = (false, false);
    for line in source.lines().map(str::trim) {
        if line == "#[test]" {
            test = true;
        } else if line.starts_with("#[ignore") {
            ignored = true;
        } else if !(line.is_empty() || line.starts_with("//") || line.starts_with("#[")) {
            if let Some(rest) = line.strip_prefix("fn ").filter(|_| test && !ignored) {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
                tests.insert(&rest[..end.unwrap_or(rest.len())]);
            }
            (test, ignored) = (false, false);
        }
    }
    tests
}

/// The file of the test `file::name`.
fn file_of(test: &str) -> Option<(PathBuf, &str)> {
    let (file, name) = test.split_once("::")?;
    let rooted = ROOTS
        .iter()
        .find_map(|(prefix, folder)| Some((*folder, file.strip_prefix(prefix)?)));
    let (folder, file) = rooted.unwrap_or((SEGMENTS, file));
    let path = root().join(folder).join(file).with_extension("rs");
    if rooted.is_none() && !path.exists() {
        return Some((root().join(PROGRAMS).join(file).with_extension("rs"), name));
    }
    Some((path, name))
}

/// The fault of a test's name; `None`: there is none.
fn missing(test: &str) -> Option<String> {
    let Some((path, name)) = file_of(test) else {
        return Some(format!("{test} is not of the form file::name"));
    };
    match fs::read_to_string(&path) {
        Err(error) => Some(format!("{test}: {}: {error}", path.display())),
        Ok(source) if tests_in(&source).contains(name) => None,
        Ok(_) => Some(format!("{test}: no such test in {}", path.display())),
    }
}

#[test]
fn every_requirement_is_listed_and_has_a_level() {
    let rows = requirements();
    let mut ids = BTreeSet::new();
    for row in &rows {
        assert!(ids.insert(row.id.as_str()), "{} is there twice", row.id);
        assert!(
            ["must", "should", "later"].contains(&row.level.as_str()),
            "{}: {:?} is no level",
            row.id,
            row.level
        );
    }
    for (section, count) in [("A", 16), ("B", 16), ("C", 5)] {
        for number in 1..=count {
            let id = format!("{section}{number}");
            let there = ids
                .iter()
                .any(|row| row.trim_end_matches(|c: char| c.is_ascii_lowercase()) == id);
            assert!(there, "{id} has no row");
        }
    }
}

#[test]
fn every_requirement_has_its_three_cases_or_the_reason_why_it_is_left_out() {
    let mut wrong = Vec::new();
    for row in requirements() {
        if row.level == "later" {
            if !row.requirement.contains("Left out: ") {
                wrong.push(format!("{} is left out without a reason", row.id));
            }
            continue;
        }
        for (case, tests) in [
            ("ordinary", &row.ordinary),
            ("edge", &row.edge),
            ("hostile", &row.hostile),
        ] {
            if tests.is_empty() {
                wrong.push(format!("{} has no {case} case", row.id));
            }
        }
        if row.files.is_empty() {
            wrong.push(format!("{} does not say where it is implemented", row.id));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_test_that_is_named_exists() {
    let wrong: Vec<String> = requirements()
        .iter()
        .flat_map(|row| row.tests().filter_map(|test| missing(test)).collect::<Vec<_>>())
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_file_that_is_named_exists() {
    let engine = root().join("userspace/tcp/src");
    for row in requirements() {
        for file in &row.files {
            assert!(
                engine.join(file).is_file() || root().join(file).is_file(),
                "{}: no file {file}",
                row.id
            );
        }
    }
}

#[test]
fn every_segment_script_belongs_to_a_requirement() {
    let named: BTreeSet<PathBuf> = requirements()
        .iter()
        .flat_map(|row| {
            row.tests()
                .filter_map(|test| Some(file_of(test)?.0))
                .collect::<Vec<_>>()
        })
        .collect();
    for folder in [SEGMENTS, PROGRAMS].map(|folder| root().join(folder)) {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            let script = path.extension().is_some_and(|extension| extension == "rs")
                && path
                    .file_stem()
                    .is_some_and(|stem| !NO_SCRIPTS.iter().any(|name| stem == *name));
            assert!(
                !script || named.contains(&path),
                "no requirement names {}",
                path.display()
            );
        }
    }
}

#[test]
fn tests_are_told_from_other_functions() {
    let source = "
        #[test]
        fn plain() {}
        fn helper() {}
        #[test]
        // With a comment.
        #[cfg(unix)]
        fn with_attributes() {}
        #[test]
        #[ignore = \"slow\"]
        fn ignored() {}
        proptest! {
            /// Of anything.
            #[test]
            fn of_properties(value: u8) {}
        }
    ";
    let expected = BTreeSet::from(["of_properties", "plain", "with_attributes"]);
    assert_eq!(tests_in(source), expected);
}

#[test]
fn what_is_missing_is_noticed() {
    assert_eq!(missing("conformance::what_is_missing_is_noticed"), None);
    assert!(missing("conformance::no_such_test").is_some());
    assert!(missing("no_such_file::no_such_test").is_some());
    assert!(missing("unit/seq::missing").is_some());
    assert!(missing("nonsense").is_some());
    let table = "| # | level | requirement | RFC | implemented in | ordinary | edge | hostile |\n\
                 |---|---|---|---|---|---|---|---|\n\
                 | Z1 | must | it works | 1 | `a.rs` | `x::y`<br>`x::z` | | `v::w` |\n\
                 \n\
                 | other | table |\n";
    let rows = rows(table);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].id, "Z1");
    assert_eq!(rows[0].ordinary, ["x::y", "x::z"]);
    assert!(rows[0].edge.is_empty());
    assert_eq!(rows[0].hostile, ["v::w"]);
}
