//! Timeouts, lingering, draining, and peers that read slowly.

use std::thread;
use std::time::Duration;

use super::*;
use crate::http::Counter;
use crate::testing::End;

const SECOND: Duration = Duration::from_secs(1);

/// Longer than two changes of a file can have the same time.
const SETTLING_TIME: Duration = Duration::from_millis(50);

#[test]
fn response_times_are_those_of_whole_responses_and_begin_with_the_end_of_the_request() {
    const WAIT: Duration = Duration::from_millis(5);
    let micros = |driver: &Driver<Http>| {
        let times = driver.application.response_time();
        (times.count(), times.sum_micros())
    };
    let mut driver = built_in(|_| {});
    one(&mut driver, &get_request("/", ""));
    assert_eq!(micros(&driver), (1, 0), "from memory");

    driver.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n12");
    thread::sleep(WAIT);
    assert_eq!(micros(&driver).0, 1, "the request is not complete");
    driver.feed(b"3");
    assert_eq!(micros(&driver).0, 2);

    let application = Http::new(Config::default()).unwrap();
    let mut driver = Driver::with_stream(application, MockStream::new(10));
    driver.feed(&get_request("/", ""));
    thread::sleep(WAIT);
    assert_eq!(micros(&driver).0, 0, "the response is not complete");
    for _ in 0..1000 {
        driver.acknowledge_all();
    }
    let (count, sum) = micros(&driver);
    assert_eq!(count, 1);
    assert!(u128::from(sum) >= WAIT.as_micros(), "{sum} us");
}

#[test]
fn an_idle_connection_is_closed_silently() {
    let mut driver = built_in(|_| {});
    driver.advance(74 * SECOND);
    one(&mut driver, &get_request("/", ""));
    driver.advance(74 * SECOND);
    assert_eq!(driver.stream.end, End::Open, "a request starts the time anew");
    driver.feed(b"\r\n");
    driver.advance(SECOND);
    assert_eq!(driver.stream.end, End::Closed, "an empty line does not");
    assert!(driver.take_sent().is_empty());
    assert_eq!(driver.application.counters().get(Counter::KeepaliveTimeouts), 1);
}

/// Feeds `bytes` each second until the connection is no longer open; returns the seconds that took.
fn seconds_of_feeding(driver: &mut Driver<Http>, bytes: &[u8]) -> u32 {
    for second in 1..=1000 {
        driver.feed(bytes);
        driver.advance(SECOND);
        if driver.stream.end != End::Open {
            return second;
        }
    }
    panic!("still open");
}

fn expect_408(driver: &mut Driver<Http>, counter: Counter) {
    let replies = read_replies(&driver.take_sent());
    assert_eq!(replies.len(), 1);
    assert_eq!(replies[0].status, 408);
    assert_eq!(replies[0].field("Connection"), Some("close"));
    assert_eq!(driver.stream.end, End::Shutdown);
    assert_eq!(driver.unconsumed(), 0, "the rest is thrown away");
    for other in [
        Counter::HeaderTimeouts,
        Counter::SlowHeaders,
        Counter::BodyTimeouts,
        Counter::SlowBodies,
    ] {
        assert_eq!(driver.application.counters().get(other), u64::from(other == counter));
    }
}

#[test]
fn a_head_that_takes_too_long_is_answered_with_408() {
    let mut driver = built_in(|config| config.max_headers = 256);
    driver.advance(70 * SECOND);
    driver.feed(b"GET / HTTP/1.1\r\n");
    let field = format!("X: {}\r\n", "y".repeat(295));
    assert_eq!(seconds_of_feeding(&mut driver, field.as_bytes()), 40);
    expect_408(&mut driver, Counter::HeaderTimeouts);
}

#[test]
fn a_head_that_comes_too_slowly_is_answered_with_408_after_its_grace() {
    // Of 500 bytes a second; slowhttptest sends some such field every ten seconds.
    for (field, seconds) in [
        ("", 21),
        ("X: y\r\n", 21),
        ("X: 23456789012345678901234567890123456789012345678\r\n", 23),
    ] {
        let mut driver = built_in(|_| {});
        driver.feed(b"GET / HTTP/1.1\r\n");
        assert_eq!(seconds_of_feeding(&mut driver, field.as_bytes()), seconds, "{field}");
        expect_408(&mut driver, Counter::SlowHeaders);
    }
}

#[test]
fn without_a_least_rate_a_head_has_all_its_time() {
    let mut driver = built_in(|config| config.header_min_rate = 0);
    driver.feed(b"GET / HTTP/1.1\r\n");
    assert_eq!(seconds_of_feeding(&mut driver, b"a"), 40);
    expect_408(&mut driver, Counter::HeaderTimeouts);
}

#[test]
fn the_next_head_has_its_own_time() {
    let mut driver = built_in(|_| {});
    driver.feed(b"GET / HTTP/1.1\r\n");
    driver.advance(20 * SECOND);
    driver.feed(b"Host: a\r\n\r\nGET / HTTP/1.1\r\n");
    driver.advance(20 * SECOND);
    driver.feed(b"Host: a\r\n\r\n");
    assert_eq!(read_replies(&driver.take_sent()).len(), 2);
    assert_eq!(driver.stream.end, End::Open);
}

#[test]
fn a_body_that_takes_too_long_is_answered_with_408() {
    let mut driver = built_in(|_| {});
    driver.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    assert_eq!(seconds_of_feeding(&mut driver, &[b'x'; 500]), 300);
    expect_408(&mut driver, Counter::BodyTimeouts);
}

#[test]
fn a_body_that_comes_too_slowly_is_answered_with_408_after_its_grace() {
    for (framing, piece, seconds) in [
        ("Content-Length: 1000000", "", 20),
        ("Content-Length: 1000000", "x", 21),
        // 250 of 500 bytes a second.
        ("Content-Length: 1000000", &"x".repeat(250), 40),
        // What frames it counts, and is all there is of it.
        ("Transfer-Encoding: chunked", "1\r\nx\r\n", 21),
    ] {
        let mut driver = built_in(|_| {});
        driver.feed(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").as_bytes());
        assert_eq!(seconds_of_feeding(&mut driver, piece.as_bytes()), seconds, "{piece}");
        expect_408(&mut driver, Counter::SlowBodies);
    }
}

#[test]
fn a_body_that_keeps_the_least_rate_is_read() {
    let mut driver = built_in(|_| {});
    driver.feed(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    for _ in 0..200 {
        driver.advance(SECOND);
        driver.feed(&[b'x'; 500]);
    }
    assert_eq!(read_replies(&driver.take_sent())[0].status, 200);
    assert_eq!(driver.stream.end, End::Open);
}

#[test]
fn a_connection_counts_as_served_from_its_first_complete_request_on() {
    for (part, rest) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n", "\r\n"),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na", "b"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
            "0\r\n\r\n",
        ),
    ] {
        let mut driver = built_in(|_| {});
        driver.feed(part.as_bytes());
        assert!(!driver.stream.served, "{part:?}");
        driver.feed(rest.as_bytes());
        assert!(driver.stream.served, "{part:?}");
    }
}

#[test]
fn lingering_ends_with_the_peer_with_time_or_with_too_much_data() {
    let lingering = || {
        let mut driver = built_in(|_| {});
        assert_eq!(one(&mut driver, b"nonsense\r\n\r\n").status, 400);
        driver.feed(&[b'x'; 100_000]);
        assert_eq!(driver.unconsumed(), 0);
        assert_eq!(driver.stream.end, End::Shutdown);
        driver
    };
    let mut driver = lingering();
    driver.finish();
    assert_eq!(driver.stream.end, End::Closed);

    let mut driver = lingering();
    driver.advance(SECOND);
    driver.feed(b"more");
    assert_eq!(driver.stream.end, End::Shutdown);
    driver.advance(SECOND);
    assert_eq!(driver.stream.end, End::Closed);

    let mut driver = lingering();
    for _ in 0..50 {
        driver.feed(&[b'x'; 100_000]);
    }
    assert_eq!(driver.stream.end, End::Aborted);
}

#[test]
fn a_large_file_passes_through_a_small_send_buffer() {
    let site = Site::new(|config| {
        config.cache_file_limit = 1000;
        config.read_chunk = 5000;
    });
    for capacity in [999, 4096, 100_000] {
        let mut driver = site.connect(capacity);
        let mut requests = get_request("/large.bin", "");
        requests.extend(get_request("/hello.txt", ""));
        driver.feed(&requests);
        assert!(driver.unconsumed() > 0, "the second request waits");
        assert!(driver.stream.timer.is_some(), "it is not waited for for ever");
        driver.acknowledge_all();
        let replies = read_replies(&driver.take_sent());
        assert!(replies[0].body == pattern(LARGE));
        assert_eq!(replies[1].text(), "hello, world\n");
        assert!(driver.stream.timer.is_some());
    }
}

/// The peer takes `bytes` in each of `seconds`, in which it also acknowledges them.
fn take_slowly(driver: &mut Driver<Http>, seconds: usize, bytes: usize) {
    for _ in 0..seconds {
        driver.acknowledge(bytes);
        driver.advance(SECOND);
    }
}

#[test]
fn a_peer_that_does_not_take_its_response_is_reset() {
    for (rate, taken) in [(256, 0), (256, 1), (256, 255), (0, 0)] {
        let site = Site::new(|config| config.send_min_rate = rate);
        let mut driver = site.connect(4096);
        driver.feed(&get_request("/large.bin", ""));
        take_slowly(&mut driver, 59, taken);
        assert_eq!(driver.stream.end, End::Open);
        take_slowly(&mut driver, 1, taken);
        assert_eq!(driver.stream.end, End::Aborted, "{taken} of {rate}");
        assert_eq!(driver.stream.timer, None);
        assert_eq!(driver.application.counters().get(Counter::SendTimeouts), 1);
    }
}

#[test]
fn a_peer_that_begins_fast_and_becomes_slow_is_reset() {
    let site = Site::new(|_| {});
    let mut driver = site.connect(4096);
    driver.feed(&get_request("/large.bin", ""));
    take_slowly(&mut driver, 60, 4096);
    take_slowly(&mut driver, 59, 10);
    assert_eq!(driver.stream.end, End::Open);
    take_slowly(&mut driver, 1, 10);
    assert_eq!(driver.stream.end, End::Aborted);
}

#[test]
fn a_peer_that_does_not_take_what_is_left_of_a_response_is_reset() {
    let site = Site::new(|_| {});
    // All of it is given to the stream at once, then the connection is closed: by the request, or for want of another.
    for (fields, idle) in [("Connection: close\r\n", 0), ("", 75)] {
        for (taken, ends) in [(0, true), (255, true), (257, false)] {
            let mut driver = site.connect(1 << 20);
            driver.feed(&get_request("/large.bin", fields));
            take_slowly(&mut driver, idle, 1000);
            assert_eq!(driver.stream.end, End::Closed);
            take_slowly(&mut driver, 59, taken);
            assert_eq!(driver.stream.end, End::Closed);
            take_slowly(&mut driver, 1, taken);
            let end = if ends { End::Aborted } else { End::Closed };
            assert_eq!(driver.stream.end, end, "{taken} bytes/s");
            assert_eq!(
                driver.application.counters().get(Counter::SendTimeouts),
                u64::from(ends)
            );
        }
    }
}

#[test]
fn a_closed_connection_whose_response_was_taken_is_left_to_the_stream() {
    let site = Site::new(|_| {});
    let mut driver = site.connect(1 << 20);
    driver.feed(&get_request("/large.bin", "Connection: close\r\n"));
    driver.acknowledge_all();
    driver.advance(600 * SECOND);
    assert_eq!((driver.stream.end, driver.stream.timer), (End::Closed, None));
}

#[test]
fn a_slow_reader_gets_its_response() {
    // A kilobyte a second, of a file that is cached and of one that is not; a hundred octets where any progress will
    // do.
    for (cache_file_limit, rate, taken) in [(1 << 20, 256, 1000), (1000, 256, 1000), (1000, 0, 100)] {
        let site = Site::new(|config| {
            config.cache_file_limit = cache_file_limit;
            config.send_min_rate = rate;
        });
        let mut driver = site.connect(4096);
        driver.feed(&get_request("/large.bin", ""));
        take_slowly(&mut driver, LARGE.div_ceil(taken) + 1, taken);
        assert_eq!(driver.stream.end, End::Open);
        assert!(read_replies(&driver.take_sent())[0].body == pattern(LARGE));
        assert_eq!(driver.application.counters().get(Counter::SendTimeouts), 0);
    }
}

#[test]
fn every_response_has_its_own_time() {
    let site = Site::new(|_| {});
    let mut driver = site.connect(4096);
    let mut requests = get_request("/large.bin", "");
    requests.extend(get_request("/large.bin", ""));
    driver.feed(&requests);
    // The first is taken in 59 s, and the second is not looked at before another 60 s have passed.
    take_slowly(&mut driver, 59, LARGE / 59 + 100);
    take_slowly(&mut driver, 30, 10);
    assert_eq!(driver.stream.end, End::Open);
    take_slowly(&mut driver, 60, 10);
    assert_eq!(driver.stream.end, End::Aborted);
}

#[test]
fn a_cached_file_passes_through_a_small_send_buffer() {
    let site = Site::new(|_| {});
    let mut driver = site.connect(999);
    driver.feed(&get_request("/large.bin", ""));
    driver.acknowledge_all();
    assert!(read_replies(&driver.take_sent())[0].body == pattern(LARGE));
    assert!(driver.application.counters().get(Counter::BytesSent) > LARGE as u64);
}

#[test]
fn a_file_that_is_truncated_meanwhile_aborts_the_connection() {
    let site = Site::new(|config| config.cache_file_limit = 1000);
    let mut driver = site.connect(10_000);
    driver.feed(&get_request("/large.bin", ""));
    fs::write(site.path("large.bin"), "short").unwrap();
    driver.acknowledge_all();
    assert_eq!(driver.stream.end, End::Aborted);
    assert_eq!(driver.application.counters().get(Counter::TruncatedFiles), 1);
}

#[test]
fn two_versions_of_a_file_are_never_sent_as_one() {
    let site = Site::new(|config| {
        config.cache_file_limit = 1000;
        config.read_chunk = 5000;
    });
    let path = site.path("large.bin");
    thread::sleep(SETTLING_TIME);
    let mut driver = site.connect(10_000);
    driver.feed(&get_request("/large.bin", ""));
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, vec![b'x'; LARGE]).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(modified).unwrap();
    driver.acknowledge_all();
    assert_eq!(driver.stream.end, End::Aborted);
    let sent = driver.take_sent();
    let head = sent.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    assert!(
        sent[head..] == pattern(LARGE)[..sent.len() - head],
        "all of one version"
    );
    assert_eq!(driver.application.counters().get(Counter::ChangedFiles), 1);
    assert_eq!(driver.application.counters().get(Counter::TruncatedFiles), 0);
}

#[test]
fn a_file_that_is_replaced_by_rename_is_sent_to_its_end() {
    let site = Site::new(|config| config.cache_file_limit = 1000);
    thread::sleep(SETTLING_TIME);
    let mut driver = site.connect(10_000);
    driver.feed(&get_request("/large.bin", ""));
    fs::write(site.path("new"), vec![b'x'; LARGE]).unwrap();
    fs::rename(site.path("new"), site.path("large.bin")).unwrap();
    driver.acknowledge_all();
    let replies = read_replies(&driver.take_sent());
    assert!(replies[0].body == pattern(LARGE));
    driver.feed(&get_request("/large.bin", ""));
    driver.acknowledge_all();
    assert!(read_replies(&driver.take_sent())[0].body == [b'x'; LARGE]);
}

#[test]
fn draining_closes_what_is_idle() {
    let mut driver = built_in(|_| {});
    one(&mut driver, &get_request("/", ""));
    driver.drain();
    assert_eq!(driver.stream.end, End::Closed);
    assert_eq!(driver.stream.timer, None);
}

#[test]
fn draining_finishes_a_response() {
    let site = Site::new(|_| {});
    let mut driver = site.connect(1000);
    driver.feed(&get_request("/large.bin", ""));
    driver.drain();
    assert_eq!(driver.stream.end, End::Open);
    driver.acknowledge_all();
    assert!(read_replies(&driver.take_sent())[0].body == pattern(LARGE));
    assert_eq!(driver.stream.end, End::Closed);
}

#[test]
fn draining_finishes_a_request_and_announces_the_end() {
    for (begin, rest) in [
        ("GET / HTTP/1.1\r\nHo", "st: a\r\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: a\r\n", "\r\n"),
    ] {
        let mut driver = built_in(|_| {});
        driver.feed(begin.as_bytes());
        driver.drain();
        assert_eq!(driver.stream.end, End::Open);
        let reply = one(&mut driver, rest.as_bytes());
        assert_eq!((reply.status, reply.field("Connection")), (200, Some("close")));
        assert_eq!(driver.stream.end, End::Closed);
    }
    let mut driver = built_in(|_| {});
    driver.feed(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na");
    driver.drain();
    assert_eq!(one(&mut driver, b"bc").status, 200);
    assert_eq!(driver.stream.end, End::Closed);
}

#[test]
fn a_head_cut_off_by_the_peers_fin_is_answered_with_400() {
    for head in ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a\r\n"] {
        let mut driver = built_in(|_| {});
        driver.feed(head.as_bytes());
        assert!(driver.take_sent().is_empty());
        driver.finish();
        let replies = read_replies(&driver.take_sent());
        assert_eq!(replies.len(), 1);
        assert_eq!(replies[0].status, 400, "{head:?}");
        assert_ne!(driver.stream.end, End::Open, "{head:?}");
    }
}

/// The time of what is left of a response begins when its last part was given to the stream.
#[test]
fn a_slow_reader_is_not_reset_soon_after_its_connection_was_closed() {
    let site = Site::new(|_| {});
    // Room for all but as much as is read in this many seconds.
    for seconds in [58, 59, 60, 61, 119] {
        let mut driver = site.connect(LARGE - 500 * seconds);
        driver.feed(&get_request("/large.bin", "Connection: close\r\n"));
        assert_eq!(driver.stream.end, End::Open);
        take_slowly(&mut driver, LARGE / 500 + 1, 500);
        assert_eq!(driver.stream.end, End::Closed, "closed after {seconds} s");
        assert_eq!(driver.application.counters().get(Counter::SendTimeouts), 0);
    }
}

#[test]
fn a_version_between_1_1_and_2_gives_a_head_no_more_time() {
    let mut driver = built_in(|_| {});
    let mut head = b"GET / HTTP/1.2\r\nHost: a\r\nX: ".to_vec();
    head.resize(10_000, b'x');
    driver.feed(&head);
    for _ in 0..60 {
        driver.advance(SECOND);
        driver.feed(b"x");
    }
    assert_ne!(driver.stream.end, End::Open, "10,000 octets do for 40 s");
}
