//! Runs an [`Application`](tidegate_tcp::Application) written for tidegate's engine on the kernel's TCP, with mio and
//! so epoll: for comparing the two under equal application code, and for clients that work from everywhere.
//!
//! [`Host`] is one thread's worth: its listening sockets, its connections, accepted and opened, and their application.
//! [`Server`] runs one on each of several threads.
//!
//! It uses what makes the kernel fast: edge-triggered events and one registration per connection, `accept4`, options
//! inherited from the listening socket, responses and FIN in one call and segment, no copy and no allocation where the
//! application makes none.
//!
//! ```
//! use std::io::{Read, Write};
//! use tidegate_apps::echo;
//! use tidegate_kernel_host::Server;
//!
//! # fn main() -> anyhow::Result<()> {
//! let echo = echo::Echo::new(echo::Config::default());
//! let server = Server::start(&["127.0.0.1:0".parse()?], &[], vec![echo], |error| eprintln!("{error}"))?;
//! let mut client = std::net::TcpStream::connect(server.addresses()[0])?;
//! client.write_all(b"x")?;
//! client.read_exact(&mut [0])?;
//! server.stop()
//! # }
//! ```

mod connection;
mod host;
mod listener;
mod send_queue;
mod server;
mod stream;

pub use host::{ConnectionId, Host};
pub use server::Server;
pub use stream::SEND_BUFFER;
