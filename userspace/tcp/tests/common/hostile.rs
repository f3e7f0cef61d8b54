//! Peers that make their acknowledgments as expensive as they can: for the test that bounds the work, and the
//! benchmark.

use std::collections::VecDeque;
use std::sync::OnceLock;

use bytes::Bytes;
use tidegate_tcp::Config;
use tidegate_tcp::recovery::LossDetection;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::Options;
use tidegate_tcp::wire::options::SackBlock;

use super::{ACK, App, Rig, ms};

/// A peer's behaviour at every acknowledgment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// Acknowledges two segments: honest traffic, to compare with.
    Honest,
    /// Honest over a path that loses one segment of a hundred.
    HonestLoss,
    /// Nothing but duplicates, after one segment in the middle was reported.
    BareDuplicates,
    /// Four blocks of a segment each, anywhere, others each time.
    ChangingBlocks,
    /// Four long blocks from anywhere to anywhere.
    OverlappingBlocks,
    /// One block that is longer and shorter by turns.
    BreathingBlock,
    /// Every second segment, one more each time, the last ones first.
    EverySecond,
    /// Blocks around all that every second segment has left, again and again.
    CoveringBlocks,
    /// Blocks that begin and end within segments.
    CutBlocks,
    /// Acknowledges what was sent again and reports one more segment at the top, then D-SACKs as much as was sent
    /// again.
    UndoAndRedo,
    /// An octet of a segment at a time, and a block.
    PartialAcks,
    /// The window closes and opens with every acknowledgment.
    BreathingWindow,
    /// Every second segment reported, then nothing until the timer runs out.
    Timeouts,
    /// Reports the first segment and never acknowledges it.
    Reneging,
    /// Reports from the top down, so that what was sent again is never the oldest, then acknowledges all of it.
    BackAndForth,
}

impl Script {
    pub const ALL: &[Self] = &[
        Self::Honest,
        Self::HonestLoss,
        Self::BareDuplicates,
        Self::ChangingBlocks,
        Self::OverlappingBlocks,
        Self::BreathingBlock,
        Self::EverySecond,
        Self::CoveringBlocks,
        Self::CutBlocks,
        Self::UndoAndRedo,
        Self::PartialAcks,
        Self::BreathingWindow,
        Self::Timeouts,
        Self::Reneging,
        Self::BackAndForth,
    ];
}

/// A connection on which as much is outstanding as the engine allows.
pub struct Hostile {
    pub rig: Rig,
    /// The ends of what is outstanding, by the first time it was sent.
    ends: VecDeque<SeqNumber>,
    nxt: SeqNumber,
    mss: u32,
    random: u64,
    turn: u32,
    /// Acknowledgments sent.
    pub acks: u64,
}

/// The text for every peer. It is never freed, so its pieces need no reference counts, which would be part of the time.
static GREETING: OnceLock<Vec<u8>> = OnceLock::new();

/// Settings under which a peer can do most.
pub fn hostile_config(segments: u32, loss_detection: LossDetection) -> Config {
    Config {
        max_outstanding_segments: segments,
        loss_detection,
        nagle: false,
        ..super::config()
    }
}

impl Hostile {
    /// `piece`: the octets the application writes at a time; 0: all at once.
    pub fn new(config: Config, mss: u16, piece: usize) -> Self {
        let limit = config.max_outstanding_segments as usize;
        let window = (config.send_buffer / 2) as usize;
        let app = App {
            greeting: Bytes::from_static(GREETING.get_or_init(|| vec![0x55; 48 << 20])),
            piece,
            ..App::default()
        };
        let mut rig = Rig::new(config, app);
        rig.window = u16::MAX;
        let syn_ack = rig.connect_with(Options {
            mss: Some(mss),
            window_scale: Some(7),
            sack_permitted: true,
            ..Options::default()
        });
        let mut hostile = Self {
            ends: VecDeque::new(),
            nxt: syn_ack.seq + 1,
            mss: u32::from(mss),
            random: 0x9e37_79b9_7f4a_7c15,
            turn: 0,
            acks: 0,
            rig,
        };
        for _ in 0..40 {
            hostile.take();
            if hostile.ends.len() >= limit || (hostile.nxt - hostile.rig.ack) as usize >= window {
                break;
            }
            // The congestion window doubles.
            hostile.pass();
            while let Some(end) = hostile.ends.pop_front() {
                hostile.rig.selective(end, &[]);
            }
        }
        hostile.acks = 0;
        hostile
    }

    /// Segments outstanding.
    pub fn outstanding(&self) -> usize {
        self.ends.len()
    }

    /// Takes in all that the engine sends.
    pub fn take(&mut self) {
        while !self.rig.wire.frames.is_empty() {
            for sent in self.rig.sent() {
                if sent.end().after(self.nxt) {
                    self.nxt = sent.end();
                    self.ends.push_back(self.nxt);
                }
            }
            self.rig.engine.poll(self.rig.now, &mut self.rig.wire);
        }
    }

    fn pass(&mut self) {
        self.rig.now = self.rig.now + ms(10);
    }

    fn random(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) as usize % below.max(1)
    }

    /// The block of `count` segments from number `index` on.
    fn block(&self, index: usize, count: usize) -> SackBlock {
        let last = self.ends.len() - 1;
        let left = match index.min(last) {
            0 => self.rig.ack,
            index => self.ends[index - 1],
        };
        (left, self.ends[(index + count - 1).min(last)])
    }

    fn acknowledge(&mut self, count: usize) {
        let mut ack = self.rig.ack;
        for _ in 0..count.min(self.ends.len()) {
            ack = self.ends.pop_front().unwrap_or(ack);
        }
        self.rig.ack = ack;
    }

    fn blocks(&mut self, script: Script) -> Vec<SackBlock> {
        let (count, turn) = (self.ends.len(), self.turn as usize);
        let random: [usize; 8] = std::array::from_fn(|_| self.random(count - 1));
        match script {
            Script::BareDuplicates if turn == 1 => vec![self.block(count / 2, 1)],
            Script::Honest | Script::BareDuplicates | Script::BreathingWindow => Vec::new(),
            Script::HonestLoss => {
                // The first is missing while the hundred behind it arrive.
                match turn % 100 {
                    0 => Vec::new(),
                    at => vec![self.block(1, at.min(count - 1))],
                }
            }
            Script::ChangingBlocks => random[..4].iter().map(|&at| self.block(at, 1)).collect(),
            Script::OverlappingBlocks => random
                .chunks(2)
                .map(|pair| self.block(1 + pair[0], 1 + pair[1]))
                .collect(),
            Script::BreathingBlock => vec![self.block(count / 4, count / 2 - turn % 2 * (count / 3))],
            Script::EverySecond | Script::Timeouts => {
                let at = (count - 1).saturating_sub(turn * 2 % count).max(1);
                (0..4)
                    .map(|back| self.block((at + 2 * back).min(count - 1), 1))
                    .collect()
            }
            Script::CoveringBlocks => {
                let at = count.saturating_sub(2 + turn * 2 % (count / 2)).max(1);
                let wide = turn % 64 == 63;
                vec![
                    self.block(at, if wide { 128 } else { 1 }),
                    self.block(at / 2, 2),
                    self.block(count / 3 + turn % 7, 300),
                ]
            }
            Script::CutBlocks => random[..4]
                .iter()
                .map(|&at| self.block(at, 1 + at % 3))
                .map(|(left, right)| (left + 1, right + 1))
                .collect(),
            Script::UndoAndRedo => {
                let ack = self.rig.ack;
                match turn % 6 {
                    1 => vec![self.block((count - 1 - turn % (count / 2)).max(1), 1)],
                    _ => vec![(ack - self.mss, ack)],
                }
            }
            Script::PartialAcks => vec![
                self.block(2 + turn % (count - 3), 1),
                self.block(count / 2, turn % 97 + 1),
            ],
            Script::Reneging => vec![self.block(0, 1), self.block(count / 2, 1 + turn % (count / 2))],
            Script::BackAndForth => {
                let at = count - 1 - turn % (count - 1);
                vec![self.block(at.max(1), 1), self.block((at / 2).max(1), 1)]
            }
        }
    }

    /// One acknowledgment; the engine's answer is left on the wire.
    pub fn send(&mut self, script: Script) {
        if let Some(frame) = self.prepare(script) {
            self.rig.inject(&frame);
        }
    }

    /// The next acknowledgment; `None` if so little is outstanding that all of it was acknowledged first.
    pub fn prepare(&mut self, script: Script) -> Option<Vec<u8>> {
        self.turn += 1;
        self.rig.now = self.rig.now + ms(u64::from(self.turn.is_multiple_of(8)));
        match script {
            Script::Honest => self.acknowledge(2),
            Script::HonestLoss if self.turn.is_multiple_of(100) => self.acknowledge(100),
            Script::PartialAcks => {
                if self.rig.ack + 1 == self.ends[0] {
                    self.acknowledge(1);
                } else {
                    self.rig.ack += 1;
                }
            }
            Script::BreathingWindow => self.rig.window = if self.turn.is_multiple_of(2) { u16::MAX } else { 0 },
            Script::Timeouts | Script::Reneging if self.turn.is_multiple_of(64) => self.rig.pass(ms(300)),
            Script::BackAndForth if self.turn.is_multiple_of(500) => self.acknowledge(self.ends.len() / 2),
            Script::UndoAndRedo if self.turn % 6 == 1 => self.acknowledge(1),
            _ => {}
        }
        self.take();
        if self.ends.len() < 16 {
            self.acknowledge(self.ends.len());
            self.rig.peer(ACK, b"");
            self.take();
            return None;
        }
        let blocks = self.blocks(script);
        self.acks += 1;
        let mut options = Options::default();
        options.set_sack_blocks(blocks.into_iter());
        Some(self.rig.frame(self.rig.seq, self.rig.ack, ACK, options, b""))
    }
}
