//! The lab: two network namespaces joined by a veth pair, or by two with a third namespace in the
//! middle (`scripts/lab.sh`), and the guard that takes it down again.
#![allow(
    dead_code,
    reason = "every test file compiles this module and uses its own part of it"
)]

pub(crate) mod client;
pub(crate) mod counters;
pub(crate) mod data;
pub(crate) mod link;
pub(crate) mod process;
pub(crate) mod server;

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sched::{CloneFlags, setns};
use nix::unistd::geteuid;

use self::process::{Running, run};

/// The server's IPv4 address.
pub(crate) const SERVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1));

/// The server's IPv6 address.
pub(crate) const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1));

/// Both addresses of the server, for what has to hold in either family.
pub(crate) const BOTH_FAMILIES: [IpAddr; 2] = [SERVER_V4, SERVER_V6];

/// The server's end of the veth pair.
pub(crate) const SERVER_DEVICE: &str = "tgs0";

/// Port of the HTTP listeners.
pub(crate) const HTTP_PORT: u16 = 80;

/// Port of the echo listeners.
pub(crate) const ECHO_PORT: u16 = 7;

/// Port of the discard listeners.
pub(crate) const DISCARD_PORT: u16 = 9;

/// Passed to the script as TIDEGATE_LAB. The tests have a lab of their own: taking one down ends
/// everything in its namespaces, and somebody may be working in the default one.
const LAB_NAME: &str = "tg-test";

/// Long, since the script builds the client's XDP program where it is missing.
const SCRIPT_LIMIT: Duration = Duration::from_secs(180);
const LOCK_FILE: &str = "/tmp/tidegate-lab.lock";

static TURN: Mutex<()> = Mutex::new(());

/// One side of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    Server,
    Client,
    /// Only in a lab from [`Lab::up_middle`].
    Middle,
}

impl Namespace {
    /// The name `ip netns` knows it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Server => "tg-test-server",
            Self::Client => "tg-test-client",
            Self::Middle => "tg-test-middle",
        }
    }

    /// Whether the namespace exists now.
    pub(crate) fn exists(self) -> bool {
        self.path().exists()
    }

    /// `program`, to be run in the namespace. `ip netns exec` replaces itself by the program, so
    /// the child's process id is the program's.
    pub(crate) fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.name()]).arg(program);
        command
    }

    fn path(self) -> PathBuf {
        Path::new("/run/netns").join(self.name())
    }
}

/// Runs `work` on a thread of its own inside `namespace`. Sockets it makes stay in that namespace
/// for life, and so do threads it starts.
pub(crate) fn in_namespace<T: Send>(namespace: Namespace, work: impl FnOnce() -> T + Send) -> T {
    let outcome = std::thread::scope(|scope| {
        scope
            .spawn(move || {
                let path = namespace.path();
                let file = File::open(&path).unwrap_or_else(|error| panic!("opening {}: {error}", path.display()));
                setns(&file, CloneFlags::CLONE_NEWNET)
                    .unwrap_or_else(|error| panic!("entering {}: {error}", path.display()));
                work()
            })
            .join()
    });
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Prints what a test measured, past the test harness's capture.
pub(crate) fn report(text: impl Display) {
    // A closed stderr must not fail a test.
    let _ = writeln!(std::io::stderr().lock(), "lab: {text}");
}

/// URL of `path` (which begins with `/`) on the server's HTTP listener at `address`.
pub(crate) fn url(address: IpAddr, path: &str) -> String {
    format!("http://{}{path}", SocketAddr::new(address, HTTP_PORT))
}

/// A lab that is up. Dropping it takes it down, also while a panic unwinds.
pub(crate) struct Lab {
    // Fields are dropped after `Drop::drop`: others may start only when the lab is gone.
    _across_processes: Flock<File>,
    _across_threads: MutexGuard<'static, ()>,
}

impl Lab {
    /// Brings the lab up with `queues` queues on each end, waiting for its turn. `None`, announced,
    /// without root.
    pub(crate) fn up(queues: u32) -> Option<Self> {
        Self::bring_up(&["up", "--queues", &queues.to_string()])
    }

    /// As [`Lab::up`], with a namespace in the middle. Nothing passes it until a [`link::Link`] does.
    pub(crate) fn up_middle(queues: u32) -> Option<Self> {
        Self::bring_up(&["up", "--middle", "--queues", &queues.to_string()])
    }

    fn bring_up(script_arguments: &[&str]) -> Option<Self> {
        if !geteuid().is_root() {
            report("SKIPPED: needs root (network namespaces and XDP); run the tests as root");
            return None;
        }
        let across_threads = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let lab = Self {
            _across_processes: lock_across_processes(),
            _across_threads: across_threads,
        };
        // What an interrupted run left behind may be of another kind.
        lab.script(&["down"]);
        lab.script(script_arguments);
        Some(lab)
    }

    /// Runs `scripts/lab.sh` with `arguments`, which must succeed.
    pub(crate) fn script(&self, arguments: &[&str]) {
        run(script_command(arguments), SCRIPT_LIMIT).expect_success();
    }

    /// Switches XPS at the client on or off: flows then leave by the queue of the sending CPU.
    pub(crate) fn xps(&self, on: bool) {
        self.script(&["xps", if on { "on" } else { "off" }]);
    }

    /// Sets a kernel variable in `namespace`, for example `net.ipv4.tcp_sack`.
    pub(crate) fn sysctl(&self, namespace: Namespace, variable: &str, value: &str) {
        let mut command = namespace.command("sysctl");
        command.args(["-q", "-w", &format!("{variable}={value}")]);
        run(command, SCRIPT_LIMIT).expect_success();
    }

    /// Sets the server's device administratively up or down.
    pub(crate) fn set_server_link(&self, up: bool) {
        let mut command = Command::new("ip");
        command.args(["-n", Namespace::Server.name(), "link", "set", "dev", SERVER_DEVICE]);
        command.arg(if up { "up" } else { "down" });
        run(command, SCRIPT_LIMIT).expect_success();
    }

    /// Whether an XDP program is attached to the server's device, in any mode.
    pub(crate) fn xdp_attached(&self) -> bool {
        let mut command = Command::new("ip");
        command.args(["-d", "-n", Namespace::Server.name(), "link", "show"]);
        command.args(["dev", SERVER_DEVICE]);
        let shown = run(command, SCRIPT_LIMIT).expect_success();
        shown.stdout.contains("xdp")
    }

    /// TCP segments the kernel of the server's namespace has received, over both families.
    pub(crate) fn kernel_tcp_segments_in(&self) -> u64 {
        // The file belongs to the network namespace of the thread that reads it.
        let path = "/proc/thread-self/net/snmp";
        let snmp = in_namespace(Namespace::Server, || std::fs::read_to_string(path))
            .unwrap_or_else(|error| panic!("reading {path}: {error}"));
        snmp_value(&snmp, "Tcp:", "InSegs").unwrap_or_else(|| panic!("{path} has no Tcp InSegs:\n{snmp}"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let outcome = Running::try_start(script_command(&["down"])).and_then(|script| script.wait(SCRIPT_LIMIT));
        let problem = match outcome {
            Ok(finished) if finished.status.success() => return,
            Ok(finished) => finished.describe(),
            Err(problem) => problem,
        };
        // A second panic during unwinding would abort the tests and hide the first.
        if std::thread::panicking() {
            report(format_args!("the lab could not be taken down: {problem}"));
        } else {
            panic!("the lab could not be taken down: {problem}");
        }
    }
}

fn script_command(arguments: &[&str]) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/lab.sh");
    let mut command = Command::new(script);
    command.env("TIDEGATE_LAB", LAB_NAME).args(arguments);
    command
}

fn lock_across_processes() -> Flock<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(LOCK_FILE)
        .unwrap_or_else(|error| panic!("opening {LOCK_FILE}: {error}"));
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((file, _)) => {
            report(format_args!("waiting for the tests that hold {LOCK_FILE}"));
            Flock::lock(file, FlockArg::LockExclusive)
                .unwrap_or_else(|(_, error)| panic!("locking {LOCK_FILE}: {error}"))
        }
    }
}

/// The value of `field` in /proc/net/snmp, where a protocol has a line of names and one of values.
pub(crate) fn snmp_value(snmp: &str, protocol: &str, field: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with(protocol));
    let names = lines.next()?;
    let values = lines.next()?;
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .find(|(name, _)| *name == field)
        .and_then(|(_, value)| value.parse().ok())
}
