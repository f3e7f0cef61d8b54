//! Template clients against a server whose time is taken.

use core::time::Duration;
use std::collections::VecDeque;

use tidegate_tcp::time::Instant;
use tidegate_tcp::wire::Segment;

use crate::cost::Cost;
use crate::frames::{BURST, Frames};
use crate::server::{EngineServer, Server};
use crate::template_client::{Step, TemplateClient};

/// Time that passes from one burst to the next: what 64 frames take at 6.4 million a second.
pub const BURST_TIME: Duration = Duration::from_micros(10);

/// The server's clock at the beginning.
pub const START: Instant = Instant::from_millis(1_000_000);

/// Bursts that a response to one of [`Driver::random_segments`] stays unacknowledged, at most: at that distance, 32,768
/// connections have been looked at meanwhile.
const MAX_LAG: u32 = 512;

/// A server and its clients.
///
/// The clients check every answer: a server that does not answer as [`Step::answers`] says makes the driver panic,
/// since the figure would be one of something else.
pub struct Driver<S> {
    server: S,
    client: TemplateClient,
    to_server: Frames,
    to_client: Frames,
    now: Instant,
    /// The client whose turn it is in [`Driver::requests`].
    next: u32,
    random: fastrand::Rng,
    draw: u32,
    /// Clients drawn whose responses are not acknowledged, oldest burst first.
    unacknowledged: VecDeque<[u32; BURST]>,
}

impl<S: Server> Driver<S> {
    /// `flows` clients of `server`; no connection is open.
    pub fn new(server: S, flows: u32) -> Self {
        Self {
            server,
            client: TemplateClient::new(0, flows),
            to_server: Frames::with_capacity(BURST),
            // Room for answers and for what timers send.
            to_client: Frames::with_capacity(4 * BURST),
            now: START,
            next: 0,
            random: fastrand::Rng::with_seed(1),
            draw: 0,
            unacknowledged: VecDeque::with_capacity(MAX_LAG as usize + 1),
        }
    }

    /// The server.
    pub fn server(&self) -> &S {
        &self.server
    }

    /// The server.
    pub fn server_mut(&mut self) -> &mut S {
        &mut self.server
    }

    /// The server's clock.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Opens a connection for every client. An operation is a handshake.
    pub fn open_all(&mut self) -> Cost {
        let mut cost = Cost::default();
        let mut first = 0;
        while let Some((burst, count)) = self.burst_from(first) {
            cost += self.exchange(Step::Syn, &burst[..count]);
            cost += self.exchange(Step::Ack, &burst[..count]);
            first += count as u32;
        }
        cost.operations = u64::from(self.client.flows());
        cost
    }

    /// Whole connections, at least so many, as many at a time as there are clients: all take a step before the first
    /// takes the next. Every connection is of a client that was not there before. An operation is a connection of 7
    /// segments: SYN; SYN-ACK; ACK; request; response with FIN; FIN; ACK. The server closes, so TIME-WAIT is on its
    /// side.
    pub fn whole_connections(&mut self, at_least: u64) -> Cost {
        let mut cost = Cost::default();
        while cost.operations < at_least {
            for step in [Step::Syn, Step::Ack, Step::LastRequest, Step::Fin] {
                cost += self.everyone(step);
            }
            cost.operations += u64::from(self.client.flows());
            self.client.renew();
        }
        cost
    }

    /// Requests on the open connections in turn, at least so many. An operation is a request of 2 segments: the
    /// request, which acknowledges the response before it, and the response.
    pub fn requests(&mut self, at_least: u64) -> Cost {
        let mut cost = Cost::default();
        while cost.operations < at_least {
            let Some((burst, count)) = self.burst_from(self.next) else {
                self.next = 0;
                continue;
            };
            cost += self.exchange(Step::Request, &burst[..count]);
            cost.operations += count as u64;
            self.next += count as u32;
        }
        cost
    }

    /// This many bursts of requests on open connections drawn at random, no connection twice in a burst, and some
    /// bursts later their acknowledgments, so that those, too, are of connections that have not been looked at for a
    /// while. An operation is a request of 3 segments: request, response and acknowledgment.
    ///
    /// # Panics
    ///
    /// If there are fewer than two bursts of clients.
    pub fn random_segments(&mut self, bursts: u64) -> Cost {
        let flows = self.client.flows();
        assert!(flows as usize >= 2 * BURST, "{flows} clients are too few to draw from");
        let lag = (flows / (2 * BURST as u32)).clamp(1, MAX_LAG) as usize;
        let mut cost = Cost::default();
        for _ in 0..bursts {
            let drawn = self.draw();
            cost += self.exchange(Step::Request, &drawn);
            self.unacknowledged.push_back(drawn);
            if self.unacknowledged.len() > lag
                && let Some(oldest) = self.unacknowledged.pop_front()
            {
                cost += self.exchange(Step::Ack, &oldest);
            }
            cost.operations += BURST as u64;
        }
        cost
    }

    /// The responses to [`Driver::random_segments`] that are not acknowledged are. No operation is counted.
    pub fn acknowledge_random(&mut self) -> Cost {
        let mut cost = Cost::default();
        while let Some(oldest) = self.unacknowledged.pop_front() {
            cost += self.exchange(Step::Ack, &oldest);
        }
        cost
    }

    /// All clients take a step. No operation is counted.
    pub fn everyone(&mut self, step: Step) -> Cost {
        let mut cost = Cost::default();
        let mut first = 0;
        while let Some((burst, count)) = self.burst_from(first) {
            cost += self.exchange(step, &burst[..count]);
            first += count as u32;
        }
        cost
    }

    /// Every client sends a request and acknowledges the response before the next burst of clients does. An operation
    /// is a request of 3 segments.
    pub fn serve_all(&mut self) -> Cost {
        self.in_bursts(&[Step::Request, Step::Ack])
    }

    /// Ends the connection of every client, a burst after the other. An operation is the end of a connection.
    pub fn end_all(&mut self) -> Cost {
        self.in_bursts(&[Step::LastRequest, Step::Fin])
    }

    /// A burst of clients opens connections and ends them: what a server makes for the first connections is made then.
    /// The clients that are there afterwards are others.
    pub fn warm_up(&mut self) {
        if let Some((burst, count)) = self.burst_from(0) {
            for step in [Step::Syn, Step::Ack, Step::Request, Step::LastRequest, Step::Fin] {
                self.exchange(step, &burst[..count]);
            }
            self.client.renew();
        }
    }

    /// Each burst of clients takes all of `steps` before the next does.
    fn in_bursts(&mut self, steps: &[Step]) -> Cost {
        let mut cost = Cost::default();
        let mut first = 0;
        while let Some((burst, count)) = self.burst_from(first) {
            for &step in steps {
                cost += self.exchange(step, &burst[..count]);
            }
            first += count as u32;
        }
        cost.operations = u64::from(self.client.flows());
        cost
    }

    /// A burst of clients from `first` on, and how many they are; `None` when there are none.
    fn burst_from(&self, first: u32) -> Option<([u32; BURST], usize)> {
        let left = self.client.flows().checked_sub(first).filter(|&left| left > 0)?;
        let mut burst = [0; BURST];
        for (flow, index) in burst.iter_mut().zip(first..) {
            *flow = index;
        }
        Some((burst, BURST.min(left as usize)))
    }

    /// A burst of clients, none of them twice.
    fn draw(&mut self) -> [u32; BURST] {
        self.draw = self.draw.wrapping_add(1);
        let mut drawn = [0; BURST];
        let mut count = 0;
        while count < BURST {
            let flow = self.random.u32(..self.client.flows());
            if self.client.claim(flow, self.draw) {
                drawn[count] = flow;
                count += 1;
            }
        }
        drawn
    }

    /// These clients, a burst at most, take a step.
    fn exchange(&mut self, step: Step, flows: &[u32]) -> Cost {
        self.to_server.clear();
        for &flow in flows {
            self.client.write(step, flow, &mut self.to_server);
        }
        self.to_client.clear();
        self.now = self.now + BURST_TIME;
        let burst = self.to_server.all();
        let cost = Cost::of(burst.len(), &mut self.to_client, |out| {
            self.server.deliver(self.now, burst, out);
        });
        let answers = self.client.read(&self.to_client);
        assert_eq!(
            answers,
            step.answers(flows.len()),
            "the server's answers (left) to {step:?} of {} clients",
            flows.len()
        );
        cost
    }
}

impl Driver<EngineServer> {
    /// Time passes in which no client sends anything. Returns the longest that a call of the engine took.
    ///
    /// # Panics
    ///
    /// If the server sends something.
    pub fn pass(&mut self, duration: Duration) -> Duration {
        let end = self.now + duration;
        let mut longest = Duration::ZERO;
        self.to_server.clear();
        while self.now < end {
            let next = self.server.engine().next_deadline().unwrap_or(end);
            self.now = next.clamp(self.now, end);
            loop {
                self.to_client.clear();
                let burst = self.to_server.all();
                let cost = Cost::of(0, &mut self.to_client, |out| self.server.deliver(self.now, burst, out));
                assert_eq!(self.to_client.len(), 0, "the server sent something to idle clients");
                longest = longest.max(cost.time);
                if self.server.engine().next_deadline().is_none_or(|next| next > self.now) {
                    break;
                }
            }
        }
        longest
    }
}

/// The HTTP service's response, head and content: to a request after which the connection stays open (`persistent`), or
/// after which it is closed. It fits one segment.
///
/// # Panics
///
/// If it does not.
pub fn served_response(persistent: bool) -> Vec<u8> {
    let mut driver = Driver::new(EngineServer::new(1, 1), 1);
    driver.open_all();
    driver.everyone(if persistent { Step::Request } else { Step::LastRequest });
    let frame = driver.to_client.get(0).expect("the request was answered");
    let segment = Segment::parse(frame, true).expect("the answer can be read");
    segment.payload.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_whole() {
        for (persistent, line) in [(true, None), (false, Some("Connection: close\r\n"))] {
            let response = String::from_utf8(served_response(persistent)).unwrap();
            assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
            assert_eq!(response.contains("Connection: "), line.is_some());
            let (head, content) = response.split_once("\r\n\r\n").unwrap();
            assert!(
                head.contains(&format!("Content-Length: {}\r\n", content.len())),
                "{head}"
            );
        }
    }

    #[test]
    fn a_draw_has_no_client_twice() {
        let mut driver = Driver::new(EngineServer::new(1, 1), 128);
        for _ in 0..100 {
            let mut drawn = driver.draw();
            drawn.sort_unstable();
            assert!(drawn.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
