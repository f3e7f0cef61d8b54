//! What tests of measurements and of their results have in common.

use hdrhistogram::Histogram;
use serde_json::{Map, Value};

/// The arguments of a subcommand, from what follows its name on the command line.
pub(crate) fn parse<A: clap::Args>(arguments: &[&str]) -> Result<A, clap::Error> {
    let name = "tidegate-bench";
    let all = std::iter::once(name).chain(arguments.iter().copied());
    let matches = A::augment_args(clap::Command::new(name)).try_get_matches_from(all)?;
    A::from_arg_matches(&matches)
}

/// The keys of an object, sorted.
#[track_caller]
pub(crate) fn keys(object: &Value) -> Vec<&str> {
    let object = object.as_object().expect("it is an object");
    let mut keys: Vec<&str> = object.keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// An environment in which something looks like markup.
pub(crate) fn environment() -> Map<String, Value> {
    let mut environment = Map::new();
    environment.insert("kernel".to_owned(), Value::from("6.1 <script>"));
    environment
}

/// A histogram of `values`, which are at most 120 s in nanoseconds.
pub(crate) fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
    histogram_up_to(120_000_000_000, values)
}

/// A histogram of `values`, which are at most `highest`.
pub(crate) fn histogram_up_to(highest: u64, values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, highest, 3).expect("the bounds are right");
    for value in values {
        histogram.record(value).expect("the value is within the bounds");
    }
    histogram
}
