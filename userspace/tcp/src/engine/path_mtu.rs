//! ICMP "too big" (RFC 1191, RFC 8201), believed only from who knows what is outstanding (RFC 5927).

use super::{Engine, OnNoFlow, Received, context};
use crate::application::Application;
use crate::connection::Context;
use crate::counters::Counter;
use crate::flow_table::FlowSlot;
use crate::time::Instant;
use crate::transmit::Transmit;
use crate::wire::ParseError;
use crate::wire::icmp::TooBig;

impl<A: Application> Engine<A> {
    /// A frame that is no TCP segment: ICMP "too big" about one, or nothing to be read here.
    #[cold]
    pub(super) fn too_big<T: Transmit>(
        &mut self,
        now: Instant,
        frame: &[u8],
        on_no_flow: OnNoFlow,
        out: &mut T,
    ) -> Received {
        let message = match TooBig::parse(frame) {
            Ok(message) => message,
            Err(error) => {
                self.counters.bump(match error {
                    ParseError::Malformed => Counter::DropMalformed,
                    ParseError::Checksum => Counter::DropChecksum,
                    ParseError::SourceRoute => Counter::DropSourceRoute,
                });
                return Received::Done;
            }
        };
        let found = self.find(&message.key);
        if matches!(found, None | Some(FlowSlot::HalfOpen(_))) {
            // Another shard may have answered the SYN of this flow too, and have the connection.
            let others = self.others(&message.key, on_no_flow);
            if others != 0 {
                return Received::NoFlow { others, then: 0 };
            }
        }
        match found {
            Some(FlowSlot::Connection(slot)) => {
                self.counters.bump(Counter::TooBigIn);
                self.reduce_path_mtu(now, slot, &message, out);
            }
            // Handshakes and TIME-WAIT send nothing that could be too big.
            None | Some(FlowSlot::HalfOpen(_) | FlowSlot::TimeWait(_)) => {
                self.counters.bump(Counter::TooBigIn);
                self.counters.bump(Counter::DropIcmpNoFlow);
            }
        }
        Received::Done
    }

    /// Does as the message says if it can be believed.
    fn reduce_path_mtu<T: Transmit>(&mut self, now: Instant, slot: u32, message: &TooBig, out: &mut T) {
        if !self.common.config.path_mtu_discovery {
            return;
        }
        self.follow_next_hop(slot);
        let connection = &mut self.connections[slot];
        let tcb = &mut connection.tcb;
        // Who is not on the path has to guess a sequence number (RFC 5927, section 4.1); and the MTU of a router that
        // tells the truth is one the packet did not fit (section 7.2).
        let refused = if !tcb.is_outstanding(message.seq) || message.mtu >= message.quoted_length {
            Some(Counter::DropIcmpBadQuote)
        } else if message.mtu < tcb.min_mtu_of(&self.common.config) {
            Some(Counter::DropIcmpTooSmall)
        } else {
            None
        };
        if let Some(reason) = refused {
            self.counters.bump(reason);
            return;
        }
        // Of a burst, every packet brings a message; the first has the effect. Nor is an increase learned this way.
        if !tcb.set_path_mtu(message.mtu, now, &self.common) {
            return;
        }
        self.counters.bump(Counter::PathMtuReduced);
        let mut context = context!(self, now, out);
        let outcome = connection.flush_output(&mut context);
        self.settle(now, slot, outcome);
    }
}
