//! `connect` and `idle`: nothing follows the handshake.

use crate::peers::script::Script;

/// A peer that says nothing.
pub(in crate::peers) struct Silent {
    /// Whether it still knows of its connection, and answers probes.
    pub(in crate::peers) is_kept: bool,
}

impl Script for Silent {
    fn is_kept(&self) -> bool {
        self.is_kept
    }
}
