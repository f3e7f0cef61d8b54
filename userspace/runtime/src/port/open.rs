//! Making a port: UMEM, socket, bind.

use core::time::Duration;
use std::io;

use tidegate_xsk::options::{self, TX_BATCH};
use tidegate_xsk::{Mode, Socket, SocketSettings, Umem, UmemSettings, Unsent};

use super::fill_level::FillLevel;
use crate::config::{Config, MAX_MTU, WaitStrategy};
use crate::drivers::BindPlan;
use crate::error::Error;
use crate::port::Port;
use crate::report::PortCounters;
use crate::routes::Routes;
use crate::shard_port::ShardPort as _;
use crate::taps::Taps;
use crate::xdp::Attached;

/// The time a queue may still be in use by the socket of a process that has just died.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Descriptors one system call may move in copy mode, where the kernel lets us choose.
const TX_BUDGET: u32 = 256;

impl Port {
    /// Makes a UMEM, binds a socket to `queue` of each of `interfaces`, the devices 0 and so on, and fills their fill
    /// rings. `plan` says in which mode and with which frames; `attached` is where the program runs.
    ///
    /// # Errors
    ///
    /// [`Error::Memlock`], [`Error::NoMemory`], [`Error::QueueBusy`], [`Error::ZeroCopyRefused`],
    /// [`Error::NotPermitted`], [`Error::InterfaceDown`] or [`Error::Io`].
    pub(crate) fn open(
        interfaces: &[&str],
        queue: u32,
        config: &Config,
        plan: &BindPlan,
        attached: Attached,
    ) -> Result<Self, Error> {
        let devices = interfaces.len() as u32;
        let socket = bind(interfaces, queue, config, plan, attached)?;
        let zero_copy =
            options::zero_copy(socket.fd(0)).map_err(|error| Error::io("cannot read XDP_OPTIONS", error))?;
        for fd in (0..socket.devices()).map(|device| socket.fd(device)) {
            if config.wait == WaitStrategy::BusyPoll {
                options::set_busy_poll(fd, config.busy_poll, config.busy_poll_budget).map_err(|error| {
                    Error::io(
                        "cannot have the kernel poll the device (SO_PREFER_BUSY_POLL, Linux 5.11); \
                             choose another wait strategy",
                        error,
                    )
                })?;
            }
            if !zero_copy {
                // Fewer system calls from Linux 6.17 on; before that, batches of the kernel's choice.
                let tx_ring = config.tx_ring(devices);
                let _ = options::set_tx_budget(fd, TX_BUDGET.clamp(TX_BATCH.min(tx_ring), tx_ring));
            }
        }
        let max_packet = plan.multi_buffer.map_or(0, |limits| limits.max_packet);
        let mut port = Self {
            max_frames: socket.frames_of(max_packet),
            packet: plan.multi_buffer.map(|_| vec![0; max_packet].into_boxed_slice()),
            socket,
            queue,
            zero_copy,
            fill_level: FillLevel::new(config.fill_target(devices), zero_copy),
            control_reserve: config.control_reserve,
            handed_over: 0,
            reserved: None,
            device: 0,
            routes: Routes::default(),
            unsent: Unsent::Nothing,
            link_down_logged: false,
            taps: Taps::default(),
            counters: PortCounters::default(),
        };
        port.replenish_fill();
        Ok(port)
    }
}

fn create_umem(config: &Config, frame_size: u32) -> Result<Umem, Error> {
    let settings = UmemSettings {
        frames: config.frames,
        frame_size,
        fill_ring: config.fill_ring,
        completion_ring: config.completion_ring,
        huge_pages: config.huge_pages,
    };
    Umem::new(settings).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOBUFS) => Error::Memlock {
            bytes: config.umem_bytes(frame_size),
        },
        Some(libc::ENOMEM) => Error::NoMemory {
            bytes: config.umem_bytes(frame_size),
            huge_pages: config.huge_pages,
        },
        Some(libc::EAFNOSUPPORT) => Error::NoAfXdp,
        Some(libc::EPERM) => not_permitted(),
        _ if error.kind() == io::ErrorKind::InvalidInput => Error::Config(error.to_string()),
        _ => Error::io("cannot make a UMEM", error),
    })
}

/// Binds in zero-copy mode where that is planned and the kernel gives it, otherwise in copy mode.
fn bind(
    interfaces: &[&str],
    queue: u32,
    config: &Config,
    plan: &BindPlan,
    attached: Attached,
) -> Result<Socket, Error> {
    let refused = |name: &str, reason: String| Error::ZeroCopyRefused {
        name: name.to_owned(),
        queue,
        reason,
    };
    let settings = SocketSettings {
        interface: interfaces[0],
        queue,
        rx_ring: config.rx_ring,
        tx_ring: config.tx_ring(interfaces.len() as u32),
        mode: Mode::ZeroCopy,
        burst: config.burst,
        busy_timeout: BUSY_TIMEOUT,
        multi_buffer: plan.multi_buffer,
    };
    let mut unbound = None;
    if let Some(frame_size) = plan.zero_copy {
        if attached == Attached::Generic {
            let reason = "the XDP program runs in generic mode".to_owned();
            return Err(refused(interfaces[0], reason));
        }
        match create_umem(config, frame_size).map(|umem| bind_all(umem, interfaces, &settings)) {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(Unbound { umem, interface, error })) => {
                match error.raw_os_error() {
                    Some(libc::EBUSY | libc::EPERM | libc::EACCES | libc::ENETDOWN) => {
                        return Err(bind_error(interface, queue, error));
                    }
                    Some(libc::EOPNOTSUPP) if plan.copy.is_none() && plan.multi_buffer.is_some() => {
                        let reason =
                            format!("{error}; above an MTU of {MAX_MTU} it must take packets of several frames");
                        return Err(refused(interface, reason));
                    }
                    _ if plan.copy.is_none() => return Err(refused(interface, error.to_string())),
                    _ => tracing::debug!("no zero-copy on queue {queue} of {interface}: {error}"),
                }
                unbound = umem;
            }
            // The frames of copy mode may be smaller.
            Err(error @ (Error::Memlock { .. } | Error::NoMemory { .. }))
                if plan.copy.is_some_and(|copy| copy < frame_size) =>
            {
                tracing::warn!("zero-copy is not tried on queue {queue} of {}: {error}", interfaces[0]);
            }
            Err(error) => return Err(error),
        }
    }
    let frame_size = plan
        .copy
        .ok_or_else(|| refused(interfaces[0], "it was not tried".to_owned()))?;
    // A UMEM whose bind failed can be bound again, if its frames have the right size.
    let umem = match unbound {
        Some(umem) if umem.frame_size() == frame_size => umem,
        other => {
            drop(other);
            create_umem(config, frame_size)?
        }
    };
    let settings = SocketSettings {
        mode: Mode::Copy,
        ..settings
    };
    bind_all(umem, interfaces, &settings)
        .map_err(|Unbound { interface, error, .. }| bind_error(interface, queue, error))
}

/// The outcome of a bind that failed.
struct Unbound<'a> {
    /// If nothing was bound to it.
    umem: Option<Umem>,
    interface: &'a str,
    error: io::Error,
}

/// Binds `umem` to the queue of the first interface, and with it, in the same mode, to that of the others.
fn bind_all<'a>(umem: Umem, interfaces: &[&'a str], settings: &SocketSettings<'a>) -> Result<Socket, Unbound<'a>> {
    let mut socket = umem.bind(settings).map_err(|(umem, error)| Unbound {
        umem: Some(umem),
        interface: settings.interface,
        error,
    })?;
    for &interface in &interfaces[1..] {
        let settings = SocketSettings { interface, ..*settings };
        socket.add_device(&settings).map_err(|error| Unbound {
            umem: None,
            interface,
            error,
        })?;
    }
    Ok(socket)
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
}
