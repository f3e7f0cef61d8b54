//! The way frames leave the engine.

/// The purpose of a frame, so that the last ones of a pool can be kept for what ends work rather than starts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// A SYN or SYN-ACK: the first to be refused when frames are short.
    Handshake,
    /// Data sent for the first time.
    Data,
    /// ACK, FIN, RST, probes and retransmissions: the last to be refused.
    Control,
}

/// The place into which the engine writes the frames it sends.
pub trait Transmit {
    /// The frames that are reserved from now on are to leave by `device`, where there are several: the one that what
    /// they answer was received from ([`Frame::device`](crate::wire::Frame::device)).
    #[inline]
    fn leave_by(&mut self, device: u8) {
        let _ = device;
    }

    /// A buffer for one frame, at least as long as the link's largest frame (14 bytes of Ethernet header, 8 of VLAN
    /// tags, MTU), or `None` when there is none for this purpose now. Its content is undefined.
    ///
    /// A buffer that is not followed by [`Transmit::commit`] is simply not sent.
    fn reserve(&mut self, purpose: Purpose) -> Option<&mut [u8]>;

    /// Sends the first `length` bytes of the buffer reserved last.
    fn commit(&mut self, length: usize);
}
