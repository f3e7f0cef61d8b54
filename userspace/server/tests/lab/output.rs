//! Standard output and standard error that nobody reads: the server serves on and obeys.

use std::fs::File;
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::fixture::client::curl_to;
use crate::fixture::data::directory;
use crate::fixture::server::{Server, default_arguments, serve_command};
use crate::fixture::{Lab, SERVER_V4, start, url};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// A pipe with no room left.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let set = |flags| {
        fcntl(writer.as_fd(), FcntlArg::F_SETFL(flags)).expect("flags of a pipe");
    };
    set(OFlag::O_NONBLOCK);
    let full = loop {
        if let Err(error) = (&writer).write_all(&[b'.'; 4096]) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    set(OFlag::empty());
    (reader, writer)
}

/// A server whose output goes where the test says. Dropping it kills it.
struct UnreadServer(Child);

impl Drop for UnreadServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl UnreadServer {
    fn start(extra: &[&str], stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Self {
        let arguments = default_arguments(extra);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command: Command = serve_command(&arguments);
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let server = Self(command.spawn().expect("the server starts"));
        server.wait_until_it_answers();
        server
    }

    fn wait_until_it_answers(&self) {
        let scratch = directory();
        let deadline = Instant::now() + LIMIT;
        loop {
            let fetched = start(curl_to(&url(SERVER_V4, "/"), &scratch.path().join("page"))).wait(LIMIT);
            if fetched.is_ok_and(|finished| finished.status.success()) {
                return;
            }
            assert!(Instant::now() < deadline, "it does not serve");
            std::thread::sleep(POLL);
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).expect("a process id fits pid_t");
        kill(Pid::from_raw(pid), signal).expect("a signal to a child");
    }

    /// Its end, which must come.
    fn wait_for_end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.0.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(POLL);
        }
    }
}

/// Takes the link down and up, which shards log, and expects the server to answer, and to stop.
fn expect_traffic_and_stop(lab: &Lab, mut server: UnreadServer) {
    lab.set_server_link(false);
    std::thread::sleep(POLL);
    lab.set_server_link(true);
    server.wait_until_it_answers();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_for_end().code(), Some(0));
    assert!(!lab.xdp_attached());
}

#[test]
fn output_into_full_pipes_holds_up_neither_traffic_nor_the_stop() {
    let Some(lab) = Lab::up(1) else { return };
    let (_stdout, full_stdout) = full_pipe();
    let (_stderr, full_stderr) = full_pipe();
    // With -v and rates, there is more to say all the time than pipes would take.
    let server = UnreadServer::start(&["-v", "--stats-interval", "100ms"], full_stdout, full_stderr);
    for _ in 0..50 {
        server.signal(Signal::SIGUSR1);
        std::thread::sleep(POLL);
    }
    expect_traffic_and_stop(&lab, server);
}

#[test]
fn readers_that_go_away_end_nothing() {
    let Some(lab) = Lab::up(1) else { return };
    let (stdout, closed_stdout) = std::io::pipe().expect("a pipe");
    let (stderr, closed_stderr) = std::io::pipe().expect("a pipe");
    drop((stdout, stderr));
    let server = UnreadServer::start(&["-v"], closed_stdout, closed_stderr);
    server.signal(Signal::SIGUSR1);
    expect_traffic_and_stop(&lab, server);
}

#[test]
fn a_pipe_that_is_read_late_has_what_fitted_whole_and_the_counters_say_what_did_not() {
    let Some(_lab) = Lab::up(1) else { return };
    let (mut stdout, writer) = std::io::pipe().expect("a pipe");
    let mut server = UnreadServer::start(&[], writer, File::create("/dev/null").expect("the null device"));
    // More reports than may wait.
    for _ in 0..300 {
        server.signal(Signal::SIGUSR1);
        std::thread::sleep(POLL);
    }
    let mut beginning = vec![0; 1 << 16];
    stdout.read_exact(&mut beginning).expect("what was printed");
    server.signal(Signal::SIGTERM);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).expect("what was printed");
    assert_eq!(server.wait_for_end().code(), Some(0));
    let text = String::from_utf8([beginning, rest].concat()).expect("text");
    let reports = text.matches("output_lost ").count();
    assert!(reports < 300, "all {reports} reports were kept");
    let last = text.lines().last().expect("lines");
    assert!(last.starts_with("output_lost ") && last != "output_lost 0", "{last}");
    // Texts are lost whole: each report that begins ends.
    assert_eq!(text.matches("\nxdp_redirect{queue=\"0\"} ").count(), reports);
}

#[test]
fn a_storm_of_sigusr1_does_not_hold_up_the_stop() {
    let Some(lab) = Lab::up(1) else { return };
    let server = Server::start(&lab, &[]);
    let pid = Pid::from_raw(i32::try_from(server.pid()).expect("a process id fits pid_t"));
    for _ in 0..20_000 {
        kill(pid, Signal::SIGUSR1).expect("a signal to a child");
    }
    server.stop();
}
