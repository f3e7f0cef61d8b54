//! Segments that arrive before the acknowledgment of the cookie that their handshake began with.
//!
//! Text that a client sends right behind its acknowledgment may overtake it on the way, or between two queues. Nothing
//! says then that it is more than a stray: the cookie is bound to the client's initial sequence number, which only the
//! acknowledgment has. So it waits for a moment, and is only answered as a stray when nothing has come of it.

use core::time::Duration;
use std::collections::VecDeque;

use super::{Engine, OnNoFlow};
use crate::application::Application;
use crate::counters::Counter;
use crate::time::Instant;
use crate::transmit::Transmit;
use crate::wire::{Flags, FlowKey, Frame, Segment};

/// Segments that may wait. One too many is a stray at once.
const MAX_WAITING: usize = 64;

/// The time for which they wait: longer than any burst takes to arrive, and no delay for a RST.
const PATIENCE: Duration = Duration::from_millis(20);

/// A segment that waits.
struct Waiting {
    since: Instant,
    key: FlowKey,
    frame: Box<[u8]>,
    device: u8,
}

impl Waiting {
    fn frame(&self) -> Frame<'_> {
        Frame {
            bytes: &self.frame,
            device: self.device,
        }
    }
}

/// The segments that wait, the oldest first.
#[derive(Default)]
pub(super) struct EarlySegments {
    waiting: VecDeque<Waiting>,
    /// The segment that is being looked at is to wait.
    asked: bool,
}

impl EarlySegments {
    /// The time at which the first of them is a stray after all.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|first| (first.since + PATIENCE).next_milli())
    }
}

impl<A: Application> Engine<A> {
    /// Whether `segment`, of no flow and no genuine cookie, may be of a handshake whose acknowledgment is still to
    /// come; it waits then.
    pub(super) fn waits_for_cookie(&mut self, segment: &Segment<'_>) -> bool {
        let may_follow = !segment.payload.is_empty() || segment.flags.contains(Flags::FIN);
        self.early.asked = may_follow && self.early.waiting.len() < MAX_WAITING && self.find(&segment.key).is_none();
        self.early.asked
    }

    /// Keeps `frame`, which brought a segment of `key`, if it was said to wait.
    pub(super) fn keep_early(&mut self, now: Instant, key: &FlowKey, frame: Frame<'_>) {
        if core::mem::take(&mut self.early.asked) {
            self.counters.bump(Counter::EarlySegments);
            self.early.waiting.push_back(Waiting {
                since: now,
                key: *key,
                frame: frame.bytes.into(),
                device: frame.device,
            });
        }
    }

    /// The handshake of `key` is complete: what came too early is processed, in the order in which it came.
    pub(super) fn receive_early<T: Transmit>(&mut self, now: Instant, key: &FlowKey, out: &mut T) {
        for _ in 0..self.early.waiting.len() {
            let Some(waiting) = self.early.waiting.pop_front() else {
                return;
            };
            if waiting.key == *key {
                self.receive(now, waiting.frame(), OnNoFlow::Reject, out);
            } else {
                self.early.waiting.push_back(waiting);
            }
        }
    }

    /// Answers what has waited in vain, unless another engine has its flow by now, or the acknowledgment was seen on
    /// the way here and has not led to a connection: then the peer sends it again.
    pub(super) fn give_up_early<T: Transmit>(&mut self, now: Instant, out: &mut T) {
        while self.early.deadline().is_some_and(|deadline| deadline <= now)
            && let Some(waiting) = self.early.waiting.pop_front()
        {
            let is_elsewhere = self.shared_flows.is_some() && self.others(&waiting.key, OnNoFlow::Ask) != 0;
            if is_elsewhere || self.is_ours_to_open(&waiting.key) || self.find(&waiting.key).is_some() {
                self.counters.bump(Counter::DropEarly);
            } else if let Ok(mut segment) = Segment::parse(&waiting.frame, false) {
                segment.link.device = waiting.device;
                self.counters.bump(Counter::DropBadCookie);
                self.reset(now, &segment, out);
            }
        }
    }
}
