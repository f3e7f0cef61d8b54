//! Finds listening sockets of the kernel that would no longer see connections.

use std::net::{IpAddr, SocketAddr};

use procfs::net::{TcpState, tcp, tcp6};
use tidegate_nic::Finding;

use crate::listen::Listen;

/// A warning for every listener whose address and port a socket of the kernel listens on, too: from the attaching on,
/// connections to it arrive here and not there.
pub(crate) fn findings(listeners: &[Listen]) -> Vec<Finding> {
    let kernel = listening();
    let shadowed = listeners.iter().filter_map(|listener| {
        let socket = kernel.iter().find(|socket| covers(**socket, listener.address))?;
        Some(Finding::warning(
            "listeners",
            format!(
                "a socket of the kernel listens on {socket} and will not see connections to {} that arrive on this \
                 interface while tidegate serves them; find its owner with `ss -ltnp 'sport = :{}'`",
                listener.address,
                listener.address.port()
            ),
        ))
    });
    shadowed.collect()
}

/// Returns the addresses that sockets of the kernel listen on.
fn listening() -> Vec<SocketAddr> {
    // tcp6 is missing where IPv6 is switched off; then nothing listens on it either.
    let tables = [tcp(), tcp6()].into_iter().flatten();
    let sockets = tables.flatten().filter(|socket| socket.state == TcpState::Listen);
    sockets.map(|socket| socket.local_address).collect()
}

/// True when `socket` would accept connections to `address`, or to any that it stands for.
fn covers(socket: SocketAddr, address: SocketAddr) -> bool {
    let same_ip = match (socket.ip(), address.ip()) {
        // Sockets bound to :: accept IPv4 as well, unless IPV6_V6ONLY is set, which /proc does not tell.
        (IpAddr::V6(any), _) if any.is_unspecified() => true,
        (IpAddr::V4(any), IpAddr::V4(_)) if any.is_unspecified() => true,
        // Of the interface's own addresses none is a loopback one.
        (socket, any) if any.is_unspecified() => {
            let socket = socket.to_canonical();
            socket.is_ipv4() == any.is_ipv4() && !socket.is_loopback()
        }
        (socket, address) => socket.to_canonical() == address,
    };
    same_ip && socket.port() == address.port()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_listening_sockets_are_found() {
        for ip in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(ip) else {
                // A machine without IPv6.
                continue;
            };
            let listens = listener.local_addr().unwrap();
            let connection = TcpStream::connect(listens).unwrap();
            let found = listening();
            assert!(found.contains(&listens), "{listens} {found:?}");
            assert!(!found.contains(&connection.local_addr().unwrap()), "{found:?}");
        }
    }

    #[test]
    fn a_socket_covers_its_own_address_or_all() {
        for (socket, listener, covered) in [
            ("198.18.0.1:80", "198.18.0.1:80", true),
            ("198.18.0.1:80", "198.18.0.1:81", false),
            ("198.18.0.2:80", "198.18.0.1:80", false),
            ("0.0.0.0:80", "198.18.0.1:80", true),
            ("0.0.0.0:80", "[2001:2::1]:80", false),
            ("[::]:80", "[2001:2::1]:80", true),
            ("[::]:80", "198.18.0.1:80", true),
            ("[::ffff:198.18.0.1]:80", "198.18.0.1:80", true),
            ("198.18.0.1:80", "0.0.0.0:80", true),
            ("198.18.0.1:80", "[::]:80", false),
            ("198.18.0.1:81", "0.0.0.0:80", false),
            ("127.0.0.1:80", "0.0.0.0:80", false),
            ("[::]:80", "0.0.0.0:80", true),
        ] {
            assert_eq!(
                covers(address(socket), address(listener)),
                covered,
                "{socket} {listener}"
            );
        }
    }
}
