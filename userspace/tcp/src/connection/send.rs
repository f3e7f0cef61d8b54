//! Output: the segments that leave a connection, and the time they do.

use super::recv_state::RecvState;
use super::{Connection, Context, NearInstant, Outcome, State, Tcb};
use crate::application::CloseReason;
use crate::config::Config;
use crate::counters::Counter;
use crate::recovery::Phase;
use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::transmit::{Purpose, Transmit};
use crate::wire::emit::{self, Header};
use crate::wire::{Flags, Options};

/// New segments one connection sends at a time, so that a long queue does not keep the others waiting.
const SEGMENTS_PER_TURN: usize = 64;

/// The reason for a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// The peer's window is closed (RFC 9293, section 3.8.6.1).
    Window,
    /// The peer has been silent (RFC 9293, section 3.8.4).
    Keepalive,
}

/// A segment could not be sent because there was no frame for it.
pub(super) struct NoFrame;

impl<C> Connection<C> {
    /// Ends the handling of an event: sends what may be sent and says what becomes of the connection.
    #[inline(never)]
    pub(crate) fn flush_output<T: Transmit>(&mut self, context: &mut Context<'_, T>) -> Outcome {
        self.flush_output_inline(context)
    }

    /// [`Connection::flush_output`] after a segment, where a call would be a good part of what it costs.
    #[inline(always)]
    pub(crate) fn flush_output_inline<T: Transmit>(&mut self, context: &mut Context<'_, T>) -> Outcome {
        let tcb = &mut self.tcb;
        tcb.account(context.totals);
        if tcb.abort {
            tcb.send_reset(context);
            return Outcome::Closed(CloseReason::Aborted);
        }
        tcb.output(context);
        if matches!(tcb.state, State::FinWait2 | State::TimeWait | State::Closed) {
            let outcome = tcb.outcome_of_fin(context);
            if outcome != Outcome::Open {
                return outcome;
            }
        }
        tcb.release_idle(context.now, context.send_states);
        Outcome::Open
    }
}

impl Tcb {
    /// Whether the connection is open, and [`Connection::flush_output`] would find nothing to do: so it is after most
    /// handshakes.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        self.state == State::Established
            && self.sending.active().is_none()
            && self.receiving.is_none()
            && !(self.ack_now | self.abort | self.fin_queued | self.output_pending)
    }

    /// The outcome for a connection whose FIN is acknowledged.
    #[inline(never)]
    fn outcome_of_fin<T>(&mut self, context: &mut Context<'_, T>) -> Outcome {
        let is_read = self.unread() > 0 && !self.read_closed;
        let is_timed = self.sending.deadlines.fin_wait_2 != Instant::NEVER;
        match self.state {
            // The application may still read what it has not consumed (RFC 9293, section 3.10.3), for a bounded time.
            State::TimeWait | State::Closed if is_read && !is_timed => {
                self.sending.acquire(context.send_states);
                self.sending.stop_timers(false);
                self.sending.deadlines.fin_wait_2 = context.now + context.config.user_timeout;
                self.deadlines.keepalive = Instant::NEVER;
            }
            State::TimeWait | State::Closed if is_read => {}
            State::TimeWait => return Outcome::TimeWait,
            State::Closed => return Outcome::Closed(CloseReason::Finished),
            State::FinWait2 if self.read_closed && !is_timed => {
                self.sending.acquire(context.send_states);
                self.sending.deadlines.fin_wait_2 = context.now + context.config.fin_wait_2;
            }
            _ => {}
        }
        Outcome::Open
    }

    /// Sends whatever the windows allow, and an acknowledgment if one is due and went with nothing else.
    #[inline(always)]
    pub(crate) fn output<T: Transmit>(&mut self, context: &mut Context<'_, T>) {
        self.output_pending = false;
        let report = if self.ack_now && self.has_report() {
            self.send_ack(context)
        } else {
            Ok(())
        };
        let data = self.output_data(context);
        // Text that has found a frame where the report did not has not reported anything.
        self.ack_now |= report.is_err();
        // An acknowledgment may still find a frame where text does not.
        let acknowledgment = if self.ack_now { self.send_ack(context) } else { Ok(()) };
        if data.and(acknowledgment).is_err() {
            context.counters.bump(Counter::NoFrame);
            self.output_pending = true;
        }
    }

    /// Whether an acknowledgment has to go by itself, whatever text is sent: text carries no SACK blocks, for which its
    /// segments would have to be smaller, and to a peer without SACK it is no duplicate acknowledgment (RFC 5681,
    /// section 2).
    #[inline]
    fn has_report(&self) -> bool {
        self.receiving.as_deref().is_some_and(RecvState::is_to_be_reported)
    }

    #[inline(always)]
    fn output_data<T: Transmit>(&mut self, context: &mut Context<'_, T>) -> Result<(), NoFrame> {
        if self.state == State::SynSent || self.state == State::SynReceived {
            return self.output_syn(context);
        }
        if self.sending.active().is_none() && (self.fin_sent || !self.fin_queued) {
            return Ok(());
        }
        if let Some(length) = self.all_in_one_segment() {
            self.sending.cwnd_limited = false;
            return self.send_first_time(length, self.fin_queued, context);
        }
        if self.is_all_acknowledged() {
            self.note_nothing_to_send(context.now);
            return Ok(());
        }
        self.output_queue(context)
    }

    /// Whether there is nothing to send, nor to send again.
    #[inline]
    fn is_all_acknowledged(&self) -> bool {
        let sending = &*self.sending;
        self.snd_una == self.snd_nxt
            && sending.send_queue.len() == 0
            && (self.fin_sent || !self.fin_queued)
            && !sending.retransmit_head
            && !sending.frto.is_probing()
    }

    /// It is the application that limits sending, unless the pacing rate has still to let go what was sent.
    #[inline]
    fn note_nothing_to_send(&mut self, now: Instant) {
        self.sending.cwnd_limited = false;
        if !self.is_ahead(now) {
            self.check_app_limited();
        }
    }

    /// [`Tcb::output_data`] of more than a segment, or while something is outstanding.
    #[inline(never)]
    fn output_queue<T: Transmit>(&mut self, context: &mut Context<'_, T>) -> Result<(), NoFrame> {
        if self.sending.retransmit_head {
            self.retransmit(0, context)?;
            self.sending.retransmit_head = false;
        }
        for _ in 0..SEGMENTS_PER_TURN {
            let pipe = self.pipe();
            if self.sending.frto.is_probing() {
                if !self.send_instead_of_lost(pipe, context)? {
                    return Ok(());
                }
            } else if let Some(index) = self
                .sending
                .active_mut()
                .and_then(|sending| sending.scoreboard.next_lost())
            {
                if pipe >= self.cwnd() {
                    self.sending.cwnd_limited = true;
                    return Ok(());
                }
                if self.is_held_back(context.now) {
                    self.sending.cwnd_limited = false;
                    return Ok(());
                }
                self.retransmit(index, context)?;
            } else if !self.send_new(pipe, context)? {
                return Ok(());
            }
        }
        // The rest in the next turn.
        self.output_pending = true;
        Ok(())
    }

    /// The bytes queued, if nothing is outstanding and one segment can take all of them now, FIN included: most
    /// responses.
    #[inline]
    fn all_in_one_segment(&self) -> Option<u32> {
        let sending = self.sending.active()?;
        let queued = sending.send_queue.len();
        let fits = queued > 0 && queued <= usize::from(self.mss) && (queued as u32) < self.snd_wnd;
        // A congestion window that was never needed takes a segment.
        let undisturbed = sending.is_undisturbed()
            && !sending.retransmit_head
            && !sending.persist
            && sending.congestion.is_none()
            && sending.path_mtu.is_full_size();
        (fits && undisturbed && self.snd_una == self.snd_nxt).then_some(queued as u32)
    }

    /// The sequence number of FIN, sent or not.
    fn fin_at(&self) -> SeqNumber {
        self.snd_una + self.queued() as u32
    }

    /// Sends the outstanding segment at `index` again, as much of it as fits one segment now.
    fn retransmit<T: Transmit>(&mut self, index: usize, context: &mut Context<'_, T>) -> Result<(), NoFrame> {
        let index = self.sending.scoreboard.split(index, u32::from(self.mss));
        let Some(&segment) = self.sending.scoreboard.get(index) else {
            return Ok(());
        };
        let length = segment.end.min(self.fin_at()) - segment.seq;
        let fin = segment.end.after(self.fin_at());
        self.send_segment_again(segment.seq, length, fin, context)?;
        let stamp = self.timestamp_now(context.now);
        let sending = &mut *self.sending;
        sending.scoreboard.retransmitted(index, context.now);
        sending.frto.retransmitted(segment.end);
        context.counters.bump(match sending.phase {
            Phase::Loss => Counter::RtoRetransmits,
            _ => Counter::FastRetransmits,
        });
        if let Some(undo) = sending.undo.as_mut().filter(|undo| undo.until == Instant::NEVER) {
            undo.sent = true;
            undo.retransmits = undo.retransmits.saturating_add(1);
            undo.stamps = Some((undo.stamps.map_or(stamp, |(first, _)| first), stamp));
        }
        sending.prr.sent(segment.end - segment.seq);
        self.lifetime.note_retransmission(length);
        self.note_sent(length, true, context.now);
        self.start_retransmit_timer(context.now, context.rto_bounds);
        Ok(())
    }

    /// Sends one segment that has not been sent before, if there is something to send and the windows allow it, and
    /// says whether it did. `pipe` is what is in the network.
    pub(super) fn send_new<T: Transmit>(&mut self, pipe: u32, context: &mut Context<'_, T>) -> Result<bool, NoFrame> {
        let unsent = self.unsent();
        if unsent == 0 && (self.fin_sent || !self.fin_queued) {
            self.note_nothing_to_send(context.now);
            return Ok(false);
        }
        if self.sending.scoreboard.len() >= context.config.max_outstanding_segments as usize {
            context.counters.bump(Counter::OutstandingLimited);
            self.sending.cwnd_limited = false;
            return Ok(false);
        }
        self.raise_path_mtu(context.now, context.config);
        let mss = u32::from(self.mss);
        let flight = self.flight();
        if flight == 0 && self.sending.last_sent != Instant::ZERO {
            let idle = context.now.micros_since(self.sending.last_sent);
            if idle > self.rto.timeout_micros(context.rto_bounds)
                && let Some(controller) = &mut self.sending.congestion
            {
                controller.on_idle(mss);
            }
        }
        // Limited transmit (RFC 3042) needs nothing of its own: duplicates make `pipe` smaller.
        let usable = self.snd_wnd.saturating_sub(flight);
        let room = self.cwnd().saturating_sub(pipe);
        let length = unsent.min(mss).min(usable).min(room);
        let all = length == unsent;
        // FIN takes an octet of the peer's window, but none of the congestion window.
        let fin = all && self.fin_queued && !self.fin_sent && usable > length;
        self.sending.cwnd_limited = room < mss.min(unsent) && usable > room;
        if length == 0 && !fin {
            if flight == 0 && usable == 0 {
                self.start_persist_timer(context.now, context.rto_bounds);
            }
            return Ok(false);
        }
        if !fin && !self.worth_sending(length, all, context.config) {
            if flight == 0 {
                // Silly window avoidance must not wait forever (RFC 9293, section 3.8.6.2.1).
                self.start_persist_timer(context.now, context.rto_bounds);
            }
            return Ok(false);
        }
        if self.is_held_back(context.now) {
            return Ok(false);
        }
        self.send_next(length, fin, context)?;
        Ok(true)
    }

    /// Silly window avoidance has waited long enough: sends what fits the small window the peer has opened
    /// (RFC 9293, section 3.8.6.2.1, the override timeout). False when its window is closed.
    pub(crate) fn send_small<T: Transmit>(&mut self, context: &mut Context<'_, T>) -> bool {
        let usable = self.snd_wnd.saturating_sub(self.flight());
        let length = self.unsent().min(usable).min(u32::from(self.mss));
        if length == 0 {
            return false;
        }
        if self.send_next(length, false, context).is_err() {
            context.counters.bump(Counter::NoFrame);
            self.start_persist_timer(context.now, context.rto_bounds);
        }
        true
    }

    /// Sends `length` new bytes, and FIN.
    #[inline(never)]
    fn send_next<T: Transmit>(&mut self, length: u32, fin: bool, context: &mut Context<'_, T>) -> Result<(), NoFrame> {
        self.send_first_time(length, fin, context)
    }

    /// [`Tcb::send_next`], where a call would be a good part of what it costs.
    #[inline(always)]
    fn send_first_time<T: Transmit>(
        &mut self,
        length: u32,
        fin: bool,
        context: &mut Context<'_, T>,
    ) -> Result<(), NoFrame> {
        let seq = self.snd_nxt;
        self.send_segment(seq, length, fin, Purpose::Data, context)?;
        context.counters.add(Counter::BytesOut, u64::from(length));
        self.snd_nxt = seq + length + u32::from(fin);
        let sending = &mut *self.sending;
        sending.scoreboard.push(seq, self.snd_nxt, context.now);
        if length < u32::from(self.mss) {
            sending.snd_sml = Some(self.snd_nxt);
        }
        if sending.phase == Phase::Recovery {
            sending.prr.sent(length);
        }
        self.note_sent(length, false, context.now);
        self.start_retransmit_timer(context.now, context.rto_bounds);
        self.schedule_probe(context);
        if fin {
            self.fin_sent = true;
            self.state = match self.state {
                State::CloseWait => State::LastAck,
                _ => State::FinWait1,
            };
        }
        Ok(())
    }

    /// The tail loss probe (RFC 8985, section 7.3): new data if there is some, otherwise the last segment again.
    pub(crate) fn send_tail_probe<T: Transmit>(&mut self, context: &mut Context<'_, T>) {
        context.counters.bump(Counter::TailProbes);
        let usable = self.snd_wnd.saturating_sub(self.flight());
        let length = self.unsent().min(u32::from(self.mss));
        let many = self.sending.scoreboard.len() >= context.config.max_outstanding_segments as usize;
        let new = length > 0 && length <= usable && !many;
        let sent = if new {
            let fin = length == self.unsent() && self.fin_queued && !self.fin_sent && usable > length;
            self.send_next(length, fin, context)
        } else {
            match self.sending.scoreboard.len().checked_sub(1) {
                Some(last) => self.retransmit(last, context),
                None => return,
            }
        };
        if sent.is_err() {
            context.counters.bump(Counter::NoFrame);
            return;
        }
        self.sending.tail_probe = Some((self.snd_nxt, !new));
        self.sending.deadlines.probe = Instant::NEVER;
        self.restart_retransmit_timer(context.now, context.rto_bounds);
    }

    /// Nagle's algorithm and the sender's silly window avoidance (RFC 9293, sections 3.7.4 and 3.8.6.2.1).
    ///
    /// Nagle's as changed by Minshall (draft-minshall-nagle-01), like Linux: a small segment waits only for another
    /// small one. Otherwise the end of every write longer than a segment would wait for the peer's delayed
    /// acknowledgment.
    fn worth_sending(&self, length: u32, all: bool, config: &Config) -> bool {
        let small_outstanding = || {
            let unacknowledged = |small: SeqNumber| small.is_unacknowledged(self.snd_una, self.snd_nxt);
            self.sending.snd_sml.is_some_and(unacknowledged)
        };
        length == u32::from(self.mss)
            || (all && (!config.nagle || self.fin_queued || !small_outstanding()))
            || (self.max_snd_wnd > 1 && length >= self.max_snd_wnd / 2)
    }

    /// Sends SYN or SYN-ACK of a connection this side opened.
    fn output_syn<T: Transmit>(&mut self, context: &mut Context<'_, T>) -> Result<(), NoFrame> {
        let again = self.sending.phase == Phase::Loss;
        if self.flight() > 0 && !again && !self.ack_now {
            return Ok(());
        }
        self.sending.acquire(context.send_states);
        let mut flags = Flags::SYN;
        if self.state == State::SynReceived {
            flags |= Flags::ACK;
            if self.ecn {
                flags |= Flags::ECE;
            }
        } else if self.ecn && !again {
            // A SYN that is lost may have been lost because of these (RFC 3168, section 6.1.1.1).
            flags |= Flags::ECE | Flags::CWR;
        }
        let iss = self.snd_una;
        let window = self.rcv_buffer.min(u32::from(u16::MAX));
        let header = Header {
            seq: iss,
            ack: self.rcv_nxt,
            flags,
            window: window as u16,
            options: Options {
                mss: Some(offered_mss(context.config, self.key.is_v4())),
                window_scale: Some(self.rcv_wind_shift),
                sack_permitted: true,
                timestamps: self.timestamps_option(context.now),
                ..Options::default()
            },
            ecn_capable: false,
        };
        self.transmit_control(&header, Purpose::Handshake, context)?;
        self.rcv_edge = self.rcv_nxt + window;
        self.ack_now = false;
        self.sending.phase = Phase::Open;
        if self.snd_nxt == iss {
            self.snd_nxt = iss + 1;
            self.sending.syn_sent_at = Some(context.now);
            self.sending.expect_progress(iss, false, context.now, context.config);
        }
        self.start_retransmit_timer(context.now, context.rto_bounds);
        Ok(())
    }

    /// [`Tcb::send_segment`] for what has been sent before.
    #[inline(never)]
    fn send_segment_again<T: Transmit>(
        &mut self,
        seq: SeqNumber,
        length: u32,
        fin: bool,
        context: &mut Context<'_, T>,
    ) -> Result<(), NoFrame> {
        self.send_segment(seq, length, fin, Purpose::Control, context)
    }

    /// Sends a segment with text from the send queue.
    #[inline(always)]
    fn send_segment<T: Transmit>(
        &mut self,
        seq: SeqNumber,
        length: u32,
        fin: bool,
        purpose: Purpose,
        context: &mut Context<'_, T>,
    ) -> Result<(), NoFrame> {
        let offset = seq - self.snd_una;
        let mut flags = self.ack_flags();
        // Only what is sent for the first time is marked, and told of (RFC 3168, sections 6.1.2 and 6.1.5).
        let new = length > 0 && seq == self.snd_nxt;
        if new && self.sending.cwr_pending {
            flags |= Flags::CWR;
        }
        if length > 0 && offset + length == self.queued() as u32 {
            flags |= Flags::PSH;
        }
        if fin {
            flags |= Flags::FIN;
        }
        let header = Header {
            seq,
            ack: self.rcv_nxt,
            flags,
            window: self.offer_window(context),
            options: Options {
                timestamps: self.timestamps_option(context.now),
                ..Options::default()
            },
            ecn_capable: new && self.ecn,
        };
        self.transmit(&header, offset as usize, length as usize, purpose, context)?;
        if new {
            self.sending.cwr_pending = false;
        }
        self.sending.last_sent = context.now;
        self.acknowledged();
        Ok(())
    }

    /// ACK, with the echo of congestion the peer has not yet answered (RFC 3168, section 6.1.3).
    #[inline]
    fn ack_flags(&self) -> Flags {
        if self.ece_pending {
            Flags::ACK | Flags::ECE
        } else {
            Flags::ACK
        }
    }

    /// Sends an acknowledgment without text.
    fn send_ack<T: Transmit>(&mut self, context: &mut Context<'_, T>) -> Result<(), NoFrame> {
        if self.receiving.is_none() {
            let header = self.ack_header(context);
            self.transmit(&header, 0, 0, Purpose::Control, context)?;
            self.acknowledged();
            return Ok(());
        }
        self.send_selective_ack(context)
    }

    #[inline]
    fn ack_header<T: Transmit>(&mut self, context: &Context<'_, T>) -> Header {
        Header {
            seq: self.snd_nxt,
            ack: self.rcv_nxt,
            flags: self.ack_flags(),
            window: self.offer_window(context),
            options: Options {
                timestamps: self.timestamps_option(context.now),
                ..Options::default()
            },
            ecn_capable: false,
        }
    }

    /// [`Tcb::send_ack`] with what was received out of order or twice.
    fn send_selective_ack<T: Transmit>(&mut self, context: &mut Context<'_, T>) -> Result<(), NoFrame> {
        let mut header = self.ack_header(context);
        if let Some(receiving) = self.receiving.as_deref().filter(|_| self.sack_permitted) {
            let held = receiving.reassembly.iter();
            let held = held.flat_map(|held| held.sack_blocks(self.rcv_nxt));
            header.options.set_sack_blocks(receiving.dsack.into_iter().chain(held));
        }
        self.transmit_control(&header, Purpose::Control, context)?;
        if let Some(receiving) = self.receiving.as_deref_mut() {
            receiving.dsack = None;
        }
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
            window: self.offer_window(context),
            options: Options {
                timestamps: self.timestamps_option(context.now),
                ..Options::default()
            },
            ecn_capable: false,
        };
        // Without a frame the next probe follows by the timer.
        if self.transmit_control(&header, Purpose::Control, context).is_err() {
            context.counters.bump(Counter::NoFrame);
        }
    }

    /// Sends RST for the connection, if it is in a state in which the peer knows of it. False: there was no frame for
    /// it.
    pub(crate) fn send_reset<T: Transmit>(&mut self, context: &mut Context<'_, T>) -> bool {
        if matches!(self.state, State::SynSent | State::TimeWait | State::Closed) {
            return true;
        }
        let header = Header {
            seq: self.snd_nxt,
            ack: self.rcv_nxt,
            flags: Flags::RST | Flags::ACK,
            window: 0,
            options: Options::default(),
            ecn_capable: false,
        };
        let sent = self.transmit_control(&header, Purpose::Control, context).is_ok();
        if !sent {
            context.counters.bump(Counter::NoFrame);
        }
        sent
    }

    #[inline]
    fn acknowledged(&mut self) {
        self.last_ack_sent = self.rcv_nxt;
        self.ack_now = false;
        self.delayed_ack = NearInstant::NEVER;
    }

    /// [`Tcb::transmit`], for segments that are rare.
    #[inline(never)]
    fn transmit_control<T: Transmit>(
        &self,
        header: &Header,
        purpose: Purpose,
        context: &mut Context<'_, T>,
    ) -> Result<(), NoFrame> {
        self.transmit(header, 0, 0, purpose, context)
    }

    /// Its callers know which options the header may have, and what is made of it here is a fraction of what
    /// any header would need.
    #[inline(always)]
    fn transmit<T: Transmit>(
        &self,
        header: &Header,
        offset: usize,
        length: usize,
        purpose: Purpose,
        context: &mut Context<'_, T>,
    ) -> Result<(), NoFrame> {
        let link = context.links.get(self.link);
        context.out.leave_by(link.device());
        let buffer = context.out.reserve(purpose).ok_or(NoFrame)?;
        let size = emit::frame_summed(buffer, link, &self.key, header, length, |text| {
            self.sending.send_queue.copy_to(offset, text)
        });
        context.out.commit(size);
        context.counters.bump(Counter::FramesOut);
        Ok(())
    }
}

/// The MSS option sent: what fits the link without options (RFC 9293, section 3.7.1; RFC 6691), behind the headers that
/// a balancer adds.
pub(crate) fn offered_mss(config: &Config, ipv4: bool) -> u16 {
    mss_of(config.mtu - config.outer_headers, ipv4)
}

/// The MSS of a link with this MTU.
pub(crate) fn mss_of(mtu: u16, ipv4: bool) -> u16 {
    mtu - if ipv4 { 40 } else { 60 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::testing::tcb;

    #[test]
    fn a_small_segment_of_long_ago_holds_nothing_back() {
        let config = Config::default();
        let mut tcb = tcb(true, false, 1460);
        let end = tcb.snd_una;
        tcb.sending.snd_sml = Some(end);
        for since in [0, 1 << 20, 1 << 31, (1 << 31) + (1 << 20), 3 << 30] {
            tcb.snd_una = end + since;
            tcb.snd_nxt = tcb.snd_una + 1460;
            assert!(tcb.worth_sending(1, true, &config), "{since} octets ago");
        }
        tcb.snd_una = end - 1;
        for nxt in [end, end + 1460] {
            tcb.snd_nxt = nxt;
            assert!(!tcb.worth_sending(1, true, &config), "it is outstanding");
        }
    }
}
