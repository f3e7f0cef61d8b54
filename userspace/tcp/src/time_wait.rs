//! TIME-WAIT: a compact record outside of the connection table (RFC 9293, sections 3.4.2 and 3.6.1).

use crate::link::LinkId;
use crate::seq::SeqNumber;
use crate::wire::emit::Header;
use crate::wire::options::Timestamps;
use crate::wire::{Flags, FlowKey, Options, Segment};

/// What is kept of a connection for 2MSL.
#[derive(Clone, Debug)]
pub(crate) struct TimeWait {
    pub(crate) key: FlowKey,
    pub(crate) link: LinkId,
    pub(crate) snd_nxt: SeqNumber,
    pub(crate) rcv_nxt: SeqNumber,
    /// Window field of the last acknowledgment.
    pub(crate) window: u16,
    pub(crate) timestamps: bool,
    pub(crate) timestamp_offset: u32,
    pub(crate) ts_recent: u32,
}

/// What a segment for a connection in TIME-WAIT means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// RST: ignored, since an old duplicate could end TIME-WAIT early (RFC 1337).
    Reset,
    /// A new connection of the same 4-tuple (RFC 6191, section 2; RFC 9293, section 3.6.1).
    NewConnection,
    /// The peer's FIN again: acknowledged, and 2MSL begins anew.
    FinAgain,
    /// Something else that takes sequence space: acknowledged.
    Unacceptable,
    /// A bare acknowledgment: nothing to do.
    Ignorable,
}

impl TimeWait {
    pub(crate) fn meaning(&self, segment: &Segment<'_>) -> Meaning {
        let flags = segment.flags;
        if flags.contains(Flags::RST) {
            return Meaning::Reset;
        }
        if flags.contains(Flags::SYN) && !flags.contains(Flags::ACK) {
            return if self.may_begin_anew(segment.seq, segment.options.timestamps) {
                Meaning::NewConnection
            } else {
                Meaning::Unacceptable
            };
        }
        if flags.contains(Flags::FIN) && segment.seq + segment.length() == self.rcv_nxt {
            return Meaning::FinAgain;
        }
        if segment.length() > 0 {
            Meaning::Unacceptable
        } else {
            Meaning::Ignorable
        }
    }

    /// Whether a SYN with this sequence number and these timestamps is of a new connection (RFC 6191, section 2;
    /// RFC 9293, section 3.6.1).
    pub(crate) fn may_begin_anew(&self, seq: SeqNumber, timestamps: Option<Timestamps>) -> bool {
        let higher = seq.after(self.rcv_nxt);
        match timestamps.filter(|_| self.timestamps) {
            Some(timestamps) => {
                let (value, recent) = (SeqNumber(timestamps.value), SeqNumber(self.ts_recent));
                value.after(recent) || (value == recent && higher)
            }
            None => higher,
        }
    }

    pub(crate) fn acknowledgment(&self, timestamp_now: u32) -> Header {
        Header {
            seq: self.snd_nxt,
            ack: self.rcv_nxt,
            flags: Flags::ACK,
            window: self.window,
            options: Options {
                timestamps: self.timestamps.then_some(Timestamps {
                    value: timestamp_now,
                    echo: self.ts_recent,
                }),
                ..Options::default()
            },
            ecn_capable: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_at_most_a_cache_line() {
        assert!(size_of::<TimeWait>() <= 64, "{} bytes", size_of::<TimeWait>());
    }
}
