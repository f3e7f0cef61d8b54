//! Captures of what a server receives and sends: which frames, on their way from the shards to the writer, and as
//! pcapng.
//!
//! | module | concern |
//! |---|---|
//! | [`filter`] | which frames: a subset of tcpdump's expressions |
//! | [`packet`] | the headers of a frame |
//! | [`ring`] | from a thread that must not wait to one that may |
//! | [`pcapng`] | the blocks of a file |

pub mod filter;
pub mod packet;
pub mod pcapng;
pub mod ring;

pub use filter::{Filter, FilterError};
pub use packet::{Packet, TcpHeader};
pub use ring::{Direction, Record, Source, Tap, tap};
