//! The control socket of a server that serves: what it tells of connections is what their peers tell, and what it is
//! told is done.

use std::collections::BTreeMap;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::thread::Uid;
use rustix::thread::set_thread_res_uid;
use serde_json::Value;

use crate::fixture::client::{ClientTcp, Head, round_trip};
use crate::fixture::data::directory;
use crate::fixture::server::Server;
use crate::fixture::{
    BOTH_FAMILIES, ECHO_PORT, Finished, HTTP_PORT, Lab, Place, SERVER_V4, command, in_namespace, run,
};

const LIMIT: Duration = Duration::from_secs(10);

/// A user with no rights to anything.
const NOBODY: u32 = 65_534;

/// A server with a control socket.
struct Steered<'lab> {
    server: Server<'lab>,
    directory: tempfile::TempDir,
}

impl<'lab> Steered<'lab> {
    fn start(lab: &'lab Lab) -> Self {
        let directory = directory();
        let path = directory.path().join("control");
        let server = Server::start(lab, &["--control", path.to_str().unwrap()]);
        Self { server, directory }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("control")
    }

    fn ctl(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.arg("ctl").arg("--control").arg(self.path()).args(arguments);
        run(command, LIMIT)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let finished = self.ctl(arguments).expect_success();
        serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {}", finished.stdout))
    }

    fn counter(&self, name: &str) -> u64 {
        let all = self.json(&["counters", "--json"]);
        let counters = all["counters"].as_array().unwrap().iter();
        let found = counters.clone().find(|counter| counter["name"] == name);
        found.unwrap_or_else(|| panic!("no counter {name}"))["total"]
            .as_u64()
            .unwrap()
    }

    fn wait_for_counter(&self, name: &str, value: u64) {
        let deadline = Instant::now() + LIMIT;
        while self.counter(name) != value {
            assert!(
                Instant::now() < deadline,
                "{name} is {}, not {value}",
                self.counter(name)
            );
        }
    }
}

/// A connection as both of its sides tell of it.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    /// The client's state.
    state: String,
    mss: u64,
    /// Of the server's windows and of the client's.
    wscale: (u64, u64),
    /// Octets of text that the server has received.
    to_server: u64,
    /// Octets of text of which the server knows that the client has received them.
    to_client: u64,
}

/// By the client's address and port.
type Connections = BTreeMap<SocketAddr, Told>;

/// The connections as `ctl conns` tells of them.
fn told_by_server(reply: &Value) -> Connections {
    let connections = reply["connections"].as_array().unwrap().iter();
    connections
        .map(|connection| {
            let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{connection}"));
            let (options, transfer) = (&connection["options"], &connection["transfer"]);
            let state = match connection["state"].as_str().unwrap() {
                "ESTABLISHED" => "ESTAB",
                "FIN-WAIT-2" => "CLOSE-WAIT",
                other => other,
            };
            let told = Told {
                state: state.to_owned(),
                mss: number(&options["mss"]),
                wscale: (number(&options["rcv_wscale"]), number(&options["snd_wscale"])),
                to_server: number(&transfer["bytes_received"]),
                to_client: number(&transfer["bytes_acked"]),
            };
            (connection["peer"].as_str().unwrap().parse().unwrap(), told)
        })
        .collect()
}

/// A connection as `ss -ti` tells of it in the client's namespace.
fn told_by_client() -> Connections {
    let mut ss = command(Place::Client, "ss");
    ss.args(["-tinHO"]);
    let finished = run(ss, LIMIT).expect_success();
    let tell = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let value = |name: &str| {
            let named = words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix(':'));
            named.unwrap_or("0").to_owned()
        };
        let number = |name: &str| {
            value(name)
                .parse::<u64>()
                .unwrap_or_else(|_| panic!("{name} in {line}"))
        };
        let wscale = value("wscale");
        let (server, client) = wscale.split_once(',').unwrap_or_else(|| panic!("{line}"));
        let state = words[0].to_owned();
        // The kernel counts FIN as one octet received.
        let fin = u64::from(state == "CLOSE-WAIT");
        let told = Told {
            mss: number("mss"),
            wscale: (server.parse().unwrap(), client.parse().unwrap()),
            to_server: number("bytes_sent") - number("bytes_retrans"),
            to_client: number("bytes_received") - fin,
            state,
        };
        (words[3].parse().unwrap_or_else(|_| panic!("{line}")), told)
    };
    finished.stdout.lines().map(tell).collect()
}

/// Connections in ESTABLISHED and, of the client's, in CLOSE-WAIT, of several sizes.
fn hundred_connections() -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for number in 0..90_usize {
        let client = ClientTcp {
            mss: [None, Some(536), Some(1000)][number % 3],
            ..ClientTcp::default()
        };
        let stream = client.connect(SocketAddr::new(BOTH_FAMILIES[number % 2], ECHO_PORT));
        let text = vec![b'x'; number * 1000];
        assert_eq!(round_trip(&stream, &text).unwrap(), text);
        streams.push(stream);
    }
    for number in 0..10 {
        let address = SocketAddr::new(BOTH_FAMILIES[number % 2], HTTP_PORT);
        let mut stream = ClientTcp::default().connect(address);
        write!(stream, "GET /none HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n").unwrap();
        let mut source = BufReader::new(&stream);
        Head::read(&mut source).unwrap();
        // Up to the server's FIN.
        source.read_to_end(&mut Vec::new()).unwrap();
        streams.push(stream);
    }
    streams
}

#[test]
fn a_hundred_connections_are_told_of_as_ss_does_at_their_peers_and_killed() {
    let Some(lab) = Lab::up(2) else { return };
    let steered = Steered::start(&lab);
    let mut streams = in_namespace(Place::Client, hundred_connections);

    // The last acknowledgments may be delayed.
    let deadline = Instant::now() + LIMIT;
    let (reply, server) = loop {
        let reply = steered.json(&["conns", "--json", "--limit", "200"]);
        let (server, client) = (told_by_server(&reply), told_by_client());
        if server == client {
            break (reply, server);
        }
        assert!(
            Instant::now() < deadline,
            "{:#?}",
            server
                .iter()
                .filter(|(peer, told)| client.get(peer) != Some(told))
                .map(|(peer, told)| (peer, told, client.get(peer)))
                .collect::<Vec<_>>()
        );
    };
    assert_eq!((server.len(), &reply["selected"]), (100, &100.into()));
    assert_eq!(
        reply["states"],
        serde_json::json!({"ESTABLISHED": 90, "FIN-WAIT-2": 10})
    );
    // They differ in what is compared.
    assert!(
        server
            .values()
            .map(|told| told.mss)
            .collect::<std::collections::BTreeSet<_>>()
            .len()
            >= 3
    );
    assert_eq!(server.values().map(|told| told.to_server).max(), Some(89_000));

    let sorted = steered.json(&["conns", "--sort", "bytes", "--limit", "3", "--json"]);
    let bytes = |connection: &Value| connection["transfer"]["bytes_received"].as_u64().unwrap();
    let largest: Vec<u64> = sorted["connections"].as_array().unwrap().iter().map(bytes).collect();
    assert_eq!(largest, [89_000, 88_000, 87_000]);
    let text = steered
        .ctl(&[
            "conns",
            "--state",
            "fin-wait-2",
            "--peer",
            "198.18.0.0/24",
            "--limit",
            "2",
        ])
        .expect_success();
    assert!(
        text.stdout
            .trim_end()
            .ends_with("5 connections (FIN-WAIT-2 5), 2 listed"),
        "{}",
        text.stdout
    );

    for (arguments, phrase) in [
        (&["kill"][..], "`all`"),
        (&["kill", "--state", "time-wait"], "TIME-WAIT"),
    ] {
        let refused = steered.ctl(arguments);
        assert_eq!(refused.status.code(), Some(1));
        assert!(refused.stderr.contains(phrase), "{}", refused.stderr);
    }
    let echo = SocketAddr::new(SERVER_V4, ECHO_PORT).to_string();
    let killed = steered.ctl(&["kill", "--listener", &echo]).expect_success();
    assert_eq!(killed.stdout.trim_end(), "45 connections reset");
    for (number, stream) in streams.iter_mut().enumerate() {
        let is_killed = number < 90 && number % 2 == 0;
        stream.set_nonblocking(!is_killed).unwrap();
        let error = stream.read(&mut [0]).err().map(|error| error.kind());
        assert_eq!(
            error == Some(ErrorKind::ConnectionReset),
            is_killed,
            "{number}: {error:?}"
        );
    }
    assert_eq!(
        steered.ctl(&["kill", "--all"]).expect_success().stdout.trim_end(),
        "55 connections reset"
    );
    steered.server.wait_until_no_connection();
    steered.server.stop();
}

/// Connects to the socket as another user, in a thread of its own, whose user alone it changes.
fn connect_as_nobody(path: &Path) -> io::Result<UnixStream> {
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            let nobody = Uid::from_raw(NOBODY);
            set_thread_res_uid(nobody, nobody, nobody)?;
            UnixStream::connect(path)
        });
        connecting.join().unwrap()
    })
}

#[test]
fn cookies_and_the_log_are_steered_by_their_owner_alone() {
    let Some(lab) = Lab::up(2) else { return };
    let steered = Steered::start(&lab);
    let connect = || {
        in_namespace(Place::Client, || {
            ClientTcp::default().connect(SocketAddr::new(SERVER_V4, ECHO_PORT))
        })
    };

    steered
        .ctl(&["log-level", "warn,tidegate_runtime=info"])
        .expect_success();
    steered.ctl(&["cookies", "on"]).expect_success();
    steered.wait_for_counter("syn_cookies_active", 2);
    steered.server.wait_for_log("SYN cookies on: mode always", 2);
    drop(connect());
    steered.wait_for_counter("tcp_cookie_connections", 1);
    steered.ctl(&["cookies", "off"]).expect_success();
    steered.wait_for_counter("syn_cookies_active", 0);
    drop(connect());
    steered.wait_for_counter("tcp_passive_opens", 2);
    assert_eq!(steered.counter("xdp_tx_syn_cookie"), 1);
    steered.ctl(&["cookies", "auto"]).expect_success();
    let refused = steered.ctl(&["log-level", "loud=louder"]);
    assert!(
        refused.status.code() == Some(1) && refused.stderr.contains("`loud=louder`"),
        "{}",
        refused.stderr
    );

    // The directory lets everybody in; the socket does not.
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(steered.directory.path(), open).unwrap();
    let error = connect_as_nobody(&steered.path()).expect_err("another user is let in");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    UnixStream::connect(steered.path()).expect("root is let in");
    let path = steered.path();
    steered.server.stop();
    assert!(!path.exists(), "the socket goes with the server");
}
