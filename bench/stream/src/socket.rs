//! Connections of the kernel's TCP with a chosen congestion control.

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use nix::errno::Errno;
use nix::sys::socket::sockopt::{SendTimeout, TcpCongestion};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};

/// The time connecting, and a stream that does not move, is waited for.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// Connects to `address` with `congestion` as the congestion control, or the system's default.
///
/// # Errors
///
/// A sentence: nobody listens, nothing comes back, or the kernel does not have the congestion control.
pub(crate) fn connect_to(address: SocketAddr, congestion: Option<&str>) -> anyhow::Result<TcpStream> {
    let stream = connect_with(address, TIMEOUT, |socket| {
        congestion.map_or(Ok(()), |name| set_congestion(socket, name))
    })?;
    stream
        .set_read_timeout(Some(TIMEOUT))
        .context("cannot set the receive timeout")?;
    Ok(stream)
}

/// Connects to `address` by a socket that `prepare` has set up. Connecting and sending may take `timeout`, in whole
/// seconds.
///
/// # Errors
///
/// A sentence: nobody listens, nothing comes back, the kernel refuses, or `prepare` fails.
pub fn connect_with(
    address: SocketAddr,
    timeout: Duration,
    prepare: impl FnOnce(&OwnedFd) -> anyhow::Result<()>,
) -> anyhow::Result<TcpStream> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).context("cannot make a socket")?;
    prepare(&socket)?;
    let seconds = timeout.as_secs();
    // It bounds connecting as well as sending.
    setsockopt(&socket, SendTimeout, &TimeVal::seconds(seconds.cast_signed()))
        .context("cannot set the send timeout")?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) => Ok(TcpStream::from(socket)),
        Err(Errno::EINPROGRESS) => bail!("no answer from {address} within {seconds} s"),
        Err(error) => Err(error).with_context(|| format!("cannot connect to {address}")),
    }
}

/// Listens on `address`; connections have `congestion` as the congestion control, or the system's default.
///
/// # Errors
///
/// A sentence: the address is taken or not this machine's, or the kernel does not have the congestion control.
pub(crate) fn listen_on(address: SocketAddr, congestion: Option<&str>) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    if let Some(name) = congestion {
        set_congestion(&listener, name)?;
    }
    Ok(listener)
}

/// Returns whether the kernel has `congestion` as a congestion control, as a module that it loads now too.
///
/// # Errors
///
/// A sentence: the kernel makes no socket, or refuses for another reason.
pub fn is_in_kernel(congestion: &str) -> anyhow::Result<bool> {
    let socket =
        socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).context("cannot make a socket")?;
    match setsockopt(&socket, TcpCongestion, &OsString::from(congestion)) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(refusal(congestion, errno)),
    }
}

fn set_congestion<F: AsFd>(socket: &F, name: &str) -> anyhow::Result<()> {
    setsockopt(socket, TcpCongestion, &OsString::from(name)).map_err(|errno| refusal(name, errno))
}

fn refusal(name: &str, errno: Errno) -> anyhow::Error {
    let why = match errno {
        Errno::ENOENT => "the kernel does not have it (see /proc/sys/net/ipv4/tcp_available_congestion_control)",
        Errno::EPERM => "only CAP_NET_ADMIN may (see /proc/sys/net/ipv4/tcp_allowed_congestion_control)",
        _ => errno.desc(),
    };
    anyhow!("cannot use {name} as the congestion control: {why}")
}

/// Whether an error of a socket with a timeout means that the timeout is over.
pub(crate) fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_congestion_control_the_kernel_does_not_have_is_named() {
        let error = listen_on("127.0.0.1:0".parse().unwrap(), Some("no-such")).unwrap_err();
        assert!(error.to_string().contains("no-such"), "{error}");
    }

    #[test]
    fn reno_is_always_there() {
        let listener = listen_on("127.0.0.1:0".parse().unwrap(), Some("reno")).unwrap();
        connect_to(listener.local_addr().unwrap(), Some("reno")).unwrap();
    }

    #[test]
    fn the_kernel_says_what_it_has() {
        assert!(is_in_kernel("reno").unwrap());
        assert!(!is_in_kernel("no-such").unwrap());
    }

    #[test]
    fn a_refusal_names_the_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = connect_to(address, None).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
