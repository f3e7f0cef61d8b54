//! Entries of the access log: their contents and their time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate_tcp::application::{Application, CloseReason};

use super::super::{AccessLog, AccessRecord, AccessSink};
use super::*;

#[derive(Default)]
struct Records(Mutex<Vec<AccessRecord>>);

impl AccessSink for Records {
    fn take(&self) -> Box<AccessRecord> {
        // As one that was used before.
        Box::new(AccessRecord {
            request: b"of another".to_vec(),
            referer: b"of another".to_vec(),
            user_agent: b"of another".to_vec(),
            status: 999,
            body_bytes: 999,
            complete: true,
            ..AccessRecord::default()
        })
    }

    fn put(&self, record: Box<AccessRecord>) {
        self.0.lock().unwrap().push(*record);
    }
}

impl Records {
    fn attach(self: &Arc<Self>, driver: &mut Driver<Http>, change: impl FnOnce(&mut AccessLog)) {
        let mut log = AccessLog {
            sink: Arc::clone(self) as Arc<dyn AccessSink>,
            sample: 1.0,
            max_field: 1024,
            max_under_way: 100,
        };
        change(&mut log);
        driver.application.set_access_log(Some(log));
    }

    /// Request line, status, bytes and completeness of those since the last call.
    fn taken(&self) -> Vec<(String, u16, u64, bool)> {
        let records = std::mem::take(&mut *self.0.lock().unwrap());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let row = |record: &AccessRecord| (text(&record.request), record.status, record.body_bytes, record.complete);
        records.iter().map(row).collect()
    }
}

fn row(request: &str, status: u16, bytes: u64) -> (String, u16, u64, bool) {
    (request.to_owned(), status, bytes, true)
}

#[test]
fn every_answer_is_logged_once_with_the_bytes_of_its_content() {
    let mut site = Site::new(|_| {});
    let records = Arc::new(Records::default());
    records.attach(&mut site.driver, |_| {});
    let large = LARGE as u64;
    for (request, expected) in [
        ("GET /hello.txt HTTP/1.1", (200, 13)),
        ("GET /hello.txt HTTP/1.1", (200, 13)),
        ("HEAD /hello.txt HTTP/1.1", (200, 0)),
        ("GET /large.bin HTTP/1.1", (200, large)),
        ("GET /large.bin HTTP/1.1", (200, large)),
        ("GET /none HTTP/1.1", (404, 14)),
        ("GET /docs HTTP/1.1", (301, 22)),
        ("BREW / HTTP/1.1", (501, 20)),
    ] {
        site.driver.feed(format!("{request}\r\nHost: a\r\n\r\n").as_bytes());
        site.driver.acknowledge_all();
        let sent = site.driver.take_sent();
        let (reply, _) = read_reply(&sent, request.starts_with("HEAD"));
        assert_eq!(reply.status, expected.0);
        let (status, bytes) = (reply.status, reply.body.len() as u64);
        assert_eq!(records.taken(), [row(request, status, bytes)]);
        assert_eq!(status, expected.0, "{request}");
        assert!(status != 200 || bytes == expected.1, "{request}: {bytes} bytes");
    }
}

#[test]
fn what_was_refused_is_logged_with_as_much_as_came() {
    for (text, request, status) in [
        ("G@T / HTTP/1.1\r\n\r\n", "G@T / HTTP/1.1", 400),
        ("GET / HTTP/2.0\r\n\r\n", "GET / HTTP/2.0", 505),
        ("\u{16}\u{3}\u{1}\n\n", "\u{16}\u{3}\u{1}", 400),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n",
            "POST / HTTP/1.1",
            413,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "POST / HTTP/1.1",
            400,
        ),
    ] {
        let records = Arc::new(Records::default());
        let mut driver = built_in(|_| {});
        records.attach(&mut driver, |_| {});
        driver.feed(text.as_bytes());
        let rows = records.taken();
        assert_eq!((rows.len(), &*rows[0].0, rows[0].1), (1, request, status), "{rows:?}");
    }
    let records = Arc::new(Records::default());
    let mut driver = built_in(|_| {});
    records.attach(&mut driver, |_| {});
    driver.feed(b"GET / HT");
    assert_eq!(records.taken(), []);
    driver.advance(Duration::from_secs(100));
    assert_eq!(
        records.taken().first().map(|row| (row.0.clone(), row.1)),
        Some((String::new(), 408))
    );
}

#[test]
fn fields_are_kept_and_cut() {
    let records = Arc::new(Records::default());
    let mut driver = built_in(|_| {});
    records.attach(&mut driver, |log| log.max_field = 10);
    driver.feed(&get_request(
        "/0123456789",
        "User-Agent: 0123456789abc\r\nReferer: b\r\n",
    ));
    driver.feed(&get_request("/", ""));
    let records = records.0.lock().unwrap();
    let first = &records[0];
    assert_eq!(first.request, b"GET /01234");
    assert_eq!((&*first.user_agent, &*first.referer), (&b"0123456789"[..], &b"b"[..]));
    assert_eq!((first.peer.port(), first.local.port()), (40_000, 80));
    assert_eq!((first.connection_requests, records[1].connection_requests), (1, 2));
    assert_eq!((&*records[1].user_agent, &*records[1].referer), (&b""[..], &b""[..]));
    assert!(first.time > Duration::from_secs(1_700_000_000));
}

/// A connection that has the large file sent through a small buffer.
fn slow_download(records: &Arc<Records>, site: &Site, most: usize) -> Driver<Http> {
    let application = Http::new(site.config.clone()).unwrap();
    let mut driver = Driver::with_stream(application, MockStream::new(10_000));
    records.attach(&mut driver, |log| log.max_under_way = most);
    driver.feed(&get_request("/large.bin", ""));
    driver
}

#[test]
fn a_response_under_way_is_logged_at_its_end_however_that_comes() {
    let site = Site::new(|_| {});
    let records = Arc::new(Records::default());
    let mut driver = slow_download(&records, &site, 1);
    assert_eq!(records.taken(), []);
    driver.acknowledge_all();
    assert_eq!(records.taken(), [row("GET /large.bin HTTP/1.1", 200, LARGE as u64)]);

    let driver = slow_download(&records, &site, 1);
    let sent = read_head_length(driver.stream.sent());
    let Driver {
        mut application,
        connection,
        ..
    } = driver;
    application.closed(connection, CloseReason::ResetByPeer);
    let expected = ("GET /large.bin HTTP/1.1".to_owned(), 200, 10_000 - sent as u64, false);
    assert_eq!(records.taken(), [expected]);

    let mut driver = built_in(|_| {});
    records.attach(&mut driver, |_| {});
    driver.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    assert_eq!(records.taken(), []);
    driver.finish();
    assert_eq!(records.taken(), [("POST / HTTP/1.1".to_owned(), 0, 0, false)]);
}

fn read_head_length(sent: &[u8]) -> usize {
    let end = sent.windows(4).position(|window| window == b"\r\n\r\n");
    end.expect("the end of the head") + 4
}

#[test]
fn what_cannot_wait_for_its_end_is_logged_as_it_is() {
    let site = Site::new(|_| {});
    let records = Arc::new(Records::default());
    let mut driver = slow_download(&records, &site, 0);
    let rows = records.taken();
    assert_eq!((rows.len(), rows[0].1, rows[0].3), (1, 200, false), "{rows:?}");
    driver.acknowledge_all();
    assert_eq!(records.taken(), []);

    let mut driver = built_in(|_| {});
    records.attach(&mut driver, |log| log.max_under_way = 0);
    driver.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    assert_eq!(records.taken(), [("POST / HTTP/1.1".to_owned(), 0, 0, false)]);
}
