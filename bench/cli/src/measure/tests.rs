//! The subcommands, from their arguments to their results.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use clap::Parser;
use clap::error::ErrorKind;
use serde_json::Value;
use tidegate_args::UsageError;
use tidegate_load::thread_per_connection::serve_on_loopback;
use tidegate_load::{Close, HttpOptions, Ramp, Workload};

use super::commands::{CheckedLoad, Cps, Hold, Latency, Rps, Throughput};
use super::live;
use super::measurement::Measurement;

#[derive(Debug, Parser)]
enum Line {
    Cps(Cps),
    Rps(Rps),
    Latency(Latency),
    Throughput(Throughput),
    Hold(Hold),
    Load(CheckedLoad),
}

const URL: &[&str] = &["--url", "http://198.18.0.1:80/"];

fn parse(command: &str, arguments: &[&str]) -> Result<Line, clap::Error> {
    let all = ["tidegate-bench", command].into_iter();
    Line::try_parse_from(all.chain(arguments.iter().copied()))
}

fn parse_with_url(command: &str, arguments: &[&str]) -> Result<Line, clap::Error> {
    parse(command, &[URL, arguments].concat())
}

fn run(line: Line) -> anyhow::Result<bool> {
    match line {
        Line::Cps(arguments) => arguments.run(),
        Line::Rps(arguments) => arguments.run(),
        Line::Latency(arguments) => arguments.run(),
        Line::Throughput(arguments) => arguments.run(),
        Line::Hold(arguments) => arguments.run(),
        Line::Load(arguments) => arguments.run(),
    }
}

/// A server that answers each request on connections that stay open; it ends with the process.
fn serve() -> SocketAddr {
    serve_on_loopback(|mut stream| {
        let mut buffer = [0; 1024];
        // Requests are far smaller than a segment, so each comes in one piece.
        while matches!(stream.read(&mut buffer), Ok(count) if count > 0) {
            let response = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
            if stream.write_all(response).is_err() {
                return;
            }
        }
    })
}

#[test]
fn limits_are_usage_errors() {
    let cases: &[(&str, &[&str])] = &[
        ("cps", &["--connections", "0"]),
        ("cps", &["--connections", "100001"]),
        ("cps", &["--duration", "601s"]),
        ("cps", &["--duration", "0s"]),
        ("cps", &["--warm-up", "601s"]),
        ("cps", &["--ramp", "601s"]),
        ("rps", &["--ramp", "x"]),
        ("cps", &["--target-mac", "01:00:00:00:00:01"]),
        ("cps", &["--ports", "0-10"]),
        ("cps", &["--ports", "20-10"]),
        ("cps", &["--ports", "1-65536"]),
        ("cps", &["--msl", "121s"]),
        ("cps", &["--sources", "10.0.0.0/8"]),
        ("cps", &["--timeout", "0s"]),
        ("cps", &["--timeout", "601s"]),
        ("cps", &["--requests-per-connection", "0"]),
        ("latency", &["--requests-per-connection", "1000001"]),
        ("load", &["--timeout", "0s"]),
        ("load", &["--header", "X"]),
        ("rps", &["--pipeline", "0"]),
        ("rps", &["--pipeline", "65"]),
        ("latency", &["--rate", "0"]),
        ("cps", &["--rate", "0"]),
        ("rps", &["--fail-if", "p99"]),
        ("hold", &["--connections", "10000001"]),
        ("hold", &["--duration", "601s"]),
    ];
    for &(command, arguments) in cases {
        let error = parse_with_url(command, arguments).expect_err("the arguments are out of range");
        assert_eq!(error.kind(), ErrorKind::ValueValidation, "{command} {arguments:?}");
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn what_is_missing_or_unknown_is_a_usage_error() {
    let cases: &[(&str, &[&str], ErrorKind)] = &[
        ("latency", &[], ErrorKind::MissingRequiredArgument),
        ("throughput", &[], ErrorKind::MissingRequiredArgument),
        ("throughput", &["--direction", "left"], ErrorKind::InvalidValue),
        ("cps", &["--close", "nobody"], ErrorKind::InvalidValue),
        ("cps", &["--client", "other"], ErrorKind::InvalidValue),
        ("cps", &["--wait", "long"], ErrorKind::InvalidValue),
        ("cps", &["--live", "maybe"], ErrorKind::InvalidValue),
        ("cps", &["--profile", "rfc2544"], ErrorKind::InvalidValue),
        ("hold", &["--profile", "rfc9411"], ErrorKind::UnknownArgument),
        ("cps", &["--pipeline", "2"], ErrorKind::UnknownArgument),
        ("cps", &["--any-length", "--verify"], ErrorKind::ArgumentConflict),
        (
            "throughput",
            &["--requests-per-connection", "2"],
            ErrorKind::UnknownArgument,
        ),
        ("hold", &["--timeout", "2s"], ErrorKind::UnknownArgument),
        ("load", &["--server-pid", "1"], ErrorKind::UnknownArgument),
        ("rps", &["--agents", "a:1"], ErrorKind::MissingRequiredArgument),
        ("rps", &["--token-file", "token"], ErrorKind::MissingRequiredArgument),
    ];
    for &(command, arguments, kind) in cases {
        let error = parse_with_url(command, arguments).expect_err("wrong arguments");
        assert_eq!(error.kind(), kind, "{command} {arguments:?}");
    }
    let error = parse("rps", &[]).expect_err("there is no URL");
    assert_eq!(error.kind(), ErrorKind::MissingRequiredArgument);
}

#[test]
fn the_defaults_are_those_of_the_help() {
    let Ok(Line::Cps(cps)) = parse_with_url("cps", &[]) else {
        panic!("defaults are accepted");
    };
    let requests = Some(cps.requests_per_connection);
    let plan = Measurement::of(&cps.options, &cps.load, Workload::Cps { close: cps.close }, requests)
        .unwrap()
        .plan;
    assert_eq!(
        (plan.requests_per_connection(), plan.http.timeout),
        (Some(1), HttpOptions::TIMEOUT)
    );
    assert_eq!(plan.workload, Workload::Cps { close: Close::Client });
    assert_eq!((plan.connections, plan.cpu), (64, None));
    assert_eq!((plan.warm_up.as_secs(), plan.duration.as_secs()), (1, 5));
    assert_eq!((plan.ramp, cps.options.live), (Ramp::default(), live::Live::Auto));
    assert_eq!(cps.options.client.name(), "kernel");
    let Ok(Line::Hold(hold)) = parse_with_url("hold", &[]) else {
        panic!("defaults are accepted");
    };
    assert_eq!((hold.connections, hold.duration.as_secs()), (10_000, 5));
}

#[test]
fn a_profile_has_its_own_times() {
    let Ok(Line::Rps(rps)) = parse_with_url("rps", &["--profile", "rfc9411"]) else {
        panic!("it is accepted");
    };
    let plan = Measurement::of(&rps.options, &rps.load, Workload::Rps { pipeline: 1 }, None)
        .unwrap()
        .plan;
    let ramp = [plan.ramp.initial, plan.ramp.up, plan.ramp.down].map(|time| time.as_secs());
    assert_eq!(
        (ramp, plan.warm_up.as_secs(), plan.duration.as_secs()),
        ([5, 30, 30], 0, 300)
    );
    for (command, arguments) in [
        ("throughput", &["--direction", "up", "--profile", "rfc9411"][..]),
        ("cps", &["--close", "rst", "--profile", "rfc9411"]),
        (
            "latency",
            &["--rate", "100", "--arrival", "poisson", "--profile", "rfc9411"],
        ),
    ] {
        let error = run(parse_with_url(command, arguments).unwrap()).unwrap_err();
        assert!(
            error.is::<UsageError>() && error.to_string().contains("--profile"),
            "{error:#}"
        );
    }
}

#[test]
fn what_has_no_effect_is_refused() {
    let agents = ["--agents", "127.0.0.1:1", "--token-file", "/no/such/file"];
    let upload: &[&str] = &["--direction", "up"];
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("rps", &agents, &["--server-pid", "1"]),
        ("rps", &agents, &["--hgrm", "file"]),
        ("throughput", upload, &["--method", "PUT"]),
        ("throughput", upload, &["--header", "A: b"]),
        ("throughput", upload, &["--body", "x"]),
        ("throughput", upload, &["--max-head", "1KiB"]),
        ("throughput", upload, &["--verify"]),
        ("throughput", upload, &["--any-length"]),
    ];
    for &(command, common, option) in cases {
        let error = run(parse_with_url(command, &[common, option].concat()).unwrap()).unwrap_err();
        assert!(error.is::<UsageError>(), "{option:?}: {error:#}");
        assert!(error.to_string().starts_with(option[0]), "{option:?}: {error:#}");
    }
}

#[test]
fn clients_have_their_own_arguments() {
    let cases: &[(&[&str], &str)] = &[
        (&["--iface", "eth9"], "--iface is for the client"),
        (&["--arrival", "poisson"], "add --rate N"),
        (&["--rate", "9", "--seed", "1"], "--arrival poisson"),
        (&["--huge-pages"], "--huge-pages is for the client"),
        (&["--msl", "1s"], "--msl is for the client"),
        (&["--client", "bypass"], "needs --iface"),
        (
            &["--client", "bypass", "--iface", "eth9", "--sources", "2001:2::/64"],
            "same family",
        ),
        (
            &[
                "--client",
                "bypass",
                "--iface",
                "eth9",
                "--url",
                "http://[fe80::1%25lo]/",
            ],
            "without a zone",
        ),
        (&["--url", "http://[fe80::1]/"], "[fe80::1%25INTERFACE]"),
        (
            &["--close", "server", "--header", "Connection: x"],
            "sets Connection itself",
        ),
    ];
    for &(arguments, phrase) in cases {
        let has_url = arguments.contains(&"--url");
        let line = if has_url {
            parse("cps", arguments)
        } else {
            parse_with_url("cps", arguments)
        };
        let error = run(line.unwrap()).unwrap_err();
        assert!(error.is::<UsageError>(), "{arguments:?}: {error:#}");
        assert!(error.to_string().contains(phrase), "{arguments:?}: {error:#}");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_found_out_before_anything_is_measured() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("no-such-directory/file");
    let line = parse_with_url("cps", &["--log", missing.to_str().unwrap()]).unwrap();
    let error = run(line).unwrap_err().to_string();
    assert!(error.contains("no-such-directory"), "{error}");
}

#[test]
fn results_are_written_in_every_form() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let read = |name: &str| std::fs::read_to_string(Path::new(&path(name))).unwrap();
    let url = format!("http://{}/", serve());
    let own_id = std::process::id().to_string();
    let cases: &[(&str, &[&str])] = &[
        (
            "rps",
            &["--connections", "2", "--warm-up", "0s", "--server-pid", &own_id],
        ),
        ("hold", &["--connections", "3", "--server-pid", &own_id]),
    ];
    for &(command, own) in cases {
        let files = [path("json"), path("html"), path("hgrm"), path("log")];
        let common: [&str; 12] = [
            "--url",
            &url,
            "--duration",
            "200ms",
            "--json",
            &files[0],
            "--html",
            &files[1],
            "--hgrm",
            &files[2],
            "--log",
            &files[3],
        ];
        let line = parse(command, &[&common[..], own].concat()).unwrap();
        assert!(run(line).unwrap(), "{command}");
        let json: Value = serde_json::from_str(&read("json")).unwrap();
        assert_eq!(json["workload"], command);
        assert!(json["operations"].as_u64().unwrap() >= 2, "{json}");
        assert_eq!(json["error_count"], 0, "{json}");
        assert_eq!(json["memory"].is_null(), command != "hold", "{json}");
        let cpu = &json["cpu_us_per_operation"];
        assert_eq!(
            cpu["server"].as_f64().is_some_and(|time| time > 0.0),
            command == "rps",
            "{json}"
        );
        assert_eq!(
            cpu["client"].as_f64().is_some_and(|time| time > 0.0),
            command == "rps",
            "{json}"
        );
        assert!(read("html").contains("Latency by percentile"), "{command}");
        assert!(read("hgrm").contains("#[Mean"), "{command}");
        assert!(read("log").contains("\nTag=latency,"), "{command}");
    }
}

#[test]
fn a_checked_load_passes_with_and_without_keep_alive_and_says_what_it_got() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("results.json");
    let file = file.to_str().unwrap();
    for (no_keepalive, workload) in [(&[][..], "rps"), (&["--no-keepalive"], "cps")] {
        let address = serve_on_loopback(|mut stream| {
            let mut buffer = [0; 1024];
            while let Ok(count) = stream.read(&mut buffer)
                && count > 0
            {
                let response = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
                let closes = buffer[..count].windows(5).any(|bytes| bytes == b"close");
                if stream.write_all(response).is_err() || closes {
                    return;
                }
            }
        });
        let url = format!("http://{address}/");
        let common = [
            "--url",
            &url,
            "--connections",
            "2",
            "--duration",
            "50ms",
            "--json",
            file,
        ];
        assert!(run(parse("load", &[&common, no_keepalive].concat()).unwrap()).unwrap());
        let json: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        assert_eq!(json["workload"], workload);
        assert_eq!(json["body"]["length"], 5, "{json}");
        assert_eq!(json["body"]["sha256"].as_str().map(str::len), Some(64), "{json}");
    }
}

#[test]
fn a_condition_that_holds_is_no_pass() {
    let url = format!("http://{}/", serve());
    for (condition, passes) in [("max>100s", true), ("rate>=1", false), ("errors>0.000001%", false)] {
        let arguments = ["--url", &url, "--rate", "200", "--warm-up", "0s", "--duration", "100ms"];
        for (command, own) in [
            ("cps", &["--connections", "50"][..]),
            ("latency", &["--arrival", "poisson"]),
        ] {
            let line = parse(command, &[&arguments, own, &["--fail-if", condition]].concat());
            assert_eq!(run(line.unwrap()).unwrap(), passes, "{command} {condition}");
        }
    }
}

#[test]
fn a_server_that_is_not_there_is_no_pass() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let line = parse(
        "cps",
        &[
            "--url",
            &url,
            "--connections",
            "1",
            "--warm-up",
            "0s",
            "--duration",
            "50ms",
        ],
    );
    assert!(!run(line.unwrap()).unwrap());
}
