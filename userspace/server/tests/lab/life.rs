//! The life of the service: what its service manager is told, a shard that hangs, and one that panics.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tidegate_runtime::{Balancers, Config, Error, Listener, Settings, Sources, SynCookies};
use tidegate_tcp::application::{Application, CloseReason, Stream};

use crate::fixture::client::connect;
use crate::fixture::data::directory;
use crate::fixture::server::{Server, default_arguments, serve_command};
use crate::fixture::{HTTP_PORT, Lab, Place, SERVER_DEVICE, SERVER_V4, in_namespace};

const LIMIT: Duration = Duration::from_secs(10);

/// The service manager's side of `NOTIFY_SOCKET`.
struct Manager(UnixDatagram);

impl Manager {
    /// Returns what is told until something holds `fragment`.
    fn told(&self, fragment: &str) -> String {
        self.0.set_read_timeout(Some(LIMIT)).expect("a limit");
        let mut all = String::new();
        let mut message = [0; 4096];
        while !all.contains(fragment) {
            let length = self
                .0
                .recv(&mut message)
                .unwrap_or_else(|error| panic!("{fragment:?} is not told, but {all:?}: {error}"));
            all += std::str::from_utf8(&message[..length]).expect("text");
        }
        all
    }

    /// Returns what is told within `time`.
    fn told_within(&self, time: Duration) -> String {
        let deadline = Instant::now() + time;
        let mut all = String::new();
        let mut message = [0; 4096];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return all;
            }
            self.0.set_read_timeout(Some(left)).expect("a limit");
            if let Ok(length) = self.0.recv(&mut message) {
                all += std::str::from_utf8(&message[..length]).expect("text");
            }
        }
    }
}

/// The thread of process `pid` that is called `name`.
fn thread_called(pid: u32, name: &str) -> Pid {
    let mut threads = fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    let thread = threads.find_map(|thread| {
        let thread = thread.ok()?;
        let called = fs::read_to_string(thread.path().join("comm")).ok()?;
        (called.trim() == name).then(|| thread.file_name().to_string_lossy().parse().expect("a number"))
    });
    Pid::from_raw(thread.unwrap_or_else(|| panic!("no thread {name}")))
}

#[test]
fn the_service_manager_is_told_and_a_shard_that_hangs_is_named_and_stops_the_watchdogs_food() {
    let Some(lab) = Lab::up(2) else { return };
    let scratch = directory();
    let socket = scratch.path().join("notify");
    let manager = Manager(UnixDatagram::bind(&socket).expect("a socket"));
    let arguments = default_arguments(&[]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = serve_command(&arguments);
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "1000000");
    let server = Server::run(&lab, command);
    let told = manager.told("READY=1");
    assert!(!told.contains("WATCHDOG=1"), "fed before it is ready: {told}");
    manager.told("WATCHDOG=1");

    // One thread of the process stops; the others go on.
    let shard = thread_called(server.pid(), "shard-1");
    ptrace::seize(shard, ptrace::Options::empty()).expect("a thread to trace");
    ptrace::interrupt(shard).expect("a thread to stop");
    waitpid(shard, Some(WaitPidFlag::__WALL)).expect("it stops");
    server.wait_for_log(
        "queue 1 has failed: it did not answer within 1s; the service manager's watchdog",
        1,
    );
    manager.told("STATUS=the shard of queue 1");
    let told = manager.told_within(Duration::from_millis(1500));
    assert!(!told.contains("WATCHDOG=1"), "fed while a shard hangs: {told}");

    ptrace::detach(shard, None).expect("it goes on");
    manager.told("WATCHDOG=1");
    server.wait_for_log("every shard answers again", 1);
    server.stop();
    let told = manager.told("STOPPING=1");
    assert!(told.contains("EXTEND_TIMEOUT_USEC=35000000"), "{told}");
}

/// Gives the calling thread, and those it starts, the `/sys` of its network namespace.
fn mount_sysfs() {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).expect("mounts of its own");
    mount(Some("sys"), "/sys", Some("sysfs"), MsFlags::empty(), none).expect("a sysfs");
}

/// Panics at the word `panic`, and throws all else away.
struct Fragile;

impl Application for Fragile {
    type Connection = ();

    fn open<S: Stream>(&mut self, _: &mut S) {}

    fn receive<S: Stream>(&mut self, (): &mut (), _: &mut S, data: &[u8]) -> usize {
        assert!(data != b"panic", "told to");
        data.len()
    }

    fn end_of_stream<S: Stream>(&mut self, (): &mut (), stream: &mut S) {
        stream.close();
    }

    fn writable<S: Stream>(&mut self, (): &mut (), _: &mut S) {}

    fn timeout<S: Stream>(&mut self, (): &mut (), _: &mut S) {}

    fn drain<S: Stream>(&mut self, (): &mut (), _: &mut S) {}

    fn closed(&mut self, (): (), _: CloseReason) {}
}

#[test]
fn a_shard_that_panics_is_named_and_ends_the_service_and_the_next_start_is_clean() {
    let Some(lab) = Lab::up(2) else { return };
    let address = (SERVER_V4, HTTP_PORT).into();
    let settings = Settings {
        interfaces: &[SERVER_DEVICE.to_owned()],
        afxdp: &Config::default(),
        tcp: &tidegate_tcp::Config::default(),
        syn_cookies: &SynCookies::default(),
        sources: &Sources::default(),
        balancers: &Balancers::default(),
        listeners: &[Listener {
            address,
            keepalive: None,
            congestion: None,
        }],
        remotes: &[],
        opened: || Ok(()),
    };
    for _ in 0..2 {
        let error = in_namespace(Place::Server, || {
            mount_sysfs();
            let mut runtime = tidegate_runtime::start(&settings, |_| Fragile).expect("a start");
            let mut stream = in_namespace(Place::Client, || connect(address));
            runtime.check().expect("every shard runs");
            stream.write_all(b"panic").expect("room for a word");
            let deadline = Instant::now() + LIMIT;
            loop {
                assert!(Instant::now() < deadline, "the panic is not told of");
                if let Err(error) = runtime.check() {
                    return error;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let Error::Shard { queue, what } = &error else {
            panic!("{error}")
        };
        assert!(*queue < 2 && what == "it panicked: told to", "{error}");
        assert!(!lab.xdp_attached(), "a program is attached after a panic");
    }
}
