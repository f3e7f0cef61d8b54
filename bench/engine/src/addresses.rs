//! Addresses of one server, and of numbered clients. All addresses are of 198.18.0.0/15 (RFC 2544).

use core::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// The server.
pub const SERVER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 80));

/// Bits of the prefix that holds the server and all clients.
pub(crate) const PREFIX: u8 = 15;

pub(crate) const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

const FIRST_ADDRESS: u32 = u32::from_be_bytes([198, 18, 0, 2]);
const ADDRESSES: u64 = 100_000;
const FIRST_PORT: u16 = 1024;
const PORTS: u64 = 65_536 - FIRST_PORT as u64;

/// The number of clients that can be told apart: their numbers are below this.
pub const CLIENTS: u64 = ADDRESSES * PORTS;

/// A client's IPv4 address and port, both in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: u32,
    pub(crate) port: u16,
}

impl Endpoint {
    /// The client `number`, which is below [`CLIENTS`].
    #[inline]
    pub(crate) fn of_client(number: u64) -> Self {
        Self {
            address: FIRST_ADDRESS + (number / PORTS) as u32,
            port: FIRST_PORT + (number % PORTS) as u16,
        }
    }

    /// The number of the client at this address and port; `None` when there is no such client.
    #[inline]
    pub(crate) fn client(self) -> Option<u64> {
        let address = self.address.checked_sub(FIRST_ADDRESS)?;
        let port = self.port.checked_sub(FIRST_PORT)?;
        Some(u64::from(address) * PORTS + u64::from(port)).filter(|&number| number < CLIENTS)
    }

    /// In the standard library's form.
    pub(crate) fn socket_address(self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::from_bits(self.address), self.port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_found_again_by_its_address() {
        for number in [0, 1, PORTS - 1, PORTS, 12_345_678, CLIENTS - 1] {
            assert_eq!(Endpoint::of_client(number).client(), Some(number));
        }
        let last = Endpoint::of_client(CLIENTS - 1);
        let beyond = Endpoint {
            address: last.address + 1,
            ..last
        };
        assert_eq!(beyond.client(), None);
        assert_eq!(Endpoint { port: 1023, ..last }.client(), None);
    }

    #[test]
    fn all_clients_are_within_the_prefix() {
        let SocketAddr::V4(server) = SERVER else {
            panic!("the server has no IPv4 address")
        };
        let network = |address: u32| address >> (32 - PREFIX);
        let last = Endpoint::of_client(CLIENTS - 1);
        assert_eq!(network(last.address), network(server.ip().to_bits()));
    }
}
