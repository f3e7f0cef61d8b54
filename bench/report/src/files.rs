//! The files that results are written to.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

use crate::Report;

/// The files that a report is written to, besides the terminal.
#[derive(Debug, clap::Args)]
pub struct ReportFiles {
    /// Write the results to this file as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the results to this file as a page, too.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl ReportFiles {
    /// Calls [`check_writable`] for those that are asked for.
    ///
    /// # Errors
    ///
    /// A file cannot be made or written.
    pub fn check_writable(&self) -> anyhow::Result<()> {
        [&self.json, &self.html]
            .into_iter()
            .flatten()
            .try_for_each(|file| check_writable(file))
    }

    /// Writes the files that are asked for.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub fn write(&self, report: &Report) -> anyhow::Result<()> {
        if let Some(file) = &self.json {
            write_json(file, &report.json())?;
        }
        if let Some(file) = &self.html {
            write(file, report.html())?;
        }
        Ok(())
    }
}

/// Checks, before anything is measured, that results can be written to `file`. Its content stays until there are some.
///
/// # Errors
///
/// The file cannot be made or written.
pub fn check_writable(file: &Path) -> anyhow::Result<()> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .map(drop)
        .with_context(|| format!("cannot write the results to {}", file.display()))
}

/// Replaces the content of `file` with `content`.
///
/// # Errors
///
/// The file cannot be written.
pub fn write(file: &Path, content: impl AsRef<[u8]>) -> anyhow::Result<()> {
    std::fs::write(file, content).with_context(|| format!("cannot write the results to {}", file.display()))
}

/// Replaces the content of `file` with `value`, indented.
///
/// # Errors
///
/// The file cannot be written.
pub fn write_json(file: &Path, value: &Value) -> anyhow::Result<()> {
    write(file, format!("{value:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::parse;

    #[test]
    fn a_report_is_written_to_the_files_that_are_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let [json, html] = ["json", "html"].map(|name| directory.path().join(name));
        let report = Report {
            kind: "compare",
            ..Report::default()
        };
        let only_json = parse::<ReportFiles>(&["--json", json.to_str().unwrap()]).unwrap();
        only_json.check_writable().unwrap();
        assert!(json.exists());
        only_json.write(&report).unwrap();
        let written = std::fs::read_to_string(&json).unwrap();
        assert!(written.contains("\n  \"kind\": \"compare\",\n") && written.ends_with("}\n"));
        assert!(!html.exists());
        let only_html: ReportFiles = parse(&["--html", html.to_str().unwrap()]).unwrap();
        only_html.write(&report).unwrap();
        assert_eq!(std::fs::read_to_string(&html).unwrap(), report.html());
    }

    #[test]
    fn results_replace_what_was_there_only_when_there_are_some() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("results");
        std::fs::write(&file, "earlier results").unwrap();
        check_writable(&file).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "earlier results");
        write(&file, "new").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = check_writable(&directory.path().join("no-such-directory/file")).unwrap_err();
        assert!(error.to_string().contains("no-such-directory"), "{error}");
    }
}
