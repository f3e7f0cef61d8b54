//! `tidegate serve`: start, watch, stop.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use tidegate_abi::MAX_QUEUES;
use tidegate_apps::{ServiceKind, Services};
use tidegate_runtime::{Listener, Report, Runtime, interface_info};
use tracing::warn;

use crate::counters_text::counters_text;
use crate::failure::Failure;
use crate::kernel_listeners;
use crate::open_files;
use crate::rates::Totals;
use crate::say;
use crate::service_counters::{Published, PublishingServices};
use crate::settings::Settings;
use crate::signals::{self, Event};

/// How often the shards are looked after; signals are answered at once.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Serves until a signal asks to stop, then drains and prints the counters.
///
/// # Errors
///
/// The runtime could not be started, one of its shards failed, or it could not be stopped in order.
pub(crate) fn run(settings: &Settings, quiet: bool) -> Result<(), Failure> {
    let signals = signals::watch().map_err(|source| Failure::System {
        what: "cannot install the signal handlers".to_owned(),
        source,
    })?;
    kernel_listeners::warn_about(&settings.listen);
    let (runtime, published) = start(settings)?;
    if !quiet {
        say(&start_text(&runtime, settings));
    }
    say("tidegate: ready\n");

    let mut rates = settings.stats_interval.map(Rates::new);
    loop {
        let wait = rates
            .as_ref()
            .map_or(CHECK_INTERVAL, |rates| rates.until_due().min(CHECK_INTERVAL));
        match signals.events.recv_timeout(wait) {
            Ok(Event::Stop) => break,
            Ok(Event::Report) => match runtime.report() {
                Ok(report) => say(&counters_text(&report, &published)),
                Err(error) => warn!("cannot read the counters: {error}"),
            },
            Err(RecvTimeoutError::Timeout) => {}
            // The thread that sends events lives as long as the process; without it nothing could stop the server.
            Err(RecvTimeoutError::Disconnected) => break,
        }
        runtime.check()?;
        if let Some(rates) = rates.as_mut().filter(|rates| rates.until_due().is_zero()) {
            match runtime.report() {
                Ok(report) => say(&rates.line(&report)),
                Err(error) => warn!("cannot read the counters: {error}"),
            }
        }
    }
    if !quiet {
        say("tidegate: stopping\n");
    }
    let report = runtime.stop(settings.drain, &signals.stop_now)?;
    say(&counters_text(&report, &published));
    Ok(())
}

fn start(settings: &Settings) -> Result<(Runtime, Vec<Arc<Published>>), Failure> {
    let listeners: Vec<Listener> = settings
        .listen
        .iter()
        .zip(&settings.keepalive)
        .map(|(listen, &keepalive)| Listener {
            address: listen.address,
            keepalive: Some(keepalive),
        })
        .collect();
    let kinds: Vec<ServiceKind> = settings.listen.iter().map(|listen| listen.service).collect();
    if settings.http.root.is_some() && !kinds.contains(&ServiceKind::Http) {
        warn!("a root directory is given, but no http listener that would serve it");
    }
    // How many queues the device has is not known here. All services that may be needed are made before anything is
    // attached, so that a wrong root directory is found while nothing has happened; the rest is dropped unused.
    let shards = settings.afxdp.queues.unwrap_or(MAX_QUEUES);
    let mut http = settings.http.clone();
    if http.root.is_some() {
        http.max_open_files = open_files::for_sending(http.max_open_files, shards_to_start(settings, shards));
    }
    let mut services = Vec::new();
    let mut published = Vec::new();
    for _ in 0..shards {
        let service = Services::new(
            kinds.clone(),
            settings.echo.clone(),
            settings.discard.clone(),
            http.clone(),
        )
        .map_err(|error| Failure::Usage(error.to_string()))?;
        let (service, counters) = PublishingServices::new(service);
        services.push(service);
        published.push(counters);
    }
    let mut services = services.into_iter();
    let runtime_settings = tidegate_runtime::Settings {
        interface: &settings.interface,
        afxdp: &settings.afxdp,
        tcp: &settings.tcp,
        syn_cookies: &settings.syn_cookies,
        sources: &settings.sources,
        listeners: &listeners,
        remotes: &[],
    };
    let runtime = tidegate_runtime::start(&runtime_settings, |_| {
        services
            .next()
            .expect("there are at most MAX_QUEUES shards, or as many as were asked for")
    })?;
    published.truncate(runtime.queues().len());
    Ok((runtime, published))
}

/// As many shards as there will be, or `most` where that cannot be told: why, the runtime says when it is started.
fn shards_to_start(settings: &Settings, most: u32) -> u32 {
    if settings.afxdp.queues.is_some() {
        return most;
    }
    interface_info(&settings.interface).map_or(most, |interface| interface.queues)
}

/// One line for each queue, and one for each listener.
fn start_text(runtime: &Runtime, settings: &Settings) -> String {
    let mut text = String::new();
    for queue in runtime.queues() {
        let cpu = queue.cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string());
        let copy = if queue.zero_copy { "zero-copy" } else { "copy" };
        let _ = writeln!(
            text,
            "queue {}: cpu {cpu}, xdp {}, af_xdp {copy}, {} frames",
            queue.queue,
            runtime.attached(),
            queue.frames
        );
    }
    for listen in &settings.listen {
        let _ = writeln!(text, "listening on {}: {}", listen.address, listen.service.name());
    }
    text
}

/// When to print the next line of rates, and what the last one counted from.
struct Rates {
    interval: Duration,
    last: Totals,
    at: Instant,
}

impl Rates {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            last: Totals::default(),
            at: Instant::now(),
        }
    }

    fn until_due(&self) -> Duration {
        self.interval.saturating_sub(self.at.elapsed())
    }

    fn line(&mut self, report: &Report) -> String {
        let now = Totals::of(report);
        let line = now.line_since(&self.last, self.at.elapsed().as_secs_f64());
        self.last = now;
        self.at = Instant::now();
        line
    }
}
