//! Finds listening sockets of the kernel that would no longer see connections.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tracing::warn;

use crate::listen::Listen;

/// The state LISTEN in `/proc/net/tcp` and `/proc/net/tcp6`.
const LISTEN: &str = "0A";

/// Warns for every listener whose address and port a socket of the kernel listens on, too: from the attaching on,
/// connections to it arrive here and not there.
pub(crate) fn warn_about(listeners: &[Listen]) {
    let mut kernel = Vec::new();
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // tcp6 is missing where IPv6 is switched off; then nothing listens on it either.
        if let Ok(text) = fs::read_to_string(path) {
            kernel.extend(parse(&text));
        }
    }
    for listener in listeners {
        if let Some(socket) = kernel.iter().find(|socket| covers(**socket, listener.address)) {
            warn!(
                "a socket of the kernel listens on {socket} and will not see connections to {} that arrive on this \
                 interface while tidegate serves them; find its owner with `ss -ltnp 'sport = :{}'`",
                listener.address,
                listener.address.port()
            );
        }
    }
}

/// True when `socket` would accept connections to `address`.
fn covers(socket: SocketAddr, address: SocketAddr) -> bool {
    let same_ip = match (socket.ip(), address.ip()) {
        // Sockets bound to :: accept IPv4 as well, unless IPV6_V6ONLY is set, which /proc does not tell.
        (IpAddr::V6(any), _) if any.is_unspecified() => true,
        (IpAddr::V4(any), IpAddr::V4(_)) if any.is_unspecified() => true,
        (socket, address) => socket.to_canonical() == address,
    };
    same_ip && socket.port() == address.port()
}

/// The listening addresses in the text of `/proc/net/tcp` or `/proc/net/tcp6`.
fn parse(text: &str) -> impl Iterator<Item = SocketAddr> + '_ {
    text.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let local = columns.next()?;
        let state = columns.nth(1)?;
        if state == LISTEN { parse_address(local) } else { None }
    })
}

/// `ADDRESS:PORT` in hexadecimal; the address is printed as 32-bit words in the machine's byte order.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = [0; 16];
    let mut length = 0;
    while length < 16 {
        let Some(word) = address.get(2 * length..2 * length + 8) else {
            break;
        };
        let word = u32::from_str_radix(word, 16).ok()?;
        bytes[length..length + 4].copy_from_slice(&word.to_ne_bytes());
        length += 4;
    }
    let ip = match (length, address.len()) {
        (4, 8) => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
        (16, 32) => IpAddr::V6(Ipv6Addr::from(bytes)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 010012C6:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0000000000000000
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0000000000000000
   2: 010012C6:0051 020012C6:9C40 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0000000000000000
   3: zz:0051 00000000:0000 0A
";

    const TCP6: &str = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 02000120000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000
   2: 0000000000000000FFFF0000010012C6:0051 00000000000000000000000000000000:0000 0A 00000000:00000000
";

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_listening_sockets_are_found() {
        let found: Vec<_> = parse(TCP).collect();
        assert_eq!(found, [address("198.18.0.1:80"), address("0.0.0.0:22")]);
        let found: Vec<_> = parse(TCP6).collect();
        let expected = ["[2001:2::1]:80", "[::]:8080", "[::ffff:198.18.0.1]:81"].map(address);
        assert_eq!(found, expected);
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
        ] {
            assert_eq!(
                covers(address(socket), address(listener)),
                covered,
                "{socket} {listener}"
            );
        }
    }
}
