//! `tidegate ctl top` on a terminal: however it ends, the terminal is as it was before.
#![allow(missing_docs)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use tidegate_lab::{Drawn, Terminal};

const LIMIT: Duration = Duration::from_secs(20);

const INFO: &str = r#"{"ok":{"version":"0.1.0","pid":7,"interfaces":["eth1"],"state":"serving"}}"#;
const TOP: &str = concat!(
    r#"{"ok":{"counters":[{"name":"tcp_connections","total":3,"queues":[1,2]}],"latencies_us":{},"#,
    r#""states":{"ESTABLISHED":3},"complete":true,"peers":[]}}"#
);

/// Answers one client as a server does, until `ended`, or the client leaves.
fn serve(listener: &UnixListener, ended: &Receiver<()>) {
    let (stream, _) = listener.accept().expect("a client");
    let mut lines = BufReader::new(&stream);
    let mut request = String::new();
    for (command, reply) in [("info", INFO), ("top", TOP)] {
        request.clear();
        lines.read_line(&mut request).expect("a request");
        assert!(request.contains(command), "{request}");
        writeln!(&stream, "{reply}").expect("a reader");
    }
    while ended.recv_timeout(Duration::from_millis(50)) == Err(mpsc::RecvTimeoutError::Timeout) {
        if writeln!(&stream, "{TOP}").is_err() {
            return;
        }
    }
}

fn start(path: &Path) -> Terminal {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["ctl", "--control"]).arg(path);
    command.args(["top", "--interval", "100ms"]);
    Terminal::start(command, Drawn::StandardOutput, LIMIT).expect("the program starts")
}

#[test]
fn the_terminal_is_given_back_however_it_ends() {
    type Act = fn(&mut Terminal, &mpsc::Sender<()>);
    let ways: [(&str, Act, i32, &str); 4] = [
        ("q", |terminal, _| terminal.press(b"q").unwrap(), 0, ""),
        ("Ctrl-C", |terminal, _| terminal.press(b"\x03").unwrap(), 0, ""),
        (
            "SIGTERM",
            |terminal, _| terminal.signal(Signal::SIGTERM).unwrap(),
            0,
            "",
        ),
        ("the server goes", |_, ended| ended.send(()).unwrap(), 1, "the server"),
    ];
    for (way, act, code, phrase) in ways {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control");
        let listener = UnixListener::bind(&path).expect("a socket");
        let (ended, is_ended) = mpsc::channel();
        let server = thread::spawn(move || serve(&listener, &is_ended));
        let mut terminal = start(&path);
        terminal.wait_for("ESTABLISHED").unwrap();
        assert!(terminal.is_raw().unwrap(), "{way}");
        act(&mut terminal, &ended);
        let (found, said) = terminal.end().unwrap_or_else(|error| panic!("{way}: {error:#}"));
        assert_eq!(found, Some(code), "{way}: {said}");
        assert!(
            said.contains(phrase) && said.is_empty() == phrase.is_empty(),
            "{way}: {said}"
        );
        drop(ended);
        server.join().expect("the client keeps to the protocol");
    }
}

#[test]
fn without_a_terminal_it_says_what_to_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("control");
    let _listener = UnixListener::bind(&path).expect("a socket");
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["ctl", "--control"])
        .arg(&path)
        .arg("top")
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("counters --watch"), "{said}");
}
