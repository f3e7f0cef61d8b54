//! Frames made in userspace and sent through an AF_XDP socket, for kernels without live frames.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tidegate_traffic_abi::Flood;
use tidegate_xsk::Socket;

use crate::socket;
use crate::template::Template;

/// Frames given to the kernel at once, as many as one system call moves in copy mode.
const BATCH: usize = 32;

/// The time the kernel may go without sending anything.
const TIMEOUT: Duration = Duration::from_secs(1);

/// An AF_XDP socket that only sends.
pub(crate) struct AfXdp {
    socket: Socket,
    template: Template,
    sent: u64,
}

impl AfXdp {
    /// Opens a socket on the first queue of `interface`, in copy mode.
    ///
    /// # Errors
    ///
    /// The kernel refuses the memory or the socket.
    pub(crate) fn open(interface: &str, flood: Flood, seed: u64) -> anyhow::Result<Self> {
        Ok(Self {
            socket: socket::open(interface, socket::QUEUE, Duration::ZERO)?,
            template: Template::new(flood, seed),
            sent: 0,
        })
    }

    /// Makes and sends `count` frames.
    ///
    /// # Errors
    ///
    /// The interface takes no more frames, or the flood's settings are not allowed.
    pub(crate) fn send(&mut self, count: u32) -> anyhow::Result<()> {
        let mut left = count as usize;
        let mut last_progress = Instant::now();
        while left > 0 {
            if self.socket.reap_completions() > 0 {
                last_progress = Instant::now();
            }
            let batch = left.min(BATCH).min(self.socket.free() as usize);
            if batch == 0 {
                if last_progress.elapsed() > TIMEOUT {
                    bail!(
                        "the interface has sent nothing for {} s; is it still up?",
                        TIMEOUT.as_secs()
                    );
                }
                self.socket.kick();
                thread::yield_now();
                continue;
            }
            for _ in 0..batch {
                let frame = self
                    .template
                    .next_frame()
                    .context("the flood's addresses are not those of a benchmark")?;
                if !self.socket.queue_copy(0, frame) {
                    bail!("a frame does not fit the UMEM's");
                }
            }
            // The ring takes all or nothing, and has room for every frame there is.
            let given = self.socket.submit();
            self.sent += given as u64;
            left -= given;
            self.socket.kick();
        }
        Ok(())
    }

    /// Frames given to the kernel so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }
}
