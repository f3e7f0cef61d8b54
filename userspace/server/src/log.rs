//! The log: which of it is wanted, where it goes, and what of it is said once.

use std::collections::HashSet;
use std::env;
use std::fmt::{self, Write as _};
use std::io::{IsTerminal, Write as _};
use std::panic::{self, PanicHookInfo};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::output;

/// Goes over `-v` and `--quiet` for what it names: a filter such as `debug` or `tidegate_runtime=trace`.
const LOG_VARIABLE: &str = "TIDEGATE_LOG";

/// Messages that are remembered so that they are not repeated; with more, all are forgotten.
const MAX_SAID: usize = 256;

/// The messages since [`WithoutRepeats`] was made; `None`: repeats are allowed.
static SAID: Mutex<Option<HashSet<String>>> = Mutex::new(None);

/// Begins to log, to standard error.
pub(crate) fn start(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, 2) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level, &env::var(LOG_VARIABLE).unwrap_or_default()))
        .with_writer(|| output::Log)
        .with_ansi(std::io::stderr().is_terminal())
        .with_filter_reloading();
    let handle = builder.reload_handle();
    builder.finish().with(Repeats).init();
    let _ = RELOAD.set(Box::new(move |filter| {
        handle.reload(filter).map_err(|error| error.to_string())
    }));
    // Otherwise a panic would be written to standard error at once, where a shard might have to wait.
    panic::set_hook(Box::new(log_panic));
}

/// Replaces the filter.
type Reload = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// Set when logging has begun.
static RELOAD: OnceLock<Reload> = OnceLock::new();

/// Logs what `text`, a level or a filter such as `warn,tidegate_runtime=debug`, lets through from now on.
///
/// # Errors
///
/// A sentence about what cannot be read.
pub(crate) fn set_filter(text: &str) -> Result<(), String> {
    let filter = parse(text)?;
    RELOAD.get().map_or(Ok(()), |reload| reload(filter))
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

/// `level`, but for what `variable` names.
fn filter(level: LevelFilter, variable: &str) -> EnvFilter {
    EnvFilter::builder().parse_lossy(format!("{level},{variable}"))
}

/// Panics are told of whatever the filter is.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    let _ = output::Log.write(format!("tidegate: error: thread {name} {panic}\n").as_bytes());
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
