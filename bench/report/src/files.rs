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
    /// Write all fields of the rows to this file as comma-separated values, too.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write the main figures to this file as a table of Markdown, too.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

impl ReportFiles {
    /// Returns whether none is asked for.
    pub fn is_empty(&self) -> bool {
        [&self.json, &self.html, &self.csv, &self.markdown]
            .into_iter()
            .all(Option::is_none)
    }

    /// Calls [`check_writable`] for those that are asked for.
    ///
    /// # Errors
    ///
    /// A file cannot be made or written.
    pub fn check_writable(&self) -> anyhow::Result<()> {
        [&self.json, &self.html, &self.csv, &self.markdown]
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
        if let Some(file) = &self.csv {
            write(file, report.csv())?;
        }
        if let Some(file) = &self.markdown {
            write(file, report.markdown())?;
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
    use crate::Row;
    use crate::testing::parse;

    #[test]
    fn a_report_is_written_to_the_files_that_are_asked_for() {
        let report = Report {
            kind: "compare",
            rows: vec![Row::new().with("target", "nginx").with("value", 5_000.0)],
            ..Report::default()
        };
        let contents = [
            ("json", format!("{:#}\n", report.json())),
            ("html", report.html()),
            ("csv", "target,value\nnginx,5000.0\n".to_owned()),
            (
                "markdown",
                "| target | per second |\n| --- | ---: |\n| nginx | 5k |\n".to_owned(),
            ),
        ];
        for (name, content) in contents {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join(name);
            let files: ReportFiles = parse(&[&format!("--{name}"), file.to_str().unwrap()]).unwrap();
            files.check_writable().unwrap();
            assert!(file.exists());
            files.write(&report).unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), content, "{name}");
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "{name}");
        }
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
