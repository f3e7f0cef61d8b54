//! Map layouts, counters and SYN cookies that tidegate's XDP program shares with its userspace.
//!
//! Both sides are compiled from this crate, so a map cannot have two layouts. It is `no_std` and allocates nothing.
//! [`ListenerKey`] is what frames are looked up by, [`XdpCounter`] the reason for each verdict, [`syn_ack`] the
//! settings of SYN-ACKs and sources, [`syn_cookie`] the codec of the cookies in them, [`flow_filter`] the table by
//! which the program tells the flows that an engine has, [`dispatcher`] the configuration by which it runs beside
//! other programs, and [`capture`] what it tells of the frames that it drops and answers.
//!
//! ```
//! use tidegate_abi::siphash::Key;
//! use tidegate_abi::syn_cookie::{self, Accepted, Addresses, Content, Handshake, Keys, Options};
//!
//! let handshake = Handshake {
//!     addresses: Addresses::v4([198, 18, 0, 2], [198, 18, 0, 1]),
//!     client_port: 40_000,
//!     server_port: 80,
//!     client_isn: 7,
//!     timestamps: false,
//! };
//! let options = Options {
//!     mss_index: 7,
//!     window_scale: 8,
//!     sack_permitted: true,
//!     ecn: false,
//! };
//! // The program answers a SYN by a number that is all it remembers of it.
//! let keys = Keys::new(Key(1, 2), 1000, false);
//! let (key, key_id) = keys.current();
//! let cookie = syn_cookie::make(key, key_id, &handshake, Content::Options(options));
//! // An engine finds the options in the acknowledgment, and nothing in one that was guessed.
//! let checked = keys.check(&handshake, cookie.isn, None, Accepted::All).expect("a cookie");
//! assert_eq!(checked.options, options);
//! assert_eq!(keys.check(&handshake, cookie.isn ^ 1, None, Accepted::All), None);
//! ```
#![no_std]
#![cfg_attr(not(feature = "userspace"), forbid(unsafe_code))]

pub mod capture;
pub mod counter;
pub mod dispatcher;
pub mod flow_filter;
pub mod listener;
pub mod siphash;
pub mod syn_ack;
pub mod syn_cookie;

pub use counter::XdpCounter;
pub use listener::ListenerKey;

/// Receive queues the maps have room for; a device with more is refused with a message.
pub const MAX_QUEUES: u32 = 64;

/// Devices the program can be attached to at once.
pub const MAX_DEVICES: u32 = 8;

/// Listeners (address and port) the XDP program can serve at once.
pub const MAX_LISTENERS: u32 = 1024;

/// Remote addresses and ports the XDP program can steer by at once.
pub const MAX_REMOTES: u32 = 16;

/// Prefixes of balancers of each family.
pub const MAX_BALANCERS: u32 = 1024;

/// Addresses of this host that balancers may send to.
pub const MAX_OWN_ADDRESSES: u32 = 1024;

/// Name of the program that steers, as it is found in the object.
pub const PROGRAM_STEER: &str = "tidegate";

/// Name of the same program for frames that may lie in several buffers (`xdp.frags`, Linux 5.18).
pub const PROGRAM_STEER_FRAGS: &str = "tidegate_frags";

/// Name of the one that first decapsulates what balancers send.
pub const PROGRAM_STEER_BALANCED: &str = "tidegate_balanced";

/// Name of the map of [`ListenerKey`]s whose flows are steered (`HashMap<ListenerKey, u32>`; the value is unused).
pub const MAP_LISTENERS: &str = "LISTENERS";

/// Name of the map of [`ListenerKey`]s, addresses and ports of servers, whose segments are steered whatever they are
/// for (`HashMap<ListenerKey, u32>`; the value is unused). Looked at only with [`syn_ack::feature::REMOTES`].
pub const MAP_REMOTES: &str = "REMOTES";

/// Name of the array that is looked at before [`MAP_LISTENERS`] (`Array<ListenerKey>`, [`listener::SLOTS`] entries): at
/// the slot of each listener, one of those that belong there. An empty slot says that none does.
pub const MAP_LISTENER_SLOTS: &str = "LISTENER_SLOTS";

/// The same for [`MAP_REMOTES`].
pub const MAP_REMOTE_SLOTS: &str = "REMOTE_SLOTS";

/// Name of the map from receive queue to AF_XDP socket (`XskMap`, [`MAX_QUEUES`] entries). Empty where there are
/// several devices.
pub const MAP_XSKS: &str = "XSKS";

/// Name of the map of several devices (`HashMap<u32, u32>`, [`MAX_DEVICES`] entries): by the kernel's number of each,
/// the index of its queue 0 in [`MAP_DEVICE_XSKS`].
pub const MAP_DEVICES: &str = "DEVICES";

/// Name of the map of the AF_XDP sockets of several devices (`XskMap`, [`MAX_QUEUES`] entries for each).
pub const MAP_DEVICE_XSKS: &str = "DEVICE_XSKS";

/// Name of the counters (`PerCpuArray<u64>`; see [`XdpCounter::index`]).
pub const MAP_COUNTERS: &str = "COUNTERS";

/// Name of the map of the keys of SYN cookies (`Array<[u64; 2]>`, 3 entries): by key id, and the next epoch's where
/// other hosts may make cookies with it already, else zero. The slot that is not in use is written before the switches
/// of [`MAP_COOKIE_SWITCHES`] are turned to it.
pub const MAP_COOKIE_KEYS: &str = "COOKIE_KEYS";

/// Name of the map from receive queue to [`syn_ack::cookie_switch`] (`Array<u32>`, [`MAX_QUEUES`] entries).
pub const MAP_COOKIE_SWITCHES: &str = "COOKIE_SWITCHES";

/// Name of the map with the one [`syn_ack::Settings`] (`Array<Settings>`, 1 entry).
pub const MAP_SETTINGS: &str = "SETTINGS";

/// Name of the table of flows (`Array<Bucket>`, mapped into userspace's memory; see [`flow_filter`]). The loader sets
/// its size.
pub const MAP_FLOWS: &str = "FLOWS";

/// Name of the table of what is in each bucket of [`MAP_FLOWS`] (`Array<Counts>`, mapped into userspace's memory; see
/// [`flow_filter::Counts`]). The loader sets its size.
pub const MAP_FLOW_COUNTS: &str = "FLOW_COUNTS";

/// Name of the table of handshakes (`Array<u64>`, [`flow_filter::handshake::SLOTS`] entries, mapped into userspace's
/// memory).
pub const MAP_HANDSHAKES: &str = "HANDSHAKES";

/// Name of the map with the switch of captures (`Array<u32>`, 1 entry, mapped into userspace's memory); 0: off, 1: on.
pub const MAP_CAPTURE_SWITCH: &str = "CAPTURE_SWITCH";

/// Name of the ring of [`capture::Sample`]s (`RingBuf`, [`capture::RING_OCTETS`]).
pub const MAP_CAPTURE: &str = "CAPTURE";

/// Name of the map with the bits of [`syn_ack::feature`] (`Array<u32>`, 1 entry).
pub const MAP_FEATURES: &str = "FEATURES";

/// Names of the tries from source prefix to [`syn_ack::source_rule`] (`LpmTrie<[u8; 4], u32>` and
/// `LpmTrie<[u8; 16], u32>`, addresses in network byte order, [`MAX_SOURCE_RULES`] entries each).
pub const MAP_SOURCE_RULES_V4: &str = "SOURCE_RULES_V4";
/// See [`MAP_SOURCE_RULES_V4`].
pub const MAP_SOURCE_RULES_V6: &str = "SOURCE_RULES_V6";

/// Names of the tries of the balancers' source prefixes (`LpmTrie<[u8; 4], u32>` and `LpmTrie<[u8; 16], u32>`,
/// addresses in network byte order, [`MAX_BALANCERS`] entries each; the value is unused).
pub const MAP_BALANCERS_V4: &str = "BALANCERS_V4";
/// See [`MAP_BALANCERS_V4`].
pub const MAP_BALANCERS_V6: &str = "BALANCERS_V6";

/// Name of the map of this host's addresses that balancers may send to (`HashMap<ListenerKey, u32>`, with port 0; the
/// value is unused).
pub const MAP_OWN_ADDRESSES: &str = "OWN_ADDRESSES";

/// Name of the map with the UDP port of GUE (`Array<u32>`, 1 entry); 0: no GUE.
pub const MAP_GUE_PORT: &str = "GUE_PORT";

/// Prefixes of each family that can be allowed or denied.
pub const MAX_SOURCE_RULES: u32 = 65_536;

/// Name of the map with the one [`syn_ack::SynRate`] (`Array<SynRate>`, 1 entry).
pub const MAP_SYN_RATE: &str = "SYN_RATE";

/// Name of the map of limited sources (`LruHashMap<SourceKey, u64>`; the value is the time, in nanoseconds of
/// CLOCK_MONOTONIC, at which the source has saved up nothing).
pub const MAP_SYN_SOURCES: &str = "SYN_SOURCES";

/// Sources the program remembers by default; the least recently used is forgotten. The loader may set another number.
pub const SYN_SOURCES: u32 = 65_536;
