//! The four rings on one queue of one device.

use std::os::fd::{AsRawFd, RawFd};

use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue};

/// The rings of one device, and what of the UMEM's frames is in them.
#[derive(Debug)]
pub(crate) struct Rings {
    pub(crate) rx: RxQueue,
    pub(crate) tx: TxQueue,
    pub(crate) fill: FillQueue,
    pub(crate) completion: CompQueue,
    pub(crate) fd: RawFd,
    pub(crate) tx_ring: u32,
    /// Frames the kernel has for receiving.
    pub(crate) in_fill: u32,
    /// Frames the kernel has for sending.
    pub(crate) in_tx: u32,
    /// Frames to be sent with the next [`Socket::submit`](crate::Socket::submit).
    pub(crate) queued: Vec<FrameDesc>,
    /// Whether the rings are left alone, with the frames that are in them.
    pub(crate) is_closed: bool,
}

impl Rings {
    pub(crate) fn new(rx: RxQueue, tx: TxQueue, fill: FillQueue, completion: CompQueue, tx_ring: u32) -> Self {
        Self {
            fd: rx.fd().as_raw_fd(),
            rx,
            tx,
            fill,
            completion,
            tx_ring,
            in_fill: 0,
            in_tx: 0,
            queued: Vec::with_capacity(tx_ring as usize),
            is_closed: false,
        }
    }
}
