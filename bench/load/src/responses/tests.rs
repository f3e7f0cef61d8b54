//! Responses in pieces of any size.

use super::*;
use crate::body::{Body, Verify};
use crate::http::MAX_HEAD;

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nDate: 1\r\nContent-Length: 5\r\n\r\nhello";

fn kind_of(expected: &mut Expected, text: &str) -> Kind {
    let mut responses = Responses::default();
    responses.take(expected, text.as_bytes()).unwrap_err().kind
}

#[test]
fn a_connection_between_responses_is_small() {
    assert!(size_of::<Responses>() <= 16);
}

#[test]
fn any_split_gives_the_same_responses() {
    let three = HELLO.repeat(3);
    for step in 1..=three.len() {
        let mut expected = Expected::default();
        let mut responses = Responses::default();
        let mut taken = Taken::default();
        for piece in three.chunks(step) {
            let more = responses.take(&mut expected, piece).unwrap();
            taken.responses += more.responses;
            taken.body += more.body;
        }
        assert_eq!(
            taken,
            Taken {
                responses: 3,
                body: 15,
                ..Taken::default()
            },
            "pieces of {step}"
        );
    }
}

#[test]
fn a_response_counts_when_its_last_byte_is_there() {
    let mut expected = Expected::default();
    let mut responses = Responses::default();
    let (most, last) = HELLO.split_at(HELLO.len() - 1);
    assert_eq!(responses.take(&mut expected, most).unwrap().responses, 0);
    assert_eq!(responses.take(&mut expected, last).unwrap().responses, 1);
}

#[test]
fn a_head_may_differ_in_all_but_the_length() {
    let mut expected = Expected::default();
    let mut responses = Responses::default();
    assert_eq!(responses.take(&mut expected, HELLO).unwrap().responses, 1);
    let later = b"HTTP/1.1 200 OK\r\nDate: 12\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(responses.take(&mut expected, later).unwrap().responses, 1);
    assert_eq!(responses.take(&mut expected, HELLO).unwrap().responses, 1);
    let longer = "HTTP/1.1 200 OK\r\nDate: 1\r\nContent-Length: 6\r\n\r\nhello!";
    assert_eq!(kind_of(&mut expected, longer), Kind::Length);
}

#[test]
fn responses_without_a_body_count() {
    let mut expected = Expected::default();
    let empty = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".repeat(4);
    let taken = Responses::default().take(&mut expected, &empty).unwrap();
    assert_eq!(
        taken,
        Taken {
            responses: 4,
            classes: [4, 0, 0, 0],
            ..Taken::default()
        }
    );
}

#[test]
fn the_end_of_the_stream_ends_a_body_without_length_only() {
    let text = b"HTTP/1.0 200 OK\r\n\r\nhello";
    for verify in [Verify::Length, Verify::Alike, Verify::Equal(Body::of(b"hello"))] {
        let mut expected = Expected::new(verify);
        for step in 1..=text.len() {
            let mut responses = Responses::default();
            for piece in text.chunks(step) {
                let taken = responses.take(&mut expected, piece).unwrap();
                assert_eq!((taken.responses, taken.is_last), (0, false));
            }
            let completed = responses.end_of_stream(&mut expected).unwrap();
            assert_eq!(
                completed.map(|taken| taken.classes),
                Some([1, 0, 0, 0]),
                "pieces of {step}"
            );
            assert_eq!(responses.end_of_stream(&mut expected), Ok(None), "only once");
        }
        for (other, kind) in [("hell", Kind::Length), ("hullo", Kind::Content)] {
            let mut responses = Responses::default();
            let text = format!("HTTP/1.0 200 OK\r\n\r\n{other}");
            responses.take(&mut expected, text.as_bytes()).unwrap();
            let failure = responses.end_of_stream(&mut expected).err().map(|failure| failure.kind);
            let expected = match (verify, kind) {
                (Verify::Length, Kind::Content) => None,
                (Verify::Length, _) => Some(Kind::Length),
                _ => Some(Kind::Content),
            };
            assert_eq!(failure, expected, "{other}, {verify:?}");
        }
    }
    let mut expected = Expected::default();
    let (most, _) = HELLO.split_at(HELLO.len() - 1);
    for part in [&HELLO[..0], most, HELLO] {
        let mut responses = Responses::default();
        responses.take(&mut expected, part).unwrap();
        assert_eq!(responses.end_of_stream(&mut expected), Ok(None));
    }
}

#[test]
fn interim_responses_are_skipped() {
    let text = [b"HTTP/1.1 100 Continue\r\n\r\n", HELLO].concat();
    for step in 1..=text.len() {
        let mut expected = Expected::default();
        let mut responses = Responses::default();
        let mut count = 0;
        for piece in text.chunks(step) {
            count += responses.take(&mut expected, piece).unwrap().responses;
        }
        assert_eq!(count, 1, "pieces of {step}");
    }
}

#[test]
fn a_server_may_announce_the_last_response() {
    for (head, is_last) in [
        ("HTTP/1.1 200 OK", false),
        ("HTTP/1.1 200 OK\r\nConnection: close", true),
        ("HTTP/1.0 200 OK", true),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive", false),
    ] {
        let text = format!("{head}\r\nContent-Length: 5\r\n\r\nhello");
        let mut expected = Expected::default();
        // The second head is read by comparison.
        for _ in 0..2 {
            for step in 1..=text.len() {
                let mut responses = Responses::default();
                let mut last = Taken::default();
                for piece in text.as_bytes().chunks(step) {
                    last = responses.take(&mut expected, piece).unwrap();
                }
                assert_eq!((last.responses, last.is_last), (1, is_last), "{head}");
                let more = responses.take(&mut expected, text.as_bytes());
                assert_eq!(more.is_err(), is_last, "{head}");
            }
        }
    }
}

#[test]
fn bodies_are_compared_with_the_first_or_with_the_one_that_was_given() {
    let hullo = b"HTTP/1.1 200 OK\r\nDate: 1\r\nContent-Length: 5\r\n\r\nhullo";
    for verify in [Verify::Alike, Verify::Equal(Body::of(b"hello"))] {
        for step in 1..=HELLO.len() {
            let mut expected = Expected::new(verify);
            let mut responses = Responses::default();
            for piece in HELLO.repeat(2).chunks(step) {
                responses.take(&mut expected, piece).unwrap();
            }
            assert_eq!(expected.body(), Some(Body::of(b"hello")));
            let found = hullo
                .chunks(step)
                .try_for_each(|piece| responses.take(&mut expected, piece).map(drop));
            assert_eq!(found.unwrap_err().kind, Kind::Content, "{verify:?} in pieces of {step}");
        }
    }
    let mut expected = Expected::new(Verify::Equal(Body::of(b"hell")));
    assert_eq!(
        Responses::default().take(&mut expected, HELLO).unwrap_err().kind,
        Kind::Length
    );
    let mut expected = Expected::new(Verify::Length);
    Responses::default()
        .take(&mut expected, &[HELLO, hullo].concat())
        .unwrap();
    assert_eq!(expected.body(), None);
}

#[test]
fn what_is_wrong_is_told_by_kind() {
    assert_eq!(kind_of(&mut Expected::default(), "SSH-2.0-x\r\n\r\n"), Kind::Malformed);
    for length in [MAX_HEAD + 1, 80_000] {
        let begin = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: ";
        let head = format!("{begin}{}\r\n\r\n", "x".repeat(length - begin.len() - 4));
        for size in [length, length - 1, length / 2, 1460] {
            let (mut responses, mut expected) = (Responses::default(), Expected::default());
            let failure = head
                .as_bytes()
                .chunks(size)
                .find_map(|piece| responses.take(&mut expected, piece).err());
            assert_eq!(
                failure.map(|failure| failure.kind),
                Some(Kind::Malformed),
                "{length} by {size}"
            );
        }
    }
}
/// The responses in `text`, of which `step` bytes come at a time, with the end of the connection after them.
fn take_in_pieces(expected: &mut Expected, text: &[u8], step: usize) -> Result<Taken, Failure> {
    let mut responses = Responses::default();
    let mut all = Taken::default();
    let mut add = |taken: Taken| {
        for (count, more) in all.classes.iter_mut().zip(taken.classes) {
            *count += more;
        }
        all.failures |= taken.failures << all.responses;
        all.responses += taken.responses;
        all.body += taken.body;
        all.is_last |= taken.is_last;
        all.failed_status = all.failed_status.max(taken.failed_status);
    };
    for piece in text.chunks(step) {
        add(responses.take(expected, piece)?);
    }
    if let Some(taken) = responses.end_of_stream(expected)? {
        add(taken);
    }
    Ok(all)
}

#[test]
fn chunks_are_a_body_like_any_other() {
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nhel\r\n2\r\nlo\r\n0\r\nA: 1\r\n\r\n";
    let text = [&chunked.repeat(2)[..], HELLO, chunked].concat();
    for verify in [
        Verify::Any,
        Verify::Length,
        Verify::Alike,
        Verify::Equal(Body::of(b"hello")),
    ] {
        for step in 1..=text.len() {
            let mut expected = Expected::new(verify);
            let all = take_in_pieces(&mut expected, &text, step).unwrap();
            assert_eq!(
                (all.responses, all.is_last),
                (4, false),
                "{verify:?} in pieces of {step}"
            );
            assert_eq!(expected.body().is_some(), verify.hashes());
        }
    }
    for (verify, kind) in [
        (Verify::Length, Kind::Length),
        (Verify::Equal(Body::of(b"hullo")), Kind::Content),
    ] {
        let mut expected = Expected::new(verify);
        let hell = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhell\r\n0\r\n\r\n";
        let found = take_in_pieces(&mut expected, &[chunked, &hell[..]].concat(), 7);
        assert_eq!(found.map_err(|failure| failure.kind), Err(kind));
        let mut any = Expected::new(Verify::Any);
        assert!(take_in_pieces(&mut any, &[chunked, &hell[..]].concat(), 7).is_ok());
    }
}

#[test]
fn other_statuses_are_counted_and_their_bodies_read_to_the_end() {
    let text = [
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
        HELLO,
        b"HTTP/1.1 301 Moved\r\nLocation: /b\r\nContent-Length: 3\r\n\r\nbye",
        b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n?\r\n0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /c\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nlate",
        HELLO,
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nConnection: close\r\n\r\n",
    ]
    .concat();
    for (verify, failures) in [(Verify::Length, 0b001_0100), (Verify::Alike, 0b101_1110)] {
        for step in 1..=text.len() {
            let mut expected = Expected::new(verify);
            let all = take_in_pieces(&mut expected, &text, step).unwrap();
            let body = if verify == Verify::Length { 13 } else { 10 };
            assert_eq!(
                (all.responses, all.body, all.is_last),
                (7, body, true),
                "pieces of {step}"
            );
            assert_eq!(
                (all.classes, all.failures),
                ([2, 3, 1, 1], failures),
                "pieces of {step}"
            );
            assert!(all.failed_status >= 301);
            assert_eq!(expected.location(), Some("/b"));
        }
    }
    assert_eq!(
        kind_of(&mut Expected::default(), "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"),
        Kind::Status
    );
}

#[test]
fn responses_to_head_have_no_body() {
    let text = [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
    ]
    .concat();
    for step in 1..=text.len() {
        let mut expected = Expected::new(Verify::Alike).with_heads(MAX_HEAD, true);
        let all = take_in_pieces(&mut expected, &text, step).unwrap();
        assert_eq!((all.responses, all.body, all.is_last), (5, 0, true), "pieces of {step}");
    }
}

#[test]
fn the_first_response_may_have_begun_before() {
    let mut expected = Expected::default();
    let mut responses = Responses::default();
    for (piece, began_before, is_within) in [
        (&HELLO[..10], false, true),
        (&HELLO[10..50], true, true),
        (&[&HELLO[50..], HELLO, &HELLO[..1]].concat(), true, true),
        (&HELLO[1..], true, false),
        (HELLO, false, false),
    ] {
        let taken = responses.take(&mut expected, piece).unwrap();
        assert_eq!((taken.began_before, responses.is_within()), (began_before, is_within));
    }
}

#[test]
fn the_place_in_a_response_is_told() {
    for (text, verify, place) in [
        ("", Verify::Length, "before the response began"),
        ("HTTP/1.1 200", Verify::Length, "after 12 bytes of the head"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe",
            Verify::Length,
            "3 bytes before the end",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe",
            Verify::Alike,
            "3 bytes before the end",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
            Verify::Length,
            "after 2 bytes of a body",
        ),
    ] {
        let mut responses = Responses::default();
        responses.take(&mut Expected::new(verify), text.as_bytes()).unwrap();
        let found = responses.place();
        assert!(found.contains(place), "{found}");
    }
}

#[test]
fn the_longest_head_is_an_option() {
    for (max_head, step, right) in [
        (1_024, 7, true),
        (1_024, 2_000, true),
        (1_023, 7, false),
        (1_023, 2_000, false),
    ] {
        let begin = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: ";
        let head = format!("{begin}{}\r\n\r\n", "x".repeat(1_024 - begin.len() - 4));
        let mut expected = Expected::default().with_heads(max_head, false);
        match take_in_pieces(&mut expected, head.as_bytes(), step) {
            Ok(all) => assert!(right && all.responses == 1),
            Err(failure) => assert!(!right && failure.detail.contains("more than 1023 bytes"), "{failure:?}"),
        }
    }
}
