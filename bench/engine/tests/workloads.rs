//! The benchmarks measure what they say they do.
#![allow(missing_docs)]

use tidegate_apps::http;
use tidegate_engine_bench::{
    Cost, Driver, EngineServer, Frames, Page, Pair, Server, SmoltcpServer, Step, TemplateClient,
};
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::Population;

/// More than two bursts, and not a multiple of one.
const CLIENTS: u32 = 150;

fn seven_segments<S: Server>(server: S) -> Driver<S> {
    let mut driver = Driver::new(server, CLIENTS);
    let cost: Cost = driver.whole_connections(u64::from(2 * CLIENTS) + 1);
    assert_eq!(cost.operations, u64::from(3 * CLIENTS));
    assert_eq!(cost.segments, 7 * cost.operations);
    driver
}

fn two_segments<S: Server>(server: S) {
    let mut driver = Driver::new(server, CLIENTS);
    let cost = driver.open_all();
    assert_eq!((cost.operations, cost.segments), (150, 3 * 150));
    let cost = driver.requests(1000);
    assert!(cost.operations >= 1000);
    assert_eq!(cost.segments, 2 * cost.operations);
}

#[test]
fn a_whole_connection_takes_seven_segments_of_the_engine() {
    let driver = seven_segments(EngineServer::new(CLIENTS, 100));
    let engine = driver.server().engine();
    let left = Population {
        time_wait: 100,
        ..Population::default()
    };
    assert_eq!(engine.population(), left);
    assert_eq!(engine.counters().get(Counter::Finished), 450);
    assert_eq!(engine.counters().get(Counter::TimeWaitEvicted), 350);
    assert_eq!(
        engine.application().counters().http.get(http::Counter::Responses2xx),
        450
    );
}

#[test]
fn a_whole_connection_takes_seven_segments_of_smoltcp() {
    seven_segments(SmoltcpServer::new(CLIENTS));
}

#[test]
fn a_request_takes_two_segments_of_the_engine() {
    two_segments(EngineServer::new(CLIENTS, 1));
}

#[test]
fn a_request_takes_two_segments_of_smoltcp() {
    two_segments(SmoltcpServer::new(CLIENTS));
}

#[test]
fn connections_drawn_at_random_are_acknowledged_some_bursts_later() {
    let mut driver = Driver::new(EngineServer::new(CLIENTS, 1), CLIENTS);
    driver.open_all();
    let cost = driver.random_segments(100);
    assert_eq!(cost.operations, 6400);
    // The last burst is not acknowledged yet.
    assert_eq!(cost.segments, 3 * 6400 - 64);
    assert_eq!(driver.server().engine().counters().get(Counter::Timeouts), 0);
    assert_eq!(driver.server().engine().counters().get(Counter::TailProbes), 0);
}

#[test]
#[should_panic(expected = "the server's answers")]
fn a_server_that_does_not_answer_is_noticed() {
    // Room for a connection less than there are clients.
    let mut driver = Driver::new(EngineServer::new(CLIENTS - 1, 1), CLIENTS);
    driver.open_all();
    driver.requests(u64::from(CLIENTS));
}

#[test]
fn answers_to_others_are_not_counted_as_answers() {
    let (mut clients, mut strangers) = (TemplateClient::new(0, 1), TemplateClient::new(1, 1));
    let mut driver = Driver::new(EngineServer::new(2, 1), 1);
    let (mut frames, mut answers) = (Frames::with_capacity(1), Frames::with_capacity(1));
    clients.write(Step::Syn, 0, &mut frames);
    let now = driver.now();
    driver.server_mut().deliver(now, frames.all(), &mut answers);
    let heard = strangers.read(&answers);
    assert_eq!((heard.segments, heard.acknowledging, heard.syns), (1, 0, 0));
    assert_eq!(clients.read(&answers), Step::Syn.answers(1));
}

#[test]
fn two_engines_take_six_segments_for_a_whole_connection() {
    let mut pair = Pair::new(CLIENTS, false);
    let cost = pair.whole_connections(300);
    for side in [cost.server, cost.client] {
        assert_eq!((side.operations, side.segments), (300, 6 * 300));
    }
}

#[test]
fn two_engines_take_two_segments_for_a_request() {
    let mut pair = Pair::new(CLIENTS, true);
    pair.open_all();
    let cost = pair.requests(1000);
    for side in [cost.server, cost.client] {
        assert_eq!((side.operations, side.segments), (1050, 2 * 1050));
    }
}

#[test]
fn both_pages_fit_one_segment() {
    for page in [Page::SmallFile, Page::BuiltIn] {
        let mut driver = Driver::new(EngineServer::with_page(page, 1, 1), 1);
        let cost = driver.whole_connections(10);
        assert_eq!(cost.segments, 70);
        let sent = driver.server().engine().counters().get(Counter::BytesOut) / 10;
        assert_eq!(sent > 1000, page == Page::BuiltIn, "{page:?} takes {sent} bytes");
    }
}
