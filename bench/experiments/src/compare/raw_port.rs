//! An AF_XDP socket without a TCP on it: what comes in goes back. Both ends of the bare reflect are made of it.

use std::time::Duration;

use anyhow::{Context, bail};
use aya::maps::{MapData, XskMap};
use aya::programs::links::FdLink;
use tidegate_flood::object;
use tidegate_flood::socket::{self, BATCH, FRAMES, QUEUE};
use tidegate_traffic_abi::{MAP_SOCKETS, PROGRAM_TO_SOCKET};
use tidegate_xsk::{RxFrame, Socket, Unsent, options};

use super::frame_pattern::Pattern;

/// Frames the kernel has to receive into, far more than may be on their way at once. The others are there to send.
const FILL: u32 = FRAMES / 2;

/// The time a queue may be in use by the socket of a server that has just ended.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Octets of an Ethernet address.
const MAC: usize = 6;

/// Descriptors one system call moves in copy mode from Linux 6.17 on, as tidegate asks for it.
const TX_BUDGET: u32 = 256;

/// A socket on the first queue of an interface, in copy mode, and the program that redirects to it. Dropping it removes
/// both.
pub(super) struct RawPort {
    _link: FdLink,
    // The program refers to it by itself; it is kept as long as there is something in it.
    _sockets: XskMap<MapData>,
    socket: Socket,
    /// Room for one burst of received frames.
    received: Vec<RxFrame>,
}

impl RawPort {
    /// Attaches the program to `interface` of the calling thread's network namespace and binds a socket.
    ///
    /// # Errors
    ///
    /// The kernel or the driver refuses the program, the memory or the socket.
    pub(super) fn open(interface: &str) -> anyhow::Result<Self> {
        let mut ebpf = object::load()?;
        let mut sockets = object::take_sockets(&mut ebpf)?;
        let link = object::attach(&mut ebpf, PROGRAM_TO_SOCKET, interface)?;
        let socket = socket::open(interface, QUEUE, BUSY_TIMEOUT)?;
        // Older kernels do not know it, and take batches of their own choice.
        let _ = options::set_tx_budget(socket.fd(0), TX_BUDGET);
        sockets
            .set(QUEUE, socket.fd(0), 0)
            .with_context(|| format!("cannot write the map {MAP_SOCKETS}"))?;
        let mut port = Self {
            _link: link,
            _sockets: sockets,
            socket,
            received: Vec::with_capacity(BATCH as usize),
        };
        port.replenish_fill();
        Ok(port)
    }

    /// Sends `count` copies of `frame`.
    ///
    /// # Errors
    ///
    /// There are not so many frames, it does not fit one, or the kernel does not send.
    pub(super) fn send(&mut self, frame: &[u8], count: usize) -> anyhow::Result<()> {
        self.socket.reap_completions();
        let free = self.socket.free() as usize;
        if free < count {
            bail!("there are {free} frames to send, and not {count}");
        }
        for _ in 0..count {
            if !self.socket.queue_copy(0, frame) {
                bail!("a frame does not fit the UMEM's");
            }
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
        self.socket.receive(&mut self.received, BATCH as usize);
        let count = self.received.len();
        let (mut sent, mut failed) = (0, None);
        for frame in self.received.drain(..) {
            let lengths = pattern.answer();
            sent += lengths.len();
            let [length, more @ ..] = lengths else {
                self.socket.recycle(frame);
                continue;
            };
            let mut frame = self.socket.turn_into_tx(frame);
            let (destination, rest) = self.socket.buffer(&mut frame).split_at_mut(MAC);
            destination.swap_with_slice(&mut rest[..MAC]);
            self.socket.queue(frame, 0, *length);
            for &length in more {
                match template.get(..length) {
                    Some(another) if self.socket.queue_copy(0, another) => {}
                    Some(_) => failed = Some("the kernel has every frame"),
                    None => failed = Some("more frames are due than come in"),
                }
            }
        }
        if let Some(failed) = failed {
            bail!(failed);
        }
        // Before the fill ring takes what it lacks, or nothing would be left to send.
        self.socket.reap_completions();
        self.replenish_fill();
        self.flush()?;
        Ok((count, sent))
    }

    /// Takes what has been received, and sends nothing. Returns how many frames that were.
    ///
    /// # Errors
    ///
    /// The kernel does not send what was to be sent earlier.
    pub(super) fn discard(&mut self) -> anyhow::Result<usize> {
        self.socket.receive(&mut self.received, BATCH as usize);
        let count = self.received.len();
        for frame in self.received.drain(..) {
            self.socket.recycle(frame);
        }
        self.socket.reap_completions();
        self.replenish_fill();
        self.flush()?;
        Ok(count)
    }

    /// Gives the kernel frames to receive into.
    fn replenish_fill(&mut self) {
        self.socket.replenish_fill(FILL);
        if self.socket.fill_needs_wakeup() {
            self.socket.wake_receive();
        }
    }

    /// Gives the kernel what is to be sent, and has it look at the TX ring until that is empty or nothing moves.
    fn flush(&mut self) -> anyhow::Result<()> {
        // The ring takes all or nothing, and has room for every frame there is.
        self.socket.submit();
        if self.socket.kick().unsent == Unsent::LinkDown {
            bail!("cannot have the kernel send: the interface is down or gone");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_left_to_send() {
        const { assert!(FRAMES - FILL >= 2 * BATCH) };
    }
}
