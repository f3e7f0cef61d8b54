//! AF_XDP sockets of the flood and the bare reflect, in copy mode.

use std::time::Duration;

use crate::object::with_remedy;
use anyhow::Context;
use tidegate_xsk::{Mode, Socket, SocketSettings, Umem, UmemSettings};

/// Frames of the UMEM, all of which may be on their way at once: 4 MiB, which fits the usual limit of locked memory.
/// The rings have room for every one.
pub const FRAMES: u32 = 2048;

/// Bytes of a frame; there are no smaller ones.
const FRAME_SIZE: u32 = 2048;

/// The first queue of a device. Every device has it.
pub const QUEUE: u32 = 0;

/// Descriptors taken out of a ring at once.
pub const BATCH: u32 = 64;

/// Opens a socket on `queue` of `interface` of the calling thread's network namespace. A queue in use is waited for as
/// long as `busy_timeout`: the kernel takes a moment to clear up after another socket.
///
/// # Errors
///
/// The kernel refuses the memory or the socket.
pub fn open(interface: &str, queue: u32, busy_timeout: Duration) -> anyhow::Result<Socket> {
    let umem = Umem::new(UmemSettings {
        frames: FRAMES,
        frame_size: FRAME_SIZE,
        fill_ring: FRAMES,
        completion_ring: FRAMES,
        huge_pages: false,
    })
    .map_err(|error| {
        let errno = error.raw_os_error();
        with_remedy(error.into(), errno, "CAP_NET_RAW").context("cannot make a UMEM")
    })?;
    umem.bind(&SocketSettings {
        interface,
        queue,
        rx_ring: FRAMES,
        tx_ring: FRAMES,
        mode: Mode::Copy,
        burst: BATCH,
        busy_timeout,
        multi_buffer: None,
    })
    .map_err(|(_, error)| error)
    .with_context(|| format!("cannot bind an AF_XDP socket to queue {queue} of {interface}"))
}
