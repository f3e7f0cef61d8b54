//! The server on loopback, with the standard library's sockets as clients.

mod semantics;
mod services;

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tidegate_apps::{Listen, ServiceKind};

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

fn any_port(service: ServiceKind) -> Listen {
    Listen {
        service,
        address: "127.0.0.1:0".parse().unwrap(),
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Has RST sent instead of FIN when `stream` is closed.
fn reset_on_close(stream: &TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::Linger, &linger).unwrap();
}
