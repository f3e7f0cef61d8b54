//! The client against small servers on the loopback interface.

mod http;
mod stop;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_args::UsageError;

use tidegate_tcp::time::Instant;

use crate::body::{Body, Verify};
use crate::kernel::{KernelClient, timeout};
use crate::progress::{INTERVAL, Progress};
use crate::thread_per_connection::serve_on_loopback;
use crate::{Arrival, Client, Close, Direction, HttpOptions, Measured, Plan, Ramp, Workload};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length:";

/// Answers every request with `response`, and closes after one that asks for it.
fn answer(mut stream: TcpStream, response: &str) {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count) = stream.read(&mut buffer)
        && count > 0
    {
        received.extend_from_slice(&buffer[..count]);
        while let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let request: Vec<u8> = received.drain(..end + 4).collect();
            if stream.write_all(response.as_bytes()).is_err() {
                return;
            }
            if request.windows(5).any(|bytes| bytes == b"close") {
                return;
            }
        }
    }
}

fn hello() -> SocketAddr {
    serve_on_loopback(|stream| answer(stream, &format!("{HEAD} 5\r\n\r\nhello")))
}

/// Keeps connections and never says anything.
fn silence() -> SocketAddr {
    serve_on_loopback(say_nothing)
}

fn say_nothing(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while matches!(stream.read(&mut buffer), Ok(count) if count > 0) {}
}

/// Where nobody listens. Not a port that the kernel gives out: a client could get it and so connect to itself.
fn nobody() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

fn plan(address: SocketAddr, workload: Workload) -> Plan {
    Plan {
        url: format!("http://{address}/").parse().unwrap(),
        workload,
        connections: 3,
        ramp: Ramp::default(),
        warm_up: Duration::from_millis(20),
        // Enough for a machine on which others are busy.
        duration: Duration::from_millis(200),
        verify: Verify::default(),
        spread: None,
        arrival: Arrival::Constant,
        cpu: None,
        http: HttpOptions::default(),
    }
}

fn run(plan: &Plan) -> Measured {
    KernelClient::new().run(plan, &Progress::hidden()).unwrap()
}

fn errors(measured: &Measured) -> Vec<&'static str> {
    measured.errors.iter().map(|(kind, _)| kind).collect()
}

#[track_caller]
fn assert_right(measured: &Measured) {
    assert_eq!(measured.errors.total(), 0, "{:?}", measured.errors);
    assert!(measured.operations > 0);
    assert!(measured.operations_with_warm_up >= measured.operations);
    assert!(measured.seconds > 0.0);
}

#[test]
fn connections_end_in_every_way() {
    let address = hello();
    for close in [Close::Client, Close::Server, Close::Rst] {
        let measured = run(&plan(address, Workload::Cps { close }));
        assert_right(&measured);
        assert!(!measured.latency.is_empty(), "{close:?}");
        assert!(!measured.connect.is_empty(), "{close:?}");
        assert_eq!(measured.time_wait.is_some(), close == Close::Client);
    }
}

#[test]
fn the_server_sees_how_a_connection_ends() {
    for (close, expected) in [(Close::Client, None), (Close::Rst, Some(ErrorKind::ConnectionReset))] {
        let (sender, ends) = std::sync::mpsc::channel();
        let address = serve_on_loopback(move |mut stream| {
            let mut buffer = [0; 4096];
            if matches!(stream.read(&mut buffer), Ok(count) if count > 0) {
                let response = format!("{HEAD} 0\r\n\r\n");
                if stream.write_all(response.as_bytes()).is_ok() {
                    let end = stream.read(&mut buffer).err().map(|error| error.kind());
                    // Nobody listens any more when the test is over.
                    let _ = sender.send(end);
                }
            }
        });
        assert_right(&run(&plan(address, Workload::Cps { close })));
        assert_eq!(ends.recv().unwrap(), expected, "{close:?}");
    }
}

#[test]
fn requests_are_answered_with_and_without_pipelining() {
    let address = hello();
    for pipeline in [1, 7, 64] {
        let measured = run(&plan(address, Workload::Rps { pipeline }));
        assert_right(&measured);
        assert_eq!(measured.latency.len(), measured.operations);
        // Connections stay open, so there are only those of the beginning, if the warm-up was not enough for them.
        assert!(measured.connect.len() <= 3);
    }
}

#[test]
fn a_server_that_ends_connections_between_requests_is_served_by_new_ones() {
    let address = serve_on_loopback(|mut stream| {
        let mut buffer = [0; 4096];
        if matches!(stream.read(&mut buffer), Ok(count) if count > 0) {
            let response = format!("{HEAD} 1\r\n\r\nx");
            // An error shows in what the client counts.
            let _ = stream.write_all(response.as_bytes());
        }
    });
    let measured = run(&plan(address, Workload::Rps { pipeline: 1 }));
    assert!(measured.operations > 0, "{:?}", measured.errors);
    assert!(!measured.connect.is_empty());
}

/// Answers `each` requests of a connection, announces the end with the last response and throws away what else comes.
fn end_after(mut stream: TcpStream, each: usize, version: &str, announcement: &str) {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    for number in 1..=each {
        let end = loop {
            if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
            match stream.read(&mut buffer) {
                Ok(count) if count > 0 => received.extend_from_slice(&buffer[..count]),
                _ => return,
            }
        };
        received.drain(..end + 4);
        let announcement = if number == each { announcement } else { "" };
        let response = format!("{version} 200 OK\r\n{announcement}Content-Length: 5\r\n\r\nhello");
        if stream.write_all(response.as_bytes()).is_err() {
            return;
        }
    }
    // A server takes its time to close, and a request that comes meanwhile is answered by RST.
    std::thread::sleep(Duration::from_millis(1));
}

#[test]
fn nothing_is_sent_into_a_connection_whose_end_was_announced() {
    for (each, version, announcement) in [
        (1, "HTTP/1.1", "Connection: close\r\n"),
        (3, "HTTP/1.1", "Connection: close\r\n"),
        (1, "HTTP/1.0", ""),
    ] {
        let address = serve_on_loopback(move |stream| end_after(stream, each, version, announcement));
        for workload in [
            Workload::Rps { pipeline: 1 },
            Workload::Rps { pipeline: 7 },
            // Each needs a connection of its own, also on a machine that is busy.
            Workload::Latency { rate: 50 },
            Workload::Throughput {
                direction: Direction::Down,
            },
        ] {
            let measured = run(&plan(address, workload));
            assert_right(&measured);
            assert!(measured.announced_ends > 0, "{workload:?}");
            assert!(!measured.connect.is_empty(), "{workload:?}");
        }
        if each == 1 {
            assert_right(&run(&plan(address, Workload::Cps { close: Close::Server })));
        }
    }
}

#[test]
fn a_body_without_length_ends_with_its_connection() {
    let address = serve_on_loopback(|mut stream| {
        if matches!(stream.read(&mut [0; 4096]), Ok(count) if count > 0) {
            // An error shows in what the client counts.
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello");
        }
    });
    for workload in [
        Workload::Cps { close: Close::Client },
        Workload::Cps { close: Close::Server },
        Workload::Rps { pipeline: 1 },
        Workload::Throughput {
            direction: Direction::Down,
        },
    ] {
        let measured = run(&Plan {
            verify: Verify::Equal(Body::of(b"hello")),
            ..plan(address, workload)
        });
        assert_right(&measured);
        assert!(!measured.latency.is_empty(), "{workload:?}");
    }
}

#[test]
fn an_end_that_is_announced_and_does_not_come_is_an_error() {
    let address = serve_on_loopback(|mut stream| {
        let response = format!("{HEAD} 0\r\nConnection: close\r\n\r\n");
        if matches!(stream.read(&mut [0; 4096]), Ok(count) if count > 0)
            && stream.write_all(response.as_bytes()).is_ok()
        {
            say_nothing(stream);
        }
    });
    let mut plan = plan(address, Workload::Rps { pipeline: 1 });
    plan.duration = Duration::from_millis(1_050);
    assert_eq!(errors(&run(&plan)), ["unfinished"]);
}

#[test]
fn an_open_loop_makes_as_many_requests_as_are_due() {
    let plan = plan(hello(), Workload::Latency { rate: 1_000 });
    let measured = run(&plan);
    assert_right(&measured);
    // As many as are due in the time that was measured, but for those around its beginning and its end.
    let due = measured.seconds * 1_000.0;
    assert!(
        measured.operations as f64 <= due + 100.0,
        "{} of {due}",
        measured.operations
    );
    assert!(measured.latency.len() >= measured.operations);
}

#[test]
fn what_is_due_at_a_server_that_stands_still_is_unfinished() {
    let mut plan = plan(silence(), Workload::Latency { rate: 1_000 });
    plan.warm_up = Duration::ZERO;
    plan.duration = Duration::from_millis(60);
    let measured = run(&plan);
    assert_eq!(measured.operations, 0);
    assert_eq!(errors(&measured), ["unfinished"]);
    // All that were due, although only three connections could take one each.
    assert_eq!(measured.errors.total(), 60);
}

fn open_cps(rate: u64) -> Workload {
    Workload::OpenCps {
        close: Close::Rst,
        rate,
    }
}

#[test]
fn connections_of_an_open_loop_are_begun_when_they_are_due() {
    for arrival in [Arrival::Constant, Arrival::Poisson { seed: 1 }] {
        let plan = Plan {
            connections: 1_000,
            arrival,
            ..plan(hello(), open_cps(1_000))
        };
        let measured = run(&plan);
        assert_right(&measured);
        let starts = measured.generator.starts.unwrap();
        // 200 on average; the standard deviation of a Poisson process is 14.
        assert!((100..=300).contains(&starts.due), "{starts:?}");
        assert_eq!((starts.begun, starts.missed()), (starts.due, 0));
        assert!(measured.latency.len() >= starts.due && measured.connect.len() >= starts.due);
        assert!((0.0..=1.0).contains(&measured.generator.busy));
    }
}

#[test]
fn connections_that_are_due_while_all_wait_are_held_back_and_missed() {
    let mut plan = plan(silence(), open_cps(1_000));
    plan.warm_up = Duration::ZERO;
    let measured = run(&plan);
    assert_eq!(measured.operations, 0);
    // Three are begun and never answered; the others find no place.
    let starts = measured.generator.starts.unwrap();
    assert_eq!((starts.due, starts.begun, starts.missed()), (200, 3, 197));
    assert_eq!(errors(&measured), ["unfinished"]);
    assert_eq!(measured.errors.total(), 200);
    assert!(measured.limit(&plan).is_none(), "there is nothing to judge");
}

#[test]
fn connections_of_an_open_loop_that_are_refused_are_errors() {
    let measured = run(&plan(nobody(), open_cps(500)));
    assert_eq!((measured.operations, errors(&measured)), (0, vec!["refused"]));
}

#[test]
fn bytes_are_counted_in_both_directions() {
    let body = "x".repeat(300_000);
    let response = format!("{HEAD} 300000\r\n\r\n{body}");
    let address = serve_on_loopback(move |stream| answer(stream, &response));
    let direction = Direction::Down;
    assert_right(&run(&plan(address, Workload::Throughput { direction })));

    let direction = Direction::Up;
    let measured = run(&plan(silence(), Workload::Throughput { direction }));
    assert_right(&measured);
    assert_eq!(measured.latency.len(), 0);
}

#[test]
fn held_connections_answer_at_the_end() {
    let mut plan = plan(hello(), Workload::Hold);
    plan.connections = 40;
    let measured = run(&plan);
    assert_eq!(measured.errors.total(), 0, "{:?}", measured.errors);
    assert_eq!((measured.operations, measured.operations_with_warm_up), (40, 40));
    assert_eq!((measured.connect.len(), measured.latency.len()), (40, 40));
    assert!(measured.seconds >= plan.duration.as_secs_f64());
}

#[test]
fn held_connections_that_the_server_closes_are_errors() {
    let measured = run(&plan(serve_on_loopback(drop), Workload::Hold));
    assert_eq!(measured.operations, 0);
    assert_eq!(measured.errors.total(), 3, "{:?}", measured.errors);
}

#[test]
fn a_server_that_refuses_is_an_error_in_every_workload() {
    let address = nobody();
    for workload in [
        Workload::Cps { close: Close::Client },
        Workload::Rps { pipeline: 2 },
        Workload::Throughput {
            direction: Direction::Up,
        },
        Workload::Throughput {
            direction: Direction::Down,
        },
        Workload::Hold,
    ] {
        let measured = run(&plan(address, workload));
        assert_eq!(measured.operations, 0);
        assert_eq!(errors(&measured), ["refused"], "{workload:?}");
    }
}

#[test]
fn silence_is_an_error() {
    let address = silence();
    for workload in [
        Workload::Cps { close: Close::Client },
        Workload::Rps { pipeline: 2 },
        Workload::Throughput {
            direction: Direction::Down,
        },
    ] {
        let measured = run(&plan(address, workload));
        assert_eq!(errors(&measured), ["unfinished"], "{workload:?}");
    }
}

/// A server that answers all connections but the first.
fn silent_to_the_first() -> SocketAddr {
    let is_first = Arc::new(AtomicBool::new(true));
    serve_on_loopback(move |stream| {
        if is_first.swap(false, Ordering::Relaxed) {
            say_nothing(stream);
        } else {
            answer(stream, &format!("{HEAD} 0\r\n\r\n"));
        }
    })
}

#[test]
fn a_connection_that_is_never_answered_is_an_error_beside_others_that_are() {
    for workload in [Workload::Cps { close: Close::Rst }, Workload::Rps { pipeline: 2 }] {
        for (millis, errors) in [(150, 0), (1_050, 1)] {
            let address = silent_to_the_first();
            let measured = run(&Plan {
                duration: Duration::from_millis(millis),
                ..plan(address, workload)
            });
            assert!(measured.operations > 0, "{workload:?}, {millis} ms");
            let found: Vec<_> = measured.errors.iter().collect();
            let expected = [("unfinished", 1)];
            assert_eq!(found, expected[..errors], "{workload:?}, {millis} ms");
        }
    }
}

#[test]
fn with_verification_every_request_has_to_be_answered_at_the_end() {
    let address = silent_to_the_first();
    // After a second it would have been counted as stalled as well.
    let measured = run(&Plan {
        duration: Duration::from_millis(1_050),
        verify: Verify::Alike,
        ..plan(address, Workload::Rps { pipeline: 1 })
    });
    assert!(measured.operations > 0);
    assert_eq!(measured.errors.iter().collect::<Vec<_>>(), [("unfinished", 1)]);
}

#[test]
fn with_verification_a_body_may_be_under_way_at_the_end() {
    let address = serve_on_loopback(|mut stream| {
        let mut text = format!("{HEAD} 1000000\r\n\r\n");
        while stream.write_all(text.as_bytes()).is_ok() {
            std::thread::sleep(Duration::from_millis(1));
            text = "x".repeat(100);
        }
    });
    assert_right(&run(&Plan {
        verify: Verify::Alike,
        ..plan(
            address,
            Workload::Throughput {
                direction: Direction::Down,
            },
        )
    }));
}

/// Serves `bodies` in turn on each connection.
fn serve_in_turn(bodies: &'static [&'static str]) -> SocketAddr {
    serve_on_loopback(move |mut stream| {
        let mut buffer = [0; 1024];
        for body in bodies.iter().cycle() {
            // Requests are far smaller than a segment, so each comes in one piece.
            if !matches!(stream.read(&mut buffer), Ok(count) if count > 0) {
                return;
            }
            let response = format!("{HEAD} {}\r\n\r\n{body}", body.len());
            if stream.write_all(response.as_bytes()).is_err() {
                return;
            }
        }
    })
}

#[test]
fn a_body_that_changes_is_an_error() {
    for (bodies, verify, expected) in [
        (&["hello", "hullo"][..], Verify::Length, None),
        (&["hello", "hullo"], Verify::Alike, Some("content")),
        (&["hullo"], Verify::Equal(Body::of(b"hello")), Some("content")),
        (&["hello", "hell"], Verify::Length, Some("length")),
        (&["hello", "hell"], Verify::Alike, Some("length")),
        (&["hello"], Verify::Equal(Body::of(b"hell")), Some("length")),
    ] {
        let measured = run(&Plan {
            verify,
            ..plan(serve_in_turn(bodies), Workload::Rps { pipeline: 1 })
        });
        assert_eq!(errors(&measured).first().copied(), expected, "{bodies:?}, {verify:?}");
        if verify == Verify::Alike {
            assert!(
                [
                    Some(Body::of(b"hello")),
                    Some(Body::of(b"hell")),
                    Some(Body::of(b"hullo"))
                ]
                .contains(&measured.body)
            );
        }
    }
}

/// 20 connections, begun within 20 ms, that ask for "hello".
fn spread(address: SocketAddr, tail: Duration) -> Measured {
    run(&Plan {
        connections: 20,
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(20),
        verify: Verify::Equal(Body::of(b"hello")),
        spread: Some(tail),
        ..plan(address, Workload::Cps { close: Close::Server })
    })
}

const TAIL: Duration = Duration::from_secs(5);

#[test]
fn connections_that_are_tried_once_are_counted_and_timed() {
    let measured = spread(hello(), TAIL);
    assert_eq!(measured.errors.total(), 0, "{:?}", measured.errors);
    assert_eq!(
        (measured.operations, measured.connect.len(), measured.latency.len()),
        (20, 20, 20)
    );
    assert!(measured.connect.quantiles().unwrap().max <= measured.latency.quantiles().unwrap().max);
}

#[test]
fn a_connection_that_is_tried_once_counts_when_it_is_answered() {
    let address = serve_on_loopback(|mut stream| {
        if stream.write_all(format!("{HEAD} 5\r\n\r\nhello").as_bytes()).is_ok() {
            say_nothing(stream);
        }
    });
    let measured = spread(address, TAIL);
    assert_eq!(measured.errors.total(), 0, "{:?}", measured.errors);
    assert_eq!(measured.operations, 20);
}

#[test]
fn a_connection_that_is_tried_once_may_fail_in_every_way() {
    for (response, kind) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhullo", "content"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhell", "length"),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "status"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", "closed_early"),
    ] {
        let address = serve_on_loopback(move |stream| answer(stream, response));
        let measured = spread(address, TAIL);
        assert_eq!(measured.operations, 0);
        assert_eq!(measured.errors.iter().collect::<Vec<_>>(), [(kind, 20)]);
    }
    let refused = spread(nobody(), TAIL);
    assert_eq!(refused.errors.iter().collect::<Vec<_>>(), [("refused", 20)]);
    assert_eq!((refused.operations, refused.connect.len()), (0, 0));
}

#[test]
fn connections_without_an_answer_end_with_the_time_they_are_waited_for() {
    let measured = spread(silence(), Duration::from_millis(20));
    assert_eq!(measured.errors.iter().collect::<Vec<_>>(), [("unfinished", 20)]);
    assert_eq!((measured.operations, measured.connect.len()), (0, 20));
    assert!(measured.errors.first().unwrap().contains("over"));
}

#[test]
fn wrong_responses_are_errors() {
    for (response, kind) in [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "status"),
        ("SSH-2.0-x\r\n\r\n", "malformed"),
    ] {
        let address = serve_on_loopback(move |stream| answer(stream, response));
        for workload in [Workload::Cps { close: Close::Client }, Workload::Rps { pipeline: 1 }] {
            let measured = run(&plan(address, workload));
            assert_eq!(measured.operations, 0);
            assert_eq!(errors(&measured), [kind], "{workload:?}");
        }
    }
}

#[test]
fn plans_that_make_no_sense_are_usage_errors() {
    let address = nobody();
    let mut none = plan(address, Workload::Hold);
    none.connections = 0;
    let close = Close::Client;
    let ramp = Ramp {
        down: Duration::from_millis(1),
        ..Ramp::default()
    };
    let spread = |workload, ramp| Plan {
        spread: Some(Duration::ZERO),
        ramp,
        ..plan(address, workload)
    };
    for plan in [
        none,
        plan(address, Workload::Rps { pipeline: 0 }),
        plan(address, Workload::Rps { pipeline: 65 }),
        plan(address, Workload::Latency { rate: 0 }),
        spread(Workload::Latency { rate: 9 }, Ramp::default()),
        spread(Workload::OpenCps { close, rate: 9 }, Ramp::default()),
        spread(Workload::Rps { pipeline: 1 }, Ramp::default()),
        spread(Workload::Cps { close }, ramp),
        Plan {
            ramp,
            ..plan(address, Workload::Hold)
        },
    ] {
        let error = KernelClient::new().run(&plan, &Progress::hidden()).unwrap_err();
        assert!(error.is::<UsageError>(), "{error:#}");
    }
}

const NOW: Instant = Instant::from_millis(1_000);

#[test]
fn what_is_due_first_ends_the_wait() {
    assert_eq!(timeout(NOW, None, false), INTERVAL);
    let due = NOW.plus_micros(5);
    assert_eq!(timeout(NOW, Some(due), false), Duration::from_micros(5));
    assert_eq!(timeout(NOW, Some(NOW + 2 * INTERVAL), false), INTERVAL);
    assert_eq!(timeout(NOW.plus_micros(9), Some(due), false), Duration::ZERO);
}

#[test]
fn a_precise_wait_ends_early() {
    for (due, wait) in [(0, 0), (999, 0), (1_499, 0), (1_500, 1), (2_600, 2), (10_000, 9)] {
        let due = NOW.plus_micros(due);
        assert_eq!(timeout(NOW, Some(due), true), Duration::from_millis(wait), "{due:?}");
    }
}
