//! The live view on a terminal of 80 columns and 24 lines, and the course of a run in its results.
#![allow(missing_docs)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use serde_json::Value;
use tidegate_load::thread_per_connection::serve_on_loopback;

const LIMIT: Duration = Duration::from_secs(60);

/// The sequences that have a terminal leave the second screen, and show its cursor.
const LEAVE: &str = "\u{1b}[?1049l";
const SHOW_CURSOR: &str = "\u{1b}[?25h";

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

/// A run whose standard input and standard error are a terminal.
struct Session {
    child: Child,
    keyboard: File,
    terminal: OwnedFd,
    screen: Receiver<Vec<u8>>,
    shown: String,
}

impl Session {
    fn start(arguments: &[&str]) -> Self {
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let OpenptyResult { master, slave } = openpty(&size, None).expect("a terminal");
        let end = || Stdio::from(slave.try_clone().expect("a descriptor"));
        let child = bench(arguments)
            // It is not the terminal that the test was started from, if there is one.
            .args(["--live", "always"])
            .stdin(end())
            .stderr(end())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let keyboard = File::from(master);
        let mut output = keyboard.try_clone().expect("a descriptor");
        let (shown, screen) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // When the terminal is gone, reading fails.
            while let Ok(count) = output.read(&mut buffer) {
                if shown.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            keyboard,
            terminal: slave,
            screen,
            shown: String::new(),
        }
    }

    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.shown.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            let bytes = self.screen.recv_timeout(left);
            let bytes = bytes.unwrap_or_else(|_| panic!("no {text:?} in {:?}", self.shown));
            self.shown += &String::from_utf8_lossy(&bytes);
        }
    }

    fn is_raw(&self) -> bool {
        let flags = tcgetattr(&self.terminal).expect("a terminal").local_flags;
        !flags.contains(LocalFlags::ICANON | LocalFlags::ECHO)
    }

    /// Waits for the end, after which the terminal is as it was. Returns the exit code and the results.
    fn end(mut self) -> (Option<i32>, String) {
        self.wait_for(LEAVE);
        self.wait_for(SHOW_CURSOR);
        let mut results = String::new();
        let mut stdout = self.child.stdout.take().expect("it is piped");
        stdout.read_to_string(&mut results).expect("text");
        let status = self.child.wait().expect("a child");
        assert!(!self.is_raw(), "the terminal is not as it was");
        (status.code(), results)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It has ended, unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
    let mut session = Session::start(&[
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
    for text in ["tidegate-bench", "Latency/us", "ramp", "sustain", "errors", "Ctrl-C"] {
        session.wait_for(text);
    }
    assert!(session.is_raw());
    let (code, text) = session.end();
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
    type Act = fn(&mut Session);
    let ways: [(&str, Act); 3] = [
        ("q", |session| session.keyboard.write_all(b"q").unwrap()),
        ("Ctrl-C", |session| session.keyboard.write_all(b"\x03").unwrap()),
        ("SIGTERM", |session| {
            kill(Pid::from_raw(session.child.id().cast_signed()), Signal::SIGTERM).unwrap()
        }),
    ];
    for (way, act) in ways {
        let mut session = Session::start(&["latency", "--rate", "200", "--warm-up", "0s", "--duration", "10m"]);
        session.wait_for("sustain");
        // A second has passed when it has its bar in the graph.
        session.wait_for("█");
        act(&mut session);
        let (code, text) = session.end();
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
    // It handles signals as soon as there are connections; before, the signal ends it at once.
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
