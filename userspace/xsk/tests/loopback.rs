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
            assert!(socket.queue_copy(&FRAME));
        }
        assert!(!socket.queue_copy(&FRAME), "no frame is left");
        assert!(!socket.has_tx_room(1, 0) && is_whole(&socket));
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
        assert!(socket.has_tx_room(1, FRAMES / 2 - 1) && !socket.has_tx_room(1, FRAMES / 2));
        assert!(socket.has_tx_room(3, FRAMES / 2 - 3) && !socket.has_tx_room(3, FRAMES / 2 - 2));
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
        assert!(!socket.queue_copy(&vec![0; room + 1]), "it does not fit");
        socket.buffer(&mut frame).fill(7);
        socket.put_back(frame);
        assert!(is_whole(&socket) && socket.free() == FRAMES);
        let mut frame = socket.take().expect("a frame");
        assert_eq!(socket.buffer(&mut frame).len(), room);
        socket.queue(frame, 60);
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
        assert!(socket.queue_copy(&packet) && !socket.queue_copy(&packet));
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
        assert!(!options::zero_copy(first.fd()).expect("XDP_OPTIONS"));
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
        let taken = panic::catch_unwind(AssertUnwindSafe(|| second.queue(frame, 60)));
        assert!(taken.is_err(), "the frame of another UMEM");
        assert!(second.queued() == 0 && is_whole(&second));
    });
}
