//! The log: which of it is wanted, where it goes, and what of it is said once.

use std::collections::HashSet;
use std::env;
use std::fmt::{self, Write as _};
use std::io::{IsTerminal, Write as _};
use std::panic::{self, PanicHookInfo};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use clap::ValueEnum;
use serde::Deserialize;
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::output;

/// Goes over `-v` and `--quiet` for what it names: a filter such as `debug` or `tidegate_runtime=trace`.
const LOG_VARIABLE: &str = "TIDEGATE_LOG";

/// Messages that are remembered so that they are not repeated; with more, all are forgotten.
const MAX_SAID: usize = 256;

/// The messages since [`WithoutRepeats`] was made; `None`: repeats are allowed.
static SAID: Mutex<Option<HashSet<String>>> = Mutex::new(None);

/// The form of the log; text until it is known.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// The messages that are wanted of the log that runs.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// The form of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A line that is a JSON object.
    Json,
}

/// The least important messages that are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    /// Reasons for the server to end.
    Error,
    /// The findings that deserve a look.
    #[default]
    Warn,
    /// Rare events.
    Info,
    /// Details for finding an error.
    Debug,
    /// Everything.
    Trace,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// The log: the table `[log]` of the configuration file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogConfig {
    /// The form of a message.
    pub(crate) format: LogFormat,
    /// The least important messages that are logged.
    pub(crate) level: LogLevel,
}

impl LogConfig {
    /// Puts `-v`, as often as `verbose` says, and `--quiet` in the place of the level.
    pub(crate) fn take(&mut self, format: Option<LogFormat>, verbose: u8, quiet: bool) {
        self.format = format.unwrap_or(self.format);
        self.level = match (quiet, verbose) {
            (true, _) => LogLevel::Error,
            (false, 0) => self.level,
            (false, 1) => LogLevel::Info,
            (false, 2) => LogLevel::Debug,
            (false, _) => LogLevel::Trace,
        };
    }
}

/// Has errors told in this form from now on. It stays as it was first set.
pub(crate) fn set_format(format: LogFormat) {
    let _ = FORMAT.set(format);
}

/// Begins to log, to standard error.
pub(crate) fn start(config: &LogConfig) {
    set_format(config.format);
    let (filter, handle) = reload::Layer::new(filter_of(config.level));
    let is_terminal = std::io::stderr().is_terminal();
    Registry::default()
        .with(filter)
        .with(layer(config.format, is_terminal, || output::Log))
        .with(Repeats)
        .init();
    let _ = FILTER.set(handle);
    // Otherwise a panic would be written to standard error at once, where a shard might have to wait.
    panic::set_hook(Box::new(log_panic));
}

/// Logs what `text`, a level or a filter such as `warn,tidegate_runtime=debug`, lets through from now on.
///
/// # Errors
///
/// A sentence about what cannot be read.
pub(crate) fn set_filter(text: &str) -> Result<(), String> {
    let wanted = parse(text)?;
    let Some(filter) = FILTER.get() else { return Ok(()) };
    filter.reload(wanted).map_err(|error| error.to_string())
}

fn parse(text: &str) -> Result<EnvFilter, String> {
    let filter = EnvFilter::builder().parse(text.trim());
    filter.map_err(|error| {
        format!(
            "`{text}` is no log level: {error}; write error, warn, info, debug or trace, or for a part of the program \
             such as `warn,tidegate_runtime=debug`"
        )
    })
}

/// Logs `level` from now on, but for what the variable `TIDEGATE_LOG` names.
pub(crate) fn set_level(level: LogLevel) {
    if let Some(filter) = FILTER.get() {
        // It fails only where the log is gone.
        let _ = filter.reload(filter_of(level));
    }
}

fn layer<S, W>(format: LogFormat, ansi: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Text => layer.with_ansi(ansi).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

fn filter_of(level: LogLevel) -> EnvFilter {
    filter(level.into(), &env::var(LOG_VARIABLE).unwrap_or_default())
}

/// `level`, but for what `variable` names.
fn filter(level: LevelFilter, variable: &str) -> EnvFilter {
    EnvFilter::builder().parse_lossy(format!("{level},{variable}"))
}

/// Panics are told of whatever the filter is.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    tell_error(format_args!("thread {name} {panic}"));
}

/// Tells of what ends the program, or a thread of it, whatever the filter is.
pub(crate) fn tell_error(error: fmt::Arguments<'_>) {
    let line = error_line(FORMAT.get().copied().unwrap_or_default(), error);
    // With standard error closed there is nobody left to tell.
    let _ = output::Log.write(line.as_bytes());
}

fn error_line(format: LogFormat, error: fmt::Arguments<'_>) -> String {
    match format {
        LogFormat::Text => format!("tidegate: error: {error}\n"),
        LogFormat::Json => {
            let mut timestamp = String::new();
            // Writing to a string does not fail.
            let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
            let message = error.to_string();
            let line = json!({"timestamp": timestamp, "level": "ERROR", "message": message, "target": "tidegate"});
            format!("{line}\n")
        }
    }
}

/// While this lives, nothing is logged twice.
pub(crate) struct WithoutRepeats(());

impl WithoutRepeats {
    /// Forgets what was said before.
    pub(crate) fn new() -> Self {
        *said() = Some(HashSet::new());
        Self(())
    }
}

impl Drop for WithoutRepeats {
    fn drop(&mut self) {
        *said() = None;
    }
}

fn said() -> MutexGuard<'static, Option<HashSet<String>>> {
    SAID.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether `text` is to be logged: not if it was, while somebody minds.
fn is_news(said: &mut Option<HashSet<String>>, text: String) -> bool {
    let Some(said) = said else { return true };
    if said.contains(&text) {
        return false;
    }
    if said.len() >= MAX_SAID {
        said.clear();
    }
    said.insert(text)
}

/// Holds back what was said before.
struct Repeats;

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        if said().is_none() {
            return true;
        }
        let mut text = Text(event.metadata().target().to_owned());
        event.record(&mut text);
        is_news(&mut said(), text.0)
    }
}

/// An event's fields, the message among them.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use tracing::{Level, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(text)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_the_variable_does_not_name_keeps_its_level() {
        let enabled = |variable: &str| {
            let subscriber = tracing_subscriber::fmt()
                .with_env_filter(filter(LevelFilter::WARN, variable))
                .finish();
            tracing::subscriber::with_default(subscriber, || {
                [
                    tracing::enabled!(target: "tidegate_runtime::xdp", Level::DEBUG),
                    tracing::enabled!(target: "tidegate_apps::http", Level::WARN),
                    tracing::enabled!(target: "tidegate::serve", Level::WARN),
                    tracing::enabled!(target: "tidegate::serve", Level::INFO),
                ]
            })
        };
        assert_eq!(enabled(""), [false, true, true, false]);
        assert_eq!(enabled("tidegate_runtime=debug"), [true, true, true, false]);
        assert_eq!(enabled("info"), [false, true, true, true]);
        assert_eq!(enabled("tidegate=off,tidegate::serve=info"), [false, false, true, true]);
        assert_eq!(enabled("off,tidegate_runtime=debug"), [true, false, false, false]);
    }

    #[test]
    fn a_level_that_is_none_is_refused_with_those_there_are() {
        for good in ["info", "off", "warn,tidegate_runtime=debug"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        let error = parse("tidegate_runtime=loud").map(|_| ()).unwrap_err();
        assert!(
            error.contains("`tidegate_runtime=loud`") && error.contains("trace"),
            "{error}"
        );
    }

    #[test]
    fn arguments_win_over_the_table() {
        let with = |format, verbose, quiet| {
            let mut config = LogConfig {
                level: LogLevel::Info,
                ..LogConfig::default()
            };
            config.take(format, verbose, quiet);
            (config.format, config.level)
        };
        assert_eq!(with(None, 0, false), (LogFormat::Text, LogLevel::Info));
        assert_eq!(with(Some(LogFormat::Json), 0, true), (LogFormat::Json, LogLevel::Error));
        assert_eq!(with(None, 2, false), (LogFormat::Text, LogLevel::Debug));
    }

    #[test]
    fn every_line_of_json_is_an_object_whatever_is_said() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = Registry::default().with(layer(LogFormat::Json, true, move || writer.clone()));
        let odd = "a \"quoted\" \u{1b}[31m line\nand another";
        tracing::subscriber::with_default(subscriber, || warn!(queue = 3, "{odd}"));
        let mut text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text += &error_line(LogFormat::Json, format_args!("{odd}"));
        let values: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(values.len(), 2, "{text}");
        for value in &values {
            assert_eq!(value["message"], odd);
            assert!(value["timestamp"].as_str().unwrap().ends_with('Z'), "{text}");
        }
        assert_eq!((&values[0]["level"], &values[0]["queue"]), (&"WARN".into(), &3.into()));
        assert_eq!(values[1]["level"], "ERROR");
        let text = error_line(LogFormat::Text, format_args!("{odd}"));
        assert_eq!(text, format!("tidegate: error: {odd}\n"));
    }

    #[test]
    fn repeats_are_held_back_for_as_long_as_somebody_minds() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .finish()
            .with(Repeats);
        tracing::subscriber::with_default(subscriber, || {
            let say = || {
                for number in [1, 2] {
                    warn!("reason {number}");
                }
            };
            for _ in 0..2 {
                let _quiet = WithoutRepeats::new();
                (0..3).for_each(|_| say());
            }
            (0..3).for_each(|_| say());
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        for reason in ["reason 1", "reason 2"] {
            assert_eq!(text.matches(reason).count(), 1 + 1 + 3, "{text}");
        }
    }

    #[test]
    fn a_bounded_number_of_messages_is_remembered() {
        let mut said = Some(HashSet::new());
        for number in 0..10 * MAX_SAID {
            assert!(is_news(&mut said, number.to_string()));
            assert!(!is_news(&mut said, number.to_string()));
        }
        assert!(said.is_some_and(|said| said.len() <= MAX_SAID));
        assert!(is_news(&mut None, String::new()));
    }
}
