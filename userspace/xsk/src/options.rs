//! Socket options and wake-ups of AF_XDP sockets, by descriptor.

use core::ffi::{c_int, c_void};
use core::mem::{MaybeUninit, size_of};
use core::ptr;
use core::time::Duration;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::MAX_DEVICES;
use crate::statistics::Statistics;

// include/uapi/asm-generic/socket.h; the same on every architecture Linux runs XDP on in native mode.
const SO_BUSY_POLL: c_int = 46;
const SO_PREFER_BUSY_POLL: c_int = 69;
const SO_BUSY_POLL_BUDGET: c_int = 70;

/// `XDP_MAX_TX_SKB_BUDGET` of include/uapi/linux/if_xdp.h, from Linux 6.17 on.
const XDP_MAX_TX_SKB_BUDGET: c_int = 9;

/// Descriptors one `sendto` moves in copy mode unless told otherwise (`TX_BATCH_SIZE` of net/xdp/xsk.c).
pub const TX_BATCH: u32 = 32;

/// Opens an AF_XDP socket and closes it again.
///
/// # Errors
///
/// The kernel's error: `EAFNOSUPPORT` without AF_XDP, `EPERM` without `CAP_NET_RAW`.
pub fn probe_af_xdp() -> io::Result<()> {
    open().map(drop)
}

/// An AF_XDP socket that is bound to nothing. In an XSKMAP (Linux 5.11) it has the kernel drop what is redirected to
/// it.
///
/// # Errors
///
/// As [`probe_af_xdp`], or that of `XDP_RX_RING`.
pub fn unbound() -> io::Result<OwnedFd> {
    let socket = open()?;
    // Linux 7.3 takes no socket into an XSKMAP that could not receive (ENOBUFS).
    set(socket.as_raw_fd(), libc::SOL_XDP, libc::XDP_RX_RING, 64)?;
    Ok(socket)
}

fn open() -> io::Result<OwnedFd> {
    // SAFETY: socket() takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether sockets can have packets of several frames (`XDP_USE_SG`, Linux 6.6).
///
/// # Errors
///
/// The kernel's error when there can be no socket: `EAFNOSUPPORT` without AF_XDP, `EPERM` without `CAP_NET_RAW`.
pub fn probe_multi_buffer() -> io::Result<bool> {
    let socket = open()?;
    // An unknown flag is refused before the interface is looked for, and there is none.
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: libc::XDP_COPY | libc::XDP_USE_SG,
        sxdp_ifindex: 0,
        sxdp_queue_id: 0,
        sxdp_shared_umem_fd: 0,
    };
    // SAFETY: the pointer and the length are those of `address`, which the kernel only reads.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast::<libc::sockaddr>(),
            size_of::<libc::sockaddr_xdp>() as libc::socklen_t,
        )
    };
    Ok(bound == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL))
}

/// Whether the kernel has busy polling that is preferred to interrupts (Linux 5.11), asked of any socket.
pub fn has_busy_poll(socket: RawFd) -> bool {
    // SAFETY: the option is an int, for which any bits will do.
    unsafe { get::<c_int>(socket, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL) }.is_ok()
}

/// Whether the kernel gave zero-copy (`XDP_OPTIONS`).
///
/// # Errors
///
/// The kernel's error.
pub fn zero_copy(socket: RawFd) -> io::Result<bool> {
    // SAFETY: xdp_options is one u32, for which any bits will do.
    let options: libc::xdp_options = unsafe { get(socket, libc::SOL_XDP, libc::XDP_OPTIONS)? };
    Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

/// The kernel's six counters of the socket (`XDP_STATISTICS`).
///
/// # Errors
///
/// The kernel's error.
pub fn statistics(socket: RawFd) -> io::Result<Statistics> {
    // SAFETY: xdp_statistics is six u64, for which any bits will do.
    let statistics: libc::xdp_statistics = unsafe { get(socket, libc::SOL_XDP, libc::XDP_STATISTICS)? };
    Ok(Statistics {
        rx_dropped: statistics.rx_dropped,
        rx_invalid_descs: statistics.rx_invalid_descs,
        tx_invalid_descs: statistics.tx_invalid_descs,
        rx_ring_full: statistics.rx_ring_full,
        rx_fill_ring_empty_descs: statistics.rx_fill_ring_empty_descs,
        tx_ring_empty_descs: statistics.tx_ring_empty_descs,
    })
}

/// Has the kernel poll the device in this socket's system calls rather than by interrupts.
///
/// # Errors
///
/// The kernel's error; `ENOPROTOOPT` before Linux 5.11.
pub fn set_busy_poll(socket: RawFd, time: Duration, budget: u16) -> io::Result<()> {
    let micros = c_int::try_from(time.as_micros()).unwrap_or(c_int::MAX);
    set(socket, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, 1)?;
    set(socket, libc::SOL_SOCKET, SO_BUSY_POLL, micros)?;
    set(socket, libc::SOL_SOCKET, SO_BUSY_POLL_BUDGET, c_int::from(budget))
}

/// Sets the number of descriptors one `sendto` moves in copy mode ([`TX_BATCH`] to the size of the TX ring).
///
/// # Errors
///
/// The kernel's error; `ENOPROTOOPT` before Linux 6.17.
pub fn set_tx_budget(socket: RawFd, descriptors: u32) -> io::Result<()> {
    let descriptors = c_int::try_from(descriptors).unwrap_or(c_int::MAX);
    set(socket, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, descriptors)
}

/// Has the kernel look at the TX ring.
///
/// # Errors
///
/// `EAGAIN` when there is more to move, or no room for it in the kernel; `ENETDOWN` and `ENXIO` when the interface is
/// down or gone.
#[inline]
pub fn wake_transmit(socket: RawFd) -> io::Result<()> {
    // SAFETY: a null buffer of length zero and a null address of length zero are not read.
    let sent = unsafe { libc::sendto(socket, ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Has the kernel look at the fill ring, or poll the device where busy polling is on.
///
/// # Errors
///
/// The kernel's error; nothing of it needs an answer, since the next call tries again.
#[inline]
pub fn wake_receive(socket: RawFd) -> io::Result<()> {
    // SAFETY: a null buffer of length zero is not written to, and a null address asks for none.
    let received = unsafe {
        libc::recvfrom(
            socket,
            ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    if received < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sleeps until one of the `sockets`, at most [`MAX_DEVICES`], has received something, `bell` can be read, or the time
/// is over. Returns whether `bell` can.
///
/// The sockets are in no epoll between two calls: as long as one was in one, the kernel would call the epoll for every
/// frame that is received or has been sent, whether anybody sleeps or not, and with interrupts off.
///
/// # Errors
///
/// The kernel's error; `EINTR` after a signal.
pub fn sleep(sockets: impl IntoIterator<Item = RawFd>, bell: RawFd, limit: Duration) -> io::Result<bool> {
    let readable = |fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    let mut watched = [readable(bell); MAX_DEVICES + 1];
    let mut count = 1;
    for (place, socket) in watched[1..].iter_mut().zip(sockets) {
        *place = readable(socket);
        count += 1;
    }
    let limit = libc::timespec {
        tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    };
    // SAFETY: both pointers are to values that live until the call returns, the first to at least as many as the count
    // says; a null mask of signals leaves the thread's as it is.
    let ready = unsafe { libc::ppoll(watched.as_mut_ptr(), count, &limit, ptr::null()) };
    if ready < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(watched[0].revents != 0)
}

fn set(socket: RawFd, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket,
            level,
            option,
            (&raw const value).cast::<c_void>(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// # Safety
///
/// `T` must be made of integers only, so that every content of its bytes is a value.
unsafe fn get<T: Copy>(socket: RawFd, level: c_int, option: c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer and the length are those of `value`, and both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket,
            level,
            option,
            value.as_mut_ptr().cast::<c_void>(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // An older kernel fills in fewer fields; the others stay zero.
    // SAFETY: all bytes are initialised, and any content will do by this function's contract.
    Ok(unsafe { value.assume_init() })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_that_is_bound_to_nothing_has_the_ring_that_a_map_asks_for() {
        let socket = match unbound() {
            Ok(socket) => socket,
            Err(error) => {
                eprintln!("SKIPPED: no AF_XDP socket: {error}");
                return;
            }
        };
        // There is one: a second one is refused.
        let again = set(socket.as_raw_fd(), libc::SOL_XDP, libc::XDP_RX_RING, 64).unwrap_err();
        assert_eq!(again.raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn sleep_ends_with_what_arrives_the_bell_or_the_time() {
        let (mut sender, receiver) = UnixStream::pair().unwrap();
        let (mut ringer, bell) = UnixStream::pair().unwrap();
        let wait = || sleep([receiver.as_raw_fd()], bell.as_raw_fd(), Duration::from_millis(1)).unwrap();
        assert!(!wait(), "the time");
        sender.write_all(b"frame").unwrap();
        let long = Duration::from_secs(3600);
        assert!(
            !sleep([receiver.as_raw_fd()], bell.as_raw_fd(), long).unwrap(),
            "what arrived"
        );
        let both = [bell.as_raw_fd(), receiver.as_raw_fd()];
        assert!(
            !sleep(both, bell.as_raw_fd(), long).unwrap(),
            "what arrived at the second of two"
        );
        ringer.write_all(b"!").unwrap();
        assert!(
            sleep([receiver.as_raw_fd()], bell.as_raw_fd(), long).unwrap(),
            "the bell"
        );
        // One that is closed or no descriptor must not be waited for in vain.
        assert!(sleep([receiver.as_raw_fd()], RawFd::MAX, long).unwrap());
    }

    #[test]
    fn a_descriptor_that_is_no_xdp_socket_is_an_error_and_not_a_default() {
        assert!(statistics(-1).is_err());
        assert!(zero_copy(-1).is_err());
        assert!(!has_busy_poll(-1));
        assert!(set_busy_poll(-1, Duration::from_micros(20), 64).is_err());
        assert!(set_tx_budget(-1, TX_BATCH).is_err());
        assert_eq!(
            wake_transmit(-1).expect_err("no such socket").raw_os_error(),
            Some(libc::EBADF)
        );
        assert_eq!(
            wake_receive(-1).expect_err("no such socket").raw_os_error(),
            Some(libc::EBADF)
        );
    }
}
