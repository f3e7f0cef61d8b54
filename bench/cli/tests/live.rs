//! The live view on a terminal of 80 columns and 24 lines, and the course of a run in its results.
#![allow(missing_docs)]

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tidegate_lab::{Drawn, Terminal};
use tidegate_load::thread_per_connection::serve_on_loopback;

const LIMIT: Duration = Duration::from_secs(60);

/// A server that answers each request on connections that stay open; it ends with the process.
fn server() -> SocketAddr {
    serve_on_loopback(|mut stream| {
        let mut buffer = [0; 4096];
        while matches!(stream.read(&mut buffer), Ok(1..)) {
            let response = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
            if stream.write_all(response).is_err() {
                return;
            }
        }
    })
}

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-bench"));
    let url = format!("http://{}/", server());
    command.arg(arguments[0]).args(["--url", &url, "--connections", "4"]);
    command.args(&arguments[1..]).env("TERM", "xterm");
    command
}

/// A run that draws on a terminal.
fn start(arguments: &[&str]) -> Terminal {
    let mut command = bench(arguments);
    // It is not the terminal that the test was started from, if there is one.
    command.args(["--live", "always"]);
    Terminal::start(command, Drawn::StandardError, LIMIT).expect("the program starts")
}

fn json(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).expect("a file")).expect("JSON")
}

/// The sum of a field over the seconds of a phase.
fn sum(json: &Value, phase: &str, field: &str) -> u64 {
    let series = json["series"].as_array().expect("an array");
    let seconds = series.iter().filter(|second| second["phase"] == phase);
    seconds.map(|second| second[field].as_u64().expect("a number")).sum()
}

#[test]
fn a_run_is_shown_and_has_its_course_in_json_and_page() {
    let directory = tempfile::tempdir().expect("a directory");
    let [results, page] = ["json", "html"].map(|name| directory.path().join(name));
    let [results_name, page_name] = [&results, &page].map(|path| path.to_str().expect("UTF-8"));
    let mut terminal = start(&[
        "rps",
        "--ramp",
        "1s",
        "--warm-up",
        "500ms",
        "--duration",
        "4s",
        "--json",
        results_name,
        "--html",
        page_name,
    ]);
    for text in ["tidegate-bench", "Latency/us", "errors", "Ctrl-C"] {
        terminal.wait_for(text).unwrap();
    }
    assert!(terminal.is_raw().unwrap());
    let (code, text) = terminal.end().unwrap();
    assert_eq!(code, Some(0), "{text}");
    for phrase in [
        "ramp       1 s, not counted",
        "open       4 connections at most, 4 at the end",
    ] {
        assert!(text.contains(phrase), "{phrase}: {text}");
    }

    let json = json(&results);
    assert!(sum(&json, "ramp", "operations") > 0 && sum(&json, "warm-up", "operations") > 0);
    assert_eq!(
        sum(&json, "sustain", "operations"),
        json["operations"].as_u64().unwrap()
    );
    let sustain: Vec<&Value> = json["series"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|second| second["phase"] == "sustain")
        .collect();
    assert!((2..=5).contains(&sustain.len()), "{json}");
    // The client's memory is that of its first second.
    let memory: Vec<u64> = sustain
        .iter()
        .filter_map(|second| second["client_resident_bytes"].as_u64())
        .collect();
    let growth = memory[memory.len() - 1].saturating_sub(memory[0]);
    assert!(memory[0] > 1_000_000 && growth < 2_000_000, "{memory:?}");
    let page = fs::read_to_string(page).expect("a page");
    for title in [
        "Operations per second",
        "Latency of each second",
        "established each second",
    ] {
        assert!(page.contains(title), "{title}");
    }
}

#[test]
fn a_run_is_ended_by_key_and_by_signal_with_what_was_measured() {
    type Act = fn(&mut Terminal);
    let ways: [(&str, Act); 3] = [
        ("q", |terminal| terminal.press(b"q").unwrap()),
        ("Ctrl-C", |terminal| terminal.press(b"\x03").unwrap()),
        ("SIGTERM", |terminal| terminal.signal(Signal::SIGTERM).unwrap()),
    ];
    for (way, act) in ways {
        let mut terminal = start(&["latency", "--rate", "200", "--warm-up", "0s", "--duration", "10m"]);
        // A second of requests has passed when it has its bar in the graph. Of the names of phases only what differs
        // from the last one is drawn.
        terminal.wait_for("█").unwrap();
        act(&mut terminal);
        let (code, text) = terminal.end().unwrap();
        assert_eq!(code, Some(1), "{way}: {text}");
        assert!(text.contains("cut short: 600 s were asked for"), "{way}: {text}");
        assert!(
            text.contains("errors     none") && text.contains("latency    p50 "),
            "{way}: {text}"
        );
    }
}

#[test]
fn without_a_terminal_there_is_no_view_and_a_signal_ends_the_run_all_the_same() {
    let mut child = bench(&["rps", "--duration", "10m", "--warm-up", "0s"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // It handles signals before the first connection; until then a signal ends it at once.
    let status = format!("/proc/{}/status", child.id());
    let deadline = Instant::now() + LIMIT;
    while !handles_sigint(&fs::read_to_string(&status).expect("a process")) {
        assert!(Instant::now() < deadline, "it handles no signal");
        thread::sleep(Duration::from_millis(10));
    }
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).expect("a process");
    let (mut results, mut said) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut results).expect("text");
    child.stderr.take().unwrap().read_to_string(&mut said).expect("text");
    assert_eq!(child.wait().expect("a child").code(), Some(1), "{said}");
    assert!(results.contains("cut short"), "{results}");
    assert_eq!(said, "");

    let output = bench(&["rps", "--live", "always"])
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--live always needs a terminal"));
}

/// Whether `/proc/PID/status` says so.
fn handles_sigint(status: &str) -> bool {
    let caught = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .expect("a mask");
    let mask = u64::from_str_radix(caught.trim(), 16).expect("hexadecimal");
    mask & (1 << (Signal::SIGINT as u64 - 1)) != 0
}

#[test]
fn the_profile_of_rfc_9411_judges_its_criteria_and_says_that_it_was_shortened() {
    let directory = tempfile::tempdir().expect("a directory");
    let results = directory.path().join("json");
    let output = bench(&[
        "cps",
        "--close",
        "server",
        "--profile",
        "rfc9411",
        "--ramp",
        "500ms",
        "--duration",
        "1s",
    ])
    .arg("--json")
    .arg(&results)
    .stdin(Stdio::null())
    .output()
    .expect("the program runs");
    let text = String::from_utf8_lossy(&output.stdout);
    // The server of this test does not close, so no connection is complete.
    assert_eq!(output.status.code(), Some(1), "{text}");
    for phrase in ["section 7.2", "not the RFC's phases: sustain took 1 s", "fail: not met"] {
        assert!(text.contains(phrase), "{phrase}: {text}");
    }
    let json = json(&results);
    assert_eq!(json["profile"]["verdict"], "not met", "{json}");
    assert_eq!(json["profile"]["criteria"].as_array().map(Vec::len), Some(4), "{json}");
    assert_eq!(json["series"][0]["phase"], "initial", "{json}");
    assert_eq!(sum(&json, "initial", "connects"), 0);
}
