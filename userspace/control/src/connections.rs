//! Connections: which are meant, and what is told of one.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The connections of a listing, at most.
pub const MAX_LISTED: usize = 10_000;

/// The connections that a request is about; without any field all of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionFilter {
    /// Those in one of these states, such as `ESTABLISHED`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<String>,
    /// Those of peers whose address has this prefix, such as `198.18.0.0/24`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Those to this address and port of the server; `0.0.0.0:80` and `[::]:80` stand for the port of any address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<SocketAddr>,
}

/// The order of a listing, the largest first.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Sort {
    /// Smoothed round-trip time.
    Rtt,
    /// Bytes sent and received.
    Bytes,
    /// Time since the connection was opened.
    Age,
    /// Segments sent again.
    Retrans,
}

/// The reply to `conns`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Connections {
    /// The connections that are listed.
    pub connections: Vec<Connection>,
    /// The number of all that the filter selects.
    pub selected: u64,
    /// The same by state; states in which there are none are left out.
    pub states: BTreeMap<String, u64>,
}

/// A connection.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Connection {
    /// The shard that has it.
    pub shard: u32,
    /// The state, as RFC 9293 calls it.
    pub state: String,
    /// The server's address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub peer: SocketAddr,
    /// The service of the listener; `null` in TIME-WAIT.
    pub service: Option<String>,
    /// Bytes received that the service has not taken.
    pub recv_q: u64,
    /// Bytes queued for sending and not acknowledged.
    pub send_q: u64,
    /// The timer that fires first; `null` when none is running.
    pub timer: Option<Timer>,
    /// Smoothed round-trip time in microseconds; `null` before the first measurement.
    pub srtt_us: Option<u64>,
    /// The agreement of the SYNs; `null` before ESTABLISHED and in TIME-WAIT.
    pub options: Option<Options>,
    /// `null` for half-open connections and in TIME-WAIT.
    pub transfer: Option<Transfer>,
}

/// A timer that runs.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Timer {
    /// Its name: `on` (retransmission), `persist`, `probe` (tail loss probe), `reorder`, `delack`, `keepalive`,
    /// `user-timeout`, `fin-wait-2`, `pace`, `forget`, `application` or `timewait`.
    pub name: String,
    /// The time until it fires, in milliseconds.
    pub in_ms: u64,
}

/// The agreement of the SYNs, as it is in force.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Options {
    /// Bytes of text in a full segment, the room for timestamps subtracted.
    pub mss: u16,
    /// Shift of the windows the peer offers; 0 without window scaling.
    pub snd_wscale: u8,
    /// Shift of the windows the server offers; 0 without window scaling.
    pub rcv_wscale: u8,
    /// Timestamps.
    pub ts: bool,
    /// Selective acknowledgments.
    pub sack: bool,
    /// Explicit congestion notification.
    pub ecn: bool,
}

/// The model that BBR has of a path.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Bbr {
    /// The state: `startup`, `drain`, `probe_bw_down`, `probe_bw_cruise`, `probe_bw_refill`, `probe_bw_up` or
    /// `probe_rtt`.
    pub state: String,
    /// Bandwidth in bytes per second; 0 before the first measurement.
    pub bw: u64,
    /// Minimum round-trip time of the last seconds in microseconds, on a path that reorders of means; `null` before the
    /// first measurement.
    pub min_rtt_us: Option<u64>,
    /// The pacing rate in percent of the bandwidth.
    pub pacing_gain: u32,
    /// The congestion window in percent of what fills the path.
    pub cwnd_gain: u32,
}

/// The state of a transfer.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Transfer {
    /// Congestion window in bytes.
    pub cwnd: u32,
    /// Slow start threshold in bytes; `null` before the first loss.
    pub ssthresh: Option<u32>,
    /// Pacing rate in bytes per second; `null` if text leaves as fast as the window lets it.
    #[serde(default)]
    pub pacing_rate: Option<u64>,
    /// The path as BBR models it; `null` with other congestion controls.
    #[serde(default)]
    pub bbr: Option<Bbr>,
    /// Bytes sent and not acknowledged.
    pub in_flight: u32,
    /// The window that the peer offers, in bytes.
    pub snd_wnd: u32,
    /// The window that is offered to the peer, in bytes.
    pub rcv_wnd: u32,
    /// Variance of the round-trip time in microseconds; `null` before the first measurement.
    pub rttvar_us: Option<u64>,
    /// Retransmission timeout in microseconds, back-off included.
    pub rto_us: u64,
    /// The number of times the retransmission timer has run out in a row.
    pub backoff: u8,
    /// Bytes of text sent, those sent again counted each time.
    pub bytes_sent: u64,
    /// Bytes of text the peer has acknowledged.
    pub bytes_acked: u64,
    /// Bytes of text received in order.
    pub bytes_received: u64,
    /// Segments sent again.
    pub retrans: u32,
    /// Bytes of text in them; 4 GiB stand for that or more.
    pub bytes_retrans: u64,
    /// The time since something was last received, in milliseconds.
    pub lastrcv_ms: u64,
    /// The time since the connection was opened, in seconds.
    pub age_s: u64,
}

/// The reply to `kill`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Killed {
    /// The number of connections that were reset.
    pub killed: u64,
}
