//! What leaves a connection, and when.

use super::{Connection, Context, Fate, Recovery, State, Tcb};
use crate::application::CloseReason;
use crate::config::Config;
use crate::congestion::CongestionControl;
use crate::counters::Counter;
use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::transmit::{Purpose, Transmit};
use crate::wire::emit::{self, Header};
use crate::wire::{Flags, Options};

/// New segments one connection sends at a time, so that a long queue does not keep the others waiting.
const SEGMENTS_PER_TURN: usize = 64;

/// Why a probe is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// The peer's window is closed (RFC 9293, section 3.8.6.1).
    Window,
    /// The peer has been silent (RFC 9293, section 3.8.4).
    Keepalive,
}

/// A segment could not be sent because there was no frame for it.
struct NoFrame;

impl<C> Connection<C> {
    /// Ends the handling of an event: sends what may be sent and says what becomes of the connection.
    pub(crate) fn finish<T: Transmit>(&mut self, context: &mut Context<'_, T>) -> Fate {
        let tcb = &mut self.tcb;
        if tcb.abort {
            tcb.send_reset(context);
            return Fate::Closed(CloseReason::Aborted);
        }
        tcb.output(context);
        match tcb.state {
            State::TimeWait => Fate::TimeWait,
            State::Closed => Fate::Closed(CloseReason::Finished),
            State::FinWait2 if tcb.read_closed && tcb.deadlines.fin_wait_2 == Instant::NEVER => {
                tcb.deadlines.fin_wait_2 = context.now + context.config.fin_wait_2;
                Fate::Open
            }
            _ => Fate::Open,
        }
    }
}

impl Tcb {
    /// Sends whatever the windows allow, and an acknowledgment if one is due and went with nothing else.
    pub(crate) fn output<T: Transmit>(&mut self, context: &mut Context<'_, T>) {
        self.output_pending = false;
        let sent = self.output_data(context);
        if sent.is_err() || (self.ack_now && self.send_ack(context).is_err()) {
            context.counters.bump(Counter::NoFrame);
            self.output_pending = true;
        }
    }

    fn output_data<T: Transmit>(&mut self, context: &mut Context<'_, T>) -> Result<(), NoFrame> {
        if self.state == State::SynSent || self.state == State::SynReceived {
            return self.output_syn(context);
        }
        if self.retransmit_head {
            self.retransmit(self.snd_una, context)?;
            self.retransmit_head = false;
        }
        if self.recovery == Recovery::Timeout {
            self.retransmit_after_timeout(context)?;
        }
        if self.unsent() > 0 || (self.fin_queued && !self.fin_sent) {
            self.send_new(context)?;
        }
        Ok(())
    }

    /// Sends again from `high_rxt` on, as far as the congestion window reaches.
    fn retransmit_after_timeout<T: Transmit>(&mut self, context: &mut Context<'_, T>) -> Result<(), NoFrame> {
        while self.high_rxt.before(self.recover) && self.high_rxt - self.snd_una < self.congestion.window() {
            let length = self.retransmit(self.high_rxt, context)?;
            self.high_rxt += length;
        }
        Ok(())
    }

    /// Sends again the segment that starts at `seq`, and returns how much sequence space it covers.
    fn retransmit<T: Transmit>(&mut self, seq: SeqNumber, context: &mut Context<'_, T>) -> Result<u32, NoFrame> {
        let fin_at = self.snd_una + self.send_queue.len() as u32;
        let length = (fin_at - seq).min(u32::from(self.mss)).min(self.snd_nxt - seq);
        let fin = self.fin_sent && seq + length == fin_at;
        if length == 0 && !fin {
            return Ok(0);
        }
        if self.recovery == Recovery::Fast || self.retransmit_head {
            context.counters.bump(Counter::FastRetransmits);
        }
        // Karn's algorithm.
        self.timed = None;
        self.send_segment(seq, length, fin, Purpose::Control, context)?;
        Ok(length + u32::from(fin))
    }

    fn send_new<T: Transmit>(&mut self, context: &mut Context<'_, T>) -> Result<(), NoFrame> {
        let mss = u32::from(self.mss);
        if self.flight() == 0 && self.last_sent != Instant::ZERO {
            let idle = context.now.since(self.last_sent);
            if idle > self.rto.timeout(context.config.rto_max) {
                self.congestion.on_idle(mss);
            }
        }
        // Limited transmit (RFC 3042): the first two duplicates each let a new segment out.
        let limited_transmit = match (self.recovery, self.duplicate_acks) {
            (Recovery::None, duplicates @ 1..=2) => u32::from(duplicates) * mss,
            _ => 0,
        };
        let congestion_window = self.congestion.window().saturating_add(limited_transmit);
        for _ in 0..SEGMENTS_PER_TURN {
            let flight = self.flight();
            let unsent = self.unsent();
            let usable = self.snd_wnd.saturating_sub(flight);
            let allowed = usable.min(congestion_window.saturating_sub(flight));
            let length = unsent.min(mss).min(allowed);
            let all = length == unsent;
            // FIN takes an octet of the peer's window, but none of the congestion window.
            let fin = all && self.fin_queued && !self.fin_sent && usable > length;
            if length == 0 && !fin {
                if flight == 0 && usable == 0 {
                    self.start_persist_timer(context.now, context.config);
                }
                return Ok(());
            }
            if !fin && !self.worth_sending(length, all, context.config) {
                if flight == 0 {
                    // Silly window avoidance must not wait forever (RFC 9293, section 3.8.6.2.1).
                    self.start_persist_timer(context.now, context.config);
                }
                return Ok(());
            }
            let seq = self.snd_nxt;
            self.send_segment(seq, length, fin, Purpose::Data, context)?;
            context.counters.add(Counter::BytesOut, u64::from(length));
            if flight == 0 {
                self.progress_at = context.now;
            }
            self.snd_nxt = seq + length + u32::from(fin);
            if length < mss {
                self.snd_sml = self.snd_nxt;
            }
            if self.timed.is_none() {
                self.timed = Some((self.snd_nxt, context.now));
            }
            self.start_retransmit_timer(context.now, context.config);
            if fin {
                self.fin_sent = true;
                self.state = match self.state {
                    State::CloseWait => State::LastAck,
                    _ => State::FinWait1,
                };
                return Ok(());
            }
            if all {
                return Ok(());
            }
        }
        // The rest in the next turn.
        self.output_pending = true;
        Ok(())
    }

    /// Nagle's algorithm and the sender's silly window avoidance (RFC 9293, sections 3.7.4 and 3.8.6.2.1).
    ///
    /// Nagle's as changed by Minshall (draft-minshall-nagle-01), like Linux: a small segment waits only for another small
    /// one. Otherwise the end of every write longer than a segment would wait for the peer's delayed acknowledgment.
    fn worth_sending(&self, length: u32, all: bool, config: &Config) -> bool {
        length == u32::from(self.mss)
            || (all && (!config.nagle || self.fin_queued || self.snd_sml.at_or_before(self.snd_una)))
            || (self.max_snd_wnd > 1 && length >= self.max_snd_wnd / 2)
    }

    /// Sends SYN or SYN-ACK of a connection this side opened.
    fn output_syn<T: Transmit>(&mut self, context: &mut Context<'_, T>) -> Result<(), NoFrame> {
        let again = self.recovery == Recovery::Timeout;
        if self.flight() > 0 && !again && !self.ack_now {
            return Ok(());
        }
        let mut flags = Flags::SYN;
        if self.state == State::SynReceived {
            flags |= Flags::ACK;
        }
        let iss = self.snd_una;
        let window = context.config.receive_buffer.min(u32::from(u16::MAX));
        let header = Header {
            seq: iss,
            ack: self.rcv_nxt,
            flags,
            window: window as u16,
            options: Options {
                mss: Some(offered_mss(context.config.mtu, self.key.is_v4())),
                window_scale: Some(self.rcv_wind_shift),
                sack_permitted: true,
                timestamps: self.timestamps_option(context.now),
                ..Options::default()
            },
        };
        self.transmit(&header, 0, 0, Purpose::Handshake, context)?;
        self.rcv_edge = self.rcv_nxt + window;
        self.ack_now = false;
        self.recovery = Recovery::None;
        if self.snd_nxt == iss {
            self.snd_nxt = iss + 1;
            self.timed = Some((self.snd_nxt, context.now));
            self.progress_at = context.now;
        }
        self.start_retransmit_timer(context.now, context.config);
        Ok(())
    }

    /// Sends a segment with text from the send queue.
    fn send_segment<T: Transmit>(
        &mut self,
        seq: SeqNumber,
        length: u32,
        fin: bool,
        purpose: Purpose,
        context: &mut Context<'_, T>,
    ) -> Result<(), NoFrame> {
        let offset = seq - self.snd_una;
        let mut flags = Flags::ACK;
        if length > 0 && offset + length == self.send_queue.len() as u32 {
            flags |= Flags::PSH;
        }
        if fin {
            flags |= Flags::FIN;
        }
        let header = Header {
            seq,
            ack: self.rcv_nxt,
            flags,
            window: self.offer_window(context.config),
            options: Options {
                timestamps: self.timestamps_option(context.now),
                ..Options::default()
            },
        };
        self.transmit(&header, offset as usize, length as usize, purpose, context)?;
        self.last_sent = context.now;
        self.acknowledged();
        Ok(())
    }

    /// Sends an acknowledgment without text.
    fn send_ack<T: Transmit>(&mut self, context: &mut Context<'_, T>) -> Result<(), NoFrame> {
        let mut options = Options {
            timestamps: self.timestamps_option(context.now),
            ..Options::default()
        };
        if let Some(reassembly) = self.reassembly.as_ref().filter(|_| self.sack_permitted) {
            options.set_sack_blocks(reassembly.sack_blocks(self.rcv_nxt));
        }
        let header = Header {
            seq: self.snd_nxt,
            ack: self.rcv_nxt,
            flags: Flags::ACK,
            window: self.offer_window(context.config),
            options,
        };
        self.transmit(&header, 0, 0, Purpose::Control, context)?;
        self.acknowledged();
        Ok(())
    }

    /// Sends an empty segment from before the window, which the peer has to answer with its state, as Linux does.
    pub(crate) fn send_probe<T: Transmit>(&mut self, probe: Probe, context: &mut Context<'_, T>) {
        let header = Header {
            seq: match probe {
                Probe::Window => self.snd_una - 1,
                Probe::Keepalive => self.snd_nxt - 1,
            },
            ack: self.rcv_nxt,
            flags: Flags::ACK,
            window: self.offer_window(context.config),
            options: Options {
                timestamps: self.timestamps_option(context.now),
                ..Options::default()
            },
        };
        // Without a frame the next probe follows by the timer.
        if self.transmit(&header, 0, 0, Purpose::Control, context).is_err() {
            context.counters.bump(Counter::NoFrame);
        }
    }

    /// Sends RST for the connection, if it is in a state in which the peer knows of it.
    pub(crate) fn send_reset<T: Transmit>(&mut self, context: &mut Context<'_, T>) {
        if matches!(self.state, State::SynSent | State::TimeWait | State::Closed) {
            return;
        }
        let header = Header {
            seq: self.snd_nxt,
            ack: self.rcv_nxt,
            flags: Flags::RST | Flags::ACK,
            window: 0,
            options: Options::default(),
        };
        if self.transmit(&header, 0, 0, Purpose::Control, context).is_err() {
            context.counters.bump(Counter::NoFrame);
        }
    }

    fn acknowledged(&mut self) {
        self.last_ack_sent = self.rcv_nxt;
        self.ack_now = false;
        self.deadlines.delayed_ack = Instant::NEVER;
    }

    fn transmit<T: Transmit>(
        &self,
        header: &Header,
        offset: usize,
        length: usize,
        purpose: Purpose,
        context: &mut Context<'_, T>,
    ) -> Result<(), NoFrame> {
        let buffer = context.out.reserve(purpose).ok_or(NoFrame)?;
        let link = context.links.get(self.link);
        let size = emit::frame(buffer, link, &self.key, header, length, |text| {
            self.send_queue.copy_to(offset, text);
        });
        context.out.commit(size);
        context.counters.bump(Counter::FramesOut);
        Ok(())
    }

    /// Where the receive window would end if all free buffer were offered.
    fn free_edge(&self, config: &Config) -> SeqNumber {
        let free = config.receive_buffer.saturating_sub(self.unread.len() as u32);
        self.rcv_nxt + free
    }

    /// Whether consuming has freed enough to be worth telling the peer (RFC 9293, section 3.8.6.2.2).
    pub(crate) fn window_may_open(&self, config: &Config) -> bool {
        let threshold = (config.receive_buffer / 2).min(2 * u32::from(self.rcv_mss));
        self.free_edge(config).saturating_since(self.rcv_edge) >= threshold
    }

    /// The window field for a segment sent now. The right edge never moves back, and forward only by a worthwhile step
    /// (RFC 9293, sections 3.8.6 and 3.8.6.2.2).
    pub(crate) fn offer_window(&mut self, config: &Config) -> u16 {
        let free = self.free_edge(config);
        let step = (config.receive_buffer / 2).min(u32::from(self.rcv_mss));
        let edge = if free.saturating_since(self.rcv_edge) >= step {
            free
        } else {
            self.rcv_edge
        };
        let window = edge.saturating_since(self.rcv_nxt);
        let field = (window >> self.rcv_wind_shift).min(u32::from(u16::MAX));
        self.rcv_edge = self.rcv_edge.max(self.rcv_nxt + (field << self.rcv_wind_shift));
        field as u16
    }
}

/// The MSS option sent: what fits the link without options (RFC 9293, section 3.7.1; RFC 6691).
pub(crate) fn offered_mss(mtu: u16, ipv4: bool) -> u16 {
    mtu - if ipv4 { 40 } else { 60 }
}

/// The shift that lets a 16-bit window field cover `buffer` bytes (RFC 7323, section 2.3).
pub(crate) fn window_shift(buffer: u32) -> u8 {
    let bits = u32::BITS - buffer.leading_zeros();
    bits.saturating_sub(16).min(14) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shift_covers_the_buffer() {
        for buffer in [1, 65_535, 65_536, 1 << 20, (1 << 20) + 1, 1 << 30] {
            let shift = window_shift(buffer);
            assert!(
                u64::from(u16::MAX) << shift >= u64::from(buffer) - (1 << shift),
                "{buffer}"
            );
            assert!(shift == 0 || u64::from(u16::MAX) << (shift - 1) < u64::from(buffer));
        }
    }
}
