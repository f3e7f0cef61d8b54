//! Captures of what a server receives and sends: which frames, on their way from the shards to the writer, and as
//! pcapng.
//!
//! | module | concern |
//! |---|---|
//! | [`filter`] | which frames: a subset of tcpdump's expressions |
//! | [`packet`] | the headers of a frame |
//! | [`ring`] | from a thread that must not wait to one that may |
//! | [`pcapng`] | the blocks of a file |
//! | [`peer`], [`words`] | whose segments, and segments in words, for traces |

pub mod filter;
pub mod packet;
pub mod pcapng;
pub mod peer;
pub mod ring;
pub mod words;

pub use filter::{Filter, FilterError};
pub use packet::{Packet, Payload, TcpHeader};
pub use peer::Peer;
pub use ring::{Direction, Record, Source, Tap, tap};
