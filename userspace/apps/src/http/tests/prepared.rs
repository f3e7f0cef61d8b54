//! Responses that are kept ready: the same bytes as those put together for one request.

use std::mem::{self, MaybeUninit};
use std::time::{Duration, SystemTime};

use super::*;
use crate::http::config::MAX_HEADERS;
use crate::http::{Counter, request};
use crate::testing::End;

/// 6 November 1994, 08:49:37 GMT.
const SECOND: u64 = 784_111_777;

/// A condition that every representation meets, which is answered without what is kept ready.
const CONDITION: &str = "If-None-Match: \"x\"\r\n";

/// Targets in a [`site`]; the content of some is short, of others long, and of one nothing.
const TARGETS: [&str; 6] = ["/", "/hello.txt", "/nothing", "/docs/", "/page.html", "/large.bin"];

/// A site whose clock stands still.
fn site() -> Site {
    let mut site = Site::new(|_| {});
    fs::write(site.path("page.html"), pattern(4096)).unwrap();
    site.driver.application.clock.hold(SECOND);
    site
}

/// The answer to `bytes` on a new connection with a send buffer of `capacity` bytes.
fn converse(http: &mut Http, capacity: usize, bytes: &[u8]) -> (Vec<u8>, End) {
    let application = mem::replace(http, Http::new(Config::default()).unwrap());
    let mut driver = Driver::with_stream(application, MockStream::new(capacity));
    driver.feed(bytes);
    driver.acknowledge_all();
    assert_eq!(driver.unconsumed(), 0);
    let sent = driver.take_sent();
    *http = driver.application;
    (sent, driver.stream.end)
}

/// The address of the response that is kept ready for a request, if there is one.
fn kept(http: &mut Http, request: &[u8]) -> Option<*const u8> {
    let mut storage = [MaybeUninit::uninit(); MAX_HEADERS];
    let (_, request) = request::parse(request, &mut storage, &http.config).unwrap().unwrap();
    let (ready, _) = http.cached_response(&request, request.persistent, MockStream::new(1).now)?;
    Some(ready.first.as_ptr())
}

#[test]
fn only_the_most_common_requests_have_ready_responses() {
    let mut site = site();
    for target in TARGETS {
        assert_eq!(kept(&mut site.driver.application, &get_request(target, "")), None);
        site.get(target);
    }
    let mut http = site.driver.application;
    for target in TARGETS {
        for options in ["", "Connection: close\r\n", "Accept: */*\r\n"] {
            let request = get_request(target, options);
            let first = kept(&mut http, &request);
            assert!(first.is_some(), "{target} {options:?}");
            assert_eq!(kept(&mut http, &request), first, "{target} {options:?}");
        }
    }
    for request in [
        "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: *\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nIf-Modified-Since: x\r\n\r\n",
        "GET /missing HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /docs HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /?query HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET //hello.txt HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /%68ello.txt HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/hello.txt HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(kept(&mut http, request.as_bytes()), None, "{request:?}");
    }
}

#[test]
fn a_ready_response_has_the_bytes_of_one_made_for_the_request() {
    let mut built_in = built_in(|_| {}).application;
    built_in.clock.hold(SECOND);
    let mut site = site();
    for target in TARGETS {
        site.get(target);
    }
    for (mut http, targets) in [(built_in, &TARGETS[..1]), (site.driver.application, &TARGETS[..])] {
        for (target, options, end) in targets.iter().flat_map(|target| {
            [
                (target, "", End::Open),
                (target, "Connection: keep-alive\r\n", End::Open),
                (target, "Connection: close\r\n", End::Closed),
            ]
        }) {
            assert!(kept(&mut http, &get_request(target, options)).is_some());
            let (ready, _) = converse(&mut http, 1 << 20, &get_request(target, options));
            let (made, _) = converse(
                &mut http,
                1 << 20,
                &get_request(target, &format!("{options}{CONDITION}")),
            );
            assert!(ready == made, "{target} {options:?}");

            let request = format!("HEAD {target} HTTP/1.1\r\nHost: a\r\n{options}\r\n");
            let (head, _) = converse(&mut http, 1 << 20, request.as_bytes());
            assert!(ready.starts_with(&head), "{target} {options:?}");

            // However small the send buffer is.
            for capacity in [1, 7, 100, head.len(), head.len() + 1] {
                let (sent, ended) = converse(&mut http, capacity, &get_request(target, options));
                assert!(sent == ready, "{target} {options:?} {capacity}");
                assert_eq!(ended, end, "{target} {options:?} {capacity}");
            }
        }
    }
}

#[test]
fn the_fields_are_where_they_always_were() {
    let mut site = site();
    let file = fs::File::options().write(true).open(site.path("hello.txt")).unwrap();
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(SECOND);
    file.set_modified(modified).unwrap();
    let etag = site.get("/hello.txt").field("ETag").unwrap().to_owned();
    let (sent, _) = converse(
        &mut site.driver.application,
        1 << 20,
        &get_request("/hello.txt", "Connection: close\r\n"),
    );
    let expected = format!(
        "HTTP/1.1 200 OK\r\n\
         Server: tidegate\r\n\
         Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         Connection: close\r\n\
         Content-Length: 13\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         ETag: {etag}\r\n\
         Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         Accept-Ranges: bytes\r\n\
         \r\n\
         hello, world\n"
    );
    assert_eq!(String::from_utf8(sent).unwrap(), expected);
}

#[test]
fn the_date_goes_with_the_clock() {
    let mut site = site();
    for target in ["/hello.txt", "/large.bin"] {
        let mut bodies = Vec::new();
        for (second, date) in [
            (SECOND, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (SECOND, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (SECOND + 1, "Sun, 06 Nov 1994 08:49:38 GMT"),
            (SECOND, "Sun, 06 Nov 1994 08:49:37 GMT"),
        ] {
            site.driver.application.clock.hold(second);
            let reply = site.get(target);
            assert_eq!(reply.field("Date"), Some(date), "{target}");
            bodies.push(reply.body);
        }
        assert!(bodies.iter().all(|body| *body == bodies[0]), "{target}");
    }
}

#[test]
fn a_file_that_was_replaced_has_a_new_response() {
    let mut site = site();
    let close = "Connection: close\r\n";
    let mut etags = Vec::new();
    for body in ["first", "second one", ""] {
        fs::write(site.path("new.txt"), body).unwrap();
        fs::rename(site.path("new.txt"), site.path("hello.txt")).unwrap();
        site.driver.advance(Duration::from_secs(1));
        let (mut http, now) = (site.driver.application, site.driver.stream.now);
        for options in ["", "", close, close, ""] {
            let mut stream = MockStream::new(1 << 20);
            stream.now = now;
            let mut driver = Driver::with_stream(http, stream);
            let reply = one(&mut driver, &get_request("/hello.txt", options));
            assert_eq!(reply.text(), body);
            assert_eq!(reply.field("Connection").is_some(), options == close);
            etags.push(reply.field("ETag").unwrap().to_owned());
            http = driver.application;
        }
        let mut stream = MockStream::new(1 << 20);
        stream.now = now;
        site.driver = Driver::with_stream(http, stream);
    }
    etags.dedup();
    assert_eq!(etags.len(), 3);
    let counters = site.driver.application.counters();
    assert_eq!(
        (counters.get(Counter::CacheHits), counters.get(Counter::CacheMisses)),
        (12, 3)
    );
}

#[test]
fn everything_is_counted() {
    let mut site = site();
    let request = get_request("/hello.txt", "");
    site.driver.feed(&request.repeat(5));
    let sent = site.driver.take_sent();
    assert_eq!(read_replies(&sent).len(), 5);
    let counters = site.driver.application.counters();
    assert_eq!(counters.get(Counter::Requests), 5);
    assert_eq!(counters.get(Counter::Responses2xx), 5);
    assert_eq!(counters.get(Counter::BytesSent), sent.len() as u64);
    assert_eq!(
        (counters.get(Counter::CacheHits), counters.get(Counter::CacheMisses)),
        (4, 1)
    );
}

#[test]
fn a_request_in_two_segments_gets_the_same_response() {
    let mut site = site();
    let request = get_request("/hello.txt", "Accept: */*\r\n");
    site.driver.feed(&request);
    let expected = site.driver.take_sent();
    for split in 1..request.len() {
        site.driver.feed(&request[..split]);
        assert!(site.driver.take_sent().is_empty(), "split at {split}");
        site.driver.feed(&request[split..]);
        assert!(site.driver.take_sent() == expected, "split at {split}");
        assert_eq!(site.driver.unconsumed(), 0);
    }
}

#[test]
fn pipelined_requests_for_ready_responses_are_answered_in_order() {
    let mut site = site();
    site.driver.application.config.keepalive_requests = 7;
    let mut requests = Vec::new();
    for target in TARGETS {
        site.get(target);
        requests.extend(get_request(target, ""));
    }
    requests.extend(get_request("/hello.txt", ""));
    let mut expected = None;
    for capacity in [1 << 20, 1, 7, 100, 1000] {
        let (sent, end) = converse(&mut site.driver.application, capacity, &requests);
        let replies = read_replies(&sent);
        assert_eq!(replies.len(), TARGETS.len() + 1);
        assert_eq!(replies[5].body.len(), LARGE);
        assert_eq!(replies[6].text(), "hello, world\n");
        let announced: Vec<_> = replies.iter().map(|reply| reply.field("Connection")).collect();
        assert_eq!(announced, [None, None, None, None, None, None, Some("close")]);
        assert_eq!(end, End::Closed);
        assert!(sent == *expected.get_or_insert_with(|| sent.clone()), "{capacity}");
    }
}

#[test]
fn a_name_with_percent_sign_is_not_taken_for_an_encoded_one() {
    let mut site = site();
    for (name, content) in [
        ("a%20b", "percent"),
        ("a b", "blank"),
        ("q?x", "question"),
        ("q", "plain"),
    ] {
        fs::write(site.path(name), content).unwrap();
    }
    for _ in 0..3 {
        for (target, content) in [
            ("/a%2520b", "percent"),
            ("/a%20b", "blank"),
            ("/q%3Fx", "question"),
            ("/q?x", "plain"),
            ("/q", "plain"),
        ] {
            assert_eq!(site.get(target).text(), content, "{target}");
        }
    }
}

#[test]
fn without_a_cache_or_with_files_compared_each_time_nothing_is_ready() {
    let changes: [fn(&mut Config); 3] = [
        |config| config.cache_bytes = 0,
        |config| config.cache_revalidate = Duration::ZERO,
        |config| config.cache_file_limit = 3,
    ];
    for change in changes {
        let mut site = Site::new(change);
        assert_eq!(site.get("/hello.txt").text(), "hello, world\n");
        assert_eq!(kept(&mut site.driver.application, &get_request("/hello.txt", "")), None);
        fs::write(site.path("hello.txt"), "another").unwrap();
        assert_eq!(site.get("/hello.txt").text(), "another");
    }
}
