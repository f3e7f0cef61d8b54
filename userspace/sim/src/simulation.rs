//! The discrete-event simulation: two hosts, a link, and time that jumps from one event to the next.

use core::cmp::Reverse;
use core::time::Duration;
use std::collections::BinaryHeap;

use tidegate_random::Random;

use crate::host::Host;
use crate::link::{Link, LinkCounters};
use crate::scenario::Scenario;
use crate::segment::{RST, SYN, View};
use crate::side::Side;
use crate::trace::Trace;
use crate::windows::Windows;

/// A run that takes more events than this does not end.
const MAX_EVENTS: u64 = 5_000_000;

/// A run that takes more simulated time than this does not end.
const MAX_TIME: Duration = Duration::from_secs(6 * 3600);

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct InFlight {
    at: Duration,
    /// Frames that arrive at the same time do so in the order in which they were sent.
    number: u64,
    to: Side,
    frame: Vec<u8>,
}

/// The segments one side put on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Segments.
    pub segments: u64,
    /// Those that carried nothing but sequence numbers already sent.
    pub retransmissions: u64,
    furthest: Option<u32>,
}

impl Sent {
    /// The sequence number after the furthest one sent; `None` before the first.
    pub fn furthest(&self) -> Option<u32> {
        self.furthest
    }

    fn note(&mut self, frame: &[u8]) {
        let Some(view) = View::read(frame) else {
            return;
        };
        self.segments += 1;
        if view.length() == 0 || view.has(RST) {
            return;
        }
        let end = view.seq.wrapping_add(view.length());
        let ahead = self
            .furthest
            .is_none_or(|furthest| end.wrapping_sub(furthest) as i32 > 0);
        if ahead || (view.has(SYN) && self.furthest.is_some_and(|furthest| furthest != end)) {
            self.furthest = Some(end);
        } else {
            self.retransmissions += 1;
        }
    }
}

/// A run in progress.
pub struct Simulation {
    now: Duration,
    hosts: [Box<dyn Host>; 2],
    /// By the side that sends.
    links: [Link; 2],
    sent: [Sent; 2],
    windows: Windows,
    queue: BinaryHeap<Reverse<InFlight>>,
    arrivals: Vec<(Duration, Vec<u8>)>,
    frames: Vec<Vec<u8>>,
    numbered: u64,
    events: u64,
    /// Frames each side received from the link, and in other ways.
    arrived: [u64; 2],
    injected: [u64; 2],
    /// Routers' messages each link carried beside its sender's frames.
    answers: [u64; 2],
    trace: Option<Trace>,
}

impl Simulation {
    /// Makes the hosts and the link, and opens the connection.
    ///
    /// # Errors
    ///
    /// The reason a host could not be made or the connection not be opened, in words.
    pub fn new(scenario: &Scenario, trace: Option<Trace>) -> Result<Self, String> {
        let mut random = Random::new(!scenario.seed);
        let mut simulation = Self {
            now: Duration::ZERO,
            hosts: scenario.hosts()?,
            links: [
                Link::new(scenario.to_server.clone(), random.fork()),
                Link::new(scenario.to_client.clone(), random.fork()),
            ],
            sent: [Sent::default(); 2],
            windows: Windows::new(
                [&scenario.to_server, &scenario.to_client].map(|link| link.middlebox.strip_window_scale),
            ),
            queue: BinaryHeap::new(),
            arrivals: Vec::new(),
            frames: Vec::new(),
            numbered: 0,
            events: 0,
            arrived: [0; 2],
            injected: [0; 2],
            answers: [0; 2],
            trace,
        };
        simulation.hosts[Side::Client.index()].connect(Duration::ZERO)?;
        if scenario.simultaneous_open {
            simulation.hosts[Side::Server.index()].connect(Duration::ZERO)?;
        }
        simulation.collect();
        Ok(simulation)
    }

    /// The time since the start.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The host on `side`.
    pub fn host(&self, side: Side) -> &dyn Host {
        &*self.hosts[side.index()]
    }

    /// The link's treatment of the frames `side` sent.
    pub fn link(&self, side: Side) -> LinkCounters {
        self.links[side.index()].counters()
    }

    /// The segments `side` put on the wire.
    pub fn sent(&self, side: Side) -> &Sent {
        &self.sent[side.index()]
    }

    /// Ends the trace, if there is one, and gives it back.
    pub fn take_trace(&mut self) -> Option<Trace> {
        self.trace.take()
    }

    /// Has `frame` arrive at `to` now, past the link.
    pub fn inject(&mut self, to: Side, frame: &[u8]) {
        self.injected[to.index()] += 1;
        self.hosts[to.index()].receive(self.now, frame);
        self.collect();
    }

    /// Goes on to the next event and handles all that happens at that time; false when nothing is left to happen.
    ///
    /// # Errors
    ///
    /// The run does not end.
    pub fn step(&mut self) -> Result<bool, String> {
        let deadlines = self.deadlines();
        let arrival = self.queue.peek().map(|Reverse(first)| first.at);
        let Some(next) = deadlines.into_iter().chain([arrival]).flatten().min() else {
            return Ok(false);
        };
        self.now = self.now.max(next);
        if self.now > MAX_TIME {
            return Err(format!("no end after {MAX_TIME:?} of simulated time"));
        }
        while let Some(Reverse(first)) = self.queue.peek()
            && first.at <= self.now
        {
            let Some(Reverse(first)) = self.queue.pop() else {
                break;
            };
            self.count_event()?;
            self.arrived[first.to.index()] += 1;
            self.hosts[first.to.index()].receive(self.now, &first.frame);
            self.collect();
        }
        for side in Side::BOTH {
            let host = &mut self.hosts[side.index()];
            // A host asked now says when it next has to do something; what it said before the time came counts too.
            let due = [deadlines[side.index()], host.next_deadline(self.now)];
            if due.into_iter().flatten().any(|deadline| deadline <= self.now) {
                host.turn(self.now);
                self.count_event()?;
                self.collect();
            }
        }
        Ok(true)
    }

    /// Runs until nothing is left to happen.
    ///
    /// # Errors
    ///
    /// The run does not end.
    pub fn run(&mut self) -> Result<(), String> {
        while self.step()? {}
        if let Some(trace) = &mut self.trace {
            trace.note(self.now, "nothing is left to happen");
        }
        Ok(())
    }

    /// Checks that every frame was delivered or dropped, and counted once by everyone it passed.
    ///
    /// # Errors
    ///
    /// The contradiction, in words.
    pub fn check_frames(&self) -> Result<(), String> {
        for side in Side::BOTH {
            let (from, to) = (side.index(), side.other().index());
            let link = self.link(side);
            let (_, sent) = self.hosts[from].frames();
            let (received, _) = self.hosts[to].frames();
            let sums = [
                ("sent and offered to the link", sent + self.answers[from], link.offered),
                (
                    "offered and delivered or dropped",
                    link.offered + link.impaired.duplicated,
                    link.delivered + link.dropped(),
                ),
                ("delivered and arrived", link.delivered, self.arrived[to]),
                ("arrived and received", self.arrived[to] + self.injected[to], received),
            ];
            for (what, left, right) in sums {
                if left != right {
                    return Err(format!("frames of the {side}: {what}: {left} and {right}"));
                }
            }
        }
        Ok(())
    }

    /// Checks that text and FIN of `side` have kept within the windows that its peer offered.
    ///
    /// # Errors
    ///
    /// By how much it went beyond, in words.
    pub fn check_windows(&self, side: Side) -> Result<(), String> {
        match self.windows.exceeded(side) {
            Some(octets) => Err(format!("sent {octets} octets beyond the window offered to it")),
            None => Ok(()),
        }
    }

    fn deadlines(&mut self) -> [Option<Duration>; 2] {
        let now = self.now;
        self.hosts.each_mut().map(|host| host.next_deadline(now))
    }

    fn count_event(&mut self) -> Result<(), String> {
        self.events += 1;
        if self.events > MAX_EVENTS {
            return Err(format!("no end after {MAX_EVENTS} events"));
        }
        Ok(())
    }

    /// Takes what the hosts have sent to the link.
    fn collect(&mut self) {
        for side in Side::BOTH {
            if self.hosts[side.index()].outbox().is_empty() {
                continue;
            }
            let mut frames = core::mem::take(&mut self.frames);
            frames.append(self.hosts[side.index()].outbox());
            for frame in frames.drain(..) {
                self.sent[side.index()].note(&frame);
                self.windows.note(side, &frame);
                self.carry(side, frame);
            }
            self.frames = frames;
        }
    }

    fn carry(&mut self, from: Side, frame: Vec<u8>) {
        let line = self.trace.as_mut().map(|trace| trace.describe(from, &frame));
        let carried = self.links[from.index()].carry(self.now, frame, &mut self.arrivals);
        if let (Some(trace), Some(line)) = (&mut self.trace, line) {
            trace.sent(self.now, &line, carried.fate);
        }
        for (at, frame) in self.arrivals.drain(..) {
            self.numbered += 1;
            self.queue.push(Reverse(InFlight {
                at,
                number: self.numbered,
                to: from.other(),
                frame,
            }));
        }
        if let Some(answer) = carried.answer {
            let back = from.other();
            self.answers[back.index()] += 1;
            self.carry(back, answer);
        }
    }
}
