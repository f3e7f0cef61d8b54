//! `tidegate doctor` says what `serve` would refuse or warn with, and only then, and how it would serve.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::fixture::server::{Server, default_arguments, serve_command};
use crate::fixture::{
    Finished, HTTP_PORT, Lab, Place, SERVER_DEVICE, SERVER_V4, command, in_namespace, ip, report, run, socket,
};

const LIMIT: Duration = Duration::from_secs(30);

const TIDEGATE: &str = env!("CARGO_BIN_EXE_tidegate");

/// Runs `words`, followed by tidegate with `arguments`, in the server's namespace.
fn below(words: &[&str], arguments: &[String]) -> Finished {
    let [program, rest @ ..] = words else {
        panic!("no program below which to run tidegate")
    };
    let mut command = command(Place::Server, program);
    command.args(rest).arg(TIDEGATE).args(arguments);
    run(command, LIMIT)
}

/// The arguments of `subcommand` that serve everything, and `extra`.
fn arguments(subcommand: &str, extra: &[&str]) -> Vec<String> {
    [vec![subcommand.to_owned()], default_arguments(extra)].concat()
}

fn doctor(extra: &[&str]) -> Finished {
    below(&["env"], &arguments("doctor", extra))
}

/// The sentence that a server refuses with.
fn refusal(finished: &Finished) -> &str {
    refusal_with(1, finished)
}

/// The same, of one with this exit code.
fn refusal_with(code: i32, finished: &Finished) -> &str {
    assert_eq!(finished.status.code(), Some(code), "{}", finished.describe());
    let line = finished
        .stderr
        .lines()
        .find_map(|line| line.strip_prefix("tidegate: error: "));
    line.unwrap_or_else(|| panic!("no error: {}", finished.describe()))
}

/// Asserts that a doctor's result is a failure with this sentence, and no mode.
fn expect_failure(finished: &Finished, sentence: &str) {
    assert_eq!(finished.status.code(), Some(1), "{}", finished.describe());
    let found = finished
        .stdout
        .lines()
        .any(|line| line.starts_with("FAILURE") && line.ends_with(sentence));
    assert!(found, "{sentence:?} is not in {}", finished.describe());
    assert!(!finished.stdout.contains("\nmode of "), "{}", finished.describe());
    report(sentence);
}

#[test]
fn the_mode_that_a_doctor_expects_is_the_one_that_serve_gets() {
    let Some(lab) = Lab::up(2) else { return };
    for mode in ["auto", "generic"] {
        let finished = doctor(&["--xdp-mode", mode]).expect_success();
        let line = finished
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix("mode of tgs0: "))
            .expect("a mode");
        let server = Server::start(&lab, &["--xdp-mode", mode]);
        let started = server.describe();
        let expected: Vec<&str> = line.split(", ").take(2).collect();
        assert!(
            started.contains(&format!("{}, {}, ", expected[0], expected[1])),
            "{line}: {started}"
        );
        assert!(
            line.ends_with("2 queues") && started.contains("queue 1: "),
            "{line}: {started}"
        );
        server.stop();
    }
    // Loopback has no native mode, and an MTU that no frame holds until it is lowered.
    let lo = || below(&["env"], &["doctor".to_owned(), "lo".to_owned()]);
    assert_eq!(lo().status.code(), Some(1), "{}", lo().describe());
    assert!(lo().stdout.contains("MTU of 65536"), "{}", lo().describe());
    ip(Place::Server, &["link", "set", "dev", "lo", "mtu", "1500"]).expect_success();
    let finished = lo().expect_success();
    assert!(
        finished.stdout.contains("mode of lo: xdp generic, af_xdp copy"),
        "{}",
        finished.describe()
    );
}

#[test]
fn what_a_process_may_not_do_is_said_as_serve_says_it() {
    let Some(_lab) = Lab::up(1) else { return };
    let without = ["setpriv", "--bounding-set", "-all"];
    let served = below(&without, &arguments("serve", &[]));
    let finished = below(&without, &arguments("doctor", &[]));
    expect_failure(&finished, refusal(&served));
    for capability in ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_NET_RAW"] {
        assert!(
            finished.stdout.contains(&format!(" needs {capability}")),
            "{}",
            finished.describe()
        );
    }
    let low = [
        "prlimit",
        "--memlock=1048576:1048576",
        "setpriv",
        "--bounding-set",
        "-ipc_lock",
    ];
    let served = below(&low, &arguments("serve", &[]));
    expect_failure(&below(&low, &arguments("doctor", &[])), refusal(&served));
}

#[test]
fn an_interface_that_cannot_be_served_is_said_as_serve_says_it() {
    let Some(lab) = Lab::up(1) else { return };
    // As nsenter would: the network namespace without its /sys.
    let foreign = |subcommand: &str| {
        let arguments = arguments(subcommand, &[]);
        in_namespace(Place::Server, || {
            let mut command = Command::new(TIDEGATE);
            command.args(&arguments);
            run(command, LIMIT)
        })
    };
    expect_failure(&foreign("doctor"), refusal(&foreign("serve")));
    for extra in [
        &["--iface", "nosuch0"][..],
        &["--queues", "2"],
        &["--listen", "http=198.18.7.7:80"],
    ] {
        // The last of these wins, so that the interface is not given twice.
        let mut all = arguments("serve", &[]);
        if extra[0] == "--iface" {
            all[2] = extra[1].to_owned();
        } else {
            all.extend(extra.iter().map(|&word| word.to_owned()));
        }
        let served = below(&["env"], &all);
        all[0] = "doctor".to_owned();
        expect_failure(&below(&["env"], &all), refusal(&served));
    }
    let beside = ["--attach", "dispatcher", "--iface", "lo"];
    let served = below(&["env"], &arguments("serve", &beside));
    let sentence = refusal_with(2, &served);
    assert!(sentence.contains("2 devices are to be served"), "{sentence}");
    let finished = doctor(&beside);
    assert!(
        finished.status.code() == Some(1) && finished.stdout.contains(sentence),
        "{}",
        finished.describe()
    );
    let server = Server::start(&lab, &[]);
    let served = run(
        serve_command(&["--iface", SERVER_DEVICE, "--listen", "http=198.18.0.1:81"]),
        LIMIT,
    );
    let (finished, refused) = (doctor(&[]), refusal(&served));
    // The program's age is another in a second's time.
    let name = refused.split(" (").next().expect("a name");
    assert!(
        finished.status.code() == Some(1) && finished.stdout.contains(name),
        "{}",
        finished.describe()
    );
    server.stop();
}

#[test]
fn warnings_are_those_of_serve() {
    let Some(lab) = Lab::up(2) else { return };
    let _listener = in_namespace(Place::Server, || {
        socket::listen(SocketAddr::new(SERVER_V4, HTTP_PORT)).expect("a listening socket")
    });
    let finished = doctor(&["--queues", "1", "--json"]).expect_success();
    let value: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    assert_eq!(value["interfaces"][0], SERVER_DEVICE);
    assert_eq!(value["devices"][0]["mode"]["queues"], 1);
    assert_eq!(value["devices"][0]["facts"]["rx_queues"], 2);
    let server = Server::start(&lab, &["--queues", "1"]);
    let log = server.describe();
    let findings = value["findings"].as_array().expect("a list");
    let warnings: Vec<&Value> = findings
        .iter()
        .filter(|finding| finding["severity"] == "warning")
        .collect();
    for (words, command) in [
        ("a socket of the kernel listens on", "ss -ltnp 'sport = :80'"),
        ("over 2 queues and 1 are served", "ethtool -L"),
    ] {
        let warning = warnings
            .iter()
            .find(|warning| warning["sentence"].as_str().is_some_and(|s| s.contains(words)));
        let warning = warning.unwrap_or_else(|| panic!("{words:?} is not in {warnings:?}"));
        assert!(
            warning["command"]
                .as_str()
                .is_some_and(|found| found.starts_with(command)),
            "{warning}"
        );
    }
    for warning in warnings {
        let sentence = warning["sentence"].as_str().expect("a sentence");
        assert!(log.contains(sentence), "{sentence:?} is not in {log}");
    }
    server.stop();
}

#[test]
fn without_an_interface_there_is_a_table_of_all() {
    let Some(_lab) = Lab::up(1) else { return };
    let finished = below(&["env"], &["doctor".to_owned()]).expect_success();
    let line = finished
        .stdout
        .lines()
        .find(|line| line.starts_with(SERVER_DEVICE))
        .expect("a line");
    assert!(line.contains("veth") && line.contains("native, copy"), "{line}");
    assert!(finished.stdout.contains("\nlo "), "{}", finished.stdout);
    let wrong = below(
        &["env"],
        &["doctor".to_owned(), "--config".to_owned(), "/nosuch.toml".to_owned()],
    );
    assert_eq!(wrong.status.code(), Some(2), "{}", wrong.describe());
}
