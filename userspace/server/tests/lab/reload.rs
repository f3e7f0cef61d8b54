//! Another configuration for a server that serves, and its access log.

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use tidegate_random::Random;

use crate::fixture::client::{connect, curl, curl_to, read_response, round_trip};
use crate::fixture::counters::PASSIVE_OPENS;
use crate::fixture::data::{directory, sha256_of_file, write_file};
use crate::fixture::server::{Server, bench_binary, serve_command};
use crate::fixture::{
    ECHO_PORT, Finished, HTTP_PORT, Lab, Place, SERVER_DEVICE, SERVER_V4, SERVER_V6, command, in_namespace, report,
    run, socket, start, url,
};

const LIMIT: Duration = Duration::from_secs(10);

/// The time after which a SYN was not answered.
const NO_ANSWER: Duration = Duration::from_millis(300);

/// The port of the listener that comes.
const NEW_PORT: u16 = 77;

/// A server with a configuration file and a control socket.
struct Site<'lab> {
    server: Server<'lab>,
    directory: tempfile::TempDir,
}

impl<'lab> Site<'lab> {
    fn start(lab: &'lab Lab, config: &str) -> Self {
        Self::start_by(lab, config, |_| {})
    }

    /// The same with a command that `change` has changed.
    fn start_by(lab: &'lab Lab, config: &str, change: impl FnOnce(&mut Command)) -> Self {
        let directory = directory();
        for root in ["a", "b"] {
            fs::create_dir(directory.path().join(root)).unwrap();
            fs::write(directory.path().join(root).join("name"), root).unwrap();
        }
        let site = |file: &str| directory.path().join(file);
        fs::write(site("t.toml"), Self::text(&directory, config)).unwrap();
        let mut command = serve_command(&["--iface", SERVER_DEVICE, "--config"]);
        command.arg(site("t.toml")).arg("--control").arg(site("control"));
        change(&mut command);
        Self {
            server: Server::run(lab, command),
            directory,
        }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// The configuration file with `config`, in which DIR is the directory.
    fn text(directory: &tempfile::TempDir, config: &str) -> String {
        config.replace("DIR", directory.path().to_str().unwrap())
    }

    fn ctl(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command
            .arg("ctl")
            .arg("--control")
            .arg(self.path("control"))
            .args(arguments);
        run(command, LIMIT)
    }

    /// The total of a counter.
    fn counter(&self, name: &str) -> u64 {
        let finished = self.ctl(&["counters", "--json"]).expect_success();
        let all: Value = serde_json::from_str(&finished.stdout).unwrap();
        let counters = all["counters"].as_array().unwrap();
        let found = counters.iter().find(|counter| counter["name"] == name);
        found
            .and_then(|counter| counter["total"].as_u64())
            .unwrap_or_else(|| panic!("no counter {name}"))
    }

    fn write(&self, config: &str) {
        fs::write(self.path("t.toml"), Self::text(&self.directory, config)).unwrap();
    }

    fn reload(&self, config: &str) {
        self.write(config);
        self.ctl(&["reload"]).expect_success();
    }

    /// Reloads what cannot be, and returns the error.
    fn refused(&self, config: &str) -> String {
        self.write(config);
        let finished = self.ctl(&["reload"]);
        assert_eq!(finished.status.code(), Some(1), "{}", finished.describe());
        finished.stderr
    }
}

/// The name of the root that is served.
fn root_served(stream: &TcpStream) -> String {
    (&*stream)
        .write_all(b"GET /name HTTP/1.1\r\nHost: lab\r\n\r\n")
        .unwrap();
    let (status, body) = read_response(&mut BufReader::new(stream)).unwrap();
    assert_eq!(status, 200);
    String::from_utf8(body).unwrap()
}

fn try_connect(address: SocketAddr) -> io::Result<TcpStream> {
    in_namespace(Place::Client, || socket::connect(address, NO_ANSWER))
}

fn echoes(stream: &TcpStream) {
    (&*stream).write_all(b"still here\n").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    assert_eq!(line, "still here\n");
}

const LISTEN_HTTP: &str = "\"http=198.18.0.1:80\", \"http=[2001:2::1]:80\"";

#[test]
fn no_connection_is_lost_when_listeners_root_and_limits_change_under_load() {
    const SIZE: usize = 20_000_000;
    let Some(lab) = Lab::up(2) else { return };
    let first = format!("listen = [{LISTEN_HTTP}, \"echo=198.18.0.1:7\"]\nroot = \"DIR/a\"\n");
    let site = Site::start(&lab, &first);
    let expected = write_file(&mut Random::new(17), &site.path("a/large"), SIZE);
    fs::copy(site.path("a/large"), site.path("b/large")).unwrap();

    let json = site.path("cps.json");
    let mut load = command(Place::Client, bench_binary());
    load.args([
        "cps",
        "--connections",
        "4",
        "--close",
        "server",
        "--warm-up",
        "100ms",
        "--duration",
        "3s",
        "--verify",
    ]);
    load.args(["--url", &url(SERVER_V4, "/name?load")])
        .arg("--json")
        .arg(&json);
    let received = site.path("received");
    let mut download = curl_to(&url(SERVER_V6, "/large"), &received);
    download.args(["--limit-rate", "7M"]);
    let (kept, echo) = in_namespace(Place::Client, || {
        let to = |port| connect(SocketAddr::new(SERVER_V4, port));
        (to(HTTP_PORT), to(ECHO_PORT))
    });
    assert_eq!(root_served(&kept), "a");
    let (load, download) = (start(load), start(download));

    // The name is as long in both, so the load sees the same.
    fs::write(site.path("b/name"), "a").unwrap();
    let second = format!(
        "listen = [{LISTEN_HTTP}, \"echo=198.18.0.1:{NEW_PORT}\"]\nroot = \"DIR/b\"\n[tcp]\nmsl = \"1s\"\n\
         rst_rate = 500\n[sources]\nmax_connections = 10000\n[syn_cookies]\nmode = \"never\"\n"
    );
    for _ in 0..3 {
        site.reload(&second);
        echoes(&echo);
        site.reload(&first);
    }
    site.reload(&second);
    echoes(&echo);
    fs::write(site.path("b/other"), "b").unwrap();
    assert_eq!(root_served(&kept), "a");
    run_curl("/other");

    // The one that is gone accepts nothing, and is the kernel's when its last connection is over.
    let error = try_connect(SocketAddr::new(SERVER_V4, ECHO_PORT)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    let new = in_namespace(Place::Client, || connect(SocketAddr::new(SERVER_V4, NEW_PORT)));
    assert_eq!(
        in_namespace(Place::Client, || round_trip(&new, b"new")).unwrap(),
        b"new"
    );
    drop(echo);
    let deadline = Instant::now() + LIMIT;
    while try_connect(SocketAddr::new(SERVER_V4, ECHO_PORT))
        .map_err(|error| error.kind())
        .err()
        != Some(ErrorKind::ConnectionRefused)
    {
        assert!(
            Instant::now() < deadline,
            "the kernel does not refuse connections: {}",
            site.server.describe()
        );
    }

    load.wait(LIMIT)
        .unwrap_or_else(|problem| panic!("{problem:#}"))
        .expect_success();
    let results: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    let errors = results["errors"].as_object().cloned().unwrap_or_default();
    assert!(errors.is_empty(), "{errors:?}");
    assert!(results["operations"].as_u64() > Some(100), "{results}");
    download
        .wait(LIMIT)
        .unwrap_or_else(|problem| panic!("{problem:#}"))
        .expect_success();
    assert_eq!(sha256_of_file(&received), expected);
    report(format_args!(
        "seven reloads: {} connections without an error",
        results["operations"]
    ));
    site.server.stop();
}

fn run_curl(path: &str) {
    let mut command = curl();
    command.arg(url(SERVER_V4, path));
    run(command, LIMIT).expect_success();
}

#[test]
fn what_cannot_be_is_refused_whole_with_its_place_and_sources_change() {
    let Some(lab) = Lab::up(1) else { return };
    let good = format!("listen = [{LISTEN_HTTP}]\nroot = \"DIR/a\"\n");
    let site = Site::start(&lab, &good);
    let kept = in_namespace(Place::Client, || connect(SocketAddr::new(SERVER_V4, HTTP_PORT)));
    let file = site.path("t.toml").display().to_string();
    for (config, sentence) in [
        (
            "root = \"DIR/b\"\nlisen = []\n".to_owned(),
            format!("{file}:2:1: key `lisen`: unknown field `lisen`; did you mean `listen`?"),
        ),
        (
            format!("listen = [{LISTEN_HTTP}]\nroot = \"DIR/b\"\n[afxdp]\n  frames = 8192\n"),
            format!("{file}:4:3: key `afxdp.frames`: frames cannot change while the server runs"),
        ),
        (
            "listen = [\"http=198.18.0.77:80\"]\nroot = \"DIR/b\"\n".to_owned(),
            "address 198.18.0.77 is not on interface".to_owned(),
        ),
        (
            format!("listen = [{LISTEN_HTTP}]\nroot = \"DIR/none\"\n"),
            "cannot serve files from".to_owned(),
        ),
        (
            format!("listen = [{LISTEN_HTTP}]\nroot = \"DIR/b\"\n[access_log]\npath = \"DIR/none/log\"\n"),
            "cannot open the access log".to_owned(),
        ),
    ] {
        let error = site.refused(&config);
        assert!(error.contains(&sentence), "{error}");
        assert_eq!(root_served(&kept), "a");
    }
    let v6 = SocketAddr::new(SERVER_V6, HTTP_PORT);
    drop(try_connect(v6).expect("served"));
    site.reload(&format!("{good}[sources]\ndeny = [\"2001:2::/48\"]\n"));
    assert_eq!(try_connect(v6).unwrap_err().kind(), ErrorKind::TimedOut);
    site.reload(&good);
    drop(try_connect(v6).expect("served again"));
    assert_eq!(root_served(&kept), "a");
    let counters = site.server.stop();
    assert!(counters.sum(PASSIVE_OPENS) >= 3);
}

#[test]
fn a_reload_turns_the_access_log_on_in_the_folder_for_logs_and_nowhere_else() {
    let Some(lab) = Lab::up(1) else { return };
    let (logs, other) = (directory(), directory());
    let config = format!("listen = [{LISTEN_HTTP}]\nroot = \"DIR/a\"\n");
    let site = Site::start_by(&lab, &config, |command| {
        command.env("LOGS_DIRECTORY", logs.path());
    });
    if site.server.logged("out of reach") > 0 {
        eprintln!("SKIPPED: this kernel has no Landlock, so all folders are within reach");
        return;
    }
    let logged_to = |folder: &Path| format!("{config}[access_log]\npath = \"{}/log\"\n", folder.display());
    let elsewhere = format!("listen = [{LISTEN_HTTP}]\nroot = \"{}\"\n", other.path().display());
    for (refused, place) in [
        (logged_to(other.path()), "t.toml:4:1: key `access_log.path`: "),
        (elsewhere, "t.toml:2:1: key `root`: "),
    ] {
        let error = site.refused(&refused);
        assert!(error.contains(place) && error.contains("Landlock"), "{error}");
        // The remedy.
        assert!(error.contains("restart"), "{error}");
    }
    let stream = in_namespace(Place::Client, || connect(SocketAddr::new(SERVER_V4, HTTP_PORT)));
    assert_eq!(root_served(&stream), "a");
    site.reload(&logged_to(logs.path()));
    assert_eq!(root_served(&stream), "a");
    let deadline = Instant::now() + LIMIT;
    while site.counter("access_log_written") == 0 {
        assert!(Instant::now() < deadline, "{}", site.server.describe());
    }
    site.server.stop();
    let text = fs::read_to_string(logs.path().join("log")).unwrap();
    assert!(text.contains("GET /name"), "{text}");
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
}

#[test]
fn the_access_log_has_every_request_and_goes_on_in_a_new_file_after_a_rename() {
    const REQUESTS: usize = 200;
    let Some(lab) = Lab::up(2) else { return };
    let config =
        format!("listen = [{LISTEN_HTTP}]\nroot = \"DIR/a\"\n[access_log]\npath = \"DIR/log\"\nformat = \"json\"\n");
    let site = Site::start(&lab, &config);
    let request_all = |agent: &str| {
        in_namespace(Place::Client, || {
            for _ in 0..REQUESTS / 10 {
                let stream = connect(SocketAddr::new(SERVER_V4, HTTP_PORT));
                for path in 0..10 {
                    let request = format!("GET /name?{path} HTTP/1.1\r\nHost: lab\r\nUser-Agent: {agent}\r\n\r\n");
                    (&stream).write_all(request.as_bytes()).unwrap();
                    let (status, _) = read_response(&mut BufReader::new(&stream)).unwrap();
                    assert_eq!(status, 200);
                }
            }
        });
    };
    let wait_for = |count: usize| {
        let deadline = Instant::now() + LIMIT;
        while site.counter("access_log_written") < count as u64 {
            assert!(Instant::now() < deadline, "{}", site.server.describe());
        }
    };
    request_all("first\\\"é");
    wait_for(REQUESTS);
    fs::rename(site.path("log"), site.path("log.1")).unwrap();
    site.server.signal(Signal::SIGUSR2);
    let deadline = Instant::now() + LIMIT;
    while !site.path("log").exists() {
        assert!(Instant::now() < deadline, "it is not opened anew");
    }
    request_all("second");
    wait_for(2 * REQUESTS);
    site.reload(&config.replace("json", "combined").replace("DIR/log", "DIR/log.2"));
    request_all("third");
    wait_for(3 * REQUESTS);
    assert_eq!(site.counter("http_requests"), 3 * REQUESTS as u64);
    assert_eq!(site.counter("access_log_lost_queue_full"), 0);
    assert_eq!(site.counter("access_log_reopened"), 1);
    site.server.stop();
    for (file, agent) in [("log.1", "first\\\"é"), ("log", "second")] {
        let text = fs::read_to_string(site.directory.path().join(file)).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect();
        assert_eq!(lines.len(), REQUESTS, "{file}");
        for line in &lines {
            assert_eq!(
                (&line["http_user_agent"], &line["status"]),
                (&agent.into(), &200.into()),
                "{line}"
            );
            assert_eq!(line["body_bytes_sent"], 1, "{line}");
        }
        assert!(lines.iter().any(|line| line["connection_requests"] == 10));
    }
    let text = fs::read_to_string(site.directory.path().join("log.2")).unwrap();
    assert_eq!(
        text.lines()
            .filter(|line| line.ends_with("HTTP/1.1\" 200 1 \"-\" \"third\""))
            .count(),
        REQUESTS
    );
}
