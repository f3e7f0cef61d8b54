//! Several services in one application: each listener has the one it was given.

use tidegate_tcp::application::{Application, CloseReason, ListenerId, Stream};
use tidegate_tcp::histogram::Histogram;

use crate::discard::{self, Discard};
use crate::echo::{self, Echo};
use crate::http::{self, Http};

/// The service of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceKind {
    /// Sends back what arrives (RFC 862).
    Echo,
    /// Throws away what arrives (RFC 863).
    Discard,
    /// HTTP/1.1: files or the built-in page.
    Http,
}

impl ServiceKind {
    /// All services.
    pub const ALL: [Self; 3] = [Self::Http, Self::Echo, Self::Discard];

    /// The name on the command line and in the configuration file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Echo => "echo",
            Self::Discard => "discard",
        }
    }
}

/// The applications of one shard, chosen per connection by its listener.
pub struct Services {
    services: Vec<ServiceKind>,
    echo: Echo,
    discard: Discard,
    http: Http,
}

/// A connection of one of the services.
pub enum Connection {
    /// A connection of the echo service.
    Echo(echo::Connection),
    /// A connection of the discard service.
    Discard(discard::Connection),
    /// A connection of the HTTP service. What outlives a callback is boxed inside, so idle it is a few words.
    Http(http::Connection),
    /// A connection of no known listener; it is aborted when it opens.
    Unserved,
}

/// The counters of all services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// The echo service's counters.
    pub echo: echo::Counters,
    /// The discard service's counters.
    pub discard: discard::Counters,
    /// The HTTP service's counters.
    pub http: http::Counters,
}

impl Counters {
    /// Adds all of `other`, for totals over shards.
    pub fn merge(&mut self, other: &Self) {
        self.echo.merge(&other.echo);
        self.discard.merge(&other.discard);
        self.http.merge(&other.http);
    }

    /// Name and value of every counter.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.described().map(|(name, _, value)| (name, value))
    }

    /// Name, description and value of every counter.
    pub fn described(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        let echo = self.echo.iter();
        let echo = echo.map(|(counter, value)| (counter.name(), counter.description(), value));
        let discard = self.discard.iter();
        let discard = discard.map(|(counter, value)| (counter.name(), counter.description(), value));
        let http = self.http.iter();
        let http = http.map(|(counter, value)| (counter.name(), counter.description(), value));
        echo.chain(discard).chain(http)
    }
}

impl Services {
    /// The services of one shard; `services[n]` is what the listener with [`ListenerId`] `n` serves.
    ///
    /// # Errors
    ///
    /// Those of [`Http::new`].
    pub fn new(
        services: Vec<ServiceKind>,
        echo: echo::Config,
        discard: discard::Config,
        http: http::Config,
    ) -> Result<Self, http::SetupError> {
        Ok(Self {
            services,
            echo: Echo::new(echo),
            discard: Discard::new(discard),
            http: Http::new(http)?,
        })
    }

    /// Serves as `other` does from now on, connections there are as well, and counts on. Returns what is not needed any
    /// more; to drop it may take long.
    pub fn serve_as(&mut self, other: Self) -> http::Http {
        self.services = other.services;
        self.echo.work_as(other.echo);
        self.discard.work_as(other.discard);
        self.http.work_as(other.http)
    }

    /// Logs requests of the HTTP service that begin from now on to `log`, or none.
    pub fn set_access_log(&mut self, log: Option<http::AccessLog>) {
        self.http.set_access_log(log);
    }

    /// The counters of all services since this value was made.
    pub fn counters(&self) -> Counters {
        Counters {
            echo: self.echo.counters().clone(),
            discard: self.discard.counters().clone(),
            http: self.http.counters().clone(),
        }
    }

    /// The response times of the HTTP service, see [`Http::response_time`].
    pub fn response_time(&self) -> &Histogram {
        self.http.response_time()
    }

    fn service(&self, listener: Option<ListenerId>) -> Option<ServiceKind> {
        self.services.get(usize::from(listener?.0)).copied()
    }
}

impl Application for Services {
    type Connection = Connection;

    fn open<S: Stream>(&mut self, stream: &mut S) -> Connection {
        match self.service(stream.listener()) {
            Some(ServiceKind::Echo) => Connection::Echo(self.echo.open(stream)),
            Some(ServiceKind::Discard) => Connection::Discard(self.discard.open(stream)),
            Some(ServiceKind::Http) => Connection::Http(self.http.open(stream)),
            None => {
                stream.abort();
                Connection::Unserved
            }
        }
    }

    fn receive<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S, data: &[u8]) -> usize {
        match connection {
            Connection::Echo(connection) => self.echo.receive(connection, stream, data),
            Connection::Discard(connection) => self.discard.receive(connection, stream, data),
            Connection::Http(connection) => self.http.receive(connection, stream, data),
            Connection::Unserved => data.len(),
        }
    }

    fn end_of_stream<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        match connection {
            Connection::Echo(connection) => self.echo.end_of_stream(connection, stream),
            Connection::Discard(connection) => self.discard.end_of_stream(connection, stream),
            Connection::Http(connection) => self.http.end_of_stream(connection, stream),
            Connection::Unserved => {}
        }
    }

    fn writable<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        match connection {
            Connection::Echo(connection) => self.echo.writable(connection, stream),
            Connection::Discard(connection) => self.discard.writable(connection, stream),
            Connection::Http(connection) => self.http.writable(connection, stream),
            Connection::Unserved => {}
        }
    }

    fn timeout<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        match connection {
            Connection::Echo(connection) => self.echo.timeout(connection, stream),
            Connection::Discard(connection) => self.discard.timeout(connection, stream),
            Connection::Http(connection) => self.http.timeout(connection, stream),
            Connection::Unserved => {}
        }
    }

    fn drain<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        match connection {
            Connection::Echo(connection) => self.echo.drain(connection, stream),
            Connection::Discard(connection) => self.discard.drain(connection, stream),
            Connection::Http(connection) => self.http.drain(connection, stream),
            Connection::Unserved => {}
        }
    }

    fn closed(&mut self, connection: Connection, reason: CloseReason) {
        match connection {
            Connection::Echo(connection) => self.echo.closed(connection, reason),
            Connection::Discard(connection) => self.discard.closed(connection, reason),
            Connection::Http(connection) => self.http.closed(connection, reason),
            Connection::Unserved => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Driver, End, MockStream};

    fn services() -> Services {
        Services::new(
            vec![ServiceKind::Echo, ServiceKind::Http, ServiceKind::Discard],
            echo::Config::default(),
            discard::Config::default(),
            http::Config::default(),
        )
        .unwrap()
    }

    fn open(listener: Option<ListenerId>) -> Driver<Services> {
        let mut stream = MockStream::new(1 << 20);
        stream.listener = listener;
        Driver::with_stream(services(), stream)
    }

    #[test]
    fn the_listener_decides_what_is_served() {
        let mut echo = open(Some(ListenerId(0)));
        echo.feed(b"GET / HTTP/1.0\r\n\r\n");
        assert_eq!(echo.take_sent(), b"GET / HTTP/1.0\r\n\r\n");

        let mut http = open(Some(ListenerId(1)));
        http.feed(b"GET / HTTP/1.0\r\n\r\n");
        assert!(http.take_sent().starts_with(b"HTTP/1.1 200 OK\r\n"));

        let mut discard = open(Some(ListenerId(2)));
        discard.feed(b"GET / HTTP/1.0\r\n\r\n");
        assert!(discard.take_sent().is_empty());
        assert_eq!(discard.stream.end, End::Open);
    }

    #[test]
    fn a_connection_of_an_unknown_listener_is_aborted() {
        for listener in [None, Some(ListenerId(3))] {
            let mut driver = open(listener);
            assert_eq!(driver.stream.end, End::Aborted);
            driver.feed(b"anything");
            assert!(driver.take_sent().is_empty());
        }
    }

    #[test]
    fn an_idle_connection_is_small() {
        assert!(
            size_of::<http::Connection>() <= 24,
            "{} bytes",
            size_of::<http::Connection>()
        );
        assert!(size_of::<Connection>() <= 32, "{} bytes", size_of::<Connection>());
    }

    #[test]
    fn counters_of_all_services_are_listed_once() {
        let mut driver = open(Some(ListenerId(0)));
        driver.feed(b"12345");
        let mut counters = driver.application.counters();
        let copy = counters.clone();
        counters.merge(&copy);
        let mut names: Vec<_> = counters.iter().map(|(name, _)| name).collect();
        let listed = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), listed);
        assert!(counters.iter().any(|(name, value)| name == "echo_bytes" && value == 10));
    }
}
