//! Measurements by agents over loopback: the programs as they are, and one that is killed meanwhile.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;
use tidegate_load::thread_per_connection::serve_on_loopback;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tidegate-bench");

/// A program that is ended when it is dropped.
struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    /// Starts it, and returns it with the address it listens on when it is ready.
    fn start(arguments: &[&str]) -> (Self, String) {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut output = BufReader::new(child.stdout.take().expect("its output is piped"));
        let mut address = None;
        loop {
            let mut line = String::new();
            assert!(
                output.read_line(&mut line).expect("it writes text") > 0,
                "{arguments:?} ended"
            );
            if let Some(listens) = line.strip_prefix("listening on ") {
                address = Some(listens.trim_end().to_owned());
            }
            if line == "ready\n" {
                break;
            }
        }
        let running = Self { child, output };
        (running, address.expect("it says where it listens"))
    }

    /// Waits until it has written a line with `text`.
    fn wait_for(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert!(
                self.output.read_line(&mut line).expect("it writes text") > 0,
                "it ended without `{text}`"
            );
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn agent(token: &str) -> (Running, String) {
    agent_with(token, &[])
}

/// The URL of a server that answers each request on connections that stay open; it ends with the process.
fn server() -> String {
    let address = serve_on_loopback(|mut stream| {
        let mut buffer = [0; 4096];
        while matches!(stream.read(&mut buffer), Ok(1..)) {
            let response = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
            if stream.write_all(response).is_err() {
                return;
            }
        }
    });
    format!("http://{address}/")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ask(arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).stdin(Stdio::null());
    command.output().expect("the program runs")
}

fn json(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).expect("the results were written")).expect("they are JSON")
}

fn agent_with(token: &str, more: &[&str]) -> (Running, String) {
    let all = [
        "agent",
        "--listen",
        "127.0.0.1:0",
        "--token-file",
        token,
        "--allow",
        "127.0.0.0/8",
    ];
    Running::start(&[&all, more].concat())
}

#[test]
fn two_agents_are_the_sum_of_both() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (token, results, log) = (path("token"), path("results.json"), path("log"));
    std::fs::write(&token, "a token for this test\n").unwrap();
    let url = server();
    let agents = [agent(&token), agent(&token)];
    let names = agents.each_ref().map(|(_, address)| address.clone());
    let output = ask(&[
        "rps",
        "--url",
        &url,
        "--connections",
        "3",
        "--warm-up",
        "100ms",
        "--duration",
        "1s",
        "--agents",
        &names.join(","),
        "--token-file",
        &token,
        "--json",
        &results,
        "--log",
        &log,
    ]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    let results = json(Path::new(&results));
    let machines = results["machines"].as_array().unwrap();
    let number = |value: &Value, name: &str| value[name].as_f64().unwrap();
    for field in ["operations", "value", "connections"] {
        let sum: f64 = machines.iter().map(|machine| number(machine, field)).sum();
        assert!(
            (number(&results, field) - sum).abs() <= sum * 1e-9,
            "{field}: {results}"
        );
    }
    assert_eq!(results["connections"], 6);
    assert_eq!(results["failed_machines"], serde_json::json!([]));
    for (machine, name) in machines.iter().zip(&names) {
        assert_eq!(machine["machine"].as_str(), Some(&name[..]));
        assert!(number(machine, "operations") > 0.0, "{results}");
    }
    let count = |value: &Value| value["latency_us"]["count"].as_u64().unwrap();
    assert_eq!(count(&results), machines.iter().map(count).sum::<u64>());
    let merged = ask(&["report", "merge", &log]);
    assert!(text(&merged.stdout).contains("latency"), "{}", text(&merged.stdout));
}

#[test]
fn an_agent_that_is_killed_is_told_and_the_other_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (token, results) = (path("token"), path("results.json"));
    std::fs::write(&token, "a token for this test").unwrap();
    let url = server();
    let ((_one, first), (mut two, second)) = (agent(&token), agent(&token));
    let asked = {
        let mut command = Command::new(PROGRAM);
        command
            .args(["rps", "--url", &url, "--connections", "2", "--duration", "3s"])
            .args([
                "--agents",
                &format!("{first},{second}"),
                "--token-file",
                &token,
                "--json",
                &results,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    two.wait_for("begins");
    drop(two);
    let output = asked.wait_with_output().unwrap();
    let (printed, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{printed}\n{errors}");
    assert!(printed.contains(&format!("agent {second}: lost: ")), "{printed}");
    assert!(errors.contains(&format!("agent {second} is lost")), "{errors}");
    let results = json(Path::new(&results));
    assert_eq!(results["machines"].as_array().unwrap().len(), 1, "{results}");
    assert_eq!(results["machines"][0]["machine"].as_str(), Some(&first[..]));
    assert!(results["operations"].as_u64().unwrap() > 0, "{results}");
    assert_eq!(results["failed_machines"][0]["machine"].as_str(), Some(&second[..]));
}

#[test]
fn what_an_agent_refuses_is_told_before_anything_is_measured() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (token, other) = (path("token"), path("other"));
    std::fs::write(&token, "a token for this test").unwrap();
    std::fs::write(&other, "another token for it").unwrap();
    let (_agent, address) = agent(&token);
    // Not a port that the kernel gives out.
    let nobody = "127.0.0.1:1".to_owned();
    for (url, agents, token, code, phrase) in [
        (
            "http://192.0.2.1/",
            &address,
            &token,
            2,
            "this agent measures no target at 192.0.2.1",
        ),
        ("http://127.0.0.1/", &address, &other, 1, "another one than the agent's"),
        ("http://127.0.0.1/", &nobody, &token, 1, "is it started?"),
        ("http://127.0.0.1/", &path("none"), &token, 2, "no HOST:PORT"),
    ] {
        let output = ask(&[
            "cps",
            "--url",
            url,
            "--duration",
            "1s",
            "--agents",
            agents,
            "--token-file",
            token,
        ]);
        let errors = text(&output.stderr);
        assert!(errors.contains(phrase) && errors.contains(agents), "{phrase}: {errors}");
        assert_eq!(output.status.code(), Some(code), "{errors}");
        assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
    }
}

#[test]
fn an_agent_for_once_waits_for_a_measurement_that_begins() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token").to_str().unwrap().to_owned();
    std::fs::write(&token, "a token for this test").unwrap();
    let url = server();
    let (mut agent, address) = agent_with(&token, &["--once"]);
    drop(std::net::TcpStream::connect(&address).unwrap());
    agent.wait_for("the control connection");
    let ask_for = |url: &str| {
        let arguments = [
            "--warm-up",
            "0s",
            "--duration",
            "50ms",
            "--agents",
            &address,
            "--token-file",
            &token,
        ];
        ask(&[&["-v", "rps", "--live", "never", "--url", url], &arguments[..]].concat())
    };
    assert_eq!(ask_for("http://192.0.2.1/").status.code(), Some(2));
    agent.wait_for("measures no target");
    let output = ask_for(&url);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    agent.wait_for("measured");
    assert_eq!(agent.child.wait().unwrap().code(), Some(0));
}
