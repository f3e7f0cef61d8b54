//! The engine's settings: every limit has one.

use core::error::Error;
use core::fmt::{self, Debug};
use core::ops::RangeInclusive;
use core::time::Duration;

use crate::congestion::Algorithm;
use crate::recovery::LossDetection;

/// The longest duration a setting can have: 10 years. With longer ones sums of times would overflow.
pub const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A setting out of range, or several that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSetting {
    keys: Vec<&'static str>,
    message: String,
}

impl InvalidSetting {
    /// `message` is a sentence; `keys` are those it is about, as their table names them, the one at fault first.
    pub fn new(keys: impl Into<Vec<&'static str>>, message: impl Into<String>) -> Self {
        Self {
            keys: keys.into(),
            message: message.into(),
        }
    }

    /// Checks that `value` of `key` is in `range`.
    ///
    /// # Errors
    ///
    /// Returns an error if it is not.
    pub fn check_range<T: PartialOrd + Debug>(
        key: &'static str,
        value: T,
        range: RangeInclusive<T>,
    ) -> Result<(), InvalidSetting> {
        if range.contains(&value) {
            return Ok(());
        }
        let message = format!(
            "{key} is {value:?}; it must be from {:?} to {:?}",
            range.start(),
            range.end()
        );
        Err(Self::new([key], message))
    }

    /// Checks that `duration` of `key` is at most [`MAX_DURATION`].
    ///
    /// # Errors
    ///
    /// Returns an error if it is not.
    pub fn check_duration(key: &'static str, duration: Duration) -> Result<(), Self> {
        if duration > MAX_DURATION {
            let message = format!("{key} is {duration:?}; it must be at most 10 years ({MAX_DURATION:?})");
            return Err(Self::new([key], message));
        }
        Ok(())
    }

    /// Checks that `duration` of `key` is above zero, and at most [`MAX_DURATION`].
    ///
    /// # Errors
    ///
    /// Returns an error if it is not.
    pub fn check_above_zero(key: &'static str, duration: Duration) -> Result<(), Self> {
        if duration.is_zero() {
            return Err(Self::new(
                [key],
                format!("{key} is {duration:?}; it must be above zero"),
            ));
        }
        Self::check_duration(key, duration)
    }

    /// The keys it is about, the one at fault first.
    pub fn keys(&self) -> &[&'static str] {
        &self.keys
    }
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for InvalidSetting {}

/// Keepalive: an idle peer is asked whether it is still there (RFC 9293, section 3.8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle time before the first probe; zero turns keepalive off.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Probes without an answer before the connection is given up.
    pub probes: u8,
}

impl Keepalive {
    /// Checks that probes can be sent if they are wanted.
    ///
    /// # Errors
    ///
    /// The key whose value makes that impossible.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        InvalidSetting::check_duration("keepalive_idle", self.idle)?;
        InvalidSetting::check_duration("keepalive_interval", self.interval)?;
        if self.idle.is_zero() {
            return Ok(());
        }
        let wrong = |key, value: &dyn Debug| {
            let message = format!("{key} is {value:?}; it must be above zero while keepalive_idle is");
            Err(InvalidSetting::new([key, "keepalive_idle"], message))
        };
        if self.interval.is_zero() {
            return wrong("keepalive_interval", &self.interval);
        }
        if self.probes == 0 {
            return wrong("keepalive_probes", &self.probes);
        }
        Ok(())
    }
}

/// Settings of one engine. Limits are per engine, so per shard, unless they say "per connection".
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Config {
    /// Link MTU in bytes, without the Ethernet header (576 to 9,000). Bounds the MSS that is offered and used.
    pub mtu: u16,
    /// Octets of headers that a balancer puts before the packets that are received (at most 100). The MSS that is
    /// offered is less by as many.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub outer_headers: u16,
    /// Connections at most, not counting half-open ones and those in TIME-WAIT (1 to 2^28).
    pub max_connections: u32,
    /// Half-open connections (SYN-RECEIVED) at most; when full, the oldest gives way (1 to 2^28).
    pub max_half_open: u32,
    /// Connections in TIME-WAIT at most; when full, the oldest gives way (1 to 2^28).
    pub max_time_wait: u32,
    /// Bytes queued for sending per connection at most, acknowledged ones no longer counted (4 KiB to 1 GiB). Below
    /// that, what a connection may queue follows its congestion window and the peer's: what they let go and a segment,
    /// or a 64th part more, up to 16 KiB.
    pub send_buffer: u32,
    /// Segments sent and not acknowledged per connection at most (64 to 2^20). It bounds what a peer costs that asks
    /// for small segments and leaves them unacknowledged: 24 bytes of memory for each (with BBR 56), and the logarithm
    /// of their number in work for each acknowledgment. With the default 4 MiB can be outstanding in segments of 256
    /// bytes or more; where `send_buffer` is raised, this is to be raised with it. Where the path turns out to take
    /// smaller packets only, what is outstanding is cut, and may become as many times more as a segment has pieces.
    pub max_outstanding_segments: u32,
    /// Memory held by what all connections have queued for sending, in bytes, overhead included. Beyond it each
    /// connection may have one segment queued.
    pub send_bytes_total: u64,
    /// Largest receive buffer in bytes per connection, and so the largest window offered (4 KiB to 1 GiB).
    pub receive_buffer: u32,
    /// Receive buffer a connection starts with; it grows while the peer fills it within two round trips.
    pub receive_buffer_initial: u32,
    /// Memory in bytes of all that connections have received and no application has consumed, in order or not. Data
    /// beyond it is refused; each connection may hold a segment (`mtu` and 256 bytes) more. From three quarters of it
    /// on nothing more is held out of order, and each connection's receive buffer is 16 KiB.
    pub receive_bytes_total: u64,
    /// Memory in bytes of out-of-order data per connection: 160 for each segment beside its text, 768 for the first.
    pub reassembly_bytes: u32,
    /// Separate out-of-order ranges held per connection.
    pub reassembly_ranges: u32,
    /// Memory in bytes of the out-of-order data of all connections; part of `receive_bytes_total`.
    pub reassembly_bytes_total: u64,
    /// Verify TCP and IPv4 header checksums of what arrives. Off only where the device has done it.
    pub verify_checksums: bool,
    /// Smallest retransmission timeout (RFC 6298 says 1 s; Linux uses 200 ms).
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub rto_min: Duration,
    /// Largest retransmission timeout (RFC 6298, rule 2.5: at least 60 s).
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub rto_max: Duration,
    /// SYN-ACK retransmissions before a half-open connection is given up (1 s, 2 s, 4 s, ...).
    pub syn_ack_retries: u8,
    /// The time that data, FIN or window probes may stay unacknowledged before the connection is given up
    /// (RFC 9293, section 3.8.3: R2, at least 100 s).
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub user_timeout: Duration,
    /// Bytes the peer has to acknowledge in each `user_timeout`, or all that is queued if that is less (1 to 2^30):
    /// with less than that, a connection is given up too. One with `n` bytes queued is gone after `user_timeout * (n /
    /// min_send_progress + 2)` at the latest, unless more is queued; 1: any progress counts, as in Linux.
    pub min_send_progress: u32,
    /// The longest an acknowledgment is delayed (RFC 9293, section 3.8.6.3: less than 0.5 s).
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub delayed_ack: Duration,
    /// Hold back small segments while data is unacknowledged (RFC 9293, section 3.7.4: Nagle's algorithm).
    pub nagle: bool,
    /// Maximum segment lifetime; TIME-WAIT lasts twice as long (RFC 9293, section 3.4.2 says 2 min; Linux uses 30 s).
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub msl: Duration,
    /// The time that a connection closed by [`crate::application::Stream::close`] stays in FIN-WAIT-2 waiting for the
    /// peer's FIN.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub fin_wait_2: Duration,
    /// Idle time before the first keepalive probe (RFC 9293, section 3.8.4); zero turns keepalive off.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub keepalive_idle: Duration,
    /// Time between keepalive probes.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub keepalive_interval: Duration,
    /// Keepalive probes without an answer before the connection is given up.
    pub keepalive_probes: u8,
    /// Congestion control: `cubic` (RFC 9438), `reno` (RFC 5681) or `bbr` (draft-ietf-ccwg-bbr).
    pub congestion: Algorithm,
    /// With `bbr`: the rate of losses, in percent of what is in flight, up to which they do not slow a connection down
    /// (1 to 100). 2 is the draft's; at 100 loss does not count, as with version 1 of BBR.
    pub bbr_loss_threshold: u8,
    /// Loss detection: `rack` (RFC 8985) or `sack` (RFC 6675).
    pub loss_detection: LossDetection,
    /// Negotiate explicit congestion notification with peers that ask for it (RFC 3168).
    pub ecn: bool,
    /// Believe ICMP "too big" that quotes outstanding data of a connection, and send it smaller segments (RFC 1191,
    /// RFC 8201). Packets are never fragmented (DF) either way.
    pub path_mtu_discovery: bool,
    /// The smallest MTU of an IPv4 path that is believed or tried (68 to 1280 bytes; Linux uses 552). For IPv6 it is
    /// 1280 (RFC 8201, section 4).
    pub min_path_mtu: u16,
    /// Retransmission timeouts in a row, with a full segment outstanding, after which smaller ones are tried, for paths
    /// that drop large packets and do not say so (RFC 2923, section 2.1); zero turns this off. Full segments are tried
    /// again after 15 s, and twice as long after each further time, up to `path_mtu_raise`.
    pub black_hole_timeouts: u8,
    /// The time that segments stay smaller before the full size is tried again (RFC 1191, section 6.3: 10 min, and
    /// never less than 5 min, if a router told of the smaller one); zero: as long as the connection lasts.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub path_mtu_raise: Duration,
    /// Peers of which it is remembered what connections have learned of the path: round-trip time and reordering, and
    /// the slow start threshold for `path_memory_ssthresh` (0 to 2^24, rounded up to a power of two; 0: none). 40 bytes
    /// for each, taken with the first. A connection is remembered when it ends, by the whole address of its peer, if
    /// that has acknowledged 16 KiB. The round-trip time counts for a connection that has none of its handshake,
    /// because that was by SYN cookie or its SYN-ACK was sent again, until it measures one: its first timeout is three
    /// round trips or more then, from `rto_min` to 3 s, instead of 1 s.
    pub path_memory: u32,
    /// The time that is remembered for, from the last connection on (whole seconds).
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub path_memory_age: Duration,
    /// Begin with the slow start threshold that was remembered, though not with less than the initial window. It saves
    /// the losses by which it would be found, but one connection that met much congestion holds others back. Off by
    /// default, as in Linux.
    pub path_memory_ssthresh: bool,
    /// RSTs per second sent for segments that belong to no connection, and acknowledgments for half-open ones and those
    /// in TIME-WAIT: on average, since of each second it is drawn anew, from half of it to one and a half
    /// (CVE-2016-5696). No second has more than three times as many.
    pub rst_rate: u32,
    /// Challenge ACKs (RFC 5961) per second and connection.
    pub challenge_ack_rate: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mtu: 1500,
            outer_headers: 0,
            max_connections: 262_144,
            max_half_open: 16_384,
            max_time_wait: 131_072,
            send_buffer: 4 << 20,
            max_outstanding_segments: 16_384,
            send_bytes_total: 1 << 30,
            receive_buffer: 4 << 20,
            receive_buffer_initial: 64 << 10,
            receive_bytes_total: 256 << 20,
            reassembly_bytes: 1 << 20,
            reassembly_ranges: 256,
            reassembly_bytes_total: 64 << 20,
            verify_checksums: true,
            rto_min: Duration::from_millis(200),
            rto_max: Duration::from_secs(120),
            syn_ack_retries: 5,
            user_timeout: Duration::from_secs(120),
            min_send_progress: 32_768,
            delayed_ack: Duration::from_millis(40),
            nagle: true,
            msl: Duration::from_secs(30),
            fin_wait_2: Duration::from_secs(60),
            keepalive_idle: Duration::from_secs(7200),
            keepalive_interval: Duration::from_secs(75),
            keepalive_probes: 10,
            congestion: Algorithm::default(),
            bbr_loss_threshold: 5,
            loss_detection: LossDetection::default(),
            ecn: true,
            path_mtu_discovery: true,
            min_path_mtu: 552,
            black_hole_timeouts: 3,
            path_mtu_raise: Duration::from_secs(600),
            path_memory: 16_384,
            path_memory_age: Duration::from_secs(3600),
            path_memory_ssthresh: false,
            rst_rate: 1000,
            challenge_ack_rate: 10,
        }
    }
}

impl Config {
    /// The keepalive settings of listeners without settings of their own.
    pub fn keepalive(&self) -> Keepalive {
        Keepalive {
            idle: self.keepalive_idle,
            interval: self.keepalive_interval,
            probes: self.keepalive_probes,
        }
    }

    /// Sets the MTU, in bytes, to the closest in its range (576 to 9,000).
    pub fn set_mtu(&mut self, mtu: u16) {
        self.mtu = mtu.clamp(576, 9000);
    }

    /// Checks the ranges the fields' documentation states.
    ///
    /// # Errors
    ///
    /// The first key whose value is out of range.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        for (key, value) in [
            ("max_connections", self.max_connections),
            ("max_half_open", self.max_half_open),
            ("max_time_wait", self.max_time_wait),
        ] {
            InvalidSetting::check_range(key, value, 1..=1 << 28)?;
        }
        for (key, value, range) in [
            ("mtu", self.mtu, 576..=9000),
            ("min_path_mtu", self.min_path_mtu, 68..=1280),
            ("outer_headers", self.outer_headers, 0..=100),
        ] {
            InvalidSetting::check_range(key, value, range)?;
        }
        for (key, value, range) in [
            ("receive_buffer", self.receive_buffer, 4096..=1 << 30),
            ("receive_buffer_initial", self.receive_buffer_initial, 4096..=u32::MAX),
            ("send_buffer", self.send_buffer, 4096..=1 << 30),
            ("max_outstanding_segments", self.max_outstanding_segments, 64..=1 << 20),
        ] {
            InvalidSetting::check_range(key, value, range)?;
        }
        for (key, duration) in [("rto_max", self.rto_max), ("path_mtu_raise", self.path_mtu_raise)] {
            InvalidSetting::check_duration(key, duration)?;
        }
        InvalidSetting::check_range("bbr_loss_threshold", self.bbr_loss_threshold, 1..=100)?;
        InvalidSetting::check_above_zero("rto_min", self.rto_min)?;
        if self.rto_min > self.rto_max {
            return Err(InvalidSetting::new(
                ["rto_min", "rto_max"],
                format!(
                    "rto_min is {:?} and rto_max {:?}; rto_min must be at most rto_max",
                    self.rto_min, self.rto_max
                ),
            ));
        }
        InvalidSetting::check_range("path_memory", self.path_memory, 0..=1 << 24)?;
        InvalidSetting::check_above_zero("path_memory_age", self.path_memory_age)?;
        InvalidSetting::check_range("min_send_progress", self.min_send_progress, 1..=1 << 30)?;
        if self.delayed_ack >= Duration::from_millis(500) {
            return Err(InvalidSetting::new(
                ["delayed_ack"],
                format!(
                    "delayed_ack is {:?}; RFC 9293 asks for less than 500 ms",
                    self.delayed_ack
                ),
            ));
        }
        self.keepalive().validate()?;
        InvalidSetting::check_above_zero("msl", self.msl)?;
        InvalidSetting::check_above_zero("user_timeout", self.user_timeout)?;
        InvalidSetting::check_above_zero("fin_wait_2", self.fin_wait_2)
    }
}
