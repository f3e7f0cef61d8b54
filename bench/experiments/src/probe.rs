//! One request over the kernel's TCP, to see that a server is up, what exactly it sends, and how soon.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tidegate_lab::Child;

use tidegate_args::url::Url;
use tidegate_load::http::read_head;

/// The time a server may take until it accepts connections.
const START_LIMIT: Duration = Duration::from_secs(5);

/// The time a connection, and each piece of the response, may take.
const TIMEOUT: Duration = Duration::from_secs(2);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The octets of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Status line and fields.
    pub(crate) head: usize,
    /// The body.
    pub(crate) body: usize,
}

impl Answer {
    /// All of it.
    pub(crate) fn length(self) -> usize {
        self.head + self.body
    }
}

/// Asks `server` for `url` as soon as it accepts connections, and compares the body with `page`. To be called in the
/// client's namespace.
///
/// # Errors
///
/// The server ends, accepts no connection in time, or answers with something else.
pub(crate) fn wait_for(url: &Url, page: &[u8], server: &mut Child) -> anyhow::Result<Answer> {
    let deadline = Instant::now() + START_LIMIT;
    let stream = loop {
        match TcpStream::connect_timeout(&url.address, TIMEOUT) {
            Ok(stream) => break stream,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused && Instant::now() < deadline => {
                if !server.is_running()? {
                    bail!("it ended before it accepted a connection");
                }
                thread::sleep(POLL_INTERVAL);
            }
            Err(error) => return Err(error).with_context(|| format!("cannot connect to {}", url.address)),
        }
    };
    ask(stream, url, page, TIMEOUT)
}

/// Asks for `url` once and compares the body with `page`. The connection, and each piece of the response, may take
/// `timeout`.
///
/// # Errors
///
/// No connection or no response in time, or another one.
pub(crate) fn exchange(url: &Url, page: &[u8], timeout: Duration) -> anyhow::Result<Answer> {
    let stream = TcpStream::connect_timeout(&url.address, timeout)
        .with_context(|| format!("cannot connect to {}", url.address))?;
    ask(stream, url, page, timeout)
}

fn ask(mut stream: TcpStream, url: &Url, page: &[u8], timeout: Duration) -> anyhow::Result<Answer> {
    stream
        .set_read_timeout(Some(timeout))
        .context("cannot set a time limit")?;
    stream.write_all(&url.request(true)).context("cannot send a request")?;
    read(&mut stream, page)
}

/// Reads a response, whose body has to be `page`.
fn read(stream: &mut impl Read, page: &[u8]) -> anyhow::Result<Answer> {
    let (head, mut body) = read_head(stream).context("cannot read the response")?;
    if head.status != 200 {
        bail!("the status is {} and not 200", head.status);
    }
    let length = head.length().context("the response has no Content-Length")?;
    if length != page.len() as u64 {
        bail!("the body has {length} octets and not {}", page.len());
    }
    let begun = body.len();
    if begun < page.len() {
        body.resize(page.len(), 0);
        let rest = stream.read_exact(&mut body[begun..]);
        rest.context("the connection was closed within the response")?;
    }
    if !body.starts_with(page) {
        bail!("the body is not the file");
    }
    Ok(Answer {
        head: head.end,
        body: page.len(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";

    #[test]
    fn a_response_is_complete_with_its_last_octet() {
        let whole = [HEAD, b"page"].concat();
        for length in 0..whole.len() {
            assert!(read(&mut &whole[..length], b"page").is_err(), "{length}");
        }
        let answer = read(&mut &whole[..], b"page").unwrap();
        assert_eq!(
            (answer.head, answer.body, answer.length()),
            (HEAD.len(), 4, whole.len())
        );
    }

    #[test]
    fn another_body_or_status_is_told() {
        for (response, phrase) in [
            (&b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"[..], "404"),
            (
                &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"[..],
                "5 octets and not 4",
            ),
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nPAGE"[..], "not the file"),
            (&b"HTTP/1.1 200 OK\r\n\r\n"[..], "no Content-Length"),
            (&b"220 smtp\r\n\r\n"[..], "not an HTTP response"),
        ] {
            let error = format!("{:#}", read(&mut &*response, b"page").unwrap_err());
            assert!(error.contains(phrase), "{error}");
        }
    }

    #[test]
    fn a_connection_that_ends_early_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 16];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(&HEAD[..20]).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            // Read to the end, so that what is unread does not become a reset.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let url: Url = format!("http://{address}/index.html").parse().unwrap();
        let error = exchange(&url, b"page", TIMEOUT).unwrap_err();
        assert!(format!("{error:#}").contains("closed before the head"), "{error:#}");
        server.join().unwrap();
    }
}
