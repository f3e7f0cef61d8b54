use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::emit::{self, Header};
use tidegate_tcp::wire::{Flags, FlowKey, LinkHeader, Options, Segment};

use super::crowd::Crowd;
use super::peer::{Arrival, Outgoing};
use super::{check_addresses, script, write};
use crate::plan::{Kind, Plan};
use crate::rate::Rate;

const SECOND: Duration = Duration::from_secs(1);

/// IRS of every connection.
const IRS: u32 = u32::MAX - 10;

/// A crowd, and the server it talks to, which a test plays.
struct Play {
    crowd: Crowd,
    now: Instant,
    target: SocketAddr,
}

impl Play {
    fn of(kind: Kind, connections: u32) -> Self {
        let plan = Plan {
            connections,
            rate: Rate::Pps(10),
            path: "/file".to_owned(),
            ..Plan::new("tgc0", "198.18.0.1:80".parse().unwrap(), kind)
        };
        Self {
            crowd: Crowd::new(script::of(&plan).unwrap(), &plan).unwrap(),
            now: Instant::now(),
            target: plan.target,
        }
    }

    /// Begins up to `count` connections.
    fn begin(&mut self, count: u32) -> Vec<(u32, Outgoing)> {
        let mut outgoing = Vec::new();
        self.crowd.begin(self.now, count, usize::MAX, &mut outgoing);
        outgoing
    }

    /// Lets time pass.
    fn wait(&mut self, time: Duration) -> Vec<(u32, Outgoing)> {
        self.now += time;
        let mut outgoing = Vec::new();
        self.crowd.time_passes(self.now, usize::MAX, &mut outgoing);
        outgoing
    }

    /// Hands the peer a segment of the server's.
    fn answer(&mut self, number: u32, header: Header, text: usize) -> Vec<(u32, Outgoing)> {
        let key = FlowKey::new(self.target, self.crowd.tuples.local(number));
        let mut frame = [0; 2048];
        let link = LinkHeader::new([2; 6], [4; 6], true);
        let length = emit::frame(&mut frame, &link, &key, &header, text, |text| text.fill(b'r'));
        let segment = Segment::parse(&frame[..length], true).unwrap();
        let number = self.crowd.tuples.number(segment.key.local()).unwrap();
        let mut outgoing = Vec::new();
        self.crowd
            .segment_arrives(self.now, number, &Arrival::of(&segment), &mut outgoing);
        outgoing
    }

    /// Opens one connection. Returns its number, the SYN, and what completes the handshake.
    fn open(&mut self) -> (u32, Outgoing, Vec<(u32, Outgoing)>) {
        let [(number, syn)] = self.begin(1)[..] else {
            panic!("one SYN");
        };
        let header = Header {
            options: syn.options,
            ..of_server(Flags::SYN | Flags::ACK, 0, syn.seq.wrapping_add(1))
        };
        let answers = self.answer(
            number,
            Header {
                seq: SeqNumber(IRS),
                ..header
            },
            0,
        );
        (number, syn, answers)
    }
}

/// The header of a segment whose text begins with the octet `at` of the response.
fn of_server(flags: Flags, at: u32, ack: u32) -> Header {
    Header {
        seq: SeqNumber(IRS.wrapping_add(1).wrapping_add(at)),
        ack: SeqNumber(ack),
        flags,
        window: 1000,
        options: Options::default(),
        ecn_capable: false,
    }
}

/// The only segment of these.
fn only(outgoing: &[(u32, Outgoing)]) -> Outgoing {
    let [(_, segment)] = outgoing else {
        panic!("one segment, not {outgoing:?}");
    };
    *segment
}

/// The octet of the response that a segment acknowledges up to.
fn taken(segment: &Outgoing) -> u32 {
    segment.ack.wrapping_sub(IRS.wrapping_add(1))
}

#[test]
fn frames_are_well_formed_and_carry_the_request() {
    for target in ["198.18.0.1:80", "[2001:2::1]:80"] {
        let plan = Plan {
            path: "/file".to_owned(),
            ..Plan::new("tgc0", target.parse().unwrap(), Kind::SlowRead)
        };
        let script = script::of(&plan).unwrap();
        let crowd = Crowd::new(script::of(&plan).unwrap(), &plan).unwrap();
        let local = crowd.tuples.local(7);
        let outgoing = Outgoing {
            text: (0, script.said(0)),
            flags: Flags::ACK,
            ..Outgoing::reset(77)
        };
        let mut frame = [0; 2048];
        let link = LinkHeader::new([2; 6], [4; 6], plan.target.is_ipv4());
        let length = write(&mut frame, &link, local, plan.target, &outgoing, &*script);
        // Its checksums are verified.
        let segment = Segment::parse(&frame[..length], true).unwrap();
        assert_eq!((segment.key.local(), segment.key.peer()), (plan.target, local));
        let request = format!("GET /file HTTP/1.1\r\nHost: {target}\r\n\r\n");
        assert_eq!(segment.payload, request.as_bytes());
    }
}

#[test]
fn no_frame_is_made_from_or_for_an_address_outside_of_the_ranges() {
    let check = |local: &str, target: &str| check_addresses(local.parse().unwrap(), target.parse().unwrap());
    assert!(check("198.19.0.1:1024", "198.18.0.1:80").is_ok());
    assert!(check("[2001:2:0:8000::1]:1024", "[2001:2::1]:80").is_ok());
    for (local, target) in [
        ("10.0.0.1:1024", "198.18.0.1:80"),
        ("198.19.0.1:1024", "10.0.0.1:80"),
        ("[2001:db8::1]:1024", "[2001:2::1]:80"),
        ("[2001:2::1]:1024", "[2001:2:1::1]:80"),
    ] {
        assert!(check(local, target).is_err(), "{local} to {target}");
    }
}

#[test]
fn an_abandoned_connection_is_completed_and_never_heard_of_again() {
    let mut play = Play::of(Kind::Connect, 1);
    let (number, syn, answers) = play.open();
    let ack = only(&answers);
    assert_eq!(
        (ack.flags, ack.seq, ack.text),
        (Flags::ACK, syn.seq.wrapping_add(1), (0, 0))
    );
    assert_eq!(ack.ack, IRS.wrapping_add(1));
    assert!(play.wait(SECOND).is_empty() && play.wait(SECOND * 60).is_empty());
    assert!(play.answer(number, of_server(Flags::ACK, 0, ack.seq), 5).is_empty());
    // But for the answer to a SYN-ACK that comes again, since it may have been lost.
    let again = Header {
        seq: SeqNumber(IRS),
        ..of_server(Flags::SYN | Flags::ACK, 0, ack.seq)
    };
    assert_eq!(only(&play.answer(number, again, 0)), ack);
    assert!(
        play.answer(number, of_server(Flags::FIN | Flags::ACK, 5, ack.seq), 0)
            .is_empty()
    );
    let counts = play.crowd.counts;
    assert_eq!((counts.begun, counts.completed, counts.kept), (1, 1, 0));
    // Others begin at once, each from somewhere else.
    let locals: HashSet<_> = play
        .begin(1000)
        .into_iter()
        .map(|(number, _)| play.crowd.tuples.local(number))
        .collect();
    assert_eq!(locals.len(), 1000);
}

#[test]
fn what_the_server_does_with_abandoned_connections_is_counted_once() {
    let mut play = Play::of(Kind::Connect, 1);
    let (first, syn, _) = play.open();
    for _ in 0..2 {
        play.answer(first, of_server(Flags::FIN | Flags::ACK, 0, syn.seq.wrapping_add(1)), 0);
    }
    let (second, syn, _) = play.open();
    for _ in 0..2 {
        play.answer(second, of_server(Flags::RST, 0, syn.seq.wrapping_add(1)), 0);
    }
    assert_eq!((play.crowd.counts.ended, play.crowd.counts.reset), (1, 1));
}

#[test]
fn as_many_are_kept_as_were_asked_for_and_replaced_when_the_server_ends_them() {
    let mut play = Play::of(Kind::Idle, 2);
    let (first, first_syn, _) = play.open();
    let (second, second_syn, _) = play.open();
    assert!(play.begin(10).is_empty());
    assert_eq!(play.crowd.counts.kept, 2);
    let reset = of_server(Flags::RST | Flags::ACK, 0, first_syn.seq.wrapping_add(1));
    assert!(play.answer(first, reset, 0).is_empty());
    // The one that is ended lets go with an RST where the server expects it.
    let ack = second_syn.seq.wrapping_add(1);
    let answer = only(&play.answer(second, of_server(Flags::FIN | Flags::ACK, 0, ack), 0));
    assert_eq!((answer.flags, answer.seq), (Flags::RST, ack));
    // And again if that was lost.
    let again = play.answer(second, of_server(Flags::FIN | Flags::ACK, 0, ack), 0);
    assert_eq!(only(&again), answer);
    assert!(play.answer(second, of_server(Flags::RST, 0, ack), 0).is_empty());
    let counts = play.crowd.counts;
    assert_eq!((counts.kept, counts.reset, counts.ended), (0, 1, 1));
    let others: Vec<u32> = play.begin(10).into_iter().map(|(number, _)| number).collect();
    assert_eq!(others.len(), 2);
    assert!(!others.contains(&first) && !others.contains(&second));
}

#[test]
fn keepalive_probes_are_answered() {
    let mut play = Play::of(Kind::Idle, 1);
    let (number, syn, _) = play.open();
    let seq = syn.seq.wrapping_add(1);
    // An acknowledgment is not, or the two would go on for ever.
    assert!(play.answer(number, of_server(Flags::ACK, 0, seq), 0).is_empty());
    let answer = only(&play.answer(number, of_server(Flags::ACK, u32::MAX, seq), 0));
    assert_eq!((answer.seq, taken(&answer)), (seq, 0));
}

#[test]
fn syns_are_sent_three_times_and_then_others_take_their_place() {
    let mut play = Play::of(Kind::Idle, 1);
    let (number, syn) = play.begin(1)[0];
    for _ in 0..2 {
        assert!(play.wait(SECOND / 2).is_empty());
        assert_eq!(play.wait(SECOND / 2), [(number, syn)]);
    }
    assert!(play.begin(1).is_empty());
    assert!(play.wait(SECOND).is_empty());
    assert_eq!(play.crowd.counts.unanswered, 1);
    let (other, _) = play.begin(1)[0];
    assert_ne!(other, number);
}

#[test]
fn a_server_that_has_another_connection_in_mind_is_told_so_and_asked_again() {
    let mut play = Play::of(Kind::Idle, 1);
    let (number, syn) = play.begin(1)[0];
    let answer = only(&play.answer(number, of_server(Flags::ACK, 0, 12_345), 0));
    assert_eq!((answer.flags, answer.seq), (Flags::RST, 12_345));
    assert_eq!(play.wait(SECOND), [(number, syn)]);
}

#[test]
fn a_head_comes_an_octet_at_a_time_and_what_was_lost_comes_again() {
    let mut play = Play::of(Kind::SlowHead, 1);
    let (number, syn, answers) = play.open();
    let first = syn.seq.wrapping_add(1);
    assert_eq!((only(&answers).text, only(&answers).seq), ((0, 1), first));
    play.answer(number, of_server(Flags::ACK, 0, first.wrapping_add(1)), 0);
    let second = only(&play.wait(SECOND));
    assert_eq!((second.text, second.seq), ((1, 2), first.wrapping_add(1)));
    let third = only(&play.wait(SECOND));
    assert_eq!((third.text, third.seq), ((1, 3), first.wrapping_add(1)));
    let head: Vec<u8> = (0..200).map(|index| play.crowd.script.octet(index)).collect();
    assert!(head.starts_with(b"GET /file HTTP/1.1\r\nHost: 198.18.0.1:80\r\nX-Slow: 1\r\nX-Slow: 1\r\n"));
    assert!(!head.windows(4).any(|octets| octets == b"\r\n\r\n"), "it has no end");
}

#[test]
fn a_slow_reader_has_room_for_what_it_read() {
    let mut play = Play::of(Kind::SlowRead, 1);
    let (number, _, answers) = play.open();
    let request = only(&answers);
    assert_eq!(request.window, 256);
    assert!(request.text.1 > 30);
    let ack = request.seq.wrapping_add(request.text.1);
    let full = only(&play.answer(number, of_server(Flags::ACK, 0, ack), 256));
    assert_eq!((taken(&full), full.window, full.text.0), (256, 0, full.text.1));
    let read = only(&play.wait(SECOND));
    assert_eq!((taken(&read), read.window), (256, 32));
    // What is beyond the window is not taken.
    let more = only(&play.answer(number, of_server(Flags::ACK, 256, ack), 100));
    assert_eq!((taken(&more), more.window), (288, 0));
}

#[test]
fn a_window_of_zero_stays_one_and_probes_are_answered() {
    let mut play = Play::of(Kind::ZeroWindow, 1);
    let (number, syn, answers) = play.open();
    assert_eq!(syn.window, 1, "a SYN's is never zero");
    let request = only(&answers);
    assert_eq!(request.window, 0);
    let ack = request.seq.wrapping_add(request.text.1);
    let answer = only(&play.answer(number, of_server(Flags::ACK, 0, ack), 1));
    assert_eq!((taken(&answer), answer.window), (0, 0));
    assert_eq!(only(&play.wait(SECOND)).window, 0);
    assert_eq!(play.crowd.counts.kept, 1);
}

#[test]
fn a_window_opens_for_an_octet_and_closes_with_it() {
    let mut play = Play::of(Kind::ZeroOneWindow, 1);
    let (number, _, answers) = play.open();
    let request = only(&answers);
    assert_eq!(request.window, 0);
    let ack = request.seq.wrapping_add(request.text.1);
    for octet in 0..3 {
        // However long the server does nothing.
        play.wait(SECOND);
        let open = only(&play.wait(SECOND));
        assert_eq!((taken(&open), open.window), (octet, 1));
        let closed = only(&play.answer(number, of_server(Flags::ACK, octet, ack), 1));
        assert_eq!((taken(&closed), closed.window), (octet + 1, 0));
    }
}

#[test]
fn a_tiny_mss_acknowledges_a_segment_at_a_time_with_other_sack_blocks_each_time() {
    let mut play = Play::of(Kind::TinyMss, 1);
    let (number, syn, answers) = play.open();
    assert_eq!((syn.options.mss, syn.options.sack_permitted), (Some(48), true));
    let request = only(&answers);
    assert_eq!(u32::from(request.window) << 7, 0xffff << 7);
    let ack = request.seq.wrapping_add(request.text.1);
    for segment in 0..711 {
        let arrives = of_server(Flags::ACK, 48 * segment, ack);
        let answers = play.answer(number, arrives, 48);
        if segment < 511 {
            assert_eq!(taken(&only(&answers)), 48 * (segment + 1));
        } else {
            assert!(answers.is_empty(), "{segment}");
        }
    }
    let mut before = Options::default();
    for step in 1..=20 {
        // The rate is 10 a second, of one connection.
        let segment = only(&play.wait(SECOND / 10));
        let begin = 48 * (512 + step);
        assert_eq!(taken(&segment), begin);
        let blocks = segment.options.sack;
        assert_ne!(segment.options, before);
        assert_eq!(blocks.as_slice().len(), 4);
        let mut end = begin;
        for &(from, to) in blocks.as_slice() {
            let octet = |number: SeqNumber| number.0.wrapping_sub(IRS.wrapping_add(1));
            assert!(end < octet(from) && octet(from) < octet(to) && octet(to) <= 48 * 711);
            end = octet(to);
        }
        before = segment.options;
    }
}

#[test]
fn nothing_begins_or_is_sent_beyond_the_room_there_is() {
    let mut play = Play::of(Kind::SlowHead, 100);
    let mut outgoing = Vec::new();
    play.crowd.begin(play.now, 1000, 10, &mut outgoing);
    assert_eq!(outgoing.len(), 10);
    play.now += SECOND;
    outgoing.clear();
    play.crowd.time_passes(play.now, 4, &mut outgoing);
    assert_eq!(outgoing.len(), 4);
    // The others are not forgotten.
    play.crowd.time_passes(play.now, 100, &mut outgoing);
    assert_eq!(outgoing.len(), 10);
}

#[test]
fn there_are_as_many_connections_as_pairs_at_most() {
    let plan = Plan {
        sources: "198.19.0.1".parse().ok(),
        connections: 64_513,
        ..Plan::new("tgc0", "198.18.0.1:80".parse().unwrap(), Kind::Idle)
    };
    let crowd = |plan: &Plan| Crowd::new(script::of(plan).unwrap(), plan);
    let error = crowd(&plan).map(|_| ()).unwrap_err();
    assert!(error.0.contains("64513 connections need"), "{error}");
    let fewer = Plan {
        connections: 64_512,
        ..plan
    };
    assert!(crowd(&fewer).is_ok());
}
