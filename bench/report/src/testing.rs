//! Parts of tests of reports, and of the commands that make them.
//!
//! This is no part of what the programs do; it is here for the tests of several crates.

use serde_json::{Map, Value};

use crate::Report;

/// The fields of every report, as programs read them.
const REPORT: &str = include_str!("../../../docs/report.md");

/// Fields whose own fields are names of something else: of tags, kinds of errors, or facts of a machine.
const OPEN: [&str; 4] = ["environment", "errors", "errors_by_kind", "tags"];

/// Returns the arguments of a subcommand, from what follows its name on the command line.
///
/// # Errors
///
/// clap refuses them.
pub fn parse<A: clap::Args>(arguments: &[&str]) -> Result<A, clap::Error> {
    let name = "tidegate-bench";
    let all = std::iter::once(name).chain(arguments.iter().copied());
    let matches = A::augment_args(clap::Command::new(name)).try_get_matches_from(all)?;
    A::from_arg_matches(&matches)
}

/// Returns the keys of an object, sorted.
///
/// # Panics
///
/// It is no object.
#[track_caller]
pub fn keys(object: &Value) -> Vec<&str> {
    let object = object.as_object().expect("it is an object");
    let mut keys: Vec<&str> = object.keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// Returns an environment in which something looks like markup.
pub fn environment() -> Map<String, Value> {
    let mut environment = Map::new();
    environment.insert("kernel".to_owned(), Value::from("6.1 <script>"));
    environment
}

/// Checks a report in [`environment`]. With `TIDEGATE_PAGES` set, leaves the page and the text as `name` in that
/// directory for `scripts/test-pages.sh`.
///
/// # Panics
///
/// `docs/report.md` does not name a field, the page is not whole, or the directory cannot be written to.
#[track_caller]
pub fn assert_report(name: &str, report: &Report) {
    assert_documented(&report.json());
    let page = report.html();
    assert!(page.contains(r"6.1 \u003cscript>") && page.trim_end().ends_with("</html>"));
    if let Some(directory) = std::env::var_os("TIDEGATE_PAGES") {
        let file = std::path::Path::new(&directory).join(name);
        std::fs::write(file.with_extension("html"), page).expect("the directory can be written to");
        std::fs::write(file.with_extension("txt"), &report.text).expect("the directory can be written to");
    }
}

#[track_caller]
fn assert_documented(value: &Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                assert!(
                    REPORT.contains(&format!("`{name}`")),
                    "docs/report.md says nothing about `{name}`"
                );
                if !OPEN.contains(&name.as_str()) {
                    assert_documented(value);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(assert_documented),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Row;

    fn report(row: Row) -> Report {
        Report {
            kind: "rps",
            environment: environment(),
            rows: vec![row],
            ..Report::default()
        }
    }

    #[test]
    #[should_panic(expected = "docs/report.md says nothing about `nobody_wrote_this_down`")]
    fn a_field_that_the_document_does_not_name_is_found() {
        let latency = json!({"p50": 1.0, "nobody_wrote_this_down": 2.0});
        assert_report("", &report(Row::new().with("latency_us", latency)));
    }

    #[test]
    fn kinds_of_errors_and_facts_of_a_machine_need_not_be_named() {
        let row = Row::new()
            .with("workload", "rps")
            .with("errors", json!({"a_kind_of_error": 1}));
        let mut report = report(row);
        report.environment.insert("a_fact".to_owned(), json!({"of": "it"}));
        assert_documented(&report.json());
    }

    #[test]
    fn keys_are_sorted() {
        assert_eq!(keys(&json!({"b": 1, "a": {"c": 2}})), ["a", "b"]);
    }
}
