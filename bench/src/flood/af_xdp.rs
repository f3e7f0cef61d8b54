//! Frames made in userspace and sent through an AF_XDP socket, for kernels without live frames.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tidegate_traffic_abi::Flood;
use xsk_rs::FrameDesc;

use super::template::Template;
use crate::xdp_socket::XdpSocket;

/// Frames given to the kernel at once, as many as one system call moves in copy mode.
const BATCH: usize = 32;

/// How long the kernel may go without sending anything.
const PATIENCE: Duration = Duration::from_secs(1);

/// An AF_XDP socket that only sends.
pub(super) struct AfXdp {
    socket: XdpSocket,
    template: Template,
    /// Frames to be given to the kernel.
    batch: Vec<FrameDesc>,
    sent: u64,
}

impl AfXdp {
    /// Opens a socket on the first queue of `interface`, in copy mode.
    ///
    /// # Errors
    ///
    /// The kernel refuses the memory or the socket.
    pub(super) fn open(interface: &str, flood: Flood, seed: u64) -> anyhow::Result<Self> {
        Ok(Self {
            socket: XdpSocket::open(interface, Duration::ZERO)?,
            template: Template::new(flood, seed),
            batch: Vec::with_capacity(BATCH),
            sent: 0,
        })
    }

    /// Makes and sends `count` frames.
    ///
    /// # Errors
    ///
    /// The interface takes no more frames, or the flood's settings are not allowed.
    pub(super) fn send(&mut self, count: u32) -> anyhow::Result<()> {
        let mut left = count as usize;
        let mut last_progress = Instant::now();
        while left > 0 {
            if self.socket.collect() > 0 {
                last_progress = Instant::now();
            }
            let batch = left.min(BATCH).min(self.socket.free.len());
            if batch == 0 {
                if last_progress.elapsed() > PATIENCE {
                    bail!(
                        "the interface has sent nothing for {} s; is it still up?",
                        PATIENCE.as_secs()
                    );
                }
                self.wake()?;
                thread::yield_now();
                continue;
            }
            self.fill_batch(batch)?;
            // SAFETY: the descriptors are this UMEM's, and were taken from those the kernel does not have.
            let given = unsafe { self.socket.tx.produce(&self.batch) };
            // The ring takes all or nothing, and has room for every frame there is.
            self.socket.free.extend(self.batch.drain(..).skip(given));
            self.sent += given as u64;
            left -= given;
            self.wake()?;
        }
        Ok(())
    }

    /// Frames given to the kernel so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Writes the next `count` frames.
    fn fill_batch(&mut self, count: usize) -> anyhow::Result<()> {
        for _ in 0..count {
            let frame = self
                .template
                .next_frame()
                .context("the flood's addresses are not those of a benchmark")?;
            self.batch.push(self.socket.write(frame)?);
        }
        Ok(())
    }

    /// Has the kernel look at the TX ring.
    fn wake(&self) -> anyhow::Result<()> {
        if self.socket.tx.needs_wakeup() {
            self.socket.tx.wakeup().context("cannot have the kernel send")?;
        }
        Ok(())
    }
}
