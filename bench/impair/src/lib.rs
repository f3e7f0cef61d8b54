//! A model of one direction of a bad link, without the frames themselves: the simulation sends frames of its own
//! through it, and `tidegate-bench link` those of real devices.
//!
//! A [`Path`] takes the decisions about a frame one at a time, and whoever carries the frame says in which order:
//! whether it is lost or doubled, what is damaged, when it leaves the queue of the bottleneck, and when it arrives.
//! Everything random follows from a seed, and the clock is a parameter: a [`Duration`] since the start that never goes
//! back.
//!
//! ```
//! use core::time::Duration;
//!
//! use tidegate_impair::{Chance, Impairment, Path};
//! use tidegate_random::Random;
//!
//! let impairment = Impairment {
//!     loss: "1%".parse().unwrap(),
//!     delay: Duration::from_millis(10),
//!     ..Impairment::default()
//! };
//! let mut path = Path::new(impairment, Random::new(7));
//! let now = Duration::from_secs(1);
//! if path.loses(now).is_none() {
//!     let departs = path.enqueue(now, 1514).expect("there is no bottleneck");
//!     assert_eq!(path.arrival(departs.at), now + Duration::from_millis(10));
//! }
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod chance;
mod damage;
mod impairment;
mod path;

pub use chance::Chance;
pub use impairment::{Bursts, Damage, Impairment, Rate, Reordering, Room};
pub use path::{Departure, ImpairmentStats, Loss, Path};

/// Bytes of an Ethernet header without tags, which is never damaged.
pub const ETHERNET_HEADER: usize = 14;
