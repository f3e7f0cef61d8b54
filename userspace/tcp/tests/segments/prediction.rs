//! The short way of the segment that was expected does what the long way does: two engines are given the same frames
//! and the same writes, one without header prediction, and every frame, every event and every deadline has to be the
//! same.
#![cfg(debug_assertions)]

use std::time::Duration;

use crate::common::*;
use tidegate_tcp::config::Config;
use tidegate_tcp::congestion::Algorithm;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::recovery::LossDetection;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::Options;
use tidegate_tcp::wire::options::Timestamps;
use tidegate_tcp::{State, without_prediction};

const SCRIPTS: u64 = 400;
const STEPS: usize = 120;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    fn below(&mut self, limit: u32) -> u32 {
        (self.next() % u64::from(limit.max(1))) as u32
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u32) as usize]
    }
}

/// The two engines, their peers, and what one of the peers knows, which is what the other knows.
struct Pair {
    seed: u64,
    random: Random,
    short: Rig,
    long: Rig,
    /// The furthest end of what the engines sent, and of what the peer acknowledged.
    nxt: SeqNumber,
    acknowledged: SeqNumber,
    /// The engines opened the connection, so the application can act by itself.
    active: bool,
    ecn: bool,
    clock: u32,
    echo: u32,
    /// The last acknowledgments of the engines.
    heard: Option<SeqNumber>,
}

fn app(random: &mut Random) -> App {
    App {
        echo: random.one_in(3),
        appetite: random.one_in(8).then_some(3000),
        greeting: pattern(random.pick(&[0, 0, 0, 100, 5000, 60_000])),
        close_at_end: random.one_in(2),
        close_after_greeting: random.one_in(8),
        timer: random.one_in(3).then_some(ms(700)),
        ..App::default()
    }
}

impl Pair {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let config = Config {
            keepalive_idle: Duration::from_secs(random.pick(&[2, 7200])),
            keepalive_interval: Duration::from_secs(1),
            nagle: random.one_in(2),
            send_buffer: random.pick(&[8 << 10, 4 << 20, 4 << 20]),
            receive_buffer: random.pick(&[4 << 10, 4 << 20, 4 << 20]),
            receive_buffer_initial: 4 << 10,
            receive_bytes_total: random.pick(&[4 << 10, 256 << 20]),
            congestion: random.pick(Algorithm::ALL),
            loss_detection: random.pick(&[LossDetection::Rack, LossDetection::Sack]),
            ..config()
        };
        let shape = random.next();
        let rig = || Rig::new(config.clone(), app(&mut Random(shape)));
        let mut pair = Self {
            seed,
            short: rig(),
            long: rig(),
            nxt: SeqNumber(0),
            acknowledged: SeqNumber(0),
            active: random.one_in(2),
            ecn: random.one_in(2),
            clock: random.next() as u32,
            echo: 0,
            heard: None,
            random,
        };
        pair.open();
        pair
    }

    /// Does the same to both, and compares what comes of it.
    fn both(&mut self, action: impl Fn(&mut Rig)) {
        action(&mut self.short);
        without_prediction(|| action(&mut self.long));
        self.compare();
    }

    fn compare(&mut self) {
        let seed = self.seed;
        let [short, long] = [&mut self.short, &mut self.long].map(|rig| {
            let info = rig.engine.connections().next();
            let counters: Vec<(Counter, u64)> = Counter::ALL
                .iter()
                .map(|&counter| (counter, rig.count(counter)))
                .collect();
            let deadline = rig.engine.next_deadline();
            let frames = std::mem::take(&mut rig.wire.frames);
            let app = rig.app();
            let heard = (
                std::mem::take(&mut app.log),
                std::mem::take(&mut app.received),
                app.closed.clone(),
                app.appetite,
            );
            (frames, heard, info, counters, deadline)
        });
        let readable = |frames: &[Vec<u8>]| frames.iter().map(|frame| parse(frame)).collect::<Vec<_>>();
        assert_eq!(readable(&short.0), readable(&long.0), "seed {seed}");
        assert_eq!(short.0, long.0, "seed {seed}");
        assert_eq!(short.1, long.1, "seed {seed}");
        let [short_info, long_info] = [&short.2, &long.2].map(|info| {
            let info = info.as_ref();
            info.map(|info| {
                (
                    info.state,
                    info.unread,
                    info.unacknowledged,
                    info.srtt,
                    info.options.map(|options| options.mss),
                )
            })
        });
        assert_eq!(short_info, long_info, "seed {seed}");
        let counters = short.3.into_iter().zip(long.3);
        for ((counter, short), (_, long)) in counters.filter(|((counter, _), _)| *counter != Counter::PredictedIn) {
            assert_eq!(short, long, "seed {seed}: {counter:?}");
        }
        assert_eq!(short.4, long.4, "seed {seed}: the next deadline");
        for sent in readable(&short.0) {
            if sent.end().after(self.nxt) {
                self.nxt = sent.end();
            }
            self.heard = Some(sent.ack);
            if let Some(timestamps) = sent.options.timestamps {
                self.echo = timestamps.value;
            }
        }
    }

    fn open(&mut self) {
        let options = Options {
            mss: Some(self.random.pick(&[536, 1460])),
            window_scale: self.random.one_in(2).then_some(3),
            sack_permitted: !self.random.one_in(4),
            timestamps: self.random.one_in(2).then_some(Timestamps {
                value: self.clock,
                echo: 0,
            }),
            ..Options::default()
        };
        let syn_flags = if self.ecn { SYN | ECE | CWR } else { SYN };
        for rig in [&mut self.short, &mut self.long] {
            rig.window = 20_000;
        }
        if self.active {
            let flags = SYN | ACK | if self.ecn { ECE } else { ACK };
            self.both(|rig| {
                let syn = rig.active_open();
                let echo = syn.options.timestamps.map_or(0, |timestamps| timestamps.value);
                let timestamps = options.timestamps.map(|stamps| Timestamps { echo, ..stamps });
                let options = Options { timestamps, ..options };
                rig.timestamp = options.timestamps.map(|stamps| stamps.value);
                let answer = rig.frame(rig.seq, rig.ack, flags, options, b"");
                rig.seq += 1;
                rig.inject(&answer);
            });
        } else {
            self.both(|rig| {
                rig.timestamp = options.timestamps.map(|stamps| stamps.value);
                let syn = rig.frame(rig.seq, SeqNumber(0), syn_flags, options, b"");
                rig.seq += 1;
                rig.inject(&syn);
                let syn_ack = parse(&rig.wire.frames[0]);
                rig.ack = syn_ack.seq + 1;
            });
        }
        self.nxt = self.short.ack;
        self.acknowledged = self.nxt;
    }

    /// A segment from the peer.
    fn segment(&mut self) {
        let closing = matches!(self.short.state(), Some(State::FinWait1 | State::FinWait2));
        let random = &mut self.random;
        let timestamped = self.short.timestamp.is_some();
        self.clock = self.clock.wrapping_add(random.pick(&[0, 1, 1, 30]));
        let mut value = self.clock;
        if random.one_in(40) {
            value = value.wrapping_sub(1000);
        }
        let flight = self.nxt - self.acknowledged;
        let mut ack = self.nxt;
        if flight > 0 && random.one_in(8) {
            ack = self.acknowledged + random.below(flight + 1);
        }
        if random.one_in(60) {
            ack = self.acknowledged - random.below(3000);
        }
        let length = if random.one_in(if closing { 2 } else { 3 }) {
            0
        } else {
            random.pick(&[1, 10, 500, 536, 1000, 1460, 1460])
        };
        // More than some windows hold.
        let length = if random.one_in(30) { 5000 } else { length };
        let mut flags = ACK;
        if random.one_in(2) {
            flags |= PSH;
        }
        if self.ecn && random.one_in(20) {
            flags |= random.pick(&[ECE, CWR]);
        }
        if random.one_in(if closing { 4 } else { 600 }) {
            flags |= FIN;
        }
        let mut window = self.short.window;
        if random.one_in(10) {
            window = random.pick(&[0, 100, 1460, 3000, 20_000, 60_000]);
        }
        // Something that is missing, that comes late, or comes again.
        let gap = if random.one_in(50) {
            random.below(3000) as i32 - 1500
        } else {
            0
        };
        let seq = SeqNumber(self.short.seq.0.wrapping_add_signed(gap));
        let lost = random.one_in(60);
        let marked = self.ecn && random.one_in(25);
        let mut blocks = Vec::new();
        if flight > 2 && random.one_in(15) {
            let left = self.acknowledged + random.below(flight - 1);
            blocks.push((left, left + 1 + random.below(1460).min(self.nxt - left - 1)));
        }
        if random.one_in(60) {
            blocks.insert(0, (ack - 500, ack - 100));
        }
        let mut options = Options {
            timestamps: timestamped.then_some(Timestamps { value, echo: self.echo }),
            ..Options::default()
        };
        if random.one_in(80) {
            options.timestamps = None;
        }
        options.set_sack_blocks(blocks.into_iter());
        if ack.after(self.acknowledged) && !lost {
            self.acknowledged = ack;
        }
        let text = pattern(length);
        // What was lost comes with the next segment.
        let in_order = gap == 0 && !lost;
        self.both(|rig| {
            rig.window = window;
            let mut frame = rig.frame(seq, ack, flags, options, &text);
            if marked {
                frame[15] |= 3;
                seal(&mut frame, &rig.key.clone());
            }
            if in_order {
                rig.seq += length as u32 + u32::from(flags.contains(FIN));
            }
            if !lost {
                rig.inject(&frame);
            }
        });
    }

    fn step(&mut self) {
        let established = self.short.state() == Some(State::Established);
        match self.random.below(20) {
            0 => {
                let time = self.random.pick(&[1, 5, 45, 250, 1200, 2600]);
                self.both(|rig| rig.pass(ms(time)));
                if let Some(heard) = self.heard.filter(|heard| heard.before(self.short.seq)) {
                    // What did not arrive comes again.
                    self.short.seq = heard;
                    self.long.seq = heard;
                }
            }
            1 => {
                let micros = u64::from(self.random.below(40_000));
                self.both(|rig| {
                    rig.now = rig.now.plus_micros(micros);
                    rig.engine.poll(rig.now, &mut rig.wire);
                });
            }
            2 | 3 if self.active && established => {
                let length = self.random.pick(&[1, 200, 1460, 5000, 40_000]);
                self.both(|rig| {
                    rig.on_stream(|stream| {
                        stream.send(&mut pattern(length));
                    });
                });
            }
            4 if self.active && established && self.random.one_in(5) => {
                self.both(|rig| rig.on_stream(|stream| stream.shutdown()));
            }
            5 if self.active && established && self.random.one_in(10) => {
                self.both(|rig| rig.on_stream(|stream| stream.close()));
            }
            6 => {
                let more = self.random.below(6000) as usize;
                let app = |rig: &mut Rig| {
                    let appetite = &mut rig.app().appetite;
                    *appetite = appetite.map(|appetite| appetite + more);
                };
                self.both(app);
            }
            _ => self.segment(),
        }
    }
}

#[test]
fn the_short_way_and_the_long_way_come_to_the_same() {
    let (mut predicted, mut all, mut ends) = (0, 0, 0);
    for seed in 0..SCRIPTS {
        let mut pair = Pair::new(seed);
        for _ in 0..STEPS {
            if pair.short.engine.population().connections + pair.short.engine.population().half_open == 0 {
                break;
            }
            let before = (pair.short.count(Counter::PredictedIn), pair.short.state());
            pair.step();
            let is_predicted = pair.short.count(Counter::PredictedIn) > before.0;
            let is_end = before.1 != Some(State::TimeWait) && pair.short.state() == Some(State::TimeWait);
            ends += u32::from(is_predicted && is_end);
        }
        predicted += pair.short.count(Counter::PredictedIn);
        all += pair.short.count(Counter::FramesIn);
        assert_eq!(pair.long.count(Counter::PredictedIn), 0);
    }
    println!("{predicted} of {all} segments were predicted, and {ends} ends");
    assert!(
        predicted * 10 >= all * 3,
        "only {predicted} of {all} segments were predicted"
    );
    assert!(ends >= 40, "only {ends} of {SCRIPTS} ends were predicted");
}

#[test]
fn an_application_that_closes_when_it_opens_is_given_no_text_of_that_segment() {
    let closes = || {
        let app = App {
            close_after_greeting: true,
            ..App::default()
        };
        let mut rig = Rig::new(config(), app);
        rig.syn(with_sack());
        rig.ack = rig.one().end();
        rig.peer(ACK | PSH, b"text");
        assert_eq!((rig.app().opened, rig.app().received.len()), (1, 0));
        assert_eq!(rig.count(Counter::DropAfterClose), 1);
        rig.count(Counter::PredictedIn)
    };
    assert_eq!((closes(), without_prediction(closes)), (1, 0));
}
