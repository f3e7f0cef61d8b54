//! tidegate, nginx and the same application on the kernel's TCP, under the same client, in turn.
//!
//! In the lab, one server after the other is started on the server's core, asked by a client on the other core, and
//! stopped; then all of them again, as often as there are runs. All serve the same file on the same address and port,
//! so they are asked with the same octets. Beside them, a bare AF_XDP reflect shows what the way of the frames allows.

mod case;
mod cpu;
mod frame_pattern;
mod plan;
mod raw_port;
mod reflect;
mod report;
mod served;
mod target;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::{Map, Value};
use tidegate_args::url::Url;
use tidegate_lab::Family;
use tidegate_lab::environment;
use tidegate_lab::{Cores, arrangement};
use tidegate_load::Close;
use tidegate_report::ReportFiles;
use tidegate_runtime::WaitStrategy;

use self::case::{Bench, CONNECTIONS};
use self::plan::{Budget, Case, ClientKind, Clients, Load, Round, Scale, Selection, Session, Shape, Target};
use self::report::Results;
use self::target::Servers;
use crate::nginx;
use crate::progress::Progress;
use crate::setup::{Setup, Stage, directory, this_program, version, wait_name};

/// The port of all servers, one after the other.
const PORT: u16 = 80;

/// Arguments of `tidegate-bench compare`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A first look that ends within 55 s: three runs, as far as there is time, and less time for each.
    #[arg(long)]
    quick: bool,
    /// The number of times everything is measured, 1 to 100 (default: 5)
    #[arg(long, value_name = "N", conflicts_with = "quick", value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: Option<u32>,
    /// The TCP that the client uses.
    #[arg(long, value_enum, default_value = "bypass")]
    client: Clients,
    /// The servers to measure, separated by commas.
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', default_values_t = Target::ALL)]
    targets: Vec<Target>,
    /// Workloads of the clients, separated by commas.
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', default_values_t = Load::ALL)]
    workloads: Vec<Load>,
    /// The side that ends the connections of cps.
    #[arg(long, value_enum, default_value_t = Close::Client)]
    close: Close,
    /// Use IPv6.
    #[arg(long)]
    ipv6: bool,
    /// The way tidegate waits for frames.
    #[arg(long, value_name = "STRATEGY", value_enum, default_value_t = WaitStrategy::Spin)]
    wait: WaitStrategy,
    #[command(flatten)]
    setup: Setup,
    #[command(flatten)]
    files: ReportFiles,
}

impl Arguments {
    fn scale(&self) -> Scale {
        if self.quick {
            return Scale::QUICK;
        }
        Scale {
            runs: self.runs.unwrap_or(Scale::FULL.runs),
            ..Scale::FULL
        }
    }

    fn family(&self) -> Family {
        if self.ipv6 { Family::V6 } else { Family::V4 }
    }
}

/// Measures everything and prints the table. False if there was no time for something: how good is good enough is for
/// the reader.
///
/// # Errors
///
/// The arguments do not go together (a usage error), nginx is not installed, the lab is not up, a server does not
/// start, answers something else or ends, a client cannot begin, or the results cannot be written.
pub fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let start = Instant::now();
    let selection = Selection::new(&arguments.targets, &arguments.workloads, arguments.client)?;
    arguments.files.check_writable()?;
    let nginx = if selection.has(Target::Nginx) {
        Some(nginx::find().context("--targets tidegate,serve-kernel does without it")?)
    } else {
        None
    };
    let Stage { lab, cores, children } = arguments.setup.stage()?;
    let (root, work) = (directory("compare-served")?, directory("compare-work")?);
    served::write(root.path())?;

    let address = SocketAddr::new(arguments.family().server(), PORT);
    let servers = Servers {
        lab: &lab,
        children: &children,
        tidegate: arguments.setup.tidegate()?,
        wait: wait_name(arguments.wait)?,
        nginx,
        this: this_program()?,
        root: root.path(),
        work: work.path(),
        address,
        cpu: cores.server,
    };
    let url: Url = format!("http://{address}{}", served::PATH)
        .parse()
        .map_err(anyhow::Error::msg)?;
    let mut bench = Bench {
        lab: &lab,
        scale: arguments.scale(),
        cores,
        servers,
        url,
        close: arguments.close,
        page: served::content(),
        count: 0,
        tidegate: None,
    };
    let mut results = Results::new(describe(&bench, &selection, arguments.family())?);
    let rounds = selection.rounds(bench.scale.runs);
    let left_out = measure(&mut bench, &rounds, &mut results, start)?;
    if let Some(answer) = bench.tidegate {
        let lengths = bench.lengths(answer);
        let [there, back] = lengths.ways(Shape::Connection, bench.close);
        let text = format!(
            "{} with a request, {} with a response; of a connection {there:?} from the client, {back:?} from the server",
            lengths.request, lengths.response
        );
        results.add_environment("reflect_frame_bytes", text);
    }
    finish(arguments, &selection, &mut results, &left_out)
}

/// Prints and writes what was found.
fn finish(
    arguments: &Arguments,
    selection: &Selection,
    results: &mut Results,
    left_out: &[String],
) -> anyhow::Result<bool> {
    if !left_out.is_empty() {
        results.add_environment("left_out", left_out.to_vec());
        eprintln!("tidegate-bench compare: there was no time for: {}", left_out.join("; "));
    }
    let is_whole = selection.cases().into_iter().all(|case| results.has(case));
    let report = results.report();
    print!("{}", report.text);
    arguments.files.write(&report)?;
    Ok(is_whole)
}

/// A temporary directory that is removed when the result is dropped.
/// Measures the rounds one after the other, and returns the titles of those there was no time for.
fn measure(
    bench: &mut Bench<'_>,
    rounds: &[Round],
    results: &mut Results,
    start: Instant,
) -> anyhow::Result<Vec<String>> {
    let mut progress = Progress::new(rounds.iter().map(|round| round.sessions.len()).sum())?;
    let mut budget = Budget::new(bench.scale);
    let mut left_out = Vec::new();
    for round in rounds {
        if !budget.allows(round, start.elapsed()) {
            left_out.push(round.title());
            continue;
        }
        let begin = Instant::now();
        for session in &round.sessions {
            let title = format!("{}, {}", round.title(), session.title());
            progress.begin(&title);
            let found = bench
                .take(session, round.number, &|client| half_of_kernel(results, client))
                .with_context(|| title.clone())?;
            if let (Session::Server(target, _), Some(answer)) = (session, found.answer) {
                results.set_answer(*target, answer);
            }
            let rates: Vec<String> = found
                .runs
                .iter()
                .map(|run| format!("{} {:.0} {}", run.case.workload_name(), run.per_s, run.case.unit()))
                .collect();
            for run in found.runs {
                results.add(run);
            }
            progress.done(&format!("{title}: {}", rates.join(", ")));
        }
        budget.note(round, begin.elapsed());
    }
    Ok(left_out)
}

/// Half of the requests per second that serve-kernel reached under `rps`, asked by `client`.
fn half_of_kernel(results: &Results, client: ClientKind) -> anyhow::Result<u64> {
    let case = Case::Server {
        load: Load::Rps,
        client,
        target: Target::ServeKernel,
    };
    let half = results.median(case).unwrap_or_default() / 2.0;
    if half < 1.0 {
        bail!("serve-kernel answered nothing under rps, so there is no rate to measure latency at");
    }
    Ok(half as u64)
}

/// Returns the facts that the results depend on.
fn describe(bench: &Bench<'_>, selection: &Selection, family: Family) -> anyhow::Result<Map<String, Value>> {
    let Scale {
        warm_up,
        duration,
        reflect,
        ..
    } = bench.scale;
    let servers = &bench.servers;
    let targets: Vec<&str> = selection.targets().iter().map(|target| target.name()).collect();
    let closed_by = match bench.close {
        Close::Client => "the client, so TIME-WAIT is the client's",
        Close::Server => "the server, so TIME-WAIT is the server's",
        Close::Rst => "the client, by RST, so there is no TIME-WAIT",
    };
    let entries: [(&str, Value); 14] = [
        ("targets", targets.into()),
        ("ip_version", family.title().into()),
        ("core_arrangement", arrangement_text(bench.cores).into()),
        ("driver", arrangement::driver(bench.lab)?.into()),
        ("mode", "XDP native, AF_XDP copy".into()),
        (
            "offloads",
            "checksums and segmentation off on both devices, GRO on on the server's".into(),
        ),
        ("connections", CONNECTIONS.into()),
        ("pipelining", "none".into()),
        ("cps_closed_by", closed_by.into()),
        ("request_bytes", bench.url.request(true).len().into()),
        ("body_bytes", bench.page.len().into()),
        ("warm_up_seconds", warm_up.as_secs_f64().into()),
        ("seconds_per_run", duration.as_secs_f64().into()),
        ("seconds_per_reflect", reflect.as_secs_f64().into()),
    ];
    let mut all = environment::describe()?;
    all.extend(entries.into_iter().map(|(name, value)| (name.to_owned(), value)));
    if selection.has(Target::Tidegate) {
        let version = version(&servers.tidegate, "--version").context("`make build` builds tidegate")?;
        all.insert("tidegate_version".to_owned(), version.into());
        all.insert(
            "tidegate_arguments".to_owned(),
            servers.tidegate_arguments().join(" ").into(),
        );
    }
    if let Some(program) = &servers.nginx {
        all.insert("nginx_version".to_owned(), version(program, "-v")?.into());
        let text = nginx::configuration(servers.address, Path::new("ROOT"), Path::new("WORK"), servers.cpu);
        all.insert("nginx_configuration".to_owned(), text.into());
    }
    Ok(all)
}

/// The core of each process, as a sentence.
fn arrangement_text(cores: Cores) -> String {
    let Cores { client, server, .. } = cores;
    if client == server {
        return format!("everything on CPU {client}, which is the only one: client and server take it from each other");
    }
    format!(
        "client on CPU {client}, server on CPU {server}; the receiving half of each device runs in the soft interrupts \
         of the CPU that sends to it (no threaded NAPI)"
    )
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use tidegate_args::UsageError;
    use tidegate_report::testing::parse;

    use super::*;

    #[test]
    fn everything_is_measured_unless_told_otherwise() {
        let arguments = parse::<Arguments>(&[]).unwrap();
        assert_eq!(arguments.targets, Target::ALL);
        assert_eq!(arguments.workloads, Load::ALL);
        assert_eq!(
            (arguments.client, arguments.wait),
            (Clients::Bypass, WaitStrategy::Spin)
        );
        assert_eq!((arguments.scale().runs, arguments.family()), (5, Family::V4));
        let arguments = parse::<Arguments>(&[
            "--targets",
            "tidegate,serve-kernel",
            "--workloads",
            "cps,rps",
            "--runs",
            "7",
            "--ipv6",
            "--client",
            "both",
        ])
        .unwrap();
        assert_eq!(arguments.targets, [Target::Tidegate, Target::ServeKernel]);
        assert_eq!(arguments.workloads, [Load::Cps, Load::Rps]);
        assert_eq!((arguments.scale().runs, arguments.family()), (7, Family::V6));
        assert_eq!(
            parse::<Arguments>(&["--quick"]).unwrap().scale().runs,
            Scale::QUICK.runs
        );
    }

    #[test]
    fn wrong_arguments_are_usage_errors() {
        for (arguments, kind) in [
            (&["--targets", "apache"][..], ErrorKind::InvalidValue),
            (&["--workloads", "cps,hold"][..], ErrorKind::InvalidValue),
            (&["--client", "raw"][..], ErrorKind::InvalidValue),
            (&["--wait", "sleep"][..], ErrorKind::InvalidValue),
            (&["--runs", "0"][..], ErrorKind::ValueValidation),
            (&["--quick", "--runs", "3"][..], ErrorKind::ArgumentConflict),
        ] {
            let error = parse::<Arguments>(arguments).expect_err("wrong arguments");
            assert_eq!(error.kind(), kind, "{arguments:?}");
            assert_eq!(error.exit_code(), 2);
        }
        let error = run(&parse::<Arguments>(&["--targets", "tidegate"]).unwrap()).unwrap_err();
        assert!(error.is::<UsageError>(), "{error:#}");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_found_out_before_anything_is_measured() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("no-such-directory/file");
        let arguments = parse::<Arguments>(&["--html", missing.to_str().unwrap(), "--lab", "no-such-lab"]).unwrap();
        let error = run(&arguments).unwrap_err().to_string();
        assert!(error.contains("no-such-directory"), "{error}");
    }

    #[test]
    fn one_core_for_both_is_told() {
        let cores = Cores {
            client: 3,
            server: 3,
            available: 1,
        };
        assert!(arrangement_text(cores).contains("only one"));
        let text = arrangement_text(Cores {
            server: 4,
            available: 2,
            ..cores
        });
        assert!(text.contains("client on CPU 3, server on CPU 4"), "{text}");
    }
}
