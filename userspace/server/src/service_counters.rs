//! Lets the main thread read the counters of services that run in the shards' threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_apps::http::AccessLog;
use tidegate_apps::{Connection, Services};
use tidegate_tcp::application::{Application, CloseReason, Stream};

/// A copy of one shard's service counters, written by the shard and read by anybody.
pub(crate) struct Published(Vec<CounterCopy>);

struct CounterCopy {
    name: &'static str,
    /// Counted by services of the same shard that are over.
    before: u64,
    value: AtomicU64,
}

impl Published {
    /// Name and value of every counter.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0
            .iter()
            .map(|copy| (copy.name, copy.value.load(Ordering::Relaxed)))
    }

    fn publish(&self, services: &Services) {
        for (copy, (_, value)) in self.0.iter().zip(services.counters().iter()) {
            copy.value.store(copy.before.wrapping_add(value), Ordering::Relaxed);
        }
    }
}

/// [`Services`] that publish their counters when a connection opens, times out or closes, and at the end: the copy is
/// complete when no connection is open, and costs nothing for each segment.
pub(crate) struct PublishingServices {
    services: Services,
    published: Arc<Published>,
}

impl PublishingServices {
    /// Wraps `services`; the second value is where their counters can be read, added to those of services that were
    /// `before` them.
    pub(crate) fn new(services: Services, before: Option<&Published>) -> (Self, Arc<Published>) {
        let mut counted: Vec<u64> =
            before.map_or_else(Vec::new, |before| before.iter().map(|(_, value)| value).collect());
        let counters = services.counters();
        counted.resize(counters.iter().count(), 0);
        let published = Arc::new(Published(
            counters
                .iter()
                .zip(counted)
                .map(|((name, value), before)| CounterCopy {
                    name,
                    before,
                    value: AtomicU64::new(before.wrapping_add(value)),
                })
                .collect(),
        ));
        let wrapped = Self {
            services,
            published: Arc::clone(&published),
        };
        (wrapped, published)
    }

    /// As [`Services::set_access_log`].
    pub(crate) fn set_access_log(&mut self, log: Option<AccessLog>) {
        self.services.set_access_log(log);
    }
}

impl Drop for PublishingServices {
    fn drop(&mut self) {
        self.published.publish(&self.services);
    }
}

impl Application for PublishingServices {
    type Connection = Connection;

    fn open<S: Stream>(&mut self, stream: &mut S) -> Connection {
        let connection = self.services.open(stream);
        self.published.publish(&self.services);
        connection
    }

    fn receive<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S, data: &[u8]) -> usize {
        self.services.receive(connection, stream, data)
    }

    fn end_of_stream<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        self.services.end_of_stream(connection, stream);
    }

    fn writable<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        self.services.writable(connection, stream);
    }

    fn timeout<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        self.services.timeout(connection, stream);
        self.published.publish(&self.services);
    }

    fn drain<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        self.services.drain(connection, stream);
    }

    fn closed(&mut self, connection: Connection, reason: CloseReason) {
        self.services.closed(connection, reason);
        self.published.publish(&self.services);
    }
}
