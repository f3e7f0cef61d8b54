//! The counts of a connection since it was opened. They are derived from sequence numbers, so that a segment costs a
//! comparison of numbers that are at hand, and only what is rare is counted.

use super::{State, Tcb};
use crate::seq::SeqNumber;
use crate::time::Instant;

/// The source of a connection's counts.
pub(crate) struct Lifetime {
    /// ISS.
    iss: SeqNumber,
    /// IRS + 1.
    received_from: SeqNumber,
    /// `None`: all of it is zero.
    rare: Option<Box<Rare>>,
}

/// What most connections never have.
#[derive(Default)]
struct Rare {
    /// Segments sent again.
    retransmitted_segments: u32,
    /// Bytes of text in them.
    retransmitted_bytes: u32,
    /// The number of times that SND.UNA wrapped.
    una_wraps: u16,
    /// The number of times that the beginning of a measurement of the peer's rate wrapped.
    tuning_wraps: u16,
    /// Challenge ACKs sent in the second of the last one, which is kept modulo 2^8.
    challenge_count: u16,
    challenge_second: u8,
    /// A SYN was answered in TIME-WAIT or CLOSED, where the connection is for what its application has not read.
    syn_answered: bool,
}

impl Lifetime {
    /// Of a connection that is opened with this ISS.
    pub(crate) fn new(iss: SeqNumber) -> Self {
        Self {
            iss,
            received_from: SeqNumber(0),
            rare: None,
        }
    }

    /// The peer's text begins with this number.
    pub(crate) fn receives_from(&mut self, first: SeqNumber) {
        self.received_from = first;
    }

    /// A segment with `length` bytes of text was sent again.
    pub(crate) fn note_retransmission(&mut self, length: u32) {
        let rare = self.rare();
        rare.retransmitted_segments = rare.retransmitted_segments.saturating_add(1);
        rare.retransmitted_bytes = rare.retransmitted_bytes.saturating_add(length);
    }

    /// Segments sent again.
    pub(crate) fn retransmitted_segments(&self) -> u32 {
        self.rare.as_ref().map_or(0, |rare| rare.retransmitted_segments)
    }

    /// A challenge ACK is to be sent. Returns how many that are in this second.
    pub(crate) fn note_challenge(&mut self, now: Instant) -> u32 {
        let rare = self.rare();
        // One 256 seconds ago counts as one of now: the limit is reached sooner, never later.
        let second = now.as_secs() as u8;
        if rare.challenge_second != second {
            rare.challenge_second = second;
            rare.challenge_count = 0;
        }
        rare.challenge_count = rare.challenge_count.saturating_add(1);
        u32::from(rare.challenge_count)
    }

    /// Whether a SYN was answered in TIME-WAIT or CLOSED.
    pub(crate) fn syn_answered(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.syn_answered)
    }

    /// A SYN was answered in TIME-WAIT or CLOSED.
    pub(crate) fn note_syn_answered(&mut self) {
        self.rare().syn_answered = true;
    }

    #[cold]
    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// RCV.NXT was `from` when the last measurement of the peer's rate began, and is `to` when the next one does: not
    /// 2^32 bytes later.
    pub(crate) fn measured(&mut self, from: SeqNumber, to: SeqNumber) {
        if to.0 < from.0 {
            let rare = self.rare();
            rare.tuning_wraps = rare.tuning_wraps.saturating_add(1);
        }
    }

    fn una_wraps(&self) -> u64 {
        self.rare.as_ref().map_or(0, |rare| u64::from(rare.una_wraps))
    }

    fn tuning_wraps(&self) -> u64 {
        self.rare.as_ref().map_or(0, |rare| u64::from(rare.tuning_wraps))
    }

    #[cold]
    fn una_wrapped(&mut self) {
        let rare = self.rare();
        rare.una_wraps = rare.una_wraps.saturating_add(1);
    }
}

/// The distance from `first` to `number`, which has wrapped this number of times.
fn distance(first: SeqNumber, wraps: u64, number: SeqNumber) -> u64 {
    (wraps << 32 | u64::from(number.0)).saturating_sub(u64::from(first.0))
}

impl Tcb {
    /// The peer has acknowledged what comes before `ack`.
    #[inline(always)]
    pub(crate) fn set_una(&mut self, ack: SeqNumber) {
        if ack.0 < self.snd_una.0 {
            self.lifetime.una_wrapped();
        }
        self.snd_una = ack;
    }

    /// Bytes of text the peer has acknowledged. Beyond 2^48 it is too small.
    pub(crate) fn bytes_acked(&self) -> u64 {
        let fin_acked = self.fin_sent && self.flight() == 0;
        distance(self.lifetime.iss, self.lifetime.una_wraps(), self.snd_una).saturating_sub(1 + u64::from(fin_acked))
    }

    /// Bytes of text sent, those sent again counted each time.
    pub(crate) fn bytes_sent(&self) -> u64 {
        let text_in_flight = match self.state {
            State::SynSent | State::SynReceived => 0,
            _ => self.flight() - u32::from(self.fin_sent && self.flight() > 0),
        };
        self.bytes_acked() + u64::from(text_in_flight) + self.bytes_retransmitted()
    }

    /// Bytes of text sent again; 4 GiB stand for that or more.
    pub(crate) fn bytes_retransmitted(&self) -> u64 {
        self.lifetime
            .rare
            .as_ref()
            .map_or(0, |rare| u64::from(rare.retransmitted_bytes))
    }

    /// Bytes of text received in order. Beyond 2^48 it is too small.
    pub(crate) fn bytes_received(&self) -> u64 {
        let wrapped_since = self.rcv_nxt.0 < self.tuning_from.0;
        let wraps = self.lifetime.tuning_wraps() + u64::from(wrapped_since);
        distance(self.lifetime.received_from, wraps, self.rcv_nxt).saturating_sub(u64::from(self.fin_received))
    }

    /// Whole seconds since the connection was opened.
    pub(crate) fn age_seconds(&self, now: Instant) -> u32 {
        (now.as_secs() as u32).wrapping_sub(self.opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::testing::tcb;

    #[test]
    fn bytes_are_counted_across_any_number_of_wraps() {
        // The ISS is near the end of the sequence space.
        let mut tcb = tcb(true, false, 0);
        let step = (1_u32 << 31) - 7;
        tcb.set_una(tcb.snd_una + 1);
        tcb.snd_nxt = tcb.snd_una;
        (tcb.rcv_nxt, tcb.tuning_from) = (SeqNumber(u32::MAX - 3), SeqNumber(u32::MAX - 3));
        tcb.lifetime.receives_from(tcb.rcv_nxt);
        assert_eq!((tcb.bytes_acked(), tcb.bytes_received()), (0, 0));
        for round in 1..=100_u64 {
            tcb.snd_nxt = tcb.snd_una + step;
            assert_eq!(tcb.bytes_sent(), round * u64::from(step));
            tcb.set_una(tcb.snd_nxt);
            tcb.rcv_nxt += step;
            let all = round * u64::from(step);
            assert_eq!((tcb.bytes_acked(), tcb.bytes_received()), (all, all));
            tcb.lifetime.measured(tcb.tuning_from, tcb.rcv_nxt);
            tcb.tuning_from = tcb.rcv_nxt;
            assert_eq!(tcb.bytes_received(), all);
        }
    }

    #[test]
    fn neither_syn_nor_fin_is_a_byte() {
        let mut tcb = tcb(true, false, 0);
        assert_eq!((tcb.bytes_acked(), tcb.bytes_sent()), (0, 0));
        tcb.set_una(tcb.snd_una + 1 + 1000);
        tcb.snd_nxt = tcb.snd_una;
        assert_eq!(tcb.bytes_acked(), 1000);
        tcb.fin_sent = true;
        tcb.snd_nxt += 11;
        assert_eq!((tcb.bytes_acked(), tcb.bytes_sent()), (1000, 1010));
        tcb.set_una(tcb.snd_nxt);
        assert_eq!((tcb.bytes_acked(), tcb.bytes_sent()), (1010, 1010));
        tcb.lifetime.receives_from(SeqNumber(5));
        (tcb.rcv_nxt, tcb.tuning_from) = (SeqNumber(26), SeqNumber(5));
        tcb.fin_received = true;
        assert_eq!(tcb.bytes_received(), 20);
    }
}
