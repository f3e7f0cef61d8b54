//! An AF_XDP socket on the first queue of an interface, in copy mode, with a UMEM of its own: what the flood and the
//! bare reflect send frames through.

use std::error::Error as StdError;
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use xsk_rs::config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

/// Frames of the UMEM, all of which may be on their way at once: 4 MiB, which fits the usual limit of locked memory.
pub(crate) const FRAMES: u32 = 2048;

/// Bytes of a frame; there are no smaller ones.
const FRAME_SIZE: u32 = 2048;

/// The device's queue. Every device has it.
pub(crate) const QUEUE: u32 = 0;

/// Sent frames taken back at once.
const BATCH: usize = 64;

/// Pause between two attempts to bind to a queue in use.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// The socket: its four rings and its memory. The rings have room for every frame there is.
pub(crate) struct XdpSocket {
    /// Frames to be sent.
    pub(crate) tx: TxQueue,
    /// Frames that have been received.
    pub(crate) rx: RxQueue,
    /// Frames to receive into.
    pub(crate) fill: FillQueue,
    completion: CompQueue,
    /// The memory the frames are in.
    pub(crate) umem: Umem,
    /// Frames the kernel does not have. Nothing but descriptors of this UMEM is put here, each once.
    pub(crate) free: Vec<FrameDesc>,
    /// Room for the descriptors of sent frames.
    sent: Box<[FrameDesc]>,
}

impl XdpSocket {
    /// Opens a socket on `interface` of the calling thread's network namespace. A queue in use is waited for as long as
    /// `patience`: the kernel takes a moment to clear up after another socket.
    ///
    /// # Errors
    ///
    /// The kernel refuses the memory or the socket.
    pub(crate) fn open(interface: &str, patience: Duration) -> anyhow::Result<Self> {
        let settings = UmemConfig::builder()
            .frame_size(FrameSize::new(FRAME_SIZE)?)
            .fill_queue_size(QueueSize::new(FRAMES)?)
            .comp_queue_size(QueueSize::new(FRAMES)?)
            .build()?;
        let frames = NonZeroU32::new(FRAMES).context("there are no frames")?;
        let (umem, free) = Umem::new(settings, frames, false).map_err(|error| {
            with_cause(
                "cannot make a UMEM; that takes root or the capability CAP_NET_RAW",
                &error,
            )
        })?;
        let (tx, rx, rings) = bind(interface, &umem, patience)?;
        let (fill, completion) = rings.context("libxdp gave no fill and completion rings for a UMEM of its own")?;
        Ok(Self {
            tx,
            rx,
            fill,
            completion,
            umem,
            free,
            sent: vec![FrameDesc::default(); BATCH].into_boxed_slice(),
        })
    }

    /// Writes `octets` into a free frame, and takes that out of the free ones.
    ///
    /// # Errors
    ///
    /// There is none, or it is too small.
    pub(crate) fn write(&mut self, octets: &[u8]) -> anyhow::Result<FrameDesc> {
        let mut descriptor = self.free.pop().context("the kernel has every frame")?;
        {
            // SAFETY: the descriptor is this UMEM's, and its frame is in no ring and nobody else's hand.
            let mut data = unsafe { self.umem.data_mut(&mut descriptor) };
            let mut cursor = data.cursor();
            cursor.set_pos(0);
            cursor.write_all(octets).context("a frame does not fit the UMEM's")?;
        }
        Ok(descriptor)
    }

    /// Takes back the frames that have been sent. Returns how many there were.
    pub(crate) fn collect(&mut self) -> usize {
        let mut collected = 0;
        loop {
            // SAFETY: the ring is this UMEM's, and only descriptors of this UMEM's frames were put into the TX ring.
            let count = unsafe { self.completion.consume(&mut self.sent) };
            self.free.extend_from_slice(&self.sent[..count]);
            collected += count;
            if count < self.sent.len() {
                return collected;
            }
        }
    }
}

type Rings = (TxQueue, RxQueue, Option<(FillQueue, CompQueue)>);

fn bind(interface: &str, umem: &Umem, patience: Duration) -> anyhow::Result<Rings> {
    let settings = SocketConfig::builder()
        .rx_queue_size(QueueSize::new(FRAMES)?)
        .tx_queue_size(QueueSize::new(FRAMES)?)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(BindFlags::XDP_COPY | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    let name = interface
        .parse::<Interface>()
        .context("this cannot be the name of an interface")?;
    let deadline = Instant::now() + patience;
    loop {
        // SAFETY: the flag that keeps libxdp from loading a program of its own is set, and the UMEM is not shared.
        match unsafe { Socket::new(settings, umem, &name, QUEUE) } {
            Ok(rings) => return Ok(rings),
            Err(error) if is_busy(&error) && Instant::now() < deadline => thread::sleep(BUSY_PAUSE),
            Err(error) => {
                let what = format!("cannot bind an AF_XDP socket to queue {QUEUE} of {interface}");
                return Err(with_cause(&what, &error));
            }
        }
    }
}

/// The system call's error within an error of xsk-rs.
fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    error.source().and_then(|source| source.downcast_ref::<io::Error>())
}

/// Whether the system call failed because the queue has another socket.
fn is_busy(error: &(dyn StdError + 'static)) -> bool {
    cause(error).and_then(io::Error::raw_os_error) == Some(libc::EBUSY)
}

/// `what` failed, and why: what the system call says, if there was one.
fn with_cause(what: &str, error: &(dyn StdError + 'static)) -> anyhow::Error {
    match cause(error) {
        Some(cause) => anyhow!("{what}: {cause}"),
        None => anyhow!("{what}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(io::Error);

    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("outer")
        }
    }

    impl StdError for Outer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn only_a_queue_in_use_is_waited_for() {
        assert!(is_busy(&Outer(io::Error::from_raw_os_error(libc::EBUSY))));
        assert!(!is_busy(&Outer(io::Error::from_raw_os_error(libc::EPERM))));
        assert!(!is_busy(&io::Error::from_raw_os_error(libc::EBUSY)));
    }
}
