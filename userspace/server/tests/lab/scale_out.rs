//! Three servers with one address, behind a router's next-hop groups and behind a balancer: one is killed, comes back,
//! and another is drained, while clients go on.

use std::fs;
use std::io::{self, BufReader, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use tidegate_random::Random;

use crate::fixture::balancer::{self, Balancer};
use crate::fixture::client::{ClientTcp, read_response};
use crate::fixture::counters::{PASSIVE_OPENS, SYN_COOKIES_SENT};
use crate::fixture::data::directory;
use crate::fixture::server::{Server, bench_binary};
use crate::fixture::{
    DISCARD_PORT, HTTP_PORT, Lab, Place, Process, SCALE_OUT, SCALE_OUT_SERVERS, report, socket, start,
};

/// The service addresses.
const SERVICE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 19, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0x100, 0, 0, 0, 1)),
];

/// Frames that lost their outer headers.
const DECAPSULATED: &str = "xdp_decapsulated";

/// Clients that keep their connection, of each family.
const KEPT: usize = 12;

/// The pause between their requests, well below the idle time of the group's buckets.
const PAUSE: Duration = Duration::from_millis(20);

/// The time from a server's death until it is known.
const DETECTION: Duration = Duration::from_millis(300);

/// The time in which all buckets but those of the clients that keep their connections have become idle and moved.
const IDLE: Duration = Duration::from_secs(3);

const CONNECT_LIMIT: Duration = Duration::from_secs(20);
const READ_LIMIT: Duration = Duration::from_secs(20);
const LOAD_LIMIT: Duration = Duration::from_secs(60);

/// The servers, by number from 1, and whatever spreads connections over them.
struct Site<'lab> {
    lab: &'lab Lab,
    servers: [Option<Server<'lab>>; 3],
    /// `None`: the router's next-hop groups.
    balancer: Option<Balancer>,
    files: TempDir,
}

impl<'lab> Site<'lab> {
    fn start(lab: &'lab Lab, balanced: bool) -> Self {
        let files = directory();
        let key: String = Random::new(16)
            .bytes(16)
            .iter()
            .map(|octet| format!("{octet:02x}"))
            .collect();
        let key_file = files.path().join("key");
        fs::write(&key_file, key).expect("writing the cookies' secret");
        fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its mode");
        let mut site = Self {
            lab,
            servers: [None, None, None],
            balancer: balanced.then(|| Balancer::start(&[1, 2, 3])),
            files,
        };
        for number in 1..=3 {
            site.start_server(number);
        }
        site
    }

    /// Starts server `number`, which says who it is.
    fn start_server(&mut self, number: usize) {
        let root = self.files.path().join(number.to_string());
        fs::create_dir_all(&root).expect("a directory");
        fs::write(root.join("who"), number.to_string()).expect("writing a file");
        fs::write(root.join("same"), [b'x'; 500]).expect("writing a file");
        let config = root.join("tidegate.toml");
        let balancers = self.balancer.as_ref().map(|_| balancer::configuration(number));
        fs::write(&config, balancers.unwrap_or_default()).expect("writing the configuration");
        let mut command = SCALE_OUT_SERVERS[number - 1].command(Place::Server, env!("CARGO_BIN_EXE_tidegate"));
        // With cookies for every SYN, a handshake may begin at one server and end at another.
        command.args(["serve", "--iface", "tgs0", "--syn-cookies", "always"]);
        command.arg("--cookie-key-file").arg(self.files.path().join("key"));
        command.arg("--root").arg(root).arg("--config").arg(config);
        for address in SERVICE {
            for (service, port) in [("http", HTTP_PORT), ("discard", DISCARD_PORT)] {
                let address = SocketAddr::new(address, port);
                command.arg("--listen").arg(format!("{service}={address}"));
            }
        }
        self.servers[number - 1] = Some(Server::run(self.lab, command));
    }

    fn server(&self, number: usize) -> &Server<'lab> {
        self.servers[number - 1].as_ref().expect("it runs")
    }

    fn take(&mut self, number: usize) -> Server<'lab> {
        self.servers[number - 1].take().expect("it runs")
    }

    /// Has the router, or the balancer, do as `scripts/scale-out.sh` says of `what`.
    fn tell(&self, what: &str, number: usize) {
        match (&self.balancer, what) {
            (None, _) => self.lab.script(&[what, &number.to_string()]),
            (Some(balancer), "add") => balancer.add(number),
            (Some(balancer), "drain") => balancer.drain(number),
            (Some(balancer), _) => balancer.remove(number),
        }
    }

    /// Begins connections from the client for `seconds`, each with a request.
    fn load(&self, seconds: u32) -> Process {
        let url = format!("http://{}/same", SocketAddr::new(SERVICE[0], HTTP_PORT));
        let mut command = SCALE_OUT.command(Place::Client, bench_binary());
        command.args([
            "cps",
            "--url",
            &url,
            "--connections",
            "2",
            "--close",
            "server",
            "--verify",
        ]);
        command.args(["--warm-up", "100ms", "--duration", &format!("{seconds}s")]);
        command.arg("--json").arg(self.files.path().join("load.json"));
        start(command)
    }

    /// The operations of a load that is over, and its errors by kind.
    fn loaded(&self, load: Process) -> (u64, serde_json::Map<String, serde_json::Value>) {
        let finished = load.wait(LOAD_LIMIT).unwrap_or_else(|problem| panic!("{problem:#}"));
        let text = fs::read_to_string(self.files.path().join("load.json"))
            .unwrap_or_else(|error| panic!("{error}: {}", finished.describe()));
        let results: serde_json::Value = serde_json::from_str(&text).expect("the results are JSON");
        let operations = results["operations"].as_u64().unwrap_or_default();
        assert!(operations > 100, "{text}");
        (operations, results["errors"].as_object().cloned().unwrap_or_default())
    }
}

/// A client that keeps its connection.
struct Kept {
    address: IpAddr,
    stream: TcpStream,
    /// The server it is connected to.
    server: usize,
}

impl Kept {
    fn connect(address: IpAddr) -> io::Result<Self> {
        let stream = socket::connect(SocketAddr::new(address, HTTP_PORT), CONNECT_LIMIT)?;
        stream.set_read_timeout(Some(READ_LIMIT))?;
        stream.set_nodelay(true)?;
        let server = who(&stream)?;
        Ok(Self {
            address,
            stream,
            server,
        })
    }

    /// Whether the server has ended the connection, as a client asks before it uses one again.
    fn is_ended(&self) -> io::Result<bool> {
        self.stream.set_nonblocking(true)?;
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false)?;
        match peeked {
            Ok(length) => Ok(length == 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Asks the server at the other end for its number.
fn who(mut stream: &TcpStream) -> io::Result<usize> {
    write!(stream, "GET /who HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    let (status, body) = read_response(&mut BufReader::new(stream))?;
    let number = String::from_utf8_lossy(&body).parse();
    match (status, number) {
        (200, Ok(number)) => Ok(number),
        _ => Err(io::Error::new(
            ErrorKind::InvalidData,
            format!("status {status}: {body:?}"),
        )),
    }
}

/// The ends of kept connections, by server.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ends {
    /// By FIN, between two requests.
    closed: [usize; 3],
    /// By RST.
    reset: [usize; 3],
}

/// All clients make requests while `change` is made and for as long as `load` runs, and connect anew where their
/// connections end. Nothing may end otherwise than by FIN or RST.
fn go_on_during(kept: &mut [Kept], load: &mut Process, change: impl FnOnce() + Send) -> Ends {
    thread::scope(|scope| {
        let changed = scope.spawn(change);
        let is_over = move || changed.is_finished() && load.ended().expect("it can be asked").is_some();
        SCALE_OUT
            .inside(Place::Client, || Ok(go_on_until(kept, is_over)))
            .expect("the client's namespace is there")
    })
}

fn go_on_until(kept: &mut [Kept], mut is_over: impl FnMut() -> bool) -> Ends {
    let mut ends = Ends::default();
    while !is_over() {
        for client in kept.iter_mut() {
            let index = client.server - 1;
            match client.is_ended() {
                Ok(false) => match who(&client.stream) {
                    Ok(server) => {
                        assert_eq!(server, client.server, "a connection moved");
                        continue;
                    }
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => ends.reset[index] += 1,
                    // The server's FIN came after the look and before the answer to the request.
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => ends.closed[index] += 1,
                    Err(error) => panic!("a request to server {}: {error}", client.server),
                },
                Ok(true) => ends.closed[index] += 1,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => ends.reset[index] += 1,
                Err(error) => panic!("a connection to server {}: {error}", client.server),
            }
            *client = loop {
                // Until the server's death is known, its kernel refuses.
                match Kept::connect(client.address) {
                    Ok(client) => break client,
                    Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset) => {
                        thread::sleep(PAUSE);
                    }
                    Err(error) => panic!("connecting anew: {error}"),
                }
            };
        }
        thread::sleep(PAUSE);
    }
    ends
}

/// The number of clients on each server.
fn spread(kept: &[Kept]) -> [usize; 3] {
    [1, 2, 3].map(|server| kept.iter().filter(|client| client.server == server).count())
}

/// One of three is killed while clients go on: those of its connections that are used end by RST, and no others.
fn kill_one(site: &mut Site<'_>, kept: &mut [Kept]) {
    let before = spread(kept);
    let mut load = site.load(2);
    let killed = site.take(1);
    let ends = go_on_during(kept, &mut load, || {
        thread::sleep(DETECTION);
        killed.kill();
        thread::sleep(DETECTION);
        site.tell("remove", 1);
    });
    // One that was connecting when it was killed comes on top.
    assert!(ends.reset[0] >= before[0], "{ends:?} of {before:?}");
    assert_eq!((ends.closed, &ends.reset[1..]), ([0; 3], &[0, 0][..]), "of {before:?}");
    let (operations, errors) = site.loaded(load);
    // What was under way, and what began before its death was known.
    assert!(
        errors.keys().all(|kind| matches!(kind.as_str(), "refused" | "reset")),
        "{errors:?}"
    );
    assert_eq!(spread(kept)[0], 0);
    report(format_args!(
        "killed: {operations} connections, errors {errors:?}, kept ones {ends:?}"
    ));
}

/// The killed one comes back, and another is drained: nothing fails.
fn add_one_and_drain_another(site: &mut Site<'_>, kept: &mut [Kept], seconds: u32) {
    site.start_server(1);
    let before = spread(kept);
    let mut load = site.load(seconds);
    let ends = go_on_during(kept, &mut load, || {
        site.tell("add", 1);
        site.tell("drain", 2);
        if site.balancer.is_none() {
            thread::sleep(IDLE);
        }
        site.server(2).drain();
        site.tell("remove", 2);
        site.take(2).stop();
    });
    // A request that crosses the FIN of an idle connection is answered by RST, and made again.
    assert_eq!(ends.closed[1] + ends.reset[1], before[1], "{ends:?} of {before:?}");
    assert!(ends.closed[1] >= ends.reset[1], "{ends:?} of {before:?}");
    for server in [0, 2] {
        assert_eq!(
            (ends.closed[server], ends.reset[server]),
            (0, 0),
            "{ends:?} of {before:?}"
        );
    }
    let (operations, errors) = site.loaded(load);
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(spread(kept)[1], 0);
    let opened = site.server(1).counters().sum(PASSIVE_OPENS);
    assert!(opened > 0, "the added server was given nothing");
    report(format_args!(
        "added and drained: {operations} connections, {opened} of the added one, kept ones {ends:?}"
    ));
}

fn three_servers(balanced: bool, seconds: u32) {
    let Some(lab) = Lab::up_scale_out(balanced) else { return };
    let mut site = Site::start(&lab, balanced);
    let connect = || {
        let addresses = (0..KEPT).flat_map(|_| SERVICE);
        let kept: io::Result<Vec<Kept>> = addresses.map(Kept::connect).collect();
        kept.expect("all are served")
    };
    let mut kept = SCALE_OUT
        .inside(Place::Client, || Ok(connect()))
        .expect("the client's namespace is there");
    assert!(spread(&kept).iter().all(|&clients| clients > 0), "{:?}", spread(&kept));
    kill_one(&mut site, &mut kept);
    add_one_and_drain_another(&mut site, &mut kept, seconds);
    drop(kept);
    // Full segments from the client, which have to leave room for outer headers.
    let data = Random::new(17).bytes(200_000);
    SCALE_OUT
        .inside(Place::Client, || {
            for address in [SERVICE, SERVICE].concat() {
                ClientTcp::default().upload(address, &data).expect("an upload");
            }
            Ok(())
        })
        .expect("the client's namespace is there");
    for number in [1, 3] {
        let counters = site.take(number).stop();
        assert!(counters.sum(SYN_COOKIES_SENT) > 0, "server {number}");
        assert_eq!(counters.sum(DECAPSULATED) > 0, balanced, "server {number}");
    }
    site.balancer.take().into_iter().for_each(Balancer::stop);
}

#[test]
fn behind_next_hop_groups_only_the_connections_of_a_killed_server_end() {
    three_servers(false, 7);
}

#[test]
fn behind_a_balancer_only_the_connections_of_a_killed_server_end() {
    three_servers(true, 3);
}
