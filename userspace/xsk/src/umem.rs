//! The memory of a socket, and how a socket is bound.

use core::error::Error as StdError;
use core::num::NonZeroU32;
use core::time::Duration;
use std::io;
use std::thread;
use std::time::Instant;

use xsk_rs::FrameDesc;
use xsk_rs::config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};

use crate::multi_buffer::MultiBuffer;
use crate::rings::Rings;
use crate::socket::Socket;

/// Pauses between two attempts to bind to a queue in use: the first, and the longest.
const BUSY_PAUSE: Duration = Duration::from_millis(10);
const MAX_BUSY_PAUSE: Duration = Duration::from_millis(200);

/// Sizes of a UMEM, and of the two rings that belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UmemSettings {
    /// The number of frames, at least 1.
    pub frames: u32,
    /// Bytes of a frame, a power of two from 2,048 to the page size.
    pub frame_size: u32,
    /// Entries of the fill ring, a power of two.
    pub fill_ring: u32,
    /// Entries of the completion ring, a power of two.
    pub completion_ring: u32,
    /// Whether the memory is made of huge pages.
    pub huge_pages: bool,
}

/// The way frames come into the UMEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The kernel copies them (`XDP_COPY`), which it can for every device.
    Copy,
    /// The device writes them there (`XDP_ZEROCOPY`).
    ZeroCopy,
}

/// Where and how a socket is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketSettings<'a> {
    /// The name of an interface in the calling thread's network namespace.
    pub interface: &'a str,
    /// The number of one of its queues.
    pub queue: u32,
    /// Entries of the RX ring, a power of two.
    pub rx_ring: u32,
    /// Entries of the TX ring, a power of two. The completion ring should not be smaller.
    pub tx_ring: u32,
    /// In which mode.
    pub mode: Mode,
    /// The number of descriptors taken out of a ring at once.
    pub burst: u32,
    /// The time to go on trying while the queue has another socket: the kernel takes a moment to clear up after a
    /// process that was killed.
    pub busy_timeout: Duration,
    /// The limits of packets of several frames; `None`: a packet has one, and longer ones are dropped. Where a UMEM has
    /// several sockets, that of the first counts.
    pub multi_buffer: Option<MultiBuffer>,
}

/// A UMEM that no socket is bound to.
#[derive(Debug)]
pub struct Umem {
    pub(crate) memory: xsk_rs::Umem,
    /// By frame number: the descriptor of the frame when it is free.
    pub(crate) descriptors: Box<[FrameDesc]>,
    frame_size: u32,
    /// Bytes of a packet that a frame has room for.
    pub(crate) frame_room: usize,
}

impl Umem {
    /// Makes a UMEM.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] for sizes that cannot be; else the kernel's error: `ENOBUFS` above the limit of
    /// locked memory, `ENOMEM` without the memory or huge pages, `EAFNOSUPPORT` without AF_XDP, `EPERM` without
    /// `CAP_NET_RAW`.
    pub fn new(settings: UmemSettings) -> io::Result<Self> {
        let config = UmemConfig::builder()
            .frame_size(FrameSize::new(settings.frame_size).map_err(invalid)?)
            .fill_queue_size(QueueSize::new(settings.fill_ring).map_err(invalid)?)
            .comp_queue_size(QueueSize::new(settings.completion_ring).map_err(invalid)?)
            .build()
            .map_err(invalid)?;
        let frames = NonZeroU32::new(settings.frames).ok_or_else(|| invalid("a UMEM has no frames"))?;
        let made = xsk_rs::Umem::new(config, frames, settings.huge_pages);
        let (memory, descriptors) = made.map_err(|error| into_io(&error))?;
        Ok(Self {
            memory,
            descriptors: descriptors.into_boxed_slice(),
            frame_size: settings.frame_size,
            frame_room: config.mtu() as usize,
        })
    }

    /// Bytes of a frame.
    pub fn frame_size(&self) -> u32 {
        self.frame_size
    }

    /// Binds a socket. Its fill ring is empty.
    ///
    /// # Errors
    ///
    /// The kernel's error, with the UMEM, which can be bound again: `EBUSY` when the queue has another socket,
    /// `ENETDOWN` when the interface is down, `EPERM` without `CAP_NET_RAW`, `EOPNOTSUPP` when the driver has no
    /// zero-copy or none for packets of several frames, `EINVAL` when the kernel has no such packets.
    pub fn bind(self, settings: &SocketSettings<'_>) -> Result<Socket, (Self, io::Error)> {
        match bind(&self.memory, settings) {
            Ok(rings) => Ok(Socket::new(self, rings, settings)),
            Err(error) => Err((self, error)),
        }
    }
}

/// Binds to a queue in the UMEM `memory`, for as long as that has another socket and there is time.
pub(crate) fn bind(memory: &xsk_rs::Umem, settings: &SocketSettings<'_>) -> io::Result<Rings> {
    let deadline = Instant::now() + settings.busy_timeout;
    let mut pause = BUSY_PAUSE;
    loop {
        match try_bind(memory, settings) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                thread::sleep(pause);
                pause = (pause * 2).min(MAX_BUSY_PAUSE);
            }
            result => return result,
        }
    }
}

fn try_bind(memory: &xsk_rs::Umem, settings: &SocketSettings<'_>) -> io::Result<Rings> {
    if settings.burst == 0 {
        return Err(invalid("a burst has no frames"));
    }
    let mode = match settings.mode {
        Mode::Copy => BindFlags::XDP_COPY,
        Mode::ZeroCopy => BindFlags::XDP_ZEROCOPY,
    };
    let multi_buffer = match settings.multi_buffer {
        None => BindFlags::empty(),
        Some(_) => BindFlags::XDP_USE_SG,
    };
    // Where the UMEM has a socket already, the mode is that one's: libxdp binds with nothing but XDP_SHARED_UMEM.
    let config = SocketConfig::builder()
        .rx_queue_size(QueueSize::new(settings.rx_ring).map_err(invalid)?)
        .tx_queue_size(QueueSize::new(settings.tx_ring).map_err(invalid)?)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(mode | multi_buffer | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    let interface: Interface = settings.interface.parse().map_err(invalid)?;
    // libxdp keeps the rings of a UMEM until a socket has been bound, so after an error they are there still.
    // SAFETY: the flag that keeps libxdp from loading a program of its own is set.
    let bound = unsafe { xsk_rs::Socket::new(config, memory, &interface, settings.queue) };
    let (tx, rx, rings) = bound.map_err(|error| into_io(&error))?;
    let (fill, completion) =
        rings.ok_or_else(|| io::Error::other("the UMEM has a socket on this queue of the device already"))?;
    Ok(Rings::new(rx, tx, fill, completion, settings.tx_ring))
}

fn invalid(error: impl Into<Box<dyn StdError + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

/// The system call's error within one of xsk-rs, or all that is told of another.
fn into_io(error: &(dyn StdError + 'static)) -> io::Error {
    let source = error.source();
    let errno = source.and_then(|source| source.downcast_ref::<io::Error>()?.raw_os_error());
    match (errno, source) {
        (Some(errno), _) => io::Error::from_raw_os_error(errno),
        (None, Some(source)) => io::Error::other(format!("{error}: {source}")),
        (None, None) => io::Error::other(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use core::fmt;

    use super::*;

    #[derive(Debug)]
    struct Outer(io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("outer")
        }
    }

    impl StdError for Outer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn the_cause_is_found_within_an_error_of_the_library() {
        let error = into_io(&Outer(io::Error::from_raw_os_error(libc::ENOBUFS)));
        assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
        let error = into_io(&Outer(io::Error::other("inner")));
        assert_eq!(
            (error.raw_os_error(), error.to_string()),
            (None, "outer: inner".to_owned())
        );
        let error = into_io(&io::Error::from_raw_os_error(libc::EBUSY));
        assert_eq!(error.raw_os_error(), None, "a cause is not the error itself");
    }

    #[test]
    fn sizes_that_cannot_be_are_told_before_the_kernel_is_asked() {
        let good = UmemSettings {
            frames: 16,
            frame_size: 2048,
            fill_ring: 16,
            completion_ring: 16,
            huge_pages: false,
        };
        for bad in [
            UmemSettings { frames: 0, ..good },
            UmemSettings {
                frame_size: 1000,
                ..good
            },
            UmemSettings { fill_ring: 3, ..good },
            UmemSettings {
                completion_ring: 3,
                ..good
            },
        ] {
            let error = Umem::new(bad).expect_err("a bad size");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bad:?}: {error}");
        }
    }
}
