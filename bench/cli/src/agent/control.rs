//! The side that asks agents for a measurement and puts their results together.

use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use serde_json::json;
use tidegate_args::UsageError;
use tidegate_report::machines::{self, Machine};
use tidegate_report::{Report, ReportFiles, Section, files};

use super::protocol::{Connection, Finished, Reply, Request, TIMEOUT, Token};

/// Agents, at most.
const MAX_AGENTS: usize = 64;

/// From the moment all are ready to the begin, so that every agent has been told by then.
const DELAY: Duration = Duration::from_millis(500);

/// Options whose values are for this machine and not for the agents.
const OWN: [&str; 7] = [
    "--agents",
    "--token-file",
    "--json",
    "--html",
    "--csv",
    "--markdown",
    "--log",
];

/// The agents of a measurement.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Agents {
    /// Let these agents measure instead, all at the same time, and put their results together. Each does all of what
    /// the arguments say; `tidegate-bench agent` is started on each before.
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
        let job = for_agents(std::env::args().skip(1));
        let outcomes = ask(&self.agents, &token, &job)?;
        let (report, logs, passed) = together(outcomes)?;
        print!("{}", report.text);
        output.write(&report)?;
        if let Some(file) = log {
            files::write(file, logs)?;
        }
        Ok(passed)
    }
}

/// Returns the arguments without those that are for this machine. clap has accepted them, so each of these has a value.
fn for_agents(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let (name, value) = argument
            .split_once('=')
            .map_or((&argument[..], None), |(name, value)| (name, Some(value)));
        if !OWN.contains(&name) {
            kept.push(argument);
        } else if value.is_none() {
            arguments.next();
        }
    }
    kept
}

/// Has all agents do `job` at the same time.
///
/// # Errors
///
/// One cannot be reached or refuses.
fn ask(agents: &[String], token: &Token, job: &[String]) -> anyhow::Result<Vec<Outcome>> {
    let mut prepared = thread::scope(|scope| {
        let one = |name: &String| {
            let name = name.clone();
            scope.spawn(move || prepare(&name, token, job).with_context(|| format!("agent {name}")))
        };
        let all: Vec<_> = agents.iter().map(one).collect();
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
    let mut addresses = name
        .to_socket_addrs()
        .map_err(|error| UsageError(format!("--agents: {name} is no HOST:PORT that can be found: {error}")))?;
    let address = addresses.next().context("its name has no address")?;
    let stream = TcpStream::connect_timeout(&address, TIMEOUT).context("cannot connect to it; is it started?")?;
    let mut connection = Connection::introduce(stream, token)?;
    let asked = Instant::now();
    connection.send(&Request::Prepare(job.to_vec()))?;
    match connection.receive()? {
        Reply::Ready => Ok(Prepared {
            connection,
            round_trip: asked.elapsed(),
        }),
        Reply::Refused { reason, is_usage: true } => Err(UsageError(reason).into()),
        Reply::Refused { reason, .. } => bail!(reason),
        other => bail!("it answers {other:?} to a measurement"),
    }
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
                Reply::Refused { reason, .. } => bail!(reason),
                other => bail!("it answers {other:?} while it measures"),
            }
        }
    }
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
                format!(": {}", finished.errors)
            };
            troubles.push((name.clone(), end + &said));
        }
        if let Some(report) = &finished.report {
            machines.push(Machine::new(&name, report)?);
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
    let mut report = machines::together(&machines, &logs)?;
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
        ];
        let kept = for_agents(arguments.iter().map(|&argument| argument.to_owned()));
        assert_eq!(kept, ["rps", "--url", "http://198.18.0.1/", "--verify"]);
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
