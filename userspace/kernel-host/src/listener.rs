//! Listening sockets of the kernel's TCP.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::anyhow;
use mio::net::TcpListener;
use nix::sys::socket::sockopt::{Ipv6V6Only, ReuseAddr, ReusePort, TcpNoDelay, TcpUserTimeout};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket};

/// The queue of connections that wait to be accepted, if `net.core.somaxconn` allows it.
const BACKLOG: Backlog = Backlog::MAXCONN;

/// The time data may stay unacknowledged, or the peer's window closed, before the connection is given up: as long as
/// in tidegate's engine.
const USER_TIMEOUT_MILLIS: u32 = 120_000;

/// Listens on `address`; with `shared`, sockets of other threads can have the same address and port, and the kernel
/// spreads the connections over them. Accepted sockets inherit TCP_NODELAY and TCP_USER_TIMEOUT.
///
/// # Errors
///
/// A sentence: the address is taken, or not this machine's, or the kernel refuses.
pub(crate) fn open(address: SocketAddr, shared: bool) -> anyhow::Result<TcpListener> {
    listen_on(address, shared).map_err(|error| explain(address, &error))
}

/// Makes sure that nobody has `address` and its port. SO_REUSEPORT would share it with another process that
/// uses it too, without a word.
///
/// # Errors
///
/// Those of [`open`].
pub(crate) fn check_free(address: SocketAddr) -> anyhow::Result<()> {
    bound(address, false)
        .map(drop)
        .map_err(|error| explain(address, &error))
}

fn explain(address: SocketAddr, error: &io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::AddrInUse => anyhow!(
            "cannot listen on {address}: the port is taken (`ss -ltnp` shows by whom); end that process or give \
             another port"
        ),
        ErrorKind::AddrNotAvailable => {
            anyhow!("cannot listen on {address}: this machine does not have the address (`ip addr` shows what it has)")
        }
        ErrorKind::PermissionDenied => {
            anyhow!("cannot listen on {address}: not permitted; ports below 1024 take root or CAP_NET_BIND_SERVICE")
        }
        _ => anyhow!("cannot listen on {address}: {error}"),
    }
}

fn listen_on(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = bound(address, shared)?;
    setsockopt(&socket, TcpNoDelay, &true)?;
    setsockopt(&socket, TcpUserTimeout, &USER_TIMEOUT_MILLIS)?;
    listen(&socket, BACKLOG)?;
    Ok(TcpListener::from_std(std::net::TcpListener::from(socket)))
}

fn bound(address: SocketAddr, shared: bool) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&socket, ReuseAddr, &true)?;
    if shared {
        setsockopt(&socket, ReusePort, &true)?;
    }
    if address.is_ipv6() {
        // So that 0.0.0.0 and [::] can be listened on side by side.
        setsockopt(&socket, Ipv6V6Only, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;

    use super::*;

    fn any_port() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn what_is_accepted_inherits_the_options() {
        let listener = open(any_port(), false).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = loop {
            match listener.accept() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                accepted => break accepted.unwrap(),
            }
        };
        assert!(socket.nodelay().unwrap());
        assert_eq!(getsockopt(&socket, TcpUserTimeout).unwrap(), USER_TIMEOUT_MILLIS);
    }

    #[test]
    fn a_taken_port_is_named() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap();
        for error in [open(taken, false).unwrap_err(), check_free(taken).unwrap_err()] {
            let text = error.to_string();
            assert!(text.contains(&taken.to_string()) && text.contains("taken"), "{text}");
        }
    }

    #[test]
    fn a_port_that_others_share_is_taken_too() {
        let shared = open(any_port(), true).unwrap();
        let same = shared.local_addr().unwrap();
        open(same, true).unwrap();
        let error = check_free(same).unwrap_err();
        assert!(error.to_string().contains("taken"), "{error}");
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let error = open("198.51.100.1:4000".parse().unwrap(), false).unwrap_err();
        assert!(error.to_string().contains("does not have the address"), "{error}");
    }
}
