//! One transfer in one direction, and how fast it was.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use tidegate_args::url::Url;
use tidegate_load::http::{BodyEnd, read_head};

use crate::socket::{TIMEOUT, connect_to, timed_out};

/// Bytes handed to or taken from the kernel at once.
const CHUNK: usize = 64 * 1024;

/// The end of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After so many bytes.
    Bytes(u64),
    /// After so long. Of an upload, what is under way by then still counts.
    Elapsed(Duration),
}

impl Until {
    fn is_over(self, bytes: u64, start: Instant) -> bool {
        match self {
            Self::Bytes(limit) => bytes >= limit,
            Self::Elapsed(limit) => start.elapsed() >= limit,
        }
    }

    /// The time that may still pass without anything; never zero.
    fn patience(self, start: Instant) -> Duration {
        let left = match self {
            Self::Bytes(_) => TIMEOUT,
            Self::Elapsed(limit) => limit.saturating_sub(start.elapsed()),
        };
        left.clamp(Duration::from_millis(1), TIMEOUT)
    }
}

/// The size of a transfer, and the time it took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transfer {
    /// Bytes of payload that arrived.
    pub bytes: u64,
    /// From before connecting until the last of them.
    pub elapsed: Duration,
    /// The longest time in which nothing moved.
    pub longest_pause: Duration,
}

impl Transfer {
    /// Payload bits per second, in millions.
    pub fn mbits_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e6 / self.elapsed.as_secs_f64()
    }
}

/// The time at which something last moved, and the longest time in which nothing did.
struct Progress {
    last: Instant,
    longest_pause: Duration,
}

impl Progress {
    fn new() -> Self {
        Self {
            last: Instant::now(),
            longest_pause: Duration::ZERO,
        }
    }

    fn moved(&mut self) {
        let now = Instant::now();
        self.longest_pause = self.longest_pause.max(now - self.last);
        self.last = now;
    }
}

/// Fetches `url` by HTTP, whole or until `until`.
///
/// # Errors
///
/// No connection, a response other than 200, the end of the stream before that of the body, or nothing for 30 s.
pub fn download(url: &Url, until: Option<Until>, congestion: Option<&str>) -> anyhow::Result<Transfer> {
    let start = Instant::now();
    let mut progress = Progress::new();
    let mut stream = connect_to(url.address, congestion)?;
    stream
        .write_all(&url.request(false))
        .context("cannot send the request")?;
    let (head, begin) = read_head(&mut stream).map_err(|error| explained(error, "no response"))?;
    progress.moved();
    if head.status != 200 {
        bail!("the response to GET {} is {}", url.path, head.status);
    }
    if head.body == BodyEnd::LastChunk {
        bail!(
            "the response to GET {} comes in chunks, whose bytes are not counted here",
            url.path
        );
    }
    let (length, mut bytes) = (head.length(), begin.len() as u64);
    let mut buffer = vec![0; CHUNK];
    let over = |bytes| until.is_some_and(|until| until.is_over(bytes, start));
    while length.is_none_or(|length| bytes < length) && !over(bytes) {
        if let Some(until @ Until::Elapsed(_)) = until {
            stream
                .set_read_timeout(Some(until.patience(start)))
                .context("cannot set the receive timeout")?;
        }
        let received = receive(&mut stream, &mut buffer);
        progress.moved();
        let count = match received {
            // Nothing came until the end: what had come before is the result.
            Err(error) if timed_out(&error) && over(bytes) => break,
            received => received.map_err(|error| explained(error, "cannot receive"))?,
        };
        match (count, length) {
            (0, None) => break,
            (0, Some(length)) => bail!("the server closed the connection after {bytes} bytes of {length}"),
            _ => bytes += count as u64,
        }
    }
    Ok(Transfer {
        bytes,
        elapsed: start.elapsed(),
        longest_pause: progress.longest_pause,
    })
}

/// Sends to a service that throws away what it gets (RFC 863), until `until`, then FIN, and waits for the server's.
///
/// # Errors
///
/// No connection, the connection was reset, the server sent something, or nothing moved for 30 s.
pub fn upload(target: SocketAddr, until: Until, congestion: Option<&str>) -> anyhow::Result<Transfer> {
    let start = Instant::now();
    let mut progress = Progress::new();
    let mut stream = connect_to(target, congestion)?;
    let chunk = vec![0; CHUNK];
    let mut bytes = 0;
    while !until.is_over(bytes, start) {
        let length = match until {
            Until::Bytes(limit) => usize::try_from(limit - bytes).unwrap_or(CHUNK).min(CHUNK),
            Until::Elapsed(_) => CHUNK,
        };
        match stream.write(&chunk[..length]) {
            Ok(count) => bytes += count as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(explained(error, &format!("cannot send after {bytes} bytes"))),
        }
        progress.moved();
    }
    stream.shutdown(Shutdown::Write).context("cannot send FIN")?;
    // The server's FIN says that all has arrived and was read.
    if receive(&mut stream, &mut [0; 1]).map_err(|error| explained(error, "cannot receive"))? != 0 {
        bail!("{target} sent something; it is no service that throws away what it gets");
    }
    progress.moved();
    Ok(Transfer {
        bytes,
        elapsed: start.elapsed(),
        longest_pause: progress.longest_pause,
    })
}

fn receive(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn explained(error: io::Error, what: &str) -> anyhow::Error {
    if timed_out(&error) {
        anyhow!("{what}: nothing moved for {} s", TIMEOUT.as_secs())
    } else {
        anyhow::Error::new(error).context(what.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::serve;

    /// A free address of this machine, for a server that is about to listen on it.
    fn free_address() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    fn url(address: SocketAddr, path: &str) -> Url {
        format!("http://{address}{path}").parse().unwrap()
    }

    #[test]
    fn a_download_has_the_length_asked_for() {
        let address = free_address();
        serve::source(address, None).unwrap();
        for length in [0, 1, 1_000_000] {
            let transfer = download(&url(address, &format!("/{length}")), None, None).unwrap();
            assert_eq!(transfer.bytes, length);
            assert!(transfer.longest_pause <= transfer.elapsed);
        }
        let error = download(&url(address, "/x"), None, None).unwrap_err();
        assert!(error.to_string().contains("404"), "{error}");
    }

    #[test]
    fn a_download_ends_in_time_or_after_enough() {
        let address = free_address();
        serve::source(address, None).unwrap();
        let endless = url(address, "/1000000000000");
        let transfer = download(&endless, Some(Until::Bytes(100_000)), None).unwrap();
        assert!((100_000..200_000).contains(&transfer.bytes), "{transfer:?}");
        let limit = Duration::from_millis(20);
        let transfer = download(&endless, Some(Until::Elapsed(limit)), None).unwrap();
        assert!(transfer.bytes > 0 && transfer.elapsed >= limit, "{transfer:?}");
    }

    #[test]
    fn a_download_that_stands_still_ends_in_time_too() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort");
            thread::sleep(TIMEOUT);
        });
        let limit = Duration::from_millis(100);
        let transfer = download(&url(address, "/"), Some(Until::Elapsed(limit)), None).unwrap();
        assert_eq!(transfer.bytes, 5);
        assert!((limit..TIMEOUT).contains(&transfer.elapsed), "{transfer:?}");
        assert!(transfer.longest_pause > Duration::ZERO, "{transfer:?}");
    }

    #[test]
    fn an_upload_is_over_when_the_server_has_read_it() {
        let address = free_address();
        serve::sink(address, None).unwrap();
        for length in [0, 1, 1_000_000] {
            assert_eq!(upload(address, Until::Bytes(length), None).unwrap().bytes, length);
        }
        let limit = Duration::from_millis(20);
        let transfer = upload(address, Until::Elapsed(limit), None).unwrap();
        assert!(transfer.bytes > 0 && transfer.elapsed >= limit, "{transfer:?}");
    }

    #[test]
    fn a_server_that_ends_early_or_talks_back_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut buffer = [0; 1024];
                let _ = stream.read(&mut buffer);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort");
            }
        });
        let error = download(&url(address, "/"), None, None).unwrap_err();
        assert!(error.to_string().contains("5 bytes of 10"), "{error}");
        let error = upload(address, Until::Bytes(1), None).unwrap_err();
        assert!(error.to_string().contains("sent something"), "{error}");
    }

    #[test]
    fn megabits_are_payload_bits_per_second() {
        let transfer = Transfer {
            bytes: 12_500_000,
            elapsed: Duration::from_secs(2),
            longest_pause: Duration::ZERO,
        };
        assert_eq!(transfer.mbits_per_second(), 50.0);
    }
}
