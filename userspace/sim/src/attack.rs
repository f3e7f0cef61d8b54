//! Blind injection (RFC 5961): someone who knows addresses and ports, but sees none of the segments, tries to close the
//! connection or to insert text into it while both sides send.
//!
//! Guessing does succeed once in a while; the question is how often. With windows of 2^16 bytes, for one try with
//! random sequence and acknowledgment numbers:
//!
//! - RST has to stand exactly at RCV.NXT: 2^-32. A SYN never closes anything.
//! - Text and FIN have to lie in the receive window, 2^-16, and to acknowledge something between
//!   SND.UNA - MAX.SND.WND and SND.NXT, at most 2^17 numbers, 2^-15: together 2^-31.
//! - An empty ACK harms when it lies in the window and acknowledges what is in flight, 2^-16 each: 2^-32.
//!
//! Even if all 10 million tries had the best chance of these, 0.005 would be expected to succeed. Without RFC 5961's
//! checks it would be 150 RSTs and 75 insertions.

use core::time::Duration;

use bytes::Bytes;
use tidegate_random::Random;

use crate::check::{self, Failure};
use crate::link::LinkCounters;
use crate::scenario::{Scenario, Stack};
use crate::segment::{ACK, Draft, Endpoint, FIN, PSH, RST, SYN};
use crate::side::Side;
use crate::simulation::Simulation;

/// Receive buffer of both sides, and so the largest window, in bytes.
const WINDOW: u32 = 1 << 16;

/// Bytes each side sends over one connection.
const BYTES: usize = 256 << 10;

/// Forged segments between two events of a connection.
const TRIES_PER_STEP: u64 = 1000;

/// The outcome of an attack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Forged segments that reached a host while its connection was open.
    pub tries: u64,
    /// Connections attacked, one after the other.
    pub connections: u64,
    /// Bytes that applications received, all of them right.
    pub bytes: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// The links' treatment of the true segments.
    pub link: LinkCounters,
    /// The counters of the engines, in sum.
    pub counters: Vec<(&'static str, u64)>,
}

/// Attacks connections until `tries` segments were injected. They are of both IP versions, with timestamps and without.
/// `progress` is told of further tries now and then.
///
/// # Errors
///
/// The first connection that was closed early or received a wrong byte.
pub fn blind(tries: u64, seed: u64, mut progress: impl FnMut(u64)) -> Result<Report, Box<Failure>> {
    let mut report = Report::default();
    while report.tries < tries {
        let number = report.connections;
        let scenario = scenario(seed.wrapping_add(number), number % 2 == 1, number / 2 % 2 == 1);
        let before = report.tries;
        attack_one(&scenario, tries, &mut report, &mut progress).map_err(|problem| {
            Box::new(Failure {
                seed: scenario.seed,
                control: scenario.control,
                problem: format!("attacked with {} segments: {problem}", report.tries - before),
                scenario: scenario.to_string(),
                state: format!("connection {number} of `tidegate-sim attack --tries {tries} --seed {seed}`"),
            })
        })?;
        report.connections += 1;
    }
    Ok(report)
}

/// Two engines with windows of [`WINDOW`] bytes.
fn scenario(seed: u64, ipv6: bool, timestamps: bool) -> Scenario {
    let mut scenario = Scenario::clean(seed, ipv6, BYTES, BYTES);
    for party in [&mut scenario.client, &mut scenario.server] {
        if let Stack::Engine(settings) = &mut party.stack {
            settings.config.receive_buffer = WINDOW;
            settings.config.receive_buffer_initial = WINDOW;
        }
    }
    for direction in [&mut scenario.to_server, &mut scenario.to_client] {
        direction.middlebox.strip_timestamps = !timestamps;
    }
    scenario
}

fn attack_one(
    scenario: &Scenario,
    tries: u64,
    report: &mut Report,
    progress: &mut impl FnMut(u64),
) -> Result<(), String> {
    let mut forger = Forger::new(scenario);
    let mut simulation = Simulation::new(scenario, None)?;
    while simulation.step()? {
        let is_open = |side| simulation.host(side).script().is_open();
        if !Side::BOTH.into_iter().all(is_open) {
            continue;
        }
        let now = TRIES_PER_STEP.min(tries - report.tries);
        for _ in 0..now {
            let (to, frame) = forger.forge();
            simulation.inject(to, frame);
        }
        report.tries += now;
        progress(now);
    }
    let result = check::judge(scenario, &simulation)?;
    report.bytes += result.bytes;
    report.simulated += result.simulated;
    report.link.merge(&result.link);
    for side in Side::BOTH {
        for (name, value) in simulation.host(side).counters() {
            match report.counters.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += value,
                None => report.counters.push((name, value)),
            }
        }
    }
    Ok(())
}

/// Makes segments that would be right but for their numbers.
struct Forger {
    random: Random,
    ends: [Endpoint; 2],
    timestamps: bool,
    text: Bytes,
    frame: Vec<u8>,
}

impl Forger {
    fn new(scenario: &Scenario) -> Self {
        let mut random = Random::new(scenario.seed.rotate_left(32) ^ 0xb11d);
        let (client, server) = scenario.ends();
        Self {
            text: random.bytes(100).into(),
            random,
            ends: [client, server],
            timestamps: !scenario.to_server.middlebox.strip_timestamps,
            frame: Vec::new(),
        }
    }

    fn forge(&mut self) -> (Side, &[u8]) {
        let numbers = self.random.word();
        let choices = self.random.word();
        let stamps = self.random.word();
        let (flags, text) = match choices % 8 {
            0 => (RST, 0),
            1 => (RST | ACK, 0),
            2 => (SYN, 0),
            3 => (SYN | ACK, 0),
            4 => (ACK, 0),
            5 => (FIN | ACK, 0),
            _ => (ACK | PSH, 1 + (choices >> 32) as usize % self.text.len()),
        };
        // An attacker that knows of timestamps has to guess those as well: half of all are later than the last one.
        let [a, b, c, d, e, f, g, h] = stamps.to_be_bytes();
        let timestamps = [1, 1, 8, 10, a, b, c, d, e, f, g, h];
        let to = if choices & 8 == 0 { Side::Client } else { Side::Server };
        Draft {
            from: self.ends[to.other().index()],
            to: self.ends[to.index()],
            seq: numbers as u32,
            ack: (numbers >> 32) as u32,
            flags,
            window: (choices >> 16) as u16,
            options: if self.timestamps { &timestamps } else { &[] },
            text: &self.text[..text],
        }
        .write(&mut self.frame);
        (to, &self.frame)
    }
}
