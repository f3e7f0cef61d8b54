//! Connections that were open before the flood: each fetches the same body again and again, at a bounded rate, and
//! compares every byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBuf;

use tidegate_args::url::Url;
use tidegate_load::http::parse_head;
use tidegate_stream::socket::connect_with;

/// Connections.
pub(super) const COUNT: usize = 4;

/// Bytes read at once.
const CHUNK: usize = 32 * 1024;

/// The receive buffer in bytes. It is small, so that a stall of the server shows: what the client has in its buffer, it
/// can read however bad the link is.
const RECEIVE_BUFFER: usize = 128 * 1024;

/// The time connecting is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The time one read waits before it is looked whether all is over.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A connection that is further behind its rate than this does not try to catch up.
const MAX_ARREARS: Duration = Duration::from_millis(100);

/// The state that the connections share with the one who started them.
struct Shared {
    /// Bytes of bodies that arrived.
    bytes: AtomicU64,
    /// The responses under way are the last.
    ending: AtomicBool,
    /// Responses that are not there by now do not come any more.
    over: AtomicBool,
}

/// Connections that are open.
pub(super) struct BackgroundLoad {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Damage>>,
}

/// The damage that the connections took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Damage {
    /// Connections that were closed, reset or answered wrongly.
    pub(super) broken: u64,
    /// Connections on which the last response was not complete in time, although nothing was wrong.
    pub(super) stalled: u64,
    /// Bytes of begun responses that did not come on connections that broke.
    pub(super) lost: u64,
    /// Bytes that came but were not the right ones.
    pub(super) wrong: u64,
}

impl Damage {
    fn add(&mut self, other: Self) {
        self.broken += other.broken;
        self.stalled += other.stalled;
        self.lost += other.lost;
        self.wrong += other.wrong;
    }
}

impl BackgroundLoad {
    /// Opens [`COUNT`] connections that fetch `url` with `rate` bytes per second all together, on threads of their own
    /// in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// No connection, or no thread.
    pub(super) fn open(url: &Url, body: &Arc<[u8]>, rate: f64) -> anyhow::Result<Self> {
        let mut connections = Self {
            shared: Arc::new(Shared {
                bytes: AtomicU64::new(0),
                ending: AtomicBool::new(false),
                over: AtomicBool::new(false),
            }),
            threads: Vec::new(),
        };
        for _ in 0..COUNT {
            let stream = connect_to(url.address)?;
            let fetcher = Fetcher {
                stream,
                request: url.request(true),
                body: Arc::clone(body),
                shared: Arc::clone(&connections.shared),
                pace: Pace::new(rate / COUNT as f64),
            };
            let thread = thread::Builder::new()
                .spawn(move || fetcher.run())
                .context("cannot start a thread")?;
            connections.threads.push(thread);
        }
        Ok(connections)
    }

    /// Bytes of bodies that arrived until now on all connections.
    pub(super) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Ends all connections: the responses under way are waited for, at most for `timeout`.
    pub(super) fn finish(mut self, timeout: Duration) -> Damage {
        self.shared.ending.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline && !self.threads.iter().all(JoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(5));
        }
        self.shared.over.store(true, Ordering::Relaxed);
        let mut damage = Damage::default();
        for thread in self.threads.drain(..) {
            // A thread that panicked has broken its connection.
            damage.add(thread.join().unwrap_or(Damage {
                broken: 1,
                ..Damage::default()
            }));
        }
        damage
    }
}

impl Drop for BackgroundLoad {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        self.shared.over.store(true, Ordering::Relaxed);
    }
}

fn connect_to(address: SocketAddr) -> anyhow::Result<TcpStream> {
    // Before connecting, since it decides the window scale.
    let stream = connect_with(address, CONNECT_TIMEOUT, |socket| {
        setsockopt(socket, RcvBuf, &RECEIVE_BUFFER).context("cannot set the receive buffer")
    })
    .context("there is no flood yet")?;
    stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
    stream
        .set_read_timeout(Some(POLL_INTERVAL))
        .context("cannot set the receive timeout")?;
    Ok(stream)
}

/// The pace at which bytes are read.
struct Pace {
    /// Bytes per second.
    rate: f64,
    begun: Instant,
    bytes: u64,
}

impl Pace {
    fn new(rate: f64) -> Self {
        Self {
            rate,
            begun: Instant::now(),
            bytes: 0,
        }
    }

    /// Takes `count` bytes that were read at `now` into account. How long to wait before the next are read.
    fn after(&mut self, count: usize, now: Instant) -> Duration {
        self.bytes += count as u64;
        let due = self.begun + Duration::from_secs_f64(self.bytes as f64 / self.rate);
        if now.saturating_duration_since(due) > MAX_ARREARS {
            self.begun = now;
            self.bytes = 0;
        }
        due.saturating_duration_since(now)
    }
}

/// Why a response is not complete.
enum Trouble {
    /// Time is over.
    Stalled,
    /// The connection is of no further use.
    Broken,
}

struct Fetcher {
    stream: TcpStream,
    request: Vec<u8>,
    body: Arc<[u8]>,
    shared: Arc<Shared>,
    pace: Pace,
}

impl Fetcher {
    fn run(mut self) -> Damage {
        let mut damage = Damage::default();
        let mut buffer = vec![0; CHUNK];
        while !self.shared.ending.load(Ordering::Relaxed) {
            let mut received = 0;
            let result = self.fetch(&mut buffer, &mut received, &mut damage.wrong);
            match result {
                Ok(()) if damage.wrong == 0 => continue,
                Ok(()) => damage.broken = 1,
                Err(Trouble::Stalled) => damage.stalled = 1,
                Err(Trouble::Broken) => {
                    damage.broken = 1;
                    damage.lost = (self.body.len() - received) as u64;
                }
            }
            break;
        }
        damage
    }

    /// One response. `received` is how much of the body came, `wrong` how much of that is not right.
    fn fetch(&mut self, buffer: &mut [u8], received: &mut usize, wrong: &mut u64) -> Result<(), Trouble> {
        self.stream.write_all(&self.request).map_err(|_| Trouble::Broken)?;
        let begin = self.read_head(buffer)?;
        self.take(&begin, received, wrong)?;
        while *received < self.body.len() {
            let count = self.read(buffer)?;
            self.take(&buffer[..count], received, wrong)?;
        }
        Ok(())
    }

    /// Reads the head of a response, and returns what came of the body with it.
    fn read_head(&mut self, buffer: &mut [u8]) -> Result<Vec<u8>, Trouble> {
        let mut bytes = Vec::new();
        loop {
            let count = self.read(buffer)?;
            bytes.extend_from_slice(&buffer[..count]);
            match parse_head(&bytes) {
                Ok(Some(head)) if head.status == 200 && head.length() == Some(self.body.len() as u64) => {
                    return Ok(bytes.split_off(head.end));
                }
                Ok(None) if bytes.len() < CHUNK => {}
                _ => return Err(Trouble::Broken),
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Trouble> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(Trouble::Broken),
                Ok(count) => return Ok(count),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if self.shared.over.load(Ordering::Relaxed) {
                        return Err(Trouble::Stalled);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Trouble::Broken),
            }
        }
    }

    /// Compares what came next of the body and waits until more may be read.
    fn take(&mut self, data: &[u8], received: &mut usize, wrong: &mut u64) -> Result<(), Trouble> {
        let expected = self
            .body
            .get(*received..*received + data.len())
            .ok_or(Trouble::Broken)?;
        if data != expected {
            *wrong += data.iter().zip(expected).filter(|(one, other)| one != other).count() as u64;
        }
        *received += data.len();
        self.shared.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        let until = Instant::now() + self.pace.after(data.len(), Instant::now());
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.shared.ending.load(Ordering::Relaxed) {
                return Ok(());
            }
            thread::sleep(left.min(POLL_INTERVAL));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const FAST: f64 = 1e9;

    /// A server whose connections answer each request with `response`, and close after `answers`.
    fn server(response: Vec<u8>, answers: usize) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let response = response.clone();
                thread::spawn(move || {
                    for _ in 0..answers {
                        if !matches!(stream.read(&mut [0; 1024]), Ok(1..)) || stream.write_all(&response).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        format!("http://{address}/").parse().unwrap()
    }

    fn response(body: &[u8]) -> Vec<u8> {
        let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        response.extend_from_slice(body);
        response
    }

    fn body() -> Arc<[u8]> {
        (0..100_000_u32).map(|number| (number % 251) as u8).collect()
    }

    /// Lets the connections run until `bytes` bytes came or all have ended.
    fn run(connections: &BackgroundLoad, bytes: u64) {
        while connections.bytes() < bytes && !connections.threads.iter().all(JoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn what_comes_is_counted_and_nothing_is_lost() {
        let body = body();
        let url = server(response(&body), usize::MAX);
        let connections = BackgroundLoad::open(&url, &body, FAST).unwrap();
        run(&connections, 10_000_000);
        let shared = Arc::clone(&connections.shared);
        assert_eq!(connections.finish(Duration::from_secs(10)), Damage::default());
        let bytes = shared.bytes.load(Ordering::Relaxed);
        assert!(
            bytes >= 10_000_000 && bytes.is_multiple_of(body.len() as u64),
            "{bytes}"
        );
    }

    #[test]
    fn a_connection_that_ends_has_broken_and_lost_a_response() {
        let body = body();
        let connections = BackgroundLoad::open(&server(response(&body), 1), &body, FAST).unwrap();
        run(&connections, u64::MAX);
        let damage = Damage {
            broken: COUNT as u64,
            lost: (COUNT * body.len()) as u64,
            ..Damage::default()
        };
        assert_eq!(connections.finish(Duration::ZERO), damage);
    }

    #[test]
    fn bytes_that_are_not_the_right_ones_are_counted() {
        let body = body();
        let mut other = body.to_vec();
        other[7] ^= 1;
        other[99_999] ^= 1;
        let connections = BackgroundLoad::open(&server(response(&other), usize::MAX), &body, FAST).unwrap();
        run(&connections, u64::MAX);
        let damage = connections.finish(Duration::ZERO);
        assert_eq!(
            (damage.broken, damage.wrong, damage.lost),
            (COUNT as u64, 2 * COUNT as u64, 0)
        );
    }

    #[test]
    fn a_server_that_is_silent_stalls_and_does_not_break() {
        let body = body();
        let half = response(&body)[..body.len() / 2].to_vec();
        let connections = BackgroundLoad::open(&server(half, usize::MAX), &body, FAST).unwrap();
        let damage = Damage {
            stalled: COUNT as u64,
            ..Damage::default()
        };
        thread::sleep(POLL_INTERVAL);
        assert_eq!(connections.finish(Duration::from_millis(10)), damage);
    }

    #[test]
    fn a_pace_waits_for_its_rate_and_does_not_catch_up_for_long() {
        let mut pace = Pace::new(1_000.0);
        let begin = pace.begun;
        assert_eq!(pace.after(500, begin), Duration::from_millis(500));
        assert_eq!(
            pace.after(500, begin + Duration::from_millis(950)),
            Duration::from_millis(50)
        );
        // A second late: from here on it counts anew.
        let late = begin + Duration::from_secs(3);
        assert_eq!(pace.after(500, late), Duration::ZERO);
        assert_eq!(pace.after(500, late), Duration::from_millis(500));
    }
}
