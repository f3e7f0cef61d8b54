//! A host that runs the engine.

use core::time::Duration;

use bytes::Bytes;
use tidegate_abi::siphash::Key;
use tidegate_random::Random;
use tidegate_tcp::application::{Application, CloseReason, Stream};
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::{ConnectionInfo, OnNoFlow, Population, Secrets};
use tidegate_tcp::time::Instant;
use tidegate_tcp::transmit::{Purpose, Transmit};
use tidegate_tcp::wire::LinkHeader;
use tidegate_tcp::{Config, Engine};

use crate::host::{Clock, ClockStart, Host};
use crate::script::{Ending, Plan, Script};
use crate::segment::{Draft, Endpoint, SYN, View};

/// Room for the longest frame: 9,000 bytes of IP and the longest Ethernet header.
const FRAME_SIZE: usize = 9022;

/// The time after which an engine that found no frame tries again.
const FRAMES_FREE_AFTER: Duration = Duration::from_micros(10);

/// The settings of an engine.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// The engine's configuration.
    pub config: Config,
    /// The seed the secrets are drawn from.
    pub secrets: u64,
    /// Times in a thousand that there is no frame to send with.
    pub frame_shortage: u32,
}

impl EngineSettings {
    fn secrets(&self) -> Secrets {
        let mut random = Random::new(self.secrets);
        Secrets {
            isn: Key(random.word(), random.word()),
            table: Key(random.word(), random.word()),
        }
    }
}

/// The engine with its application.
pub struct EngineHost {
    engine: Engine<App>,
    wire: Wire,
    clock: Clock,
    local: Endpoint,
    remote: Endpoint,
}

impl EngineHost {
    /// An engine at `local`, whose peer is `remote`; it `listens`, or will be told to connect.
    pub fn new(
        settings: &EngineSettings,
        start: ClockStart,
        script: Script,
        (local, remote): (Endpoint, Endpoint),
        listens: bool,
    ) -> Self {
        let clock = Clock::new(match start {
            ClockStart::At(micros) => micros,
            ClockStart::IsnWrap(before) => origin_for_isn(settings, (local, remote), listens, before),
        });
        let mut engine = Engine::new(settings.config.clone(), settings.secrets(), App { script, clock });
        if listens {
            engine.listen(local.address);
        }
        let mut wire = Wire::new(settings.secrets, settings.frame_shortage);
        engine.poll(clock.instant(Duration::ZERO), &mut wire);
        Self {
            engine,
            wire,
            clock,
            local,
            remote,
        }
    }

    /// The engine's connections.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionInfo> + '_ {
        self.engine.connections()
    }

    /// Bytes the engine holds out of order, overhead included.
    pub fn reassembly_bytes(&self) -> u64 {
        self.engine.reassembly_bytes()
    }
}

/// A clock reading at which the engine's initial sequence number is `before` ahead of the wrap. It ticks every
/// 4 microseconds (RFC 6528), so knowing one is enough; an engine that does otherwise is simply not near the wrap.
fn origin_for_isn(settings: &EngineSettings, ends: (Endpoint, Endpoint), listens: bool, before: u32) -> u64 {
    const AT: u64 = 1_000_000;
    let ticks = first_isn(settings, ends, listens, AT).map_or(0, |isn| before.wrapping_neg().wrapping_sub(isn));
    AT + 4 * u64::from(ticks)
}

/// The initial sequence number the engine would choose when its clock shows `micros`.
fn first_isn(
    settings: &EngineSettings,
    (local, remote): (Endpoint, Endpoint),
    listens: bool,
    micros: u64,
) -> Option<u32> {
    let app = App {
        script: Script::new(Plan::simple(Bytes::new(), Bytes::new())),
        clock: Clock::new(micros),
    };
    let mut engine = Engine::new(settings.config.clone(), settings.secrets(), app);
    let mut wire = Wire::new(0, 0);
    let at = Instant::from_micros(micros);
    if listens {
        engine.listen(local.address);
        let syn = Draft {
            from: remote,
            to: local,
            seq: 0,
            ack: 0,
            flags: SYN,
            window: 1000,
            options: &[],
            text: &[],
        };
        engine.receive(at, &syn.frame(), OnNoFlow::Reject, &mut wire);
    } else {
        let link = link_header(local, remote);
        engine
            .connect(at, local.address, remote.address, &link, &mut wire)
            .ok()?;
    }
    wire.frames
        .first()
        .and_then(|frame| View::read(frame))
        .map(|view| view.seq)
}

fn link_header(local: Endpoint, remote: Endpoint) -> LinkHeader {
    LinkHeader::new(remote.mac, local.mac, local.address.is_ipv4())
}

impl Host for EngineHost {
    fn connect(&mut self, now: Duration) -> Result<(), String> {
        let link = link_header(self.local, self.remote);
        let (local, remote) = (self.local.address, self.remote.address);
        self.engine
            .connect(self.clock.instant(now), local, remote, &link, &mut self.wire)
            .map(|_| ())
            .map_err(|error| error.to_string())
    }

    fn receive(&mut self, now: Duration, frame: &[u8]) {
        self.engine
            .receive(self.clock.instant(now), frame, OnNoFlow::Reject, &mut self.wire);
    }

    fn turn(&mut self, now: Duration) {
        self.engine.poll(self.clock.instant(now), &mut self.wire);
    }

    fn next_deadline(&mut self, now: Duration) -> Option<Duration> {
        let timer = self.engine.next_deadline();
        let timer = timer.map(|deadline| self.clock.since_start(deadline.as_micros()).max(now));
        let frames = self.engine.wants_frames().then(|| now + FRAMES_FREE_AFTER);
        timer.into_iter().chain(frames).min()
    }

    fn outbox(&mut self) -> &mut Vec<Vec<u8>> {
        &mut self.wire.frames
    }

    fn script(&self) -> &Script {
        &self.engine.application().script
    }

    fn check_empty(&self) -> Result<(), String> {
        let population = self.engine.population();
        if population != Population::default() {
            return Err(format!("flows are left: {population:?}"));
        }
        if let Some(deadline) = self.engine.next_deadline() {
            return Err(format!(
                "a timer is left, for {:?}",
                self.clock.since_start(deadline.as_micros())
            ));
        }
        if self.engine.reassembly_bytes() != 0 {
            return Err(format!(
                "{} bytes are left out of order",
                self.engine.reassembly_bytes()
            ));
        }
        if self.engine.wants_frames() {
            return Err("something is left to be sent".to_owned());
        }
        Ok(())
    }

    fn frames(&self) -> (u64, u64) {
        let counters = self.engine.counters();
        (counters.get(Counter::FramesIn), counters.get(Counter::FramesOut))
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let counters = self.engine.counters().iter();
        counters
            .filter(|&(_, value)| value > 0)
            .map(|(counter, value)| (counter.name(), value))
            .collect()
    }
}

/// Collects the frames the engine sends.
struct Wire {
    frames: Vec<Vec<u8>>,
    buffer: Box<[u8]>,
    random: Random,
    shortage: u32,
}

impl Wire {
    fn new(seed: u64, shortage: u32) -> Self {
        Self {
            frames: Vec::new(),
            buffer: vec![0; FRAME_SIZE].into_boxed_slice(),
            random: Random::new(seed),
            shortage,
        }
    }
}

impl Transmit for Wire {
    fn reserve(&mut self, _: Purpose) -> Option<&mut [u8]> {
        if self.random.permille(self.shortage) {
            return None;
        }
        Some(&mut self.buffer)
    }

    fn commit(&mut self, length: usize) {
        self.frames.push(self.buffer[..length].to_vec());
    }
}

/// Follows a script on the engine's streams.
struct App {
    script: Script,
    clock: Clock,
}

impl App {
    fn now<S: Stream>(&self, stream: &S) -> Duration {
        self.clock.since_start(stream.now().as_micros())
    }

    /// Does what the script wants done after anything has happened.
    fn proceed<S: Stream>(&mut self, stream: &mut S) {
        let now = self.now(stream);
        while let Some(mut piece) = self.script.next_write(now, stream.send_space()) {
            let count = stream.send(&mut piece);
            self.script.wrote(now, count);
            if count == 0 {
                break;
            }
        }
        if self.script.takes_abort() {
            stream.abort();
            return;
        }
        if self.script.takes_close() {
            if self.script.peer_ended() {
                stream.close();
            } else {
                stream.shutdown();
            }
        }
        let wake = self.script.wakes_at(now);
        stream.set_timer(wake.map(|at| at - now));
    }
}

impl Application for App {
    type Connection = ();

    fn open<S: Stream>(&mut self, stream: &mut S) {
        self.script.open();
        self.proceed(stream);
    }

    fn receive<S: Stream>(&mut self, (): &mut (), stream: &mut S, data: &[u8]) -> usize {
        let count = self.script.read(self.now(stream), data);
        self.proceed(stream);
        count
    }

    fn end_of_stream<S: Stream>(&mut self, (): &mut (), stream: &mut S) {
        self.script.end_of_stream();
        self.proceed(stream);
    }

    fn writable<S: Stream>(&mut self, (): &mut (), stream: &mut S) {
        self.proceed(stream);
    }

    fn timeout<S: Stream>(&mut self, (): &mut (), stream: &mut S) {
        self.proceed(stream);
    }

    fn drain<S: Stream>(&mut self, (): &mut (), stream: &mut S) {
        stream.close();
    }

    fn closed(&mut self, (): (), reason: CloseReason) {
        self.script.close(match reason {
            CloseReason::Finished => Ending::Finished,
            CloseReason::ResetByPeer => Ending::Reset,
            CloseReason::Aborted | CloseReason::Evicted => Ending::Aborted,
            CloseReason::TimedOut => Ending::TimedOut,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initial_sequence_number_can_be_put_before_the_wrap() {
        let settings = EngineSettings {
            config: Config {
                max_connections: 4,
                max_half_open: 4,
                max_time_wait: 4,
                ..Config::default()
            },
            secrets: 5,
            frame_shortage: 0,
        };
        let end = |number: u8| Endpoint {
            mac: [2, 0, 0, 0, 0, number],
            address: format!("198.18.0.{number}:7").parse().unwrap(),
        };
        let ends = (end(1), end(2));
        for listens in [false, true] {
            let micros = origin_for_isn(&settings, ends, listens, 1000);
            let isn = first_isn(&settings, ends, listens, micros);
            assert_eq!(isn, Some(1000_u32.wrapping_neg()), "listens: {listens}");
        }
    }
}
