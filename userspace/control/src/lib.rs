//! The control socket of a running `tidegate serve`: its protocol, and a client.
//!
//! Both sides write JSON, one object a line. A client sends a [`Request`], such as `{"command":"info"}`, and gets one
//! [`Reply`], `{"ok":...}` or `{"error":"..."}`, before it may send the next. docs/control.md lists the commands.

mod client;
mod connections;
mod counters;
mod protocol;

pub use client::{Client, End, Error};
pub use connections::{
    Bbr, Connection, ConnectionFilter, Connections, Killed, MAX_LISTED, Options, Sort, Timer, Transfer,
};
pub use counters::{Counter, Counters, Latency, Peer, Top};
pub use protocol::{CookieMode, Info, MAX_LINE, Reply, Request, State};
