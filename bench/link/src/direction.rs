//! One direction of the link: frames taken from one device, and sent on the other in their time.

use std::time::Duration;

use anyhow::Context;
use tidegate_impair::Path;

use crate::device::{BATCH, Device};
use crate::frame::{Frame, Pool, may_be_impaired};
use crate::report::Counts;
use crate::schedule::Schedule;

/// Frames that may be on their way at once. More are thrown away, whatever the rate and the delay.
const MAX_HELD: usize = 65_536;

/// The change of a direction's frames when one end of the link is in a VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VlanStep {
    /// The tag of this VLAN is put in.
    Push(u16),
    /// The tag of this VLAN is taken out; frames without it are thrown away.
    Pop(u16),
}

/// One direction of the link.
pub(crate) struct Direction {
    /// `None` if this direction is left alone.
    path: Option<Path>,
    impair_all: bool,
    /// The VLAN whose tag is put in or taken out.
    vlan: Option<VlanStep>,
    longest: usize,
    schedule: Schedule,
    /// Frames that are due.
    outgoing: Vec<Frame>,
    blocked: bool,
    /// Nanoseconds that frames waited for the rate limit, all together.
    queue_wait: u64,
    counts: Counts,
}

impl Direction {
    /// A direction that `path` impairs, if it is given; with `impair_all` also frames the link needs to work. Frames
    /// longer than `longest` bytes are thrown away.
    pub(crate) fn new(path: Option<Path>, impair_all: bool, longest: usize) -> Self {
        Self {
            path,
            impair_all,
            vlan: None,
            longest,
            schedule: Schedule::default(),
            outgoing: Vec::with_capacity(BATCH),
            blocked: false,
            queue_wait: 0,
            counts: Counts::default(),
        }
    }

    /// From now on frames are changed by `step`.
    pub(crate) fn set_vlan(&mut self, step: VlanStep) {
        self.vlan = Some(step);
    }

    /// Takes a frame that arrived at `now`, which never goes back.
    pub(crate) fn take(&mut self, now: u64, mut frame: Frame, pool: &mut Pool) {
        self.counts.received += 1;
        match self.vlan {
            Some(VlanStep::Push(id)) => frame.push_vlan(id),
            Some(VlanStep::Pop(id)) if !frame.pop_vlan(id) => {
                self.counts.other_vlan += 1;
                pool.give(frame);
                return;
            }
            _ => {}
        }
        if frame.length > self.longest {
            self.too_long(frame, pool);
            return;
        }
        if frame.checksum_missing {
            if self.counts.checksum_missing == 0 {
                eprintln!(
                    "tidegate-bench link: a frame came without its checksum and is thrown away, as will be others; \
                     run `ethtool -K DEVICE tx off` on the device it was sent on"
                );
            }
            self.counts.checksum_missing += 1;
            pool.give(frame);
            return;
        }
        let Some(path) = self
            .path
            .as_mut()
            .filter(|_| self.impair_all || may_be_impaired(frame.bytes()))
        else {
            self.counts.unimpaired += 1;
            self.schedule(now, frame, pool);
            return;
        };
        if path.loses(nanos(now)).is_some() {
            pool.give(frame);
            return;
        }
        let copy = path.doubles().then(|| pool.copy(&frame));
        let wait = &mut self.queue_wait;
        let due = pass(path, now, frame.bytes_mut(), wait);
        let copy = copy.map(|mut copy| (pass(path, now, copy.bytes_mut(), wait), copy));
        for (due, frame) in std::iter::once((due, frame)).chain(copy) {
            match due {
                Some(due) => self.schedule(due, frame, pool),
                None => pool.give(frame),
            }
        }
    }

    fn schedule(&mut self, due: u64, frame: Frame, pool: &mut Pool) {
        if self.schedule.len() < MAX_HELD {
            self.schedule.add(due, frame);
        } else {
            self.counts.overflow += 1;
            pool.give(frame);
        }
    }

    fn too_long(&mut self, frame: Frame, pool: &mut Pool) {
        if self.counts.too_long == 0 {
            eprintln!(
                "tidegate-bench link: a frame of {} bytes is longer than the MTU allows and is thrown away, as will be \
                 others; run `ethtool -K DEVICE tso off gso off` on the device it was sent on and `ethtool -K DEVICE \
                 gro off lro off` on the device it came in by",
                frame.length
            );
        }
        self.counts.too_long += 1;
        pool.give(frame);
    }

    /// Sends what is due at `now`, as far as `device` takes it.
    ///
    /// # Errors
    ///
    /// The device can no longer be used. A device that is down, or has no room, is none: what it refuses is counted.
    pub(crate) fn send_due(&mut self, now: u64, device: &Device, pool: &mut Pool) -> anyhow::Result<()> {
        self.blocked = false;
        loop {
            while self.outgoing.len() < BATCH
                && let Some(frame) = self.schedule.pop_due(now)
            {
                self.outgoing.push(frame);
            }
            if self.outgoing.is_empty() {
                return Ok(());
            }
            let error = match device.send(&self.outgoing) {
                Ok(sent) => {
                    self.counts.sent += sent as u64;
                    for frame in self.outgoing.drain(..sent) {
                        pool.give(frame);
                    }
                    continue;
                }
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN) => {
                    self.blocked = true;
                    return Ok(());
                }
                Some(libc::EMSGSIZE) => {
                    let frame = self.outgoing.remove(0);
                    self.too_long(frame, pool);
                }
                // The last one: a frame that is not even a header.
                Some(libc::ENOBUFS | libc::ENETDOWN | libc::EINVAL) => {
                    self.counts.refused += 1;
                    pool.give(self.outgoing.remove(0));
                }
                _ => return Err(error).with_context(|| format!("cannot send on {}", device.name())),
            }
        }
    }

    /// The time at which something has to be sent next.
    pub(crate) fn next_due(&self) -> Option<u64> {
        if self.blocked { None } else { self.schedule.next_due() }
    }

    /// Whether the device frames leave by had no room.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Counts frames the kernel dropped before they could be taken.
    pub(crate) fn add_overruns(&mut self, frames: u64) {
        self.counts.overrun += frames;
    }

    /// The counts until now.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            impaired: self.path.as_ref().map(Path::stats).unwrap_or_default(),
            held: (self.schedule.len() + self.outgoing.len()) as u64,
            queue_wait_us: self.queue_wait / 1000,
            ..self.counts
        }
    }
}

/// Sends a copy on its way at `now`, and adds the time it waits for the rate limit to `wait`. Returns when it arrives;
/// `None` if the queue is full.
fn pass(path: &mut Path, now: u64, frame: &mut [u8], wait: &mut u64) -> Option<u64> {
    let departure = path.enqueue(nanos(now), frame.len())?;
    // Within 584 years of the start.
    *wait += departure.at.saturating_sub(nanos(now)).as_nanos() as u64;
    path.corrupts(frame);
    Some(path.arrival(departure.at).as_nanos() as u64)
}

fn nanos(count: u64) -> Duration {
    Duration::from_nanos(count)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use tidegate_impair::{Impairment, Rate, Room};
    use tidegate_random::Random;

    use crate::frame::Received;

    use super::*;

    const UNICAST: [u8; 16] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    const ARP: [u8; 16] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 6, 0, 1];

    fn impairment(loss: &str, duplicate: &str) -> Impairment {
        Impairment {
            loss: loss.parse().unwrap(),
            duplicate: duplicate.parse().unwrap(),
            delay: nanos(5),
            ..Impairment::default()
        }
    }

    fn frame(pool: &mut Pool, bytes: &[u8], length: usize, checksum_missing: bool) -> Frame {
        let mut frame = pool.take();
        frame.room()[..bytes.len()].copy_from_slice(bytes);
        frame.set_received(Received {
            length,
            tag: None,
            checksum_missing,
        });
        frame
    }

    fn take(direction: &mut Direction, now: u64, bytes: &[u8]) {
        let mut pool = Pool::new(64);
        let frame = frame(&mut pool, bytes, bytes.len(), false);
        direction.take(now, frame, &mut pool);
    }

    #[test]
    fn what_the_link_needs_is_spared_unless_all_is_impaired() {
        let lossy = || Some(Path::new(impairment("100%", "0%"), Random::new(1)));
        let mut direction = Direction::new(lossy(), false, 64);
        take(&mut direction, 0, &UNICAST);
        take(&mut direction, 0, &ARP);
        let counts = direction.counts();
        assert_eq!((counts.received, counts.impaired.lost), (2, 1));
        assert_eq!((counts.unimpaired, counts.held), (1, 1));
        assert_eq!(direction.next_due(), Some(0), "without delay");

        let mut direction = Direction::new(lossy(), true, 64);
        take(&mut direction, 0, &ARP);
        assert_eq!(direction.counts().impaired.lost, 1);
    }

    #[test]
    fn the_end_in_a_vlan_sees_its_tag_and_the_other_one_none() {
        let mut towards = Direction::new(None, false, 64);
        towards.set_vlan(VlanStep::Push(5));
        take(&mut towards, 0, &UNICAST);
        let tagged = towards.schedule.pop_due(0).unwrap();
        assert_eq!(tagged.bytes()[12..18], [0x81, 0, 0, 5, 8, 0]);

        let mut back = Direction::new(None, false, 64);
        back.set_vlan(VlanStep::Pop(5));
        take(&mut back, 0, tagged.bytes());
        assert_eq!(back.schedule.pop_due(0).unwrap().bytes(), UNICAST);
        take(&mut back, 0, &UNICAST);
        let counts = back.counts();
        assert_eq!((counts.received, counts.other_vlan, counts.held), (2, 1, 0));
    }

    #[test]
    fn a_direction_left_alone_delays_nothing() {
        let mut direction = Direction::new(None, true, 64);
        take(&mut direction, 3, &UNICAST);
        assert_eq!(direction.next_due(), Some(3));
        assert_eq!(direction.counts().unimpaired, 1);
    }

    #[test]
    fn a_doubled_frame_is_held_twice() {
        let mut direction = Direction::new(Some(Path::new(impairment("0%", "100%"), Random::new(1))), false, 64);
        take(&mut direction, 0, &UNICAST);
        let counts = direction.counts();
        assert_eq!((counts.received, counts.impaired.duplicated, counts.held), (1, 1, 2));
        assert_eq!(direction.next_due(), Some(5));
        assert_eq!(direction.schedule.pop_due(5).unwrap().bytes(), UNICAST);
        assert_eq!(direction.schedule.pop_due(5).unwrap().bytes(), UNICAST);
    }

    #[test]
    fn the_wait_of_frames_lasts_until_their_last_bit_is_out() {
        let impairment = Impairment {
            rate: Some(Rate {
                bits_per_second: NonZeroU64::new(1_000_000).unwrap(),
                room: Room::Frames(2),
                granularity: nanos(1),
            }),
            ..impairment("0%", "0%")
        };
        let mut direction = Direction::new(Some(Path::new(impairment, Random::new(1))), false, 64);
        for _ in 0..3 {
            take(&mut direction, 0, &UNICAST);
        }
        let counts = direction.counts();
        // 16 octets take 128 us; the second frame waits for the first, and the third finds no room.
        assert_eq!((counts.queue_wait_us, counts.impaired.queue_full), (128 + 256, 1));
    }

    #[test]
    fn frames_that_offloads_left_unfinished_are_thrown_away_and_counted() {
        let mut pool = Pool::new(64);
        let mut direction = Direction::new(None, false, 64);
        let long = frame(&mut pool, &UNICAST, 65, false);
        direction.take(0, long, &mut pool);
        let unfinished = frame(&mut pool, &UNICAST, 16, true);
        direction.take(0, unfinished, &mut pool);
        let counts = direction.counts();
        assert_eq!((counts.too_long, counts.checksum_missing, counts.held), (1, 1, 0));
    }
}
