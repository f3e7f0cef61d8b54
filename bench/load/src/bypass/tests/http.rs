//! Options of requests, and limits of responses, with exact times.

use std::time::Duration;

use super::world::{OK, Server, server};
use super::{assert_without_errors, plan, run};
use crate::bypass::settings::Settings;
use crate::{Close, HttpOptions, Measured, Plan, Workload};

fn find(workload: Workload, http: HttpOptions, server: Server) -> Measured {
    let plan = Plan { http, ..plan(workload) };
    run(&plan, &Settings::new("tgc0"), server).0
}

fn requests_per_connection(requests: u32) -> HttpOptions {
    HttpOptions {
        requests_per_connection: Some(requests),
        ..HttpOptions::default()
    }
}

#[test]
fn a_connection_of_several_requests_counts_once() {
    for close in [Close::Client, Close::Server, Close::Rst] {
        let found = find(Workload::Cps { close }, requests_per_connection(4), server(OK));
        assert_without_errors(&found);
        // Two ways there and back for the first, one for each of the others.
        let quantiles = found.latency.quantiles().unwrap();
        assert_eq!(
            (quantiles.p50.round(), quantiles.p90.round()),
            (100.0, 200.0),
            "{close:?}"
        );
        assert_eq!(found.first_byte.histogram(), found.latency.histogram());
        let requests = found.statuses.total();
        assert!(
            requests.abs_diff(4 * found.operations) <= 16,
            "{requests} of {}",
            found.operations
        );
        assert_eq!(found.close.is_empty(), close != Close::Server);
    }
}

#[test]
fn connections_are_replaced_after_their_requests() {
    for (workload, in_flight) in [
        (Workload::Rps { pipeline: 1 }, 1),
        (Workload::Rps { pipeline: 8 }, 3),
        (Workload::Latency { rate: 10_000 }, 1),
    ] {
        let plan = Plan {
            http: requests_per_connection(3),
            ..plan(workload)
        };
        let (found, client, _) = run(&plan, &Settings::new("tgc0"), server(OK));
        assert_without_errors(&found);
        assert_eq!(found.statuses.total(), found.latency.len());
        let connections = found.operations / 3;
        assert!(
            found.connect.len().abs_diff(connections) <= 16 * in_flight,
            "{} for {connections}",
            found.connect.len()
        );
        assert!(u64::from(client.time_wait) >= connections, "{}", client.time_wait);
        assert_eq!(found.time_wait, Some(Duration::from_secs(2)));
    }
}

#[test]
fn an_answer_in_time_is_none_too_late_and_no_answer_is_an_error() {
    let http = HttpOptions {
        timeout: Duration::from_millis(5),
        ..HttpOptions::default()
    };
    for workload in [
        Workload::Cps { close: Close::Server },
        Workload::Rps { pipeline: 8 },
        Workload::Latency { rate: 100 },
    ] {
        let found = find(workload, http.clone(), server(OK));
        assert_without_errors(&found);
        let silent = Server {
            silent: u32::MAX,
            ..server(OK)
        };
        let found = find(workload, http.clone(), silent);
        assert_eq!((found.operations, found.latency.len()), (0, 0));
        let kinds: Vec<_> = found.errors.iter().map(|(kind, _)| kind).collect();
        // At the end of an open loop, some have waited for less.
        assert_eq!(kinds.first(), Some(&"timed_out"), "{kinds:?}");
        assert!(
            found
                .errors
                .first()
                .unwrap()
                .contains("no complete response within 0.005 s")
        );
    }
}

#[test]
fn chunks_and_other_statuses_are_read_here_too() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let found = find(Workload::Rps { pipeline: 8 }, HttpOptions::default(), server(chunked));
    assert_without_errors(&found);
    let redirect = "HTTP/1.1 307 Temporary Redirect\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n";
    let found = find(Workload::Rps { pipeline: 1 }, HttpOptions::default(), server(redirect));
    assert_without_errors(&found);
    assert_eq!(found.first_location.as_deref(), Some("/x"));
    let refused = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
    let found = find(Workload::Rps { pipeline: 1 }, HttpOptions::default(), server(refused));
    assert_eq!((found.operations, found.connect.len()), (0, 0));
    assert_eq!(
        found.errors.iter().collect::<Vec<_>>(),
        [("status", found.statuses.total())]
    );
}
