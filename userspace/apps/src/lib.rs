//! What tidegate serves: `echo`, `discard` and `http`, written against [`tidegate_tcp::application`] only.
//!
//! Nothing here knows where the bytes come from, so the same code runs on the tidegate engine and on the kernel's
//! sockets.
#![forbid(unsafe_code)]

pub mod discard;
pub mod echo;
pub mod http;
mod idle;
mod listen;
mod services;
#[cfg(test)]
pub(crate) mod testing;

pub use listen::{Listen, ListenError};
pub use services::{Connection, Counters, ServiceKind, Services};
