//! The clients that nobody wants to lose: each connects, asks once and reads the answer, over the kernel's TCP.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use sha2::{Digest, Sha256};

use crate::http_client::{Malformed, Response, ResponseReader, Url};
use tidegate_report::Latencies;

/// How long a client waits for its connection, with its TCP sending the SYN again as often as it likes, and how long
/// for its response after that.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked for clients whose patience is over.
const LOOK: Duration = Duration::from_millis(50);

/// Bytes read at once.
const CHUNK: usize = 4096;

/// What the clients do.
pub(super) struct Plan<'a> {
    /// What they ask for.
    pub(super) url: &'a Url,
    /// The body they have to get.
    pub(super) body: &'a [u8],
    /// How many there are.
    pub(super) count: u32,
    /// They begin evenly spread over this time.
    pub(super) window: Duration,
    /// How long the last ones are waited for after it.
    pub(super) tail: Duration,
}

/// What became of them.
pub(super) struct Outcome {
    /// Clients that began.
    pub(super) tried: u32,
    /// Of these, those that the server answered with the whole body in time.
    pub(super) ok: u32,
    /// From the begin of a connection until it was there, of all that came about.
    pub(super) connect: Latencies,
    /// From the begin of a connection until the first byte of the response.
    pub(super) first_byte: Latencies,
    /// Why the first client that failed did so.
    pub(super) first_failure: Option<String>,
}

impl Outcome {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            tried: 0,
            ok: 0,
            connect: Latencies::new(),
            first_byte: Latencies::new(),
            first_failure: None,
        })
    }

    fn failed(&mut self, why: impl FnOnce() -> String) {
        self.first_failure.get_or_insert_with(why);
    }
}

/// Runs all clients, in the calling thread and its network namespace.
///
/// # Errors
///
/// The kernel refuses to wait for sockets. A client that fails is no error.
pub(super) fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    let mut poll = Poll::new().context("cannot wait for sockets")?;
    let mut events = Events::with_capacity(1024);
    let mut outcome = Outcome::new()?;
    let mut buffer = [0; CHUNK];
    let task = Task {
        address: plan.url.address,
        request: plan.url.request(false),
        length: plan.body.len() as u64,
        hash: Sha256::digest(plan.body).into(),
    };
    let mut clients: Vec<Option<Client>> = Vec::new();
    let mut open = 0_usize;
    let start = Instant::now();
    let end = start + plan.window + plan.tail;
    let mut look = start + LOOK;
    loop {
        let now = Instant::now();
        while outcome.tried < plan.count && start + begin_of(plan, outcome.tried) <= now {
            outcome.tried += 1;
            match Client::begin(&task, &poll, Token(clients.len())) {
                Ok(client) => {
                    clients.push(Some(client));
                    open += 1;
                }
                Err(error) => {
                    clients.push(None);
                    outcome.failed(|| format!("cannot begin to connect: {error}"));
                }
            }
        }
        let all_begun = outcome.tried == plan.count;
        if now >= end || (all_begun && open == 0) {
            break;
        }
        if now >= look {
            open -= give_up(&mut clients, now, &mut outcome);
            look = now + LOOK;
        }
        let mut wake = look.min(end);
        if !all_begun {
            wake = wake.min(start + begin_of(plan, outcome.tried));
        }
        match poll.poll(&mut events, Some(wake.saturating_duration_since(Instant::now()))) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("cannot wait for sockets"),
        }
        for event in &events {
            let Some(slot) = clients.get_mut(event.token().0) else {
                continue;
            };
            let Some(client) = slot else { continue };
            match client.advance(&task, &mut buffer, &mut outcome) {
                Step::Wait => continue,
                Step::Done => outcome.ok += 1,
                Step::Failed(why) => outcome.failed(|| why),
            }
            *slot = None;
            open -= 1;
        }
    }
    if open > 0 {
        outcome.failed(|| "no complete response when the measurement was over".to_owned());
    }
    Ok(outcome)
}

/// When client `index` begins, from the begin of the window.
fn begin_of(plan: &Plan, index: u32) -> Duration {
    plan.window.mul_f64(f64::from(index) / f64::from(plan.count.max(1)))
}

/// Removes the clients whose patience is over and returns how many they are.
fn give_up(clients: &mut [Option<Client>], now: Instant, outcome: &mut Outcome) -> usize {
    let mut count = 0;
    for slot in clients {
        let Some(client) = slot else { continue };
        if now.saturating_duration_since(client.waiting_since) < PATIENCE {
            continue;
        }
        let awaited = match client.phase {
            Phase::Connecting => "connection",
            Phase::Sending(_) | Phase::Reading => "complete response",
        };
        outcome.failed(|| format!("no {awaited} within {} s", PATIENCE.as_secs()));
        *slot = None;
        count += 1;
    }
    count
}

/// What each client has to do.
struct Task {
    address: SocketAddr,
    request: Vec<u8>,
    /// Length of the body.
    length: u64,
    /// SHA-256 of the body.
    hash: [u8; 32],
}

impl Task {
    fn check(&self, response: &Response) -> Result<(), String> {
        if response.status != 200 {
            return Err(format!("the status is {}", response.status));
        }
        if response.length != self.length || response.hash != self.hash {
            return Err(format!("a body of {} bytes that is not the right one", response.length));
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Connecting,
    /// So many bytes of the request are sent.
    Sending(usize),
    Reading,
}

enum Step {
    /// It waits for the kernel.
    Wait,
    /// The whole response is there and is the right one.
    Done,
    /// A phrase that says what was seen.
    Failed(String),
}

struct Client {
    stream: TcpStream,
    phase: Phase,
    begun: Instant,
    /// Since when it waits for what it waits for.
    waiting_since: Instant,
    answered: bool,
    reader: ResponseReader,
}

impl Client {
    fn begin(task: &Task, poll: &Poll, token: Token) -> io::Result<Self> {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(task.address)?;
        stream.set_nodelay(true)?;
        poll.registry()
            .register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self {
            stream,
            phase: Phase::Connecting,
            begun,
            waiting_since: begun,
            answered: false,
            reader: ResponseReader::new(),
        })
    }

    /// Does all that is possible without waiting: mio reports edges.
    fn advance(&mut self, task: &Task, buffer: &mut [u8], outcome: &mut Outcome) -> Step {
        loop {
            let result = match self.phase {
                Phase::Connecting => self.finish_connecting(outcome),
                Phase::Sending(sent) => self.send(&task.request, sent),
                Phase::Reading => self.read(task, buffer, outcome),
            };
            match result {
                Ok(None) => {}
                Ok(Some(step)) => return step,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Wait,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Step::Failed(error.to_string()),
            }
        }
    }

    fn finish_connecting(&mut self, outcome: &mut Outcome) -> io::Result<Option<Step>> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(Some(Step::Wait)),
            Err(error) => return Err(error),
        }
        let now = Instant::now();
        outcome.connect.record(now - self.begun);
        self.waiting_since = now;
        self.phase = Phase::Sending(0);
        Ok(None)
    }

    fn send(&mut self, request: &[u8], sent: usize) -> io::Result<Option<Step>> {
        let sent = sent + self.stream.write(&request[sent..])?;
        self.phase = if sent == request.len() {
            Phase::Reading
        } else {
            Phase::Sending(sent)
        };
        Ok(None)
    }

    fn read(&mut self, task: &Task, buffer: &mut [u8], outcome: &mut Outcome) -> io::Result<Option<Step>> {
        let count = self.stream.read(buffer)?;
        if count == 0 {
            let why = "the server closed the connection before the response was complete";
            return Ok(Some(Step::Failed(why.to_owned())));
        }
        if !self.answered {
            self.answered = true;
            outcome.first_byte.record(self.begun.elapsed());
        }
        Ok(match self.reader.feed(&buffer[..count]) {
            Ok(None) => None,
            Ok(Some(response)) => Some(match task.check(&response) {
                Ok(()) => Step::Done,
                Err(why) => Step::Failed(why),
            }),
            Err(Malformed(why)) => Some(Step::Failed(why)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A server that answers every connection with `response` when it has read something.
    fn server(response: &'static [u8]) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(response);
            }
        });
        format!("http://{address}/").parse().unwrap()
    }

    fn plan(url: &Url) -> Plan<'_> {
        Plan {
            url,
            body: b"hello",
            count: 20,
            window: Duration::from_millis(20),
            tail: Duration::from_secs(5),
        }
    }

    #[test]
    fn clients_that_are_answered_are_counted_and_timed() {
        let url = server(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        let outcome = run(&plan(&url)).unwrap();
        assert_eq!((outcome.tried, outcome.ok), (20, 20), "{:?}", outcome.first_failure);
        let connect = outcome.connect.quantiles().unwrap();
        let first_byte = outcome.first_byte.quantiles().unwrap();
        assert!(connect.max <= first_byte.max, "{connect:?} {first_byte:?}");
    }

    #[test]
    fn a_wrong_body_or_status_is_a_failure_that_says_so() {
        for (response, why) in [
            (
                &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhullo"[..],
                "not the right one",
            ),
            (&b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"[..], "404"),
            (
                &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"[..],
                "before the response",
            ),
        ] {
            let outcome = run(&plan(&server(response))).unwrap();
            assert_eq!((outcome.tried, outcome.ok), (20, 0));
            let failure = outcome.first_failure.unwrap();
            assert!(failure.contains(why), "{failure}");
        }
    }

    #[test]
    fn nobody_there_is_a_failure_of_every_client() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url: Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let outcome = run(&plan(&url)).unwrap();
        assert_eq!((outcome.tried, outcome.ok), (20, 0));
        assert_eq!(outcome.connect.quantiles(), None);
    }

    #[test]
    fn clients_without_an_answer_end_with_the_tail() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url: Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let mut plan = plan(&url);
        plan.tail = Duration::from_millis(20);
        let outcome = run(&plan).unwrap();
        assert_eq!((outcome.tried, outcome.ok), (20, 0));
        assert!(outcome.connect.quantiles().is_some());
        assert!(outcome.first_failure.unwrap().contains("over"));
    }
}
