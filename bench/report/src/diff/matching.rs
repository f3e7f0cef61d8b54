//! The runs of each figure of both sets, found by the names of their rows.

use serde_json::Value;
use tidegate_args::UsageError;

use super::Settings;
use super::statistics::Samples;
use crate::Row;
use crate::catalog::{Figure, Kind};
use crate::format::one;
use crate::stored::Stored;

/// The runs of one figure of one row.
pub(super) struct Cell {
    /// The names of the row, as a phrase.
    pub(super) row: String,
    /// The names of the row.
    pub(super) names: Vec<(&'static str, Value)>,
    pub(super) figure: &'static Figure,
    pub(super) samples: Samples,
    pub(super) presence: Presence,
}

/// The sides that have measured a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Both,
    OnlyOld,
    OnlyNew,
}

/// The figures that two sets of reports have in common, and the rows they have not.
pub(super) struct Matched {
    pub(super) cells: Vec<Cell>,
    /// Rows of the old reports that no new one has.
    pub(super) only_old: Vec<String>,
    /// Rows of the new reports that no old one has.
    pub(super) only_new: Vec<String>,
    /// Rows that only differ in names that are ignored, and so are taken for runs of the same; a phrase for each group
    /// of them.
    pub(super) pooled: Vec<String>,
}

/// The values of a figure of each run, by the number of their report; `None` where a run has none.
type Values = Vec<(usize, Vec<Option<f64>>)>;

/// The rows of a set that have the same names, in the order of the reports.
struct Group<'a> {
    names: Vec<(&'static str, Value)>,
    /// Each with the number of its report.
    rows: Vec<(usize, &'a Row)>,
}

impl Group<'_> {
    /// The values of all of its names, as a phrase.
    fn phrase(&self) -> String {
        let texts: Vec<String> = self.names.iter().map(|(name, value)| text(name, value)).collect();
        if texts.is_empty() {
            "all".to_owned()
        } else {
            texts.join(", ")
        }
    }

    /// Returns the rows that are one only because `ignored` names do not count, as a phrase, if there are such.
    ///
    /// # Errors
    ///
    /// They are of one report (a usage error): two servers side by side are no runs of the same.
    fn pooled(&self, ignored: &[String]) -> Result<Option<String>, UsageError> {
        let values = |&(report, row): &(usize, &Row)| {
            let values = ignored.iter().filter_map(|name| Some(text(name, row.get(name)?)));
            let values: Vec<String> = values.collect();
            let none = || "one without it".to_owned();
            (report, if values.is_empty() { none() } else { values.join(", ") })
        };
        let all: Vec<(usize, String)> = self.rows.iter().map(values).collect();
        for pair in all.windows(2) {
            let [(report, one), (other_report, other)] = pair else {
                continue;
            };
            if report == other_report && one != other {
                return Err(UsageError(format!(
                    "--ignore {}: the rows {one} and {other} of one report would be the same; leave it out, or compare \
                     reports that have one of them each",
                    ignored.join(" --ignore ")
                )));
            }
        }
        let first = all.first().map(|(_, first)| first);
        let different = all.iter().map(|(_, other)| other).find(|other| Some(*other) != first);
        Ok(first.zip(different).map(|(one, other)| format!("{one} and {other}")))
    }

    /// Returns the values of `figure` of each run, by report.
    fn values(&self, figure: &Figure) -> Values {
        let mut values = Values::new();
        for &(report, row) in &self.rows {
            let runs = figure.runs.and_then(|runs| row.get(runs)?.as_array());
            let found: Vec<Option<f64>> = match runs {
                Some(runs) => runs.iter().map(Value::as_f64).collect(),
                None => vec![row.number(figure.path)],
            };
            match values.last_mut() {
                Some((last, values)) if *last == report => values.extend(found),
                _ => values.push((report, found)),
            }
        }
        values
    }
}

/// Returns the figures that both sets have.
///
/// # Errors
///
/// They have no row in common, several rows of one report become the same by what is ignored, or a pair has not as many
/// old as new runs in it (usage errors).
pub(super) fn cells(
    kind: &'static Kind,
    old: &[Stored],
    new: &[Stored],
    settings: &Settings,
) -> anyhow::Result<Matched> {
    if let Some(unknown) = settings
        .ignored
        .iter()
        .find(|name| !kind.names.contains(&name.as_str()))
    {
        return Err(UsageError(format!(
            "--ignore {unknown}: rows of this kind are found by {}",
            kind.names.join(", ")
        ))
        .into());
    }
    let names: Vec<&'static str> = kind
        .names
        .iter()
        .copied()
        .filter(|&name| !settings.ignored.iter().any(|ignored| ignored == name))
        .collect();
    let (old, new) = (groups(&names, old), groups(&names, new));
    let mut pooled = Vec::new();
    for group in old.iter().chain(&new) {
        pooled.extend(group.pooled(&settings.ignored)?);
    }
    let counterpart =
        |groups: &[Group<'_>], names: &[(&'static str, Value)]| groups.iter().position(|group| group.names == names);
    let only = |one: &[Group<'_>], other: &[Group<'_>]| -> Vec<String> {
        let lonely = one.iter().filter(|group| counterpart(other, &group.names).is_none());
        lonely.map(Group::phrase).collect()
    };
    let (only_old, only_new) = (only(&old, &new), only(&new, &old));
    let mut cells = Vec::new();
    for before in &old {
        let Some(index) = counterpart(&new, &before.names) else {
            continue;
        };
        let after = &new[index];
        for figure in kind.figures {
            let (old, new) = (before.values(figure), after.values(figure));
            let presence = match (has_any(&old), has_any(&new)) {
                (true, true) => Presence::Both,
                (true, false) => Presence::OnlyOld,
                (false, true) => Presence::OnlyNew,
                // No figure of these reports.
                (false, false) => continue,
            };
            let samples = if settings.paired {
                Samples::Pairs(pairs(&old, &new, &before.phrase())?)
            } else {
                let all = |values: Values| values.into_iter().flat_map(|(_, values)| values).flatten().collect();
                Samples::Sets(all(old), all(new))
            };
            cells.push(Cell {
                row: before.phrase(),
                names: before.names.clone(),
                figure,
                samples,
                presence,
            });
        }
    }
    if cells.is_empty() {
        let list = |rows: &[String]| rows.join("; ");
        return Err(UsageError(format!(
            "the old and the new reports have no row in common; old: {}; new: {}; --ignore NAME leaves out a name that \
             is not to count, such as target",
            list(&only_old),
            list(&only_new)
        ))
        .into());
    }
    Ok(Matched {
        cells,
        only_old,
        only_new,
        pooled,
    })
}

/// Returns the rows of `reports` by their names.
fn groups<'a>(names: &[&'static str], reports: &'a [Stored]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for (report, stored) in reports.iter().enumerate() {
        for row in &stored.rows {
            let names: Vec<_> = names
                .iter()
                .filter_map(|&name| Some((name, row.get(name)?.clone())))
                .collect();
            match groups.iter_mut().find(|group| group.names == names) {
                Some(group) => group.rows.push((report, row)),
                None => groups.push(Group {
                    names,
                    rows: vec![(report, row)],
                }),
            }
        }
    }
    groups
}

/// Returns whether a run has a value.
fn has_any(values: &Values) -> bool {
    values.iter().flat_map(|(_, values)| values).any(Option::is_some)
}

/// Returns the pairs of runs that both have a value.
fn pairs(old: &Values, new: &Values, row: &str) -> Result<Vec<(f64, f64)>, UsageError> {
    let mut pairs = Vec::new();
    for (report, before) in old {
        let Some((_, after)) = new.iter().find(|(other, _)| other == report) else {
            continue;
        };
        if before.len() != after.len() {
            return Err(UsageError(format!(
                "pair {}: the old report has {} runs of the row {row}, the new one {}; leave --paired out",
                report + 1,
                before.len(),
                after.len()
            )));
        }
        pairs.extend(before.iter().zip(after).filter_map(|(old, new)| old.zip(*new)));
    }
    Ok(pairs)
}

/// A name with its value; texts speak for themselves.
fn text(name: &str, value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => format!("{name} {}", one(value, "")),
    }
}
