//! Sockets on the loopback interface of a network namespace of their own (root).

use std::os::fd::AsRawFd;
use std::panic::{self, AssertUnwindSafe};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv};
use tidegate_xsk::{Mode, MultiBuffer, Socket, SocketSettings, Umem, UmemSettings, Umems, Unsent, options};

const FRAMES: u32 = 64;
const BURST: u32 = 16;

/// A frame of Local Experimental EtherType 1 (IEEE Std 802), which nobody takes.
const FRAME: [u8; 60] = {
    let mut frame = [0; 60];
    frame[12] = 0x88;
    frame[13] = 0xb5;
    frame
};

const SETTINGS: SocketSettings<'static> = SocketSettings {
    interface: "lo",
    queue: 0,
    rx_ring: FRAMES,
    tx_ring: FRAMES,
    mode: Mode::Copy,
    burst: BURST,
    busy_timeout: Duration::from_secs(10),
    multi_buffer: None,
};

fn umem() -> Umem {
    Umem::new(UmemSettings {
        frames: FRAMES,
        frame_size: 2048,
        fill_ring: FRAMES,
        completion_ring: FRAMES,
        huge_pages: false,
    })
    .expect("a UMEM")
}

fn socket() -> Socket {
    umem().bind(&SETTINGS).map_err(|(_, error)| error).expect("a socket")
}

/// Runs `test` on a thread in a namespace of its own, whose loopback interface is up.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: needs root: AF_XDP takes CAP_NET_RAW, a network namespace CAP_SYS_ADMIN");
        return;
    }
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.expect("`ip` runs").success());
        test();
    });
    if let Err(panic) = thread.join() {
        panic::resume_unwind(panic);
    }
}

/// Whether every frame is free, in the fill ring or on its way.
fn is_whole(socket: &Socket) -> bool {
    socket.free() + socket.in_fill() + socket.in_tx() + socket.queued() as u32 == socket.frames()
}

#[test]
fn frames_are_sent_and_come_back() {
    in_namespace(|| {
        let mut socket = socket();
        socket.replenish_fill(FRAMES / 2);
        assert_eq!((socket.in_fill(), socket.free()), (FRAMES / 2, FRAMES / 2));
        let more = u64::from(FRAMES) / 2;
        for _ in 0..more {
            assert!(socket.queue_copy(0, &FRAME));
        }
        assert!(!socket.queue_copy(0, &FRAME), "no frame is left");
        assert!(!socket.has_tx_room(0, 1, 0) && is_whole(&socket));
        assert_eq!(socket.submit() as u64, more);
        assert_eq!((socket.queued(), socket.in_tx()), (0, FRAMES / 2));
        let deadline = Instant::now() + Duration::from_secs(10);
        while socket.in_tx() > 0 && Instant::now() < deadline {
            assert_ne!(socket.kick().unsent, Unsent::LinkDown);
            socket.reap_completions();
            thread::yield_now();
        }
        assert_eq!((socket.in_tx(), socket.free()), (0, FRAMES / 2));
        assert_eq!(socket.statistics().tx_invalid_descs, 0);
        assert!(socket.has_tx_room(0, 1, FRAMES / 2 - 1) && !socket.has_tx_room(0, 1, FRAMES / 2));
        assert!(socket.has_tx_room(0, 3, FRAMES / 2 - 3) && !socket.has_tx_room(0, 3, FRAMES / 2 - 2));
        // No program redirects anything to it.
        let mut received = Vec::new();
        assert_eq!(socket.receive(&mut received, BURST as usize).frames, 0);
        assert!(!socket.has_received() && received.is_empty());
    });
}

#[test]
fn a_frame_has_its_length_and_room_whatever_was_written_before() {
    in_namespace(|| {
        let mut socket = socket();
        let mut frame = socket.take().expect("a frame");
        let room = socket.buffer(&mut frame).len();
        assert!(room >= 1500, "{room}");
        assert!(!socket.queue_copy(0, &vec![0; room + 1]), "it does not fit");
        socket.buffer(&mut frame).fill(7);
        socket.put_back(frame);
        assert!(is_whole(&socket) && socket.free() == FRAMES);
        let mut frame = socket.take().expect("a frame");
        assert_eq!(socket.buffer(&mut frame).len(), room);
        socket.queue(frame, 0, 60);
        assert_eq!(socket.queued(), 1);
    });
}

#[test]
fn a_packet_of_several_frames_is_sent_as_one() {
    in_namespace(|| {
        if !options::probe_multi_buffer().expect("an AF_XDP socket") {
            eprintln!("SKIPPED: needs Linux 6.6: packets of several frames");
            return;
        }
        let packets = nix::sys::socket::socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK,
            SockProtocol::EthAll,
        )
        .expect("a packet socket");
        let settings = SocketSettings {
            multi_buffer: Some(MultiBuffer {
                max_packet: 9022,
                max_held: 1,
            }),
            ..SETTINGS
        };
        let mut socket = umem().bind(&settings).map_err(|(_, error)| error).expect("a socket");
        let mut packet = FRAME.to_vec();
        packet.extend((0..9000 - FRAME.len()).map(|index| (index % 251) as u8));
        let frames = socket.frames_of(packet.len());
        assert_eq!(frames, 6, "of 1,792 bytes");
        // The last frames there are.
        let mut others = Vec::new();
        while socket.free() > frames {
            others.extend(socket.take());
        }
        assert!(socket.queue_copy(0, &packet) && !socket.queue_copy(0, &packet));
        assert_eq!((socket.free(), socket.queued() as u32), (0, frames));
        assert_eq!(socket.submit() as u32, frames);

        let mut received = vec![0; packet.len() + 1];
        let deadline = Instant::now() + Duration::from_secs(10);
        let length = loop {
            assert!(Instant::now() < deadline, "it did not arrive");
            socket.kick();
            match recv(packets.as_raw_fd(), &mut received, MsgFlags::empty()) {
                Ok(length) if received[12..14] == FRAME[12..14] => break length,
                _ => thread::yield_now(),
            }
        };
        assert!(received[..length] == packet, "{length} bytes of {}", packet.len());
        while socket.in_tx() > 0 && Instant::now() < deadline {
            socket.reap_completions();
        }
        for frame in others {
            socket.put_back(frame);
        }
        assert_eq!(socket.free(), FRAMES, "all of its frames came back");
        assert_eq!(socket.statistics().tx_invalid_descs, 0);
    });
}

#[test]
fn a_queue_in_use_is_told_and_the_umem_can_be_bound_later() {
    in_namespace(|| {
        let first = socket();
        assert!(!options::zero_copy(first.fd(0)).expect("XDP_OPTIONS"));
        let at_once = SocketSettings {
            busy_timeout: Duration::ZERO,
            ..SETTINGS
        };
        let (umem, error) = umem().bind(&at_once).expect_err("the queue is in use");
        assert_eq!(error.raw_os_error(), Some(16), "EBUSY: {error}");
        drop(first);
        let second = umem.bind(&SETTINGS).map_err(|(_, error)| error);
        second.expect("the same UMEM, when the queue is free");
    });
}

#[test]
fn a_socket_takes_no_frame_of_another() {
    in_namespace(|| {
        let mut first = socket();
        let frame = first.take().expect("a frame");
        let umems = Umems::of([&first].into_iter());
        drop(first);
        let at_once = SocketSettings {
            busy_timeout: Duration::ZERO,
            ..SETTINGS
        };
        assert!(
            umem().bind(&at_once).is_err(),
            "open for as long as its memory is referred to"
        );
        drop(umems);
        let mut second = socket();
        let taken = panic::catch_unwind(AssertUnwindSafe(|| second.queue(frame, 0, 60)));
        assert!(taken.is_err(), "the frame of another UMEM");
        assert!(second.queued() == 0 && is_whole(&second));
    });
}

/// Frames that an interface of this namespace has sent and received.
fn counts(interface: &str) -> (u64, u64) {
    let statistics = Command::new("ip")
        .args(["-s", "-o", "link", "show", "dev", interface])
        .output();
    let text = String::from_utf8(statistics.expect("`ip` runs").stdout).expect("text");
    let mut lines = text.split('\\').map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut after = |title: &str| {
        lines.find(|line| line.first() == Some(&title));
        lines.next().expect("numbers")[1].parse().expect("a number")
    };
    let received = after("RX:");
    (after("TX:"), received)
}

#[test]
fn frames_of_one_umem_leave_by_the_device_they_are_queued_for_and_one_that_is_closed_is_left_alone() {
    in_namespace(|| {
        for arguments in [
            "link add tgx0 type veth peer name tgx1",
            "link set tgx0 up addrgenmode none",
            "link set tgx1 up addrgenmode none",
        ] {
            let status = Command::new("ip").args(arguments.split(' ')).status();
            assert!(status.expect("`ip` runs").success(), "{arguments}");
        }
        let mut socket = socket();
        let on = |interface| SocketSettings { interface, ..SETTINGS };
        assert!(
            socket.add_device(&on("lo")).is_err(),
            "the queue has a socket of this UMEM already"
        );
        let small = SocketSettings {
            tx_ring: 8,
            ..on("tgx0")
        };
        socket.add_device(&small).expect("another device");
        assert_eq!(socket.devices(), 2);
        socket.replenish_fill(FRAMES / 8);
        assert_eq!(socket.in_fill(), FRAMES / 4, "both fill rings");
        let send = |socket: &mut Socket, device: u8, count: u32| {
            for _ in 0..count {
                assert!(socket.queue_copy(device, &FRAME));
            }
            assert_eq!(socket.submit(), count as usize);
            let already = socket.in_tx() - count;
            let deadline = Instant::now() + Duration::from_secs(10);
            while socket.in_tx() > already && Instant::now() < deadline {
                socket.kick();
                socket.reap_completions();
            }
            assert_eq!(socket.in_tx(), already);
            assert!(is_whole(socket));
        };
        let (lo, veth) = (counts("lo"), counts("tgx1"));
        send(&mut socket, 0, 3);
        send(&mut socket, 1, 5);
        assert_eq!(counts("lo").0, lo.0 + 3);
        assert_eq!(counts("tgx1").1, veth.1 + 5);

        // What is queued for a device that is gone is free again, what waits for it has no end, and the other goes on.
        let down = Command::new("ip").args(["link", "set", "tgx0", "down"]).status();
        assert!(down.expect("`ip` runs").success());
        while socket.has_tx_room(1, 1, 0) {
            assert!(socket.queue_copy(1, &FRAME));
        }
        assert_eq!(socket.submit(), 8);
        assert_eq!(socket.kick().unsent, Unsent::LinkDown);
        assert!(!socket.has_tx_room(1, 1, 0), "they wait");
        assert!(socket.queue_copy(1, &FRAME) && socket.queued() == 1);
        socket.close_device(1);
        assert_eq!(socket.queued(), 0);
        assert_eq!(socket.kick().unsent, Unsent::Nothing);
        assert!(socket.in_tx() == 8 && is_whole(&socket));
        assert!(socket.has_tx_room(1, 1, 0), "nobody waits for room that never comes");
        assert!(!socket.queue_copy(1, &FRAME) && is_whole(&socket));
        let status = Command::new("ip").args(["link", "delete", "tgx0"]).status();
        assert!(status.expect("`ip` runs").success());
        assert!(socket.has_tx_room_everywhere(1, 0));
        send(&mut socket, 0, 3);
        assert_eq!(counts("lo").0, lo.0 + 6);
    });
}
