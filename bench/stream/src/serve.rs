//! The other side of a transfer over the kernel's TCP: a source that speaks as much HTTP as a download takes, and a
//! sink.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use tidegate_load::thread_per_connection::{Limits, serve};

use crate::socket::{TIMEOUT, listen_on};

/// Bytes written at once.
const CHUNK: usize = 64 * 1024;

/// The stack is as large as the standard library makes it.
const LIMITS: Limits = Limits {
    connections: 256,
    stack: 2 * 1024 * 1024,
};

/// Longest request head in bytes.
const HEAD_LIMIT: usize = 8 * 1024;

/// Serves `GET /N`, with a body of N zero bytes, on threads of its own for the rest of the process's life.
///
/// # Errors
///
/// Those of listening, or no thread could be started.
pub fn source(address: SocketAddr, congestion: Option<&str>) -> anyhow::Result<()> {
    serve(listen_on(address, congestion)?, LIMITS, answer)
}

/// Reads what comes and throws it away (RFC 863), on threads of its own for the rest of the process's life.
///
/// # Errors
///
/// Those of listening, or no thread could be started.
pub fn sink(address: SocketAddr, congestion: Option<&str>) -> anyhow::Result<()> {
    serve(listen_on(address, congestion)?, LIMITS, discard)
}

/// Answers one request and closes.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let Some(mut left) = requested(&mut stream)? else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {left}\r\nConnection: close\r\n\r\n"
    )?;
    let zeros = [0; CHUNK];
    while left > 0 {
        let chunk = &zeros[..usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)];
        stream.write_all(chunk)?;
        left -= chunk.len() as u64;
    }
    Ok(())
}

/// Reads a request head. The number that is its path; `None` if it is something else.
fn requested(stream: &mut impl Read) -> io::Result<Option<u64>> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let within = &head[..head.len().min(HEAD_LIMIT)];
        if within.windows(4).any(|end| end == b"\r\n\r\n") {
            return Ok(path_number(&head));
        }
        if within.len() == HEAD_LIMIT {
            return Ok(None);
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => head.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn path_number(head: &[u8]) -> Option<u64> {
    let line = std::str::from_utf8(head).ok()?.lines().next()?;
    let path = line.strip_prefix("GET /")?.split(' ').next()?;
    path.parse().ok()
}

fn discard(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut buffer = vec![0; CHUNK];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives what it has in pieces of one size.
    struct Pieces<'a>(std::slice::Chunks<'a, u8>);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let piece = self.0.next().unwrap_or_default();
            buffer[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    #[test]
    fn a_head_is_too_long_however_it_comes() {
        for (length, expected) in [(HEAD_LIMIT, Some(7)), (HEAD_LIMIT + 1, None), (HEAD_LIMIT + 500, None)] {
            let begin = "GET /7 HTTP/1.1\r\nX: ";
            let head = format!("{begin}{}\r\n\r\nmore", "x".repeat(length - begin.len() - 4));
            for size in [1, 1000, 1024] {
                let mut pieces = Pieces(head.as_bytes().chunks(size));
                assert_eq!(requested(&mut pieces).unwrap(), expected, "{length} by {size}");
            }
        }
    }

    #[test]
    fn the_path_of_a_request_is_a_number() {
        assert_eq!(path_number(b"GET /1000 HTTP/1.1\r\nHost: x\r\n\r\n"), Some(1000));
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET /x HTTP/1.1\r\n\r\n",
            "PUT /1 HTTP/1.1\r\n\r\n",
            "\r\n\r\n",
        ] {
            assert_eq!(path_number(head.as_bytes()), None, "{head}");
        }
    }
}
