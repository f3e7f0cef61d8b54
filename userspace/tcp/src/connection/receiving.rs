//! What a connection owns only while it has received something that it could not deliver, or has to report.

use bytes::BytesMut;

use crate::reassembly::Reassembly;
use crate::wire::options::SackBlock;

/// Received and not yet delivered, or not yet reported to the peer.
#[derive(Default)]
pub(crate) struct Receiving {
    /// In-order data the application has not consumed.
    pub(crate) unread: BytesMut,
    /// What of `unread` the engine's totals include.
    pub(crate) counted_unread: usize,
    /// What arrived out of order; `None` if nothing is held.
    pub(crate) reassembly: Option<Reassembly>,
    /// A range received twice, to be reported with the next acknowledgment (RFC 2883).
    pub(crate) dsack: Option<SackBlock>,
}

impl Receiving {
    /// Whether something is missing before what is held, or a duplicate was received, of which the peer learns by an
    /// acknowledgment without text only.
    pub(crate) fn is_to_be_reported(&self) -> bool {
        self.reassembly.is_some() || self.dsack.is_some()
    }

    /// Whether there is nothing left to remember.
    pub(crate) fn is_empty(&self) -> bool {
        self.unread.is_empty() && self.counted_unread == 0 && self.reassembly.is_none() && self.dsack.is_none()
    }
}
