//! A hierarchical timing wheel (Varghese and Lauck, 1987): O(1) to arm, cancel and fire.
//!
//! One entry per id, ids being small and dense (slots of a slab). Entries are linked where they lie, in chunks beside
//! those of the slab. Six levels of 64 slots at a tick of one millisecond reach over two years; what lies further waits
//! in the last slot and is filed again when that one comes round.
//!
//! Ticks are 64 bits wide and never wrap.

use crate::chunks::{Advice, Column};
use crate::time::Instant;

const LEVELS: usize = 6;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const NONE: u32 = u32::MAX;
/// Furthest a deadline can be filed from now, in ticks.
const REACH: u64 = (1 << (SLOT_BITS * LEVELS as u32)) - 1;

/// 16 bytes, so that four share a cache line and none lies in two.
#[derive(Clone, Copy)]
struct Entry {
    /// The tick above the lowest `LIST_BITS` bits, which say which list the entry is in. The microseconds of an
    /// [`Instant`] end below 2^55 ticks.
    tick_and_list: u64,
    next: u32,
    previous: u32,
}

const LIST_BITS: u32 = 9;
/// Instead of a list's number.
const NOT_ARMED: usize = (1 << LIST_BITS) - 1;
const _: () = assert!(LEVELS * SLOTS <= NOT_ARMED);

const IDLE: Entry = Entry {
    tick_and_list: NOT_ARMED as u64,
    next: NONE,
    previous: NONE,
};

impl Default for Entry {
    fn default() -> Self {
        IDLE
    }
}

impl Entry {
    /// The first entry of a list, before the one that was it.
    #[inline]
    fn first(tick: u64, list: usize, head: u32) -> Self {
        Self {
            tick_and_list: tick << LIST_BITS | list as u64,
            next: head,
            previous: NONE,
        }
    }

    #[inline]
    fn tick(&self) -> u64 {
        self.tick_and_list >> LIST_BITS
    }

    /// `level * SLOTS + slot` of the list the entry is in, or `NOT_ARMED`.
    #[inline]
    fn list(&self) -> usize {
        self.tick_and_list as usize & NOT_ARMED
    }

    #[inline]
    fn is_armed(&self) -> bool {
        self.list() != NOT_ARMED
    }

    /// Whether the tick is no later than that of `deadline`, without dividing.
    #[inline]
    fn is_no_later(&self, deadline: Instant) -> bool {
        self.tick().saturating_mul(1000) < deadline.as_micros().saturating_add(1000)
    }
}

/// A timing wheel for ids below 2^32 - 1.
pub struct TimerWheel {
    /// All deadlines before this tick have fired.
    now: u64,
    entries: Column<Entry>,
    heads: [u32; LEVELS * SLOTS],
    occupied: [u64; LEVELS],
    armed: usize,
    /// The highest level whose current slot may have entries to be filed again before anything fires; 0: there are
    /// none.
    refiling: usize,
}

impl Default for TimerWheel {
    fn default() -> Self {
        Self {
            now: 0,
            entries: Column::default(),
            heads: [NONE; LEVELS * SLOTS],
            occupied: [0; LEVELS],
            armed: 0,
            refiling: 0,
        }
    }
}

/// Rounded up: a timer never fires before its deadline.
#[inline]
fn tick_of(deadline: Instant) -> u64 {
    deadline.as_micros().div_ceil(1000)
}

/// `level * SLOTS + slot` of the list that an entry with `tick` belongs into at `now`.
#[inline]
fn list_of(tick: u64, now: u64) -> usize {
    let filed = tick.min(now + REACH);
    // The lowest level has all that is no further away than its slots reach.
    let distance = (filed ^ now) | 1;
    // The top level wraps: a deadline in its next round shares a slot number with this one.
    let level = (distance.ilog2() / SLOT_BITS).min(LEVELS as u32 - 1);
    let slot = (filed >> (SLOT_BITS * level)) as usize & (SLOTS - 1);
    level as usize * SLOTS + slot
}

impl TimerWheel {
    /// Arms the timer of `id`, replacing its deadline if it was armed.
    #[inline]
    pub fn arm(&mut self, id: u32, deadline: Instant) {
        let tick = tick_of(deadline).max(self.now);
        let list = list_of(tick, self.now);
        let entry = self.entries.entry(id);
        if entry.is_armed() {
            if entry.tick() == tick {
                return;
            }
            let armed = *entry;
            self.detach(armed);
            self.file(id, tick, list);
            return;
        }
        self.armed += 1;
        // The entry need not be looked for once more.
        let head = core::mem::replace(&mut self.heads[list], id);
        *entry = Entry::first(tick, list, head);
        self.push_before(head, id, list);
    }

    /// Arms the timer of `id` unless it already fires at or before `deadline`: the lazy way to move a deadline back,
    /// for callers that look at the real one when the timer fires.
    #[inline]
    pub fn arm_no_later(&mut self, id: u32, deadline: Instant) {
        match self.entries.get(id) {
            Some(entry) if entry.is_armed() && entry.is_no_later(deadline) => {}
            _ => self.arm(id, deadline),
        }
    }

    /// Disarms the timer of `id`, if it was armed.
    #[inline]
    pub fn cancel(&mut self, id: u32) {
        if let Some(entry) = self.entries.get_mut(id)
            && entry.is_armed()
        {
            let armed = core::mem::replace(entry, IDLE);
            self.detach(armed);
            self.armed -= 1;
        }
    }

    /// Whether the timer of `id` is armed.
    #[inline]
    pub fn is_armed(&self, id: u32) -> bool {
        self.entries.get(id).is_some_and(Entry::is_armed)
    }

    /// Reads the entries that change when the timer of `id` is armed anew, so that they are in the cache then. The
    /// result means nothing.
    pub(crate) fn touch_neighbours(&self, id: u32) -> u32 {
        let touch = |id| self.entries.get(id).map_or(0, |entry| entry.tick_and_list as u32);
        let entry = self.entries.get(id);
        entry.map_or(0, |entry| touch(entry.next) ^ touch(entry.previous))
    }

    /// Puts the ids of timers that fire next into `ids`, at most as many as there is room for and those of one tick,
    /// and returns their number; 0 if it is not known without moving on.
    pub(crate) fn peek(&self, now: Instant, ids: &mut [u32]) -> usize {
        if self.now > now.as_millis() || self.refiling > 0 {
            return 0;
        }
        let mut id = self.heads[(self.now & (SLOTS as u64 - 1)) as usize];
        for (count, place) in ids.iter_mut().enumerate() {
            let Some(entry) = self.entries.get(id) else {
                return count;
            };
            *place = id;
            id = entry.next;
        }
        ids.len()
    }

    /// The time at which the timer of `id` fires, if it is armed.
    pub fn deadline(&self, id: u32) -> Option<Instant> {
        let entry = self.entries.get(id).filter(|entry| entry.is_armed())?;
        Some(Instant::from_millis(entry.tick()))
    }

    /// From now on has `advice` for the memory of further ids.
    pub(crate) fn set_advice(&mut self, advice: Advice) {
        self.entries.set_advice(advice);
    }

    /// Gives back the memory of a chunk of ids, unless the timer of one of them is armed.
    pub(crate) fn give_back(&mut self, chunk: u32) {
        let entries = self.entries.chunk(chunk);
        if entries.is_some_and(|entries| !entries.iter().any(Entry::is_armed)) {
            self.entries.give_back(chunk);
        }
    }

    /// Bytes of memory that the entries of ids take.
    pub fn memory(&self) -> usize {
        self.entries.memory()
    }

    /// Timers that are armed.
    pub fn armed(&self) -> usize {
        self.armed
    }

    /// A time at which [`TimerWheel::fire`] has something to do, at or before the earliest deadline: for deadlines
    /// further away it is the time at which they are filed again.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.refiling > 0 {
            return Some(Instant::from_millis(self.now));
        }
        for level in 0..LEVELS {
            let occupied = self.occupied[level];
            if occupied == 0 {
                continue;
            }
            let shift = SLOT_BITS * level as u32;
            let current = (self.now >> shift) as u32 & (SLOTS as u32 - 1);
            let ahead = occupied.rotate_right(current).trailing_zeros();
            // Above level 0 an entry in the current slot is a whole round away.
            let ahead = if level > 0 && ahead == 0 {
                let others = occupied.rotate_right(current) & !1;
                if others == 0 {
                    SLOTS as u32
                } else {
                    others.trailing_zeros()
                }
            } else {
                ahead
            };
            let base = self.now >> shift << shift;
            let tick = if level == 0 {
                self.now + u64::from(ahead)
            } else {
                base + (u64::from(ahead) << shift)
            };
            return Some(Instant::from_millis(tick));
        }
        None
    }

    /// Disarms one timer whose deadline is at or before `now` and returns its id; `None` when there are no more, or
    /// when `left` is used up: every timer that fires takes one of it, and every one that is filed again on the way
    /// there.
    ///
    /// Called until it returns `None`. Timers armed meanwhile for a time that has passed fire in the same round. While
    /// `now` stays within a millisecond and nothing is due, a call takes a few instructions.
    #[inline]
    pub fn fire(&mut self, now: Instant, left: &mut usize) -> Option<u32> {
        let target = now.as_millis();
        loop {
            if self.now > target || (self.refiling > 0 && !self.file_again(left)) {
                return None;
            }
            let slot = (self.now & (SLOTS as u64 - 1)) as usize;
            let head = self.heads[slot];
            if head != NONE {
                *left = left.checked_sub(1)?;
                let entry = core::mem::replace(self.entries.at(head), IDLE);
                self.take_first(slot, entry.next);
                self.armed -= 1;
                return Some(head);
            }
            if self.now == target {
                return None;
            }
            self.advance(target);
        }
    }

    /// Moves to the next tick at which something is filed, at most to `target`.
    #[inline(never)]
    fn advance(&mut self, target: u64) {
        let next = match self.next_deadline() {
            Some(deadline) => deadline.as_millis().clamp(self.now + 1, target),
            None => target,
        };
        self.now = next;
        // The levels at which a slot begins here.
        self.refiling = ((next.trailing_zeros() / SLOT_BITS) as usize).min(LEVELS - 1);
    }

    /// Entering a slot of a higher level files its entries again, further down; the highest first, so that what falls
    /// into the current slot of a lower level is moved on. False when `left` was used up before all were. No entry
    /// comes back to the list it is taken from: where the slot begins, it is out of reach.
    #[cold]
    fn file_again(&mut self, left: &mut usize) -> bool {
        while self.refiling > 0 {
            let level = self.refiling;
            let list = level * SLOTS + ((self.now >> (SLOT_BITS * level as u32)) as usize & (SLOTS - 1));
            let mut id = self.heads[list];
            while id != NONE {
                let Some(less) = left.checked_sub(1) else {
                    // The rest is a list again.
                    self.heads[list] = id;
                    self.entries.at(id).previous = NONE;
                    return false;
                };
                *left = less;
                let entry = self.entries.at(id);
                let (tick, next) = (entry.tick(), entry.next);
                let list = list_of(tick, self.now);
                let head = core::mem::replace(&mut self.heads[list], id);
                *entry = Entry::first(tick, list, head);
                self.push_before(head, id, list);
                id = next;
            }
            self.heads[list] = NONE;
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
            self.refiling -= 1;
        }
        true
    }

    /// Puts an entry that is in no list into one.
    fn file(&mut self, id: u32, tick: u64, list: usize) {
        let head = core::mem::replace(&mut self.heads[list], id);
        *self.entries.at(id) = Entry::first(tick, list, head);
        self.push_before(head, id, list);
    }

    /// Has the entry that was the first of a list follow `id`.
    #[inline]
    fn push_before(&mut self, head: u32, id: u32, list: usize) {
        if head == NONE {
            self.occupied[list / SLOTS] |= 1 << (list % SLOTS);
        } else {
            self.entries.at(head).previous = id;
        }
    }

    /// Takes the first entry, which `next` follows, out of a list. The entry itself is the caller's.
    #[inline]
    fn take_first(&mut self, list: usize, next: u32) {
        self.heads[list] = next;
        if next == NONE {
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        } else {
            self.entries.at(next).previous = NONE;
        }
    }

    /// Takes what is in an entry out of its list. The entry itself is the caller's.
    fn detach(&mut self, entry: Entry) {
        if entry.previous == NONE {
            self.take_first(entry.list(), entry.next);
            return;
        }
        self.entries.at(entry.previous).next = entry.next;
        if entry.next != NONE {
            self.entries.at(entry.next).previous = entry.previous;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn fired(wheel: &mut TimerWheel, now: Instant) -> Vec<u32> {
        fired_in_slices(wheel, now, usize::MAX)
    }

    /// All that is due, found with no more than `slice` at a time.
    fn fired_in_slices(wheel: &mut TimerWheel, now: Instant, slice: usize) -> Vec<u32> {
        let mut all = Vec::new();
        loop {
            let mut left = slice;
            while let Some(id) = wheel.fire(now, &mut left) {
                all.push(id);
            }
            if left > 0 {
                return all;
            }
        }
    }

    #[test]
    fn fires_at_its_tick_and_not_before() {
        let mut wheel = TimerWheel::default();
        for (id, millis) in [(0, 1), (1, 63), (2, 64), (3, 4096), (4, 300_000), (5, 86_400_000)] {
            wheel.arm(id, Instant::from_millis(millis));
            assert_eq!(wheel.deadline(id), Some(Instant::from_millis(millis)));
            assert_eq!(fired(&mut wheel, Instant::from_millis(millis - 1)), []);
            assert_eq!(fired(&mut wheel, Instant::from_millis(millis)), [id]);
        }
        assert_eq!(wheel.next_deadline(), None);
        assert_eq!(wheel.armed(), 0);
    }

    #[test]
    fn a_deadline_beyond_the_reach_is_filed_again() {
        let mut wheel = TimerWheel::default();
        let far = Instant::from_millis(REACH * 3 + 5);
        wheel.arm(9, far);
        let mut turns = 0;
        while let Some(next) = wheel.next_deadline().filter(|&next| next < far) {
            assert_eq!(fired(&mut wheel, next), []);
            turns += 1;
            assert!(turns < 1000);
        }
        assert_eq!(fired(&mut wheel, far), [9]);
    }

    #[test]
    fn those_that_fire_next_are_known() {
        let mut wheel = TimerWheel::default();
        let now = Instant::from_millis(5);
        assert_eq!(wheel.peek(now, &mut [0; 4]), 0);
        for id in 0..3 {
            wheel.arm(id, now);
        }
        wheel.arm(3, Instant::from_millis(9));
        // They are a few ticks ahead.
        assert_eq!(wheel.peek(now, &mut [0; 4]), 0);
        let mut left = usize::MAX;
        let first = wheel.fire(now, &mut left);
        let mut ids = [NONE; 4];
        assert_eq!(wheel.peek(now, &mut ids), 2);
        assert_eq!(wheel.peek(now, &mut ids[..1]), 1);
        assert_eq!(wheel.peek(Instant::from_millis(4), &mut ids), 0);
        let rest = [wheel.fire(now, &mut left), wheel.fire(now, &mut left)];
        assert_eq!((first, rest), (Some(2), [Some(ids[0]), Some(ids[1])]));
        assert_eq!(wheel.peek(now, &mut ids), 0);
    }

    #[test]
    fn lazy_arming_keeps_the_earlier_deadline() {
        let mut wheel = TimerWheel::default();
        wheel.arm_no_later(0, Instant::from_millis(10));
        wheel.arm_no_later(0, Instant::from_millis(20));
        assert_eq!(fired(&mut wheel, Instant::from_millis(10)), [0]);
        wheel.arm_no_later(0, Instant::from_millis(30));
        wheel.arm_no_later(0, Instant::from_millis(15));
        assert_eq!(fired(&mut wheel, Instant::from_millis(15)), [0]);
        assert_eq!(wheel.armed(), 0);
    }

    #[test]
    fn an_entry_holds_the_last_tick_there_is_in_sixteen_bytes() {
        assert_eq!(size_of::<Entry>(), 16);
        let mut wheel = TimerWheel::default();
        wheel.arm(0, Instant::NEVER);
        assert!(wheel.is_armed(0) && !wheel.is_armed(1));
        assert_eq!(wheel.entries.at(0).tick(), tick_of(Instant::NEVER));
        wheel.cancel(0);
        assert!(!wheel.is_armed(0));
        assert_eq!(wheel.armed(), 0);
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_once() {
        let mut wheel = TimerWheel::default();
        assert_eq!(fired(&mut wheel, Instant::from_millis(1000)), []);
        wheel.arm(3, Instant::from_millis(5));
        assert_eq!(fired(&mut wheel, Instant::from_millis(1000)), [3]);
    }

    #[test]
    fn a_call_that_has_used_up_what_is_left_goes_on_in_the_next() {
        let mut wheel = TimerWheel::default();
        let due = Instant::from_millis(70_000);
        for id in 0..1000 {
            wheel.arm(id, due);
        }
        let (mut calls, mut all) = (0, Vec::new());
        while all.len() < 1000 {
            let mut left = 64;
            let before = all.len();
            while let Some(id) = wheel.fire(due, &mut left) {
                all.push(id);
            }
            assert!(all.len() - before <= 64);
            calls += 1;
            let next = wheel.next_deadline();
            assert_eq!(
                next.is_some_and(|next| next <= due),
                all.len() < 1000,
                "after {calls} calls"
            );
        }
        // Each is filed again at two levels before it fires.
        assert_eq!(calls, 3000_usize.div_ceil(64));
        all.sort_unstable();
        assert!(all.into_iter().eq(0..1000));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arm(u32, u64),
        Cancel(u32),
        Advance(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let delay = prop_oneof![0..200_u64, 0..100_000_u64, 0..1_u64 << 38];
        prop_oneof![
            (0..40_u32, delay.clone()).prop_map(|(id, delay)| Step::Arm(id, delay)),
            (0..40_u32).prop_map(Step::Cancel),
            delay.prop_map(Step::Advance),
        ]
    }

    proptest! {
        #[test]
        fn ticks_are_compared_with_deadlines_as_if_divided(tick in 0..1_u64 << 54, near in -2000_i64..2000, far: u64) {
            let entry = Entry { tick_and_list: tick << LIST_BITS, ..IDLE };
            for micros in [(tick * 1000).saturating_add_signed(near), far] {
                let deadline = Instant::from_micros(micros);
                prop_assert_eq!(entry.is_no_later(deadline), tick <= tick_of(deadline), "{} {}", tick, micros);
            }
        }

        /// Against a sorted map of deadlines.
        #[test]
        fn agrees_with_the_obvious_implementation(
            start in prop_oneof![Just(0_u64), any::<u32>().prop_map(u64::from), Just((1 << 42) - 50)],
            steps in proptest::collection::vec(step(), 1..200),
            slice in 1..50_usize,
        ) {
            let mut wheel = TimerWheel::default();
            let mut model = BTreeMap::new();
            let mut now = start;
            prop_assert_eq!(wheel.fire(Instant::from_millis(now), &mut 1), None);
            for step in steps {
                match step {
                    Step::Arm(id, delay) => {
                        wheel.arm(id, Instant::from_millis(now + delay));
                        model.insert(id, now + delay);
                    }
                    Step::Cancel(id) => {
                        wheel.cancel(id);
                        model.remove(&id);
                    }
                    Step::Advance(delay) => {
                        now += delay;
                        let mut got = fired_in_slices(&mut wheel, Instant::from_millis(now), slice);
                        got.sort_unstable();
                        let due: Vec<u32> = model.iter().filter(|&(_, &at)| at <= now).map(|(&id, _)| id).collect();
                        model.retain(|_, &mut at| at > now);
                        prop_assert_eq!(got, due);
                    }
                }
                prop_assert_eq!(wheel.armed(), model.len());
                let earliest = model.values().min().copied();
                match wheel.next_deadline() {
                    None => prop_assert_eq!(earliest, None),
                    Some(next) => prop_assert!(next.as_millis() <= earliest.unwrap().max(now)),
                }
            }
        }
    }
}
