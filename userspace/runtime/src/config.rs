//! The settings of the runtime: the tables `[afxdp]`, `[syn_cookies]`, `[sources]` and `[balancers]` of the
//! configuration file.

use core::ops::RangeInclusive;
use core::time::Duration;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tidegate_abi::MAX_QUEUES;
use tidegate_tcp::config::InvalidSetting;
use tidegate_xsk::MultiBuffer;

use crate::error::Error;

/// The octets the kernel keeps free for the XDP program before each received packet (`XDP_PACKET_HEADROOM`).
pub(crate) const XDP_PACKET_HEADROOM: u32 = 256;

/// Ethernet header and two VLAN tags.
pub(crate) const LINK_HEADERS: u32 = 14 + 8;

/// Beyond this MTU a packet does not fit one page together with the headroom and the kernel's tail: it comes in several
/// buffers, and the driver asks for an XDP program that knows of them (`xdp.frags`).
pub(crate) const MAX_MTU: u32 = 3498;

/// The largest MTU in several buffers: the engine's.
pub(crate) const MAX_JUMBO_MTU: u32 = 9000;

/// The size of frames where packets take several. Linux takes 17 frames for a packet in copy mode, drivers fewer in
/// zero-copy mode (`xdp-zc-max-segs`); of these, the largest take three.
const JUMBO_FRAME_SIZE: u32 = 4096;

/// Smallest size of a huge page.
const HUGE_PAGE: u64 = 2 << 20;

/// Frames that the longest packet takes.
const MAX_PACKET_FRAMES: u32 = (MAX_JUMBO_MTU + LINK_HEADERS).div_ceil(JUMBO_FRAME_SIZE - XDP_PACKET_HEADROOM);

mod balancers;
mod prefix;
mod sources;
mod syn_cookies;

pub use balancers::Balancers;
pub use prefix::Prefix;
pub use sources::Sources;
pub(crate) use sources::TriePrefix;
pub use syn_cookies::{CookieMode, SynCookies};

/// The place of the XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum XdpMode {
    /// In the driver if it can, else in the kernel's stack.
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the kernel's stack: works with every driver, at the cost of an allocated packet.
    Generic,
}

/// The way the XDP program comes to its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Attach {
    /// By a bpf_link, as the only program; it goes with the process.
    Link,
    /// By a dispatcher of libxdp's protocol, beside other programs.
    Dispatcher,
}

/// The behaviour of a shard that has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum WaitStrategy {
    /// Sleeps at once: least CPU, most latency.
    Poll,
    /// Has the kernel poll the device from the shard's own system calls, and sleeps after a while without work.
    BusyPoll,
    /// Never sleeps: a whole core, least latency.
    Spin,
    /// Looks again for a while after the last work, then sleeps.
    Adaptive,
}

/// Whether the device writes to and reads from the UMEM itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ZeroCopy {
    /// If the driver can.
    Auto,
    /// Or not at all.
    Require,
    /// The kernel copies every frame, even where the driver could do without.
    Never,
}

/// The reaction of a server whose interface is deleted or moved to another network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkGone {
    /// It ends with an error.
    Exit,
    /// It waits for an interface of the same name, and serves again.
    Wait,
}

/// The way of what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum NextHop {
    /// Back to the Ethernet address that the peer's segments come from.
    Reflect,
    /// As the kernel's routes and neighbours have it.
    Kernel,
}

/// AF_XDP and placement settings. Counts and sizes are per shard; a shard is one queue, one socket, one thread.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Queues to serve, from queue 0 on; by default all the device has, at most [`MAX_QUEUES`].
    pub queues: Option<u32>,
    /// Where the XDP program runs.
    pub xdp_mode: XdpMode,
    /// The way the XDP program comes to its interface.
    pub attach: Attach,
    /// The place among the programs of a dispatcher, of which those with lower numbers run first (1 to 65,535).
    pub priority: u32,
    /// The way a shard waits when there is nothing to do.
    pub wait: WaitStrategy,
    /// The time for which `adaptive` and `busy-poll` look again after the last work before they sleep (at most 1 s).
    #[serde(with = "humantime_serde")]
    pub spin: Duration,
    /// Packets the kernel takes from the device per busy poll (`SO_BUSY_POLL_BUDGET`); only with `busy-poll`.
    pub busy_poll_budget: u16,
    /// The time one busy poll may last (`SO_BUSY_POLL`, at most 1 s); only with `busy-poll`.
    #[serde(with = "humantime_serde")]
    pub busy_poll: Duration,
    /// Frames of the UMEM (a power of two, 256 to 1,048,576).
    pub frames: u32,
    /// Size of a frame in bytes: 2048 serves an MTU up to 1,770, 4096 one up to 3,498, or in several frames for each
    /// packet 9,000. Without it: 4096 in zero-copy mode, which some drivers need, and for an MTU above 1,770, otherwise
    /// 2048.
    pub frame_size: Option<u32>,
    /// Entries of the fill ring (a power of two, 64 to 65,536). At most half of all frames wait in it.
    pub fill_ring: u32,
    /// Entries of the completion ring (a power of two, `tx_ring` to 65,536).
    pub completion_ring: u32,
    /// Entries of the RX ring (a power of two, 64 to 65,536).
    pub rx_ring: u32,
    /// Entries of the TX ring (a power of two, 64 to 65,536).
    pub tx_ring: u32,
    /// Frames kept for ACK, FIN, RST, probes and retransmissions; twice as many are kept from SYN-ACKs. Less than a
    /// quarter of `frames`.
    pub control_reserve: u32,
    /// Segments of other shards that may wait for this one (1 to 65,536).
    pub handover_queue: u32,
    /// Back the UMEM by huge pages, which have to be reserved (`vm.nr_hugepages`).
    pub huge_pages: bool,
    /// Run each shard on a CPU of its own, from the process's affinity mask.
    pub pin_threads: bool,
    /// Whether the device writes to and reads from the UMEM itself.
    pub zero_copy: ZeroCopy,
    /// Frames taken from the RX ring per turn of the loop (1 to 1024, at most a quarter of `frames`).
    pub burst: u32,
    /// Whether the XDP program drops segments of flows that no engine has, but for acknowledgments of genuine cookies
    /// and as many as RSTs answer.
    pub flow_filter: bool,
    /// The way of what is sent. `kernel` follows table `main`, by this interface; what it has no next hop for goes back
    /// to where the peer's segments come from.
    pub next_hop: NextHop,
    /// Neighbours that the kernel is asked to resolve in a second, at most (1 to 10,000); and as many that it is told
    /// are in use. Only with `next_hop = "kernel"`.
    pub neighbour_rate: u32,
    /// The reaction of a server whose interface is deleted or moved to another network namespace. It is the caller of
    /// [`Runtime::check`](crate::Runtime::check) that does it.
    pub link_gone: LinkGone,
    /// The path of a socket (`SOCK_SEQPACKET`): a server that listens there gives its queues to the one that starts,
    /// which listens there from then on. By default none does. Only with `attach = "link"`, and at most 32 queues.
    pub take_over: Option<PathBuf>,
    /// The time for which a server that another has taken over from goes on with its connections, before it ends them
    /// as at a stop (at least 1 s).
    #[serde(with = "humantime_serde")]
    pub take_over_limit: Duration,
    /// The time for which a server that is to be taken over from waits for the other to be ready, and serves meanwhile
    /// (1 s to 1 h), after which it goes on as before. The other one has the kernel check its program in it, and makes
    /// its engines.
    #[serde(with = "humantime_serde")]
    pub take_over_preparation: Duration,
    /// The time for which either server waits for each further step of the other, the binding of all queues included,
    /// in which nothing is received (1 s to 1 h). After it the one that was to be taken over from binds its queues
    /// again, and the other one ends.
    #[serde(with = "humantime_serde")]
    pub take_over_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            queues: None,
            xdp_mode: XdpMode::Auto,
            attach: Attach::Link,
            priority: 50,
            wait: WaitStrategy::Adaptive,
            spin: Duration::from_micros(50),
            busy_poll_budget: 64,
            busy_poll: Duration::from_micros(20),
            frames: 16_384,
            frame_size: None,
            fill_ring: 4096,
            completion_ring: 4096,
            rx_ring: 2048,
            tx_ring: 2048,
            control_reserve: 512,
            handover_queue: 1024,
            huge_pages: false,
            pin_threads: true,
            zero_copy: ZeroCopy::Auto,
            burst: 64,
            flow_filter: true,
            next_hop: NextHop::Reflect,
            neighbour_rate: 100,
            link_gone: LinkGone::Exit,
            take_over: None,
            take_over_limit: Duration::from_secs(3600),
            take_over_preparation: Duration::from_secs(60),
            take_over_timeout: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Checks the ranges the fields' documentation states.
    ///
    /// # Errors
    ///
    /// The first key whose value is out of range.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        if let Some(queues) = self.queues {
            InvalidSetting::check_range("queues", queues, 1..=MAX_QUEUES)?;
        }
        InvalidSetting::check_range("priority", self.priority, 1..=u32::from(u16::MAX))?;
        power_of_two("frames", self.frames, 256..=1 << 20)?;
        if let Some(size) = self.frame_size
            && !matches!(size, 2048 | 4096)
        {
            return Err(InvalidSetting::new(
                ["frame_size"],
                format!("frame_size is {size}; it must be 2048 or 4096"),
            ));
        }
        for (key, entries) in [
            ("fill_ring", self.fill_ring),
            ("completion_ring", self.completion_ring),
            ("rx_ring", self.rx_ring),
            ("tx_ring", self.tx_ring),
        ] {
            power_of_two(key, entries, 64..=1 << 16)?;
        }
        if self.completion_ring < self.tx_ring {
            return Err(InvalidSetting::new(
                ["completion_ring", "tx_ring"],
                format!(
                    "completion_ring is {} and tx_ring {}; completion_ring must be at least as large",
                    self.completion_ring, self.tx_ring
                ),
            ));
        }
        let quarter = self.frames / 4;
        InvalidSetting::check_range("control_reserve", self.control_reserve, 1..=u32::MAX)?;
        if self.control_reserve >= quarter {
            return Err(InvalidSetting::new(
                ["control_reserve", "frames"],
                format!(
                    "control_reserve is {}; it must be below a quarter of frames, of which there are {}",
                    self.control_reserve, self.frames
                ),
            ));
        }
        InvalidSetting::check_range("handover_queue", self.handover_queue, 1..=1 << 16)?;
        InvalidSetting::check_range("burst", self.burst, 1..=1024)?;
        if self.burst > quarter {
            return Err(InvalidSetting::new(
                ["burst", "frames"],
                format!(
                    "burst is {}; it must be at most a quarter of frames, of which there are {}",
                    self.burst, self.frames
                ),
            ));
        }
        InvalidSetting::check_range("neighbour_rate", self.neighbour_rate, 1..=10_000)?;
        InvalidSetting::check_range("busy_poll_budget", self.busy_poll_budget, 1..=u16::MAX)?;
        for (key, duration) in [("spin", self.spin), ("busy_poll", self.busy_poll)] {
            InvalidSetting::check_range(key, duration, Duration::ZERO..=Duration::from_secs(1))?;
        }
        InvalidSetting::check_range(
            "take_over_limit",
            self.take_over_limit,
            Duration::from_secs(1)..=tidegate_tcp::config::MAX_DURATION,
        )?;
        for (key, duration) in [
            ("take_over_preparation", self.take_over_preparation),
            ("take_over_timeout", self.take_over_timeout),
        ] {
            InvalidSetting::check_range(key, duration, Duration::from_secs(1)..=Duration::from_secs(3600))?;
        }
        if self.take_over.is_some() && self.attach == Attach::Dispatcher {
            return Err(InvalidSetting::new(
                ["take_over", "attach"],
                "take_over needs attach = \"link\": what a dispatcher runs cannot be given to another process",
            ));
        }
        if self.huge_pages && self.umem_bytes(self.frame_size.unwrap_or(2048)) < HUGE_PAGE {
            return Err(InvalidSetting::new(
                ["huge_pages", "frames", "frame_size"],
                "huge_pages needs frames times frame_size to be at least 2 MiB",
            ));
        }
        Ok(())
    }

    /// Checks that an interface's largest packets fit a frame. `mtu` is in bytes, without the Ethernet header.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] or [`Error::Setting`] with what to change.
    pub fn validate_mtu(&self, interface: &str, mtu: u32) -> Result<(), Error> {
        if mtu > MAX_JUMBO_MTU {
            return Err(Error::Config(format!(
                "interface {interface} has an MTU of {mtu}, and segments are made for one of at most {MAX_JUMBO_MTU}; \
                 lower it with `ip link set dev {interface} mtu {MAX_JUMBO_MTU}`"
            )));
        }
        let size = self.frame_size_for(mtu);
        if !fits(mtu, size) && size != JUMBO_FRAME_SIZE {
            let message = format!(
                "interface {interface} has an MTU of {mtu}, more than fits a frame of {size} bytes; set frame_size = 4096"
            );
            return Err(Error::in_table("afxdp")(InvalidSetting::new(["frame_size"], message)));
        }
        // What may be sent at the most begins with a SYN-ACK, for which room for the longest packet has to be free.
        let packet = MAX_PACKET_FRAMES;
        if mtu > MAX_MTU && 2 * self.control_reserve + packet > self.frames / 2 {
            let message = format!(
                "control_reserve is {}; with the MTU of {interface}, {mtu}, it must be at most {}",
                self.control_reserve,
                (self.frames / 2 - packet) / 2
            );
            return Err(Error::in_table("afxdp")(InvalidSetting::new(
                ["control_reserve", "frames"],
                message,
            )));
        }
        Ok(())
    }

    /// The limits of packets of several frames, for an interface with an MTU that takes them.
    pub(crate) fn multi_buffer(&self, mtu: u32) -> Option<MultiBuffer> {
        (mtu > MAX_MTU).then(|| MultiBuffer {
            max_packet: (MAX_JUMBO_MTU + LINK_HEADERS) as usize,
            max_held: (self.burst + self.handover_queue) as usize,
        })
    }

    /// Size of a frame in bytes in copy mode, for an interface with this MTU.
    pub(crate) fn frame_size_for(&self, mtu: u32) -> u32 {
        self.frame_size.unwrap_or(if fits(mtu, 2048) { 2048 } else { 4096 })
    }

    /// Size of one UMEM in bytes, with frames of `frame_size`.
    pub(crate) fn umem_bytes(&self, frame_size: u32) -> u64 {
        u64::from(self.frames) * u64::from(frame_size)
    }

    /// The number of frames that are to wait in the fill ring of each of so many devices: as many as it holds, but
    /// together at most half of all, since what waits to be received into cannot be sent.
    pub(crate) fn fill_target(&self, devices: u32) -> u32 {
        self.fill_ring.min(self.frames / 2 / devices)
    }

    /// Entries of the TX ring of each of so many devices: `tx_ring`, but where there are several, no more than a
    /// quarter of all frames are in all of them, so that those that are down leave frames for the others.
    pub(crate) fn tx_ring(&self, devices: u32) -> u32 {
        if devices == 1 {
            return self.tx_ring;
        }
        let share = self.frames / 4 / devices;
        self.tx_ring.min(1 << share.ilog2())
    }

    /// Checks that SYN-ACKs can be sent by one of so many devices while all others are down and keep what was to leave
    /// by them.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] with what to change.
    pub(crate) fn validate_devices(&self, devices: u32) -> Result<(), Error> {
        if devices < 2 {
            return Ok(());
        }
        let kept = devices * self.fill_target(devices) + (devices - 1) * self.tx_ring(devices);
        let max = (self.frames - kept - MAX_PACKET_FRAMES) / 2;
        if self.control_reserve <= max {
            return Ok(());
        }
        let message = format!(
            "control_reserve is {}; with {devices} devices and {} frames it must be at most {max}",
            self.control_reserve, self.frames
        );
        Err(Error::in_table("afxdp")(InvalidSetting::new(
            ["control_reserve", "frames"],
            message,
        )))
    }
}

/// Whether the packets of an interface with this MTU fit a frame.
fn fits(mtu: u32, frame_size: u32) -> bool {
    mtu + LINK_HEADERS <= frame_size - XDP_PACKET_HEADROOM
}

fn power_of_two(key: &'static str, value: u32, range: RangeInclusive<u32>) -> Result<(), InvalidSetting> {
    if value.is_power_of_two() && range.contains(&value) {
        return Ok(());
    }
    Err(InvalidSetting::new(
        [key],
        format!(
            "{key} is {value}; it must be a power of two from {} to {}",
            range.start(),
            range.end()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        match config.validate() {
            Ok(()) => panic!("accepted: {config:?}"),
            Err(error) => {
                let sentence = error.to_string();
                assert!(sentence.starts_with(error.keys()[0]), "{sentence}");
                sentence
            }
        }
    }

    #[test]
    fn the_default_is_valid_and_what_an_empty_table_gives() {
        let config = Config::default();
        config.validate().expect("a valid default");
        config.validate_mtu("eth0", 1500).expect("room for an MTU of 1500");
        assert_eq!(config.fill_target(1), 4096);
        let read: Config = toml::from_str("").expect("an empty table");
        assert_eq!(read, config);
    }

    #[test]
    fn a_table_is_read_and_unknown_keys_are_refused() {
        let read: Config = toml::from_str(
            "queues = 2\nwait = \"busy-poll\"\nxdp_mode = \"native\"\nattach = \"dispatcher\"\nspin = \"5us\"\nzero_copy = \"never\"",
        )
        .expect("a good table");
        assert_eq!(read.queues, Some(2));
        assert_eq!(read.wait, WaitStrategy::BusyPoll);
        assert_eq!(read.xdp_mode, XdpMode::Native);
        assert_eq!((read.attach, read.priority), (Attach::Dispatcher, 50));
        assert_eq!(read.spin, Duration::from_micros(5));
        assert_eq!(read.zero_copy, ZeroCopy::Never);
        let error = toml::from_str::<Config>("framez = 1").expect_err("an unknown key");
        assert!(error.to_string().contains("framez"), "{error}");
        let error = toml::from_str::<Config>("wait = \"doze\"").expect_err("an unknown name");
        assert!(error.to_string().contains("adaptive"), "{error}");
    }

    #[test]
    fn a_wrong_name_is_told_with_the_right_ones() {
        let error = toml::from_str::<Config>("xdp_mode = \"fast\"").expect_err("no such mode");
        assert!(
            error
                .message()
                .contains("`fast`, expected one of `auto`, `native`, `generic`"),
            "{error}"
        );
    }

    #[test]
    fn every_limit_is_named_when_it_is_broken() {
        assert!(complaint(|c| c.queues = Some(0)).starts_with("queues is 0"));
        assert!(complaint(|c| c.queues = Some(MAX_QUEUES + 1)).starts_with("queues is"));
        assert!(complaint(|c| c.priority = 0).starts_with("priority is 0"));
        assert!(complaint(|c| c.frames = 1000).starts_with("frames is 1000"));
        assert!(complaint(|c| c.frame_size = Some(1024)).starts_with("frame_size is 1024"));
        assert!(complaint(|c| c.rx_ring = 100).starts_with("rx_ring is 100"));
        assert!(complaint(|c| c.tx_ring = 8192).starts_with("completion_ring is 4096"));
        assert!(complaint(|c| c.control_reserve = 0).starts_with("control_reserve is 0"));
        assert!(complaint(|c| c.control_reserve = 4096).starts_with("control_reserve is 4096"));
        assert!(complaint(|c| c.handover_queue = 0).starts_with("handover_queue is 0"));
        assert!(complaint(|c| c.burst = 0).starts_with("burst is 0"));
        assert!(complaint(|c| c.busy_poll_budget = 0).starts_with("busy_poll_budget is 0"));
        assert!(complaint(|c| c.spin = Duration::from_secs(2)).starts_with("spin is 2s"));
        assert!(
            complaint(|c| {
                c.frames = 256;
                c.control_reserve = 16;
                c.huge_pages = true;
            })
            .starts_with("huge_pages needs")
        );
    }

    #[test]
    fn the_mtu_decides_the_frame_size() {
        let mut config = Config::default();
        assert_eq!((config.frame_size_for(1770), config.frame_size_for(1771)), (2048, 4096));
        config.validate_mtu("eth0", 3498).expect("frames that fit");
        config.frame_size = Some(2048);
        config.validate_mtu("eth0", 1770).expect("the last that fits");
        let error = config.validate_mtu("eth0", 1771).expect_err("one more");
        assert!(error.to_string().contains("frame_size = 4096"), "{error}");
        config.frame_size = Some(4096);
        config.validate_mtu("eth0", 3498).expect("the last that fits");
    }

    #[test]
    fn above_the_mtu_of_a_page_packets_take_several_frames() {
        let mut config = Config::default();
        assert_eq!(config.multi_buffer(3498), None);
        for mtu in [3499, 9000] {
            config.validate_mtu("eth0", mtu).expect("packets of several frames");
            assert_eq!(config.frame_size_for(mtu), 4096);
            let limits = config.multi_buffer(mtu).expect("limits");
            assert_eq!((limits.max_packet, limits.max_held), (9022, 64 + 1024));
        }
        let error = config.validate_mtu("eth0", 9001).expect_err("longer than segments are");
        assert!(error.is_usage() && error.to_string().contains("mtu 9000"), "{error}");
        config.frame_size = Some(2048);
        let error = config.validate_mtu("eth0", 9000).expect_err("small frames");
        assert!(error.to_string().contains("frame_size = 4096"), "{error}");
    }

    #[test]
    fn a_reserve_that_would_leave_no_room_for_a_packet_of_several_frames_is_refused() {
        let mut config = Config {
            frames: 256,
            control_reserve: 63,
            burst: 64,
            ..Config::default()
        };
        config.validate().expect("good settings");
        config.validate_mtu("eth0", 3498).expect("packets of one frame");
        let error = config.validate_mtu("eth0", 9000).expect_err("two frames are left");
        assert!(error.to_string().contains("it must be at most 62"), "{error}");
        config.control_reserve = 62;
        config.validate_mtu("eth0", 9000).expect("four frames are left");
    }

    #[test]
    fn at_most_half_of_the_frames_wait_to_be_received_into() {
        let config = Config {
            frames: 4096,
            fill_ring: 4096,
            ..Config::default()
        };
        assert_eq!(config.fill_target(1), 2048);
        assert_eq!((config.fill_target(3), config.tx_ring(1)), (682, config.tx_ring));
        let many = Config {
            tx_ring: 4096,
            completion_ring: 4096,
            ..config
        };
        assert_eq!([1, 2, 3, 8].map(|devices| many.tx_ring(devices)), [4096, 512, 256, 128]);
    }

    #[test]
    fn devices_that_are_down_leave_room_for_the_syn_acks_of_another() {
        let mut config = Config::default();
        for devices in 1..=8 {
            config.validate_devices(devices).expect("the defaults");
        }
        config.frames = 2048;
        config.control_reserve = 511;
        config.validate_devices(1).expect("one device");
        let error = config.validate_devices(2).expect_err("768 frames are left");
        assert!(error.is_usage() && error.to_string().contains("at most 382"), "{error}");
        config.control_reserve = 382;
        config.validate_devices(2).expect("as many as are left");
    }
}
