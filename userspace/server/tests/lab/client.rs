//! Clients on the Linux kernel's TCP. Connections are made on threads inside the client's namespace
//! (`in_namespace`).

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::socket::sockopt::{SendTimeout, SndBuf, TcpCongestion, TcpMaxSeg};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect as connect_socket, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::server::bench_binary;
use super::{DISCARD_PORT, ECHO_PORT, HTTP_PORT, Namespace};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const IO_LIMIT: Duration = Duration::from_secs(30);
const HEADERS_AT_MOST: usize = 100;
/// Over a bad link, the time for several SYNs.
const BAD_LINK_CONNECT_SECONDS: i64 = 30;
/// Over a bad link, the longest time in which nothing moves.
const BAD_LINK_IO_LIMIT: Duration = Duration::from_secs(10);
/// Over a bad link, the send buffer in bytes. A writer goes on when a third of it is free: with the megabytes the kernel
/// would choose, it stands still for longer than the limit while the connection does not.
const BAD_LINK_SEND_BUFFER: usize = 128 << 10;

/// Connects to `address`. Reads and writes that make no progress for 30 s fail.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)
        .unwrap_or_else(|error| panic!("connecting to {address}: {error}"));
    stream
        .set_read_timeout(Some(IO_LIMIT))
        .and_then(|()| stream.set_write_timeout(Some(IO_LIMIT)))
        .and_then(|()| stream.set_nodelay(true))
        .unwrap_or_else(|error| panic!("setting options of a connection to {address}: {error}"));
    stream
}

/// Connects to the echo listener at `address`.
pub(crate) fn connect_echo(address: IpAddr) -> TcpStream {
    connect(SocketAddr::new(address, ECHO_PORT))
}

/// How a client's TCP differs from the system's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientTcp {
    /// Largest segment both ways, in bytes (88 to 32,767; TCP_MAXSEG).
    pub(crate) mss: Option<u32>,
    /// Congestion control of what the client sends.
    pub(crate) congestion: Option<&'static str>,
}

impl ClientTcp {
    /// Connects to `address` over a link that may be bad. Reads and writes that make no progress for 10 s fail.
    pub(crate) fn connect(self, address: SocketAddr) -> TcpStream {
        self.try_connect(address)
            .unwrap_or_else(|error| panic!("connecting to {address} with {self:?}: {error}"))
    }

    fn try_connect(self, address: SocketAddr) -> io::Result<TcpStream> {
        let family = if address.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        // Both have to be set before the SYN is sent. A namespace's own default congestion control can only be one
        // that is allowed to everybody, hence the socket's.
        if let Some(mss) = self.mss {
            setsockopt(&socket, TcpMaxSeg, &mss)?;
        }
        if let Some(congestion) = self.congestion {
            setsockopt(&socket, TcpCongestion, &OsString::from(congestion))?;
        }
        setsockopt(&socket, SndBuf, &BAD_LINK_SEND_BUFFER)?;
        // It bounds connecting, too.
        setsockopt(&socket, SendTimeout, &TimeVal::seconds(BAD_LINK_CONNECT_SECONDS))?;
        connect_socket(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(BAD_LINK_IO_LIMIT))?;
        stream.set_write_timeout(Some(BAD_LINK_IO_LIMIT))?;
        Ok(stream)
    }

    /// Sends `data` to the echo listener at `address`, then FIN, and returns all that came back.
    pub(crate) fn echo(self, address: IpAddr, data: &[u8]) -> io::Result<Vec<u8>> {
        let stream = self.connect(SocketAddr::new(address, ECHO_PORT));
        exchange_with_half_close(&stream, data, Duration::ZERO)
    }

    /// Sends `data` to the discard listener at `address`, then FIN, and waits for the server's.
    pub(crate) fn upload(self, address: IpAddr, data: &[u8]) -> io::Result<()> {
        let stream = self.connect(SocketAddr::new(address, DISCARD_PORT));
        let answer = exchange_with_half_close(&stream, data, Duration::ZERO)?;
        if answer.is_empty() {
            Ok(())
        } else {
            Err(invalid(format!("{} bytes from the discard service", answer.len())))
        }
    }

    /// Fetches `path` from the HTTP listener at `address` and returns the body.
    pub(crate) fn download(self, address: IpAddr, path: &str) -> io::Result<Vec<u8>> {
        let mut stream = self.connect(SocketAddr::new(address, HTTP_PORT));
        write!(stream, "GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
        let mut source = BufReader::new(stream);
        let (status, body) = read_response(&mut source)?;
        // The end of the connection has to come from the server, and in order.
        let mut rest = Vec::new();
        source.read_to_end(&mut rest)?;
        if status == 200 && rest.is_empty() {
            Ok(body)
        } else {
            Err(invalid(format!(
                "status {status} and {} bytes after the body",
                rest.len()
            )))
        }
    }
}

/// Sends `data` and then FIN while reading, beginning after `read_after`, until the peer's FIN.
/// Returns what was read.
pub(crate) fn exchange_with_half_close(stream: &TcpStream, data: &[u8], read_after: Duration) -> io::Result<Vec<u8>> {
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let mut sink = stream;
            sink.write_all(data).map_err(|error| during("writing", &error))?;
            stream.shutdown(Shutdown::Write)
        });
        std::thread::sleep(read_after);
        let mut source = stream;
        let mut received = Vec::with_capacity(data.len());
        let read = source.read_to_end(&mut received);
        let read = read.map_err(|error| during(&format!("reading after {} bytes", received.len()), &error));
        writer.join().expect("the writing thread does not panic")?;
        read?;
        Ok(received)
    })
}

fn during(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Sends `data` and reads as many bytes back. Returns them.
pub(crate) fn round_trip(mut stream: &TcpStream, data: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(data)?;
    let mut received = vec![0; data.len()];
    stream.read_exact(&mut received)?;
    Ok(received)
}

/// An HTTP response without its body.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    /// Reads a status line and headers up to the empty line.
    pub(crate) fn read(source: &mut impl BufRead) -> io::Result<Self> {
        let status_line = read_line(source)?;
        let status = status_line
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.split(' ').nth(1))
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| invalid(format!("status line {status_line:?}")))?;
        let mut headers = Vec::new();
        while headers.len() < HEADERS_AT_MOST {
            let line = read_line(source)?;
            if line.is_empty() {
                return Ok(Self { status, headers });
            }
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| invalid(format!("header {line:?}")))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Err(invalid(format!("more than {HEADERS_AT_MOST} headers")))
    }

    /// The value of the header `name`, which is given in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The value of Content-Length.
    pub(crate) fn content_length(&self) -> io::Result<usize> {
        self.header("content-length")
            .and_then(|length| length.parse().ok())
            .ok_or_else(|| invalid(format!("no Content-Length in {self:?}")))
    }
}

/// Reads one response with a Content-Length and returns its status and body.
pub(crate) fn read_response(source: &mut impl BufRead) -> io::Result<(u16, Vec<u8>)> {
    let head = Head::read(source)?;
    let mut body = vec![0; head.content_length()?];
    source.read_exact(&mut body)?;
    Ok((head.status, body))
}

fn read_line(source: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    source.read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => Err(invalid(format!("line {line:?} without CRLF"))),
    }
}

fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// curl in the client's namespace, silent but for errors, failing on HTTP errors, free of the
/// user's settings and proxies.
pub(crate) fn curl() -> Command {
    let mut command = Namespace::Client.command("curl");
    command.args(["-q", "--silent", "--show-error", "--fail", "--globoff"]);
    command.args(["--noproxy", "*"]);
    command
}

/// curl fetching `url` into the file `output`.
pub(crate) fn curl_to(url: &str, output: &Path) -> Command {
    let mut command = curl();
    command.arg("--output").arg(output).arg(url);
    command
}

/// `tidegate-bench echo` with half-close against the echo listener at `address`.
pub(crate) fn bench_echo(address: IpAddr, bytes: u64, connections: u32, seed: u64) -> Command {
    let target = SocketAddr::new(address, ECHO_PORT);
    let mut command = Namespace::Client.command(bench_binary());
    command.args(["echo", "--half-close"]);
    command.args(["--target", &target.to_string()]);
    command.args(["--bytes", &bytes.to_string()]);
    command.args(["--connections", &connections.to_string()]);
    command.args(["--seed", &seed.to_string()]);
    command
}

/// `tidegate-bench load` on `url` for `seconds`.
pub(crate) fn bench_load(url: &str, connections: u32, seconds: u32) -> Command {
    let mut command = Namespace::Client.command(bench_binary());
    command.args(["load", "--url", url]);
    command.args(["--connections", &connections.to_string()]);
    command.args(["--duration", &format!("{seconds}s")]);
    command
}
