//! The services of tidegate: [`echo`], [`discard`] and [`http`], written against [`tidegate_tcp::application`] only.
//!
//! Nothing here knows where the bytes come from, so the same code runs on the tidegate engine and on the kernel's
//! sockets. [`Services`] is the [`Application`](tidegate_tcp::Application) of one shard: it gives each connection to
//! the service of its listener, a [`ServiceKind`]. A service alone, such as [`http::Http`], is an application too.
//! [`Listen`] is a listener as it is written on a command line.
//!
//! ```
//! use tidegate_apps::{Listen, Services, discard, echo, http};
//!
//! let listeners = ["http=198.18.0.1:80", "echo=[2001:2::1]:7"].map(|text| text.parse::<Listen>().unwrap());
//! Listen::check_distinct(listeners).unwrap();
//!
//! let config = http::Config { keepalive_requests: 100, ..http::Config::default() };
//! let services = listeners.iter().map(|listener| listener.service).collect();
//! let application = Services::new(services, echo::Config::default(), discard::Config::default(), config).unwrap();
//! assert!(application.counters().iter().all(|(_, count)| count == 0));
//! ```
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
