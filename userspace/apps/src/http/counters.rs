//! The counters of the HTTP service.

use tidegate_tcp::counters::define_counters;

use super::status::Status;

define_counters! {
    /// The events that are counted. All count from when the application was made.
    pub enum Counter {
        /// Connections that were opened.
        Connections = "http_connections",
        /// Requests whose head was read and understood.
        Requests = "http_requests",
        /// Responses with a 2xx status.
        Responses2xx = "http_responses_2xx",
        /// Responses with a 3xx status.
        Responses3xx = "http_responses_3xx",
        /// Responses with a 4xx status.
        Responses4xx = "http_responses_4xx",
        /// Responses with a 5xx status.
        Responses5xx = "http_responses_5xx",
        /// Bytes of responses given to the stream, heads included.
        BytesSent = "http_bytes_sent",
        /// Connections closed because no request came for `keepalive_timeout`.
        KeepaliveTimeouts = "http_keepalive_timeouts",
        /// Requests whose head took longer than `header_timeout`.
        HeaderTimeouts = "http_header_timeouts",
        /// Requests whose head came more slowly than `header_min_rate`.
        SlowHeaders = "http_slow_headers",
        /// Requests whose body took longer than `body_timeout`.
        BodyTimeouts = "http_body_timeouts",
        /// Requests whose body came more slowly than `body_min_rate`.
        SlowBodies = "http_slow_bodies",
        /// Connections reset because the peer took less of a response than `send_min_rate` in `send_timeout`.
        SendTimeouts = "http_send_timeouts",
        /// Requests for a file that were served from the cache.
        CacheHits = "http_cache_hits",
        /// Requests for a file that was read from the disk: not cached, changed, or too large for the cache.
        CacheMisses = "http_cache_misses",
        /// Requests served from the cache though the file on the disk could not be compared: no descriptor or memory
        /// was left.
        CacheStaleHits = "http_cache_stale_hits",
        /// Files that left the cache to make room.
        CacheEvictions = "http_cache_evictions",
        /// Connections aborted because a file could not be read to the length that was promised.
        TruncatedFiles = "http_truncated_files",
        /// Connections aborted because a file was written to while it was sent.
        ChangedFiles = "http_changed_files",
        /// Requests answered with 503 because `max_open_files` are open, or no descriptor or memory was left.
        FilesExhausted = "http_files_exhausted",
    }

    /// The values of all counters of one application.
    pub struct Counters;
}

impl Counters {
    /// Counts a response.
    #[inline]
    pub(super) fn response(&mut self, status: Status) {
        self.bump(match status.code() {
            ..300 => Counter::Responses2xx,
            300..400 => Counter::Responses3xx,
            400..500 => Counter::Responses4xx,
            500.. => Counter::Responses5xx,
        });
    }
}
