//! The remains of a SYN flood: nothing.
//!
//! `TIDEGATE_FLOOD_SYNS` is how many SYNs are sent at least, in millions (default 1); `make flood-memory` sends 50
//! million, at a server with the default settings for SYN cookies.

use std::fs;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::fixture::counters::{
    COOKIE_CONNECTIONS, COOKIES_ACTIVE, COOKIES_TURNED_OFF, COOKIES_TURNED_ON, PASSIVE_OPENS, SYN_COOKIES_SENT,
};
use crate::fixture::data::directory;
use crate::fixture::server::{Server, bench_binary};
use crate::fixture::{BOTH_FAMILIES, HTTP_PORT, Lab, Place, SERVER_V4, command, report, run, url};

const RUN_LIMIT: Duration = Duration::from_secs(60);

/// The maximum growth of memory.
const MAX_GROWTH: u64 = 1 << 20;

/// The time half-open connections from before the cookies are kept: five SYN-ACKs more after 1, 2, 4, 8 and 16 s, and
/// then 32 s; then `off_after`.
const OFF_LIMIT: Duration = Duration::from_secs(90);

/// Sends SYNs for `seconds`, as many as go, and returns how many.
fn flood(seconds: u32) -> u64 {
    let results = directory();
    let file = results.path().join("flood.json");
    let target = SocketAddr::new(SERVER_V4, HTTP_PORT).to_string();
    let mut command = command(Place::Client, bench_binary());
    command.args(["flood", "--iface", "tgc0", "--target", &target, "--kind", "syn"]);
    command.args(["--rate", "max", "--duration", &format!("{seconds}s"), "--json"]);
    command.arg(&file);
    run(command, RUN_LIMIT).expect_success();
    let text = fs::read_to_string(&file).expect("the results were written");
    let totals: serde_json::Value = serde_json::from_str(&text).expect("the results are JSON");
    totals["frames"].as_u64().expect("frames sent")
}

/// One request over each family.
fn request() {
    for address in BOTH_FAMILIES {
        let mut command = command(Place::Client, "curl");
        command.args([
            "--silent",
            "--fail",
            "--max-time",
            "10",
            "--output",
            "/dev/null",
            &url(address, "/"),
        ]);
        run(command, RUN_LIMIT).expect_success();
    }
}

#[test]
fn millions_of_spoofed_syns_leave_no_memory_and_no_cookies_behind() {
    let millions: u64 = match std::env::var("TIDEGATE_FLOOD_SYNS") {
        Ok(text) => match text.parse() {
            Ok(number) if number > 0 => number,
            _ => panic!("TIDEGATE_FLOOD_SYNS is {text:?}; it has to be a number of millions above 0"),
        },
        Err(_) => 1,
    };
    let Some(lab) = Lab::up(1) else { return };
    let scratch = directory();
    let config = scratch.path().join("tidegate.toml");
    // Within CI's time; the long form has the defaults.
    let settings = "[tcp]\nsyn_ack_retries = 1\n[syn_cookies]\noff_after = \"1s\"\n";
    fs::write(&config, settings).expect("writing the configuration");
    let config = config.to_string_lossy();
    let arguments: &[&str] = if millions == 1 { &["--config", &config] } else { &[] };
    let server = Server::start(&lab, arguments);
    request();
    // What a process touches on its first flood only, its first counters included.
    server.wait_until_no_connection();
    let before = server.resident();
    let mut sent = 0;
    let mut seconds = 1;
    while sent < millions * 1_000_000 {
        sent += flood(seconds);
        seconds = 10;
    }
    let after = server.resident();
    let counters = server.counters();
    assert!(counters.sum(COOKIES_TURNED_ON) > 0, "{sent} SYNs turned nothing on");
    let answered = counters.sum(SYN_COOKIES_SENT);
    report(format_args!(
        "{sent} SYNs, {answered} answered with cookies: memory grew by {} bytes",
        i128::from(after) - i128::from(before)
    ));
    assert!(after < before + MAX_GROWTH, "from {before} to {after} bytes");

    let ended = Instant::now();
    while server.counters().sum(COOKIES_ACTIVE) > 0 {
        assert!(
            ended.elapsed() < OFF_LIMIT,
            "cookies are still on: {}",
            server.describe()
        );
        sleep(Duration::from_millis(200));
    }
    report(format_args!("cookies off {:.1?} after the flood", ended.elapsed()));
    let before = server.counters();
    request();
    server.wait_until_no_connection();
    let after = server.stop();
    assert_eq!(after.sum(COOKIES_TURNED_OFF), after.sum(COOKIES_TURNED_ON));
    assert_eq!(
        after.sum(PASSIVE_OPENS) - before.sum(PASSIVE_OPENS),
        2,
        "requests after the flood"
    );
    assert_eq!(
        after.sum(COOKIE_CONNECTIONS),
        before.sum(COOKIE_CONNECTIONS),
        "made from cookies"
    );
}
