//! Half-open connections: SYN received, SYN-ACK sent, nothing else known. A compact record, bounded in number.

use crate::application::ListenerId;
use crate::config::Config;
use crate::connection::open::Negotiated;
use crate::connection::send::{offered_mss, syn_ack_window, window_shift};
use crate::link::LinkId;
use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::wire::emit::Header;
use crate::wire::options::Timestamps;
use crate::wire::{Flags, FlowKey, Options};

/// A connection in SYN-RECEIVED that came from LISTEN.
#[derive(Clone, Debug)]
pub(crate) struct HalfOpen {
    pub(crate) key: FlowKey,
    pub(crate) link: LinkId,
    pub(crate) listener: ListenerId,
    pub(crate) irs: SeqNumber,
    pub(crate) iss: SeqNumber,
    pub(crate) negotiated: Negotiated,
    /// How often the SYN-ACK was sent again.
    pub(crate) retransmits: u8,
    /// When the first SYN-ACK was sent.
    pub(crate) sent_at: Instant,
}

impl HalfOpen {
    /// The SYN-ACK: it offers no more than the SYN did.
    pub(crate) fn syn_ack(&self, timestamp_now: u32, config: &Config) -> Header {
        Header {
            seq: self.iss,
            ack: self.irs + 1,
            flags: if self.negotiated.ecn {
                Flags::SYN | Flags::ACK | Flags::ECE
            } else {
                Flags::SYN | Flags::ACK
            },
            window: syn_ack_window(config),
            options: Options {
                mss: Some(offered_mss(config.mtu, self.key.is_v4())),
                window_scale: self
                    .negotiated
                    .window_scale
                    .map(|_| window_shift(config.receive_buffer)),
                sack_permitted: self.negotiated.sack_permitted,
                timestamps: self.negotiated.timestamp.map(|echo| Timestamps {
                    value: timestamp_now,
                    echo,
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
            options: Options {
                timestamps: syn_ack.options.timestamps,
                ..Options::default()
            },
            ..syn_ack
        }
    }
}
