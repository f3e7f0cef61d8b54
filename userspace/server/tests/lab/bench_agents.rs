//! Measurements by several agents of `tidegate-bench`, each in a network namespace of its own.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::fixture::data::directory;
use crate::fixture::server::bench_binary;
use crate::fixture::{Finished, Lab, Place, Process, SERVER_V4, command, start};
use tidegate_lab::Family;

const CLIENT_V4: IpAddr = Family::V4.client();

/// The port of the agents.
const AGENT_PORT: u16 = 7700;

/// The port of the server, which is the kernel's.
const PORT: u16 = 8080;

const START_LIMIT: Duration = Duration::from_secs(20);
const RUN_LIMIT: Duration = Duration::from_secs(60);

/// Starts a subcommand and waits until it is ready.
fn started(place: Place, arguments: &[&str]) -> Process {
    let mut command = command(place, bench_binary());
    command.args(arguments);
    let mut process = start(command);
    process
        .wait_until_ready("ready", START_LIMIT)
        .unwrap_or_else(|problem| panic!("{problem:#}"));
    process
}

/// The server and two agents, in the client's and in the server's namespace.
fn arranged(token: &str) -> (Process, [(Process, SocketAddr); 2]) {
    let server = SocketAddr::new(SERVER_V4, PORT);
    let server = started(Place::Server, &["serve-kernel", "--listen", &format!("http={server}")]);
    let agents = [(Place::Client, CLIENT_V4), (Place::Server, SERVER_V4)].map(|(place, address)| {
        let address = SocketAddr::new(address, AGENT_PORT);
        let arguments = ["agent", "--listen", &address.to_string(), "--token-file", token];
        (started(place, &arguments), address)
    });
    (server, agents)
}

/// Asks both agents from the server's namespace.
fn ask(agents: [SocketAddr; 2], token: &str, duration: &str, results: &Path) -> Process {
    let mut command = command(Place::Server, bench_binary());
    command
        .args(["cps", "--url", &format!("http://{SERVER_V4}:{PORT}/"), "--close", "rst"])
        .args(["--connections", "4", "--warm-up", "200ms", "--duration", duration])
        .args(["--agents", &agents.map(|address| address.to_string()).join(",")])
        .args(["--token-file", token, "--json"])
        .arg(results);
    start(command)
}

fn finished(process: Process) -> Finished {
    process.wait(RUN_LIMIT).unwrap_or_else(|problem| panic!("{problem:#}"))
}

fn json(file: &Path) -> Value {
    let text = std::fs::read_to_string(file).expect("the results were written");
    serde_json::from_str(&text).expect("the results are JSON")
}

#[test]
fn two_agents_in_two_namespaces_are_the_sum_of_both() {
    let Some(_lab) = Lab::up(1) else { return };
    let directory = directory();
    let (token, results) = (directory.path().join("token"), directory.path().join("results.json"));
    std::fs::write(&token, "a token for this test").expect("it can be written");
    let token = token.to_str().expect("its name is text");
    let (_server, agents) = arranged(token);
    finished(ask(
        agents.each_ref().map(|(_, address)| *address),
        token,
        "1s",
        &results,
    ))
    .expect_success();
    let results = json(&results);
    let machines = results["machines"].as_array().expect("both are there");
    assert_eq!(machines.len(), 2, "{results}");
    let counts = |value: &Value| [&value["operations"], &value["latency_us"]["count"]].map(|count| count.as_u64());
    let (one, other) = (counts(&machines[0]), counts(&machines[1]));
    for (index, total) in counts(&results).into_iter().enumerate() {
        let sum = one[index].zip(other[index]).map(|(one, other)| one + other);
        assert_eq!(total, sum, "{results}");
        assert!(one[index] > Some(0) && other[index] > Some(0), "{results}");
    }
    assert_eq!(results["failed_machines"], serde_json::json!([]));
}

#[test]
fn an_agent_that_is_killed_meanwhile_is_told() {
    let Some(_lab) = Lab::up(1) else { return };
    let directory = directory();
    let (token, file) = (directory.path().join("token"), directory.path().join("results.json"));
    std::fs::write(&token, "a token for this test").expect("it can be written");
    let token = token.to_str().expect("its name is text");
    let (_server, [(client, at_client), (_at_server, at_server)]) = arranged(token);
    let asked = ask([at_client, at_server], token, "3s", &file);
    let begun = |lines: &[String]| lines.iter().any(|line| line.contains("begins"));
    assert!(client.stdout().wait_for(START_LIMIT, begun), "{}", client.describe());
    client.signal(Signal::SIGKILL).expect("it runs");
    let asked = finished(asked);
    assert_eq!(asked.status.code(), Some(1), "{}", asked.describe());
    let results = json(&file);
    assert_eq!(
        results["failed_machines"][0]["machine"],
        at_client.to_string(),
        "{results}"
    );
    let machines = results["machines"].as_array().expect("one is there");
    assert_eq!(machines.len(), 1, "{results}");
    assert_eq!(machines[0]["machine"], at_server.to_string());
    assert!(results["operations"].as_u64() > Some(0), "{results}");
}
