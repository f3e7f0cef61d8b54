//! Other XDP programs on the interface: whose they are is told, and nobody's is disturbed.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::fixture::client::curl_to;
use crate::fixture::data::directory;
use crate::fixture::server::{Server, default_arguments, serve_command};
use crate::fixture::{
    HTTP_PORT, Lab, Place, SERVER_DEVICE, SERVER_V4, command, in_namespace, ip, report, run, socket, url,
};

const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// The XDP program of the lab's client, which passes every frame.
const XDP_PASS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/ebpf/xdp-pass.o");

/// The sentence by which a server does not start.
fn refusal() -> String {
    let arguments = default_arguments(&[]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let finished = run(serve_command(&arguments), COMMAND_LIMIT);
    assert_eq!(finished.status.code(), Some(1), "{}", finished.describe());
    let sentence = finished.stderr.lines().next().unwrap_or_default().to_owned();
    report(&sentence);
    sentence
}

/// Fetches the built-in page.
fn fetch_page() {
    let scratch = directory();
    run(
        curl_to(&url(SERVER_V4, "/"), &scratch.path().join("page")),
        COMMAND_LIMIT,
    )
    .expect_success();
}

/// A BPF file system of a test's own: that at /sys/fs/bpf is another in each `ip netns exec`.
struct Bpffs(TempDir);

impl Bpffs {
    fn mount() -> Self {
        let directory = directory();
        let mut mount = Command::new("mount");
        mount.args(["-t", "bpf", "bpf"]).arg(directory.path());
        run(mount, COMMAND_LIMIT).expect_success();
        Self(directory)
    }

    /// Whether nobody has pinned anything in it.
    fn is_empty(&self) -> bool {
        ["xdp", "tidegate"].iter().all(|name| {
            let pinned = std::fs::read_dir(self.0.path().join(name));
            pinned.map_or(0, Iterator::count) == 0
        })
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn below_a_dispatcher_a_killed_server_passes_and_a_stopped_one_leaves_nothing() {
    let Some(lab) = Lab::up(1) else { return };
    let bpffs = Bpffs::mount();
    let start = |mode| {
        let arguments = default_arguments(&["--attach", "dispatcher", "--syn-cookies", "always", "--xdp-mode", mode]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = serve_command(&arguments);
        command.env("LIBXDP_BPFFS", bpffs.0.path());
        Server::try_start(&lab, command)
    };
    let server = match start("generic") {
        Ok(server) => server,
        Err(problem) => {
            assert!(problem.contains("BPF_PROG_TYPE_EXT"), "{problem}");
            assert!(
                !lab.xdp_attached() && bpffs.is_empty(),
                "a start that failed left something"
            );
            report(
                "SKIPPED: this kernel lets no program be put below another; `make test-coexistence` does it in QEMU",
            );
            return;
        }
    };
    fetch_page();
    server.kill();
    assert!(lab.xdp_attached(), "what is pinned went with the process");
    let address = SocketAddr::new(SERVER_V4, HTTP_PORT);
    let refused = in_namespace(Place::Client, || socket::connect(address, COMMAND_LIMIT));
    // By the kernel, which has no listener there: neither a cookie nor silence.
    assert_eq!(
        refused.err().map(|error| error.kind()),
        Some(ErrorKind::ConnectionRefused)
    );
    // The place of the dispatcher that was left is not kept.
    let server = start("native").unwrap_or_else(|problem| panic!("{problem}"));
    fetch_page();
    server.stop();
    assert!(
        !lab.xdp_attached() && bpffs.is_empty(),
        "a stopped server left something"
    );
}

#[test]
fn a_refusal_names_the_process_whose_program_is_there() {
    let Some(lab) = Lab::up(1) else { return };
    let server = Server::start(&lab, &[]);
    let sentence = refusal();
    let holder = format!("open in process {} \"tidegate\"", server.pid());
    for part in ["tidegate (id ", "by user 0", &holder, "it goes when that process ends"] {
        assert!(sentence.contains(part), "{part:?} is not in {sentence:?}");
    }
    fetch_page();
    server.stop();
}

#[test]
fn a_refusal_names_a_program_without_a_process_and_the_command_that_removes_it() {
    let Some(lab) = Lab::up(1) else { return };
    for keyword in ["xdpdrv", "xdpgeneric"] {
        let attach = [
            "link",
            "set",
            "dev",
            SERVER_DEVICE,
            keyword,
            "object",
            XDP_PASS,
            "section",
            "xdp",
        ];
        ip(Place::Server, &attach).expect_success();
        let sentence = refusal();
        assert!(sentence.contains("xdp_pass (id "), "{sentence:?}");
        let remedy = sentence.split('`').find(|part| part.starts_with("ip link set dev"));
        let remedy = remedy.unwrap_or_else(|| panic!("no command in {sentence:?}"));
        assert!(remedy.contains(keyword), "{remedy:?}");
        let mut words = remedy.split(' ');
        let mut command = command(Place::Server, words.next().unwrap_or_default());
        command.args(words);
        run(command, COMMAND_LIMIT).expect_success();
        let server = Server::start(&lab, &[]);
        fetch_page();
        server.stop();
    }
}
