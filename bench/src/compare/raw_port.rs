//! An AF_XDP socket without a TCP on it: what comes in goes back. Both ends of the bare reflect are made of it.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use anyhow::{Context, bail};
use aya::maps::{MapData, XskMap};
use aya::programs::links::FdLink;
use tidegate_traffic_abi::{MAP_SOCKETS, PROGRAM_TO_SOCKET};
use xsk_rs::FrameDesc;

use super::frame_pattern::Pattern;
use crate::flood::object;
use crate::xdp_socket::{FRAMES, QUEUE, XdpSocket};

/// Frames the kernel has to receive into, far more than may be on their way at once. The others are there to send.
const FILL: u32 = FRAMES / 2;

/// Frames taken from the socket at once.
const BATCH: usize = 64;

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
    socket: XdpSocket,
    /// Room for the descriptors of received frames.
    received: Box<[FrameDesc]>,
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
        let socket = XdpSocket::open(interface, BUSY_PATIENCE)?;
        let descriptor = socket.rx.fd().as_raw_fd();
        // Older kernels do not know it, and take TX_BATCH.
        let _ = set_tx_budget(descriptor);
        sockets
            .set(QUEUE, descriptor, 0)
            .with_context(|| format!("cannot write the map {MAP_SOCKETS}"))?;
        let mut port = Self {
            _link: link,
            _sockets: sockets,
            socket,
            received: vec![FrameDesc::default(); BATCH].into_boxed_slice(),
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
        self.socket.collect();
        let free = self.socket.free.len();
        if free < count {
            bail!("there are {free} frames to send, and not {count}");
        }
        for _ in 0..count {
            self.outgoing.push(self.socket.write(frame)?);
        }
        self.flush()
    }

    /// Answers every frame that has been received as `pattern` says: sends it back, and more frames from the front of
    /// `template` where more than one is due. Returns how many frames were received, and how many sent.
    ///
    /// # Errors
    ///
    /// The kernel does not send, or `template` is too short.
    pub(super) fn reflect(&mut self, pattern: &mut Pattern, template: &[u8]) -> anyhow::Result<(usize, usize)> {
        let count = self.receive();
        let mut sent = 0;
        for index in 0..count {
            let mut descriptor = self.received[index];
            let lengths = pattern.answer();
            sent += lengths.len();
            let [length, more @ ..] = lengths else {
                self.socket.free.push(descriptor);
                continue;
            };
            // What the kernel says about a received frame is nothing to be sent with.
            descriptor.set_options(0);
            {
                // SAFETY: the descriptor is this UMEM's, and the kernel has just given its frame back.
                let mut data = unsafe { self.socket.umem.data_mut(&mut descriptor) };
                data.cursor().set_pos(*length);
                let (destination, rest) = data.contents_mut().split_at_mut(MAC);
                destination.swap_with_slice(&mut rest[..MAC]);
            }
            self.outgoing.push(descriptor);
            for &length in more {
                let frame = template.get(..length).context("more frames are due than come in")?;
                self.outgoing.push(self.socket.write(frame)?);
            }
        }
        // Before the fill ring takes what it lacks, or nothing would be left to send.
        self.socket.collect();
        self.refill()?;
        self.flush()?;
        Ok((count, sent))
    }

    /// Takes what has been received, and sends nothing. Returns how many frames that were.
    ///
    /// # Errors
    ///
    /// The kernel does not send what was to be sent earlier.
    pub(super) fn discard(&mut self) -> anyhow::Result<usize> {
        let count = self.receive();
        self.socket.free.extend_from_slice(&self.received[..count]);
        self.socket.collect();
        self.refill()?;
        self.flush()?;
        Ok(count)
    }

    /// Takes up to a batch of received frames.
    fn receive(&mut self) -> usize {
        // SAFETY: the ring is this UMEM's, and only descriptors of this UMEM's frames were put into the fill ring.
        let count = unsafe { self.socket.rx.consume(&mut self.received) };
        self.in_fill -= count as u32;
        count
    }

    /// Gives the kernel frames to receive into.
    fn refill(&mut self) -> anyhow::Result<()> {
        let XdpSocket { free, fill, rx, .. } = &mut self.socket;
        let count = free.len().min((FILL - self.in_fill) as usize);
        if count > 0 {
            let first = free.len() - count;
            // SAFETY: the descriptors are this UMEM's, and were taken from those the kernel does not have.
            let given = unsafe { fill.produce(&free[first..]) };
            // The ring takes all or nothing, and has room for every frame there is.
            free.truncate(free.len() - given);
            self.in_fill += given as u32;
        }
        if fill.needs_wakeup() {
            fill.wakeup(rx.fd_mut(), 0).context("cannot have the kernel receive")?;
        }
        Ok(())
    }

    /// Gives the kernel what is to be sent, and has it look at the TX ring until that is empty or nothing moves.
    fn flush(&mut self) -> anyhow::Result<()> {
        if !self.outgoing.is_empty() {
            // SAFETY: the descriptors are this UMEM's, and their frames are in no other ring.
            let given = unsafe { self.socket.tx.produce(&self.outgoing) };
            // The ring takes all or nothing, and has room for every frame there is.
            self.outgoing.drain(..given);
        }
        let waiting = self.waiting();
        if waiting == 0 {
            return Ok(());
        }
        for _ in 0..=waiting.div_ceil(TX_BATCH) {
            self.socket.tx.wakeup().context("cannot have the kernel send")?;
            if self.waiting() == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Frames in the TX ring the kernel has not yet taken.
    fn waiting(&mut self) -> u32 {
        FRAMES - self.socket.tx.nb_free_exact()
    }
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

    #[test]
    fn a_descriptor_that_is_no_socket_takes_no_budget() {
        assert_eq!(set_tx_budget(-1).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn frames_are_left_to_send() {
        const { assert!(FRAMES - FILL >= 2 * BATCH as u32) };
    }
}
