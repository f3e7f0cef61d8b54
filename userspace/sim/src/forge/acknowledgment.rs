//! Bare ACKs of cookies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tidegate_abi::siphash::Key;
use tidegate_abi::syn_cookie::{self, Accepted, Addresses, Content, Handshake, Keys};
use tidegate_random::Random;

use crate::segment::{ACK, Draft, Endpoint};

const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The ports served at each of the addresses.
pub(super) const PORTS: [u16; 2] = [80, 81];
const SERVERS_V4: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(198, 18, 0, 3)),
];
const SERVERS_V6: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 3)),
];

/// The addresses served.
pub(super) fn servers(ipv4: bool) -> [IpAddr; 2] {
    if ipv4 { SERVERS_V4 } else { SERVERS_V6 }
}

/// The flow of the guesses and of genuine cookies.
pub(super) fn server_end(ipv4: bool) -> Endpoint {
    Endpoint {
        mac: SERVER_MAC,
        address: SocketAddr::new(servers(ipv4)[0], PORTS[0]),
    }
}

/// A client in the ranges for benchmarks (RFC 2544, RFC 5180); of `host` the lowest 17 bits count with IPv4, else 48.
pub(super) fn client_end(ipv4: bool, host: u64, port: u16) -> Endpoint {
    let ip = if ipv4 {
        IpAddr::V4(Ipv4Addr::from_bits(0xc612_0000 | host as u32 & 0x0001_ffff))
    } else {
        let host = host & 0xffff_ffff_ffff;
        IpAddr::V6(Ipv6Addr::from_bits(0x2001_0002_u128 << 96 | u128::from(host)))
    };
    Endpoint {
        mac: CLIENT_MAC,
        address: SocketAddr::new(ip, port),
    }
}

/// The segment of a client that has seen a cookie: a bare ACK.
pub(super) struct Acknowledgment {
    pub(super) client: Endpoint,
    pub(super) server: Endpoint,
    pub(super) seq: u32,
    pub(super) ack: u32,
    /// TSval and TSecr.
    pub(super) timestamps: Option<(u32, u32)>,
}

impl Acknowledgment {
    /// Of a cookie that was made in `epoch` for the client with this number, below 60,000. They take turns in versions
    /// of IP; two of 64 do without timestamps.
    pub(super) fn genuine(number: u64, secret: Key, epoch: u64, accepted: Accepted, random: &mut Random) -> Self {
        let ipv4 = number & 1 == 0;
        let client = client_end(ipv4, random.word(), 1024 + number as u16);
        let server = server_end(ipv4);
        let (client_isn, choices) = (random.word() as u32, random.word());
        let handshake = Handshake {
            addresses: match (client.address.ip(), server.address.ip()) {
                (IpAddr::V4(client), IpAddr::V4(server)) => Addresses::v4(client.octets(), server.octets()),
                (client, server) => Addresses::v6(v6_octets(client), v6_octets(server)),
            },
            client_port: client.address.port(),
            server_port: server.address.port(),
            client_isn,
            timestamps: number % 64 >= 2,
        };
        let options = syn_cookie::Options {
            mss_index: (choices & 7) as u8,
            window_scale: (choices >> 3 & 15) as u8,
            sack_permitted: choices >> 7 & 1 != 0,
            ecn: choices >> 8 & 1 != 0,
        };
        let (key, key_id) = Keys::new(secret, epoch, false).current();
        let content = if handshake.timestamps || accepted == Accepted::All {
            Content::Options(options)
        } else {
            Content::Mss(options.mss_index)
        };
        let cookie = syn_cookie::make(key, key_id, &handshake, content);
        let clock = (choices >> 32) as u32;
        Self {
            client,
            server,
            seq: client_isn.wrapping_add(1),
            ack: cookie.isn.wrapping_add(1),
            timestamps: handshake.timestamps.then(|| (clock, cookie.timestamp(clock))),
        }
    }

    pub(super) fn frame(&self) -> Vec<u8> {
        let mut options = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
        let length = match self.timestamps {
            Some((value, echo)) => {
                options[4..8].copy_from_slice(&value.to_be_bytes());
                options[8..12].copy_from_slice(&echo.to_be_bytes());
                options.len()
            }
            None => 0,
        };
        Draft {
            from: self.client,
            to: self.server,
            seq: self.seq,
            ack: self.ack,
            flags: ACK,
            window: 1000,
            options: &options[..length],
            text: &[],
        }
        .frame()
    }
}

fn v6_octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
