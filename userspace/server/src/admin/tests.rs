use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use tidegate_runtime::{DeviceCounts, FrameCensus, PortCounters, ShardReport, SynCookieCounts, XdpCounts};
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::Population;

use super::*;

/// A snapshot of two shards, each counter of which is another, `times` over.
pub(super) fn snapshot(times: u64) -> Snapshot {
    let shard = |queue: u32| {
        let mut shard = ShardReport {
            queue,
            port: PortCounters {
                rx_frames: 1000 * times,
                turns: 100 * times,
                turns_worked: 25 * times,
                ..PortCounters::default()
            },
            population: Population {
                connections: 40 + queue,
                half_open: 2,
                time_wait: 3,
            },
            frames: FrameCensus {
                total: 100,
                pool: 60,
                ..FrameCensus::default()
            },
            cpu_time: Duration::from_millis(400 * times),
            ..ShardReport::default()
        };
        shard.tcp.add(Counter::PassiveOpens, 20 * times);
        shard.tcp.add(Counter::DropBadAck, 7 * times);
        (0..10 * times).for_each(|_| shard.latencies.rtt.record(300));
        shard.latencies.accept.record(70_000_000);
        shard
    };
    let mut services = ServiceCounts::default();
    (0..times).for_each(|_| services.response_time.record(0));
    let services = Arc::new(services);
    let started = Instant::now();
    Snapshot {
        at: started + Duration::from_secs(times),
        info: Info {
            started,
            interfaces: vec!["eth1".to_owned()],
            devices: vec!["eth1".to_owned()],
            queues: (0..2)
                .map(|queue| QueueInfo {
                    queue,
                    cpu: Some(queue as usize),
                    zero_copy: true,
                    frames: 100,
                })
                .collect(),
            xdp: "native".to_owned(),
            listeners: vec!["http=198.18.0.1:80".to_owned()],
            cookie_mode: CookieMode::Auto,
        },
        state: State::Serving,
        report: Report {
            shards: vec![shard(0), shard(1)],
            xdp: vec![XdpCounts::default(); 3],
            syn_cookies: (0..2)
                .map(|queue| SynCookieCounts {
                    queue,
                    active: queue == 1,
                    ..SynCookieCounts::default()
                })
                .collect(),
            next_hops: tidegate_runtime::NextHopCounts::default(),
            device: DeviceCounts {
                driver: [("rx_missed_errors".to_owned(), times)].into(),
                ..DeviceCounts::default()
            },
        },
        services: vec![Arc::clone(&services), services],
        output_lost: 0,
    }
}

pub(super) fn listen(limits: Limits, take: impl Fn() -> Result<Snapshot, String> + Send + Sync + 'static) -> Admin {
    Admin::serve(
        bind("127.0.0.1:0".parse().unwrap(), false).unwrap(),
        Snapshots::new(take),
        Hosts::new(&["a".to_owned()]),
        limits,
    )
    .unwrap()
}

/// Status, head and body of the response to a request.
fn ask(admin: &Admin, method: &str, path: &str) -> (u16, String, String) {
    ask_for(admin, method, "a", path)
}

/// The same for a host of this name.
fn ask_for(admin: &Admin, method: &str, host: &str, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(admin.address).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

fn get(admin: &Admin, path: &str) -> (u16, String) {
    let (status, _, body) = ask(admin, "GET", path);
    (status, body)
}

#[test]
fn everything_that_is_served_has_its_type_and_nothing_else_is_served() {
    let admin = listen(Limits::default(), || Ok(snapshot(1)));
    for (path, media_type) in [
        ("/", "text/html"),
        ("/metrics", "application/openmetrics-text"),
        ("/healthz", "text/plain"),
        ("/readyz", "text/plain"),
        ("/api/v1/report", "application/json"),
        ("/api/v1/info", "application/json"),
    ] {
        let (status, head, body) = ask(&admin, "GET", path);
        assert_eq!(status, 200, "{path}");
        assert!(head.contains(&format!("content-type: {media_type}")), "{head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
        assert_eq!(
            head.contains("content-security-policy: default-src 'none'"),
            path == "/"
        );
        assert!(!body.is_empty(), "{path}");
        let (status, _, body) = ask(&admin, "HEAD", path);
        assert_eq!((status, body.as_str()), (200, ""), "{path}");
        assert_eq!(ask(&admin, "POST", path).0, 405, "{path}");
    }
    assert_eq!(get(&admin, "/metrics/").0, 404);
}

#[test]
fn a_request_for_a_name_of_another_host_is_misdirected_but_for_health() {
    let admin = listen(Limits::default(), || Ok(snapshot(1)));
    for (path, status) in [
        ("/", 421),
        ("/metrics", 421),
        ("/api/v1/report", 421),
        ("/api/v1/rates", 421),
        ("/none", 421),
        ("/healthz", 200),
        ("/readyz", 200),
    ] {
        let (found, head, body) = ask_for(&admin, "GET", "attacker.example:9464", path);
        assert_eq!(found, status, "{path}: {head}");
        assert_eq!(status == 421, body.contains("admin_hosts"), "{path}: {body}");
    }
}

#[test]
fn health_is_that_of_the_shards_and_readiness_that_of_the_server() {
    let next = Arc::new(Mutex::new(Ok(State::Serving)));
    let taken = Arc::clone(&next);
    let admin = listen(Limits::default(), move || {
        let state = taken.lock().unwrap().clone()?;
        Ok(Snapshot { state, ..snapshot(1) })
    });
    let failure = "the shard of queue 1 has failed: it did not answer within 1s";
    for (state, health, readiness) in [
        (Ok(State::Serving), (200, "ok"), (200, "ok")),
        (Ok(State::Draining), (200, "ok"), (503, "draining")),
        (
            Ok(State::Waiting),
            (200, "ok"),
            (503, "waiting for the interface to come back"),
        ),
        (Err(failure.to_owned()), (503, failure), (503, failure)),
    ] {
        *next.lock().unwrap() = state;
        // Until the last snapshot is too old.
        thread::sleep(Duration::from_millis(120));
        for (path, (status, text)) in [("/healthz", health), ("/readyz", readiness)] {
            assert_eq!(get(&admin, path), (status, format!("{text}\n")), "{path}");
        }
    }
    assert_eq!(get(&admin, "/metrics").0, 503);
    admin.note_stopping();
    assert_eq!(get(&admin, "/healthz").0, 200);
    assert_eq!(get(&admin, "/readyz").0, 503);
    assert_eq!(get(&admin, "/metrics").0, 200, "the last there was");
}

#[test]
fn those_who_ask_together_share_one_snapshot() {
    const CLIENTS: usize = 30;
    let takes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&takes);
    let admin = listen(Limits::default(), move || {
        counted.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(50));
        Ok(snapshot(1))
    });
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| assert_eq!(get(&admin, "/healthz").0, 200));
        }
    });
    let takes = takes.load(Ordering::Relaxed);
    assert!(
        (1..CLIENTS / 2).contains(&takes),
        "{takes} snapshots for {CLIENTS} clients"
    );
}

#[test]
fn clients_that_say_or_read_nothing_make_room_for_others() {
    let limits = Limits {
        connections: 2,
        head_time: Duration::from_millis(50),
        connection_time: Duration::from_millis(50),
        last_response_time: Duration::from_millis(50),
    };
    let admin = listen(limits, || Ok(snapshot(1)));
    let silent: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(admin.address).unwrap()).collect();
    let deaf: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut stream = TcpStream::connect(admin.address).unwrap();
            // More than both sides' buffers have room for.
            let requests = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2000);
            stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
            let _ = stream.write_all(requests.as_bytes());
            stream
        })
        .collect();
    assert_eq!(get(&admin, "/healthz").0, 200);
    drop((silent, deaf));
}

#[test]
fn rates_are_taken_between_snapshots_and_populations_are_not() {
    let now = snapshot(3);
    let mut before = snapshot(1);
    before.info.started = now.info.started;
    before.at = now.at - Duration::from_secs(2);
    let rates = api::rates(&before, &now);
    assert_eq!(rates["seconds"], 2.0);
    assert_eq!(rates["rates"]["connections"], 40.0);
    assert_eq!(rates["rates"]["rx_frames"], 2000.0);
    assert_eq!(rates["connections"]["open"], 81);
    assert_eq!(rates["shards"][1]["cpu"], 0.4);
    assert_eq!(rates["shards"][1]["worked"], 0.25);
    assert_eq!(rates["shards"][0]["cookies"], false);
    assert_eq!(
        (&rates["flood"], &rates["shards"][1]["cookies"]),
        (&true.into(), &true.into())
    );
    assert_eq!(rates["latencies_us"]["rtt"]["count"], 40);
    assert_eq!(rates["latencies_us"]["accept"]["p50"], serde_json::Value::Null);
    let drops = rates["drops"].as_array().unwrap();
    let names: Vec<&str> = drops.iter().map(|drop| drop["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["tcp_drop_bad_ack", "driver_rx_missed_errors"]);
    assert_eq!((&drops[0]["rate"], &drops[0]["total"]), (&14.0.into(), &42.into()));
}

#[test]
fn the_first_who_asks_for_rates_gets_those_of_a_while() {
    let take = || {
        Ok(Snapshot {
            at: Instant::now(),
            ..snapshot(1)
        })
    };
    let (status, rates) = get(&listen(Limits::default(), take), "/api/v1/rates");
    assert_eq!(status, 200, "{rates}");
    let rates: serde_json::Value = serde_json::from_str(&rates).unwrap();
    let seconds = rates["seconds"].as_f64().unwrap();
    assert!((0.5..=5.0).contains(&seconds), "{seconds} s");
}

#[test]
fn a_report_has_what_sigusr1_prints() {
    let snapshot = snapshot(2);
    let report = api::report(&snapshot);
    let text = crate::counters_text::counters_text(&snapshot.rows());
    let mut lines = 0;
    for line in text.lines() {
        let (name, value) = line.split_once(' ').unwrap();
        let value: u64 = value.parse().unwrap();
        let found = match name.split_once("{queue=\"") {
            Some((name, queue)) => &report["counters"][name]["queues"][queue.trim_end_matches("\"}")],
            None => &report["counters"][name]["total"],
        };
        assert_eq!(*found, value, "{line}");
        lines += 1;
    }
    assert!(lines > 300, "only {lines} lines");
}

#[test]
fn a_process_that_takes_over_has_the_address_when_the_one_before_has_left_it() {
    let before = bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let address = before.local_addr().unwrap();
    assert!(bind(address, false).is_err());
    thread::scope(|scope| {
        let taken = scope.spawn(|| bind(address, true));
        close(&before);
        assert_eq!(taken.join().unwrap().unwrap().local_addr().unwrap(), address);
    });
    assert!(before.accept().is_err());
}
