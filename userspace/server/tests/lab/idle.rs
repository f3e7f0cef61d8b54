//! A server without traffic leaves the processor to others.

use std::time::Duration;

use crate::fixture::client::curl_to;
use crate::fixture::data::directory;
use crate::fixture::server::Server;
use crate::fixture::{Lab, SERVER_V4, report, run, url};

#[test]
fn ten_idle_seconds_cost_less_than_a_fifth_of_a_processor_second() {
    const IDLE: Duration = Duration::from_secs(10);
    const AT_MOST: Duration = Duration::from_millis(200);
    let Some(lab) = Lab::up(1) else { return };
    let server = Server::start(&lab, &[]);
    // A server that has served waits differently from one that never woke up.
    let received = directory();
    let page = received.path().join("page");
    run(curl_to(&url(SERVER_V4, "/"), &page), Duration::from_secs(10)).expect_success();
    server.wait_until_no_connection();

    let before = server.cpu_time();
    std::thread::sleep(IDLE);
    let used = server.cpu_time() - before;
    report(format_args!("{IDLE:?} idle: {used:?} of processor time"));
    assert!(used < AT_MOST, "{used:?} of processor time in {IDLE:?} without traffic");
    server.stop();
}
