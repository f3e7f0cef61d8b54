//! Reports that were written before, read again.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Map, Value};
use tidegate_args::UsageError;

use crate::{Row, SCHEMA_VERSION};

/// A report as its JSON has it.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// The file it was read from.
    pub(crate) file: String,
    /// The subcommand that made it.
    pub(crate) kind: String,
    /// The figures.
    pub(crate) rows: Vec<Row>,
    /// All of it.
    pub(crate) value: Value,
}

impl Stored {
    /// Reads a report.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is no report, or one of another version; the error names it.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
        Self::parse(&name, &text)
    }

    /// Returns the report in `text`, which is called `name` in errors.
    ///
    /// # Errors
    ///
    /// It is no report, or one of another version.
    pub(crate) fn parse(name: &str, text: &str) -> anyhow::Result<Self> {
        const WANTED: &str = "it must be a report of tidegate-bench, as --json writes it";
        let value: Value = serde_json::from_str(text).with_context(|| format!("{name} is no JSON; {WANTED}"))?;
        let Some(version) = value.get("schema_version").and_then(Value::as_u64) else {
            bail!("{name} has no schema_version; {WANTED}");
        };
        if version != u64::from(SCHEMA_VERSION) {
            bail!(
                "{name} has schema_version {version}, and this program reads {SCHEMA_VERSION}; use the \
                 tidegate-bench of the version that wrote it, environment.bench_version"
            );
        }
        let kind = value.get("kind").and_then(Value::as_str);
        let kind = kind
            .with_context(|| format!("{name} has no kind; {WANTED}"))?
            .to_owned();
        let rows = value.get("rows").and_then(Value::as_array);
        let rows = rows
            .with_context(|| format!("{name} has no rows; {WANTED}"))?
            .iter()
            .map(|row| row.as_object().cloned().map(Row::from))
            .collect::<Option<_>>()
            .with_context(|| format!("{name} has a row that is no object; {WANTED}"))?;
        Ok(Self {
            file: name.to_owned(),
            kind,
            rows,
            value,
        })
    }

    /// Returns the facts of the machine.
    pub(crate) fn environment(&self) -> Option<&Map<String, Value>> {
        self.value.get("environment")?.as_object()
    }
}

/// Runs on the command line: files and directories with commas between them. A directory stands for the JSON files in
/// it, in the order of their names.
#[derive(Clone, Debug)]
pub(crate) struct Runs(Vec<PathBuf>);

impl Runs {
    /// Returns the runs that `text` names, for clap.
    ///
    /// # Errors
    ///
    /// A name is empty.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let paths: Vec<PathBuf> = text.split(',').map(PathBuf::from).collect();
        if paths.iter().any(|path| path.as_os_str().is_empty()) {
            return Err("a file or directory has no name; commas are between names only".to_owned());
        }
        Ok(Self(paths))
    }

    /// Reads them, in order.
    ///
    /// # Errors
    ///
    /// A directory has no JSON file (a usage error), or a file is no report.
    pub(crate) fn read(&self) -> anyhow::Result<Vec<Stored>> {
        let mut all = Vec::new();
        for path in &self.0 {
            if path.is_dir() {
                let files = json_files(path)?;
                if files.is_empty() {
                    return Err(UsageError(format!("there is no .json file in {}", path.display())).into());
                }
                for file in files {
                    all.push(Stored::read(&file)?);
                }
            } else {
                all.push(Stored::read(path)?);
            }
        }
        Ok(all)
    }
}

/// Returns the JSON files of a directory, sorted.
fn json_files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let context = || format!("cannot read {}", directory.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(context)? {
        let path = entry.with_context(context)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"schema_version": 1, "kind": "rps", "environment": {"cores": 2}, "rows": [{"value": 5}]}"#;

    #[test]
    fn a_report_is_read_again() {
        let report = Stored::parse("a", GOOD).unwrap();
        assert_eq!((&report.kind[..], report.rows.len()), ("rps", 1));
        assert_eq!(report.rows[0].number("value"), Some(5.0));
        assert_eq!(report.environment().unwrap()["cores"], 2);
    }

    #[test]
    fn what_is_no_report_of_this_version_is_refused_with_its_name() {
        for (text, phrase) in [
            ("", "is no JSON"),
            ("[]", "no schema_version"),
            (r#"{"schema_version": "1"}"#, "no schema_version"),
            (r#"{"schema_version": 1}"#, "no kind"),
            (r#"{"schema_version": 1, "kind": "rps"}"#, "no rows"),
            (r#"{"schema_version": 1, "kind": "rps", "rows": [1]}"#, "no object"),
            (
                &GOOD.replace(": 1", ": 2"),
                "has schema_version 2, and this program reads 1",
            ),
        ] {
            let error = format!("{:#}", Stored::parse("some.json", text).unwrap_err());
            assert!(
                error.contains("some.json") && error.contains(phrase),
                "{phrase}: {error}"
            );
        }
    }

    #[test]
    fn runs_are_files_and_directories_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir(path("runs")).unwrap();
        for name in ["runs/b.json", "runs/a.json", "runs/a.hlog", "one.json"] {
            std::fs::write(path(name), GOOD).unwrap();
        }
        let runs = Runs::parse(&format!("{},{}", path("one.json"), path("runs"))).unwrap();
        let files: Vec<String> = runs.read().unwrap().into_iter().map(|report| report.file).collect();
        assert_eq!(files, ["one.json", "runs/a.json", "runs/b.json"].map(path));

        assert!(Runs::parse("a,,b").is_err() && Runs::parse("").is_err());
        std::fs::create_dir(path("empty")).unwrap();
        let error = Runs::parse(&path("empty")).unwrap().read().unwrap_err();
        assert!(
            error.is::<UsageError>() && error.to_string().contains("empty"),
            "{error}"
        );
        let error = Runs::parse(&path("missing")).unwrap().read().unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
    }
}
