//! F-RTO (RFC 5682): taking back timeouts that were spurious where no timestamps tell. With them Eifel detection does
//! (`ack`), by one acknowledgment.

use super::send::NoFrame;
use super::{Context, Tcb};
use crate::counters::Counter;
use crate::recovery::Phase;
use crate::recovery::frto::{Frto, Heard, Verdict};
use crate::recovery::scoreboard::Delivered;
use crate::seq::SeqNumber;
use crate::transmit::Transmit;

impl Tcb {
    /// The stage in which a retransmission timeout leaves F-RTO. To be asked before anything is taken for lost. A
    /// timeout that follows another, or a recovery, is not judged: what was sent again before could be what is
    /// acknowledged.
    pub(super) fn frto_at_timeout(&self, repeated: bool) -> Frto {
        let sending = &*self.sending;
        let judged = !self.timestamps
            && !repeated
            && sending.phase == Phase::Open
            && sending.scoreboard.len() > 0
            && !sending.scoreboard.awaits_retransmissions();
        if judged { Frto::begin(self.snd_una) } else { Frto::Off }
    }

    /// What an acknowledgment, taken in by the scoreboard, says of the last timeout.
    pub(super) fn judge_timeout<T>(
        &mut self,
        ack: SeqNumber,
        advanced: bool,
        duplicate: bool,
        delivered: &Delivered,
        context: &mut Context<'_, T>,
    ) {
        if self.sending.frto == Frto::Off {
            return;
        }
        let heard = Heard {
            ack,
            nxt: self.snd_nxt,
            advanced,
            duplicate,
            sack: self.sack_permitted,
            newly_sacked: delivered.newly_sacked > 0,
            newest: delivered.newest.map(|(_, end, _)| end),
        };
        let verdict = self.sending.frto.on_ack(&heard);
        if verdict == Some(Verdict::Spurious) && self.take_back(context) {
            context.counters.bump(Counter::FrtoSpurious);
            // Duplicates may show a loss among what was outstanding (step 3b): nothing of it was sent again.
            self.sending.recovery_point = Some(self.snd_una);
        }
        // Slow start would be there by now (step 3a).
        let most = 3 * u32::from(self.mss);
        if verdict == Some(Verdict::Genuine) && self.cwnd() > most {
            self.congestion(context.config).set_window(most);
        }
    }

    /// Sends a new segment in place of what counts as lost (step 2b). False: nothing more is to be sent for now. Where
    /// there is nothing new, or no window for it, what counts as lost is sent after all.
    pub(super) fn send_instead_of_lost<T: Transmit>(
        &mut self,
        pipe: u32,
        context: &mut Context<'_, T>,
    ) -> Result<bool, NoFrame> {
        let Frto::Probing { recover, left } = self.sending.frto else {
            return Ok(true);
        };
        if left == 0 || pipe >= self.cwnd() || self.is_held_back(context.now) {
            self.sending.cwnd_limited = pipe >= self.cwnd();
            return Ok(false);
        }
        if self.send_new(pipe, context)? {
            self.sending.frto = Frto::Probing {
                recover,
                left: left - 1,
            };
            return Ok(true);
        }
        let none_sent = self.snd_nxt == recover;
        self.sending.frto = if none_sent {
            Frto::Off
        } else {
            Frto::Probing { recover, left: 0 }
        };
        Ok(none_sent)
    }
}
