//! The HTTP service's settings: every limit has one.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use tidegate_tcp::config::InvalidSetting;

/// The maximum of `max_headers`.
pub(super) const MAX_HEADERS: usize = 256;

/// Settings of the HTTP service. Sizes are in bytes; what is held in memory is per shard.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The directory whose files are served; without it there is one built-in page.
    pub root: Option<PathBuf>,
    /// The file that stands for its directory: a name, not a path.
    pub index: String,
    /// Request line and header fields together, at most (256 to 1 MiB); longer is answered with 431. An unfinished
    /// head waits in the stream's receive buffer, which must be at least this large.
    pub max_head: usize,
    /// The request target at most (16 to `max_head`); longer is answered with 414.
    pub max_uri: usize,
    /// Header fields per request at most (1 to 256); more are answered with 431.
    pub max_headers: usize,
    /// A request's body at most; larger is answered with 413. Bodies are read and thrown away.
    pub max_body: u64,
    /// The time from the first byte of a request's head to its last, at most; longer is answered with 408.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// The time a head has before its rate counts: one of which `n` bytes have come has this time and `n /
    /// header_min_rate`, and no longer than `header_timeout`; otherwise the answer is 408.
    #[serde(with = "humantime_serde")]
    pub header_grace: Duration,
    /// The rate at which a head has to come, in bytes per second; zero: it only has to come within `header_timeout`.
    pub header_min_rate: u32,
    /// The time for reading a request's body, at most; longer is answered with 408.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// As `header_grace`, for a body and what frames it.
    #[serde(with = "humantime_serde")]
    pub body_grace: Duration,
    /// As `header_min_rate`, for a body and what frames it.
    pub body_min_rate: u32,
    /// The time in which a peer has to take some of a response that waits for room, or of what is left when the
    /// connection is closed: `send_min_rate` times this time, and at least one byte; otherwise the connection is reset.
    /// A response of `n` bytes takes `n / send_min_rate` and this time at most, and what is outstanding of it when all
    /// was sent `keepalive_timeout` more.
    #[serde(with = "humantime_serde")]
    pub send_timeout: Duration,
    /// The rate at which a peer has to take a response that waits for room, in bytes per second, on average over each
    /// `send_timeout`; zero: any progress is enough, as in nginx.
    pub send_min_rate: u32,
    /// The time a connection may stay open without a request.
    #[serde(with = "humantime_serde")]
    pub keepalive_timeout: Duration,
    /// Requests answered on one connection before it is closed (at least 1).
    pub keepalive_requests: u32,
    /// Memory for cached files and the responses that are kept ready for them; zero turns the cache off. Files up to
    /// 4 KiB count three times, since two ready responses have a copy each.
    pub cache_bytes: usize,
    /// Files up to this size are read whole and cached; larger ones, and those that do not fit into `cache_bytes`, are
    /// read as they are sent.
    pub cache_file_limit: usize,
    /// The time a cached file is served before it is compared with the one on disk; zero compares at every request.
    #[serde(with = "humantime_serde")]
    pub cache_revalidate: Duration,
    /// The number of bytes of a file that is not cached read at once (4 KiB to 16 MiB).
    pub read_chunk: usize,
    /// Files that are not cached open at once, to be sent (1 to 1,048,576). Connections that are sent the same file
    /// share its descriptor; what would be one too many is answered with 503.
    pub max_open_files: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: None,
            index: "index.html".to_owned(),
            max_head: 16 << 10,
            max_uri: 8 << 10,
            max_headers: 100,
            max_body: 1 << 20,
            header_timeout: Duration::from_secs(40),
            header_grace: Duration::from_secs(20),
            header_min_rate: 500,
            body_timeout: Duration::from_secs(300),
            body_grace: Duration::from_secs(20),
            body_min_rate: 500,
            send_timeout: Duration::from_secs(60),
            send_min_rate: 256,
            keepalive_timeout: Duration::from_secs(75),
            keepalive_requests: 10_000,
            cache_bytes: 64 << 20,
            cache_file_limit: 1 << 20,
            cache_revalidate: Duration::from_secs(1),
            read_chunk: 256 << 10,
            max_open_files: 1024,
        }
    }
}

impl Config {
    /// Bytes of a response that a peer has to take in each `send_timeout`.
    pub(super) fn min_sent(&self) -> u64 {
        let least = u128::from(self.send_min_rate) * self.send_timeout.as_millis() / 1000;
        u64::try_from(least).unwrap_or(u64::MAX).max(1)
    }

    /// The time for a head of which `bytes` have come.
    pub(super) fn head_time(&self, bytes: u64) -> Duration {
        time_for(bytes, self.header_grace, self.header_min_rate, self.header_timeout)
    }

    /// The time for a body of which `bytes` have come.
    pub(super) fn body_time(&self, bytes: u64) -> Duration {
        time_for(bytes, self.body_grace, self.body_min_rate, self.body_timeout)
    }

    /// Checks the ranges the fields' documentation states.
    ///
    /// # Errors
    ///
    /// The first key whose value is out of range.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        for (key, value, range) in [
            ("max_head", self.max_head, 256..=1 << 20),
            ("max_uri", self.max_uri, 16..=1 << 20),
            ("max_headers", self.max_headers, 1..=MAX_HEADERS),
            ("read_chunk", self.read_chunk, 4 << 10..=16 << 20),
            ("max_open_files", self.max_open_files, 1..=1 << 20),
        ] {
            InvalidSetting::check_range(key, value, range)?;
        }
        if self.max_uri > self.max_head {
            return Err(InvalidSetting::new(
                ["max_uri", "max_head"],
                format!(
                    "max_uri is {}; it must be at most max_head, which is {}",
                    self.max_uri, self.max_head
                ),
            ));
        }
        InvalidSetting::check_range("keepalive_requests", self.keepalive_requests, 1..=u32::MAX)?;
        InvalidSetting::check_above_zero("header_timeout", self.header_timeout)?;
        InvalidSetting::check_above_zero("header_grace", self.header_grace)?;
        InvalidSetting::check_above_zero("body_timeout", self.body_timeout)?;
        InvalidSetting::check_above_zero("body_grace", self.body_grace)?;
        InvalidSetting::check_above_zero("send_timeout", self.send_timeout)?;
        InvalidSetting::check_above_zero("keepalive_timeout", self.keepalive_timeout)?;
        InvalidSetting::check_duration("cache_revalidate", self.cache_revalidate)?;
        let name = &self.index;
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(InvalidSetting::new(
                ["index"],
                format!("index is {name:?}; it must be the name of a file, such as index.html"),
            ));
        }
        Ok(())
    }
}

/// `grace` and the time that `bytes` take at `min_rate`, and no more than `limit`.
fn time_for(bytes: u64, grace: Duration, min_rate: u32, limit: Duration) -> Duration {
    let micros = bytes.saturating_mul(1_000_000).checked_div(u64::from(min_rate));
    micros.map_or(limit, |micros| (grace + Duration::from_micros(micros)).min(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        type Change = fn(&mut Config);
        let cases: [(&str, Change); 12] = [
            ("max_head", |c| c.max_head = 255),
            ("max_uri", |c| c.max_uri = c.max_head + 1),
            ("max_headers", |c| c.max_headers = MAX_HEADERS + 1),
            ("read_chunk", |c| c.read_chunk = 0),
            ("max_open_files", |c| c.max_open_files = 0),
            ("keepalive_requests", |c| c.keepalive_requests = 0),
            ("header_timeout", |c| c.header_timeout = Duration::ZERO),
            ("header_grace", |c| c.header_grace = Duration::ZERO),
            ("body_grace", |c| c.body_grace = Duration::ZERO),
            ("send_timeout", |c| c.send_timeout = Duration::ZERO),
            ("index", |c| c.index = "../secret".to_owned()),
            ("index", |c| c.index = "..".to_owned()),
        ];
        for (key, spoil) in cases {
            let mut config = Config::default();
            spoil(&mut config);
            let error = config.validate().unwrap_err();
            assert_eq!(error.keys().first(), Some(&key), "{error}");
        }
    }
}
