//! The subject that is measured: something that answers bursts of frames.

use std::fs;
use std::io;

use tempfile::TempDir;
use tidegate_abi::siphash::Key;
use tidegate_apps::{ServiceKind, Services, discard, echo, http};
use tidegate_tcp::application::Application;
use tidegate_tcp::config::MAX_DURATION;
use tidegate_tcp::engine::{OnNoFlow, Secrets};
use tidegate_tcp::time::Instant;
use tidegate_tcp::{Config, Engine};

use crate::addresses::SERVER;
use crate::frames::{Burst, Frames};

/// An HTTP server at [`SERVER`].
pub trait Server {
    /// Processes a burst of frames and puts what it sends into `out`. Nothing else belongs into this method: its time
    /// is what is measured.
    fn deliver(&mut self, now: Instant, burst: Burst<'_>, out: &mut Frames);
}

/// Gives an engine a burst of frames, as a shard does between two looks at its rings.
///
/// All that is measured goes through here.
#[inline]
pub fn deliver<A: Application>(engine: &mut Engine<A>, now: Instant, burst: Burst<'_>, out: &mut Frames) {
    engine.receive_burst(now, burst.iter(), OnNoFlow::Reject, out, |_, _| {});
    engine.poll(now, out);
}

/// Secrets that make every run the same.
pub(crate) fn secrets(number: u64) -> Secrets {
    Secrets {
        isn: Key(number, 2),
        table: Key(3, number),
    }
}

/// The page served at `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// A file of 100 bytes, from the cache.
    SmallFile,
    /// The page of more than a thousand bytes that is served without a root directory.
    BuiltIn,
}

/// The content of [`Page::SmallFile`].
const SMALL_FILE: &[u8; 100] = &[b'x'; 100];

/// The engine with the HTTP service.
pub struct EngineServer {
    engine: Engine<Services>,
    /// Removed with the server; the page is read from it at the first request.
    _root: Option<TempDir>,
}

impl EngineServer {
    /// An engine that serves [`Page::SmallFile`], with room for so many connections, half-open or open, and so many in
    /// TIME-WAIT. Other settings are those it has by default; checksums are verified.
    ///
    /// # Panics
    ///
    /// If one of the numbers is 0 or above 2^28, or the page cannot be put into a temporary directory.
    pub fn new(connections: u32, time_wait: u32) -> Self {
        Self::with_page(Page::SmallFile, connections, time_wait)
    }

    /// The same with another page.
    ///
    /// # Panics
    ///
    /// As [`EngineServer::new`].
    pub fn with_page(page: Page, connections: u32, time_wait: u32) -> Self {
        let config = Config {
            max_connections: connections,
            max_half_open: connections,
            max_time_wait: time_wait,
            ..Config::default()
        };
        let root = (page == Page::SmallFile).then(|| {
            root_directory().unwrap_or_else(|error| {
                panic!(
                    "cannot write a page to serve into {}: {error}; set TMPDIR to a directory that can be written",
                    std::env::temp_dir().display()
                )
            })
        });
        let http = http::Config {
            root: root.as_ref().map(|root| root.path().to_owned()),
            // A connection is not closed because it was measured for long.
            keepalive_requests: u32::MAX,
            // The disk is not part of what is measured.
            cache_revalidate: MAX_DURATION,
            ..http::Config::default()
        };
        let services = Services::new(
            vec![ServiceKind::Http],
            echo::Config::default(),
            discard::Config::default(),
            http,
        )
        .unwrap_or_else(|error| panic!("{error}"));
        let mut engine = Engine::new(config, secrets(1), services);
        engine.listen(SERVER);
        Self { engine, _root: root }
    }

    /// The engine.
    pub fn engine(&self) -> &Engine<Services> {
        &self.engine
    }

    /// The engine.
    pub fn engine_mut(&mut self) -> &mut Engine<Services> {
        &mut self.engine
    }
}

impl Server for EngineServer {
    #[inline]
    fn deliver(&mut self, now: Instant, burst: Burst<'_>, out: &mut Frames) {
        deliver(&mut self.engine, now, burst, out);
    }
}

/// A directory with [`SMALL_FILE`] in it.
fn root_directory() -> io::Result<TempDir> {
    let root = tempfile::tempdir()?;
    fs::write(root.path().join("index.html"), SMALL_FILE)?;
    Ok(root)
}
