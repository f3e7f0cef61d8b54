//! Every status that says what is wrong.

use super::*;
use crate::http::Counter;
use crate::testing::End;

/// Errors after which the next request is answered.
#[test]
fn errors_that_keep_the_connection() {
    for (request, status) in [
        ("GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("GET /index.html HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://a:xx/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 405),
        ("DELETE /x HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("GET / HTTP/1.1\r\nHost: a\r\nIf-Match: \"x\"\r\n\r\n", 412),
        ("GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=999999-\r\n\r\n", 416),
    ] {
        let mut driver = built_in(|_| {});
        let reply = one(&mut driver, request.as_bytes());
        assert_eq!(reply.status, status, "{request:?}");
        assert_eq!(reply.field("Connection"), None);
        assert!(reply.text().starts_with(&status.to_string()));
        assert_eq!(reply.field("Allow"), (status == 405).then_some("GET, HEAD"));
        assert_eq!(driver.stream.end, End::Open, "{request:?}");
        assert_eq!(one(&mut driver, &get_request("/", "")).status, 200);
    }
}

/// Errors after which nobody knows where the next request begins, or that show a peer nobody wants to talk to.
#[test]
fn errors_that_end_the_connection() {
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9000));
    let endless_line = "a".repeat(9000);
    let long_field = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(17_000));
    let many_fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100));
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        ("\x16\x03\x01\x02\x00\x01\x00", 400),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            400,
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n", 413),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n100001\r\n",
            413,
        ),
        (long_target.as_str(), 414),
        (endless_line.as_str(), 414),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", 417),
        (long_field.as_str(), 431),
        (many_fields.as_str(), 431),
        ("GET / HTTP/2.0\r\n\r\n", 505),
        ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.2\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:xx\r\n\r\n", 400),
    ] {
        let mut driver = built_in(|_| {});
        let reply = one(&mut driver, request.as_bytes());
        assert_eq!(reply.status, status, "{request:?}");
        assert_eq!(reply.field("Connection"), Some("close"));
        assert_eq!(
            driver.stream.end,
            End::Shutdown,
            "the peer may still be sending: {request:?}"
        );
        assert!(exchange(&mut driver, &get_request("/", "")).is_empty());
        driver.finish();
        assert_eq!(driver.stream.end, End::Closed);
    }
}

/// One limit, however the head comes.
#[test]
fn a_head_is_too_long_in_one_piece_and_in_many() {
    let fill = |prefix: &str, suffix: &str, length: usize| {
        format!("{prefix}{}{suffix}", "a".repeat(length - prefix.len() - suffix.len())).into_bytes()
    };
    let max_line = 8 * 1024 + 64;
    for (request, status) in [
        (fill("GET / HTTP/1.1\r\nHost: a\r\nX: ", "\r\n\r\n", 16_384), 200),
        (fill("GET / HTTP/1.1\r\nHost: a\r\nX: ", "\r\n\r\n", 16_385), 431),
        (fill("GET / HTTP/1.1\r\nHost: a\r\nX: ", "\r\n\r\n", 20_480), 431),
        (fill("", " / HTTP/1.1\r\nHost: a\r\n\r\n", max_line + 12), 501),
        (fill("", " / HTTP/1.1\r\nHost: a\r\n\r\n", max_line + 14), 414),
        (fill("GET /", " HTTP/1.1\r\nHost: a\r\n\r\n", 8192 + 26), 404),
        (fill("GET /", " HTTP/1.1\r\nHost: a\r\n\r\n", 8193 + 26), 414),
        (fill("GET /", " HTTP/1.1\r\nHost: a\r\n\r\n", 20_480), 414),
        (fill("GET / HTTP/1.2\r\nHost: a\r\nX: ", "\r\n\r\n", 16_384), 200),
        (fill("GET / HTTP/1.2\r\nHost: a\r\nX: ", "\r\n\r\n", 16_385), 431),
    ] {
        for size in [
            request.len(),
            request.len() / 2 + 1,
            request.len() - 1,
            1460,
            8300,
            16_384,
        ] {
            let mut driver = built_in(|_| {});
            for piece in request.chunks(size) {
                driver.feed(piece);
            }
            let replies = read_replies(&driver.take_sent());
            let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
            assert_eq!(statuses, [status], "{} bytes in pieces of {size}", request.len());
        }
    }
}

#[test]
fn an_error_to_head_has_no_content() {
    for request in [
        "HEAD /nothing HTTP/1.1\r\nHost: a\r\n\r\n",
        "HEAD / HTTP/1.1\r\n\r\n",
        "HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n",
    ] {
        let mut driver = built_in(|_| {});
        driver.feed(request.as_bytes());
        let sent = driver.take_sent();
        let (reply, length) = read_reply(&sent, true);
        assert!(reply.status >= 400);
        assert_ne!(reply.field("Content-Length"), Some("0"));
        assert_eq!(length, sent.len());
    }
}

#[test]
fn responses_are_counted_by_class() {
    let mut driver = built_in(|_| {});
    one(&mut driver, &get_request("/", ""));
    one(&mut driver, &get_request("/", "If-None-Match: *\r\n"));
    one(&mut driver, &get_request("/nothing", ""));
    one(&mut driver, b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n");
    one(&mut driver, b"nonsense\r\n\r\n");
    let counters = driver.application.counters();
    assert_eq!(counters.get(Counter::Requests), 4);
    assert_eq!(counters.get(Counter::Responses2xx), 1);
    assert_eq!(counters.get(Counter::Responses3xx), 1);
    assert_eq!(counters.get(Counter::Responses4xx), 2);
    assert_eq!(counters.get(Counter::Responses5xx), 1);
}

#[test]
fn a_service_that_cannot_start_says_why() {
    let root = |path: &str| {
        Http::new(Config {
            root: Some(path.into()),
            ..Config::default()
        })
        .err()
    };
    let error = root("/nonexistent-root-of-tidegate").unwrap().to_string();
    assert!(error.contains("/nonexistent-root-of-tidegate"), "{error}");
    assert!(root("/dev/null").is_some());
    let error = Http::new(Config {
        max_head: 1,
        ..Config::default()
    })
    .err()
    .unwrap()
    .to_string();
    assert!(error.contains("max_head"), "{error}");
}
