//! The size of segments follows the path: down when a router says so (RFC 1191, RFC 8201) or when full segments vanish
//! without a word (RFC 2923, section 2.1), and up again after a while (RFC 1191, section 6.3).

use core::time::Duration;

use super::{Common, Context, State, Tcb};
use crate::config::Config;
use crate::counters::Counter;
use crate::recovery::Phase;
use crate::seq::SeqNumber;
use crate::time::Instant;

/// IP and TCP header without options.
const IPV4_HEADERS: u16 = 40;
const IPV6_HEADERS: u16 = 60;

/// The part of every segment that timestamps take.
const TIMESTAMPS_LENGTH: u16 = 12;

/// The least text a segment is cut to, as for a peer that asks for less.
const MIN_TEXT: u16 = 48;

/// IPv6's minimum link MTU (RFC 8200, section 5). Every path has it, so a message that tells less is not to be believed
/// (RFC 8201, section 4).
const IPV6_MIN_MTU: u16 = 1280;

/// The MTU tried in a black hole of IPv4 before `min_path_mtu`: RFC 4821, section 7.2, begins its search with it.
const IPV4_BLACK_HOLE_MTU: u16 = 1024;

/// The time segments stay smaller after the first suspicion of a black hole; twice as long after each further one. A
/// path that merely loses much looks like one now and then, and must not pay for it as long as a real one.
const FIRST_SUSPICION: Duration = Duration::from_secs(15);

/// Routers' smaller MTUs that are followed one by one; the next one makes segments as small as they get. A path has few
/// such links. A router that tells of an octet less each time would have everything outstanding cut once more for each.
const MAX_REDUCTIONS: u8 = 8;

/// A connection's knowledge of a path that turned out narrower than the peer's MSS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathMtu {
    /// Text of a full segment before the first reduction, and the time of the last one; `None` at full size.
    reduced: Option<(u16, Instant)>,
    /// A router told of the last reduction.
    told: bool,
    /// The number of times a black hole was suspected at full size.
    suspicions: u8,
    /// The number of times routers have told of a smaller MTU since full size.
    reductions: u8,
}

impl PathMtu {
    /// Nothing is known of the path.
    pub(crate) const FULL_SIZE: Self = Self {
        reduced: None,
        told: false,
        suspicions: 0,
        reductions: 0,
    };

    /// Forgets suspicions, unless segments are smaller for them.
    pub(crate) fn forget_suspicions(&mut self) {
        if self.reduced.is_none() {
            *self = Self::FULL_SIZE;
        }
    }

    /// Whether there is nothing to remember.
    pub(crate) fn is_full_size(&self) -> bool {
        self.reduced.is_none() && !self.told && self.suspicions == 0
    }

    /// The time segments stay smaller.
    fn stays(self, config: &Config) -> Duration {
        if self.told {
            return config.path_mtu_raise;
        }
        let doublings = u32::from(self.suspicions.saturating_sub(1)).min(16);
        (FIRST_SUSPICION * (1 << doublings)).min(config.path_mtu_raise)
    }
}

impl Tcb {
    /// Whether a segment that starts at `seq` may be in the network: SND.UNA =< `seq` < SND.NXT (RFC 5927, section
    /// 4.1). Never before ESTABLISHED, since a handshake's segments are small.
    pub(crate) fn is_outstanding(&self, seq: SeqNumber) -> bool {
        !matches!(self.state, State::SynSent | State::SynReceived)
            && seq.at_or_after(self.snd_una)
            && seq.before(self.snd_nxt)
    }

    /// The smallest path MTU that is believed or tried.
    pub(crate) fn min_mtu_of(&self, config: &Config) -> u16 {
        if self.key.is_v4() {
            config.min_path_mtu
        } else {
            IPV6_MIN_MTU
        }
    }

    /// Text of a segment that makes a packet of `mtu` bytes.
    pub(super) fn text_in_packet(&self, mtu: u16) -> u16 {
        let headers = if self.key.is_v4() { IPV4_HEADERS } else { IPV6_HEADERS };
        let stamped = if self.timestamps { TIMESTAMPS_LENGTH } else { 0 };
        mtu.saturating_sub(headers + stamped).max(MIN_TEXT)
    }

    /// A router could not forward packets larger than `mtu` bytes: makes segments fit, and has what did not sent again.
    /// False, and nothing is changed, if they already do.
    pub(crate) fn set_path_mtu(&mut self, mtu: u16, now: Instant, config: &Common) -> bool {
        let mtu = if self.sending.path_mtu.reductions < MAX_REDUCTIONS {
            mtu
        } else {
            mtu.min(self.min_mtu_of(config))
        };
        if !self.fit_segments(mtu, now, config) {
            return false;
        }
        self.sending.path_mtu.reductions += 1;
        let outstanding = self.flight() > 0;
        let sending = &mut *self.sending;
        sending.path_mtu.told = true;
        if outstanding {
            // What was too large is gone, and not for congestion (RFC 4821, section 7.5): the congestion window stays.
            sending.retransmit_head = true;
            sending.scoreboard.mark_longer_lost(u32::from(self.mss));
            if sending.phase == Phase::Open && sending.scoreboard.lost() > 0 {
                sending.phase = Phase::Loss;
                sending.undo = None;
                sending.recovery_point = Some(self.snd_nxt);
            }
        }
        true
    }

    /// Lets no segment from now on make a packet larger than `mtu` bytes. False, and nothing is changed, if none would.
    fn fit_segments(&mut self, mtu: u16, now: Instant, config: &Common) -> bool {
        let text = self.text_in_packet(mtu);
        if text >= self.mss {
            return false;
        }
        // The congestion window, in bytes, does not depend on the size of segments from now on.
        self.congestion(config);
        let path_mtu = &mut self.sending.path_mtu;
        let full = path_mtu.reduced.map_or(self.mss, |(full, _)| full);
        path_mtu.reduced = Some((full, now));
        self.mss = text;
        true
    }

    /// Goes back to full segments when the last reduction is `path_mtu_raise` ago, or less if nobody told of it: the
    /// path may be another by now. To be called before new data is sent.
    #[inline]
    pub(crate) fn raise_path_mtu(&mut self, now: Instant, config: &Config) {
        // Not while nothing comes through at all: that says nothing about sizes.
        if let Some((full, reduced_at)) = self.sending.path_mtu.reduced
            && !config.path_mtu_raise.is_zero()
            && self.rto.backoffs() == 0
            && now.since(reduced_at) >= self.sending.path_mtu.stays(config)
        {
            self.mss = full;
            self.sending.path_mtu.reduced = None;
            self.sending.path_mtu.reductions = 0;
            self.sending.path_mtu.told = false;
        }
    }

    /// Forgets what an idle connection has learned of its path long ago; the path may be another by now. Only a size of
    /// segments that is to be kept longer is remembered.
    pub(crate) fn forget_path(&mut self, now: Instant, config: &Config) {
        self.raise_path_mtu(now, config);
        if let Some(sending) = self.sending.active_mut() {
            sending.forget_path(now);
        }
    }

    /// Text of the longest segment that may be outstanding.
    fn longest_outstanding(&self) -> u16 {
        let text = self.queued().min(self.flight() as usize);
        text.min(usize::from(self.mss)) as u16
    }

    /// Whether the first outstanding segment was again not acknowledged for `black_hole_timeouts` timeouts. To be asked
    /// once for each timeout, when the RTO has been backed off.
    fn black_hole_suspected(&self, config: &Config) -> bool {
        let timeouts = self.rto.backoffs();
        config.black_hole_timeouts > 0
            && timeouts > 0
            && timeouts.is_multiple_of(config.black_hole_timeouts)
            && !matches!(self.state, State::SynSent | State::SynReceived)
    }

    /// The path MTU to try next when larger packets seem to vanish; `None` when what is outstanding would fit any.
    fn next_black_hole_mtu(&self, config: &Config) -> Option<u16> {
        let least = self.min_mtu_of(config);
        [IPV4_BLACK_HOLE_MTU.max(least), least]
            .into_iter()
            .find(|&mtu| self.text_in_packet(mtu) < self.longest_outstanding())
    }

    /// Makes segments smaller if the path seems to drop long ones. To be called once for each retransmission timeout,
    /// when the RTO has been backed off; what is outstanding is sent again by the caller.
    pub(crate) fn avoid_black_hole<T>(&mut self, context: &mut Context<'_, T>) {
        let at_full_size = self.sending.path_mtu.reduced.is_none();
        if self.black_hole_suspected(context.config)
            && let Some(mtu) = self.next_black_hole_mtu(context.config)
            && self.fit_segments(mtu, context.now, context.config)
        {
            let suspicions = &mut self.sending.path_mtu.suspicions;
            *suspicions = suspicions.saturating_add(u8::from(at_full_size));
            context.counters.bump(Counter::PathMtuBlackHoles);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::testing::{NOW, tcb};

    #[test]
    fn the_text_leaves_room_for_all_headers_and_has_a_floor() {
        let config = Common::default();
        for (ipv4, timestamps, text) in [
            (true, false, 1360),
            (true, true, 1348),
            (false, false, 1340),
            (false, true, 1328),
        ] {
            let mut tcb = tcb(ipv4, timestamps, 0);
            assert!(tcb.set_path_mtu(1400, NOW, &config));
            assert_eq!(tcb.mss, text);
            assert!(!tcb.sending.retransmit_head, "nothing is outstanding");
        }
        for mtu in [0, 40, 68, 99] {
            let mut tcb = tcb(true, true, 0);
            assert!(tcb.set_path_mtu(mtu, NOW, &config));
            assert_eq!(tcb.mss, MIN_TEXT, "{mtu}");
        }
    }

    #[test]
    fn an_increase_is_not_learned() {
        let config = Common::default();
        let mut tcb = tcb(true, false, 1460);
        for mtu in [1500, 1501, 9000, u16::MAX] {
            assert!(!tcb.set_path_mtu(mtu, NOW, &config));
        }
        assert_eq!(tcb.mss, 1460);
        assert!(!tcb.sending.retransmit_head);
        assert!(tcb.set_path_mtu(1400, NOW, &config));
        assert!(tcb.sending.retransmit_head);
        assert!(!tcb.set_path_mtu(1400, NOW, &config) && !tcb.set_path_mtu(1450, NOW, &config));
        assert_eq!(tcb.mss, 1360);
    }

    #[test]
    fn only_what_is_in_the_network_is_outstanding() {
        let mut tcb = tcb(true, false, 3000);
        let una = tcb.snd_una;
        for offset in [0, 1, 1460, 2999] {
            assert!(tcb.is_outstanding(una + offset), "{offset}");
        }
        for offset in [3000, 3001, 1 << 31, u32::MAX] {
            assert!(!tcb.is_outstanding(una + offset), "{offset}");
        }
        tcb.state = State::SynSent;
        assert!(!tcb.is_outstanding(una));
    }

    #[test]
    fn nothing_is_outstanding_when_all_is_acknowledged() {
        let tcb = tcb(true, false, 0);
        assert!(!tcb.is_outstanding(tcb.snd_una) && !tcb.is_outstanding(tcb.snd_una - 1));
    }

    #[test]
    fn full_segments_come_back_ten_minutes_after_the_last_reduction() {
        let config = Common::default();
        let mut tcb = tcb(true, false, 0);
        tcb.raise_path_mtu(NOW, &config);
        assert_eq!(tcb.mss, 1460);
        tcb.set_path_mtu(1400, NOW, &config);
        let later = NOW + Duration::from_secs(300);
        tcb.set_path_mtu(1000, later, &config);
        tcb.raise_path_mtu(later + Duration::from_secs(599), &config);
        assert_eq!(tcb.mss, 960);
        tcb.raise_path_mtu(later + Duration::from_secs(600), &config);
        assert_eq!(tcb.mss, 1460);
        assert!(tcb.sending.path_mtu.reduced.is_none());
    }

    #[test]
    fn mtus_that_fall_octet_by_octet_are_followed_only_so_often() {
        let config = Common::default();
        let mut tcb = tcb(true, false, 0);
        let reductions = (552..1500)
            .rev()
            .filter(|&mtu| tcb.set_path_mtu(mtu, NOW, &config))
            .count();
        assert_eq!((reductions, tcb.mss), (usize::from(MAX_REDUCTIONS) + 1, 512));
        // At full size again, they are followed again.
        let later = NOW + config.path_mtu_raise;
        tcb.raise_path_mtu(later, &config);
        assert!(tcb.set_path_mtu(1400, later, &config));
        assert_eq!(tcb.mss, 1360);
    }

    #[test]
    fn a_suspicion_lasts_twice_as_long_each_time() {
        let config = Common::default();
        let mut tcb = tcb(true, false, 1460);
        let mut now = NOW;
        for seconds in [15, 30, 60, 120, 240, 480, 600, 600] {
            assert!(tcb.fit_segments(1024, now, &config));
            tcb.sending.path_mtu.suspicions += 1;
            tcb.raise_path_mtu(now + Duration::from_secs(seconds - 1), &config);
            assert_eq!(tcb.mss, 984, "{seconds} s");
            now = now + Duration::from_secs(seconds);
            tcb.raise_path_mtu(now, &config);
            assert_eq!(tcb.mss, 1460, "{seconds} s");
        }
        // Once a router has told, it is no suspicion.
        assert!(tcb.set_path_mtu(1400, now, &config));
        tcb.raise_path_mtu(now + Duration::from_secs(599), &config);
        assert_eq!(tcb.mss, 1360);
    }

    #[test]
    fn a_raise_time_of_zero_means_never() {
        let config = Common::new(Config {
            path_mtu_raise: Duration::ZERO,
            ..Config::default()
        });
        let mut tcb = tcb(true, false, 0);
        tcb.set_path_mtu(1400, NOW, &config);
        tcb.raise_path_mtu(NOW + Duration::from_secs(1_000_000), &config);
        assert_eq!(tcb.mss, 1360);
    }

    #[test]
    fn full_segments_that_vanish_thrice_in_a_row_are_suspicious() {
        let config = Common::default();
        let mut tcb = tcb(true, false, 1460);
        let mut suspected = Vec::new();
        for timeout in 0..8 {
            if tcb.black_hole_suspected(&config) {
                suspected.push(timeout);
            }
            tcb.rto.back_off();
        }
        assert_eq!(suspected, [3, 6]);
        tcb.rto.reset_backoff();
        assert!(!tcb.black_hole_suspected(&config), "the peer has answered");
    }

    #[test]
    fn handshakes_are_not_suspicious_and_segments_that_fit_any_path_are_left_alone() {
        let config = Common::default();
        let never = Common::new(Config {
            black_hole_timeouts: 0,
            ..Config::default()
        });
        for (outstanding, state, config, expected) in [
            (1460, State::Established, &config, true),
            (1460, State::SynSent, &config, false),
            (1460, State::SynReceived, &config, false),
            (1460, State::Established, &never, false),
        ] {
            let mut tcb = tcb(true, false, outstanding);
            tcb.state = state;
            for _ in 0..3 {
                tcb.rto.back_off();
            }
            assert_eq!(tcb.black_hole_suspected(config), expected, "{outstanding} in {state}");
        }
        for (outstanding, expected) in [
            (1460, Some(1024)),
            (985, Some(1024)),
            (984, Some(552)),
            (512, None),
            (0, None),
        ] {
            assert_eq!(
                tcb(true, false, outstanding).next_black_hole_mtu(&config),
                expected,
                "{outstanding}"
            );
        }
    }

    #[test]
    fn segments_shrink_step_by_step_and_then_no_more() {
        let config = Common::default();
        for (ipv4, steps) in [(true, &[1024, 552][..]), (false, &[1280][..])] {
            let mut tcb = tcb(ipv4, true, 1460);
            for &step in steps {
                assert_eq!(tcb.next_black_hole_mtu(&config), Some(step));
                assert!(tcb.fit_segments(step, NOW, &config));
            }
            assert_eq!(tcb.next_black_hole_mtu(&config), None);
        }
        let config = Common::new(Config {
            min_path_mtu: 1280,
            ..Config::default()
        });
        let mut tcb = tcb(true, true, 1460);
        assert_eq!(tcb.next_black_hole_mtu(&config), Some(1280));
        tcb.fit_segments(1280, NOW, &config);
        assert_eq!(tcb.next_black_hole_mtu(&config), None);
    }
}
