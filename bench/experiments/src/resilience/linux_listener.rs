//! The target on the kernel's TCP: a server that is as plain as a server can be, in a process of its own.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, bail};
use nix::sys::socket::{Backlog, listen};
use tidegate_load::thread_per_connection::{self, Limits};

use super::served::{Body, TIMEOUT};

/// The line that the process prints when it listens.
pub(super) const READY: &str = "tidegate-bench resilience: listening";

/// The queue of connections that wait to be accepted, and of half-open ones: the kernel's own default of
/// `net.core.somaxconn`.
pub(super) const BACKLOG: Backlog = Backlog::MAXCONN;

const LIMITS: Limits = Limits {
    connections: 4096,
    stack: 128 * 1024,
};

/// Longest request head in bytes.
const HEAD_LIMIT: usize = 8 * 1024;

/// Most fields in a request head.
const FIELD_LIMIT: usize = 32;

/// Both bodies with the heads that go before them.
struct Responses(Vec<(String, Vec<u8>)>);

impl Responses {
    fn new() -> Self {
        let of = |body: &Body| {
            let content = body.content();
            let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len()).into_bytes();
            response.extend_from_slice(&content);
            (body.path(), response)
        };
        Self(Body::ALL.iter().map(of).collect())
    }

    fn get(&self, path: &str) -> Option<&[u8]> {
        let (_, response) = self.0.iter().find(|(name, _)| name == path)?;
        Some(response)
    }
}

/// Serves on all of `addresses` until a signal ends the process.
///
/// # Errors
///
/// An address is not this machine's or is taken.
pub(super) fn serve(addresses: &[SocketAddr]) -> anyhow::Result<()> {
    let responses = Arc::new(Responses::new());
    for &address in addresses {
        listen_on(address, &responses)?;
    }
    println!("{READY}");
    loop {
        thread::park();
    }
}

fn listen_on(address: SocketAddr, responses: &Arc<Responses>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    // The standard library asks for 128.
    listen(&listener, BACKLOG).context("cannot set the backlog")?;
    let address = listener.local_addr().context("the listener has no address")?;
    let responses = Arc::clone(responses);
    thread_per_connection::serve(listener, LIMITS, move |stream| answer(stream, &responses))?;
    Ok(address)
}

/// Answers one request after the other until the client wants no more.
fn answer(mut stream: TcpStream, responses: &Responses) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut buffer = Vec::with_capacity(HEAD_LIMIT);
    while let Some(request) = read_request(&mut stream, &mut buffer)? {
        let Some(response) = responses.get(&request.path) else {
            return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        };
        stream.write_all(response)?;
        if request.last {
            break;
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct Request {
    path: String,
    /// The client asked to close the connection after the response.
    last: bool,
}

/// The next request; `None` at the end of the stream. `buffer` holds what was read beyond it.
fn read_request(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let mut chunk = [0; 1024];
    loop {
        if let Some((request, end)) = parse_request(buffer).map_err(|error| io::Error::other(error.to_string()))? {
            buffer.drain(..end);
            return Ok(Some(request));
        }
        match stream.read(&mut chunk) {
            Ok(0) if buffer.is_empty() => return Ok(None),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => buffer.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The request at the start of `bytes` and the length of its head; `None` if there is more to come.
fn parse_request(bytes: &[u8]) -> anyhow::Result<Option<(Request, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELD_LIMIT];
    let mut request = httparse::Request::new(&mut fields);
    let bytes = &bytes[..bytes.len().min(HEAD_LIMIT)];
    match request.parse(bytes).context("not a request head")? {
        httparse::Status::Complete(end) => {
            let last = request.headers.iter().any(|field| {
                field.name.eq_ignore_ascii_case("connection") && field.value.eq_ignore_ascii_case(b"close")
            });
            let path = request.path.unwrap_or_default().to_owned();
            Ok(Some((Request { path, last }, end)))
        }
        httparse::Status::Partial if bytes.len() == HEAD_LIMIT => {
            bail!("a request head of more than {HEAD_LIMIT} bytes");
        }
        httparse::Status::Partial => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::served::{BULK, SMALL};
    use super::*;
    use tidegate_args::url::Url;
    use tidegate_stream::transfer::{Until, download};

    #[test]
    fn requests_follow_each_other_in_pieces_of_any_size() {
        let text = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nConnection: Close\r\n\r\n";
        for step in 1..=text.len() {
            let mut pieces = Pieces(text, step);
            let mut buffer = Vec::new();
            for (path, last) in [("/a", false), ("/b", true)] {
                let request = read_request(&mut pieces, &mut buffer).unwrap().unwrap();
                assert_eq!((request.path.as_str(), request.last), (path, last), "pieces of {step}");
            }
            assert_eq!(read_request(&mut pieces, &mut buffer).unwrap(), None);
        }
    }

    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(buffer.len());
            let (piece, rest) = self.0.split_at(count);
            buffer[..count].copy_from_slice(piece);
            self.0 = rest;
            Ok(count)
        }
    }

    #[test]
    fn an_endless_or_wrong_head_is_refused() {
        let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(HEAD_LIMIT));
        assert!(parse_request(endless.as_bytes()).is_err());
        assert!(parse_request(b"\x16\x03\x01\r\n\r\n").is_err());
    }

    #[test]
    fn both_bodies_can_be_fetched() {
        let any = "127.0.0.1:0".parse().unwrap();
        let address = listen_on(any, &Arc::new(Responses::new())).unwrap();
        for body in [SMALL, BULK] {
            let url: Url = format!("http://{address}{}", body.path()).parse().unwrap();
            let transfer = download(&url, None::<Until>, None).unwrap();
            assert_eq!(transfer.bytes, body.content().len() as u64);
        }
        let url: Url = format!("http://{address}/other").parse().unwrap();
        let error = download(&url, None, None).unwrap_err();
        assert!(error.to_string().contains("404"), "{error}");
    }
}
