//! Settings that `tidegate nic apply` and `serve --tune` change are as before after `undo`, whatever comes in between.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::fixture::data::directory;
use crate::fixture::server::{Server, default_arguments};
use crate::fixture::{Finished, Lab, Place, SERVER_DEVICE, command, ip, run};

const LIMIT: Duration = Duration::from_secs(30);

const TIDEGATE: &str = env!("CARGO_BIN_EXE_tidegate");

/// Runs `tidegate nic` with `arguments` in the server's namespace.
fn nic(arguments: &[&str]) -> Finished {
    let mut command = command(Place::Server, TIDEGATE);
    command.arg("nic").args(arguments);
    run(command, LIMIT)
}

/// The settings of an interface, as tidegate reads them, and two of them as sysfs shows them.
fn settings(interface: &str) -> (Value, String) {
    let shown = nic(&["show", interface, "--json"]).expect_success();
    let facts: Value = serde_json::from_str(&shown.stdout).expect("JSON");
    let kept = [
        "channels",
        "rings",
        "coalesce",
        "rss_table",
        "features",
        "irqs",
        "rx_queues",
        "tx_queues",
    ];
    let kept: Value = kept.iter().map(|key| ((*key).to_owned(), facts[key].clone())).collect();
    (kept, sysfs(interface))
}

/// The time until a queue is polled again, and the queues.
fn sysfs(interface: &str) -> String {
    let mut command = command(Place::Server, "sh");
    let directory = format!("/sys/class/net/{interface}");
    command.args([
        "-c",
        &format!("cat {directory}/gro_flush_timeout {directory}/napi_defer_hard_irqs; ls {directory}/queues"),
    ]);
    run(command, LIMIT).expect_success().stdout
}

fn with_state<'a>(arguments: &[&'a str], state: &'a Path) -> Vec<&'a str> {
    [arguments, &["--state-dir", state.to_str().expect("a path of text")]].concat()
}

#[test]
fn undo_puts_back_what_apply_changed() {
    let Some(_lab) = Lab::up(2) else { return };
    let scratch = directory();
    let before = settings(SERVER_DEVICE);
    let apply = ["apply", SERVER_DEVICE, "--queues", "1", "--wait", "busy-poll"];
    let plan = nic(&["plan", SERVER_DEVICE, "--queues", "1", "--wait", "busy-poll"]).expect_success();
    assert!(
        plan.stdout.contains("gro_flush_timeout: 0 -> 200000"),
        "{}",
        plan.describe()
    );
    assert_eq!(settings(SERVER_DEVICE), before, "a plan changes nothing");
    nic(&with_state(&apply, scratch.path())).expect_success();
    let applied = sysfs(SERVER_DEVICE);
    assert!(
        applied.starts_with("200000\n2\n") && !applied.contains("rx-1"),
        "{applied}"
    );
    let again = nic(&with_state(&apply, scratch.path()));
    assert!(
        again.status.code() == Some(1) && again.stderr.contains("nic undo"),
        "{}",
        again.describe()
    );
    nic(&with_state(&["undo", SERVER_DEVICE], scratch.path())).expect_success();
    assert_eq!(settings(SERVER_DEVICE), before);
    let nothing = nic(&with_state(&["undo", SERVER_DEVICE], scratch.path())).expect_success();
    assert!(
        nothing.stdout.starts_with("nothing of tidegate's"),
        "{}",
        nothing.describe()
    );
}

#[test]
fn a_tuned_run_puts_back_what_it_changed_or_the_next_does() {
    let Some(lab) = Lab::up(2) else { return };
    let scratch = directory();
    let before = settings(SERVER_DEVICE);
    let arguments = with_state(&["--tune", "--wait", "busy-poll"], scratch.path());
    let start = || Server::start(&lab, &arguments);
    let server = start();
    assert!(sysfs(SERVER_DEVICE).starts_with("200000\n2\n"), "{}", server.describe());
    server.stop();
    assert_eq!(settings(SERVER_DEVICE), before, "after a stop");
    start().kill();
    assert!(
        sysfs(SERVER_DEVICE).starts_with("200000\n2\n"),
        "nobody could put them back"
    );
    nic(&with_state(&["undo", SERVER_DEVICE], scratch.path())).expect_success();
    assert_eq!(settings(SERVER_DEVICE), before, "after kill -9 and undo");
    start().kill();
    start().stop();
    assert_eq!(settings(SERVER_DEVICE), before, "after kill -9 and another run");
    // A run that does not come to serving puts them back, too.
    let mut refused = command(Place::Server, TIDEGATE);
    refused
        .arg("serve")
        .args(default_arguments(&arguments))
        .args(["--listen", "http=198.18.7.7:80"]);
    assert_eq!(run(refused, LIMIT).status.code(), Some(1));
    assert_eq!(settings(SERVER_DEVICE), before, "after a refusal");
}

#[test]
fn what_no_longer_applies_is_named() {
    let Some(_lab) = Lab::up(1) else { return };
    let scratch = directory();
    let pair = || {
        ip(
            Place::Server,
            &["link", "add", "tgx0", "type", "veth", "peer", "name", "tgx1"],
        )
        .expect_success();
    };
    let apply = || {
        nic(&with_state(&["apply", "tgx0", "--wait", "busy-poll"], scratch.path())).expect_success();
        ip(Place::Server, &["link", "delete", "tgx0"]).expect_success();
    };
    let undo = |more: &[&'static str]| nic(&with_state(&[&["undo", "tgx0"], more].concat(), scratch.path()));
    pair();
    apply();
    let undone = undo(&[]);
    assert!(
        undone.status.code() == Some(1) && undone.stdout.contains("there is no interface tgx0 any more"),
        "{}",
        undone.describe()
    );
    undo(&["--forget"]).expect_success();
    pair();
    apply();
    pair();
    let before = settings("tgx0");
    let undone = undo(&[]).expect_success();
    assert!(
        undone.stdout.contains("gro_flush_timeout: tgx0 was made anew since"),
        "{}",
        undone.describe()
    );
    assert_eq!(settings("tgx0"), before);
}
