//! Comparing two sets of runs: which figures became better or worse, and which of that is more than chance.

mod matching;
#[cfg(test)]
mod simulation;
mod statistics;
mod verdict;

use serde_json::{Map, Value, json};
use tidegate_args::{UsageError, percent};

pub(crate) use self::statistics::Centre;

use self::matching::{Cell, Matched, Presence};
use self::statistics::{ALPHA, Change, Samples, holm};
use self::verdict::{Finding, Verdict};
use crate::catalog::{self, Figure};
use crate::format::one;
use crate::stored::Stored;
use crate::{Column, Page, Report, Row, Section};

/// The facts of a machine without which figures cannot be compared.
const MACHINE: [&str; 3] = ["kernel", "cpu_model", "cores"];

/// The kind of the report.
pub(crate) const KIND: &str = "diff";

/// The columns of its table.
pub(crate) const COLUMNS: &[Column] = &[
    Column::name("row", "{row}"),
    Column::name("figure", "{title}"),
    Column::figure("old", "{old_text}"),
    Column::figure("new", "{new_text}"),
    Column::figure("change", "{change_text}"),
    Column::figure("95% interval", "{interval_text}"),
    Column::figure("p", "{p_text}"),
    Column::figure("runs", "{old_runs}+{new_runs}"),
    Column::name("verdict", "{verdict_text}").alert("is_regression"),
];

const HOW_TO_READ: &[&str] = &[
    "**old** and **new** are the medians of the runs, of errors the means. **change** is the median of the changes \
     within pairs, or without pairs that of the medians, and lies within the **interval** with 95 % confidence \
     (bootstrap).",
    "**p** is the probability that chance alone makes such a difference in any of the figures (permutations of the \
     signs of pairs, or of the ranks of two sets; corrected by Holm for the number of figures).",
    "**better** and **worse** need a p of at most 1 % and an interval without zero. **same** is an interval within the \
     threshold. All else is **not shown**: more runs, or quieter ones, would tell. What the old reports have and the new \
     ones have not is **missing**, and no better than a figure that became worse.",
];

/// The settings of a comparison.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The change, as a part, from which a figure that became worse is a regression.
    pub(crate) threshold: f64,
    /// The runs were taken alternately: the first old with the first new one, and so on.
    pub(crate) paired: bool,
    /// Names that rows need not have in common.
    pub(crate) ignored: Vec<String>,
}

/// A figure of a row in both sets.
struct Compared {
    row: String,
    names: Vec<(&'static str, Value)>,
    figure: &'static Figure,
    samples: Samples,
    change: Option<Change>,
    presence: Presence,
}

/// Returns the report of what `new` changed, and whether something became worse by the threshold or more, or is missing
/// there.
///
/// # Errors
///
/// The reports are of different kinds, or of one that cannot be compared, have no row in common, have rows that only
/// differ in what is ignored, or there are not as many old as new runs in pairs (usage errors).
pub(crate) fn compare(old: &[Stored], new: &[Stored], settings: &Settings) -> anyhow::Result<(Report, bool)> {
    let kind = kind_of(old.iter().chain(new))?;
    let known = catalog::kind(&kind).ok_or_else(|| {
        UsageError(format!(
            "reports of the kind `{kind}` cannot be compared: it is not known what is better"
        ))
    })?;
    if settings.paired && old.len() != new.len() {
        return Err(UsageError(format!(
            "{} old and {} new reports cannot be pairs; give as many of each in the order they were taken, or leave \
             --paired out",
            old.len(),
            new.len()
        ))
        .into());
    }
    let Matched {
        cells,
        only_old,
        only_new,
        pooled,
    } = matching::cells(known, old, new, settings)?;
    let count = cells.iter().filter(|cell| cell.samples.are_on_both_sides()).count();
    let compared: Vec<Compared> = cells.into_iter().map(|cell| Compared::of(cell, count)).collect();
    let probabilities: Vec<f64> = compared.iter().filter_map(|one| Some(one.change?.p)).collect();
    let mut corrected = holm(&probabilities).into_iter();
    let mut found = Vec::new();
    let mut rows = Vec::new();
    for one in &compared {
        let p = one.change.and_then(|_| corrected.next());
        let finding = Finding::of(
            &one.samples,
            one.presence,
            one.change,
            p,
            count,
            one.figure.better,
            settings.threshold,
        );
        rows.push(row(one, &finding, p));
        found.push(finding);
    }
    let counts = Counts {
        regressions: found.iter().filter(|finding| finding.is_regression).count(),
        // A server that fails altogether has no figures that could be worse.
        missing: only_old.len() + compared.iter().filter(|one| one.presence == Presence::OnlyOld).count(),
    };
    let unmatched = Unmatched {
        only_old,
        only_new,
        pooled,
    };
    let report = report(&kind, rows, (&found, &counts), (old, new), unmatched, settings);
    Ok((report, counts.regressions + counts.missing > 0))
}

/// The numbers of what makes a comparison fail.
struct Counts {
    /// Figures that became worse by the threshold or more.
    regressions: usize,
    /// Figures and rows that the new reports do not have.
    missing: usize,
}

/// The rows that have no counterpart, or are put together.
struct Unmatched {
    only_old: Vec<String>,
    only_new: Vec<String>,
    pooled: Vec<String>,
}

impl Compared {
    /// Compares one of `count` figures.
    fn of(cell: Cell, count: usize) -> Self {
        Self {
            change: cell.samples.compare(cell.figure.centre, count),
            row: cell.row,
            names: cell.names,
            figure: cell.figure,
            samples: cell.samples,
            presence: cell.presence,
        }
    }
}

/// Returns the one kind of all `reports`.
fn kind_of<'a>(mut reports: impl Iterator<Item = &'a Stored>) -> anyhow::Result<String> {
    let first = reports
        .next()
        .ok_or_else(|| UsageError("there is no report".to_owned()))?;
    for other in reports {
        if other.kind != first.kind {
            return Err(UsageError(format!(
                "{} is of the kind `{}` and {} of the kind `{}`; only one kind can be compared at a time",
                first.file, first.kind, other.file, other.kind
            ))
            .into());
        }
    }
    Ok(first.kind.clone())
}

/// Returns the row of one figure. The fields that end in `_text` are for tables.
fn row(one: &Compared, finding: &Finding, p: Option<f64>) -> Row {
    let figure = one.figure;
    let (old_runs, new_runs) = one.samples.counts();
    let number = |of: fn(&Change) -> f64| one.change.as_ref().map(of);
    let part = |of: fn(&Change) -> statistics::Amount| one.change.as_ref().and_then(|change| of(change).part());
    let value = |number: Option<f64>| number.map(|number| one_value(number, figure.format));
    let signed = |part: f64| format!("{:+.1}%", part * 100.0);
    let (change, low, high) = (
        part(|change| change.change),
        part(|change| change.low),
        part(|change| change.high),
    );
    let interval = low
        .zip(high)
        .map(|(low, high)| format!("{}..{}", signed(low), signed(high)));
    let mut row = Row::new().with("row", one.row.as_str());
    for (name, value) in &one.names {
        row = row.with(name, value.clone());
    }
    row.with("figure", figure.path)
        .with("title", figure.title)
        .with("better", figure.better.name())
        .with("old", number(|change| change.old))
        .with("new", number(|change| change.new))
        .with("change", change)
        .with("change_low", low)
        .with("change_high", high)
        .with("p_value", number(|change| change.p))
        .with("p_corrected", p)
        .with("old_runs", old_runs)
        .with("new_runs", new_runs)
        .with("verdict", finding.verdict.name())
        .with("reason", finding.reason)
        .with("is_regression", finding.is_regression)
        .with("old_text", value(number(|change| change.old)))
        .with("new_text", value(number(|change| change.new)))
        .with("change_text", change.map(signed))
        .with("interval_text", interval)
        .with(
            "p_text",
            p.map(|p| {
                if p < 0.001 {
                    "<0.001".to_owned()
                } else {
                    format!("{p:.3}")
                }
            }),
        )
        .with("verdict_text", finding.text())
}

fn one_value(number: f64, format: &str) -> String {
    match format {
        // A mean of counts.
        "" if number.fract() != 0.0 => format!("{number:.2}"),
        // Octets and the like have digits where they matter, whatever their size.
        "3" if number.abs() < 0.1 => format!("{number:.2e}"),
        format => one(&number.into(), format),
    }
}

/// Returns the report of `rows`.
fn report(
    kind: &str,
    rows: Vec<Row>,
    (found, counts): (&[Finding], &Counts),
    (old, new): (&[Stored], &[Stored]),
    unmatched: Unmatched,
    settings: &Settings,
) -> Report {
    let count = |verdict| found.iter().filter(|finding| finding.verdict == verdict).count();
    let &Counts { regressions, missing } = counts;
    let changes = environment_changes(old, new);
    let percent = percent::number(settings.threshold);
    let mut summary = format!(
        "{} figures: {} better, {} worse, {} same, {} not shown; {regressions} worse by {percent}% or more",
        found.len(),
        count(Verdict::Better),
        count(Verdict::Worse),
        count(Verdict::Same),
        count(Verdict::NotShown),
    );
    if missing > 0 {
        summary += &format!("; {missing} missing in the new reports");
    }
    let Unmatched {
        only_old,
        only_new,
        pooled,
    } = unmatched;
    let mut notes: Vec<String> = changes
        .iter()
        .map(|(name, old, new)| format!("the machine was another: {name} was {old} and is {new}"))
        .collect();
    for (begin, phrases) in [
        ("missing in the new reports", &only_old),
        ("only in the new reports, and not compared", &only_new),
        ("taken for runs of the same, as --ignore says", &pooled),
    ] {
        notes.extend(phrases.iter().map(|phrase| format!("{begin}: {phrase}")));
    }
    let all: Vec<usize> = (0..rows.len()).collect();
    let mut sections = vec![
        Section::Tiles(vec![
            (regressions.to_string(), format!("worse by {percent}% or more")),
            (count(Verdict::Better).to_string(), "better".to_owned()),
            (count(Verdict::NotShown).to_string(), "not shown".to_owned()),
            (missing.to_string(), "missing".to_owned()),
        ]),
        Section::Table {
            columns: COLUMNS,
            rows: all.clone(),
        },
    ];
    sections.extend(notes.iter().cloned().map(Section::Text));
    sections.push(Section::HowToRead(HOW_TO_READ));
    let names = |reports: &[Stored]| reports.iter().map(|report| report.file.clone()).collect::<Vec<_>>();
    let mut report = Report {
        kind: KIND,
        environment: new.last().and_then(Stored::environment).cloned().unwrap_or_default(),
        rows,
        more: Map::new(),
        page: Page {
            title: format!("tidegate-bench: what changed in {kind}"),
            introduction: summary.clone(),
            sections,
        },
        text: String::new(),
    };
    report.text = report.table(COLUMNS, &all) + &summary + "\n";
    for note in &notes {
        report.text += &format!("note: {note}\n");
    }
    let changes: Vec<Value> = changes
        .iter()
        .map(|(name, old, new)| json!({"name": name, "old": old, "new": new}))
        .collect();
    for (name, value) in [
        ("compared_kind", json!(kind)),
        ("paired", json!(settings.paired)),
        ("threshold", json!(settings.threshold)),
        ("alpha", json!(ALPHA)),
        ("regressions", json!(regressions)),
        ("missing", json!(missing)),
        ("old_files", json!(names(old))),
        ("new_files", json!(names(new))),
        ("only_old", json!(only_old)),
        ("only_new", json!(only_new)),
        ("environment_changes", json!(changes)),
    ] {
        report.more.insert(name.to_owned(), value);
    }
    report
}

/// Returns the facts of the machine that are not the same in all reports, as they were and are.
fn environment_changes(old: &[Stored], new: &[Stored]) -> Vec<(&'static str, String, String)> {
    let facts = |reports: &[Stored], name: &str| {
        let mut texts: Vec<String> = reports
            .iter()
            .map(|report| {
                report
                    .environment()
                    .and_then(|facts| facts.get(name))
                    .map_or_else(String::new, |fact| one(fact, ""))
            })
            .collect();
        texts.sort();
        texts.dedup();
        texts.join(" and ")
    };
    MACHINE
        .into_iter()
        .map(|name| (name, facts(old, name), facts(new, name)))
        .filter(|(_, old, new)| old != new)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    /// A report of `rows`: a target, its rate in each round, and frames for each operation.
    fn report(cpu_model: &str, rows: &[(&str, &[f64], f64)]) -> Stored {
        let row = |&(target, values, frames): &(&str, &[f64], f64)| json!({"workload": "rps", "target": target, "value": values[0], "values": values, "frames_per_op": frames});
        let rows: Vec<Value> = rows.iter().map(row).collect();
        let environment = json!({"kernel": "6.1 <script>", "cpu_model": cpu_model});
        let report = json!({"schema_version": 1, "kind": "compare", "environment": environment, "rows": rows});
        Stored::parse("a.json", &report.to_string()).unwrap()
    }

    fn settings(paired: bool) -> Settings {
        Settings {
            threshold: 0.05,
            paired,
            ignored: Vec::new(),
        }
    }

    const ROUNDS: &[f64] = &[100.0, 101.0, 102.0, 103.0, 104.0, 105.0];

    #[test]
    fn rounds_within_a_report_are_runs() {
        let slow: Vec<f64> = ROUNDS.iter().map(|value| value * 0.8).collect();
        let old = [report("a", &[("tidegate", ROUNDS, 2.0), ("gone", ROUNDS, 2.0)])];
        let new = [report("b", &[("added", ROUNDS, 2.0), ("tidegate", &slow, 2.0)])];
        let (diff, has_regressed) = compare(&old, &new, &settings(false)).unwrap();
        assert!(has_regressed);
        testing::assert_report("diff", &diff);
        let lines: Vec<&str> = diff.text.lines().map(str::trim_end).collect();
        assert_eq!(lines.len(), 7, "{}", diff.text);
        assert!(
            lines[1].ends_with("worse: regression") && lines[1].contains("6+6"),
            "{}",
            diff.text
        );
        assert!(lines[2].contains("not shown: too few runs"), "{}", diff.text);
        assert_eq!(
            lines[3..],
            [
                "2 figures: 0 better, 1 worse, 0 same, 1 not shown; 1 worse by 5% or more; 1 missing in the new reports",
                "note: the machine was another: cpu_model was a and is b",
                "note: missing in the new reports: rps, gone",
                "note: only in the new reports, and not compared: rps, added",
            ]
        );
        let json = diff.json();
        assert_eq!(json["only_old"], json!(["rps, gone"]));
        assert_eq!(
            json["environment_changes"],
            json!([{"name": "cpu_model", "old": "a", "new": "b"}])
        );
        assert_eq!(
            (&json["rows"][0]["old"], &json["rows"][0]["old_runs"]),
            (&json!(102.5), &json!(6))
        );
    }

    #[test]
    fn many_figures_can_be_worse() {
        let targets: Vec<String> = (0..150).map(|target| target.to_string()).collect();
        let rounds: Vec<f64> = (0..20).map(|round| 100.0 + f64::from(round % 3)).collect();
        let slow: Vec<f64> = rounds.iter().map(|value| value * 0.8).collect();
        let all = |last: &[f64]| {
            let values = targets
                .iter()
                .map(|target| if target == "149" { last } else { &rounds });
            let rows: Vec<(&str, &[f64], f64)> = targets
                .iter()
                .zip(values)
                .map(|(target, values)| (&target[..], values, 2.0))
                .collect();
            [report("a", &rows)]
        };
        for paired in [true, false] {
            let (diff, has_regressed) = compare(&all(&rounds), &all(&slow), &settings(paired)).unwrap();
            assert_eq!(diff.rows.len(), 300);
            assert!(
                has_regressed,
                "paired {paired}: {}",
                diff.rows[298].fill("{p_text} {verdict_text}")
            );
            let (_, has_regressed) = compare(&all(&rounds), &all(&rounds), &settings(paired)).unwrap();
            assert!(!has_regressed);
        }
    }

    #[test]
    fn pairs_have_as_many_rounds() {
        let old = [
            report("a", &[("tidegate", ROUNDS, 2.0)]),
            report("a", &[("tidegate", ROUNDS, 2.0)]),
        ];
        let (diff, has_regressed) = compare(&old, &old, &settings(true)).unwrap();
        assert!(!has_regressed);
        assert_eq!(
            (diff.rows[0].number("old_runs"), diff.rows[0].fill("{verdict}")),
            (Some(12.0), "same".to_owned())
        );
        let shorter = [report("a", &[("tidegate", &ROUNDS[1..], 2.0)]), old[1].clone()];
        let error = compare(&old, &shorter, &settings(true)).unwrap_err();
        assert!(error.is::<UsageError>());
        assert!(
            error
                .to_string()
                .starts_with("pair 1: the old report has 6 runs of the row rps, tidegate, the new one 5"),
            "{error}"
        );
    }

    #[test]
    fn what_the_new_runs_do_not_have_fails() {
        let old = [report("a", &[("tidegate", ROUNDS, 2.0)])];
        let without = |name: &str| {
            let mut report = old[0].clone();
            report.rows[0] = report.rows[0].clone().with(name, None::<f64>);
            [report]
        };
        for paired in [false, true] {
            let settings = settings(paired);
            let (diff, has_failed) = compare(&old, &without("frames_per_op"), &settings).unwrap();
            assert!(has_failed, "{}", diff.text);
            assert_eq!(
                diff.rows[1].fill("{figure} {old} {verdict_text}"),
                "frames_per_op - not shown: missing in the new runs"
            );
            assert_eq!(
                (&diff.json()["missing"], &diff.json()["regressions"]),
                (&json!(1), &json!(0))
            );
            assert!(diff.text.contains("; 1 missing in the new reports\n"), "{}", diff.text);
            // What is new is no fault.
            let (diff, has_failed) = compare(&without("frames_per_op"), &old, &settings).unwrap();
            assert!(!has_failed);
            assert_eq!(
                diff.rows[1].fill("{verdict_text}"),
                "not shown: only the new runs have it"
            );
        }
        // A whole row.
        let both = [report("a", &[("tidegate", ROUNDS, 2.0), ("nginx", ROUNDS, 2.0)])];
        assert!(compare(&both, &old, &settings(false)).unwrap().1);
        assert!(!compare(&old, &both, &settings(false)).unwrap().1);
    }

    #[test]
    fn what_is_ignored_does_not_put_different_rows_together() {
        let ignoring = Settings {
            ignored: vec!["target".to_owned()],
            ..settings(false)
        };
        let one = |target| report("a", &[(target, ROUNDS, 2.0)]);
        let both = [report("a", &[("tidegate", ROUNDS, 2.0), ("nginx", ROUNDS, 2.0)])];
        let alone = [one("tidegate")];
        for (old, new) in [(&both, &alone), (&alone, &both), (&both, &both)] {
            let error = compare(old, new, &ignoring).unwrap_err();
            assert!(error.is::<UsageError>());
            let error = error.to_string();
            assert!(
                error.starts_with("--ignore target: the rows tidegate and nginx of one report would be the same"),
                "{error}"
            );
        }
        // Runs on another port each are the same all the same.
        let (diff, _) = compare(&[one("a:1"), one("a:1"), one("a:2")], &[one("b")], &ignoring).unwrap();
        let note = "note: taken for runs of the same, as --ignore says: a:1 and a:2\n";
        assert!(diff.text.contains(note), "{}", diff.text);
        assert_eq!(diff.rows[0].number("old_runs"), Some(18.0));
    }

    #[test]
    fn a_threshold_is_written_as_it_was_given() {
        let reports = [report("a", &[("tidegate", ROUNDS, 2.0)])];
        let settings = Settings {
            threshold: 0.07,
            ..settings(false)
        };
        let (diff, _) = compare(&reports, &reports, &settings).unwrap();
        assert!(diff.text.contains("0 worse by 7% or more\n"), "{}", diff.text);
    }
}
