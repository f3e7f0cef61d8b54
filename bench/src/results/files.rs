//! Files that results are written to.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

/// What a report is shown and written as.
pub(crate) trait ReportFormats {
    /// The report as a table for the terminal.
    fn text(&self) -> String;

    /// The report as JSON.
    fn json(&self) -> Value;

    /// The report as one HTML page that needs nothing else.
    ///
    /// # Errors
    ///
    /// A plot cannot be drawn.
    fn html(&self) -> anyhow::Result<String>;
}

/// Where a report is to be written, besides the terminal.
#[derive(Debug, clap::Args)]
pub(crate) struct ReportFiles {
    /// Write the results to this file as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the results to this file as a page with plots, too.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl ReportFiles {
    /// Does [`check_writable`] for those that are asked for.
    ///
    /// # Errors
    ///
    /// A file cannot be made or written.
    pub(crate) fn check_writable(&self) -> anyhow::Result<()> {
        [&self.json, &self.html]
            .into_iter()
            .flatten()
            .try_for_each(|file| check_writable(file))
    }

    /// Writes those that are asked for.
    ///
    /// # Errors
    ///
    /// A plot cannot be drawn, or a file cannot be written.
    pub(crate) fn write(&self, report: &impl ReportFormats) -> anyhow::Result<()> {
        if let Some(file) = &self.json {
            write_json(file, &report.json())?;
        }
        if let Some(file) = &self.html {
            write(file, report.html()?)?;
        }
        Ok(())
    }
}

/// Finds out before anything is measured that results could not be written. What is in the file stays until there is
/// something to take its place.
///
/// # Errors
///
/// The file cannot be made or written.
pub(crate) fn check_writable(file: &Path) -> anyhow::Result<()> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .map(drop)
        .with_context(|| format!("cannot write the results to {}", file.display()))
}

/// Puts `content` in the place of what the file holds.
///
/// # Errors
///
/// The file cannot be written.
pub(crate) fn write(file: &Path, content: impl AsRef<[u8]>) -> anyhow::Result<()> {
    std::fs::write(file, content).with_context(|| format!("cannot write the results to {}", file.display()))
}

/// Puts `value` in the place of what the file holds, with line breaks for people.
///
/// # Errors
///
/// The file cannot be written.
pub(crate) fn write_json(file: &Path, value: &Value) -> anyhow::Result<()> {
    write(file, format!("{value:#}\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::parse;
    use super::*;

    struct Answer;

    impl ReportFormats for Answer {
        fn text(&self) -> String {
            "42\n".to_owned()
        }

        fn json(&self) -> Value {
            json!({"answer": 42})
        }

        fn html(&self) -> anyhow::Result<String> {
            Ok("<p>42</p>\n".to_owned())
        }
    }

    #[test]
    fn a_report_is_written_to_the_files_that_are_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let [json, html] = ["json", "html"].map(|name| directory.path().join(name));
        let only_json: ReportFiles = parse(&["--json", json.to_str().unwrap()]).unwrap();
        only_json.check_writable().unwrap();
        assert!(json.exists());
        only_json.write(&Answer).unwrap();
        assert_eq!(std::fs::read_to_string(&json).unwrap(), "{\n  \"answer\": 42\n}\n");
        assert!(!html.exists());
        let only_html: ReportFiles = parse(&["--html", html.to_str().unwrap()]).unwrap();
        only_html.write(&Answer).unwrap();
        assert_eq!(std::fs::read_to_string(&html).unwrap(), Answer.html().unwrap());
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
