//! Goodput: how much of a link connections get, alone and beside each other. The clock is the simulation's, so a run
//! gives the same figures on every machine.
//!
//! The link carries [`RATE`] with 10 ms of delay each way; [`cases`] are the ways in which it is bad.

use core::cmp::Reverse;
use core::time::Duration;
use std::collections::BinaryHeap;
use std::net::SocketAddr;

use bytes::Bytes;
use tidegate_impair::{Chance, Damage, Reordering};
use tidegate_random::Random;
use tidegate_tcp::Config;
use tidegate_tcp::congestion::Algorithm;
use tidegate_tcp::engine::ConnectionInfo;

use crate::engine_host::{EngineHost, EngineSettings};
use crate::host::{ClockStart, Host};
use crate::impairment::{Impairment, bottleneck};
use crate::link::{Link, LinkCounters};
use crate::scenario::small_config;
use crate::script::{Plan, Script};
use crate::segment::{ETHERNET_HEADER, Endpoint};
use crate::side::Side;

/// The rate of the link in bits per second.
pub const RATE: u64 = 100_000_000;

/// The bytes that fill the link: its rate times the round trip of 20 ms.
const BDP: u64 = RATE / 8 / 50;

/// A link that is bad in some way.
#[derive(Clone, Debug)]
pub struct Case {
    /// The way.
    pub name: &'static str,
    /// From the sender.
    pub to_server: Impairment,
    /// Back.
    pub to_client: Impairment,
}

impl Case {
    /// The bits per second of the way from the sender.
    pub fn rate(&self) -> u64 {
        let rate = self.to_server.link.rate;
        rate.map_or(RATE, |rate| rate.bits_per_second.get())
    }
}

/// A link whose queue holds `queue` bytes, changed by `change`.
pub fn case(name: &'static str, queue: u64, change: impl FnOnce(&mut tidegate_impair::Impairment)) -> Case {
    let mut to_server = Impairment::default();
    to_server.link.delay = Duration::from_millis(10);
    to_server.link.rate = Some(bottleneck(RATE, queue));
    to_server.link.damage = Damage::Noticed;
    let to_client = Impairment {
        link: tidegate_impair::Impairment {
            delay: Duration::from_millis(10),
            ..Default::default()
        },
        ..Impairment::default()
    };
    change(&mut to_server.link);
    Case {
        name,
        to_server,
        to_client,
    }
}

/// A link of which both directions have the rate, a queue of `queue` bytes, and what `change` makes of them.
pub fn case_both_ways(name: &'static str, queue: u64, change: impl FnOnce(&mut tidegate_impair::Impairment)) -> Case {
    let case = case(name, queue, change);
    Case {
        to_client: case.to_server.clone(),
        ..case
    }
}

/// The link with loss, `permille` of all frames.
pub fn lossy(name: &'static str, permille: u32) -> Case {
    case(name, BDP, |link| link.loss = Chance::permille(permille))
}

/// The bad links of a report.
pub fn cases() -> Vec<Case> {
    vec![
        lossy("no loss", 0),
        lossy("loss 0.1 %", 1),
        lossy("loss 1 %", 10),
        lossy("loss 2 %", 20),
        lossy("loss 3 %", 30),
        case("shallow queue (a tenth of what fills the link)", BDP / 10, |_| {}),
        case("deep queue (ten times that)", 10 * BDP, |_| {}),
        case("reordering 25 %", BDP, reorder),
        reordering_both_ways(),
        case("mix", BDP, mix),
        mix_both_ways(),
        fast(),
    ]
}

fn reorder(link: &mut tidegate_impair::Impairment) {
    link.reorder = Chance::permille(250);
    link.reordering = Reordering::SkipDelay;
}

/// A quarter of the frames skips the delay, of text and of acknowledgments: segments overtake each other by half of a
/// round trip, and the news of them by the other half.
pub fn reordering_both_ways() -> Case {
    case_both_ways("reordering 25 %, both ways", BDP, reorder)
}

/// The rate of [`fast`] in bits per second: a full frame takes 12 us, without a rest that the granularity of the link
/// would add to.
const FAST_RATE: u64 = 1_009_400_000;

/// Ten times the rate and a tenth of the delay, with a queue of one and a half times what fills the link.
pub fn fast() -> Case {
    let queue = FAST_RATE / 8 / 500 * 3 / 2;
    let change = |link: &mut tidegate_impair::Impairment| {
        link.delay = Duration::from_millis(1);
        link.rate = Some(bottleneck(FAST_RATE, queue));
    };
    case_both_ways("1 Gbit/s", queue, change)
}

/// Something of every fault, in both directions.
pub fn mix_both_ways() -> Case {
    case_both_ways("mix, both ways", BDP, mix)
}

/// Something of every fault, on half of the delay: loss 2 %, duplicates 1 %, damage 0.5 %, reordering 5 %.
fn mix(link: &mut tidegate_impair::Impairment) {
    link.delay = Duration::from_millis(5);
    link.loss = Chance::permille(20);
    link.duplicate = Chance::permille(10);
    link.corrupt = Chance::permille(5);
    link.reorder = Chance::permille(50);
    link.reordering = Reordering::SkipDelay;
}

/// One connection, whose client sends.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The settings of both engines.
    pub config: Config,
    /// Bytes to be sent.
    pub bytes: usize,
    /// The time it begins.
    pub starts: Duration,
}

impl Flow {
    /// A connection that sends `bytes` from the beginning on.
    pub fn new(bytes: usize, config: Config) -> Self {
        Self {
            config,
            bytes,
            starts: Duration::ZERO,
        }
    }
}

/// The outcome for one connection.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Bytes that its server received.
    pub received: usize,
    /// When it had all of them.
    pub finished: Option<Duration>,
    /// The bytes that its server had received at the end of each tenth of a second.
    pub progress: Vec<usize>,
    /// Segments that the client sent again.
    pub retransmitted: u64,
    /// The counters of the client's engine, zeros left out.
    pub counters: Vec<(&'static str, u64)>,
}

impl Outcome {
    /// Bits per second from `from` to `to`, in tenths of seconds.
    pub fn rate(&self, from: usize, to: usize) -> f64 {
        let at = |tenth: usize| tenth.checked_sub(1).map_or(0, |last| self.progress[last]);
        (at(to) - at(from)) as f64 * 80.0 / (to - from) as f64
    }

    /// The share of what a link of `rate` bits per second can carry of text, over the first `seconds`.
    pub fn share(&self, seconds: usize, rate: u64) -> f64 {
        // IPv4 and TCP headers with timestamps.
        let (text, frame) = (1500.0 - 52.0, 1500.0 + ETHERNET_HEADER as f64);
        self.rate(0, 10 * seconds) * frame / (text * rate as f64)
    }
}

/// The shares that `flows`, which begin at once and send all the time, have of a link in `seconds`, and the segments
/// each sent again.
///
/// # Errors
///
/// A connection could not be opened.
pub fn shares(configs: &[Config], case: &Case, seconds: usize, seed: u64) -> Result<Vec<(f64, u64)>, String> {
    let bytes = case.rate() as usize / 8 * seconds;
    let flows: Vec<Flow> = configs.iter().map(|config| Flow::new(bytes, config.clone())).collect();
    let link = (&case.to_server, &case.to_client);
    let (outcomes, _) = run(&flows, link, Duration::from_secs(seconds as u64), seed)?;
    let shares = outcomes
        .iter()
        .map(|outcome| (outcome.share(seconds, case.rate()), outcome.retransmitted));
    Ok(shares.collect())
}

/// The time that `bytes` take over a link without a bottleneck that delays by 10 ms each way and loses `permille` of
/// all frames in both directions; `None`: more than a minute.
///
/// # Errors
///
/// The connection could not be opened.
pub fn time_without_bottleneck(
    config: Config,
    bytes: usize,
    permille: u32,
    seed: u64,
) -> Result<Option<Duration>, String> {
    let mut direction = Impairment::default();
    direction.link.delay = Duration::from_millis(10);
    direction.link.loss = Chance::permille(permille);
    let flows = [Flow::new(bytes, config)];
    let (outcomes, _) = run(&flows, (&direction, &direction), Duration::from_secs(60), seed)?;
    Ok(outcomes[0].finished)
}

/// The settings of a connection with this congestion control, and that tolerates losses of `bbr_loss_threshold`
/// percent. The peer keeps all that arrives out of order, as Linux does: what is measured is the sender.
pub fn config(congestion: Algorithm, bbr_loss_threshold: u8) -> Config {
    let config = small_config();
    Config {
        reassembly_bytes: config.receive_buffer,
        reassembly_ranges: 4096,
        ecn: false,
        congestion,
        bbr_loss_threshold,
        ..config
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct InFlight {
    at: Duration,
    number: u64,
    flow: usize,
    to: Side,
    frame: Vec<u8>,
}

struct Run {
    hosts: Vec<[EngineHost; 2]>,
    links: [Link; 2],
    queue: BinaryHeap<Reverse<InFlight>>,
    arrivals: Vec<(Duration, Vec<u8>)>,
    numbered: u64,
}

fn end(number: usize, port: u16) -> Endpoint {
    Endpoint {
        mac: [2, 0, 0, 0, 0, number as u8],
        address: SocketAddr::from(([198, 18, 0, number as u8], port)),
    }
}

fn host(flow: &Flow, number: usize, side: Side, secrets: u64) -> EngineHost {
    let data = Bytes::from(vec![0; flow.bytes]);
    let (client, server) = (end(2 * number + 2, 40_000), end(2 * number + 1, 7));
    let plan = match side {
        Side::Client => Plan::simple(data, Bytes::new()),
        Side::Server => Plan::simple(Bytes::new(), data),
    };
    let ends = match side {
        Side::Client => (client, server),
        Side::Server => (server, client),
    };
    let settings = EngineSettings {
        config: flow.config.clone(),
        secrets,
        frame_shortage: 0,
    };
    let start = ClockStart::At(1_000_000);
    EngineHost::new(&settings, start, Script::new(plan), ends, side == Side::Server)
}

impl Run {
    fn collect(&mut self, now: Duration, flow: usize) {
        for side in Side::BOTH {
            for frame in core::mem::take(self.hosts[flow][side.index()].outbox()) {
                self.links[side.index()].carry(now, frame, &mut self.arrivals);
                for (at, frame) in self.arrivals.drain(..) {
                    self.numbered += 1;
                    self.queue.push(Reverse(InFlight {
                        at,
                        number: self.numbered,
                        flow,
                        to: side.other(),
                        frame,
                    }));
                }
            }
        }
    }
}

/// Runs `flows` through one link, `to_server` and back, until all are done or `lasts` is over.
///
/// # Errors
///
/// A connection could not be opened.
pub fn run(
    flows: &[Flow],
    link: (&Impairment, &Impairment),
    lasts: Duration,
    seed: u64,
) -> Result<(Vec<Outcome>, LinkCounters), String> {
    run_observed(flows, link, lasts, seed, &mut |_, _, _| {})
}

/// [`run`], which shows `observe` each sender's connection every hundredth of a second, with the time and the number of
/// its flow.
///
/// # Errors
///
/// A connection could not be opened.
pub fn run_observed(
    flows: &[Flow],
    (to_server, to_client): (&Impairment, &Impairment),
    lasts: Duration,
    seed: u64,
    observe: &mut dyn FnMut(Duration, usize, &ConnectionInfo),
) -> Result<(Vec<Outcome>, LinkCounters), String> {
    let mut random = Random::new(seed);
    let mut outcomes = vec![Outcome::default(); flows.len()];
    let hosts = flows.iter().enumerate();
    let mut run = Run {
        hosts: hosts
            .map(|(number, flow)| Side::BOTH.map(|side| host(flow, number, side, random.word())))
            .collect(),
        links: [
            Link::new(to_server.clone(), random.fork()),
            Link::new(to_client.clone(), random.fork()),
        ],
        queue: BinaryHeap::new(),
        arrivals: Vec::new(),
        numbered: 0,
    };
    let mut waiting: Vec<usize> = (0..flows.len()).collect();
    let mut now = Duration::ZERO;
    let tenth = Duration::from_millis(100);
    let mut next_tenth = tenth;
    let mut next_look = Duration::ZERO;
    loop {
        let starts = waiting.iter().map(|&flow| flows[flow].starts).min();
        let arrival = run.queue.peek().map(|Reverse(first)| first.at);
        let deadlines = run
            .hosts
            .iter_mut()
            .flatten()
            .filter_map(|host| host.next_deadline(now));
        let next = deadlines.chain(starts).chain(arrival).min();
        let next = next.unwrap_or(lasts).max(now).min(lasts);
        while next_tenth <= next {
            for (outcome, [_, server]) in outcomes.iter_mut().zip(&run.hosts) {
                outcome.progress.push(server.script().received());
            }
            next_tenth += tenth;
        }
        while next_look <= next {
            for (flow, [client, _]) in run.hosts.iter().enumerate() {
                for connection in client.connections() {
                    observe(next_look, flow, &connection);
                }
            }
            next_look += tenth / 10;
        }
        now = next;
        if now >= lasts {
            break;
        }
        let mut touched = Vec::new();
        waiting.retain(|&flow| {
            if flows[flow].starts <= now {
                touched.push(flow);
            }
            flows[flow].starts > now
        });
        for flow in touched {
            run.hosts[flow][0].connect(now)?;
            run.collect(now, flow);
        }
        while let Some(Reverse(first)) = run.queue.peek()
            && first.at <= now
        {
            let Some(Reverse(first)) = run.queue.pop() else { break };
            run.hosts[first.flow][first.to.index()].receive(now, &first.frame);
            run.collect(now, first.flow);
        }
        for flow in 0..flows.len() {
            for side in 0..2 {
                let host = &mut run.hosts[flow][side];
                if host.next_deadline(now).is_some_and(|deadline| deadline <= now) {
                    host.turn(now);
                    run.collect(now, flow);
                }
            }
        }
        let mut open = waiting.len();
        for ((outcome, [_, server]), flow) in outcomes.iter_mut().zip(&run.hosts).zip(flows) {
            if outcome.finished.is_none() && server.script().received() >= flow.bytes {
                outcome.finished = Some(now);
            }
            open += usize::from(outcome.finished.is_none());
        }
        if open == 0 {
            break;
        }
    }
    for (outcome, [client, server]) in outcomes.iter_mut().zip(&run.hosts) {
        outcome.received = server.script().received();
        let again = ["fast_retransmits", "rto_retransmits"];
        let counters = client.counters();
        let again = counters.iter().filter(|(name, _)| again.contains(name));
        outcome.retransmitted = again.map(|&(_, value)| value).sum();
        outcome.counters = counters;
    }
    Ok((outcomes, run.links[0].counters()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn links_have_names_of_their_own() {
        let cases = cases();
        let names: BTreeSet<&str> = cases.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), cases.len());
    }
}
