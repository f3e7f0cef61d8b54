//! The counters the server prints: lines `name{queue="0"} value`.

use std::collections::{BTreeSet, HashMap};

/// TCP segments other than SYNs the XDP program gave to an AF_XDP socket.
pub(crate) const REDIRECTS: &str = "xdp_redirect";
/// SYNs the XDP program gave to an AF_XDP socket.
pub(crate) const REDIRECTS_SYN: &str = "xdp_redirect_syn";
/// ICMP "too big" the XDP program gave to an AF_XDP socket.
pub(crate) const REDIRECTS_TOO_BIG: &str = "xdp_redirect_too_big";
/// SYNs the XDP program answered with a cookie.
pub(crate) const SYN_COOKIES_SENT: &str = "xdp_tx_syn_cookie";
/// TCP dropped because its source is denied.
pub(crate) const DROPPED_SOURCE_DENIED: &str = "xdp_drop_source_denied";
/// SYNs dropped because their source sent too many.
pub(crate) const DROPPED_SYN_RATE: &str = "xdp_drop_syn_rate";
/// TCP to an address and port that is not served, left to the kernel.
pub(crate) const PASSED_NOT_SERVED: &str = "xdp_pass_not_served";
/// IP other than TCP, left to the kernel.
pub(crate) const PASSED_NOT_TCP: &str = "xdp_pass_not_tcp";
/// Frames taken from the RX ring.
pub(crate) const RX_FRAMES: &str = "afxdp_rx_frames";
/// XDP_STATISTICS: redirected frames the socket had no buffer for.
pub(crate) const RX_DROPPED: &str = "afxdp_kernel_rx_dropped";
/// XDP_STATISTICS: redirected frames that found the RX ring full.
pub(crate) const RX_RING_FULL: &str = "afxdp_kernel_rx_ring_full";
/// Segments that came from the shard of another queue.
pub(crate) const HANDED_IN: &str = "afxdp_handover_in";
/// Connections accepted.
pub(crate) const PASSIVE_OPENS: &str = "tcp_passive_opens";
/// Connections made from a SYN cookie.
pub(crate) const COOKIE_CONNECTIONS: &str = "tcp_cookie_connections";
/// Acknowledgments of no connection that are no cookie either.
pub(crate) const DROPPED_BAD_COOKIE: &str = "tcp_drop_bad_cookie";
/// SYNs that reached a shard.
pub(crate) const SYNS_IN: &str = "tcp_syns_in";
/// Times SYN cookies were turned on.
pub(crate) const COOKIES_TURNED_ON: &str = "syn_cookies_on";
/// Times SYN cookies were turned off.
pub(crate) const COOKIES_TURNED_OFF: &str = "syn_cookies_off";
/// Queues whose SYNs are answered with cookies now.
pub(crate) const COOKIES_ACTIVE: &str = "syn_cookies_active";
/// Connections that ended with both FINs acknowledged.
pub(crate) const FINISHED: &str = "tcp_finished";
/// Connections the peer reset.
pub(crate) const RESET_BY_PEER: &str = "tcp_reset_by_peer";
/// Connections the server reset.
pub(crate) const ABORTED: &str = "tcp_aborted";
/// Challenge ACKs sent.
pub(crate) const CHALLENGE_ACKS: &str = "tcp_challenge_acks";
/// Connections in TIME-WAIT whose place a new one took.
pub(crate) const TIME_WAIT_REUSED: &str = "tcp_time_wait_reused";
/// Connections given up because the peer no longer answered.
pub(crate) const TIMED_OUT: &str = "tcp_timed_out";
/// ICMP "too big" that reached a shard and was not another's.
pub(crate) const TOO_BIG_IN: &str = "tcp_too_big_in";
/// Connections that send smaller segments because of it.
pub(crate) const PATH_MTU_REDUCED: &str = "tcp_path_mtu_reduced";
/// Connections that send smaller segments because large ones were not acknowledged.
pub(crate) const PATH_MTU_BLACK_HOLES: &str = "tcp_path_mtu_black_holes";
/// Window probes sent.
pub(crate) const WINDOW_PROBES: &str = "tcp_window_probes";
/// Connections there are now, without those in TIME-WAIT.
pub(crate) const CONNECTIONS: &str = "tcp_connections";

/// Frames of a shard's UMEM.
const FRAMES_TOTAL: &str = "frames_total";
/// Where a shard's own frames can be.
const FRAME_PLACES: [&str; 5] = [
    "frames_pool",
    "frames_fill",
    "frames_tx",
    "frames_in_hand",
    "frames_handed_over",
];

/// One report of the server: the value of each counter on each queue.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters(HashMap<(String, u32), u64>);

impl Counters {
    /// Reads the counters among `lines`; a later line of the same counter replaces an earlier one.
    pub(crate) fn parse<S: AsRef<str>>(lines: &[S]) -> Self {
        Self(lines.iter().filter_map(|line| parse_line(line.as_ref())).collect())
    }

    /// Whether no line was a counter.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of `name` on `queue`. A counter the server does not print is a failed test, not zero.
    pub(crate) fn get(&self, name: &str, queue: u32) -> u64 {
        match self.0.get(&(name.to_owned(), queue)) {
            Some(value) => *value,
            None => panic!("no {name} for queue {queue}; there are {:?}", self.names()),
        }
    }

    /// The sum of `name` over all queues, at least one of which must be printed.
    pub(crate) fn sum(&self, name: &str) -> u64 {
        let queues = self.queues(name);
        assert!(!queues.is_empty(), "no {name}; there are {:?}", self.names());
        queues.into_iter().map(|queue| self.get(name, queue)).sum()
    }

    /// The queues for which `name` is printed.
    pub(crate) fn queues(&self, name: &str) -> BTreeSet<u32> {
        let of_name = self.0.keys().filter(|(other, _)| other == name);
        of_name.map(|(_, queue)| *queue).collect()
    }

    /// Connections accepted and not ended, by the counters of events.
    pub(crate) fn accepted_and_not_ended(&self) -> u64 {
        let ended: u64 = [FINISHED, RESET_BY_PEER, ABORTED, TIMED_OUT]
            .into_iter()
            .map(|name| self.sum(name))
            .sum();
        let accepted = self.sum(PASSIVE_OPENS);
        assert!(ended <= accepted, "{ended} connections ended, {accepted} were accepted");
        accepted - ended
    }

    /// Fails the test unless every frame of each shard's UMEM is in exactly one place.
    pub(crate) fn expect_frames_whole(&self) {
        for queue in self.queues(FRAMES_TOTAL) {
            let somewhere: u64 = FRAME_PLACES.iter().map(|place| self.get(place, queue)).sum();
            let total = self.get(FRAMES_TOTAL, queue);
            assert_eq!(somewhere, total, "queue {queue}: frames lost or in two places");
        }
        assert!(self.sum(FRAMES_TOTAL) > 0, "a shard without frames");
    }

    /// Fails the test unless every frame the XDP program redirected reached userspace on the same
    /// queue, or is one the kernel says the socket had no room for. Returns the redirects.
    pub(crate) fn expect_redirects_received(&self) -> u64 {
        for queue in self.queues(RX_FRAMES) {
            let redirected: u64 = [REDIRECTS, REDIRECTS_SYN, REDIRECTS_TOO_BIG]
                .into_iter()
                .map(|name| self.get(name, queue))
                .sum();
            let received = self.get(RX_FRAMES, queue);
            let refused = self.get(RX_DROPPED, queue) + self.get(RX_RING_FULL, queue);
            assert_eq!(
                redirected,
                received + refused,
                "queue {queue}: {redirected} frames redirected, {received} received, {refused} refused by the socket"
            );
        }
        let redirected = self.sum(REDIRECTS);
        assert!(redirected > 0, "nothing went through XDP");
        redirected
    }

    fn names(&self) -> BTreeSet<&str> {
        self.0.keys().map(|(name, _)| name.as_str()).collect()
    }
}

fn parse_line(line: &str) -> Option<((String, u32), u64)> {
    let (name, rest) = line.trim().split_once("{queue=\"")?;
    let (queue, value) = rest.split_once("\"}")?;
    Some(((name.to_owned(), queue.parse().ok()?), value.trim().parse().ok()?))
}
