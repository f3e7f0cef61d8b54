//! The client's state of each connection.

use tidegate_tcp::time::Instant;

use crate::in_flight::InFlight;
use crate::responses::Responses;

/// The state of a connection: the place of its [`Record`], or one of the values below. Connections that are held
/// by the million have no record.
#[derive(Debug)]
pub(crate) struct Connection(pub(crate) u32);

impl Connection {
    /// It was never asked anything.
    pub(crate) const IDLE: u32 = u32::MAX;
    /// It was asked, and has answered; nothing more is wanted of it.
    pub(crate) const ANSWERED: u32 = u32::MAX - 1;
}

/// A connection with requests, now or later.
#[derive(Debug)]
pub(crate) struct Record<I> {
    pub(crate) id: I,
    pub(crate) responses: Responses,
    pub(crate) in_flight: InFlight,
    /// Requests that may still be sent on it.
    pub(crate) left: u32,
    /// The arrival of the first byte of the response that has come in part.
    pub(crate) first_byte: Instant,
    /// The time from which on the timeout counts, at the earliest.
    pub(crate) progress: Instant,
    /// The time at which the server announced its end of the connection, which is waited for, as where connections
    /// close with it.
    pub(crate) ending_since: Option<Instant>,
    /// The time of the last byte of all, where the server was asked to end the connection after it.
    pub(crate) answered_at: Option<Instant>,
    /// A response was none that was hoped for.
    pub(crate) failed: bool,
    /// All is done; it only has to end.
    pub(crate) closing: bool,
}

impl<I> Record<I> {
    /// A connection that was established at `now`, for as many requests as there may be at most.
    pub(crate) fn new(id: I, now: Instant, requests: u32) -> Self {
        Self {
            id,
            responses: Responses::default(),
            in_flight: InFlight::default(),
            left: requests,
            first_byte: now,
            progress: now,
            ending_since: None,
            answered_at: None,
            failed: false,
            closing: false,
        }
    }

    /// Whether it can be asked, and has nothing under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.ending_since.is_none() && !self.closing
    }

    /// The beginning of the oldest request without an answer, or of the wait for the server's end of the connection.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.in_flight.oldest().or(self.ending_since).or(self.answered_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_held_is_small() {
        assert!(size_of::<Option<Connection>>() <= 16);
    }
}
