//! The reports that there are: the names that identify their rows, and their figures with the direction that is better.

use crate::diff::Centre;

/// The direction in which a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    /// Rates, and what is kept of something.
    Higher,
    /// Times, errors and memory.
    Lower,
}

impl Better {
    /// Its name in the JSON.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Higher => "higher",
            Self::Lower => "lower",
        }
    }
}

/// A figure of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// The field, names with dots between them.
    pub(crate) path: &'static str,
    /// The field with the value of each run, an array, if the report has several runs in one row.
    pub(crate) runs: Option<&'static str>,
    /// The title of its column.
    pub(crate) title: &'static str,
    /// Its format (see [`format`](crate::format)).
    pub(crate) format: &'static str,
    pub(crate) better: Better,
    pub(crate) centre: Centre,
}

impl Figure {
    const fn new(path: &'static str, title: &'static str, format: &'static str, better: Better) -> Self {
        Self {
            path,
            runs: None,
            title,
            format,
            better,
            centre: Centre::Median,
        }
    }

    /// A figure that is better when it is higher.
    const fn higher(path: &'static str, title: &'static str, format: &'static str) -> Self {
        Self::new(path, title, format, Better::Higher)
    }

    /// A figure that is better when it is lower.
    const fn lower(path: &'static str, title: &'static str, format: &'static str) -> Self {
        Self::new(path, title, format, Better::Lower)
    }

    /// A number of things that went wrong. Most runs have none, so their mean counts.
    const fn errors(path: &'static str, title: &'static str) -> Self {
        Self {
            centre: Centre::Mean,
            ..Self::lower(path, title, "")
        }
    }

    /// Has the value of each run in the array `runs`.
    const fn of_runs(self, runs: &'static str) -> Self {
        Self {
            runs: Some(runs),
            ..self
        }
    }
}

/// A kind of report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// The fields that identify a row.
    pub(crate) names: &'static [&'static str],
    /// The fields that can be compared.
    pub(crate) figures: &'static [Figure],
}

/// The names of single measurements.
const SINGLES: [&str; 5] = ["cps", "rps", "latency", "throughput", "hold"];

/// The other kinds of reports that are known, by name.
const OTHERS: [(&str, &Kind); 5] = [
    ("compare", &COMPARE),
    ("resilience", &RESILIENCE),
    ("goodput", &GOODPUT),
    ("fairness", &FAIRNESS),
    ("merge", &MERGE),
];

/// Returns the name of a single measurement; `None` if `name` is something else.
pub(crate) fn single(name: &str) -> Option<&'static str> {
    SINGLES.into_iter().find(|&known| known == name)
}

/// Returns the kind of reports with this name; `None` if it is not known.
pub(crate) fn kind(name: &str) -> Option<&'static Kind> {
    if single(name).is_some() {
        return Some(&SINGLE);
    }
    OTHERS
        .into_iter()
        .find_map(|(known, kind)| (known == name).then_some(kind))
}

const SINGLE: Kind = Kind {
    names: &[
        "workload",
        "client",
        "target",
        "method",
        "connections",
        "requests_per_connection",
        "pipeline",
        "close",
        "direction",
        "offered_per_second",
        "arrival",
    ],
    figures: &[
        Figure::higher("value", "per second", "short"),
        Figure::lower("latency_us.p50", "p50", "us"),
        Figure::lower("latency_us.p99", "p99", "us"),
        Figure::lower("latency_us.p999", "p99.9", "us"),
        Figure::lower("connect_us.p50", "connect p50", "us"),
        Figure::lower("connect_us.p99", "connect p99", "us"),
        Figure::lower("cpu_us_per_operation.server", "server CPU us/op", "3"),
        Figure::lower("cpu_us_per_operation.client", "client CPU us/op", "3"),
        Figure::lower("frames_per_operation", "frames/op", "2"),
        Figure::lower(
            "memory.server_resident.bytes_per_connection",
            "server B/connection",
            "0",
        ),
        Figure::errors("error_count", "errors"),
    ],
};

const COMPARE: Kind = Kind {
    names: &["workload", "client", "target"],
    figures: &[
        Figure::higher("value", "per second", "short").of_runs("values"),
        Figure::lower("p50_us", "p50", "us").of_runs("p50_us_values"),
        Figure::lower("p99_us", "p99", "us").of_runs("p99_us_values"),
        Figure::lower("p999_us", "p99.9", "us").of_runs("p999_us_values"),
        Figure::lower("cpu_us_per_op", "CPU us/op", "3").of_runs("cpu_us_per_op_values"),
        Figure::lower("frames_per_op", "frames/op", "2"),
        Figure::errors("errors", "errors"),
    ],
};

const RESILIENCE: Kind = Kind {
    names: &["attack", "target", "family", "rate"],
    figures: &[
        Figure::higher("answered_per_s", "answered/s", "short"),
        Figure::higher("taken_per_s", "taken/s", "short"),
        Figure::errors("legit_failed", "clients failed"),
        Figure::lower("connect_p50_us", "connect p50", "us"),
        Figure::lower("connect_p99_us", "connect p99", "us"),
        Figure::lower("first_byte_p99_us", "first byte p99", "us"),
        Figure::lower("amplification", "out/in", "2"),
        Figure::lower("rss_bytes", "RSS", "short"),
        Figure::higher("open_kept", "open kept", "%"),
        Figure::errors("open_broken", "open broken"),
        Figure::higher("score_per_s", "unnoticed/s", "short"),
    ],
};

const GOODPUT: Kind = Kind {
    names: &["link", "direction", "control"],
    figures: &[
        Figure::higher("tidegate", "Mbit/s", "1").of_runs("tidegate_mbits_per_second"),
        Figure::lower("tidegate_percent_again", "sent again %", "2"),
        Figure::lower("tidegate_queue_wait_ms", "queue wait ms", "1"),
        Figure::lower("tidegate_cpu_s_per_gb", "CPU s/GB", "2"),
    ],
};

const FAIRNESS: Kind = Kind {
    names: &["pair"],
    figures: &[
        Figure::higher("jain", "Jain", "3"),
        Figure::higher("total_mbits_per_second", "Mbit/s", "1"),
    ],
};

const MERGE: Kind = Kind {
    names: &["tag"],
    figures: &[
        Figure::lower("latency_us.p50", "p50", "us"),
        Figure::lower("latency_us.p99", "p99", "us"),
        Figure::lower("latency_us.p999", "p99.9", "us"),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of every report, as programs read them.
    const REPORT: &str = include_str!("../../../docs/report.md");

    #[test]
    fn every_field_is_one_that_the_document_names() {
        for name in OTHERS.iter().map(|(name, _)| *name).chain(SINGLES) {
            let kind = kind(name).unwrap();
            let paths = kind.figures.iter().flat_map(|figure| [Some(figure.path), figure.runs]);
            for field in paths
                .flatten()
                .flat_map(|path| path.split('.'))
                .chain(kind.names.iter().copied())
            {
                assert!(REPORT.contains(&format!("`{field}`")), "{name}: {field}");
            }
        }
        assert!(kind("nothing").is_none());
    }

    #[test]
    fn rates_are_better_when_higher_and_times_when_lower() {
        let better = |name, path| {
            let figures = kind(name).unwrap().figures;
            figures.iter().find(|figure| figure.path == path).unwrap().better
        };
        assert_eq!(better("rps", "value"), Better::Higher);
        assert_eq!(better("rps", "latency_us.p99"), Better::Lower);
        assert_eq!(better("rps", "cpu_us_per_operation.server"), Better::Lower);
        assert_eq!(better("hold", "error_count"), Better::Lower);
        assert_eq!(better("goodput", "tidegate"), Better::Higher);
    }
}
