//! Bytes nobody would send on purpose, and those somebody would.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::testing::End;

/// Pieces of requests, right and wrong. None makes a HEAD request, whose response could not be told from the next.
const FRAGMENTS: &[&str] = &[
    "GET ",
    "POST ",
    "OPTIONS * ",
    "BREW ",
    "/",
    "/x",
    "/%2e%2e/",
    "*",
    "http://a/",
    " ",
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/2.0",
    "HTTP/1.2",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\n",
    "Host: a\r\n",
    "GET /x HTTP/1.7\r\nHost: a\r\n",
    "Host: a:xx\r\n",
    "Expect: ,\r\n",
    "Connection: close\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 5\r\n\r\nabcde",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\n\r\n",
    "Expect: 100-continue\r\n",
    "Range: bytes=0-5\r\n",
    "If-None-Match: *\r\n",
    "5\r\nabcde\r\n",
    "ffffffffffffffff\r\n",
    "5;a=\"b\"\r\nabcde\r\n",
    "5 \r\n",
    "0\r\n\r\n",
    "0\r\nTrailer: x\r\n\r\n",
    "X: y\r\n",
    " folded\r\n",
    ":",
    ";",
    "\r",
    "\n",
    "\r\n",
    "\r\n\r\n",
    "\0",
    "\u{fc}",
];

/// Feeds `data` in pieces of the given sizes, again and again, and returns the statuses of the responses. However it
/// went, the connection is over when the peer has finished and the longest timeout has passed.
fn converse(data: &[u8], sizes: &[usize]) -> Vec<u16> {
    let mut driver = built_in(|_| {});
    let mut rest = data;
    for &size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, later) = rest.split_at(size.min(rest.len()));
        driver.feed(piece);
        driver.acknowledge_all();
        rest = later;
    }
    let replies = read_replies(&driver.take_sent());
    driver.finish();
    driver.advance(Duration::from_secs(200));
    assert!(
        matches!(driver.stream.end, End::Closed | End::Aborted),
        "{:?}",
        driver.stream.end
    );
    replies.iter().map(|reply| reply.status).collect()
}

proptest! {
    #[test]
    fn arbitrary_bytes_harm_nobody(
        data in prop::collection::vec(any::<u8>(), 0..2000),
        sizes in prop::collection::vec(1_usize..500, 1..10),
    ) {
        converse(&data, &sizes);
    }

    #[test]
    fn segment_boundaries_make_no_difference(
        fragments in prop::collection::vec(prop::sample::select(FRAGMENTS), 0..40),
        sizes in prop::collection::vec(1_usize..30, 1..10),
    ) {
        // The line is finished, so that every error in it has to be noticed.
        let data = fragments.concat() + "\n";
        let whole = converse(data.as_bytes(), &[data.len()]);
        prop_assert_eq!(converse(data.as_bytes(), &sizes), whole.clone());
        prop_assert_eq!(converse(data.as_bytes(), &[1]), whole);
    }
}
