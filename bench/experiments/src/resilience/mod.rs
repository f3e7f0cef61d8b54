//! The effect of attacks on tidegate, beside that on the kernel's TCP and on XDP programs that do next to nothing.
//!
//! In the lab, attacks of several rates meet one server after the other, in turn. Meanwhile clients connect, and other
//! connections go on that were open before. The generator and all clients share one core, the server and its device
//! another, the same for all. In the end, the highest rate that clients do not notice is searched for.

mod attack;
mod background_load;
mod case;
mod linux_listener;
pub(crate) mod plan;
mod recovery;
mod report;
mod scale;
mod score;
mod search;
mod served;
mod target;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::ValueEnum;
use serde_json::{Map, Value};
use tidegate_flood::{Prefix, Sink};
use tidegate_lab::Family;
use tidegate_lab::Place;
use tidegate_lab::arrangement::{self, CLIENT_DEVICE};
use tidegate_lab::environment;
use tidegate_lab::machine::Awake;
use tidegate_report::ReportFiles;

use self::attack::Attack;
use self::case::{Bench, Measured};
use self::plan::{Case, Selection, Subject};
use self::report::Results;
use self::scale::Scale;
use self::target::Servers;
use crate::nginx;
use crate::progress::Progress;
use crate::setup::{Setup, Stage, directory, this_program, version};

/// Bytes per second in a megabit per second.
const MEGABIT: f64 = 125_000.0;

/// Arguments of `tidegate-bench resilience`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A first look that ends within 3 minutes: fewer rates, servers and clients, less time for each, and IPv4 only
    /// unless --family says otherwise.
    #[arg(long)]
    quick: bool,
    /// The attacks, separated by commas; idle keeps 262,144 connections, and the others that keep some 10,000
    /// (default: all of them)
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', hide_default_value = true,
        default_values_t = Attack::value_variants().to_vec())]
    attacks: Vec<Attack>,
    /// The IP versions to measure (default: both)
    #[arg(long, value_enum)]
    family: Option<Families>,
    /// The same as --family 4.
    #[arg(long, conflicts_with = "family")]
    ipv4_only: bool,
    /// The throughput that the connections open before the attack ask for, all together, in Mbit/s, 1 to 10000.
    #[arg(long, value_name = "MBIT", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    open_rate: u32,
    /// Seed of the attacks.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    setup: Setup,
    #[command(flatten)]
    files: ReportFiles,
    /// Be the server on the kernel's TCP, which is a process of its own.
    #[arg(long, value_name = "ADDRESS:PORT", hide = true)]
    linux_listener: Vec<SocketAddr>,
}

/// A choice of IP versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Families {
    /// IPv4
    #[value(name = "4")]
    V4,
    /// IPv6
    #[value(name = "6")]
    V6,
    /// One after the other
    Both,
}

impl Arguments {
    fn families(&self) -> &'static [Family] {
        match self.family {
            _ if self.ipv4_only => &[Family::V4],
            None if self.quick => &[Family::V4],
            Some(Families::V4) => &[Family::V4],
            Some(Families::V6) => &[Family::V6],
            None | Some(Families::Both) => &[Family::V4, Family::V6],
        }
    }

    /// The attacks in the order of the results, each once.
    fn attacks(&self) -> Vec<Attack> {
        let mut attacks = self.attacks.clone();
        attacks.sort_unstable();
        attacks.dedup();
        attacks
    }

    fn scale(&self) -> Scale {
        if self.quick { Scale::QUICK } else { Scale::FULL }
    }
}

/// Measures everything and prints the table. False if there was no time for something: how good is good enough is for
/// the reader.
///
/// # Errors
///
/// The lab is not up, a server does not start or ends, an attack cannot be made, or the results cannot be written.
pub fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    if !arguments.linux_listener.is_empty() {
        return linux_listener::serve(&arguments.linux_listener).map(|()| true);
    }
    let start = Instant::now();
    arguments.files.check_writable()?;
    let stage = arguments.setup.stage()?;
    let awake = Awake::ask()?;
    let (root, work) = (served::directory()?, directory("resilience-work")?);
    let bench = set_up(arguments, &stage, root.path(), work.path())?;
    let selection = Selection {
        families: arguments.families(),
        attacks: arguments.attacks(),
        has_nginx: bench.servers.nginx.is_some(),
    };
    let mut results = Results::new(describe(&bench, arguments)?);
    results.add_environment("processors_kept_from_halting", awake.is_some());
    let cases = bench.scale.cases(&selection);
    let left_out = measure(&bench, &cases, &mut results, start)?;

    print!("{}", results.report().text);
    if !left_out.is_empty() {
        let names: Vec<String> = left_out.iter().map(Case::title).collect();
        eprintln!("tidegate-bench resilience: there was no time for: {}", names.join("; "));
        results.add_environment("left_out", names);
    }
    arguments.files.write(&results.report())?;
    Ok(left_out.is_empty())
}

fn set_up<'a>(arguments: &Arguments, stage: &'a Stage, root: &'a Path, work: &'a Path) -> anyhow::Result<Bench<'a>> {
    let Stage { lab, cores, children } = stage;
    let cores = *cores;
    let sink = lab
        .inside(Place::Client, || {
            Sink::attach(CLIENT_DEVICE, Prefix::SOURCES_V4, Prefix::SOURCES_V6)
        })
        .context("cannot count what comes back from the servers")?;
    Ok(Bench {
        lab,
        scale: arguments.scale(),
        cores,
        servers: Servers {
            lab,
            children,
            tidegate: arguments.setup.tidegate()?,
            nginx: nginx(),
            work,
            this: this_program()?,
            root,
            cpu: cores.server,
        },
        sink,
        open_rate: f64::from(arguments.open_rate) * MEGABIT,
        seed: arguments.seed,
        bulk: served::BULK.content().into(),
        small: served::SMALL.content(),
    })
}

/// Measures the cases one after the other, and returns those there was no time for.
fn measure(bench: &Bench, cases: &[Case], results: &mut Results, start: Instant) -> anyhow::Result<Vec<Case>> {
    let mut progress = Progress::new(cases.len())?;
    let mut left_out = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let Some(tail) = bench.scale.tail_of_first(start.elapsed(), &cases[index..]) else {
            left_out.push(*case);
            continue;
        };
        let title = case.title();
        progress.begin(&title);
        let found = measure_one(bench, case, tail, results).with_context(|| title.clone())?;
        progress.done(&format!("{title}: {found}"));
    }
    Ok(left_out)
}

/// Measures a case, adds what was found to `results`, and returns it as a phrase.
fn measure_one(bench: &Bench, case: &Case, tail: Duration, results: &mut Results) -> anyhow::Result<String> {
    let quiet = match case.subject {
        Subject::Score(contender) => results.quiet_p99_us(case.family, contender.target()),
        Subject::Server(_) | Subject::Bare(_) => None,
    };
    Ok(match bench.measure(case, tail, quiet)? {
        Measured::Row(row) => {
            let found = format!(
                "{:.0}/s offered, {:.0}/s answered, {} of {} clients",
                row.offered_per_s, row.answered_per_s, row.legit_ok, row.legit_tried
            );
            if let Some(live_frames) = row.live_frames {
                let generator = if live_frames {
                    "BPF_PROG_TEST_RUN live frames"
                } else {
                    "AF_XDP socket"
                };
                results.add_environment("generator", generator);
            }
            results.add_row(*row);
            found
        }
        Measured::Limit(per_second, offered) => {
            if let (Subject::Bare(limit), Some(attack)) = (case.subject, case.attack) {
                results.add_limit(case.family, attack, limit, per_second);
            }
            format!("{per_second:.0}/s of {offered:.0}/s")
        }
        Measured::Score(score) => {
            let rate = score
                .per_s
                .map_or_else(|| "nothing".to_owned(), |rate| format!("{rate:.0}/s"));
            let found = format!("{rate} after {} tries", score.tries.len());
            results.add_score(score);
            found
        }
    })
}

/// Finds nginx, or says that it is left out.
fn nginx() -> Option<PathBuf> {
    nginx::find()
        .inspect_err(|error| eprintln!("tidegate-bench resilience: nginx is LEFT OUT of the targets: {error:#}"))
        .ok()
}

/// Returns the facts that the results depend on.
fn describe(bench: &Bench, arguments: &Arguments) -> anyhow::Result<Map<String, Value>> {
    let Scale {
        clients,
        window,
        settle,
        tail,
        ..
    } = bench.scale;
    let tidegate_version = version(&bench.servers.tidegate, "--version").context("`make build` builds tidegate")?;
    let entries: [(&str, Value); 11] = [
        ("cores", bench.cores.available.into()),
        ("core_arrangement", bench.cores.describe().into()),
        ("driver", arrangement::driver(bench.lab)?.into()),
        ("mode", "XDP native, AF_XDP copy".into()),
        ("tidegate_version", tidegate_version.into()),
        ("tidegate_arguments", "--xdp-mode native --wait poll".into()),
        ("linux_backlog", i32::from(linux_listener::BACKLOG).into()),
        ("seconds_per_cell", window.as_secs_f64().into()),
        ("settle_seconds", settle.as_secs_f64().into()),
        ("clients_per_cell", clients.into()),
        (
            "open_connections",
            format!(
                "{}, {} Mbit/s all together, bounded by the clients",
                background_load::COUNT,
                arguments.open_rate
            )
            .into(),
        ),
    ];
    let mut environment = environment::describe()?;
    environment.extend(entries.into_iter().map(|(name, value)| (name.to_owned(), value)));
    let late = format!(
        "up to {} s after their window, less if the whole run would take more than {} s",
        tail.as_secs(),
        bench.scale.limit.as_secs()
    );
    match &bench.servers.nginx {
        Some(program) => environment.insert("nginx_version".to_owned(), version(program, "-v")?.into()),
        None => environment.insert("nginx_version".to_owned(), "not installed, so left out".into()),
    };
    environment.insert("late_clients_are_waited_for".to_owned(), late.into());
    Ok(environment)
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use tidegate_report::testing::parse;

    use super::*;

    #[test]
    fn families_can_be_chosen() {
        for (arguments, families) in [
            (&[][..], &[Family::V4, Family::V6][..]),
            (&["--family", "both"][..], &[Family::V4, Family::V6][..]),
            (&["--family", "4"][..], &[Family::V4][..]),
            (&["--ipv4-only"][..], &[Family::V4][..]),
            (&["--family", "6"][..], &[Family::V6][..]),
            (&["--quick"][..], &[Family::V4][..]),
            (&["--quick", "--family", "both"][..], &[Family::V4, Family::V6][..]),
        ] {
            assert_eq!(
                parse::<Arguments>(arguments).unwrap().families(),
                families,
                "{arguments:?}"
            );
        }
    }

    #[test]
    fn a_quick_run_has_less_time() {
        let limit = |arguments: &[&str]| parse::<Arguments>(arguments).unwrap().scale().limit;
        assert!(limit(&["--quick"]) < limit(&[]));
    }

    #[test]
    fn attacks_can_be_chosen() {
        let attacks = |arguments: &[&str]| parse::<Arguments>(arguments).unwrap().attacks();
        assert_eq!(attacks(&[]), Attack::value_variants());
        let chosen = attacks(&["--attacks", "synack,ack,ack"]);
        let names: Vec<_> = chosen.into_iter().map(Attack::name).collect();
        assert_eq!(names, ["ack", "synack"]);
    }

    #[test]
    fn wrong_arguments_are_usage_errors() {
        for (arguments, kind) in [
            (&["--family", "5"][..], ErrorKind::InvalidValue),
            (&["--ipv4-only", "--family", "6"][..], ErrorKind::ArgumentConflict),
            (&["--attacks", "syn,udp-noise"][..], ErrorKind::InvalidValue),
            (&["--attacks", ""][..], ErrorKind::InvalidValue),
            (&["--open-rate", "0"][..], ErrorKind::ValueValidation),
            (&["--linux-listener", "198.18.0.1"][..], ErrorKind::ValueValidation),
            (&["--json"][..], ErrorKind::InvalidValue),
        ] {
            let error = parse::<Arguments>(arguments).expect_err("wrong arguments");
            assert_eq!(error.kind(), kind, "{arguments:?}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_found_out_before_anything_is_measured() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("no-such-directory/file");
        let arguments = parse::<Arguments>(&["--json", missing.to_str().unwrap(), "--lab", "no-such-lab"]).unwrap();
        let error = run(&arguments).unwrap_err().to_string();
        assert!(error.contains("no-such-directory"), "{error}");
    }
}
