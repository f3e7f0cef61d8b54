//! Congestion control: how much may be in flight.

pub mod reno;

pub use reno::Reno;

/// What a congestion control algorithm is told, and asked. All amounts are bytes.
pub trait CongestionControl {
    /// The congestion window.
    fn window(&self) -> u32;

    /// `acked` new bytes were acknowledged outside of loss recovery, while `flight` were outstanding and the window was
    /// what limited sending (`limited`).
    fn on_ack(&mut self, acked: u32, flight: u32, limited: bool, mss: u32);

    /// A loss was found by duplicate acknowledgments with `flight` bytes outstanding.
    fn on_loss(&mut self, flight: u32, mss: u32);

    /// The retransmission timer ran out with `flight` bytes outstanding; `repeated`: not for the first time.
    fn on_timeout(&mut self, flight: u32, repeated: bool, mss: u32);

    /// During fast recovery another duplicate acknowledgment arrived: a segment has left the network.
    fn on_recovery_duplicate(&mut self, mss: u32);

    /// During fast recovery `acked` bytes were acknowledged, but not all that was outstanding when it began.
    fn on_recovery_partial(&mut self, acked: u32, mss: u32);

    /// Fast recovery has ended with `flight` bytes outstanding.
    fn on_recovered(&mut self, flight: u32, mss: u32);

    /// Nothing was sent for longer than a retransmission timeout (RFC 5681, section 4.1).
    fn on_idle(&mut self, mss: u32);
}
