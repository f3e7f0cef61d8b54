//! `tidegate ctl top` on a terminal: however it ends, the terminal is as it was before.
#![allow(missing_docs)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(20);

/// The sequences that have a terminal leave the second screen, and show its cursor.
const LEAVE: &str = "\u{1b}[?1049l";
const SHOW_CURSOR: &str = "\u{1b}[?25h";

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

/// `top` on a terminal of 80 columns and 24 lines.
struct Session {
    child: Child,
    keyboard: File,
    terminal: OwnedFd,
    screen: Receiver<Vec<u8>>,
    shown: String,
}

impl Session {
    fn start(path: &Path) -> Self {
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let OpenptyResult { master, slave } = openpty(&size, None).expect("a terminal");
        let end = || Stdio::from(slave.try_clone().expect("a descriptor"));
        let child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["ctl", "--control"])
            .arg(path)
            .args(["top", "--interval", "100ms"])
            .env("TERM", "xterm")
            .stdin(end())
            .stdout(end())
            .stderr(Stdio::piped())
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

    /// Waits for the end, after which the terminal is as it was. Returns the exit code and what was said.
    fn end(mut self) -> (Option<i32>, String) {
        self.wait_for(LEAVE);
        self.wait_for(SHOW_CURSOR);
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(10));
        };
        assert!(!self.is_raw(), "the terminal is not as it was");
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().expect("it is piped");
        stderr.read_to_string(&mut said).expect("text");
        (status.code(), said)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It has ended, unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_terminal_is_given_back_however_it_ends() {
    type Act = fn(&mut Session, &mpsc::Sender<()>);
    let ways: [(&str, Act, i32, &str); 4] = [
        ("q", |session, _| session.keyboard.write_all(b"q").unwrap(), 0, ""),
        (
            "Ctrl-C",
            |session, _| session.keyboard.write_all(b"\x03").unwrap(),
            0,
            "",
        ),
        (
            "SIGTERM",
            |session, _| kill(Pid::from_raw(session.child.id().cast_signed()), Signal::SIGTERM).unwrap(),
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
        let mut session = Session::start(&path);
        session.wait_for("ESTABLISHED");
        assert!(session.is_raw(), "{way}");
        act(&mut session, &ended);
        let (found, said) = session.end();
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
