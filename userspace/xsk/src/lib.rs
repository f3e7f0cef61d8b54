//! AF_XDP sockets, those of each queue with a UMEM of their own.
//!
//! [`Umem`] is the memory, [`Umem::bind`] makes a [`Socket`] of it: four rings, the frames that no ring has, wake-ups
//! and statistics. [`Socket::add_device`] adds the rings of a queue of another device, to the same frames. A received
//! frame is an [`RxFrame`], one to be sent a [`TxFrame`]; [`Umems`] reads received frames of several sockets, on
//! whatever thread. A packet may have several frames where [`MultiBuffer`] says so. The only crate that knows xsk-rs;
//! what that does not have is in [`options`].
//!
//! Nothing here is `unsafe` to use. All but the kernel's rings hold a frame by a token that can be moved and not
//! copied ([`Frame`], within [`RxFrame`], or [`TxFrame`]): a frame's descriptor enters a ring only when its token ends,
//! and its memory is only touched by whoever holds the token. A token also tells the UMEM it is of, and a socket takes
//! none of another's.
//!
//! ```no_run
//! use std::time::Duration;
//! use tidegate_xsk::{Mode, SocketSettings, Umem, UmemSettings};
//!
//! # fn main() -> std::io::Result<()> {
//! let umem = Umem::new(UmemSettings {
//!     frames: 2048,
//!     frame_size: 2048,
//!     fill_ring: 1024,
//!     completion_ring: 2048,
//!     huge_pages: false,
//! })?;
//! let settings = SocketSettings {
//!     interface: "eth1",
//!     queue: 0,
//!     rx_ring: 1024,
//!     tx_ring: 2048,
//!     mode: Mode::Copy,
//!     burst: 64,
//!     multi_buffer: None,
//!     busy_timeout: Duration::ZERO,
//! };
//! let mut socket = umem.bind(&settings).map_err(|(_, error)| error)?;
//! // An XDP program redirects to `socket.fd(0)`.
//! socket.replenish_fill(512);
//! let mut received = Vec::new();
//! socket.receive(&mut received, 64);
//! for frame in received.drain(..) {
//!     // Back to where it came from, as it is.
//!     let length = frame.length();
//!     let mut frame = socket.turn_into_tx(frame);
//!     let (destination, rest) = socket.buffer(&mut frame).split_at_mut(6);
//!     destination.swap_with_slice(&mut rest[..6]);
//!     socket.queue(frame, 0, length);
//! }
//! socket.submit();
//! socket.kick();
//! socket.reap_completions();
//! # Ok(())
//! # }
//! ```

mod frame;
mod multi_buffer;
pub mod options;
mod rings;
mod rx_frame;
mod socket;
mod statistics;
mod transmit;
mod umem;

/// Devices that can have sockets of one UMEM.
pub const MAX_DEVICES: usize = 8;

pub use frame::{Frame, FramePool};
pub use multi_buffer::MultiBuffer;
pub use rx_frame::{RxFrame, Umems};
pub use socket::{Burst, Socket};
pub use statistics::Statistics;
pub use transmit::{Kick, TxFrame, Unsent};
pub use umem::{Mode, SocketSettings, Umem, UmemSettings};
