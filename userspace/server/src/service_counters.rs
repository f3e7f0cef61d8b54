//! Lets other threads read the counters of services that run in the shards' threads.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tidegate_apps::http::{AccessLog, Http};
use tidegate_apps::{Connection, Counters, Services};
use tidegate_tcp::application::{Application, CloseReason, Stream};
use tidegate_tcp::histogram::Histogram;

/// The counters of one shard's services.
#[derive(Clone, Default)]
pub(crate) struct ServiceCounts {
    pub(crate) counters: Counters,
    /// Of the HTTP service.
    pub(crate) response_time: Histogram,
}

impl ServiceCounts {
    fn of(services: &Services, before: &Self) -> Self {
        let mut counts = before.clone();
        counts.counters.merge(&services.counters());
        counts.response_time.merge(services.response_time());
        counts
    }
}

/// A copy of one shard's service counters, written by the shard and read by anybody.
#[derive(Default)]
pub(crate) struct Published(ArcSwap<ServiceCounts>);

impl Published {
    /// The counters as they were at the shard's last report, or at its end.
    pub(crate) fn counts(&self) -> Arc<ServiceCounts> {
        self.0.load_full()
    }
}

/// [`Services`] that publish their counters whenever the shard is asked for a report, and at the end. Where nobody
/// asks, it costs nothing.
pub(crate) struct PublishingServices {
    services: Services,
    /// Counted by services of the same shard that are over.
    before: Arc<ServiceCounts>,
    published: Arc<Published>,
}

impl PublishingServices {
    /// Wraps `services`; the second value is where their counters can be read, added to those of services that were
    /// `before` them.
    pub(crate) fn new(services: Services, before: Option<&Published>) -> (Self, Arc<Published>) {
        let before = before.map_or_else(Arc::default, Published::counts);
        let published = Arc::new(Published(ArcSwap::new(Arc::clone(&before))));
        let wrapped = Self {
            services,
            before,
            published: Arc::clone(&published),
        };
        (wrapped, published)
    }

    /// As [`Services::serve_as`].
    pub(crate) fn serve_as(&mut self, other: Services) -> Http {
        self.services.serve_as(other)
    }

    /// As [`Services::set_access_log`].
    pub(crate) fn set_access_log(&mut self, log: Option<AccessLog>) {
        self.services.set_access_log(log);
    }
}

impl Drop for PublishingServices {
    fn drop(&mut self) {
        self.publish();
    }
}

impl Application for PublishingServices {
    type Connection = Connection;

    fn open<S: Stream>(&mut self, stream: &mut S) -> Connection {
        self.services.open(stream)
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
    }

    fn drain<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        self.services.drain(connection, stream);
    }

    fn publish(&mut self) {
        let counts = ServiceCounts::of(&self.services, &self.before);
        self.published.0.store(Arc::new(counts));
    }

    fn closed(&mut self, connection: Connection, reason: CloseReason) {
        self.services.closed(connection, reason);
    }
}
