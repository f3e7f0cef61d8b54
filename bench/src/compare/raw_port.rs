//! An AF_XDP socket without a TCP on it: what comes in goes back. Both ends of the bare reflect are made of it.

use std::error::Error as StdError;
use std::ffi::{c_int, c_void};
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, RawFd};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use aya::maps::{MapData, XskMap};
use aya::programs::links::FdLink;
use tidegate_abi::traffic::{MAP_SOCKETS, PROGRAM_TO_SOCKET};
use xsk_rs::config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

use crate::flood::object;

/// Frames of the UMEM: 4 MiB, which fits the usual limit of locked memory.
const FRAMES: u32 = 2048;

/// Bytes of a frame; there are no smaller ones.
const FRAME_SIZE: u32 = 2048;

/// Frames the kernel has to receive into, far more than may be on their way at once. The others are there to send.
const FILL: u32 = FRAMES / 2;

/// Frames taken from the socket at once.
const BATCH: usize = 64;

/// The device's queue. Every device has it, and the lab's has no other.
const QUEUE: u32 = 0;

/// How long a queue may be in use by the socket of a server that has just ended.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);

/// Octets of an Ethernet address.
const MAC: usize = 6;

/// Descriptors one system call moves in copy mode, unless the kernel takes [`TX_BUDGET`].
const TX_BATCH: u32 = 32;

/// The same from Linux 6.17 on, as tidegate asks for it.
const TX_BUDGET: c_int = 256;

/// `XDP_MAX_TX_SKB_BUDGET` of include/uapi/linux/if_xdp.h.
const XDP_MAX_TX_SKB_BUDGET: c_int = 9;

/// A socket on the first queue of an interface, in copy mode, and the program that redirects to it. Dropping it removes
/// both.
pub(super) struct RawPort {
    _link: FdLink,
    // The program refers to it by itself; it is kept as long as there is something in it.
    _sockets: XskMap<MapData>,
    tx: TxQueue,
    rx: RxQueue,
    fill: FillQueue,
    completion: CompQueue,
    umem: Umem,
    /// Frames the kernel does not have.
    free: Vec<FrameDesc>,
    /// Room for the descriptors of received frames.
    received: Box<[FrameDesc]>,
    /// Room for the descriptors of sent frames.
    sent: Box<[FrameDesc]>,
    /// Frames to be sent.
    outgoing: Vec<FrameDesc>,
    /// Frames the kernel has to receive into.
    in_fill: u32,
}

impl RawPort {
    /// Attaches the program to `interface` of the calling thread's network namespace and binds a socket.
    ///
    /// # Errors
    ///
    /// The kernel or the driver refuses the program, the memory or the socket.
    pub(super) fn open(interface: &str) -> anyhow::Result<Self> {
        let mut ebpf = object::load()?;
        let sockets = ebpf.take_map(MAP_SOCKETS).with_context(|| {
            format!("the embedded object has no map {MAP_SOCKETS}; it was built from other sources")
        })?;
        let mut sockets =
            XskMap::<MapData>::try_from(sockets).with_context(|| format!("cannot use the map {MAP_SOCKETS}"))?;
        let link = object::attach(&mut ebpf, PROGRAM_TO_SOCKET, interface)?;
        let settings = UmemConfig::builder()
            .frame_size(FrameSize::new(FRAME_SIZE)?)
            .fill_queue_size(QueueSize::new(FRAMES)?)
            .comp_queue_size(QueueSize::new(FRAMES)?)
            .build()?;
        let frames = NonZeroU32::new(FRAMES).context("there are no frames")?;
        let (umem, free) = Umem::new(settings, frames, false)
            .context("cannot make a UMEM; that takes root or the capability CAP_NET_RAW")?;
        let (tx, rx, rings) = bind(interface, &umem)?;
        let (fill, completion) = rings.context("libxdp gave no fill and completion rings for a UMEM of its own")?;
        let socket = rx.fd().as_raw_fd();
        // Older kernels do not know it, and take TX_BATCH.
        let _ = set_tx_budget(socket);
        sockets
            .set(QUEUE, socket, 0)
            .with_context(|| format!("cannot write the map {MAP_SOCKETS}"))?;
        let mut port = Self {
            _link: link,
            _sockets: sockets,
            tx,
            rx,
            fill,
            completion,
            umem,
            free,
            received: vec![FrameDesc::default(); BATCH].into_boxed_slice(),
            sent: vec![FrameDesc::default(); BATCH].into_boxed_slice(),
            outgoing: Vec::with_capacity(FRAMES as usize),
            in_fill: 0,
        };
        port.refill()?;
        Ok(port)
    }

    /// Sends `count` copies of `frame`.
    ///
    /// # Errors
    ///
    /// There are not so many frames, it does not fit one, or the kernel does not send.
    pub(super) fn send(&mut self, frame: &[u8], count: usize) -> anyhow::Result<()> {
        self.collect();
        if self.free.len() < count {
            bail!("there are {} frames to send, and not {count}", self.free.len());
        }
        let first = self.free.len() - count;
        for mut descriptor in self.free.split_off(first) {
            {
                // SAFETY: the descriptor is this UMEM's, and its frame is in no ring and nobody else's hand.
                let mut data = unsafe { self.umem.data_mut(&mut descriptor) };
                let mut cursor = data.cursor();
                cursor.set_pos(0);
                cursor.write_all(frame).context("a frame does not fit the UMEM's")?;
            }
            self.outgoing.push(descriptor);
        }
        self.flush()
    }

    /// Sends back what has been received, `length` octets of each frame. Returns how many frames that were.
    ///
    /// # Errors
    ///
    /// The kernel does not send.
    pub(super) fn reflect(&mut self, length: usize) -> anyhow::Result<usize> {
        let count = self.receive();
        for index in 0..count {
            let mut descriptor = self.received[index];
            // What the kernel says about a received frame is nothing to be sent with.
            descriptor.set_options(0);
            {
                // SAFETY: the descriptor is this UMEM's, and the kernel has just given its frame back.
                let mut data = unsafe { self.umem.data_mut(&mut descriptor) };
                data.cursor().set_pos(length.max(2 * MAC));
                let (destination, rest) = data.contents_mut().split_at_mut(MAC);
                destination.swap_with_slice(&mut rest[..MAC]);
            }
            self.outgoing.push(descriptor);
        }
        // Before the fill ring takes what it lacks, or nothing would be left to send.
        self.collect();
        self.refill()?;
        self.flush()?;
        Ok(count)
    }

    /// Takes what has been received, and sends nothing. Returns how many frames that were.
    ///
    /// # Errors
    ///
    /// The kernel does not send what was to be sent earlier.
    pub(super) fn discard(&mut self) -> anyhow::Result<usize> {
        let count = self.receive();
        self.free.extend_from_slice(&self.received[..count]);
        self.collect();
        self.refill()?;
        self.flush()?;
        Ok(count)
    }

    /// Takes up to a batch of received frames.
    fn receive(&mut self) -> usize {
        // SAFETY: the ring is this UMEM's, and only descriptors of this UMEM's frames were put into the fill ring.
        let count = unsafe { self.rx.consume(&mut self.received) };
        self.in_fill -= count as u32;
        count
    }

    /// Takes back the frames that have been sent.
    fn collect(&mut self) {
        loop {
            // SAFETY: the ring is this UMEM's, and only descriptors of this UMEM's frames were put into the TX ring.
            let count = unsafe { self.completion.consume(&mut self.sent) };
            self.free.extend_from_slice(&self.sent[..count]);
            if count < self.sent.len() {
                return;
            }
        }
    }

    /// Gives the kernel frames to receive into.
    fn refill(&mut self) -> anyhow::Result<()> {
        let count = self.free.len().min((FILL - self.in_fill) as usize);
        if count > 0 {
            let first = self.free.len() - count;
            // SAFETY: the descriptors are this UMEM's, and were taken from those the kernel does not have.
            let given = unsafe { self.fill.produce(&self.free[first..]) };
            // The ring takes all or nothing, and has room for every frame there is.
            self.free.truncate(self.free.len() - given);
            self.in_fill += given as u32;
        }
        if self.fill.needs_wakeup() {
            self.fill
                .wakeup(self.rx.fd_mut(), 0)
                .context("cannot have the kernel receive")?;
        }
        Ok(())
    }

    /// Gives the kernel what is to be sent, and has it look at the TX ring until that is empty or nothing moves.
    fn flush(&mut self) -> anyhow::Result<()> {
        if !self.outgoing.is_empty() {
            // SAFETY: the descriptors are this UMEM's, and their frames are in no other ring.
            let given = unsafe { self.tx.produce(&self.outgoing) };
            // The ring takes all or nothing, and has room for every frame there is.
            self.outgoing.drain(..given);
        }
        let waiting = self.waiting();
        if waiting == 0 {
            return Ok(());
        }
        for _ in 0..=waiting.div_ceil(TX_BATCH) {
            self.tx.wakeup().context("cannot have the kernel send")?;
            if self.waiting() == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Frames in the TX ring the kernel has not yet taken.
    fn waiting(&mut self) -> u32 {
        FRAMES - self.tx.nb_free_exact()
    }
}

type Rings = (TxQueue, RxQueue, Option<(FillQueue, CompQueue)>);

/// Binds, waiting while the queue is still in use: the kernel takes a moment to clear up after another socket.
fn bind(interface: &str, umem: &Umem) -> anyhow::Result<Rings> {
    let settings = SocketConfig::builder()
        .rx_queue_size(QueueSize::new(FRAMES)?)
        .tx_queue_size(QueueSize::new(FRAMES)?)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(BindFlags::XDP_COPY | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    let name = interface
        .parse::<Interface>()
        .context("this cannot be the name of an interface")?;
    let deadline = Instant::now() + BUSY_PATIENCE;
    loop {
        // SAFETY: the flag that keeps libxdp from loading a program of its own is set, and the UMEM is not shared.
        match unsafe { Socket::new(settings, umem, &name, QUEUE) } {
            Ok(rings) => return Ok(rings),
            Err(error) if is_busy(&error) && Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
            Err(error) => {
                return Err(anyhow!(error))
                    .with_context(|| format!("cannot bind an AF_XDP socket to queue {QUEUE} of {interface}"));
            }
        }
    }
}

/// Whether the system call within an error of xsk-rs failed because the queue has another socket.
fn is_busy(error: &(dyn StdError + 'static)) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    cause.and_then(io::Error::raw_os_error) == Some(libc::EBUSY)
}

/// Has one system call move more descriptors.
///
/// # Errors
///
/// What the kernel says; `ENOPROTOOPT` before Linux 6.17.
fn set_tx_budget(socket: RawFd) -> io::Result<()> {
    let budget = TX_BUDGET;
    // SAFETY: the pointer and the length are those of `budget`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket,
            libc::SOL_XDP,
            XDP_MAX_TX_SKB_BUDGET,
            (&raw const budget).cast::<c_void>(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
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

    #[test]
    fn a_descriptor_that_is_no_socket_takes_no_budget() {
        assert_eq!(set_tx_budget(-1).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn frames_are_left_to_send() {
        const { assert!(FRAMES - FILL >= 2 * BATCH as u32) };
    }
}
