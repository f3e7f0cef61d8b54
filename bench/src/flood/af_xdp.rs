//! Frames made in userspace and sent through an AF_XDP socket, for kernels without live frames.

use std::error::Error as StdError;
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use tidegate_abi::traffic::Flood;
use xsk_rs::config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

use super::template::Template;

/// Frames of the UMEM, all of which may be on their way at once: 4 MiB, which fits the usual limit of locked memory.
const FRAMES: u32 = 2048;

/// Bytes of a frame; there are no smaller ones.
const FRAME_SIZE: u32 = 2048;

/// The device's queue that is sent on. Every device has it.
const QUEUE: u32 = 0;

/// Frames given to the kernel at once, as many as one system call moves in copy mode.
const BATCH: usize = 32;

/// How long the kernel may go without sending anything.
const PATIENCE: Duration = Duration::from_secs(1);

/// An AF_XDP socket that only sends.
pub(super) struct AfXdp {
    tx: TxQueue,
    completion: CompQueue,
    // Nothing is received, but without them there is no socket.
    _rx: RxQueue,
    _fill: FillQueue,
    umem: Umem,
    template: Template,
    /// Frames the kernel does not have.
    free: Vec<FrameDesc>,
    /// Frames to be given to the kernel.
    batch: Vec<FrameDesc>,
    /// Room for the descriptors of sent frames.
    scratch: Vec<FrameDesc>,
    sent: u64,
}

impl AfXdp {
    /// Opens a socket on the first queue of `interface`, in copy mode.
    ///
    /// # Errors
    ///
    /// The kernel refuses the memory or the socket.
    pub(super) fn open(interface: &str, flood: Flood, seed: u64) -> anyhow::Result<Self> {
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
        let settings = SocketConfig::builder()
            .rx_queue_size(QueueSize::new(FRAMES)?)
            .tx_queue_size(QueueSize::new(FRAMES)?)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(BindFlags::XDP_COPY | BindFlags::XDP_USE_NEED_WAKEUP)
            .build();
        let name = interface
            .parse::<Interface>()
            .context("this cannot be the name of an interface")?;
        // SAFETY: the flag that keeps libxdp from loading a program of its own is set, and the UMEM is not shared.
        let (tx, rx, rings) = unsafe { Socket::new(settings, &umem, &name, QUEUE) }.map_err(|error| {
            let what = format!("cannot bind an AF_XDP socket to queue {QUEUE} of {interface}");
            with_cause(&what, &error)
        })?;
        let (fill, completion) = rings.context("libxdp gave no fill and completion rings for a UMEM of its own")?;
        Ok(Self {
            tx,
            completion,
            _rx: rx,
            _fill: fill,
            umem,
            template: Template::new(flood, seed),
            free,
            batch: Vec::with_capacity(BATCH),
            scratch: vec![FrameDesc::default(); BATCH],
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
            if self.collect() > 0 {
                last_progress = Instant::now();
            }
            let batch = left.min(BATCH).min(self.free.len());
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
            let given = unsafe { self.tx.produce(&self.batch) };
            // The ring takes all or nothing, and has room for every frame there is.
            self.free.extend(self.batch.drain(..).skip(given));
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
            let Some(mut descriptor) = self.free.pop() else { break };
            let frame = self
                .template
                .next_frame()
                .context("the flood's addresses are not those of a benchmark")?;
            {
                // SAFETY: the descriptor is this UMEM's, and its frame is in no ring and nobody else's hand.
                let mut data = unsafe { self.umem.data_mut(&mut descriptor) };
                let mut cursor = data.cursor();
                cursor.set_pos(0);
                cursor.write_all(frame).context("a frame does not fit the UMEM's")?;
            }
            self.batch.push(descriptor);
        }
        Ok(())
    }

    /// Takes back the frames that have been sent. Returns how many there were.
    fn collect(&mut self) -> usize {
        let mut collected = 0;
        loop {
            // SAFETY: the ring is this UMEM's, and only descriptors of this UMEM's frames were put into the TX ring.
            let sent = unsafe { self.completion.consume(&mut self.scratch) };
            self.free.extend_from_slice(&self.scratch[..sent]);
            collected += sent;
            if sent < self.scratch.len() {
                return collected;
            }
        }
    }

    /// Has the kernel look at the TX ring.
    fn wake(&self) -> anyhow::Result<()> {
        if self.tx.needs_wakeup() {
            self.tx.wakeup().context("cannot have the kernel send")?;
        }
        Ok(())
    }
}

/// An error of xsk-rs with the system call's error within it.
fn with_cause(what: &str, error: &(dyn StdError + 'static)) -> anyhow::Error {
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match cause {
        Some(cause) => anyhow!("{what}: {cause}"),
        None => anyhow!("{what}: {error}"),
    }
}
