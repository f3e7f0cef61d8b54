//! The kernel, as far as it is asked about interfaces.

use std::fs;
use std::io;
use std::path::Path;

use netlink_bindings::traits::NetlinkRequest;
use netlink_socket2::NetlinkSocket;

use crate::ethtool_ioctl::{Ethtool, FlowRule};
use crate::facts::{DriverInfo, FlowRules};

/// Answers questions about interfaces. [`Linux`] does it for real.
pub trait Kernel {
    /// Sends a netlink request, and gives every reply to `take`.
    ///
    /// # Errors
    ///
    /// The kernel's error; `ENOENT` also for a family that it does not know.
    fn request<R: NetlinkRequest>(&mut self, request: &R, take: impl FnMut(R::ReplyType<'_>)) -> io::Result<()>;

    /// The text of a file of sysfs or procfs.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    fn read(&mut self, path: &Path) -> io::Result<String>;

    /// Writes a file of sysfs or procfs.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    fn write(&mut self, path: &Path, text: &str) -> io::Result<()>;

    /// The names in a directory of sysfs or procfs, in no order; none if there is no such directory.
    fn list(&mut self, path: &Path) -> Vec<String>;

    /// The driver, as `ethtool -i` shows it.
    ///
    /// # Errors
    ///
    /// The kernel's error: `EOPNOTSUPP` where there is no driver that tells.
    fn driver(&mut self, interface: &str) -> io::Result<DriverInfo>;

    /// The rules of `ethtool -n`.
    ///
    /// # Errors
    ///
    /// The kernel's error: `EOPNOTSUPP` where the driver has none.
    fn flow_rules(&mut self, interface: &str) -> io::Result<FlowRules>;

    /// The rule at `location`; `None` if it is of a form that [`FlowRule`] does not have.
    ///
    /// # Errors
    ///
    /// The kernel's error: `ENOENT` or `EINVAL` if there is none.
    fn flow_rule(&mut self, interface: &str, location: u32) -> io::Result<Option<FlowRule>>;

    /// Adds a rule, at `location` or where the driver likes, and returns where it is.
    ///
    /// # Errors
    ///
    /// The kernel's error: `EOPNOTSUPP` or `EINVAL` where the device has no such rules.
    fn insert_flow_rule(&mut self, interface: &str, rule: &FlowRule, location: Option<u32>) -> io::Result<u32>;

    /// Removes the rule at `location`.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    fn delete_flow_rule(&mut self, interface: &str, location: u32) -> io::Result<()>;

    /// Sets the RSS table; an empty one stands for the driver's default. `transform` is what is done before the hash
    /// (`RXH_XFRM_*`), as it is: the kernel sets both at once.
    ///
    /// # Errors
    ///
    /// The kernel's error: `EOPNOTSUPP` where the device has none.
    fn set_rss_table(&mut self, interface: &str, transform: u8, table: &[u32]) -> io::Result<()>;

    /// Makes an RSS context with this table, or gives context `id` another one; an empty one removes it. `transform` is
    /// as it is, too. Returns its number.
    ///
    /// # Errors
    ///
    /// The kernel's error: `EOPNOTSUPP` where the device has none.
    fn set_rss_context(&mut self, interface: &str, id: Option<u32>, transform: u8, table: &[u32]) -> io::Result<u32>;
}

/// The running kernel.
pub struct Linux {
    netlink: NetlinkSocket,
    ethtool: Ethtool,
}

impl Linux {
    /// The kernel of the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// The kernel's error: no more descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            netlink: NetlinkSocket::new(),
            ethtool: Ethtool::open()?,
        })
    }
}

impl Kernel for Linux {
    fn request<R: NetlinkRequest>(&mut self, request: &R, mut take: impl FnMut(R::ReplyType<'_>)) -> io::Result<()> {
        let mut replies = self.netlink.request(request)?;
        while let Some(reply) = replies.recv() {
            take(reply?);
        }
        Ok(())
    }

    fn read(&mut self, path: &Path) -> io::Result<String> {
        fs::read_to_string(path)
    }

    fn write(&mut self, path: &Path, text: &str) -> io::Result<()> {
        fs::write(path, text)
    }

    fn list(&mut self, path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    fn driver(&mut self, interface: &str) -> io::Result<DriverInfo> {
        self.ethtool.driver(interface)
    }

    fn flow_rules(&mut self, interface: &str) -> io::Result<FlowRules> {
        self.ethtool.flow_rules(interface)
    }

    fn flow_rule(&mut self, interface: &str, location: u32) -> io::Result<Option<FlowRule>> {
        self.ethtool.flow_rule(interface, location)
    }

    fn insert_flow_rule(&mut self, interface: &str, rule: &FlowRule, location: Option<u32>) -> io::Result<u32> {
        self.ethtool.insert_flow_rule(interface, rule, location)
    }

    fn delete_flow_rule(&mut self, interface: &str, location: u32) -> io::Result<()> {
        self.ethtool.delete_flow_rule(interface, location)
    }

    fn set_rss_table(&mut self, interface: &str, transform: u8, table: &[u32]) -> io::Result<()> {
        self.ethtool.set_rss_table(interface, transform, table)
    }

    fn set_rss_context(&mut self, interface: &str, id: Option<u32>, transform: u8, table: &[u32]) -> io::Result<u32> {
        self.ethtool.set_rss_context(interface, id, transform, table)
    }
}

/// The counters of an interface's driver, as `ethtool -S` shows them: names and values, in the driver's order. Names
/// are the driver's own, and may occur twice.
///
/// # Errors
///
/// The kernel's error: `EOPNOTSUPP` where the driver has none, `ENODEV` where there is no such interface.
pub fn statistics(interface: &str) -> io::Result<Vec<(String, u64)>> {
    Ethtool::open()?.statistics(interface)
}
