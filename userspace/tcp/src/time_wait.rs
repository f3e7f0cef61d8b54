//! TIME-WAIT: a compact record outside of the connection table (RFC 9293, sections 3.4.2 and 3.6.1).

use core::time::Duration;

use crate::connection::Tcb;
use crate::flow_table::FlowHash;
use crate::link::LinkId;
use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::wire::address::CompactKey;
use crate::wire::emit::Header;
use crate::wire::options::Timestamps;
use crate::wire::{Flags, Options, Segment};

/// The record of a connection that is kept for 2MSL.
pub(crate) struct TimeWait {
    pub(crate) key: CompactKey,
    /// The hash of the key: when 2MSL are over, nothing else asks for the key, unless someone watches, and that of IPv6
    /// is in memory of its own.
    pub(crate) hash: FlowHash,
    pub(crate) link: LinkId,
    pub(crate) snd_nxt: SeqNumber,
    pub(crate) rcv_nxt: SeqNumber,
    /// Window field of the last acknowledgment.
    pub(crate) window: u16,
    pub(crate) timestamps: bool,
    /// A SYN that begins nothing new was answered.
    pub(crate) syn_answered: bool,
    pub(crate) timestamp_offset: u32,
    pub(crate) ts_recent: u32,
    /// The time it is forgotten, in milliseconds: there is room for 48 bits of them, which last 8,900 years.
    expires_low: u32,
    expires_high: u16,
}

/// The meaning of a segment for a connection in TIME-WAIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// RST: ignored, since an old duplicate could end TIME-WAIT early (RFC 1337).
    Reset,
    /// RST of a peer whose SYN was answered with an acknowledgment of the old connection: it knows nothing of that, and
    /// the SYN it sends next is to find nothing either.
    Unknown,
    /// A new connection of the same 4-tuple (RFC 6191, section 2; RFC 9293, section 3.6.1).
    NewConnection,
    /// The peer's FIN again: acknowledged, and 2MSL begins anew.
    FinAgain,
    /// A SYN that may be old: acknowledged.
    OldSyn,
    /// Something else that takes sequence space: acknowledged.
    Unacceptable,
    /// A bare acknowledgment: nothing to do.
    Ignorable,
}

impl TimeWait {
    /// The record of a connection that enters TIME-WAIT at `now`. `hash` is that of its key, which the record takes.
    #[inline]
    pub(crate) fn new(tcb: &mut Tcb, hash: FlowHash, now: Instant, msl: Duration) -> Self {
        let window = tcb.rcv_edge.saturating_since(tcb.rcv_nxt) >> tcb.rcv_wind_shift;
        let mut record = Self {
            key: tcb.key.take(),
            hash,
            link: tcb.link,
            snd_nxt: tcb.snd_nxt,
            rcv_nxt: tcb.rcv_nxt,
            window: window.min(u32::from(u16::MAX)) as u16,
            timestamps: tcb.timestamps,
            syn_answered: tcb.lifetime.syn_answered(),
            timestamp_offset: tcb.timestamp_offset,
            ts_recent: tcb.ts_recent,
            expires_low: 0,
            expires_high: 0,
        };
        record.begin_anew(now, msl);
        record
    }

    /// 2MSL begins at `now`.
    #[inline]
    pub(crate) fn begin_anew(&mut self, now: Instant, msl: Duration) {
        // It never ends early.
        let millis = (now + 2 * msl).next_milli().as_millis();
        (self.expires_high, self.expires_low) = ((millis >> 32) as u16, millis as u32);
    }

    /// The time it is forgotten.
    #[inline]
    pub(crate) fn expires_at(&self) -> Instant {
        Instant::from_millis(u64::from(self.expires_high) << 32 | u64::from(self.expires_low))
    }

    pub(crate) fn meaning(&self, segment: &Segment<'_>) -> Meaning {
        let flags = segment.flags;
        if flags.contains(Flags::RST) {
            // The sequence number is that of the acknowledgment (RFC 9293, section 3.10.7.3), and to blind attackers
            // one of 2^32.
            return if self.syn_answered && segment.seq == self.rcv_nxt {
                Meaning::Unknown
            } else {
                Meaning::Reset
            };
        }
        if flags.contains(Flags::SYN) && !flags.contains(Flags::ACK) {
            return if self.may_begin_anew(segment.seq, segment.options.timestamps) {
                Meaning::NewConnection
            } else {
                Meaning::OldSyn
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
    use crate::connection::testing::tcb;

    #[test]
    fn a_record_takes_48_bytes() {
        assert!(size_of::<TimeWait>() <= 48, "{} bytes", size_of::<TimeWait>());
    }

    #[test]
    fn two_msl_end_when_they_should_whatever_the_clock_shows() {
        let mut tcb = tcb(true, false, 1460);
        for entered in [0, 999, (1 << 32) * 1000 - 500, (1 << 44) + 7] {
            let entered = Instant::from_micros(entered);
            for msl in [
                Duration::from_millis(1),
                Duration::from_secs(30),
                Duration::from_secs(86_400),
            ] {
                let record = TimeWait::new(&mut tcb, FlowHash::default(), entered, msl);
                let end = entered + 2 * msl;
                let expires_at = record.expires_at();
                assert!(
                    expires_at >= end && expires_at <= end + Duration::from_millis(1),
                    "{end:?}"
                );
            }
        }
    }
}
