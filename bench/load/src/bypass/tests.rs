//! Application and driver against a server on another engine, in memory, with a clock that is turned by hand.

mod http;
mod phases;
mod world;

use std::sync::Arc;
use std::time::Duration;

use tidegate_args::UsageError;
use tidegate_nic::{PeerQueues, RssHash};
use tidegate_runtime::{InterfaceInfo, ShardTask as _, WaitStrategy};
use tidegate_tcp::engine::Population;

use self::world::{OK, Server, World, interface, server, source_port};
use crate::body::Verify;
use crate::bypass::settings::Settings;
use crate::bypass::tuples::{Share, Steering};
use crate::bypass::{BypassClient, check_queues, check_wait};
use crate::progress::Progress;
use crate::{Arrival, Client, Close, Direction, Measured, Plan, Ramp, Workload};

fn plan(workload: Workload) -> Plan {
    Plan {
        url: "http://198.18.0.1/".parse().unwrap(),
        workload,
        connections: 4,
        ramp: Ramp::default(),
        warm_up: Duration::from_millis(20),
        duration: Duration::from_millis(100),
        verify: Verify::default(),
        spread: None,
        arrival: Arrival::Constant,
        cpu: None,
        http: crate::HttpOptions::default(),
    }
}

/// Runs against `server`; the outcome, and what both sides are left with.
fn run(plan: &Plan, settings: &Settings, server: Server) -> (Measured, Population, Population) {
    let mut world = World::new(plan, settings, server);
    let found = world.run(plan, settings);
    (found, world.client.population(), world.server.population())
}

fn find(workload: Workload, server: Server) -> Measured {
    run(&plan(workload), &Settings::new("tgc0"), server).0
}

fn errors(measured: &Measured) -> Vec<&'static str> {
    measured.errors.iter().map(|(kind, _)| kind).collect()
}

#[track_caller]
fn assert_without_errors(measured: &Measured) {
    assert_eq!(measured.errors.total(), 0, "{:?}", measured.errors);
    assert!(measured.operations > 0);
    assert!(measured.operations_with_warm_up > measured.operations);
    let frames = measured.frames.unwrap();
    assert!(frames.sent > 0 && frames.received > 0);
}

#[test]
fn new_connections_end_as_they_should() {
    for url in ["http://198.18.0.1/", "http://[2001:2::1]/"] {
        for close in [Close::Client, Close::Server, Close::Rst] {
            let plan = Plan {
                url: url.parse().unwrap(),
                ..plan(Workload::Cps { close })
            };
            let settings = Settings::new("tgc0");
            let (found, client, server) = run(&plan, &settings, server(OK));
            assert_without_errors(&found);
            // SYN, SYN-ACK, request and response: two ways there and back.
            assert!(found.operations > 1_000, "{close:?}: {}", found.operations);
            assert_eq!(found.latency.quantiles().unwrap().p50.round(), 200.0, "{close:?}");
            assert_eq!(found.connect.quantiles().unwrap().p50.round(), 100.0, "{close:?}");
            assert_eq!(client.time_wait > 0, close == Close::Client);
            assert_eq!(server.time_wait > 0, close == Close::Server);
            let time_wait = (close == Close::Client).then_some(Duration::from_secs(2));
            assert_eq!(found.time_wait, time_wait);
        }
    }
}

#[test]
fn ports_in_time_wait_are_skipped_and_missed_when_there_are_no_others() {
    let mut settings = Settings::new("tgc0");
    settings.ports = 2000..=2009;
    let plan = Plan {
        warm_up: Duration::ZERO,
        ..plan(Workload::Cps { close: Close::Client })
    };
    let (found, client, _) = run(&plan, &settings, server(OK));
    assert_eq!((found.operations, client.time_wait), (10, 10));
    assert_eq!(errors(&found), ["no_port"]);

    settings.msl = Duration::from_millis(1);
    let (found, ..) = run(&plan, &settings, server(OK));
    assert!(found.operations > 20, "{}", found.operations);
}

#[test]
fn pairs_whose_answers_arrive_on_another_queue_are_used_when_there_are_no_others() {
    let mut settings = Settings::new("tgc0");
    settings.ports = 2000..=2009;
    let plan = Plan {
        connections: 8,
        warm_up: Duration::ZERO,
        ..plan(Workload::Rps { pipeline: 1 })
    };
    let four = Plan {
        connections: 4,
        ..plan.clone()
    };
    let mut other = World::new(&four, &settings, server(OK));
    other.step();
    other.step_server();
    let answers = other.to_client.frames;
    assert_eq!(answers.len(), 4, "SYN-ACKs to the first four pairs");

    let mut world = World::new(&plan, &settings, server(OK));
    for answer in &answers {
        world.driver.arrived_elsewhere(answer);
    }
    world.step();
    let used: Vec<u16> = world.to_server.frames.iter().map(|frame| source_port(frame)).collect();
    assert_eq!(used, [2004, 2005, 2006, 2007, 2008, 2009, 2000, 2001]);
    let found = world.run(&plan, &settings);
    assert_eq!(found.errors.total(), 0, "{:?}", found.errors);
    assert_eq!(world.client.population().connections, 8);
}

/// The queue on which a device with `hash` and `table` receives a TCP segment in IPv4 without options, or in IPv6: bit
/// by bit, as Microsoft's documentation has it.
fn receive_queue(frame: &[u8], hash: &RssHash, table: &[u32]) -> u32 {
    let hashed = match frame[14] >> 4 {
        4 => &frame[26..38],
        _ => &frame[22..58],
    };
    let bits = |octets: &[u8]| -> Vec<bool> {
        octets
            .iter()
            .flat_map(|octet| (0..8).map(move |bit| octet >> (7 - bit) & 1 == 1))
            .collect()
    };
    let key = bits(&hash.key);
    let found = bits(hashed)
        .iter()
        .enumerate()
        .filter(|(_, is_set)| **is_set)
        .fold(0_u32, |found, (place, _)| {
            let window = key[place..place + 32].iter();
            found ^ window.fold(0, |window, &bit| window << 1 | u32::from(bit))
        });
    table[found as usize % table.len()]
}

#[test]
fn answers_arrive_on_the_queue_of_the_shard_that_asked_where_it_is_known_how_the_device_hashes() {
    let hash = RssHash {
        function: 1,
        key: (0..40).map(|octet: u8| octet.wrapping_mul(59) ^ 0xa5).collect(),
        ..RssHash::default()
    };
    for (url, queues) in [
        ("http://198.18.0.1/", 2),
        ("http://198.18.0.1/", 4),
        ("http://[2001:2::1]/", 4),
    ] {
        let plan = Plan {
            url: url.parse().unwrap(),
            connections: 32,
            ..plan(Workload::Cps { close: Close::Client })
        };
        let settings = Settings::new("tgc0");
        let table: Vec<u32> = (0..128).map(|entry| entry % queues).collect();
        let address = settings.addresses(plan.target().ip(), &interface()).unwrap();
        let by_target = PeerQueues::new(&hash, &table, plan.target()).expect("it can be computed");
        let steering = Arc::new(Steering::new(address, &settings.ports, by_target, queues));
        for index in 0..queues {
            let share = Share { index, of: queues };
            let mut world = World::of_shard(&plan, &settings, server(OK), share, Some(&steering));
            let mut answers = 0;
            for _ in 0..200 {
                world.step();
                world.step_server();
                for frame in &world.to_client.frames {
                    answers += 1;
                    assert_eq!(receive_queue(frame, &hash, &table), index, "{url}, {queues} queues");
                }
            }
            assert!(answers > 1_000, "{answers}");
            let found = world.run(&plan, &settings);
            assert_eq!(found.errors.total(), 0, "{url}, {queues} queues: {:?}", found.errors);
        }
    }
}

#[test]
fn connections_that_get_no_answer_all_the_time_are_errors_beside_others_that_do() {
    for workload in [Workload::Cps { close: Close::Rst }, Workload::Rps { pipeline: 4 }] {
        for (millis, stuck) in [(100, 0), (1_000, 2)] {
            let plan = Plan {
                duration: Duration::from_millis(millis),
                ..plan(workload)
            };
            let settings = Settings::new("tgc0");
            // One connection is established and gets no answer, and another one is not even established.
            let silent_to_one = Server {
                silent: 1,
                ..server(OK)
            };
            let mut world = World::new(&plan, &settings, silent_to_one);
            world.cut_off = Some(*settings.ports.start());
            let found = world.run(&plan, &settings);
            assert!(found.operations > 0, "{workload:?}");
            assert_eq!(found.errors.total(), stuck, "{workload:?}: {:?}", found.errors);
            assert!(errors(&found).iter().all(|&kind| kind == "unfinished"), "{workload:?}");
        }
    }
}

#[test]
fn a_handshake_that_failed_is_not_waited_for() {
    // The SYN of one connection is lost until the engine gives it up, which is before the measurement begins.
    let plan = Plan {
        warm_up: Duration::from_secs(16),
        duration: Duration::from_secs(1),
        ..plan(Workload::Rps { pipeline: 1 })
    };
    let settings = Settings::new("tgc0");
    let silent = Server {
        silent: u32::MAX,
        ..server(OK)
    };
    let mut world = World::new(&plan, &settings, silent);
    world.cut_off = Some(*settings.ports.start());
    let found = world.run(&plan, &settings);
    assert_eq!(
        world.client.application().openings.noted().count(),
        1,
        "it is remembered"
    );
    // The other connections, and the one in its place.
    assert_eq!(found.errors.iter().collect::<Vec<_>>(), [("unfinished", 4)]);
}

#[test]
fn requests_follow_each_other_on_connections_that_stay_open() {
    let mut last = 0;
    for pipeline in [1, 8] {
        let (found, client, server) = run(&plan(Workload::Rps { pipeline }), &Settings::new("tgc0"), server(OK));
        assert_without_errors(&found);
        assert_eq!(found.latency.len(), found.operations);
        assert_eq!(found.latency.quantiles().unwrap().p50.round(), 100.0);
        assert_eq!(found.connect.len(), 0, "all were opened during the warm-up");
        assert_eq!((client.connections, server.connections), (4, 4));
        assert!(found.operations > 4 * last);
        last = found.operations;
    }
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let found = find(Workload::Latency { rate: 3_000 }, server(OK));
    assert_without_errors(&found);
    assert!((295..=305).contains(&found.operations), "{}", found.operations);
    // What is due between two turns waits for the next.
    assert!((100.0..201.0).contains(&found.latency.quantiles().unwrap().p50));
}

#[test]
fn what_is_due_counts_even_if_no_connection_is_free_for_it() {
    // Each of the 4 connections carries a request at a time, which takes 100 us: 40,000 a second, and more are due.
    let found = find(Workload::Latency { rate: 50_000 }, server(OK));
    assert!((3_950..=4_050).contains(&found.operations), "{}", found.operations);
    // At the end of the measurement a part was still waiting, and it was answered afterwards.
    assert_eq!(found.errors.total(), 0, "{:?}", found.errors);
    assert!(found.latency.len() >= 5_000);
    assert!(
        found.latency.quantiles().unwrap().max > 25_000.0,
        "{}",
        found.latency.quantiles().unwrap().max
    );
}

fn open_cps(rate: u64) -> Workload {
    Workload::OpenCps {
        close: Close::Client,
        rate,
    }
}

#[test]
fn connections_of_an_open_loop_keep_their_rate() {
    let found = find(open_cps(3_000), server(OK));
    assert_without_errors(&found);
    assert!((295..=305).contains(&found.operations), "{}", found.operations);
    let starts = found.generator.starts.unwrap();
    assert_eq!((starts.due, starts.begun), (300, 300));
    assert_eq!((starts.late, starts.held_back), (0, 0));
    assert_eq!(found.time_wait, Some(Duration::from_secs(2)));
    // From when it was due, which is between two turns: 100 us for the handshake and as much for the response.
    assert!((200.0..301.0).contains(&found.latency.quantiles().unwrap().p50));
    assert!(found.connect.quantiles().unwrap().p50 >= 100.0);
}

#[test]
fn poisson_arrivals_repeat_with_their_seed() {
    let due = |seed| {
        let plan = Plan {
            arrival: Arrival::Poisson { seed },
            ..plan(open_cps(3_000))
        };
        run(&plan, &Settings::new("tgc0"), server(OK))
            .0
            .generator
            .starts
            .unwrap()
            .due
    };
    assert_eq!(due(1), due(1));
    assert!((200..400).contains(&due(2)), "{}", due(2));
    assert!((1..10).any(|seed| due(seed) != 300));
}

#[test]
fn connections_that_are_due_wait_for_a_place_and_that_counts() {
    // Each of 4 connections takes 200 us: 20,000 a second, and more are due.
    let found = find(open_cps(30_000), server(OK));
    assert!((1_900..=2_100).contains(&found.operations), "{}", found.operations);
    let starts = found.generator.starts.unwrap();
    // What is due at the end is still begun afterwards.
    assert_eq!((starts.due, starts.begun, starts.late), (3_000, 3_000, 0));
    assert!(starts.held_back > 2_500, "{starts:?}");
    assert!(found.latency.quantiles().unwrap().p50 > 10_000.0);
    assert!(found.connect.quantiles().unwrap().p50 > 10_000.0);
}

#[test]
fn requests_without_an_answer_are_errors() {
    let found = find(Workload::Latency { rate: 3_000 }, server(""));
    assert_eq!((found.operations, found.latency.len()), (0, 0));
    // With those of the warm-up.
    let count: Vec<_> = found.errors.iter().collect();
    assert_eq!(count, [("unfinished", 360)]);
}

/// A short one: nothing limits the rate of this link.
fn bulk(direction: Direction) -> Plan {
    Plan {
        warm_up: Duration::from_millis(2),
        duration: Duration::from_millis(6),
        ..plan(Workload::Throughput { direction })
    }
}

#[test]
fn bodies_are_counted_in_bytes() {
    let mut response = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".to_vec();
    response.resize(response.len() + 100_000, b'x');
    let plan = bulk(Direction::Down);
    let (found, ..) = run(&plan, &Settings::new("tgc0"), server(response));
    assert_without_errors(&found);
    assert!(!found.latency.is_empty());
    let whole = found.latency.len() * 100_000;
    assert!(
        found.operations.abs_diff(whole) < 4 * 100_000,
        "{} of {whole}",
        found.operations
    );
}

#[test]
fn what_is_sent_to_a_discard_service_arrives() {
    let plan = bulk(Direction::Up);
    let settings = Settings::new("tgc0");
    let discard = Server {
        discards: true,
        ..server("")
    };
    let mut world = World::new(&plan, &settings, discard);
    let found = world.run(&plan, &settings);
    assert_without_errors(&found);
    let (sent, received) = (found.operations_with_warm_up, world.server.application().received);
    // The rest is on its way.
    assert!(received <= sent && sent - received < sent / 2, "{received} of {sent}");
}

#[test]
fn held_connections_stay_open_and_answer_at_the_end_and_are_closed() {
    let mut settings = Settings::new("tgc0");
    settings.sources = Some("198.19.0.0/30".parse().unwrap());
    settings.ports = 1000..=1999;
    let plan = Plan {
        connections: 2_000,
        ..plan(Workload::Hold)
    };
    let (found, client, server) = run(&plan, &settings, server(OK));
    assert_eq!(found.errors.total(), 0, "{:?}", found.errors);
    assert_eq!(
        (found.operations, found.latency.len(), found.connect.len()),
        (2_000, 2_000, 2_000)
    );
    assert!((0.1..0.101).contains(&found.seconds), "{}", found.seconds);
    assert_eq!((client.connections, server.connections), (0, 0));
}

#[test]
fn held_connections_that_close_are_errors() {
    let plan = plan(Workload::Hold);
    let closes = Server {
        limit: Some(0),
        ..server(OK)
    };
    let (found, ..) = run(&plan, &Settings::new("tgc0"), closes);
    assert_eq!(found.operations, 0);
    assert_eq!(found.errors.iter().collect::<Vec<_>>(), [("closed_early", 4)]);
}

#[test]
fn errors_are_told_by_kind_and_connections_tried_again() {
    for workload in [
        Workload::Cps { close: Close::Client },
        Workload::Rps { pipeline: 4 },
        Workload::Throughput {
            direction: Direction::Down,
        },
    ] {
        let found = find(workload, server("220 smtp\r\n\r\n"));
        assert_eq!(errors(&found), ["malformed"], "{workload:?}");
        assert_eq!(found.operations, 0);
        // 10 ms after each other, so about 10 times on each of 4 connections.
        assert!((20..=44).contains(&found.errors.total()), "{}", found.errors.total());

        let closes = Server {
            limit: Some(0),
            ..server(OK)
        };
        let found = find(workload, closes);
        assert_eq!(errors(&found), ["closed_early"], "{workload:?}");
    }
}

#[test]
fn a_server_may_end_a_connection_when_it_has_answered_everything() {
    for workload in [Workload::Rps { pipeline: 1 }, Workload::Latency { rate: 2_000 }] {
        let polite = Server {
            limit: Some(5),
            ..server(OK)
        };
        let found = find(workload, polite);
        assert_without_errors(&found);
        assert!(found.connect.len() > 10, "{workload:?}: {}", found.connect.len());
    }
}

#[test]
fn nothing_is_sent_into_a_connection_whose_end_was_announced() {
    for (limit, last) in [
        (
            1,
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        ),
        (
            3,
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        ),
        (1, "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ] {
        for workload in [
            Workload::Rps { pipeline: 1 },
            Workload::Rps { pipeline: 7 },
            Workload::Latency { rate: 2_000 },
            Workload::Throughput {
                direction: Direction::Down,
            },
        ] {
            let polite = Server {
                limit: Some(limit),
                last_response: Some(last.into()),
                ..server(OK)
            };
            let (found, client, _) = run(&plan(workload), &Settings::new("tgc0"), polite);
            assert_without_errors(&found);
            assert!(found.announced_ends > 10, "{workload:?}: {}", found.announced_ends);
            assert_eq!(client.time_wait, 0, "the server ends them first: {workload:?}");
        }
    }
}

#[test]
fn a_client_that_sleeps_does_not_measure_latencies() {
    let latency = Workload::Latency { rate: 1_000 };
    for wait in [WaitStrategy::Poll, WaitStrategy::BusyPoll, WaitStrategy::Adaptive] {
        let mut settings = Settings::new("no-such-dev");
        settings.wait = wait;
        let error = BypassClient::new(settings)
            .run(&plan(latency), &Progress::hidden())
            .unwrap_err();
        assert!(error.is::<UsageError>(), "{error:#}");
        assert!(
            error.to_string().contains("a fixed rate needs --wait spin"),
            "{error:#}"
        );
        check_wait(Workload::Rps { pipeline: 1 }, wait).unwrap();
    }
    check_wait(latency, WaitStrategy::Spin).unwrap();
}

#[test]
fn an_interface_that_receives_on_more_queues_than_can_be_served_is_refused() {
    let interface = |queues, rx_queues| InterfaceInfo {
        mac: None,
        addresses: Vec::new(),
        queues,
        rx_queues,
    };
    for queues in [1, 4] {
        check_queues("tgc0", &interface(queues, queues)).unwrap();
    }
    let error = check_queues("tgc0", &interface(2, 8)).unwrap_err();
    assert!(error.0.contains("over 8 queues"), "{error}");
    assert!(error.0.contains("`ethtool -L tgc0 combined 2`"), "{error}");
}
