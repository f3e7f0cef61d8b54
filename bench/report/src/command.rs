//! `tidegate-bench report`: work with the results of measurements that are over.

use std::path::PathBuf;

use anyhow::Context;
use clap::ValueEnum;
use tidegate_args::percent;

use crate::diff::{self, Settings};
use crate::machines::{self, Machine};
use crate::merge::Merged;
use crate::sheet::Sheet;
use crate::stored::{Runs, Stored};
use crate::{Report, ReportFiles, files};

/// Arguments of `tidegate-bench report`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print a report again.
    Show(ShowArguments),
    /// Compare runs with earlier ones: what became better or worse, and is more than chance.
    ///
    /// Both sides need several runs, at least 8 pairs or 5 runs each, and more where they are noisy or the reports have
    /// many figures; 20 find a change of 5 % in noise of 1 %. Rows are matched by their names. The statistics are
    /// described in docs/benchmarks.md.
    ///
    /// Exit code: 0 without a regression, 1 when a figure became worse by the threshold or more, or a row or figure of
    /// OLD is missing in NEW, 2 for wrong arguments.
    Diff(DiffArguments),
    /// Put the latencies of several runs together, whichever machines they were measured on, or the whole results of
    /// several machines.
    ///
    /// Percentiles of several runs cannot be averaged; what --log wrote can be added. Values are taken for nanoseconds.
    /// With the JSON of single measurements beside their logs, rates and errors are added, too; they must have been
    /// made at the same time.
    Merge(MergeArguments),
}

/// The form of a report on the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns.
    Table,
    /// The whole report.
    Json,
    /// All fields of the rows as comma-separated values.
    Csv,
    /// The table as Markdown.
    Markdown,
}

/// Arguments of `tidegate-bench report show`.
#[derive(Debug, clap::Args)]
struct ShowArguments {
    /// A report, as --json writes it.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The form in which it is printed.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// Arguments of `tidegate-bench report diff`.
#[derive(Debug, clap::Args)]
struct DiffArguments {
    /// The earlier runs: reports, as --json writes them, and directories of such, with commas between them.
    #[arg(value_name = "OLD", value_parser = Runs::parse)]
    old: Runs,
    /// The later runs, likewise.
    #[arg(value_name = "NEW", value_parser = Runs::parse)]
    new: Runs,
    /// The runs were taken alternately: the first of OLD with the first of NEW, and so on. Files of a directory are in
    /// the order of their names.
    #[arg(long)]
    paired: bool,
    /// The change from which a figure that became worse is a regression, 0% to 100%.
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = percent::within(0.0..=100.0))]
    threshold: f64,
    /// A name that old and new rows need not have in common, such as target; may be given several times. Rows of one
    /// report must still differ without it.
    #[arg(long, value_name = "NAME")]
    ignore: Vec<String>,
    /// The form in which the result is printed.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    files: ReportFiles,
}

/// Arguments of `tidegate-bench report merge`.
#[derive(Debug, clap::Args)]
struct MergeArguments {
    /// Interval logs, as --log writes them, and reports, as --json writes them.
    #[arg(required = true, value_name = "FILE")]
    files_to_merge: Vec<PathBuf>,
    /// Write the distribution of one tag to this file as .hgrm text, in microseconds.
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// The tag --hgrm is about (default: latency, or the only one)
    #[arg(long, value_name = "TAG", requires = "hgrm")]
    tag: Option<String>,
    #[command(flatten)]
    files: ReportFiles,
}

/// Runs the command. False when a comparison found a regression, or something missing.
///
/// # Errors
///
/// A file cannot be read or written, or is no interval log or no report; the error names it. There is not one
/// distribution to write, or reports cannot be compared (usage errors).
pub fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    match &arguments.command {
        Command::Show(arguments) => show(arguments).map(|()| true),
        Command::Diff(arguments) => compare(arguments),
        Command::Merge(arguments) => merge(arguments).map(|()| true),
    }
}

fn show(arguments: &ShowArguments) -> anyhow::Result<()> {
    let report = Stored::read(&arguments.file)?;
    let text = match arguments.format {
        Format::Table => Sheet::of(&report.kind, &report.rows).text(),
        Format::Json => format!("{:#}\n", report.value),
        Format::Csv => Sheet::of_all_fields(&report.kind, &report.rows).csv(),
        Format::Markdown => Sheet::of(&report.kind, &report.rows).markdown(),
    };
    tidegate_output::print!("{text}");
    Ok(())
}

fn compare(arguments: &DiffArguments) -> anyhow::Result<bool> {
    arguments.files.check_writable()?;
    let settings = Settings {
        threshold: arguments.threshold,
        paired: arguments.paired,
        ignored: arguments.ignore.clone(),
    };
    let (report, has_failed) = diff::compare(&arguments.old.read()?, &arguments.new.read()?, &settings)?;
    print(&report, arguments.format);
    arguments.files.write(&report)?;
    Ok(!has_failed)
}

fn print(report: &Report, format: Format) {
    let text = match format {
        Format::Table => report.text.clone(),
        Format::Json => format!("{:#}\n", report.json()),
        Format::Csv => report.csv(),
        Format::Markdown => report.markdown(),
    };
    tidegate_output::print!("{text}");
}

fn merge(arguments: &MergeArguments) -> anyhow::Result<()> {
    let mut merged = Merged::default();
    let (mut machines, mut logs) = (Vec::new(), Vec::new());
    for file in &arguments.files_to_merge {
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
        if text.trim_start().starts_with('{') {
            machines.push(Machine::new(&name, &text)?);
        } else {
            merged.add(&text).with_context(|| format!("cannot merge {name}"))?;
            logs.push((name, text));
        }
    }
    let report = if machines.is_empty() {
        let names: Vec<String> = logs.into_iter().map(|(name, _)| name).collect();
        merged.report(&names)
    } else {
        machines::together(&machines, &logs)?
    };
    tidegate_output::print!("{}", report.text);
    if let Some(file) = &arguments.hgrm {
        files::write(file, merged.hgrm(arguments.tag.as_deref())?)?;
    }
    arguments.files.write(&report)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use serde_json::json;
    use tidegate_args::UsageError;

    use super::*;
    use crate::latencies::testing::histogram;
    use crate::testing::parse;
    use crate::{CONNECT, LATENCY, interval_log};

    fn write_log(file: &Path) {
        let (latency, connect) = (histogram(1..=1_000), histogram([7]));
        let distributions = [(LATENCY, &latency), (CONNECT, &connect)];
        let log = interval_log::write("", SystemTime::now(), Duration::from_secs(1), &distributions).unwrap();
        files::write(file, log).unwrap();
    }

    fn write_report(file: &Path, per_second: f64) {
        let report = json!({
            "schema_version": 1,
            "kind": "rps",
            "environment": {},
            "rows": [{"workload": "rps", "target": "http://198.18.0.1/", "value": per_second}],
        });
        files::write_json(file, &report).unwrap();
    }

    fn run_with(arguments: &[&str]) -> anyhow::Result<bool> {
        run(&parse::<Arguments>(arguments)?)
    }

    #[test]
    fn directories_of_runs_are_compared_and_a_regression_fails() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        for (side, factor) in [("old", 1.0), ("slow", 0.9)] {
            std::fs::create_dir(path(side)).unwrap();
            for run in 0..10 {
                let file = path(&format!("{side}/{run}.json"));
                write_report(Path::new(&file), 1_000.0 * factor + f64::from(run));
            }
        }
        let [old, slow, json] = ["old", "slow", "json"].map(path);
        for pairs in [&[][..], &["--paired"]] {
            let compare =
                |old: &str, new: &str| run_with(&[&["diff", old, new, "--json", &json], pairs].concat()).unwrap();
            assert!(compare(&old, &old));
            assert!(compare(&slow, &old));
            assert!(!compare(&old, &slow));
            let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
            assert_eq!((&written["kind"], &written["regressions"]), (&json!("diff"), &json!(1)));
        }
        assert!(run_with(&["diff", &old, &slow, "--threshold", "11%"]).unwrap());
        for format in ["table", "json", "csv", "markdown"] {
            assert!(run_with(&["diff", &old, &old, "--format", format]).unwrap());
            assert!(run_with(&["show", &path("old/1.json"), "--format", format]).unwrap());
            assert!(run_with(&["show", &json, "--format", format]).unwrap());
        }
    }

    #[test]
    fn what_cannot_be_compared_is_a_usage_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let one = path("one.json");
        write_report(Path::new(&one), 1.0);
        let text = std::fs::read_to_string(&one).unwrap();
        let variant = |name: &str, from: &str, to: &str| {
            let file = path(name);
            std::fs::write(&file, text.replace(from, to)).unwrap();
            file
        };
        let elsewhere = variant("elsewhere.json", "198.18.0.1", "198.18.0.2");
        let other_kind = variant("hold.json", r#""kind": "rps""#, r#""kind": "hold""#);
        let unknown = variant("unknown.json", r#""kind": "rps""#, r#""kind": "engine""#);
        let two = format!("{one},{one}");
        for (arguments, phrase) in [
            (
                &["diff", &one, &elsewhere][..],
                "no row in common; old: rps, http://198.18.0.1/; new: rps, http://198.18.0.2/",
            ),
            (&["diff", &one, &other_kind], "of the kind `rps` and"),
            (&["diff", &unknown, &unknown], "kind `engine` cannot be compared"),
            (
                &["diff", &one, &two, "--paired"],
                "1 old and 2 new reports cannot be pairs",
            ),
            (
                &["diff", &one, &one, "--ignore", "value"],
                "--ignore value: rows of this kind are found by workload",
            ),
        ] {
            let error = run_with(arguments).unwrap_err();
            assert!(
                error.is::<UsageError>() && error.to_string().contains(phrase),
                "{phrase}: {error}"
            );
        }
        assert!(run_with(&["diff", &one, &elsewhere, "--ignore", "target"]).unwrap());
        for threshold in ["5", "-1%", "101%", "NaN%", "%"] {
            let error = parse::<Arguments>(&["diff", "a", "b", "--threshold", threshold]).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{threshold}");
        }
        assert_eq!(parse::<Arguments>(&["diff", "a"]).unwrap_err().exit_code(), 2);
    }

    fn report(arguments: &[&Path]) -> anyhow::Result<bool> {
        let arguments = arguments.iter().map(|argument| argument.to_str().unwrap());
        let all: Vec<&str> = std::iter::once("merge").chain(arguments).collect();
        run(&parse::<Arguments>(&all)?)
    }

    #[test]
    fn logs_become_one_distribution() {
        let directory = tempfile::tempdir().unwrap();
        let [one, two, hgrm, json, html] =
            ["one", "two", "hgrm", "json", "html"].map(|name| directory.path().join(name));
        for log in [&one, &two] {
            write_log(log);
        }
        let passed = report(&[
            &one,
            &two,
            Path::new("--hgrm"),
            &hgrm,
            Path::new("--json"),
            &json,
            Path::new("--html"),
            &html,
        ]);
        assert!(passed.unwrap());
        let text = std::fs::read_to_string(hgrm).unwrap();
        assert!(text.contains("Total count    =         2000]"), "{text}");
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
        assert_eq!(json["tags"]["latency"]["logs"], 2);
        assert!(std::fs::read_to_string(html).unwrap().contains("Latency by percentile"));
    }

    #[test]
    fn reports_of_several_machines_become_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let [one, two, json] = ["one", "two", "json"].map(path);
        write_report(Path::new(&one), 1_000.0);
        write_report(Path::new(&two), 500.0);
        assert!(run_with(&["merge", &one, &two, "--json", &json]).unwrap());
        let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        assert_eq!((&written["kind"], &written["value"]), (&json!("rps"), &json!(1_500)));
        assert_eq!(written["machines"][1]["machine"].as_str(), Some(&two[..]));
    }

    #[test]
    fn a_file_that_is_no_log_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("broken.hlog");
        let error = format!("{:#}", report(&[&file]).unwrap_err());
        assert!(error.contains("broken.hlog"), "{error}");
        std::fs::write(&file, "#comment\n\nnonsense\n").unwrap();
        let error = format!("{:#}", report(&[&file]).unwrap_err());
        assert!(error.contains("broken.hlog") && error.contains("line 3"), "{error}");
    }

    #[test]
    fn without_a_log_or_with_a_tag_for_nothing_it_is_a_usage_error() {
        for arguments in [&["merge"][..], &["merge", "one", "--tag", "latency"][..]] {
            let error = parse::<Arguments>(arguments).unwrap_err();
            assert_eq!(error.kind(), clap::error::ErrorKind::MissingRequiredArgument);
        }
    }
}
