//! Network interfaces: what the kernel says of them, and what is known of their drivers.
//!
//! [`Facts::read`] asks the kernel, by netlink (ethtool, netdev, rtnetlink), a few ioctls that netlink has no word for,
//! and sysfs. The kernel is asked through [`Kernel`], so that tests answer in its place. [`drivers`] has what the
//! kernel does not say: one row a driver, each with its source. [`checks`] says what is in the way of
//! serving an interface well, in sentences; [`plan`] what to change about it, and [`apply`] changes it and puts it
//! back.
//!
//! ```no_run
//! use tidegate_nic::{Facts, Linux};
//!
//! # fn main() -> std::io::Result<()> {
//! let mut kernel = Linux::new()?;
//! let facts = Facts::read(&mut kernel, "eth1")?;
//! println!("{} receives on {} queues", facts.name, facts.rx_queues);
//! for (name, count) in tidegate_nic::statistics("eth1")? {
//!     println!("{name}: {count}");
//! }
//! # Ok(())
//! # }
//! ```

pub mod apply;
pub mod checks;
pub mod drivers;
mod ethtool_ioctl;
pub mod facts;
#[cfg(test)]
mod fake;
mod finding;
mod kernel;
pub mod plan;
mod read;
pub mod rss;
pub mod setting;

pub use ethtool_ioctl::{FlowRule, Target};
pub use facts::Facts;
pub use finding::{Finding, Sentence, Severity};
pub use kernel::{Kernel, Linux, statistics};
pub use rss::{PeerQueues, RssHash};
