//! Makes a scenario from a seed. The same seed makes the same scenario, until this file changes.

use core::time::Duration;

use bytes::Bytes;
use tidegate_impair::{Bursts, Chance, Damage, Reordering};
use tidegate_random::Random;
use tidegate_tcp::Config;
use tidegate_tcp::congestion::Algorithm;
use tidegate_tcp::recovery::LossDetection;

use crate::engine_host::EngineSettings;
use crate::host::ClockStart;
use crate::impairment::{Impairment, MtuChange, Outage, bottleneck};
use crate::middlebox::Middlebox;
use crate::scenario::{Party, Scenario, Stack, small_config};
use crate::script::{Finish, Pause, Plan, Start};
use crate::smoltcp_host::SmoltcpSettings;

/// Microseconds until a clock of 32 bits of milliseconds, or of microseconds, wraps.
const MILLIS_WRAP: u64 = (1 << 32) * 1000;
const MICROS_WRAP: u64 = 1 << 32;

/// The badness of the link on the whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Clean,
    Light,
    Moderate,
    Heavy,
}

impl Scenario {
    /// The scenario of `seed`.
    pub fn generate(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let ipv6 = random.permille(500);
        let (client, server) = match random.below(10) {
            0..5 => (engine(&mut random, ipv6), engine(&mut random, ipv6)),
            5..7 => (smoltcp(&mut random, ipv6), engine(&mut random, ipv6)),
            _ => (engine(&mut random, ipv6), smoltcp(&mut random, ipv6)),
        };
        let engines_only = client.is_engine() && server.is_engine();
        let severity = random.pick(&[
            Severity::Clean,
            Severity::Clean,
            Severity::Light,
            Severity::Light,
            Severity::Light,
            Severity::Moderate,
            Severity::Moderate,
            Severity::Moderate,
            Severity::Moderate,
            Severity::Heavy,
        ]);
        let (mut to_server, mut to_client) = links(&mut random, severity, client.mtu().max(server.mtu()));
        shrink_mtu(&mut random, ipv6, &client, &mut to_server);
        shrink_mtu(&mut random, ipv6, &server, &mut to_client);
        let (client_plan, server_plan) = plans(&mut random, severity, engines_only);
        let client = Party {
            clock: clock(&mut random, &client),
            stack: client,
            plan: client_plan,
        };
        let server = Party {
            clock: clock(&mut random, &server),
            stack: server,
            plan: server_plan,
        };
        Self {
            seed,
            control: None,
            ipv6,
            simultaneous_open: engines_only && random.permille(60),
            client,
            server,
            to_server,
            to_client,
        }
    }
}

fn mtu(random: &mut Random, ipv6: bool) -> u16 {
    let smallest = if ipv6 { 1280 } else { 576 };
    random.pick(&[smallest, 1400, 1500, 1500, 1500, 9000])
}

fn engine(random: &mut Random, ipv6: bool) -> Stack {
    let config = Config {
        mtu: mtu(random, ipv6),
        send_buffer: random.pick(&[4 << 10, 16 << 10, 64 << 10, 1 << 20]),
        receive_buffer: random.pick(&[4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20]),
        receive_buffer_initial: random.pick(&[4 << 10, 16 << 10, 64 << 10]),
        reassembly_bytes: random.pick(&[8 << 10, 64 << 10, 1 << 20]),
        reassembly_ranges: random.pick(&[2, 16, 256]),
        rto_min: Duration::from_millis(random.pick(&[200, 200, 1000])),
        delayed_ack: Duration::from_millis(random.pick(&[1, 40, 40, 200])),
        nagle: random.permille(700),
        keepalive_idle: Duration::from_secs(random.pick(&[30, 120, 300])),
        congestion: random.pick(Algorithm::ALL),
        bbr_loss_threshold: random.pick(&[2, 5, 10, 100]),
        loss_detection: random.pick(&[LossDetection::Rack, LossDetection::Sack]),
        ecn: random.permille(700),
        ..small_config()
    };
    let frame_shortage = if random.permille(50) {
        random.between(1, 200) as u32
    } else {
        0
    };
    Stack::Engine(Box::new(EngineSettings {
        config,
        secrets: random.word(),
        frame_shortage,
    }))
}

fn smoltcp(random: &mut Random, ipv6: bool) -> Stack {
    Stack::Smoltcp(SmoltcpSettings {
        mtu: mtu(random, ipv6),
        receive_buffer: random.pick(&[4096, 16_384, 65_535, 262_144]),
        send_buffer: random.pick(&[4096, 16_384, 65_535]),
        delayed_ack: random.pick(&[None, Some(10), Some(200)]).map(Duration::from_millis),
        nagle: random.permille(700),
        timestamps: random.permille(500),
        reno: random.permille(500),
        seed: random.word(),
    })
}

fn clock(random: &mut Random, stack: &Stack) -> ClockStart {
    let before_wrap = random.below(5_000_000);
    match random.below(8) {
        0..3 => ClockStart::At(1_000_000 + random.below(1_000_000)),
        3 => ClockStart::At(MILLIS_WRAP - before_wrap),
        4 => ClockStart::At(MICROS_WRAP - before_wrap),
        // More than a year of uptime.
        5 => ClockStart::At(random.below(1 << 45)),
        _ if stack.is_engine() => ClockStart::IsnWrap(random.below(100_000) as u32),
        _ => ClockStart::At(0),
    }
}

fn links(random: &mut Random, severity: Severity, mtu: u16) -> (Impairment, Impairment) {
    let middlebox = Middlebox {
        strip_timestamps: random.permille(250),
        strip_sack_permitted: random.permille(250),
        strip_window_scale: random.permille(150),
        clamp_mss: random.permille(150).then(|| random.pick(&[88, 216, 536, 1200])),
    };
    let outages = outages(random, severity);
    let mut direction = || Impairment {
        middlebox: middlebox.clone(),
        outages: outages.clone(),
        ..impairment(random, severity, mtu)
    };
    (direction(), direction())
}

fn impairment(random: &mut Random, severity: Severity, mtu: u16) -> Impairment {
    let longest = random.pick(&[1000, 10_000, 10_000, 50_000, 100_000]);
    let delay = Duration::from_micros(random.between(50, longest));
    let mut impairment = Impairment::default();
    let link = &mut impairment.link;
    link.delay = delay;
    link.damage = Damage::Noticed;
    if random.permille(400) {
        let frame = u64::from(mtu) + 14;
        let bits_per_second = random.pick(&[1_000_000, 5_000_000, 20_000_000, 100_000_000]);
        link.rate = Some(bottleneck(bits_per_second, frame * random.between(4, 100)));
        impairment.marks = random.permille(300);
    }
    if severity == Severity::Clean {
        return impairment;
    }
    let chance = |random: &mut Random, low, high| Chance::permille(random.between(low, high) as u32);
    link.loss = match severity {
        Severity::Clean => Chance::NEVER,
        Severity::Light => chance(random, 0, 20),
        Severity::Moderate => chance(random, 0, 100),
        Severity::Heavy => chance(random, 50, 200),
    };
    if random.permille(500) {
        link.jitter = random.up_to(delay);
    }
    if random.permille(400) {
        link.reorder = chance(random, 1, 300);
        link.reordering = Reordering::HoldBack(random.up_to(3 * delay + Duration::from_millis(5)));
    }
    if random.permille(300) {
        link.duplicate = chance(random, 1, 100);
    }
    if random.permille(300) {
        link.corrupt = chance(random, 1, 50);
    }
    if random.permille(250) {
        link.bursts = Some(Bursts {
            good: Duration::from_millis(random.between(100, 2000)),
            bad: Duration::from_millis(random.between(1, 100)),
            loss: chance(random, 300, 1000),
        });
    }
    impairment
}

/// Up to two times at which the link is down both ways. They end well before anyone gives up.
fn outages(random: &mut Random, severity: Severity) -> Vec<Outage> {
    let count = if severity >= Severity::Light && random.permille(200) {
        random.between(1, 2)
    } else {
        0
    };
    let mut after = Duration::ZERO;
    let mut outages = Vec::new();
    for _ in 0..count {
        let from = after + random.up_to(Duration::from_secs(2));
        let until = from + random.up_to(Duration::from_secs(8));
        outages.push(Outage { from, until });
        after = until;
    }
    outages
}

/// Sometimes lowers the MTU in mid-run, and sometimes raises it again later. Only where the engine sends: smoltcp knows
/// nothing of path MTUs.
fn shrink_mtu(random: &mut Random, ipv6: bool, sender: &Stack, direction: &mut Impairment) {
    if !sender.is_engine() || !random.permille(100) {
        return;
    }
    let at = random.up_to(Duration::from_secs(1));
    let mtu = if ipv6 {
        random.pick(&[1280, 1400])
    } else {
        random.pick(&[576, 1006, 1280, 1400])
    };
    direction.mtu.push(MtuChange { at, mtu });
    if random.permille(500) {
        let at = at + random.up_to(Duration::from_secs(5));
        direction.mtu.push(MtuChange { at, mtu: 9000 });
    }
    direction.too_big = random.permille(700);
}

/// Skewed towards little, so that thousands of runs take seconds.
fn size(random: &mut Random, severity: Severity) -> usize {
    let most = match random.below(100) {
        0..10 => 0,
        10..30 => 100,
        30..65 => 5000,
        65..88 => 30_000,
        88..97 => 100_000,
        _ => 300_000,
    };
    let most = if severity == Severity::Heavy {
        most.min(30_000)
    } else {
        most
    };
    random.between(0, most) as usize
}

/// The plans of client and server.
fn plans(random: &mut Random, severity: Severity, engines_only: bool) -> (Plan, Plan) {
    let (up, down) = (size(random, severity), size(random, severity));
    let (up, down) = (random.bytes(up).into(), random.bytes(down).into());
    let mut client = plan(random, &up, &down, engines_only);
    let mut server = plan(random, &down, &up, engines_only);
    match random.below(5) {
        0 => server.finish = Finish::AfterPeer,
        1 => client.finish = Finish::AfterPeer,
        // Half-close, then the answer.
        2 => server.start = Start::AfterPeer,
        3 => client.start = Start::AfterPeer,
        // Each when it has sent all it had, possibly both at the same time.
        _ => {}
    }
    if random.permille(100) {
        let after = random.between(0, (up.len() + down.len()) as u64) as usize;
        if random.permille(500) {
            client.abort_after = Some(after);
        } else {
            server.abort_after = Some(after);
        }
    }
    (client, server)
}

fn plan(random: &mut Random, data: &Bytes, expected: &Bytes, engines_only: bool) -> Plan {
    let mut plan = Plan::simple(data.clone(), expected.clone());
    if random.permille(500) {
        plan.write_size = random.between(1, 3000) as usize;
        let writes = data.len() / plan.write_size;
        if writes <= 10 && random.permille(300) {
            // Long enough for the connection to count as idle.
            plan.write_interval = random.up_to(Duration::from_secs(2));
        } else if writes <= 200 && random.permille(300) {
            plan.write_interval = random.up_to(Duration::from_millis(50));
        }
    }
    if random.permille(150) {
        // At most a hundred or so steps, so that a slow reader is through before smoltcp's TIME-WAIT of 10 s ends.
        plan.read_size = random.between(100, 5000).max(expected.len() as u64 / 100) as usize;
        plan.read_interval = Duration::from_millis(random.between(1, 20));
    }
    if random.permille(200) {
        let (count, longest) = if engines_only { (2, 20) } else { (1, 5) };
        let mut after = 0;
        for _ in 0..random.between(1, count) {
            after = random.between(after, expected.len() as u64);
            plan.pauses.push(Pause {
                after: after as usize,
                lasts: random.up_to(Duration::from_secs(longest)),
            });
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_one_scenario() {
        for seed in 0..50 {
            assert_eq!(
                Scenario::generate(seed).to_string(),
                Scenario::generate(seed).to_string()
            );
        }
        assert_ne!(Scenario::generate(1).to_string(), Scenario::generate(2).to_string());
    }

    #[test]
    fn every_variation_comes_about_and_every_scenario_can_end() {
        let mut engines = 0;
        let mut seen = [false; 12];
        for seed in 0..2000 {
            let scenario = Scenario::generate(seed);
            let (client, server) = (&scenario.client, &scenario.server);
            for party in [client, server] {
                if let Stack::Engine(settings) = &party.stack {
                    engines += 1;
                    assert_eq!(settings.config.validate(), Ok(()), "seed {seed}");
                }
            }
            assert!(client.stack.is_engine() || server.stack.is_engine());
            let waits = |plan: &Plan| plan.start == Start::AfterPeer || plan.finish == Finish::AfterPeer;
            assert!(!(waits(&client.plan) && waits(&server.plan)), "seed {seed}");
            let link = &scenario.to_server;
            for (seen, now) in seen.iter_mut().zip([
                scenario.ipv6,
                scenario.simultaneous_open,
                !client.stack.is_engine(),
                !server.stack.is_engine(),
                scenario.aborts(),
                client.plan.start == Start::AfterPeer,
                client.plan.data.is_empty(),
                !client.plan.pauses.is_empty(),
                link.link.bursts.is_some() && link.link.rate.is_some() && !link.link.reorder.is_never(),
                !link.mtu.is_empty(),
                !link.outages.is_empty(),
                matches!(client.clock, ClockStart::IsnWrap(_)),
            ]) {
                *seen |= now;
            }
        }
        assert!(engines > 2400, "{engines}");
        assert_eq!(seen, [true; 12]);
    }
}
