//! Closed-loop HTTP load over the kernel's sockets: every connection has one request under way.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use mio::{Events, Poll, Token};
use tidegate_args::duration::{self, ABOVE_ZERO};

use crate::client::open_files::allow_open_files;
use crate::connection::{Connection, Failure, FailureKind, Step};
use crate::http_client::Url;
use crate::load_report::LoadReport;

/// Longest run.
const LONGEST: Duration = Duration::from_secs(60);

/// How long requests under way at the end of the run may take to finish.
const GRACE: Duration = Duration::from_secs(2);

/// Pause before a failed connection is replaced, so that a refusing server is not stormed.
const REPLACEMENT_DELAY: Duration = Duration::from_millis(10);

/// File descriptors needed beside the connections.
const OTHER_FILES: u64 = 32;

/// Arguments of `tidegate-bench load`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What to request: http://ADDRESS:PORT/PATH, with IPv6 addresses in brackets.
    #[arg(long)]
    url: Url,
    /// Connections kept busy, 1 to 10,000.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// How long to send requests, at most 60s.
    #[arg(long, default_value = "3s", value_parser = duration::within(ABOVE_ZERO..=LONGEST))]
    duration: Duration,
    /// Make a new connection for every request.
    #[arg(long)]
    no_keepalive: bool,
    /// Write the results to this file as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the load and prints the results. True when every response was right.
///
/// # Errors
///
/// The run could not take place, or its results not be written.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    allow_open_files(u64::from(arguments.connections) + OTHER_FILES)?;
    let mut load = Load::new(arguments)?;
    load.run()?;
    let report = load.report;
    println!("{report}");
    if let Some(path) = &arguments.json {
        let text = format!("{:#}\n", report.json());
        std::fs::write(path, text).with_context(|| format!("cannot write the results to {}", path.display()))?;
    }
    Ok(report.passed())
}

struct Load<'a> {
    arguments: &'a Arguments,
    request: Vec<u8>,
    poll: Poll,
    slots: Vec<Option<Connection>>,
    /// Slots to be filled again, the earliest first: all wait equally long.
    replacements: VecDeque<(Instant, usize)>,
    busy: usize,
    buffer: Vec<u8>,
    report: LoadReport,
    end: Instant,
}

impl<'a> Load<'a> {
    fn new(arguments: &'a Arguments) -> anyhow::Result<Self> {
        Ok(Self {
            arguments,
            request: arguments.url.request(!arguments.no_keepalive),
            poll: Poll::new().context("cannot make an epoll instance")?,
            slots: (0..arguments.connections).map(|_| None).collect(),
            replacements: VecDeque::new(),
            busy: 0,
            buffer: vec![0; 64 * 1024],
            report: LoadReport::new()?,
            end: Instant::now(),
        })
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        self.end = start + self.arguments.duration;
        for slot in 0..self.slots.len() {
            self.connect(slot);
        }
        let mut events = Events::with_capacity(1024);
        loop {
            let now = Instant::now();
            let running = now < self.end;
            if !running && (self.busy == 0 || now >= self.end + GRACE) {
                break;
            }
            let mut wake = if running { self.end } else { self.end + GRACE };
            if running {
                wake = wake.min(self.replace_failed(now));
            }
            match self.poll.poll(&mut events, Some(wake.saturating_duration_since(now))) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("cannot wait for the connections"),
            }
            for event in events.iter() {
                self.advance(event.token().0);
            }
        }
        self.report.finish(start.elapsed());
        for _ in 0..self.busy {
            let detail = "no complete response when the run was over";
            self.report.failure(Failure::new(FailureKind::Unfinished, detail));
        }
        Ok(())
    }

    /// Fills the slots whose pause is over. Returns when the next one is due.
    fn replace_failed(&mut self, now: Instant) -> Instant {
        while let Some(&(due, slot)) = self.replacements.front() {
            if due > now {
                return due;
            }
            self.replacements.pop_front();
            self.connect(slot);
        }
        self.end
    }

    fn connect(&mut self, slot: usize) {
        match Connection::open(self.arguments.url.address, self.poll.registry(), Token(slot)) {
            Ok(connection) => {
                self.slots[slot] = Some(connection);
                self.busy += 1;
            }
            Err(error) => self.fail(slot, Failure::new(FailureKind::Connect, error.to_string())),
        }
    }

    fn fail(&mut self, slot: usize, failure: Failure) {
        self.report.failure(failure);
        self.replacements.push_back((Instant::now() + REPLACEMENT_DELAY, slot));
    }

    fn disconnect(&mut self, slot: usize) {
        if self.slots[slot].take().is_some() {
            self.busy -= 1;
        }
    }

    fn advance(&mut self, slot: usize) {
        loop {
            // An event may be left over from the connection that had this slot before.
            let Some(connection) = self.slots[slot].as_mut() else {
                return;
            };
            match connection.advance(&self.request, &mut self.buffer) {
                Step::Wait => return,
                Step::Failed(failure) => {
                    self.disconnect(slot);
                    self.fail(slot, failure);
                    return;
                }
                Step::Done(response, latency) => {
                    self.report.response(response, latency);
                    let running = Instant::now() < self.end;
                    if running && response.keep_alive && !self.arguments.no_keepalive {
                        connection.begin_request();
                        continue;
                    }
                    self.disconnect(slot);
                    if running {
                        self.connect(slot);
                    }
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};

    use clap::Parser;

    use super::*;
    use crate::thread_per_connection::serve_on_loopback;

    fn arguments(address: SocketAddr, no_keepalive: bool) -> Arguments {
        Arguments {
            url: format!("http://{address}/").parse().unwrap(),
            connections: 2,
            duration: Duration::from_millis(50),
            no_keepalive,
            json: None,
        }
    }

    /// A server of `bodies` in turn on each connection; it ends with the process.
    fn serve(bodies: &'static [&'static str], close: bool) -> SocketAddr {
        serve_on_loopback(move |mut stream| {
            let mut buffer = [0; 1024];
            for body in bodies.iter().cycle() {
                // Requests are far smaller than a segment, so each comes in one piece.
                if !matches!(stream.read(&mut buffer), Ok(count) if count > 0) {
                    return;
                }
                let connection = if close { "close" } else { "keep-alive" };
                let length = body.len();
                let text =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n{body}");
                if stream.write_all(text.as_bytes()).is_err() || close {
                    return;
                }
            }
        })
    }

    fn json_of(arguments: &Arguments) -> serde_json::Value {
        let mut load = Load::new(arguments).unwrap();
        load.run().unwrap();
        load.report.json()
    }

    #[test]
    fn equal_responses_pass_with_and_without_keep_alive() {
        for close in [false, true] {
            let arguments = arguments(serve(&["hello"], close), close);
            let mut load = Load::new(&arguments).unwrap();
            load.run().unwrap();
            assert!(load.report.passed(), "{}", load.report);
            assert_eq!(load.report.json()["body_length"], 5);
        }
    }

    #[test]
    fn a_body_that_changes_is_an_error() {
        let json = json_of(&arguments(serve(&["hello", "hullo"], false), false));
        assert!(json["errors"]["body_content"].as_u64().unwrap() > 0, "{json}");
        let json = json_of(&arguments(serve(&["hello", "hell"], false), false));
        assert!(json["errors"]["body_length"].as_u64().unwrap() > 0, "{json}");
    }

    #[test]
    fn a_server_that_refuses_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let json = json_of(&arguments(address, false));
        assert!(json["errors"]["connect"].as_u64().unwrap() > 0, "{json}");
        assert_eq!(json["requests"], 0);
    }

    #[test]
    fn durations_have_a_limit() {
        let is_accepted = |text| {
            let line = [
                "tidegate-bench",
                "load",
                "--url",
                "http://127.0.0.1:80/",
                "--duration",
                text,
            ];
            crate::Arguments::try_parse_from(line).is_ok()
        };
        assert!(is_accepted("60s"));
        for text in ["61s", "0s", "x", ""] {
            assert!(!is_accepted(text), "{text}");
        }
    }
}
