//! Connections that stay open, and requests one behind the other.

use super::*;
use crate::testing::End;

#[test]
fn the_keep_alive_matrix() {
    for (version, options, field, open) in [
        ("1.1", "", None, true),
        ("1.1", "Connection: keep-alive\r\n", None, true),
        ("1.1", "Connection: close\r\n", Some("close"), false),
        ("1.1", "Connection: Close, x\r\n", Some("close"), false),
        ("1.1", "Connection: keep-alive, close\r\n", Some("close"), false),
        ("1.2", "", None, true),
        ("1.9", "Connection: close\r\n", Some("close"), false),
        ("1.0", "", Some("close"), false),
        ("1.0", "Connection: close\r\n", Some("close"), false),
        ("1.0", "Connection: Keep-Alive\r\n", Some("keep-alive"), true),
        ("1.0", "Connection: keep-alive, close\r\n", Some("close"), false),
    ] {
        let mut driver = built_in(|_| {});
        let request = format!("GET / HTTP/{version}\r\nHost: a\r\n{options}\r\n");
        let reply = one(&mut driver, request.as_bytes());
        assert_eq!(reply.status, 200);
        assert_eq!(reply.field("Connection"), field, "{version} {options:?}");
        let end = if open { End::Open } else { End::Closed };
        assert_eq!(driver.stream.end, end, "{version} {options:?}");
    }
}

#[test]
fn http_1_0_needs_no_host() {
    let reply = one(&mut built_in(|_| {}), b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!(reply.status, 200);
}

#[test]
fn the_last_request_of_a_connection_is_announced() {
    let mut driver = built_in(|config| config.keepalive_requests = 3);
    let request = get_request("/", "");
    let replies = exchange(&mut driver, &request.repeat(5));
    let options: Vec<_> = replies.iter().map(|reply| reply.field("Connection")).collect();
    assert_eq!(options, [None, None, Some("close")]);
    assert_eq!(driver.stream.end, End::Closed);
}

fn numbered_site() -> (Site, Vec<u8>, Vec<String>) {
    let site = Site::new(|_| {});
    let mut requests = Vec::new();
    let mut bodies = Vec::new();
    for number in 0..20 {
        let body = format!("file {number}\n").repeat(number + 1);
        fs::write(site.path(&format!("{number}.txt")), &body).unwrap();
        requests.extend(get_request(&format!("/{number}.txt"), ""));
        bodies.push(body);
    }
    (site, requests, bodies)
}

#[test]
fn twenty_pipelined_requests_are_answered_in_order() {
    let (site, requests, bodies) = numbered_site();
    for capacity in [1, 7, 100, 1000, 1 << 20] {
        let mut driver = site.connect(capacity);
        let replies = exchange(&mut driver, &requests);
        assert_eq!(
            replies.iter().map(Reply::text).collect::<Vec<_>>(),
            bodies,
            "send buffer of {capacity}"
        );
        assert_eq!(driver.stream.end, End::Open);
        assert_eq!(driver.unconsumed(), 0);
    }
}

#[test]
fn pipelined_requests_split_anywhere_are_answered_alike() {
    let mut requests = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
    requests.extend_from_slice(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    requests.extend_from_slice(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n");
    requests.extend_from_slice(b"\r\n\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    let statuses = |replies: &[Reply]| replies.iter().map(|reply| reply.status).collect::<Vec<_>>();
    for split in 0..requests.len() {
        let mut driver = built_in(|_| {});
        let mut replies = exchange(&mut driver, &requests[..split]);
        replies.extend(exchange(&mut driver, &requests[split..]));
        assert_eq!(statuses(&replies), [200, 405, 405, 404], "split at {split}");
    }
    let mut driver = built_in(|_| {});
    let mut replies = Vec::new();
    for byte in &requests {
        replies.extend(exchange(&mut driver, std::slice::from_ref(byte)));
    }
    assert_eq!(statuses(&replies), [200, 405, 405, 404], "byte by byte");
    assert_eq!(driver.unconsumed(), 0);
}

#[test]
fn an_unfinished_head_stays_in_the_receive_buffer() {
    let mut driver = built_in(|_| {});
    driver.feed(b"\r\nGET / HTTP/1.1\r\nHost");
    assert_eq!(driver.unconsumed(), 20);
    driver.feed(b": a\r\n\r\nGET");
    assert_eq!(driver.unconsumed(), 3);
}

#[test]
fn a_half_closed_peer_still_gets_its_responses() {
    let (site, requests, bodies) = numbered_site();
    let mut driver = site.connect(50);
    driver.feed(&requests);
    driver.finish();
    driver.acknowledge_all();
    let replies = read_replies(&driver.take_sent());
    assert_eq!(replies.iter().map(Reply::text).collect::<Vec<_>>(), bodies);
    assert_eq!(driver.stream.end, End::Closed);
}

#[test]
fn a_target_may_be_absolute() {
    let mut site = Site::new(|_| {});
    assert_eq!(site.get("http://example.com/hello.txt?a").text(), "hello, world\n");
    assert_eq!(site.get("http://example.com").text(), "the index");
}
