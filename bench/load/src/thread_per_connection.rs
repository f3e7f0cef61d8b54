//! Servers on the kernel's TCP with a thread for each connection.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;

/// Pause after a connection could not be accepted, which is when this process or the system has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The limits of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more are closed as they come.
    pub connections: usize,
    /// The stack of a connection's thread in bytes.
    pub stack: usize,
}

/// Gives each connection to `service`, on threads of its own for the rest of the process's life.
///
/// # Errors
///
/// No thread could be started.
pub fn serve<S>(listener: TcpListener, limits: Limits, service: S) -> anyhow::Result<()>
where
    S: Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
{
    thread::Builder::new()
        .spawn(move || accept(&listener, limits, &service))
        .context("cannot start a thread")?;
    Ok(())
}

fn accept<S>(listener: &TcpListener, limits: Limits, service: &S)
where
    S: Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
{
    let connections = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        if connections.load(Ordering::Relaxed) >= limits.connections {
            continue;
        }
        connections.fetch_add(1, Ordering::Relaxed);
        let count = Arc::clone(&connections);
        let service = service.clone();
        let connection = move || {
            // An error on a connection is its client's to tell.
            let _ = service(stream);
            count.fetch_sub(1, Ordering::Relaxed);
        };
        if thread::Builder::new()
            .stack_size(limits.stack)
            .spawn(connection)
            .is_err()
        {
            connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Serves on a free port of the loopback interface, for tests of clients. Returns the address.
///
/// # Panics
///
/// The kernel refuses a socket or a thread.
pub fn serve_on_loopback<S>(service: S) -> std::net::SocketAddr
where
    S: Fn(TcpStream) + Clone + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits {
        connections: usize::MAX,
        stack: 256 * 1024,
    };
    let service = move |stream: TcpStream| {
        service(stream);
        Ok(())
    };
    serve(listener, limits, service).unwrap();
    address
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn connections_beyond_the_limit_are_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Limits {
            connections: 1,
            stack: 256 * 1024,
        };
        let greet = |mut stream: TcpStream| {
            stream.write_all(b"x")?;
            io::copy(&mut stream, &mut io::sink()).map(drop)
        };
        serve(listener, limits, greet).unwrap();
        let connect = || {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream
        };
        let mut first = connect();
        first.read_exact(&mut [0]).unwrap();
        let mut second = connect();
        assert_eq!(second.read(&mut [0]).unwrap(), 0);
    }
}
