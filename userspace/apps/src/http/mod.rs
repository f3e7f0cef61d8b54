//! The HTTP/1.1 service (RFC 9110, RFC 9112): files from a directory, or one built-in page.

mod access;
mod body;
mod cache;
mod chunk_extension;
mod conditional;
mod config;
mod connection;
mod counters;
mod date;
mod etag;
mod fields;
mod files;
mod handler;
mod head;
mod host;
mod open_files;
mod pace;
mod prepared;
mod range;
mod representation;
mod request;
mod response;
mod status;
mod store;
mod target;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::{io, mem};

use bytes::{Bytes, BytesMut};
use tidegate_tcp::application::{Application, CloseReason, Stream};
use tidegate_tcp::histogram::Histogram;

pub use self::access::{AccessLog, AccessRecord, AccessSink};
pub use self::config::Config;
pub use self::connection::Connection;
pub use self::counters::{Counter, Counters};

use self::access::Access;
use self::date::Clock;
use self::files::Root;
use self::prepared::Prepared;
use self::representation::{BUILT_IN_PAGE, Representation};
use self::store::Store;

/// Size of the blocks that response heads are cut from. A head keeps its block until the peer has acknowledged it, so
/// a larger one costs memory with slow peers, and a smaller one costs allocations with fast ones.
const HEAD_BLOCK: usize = 4 << 10;

/// The reason the HTTP service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A setting is out of its range; the text names it.
    #[error("{0}")]
    Config(String),
    /// The root cannot be served.
    #[error("cannot serve files from {}: {error}; give a root directory that can be read", .path.display())]
    Root {
        /// The directory that was asked for.
        path: PathBuf,
        /// The kernel's error.
        error: io::Error,
    },
}

/// The HTTP service of one shard.
pub struct Http {
    config: Config,
    source: Source,
    clock: Clock,
    counters: Counters,
    response_time: Histogram,
    heads: BytesMut,
    draining: bool,
    /// `None`: requests are not logged.
    access: Option<Access>,
}

/// The source of what is served.
enum Source {
    /// One page at `/`.
    BuiltInPage(Prepared),
    Files(Box<Store>),
}

impl Source {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::BuiltInPage(_), Self::BuiltInPage(_)) => true,
            (Self::Files(one), Self::Files(other)) => one.has_root_of(other),
            _ => false,
        }
    }
}

impl Http {
    /// An HTTP service with the given settings.
    ///
    /// # Errors
    ///
    /// A setting is out of its range, or the root directory cannot be opened.
    pub fn new(config: Config) -> Result<Self, SetupError> {
        config
            .validate()
            .map_err(|error| SetupError::Config(error.to_string()))?;
        let source = match &config.root {
            None => Source::BuiltInPage(Prepared::in_memory(
                Bytes::from_static(BUILT_IN_PAGE),
                Representation::built_in_page,
            )),
            Some(path) => {
                let root = Root::open(path).map_err(|error| SetupError::Root {
                    path: path.clone(),
                    error,
                })?;
                Source::Files(Box::new(Store::new(root, &config)))
            }
        };
        Ok(Self {
            config,
            source,
            clock: Clock::new(),
            counters: Counters::default(),
            response_time: Histogram::default(),
            heads: BytesMut::with_capacity(HEAD_BLOCK),
            draining: false,
            access: None,
        })
    }

    /// Works as `other` does from now on, and counts on. Responses under way are sent as they began. Returns what is
    /// not needed any more. Files of the same directory stay in the cache if nothing else has changed.
    pub fn work_as(&mut self, mut other: Self) -> Self {
        mem::swap(&mut self.config, &mut other.config);
        mem::swap(&mut self.access, &mut other.access);
        if self.config != other.config || !self.source.is_same(&other.source) {
            mem::swap(&mut self.source, &mut other.source);
        }
        other
    }

    /// Logs requests that begin from now on to `log`, or none.
    pub fn set_access_log(&mut self, log: Option<AccessLog>) {
        self.access = log.map(Access::new);
    }

    /// The counters since this value was made.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The times from a request's last octet, or its refusal, to when all of its response had been given to the stream,
    /// disk and peer included. A response that is kept in memory and finds room at once counts as 0.
    pub fn response_time(&self) -> &Histogram {
        &self.response_time
    }
}

impl Application for Http {
    type Connection = Connection;

    fn open<S: Stream>(&mut self, stream: &mut S) -> Connection {
        Connection::open(self, stream)
    }

    fn receive<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S, data: &[u8]) -> usize {
        connection.receive(self, stream, data)
    }

    fn end_of_stream<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        connection.end_of_stream(self, stream);
    }

    fn writable<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        connection.writable(self, stream);
    }

    fn timeout<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        connection.timeout(self, stream);
    }

    fn drain<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        self.draining = true;
        connection.drain(self, stream);
    }

    fn closed(&mut self, connection: Connection, _reason: CloseReason) {
        // The response it was sent holds the file.
        drop(connection);
        if let Source::Files(store) = &mut self.source {
            store.forget_sent();
        }
    }
}
