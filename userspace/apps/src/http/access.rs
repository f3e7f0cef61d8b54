//! The access log's side of a request: what is noted of it, and when.
//!
//! A request is noted when its head is complete, or refused, and logged when its response was given to the stream, or
//! is given up. Without an access log all of this is one look at an empty option for each request.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidegate_tcp::application::Stream;

use super::request::Request;
use super::status::Status;

/// The log of requests. It must not wait: it is called between two segments.
pub trait AccessSink: Send + Sync {
    /// A record to be filled in, empty or one that was used before.
    fn take(&self) -> Box<AccessRecord>;

    /// Logs `record`.
    fn put(&self, record: Box<AccessRecord>);
}

/// Where, and which requests are logged.
#[derive(Clone)]
pub struct AccessLog {
    /// The log that they go to.
    pub sink: Arc<dyn AccessSink>,
    /// The fraction of all requests that is logged, chosen at random (0 to 1).
    pub sample: f64,
    /// Bytes of the request line, and of each field, that are kept.
    pub max_field: usize,
    /// Responses under way whose requests have records at most; a request beyond that is logged when its response
    /// begins to wait.
    pub max_under_way: usize,
}

/// A request, and what became of it.
#[derive(Clone, Debug)]
pub struct AccessRecord {
    /// The peer's address and port.
    pub peer: SocketAddr,
    /// This side's address and port.
    pub local: SocketAddr,
    /// The number of the request on its connection; the first is 1.
    pub connection_requests: u32,
    /// The request line without its end, as it came, but for HTTP/1.2 and later, which are shown as HTTP/1.1; empty:
    /// there was none.
    pub request: Vec<u8>,
    /// The value of the Referer field; empty: there is none.
    pub referer: Vec<u8>,
    /// The value of the User-Agent field; empty: there is none.
    pub user_agent: Vec<u8>,
    /// The status of the response; 0: the connection ended before there was one.
    pub status: u16,
    /// Bytes of the response's content that were given to the stream.
    pub body_bytes: u64,
    /// Whether all of the response was.
    pub complete: bool,
    /// The time since 1970 when the request was logged.
    pub time: Duration,
    /// The time from the last byte of its head until then.
    pub elapsed: Duration,
    /// The time at which its head was complete.
    pub began: Instant,
}

impl Default for AccessRecord {
    fn default() -> Self {
        let nowhere = SocketAddr::from(([0; 4], 0));
        Self {
            peer: nowhere,
            local: nowhere,
            connection_requests: 0,
            request: Vec::new(),
            referer: Vec::new(),
            user_agent: Vec::new(),
            status: 0,
            body_bytes: 0,
            complete: false,
            time: Duration::ZERO,
            elapsed: Duration::ZERO,
            began: Instant::now(),
        }
    }
}

/// The access log of one shard.
pub(super) struct Access {
    log: Arc<AccessLog>,
    sampler: Sampler,
}

impl Access {
    pub(super) fn new(log: AccessLog) -> Self {
        let seed = RandomState::new().hash_one(0);
        Self {
            sampler: Sampler::new(log.sample, seed),
            log: Arc::new(log),
        }
    }

    /// Notes a request whose head, or all that is known of it, is at the start of `data`. `None` if it is none of those
    /// to be logged.
    pub(super) fn begin<S: Stream>(
        &mut self,
        stream: &S,
        number: u32,
        data: &[u8],
        request: Option<&Request<'_, '_>>,
    ) -> Option<Entry> {
        if !self.sampler.chooses() {
            return None;
        }
        let mut record = self.log.sink.take();
        let most = self.log.max_field;
        record.peer = stream.peer();
        record.local = stream.local();
        record.connection_requests = number;
        let beginning = &data[..data.len().min(most.saturating_add(2))];
        let line = beginning.split(|&byte| byte == b'\n').next().unwrap_or_default();
        fill(&mut record.request, line.strip_suffix(b"\r").unwrap_or(line), most);
        let field = |name| {
            request
                .and_then(|request| request.values(name).next())
                .unwrap_or_default()
        };
        fill(&mut record.referer, field("referer"), most);
        fill(&mut record.user_agent, field("user-agent"), most);
        record.status = 0;
        record.body_bytes = 0;
        record.complete = false;
        record.began = Instant::now();
        Some(Entry {
            record: Some(record),
            log: Arc::clone(&self.log),
            length: 0,
        })
    }
}

/// Has `text` hold the beginning of `value`.
fn fill(text: &mut Vec<u8>, value: &[u8], most: usize) {
    text.clear();
    text.extend_from_slice(&value[..value.len().min(most)]);
}

/// A request that will be logged: when this is dropped.
pub(super) struct Entry {
    /// There until it is dropped.
    record: Option<Box<AccessRecord>>,
    log: Arc<AccessLog>,
    /// Bytes of the response's content.
    length: u64,
}

impl Entry {
    /// The response is known.
    pub(super) fn respond(&mut self, status: Status, length: u64) {
        self.length = length;
        if let Some(record) = &mut self.record {
            record.status = status.code();
        }
    }

    /// All but `left` bytes of the response, head included, have been given to the stream.
    pub(super) fn note_left(&mut self, left: u64) {
        if let Some(record) = &mut self.record {
            record.body_bytes = self.length - left.min(self.length);
            record.complete = left == 0;
        }
    }

    /// Whether it may be kept until the rest of the response is sent.
    pub(super) fn may_wait(&self) -> bool {
        // One of the references is the shard's.
        Arc::strong_count(&self.log) - 1 <= self.log.max_under_way
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(mut record) = self.record.take() {
            record.elapsed = record.began.elapsed();
            record.time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.log.sink.put(record);
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

/// Chooses a fraction of what passes, at random: xorshift64 of Marsaglia, which is enough for that.
struct Sampler {
    state: u64,
    /// Of 2^32.
    threshold: u64,
}

impl Sampler {
    fn new(fraction: f64, seed: u64) -> Self {
        Self {
            state: seed | 1,
            threshold: (fraction.clamp(0.0, 1.0) * (1_u64 << 32) as f64) as u64,
        }
    }

    #[inline]
    fn chooses(&mut self) -> bool {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state >> 32 < self.threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_is_chosen() {
        for (fraction, range) in [(1.0, 100_000..=100_000), (0.01, 800..=1200), (0.0, 0..=0)] {
            let mut sampler = Sampler::new(fraction, 0x7469_6465);
            let chosen = (0..100_000).filter(|_| sampler.chooses()).count();
            assert!(range.contains(&chosen), "{chosen} with {fraction}");
        }
    }
}
