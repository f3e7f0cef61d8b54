//! SYN cookies of a running server: whether the XDP program makes them, and with which keys.
//!
//! A thread of its own runs the [`controller`]. It sleeps until a shard rings, a key has to change, or, while cookies
//! are on, the next look is due; a server without a flood and without a key file never wakes it.

pub(crate) mod alarm;
pub(crate) mod controller;
mod epoch;
mod live_backend;
mod policy;
pub(crate) mod secret;

use core::time::Duration;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crossbeam::channel::{self, Receiver, Sender, select};
use tidegate_tcp::engine::Cookies;

use self::alarm::{Alarm, ShardCounts};
use self::controller::{Controller, CookieBackend, Given};
use self::epoch::Epochs;
use self::live_backend::{Gauge, LiveBackend, cookies_of};
use self::policy::Thresholds;
use self::secret::Secret;
use crate::config::{CookieMode, SynCookies};
use crate::error::Error;
use crate::mailbox::Mailbox;
use crate::report::{QueueInfo, SynCookieCounts};
use crate::xdp::Steering;

/// SYN cookies as they are set up before the shards run.
pub(crate) struct CookieSetup {
    mode: CookieMode,
    shards: usize,
    thresholds: Thresholds,
    counts: ShardCounts,
    gauges: Arc<[Gauge]>,
    bell: Sender<()>,
    heard: Receiver<()>,
    /// `None`: there are never cookies.
    controller: Option<Controller<LiveBackend>>,
    first_keys: Option<Given>,
}

impl CookieSetup {
    /// Sets up as many queues as there are `mailboxes`, whose shards allow `max_half_open` half-open connections each,
    /// with cookies off. `is_taken_over`: they may have been on until now.
    ///
    /// # Errors
    ///
    /// [`Error::Load`] when the XDP program lacks a map.
    pub(crate) fn new(
        settings: &SynCookies,
        secret: Secret,
        is_taken_over: bool,
        max_half_open: u32,
        steering: &mut Steering,
        mailboxes: &Arc<[Mailbox]>,
    ) -> Result<Self, Error> {
        let shards = mailboxes.len();
        let thresholds = Thresholds {
            syn_rate: u64::from(settings.on_syn_rate),
            half_open: settings.half_open_threshold(max_half_open),
            bad_cookies: u64::from(settings.on_bad_cookies),
            off_after: settings.off_after,
        };
        let counts = ShardCounts::new(shards);
        let gauges: Arc<[Gauge]> = (0..shards).map(|_| Gauge::default()).collect();
        let (bell, heard) = channel::bounded(1);
        let mut controller = None;
        if settings.mode != CookieMode::Never {
            let backend = LiveBackend {
                maps: steering.take_cookie_maps()?,
                counters: steering.counters(),
                shard_counts: counts.clone(),
                mailboxes: Arc::clone(mailboxes),
                gauges: Arc::clone(&gauges),
            };
            let epochs = Epochs::new(settings.rotate, secret.shared);
            controller = Some(Controller::new(
                backend,
                settings.mode,
                secret,
                epochs,
                thresholds,
                shards as u32,
            ));
        }
        if is_taken_over && let Some(controller) = &mut controller {
            controller.take_over(unix_time());
        }
        let first_keys = controller
            .as_mut()
            .and_then(|controller| controller.first_keys(unix_time()));
        Ok(Self {
            mode: settings.mode,
            shards,
            thresholds,
            counts,
            gauges,
            bell,
            heard,
            controller,
            first_keys,
        })
    }

    /// The cookies that the engine of shard `shard` has to have before it runs.
    pub(crate) fn cookies(&self, shard: u16) -> Option<Cookies> {
        cookies_of(self.first_keys, usize::from(shard), self.shards)
    }

    /// The alarm by which shard `shard` tells of SYNs and bad cookies; `None`: nobody asks.
    pub(crate) fn alarm(&self, shard: u16) -> Option<Alarm> {
        (self.mode != CookieMode::Never).then(|| {
            Alarm::new(
                usize::from(shard),
                self.counts.clone(),
                self.bell.clone(),
                &self.thresholds,
            )
        })
    }

    /// Where the counts of every queue are.
    pub(crate) fn gauges(&self) -> Arc<[Gauge]> {
        Arc::clone(&self.gauges)
    }
}

/// The controller's thread, and what it has counted. Dropping this ends it.
pub(crate) struct Control {
    gauges: Arc<[Gauge]>,
    mode: CookieMode,
    /// Closed to end the thread.
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

/// An order to the controller's thread.
enum Order {
    /// Goes by another mode.
    Mode(CookieMode),
    /// Leaves cookies as they are until [`Order::Resume`]. The channel is told when that is so, and has room for it.
    Pause(Sender<()>),
    /// Controls them again. All of them are off.
    Resume,
}

impl Control {
    /// Without a thread.
    pub(crate) fn new(gauges: Arc<[Gauge]>) -> Self {
        Self {
            gauges,
            mode: CookieMode::Never,
            orders: None,
            thread: None,
        }
    }

    /// Turns on what is to be on from the start, and starts the thread, if there is something to control. The shards
    /// have to run.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when there is no thread to be had.
    pub(crate) fn start(&mut self, setup: CookieSetup) -> Result<(), Error> {
        let Some(mut controller) = setup.controller else {
            return Ok(());
        };
        self.mode = setup.mode;
        controller.step(Instant::now(), unix_time());
        let (orders, given) = channel::unbounded();
        let (bell, heard) = (setup.bell, setup.heard);
        let thread = thread::Builder::new()
            .name("syn-cookies".to_owned())
            .spawn(move || {
                // Kept, so that the channel does not close when the shards end.
                let _bell = bell;
                run(&mut controller, &heard, &given);
            })
            .map_err(|error| Error::io("cannot start a thread", error))?;
        self.orders = Some(orders);
        self.thread = Some(thread);
        Ok(())
    }

    /// The mode they are controlled by.
    pub(crate) fn mode(&self) -> CookieMode {
        self.mode
    }

    /// Controls them by `mode` from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when nothing was set up for them.
    pub(crate) fn set_mode(&mut self, mode: CookieMode) -> Result<(), Error> {
        if mode == self.mode {
            return Ok(());
        }
        if !self.order(Order::Mode(mode)) {
            return Err(Error::Config(
                "nothing is set up for SYN cookies: the server was started with the mode `never`, or it is draining; \
                 start it with `--syn-cookies auto`"
                    .to_owned(),
            ));
        }
        self.mode = mode;
        Ok(())
    }

    /// Leaves cookies as they are from now on, for another process to control.
    pub(crate) fn pause(&self) {
        let (paused, is_paused) = channel::bounded(1);
        if self.order(Order::Pause(paused)) {
            // Without a limit: two that control them would undo what the other does.
            let _ = is_paused.recv();
        }
    }

    /// Controls cookies again, after all were turned off.
    pub(crate) fn resume(&self) {
        self.order(Order::Resume);
    }

    /// Whether there is a thread that takes it.
    fn order(&self, order: Order) -> bool {
        self.orders.as_ref().is_some_and(|orders| orders.send(order).is_ok())
    }

    /// Turns all cookies off, unless another process controls them, and ends the thread.
    pub(crate) fn stop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that controls SYN cookies panicked");
        }
    }

    /// Ends the thread and leaves cookies as they are, for another process to control.
    pub(crate) fn leave(&mut self) {
        self.pause();
        self.stop();
    }

    /// The counters of each of `queues`.
    pub(crate) fn counts(&self, queues: &[QueueInfo]) -> Vec<SynCookieCounts> {
        queues
            .iter()
            .zip(self.gauges.iter())
            .map(|(info, gauge)| gauge.counts(info.queue))
            .collect()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs until `orders` closes, and turns cookies off then, unless it was paused.
fn run<B: CookieBackend>(controller: &mut Controller<B>, heard: &Receiver<()>, orders: &Receiver<Order>) {
    loop {
        let timer = match controller.pause(Instant::now(), unix_time()) {
            Some(pause) => channel::after(pause),
            None => channel::never(),
        };
        select! {
            recv(heard) -> _ => controller.rung(Instant::now(), unix_time()),
            recv(orders) -> order => match order {
                Ok(Order::Mode(mode)) => controller.set_mode(mode, Instant::now(), unix_time()),
                Ok(Order::Pause(paused)) => {
                    // Nobody waits for longer than this process lives.
                    let _ = paused.send(());
                    let Some(mode) = wait_for_resumption(orders) else { return };
                    controller.take_back(Instant::now(), unix_time());
                    if let Some(mode) = mode {
                        controller.set_mode(mode, Instant::now(), unix_time());
                    }
                }
                Ok(Order::Resume) => {}
                Err(_) => break,
            },
            recv(timer) -> _ => controller.step(Instant::now(), unix_time()),
        }
    }
    controller.end();
}

/// Waits for [`Order::Resume`]. Returns the mode that was ordered meanwhile; `None`: the thread is to end.
fn wait_for_resumption(orders: &Receiver<Order>) -> Option<Option<CookieMode>> {
    let mut mode = None;
    loop {
        match orders.recv().ok()? {
            Order::Mode(ordered) => mode = Some(ordered),
            Order::Pause(paused) => {
                let _ = paused.send(());
            }
            Order::Resume => return Some(mode),
        }
    }
}

/// The time since 1970, by which all hosts cut their epochs.
fn unix_time() -> Duration {
    // A clock before 1970 cannot agree with that of other hosts anyway.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
