//! F-RTO (RFC 5682): whether a retransmission timeout was spurious, told by what is acknowledged after it.
//!
//! The first acknowledgment after the timeout may be of either copy of what was sent again. If it leaves something
//! outstanding, new segments are sent in place of what counts as lost. Until more is sent again, an acknowledgment of
//! anything that was outstanding at the timeout can only be of the original transmission.

use crate::seq::SeqNumber;

/// New segments that are sent in place of what counts as lost (step 2b).
const NEW_SEGMENTS: u8 = 2;

/// The stage of the algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Frto {
    /// No timeout is being judged.
    #[default]
    Off,
    /// Step 2: waits for an acknowledgment of what was sent again, which ends at `end`.
    Waiting {
        /// The furthest end of what was sent again.
        end: SeqNumber,
    },
    /// Step 3: waits for the acknowledgment after that. Nothing that counts as lost is sent meanwhile.
    Probing {
        /// The variable `recover`, or RecoveryPoint: SND.NXT before new segments were sent.
        recover: SeqNumber,
        /// New segments that may still be sent.
        left: u8,
    },
}

/// What F-RTO looks at in an acknowledgment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    /// The acknowledgment number.
    pub(crate) ack: SeqNumber,
    /// SND.NXT.
    pub(crate) nxt: SeqNumber,
    /// It moved SND.UNA.
    pub(crate) advanced: bool,
    /// It is a duplicate acknowledgment (RFC 5681, section 2).
    pub(crate) duplicate: bool,
    /// SACK was negotiated.
    pub(crate) sack: bool,
    /// It was the first to report segments selectively.
    pub(crate) newly_sacked: bool,
    /// The end of the segment that was sent last among those it was the first to acknowledge, in either way.
    pub(crate) newest: Option<SeqNumber>,
}

/// The judgment of a timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// What was outstanding arrives without having been sent again.
    Spurious,
    /// It does not.
    Genuine,
}

impl Frto {
    /// The retransmission timer ran out with `una` outstanding, of which nothing had been sent again (step 1).
    pub(crate) fn begin(una: SeqNumber) -> Self {
        Self::Waiting { end: una }
    }

    /// Something that ends at `end` was sent again.
    pub(crate) fn retransmitted(&mut self, end: SeqNumber) {
        match self {
            Self::Off => {}
            Self::Waiting { end: furthest } => *furthest = furthest.max(end),
            // From now on an acknowledgment may be of this.
            Self::Probing { .. } => *self = Self::Off,
        }
    }

    /// Whether new segments take the place of what counts as lost.
    #[inline]
    pub(crate) fn is_probing(self) -> bool {
        matches!(self, Self::Probing { .. })
    }

    /// Takes in an acknowledgment.
    pub(crate) fn on_ack(&mut self, heard: &Heard) -> Option<Verdict> {
        match *self {
            Self::Off => None,
            Self::Waiting { end } => {
                if heard.advanced {
                    let partial = heard.ack.at_or_after(end) && heard.ack.before(heard.nxt);
                    *self = if partial {
                        Self::Probing {
                            recover: heard.nxt,
                            left: NEW_SEGMENTS,
                        }
                    } else {
                        Self::Off
                    };
                } else if heard.duplicate && !heard.sack {
                    *self = Self::Off;
                }
                None
            }
            Self::Probing { recover, .. } => {
                let verdict = heard.verdict(recover)?;
                *self = Self::Off;
                Some(verdict)
            }
        }
    }
}

impl Heard {
    /// Step 3; `None`: it says nothing of what is outstanding, like a window update.
    fn verdict(&self, recover: SeqNumber) -> Option<Verdict> {
        let of_old = if self.sack {
            // Section 3.1: what is beyond may have been reported because something before it is missing.
            let beyond = |end: SeqNumber| end.after(recover);
            (self.advanced || self.newly_sacked) && !beyond(self.ack) && !self.newest.is_some_and(beyond)
        } else {
            self.advanced
        };
        if of_old {
            Some(Verdict::Spurious)
        } else {
            (self.advanced || self.duplicate || self.newly_sacked).then_some(Verdict::Genuine)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNA: SeqNumber = SeqNumber(u32::MAX - 1500);

    /// An acknowledgment of `acked` octets on a connection that has sent 5000, in segments of 1000.
    fn heard(acked: u32, sack: bool) -> Heard {
        Heard {
            ack: UNA + acked,
            nxt: UNA + 5000,
            advanced: acked > 0,
            duplicate: acked == 0,
            sack,
            newly_sacked: false,
            newest: (acked > 0).then_some(UNA + acked),
        }
    }

    /// The first segment was sent again.
    fn waiting() -> Frto {
        let mut frto = Frto::begin(UNA);
        frto.retransmitted(UNA + 1000);
        frto
    }

    fn probing(sack: bool) -> Frto {
        let mut frto = waiting();
        assert_eq!(frto.on_ack(&heard(1000, sack)), None);
        assert!(frto.is_probing());
        frto
    }

    #[test]
    fn the_second_acknowledgment_that_advances_shows_a_spurious_timeout() {
        for sack in [false, true] {
            for acked in [2000, 5000] {
                let mut frto = probing(sack);
                assert_eq!(frto.on_ack(&heard(acked, sack)), Some(Verdict::Spurious));
                assert_eq!(frto, Frto::Off);
            }
        }
    }

    #[test]
    fn the_first_acknowledgment_has_to_cover_what_was_sent_again_and_leave_something() {
        for sack in [false, true] {
            for (acked, probes) in [(1, false), (999, false), (1000, true), (4999, true), (5000, false)] {
                let mut frto = waiting();
                assert_eq!(frto.on_ack(&heard(acked, sack)), None);
                assert_eq!(frto.is_probing(), probes, "{acked} octets");
            }
            let mut frto = waiting();
            frto.retransmitted(UNA + 2000);
            frto.on_ack(&heard(1000, sack));
            assert_eq!(frto, Frto::Off, "a second segment was sent again");
        }
    }

    #[test]
    fn a_duplicate_before_it_ends_the_basic_algorithm_and_the_other_goes_on_waiting() {
        for sack in [false, true] {
            let mut frto = waiting();
            assert_eq!(frto.on_ack(&heard(0, sack)), None);
            assert_eq!(frto == Frto::Off, !sack);
        }
    }

    #[test]
    fn a_duplicate_after_it_shows_a_genuine_timeout() {
        for sack in [false, true] {
            let duplicate = Heard {
                ack: UNA + 1000,
                ..heard(0, sack)
            };
            assert_eq!(probing(sack).on_ack(&duplicate), Some(Verdict::Genuine));
        }
    }

    #[test]
    fn what_neither_advances_nor_is_a_duplicate_decides_nothing() {
        for sack in [false, true] {
            let text = Heard {
                duplicate: false,
                ..heard(0, sack)
            };
            for mut frto in [waiting(), probing(sack)] {
                let before = frto;
                assert_eq!(frto.on_ack(&text), None);
                assert_eq!(frto, before);
            }
        }
    }

    #[test]
    fn selective_acknowledgments_show_which_it_was() {
        for (newest, verdict) in [
            (3000, Verdict::Spurious),
            (5000, Verdict::Spurious),
            (5001, Verdict::Genuine),
            (6000, Verdict::Genuine),
        ] {
            let selective = Heard {
                ack: UNA + 1000,
                nxt: UNA + 7000,
                newly_sacked: true,
                newest: Some(UNA + newest),
                ..heard(0, true)
            };
            assert_eq!(probing(true).on_ack(&selective), Some(verdict), "up to {newest}");
        }
    }

    #[test]
    fn an_advance_beyond_what_was_outstanding_counts_without_sack_only() {
        for (sack, verdict) in [(false, Verdict::Spurious), (true, Verdict::Genuine)] {
            let beyond = Heard {
                nxt: UNA + 7000,
                ..heard(6000, sack)
            };
            assert_eq!(probing(sack).on_ack(&beyond), Some(verdict));
        }
    }

    #[test]
    fn once_more_is_sent_again_nothing_can_be_told() {
        let mut frto = probing(false);
        frto.retransmitted(UNA + 2000);
        assert_eq!(frto, Frto::Off);
    }
}
