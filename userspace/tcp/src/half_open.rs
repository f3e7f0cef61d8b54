//! Half-open connections: SYN received, SYN-ACK sent, nothing else known. A compact record, bounded in number.

use core::time::Duration;

use crate::application::ListenerId;
use crate::config::Config;
use crate::connection::open::Negotiated;
use crate::connection::send::offered_mss;
use crate::connection::window::{syn_ack_window, window_shift};
use crate::link::LinkId;
use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::wire::emit::Header;
use crate::wire::options::Timestamps;
use crate::wire::{Flags, FlowKey, Options};

/// In place of a window scale, which is at most 14.
const NO_WINDOW_SCALE: u8 = u8::MAX;

/// A connection in SYN-RECEIVED that came from LISTEN.
#[derive(Clone, Debug)]
pub(crate) struct HalfOpen {
    pub(crate) key: FlowKey,
    pub(crate) link: LinkId,
    pub(crate) listener: ListenerId,
    pub(crate) irs: SeqNumber,
    pub(crate) iss: SeqNumber,
    // What the SYN offered, in fewer bytes than `Negotiated` takes.
    /// The peer's TSval; without meaning when there are no timestamps.
    timestamp: u32,
    /// The time the first SYN-ACK was sent: the low 32 bits of its microseconds.
    sent_at: u32,
    mss: u16,
    /// [`NO_WINDOW_SCALE`] if the SYN had none.
    window_scale: u8,
    timestamps: bool,
    sack_permitted: bool,
    ecn: bool,
    /// The number of times the SYN-ACK was sent again by its timer; at least 1 if the SYN was answered again.
    pub(crate) retransmits: u8,
}

impl HalfOpen {
    /// The record of a SYN with sequence number `irs` that is answered at `now`.
    pub(crate) fn new(
        key: FlowKey,
        link: LinkId,
        listener: ListenerId,
        irs: SeqNumber,
        iss: SeqNumber,
        negotiated: &Negotiated,
        now: Instant,
    ) -> Self {
        Self {
            key,
            link,
            listener,
            irs,
            iss,
            timestamp: negotiated.timestamp.unwrap_or(0),
            sent_at: now.as_micros() as u32,
            mss: negotiated.mss,
            window_scale: negotiated.window_scale.unwrap_or(NO_WINDOW_SCALE),
            timestamps: negotiated.timestamp.is_some(),
            sack_permitted: negotiated.sack_permitted,
            ecn: negotiated.ecn,
            retransmits: 0,
        }
    }

    /// The agreement of the SYNs.
    pub(crate) fn negotiated(&self) -> Negotiated {
        Negotiated {
            mss: self.mss,
            window_scale: self.window_scale(),
            sack_permitted: self.sack_permitted,
            timestamp: self.timestamps.then_some(self.timestamp),
            ecn: self.ecn,
        }
    }

    /// The SYN's window scale.
    fn window_scale(&self) -> Option<u8> {
        (self.window_scale != NO_WINDOW_SCALE).then_some(self.window_scale)
    }

    /// The time the SYN-ACK was sent; `None` if it was sent more than once. Right up to an hour before `now`: it is
    /// sent again long before.
    pub(crate) fn sent_at(&self, now: Instant) -> Option<Instant> {
        (self.retransmits == 0).then(|| self.first_sent_at(now))
    }

    /// The time the first SYN-ACK was sent. Right up to an hour before `now`.
    pub(crate) fn first_sent_at(&self, now: Instant) -> Instant {
        let ago = (now.as_micros() as u32).wrapping_sub(self.sent_at);
        now - Duration::from_micros(u64::from(ago))
    }

    /// The SYN-ACK: it offers no more than the SYN did.
    pub(crate) fn syn_ack(&self, timestamp_now: u32, config: &Config) -> Header {
        Header {
            seq: self.iss,
            ack: self.irs + 1,
            flags: if self.ecn {
                Flags::SYN | Flags::ACK | Flags::ECE
            } else {
                Flags::SYN | Flags::ACK
            },
            window: syn_ack_window(config),
            options: Options {
                mss: Some(offered_mss(config, self.key.is_v4())),
                window_scale: self.window_scale().map(|_| window_shift(config.receive_buffer)),
                sack_permitted: self.sack_permitted,
                timestamps: self.timestamps.then_some(Timestamps {
                    value: timestamp_now,
                    echo: self.timestamp,
                }),
                ..Options::default()
            },
            ecn_capable: false,
        }
    }

    /// An acknowledgment that repeats where this side stands, for segments that do not fit.
    pub(crate) fn challenge(&self, timestamp_now: u32, config: &Config) -> Header {
        let syn_ack = self.syn_ack(timestamp_now, config);
        Header {
            seq: self.iss + 1,
            flags: Flags::ACK,
            // Other than a SYN's, it is scaled (RFC 7323, section 2.2).
            window: syn_ack.window >> syn_ack.options.window_scale.unwrap_or(0),
            options: Options {
                timestamps: syn_ack.options.timestamps,
                ..Options::default()
            },
            ..syn_ack
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::link::LinkTable;
    use crate::wire::LinkHeader;
    use crate::wire::options::MAX_WINDOW_SCALE;

    #[test]
    fn a_record_is_at_most_a_cache_line() {
        assert!(size_of::<HalfOpen>() <= 64, "{} bytes", size_of::<HalfOpen>());
    }

    fn record(negotiated: &Negotiated, now: Instant) -> HalfOpen {
        let key = FlowKey::new("198.18.0.1:80".parse().unwrap(), "198.18.0.2:4000".parse().unwrap());
        let link = LinkTable::default()
            .acquire(&LinkHeader::new([2; 6], [4; 6], true))
            .unwrap();
        HalfOpen::new(key, link, ListenerId(0), SeqNumber(1), SeqNumber(2), negotiated, now)
    }

    proptest! {
        #[test]
        fn nothing_of_the_offer_is_lost(
            mss: u16,
            window_scale in proptest::option::of(0..=MAX_WINDOW_SCALE),
            sack_permitted: bool,
            timestamp: Option<u32>,
            ecn: bool,
        ) {
            let negotiated = Negotiated { mss, window_scale, sack_permitted, timestamp, ecn };
            prop_assert_eq!(record(&negotiated, Instant::ZERO).negotiated(), negotiated);
        }

        #[test]
        fn the_time_of_the_syn_ack_survives_the_wrap(sent_at in 0..1_u64 << 40, later in 0..1_u64 << 32) {
            let negotiated = Negotiated {
                mss: 1460,
                window_scale: None,
                sack_permitted: false,
                timestamp: None,
                ecn: false,
            };
            let sent_at = Instant::from_micros(sent_at);
            let mut half_open = record(&negotiated, sent_at);
            let now = sent_at.plus_micros(later);
            prop_assert_eq!(half_open.sent_at(now), Some(sent_at));
            half_open.retransmits = 1;
            prop_assert_eq!(half_open.sent_at(now), None);
        }
    }
}
