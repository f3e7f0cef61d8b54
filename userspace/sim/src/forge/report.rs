//! The outcome of forging.

/// The outcome of forging.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Guesses without timestamps.
    pub without_timestamps: u64,
    /// Guesses with timestamps.
    pub with_timestamps: u64,
    /// Guesses that became connections.
    pub connections: u64,
    /// Connections to be expected.
    pub expected: f64,
    /// RSTs the guesses were answered with.
    pub resets: u64,
    /// Genuine cookies sent unchanged in time, all of which became connections.
    pub genuine: u64,
    /// The ways in which genuine cookies were changed or came too late, none of which was accepted, and how often.
    pub refused: Vec<(&'static str, u64)>,
}
