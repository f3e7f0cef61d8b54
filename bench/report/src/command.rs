//! `tidegate-bench report`: work with the results of measurements that are over.

use std::path::PathBuf;

use anyhow::Context;

use crate::merge::Merged;
use crate::{ReportFiles, files};

/// Arguments of `tidegate-bench report`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Put the latencies of several runs together, whichever machines they were measured on.
    ///
    /// Percentiles of several runs cannot be averaged; what --log wrote can be added. Values are taken for nanoseconds.
    Merge(MergeArguments),
}

/// Arguments of `tidegate-bench report merge`.
#[derive(Debug, clap::Args)]
struct MergeArguments {
    /// Interval logs, as --log writes them.
    #[arg(required = true, value_name = "FILE")]
    logs: Vec<PathBuf>,
    /// Write the distribution of one tag to this file as .hgrm text, in microseconds.
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// The tag --hgrm is about (default: latency, or the only one)
    #[arg(long, value_name = "TAG", requires = "hgrm")]
    tag: Option<String>,
    #[command(flatten)]
    files: ReportFiles,
}

/// Runs the command. Always true.
///
/// # Errors
///
/// A file cannot be read or written, or is no interval log; the error names it. There is not one distribution to write
/// (a usage error).
pub fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    match &arguments.command {
        Command::Merge(arguments) => merge(arguments).map(|()| true),
    }
}

fn merge(arguments: &MergeArguments) -> anyhow::Result<()> {
    let mut merged = Merged::default();
    for log in &arguments.logs {
        let text = std::fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
        merged
            .add(&text)
            .with_context(|| format!("cannot merge {}", log.display()))?;
    }
    let names: Vec<String> = arguments.logs.iter().map(|log| log.display().to_string()).collect();
    let report = merged.report(&names);
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
