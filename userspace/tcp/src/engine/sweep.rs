//! Draining and resetting: what is done with every connection there is, a slice at a time.

use core::time::Duration;

use super::{EVENTS_PER_TURN, Engine, context};
use crate::application::{Application, CloseReason};
use crate::connection::{Context, Outcome};
use crate::time::Instant;
use crate::transmit::Transmit;

/// Slots that one call looks at, at most: most of them may be empty.
const SLOTS_PER_TURN: u32 = 4096;

/// The time a sweep waits for a frame that an RST can leave in. Then the link is down, and connections are given up
/// without.
const FRAME_WAIT: Duration = Duration::from_millis(100);

/// The action on every connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// Its application is told to finish.
    Drain,
    /// It is reset.
    Abort,
}

/// The progress of a task.
pub(super) struct Sweep {
    task: Task,
    /// The next slot to be looked at.
    next: u32,
    /// Since when there has been no frame for an RST.
    waiting_since: Option<Instant>,
    /// The devices, a bit for each, that were waited for in vain: once is enough, however many connections they have.
    given_up: u64,
}

impl Sweep {
    /// The time at which the sweep goes on without a frame; at once if it waits for none.
    pub(super) fn due_at(&self, now: Instant) -> Instant {
        self.waiting_since.map_or(now, |since| since + FRAME_WAIT)
    }

    pub(super) fn waits_for_frames(&self) -> bool {
        self.waiting_since.is_some()
    }

    /// Whether to wait, now that an RST was sent by `device` or found no frame.
    fn waits_after(&mut self, sent: bool, device: u8, now: Instant) -> bool {
        let bit = 1 << (device & 63);
        if sent || self.given_up & bit != 0 {
            self.waiting_since = None;
            return false;
        }
        let waits = now < *self.waiting_since.get_or_insert(now) + FRAME_WAIT;
        if !waits {
            self.given_up |= bit;
            self.waiting_since = None;
        }
        waits
    }
}

impl<A: Application> Engine<A> {
    /// Answers no SYN from now on. Handshakes under way may be completed, for which clients are best given time before
    /// [`Engine::drain`].
    pub fn refuse_syns(&mut self) {
        self.refuses_syns = true;
    }

    /// Accepts no new connections, resets the half-open ones, and tells every connection's application to finish.
    /// Begins with that; [`Engine::poll`] goes on until [`Engine::is_sweeping`] is false.
    pub fn drain<T: Transmit>(&mut self, now: Instant, out: &mut T) {
        self.draining = true;
        let aborting = self.sweep.as_ref().is_some_and(|sweep| sweep.task == Task::Abort);
        if !aborting {
            self.begin_sweep(now, Task::Drain, out);
        }
    }

    /// Resets every connection that is left, and accepts none until that is done. Begins with that; [`Engine::poll`]
    /// goes on until [`Engine::is_sweeping`] is false.
    pub fn abort_all<T: Transmit>(&mut self, now: Instant, out: &mut T) {
        self.begin_sweep(now, Task::Abort, out);
    }

    /// Whether there are connections that [`Engine::drain`] or [`Engine::abort_all`] has not come to yet.
    pub fn is_sweeping(&self) -> bool {
        self.sweep.is_some()
    }

    /// Whether handshakes may begin and end: a connection that came behind a sweep would be missed by it.
    pub(super) fn accepts_connections(&self) -> bool {
        !self.draining && self.sweep.is_none()
    }

    fn begin_sweep<T: Transmit>(&mut self, now: Instant, task: Task, out: &mut T) {
        self.now = now;
        self.sweep = Some(Sweep {
            task,
            next: 0,
            waiting_since: None,
            given_up: 0,
        });
        self.go_on_sweeping(now, out);
    }

    /// Does the next slice of what was begun.
    pub(super) fn go_on_sweeping<T: Transmit>(&mut self, now: Instant, out: &mut T) {
        let Some(mut sweep) = self.sweep.take() else { return };
        if !self.sweep_slice(now, &mut sweep, out) {
            self.sweep = Some(sweep);
        }
    }

    /// Goes on with a sweep, over at most [`EVENTS_PER_TURN`] connections. Returns whether it is over.
    fn sweep_slice<T: Transmit>(&mut self, now: Instant, sweep: &mut Sweep, out: &mut T) -> bool {
        let mut left = EVENTS_PER_TURN;
        while let Some(slot) = self.half_open.oldest() {
            if left == 0 {
                return false;
            }
            left -= 1;
            let (sent, device) = self.reset_half_open(slot, out);
            if sweep.waits_after(sent, device, now) {
                return false;
            }
            self.remove_half_open(slot);
        }
        if self.connections.is_empty() {
            return true;
        }
        // Slots beyond are of connections opened later.
        let end = self.connections.slots();
        let slice_end = end.min(sweep.next + SLOTS_PER_TURN);
        while sweep.next < slice_end {
            let slot = sweep.next;
            self.follow_next_hop(slot);
            let Some(connection) = self.connections.get_mut(slot) else {
                sweep.next += 1;
                continue;
            };
            if left == 0 {
                return false;
            }
            left -= 1;
            let mut context = context!(self, now, out);
            let tcb = &mut connection.tcb;
            // A handshake that a listener has not finished is not waited for.
            let is_told = connection.application.is_some() || tcb.listener().is_none();
            let outcome = if sweep.task == Task::Drain && is_told {
                let application = &mut self.application;
                connection.call(&mut context, |state, socket| application.drain(state, socket));
                connection.flush_output(&mut context)
            } else if sweep.waits_after(tcb.send_reset(&mut context), context.links.get(tcb.link).device(), now) {
                return false;
            } else {
                Outcome::Closed(CloseReason::Aborted)
            };
            sweep.next += 1;
            self.settle(now, slot, outcome);
        }
        sweep.next >= end
    }
}
