//! The behaviour of a peer after its handshake.

use std::time::Duration;

use tidegate_tcp::wire::Options;

use super::scripts::{Reader, Silent, SlowHead, TinyMss};
use crate::plan::{Kind, Plan};

/// The window of a peer that takes everything, in octets.
const WINDOW: u32 = 64_240;

/// The MSS of a peer that has nothing against large segments: that of IPv6 over Ethernet.
const MSS: u16 = 1_440;

/// The behaviour of a kind's peers, as a function of how many intervals there were since the handshake (the step).
///
/// By default a peer says nothing, takes everything, and acknowledges it at once. Octets are counted as by
/// [`Peer`](super::peer::Peer).
pub(super) trait Script: Send {
    /// The options of the SYN.
    fn syn_options(&self) -> Options {
        Options {
            mss: Some(MSS),
            ..Options::default()
        }
    }

    /// Whether connections are kept, else they are forgotten as soon as the handshake is complete.
    fn is_kept(&self) -> bool {
        true
    }

    /// Whether it answers what comes when it has `taken` so many octets of the response; else it only sends when an
    /// interval is over.
    fn answers(&self, _taken: u32) -> bool {
        true
    }

    /// The time after which it sends a segment by itself, and again after that.
    fn interval(&self) -> Option<Duration> {
        None
    }

    /// The request, all of which is sent at once unless [`Script::said`] says otherwise.
    fn request(&self) -> &[u8] {
        &[]
    }

    /// Octets of the request sent by `step`.
    fn said(&self, _step: u32) -> u32 {
        self.request().len() as u32
    }

    /// The octet of the request at `index`.
    fn octet(&self, index: u32) -> u8 {
        self.request().get(index as usize).copied().unwrap_or_default()
    }

    /// Octets of the response that it has room for.
    fn room(&self) -> u32 {
        WINDOW
    }

    /// Octets that it reads in an interval, which makes room for as many; `None` if it reads at once what comes.
    fn reads(&self) -> Option<u32> {
        None
    }

    /// Octets of the response that it acknowledges at most by `step`.
    fn limit(&self, _step: u32) -> u32 {
        u32::MAX
    }

    /// SACK blocks of the response, of which octets up to `taken` are acknowledged and others up to `seen` came.
    fn sack_blocks(&self, _step: u32, _taken: u32, _seen: u32) -> Vec<(u32, u32)> {
        Vec::new()
    }
}

/// The script of the plan's kind; `None` for one that needs no connections.
pub(super) fn of(plan: &Plan) -> Option<Box<dyn Script>> {
    let second = Duration::from_secs(1);
    let request = || format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", plan.path, plan.target);
    Some(match plan.kind {
        Kind::Connect => Box::new(Silent { is_kept: false }),
        Kind::Idle => Box::new(Silent { is_kept: true }),
        Kind::SlowHead => Box::new(SlowHead::new(&request(), second)),
        Kind::SlowRead => Box::new(Reader::new(request(), second, 256, 32)),
        Kind::ZeroWindow => Box::new(Reader::new(request(), second, 0, 0)),
        Kind::ZeroOneWindow => Box::new(Reader::new(request(), second, 0, 1)),
        Kind::TinyMss => Box::new(TinyMss::new(request(), plan.rate.round(plan.connections), plan.seed)),
        _ => return None,
    })
}
