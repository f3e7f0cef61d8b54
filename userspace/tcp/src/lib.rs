//! tidegate's TCP: a complete implementation of RFC 9293 without I/O, clock or threads.
//!
//! An [`Engine`] is one shard: it owns flows, timers and an [`Application`], whose callbacks get a [`Stream`] to act on
//! a connection. Frames and time come in as parameters and frames go out through [`Transmit`](transmit::Transmit), so
//! the same engine runs on AF_XDP, in a simulator and under a fuzzer. [`Config`] has every limit. A
//! [`CongestionControl`](congestion::CongestionControl) can come from outside.
//!
//! Two engines on one wire, of which the server greets the client:
//!
//! ```
//! use tidegate_abi::siphash::Key;
//! use tidegate_tcp::application::CloseReason;
//! use tidegate_tcp::engine::{OnNoFlow, Secrets};
//! use tidegate_tcp::time::Instant;
//! use tidegate_tcp::transmit::{Purpose, Transmit};
//! use tidegate_tcp::wire::LinkHeader;
//! use tidegate_tcp::{Application, Config, Engine, Stream};
//!
//! /// Sends a greeting and writes down what it receives.
//! struct Greeter(&'static str, Vec<u8>);
//!
//! impl Application for Greeter {
//!     type Connection = ();
//!     fn open<S: Stream>(&mut self, stream: &mut S) {
//!         stream.send_copy(self.0.as_bytes());
//!     }
//!     fn receive<S: Stream>(&mut self, _: &mut (), _: &mut S, data: &[u8]) -> usize {
//!         self.1.extend_from_slice(data);
//!         data.len()
//!     }
//!     fn end_of_stream<S: Stream>(&mut self, _: &mut (), stream: &mut S) {
//!         stream.close();
//!     }
//!     fn writable<S: Stream>(&mut self, _: &mut (), _: &mut S) {}
//!     fn timeout<S: Stream>(&mut self, _: &mut (), _: &mut S) {}
//!     fn drain<S: Stream>(&mut self, _: &mut (), _: &mut S) {}
//!     fn closed(&mut self, _: (), _: CloseReason) {}
//! }
//!
//! /// Frames on their way, and a buffer for the next.
//! #[derive(Default)]
//! struct Wire(Vec<Vec<u8>>, Vec<u8>);
//!
//! impl Transmit for Wire {
//!     fn reserve(&mut self, _: Purpose) -> Option<&mut [u8]> {
//!         self.1.resize(1522, 0);
//!         Some(&mut self.1)
//!     }
//!     fn commit(&mut self, length: usize) {
//!         self.0.push(self.1[..length].to_vec());
//!     }
//! }
//!
//! let engine = |number, greeting| {
//!     let secrets = Secrets { isn: Key(number, 1), table: Key(number, 2) };
//!     Engine::new(Config::default(), secrets, Greeter(greeting, Vec::new()))
//! };
//! let (mut server, mut client) = (engine(1, "hello"), engine(2, ""));
//! let (mut to_client, mut to_server) = (Wire::default(), Wire::default());
//! let address = "198.18.0.1:7".parse().unwrap();
//! server.listen(address);
//!
//! let link = LinkHeader::new([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], true);
//! let now = Instant::from_millis(1);
//! client.connect(now, "198.18.0.2:40000".parse().unwrap(), address, &link, &mut to_server).unwrap();
//! while !(to_server.0.is_empty() && to_client.0.is_empty()) {
//!     for frame in to_server.0.drain(..) {
//!         server.receive(now, &frame, OnNoFlow::Reject, &mut to_client);
//!     }
//!     for frame in to_client.0.drain(..) {
//!         client.receive(now, &frame, OnNoFlow::Reject, &mut to_server);
//!     }
//! }
//! assert_eq!(client.application().1, b"hello");
//! ```
#![forbid(unsafe_code)]

pub mod application;
mod chunks;
pub mod config;
pub mod congestion;
mod connection;
pub mod counters;
pub mod engine;
mod fifo_slab;
mod flow_table;
mod half_open;
pub mod histogram;
mod isn;
mod link;
pub mod next_hops;
mod path_memory;
mod rate_limit;
mod reassembly;
pub mod recovery;
mod send_queue;
pub mod seq;
pub mod shared_flows;
pub mod sources;
pub mod time;
mod time_wait;
pub mod timer_wheel;
pub mod transmit;
pub mod wire;

pub use application::{Application, Stream};
pub use chunks::MemoryAdvisor;
pub use config::Config;
pub use connection::State;
#[cfg(debug_assertions)]
#[doc(hidden)]
pub use connection::prediction::without_prediction;
pub use engine::Engine;
