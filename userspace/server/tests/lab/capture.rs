//! `tidegate ctl capture` of a server that is busy: what is in the file, as other parsers read it.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nix::sys::signal::Signal;
use pcap_parser::pcapng::Block;
use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{PcapBlockOwned, PcapError, PcapNGOption, PcapNGReader};
use tempfile::TempDir;
use tidegate_lab::Family;

use crate::fixture::client::{connect, connect_echo, round_trip};
use crate::fixture::data::directory;
use crate::fixture::server::Server;
use crate::fixture::{
    BOTH_FAMILIES, HTTP_PORT, Lab, Place, Process, SERVER_DEVICE, SERVER_V4, SERVER_V6, in_namespace, report, start,
};
use crate::floods::flood;

const LIMIT: Duration = Duration::from_secs(20);

/// epb_flags: received, and sent.
const RECEIVED: u32 = 1;
const SENT: u32 = 2;

/// Return values of XDP programs.
const XDP_DROP: u64 = 1;
const XDP_TX: u64 = 3;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A server that can be captured, and where.
struct Setting {
    scratch: TempDir,
    /// The number of captures so far.
    captures: AtomicUsize,
}

impl Setting {
    fn new() -> Self {
        Self {
            scratch: directory(),
            captures: AtomicUsize::new(0),
        }
    }

    fn path(&self, name: &str) -> String {
        self.scratch.path().join(name).to_string_lossy().into_owned()
    }

    fn ctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command
            .args(["ctl", "--control", &self.path("control")])
            .args(arguments);
        command
    }

    /// A capture that has begun.
    fn capture(&self, arguments: &[&str]) -> (Process, PathBuf) {
        let number = self.captures.fetch_add(1, Ordering::Relaxed);
        let file = self.path(&format!("{number}.pcapng"));
        let process = start(self.ctl(&[&["capture", "-w", &file], arguments].concat()));
        let began = Instant::now();
        // The server writes the first block when all shards know.
        while std::fs::metadata(&file).is_ok_and(|file| file.len() == 0) || !Path::new(&file).exists() {
            assert!(began.elapsed() < LIMIT, "no capture: {}", process.describe());
            thread::sleep(Duration::from_millis(5));
        }
        (process, file.into())
    }
}

/// Ends a capture as Ctrl-C does, and returns what it said.
fn end((process, _): (Process, PathBuf)) -> String {
    process.signal(Signal::SIGINT).expect("it runs");
    let finished = process.wait(LIMIT).unwrap_or_else(|problem| panic!("{problem:#}"));
    finished.expect_success().stderr.trim().to_owned()
}

/// A captured frame.
#[derive(Debug)]
struct Frame {
    direction: u32,
    queue: u32,
    verdict: Option<u64>,
    comment: String,
    time: u64,
    length: u32,
    octets: Vec<u8>,
    /// Source and destination.
    ends: (SocketAddr, SocketAddr),
    flags: u8,
}

#[derive(Debug, Default)]
struct File {
    interfaces: Vec<String>,
    frames: Vec<Frame>,
    /// isb_ifdrop, by interface.
    lost: Vec<u64>,
}

fn value<'a>(options: &'a [PcapNGOption<'_>], code: u16) -> Option<&'a [u8]> {
    let option = options.iter().find(|option| option.code.0 == code)?;
    Some(&option.value[..usize::from(option.len)])
}

fn number<const N: usize>(octets: Option<&[u8]>) -> Option<[u8; N]> {
    octets.and_then(|octets| octets.try_into().ok())
}

fn text(octets: Option<&[u8]>) -> String {
    String::from_utf8(octets.unwrap_or_default().to_vec()).expect("UTF-8")
}

/// Reads a capture. No frame is malformed or has a bad checksum, as far as it is whole.
fn read(path: &Path) -> File {
    let file = std::fs::File::open(path).expect("the capture");
    let mut reader = PcapNGReader::new(1 << 20, file).expect("pcapng");
    let mut read = File::default();
    loop {
        match reader.next() {
            Ok((length, PcapBlockOwned::NG(block))) => {
                match block {
                    Block::InterfaceDescription(interface) => {
                        assert_eq!(interface.ts_resolution(), Some(1_000_000_000));
                        read.interfaces.push(text(value(&interface.options, 2)));
                    }
                    Block::EnhancedPacket(packet) => read.frames.push(frame_of(&packet)),
                    Block::InterfaceStatistics(statistics) => {
                        let lost = number(value(&statistics.options, 5)).expect("isb_ifdrop");
                        read.lost.push(u64::from_ne_bytes(lost));
                    }
                    _ => {}
                }
                reader.consume(length);
            }
            Err(PcapError::Incomplete(_)) => reader.refill().expect("a file"),
            Err(PcapError::Eof) => break,
            Ok(_) => panic!("not pcapng"),
            Err(error) => panic!("{error:?}"),
        }
    }
    check_by_tshark(path);
    read
}

fn frame_of(packet: &pcap_parser::pcapng::EnhancedPacketBlock<'_>) -> Frame {
    let options = &packet.options;
    let octets = packet.packet_data().to_vec();
    let (ends, flags) = checked(&octets, packet.orig_len());
    let verdict: Option<[u8; 9]> = number(value(options, 7));
    Frame {
        direction: u32::from_ne_bytes(number(value(options, 2)).expect("epb_flags")),
        queue: u32::from_ne_bytes(number(value(options, 6)).expect("epb_queue")),
        verdict: verdict.map(|[kind, number @ ..]| {
            assert_eq!(kind, 2, "of XDP");
            u64::from_ne_bytes(number)
        }),
        comment: text(value(options, 1)),
        time: u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low),
        length: packet.orig_len(),
        octets,
        ends,
        flags,
    }
}

/// Ends and control bits of a TCP segment, whose checksums must be right, if it is whole.
fn checked(octets: &[u8], length: u32) -> ((SocketAddr, SocketAddr), u8) {
    let packet = SlicedPacket::from_ethernet(octets).unwrap_or_else(|error| panic!("{error}: {octets:02x?}"));
    let (Some(net), Some(TransportSlice::Tcp(tcp))) = (&packet.net, &packet.transport) else {
        panic!("not TCP: {octets:02x?}");
    };
    assert_eq!(octets.len(), length as usize, "nothing is cut off");
    let (source, destination, checksum): (IpAddr, IpAddr, u16) = match net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            assert_eq!(header.to_header().calc_header_checksum(), header.header_checksum());
            let sum = tcp.calc_checksum_ipv4(header.source(), header.destination());
            (
                header.source_addr().into(),
                header.destination_addr().into(),
                sum.expect("short"),
            )
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            let sum = tcp.calc_checksum_ipv6(header.source(), header.destination());
            (
                header.source_addr().into(),
                header.destination_addr().into(),
                sum.expect("short"),
            )
        }
        NetSlice::Arp(_) => panic!("ARP is not captured"),
    };
    assert_eq!(checksum, tcp.checksum(), "{octets:02x?}");
    let bits = [(FIN, tcp.fin()), (SYN, tcp.syn()), (RST, tcp.rst()), (ACK, tcp.ack())];
    let flags = bits.iter().filter(|(_, is_set)| *is_set).map(|(bit, _)| bit).sum();
    let ends = (
        SocketAddr::new(source, tcp.source_port()),
        SocketAddr::new(destination, tcp.destination_port()),
    );
    (ends, flags)
}

/// Has tshark look for what is malformed or has a bad checksum, where it is installed.
fn check_by_tshark(path: &Path) {
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(path);
    for option in ["ip.check_checksum:TRUE", "tcp.check_checksum:TRUE"] {
        tshark.args(["-o", option]);
    }
    let bad = "_ws.malformed || tcp.checksum.status == \"Bad\" || ip.checksum.status == \"Bad\"";
    match tshark.args(["-Y", bad]).stderr(Stdio::null()).output() {
        Ok(output) => {
            assert!(output.status.success(), "tshark: {}", output.status);
            assert_eq!(String::from_utf8_lossy(&output.stdout), "", "what tshark finds wrong");
        }
        Err(_) => report("tshark is not installed: the capture was read by pcap-parser and etherparse alone"),
    }
}

#[test]
fn a_connection_is_captured_from_handshake_to_time_wait_under_load() {
    let Some(lab) = Lab::up(2) else { return };
    let setting = Setting::new();
    let server = Server::start(&lab, &["--queues", "2", "--control", &setting.path("control")]);
    let capture = setting.capture(&[]);
    let path = capture.1.clone();
    let local = in_namespace(Place::Client, || {
        thread::scope(|scope| {
            for address in BOTH_FAMILIES {
                scope.spawn(move || {
                    for _ in 0..50 {
                        let stream = connect_echo(address);
                        assert_eq!(round_trip(&stream, &[7; 3000]).expect("an echo"), [7; 3000]);
                    }
                });
            }
            let mut stream = connect(SocketAddr::new(SERVER_V6, HTTP_PORT));
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
                .expect("a request");
            let mut response = Vec::new();
            stream.read_to_end(&mut response).expect("a response");
            assert!(response.starts_with(b"HTTP/1.1 "));
            stream.local_addr().expect("an address")
        })
    });
    let counters = server.wait_until_no_connection();
    let said = end(capture);
    let file = read(&path);
    assert_eq!(said, format!("{} frames captured, 0 lost", file.frames.len()));
    assert_eq!((file.interfaces, file.lost), (vec![SERVER_DEVICE.to_owned()], vec![0]));
    assert_eq!(counters.sum("afxdp_captured"), file.frames.len() as u64);
    assert_eq!(counters.sum("afxdp_capture_lost"), 0);
    assert!(
        file.frames
            .iter()
            .all(|frame| frame.queue < 2 && frame.verdict.is_none())
    );
    assert!(
        file.frames
            .iter()
            .all(|frame| frame.comment == format!("shard {}", frame.queue))
    );
    assert!(
        file.frames.is_sorted_by_key(|frame| frame.time),
        "in the order of their time"
    );
    // Of both families, text and all: 100 connections of 3 segments each way at least, and this one.
    assert!(file.frames.len() > 600, "{} frames", file.frames.len());

    let of_connection: Vec<(u32, u8)> = file
        .frames
        .iter()
        .filter(|frame| frame.ends.0 == local || frame.ends.1 == local)
        .map(|frame| (frame.direction, frame.flags))
        .collect();
    let (first, last) = (&of_connection[..3], &of_connection[of_connection.len() - 2..]);
    assert_eq!(
        first,
        [(RECEIVED, SYN), (SENT, SYN | ACK), (RECEIVED, ACK)],
        "{of_connection:?}"
    );
    // The server closes first, so that it has TIME-WAIT; the last acknowledgment is its own.
    assert_eq!(last, [(RECEIVED, FIN | ACK), (SENT, ACK)], "{of_connection:?}");
    assert!(of_connection.contains(&(SENT, FIN | ACK)), "{of_connection:?}");
    server.stop();
}

#[test]
fn a_floods_drops_and_xdps_answers_are_captured_with_their_reasons() {
    let Some(lab) = Lab::up(1) else { return };
    let setting = Setting::new();
    let server = Server::start(
        &lab,
        &["--syn-cookies", "always", "--control", &setting.path("control")],
    );
    let capture = setting.capture(&["--filter", "tcp and port 80"]);
    let path = capture.1.clone();
    let mut sent = 0;
    for (address, kind) in [(SERVER_V4, "syn"), (SERVER_V6, "syn"), (SERVER_V4, "rst")] {
        let figures = flood(address, kind, &["--rate", "2k", "--duration", "300ms"]);
        sent += figures["frames"].as_u64().expect("frames sent");
    }
    let said = end(capture);
    let counters = server.stop();
    let file = read(&path);
    let of = |comment: &str, direction: u32, verdict: u64| {
        let matching = file.frames.iter().filter(|frame| {
            (frame.comment.as_str(), frame.direction, frame.verdict) == (comment, direction, Some(verdict))
        });
        matching.count() as u64
    };
    let lost = counters.sum("xdp_capture_lost");
    let answered = counters.sum("xdp_tx_syn_cookie");
    let dropped = counters.sum("xdp_drop_no_flow");
    assert!(
        answered > 100 && dropped > 100,
        "{answered} answered, {dropped} dropped of {sent}"
    );
    // All that the program tells of, which in bursts is not all.
    let (syns, syn_acks) = (
        of("xdp_tx_syn_cookie", RECEIVED, XDP_TX),
        of("xdp_tx_syn_cookie", SENT, XDP_TX),
    );
    let drops = of("xdp_drop_no_flow", RECEIVED, XDP_DROP);
    assert_eq!(syns + syn_acks + drops + lost, 2 * answered + dropped, "{said}");
    assert_eq!(said, format!("{} frames captured, {lost} lost", file.frames.len()));
    assert!(syns > 100 && syn_acks > 100 && drops > 100, "{said}");
    for frame in file.frames.iter().filter(|frame| frame.comment == "xdp_tx_syn_cookie") {
        let flags = if frame.direction == SENT { SYN | ACK } else { SYN };
        assert_eq!(frame.flags, flags, "{frame:?}");
        assert_eq!(frame.octets.len(), frame.length as usize);
    }
}

#[test]
fn what_cannot_be_captured_is_refused_and_limits_end_a_capture() {
    let Some(lab) = Lab::up(1) else { return };
    let setting = Setting::new();
    let server = Server::start(&lab, &["--control", &setting.path("control")]);
    let finished = start(setting.ctl(&["capture", "-w", "-", "--filter", "tcp prot 80"]))
        .wait(LIMIT)
        .unwrap_or_else(|problem| panic!("{problem:#}"));
    assert_eq!(finished.status.code(), Some(2), "{}", finished.describe());
    assert!(finished.stderr.contains("column 5"), "{}", finished.describe());

    let (process, path) = setting.capture(&["--count", "4", "--snaplen", "60", "--filter", "outbound and tcp"]);
    in_namespace(Place::Client, || {
        let stream = connect_echo(SERVER_V4);
        for _ in 0..5 {
            round_trip(&stream, &[7; 100]).expect("an echo");
        }
    });
    let finished = process.wait(LIMIT).unwrap_or_else(|problem| panic!("{problem:#}"));
    assert_eq!(finished.expect_success().stderr.trim(), "4 frames captured, 0 lost");
    let file = std::fs::read(path).expect("the capture");
    assert!(file.len() > 4 * 60);

    // Without a filter the end of the connection above may be in it.
    let nothing = setting.path("nothing");
    let arguments = ["capture", "-w", &nothing, "--duration", "10ms", "--filter", "udp"];
    let finished = start(setting.ctl(&arguments))
        .wait(LIMIT)
        .unwrap_or_else(|problem| panic!("{problem:#}"));
    assert_eq!(finished.expect_success().stderr.trim(), "0 frames captured, 0 lost");

    // As many as there may be; those that have ended count no more.
    let running: Vec<_> = (0..4).map(|_| setting.capture(&["--filter", "udp"])).collect();
    let finished = start(setting.ctl(&["capture", "-w", "-"]))
        .wait(LIMIT)
        .unwrap_or_else(|problem| panic!("{problem:#}"));
    assert_eq!(finished.status.code(), Some(1), "{}", finished.describe());
    assert!(finished.stderr.contains("end one first"), "{}", finished.describe());
    running.into_iter().for_each(|capture| drop(end(capture)));
    server.stop();
}

#[test]
fn a_trace_tells_segments_and_states_in_words() {
    let Some(lab) = Lab::up(1) else { return };
    let setting = Setting::new();
    let server = Server::start(&lab, &["--control", &setting.path("control")]);
    let trace = start(setting.ctl(&["trace", &SERVER_V4.to_string(), "--duration", "10ms"]));
    let finished = trace.wait(LIMIT).unwrap_or_else(|problem| panic!("{problem:#}"));
    assert_eq!(finished.expect_success().stdout, "", "the server is nobody's peer");

    let client = Family::V4.client().to_string();
    let trace = start(setting.ctl(&["trace", &client]));
    let is_traced = |lines: &[String]| lines.iter().any(|line| line.contains("SYN-RECEIVED -> ESTABLISHED"));
    let began = Instant::now();
    // Until a connection is told of, the trace may not have begun.
    while !is_traced(&trace.stdout().since(0)) {
        assert!(began.elapsed() < LIMIT, "{}", trace.describe());
        in_namespace(Place::Client, || drop(connect_echo(SERVER_V4)));
    }
    let port = in_namespace(Place::Client, || {
        drop(connect_echo(SERVER_V6));
        let mut stream = connect(SocketAddr::new(SERVER_V4, HTTP_PORT));
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
            .expect("a request");
        stream.read_to_end(&mut Vec::new()).expect("a response");
        stream.local_addr().expect("an address").port()
    });
    let end = format!("{client}.{port}");
    let told = |lines: &[String]| -> Vec<String> {
        let states = lines.iter().filter(|line| line.contains(&format!("{end} - ")));
        states
            .filter_map(|line| line.split_once("80: ").map(|(_, what)| what.to_owned()))
            .collect()
    };
    let is_over = |lines: &[String]| told(lines).iter().any(|what| what.ends_with("-> TIME-WAIT"));
    assert!(trace.stdout().wait_for(LIMIT, is_over), "{}", trace.describe());
    let lines = trace.stdout().since(0);
    assert_eq!(
        told(&lines)[..2],
        ["LISTEN -> SYN-RECEIVED", "SYN-RECEIVED -> ESTABLISHED"],
        "{lines:#?}"
    );
    assert!(
        told(&lines).contains(&"ESTABLISHED -> FIN-WAIT-1".to_owned()),
        "{lines:#?}"
    );
    let has = |words: String| lines.iter().any(|line| line.contains(&words));
    assert!(
        has(format!("In  IP {end} > {SERVER_V4}.80: Flags [S], seq ")),
        "{lines:#?}"
    );
    assert!(
        has(format!("Out IP {SERVER_V4}.80 > {end}: Flags [S.], seq ")),
        "{lines:#?}"
    );
    assert!(!has("IP6".to_owned()), "{lines:#?}");
    trace.kill().expect("it runs");
    server.stop();
}
