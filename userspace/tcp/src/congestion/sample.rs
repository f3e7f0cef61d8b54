//! The delivery of data as congestion control sees it that goes by the rate of the path (draft-ietf-ccwg-bbr, section
//! 4.1).

use core::time::Duration;

use crate::seq::SeqNumber;
use crate::time::Instant;

/// The rate at which the path delivers, measured by one acknowledgment: from the newest segment that it delivered, and
/// what was delivered and lost since that one was sent last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateSample {
    /// Bytes per second delivered since then; `None` if the time was too short to tell.
    pub rate: Option<u64>,
    /// Bytes delivered since then.
    pub delivered: u32,
    /// Bytes delivered before then, over the life of the connection.
    pub prior_delivered: u64,
    /// The application had less to send than the path could take: the rate may be the application's.
    pub app_limited: bool,
    /// Bytes in flight then, the segment included.
    pub tx_in_flight: u32,
    /// Bytes found to be lost since then.
    pub lost: u32,
}

/// An acknowledgment's news of what was delivered and lost, for a controller that
/// [wants them](super::CongestionControl::wants_rate_samples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Bytes delivered, over the life of the connection.
    pub delivered: u64,
    /// Bytes in flight after the acknowledgment: neither acknowledged in any way nor lost.
    pub in_flight: u32,
    /// SACK was negotiated, so that more than one loss in a round trip is seen.
    pub selective: bool,
    /// `None` if nothing was delivered whose sending is known.
    pub sample: Option<RateSample>,
}

/// A segment that was found to be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostSegment {
    /// Its first sequence number.
    pub seq: SeqNumber,
    /// Bytes of sequence space it takes.
    pub bytes: u32,
    /// Bytes in flight when it was sent last, itself included.
    pub tx_in_flight: u32,
    /// Bytes found to be lost since then, itself included.
    pub lost: u32,
    /// When it was sent, the application had less to send than the path could take.
    pub app_limited: bool,
}

/// The circumstances of losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossContext {
    /// The time they were found.
    pub now: Instant,
    /// Bytes delivered by then, over the life of the connection.
    pub delivered: u64,
    /// SACK was negotiated, so that more than one loss in a round trip is seen.
    pub selective: bool,
}

/// The path, as a controller that models it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathModel {
    /// The state of the controller.
    pub state: &'static str,
    /// The bandwidth in bytes per second; zero before the first measurement.
    pub bandwidth: u64,
    /// The least round-trip time of the last seconds; on a path that reorders the least mean of 64 of them, or of as
    /// many as a probe of it measures, and the smoothed one until there is a mean. `None` before the first measurement.
    pub min_rtt: Option<Duration>,
    /// The pacing rate, in percent of the bandwidth.
    pub pacing_gain: u32,
    /// The congestion window, in percent of what fills the path.
    pub cwnd_gain: u32,
}
