//! Every XDP mode and every wait strategy carries traffic.

use std::time::Duration;

use crate::fixture::client::bench_echo;
use crate::fixture::server::Server;
use crate::fixture::{BOTH_FAMILIES, Lab, report, run};

const ECHO_LIMIT: Duration = Duration::from_secs(30);

/// Serves with `extra` arguments, echoes over both families, and returns what the server printed at its start.
fn echo_with(lab: &Lab, extra: &[&str]) -> String {
    let server = Server::start(lab, extra);
    let started = server.describe();
    for address in BOTH_FAMILIES {
        run(bench_echo(address, 3_000_000, 4, 11), ECHO_LIMIT).expect_success();
    }
    server.wait_until_no_connection();
    server.stop().expect_redirects_received();
    report(format_args!("{}: 8 echoes of 3000000 bytes equal", extra.join(" ")));
    started
}

#[test]
fn both_xdp_modes_carry_traffic_and_say_which_they_are() {
    let Some(lab) = Lab::up(2) else { return };
    for (mode, named) in [
        ("generic", "xdp generic"),
        ("native", "xdp native"),
        ("auto", "xdp native"),
    ] {
        let started = echo_with(&lab, &["--xdp-mode", mode]);
        assert!(
            started.contains(named),
            "--xdp-mode {mode} does not say {named:?}: {started}"
        );
    }
}

#[test]
fn every_wait_strategy_carries_traffic() {
    let Some(lab) = Lab::up(2) else { return };
    for strategy in ["poll", "busy-poll", "spin", "adaptive"] {
        echo_with(&lab, &["--wait", strategy]);
    }
}
