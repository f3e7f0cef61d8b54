//! Request bodies, and what is said before they are sent.

use super::*;
use crate::testing::End;

#[test]
fn a_body_is_read_before_the_response() {
    let mut driver = built_in(|_| {});
    driver.feed(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234");
    assert_eq!(driver.unconsumed(), 0, "what is there is thrown away");
    assert!(driver.take_sent().is_empty());
    let replies = exchange(&mut driver, b"56789GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(replies.iter().map(|reply| reply.status).collect::<Vec<_>>(), [200, 404]);
}

#[test]
fn continue_is_sent_before_the_body_and_only_where_there_is_one() {
    for framing in ["Content-Length: 3", "Transfer-Encoding: chunked"] {
        let mut driver = built_in(|_| {});
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n{framing}\r\n\r\n");
        driver.feed(head.as_bytes());
        assert_eq!(driver.take_sent(), b"HTTP/1.1 100 Continue\r\n\r\n");
        let body: &[u8] = if framing.starts_with('C') {
            b"abc"
        } else {
            b"3\r\nabc\r\n0\r\n\r\n"
        };
        assert_eq!(one(&mut driver, body).status, 200);
        assert_eq!(driver.stream.end, End::Open);
    }
    for request in [
        &b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
        b"GET / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
    ] {
        assert_eq!(one(&mut built_in(|_| {}), request).status, 200);
    }
}

#[test]
fn a_client_that_waits_is_told_at_once_that_its_body_is_not_wanted() {
    for (head, status) in [
        (
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n",
            405,
        ),
        (
            "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n",
            405,
        ),
        (
            "BREW / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n",
            501,
        ),
        (
            "GET /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n",
            404,
        ),
        (
            "GET /%zz HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n",
            400,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\nIf-Match: \"x\"\r\n",
            412,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\nRange: bytes=99999-\r\n",
            416,
        ),
    ] {
        for body in ["", "abc", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
            let mut driver = built_in(|_| {});
            let reply = one(&mut driver, format!("{head}\r\n{body}").as_bytes());
            assert_eq!(
                (reply.status, reply.field("Connection")),
                (status, Some("close")),
                "{head:?}"
            );
            assert_eq!(driver.stream.end, End::Shutdown, "the body may be on its way: {head:?}");
        }
    }
    for (target, fields, status) in [("/docs", "", 301), ("/hello.txt", "If-None-Match: *\r\n", 304)] {
        let mut site = Site::new(|_| {});
        let fields = format!("Expect: 100-continue\r\nContent-Length: 3\r\n{fields}");
        let reply = site.get_with(target, &fields);
        assert_eq!(
            (reply.status, reply.field("Connection")),
            (status, Some("close")),
            "{target}"
        );
        assert_eq!(site.driver.stream.end, End::Shutdown);
    }
}

#[test]
fn a_body_that_is_too_large_is_not_asked_for() {
    let mut driver = built_in(|config| config.max_body = 10);
    let request = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n";
    let reply = one(&mut driver, request);
    assert_eq!(reply.status, 413);
    assert_eq!(driver.stream.end, End::Shutdown);

    let mut driver = built_in(|config| config.max_body = 10);
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789";
    assert_eq!(one(&mut driver, request).status, 200);
}

#[test]
fn continue_goes_before_the_response_however_little_room_there_is() {
    for capacity in [1, 10, 25, 26] {
        let application = Http::new(Config::default()).unwrap();
        let mut driver = Driver::with_stream(application, MockStream::new(capacity));
        driver.feed(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc");
        driver.acknowledge_all();
        let replies = read_replies(&driver.take_sent());
        assert_eq!(replies.iter().map(|reply| reply.status).collect::<Vec<_>>(), [100, 200]);

        let application = Http::new(Config::default()).unwrap();
        let mut driver = Driver::with_stream(application, MockStream::new(capacity));
        driver.feed(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\nx");
        driver.acknowledge_all();
        let replies = read_replies(&driver.take_sent());
        assert_eq!(replies.iter().map(|reply| reply.status).collect::<Vec<_>>(), [100, 400]);
    }
}

#[test]
fn a_chunked_body_split_anywhere_is_followed_by_the_next_request() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = b"5;ext=\"1\"\r\nhello\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
    let next = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    let whole = [&head[..], body, next].concat();
    for split in head.len()..whole.len() {
        let mut driver = built_in(|_| {});
        let mut replies = exchange(&mut driver, &whole[..split]);
        replies.extend(exchange(&mut driver, &whole[split..]));
        let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
        assert_eq!(statuses, [200, 404], "split at {split}");
    }
}

#[test]
fn a_body_that_never_ends_is_given_up_with_the_connection() {
    let mut driver = built_in(|_| {});
    driver.feed(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234");
    driver.finish();
    assert!(driver.take_sent().is_empty());
    assert_eq!(driver.stream.end, End::Closed);
}
