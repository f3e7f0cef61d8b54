//! Turns SYN cookies on and off, and changes their keys.
//!
//! Two orders matter. The shards take a key before the XDP program makes or accepts cookies with it, so that no cookie
//! comes back to a shard that does not know its key; and it accepts none any more before they forget theirs. And the
//! XDP program's slot of a key is written before a switch is turned to it.

use core::time::Duration;
use std::time::Instant;

use tidegate_abi::siphash::Key;
use tidegate_abi::syn_ack::cookie_switch;
use tidegate_abi::syn_cookie::{Accepted, Keys};

use super::epoch::{Epochs, Moment};
use super::policy::{Cause, Policy, Thresholds, WINDOW};
use super::secret::Secret;
use crate::config::CookieMode;
use crate::error::Error;

/// The interval at which the queues are looked at while cookies are on.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The time for which cookies of clients without timestamps are accepted after the last of them was made, while strong
/// ones are: that of one retransmission (RFC 6298, rule 2.1).
const GRACE: Duration = Duration::from_secs(1);

/// The pause before something is tried again that did not work.
const RETRY: Duration = Duration::from_millis(100);

/// The same for what the kernel refused.
const RETRY_REFUSED: Duration = Duration::from_secs(1);

/// The cookies that are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    /// The keys they were made with.
    pub(crate) keys: Keys,
    /// Those without timestamps.
    pub(crate) accepted: Accepted,
}

/// The XDP program and the shards, as the controller works on them.
pub(crate) trait CookieBackend {
    /// SYNs the XDP program redirected or answered on `queue` since the start.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    fn syns(&self, queue: u32) -> Result<u64, Error>;

    /// Half-open connections of the shard of `queue`.
    fn half_open(&self, queue: u32) -> u32;

    /// Bad cookies that were acknowledged since the start, as far as the XDP program dropped them or the shards have
    /// told.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    fn bad_cookies(&self) -> Result<u64, Error>;

    /// Has all shards accept these cookies, or none. Returns whether all of them know.
    fn give(&self, given: Option<Given>) -> bool;

    /// Writes keys into the XDP program's slots, by which it makes and accepts cookies from then on, or has it accept
    /// none.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    fn accept(&mut self, given: Option<Given>) -> Result<(), Error>;

    /// Turns the switch of `queue` to a value of [`cookie_switch`].
    ///
    /// # Errors
    ///
    /// [`Error::Load`] with what the kernel says.
    fn set_switch(&mut self, queue: u32, switch: u32) -> Result<(), Error>;

    /// Counts and logs that cookies of `queue` are on or off from now on.
    fn turned(&self, queue: u32, on: bool, cause: Cause);

    /// Logs that those for SYNs without timestamps are strong ones from now on, or no more.
    fn turned_strong(&self, strong: bool, cause: Cause);
}

/// The wanted and the actual state of one queue.
struct Queue {
    number: u32,
    policy: Policy,
    wanted: bool,
    cause: Cause,
    /// The state that was counted and logged last.
    on: bool,
    switch: u32,
}

/// Decides what is wanted, and brings it about step by step. Time comes in with every call.
pub(crate) struct Controller<C> {
    backend: C,
    secret: Key,
    shared: bool,
    /// The load decides on each queue.
    is_auto: bool,
    epochs: Epochs,
    queues: Vec<Queue>,
    strength: Policy,
    /// Strong cookies are made for SYNs without timestamps, since then.
    strong_since: Option<Instant>,
    /// The keys the shards have, and the cookies they accept.
    given: Option<(Moment, Accepted)>,
    /// The same of the XDP program.
    accepted: Option<(Moment, Accepted)>,
    /// The last epoch in which cookies were on.
    last_on: Option<u64>,
    look_at: Option<Instant>,
    look_at_bad_cookies_at: Option<Instant>,
    retry_at: Option<Instant>,
}

impl<C: CookieBackend> Controller<C> {
    /// A controller of the queues 0 to `queues` - 1 in `mode`, which is not `never`. Nothing is on and no shard has
    /// keys.
    pub(crate) fn new(
        backend: C,
        mode: CookieMode,
        secret: Secret,
        epochs: Epochs,
        thresholds: Thresholds,
        queues: u32,
    ) -> Self {
        let now = Instant::now();
        let queue = |number| Queue {
            number,
            // Counters go on where another process has left them.
            policy: Policy::new(thresholds, now, backend.syns(number).unwrap_or(0)),
            wanted: mode == CookieMode::Always,
            cause: Cause::Always,
            on: false,
            switch: cookie_switch::OFF,
        };
        Self {
            secret: secret.key,
            shared: secret.shared,
            is_auto: mode == CookieMode::Auto,
            epochs,
            queues: (0..queues).map(queue).collect(),
            strength: Policy::of_bad_cookies(thresholds, now, backend.bad_cookies().unwrap_or(0)),
            backend,
            strong_since: None,
            given: None,
            accepted: None,
            last_on: None,
            look_at: None,
            look_at_bad_cookies_at: None,
            retry_at: None,
        }
    }

    /// Another process may have made cookies with the same secret until now.
    pub(crate) fn take_over(&mut self, unix: Duration) {
        self.last_on = Some(self.epochs.at(unix).epoch);
    }

    /// Another process had the XDP program, and all cookies are off there.
    pub(crate) fn take_back(&mut self, now: Instant, unix: Duration) {
        for queue in &mut self.queues {
            queue.switch = cookie_switch::OFF;
        }
        self.accepted = None;
        self.bring_about(now, unix);
    }

    /// The keys every engine has to have before the first step; no shard needs to run.
    pub(crate) fn first_keys(&mut self, unix: Duration) -> Option<Given> {
        self.given = self.needed(unix).map(|moment| (moment, Accepted::All));
        self.given.map(|given| self.to_give(given))
    }

    /// Goes by `mode` from `now` on; `unix` is the time since 1970.
    pub(crate) fn set_mode(&mut self, mode: CookieMode, now: Instant, unix: Duration) {
        self.is_auto = mode == CookieMode::Auto;
        self.look_at = None;
        for queue in &mut self.queues {
            match mode {
                CookieMode::Always => (queue.wanted, queue.cause) = (true, Cause::Always),
                CookieMode::Never => (queue.wanted, queue.cause) = (false, Cause::Never),
                CookieMode::Auto => match self.backend.syns(queue.number) {
                    Ok(syns) => queue.policy.begin_anew(now, syns, queue.wanted),
                    Err(error) => tracing::error!("cannot count the SYNs of queue {}: {error}", queue.number),
                },
            }
        }
        if self.is_auto {
            self.look_at = Some(now + WINDOW);
        }
        self.bring_about(now, unix);
    }

    /// A shard rang at `now`; `unix` is the time since 1970.
    pub(crate) fn rung(&mut self, now: Instant, unix: Duration) {
        // What begins now has to be seen by itself, not as a part of the quiet time before it.
        let soon = now + WINDOW;
        if self.is_auto {
            self.look(now);
            self.look_at = Some(self.look_at.map_or(soon, |at| at.min(soon)));
        }
        if self.given.is_some() {
            self.look_at_bad_cookies(now);
            self.look_at_bad_cookies_at = Some(self.look_at_bad_cookies_at.map_or(soon, |at| at.min(soon)));
        }
        self.bring_about(now, unix);
    }

    /// Does what is due at `now`; `unix` is the time since 1970.
    pub(crate) fn step(&mut self, now: Instant, unix: Duration) {
        if self.look_at.is_some_and(|at| at <= now) {
            self.look(now);
        }
        if self.look_at_bad_cookies_at.is_some_and(|at| at <= now) {
            self.look_at_bad_cookies(now);
        }
        self.bring_about(now, unix);
    }

    /// The time for which nothing is due unless a shard rings; `None`: for ever.
    pub(crate) fn pause(&self, now: Instant, unix: Duration) -> Option<Duration> {
        let change = self.given.map(|_| self.epochs.until_change(unix));
        [self.look_at, self.look_at_bad_cookies_at, self.retry_at]
            .into_iter()
            .flatten()
            .map(|at| at.saturating_duration_since(now))
            .chain(change)
            .min()
    }

    /// Turns all cookies off for good. The shards keep their keys: handshakes under way may finish.
    pub(crate) fn end(&mut self) {
        for queue in &mut self.queues {
            queue.wanted = false;
            queue.cause = Cause::Stop;
        }
        if let Err(error) = self.turn_off() {
            tracing::error!("cannot turn SYN cookies off: {error}");
        }
    }

    /// Has the policy of each queue look at its load.
    fn look(&mut self, now: Instant) {
        for queue in &mut self.queues {
            let syns = match self.backend.syns(queue.number) {
                Ok(syns) => syns,
                Err(error) => {
                    tracing::error!("cannot count the SYNs of queue {}: {error}", queue.number);
                    continue;
                }
            };
            let half_open = self.backend.half_open(queue.number);
            if let Some((wanted, cause)) = queue.policy.look(now, syns, half_open) {
                queue.wanted = wanted;
                queue.cause = cause;
            }
        }
        self.look_at = self.is_wanted().then(|| now + POLL_INTERVAL);
    }

    /// Decides whether cookies are to be strong.
    fn look_at_bad_cookies(&mut self, now: Instant) {
        match self.backend.bad_cookies() {
            Ok(count) => {
                if let Some((strong, cause)) = self.strength.look(now, count, 0) {
                    self.strong_since = strong.then_some(now);
                    self.backend.turned_strong(strong, cause);
                }
            }
            Err(error) => tracing::error!("cannot count bad cookies: {error}"),
        }
        self.look_at_bad_cookies_at = self.strong_since.map(|_| now + POLL_INTERVAL);
    }

    /// The cookies without timestamps that are to be accepted.
    fn acceptable(&self, now: Instant) -> Accepted {
        match self.strong_since {
            Some(since) if now.saturating_duration_since(since) >= GRACE => Accepted::Strong,
            _ => Accepted::All,
        }
    }

    fn bring_about(&mut self, now: Instant, unix: Duration) {
        self.retry_at = match self.try_to_bring_about(now, unix) {
            Ok(true) => None,
            Ok(false) => Some(now + RETRY),
            Err(error) => {
                tracing::error!("cannot set SYN cookies: {error}");
                Some(now + RETRY_REFUSED)
            }
        };
    }

    /// Returns whether what is wanted is so now.
    fn try_to_bring_about(&mut self, now: Instant, unix: Duration) -> Result<bool, Error> {
        self.turn_off()?;
        let accepted = self.acceptable(now);
        let needed = self.needed(unix).map(|moment| (moment, accepted));
        if needed.is_none() && self.accepted.is_some() {
            self.backend.accept(None)?;
            self.accepted = None;
        }
        if needed != self.given {
            if !self.backend.give(needed.map(|given| self.to_give(given))) {
                return Ok(false);
            }
            self.given = needed;
        }
        if let Some(given) = needed {
            self.accept(given)?;
        }
        if self.is_wanted() {
            self.turn_on(self.epochs.at(unix).epoch)?;
        }
        Ok(true)
    }

    /// The keys the shards need: while cookies are on, as long as the last of them can come back, and always where
    /// another host may have made one.
    fn needed(&mut self, unix: Duration) -> Option<Moment> {
        let moment = self.epochs.at(unix);
        if self.is_wanted() {
            self.last_on = Some(moment.epoch);
        }
        let may_come_back = self.last_on.is_some_and(|last| moment.epoch <= last.saturating_add(1));
        (self.shared || may_come_back).then_some(moment)
    }

    fn to_give(&self, (moment, accepted): (Moment, Accepted)) -> Given {
        Given {
            keys: Keys::new(self.secret, moment.epoch, moment.next_too),
            accepted,
        }
    }

    fn is_wanted(&self) -> bool {
        self.queues.iter().any(|queue| queue.wanted)
    }

    fn turn_off(&mut self) -> Result<(), Error> {
        for queue in self.queues.iter_mut().filter(|queue| !queue.wanted) {
            if queue.switch != cookie_switch::OFF {
                self.backend.set_switch(queue.number, cookie_switch::OFF)?;
                queue.switch = cookie_switch::OFF;
            }
            if queue.on {
                queue.on = false;
                self.backend.turned(queue.number, false, queue.cause);
            }
        }
        Ok(())
    }

    fn accept(&mut self, given: (Moment, Accepted)) -> Result<(), Error> {
        if self.accepted == Some(given) {
            return Ok(());
        }
        // Only after a jump of the clock is a slot in use in which another key is to be; one that is half old and half
        // new fits no cookie.
        let is_next = self
            .accepted
            .is_some_and(|(before, _)| given.0.epoch.wrapping_sub(before.epoch) <= 1);
        for queue in self.queues.iter_mut().filter(|_| !is_next) {
            if queue.switch != cookie_switch::OFF {
                self.backend.set_switch(queue.number, cookie_switch::OFF)?;
                queue.switch = cookie_switch::OFF;
            }
        }
        self.backend.accept(Some(self.to_give(given)))?;
        self.accepted = Some(given);
        Ok(())
    }

    fn turn_on(&mut self, epoch: u64) -> Result<(), Error> {
        let key_id = (epoch & 1) as u32;
        let switch = if self.strong_since.is_some() {
            cookie_switch::on_strong(key_id)
        } else {
            cookie_switch::on(key_id)
        };
        for queue in self.queues.iter_mut().filter(|queue| queue.wanted) {
            if queue.switch != switch {
                self.backend.set_switch(queue.number, switch)?;
                queue.switch = switch;
            }
            if !queue.on {
                queue.on = true;
                self.backend.turned(queue.number, true, queue.cause);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "controller_tests.rs"]
mod tests;
