//! The agent: makes measurements that another machine asks for.

use std::io::{Read, Seek, SeekFrom};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::Parser;
use ipnet::IpNet;
use tidegate_report::format::printable;

use super::protocol::{Connection, Finished, Reply, Request, Token};
use crate::measure::Job;

/// Between two signs of life while something is measured.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// Octets of what a measurement says on standard error that are told, at most.
const MAX_ERRORS: u64 = 4 * 1024;

/// The longest delay before a measurement.
const MAX_DELAY: Duration = Duration::from_secs(10);

/// Addresses that lead nowhere on the Internet: those for benchmarks (RFC 2544, RFC 5180), as for floods. Loopback is
/// not among them, because services there may trust whoever reaches them.
const RANGES: [&str; 2] = ["198.18.0.0/15", "2001:2::/48"];

/// Options that are about the machine of the agent, which only its own arguments may have: its interfaces, the
/// addresses it takes, where its frames go, its processes and its processors.
const OF_MACHINE: [&str; 5] = ["--iface", "--sources", "--target-mac", "--server-pid", "--cpu"];

/// Arguments of `tidegate-bench agent`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The address and port to be asked at. The connection is not encrypted, and the agent does not prove who it is:
    /// outside of a network of your own, listen on 127.0.0.1 and let ssh forward the port.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// The file with the token that those who ask must have, 16 to 1,024 octets.
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// Targets to measure besides those of 198.18.0.0/15 and 2001:2::/48, such as 10.0.0.0/24 or 127.0.0.0/8; may be
    /// given several times.
    #[arg(long, value_name = "PREFIX")]
    allow: Vec<IpNet>,
    /// End after the first measurement that was begun.
    #[arg(long)]
    once: bool,
    /// Arguments to add to those of every measurement: what this machine needs, such as `--client bypass --iface eth1
    /// --sources 198.19.1.0/24`. --iface, --sources, --target-mac, --server-pid and --cpu can be given here only.
    #[arg(last = true, value_name = "ARGUMENT")]
    own: Vec<String>,
}

/// Serves one asker after the other. True when `--once` is over.
///
/// # Errors
///
/// The token cannot be read, or the address not be listened on.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let token = Token::read(&arguments.token_file)?;
    let listener = TcpListener::bind(arguments.listen)
        .with_context(|| format!("cannot listen on {}, given by --listen", arguments.listen))?;
    let address = listener.local_addr().context("the listening socket has no address")?;
    println!("listening on {address}\nready");
    tidegate_output::finish().context("cannot write to standard output")?;
    loop {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                // A connection that was given up again, or a lack of descriptors that passes.
                eprintln!("tidegate-bench: cannot accept a connection: {error}");
                thread::sleep(HEARTBEAT);
                continue;
            }
        };
        let mut is_begun = false;
        match serve(stream, &token, arguments, &mut is_begun) {
            Ok(()) => println!("{peer}: measured"),
            // In one line, whatever the peer has sent.
            Err(error) => println!("{peer}: {}", printable(&format!("{error:#}")).replace('\n', "\\n")),
        }
        tidegate_output::finish().context("cannot write to standard output")?;
        if arguments.once && is_begun {
            return Ok(true);
        }
    }
}

/// Makes one measurement, and says in `is_begun` whether it was begun.
fn serve(stream: TcpStream, token: &Token, arguments: &Arguments, is_begun: &mut bool) -> anyhow::Result<()> {
    let mut connection = Connection::greet(stream, token)?;
    let Request::Prepare(asked) = connection.receive()? else {
        bail!("it asks for the start of nothing");
    };
    let job = [&asked[..], &arguments.own].concat();
    if let Err(reason) = check_asked(&asked).and_then(|()| check(&job, &arguments.allow)) {
        connection.send(&Reply::Refused {
            reason: reason.clone(),
            is_usage: true,
        })?;
        return Err(anyhow!(reason));
    }
    let received = Instant::now();
    connection.send(&Reply::Ready)?;
    // The others may take longer to get ready.
    let Request::Start(delay) = connection.receive()? else {
        bail!("it asks for two measurements at a time");
    };
    let delay = Duration::from_micros(delay).min(MAX_DELAY);
    thread::sleep(delay);
    println!(
        "begins {:.3} s after it was asked: {job:?}",
        received.elapsed().as_secs_f64()
    );
    tidegate_output::finish().context("cannot write to standard output")?;
    let finished = match measure(&job, &mut connection, is_begun) {
        Ok(finished) => finished,
        Err(error) => {
            let reason = format!("{error:#}");
            // Nobody may be there any more.
            let _ = connection.send(&Reply::Refused {
                reason,
                is_usage: false,
            });
            return Err(error);
        }
    };
    connection.send(&Reply::Finished(finished))
}

/// Returns why what was asked for is refused, whatever the agent's own arguments are.
fn check_asked(asked: &[String]) -> Result<(), String> {
    check_no_file(asked)?;
    let is = |argument: &str, name: &str| {
        let rest = argument.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    let name = OF_MACHINE
        .into_iter()
        .find(|name| asked.iter().any(|argument| is(argument, name)));
    match name {
        None => Ok(()),
        Some(name) => Err(format!(
            "{name} is about the agent's machine; give it to the agent, behind `--`"
        )),
    }
}

/// Returns why these arguments are refused: no measurement, files on this machine, a target that is not allowed, or
/// arguments that do not go together.
fn check(job: &[String], allowed: &[IpNet]) -> Result<(), String> {
    let job = Job::try_parse_from(job).map_err(|error| format!("wrong arguments: {}", error.to_string().trim_end()))?;
    job.check_remote()?;
    let target = job.target()?;
    let ranges = RANGES
        .iter()
        .map(|range| range.parse::<IpNet>().expect("the ranges are constants"));
    if !ranges
        .chain(allowed.iter().copied())
        .any(|range| range.contains(&canonical(target)))
    {
        return Err(format!(
            "this agent measures no target at {target}, but those in 198.18.0.0/15 (RFC 2544), 2001:2::/48 (RFC 5180), \
             and what it is given by --allow"
        ));
    }
    job.check().map_err(|error| format!("{error:#}"))
}

/// Checks that no file of this machine is to be sent, before any is read.
fn check_no_file(job: &[String]) -> Result<(), String> {
    let values = job.iter().zip(job.iter().skip(1).map(Some).chain([None]));
    let is_file = |(argument, next): (&String, Option<&String>)| match argument.strip_prefix("--body") {
        Some("") => next.is_some_and(|value| value.starts_with('@')),
        Some(rest) => rest.starts_with("=@"),
        None => false,
    };
    if values.into_iter().any(is_file) {
        return Err("an agent sends no files of its machine; give --body the text itself".to_owned());
    }
    Ok(())
}

/// Returns the IPv4 address in an IPv6 one that stands for it.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// A process that is ended when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended by itself, if all is well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the measurement in a process of its own, and shows that it goes on. `is_begun` is set when that is started.
fn measure(job: &[String], connection: &mut Connection, is_begun: &mut bool) -> anyhow::Result<Finished> {
    let directory = tempfile::tempdir().context("cannot make a directory for the results")?;
    let path = |name: &str| directory.path().join(name);
    let (report, log, errors) = (path("report"), path("log"), path("errors"));
    let standard_error = std::fs::File::create(&errors).context("cannot make a file for errors")?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let child = Command::new(program)
        .args(job)
        .arg("--json")
        .arg(&report)
        .arg("--log")
        .arg(&log)
        // It ends with this process, whatever ends that.
        .arg("--end-with-input")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(standard_error)
        .spawn()
        .context("cannot start the measurement")?;
    *is_begun = true;
    let mut running = Running(child);
    let status = loop {
        if let Some(status) = running.0.try_wait().context("cannot wait for the measurement")? {
            break status;
        }
        connection.send(&Reply::Running).context("the measurement was ended")?;
        thread::sleep(HEARTBEAT);
    };
    let read = |file: &Path| std::fs::read_to_string(file).ok().filter(|text| !text.is_empty());
    Ok(Finished {
        code: status.code(),
        report: read(&report),
        log: read(&log),
        errors: last_of(&errors).unwrap_or_default(),
    })
}

/// Returns the last octets of a file as text.
fn last_of(file: &Path) -> anyhow::Result<String> {
    let mut file = std::fs::File::open(file)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_ERRORS)))?;
    let mut octets = Vec::new();
    file.take(MAX_ERRORS).read_to_end(&mut octets)?;
    Ok(String::from_utf8_lossy(&octets).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(job: &[&str], allowed: &[&str]) -> Result<(), String> {
        let job: Vec<String> = job.iter().map(|&argument| argument.to_owned()).collect();
        let allowed: Vec<IpNet> = allowed.iter().map(|prefix| prefix.parse().unwrap()).collect();
        check_asked(&job).and_then(|()| check(&job, &allowed))
    }

    #[test]
    fn targets_are_those_of_benchmarks_and_what_the_agent_allows() {
        for target in ["198.18.0.1:80", "198.19.255.255", "[2001:2::1]:80"] {
            let url = format!("http://{target}/");
            assert_eq!(checked(&["rps", "--url", &url], &[]), Ok(()), "{target}");
        }
        for target in [
            "192.0.2.1",
            "198.20.0.1",
            "[2001:db8::1]",
            "[::ffff:192.0.2.1]",
            "127.0.0.1:8080",
            "[::1]",
            "[::ffff:127.0.0.1]",
        ] {
            let url = format!("http://{target}/");
            let error = checked(&["cps", "--url", &url], &[]).unwrap_err();
            assert!(error.contains("no target at") && error.contains("--allow"), "{error}");
            let allowed = [
                "192.0.2.0/24",
                "198.20.0.0/16",
                "2001:db8::/32",
                "127.0.0.0/8",
                "::1/128",
            ];
            assert_eq!(checked(&["cps", "--url", &url], &allowed), Ok(()), "{target}");
        }
    }

    #[test]
    fn only_measurements_without_files_are_made() {
        const URL: [&str; 2] = ["--url", "http://198.18.0.1/"];
        for (command, arguments, phrase) in [
            ("rps", &["--json", "/etc/passwd"][..], "writes no files"),
            ("rps", &["--html=x"], "writes no files"),
            ("cps", &["--csv", "x"], "writes no files"),
            ("cps", &["--markdown", "x"], "writes no files"),
            ("hold", &["--log", "x"], "writes no files"),
            ("latency", &["--rate", "1", "--hgrm", "x"], "writes no files"),
            (
                "throughput",
                &["--direction", "up", "--agents", "a:1", "--token-file", "t"],
                "no other agents",
            ),
            ("rps", &["--body", "@/etc/passwd"], "no files"),
            ("cps", &["--body=@/etc/passwd"], "no files"),
            ("flood", &["--target", "198.18.0.1:80"], "wrong arguments"),
            ("serve-kernel", &[], "wrong arguments"),
            ("rps", &["--pipeline", "65"], "wrong arguments"),
            // Found before it begins, and not by the measurement.
            ("rps", &["--msl", "1s"], "add --client bypass"),
            ("rps", &["--client", "bypass"], "needs --iface"),
            ("latency", &["--rate", "1", "--seed", "1"], "--arrival poisson"),
            ("cps", &["--arrival", "poisson"], "add --rate"),
        ] {
            let error = checked(&[&[command], &URL[..], arguments].concat(), &[]).unwrap_err();
            assert!(error.contains(phrase), "{command} {arguments:?}: {error}");
        }
        assert_eq!(checked(&[&["rps"], &URL[..], &["--body", "a@b"]].concat(), &[]), Ok(()));
        for option in ["--iface", "--sources", "--target-mac", "--server-pid", "--cpu"] {
            for arguments in [&[option, "1"][..], &[&format!("{option}=1")]] {
                let error = checked(&[&["rps"], &URL[..], arguments].concat(), &[]).unwrap_err();
                assert!(error.contains(option) && error.contains("behind `--`"), "{error}");
            }
        }
        // The agent's own arguments may have them.
        let own: Vec<String> = [
            "rps", URL[0], URL[1], "--client", "bypass", "--iface", "eth1", "--cpu", "1",
        ]
        .map(str::to_owned)
        .to_vec();
        assert_eq!(check(&own, &[]), Ok(()));
        // It could have another address once it is loaded.
        let error = checked(&["rps", "--url", "http://localhost/"], &[]).unwrap_err();
        assert!(error.contains("resolves no names"), "{error}");
        assert!(checked(&[], &[]).is_err());
        assert!(checked(&["rps"], &[]).unwrap_err().contains("--url"));
    }
}
