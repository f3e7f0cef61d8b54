//! The privileges of a serving server, looked at from outside, and its service without them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use tidegate_random::Random;

use crate::fixture::client::{connect_echo, curl_to};
use crate::fixture::data::{directory, sha256, write_file};
use crate::fixture::server::{Server, default_arguments, serve_command};
use crate::fixture::{Lab, Place, SERVER_V4, in_namespace, run, url};

const LIMIT: Duration = Duration::from_secs(30);
const CAP_DAC_READ_SEARCH: u64 = 1 << 2;
const CAP_NET_ADMIN: u64 = 1 << 12;

/// A thread's lines of `/proc/PID/task/TID/status`, by name.
type Status = BTreeMap<String, String>;

/// The threads of process `pid`, by name.
fn threads(pid: u32) -> Vec<(String, Status)> {
    let read = |path| fs::read_to_string(path).expect("a thread");
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .expect("threads")
        .map(|thread| {
            let thread = thread.expect("a thread").path();
            let status = read(thread.join("status"));
            let lines = status.lines().filter_map(|line| line.split_once(":\t"));
            let lines = lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            (read(thread.join("comm")).trim().to_owned(), lines)
        });
    threads.collect()
}

fn capabilities(status: &Status, set: &str) -> u64 {
    u64::from_str_radix(&status[set], 16).expect("a set")
}

/// Fetches a file and compares it, has something echoed, and reads the counters.
fn expect_service(server: &Server<'_>, scratch: &std::path::Path, expected: &str) {
    let received = scratch.join("received");
    run(curl_to(&url(SERVER_V4, "/file"), &received), LIMIT).expect_success();
    assert_eq!(sha256(&fs::read(&received).expect("a file")), expected);
    let mut stream = in_namespace(Place::Client, || connect_echo(SERVER_V4));
    stream.write_all(b"text").expect("room");
    stream.read_exact(&mut [0; 4]).expect("an echo");
    assert!(server.counters().sum("tcp_passive_opens") >= 2);
}

#[test]
fn threads_keep_what_serving_takes_and_go_on_serving() {
    let Some(lab) = Lab::up(2) else { return };
    let scratch = directory();
    fs::create_dir(scratch.path().join("www")).expect("a folder");
    let expected = write_file(&mut Random::new(17), &scratch.path().join("www/file"), 300_000);
    // Its owner's alone.
    fs::set_permissions(scratch.path().join("www"), fs::Permissions::from_mode(0o700)).expect("a mode");
    let root = scratch.path().join("www").to_string_lossy().into_owned();
    let control = scratch.path().join("control").to_string_lossy().into_owned();
    let server = Server::start(&lab, &["--root", &root, "--control", &control, "--next-hop", "kernel"]);
    expect_service(&server, scratch.path(), &expected);
    let mut ctl = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    ctl.args(["ctl", "--control", &control, "info"]);
    run(ctl, LIMIT).expect_success();

    let threads = threads(server.pid());
    let names: Vec<&str> = threads.iter().map(|(name, _)| name.as_str()).collect();
    for name in [
        "tidegate",
        "shard-0",
        "shard-1",
        "signals",
        "control",
        "next-hops",
        "stdout",
        "jemalloc_bg_thd",
    ] {
        assert!(names.contains(&name), "no thread {name} among {names:?}");
    }
    for (name, status) in &threads {
        let most = if is_helper(name) {
            0
        } else {
            CAP_NET_ADMIN | CAP_DAC_READ_SEARCH
        };
        for set in ["CapEff", "CapPrm", "CapAmb", "CapInh"] {
            let has = capabilities(status, set);
            assert_eq!(has & !most, 0, "{name} has {set} {has:x}");
        }
        assert_eq!(
            (status["Seccomp"].as_str(), status["NoNewPrivs"].as_str()),
            ("2", "1"),
            "{name}"
        );
    }
    assert_eq!(server.logged("out of reach"), 0, "{}", server.describe());
    server.stop();
    assert!(!scratch.path().join("control").exists(), "the socket is left");
}

/// Whether the thread of this name needs no capability.
fn is_helper(name: &str) -> bool {
    matches!(
        name,
        "signals" | "control" | "stdout" | "stderr" | "admin" | "access-log"
    )
}

#[test]
fn a_user_without_any_privilege_serves() {
    let Some(lab) = Lab::up(1) else { return };
    let scratch = directory();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let expected = write_file(&mut Random::new(18), &scratch.path().join("file"), 300_000);
    let config = scratch.path().join("tidegate.toml");
    let log = scratch.path().join("access.log").to_string_lossy().into_owned();
    fs::write(
        &config,
        format!("admin = \"127.0.0.1:9464\"\n[privileges]\nuser = \"nobody\"\n[access_log]\npath = \"{log}\"\n"),
    )
    .expect("a file");
    let (root, config) = (scratch.path().to_string_lossy(), config.to_string_lossy());
    // In a folder that is root's alone to write to.
    let control = format!("{root}/control");
    let arguments = default_arguments(&["--root", &root, "--config", &config, "--control", &control]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = Server::run(&lab, serve_command(&arguments));
    expect_service(&server, scratch.path(), &expected);
    for (name, status) in threads(server.pid()) {
        assert_eq!(status["Uid"], "65534\t65534\t65534\t65534", "{name}");
        assert_eq!(status["Groups"].trim(), "", "{name}");
        let most = if is_helper(&name) { 0 } else { CAP_NET_ADMIN };
        assert_eq!(capabilities(&status, "CapPrm") & !most, 0, "{name}");
    }
    assert_eq!(server.logged("cannot give"), 0, "{}", server.describe());
    server.stop();
}
