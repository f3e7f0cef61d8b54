//! Making a port: UMEM, socket, bind.

use core::num::NonZeroU32;
use core::time::Duration;
use std::error::Error as StdError;
use std::io;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Instant;

use xsk_rs::config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

use super::fill_level::FillLevel;
use crate::config::{Config, WaitStrategy};
use crate::drivers::BindPlan;
use crate::error::{Error, with_causes};
use crate::frame::FramePool;
use crate::port::Port;
use crate::report::PortCounters;
use crate::socket_options::{self, TX_BATCH};
use crate::wait::Unsent;
use crate::xdp::Attached;

/// How long a queue may be in use by the socket of a process that has just died.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);

/// Descriptors one system call may move in copy mode, where the kernel lets us choose.
const TX_BUDGET: u32 = 256;

/// The four rings of a bound socket.
struct Rings {
    tx: TxQueue,
    rx: RxQueue,
    fill: FillQueue,
    completion: CompQueue,
}

/// A bound socket with its UMEM.
struct Bound {
    umem: Umem,
    descriptors: Vec<FrameDesc>,
    rings: Rings,
    frame_size: u32,
}

impl Port {
    /// Makes a UMEM, binds a socket to `queue` of `interface` and fills the fill ring. `owner` is the shard's index.
    /// `plan` says in which mode and with which frames; `attached` is where the program runs.
    ///
    /// # Errors
    ///
    /// [`Error::Memlock`], [`Error::NoMemory`], [`Error::QueueBusy`], [`Error::ZeroCopyRefused`],
    /// [`Error::NotPermitted`], [`Error::InterfaceDown`] or [`Error::Io`].
    pub(crate) fn open(
        interface: &str,
        queue: u32,
        owner: u16,
        config: &Config,
        plan: &BindPlan,
        attached: Attached,
    ) -> Result<Self, Error> {
        let Bound {
            umem,
            descriptors,
            rings,
            frame_size,
        } = bind(interface, queue, config, plan, attached)?;
        let socket = rings.rx.fd().as_raw_fd();
        let zero_copy =
            socket_options::zero_copy(socket).map_err(|error| Error::io("cannot read XDP_OPTIONS", error))?;
        if config.wait == WaitStrategy::BusyPoll {
            socket_options::set_busy_poll(socket, config.busy_poll, config.busy_poll_budget).map_err(|error| {
                Error::io(
                    "cannot have the kernel poll the device (SO_PREFER_BUSY_POLL, Linux 5.11); \
                     choose another wait strategy",
                    error,
                )
            })?;
        }
        if !zero_copy {
            // Fewer system calls from Linux 6.17 on; before that, batches of the kernel's choice.
            let _ = socket_options::set_tx_budget(socket, TX_BUDGET.clamp(TX_BATCH, config.tx_ring));
        }
        let mut port = Self {
            rx: rings.rx,
            tx: rings.tx,
            fill: rings.fill,
            completion: rings.completion,
            umem,
            socket,
            owner,
            zero_copy,
            frame_shift: frame_size.trailing_zeros(),
            descriptors: descriptors.into_boxed_slice(),
            pool: FramePool::new(config.frames),
            fill_level: FillLevel::new(config.fill_target(), zero_copy),
            tx_ring: config.tx_ring,
            control_reserve: config.control_reserve,
            in_fill: 0,
            in_tx: 0,
            handed_over: 0,
            reserved: None,
            queued: Vec::with_capacity(config.tx_ring as usize),
            scratch: vec![FrameDesc::default(); config.burst as usize].into_boxed_slice(),
            unsent: Unsent::Nothing,
            link_down_logged: false,
            counters: PortCounters::default(),
        };
        port.refill();
        Ok(port)
    }
}

fn create_umem(config: &Config, frame_size: u32) -> Result<(Umem, Vec<FrameDesc>), Error> {
    let settings = UmemConfig::builder()
        .frame_size(FrameSize::new(frame_size).map_err(|error| Error::Config(error.to_string()))?)
        .fill_queue_size(queue_size(config.fill_ring)?)
        .comp_queue_size(queue_size(config.completion_ring)?)
        .build()
        .map_err(|error| Error::Config(error.to_string()))?;
    let frames = NonZeroU32::new(config.frames).ok_or_else(|| Error::Config("frames is 0".to_owned()))?;
    Umem::new(settings, frames, config.huge_pages).map_err(|error| match errno(&error) {
        Some(libc::ENOBUFS) => Error::Memlock {
            bytes: config.umem_bytes(frame_size),
        },
        Some(libc::ENOMEM) => Error::NoMemory {
            bytes: config.umem_bytes(frame_size),
            huge_pages: config.huge_pages,
        },
        Some(libc::EAFNOSUPPORT) => Error::NoAfXdp,
        Some(libc::EPERM) => not_permitted(),
        _ => Error::io("cannot make a UMEM", into_io(&error)),
    })
}

/// Binds in zero-copy mode where that is planned and the kernel gives it, otherwise in copy mode.
fn bind(interface: &str, queue: u32, config: &Config, plan: &BindPlan, attached: Attached) -> Result<Bound, Error> {
    let refused = |reason: String| Error::ZeroCopyRefused {
        name: interface.to_owned(),
        queue,
        reason,
    };
    let mut made = None;
    if let Some(frame_size) = plan.zero_copy {
        if attached == Attached::Generic {
            return Err(refused("the XDP program runs in generic mode".to_owned()));
        }
        match create_umem(config, frame_size) {
            Ok((umem, descriptors)) => {
                match bind_patiently(interface, queue, config, BindFlags::XDP_ZEROCOPY, &umem) {
                    Ok(rings) => {
                        return Ok(Bound {
                            umem,
                            descriptors,
                            rings,
                            frame_size,
                        });
                    }
                    Err(error) => match error.raw_os_error() {
                        Some(libc::EBUSY | libc::EPERM | libc::EACCES | libc::ENETDOWN) => {
                            return Err(bind_error(interface, queue, error));
                        }
                        _ if plan.copy.is_none() => return Err(refused(error.to_string())),
                        _ => tracing::debug!("no zero-copy on queue {queue} of {interface}: {error}"),
                    },
                }
                made = Some((umem, descriptors, frame_size));
            }
            // The frames of copy mode may be smaller.
            Err(error @ (Error::Memlock { .. } | Error::NoMemory { .. }))
                if plan.copy.is_some_and(|copy| copy < frame_size) =>
            {
                tracing::warn!("zero-copy is not tried on queue {queue} of {interface}: {error}");
            }
            Err(error) => return Err(error),
        }
    }
    let frame_size = plan.copy.ok_or_else(|| refused("it was not tried".to_owned()))?;
    // A UMEM whose bind failed can be bound again, if its frames have the right size.
    let (umem, descriptors) = match made {
        Some((umem, descriptors, size)) if size == frame_size => (umem, descriptors),
        other => {
            drop(other);
            create_umem(config, frame_size)?
        }
    };
    let rings = bind_patiently(interface, queue, config, BindFlags::XDP_COPY, &umem)
        .map_err(|error| bind_error(interface, queue, error))?;
    Ok(Bound {
        umem,
        descriptors,
        rings,
        frame_size,
    })
}

/// Binds, waiting while the queue is still in use: the kernel takes a moment to clear up after a process that was
/// killed.
fn bind_patiently(
    interface: &str,
    queue: u32,
    config: &Config,
    mode: BindFlags,
    umem: &Umem,
) -> Result<Rings, io::Error> {
    let deadline = Instant::now() + BUSY_PATIENCE;
    let mut pause = Duration::from_millis(10);
    loop {
        match bind_once(interface, queue, config, mode, umem) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(200));
            }
            result => return result,
        }
    }
}

fn bind_once(interface: &str, queue: u32, config: &Config, mode: BindFlags, umem: &Umem) -> Result<Rings, io::Error> {
    let size = |entries| QueueSize::new(entries).map_err(io::Error::other);
    let settings = SocketConfig::builder()
        .rx_queue_size(size(config.rx_ring)?)
        .tx_queue_size(size(config.tx_ring)?)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(mode | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    let interface: Interface = interface.parse().map_err(io::Error::other)?;
    // A UMEM whose bind failed can be bound again: libxdp keeps its rings until one has succeeded.
    // SAFETY: the flag that keeps libxdp from loading a program of its own is set.
    let (tx, rx, rings) = unsafe { Socket::new(settings, umem, &interface, queue) }.map_err(|error| into_io(&error))?;
    let (fill, completion) =
        rings.ok_or_else(|| io::Error::other("libxdp gave no fill and completion rings for a UMEM of its own"))?;
    Ok(Rings {
        tx,
        rx,
        fill,
        completion,
    })
}

fn bind_error(interface: &str, queue: u32, error: io::Error) -> Error {
    let name = interface.to_owned();
    match error.raw_os_error() {
        Some(libc::EBUSY) => Error::QueueBusy { name, queue },
        Some(libc::ENETDOWN) => Error::InterfaceDown { name },
        Some(libc::EPERM | libc::EACCES) => not_permitted(),
        _ => Error::io(
            format!("cannot bind an AF_XDP socket to queue {queue} of {interface}"),
            error,
        ),
    }
}

fn not_permitted() -> Error {
    Error::NotPermitted {
        what: "opening AF_XDP sockets".to_owned(),
        capability: "CAP_NET_RAW",
    }
}

fn queue_size(entries: u32) -> Result<QueueSize, Error> {
    QueueSize::new(entries).map_err(|error| Error::Config(error.to_string()))
}

/// The system call's error within one of xsk-rs.
fn into_io(error: &(dyn StdError + 'static)) -> io::Error {
    match errno(error) {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(with_causes(error)),
    }
}

fn errno(error: &(dyn StdError + 'static)) -> Option<i32> {
    error.source()?.downcast_ref::<io::Error>()?.raw_os_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_bind_is_told_by_its_cause() {
        let error = |errno| bind_error("tgs0", 1, io::Error::from_raw_os_error(errno));
        assert!(matches!(error(libc::EBUSY), Error::QueueBusy { queue: 1, .. }));
        assert!(matches!(error(libc::ENETDOWN), Error::InterfaceDown { .. }));
        assert!(matches!(error(libc::EPERM), Error::NotPermitted { .. }));
        assert!(error(libc::EINVAL).to_string().contains("queue 1 of tgs0"));
    }

    #[test]
    fn the_cause_is_found_within_an_error_of_the_library() {
        let error = Error::io("outer", io::Error::from_raw_os_error(libc::ENOBUFS));
        assert_eq!(errno(&error), Some(libc::ENOBUFS));
        assert_eq!(into_io(&error).raw_os_error(), Some(libc::ENOBUFS));
        assert_eq!(errno(&Error::NoAfXdp), None);
    }
}
