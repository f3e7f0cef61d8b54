//! An MTU of 9,000: packets come and go in several buffers, and segments are as long as it allows.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::TcpMaxSeg;
use nix::sys::socket::{MsgFlags, getsockopt, recv, setsockopt, sockopt::RcvBuf};
use rustix::net::{AddressFamily, SocketType, eth};
use tidegate_random::Random;

use crate::fixture::client::{bench_echo, connect_echo, curl_to, exchange_with_half_close, round_trip};
use crate::fixture::counters::{
    HANDED_IN, RX_MULTI_BUFFER, RX_NO_BUFFER, RX_TOO_LONG, SYN_COOKIES_SENT, TX_MULTI_BUFFER,
};
use crate::fixture::data::{directory, sha256_of_file, write_file};
use crate::fixture::server::{Server, default_arguments, serve_command};
use crate::fixture::{BOTH_FAMILIES, Lab, Place, SERVER_DEVICE, command, in_namespace, ip, report, run, socket, url};

const CLIENT_DEVICE: &str = "tgc0";
const LIMIT: Duration = Duration::from_secs(60);

const ETHERNET_HEADER: usize = 14;

/// The Ethernet address of the server's device (`scripts/lab.sh`).
const SERVER_ADDRESS: [u8; 6] = [0x02, 0x54, 0x47, 0, 0, 1];

/// Octets of the text of a packet of 9,000 octets behind its IP header and a TCP header with timestamps.
const TEXT_V4: usize = 9000 - 20 - 32;

/// Gives both ends an MTU. The program on the client's device knows one buffer only, and another takes its place. It
/// turns GRO on, which is not to put together what a packet socket sees.
fn set_mtu(mtu: &str) {
    let object = std::env::var("TIDEGATE_XDP_PASS")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/ebpf/xdp-pass.o").to_owned());
    let link = ["link", "set", "dev", CLIENT_DEVICE];
    ip(Place::Client, &[&link[..], &["xdp", "off"]].concat()).expect_success();
    let program = ["xdpdrv", "object", &object, "section", "xdp.frags"];
    ip(Place::Client, &[&link[..], &program].concat()).expect_success();
    for (place, device) in [(Place::Server, SERVER_DEVICE), (Place::Client, CLIENT_DEVICE)] {
        ip(place, &["link", "set", "dev", device, "mtu", mtu]).expect_success();
    }
    let mut ethtool = command(Place::Client, "ethtool");
    ethtool.args(["-K", CLIENT_DEVICE, "gro", "off"]);
    run(ethtool, LIMIT).expect_success();
}

/// The lengths of the longest frames that pass the client's device while `work` runs: to the server, and from there.
fn longest_frames(work: impl FnOnce()) -> io::Result<[usize; 2]> {
    let packets = socket::of_protocol(AddressFamily::PACKET, SocketType::RAW, eth::ALL)?;
    setsockopt(&packets, RcvBuf, &(8 << 20))?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut longest = [0; 2];
            let mut frame = vec![0; 1 << 16];
            loop {
                let ends = done.load(Ordering::Relaxed);
                match recv(packets.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
                    Ok(length) => {
                        let from_server = frame[SERVER_ADDRESS.len()..].starts_with(&SERVER_ADDRESS);
                        let longest = &mut longest[usize::from(from_server)];
                        *longest = length.max(*longest);
                    }
                    Err(Errno::EAGAIN) if ends => return Ok(longest),
                    Err(Errno::EAGAIN) => thread::sleep(Duration::from_millis(1)),
                    Err(error) => return Err(error.into()),
                }
            }
        });
        work();
        done.store(true, Ordering::Relaxed);
        watch.join().expect("the watching thread")
    })
}

#[test]
fn files_are_equal_both_ways_in_segments_of_8948_octets() {
    const SIZE: usize = 20_000_000;
    let Some(lab) = Lab::up(1) else { return };
    set_mtu("9000");
    let root = directory();
    let expected = write_file(&mut Random::new(9000), &root.path().join("file"), SIZE);
    let root_argument = root.path().to_string_lossy();
    let received = root.path().join("received");
    for mode in ["native", "generic"] {
        let server = Server::start(&lab, &["--xdp-mode", mode, "--root", &root_argument]);
        let started = server.describe();
        assert!(started.contains(&format!("xdp {mode}")), "{started}");
        let kernel_before = lab.kernel_tcp_segments_in();
        for address in BOTH_FAMILIES {
            run(curl_to(&url(address, "/file"), &received), LIMIT).expect_success();
            assert_eq!(sha256_of_file(&received), expected, "what {address} sent differs");
            run(bench_echo(address, 3_000_000, 2, 9), LIMIT).expect_success();
        }
        let [to_server, from_server] = in_namespace(Place::Client, || {
            longest_frames(|| {
                let stream = connect_echo(BOTH_FAMILIES[0]);
                let mss = getsockopt(&stream, TcpMaxSeg).expect("the MSS of a connection");
                assert_eq!(mss as usize, TEXT_V4);
                let data = Random::new(1).bytes(1_000_000);
                let echoed = exchange_with_half_close(&stream, &data, Duration::ZERO);
                assert!(echoed.expect("an echo") == data, "the echo differs");
            })
        })
        .expect("a packet socket");
        assert_eq!([to_server, from_server], [ETHERNET_HEADER + 9000; 2], "{mode}");

        server.wait_until_no_connection();
        assert_eq!(
            lab.kernel_tcp_segments_in(),
            kernel_before,
            "TCP segments to the kernel"
        );
        let counters = server.stop();
        counters.expect_redirects_received();
        counters.expect_frames_whole();
        let [rx, tx] = [RX_MULTI_BUFFER, TX_MULTI_BUFFER].map(|name| counters.sum(name));
        report(format_args!(
            "MTU 9000, {mode}: files equal, {rx} frames of several buffers received, {tx} sent"
        ));
        // Each file and each echo has at least as many full segments.
        assert!(tx as usize > 2 * (SIZE + 6_000_000) / 9000, "{tx} sent");
        assert!(rx as usize > 2 * 6_000_000 / 9000 / 2, "{rx} received");
        assert_eq!(counters.sum(RX_TOO_LONG) + counters.sum(RX_NO_BUFFER), 0);
    }
}

#[test]
fn flows_that_change_queues_and_cookies_work_with_a_large_mtu() {
    const CONNECTIONS: usize = 16;
    let Some(lab) = Lab::up(2) else { return };
    set_mtu("9000");
    let server = Server::start(&lab, &["--queues", "2", "--syn-cookies", "always"]);
    let streams: Vec<_> = in_namespace(Place::Client, || {
        let family = |client: usize| BOTH_FAMILIES[client % BOTH_FAMILIES.len()];
        (0..CONNECTIONS).map(|client| connect_echo(family(client))).collect()
    });
    let data = Random::new(10).bytes(60_000);
    for xps in [false, true] {
        // From then on all of them arrive on the queue of this thread's CPU.
        lab.xps(xps);
        for (client, stream) in streams.iter().enumerate() {
            let received = round_trip(stream, &data).unwrap_or_else(|error| panic!("client {client}: {error}"));
            assert!(received == data, "client {client}: the echo differs");
        }
    }
    drop(streams);
    server.wait_until_no_connection();
    let counters = server.stop();
    counters.expect_frames_whole();
    let handed_over = counters.sum(HANDED_IN);
    report(format_args!(
        "MTU 9000, two queues: echoes equal, {handed_over} segments handed over"
    ));
    assert!(handed_over > 0, "no flow changed its queue: the test showed nothing");
    assert!(counters.sum(RX_MULTI_BUFFER) > 0);
    assert!(counters.sum(SYN_COOKIES_SENT) >= CONNECTIONS as u64);
}

#[test]
fn an_mtu_that_cannot_be_served_is_refused_with_what_to_do() {
    let Some(_lab) = Lab::up(1) else { return };
    let root = directory();
    let config = root.path().join("tidegate.toml");
    std::fs::write(&config, "[afxdp]\nframe_size = 2048\n").expect("a file");
    let config = config.to_string_lossy();
    for (mtu, extra, sentence) in [
        ("9001", &[][..], "lower it with `ip link set dev tgs0 mtu 9000`"),
        ("9000", &["--config", &config][..], "set frame_size = 4096"),
    ] {
        set_mtu(mtu);
        let arguments = default_arguments(extra);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let finished = run(serve_command(&arguments), LIMIT);
        assert_eq!(finished.status.code(), Some(2), "{}", finished.describe());
        assert!(finished.stderr.contains(sentence), "{}", finished.describe());
    }
}
