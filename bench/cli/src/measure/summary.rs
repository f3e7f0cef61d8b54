//! The results of a run as names and phrases, for the terminal and the page.

use std::time::Duration;

use tidegate_args::request::Request;
use tidegate_lab::machine::Memory;
use tidegate_load::{Arrival, Close, Starts, Workload};
use tidegate_report::Latencies;
use tidegate_report::format::printable;

use super::row::{close_name, direction_name};
use super::run::{MemoryUse, Run};

/// Width of the names on the terminal.
const NAME_WIDTH: usize = 11;

/// Bytes in a megabyte.
const MEGABYTE: f64 = 1e6;

/// Returns the facts as lines, without a line break at the end. What the server sent does not control the terminal.
pub(super) fn text(facts: &[(&str, String)]) -> String {
    let lines: Vec<String> = facts
        .iter()
        .map(|(name, phrase)| format!("{name:<NAME_WIDTH$}{}", printable(phrase)))
        .collect();
    lines.join("\n")
}

/// Returns names and phrases, in the order of reading.
pub(super) fn facts(run: &Run) -> Vec<(&'static str, String)> {
    let measured = &run.measured;
    let mut facts = vec![
        ("workload", workload(run)),
        ("target", target(run)),
        ("client", client(run)),
    ];
    let ramp = run.plan.ramp;
    for (name, time) in [("initial", ramp.initial), ("ramp", ramp.up)] {
        if !time.is_zero() {
            facts.push((name, format!("{} s, not counted", seconds(time))));
        }
    }
    facts.extend([("warm-up", warm_up(run)), ("measured", measured_time(run))]);
    if !ramp.down.is_zero() {
        facts.push(("ramp-down", format!("{} s, not counted", seconds(ramp.down))));
    }
    facts.extend([("operations", operations(run))]);
    if run.plan.workload != Workload::Hold {
        facts.push(("rate", rate(run)));
    }
    facts.push(("latency", latency(&measured.latency)));
    facts.push(("connect", latency(&measured.connect)));
    for (name, latencies) in [("first byte", &measured.first_byte), ("close", &measured.close)] {
        if !latencies.is_empty() {
            facts.push((name, latency(latencies)));
        }
    }
    if measured.statuses.total() > 0 {
        facts.push(("responses", responses(run)));
    }
    let open = measured.open;
    facts.push((
        "open",
        format!("{} connections at most, {} at the end", open.max, open.at_end),
    ));
    if measured.announced_ends > 0 {
        let count = measured.announced_ends;
        facts.push((
            "ended",
            format!("{count} connections, as the server announced; new ones took their place"),
        ));
    }
    if let Some(body) = &measured.body {
        facts.push(("body", body.to_string()));
    }
    facts.push(("frames", frames(run)));
    if let Some(cpu) = cpu(run) {
        facts.push(("CPU", cpu));
    }
    facts.push(("TIME-WAIT", time_wait(run)));
    if let Some(starts) = &measured.generator.starts {
        facts.push(("starts", starts_phrase(starts)));
    }
    if let Some(limit) = run.limit() {
        facts.push(("limit", limit.to_string()));
    }
    if let Some(memory) = &run.memory {
        facts.extend(memory_facts(memory, measured.operations));
    }
    facts.push(("errors", errors(run)));
    if let Some(judgement) = run.judgement() {
        facts.push(("RFC 9411", judgement.summary()));
        facts.extend(judgement.lines().map(|(_, phrase)| ("", phrase)));
    }
    facts.extend(run.conditions.phrases().map(|phrase| ("fail-if", phrase)));
    facts
}

fn target(run: &Run) -> String {
    let url = &run.plan.url;
    match url.name() {
        Some(_) => format!("{url}, resolved to {}", url.address.ip()),
        None => url.to_string(),
    }
}

fn responses(run: &Run) -> String {
    let measured = &run.measured;
    let classes = measured.statuses.iter().filter(|&(_, count)| count > 0);
    let classes: Vec<String> = classes.map(|(name, count)| format!("{name} {count}")).collect();
    let mut text = classes.join(", ");
    if let Some(location) = &measured.first_location {
        text.push_str(&format!(" (redirects are not followed; the first is to {location})"));
    }
    text
}

fn measured_time(run: &Run) -> String {
    let mut text = format!("{:.3} s", run.measured.seconds);
    if run.measured.cut_short {
        text += &format!(", cut short: {} s were asked for", seconds(run.plan.duration));
    }
    text
}

fn workload(run: &Run) -> String {
    let mut text = workload_alone(run);
    match (run.plan.workload, run.plan.requests_per_connection()) {
        (Workload::Cps { .. } | Workload::OpenCps { .. }, Some(1)) | (_, None) => {}
        (Workload::Cps { .. }, Some(count)) => text = text.replace("each request", &format!("every {count} requests")),
        (Workload::OpenCps { .. }, Some(count)) => text.push_str(&format!("; each carries {count} requests")),
        (_, Some(count)) => text.push_str(&format!("; connections are replaced after {count} requests")),
    }
    let request = &run.plan.http.request;
    if let (Some(method), true) = (run.method(), *request != Request::default()) {
        let (length, fields) = (request.body_length(), request.fields.len());
        text.push_str(&format!(
            "; {method} with {length} bytes of body, {fields} header fields of its own"
        ));
    }
    text
}

fn workload_alone(run: &Run) -> String {
    match run.plan.workload {
        Workload::Cps { close: Close::Rst } => {
            "cps: a new connection for each request, ended by the client's RST".to_owned()
        }
        Workload::Cps { close } => {
            format!(
                "cps: a new connection for each request, closed by the {} first",
                close_name(close)
            )
        }
        Workload::OpenCps { close, rate } => {
            let end = match close {
                Close::Rst => "ended by the client's RST".to_owned(),
                close => format!("closed by the {} first", close_name(close)),
            };
            format!(
                "cps: {rate} connections/s, {}, each counted from when it was due, {end}",
                spaces(run)
            )
        }
        Workload::Rps { pipeline: 1 } => "rps: one request at a time on each connection".to_owned(),
        Workload::Rps { pipeline } => format!("rps: {pipeline} requests under way on each connection"),
        Workload::Latency { rate } => {
            format!(
                "latency: {rate} requests/s, {}, each counted from when it was due (coordinated omission)",
                spaces(run)
            )
        }
        Workload::Throughput { direction } => format!("throughput: {}", direction_name(direction)),
        Workload::Hold => "hold: connections that stay open and are asked once at the end".to_owned(),
    }
}

fn spaces(run: &Run) -> String {
    match run.plan.arrival {
        Arrival::Constant => "evenly apart".to_owned(),
        Arrival::Poisson { seed } => format!("randomly apart (Poisson, seed {seed})"),
    }
}

fn starts_phrase(starts: &Starts) -> String {
    format!(
        "{} due, {} late by the client, {} held back as all connections were busy, {} never begun",
        starts.due,
        starts.late,
        starts.held_back,
        starts.missed()
    )
}

fn client(run: &Run) -> String {
    let mut text = format!("{}, {} connections", run.client, run.plan.connections);
    if let Some(cpu) = run.plan.cpu {
        text.push_str(&format!(", CPU {cpu}"));
    }
    text
}

fn warm_up(run: &Run) -> String {
    if run.plan.warm_up.is_zero() {
        "none".to_owned()
    } else {
        format!("{} s, not counted", seconds(run.plan.warm_up))
    }
}

fn operations(run: &Run) -> String {
    let count = run.measured.operations;
    match (run.plan.workload, run.operation()) {
        (Workload::Hold, _) => format!("{count} of {} connections answered", run.plan.connections),
        (_, Some(operation)) => format!("{count} {operation}s"),
        (_, None) => format!("{count} bytes"),
    }
}

fn rate(run: &Run) -> String {
    let per_second = run.value();
    match run.plan.workload {
        Workload::Throughput { .. } => format!(
            "{:.1} MB/s ({:.3} Gbit/s)",
            per_second / MEGABYTE,
            per_second * 8.0 / 1e9
        ),
        Workload::OpenCps { rate, .. } | Workload::Latency { rate } => {
            format!("{per_second:.0} {} of the {rate} that were due", run.unit())
        }
        _ => format!("{per_second:.0} {}", run.unit()),
    }
}

fn latency(latencies: &Latencies) -> String {
    let Some(quantiles) = latencies.quantiles() else {
        return "none measured".to_owned();
    };
    format!(
        "p50 {:.1} us, p90 {:.1} us, p99 {:.1} us, p99.9 {:.1} us, max {:.1} us",
        quantiles.p50, quantiles.p90, quantiles.p99, quantiles.p999, quantiles.max
    )
}

fn frames(run: &Run) -> String {
    let Some(frames) = run.measured.frames else {
        return "not known to this client: they are the kernel's".to_owned();
    };
    let in_all = format!("{} sent and {} received in all", frames.sent, frames.received);
    match (run.operation(), run.frames_per_operation()) {
        (Some(operation), Some(each)) => format!("{each:.2} for each {operation} ({in_all}, with the warm-up)"),
        _ => format!("{in_all}, with the warm-up"),
    }
}

/// Processor time for each operation, or for 10^9 bytes.
fn cpu(run: &Run) -> Option<String> {
    let parts = [("client", run.client_cpu_us()), ("server", run.server_cpu_us())];
    let phrase = |(whose, each): (&str, Option<f64>)| {
        let each = each?;
        Some(match run.operation() {
            Some(_) => format!("{whose} {each:.3} us"),
            // A microsecond for a byte is 1,000 s for 10^9.
            None => format!("{whose} {:.3} s", each * 1e3),
        })
    };
    let parts: Vec<String> = parts.into_iter().filter_map(phrase).collect();
    let operation = match run.operation() {
        Some(operation) => format!("each {operation}"),
        None => "10^9 bytes".to_owned(),
    };
    (!parts.is_empty()).then(|| format!("{} for {operation}", parts.join(", ")))
}

fn time_wait(run: &Run) -> String {
    let (Workload::Cps { close } | Workload::OpenCps { close, .. }) = run.plan.workload else {
        if let (true, Some(time)) = (run.plan.closes_first(), run.measured.time_wait) {
            return format!(
                "on the client, of connections that were replaced, 2MSL is {} s",
                seconds(time)
            );
        }
        return "nowhere while measuring: connections stay open".to_owned();
    };
    match (close, run.measured.time_wait) {
        (Close::Client, Some(time)) => format!("on the client, 2MSL is {} s", seconds(time)),
        (Close::Client, None) => "on the client, for as long as its TCP says".to_owned(),
        (Close::Server, _) => "on the server, for as long as its TCP says".to_owned(),
        (Close::Rst, _) => "nowhere: connections end with RST".to_owned(),
    }
}

fn memory_facts(memory: &MemoryUse, connections: u64) -> [(&'static str, String); 3] {
    let phrase = |part: fn(&Memory) -> u64, whose: &str| {
        let before = part(&memory.before) as f64 / MEGABYTE;
        let highest = part(&memory.highest) as f64 / MEGABYTE;
        let each = match memory.per_connection(part, connections) {
            Some(bytes) => format!("{bytes:.1} bytes for each connection"),
            None => "no connections".to_owned(),
        };
        format!("{before:.1} MB before, {highest:.1} MB at most: {each} ({whose})")
    };
    [
        ("RSS", phrase(|memory| memory.resident, "VmRSS of the server")),
        (
            "SUnreclaim",
            phrase(
                |memory| memory.kernel,
                "whole kernel, with a client on the same machine",
            ),
        ),
        (
            "Slab",
            phrase(|memory| memory.slab, "whole kernel, with a client on the same machine"),
        ),
    ]
}

fn errors(run: &Run) -> String {
    let kinds: Vec<String> = run
        .measured
        .errors
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    match run.measured.errors.first() {
        Some(first) => format!("{} (the first: {first})", kinds.join(", ")),
        None => "none".to_owned(),
    }
}

/// Seconds with as many decimals as there are.
fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use tidegate_args::url::UnresolvedUrl;
    use tidegate_load::{Direction, Kind};

    use super::super::samples::{memory, run, with};
    use super::*;

    fn fact(run: &Run, name: &str) -> String {
        let found = facts(run).into_iter().find(|&(known, _)| known == name);
        found.map(|(_, phrase)| phrase).unwrap_or_default()
    }

    #[test]
    fn the_text_says_what_was_measured_and_how() {
        let text = text(&facts(&run(Workload::Cps { close: Close::Client })));
        for line in [
            "workload   cps: a new connection for each request, closed by the client first\n",
            "target     http://198.18.0.1:80/x\n",
            "client     bypass, 64 connections, CPU 1\n",
            "ramp       1 s, not counted\n",
            "warm-up    0.5 s, not counted\n",
            "measured   2.000 s\n",
            "operations 1000 connections\n",
            "rate       500 connections/s\n",
            "frames     7.50 for each connection (8000 sent and 7000 received in all, with the warm-up)\n",
            "open       64 connections at most, 60 at the end\n",
            "TIME-WAIT  on the client, 2MSL is 2 s\n",
            "limit      limited by the server: the client was idle 70 % of the time, its 64 connections waited for",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(text.ends_with("errors     none"), "{text}");
        let latency = text.lines().find(|line| line.starts_with("latency")).unwrap();
        for quantile in ["p50 500.", "p90 90", "p99 99", "p99.9 ", "max 1000."] {
            assert!(latency.contains(quantile), "{quantile}: {latency}");
        }
    }

    #[test]
    fn text_of_the_server_does_not_control_the_terminal() {
        let mut run = run(Workload::Rps { pipeline: 1 });
        run.measured.statuses.add([0, 1, 0, 0]);
        run.measured.first_location = Some("/\u{9b}2J".to_owned());
        run.measured.errors.add(Kind::Malformed, "not a head: \u{1b}[2J");
        let text = text(&facts(&run));
        assert!(text.contains("the first is to /\\u{9b}2J"), "{text}");
        assert!(text.contains("not a head: \\u{1b}[2J"), "{text}");
    }

    #[test]
    fn processor_time_is_told_for_each_operation_or_for_a_billion_bytes() {
        let mut run = run(Workload::Rps { pipeline: 1 });
        assert_eq!(fact(&run, "CPU"), "client 500.000 us for each request");
        run.server_cpu = Some(Duration::from_millis(3));
        let mut run = with(
            run,
            Workload::Throughput {
                direction: Direction::Up,
            },
        );
        run.measured.operations = 1_000_000_000;
        assert_eq!(fact(&run, "CPU"), "client 0.500 s, server 0.003 s for 10^9 bytes");
        run.measured.operations = 0;
        assert_eq!(fact(&run, "CPU"), "");
    }

    #[test]
    fn time_wait_is_where_the_first_fin_comes_from() {
        let run = run(Workload::Cps { close: Close::Server });
        assert!(fact(&run, "TIME-WAIT").starts_with("on the server"));
        let run = with(run, Workload::Cps { close: Close::Rst });
        assert!(fact(&run, "TIME-WAIT").starts_with("nowhere"));
        let mut run = with(run, Workload::Cps { close: Close::Client });
        run.measured.time_wait = None;
        assert!(!fact(&run, "TIME-WAIT").contains("2MSL"));
    }

    #[test]
    fn requests_that_are_not_the_usual_ones_are_told() {
        let mut run = run(Workload::Cps { close: Close::Client });
        run.plan.http.requests_per_connection = Some(5);
        let text = fact(&run, "workload");
        assert_eq!(
            text,
            "cps: a new connection for every 5 requests, closed by the client first"
        );
        let mut run = with(run, Workload::Rps { pipeline: 1 });
        run.plan.http.request.body = "hello".parse().ok();
        assert_eq!(
            fact(&run, "workload"),
            "rps: one request at a time on each connection; connections are replaced after 5 requests; POST with 5 bytes \
             of body, 0 header fields of its own"
        );
        assert!(fact(&run, "TIME-WAIT").starts_with("on the client, of connections that were replaced"));
        assert!(fact(&run, "first byte").starts_with("p50 100."));
        assert_eq!(
            (fact(&run, "close"), fact(&run, "responses")),
            (String::new(), String::new())
        );
    }

    #[test]
    fn a_name_is_told_with_its_address() {
        let mut run = run(Workload::Rps { pipeline: 1 });
        run.plan.url = "http://localhost/x"
            .parse::<UnresolvedUrl>()
            .unwrap()
            .resolve()
            .unwrap();
        let address = run.plan.url.address.ip();
        assert_eq!(
            fact(&run, "target"),
            format!("http://localhost:80/x, resolved to {address}")
        );
    }

    #[test]
    fn an_open_loop_says_what_was_due_and_what_came_of_it() {
        let mut run = run(Workload::OpenCps {
            close: Close::Rst,
            rate: 500,
        });
        run.measured.generator.starts = Some(Starts {
            due: 1_000,
            begun: 999,
            late: 2,
            held_back: 3,
            under_way: 0,
        });
        let expected =
            "cps: 500 connections/s, evenly apart, each counted from when it was due, ended by the client's RST";
        assert_eq!(fact(&run, "workload"), expected);
        assert_eq!(fact(&run, "rate"), "500 connections/s of the 500 that were due");
        assert!(
            fact(&run, "starts").starts_with("1000 due, 2 late"),
            "{}",
            fact(&run, "starts")
        );
        assert!(fact(&run, "starts").ends_with("1 never begun"));
        assert!(
            fact(&run, "limit").starts_with("neither side: "),
            "{}",
            fact(&run, "limit")
        );
        assert!(fact(&run, "TIME-WAIT").starts_with("nowhere"));
    }

    #[test]
    fn bytes_are_told_as_bytes_and_bits() {
        let mut run = run(Workload::Throughput {
            direction: Direction::Down,
        });
        run.measured.operations = 2_500_000_000;
        assert_eq!(fact(&run, "operations"), "2500000000 bytes");
        assert_eq!(fact(&run, "rate"), "1250.0 MB/s (10.000 Gbit/s)");
        assert!(fact(&run, "frames").starts_with("8000 sent"));
    }

    #[test]
    fn what_is_not_known_is_said_to_be_so() {
        let mut run = run(Workload::Hold);
        run.measured.frames = None;
        run.measured.connect = Latencies::new();
        assert!(fact(&run, "frames").starts_with("not known"));
        assert_eq!(fact(&run, "connect"), "none measured");
        assert_eq!(fact(&run, "operations"), "1000 of 64 connections answered");
        assert_eq!(fact(&run, "rate"), "");
        assert_eq!(fact(&run, "RSS"), "");
    }

    #[test]
    fn memory_is_told_for_each_connection() {
        let mut run = run(Workload::Hold);
        run.memory = Some(memory());
        assert_eq!(
            fact(&run, "RSS"),
            "1.0 MB before, 1.3 MB at most: 320.0 bytes for each connection (VmRSS of the server)"
        );
        assert!(fact(&run, "SUnreclaim").contains("640.0 bytes"));
        assert!(fact(&run, "Slab").contains(" 0.0 bytes"));
    }

    #[test]
    fn errors_are_told_by_kind_with_the_first() {
        let mut run = run(Workload::Rps { pipeline: 4 });
        run.measured.errors.add(Kind::Status, "the status is 404");
        run.measured.errors.add(Kind::Reset, "reset");
        run.measured.errors.add(Kind::Reset, "reset");
        assert_eq!(fact(&run, "errors"), "reset 2, status 1 (the first: the status is 404)");
    }
}
