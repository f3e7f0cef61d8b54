//! The side that asks agents for a measurement and puts their results together.

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::Parser;
use serde_json::json;
use tidegate_args::UsageError;
use tidegate_report::format::printable;
use tidegate_report::machines::{self, Machine};
use tidegate_report::{Report, ReportFiles, Section, files};

use super::protocol::{Connection, Finished, Reply, Request, TIMEOUT, Token};
use crate::measure::Job;

/// Agents, at most.
const MAX_AGENTS: usize = 64;

/// From the moment all are ready to the begin, so that every agent has been told by then.
const DELAY: Duration = Duration::from_millis(500);

/// Options whose values are for this machine and not for the agents.
const OWN: [&str; 8] = [
    "--agents",
    "--token-file",
    "--json",
    "--html",
    "--csv",
    "--markdown",
    "--log",
    "--live",
];

/// Options without a value that are for this machine.
const OWN_FLAGS: [&str; 2] = ["-v", "--verbose"];

/// The agents of a measurement.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Agents {
    /// Let these agents measure instead, all at the same time, and put their results together. Each does all of what
    /// the arguments say; `tidegate-bench agent` is started on each before. The URL has to have an address, not a name.
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',', requires = "token_file")]
    agents: Vec<String>,
    /// The file with the token of the agents.
    #[arg(long, value_name = "FILE", requires = "agents")]
    token_file: Option<PathBuf>,
}

/// The outcome of one agent.
struct Outcome {
    name: String,
    result: anyhow::Result<Finished>,
}

impl Agents {
    /// Returns whether there are any.
    pub(crate) fn are_asked(&self) -> bool {
        !self.agents.is_empty()
    }

    /// Has all agents do what the command line of this process says, prints the results and writes the files that were
    /// asked for. True when no agent was lost and each succeeded.
    ///
    /// # Errors
    ///
    /// An agent cannot be reached, or refuses (a usage error if it is one there); nothing is measured then. No agent
    /// has results, or a file cannot be written.
    pub(crate) fn run(&self, output: &ReportFiles, log: Option<&PathBuf>) -> anyhow::Result<bool> {
        let file = self.token_file.as_deref().context("agents need a token")?;
        let token = Token::read(file)?;
        if self.agents.len() > MAX_AGENTS {
            return Err(UsageError(format!(
                "{} agents; at most {MAX_AGENTS} can be asked",
                self.agents.len()
            ))
            .into());
        }
        output.check_writable()?;
        log.map_or(Ok(()), |log| files::check_writable(log))?;
        let job = for_agents(std::env::args_os().skip(1))?;
        let outcomes = ask(&self.agents, &token, &jobs(&job, self.agents.len())?)?;
        let (report, logs, passed) = together(outcomes)?;
        print!("{}", printable(&report.text));
        output.write(&report)?;
        if let Some(file) = log {
            files::write(file, logs)?;
        }
        Ok(passed)
    }
}

/// Returns the arguments without those that are for this machine. clap has accepted them, so each of these has a value.
///
/// # Errors
///
/// One is no text (a usage error).
fn for_agents(arguments: impl Iterator<Item = OsString>) -> Result<Vec<String>, UsageError> {
    let not_own = without(arguments, &OWN);
    let to_text = |argument: OsString| {
        argument.into_string().map_err(|argument| {
            UsageError(format!(
                "{argument:?} is not UTF-8 and cannot be told to agents; write it otherwise"
            ))
        })
    };
    let mut kept = not_own.into_iter().map(to_text).collect::<Result<Vec<_>, _>>()?;
    kept.retain(|argument| !OWN_FLAGS.contains(&&argument[..]));
    Ok(kept)
}

/// Returns `arguments` without `options` and their values.
fn without(mut arguments: impl Iterator<Item = OsString>, options: &[&str]) -> Vec<OsString> {
    let mut kept = Vec::new();
    while let Some(argument) = arguments.next() {
        let octets = argument.as_encoded_bytes();
        let end = octets.iter().position(|&octet| octet == b'=').unwrap_or(octets.len());
        if !options.iter().any(|option| option.as_bytes() == &octets[..end]) {
            kept.push(argument);
        } else if end == octets.len() {
            arguments.next();
        }
    }
    kept
}

/// Returns the arguments for each of `count` agents. Random spaces that were the same everywhere would make all of them
/// begin at the same moments, so each agent has a seed of its own.
///
/// # Errors
///
/// The arguments are no measurement (a usage error).
fn jobs(job: &[String], count: usize) -> Result<Vec<Vec<String>>, UsageError> {
    let parsed = Job::try_parse_from(job).map_err(|error| UsageError(error.to_string()))?;
    let Some(seed) = parsed.seed()? else {
        return Ok(vec![job.to_vec(); count]);
    };
    let others = without(job.iter().map(OsString::from), &["--seed"]);
    let others: Vec<String> = others
        .into_iter()
        .filter_map(|argument| argument.into_string().ok())
        .collect();
    let with_seed = |index: u64| {
        let seed = seed.wrapping_add(index).to_string();
        others.iter().cloned().chain(["--seed".to_owned(), seed]).collect()
    };
    Ok((0..count as u64).map(with_seed).collect())
}

/// Has all agents do their part of `jobs` at the same time.
///
/// # Errors
///
/// One cannot be reached or refuses.
fn ask(agents: &[String], token: &Token, jobs: &[Vec<String>]) -> anyhow::Result<Vec<Outcome>> {
    let mut prepared = thread::scope(|scope| {
        let mut all = Vec::new();
        for (name, job) in agents.iter().zip(jobs) {
            all.push(scope.spawn(move || prepare(name, token, job).with_context(|| format!("agent {name}"))));
        }
        let join = |thread: thread::ScopedJoinHandle<'_, anyhow::Result<Prepared>>| {
            thread
                .join()
                .unwrap_or_else(|_| Err(anyhow!("the thread of an agent panicked")))
        };
        all.into_iter().map(join).collect::<anyhow::Result<Vec<_>>>()
    })?;
    eprintln!("tidegate-bench: {} agents are ready", prepared.len());
    // No thread sends before all are there to send.
    let barrier = Arc::new(Barrier::new(prepared.len()));
    Ok(thread::scope(|scope| {
        let one = |(name, prepared): (&String, Prepared)| {
            let barrier = Arc::clone(&barrier);
            let name = name.clone();
            scope.spawn(move || {
                barrier.wait();
                let result = prepared.measure();
                if let Err(error) = &result {
                    eprintln!("tidegate-bench: agent {name} is lost: {error:#}");
                }
                Outcome { name, result }
            })
        };
        let all: Vec<_> = agents.iter().zip(prepared.drain(..)).map(one).collect();
        let join = |(thread, name): (thread::ScopedJoinHandle<'_, Outcome>, &String)| {
            thread.join().unwrap_or_else(|_| Outcome {
                name: name.clone(),
                result: Err(anyhow!("the thread of the agent panicked")),
            })
        };
        all.into_iter().zip(agents).map(join).collect()
    }))
}

/// An agent that waits for the start.
struct Prepared {
    connection: Connection,
    /// The time a message takes to it and back.
    round_trip: Duration,
}

/// Connects to an agent and tells it what to do.
fn prepare(name: &str, token: &Token, job: &[String]) -> anyhow::Result<Prepared> {
    let addresses = name
        .to_socket_addrs()
        .map_err(|error| UsageError(format!("--agents: {name} is no HOST:PORT that can be found: {error}")))?;
    let stream = connect(addresses).context("cannot connect to it; is it started?")?;
    let mut connection = Connection::introduce(stream, token)?;
    let asked = Instant::now();
    connection.send(&Request::Prepare(job.to_vec()))?;
    match connection.receive()? {
        Reply::Ready => Ok(Prepared {
            connection,
            round_trip: asked.elapsed(),
        }),
        Reply::Refused { reason, is_usage: true } => Err(UsageError(printable(&reason)).into()),
        Reply::Refused { reason, .. } => bail!(printable(&reason)),
        other => bail!("it answers a measurement by `{}`", other.name()),
    }
}

/// Connects to the first of `addresses` that accepts.
fn connect(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
        }
    }
    Err(last)
}

impl Prepared {
    /// Starts the measurement and waits for its end.
    fn measure(mut self) -> anyhow::Result<Finished> {
        // Half of a round trip is the way there, so that all begin at the same moment whatever their clocks say.
        let delay = DELAY.saturating_sub(self.round_trip / 2);
        self.connection
            .send(&Request::Start(u64::try_from(delay.as_micros())?))?;
        loop {
            match self.connection.receive()? {
                Reply::Running => {}
                Reply::Finished(finished) => return Ok(finished),
                Reply::Refused { reason, .. } => bail!(printable(&reason)),
                other => bail!("it says `{}` while it measures", other.name()),
            }
        }
    }
}

/// Returns an error about what agents have sent, which may quote it.
fn of_agents(error: anyhow::Error) -> anyhow::Error {
    anyhow!("{}", printable(&format!("{error:#}")))
}

/// Returns the report of all agents, their logs one after the other, and whether all is well.
///
/// # Errors
///
/// No agent has results, or they cannot be put together.
fn together(outcomes: Vec<Outcome>) -> anyhow::Result<(Report, String, bool)> {
    let (mut machines, mut logs, mut troubles) = (Vec::new(), Vec::new(), Vec::new());
    for Outcome { name, result } in outcomes {
        let finished = match result {
            Ok(finished) => finished,
            Err(error) => {
                troubles.push((name, format!("lost: {error:#}")));
                continue;
            }
        };
        let end = match finished.code {
            Some(0) => None,
            Some(code) => Some(format!("exit code {code}")),
            None => Some("ended by a signal".to_owned()),
        };
        if let Some(end) = end {
            let said = if finished.errors.is_empty() {
                String::new()
            } else {
                format!(": {}", printable(&finished.errors))
            };
            troubles.push((name.clone(), end + &said));
        }
        if let Some(report) = &finished.report {
            machines.push(Machine::new(&name, report).map_err(of_agents)?);
            logs.extend(finished.log.map(|log| (format!("the log of agent {name}"), log)));
        }
    }
    let phrases: Vec<String> = troubles
        .iter()
        .map(|(name, trouble)| format!("agent {name}: {trouble}"))
        .collect();
    if machines.is_empty() {
        bail!("no agent has results; {}", phrases.join("; "));
    }
    let mut report = machines::together(&machines, &logs).map_err(of_agents)?;
    for phrase in phrases.into_iter().rev() {
        report.page.sections.insert(0, Section::Text(format!("**{phrase}**")));
    }
    for (name, trouble) in &troubles {
        report.text += &format!("agent {name}: {trouble}\n");
    }
    let told = |(name, trouble): &(String, String)| json!({"machine": name, "trouble": trouble});
    report
        .more
        .insert("failed_machines".to_owned(), troubles.iter().map(told).collect());
    let logs: String = logs.into_iter().map(|(_, log)| log).collect();
    Ok((report, logs, troubles.is_empty()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn agents_are_not_told_what_is_for_this_machine() {
        let arguments = [
            "rps",
            "--url",
            "http://198.18.0.1/",
            "--agents",
            "a:1,b:1",
            "--token-file=t",
            "--json",
            "out",
            "--log=x",
            "--verify",
            "--html",
            "--url=",
            "--live",
            "never",
            "--live=always",
            "--verbose",
        ];
        let mut arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        arguments.insert(0, "-v".into());
        // What agents are not told need not be text.
        let not_text = OsString::from_vec(vec![0xff]);
        arguments.extend(["--csv".into(), not_text.clone()]);
        let kept = for_agents(arguments.into_iter()).unwrap();
        assert_eq!(kept, ["rps", "--url", "http://198.18.0.1/", "--verify"]);
        let error = for_agents([not_text].into_iter()).unwrap_err();
        assert!(error.to_string().starts_with(r#""\xFF" is not UTF-8"#), "{error}");
    }

    #[test]
    fn random_spaces_differ_between_agents() {
        let jobs = |arguments: &str| {
            let arguments = format!("latency --url http://198.18.0.1/ --rate 10{arguments}");
            let job: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
            let jobs = jobs(&job, 3).unwrap();
            jobs.iter()
                .map(|job| Job::try_parse_from(job).unwrap().seed().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(jobs(" --seed=7 --arrival poisson"), [Some(7), Some(8), Some(9)]);
        assert_eq!(jobs(" --arrival=poisson"), [Some(1), Some(2), Some(3)]);
        assert_eq!(jobs(""), [None; 3]);
    }

    #[test]
    fn every_address_of_a_name_is_tried() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // Not a port that the kernel gives out.
        let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
        assert_eq!(
            connect([nobody, address].into_iter()).unwrap().peer_addr().unwrap(),
            address
        );
        let error = connect([nobody].into_iter()).unwrap_err().to_string();
        assert!(error.starts_with("127.0.0.1:1: "), "{error}");
        assert!(connect([].into_iter()).is_err());
    }

    #[test]
    fn what_agents_say_does_not_control_the_terminal() {
        let with = |report: Option<&str>, errors: &str| Finished {
            code: Some(1),
            report: report.map(str::to_owned),
            errors: errors.to_owned(),
            ..finished(None)
        };
        let (report, ..) = together(vec![
            outcome("one", Ok(finished(Some(0)))),
            outcome("two", Ok(with(None, "\u{1b}]0;x"))),
        ])
        .unwrap();
        assert!(report.text.contains("exit code 1: \\u{1b}]0;x"), "{:?}", report.text);
        let wrong = r#"{"schema_version": 1, "kind": "\u001b[1m", "rows": []}"#;
        let error = together(vec![outcome("one", Ok(with(Some(wrong), "")))]).err().unwrap();
        assert!(format!("{error:#}").contains("kind `\\u{1b}[1m`"), "{error:#}");
    }

    fn outcome(name: &str, result: anyhow::Result<Finished>) -> Outcome {
        Outcome {
            name: name.to_owned(),
            result,
        }
    }

    fn finished(code: Option<i32>) -> Finished {
        let row = json!({"workload": "rps", "value": 1_000.0, "operations": 2_000, "error_count": 0});
        let report = json!({"schema_version": 1, "kind": "rps", "rows": [row]});
        Finished {
            code,
            report: Some(report.to_string()),
            log: None,
            errors: "the last words".to_owned(),
        }
    }

    #[test]
    fn a_lost_agent_is_told_beside_the_results_of_the_others() {
        let (report, _, passed) = together(vec![
            outcome("one", Ok(finished(Some(0)))),
            outcome("two", Err(anyhow!("it is gone"))),
            outcome("three", Ok(finished(Some(1)))),
        ])
        .unwrap();
        assert!(!passed);
        let json = report.json();
        assert_eq!(json["value"], 2_000);
        let expected = json!([
            {"machine": "two", "trouble": "lost: it is gone"},
            {"machine": "three", "trouble": "exit code 1: the last words"},
        ]);
        assert_eq!(json["failed_machines"], expected);
        assert!(
            report
                .text
                .ends_with("agent two: lost: it is gone\nagent three: exit code 1: the last words\n"),
            "{}",
            report.text
        );

        assert!(report.html().contains("**agent two: lost: it is gone**"));

        let (report, _, passed) = together(vec![outcome("one", Ok(finished(Some(0))))]).unwrap();
        assert!(passed && report.json()["failed_machines"] == json!([]));
    }

    #[test]
    fn without_any_results_it_is_an_error() {
        let error = together(vec![outcome("two", Err(anyhow!("it is gone")))])
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("no agent has results; agent two: lost: it is gone"),
            "{error}"
        );
    }
}
