//! The table of crates in docs/architecture.md against `cargo metadata`: no crate depends on one that the table does
//! not allow it, and the table allows nothing that is not needed.
#![allow(missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const DOCUMENT: &str = "docs/architecture.md";

const COLUMNS: [&str; 3] = ["crate", "depends on", "and for its tests"];

/// The crates that each depends on, and those for its tests. Names are without the prefix `tidegate-`.
type Arrows = BTreeMap<String, [BTreeSet<String>; 2]>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn cells(line: &str) -> Vec<&str> {
    let line = line.trim().trim_start_matches('|').trim_end_matches('|');
    line.split('|').map(str::trim).collect()
}

/// The texts between backticks.
fn names(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

fn in_document(document: &str) -> Arrows {
    let rows = document.lines().skip_while(|line| cells(line) != COLUMNS).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells = cells(line);
            assert_eq!(cells.len(), COLUMNS.len(), "{line}");
            let name = names(cells[0])
                .next()
                .unwrap_or_else(|| panic!("a row without a crate: {line}"));
            (name, [names(cells[1]).collect(), names(cells[2]).collect()])
        })
        .collect()
}

/// The arrows between crates of the workspace.
fn in_workspace() -> Arrows {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let name_of = |value: &Value| short(value["name"].as_str().expect("a name"));
    let members: BTreeSet<String> = packages.iter().map(name_of).collect();
    let arrows = packages.iter().map(|package| {
        let mut arrows = [BTreeSet::new(), BTreeSet::new()];
        for dependency in package["dependencies"].as_array().expect("a list of dependencies") {
            let name = name_of(dependency);
            if members.contains(&name) {
                arrows[usize::from(dependency["kind"] == "dev")].insert(name);
            }
        }
        let [always, tests] = arrows;
        let tests = tests.difference(&always).cloned().collect();
        (name_of(package), [always, tests])
    });
    arrows.collect()
}

fn short(package: &str) -> String {
    package.strip_prefix("tidegate-").unwrap_or(package).to_owned()
}

/// A row of the table.
fn row((name, arrows): (&String, &[BTreeSet<String>; 2])) -> String {
    let cell = |names: &BTreeSet<String>| {
        names
            .iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    format!("| `{name}` | {} | {} |", cell(&arrows[0]), cell(&arrows[1]))
}

#[test]
fn the_workspace_has_the_arrows_of_the_document_and_no_others() {
    let path = root().join(DOCUMENT);
    let document = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let allowed = in_document(&document);
    let found = in_workspace();
    let differ = found
        .iter()
        .filter(|(name, arrows)| allowed.get(*name) != Some(*arrows));
    let differ: Vec<String> = differ.map(row).collect();
    let gone: Vec<&String> = allowed.keys().filter(|name| !found.contains_key(*name)).collect();
    assert!(
        differ.is_empty() && gone.is_empty(),
        "{DOCUMENT} says otherwise; if these arrows are right, its rows are\n{}\nand there is no crate {gone:?}",
        differ.join("\n")
    );
}

#[test]
fn rows_are_read_as_they_are_written() {
    let document = "| crate | depends on | and for its tests |\n|---|---|---|\n| `a` | `b`, `c` | `d` |\n| `b` |  |  |\n\n| `x` | `y` | |";
    let arrows = in_document(document);
    assert_eq!(arrows.keys().collect::<Vec<_>>(), ["a", "b"]);
    let rows: Vec<String> = arrows.iter().map(row).collect();
    assert_eq!(rows, ["| `a` | `b`, `c` | `d` |", "| `b` |  |  |"]);
}
