//! `tidegate serve`: start, watch, stop.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_abi::MAX_QUEUES;
use tidegate_apps::{ServiceKind, Services};
use tidegate_runtime::{CookieMode, Error, LinkGone, Listener, Report, Runtime, interface_info};
use tracing::warn;

use crate::access_log::AccessLog;
use crate::admin::{self, Admin};
use crate::counter_rows::{Row, counter_rows};
use crate::counters_text::counters_text;
use crate::drain::Drain;
use crate::executable;
use crate::failure::Failure;
use crate::kernel_listeners;
use crate::listen::Listen;
use crate::log::WithoutRepeats;
use crate::main_loop::{self, Calls, MainLoop};
use crate::nic::{Tuning, tune};
use crate::open_files;
use crate::output;
use crate::privileges;
use crate::rates::Totals;
use crate::reload;
use crate::say;
use crate::service_counters::{Published, PublishingServices};
use crate::service_manager::{self, Watchdog};
use crate::settings::Settings;
use crate::signals::{self, Event, SignalEvents};
use crate::taken_over::TakenOver;

/// The time between two checks of the shards and the interface; signals are answered at once.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// The time between two searches for an interface that is gone.
const RETURN_INTERVAL: Duration = Duration::from_millis(500);

/// Serves until a signal asks to stop, then drains and prints the counters.
///
/// # Errors
///
/// The runtime could not be started, one of its shards failed, its interface is gone, or it could not be stopped in
/// order.
pub(crate) fn run(given: &Settings, quiet: bool) -> Result<(), Failure> {
    executable::remember();
    let signals = signals::watch().map_err(|source| Failure::System {
        what: "cannot install the signal handlers".to_owned(),
        source,
    })?;
    for finding in kernel_listeners::findings(&given.config.listen) {
        warn!("{}", finding.sentence);
    }
    let (caller, calls) = main_loop::calls(signals.waker());
    let access_log = AccessLog::start(&given.config.access_log)?;
    access_log.publish();
    // Put back when this function is left, however that is.
    let mut prepared = Prepared::new(given.clone(), access_log)?;
    let mut rates = given.stats_interval.map(Rates::new);
    let mut past = Past::default();
    let mut drain = Drain::default();
    // Another process has the path and the address below until this one has taken over from it.
    let may_take_over = given.config.afxdp.take_over.is_some();
    // Made before privileges are given up. Removed when this function is left.
    let mut control = given.config.control.open(&caller)?;
    let mut publish = |replaces| control.as_mut().map_or(Ok(()), |socket| socket.publish(replaces));
    if !may_take_over {
        publish(false)?;
    }
    let start_admin = |takes_over| match given.config.admin {
        Some(address) => Admin::start(address, &given.config, &caller, takes_over).map(Some),
        None => Ok(None),
    };
    let mut admin = if may_take_over { None } else { start_admin(false)? };
    let mut serving = Serving::start(&prepared, &past)?;
    let takes_over = serving.runtime.has_taken_over();
    if may_take_over {
        end_or_warn(takes_over, publish(takes_over))?;
        admin = end_or_warn(takes_over, start_admin(takes_over))?;
    }
    prepared.admin_listener = admin.as_ref().and_then(Admin::listener);
    loop {
        serving.announce(&prepared.settings, admin.as_ref(), quiet);
        match serving.serve(&mut prepared, &signals, &calls, &past, rates.as_mut(), &mut drain) {
            Ok(()) => {
                if !quiet {
                    say("tidegate: stopping\n");
                }
                admin.iter().for_each(Admin::note_stopping);
                if !serving.runtime.is_taken_over() {
                    service_manager::stopping(prepared.given.config.drain);
                }
                let drained = serving.runtime.drain(prepared.given.config.drain, &signals.stop_now);
                say(&serving.stop(&past)?.text());
                return drained.map_err(Failure::from);
            }
            Err(error) => {
                let Some(lost) = error.lost_link() else {
                    return Err(error.into());
                };
                // Nobody can be told any more, so there is nothing to wait for.
                past = serving.stop(&past)?;
                if prepared.given.config.afxdp.link_gone == LinkGone::Exit {
                    say(&past.text());
                    return Err(error.into());
                }
                let waiting = format!(
                    "{lost}; waiting until {} can be served again",
                    given.interfaces.join(" and ")
                );
                service_manager::status(&waiting);
                warn!("{waiting}");
            }
        }
        match wait_for_return(&mut prepared, &signals, &calls, &past, &mut drain) {
            Some(again) => serving = again,
            None => {
                say(&past.text());
                return Ok(());
            }
        }
    }
}

/// The settings to serve by, and what was made ready for that.
struct Prepared {
    given: Settings,
    /// With the queues that were prepared.
    settings: Settings,
    tuning: Option<Tuning>,
    access_log: AccessLog,
    /// Closed when another process takes over.
    admin_listener: Option<TcpListener>,
}

impl Prepared {
    fn new(given: Settings, access_log: AccessLog) -> Result<Self, Failure> {
        let mut prepared = Self {
            settings: given.clone(),
            given,
            tuning: None,
            access_log,
            admin_listener: None,
        };
        prepared.tune()?;
        Ok(prepared)
    }

    /// Prepares the devices, if they are to be.
    fn tune(&mut self) -> Result<(), Failure> {
        let given = &self.given;
        let tuning = given.tune.as_ref().map(|directory| tune(given, directory));
        self.tuning = tuning.transpose()?;
        if let Some(tuning) = &self.tuning {
            self.settings.config.afxdp.queues = Some(tuning.queues);
        }
        Ok(())
    }

    /// Prepares devices again that have come back as their drivers made them.
    fn renew(&mut self) -> Result<(), Failure> {
        if self.given.tune.is_none() || self.tuning.as_ref().is_some_and(|tuning| !tuning.is_stale()) {
            return Ok(());
        }
        // Before it is made anew: it has the locks, and puts back what is left to be put back.
        self.tuning = None;
        self.tune()
    }

    /// The state that calls from other threads see and change.
    fn main_loop<'a>(
        &'a mut self,
        serving: Option<&'a mut Serving>,
        past: &'a Past,
        drain: &'a mut Drain,
    ) -> MainLoop<'a> {
        MainLoop {
            serving,
            past,
            drain,
            given: &mut self.given,
            settings: &mut self.settings,
            access_log: &mut self.access_log,
        }
    }
}

/// Waits until the interface is there, and serves on it. `None` when a signal asks to stop before that.
fn wait_for_return(
    prepared: &mut Prepared,
    signals: &SignalEvents,
    calls: &Calls,
    past: &Past,
    drain: &mut Drain,
) -> Option<Serving> {
    // What is in the way is still in the way at the next try.
    let _told_once = WithoutRepeats::new();
    loop {
        service_manager::feed_without_shards();
        match signals.next(RETURN_INTERVAL) {
            Some(Event::Stop) => return None,
            Some(Event::Report) => say(&past.text()),
            Some(Event::Drain) => drain.ask(),
            Some(Event::Reopen) => reopen(&prepared.access_log),
            Some(Event::Reload) => reload(&mut prepared.main_loop(None, past, drain)),
            None => {}
        }
        calls.make(&mut prepared.main_loop(None, past, drain));
        // A cheap look first: to start takes more, and all that is made for it would be thrown away.
        let interfaces = prepared.given.interfaces.iter();
        let infos = interfaces.map(|interface| interface_info(interface));
        let started = match infos.collect::<Result<Vec<_>, _>>() {
            Err(Error::NoSuchInterface { .. }) => continue,
            Err(error) => Err(error.into()),
            Ok(_) => prepared.renew().and_then(|()| Serving::start(prepared, past)),
        };
        match started {
            Ok(serving) => return Some(serving),
            Err(failure) => warn!(
                "{} is back, but cannot be served yet: {failure}",
                prepared.given.interfaces.join(" and ")
            ),
        }
    }
}

/// The remains of runtimes that are over.
#[derive(Default)]
pub(crate) struct Past {
    pub(crate) report: Option<Report>,
    pub(crate) services: Vec<Arc<Published>>,
    /// The cookie mode that the last one had, which may have been set by a command.
    cookies: Option<CookieMode>,
}

impl Past {
    fn text(&self) -> String {
        self.report
            .as_ref()
            .map_or_else(String::new, |report| counters_of(report, &self.services))
    }
}

/// The counters of `report` and of the services of its shards as text.
fn counters_of(report: &Report, services: &[Arc<Published>]) -> String {
    counters_text(&rows_of(report, services))
}

/// The counters of `report` and of the services of its shards by name.
pub(crate) fn rows_of(report: &Report, services: &[Arc<Published>]) -> Vec<Row> {
    let services: Vec<_> = services.iter().map(|published| published.counts()).collect();
    counter_rows(report, &services, output::lost())
}

/// A running server.
pub(crate) struct Serving {
    pub(crate) runtime: Runtime,
    /// All listeners there ever were, by their numbers, and whether they are served.
    pub(crate) listeners: Vec<(Listen, bool)>,
    /// By shard; and of shards that an earlier runtime had, where this one has fewer.
    pub(crate) services: Vec<Arc<Published>>,
    watchdog: Watchdog,
    taken_over: TakenOver,
}

impl Serving {
    fn start(prepared: &Prepared, past: &Past) -> Result<Self, Failure> {
        let (mut runtime, mut services) = start(&prepared.settings, &past.services, &prepared.access_log)?;
        if let Some(mode) = past.cookies
            && let Err(error) = runtime.set_cookie_mode(mode)
        {
            warn!("SYN cookies are not controlled as before: {error}");
        }
        services.truncate(runtime.queues().len());
        services.extend(past.services.iter().skip(services.len()).cloned());
        let listeners = prepared.settings.config.listen.iter();
        Ok(Self {
            runtime,
            listeners: listeners.map(|&listen| (listen, true)).collect(),
            services,
            watchdog: Watchdog::from_environment(),
            taken_over: TakenOver::new(prepared.settings.config.afxdp.take_over_limit),
        })
    }

    fn announce(&self, settings: &Settings, admin: Option<&Admin>, quiet: bool) {
        if !quiet {
            say(&start_text(&self.runtime, settings));
            if let Some(admin) = admin {
                say(&format!("admin listener on http://{}/\n", admin.address));
            }
        }
        say("tidegate: ready\n");
        service_manager::ready(&format!(
            "serving {} by {} shards",
            settings.interfaces.join(" and "),
            self.runtime.queues().len()
        ));
    }

    /// Serves until a signal asks to stop, or nothing is left to be served after another process has taken over.
    fn serve(
        &mut self,
        prepared: &mut Prepared,
        signals: &SignalEvents,
        calls: &Calls,
        past: &Past,
        mut rates: Option<&mut Rates>,
        drain: &mut Drain,
    ) -> Result<(), Error> {
        drain.begin_anew();
        drain.step(&mut self.runtime);
        loop {
            let wait = rates
                .as_ref()
                .map_or(CHECK_INTERVAL, |rates| rates.until_due().min(CHECK_INTERVAL));
            match signals.next(wait) {
                Some(Event::Stop) => return Ok(()),
                Some(Event::Report) => match self.report(past) {
                    Ok(report) => say(&counters_of(&report, &self.services)),
                    Err(error) => warn!("cannot read the counters: {error}"),
                },
                Some(Event::Drain) => drain.ask(),
                Some(Event::Reopen) => reopen(&prepared.access_log),
                Some(Event::Reload) => reload(&mut prepared.main_loop(Some(&mut *self), past, drain)),
                None => {}
            }
            calls.make(&mut prepared.main_loop(Some(&mut *self), past, drain));
            self.runtime.check()?;
            if self.taken_over.is_finished(&self.runtime) {
                return Ok(());
            }
            if self.runtime.is_taken_over()
                && let Some(listener) = prepared.admin_listener.take()
            {
                admin::close(&listener);
            }
            drain.step(&mut self.runtime);
            // The service is the other process then.
            if !self.runtime.is_taken_over() {
                self.watchdog.feed(|| self.runtime.connections());
            }
            if let Some(rates) = rates.as_mut().filter(|rates| rates.until_due().is_zero()) {
                match self.report(past) {
                    Ok(report) => say(&rates.line(&report)),
                    Err(error) => warn!("cannot read the counters: {error}"),
                }
            }
        }
    }

    /// The counters, those of earlier runtimes included.
    pub(crate) fn report(&self, past: &Past) -> Result<Report, Error> {
        let mut report = self.runtime.report()?;
        past.report.iter().for_each(|earlier| report.add_earlier(earlier));
        Ok(report)
    }

    /// Stops, and returns what was counted until now.
    fn stop(self, past: &Past) -> Result<Past, Failure> {
        let cookies = Some(self.runtime.cookie_mode());
        let mut report = self.runtime.stop()?;
        past.report.iter().for_each(|earlier| report.add_earlier(earlier));
        Ok(Past {
            report: Some(report),
            services: self.services,
            cookies,
        })
    }
}

/// The result of something that can be done without. What fails ends a start, but not a server that has taken over: the
/// one before has given everything away.
fn end_or_warn<T: Default>(has_taken_over: bool, result: Result<T, Failure>) -> Result<T, Failure> {
    match result {
        Err(failure) if has_taken_over => {
            warn!("{failure}; this server has taken over, and serves without it");
            Ok(T::default())
        }
        result => result,
    }
}

/// Starts a runtime. Also returns the services' counters: those of its shards come first, and `before` is added to
/// them.
fn start(
    settings: &Settings,
    before: &[Arc<Published>],
    access_log: &AccessLog,
) -> Result<(Runtime, Vec<Arc<Published>>), Failure> {
    let listeners = listeners(settings);
    // How many queues the device has is not known here. All services that may be needed are made before anything is
    // attached, so that a wrong root directory is found while nothing has happened; the rest is dropped unused.
    let shards = settings.config.afxdp.queues.unwrap_or(MAX_QUEUES);
    let kinds = settings.config.listen.iter().map(|listen| listen.service).collect();
    let made = make_services(settings, kinds, shards, shards_to_start(settings, shards))?;
    let mut services = Vec::new();
    let mut published = Vec::new();
    for (shard, service) in made.into_iter().enumerate() {
        let (service, counters) = PublishingServices::new(service, before.get(shard).map(Arc::as_ref));
        services.push(service);
        published.push(counters);
    }
    let mut services = services.into_iter();
    let runtime_settings = tidegate_runtime::Settings {
        interfaces: &settings.interfaces,
        afxdp: &settings.config.afxdp,
        tcp: &settings.config.tcp,
        syn_cookies: &settings.config.syn_cookies,
        sources: &settings.config.sources,
        balancers: &settings.config.balancers,
        listeners: &listeners,
        remotes: &[],
        opened: privileges::confine,
    };
    let runtime = tidegate_runtime::start(&runtime_settings, |shard| {
        let mut service = services
            .next()
            .expect("there are at most MAX_QUEUES shards, or as many as were asked for");
        service.set_access_log(access_log.of_shard(shard));
        service
    })
    .map_err(|error| Failure::of_start(error, &settings.config.origins))?;
    Ok((runtime, published))
}

/// The services of `count` shards of which `shards` run at once; `kinds` are those of the listeners by number.
///
/// # Errors
///
/// The root cannot be served.
pub(crate) fn make_services(
    settings: &Settings,
    kinds: Vec<ServiceKind>,
    count: u32,
    shards: u32,
) -> Result<Vec<Services>, Failure> {
    if settings.config.http.root.is_some() && !kinds.contains(&ServiceKind::Http) {
        warn!("a root directory is given, but no http listener that would serve it");
    }
    let mut http = settings.config.http.clone();
    if http.root.is_some() {
        http.max_open_files = open_files::for_sending(http.max_open_files, shards);
    }
    let one = |_| {
        let (echo, discard) = (settings.config.echo.clone(), settings.config.discard.clone());
        Services::new(kinds.clone(), echo, discard, http.clone()).map_err(|error| Failure::Usage(error.to_string()))
    };
    (0..count).map(one).collect()
}

/// Opens the access log anew.
fn reopen(access_log: &AccessLog) {
    if let Err(failure) = access_log.reopen() {
        warn!("{failure}; the file that was open is written on");
    }
}

/// Reads the configuration file again, and serves by it.
fn reload(main: &mut MainLoop<'_>) {
    if let Err(error) = reload::reload(main) {
        warn!("the configuration is not reloaded, and what was is served by: {error}");
    }
}

/// What is listened on, and how.
pub(crate) fn listeners(settings: &Settings) -> Vec<Listener> {
    let listeners = settings.config.listen.iter().zip(&settings.listeners);
    listeners
        .map(|(listen, of_listener)| Listener {
            address: listen.address,
            keepalive: Some(of_listener.keepalive),
            congestion: of_listener.congestion,
        })
        .collect()
}

/// As many shards as there will be, or `most` where that cannot be told: why, the runtime says when it is started.
fn shards_to_start(settings: &Settings, most: u32) -> u32 {
    if settings.config.afxdp.queues.is_some() {
        return most;
    }
    let infos = settings.interfaces.iter().map(|interface| interface_info(interface));
    infos
        .map(|info| info.map_or(most, |interface| interface.queues))
        .min()
        .unwrap_or(most)
}

/// One line for each queue, and one for each listener.
fn start_text(runtime: &Runtime, settings: &Settings) -> String {
    let mut text = String::new();
    // One device needs no name: it is the interface that was given.
    let devices = match runtime.devices() {
        [_] => String::new(),
        devices => format!(", devices {}", devices.join(" ")),
    };
    for queue in runtime.queues() {
        let cpu = queue.cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string());
        let copy = if queue.zero_copy { "zero-copy" } else { "copy" };
        let _ = writeln!(
            text,
            "queue {}: cpu {cpu}, xdp {}, af_xdp {copy}, {} frames{devices}",
            queue.queue,
            runtime.attached(),
            queue.frames
        );
    }
    for listen in &settings.config.listen {
        let _ = writeln!(text, "listening on {}: {}", listen.address, listen.service.name());
    }
    text
}

/// The time of the next line of rates, and the counts that the last one began with.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_end_a_start_and_no_server_that_has_taken_over() {
        let failed = || Err::<Option<u8>, _>(Failure::Usage("another server listens there".to_owned()));
        assert!(end_or_warn(false, failed()).is_err());
        assert!(matches!(end_or_warn(true, failed()), Ok(None)));
        assert!(matches!(end_or_warn(true, Ok(Some(7))), Ok(Some(7))));
    }
}
