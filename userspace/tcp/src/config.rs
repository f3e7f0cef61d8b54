//! The engine's settings: every limit has one.

use core::time::Duration;

use crate::congestion::Algorithm;
use crate::recovery::LossDetection;

/// When an idle peer is asked whether it is still there (RFC 9293, section 3.8.4).
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
    /// A sentence that names the keys.
    pub fn validate(&self) -> Result<(), String> {
        if !self.idle.is_zero() && (self.interval.is_zero() || self.probes == 0) {
            return Err(
                "keepalive_interval and keepalive_probes must be above zero while keepalive_idle is".to_owned(),
            );
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
    /// Connections at most, not counting half-open ones and those in TIME-WAIT (1 to 2^28).
    pub max_connections: u32,
    /// Half-open connections (SYN-RECEIVED) at most; when full, the oldest gives way (1 to 2^28).
    pub max_half_open: u32,
    /// Connections in TIME-WAIT at most; when full, the oldest gives way (1 to 2^28).
    pub max_time_wait: u32,
    /// Bytes queued for sending per connection at most, acknowledged ones no longer counted (4 KiB to 1 GiB). What a
    /// connection may queue begins with 256 KiB and grows with its congestion window, to four times that.
    pub send_buffer: u32,
    /// Bytes queued for sending by all connections. Beyond it each connection may queue 16 KiB.
    pub send_bytes_total: u64,
    /// Largest receive buffer in bytes per connection, and so the largest window offered (4 KiB to 1 GiB).
    pub receive_buffer: u32,
    /// Receive buffer a connection starts with; it grows while the peer fills it within two round trips.
    pub receive_buffer_initial: u32,
    /// In-order bytes no application has consumed, of all connections. Beyond it nothing is held out of order, and each
    /// connection's receive buffer is 16 KiB.
    pub receive_bytes_total: u64,
    /// Out-of-order bytes held per connection.
    pub reassembly_bytes: u32,
    /// Separate out-of-order ranges held per connection.
    pub reassembly_ranges: u32,
    /// Out-of-order bytes held by all connections of the engine.
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
    /// How long data, FIN or window probes may stay unacknowledged before the connection is given up
    /// (RFC 9293, section 3.8.3: R2, at least 100 s).
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub user_timeout: Duration,
    /// The longest an acknowledgment is delayed (RFC 9293, section 3.8.6.3: less than 0.5 s).
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub delayed_ack: Duration,
    /// Hold back small segments while data is unacknowledged (RFC 9293, section 3.7.4: Nagle's algorithm).
    pub nagle: bool,
    /// Maximum segment lifetime; TIME-WAIT lasts twice as long (RFC 9293, section 3.4.2 says 2 min; Linux uses 30 s).
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub msl: Duration,
    /// How long a connection closed by [`crate::application::Stream::close`] stays in FIN-WAIT-2 waiting for the peer's FIN.
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
    /// Congestion control: `cubic` (RFC 9438) or `reno` (RFC 5681).
    pub congestion: Algorithm,
    /// How loss is found: `rack` (RFC 8985) or `sack` (RFC 6675).
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
    /// How long segments stay smaller before the full size is tried again (RFC 1191, section 6.3: 10 min, and never
    /// less than 5 min, if a router told of the smaller one); zero: as long as the connection lasts.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub path_mtu_raise: Duration,
    /// RSTs per second sent for segments that belong to no connection, and acknowledgments for half-open ones and those in
    /// TIME-WAIT.
    pub rst_rate: u32,
    /// Challenge ACKs (RFC 5961) per second and connection.
    pub challenge_ack_rate: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mtu: 1500,
            max_connections: 262_144,
            max_half_open: 16_384,
            max_time_wait: 131_072,
            send_buffer: 4 << 20,
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
            delayed_ack: Duration::from_millis(40),
            nagle: true,
            msl: Duration::from_secs(30),
            fin_wait_2: Duration::from_secs(60),
            keepalive_idle: Duration::from_secs(7200),
            keepalive_interval: Duration::from_secs(75),
            keepalive_probes: 10,
            congestion: Algorithm::default(),
            loss_detection: LossDetection::default(),
            ecn: true,
            path_mtu_discovery: true,
            min_path_mtu: 552,
            black_hole_timeouts: 3,
            path_mtu_raise: Duration::from_secs(600),
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

    /// Checks the ranges the fields' documentation states. The error is a sentence that names the key.
    ///
    /// # Errors
    ///
    /// The first key whose value is out of range.
    pub fn validate(&self) -> Result<(), String> {
        let table_limit = 1 << 28;
        for (key, value) in [
            ("max_connections", self.max_connections),
            ("max_half_open", self.max_half_open),
            ("max_time_wait", self.max_time_wait),
        ] {
            if !(1..=table_limit).contains(&value) {
                return Err(format!("{key} is {value}; it must be from 1 to {table_limit}"));
            }
        }
        if !(576..=9000).contains(&self.mtu) {
            return Err(format!("mtu is {}; it must be from 576 to 9000 bytes", self.mtu));
        }
        if !(68..=1280).contains(&self.min_path_mtu) {
            return Err(format!(
                "min_path_mtu is {}; it must be from 68 to 1280 bytes",
                self.min_path_mtu
            ));
        }
        if !(4096..=1 << 30).contains(&self.receive_buffer) {
            return Err(format!(
                "receive_buffer is {}; it must be from 4096 to {} bytes",
                self.receive_buffer,
                1 << 30
            ));
        }
        if self.receive_buffer_initial < 4096 {
            return Err(format!(
                "receive_buffer_initial is {}; it must be at least 4096 bytes",
                self.receive_buffer_initial
            ));
        }
        if !(4096..=1 << 30).contains(&self.send_buffer) {
            return Err(format!(
                "send_buffer is {}; it must be from 4096 to {} bytes",
                self.send_buffer,
                1 << 30
            ));
        }
        if self.rto_min.is_zero() || self.rto_min > self.rto_max {
            return Err(format!(
                "rto_min is {:?} and rto_max {:?}; rto_min must be above zero and at most rto_max",
                self.rto_min, self.rto_max
            ));
        }
        if self.delayed_ack >= Duration::from_millis(500) {
            return Err(format!(
                "delayed_ack is {:?}; RFC 9293 asks for less than 500 ms",
                self.delayed_ack
            ));
        }
        self.keepalive().validate()?;
        if self.msl.is_zero() || self.user_timeout.is_zero() || self.fin_wait_2.is_zero() {
            return Err("msl, user_timeout and fin_wait_2 must be above zero".to_owned());
        }
        Ok(())
    }
}
