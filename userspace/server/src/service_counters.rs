//! Lets the main thread read the counters of services that run in the shards' threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_apps::{Connection, Services};
use tidegate_tcp::application::{Application, CloseReason, Stream};

/// A copy of one shard's service counters, written by the shard and read by anybody.
pub(crate) struct Published(Vec<(&'static str, AtomicU64)>);

impl Published {
    /// Name and value of every counter.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0
            .iter()
            .map(|(name, value)| (*name, value.load(Ordering::Relaxed)))
    }

    fn publish(&self, services: &Services) {
        for ((_, copy), (_, value)) in self.0.iter().zip(services.counters().iter()) {
            copy.store(value, Ordering::Relaxed);
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
    /// Wraps `services`; the second value is where their counters can be read.
    pub(crate) fn new(services: Services) -> (Self, Arc<Published>) {
        let names = services.counters();
        let published = Arc::new(Published(
            names
                .iter()
                .map(|(name, value)| (name, AtomicU64::new(value)))
                .collect(),
        ));
        let wrapped = Self {
            services,
            published: Arc::clone(&published),
        };
        (wrapped, published)
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
