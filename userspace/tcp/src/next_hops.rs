//! The way of answers, where it is not simply back to where segments come from.

use core::fmt;

use crate::wire::{FlowKey, LinkHeader};

/// Tables that say by which link header a flow's segments leave, as the routes and neighbours of a kernel do.
pub trait NextHops {
    /// A number, never 0, that is another one as soon as [`NextHops::lookup`] may answer otherwise than before. An
    /// engine asks for it with every burst that it receives and in every [`Engine::poll`](crate::Engine::poll), and
    /// looks a connection's next hop up again before it sends anything for it after a change.
    fn generation(&self) -> u32;

    /// The link header of the flow's segments.
    ///
    /// # Errors
    ///
    /// The tables have none. The engine counts that, and answers to the link-layer address it heard last.
    fn lookup(&self, key: &FlowKey) -> Result<LinkHeader, NoNextHop>;
}

/// The reason there is no next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoNextHop {
    /// No route leads to the address, or one that refuses it.
    NoRoute,
    /// The route leaves by another interface than the segments come in by.
    OtherInterface,
    /// The next hop's link-layer address is not known, or not yet.
    Unresolved,
}

impl fmt::Display for NoNextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRoute => "there is no route",
            Self::OtherInterface => "the route leaves by another interface",
            Self::Unresolved => "nobody answers for the next hop's address",
        })
    }
}
