//! An AF_XDP socket on each queue of the interface, for segments to and from the peers.

use std::time::Duration;

use anyhow::bail;
use tidegate_args::UsageError;
use tidegate_traffic_abi::MAX_QUEUES;
use tidegate_xsk::{RxFrame, Socket, Umems, Unsent};

use crate::sink::Sink;
use crate::socket::{self, BATCH, FRAMES};

/// Frames that each queue has to receive into. The others are there to send.
const FILL: u32 = FRAMES / 2;

/// The time a queue may be in use by the socket of a flood that has just ended.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The sockets.
pub(super) struct Port {
    sockets: Vec<Socket>,
    umems: Umems,
    /// Room for one burst of received frames.
    received: Vec<RxFrame>,
}

impl Port {
    /// Opens a socket on each of the `queues` of `interface` and has `sink` take to them what it takes.
    ///
    /// # Errors
    ///
    /// There are too many queues, or the kernel refuses the memory or a socket.
    pub(super) fn open(interface: &str, queues: u32, sink: &Sink) -> anyhow::Result<Self> {
        if queues > MAX_QUEUES {
            return Err(UsageError(format!(
                "{interface} receives on {queues} queues, and a flood of connections can serve {MAX_QUEUES}; run \
                 `ethtool -L {interface} combined {MAX_QUEUES}`"
            ))
            .into());
        }
        let mut sockets = Vec::new();
        for queue in 0..queues {
            let mut socket = socket::open(interface, queue, BUSY_TIMEOUT)?;
            socket.replenish_fill(FILL);
            sink.take_to(queue, socket.fd(0))?;
            sockets.push(socket);
        }
        Ok(Self {
            umems: Umems::of(sockets.iter()),
            sockets,
            received: Vec::with_capacity(BATCH as usize),
        })
    }

    /// Appends to `arrivals` what `read` makes of each frame that has been received, as many of each queue as it has to
    /// receive into at most.
    pub(super) fn receive<T>(&mut self, arrivals: &mut Vec<T>, read: impl Fn(&[u8]) -> Option<T>) {
        for socket in &mut self.sockets {
            for _ in 0..FILL / BATCH {
                let burst = socket.receive(&mut self.received, BATCH as usize);
                for frame in self.received.drain(..) {
                    arrivals.extend(read(self.umems.bytes(&frame)));
                    socket.recycle(frame);
                }
                if burst.frames < BATCH {
                    break;
                }
            }
        }
    }

    /// Queues the frame that `write` writes and returns the length of, on a queue that `flow` decides. False if there
    /// is no frame for it.
    pub(super) fn queue(&mut self, flow: u32, write: impl FnOnce(&mut [u8]) -> usize) -> bool {
        let index = flow as usize % self.sockets.len();
        let socket = &mut self.sockets[index];
        let Some(mut frame) = socket.take() else { return false };
        let length = write(socket.buffer(&mut frame));
        socket.queue(frame, 0, length);
        true
    }

    /// Frames that each queue can still send, at least.
    pub(super) fn room(&self) -> u32 {
        self.sockets.iter().map(Socket::free).min().unwrap_or(0)
    }

    /// Gives the kernel what is queued, and frames to receive into.
    ///
    /// # Errors
    ///
    /// The interface is down or gone.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        for socket in &mut self.sockets {
            // Before the fill ring takes what it lacks, or nothing would be left to send.
            socket.reap_completions();
            socket.replenish_fill(FILL);
            if socket.fill_needs_wakeup() {
                socket.wake_receive();
            }
            // The ring takes all or nothing, and has room for every frame there is.
            socket.submit();
            if socket.kick().unsent == Unsent::LinkDown {
                bail!("cannot have the kernel send: the interface is down or gone");
            }
        }
        Ok(())
    }
}
