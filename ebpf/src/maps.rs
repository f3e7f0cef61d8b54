//! Every map of the program, by the names that userspace knows (`tidegate_abi::MAP_*`).

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, XskMap},
};
use tidegate_abi::capture::RING_OCTETS;
use tidegate_abi::flow_filter::{Bucket, Counts, handshake};
use tidegate_abi::listener::SLOTS;
use tidegate_abi::syn_ack::{Settings, SourceKey, SynRate, feature};
use tidegate_abi::{
    ListenerKey, MAX_BALANCERS, MAX_DEVICES, MAX_LISTENERS, MAX_OWN_ADDRESSES, MAX_QUEUES, MAX_REMOTES,
    MAX_SOURCE_RULES, SYN_SOURCES as DEFAULT_SYN_SOURCES, XdpCounter,
};

/// The destinations served; written by userspace, and only looked up here.
#[map]
pub static LISTENERS: HashMap<ListenerKey, u32> = HashMap::with_max_entries(MAX_LISTENERS, 0);

/// Looked at before [`LISTENERS`].
#[map]
pub static LISTENER_SLOTS: Array<ListenerKey> = Array::with_max_entries(SLOTS, 0);

/// Addresses and ports of the servers that connections are opened to; written by userspace, and only looked up here.
#[map]
pub static REMOTES: HashMap<ListenerKey, u32> = HashMap::with_max_entries(MAX_REMOTES, 0);

/// Looked at before [`REMOTES`].
#[map]
pub static REMOTE_SLOTS: Array<ListenerKey> = Array::with_max_entries(SLOTS, 0);

/// Prefixes of the balancers whose packets are decapsulated; written by userspace, and only looked up here.
#[map]
pub static BALANCERS_V4: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(MAX_BALANCERS, 0);

/// See [`BALANCERS_V4`].
#[map]
pub static BALANCERS_V6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(MAX_BALANCERS, 0);

/// The addresses of this host that balancers may send to, as keys with port 0.
#[map]
pub static OWN_ADDRESSES: HashMap<ListenerKey, u32> = HashMap::with_max_entries(MAX_OWN_ADDRESSES, 0);

/// The UDP port of GUE, 0 where there is none.
#[map]
pub static GUE_PORT: Array<u32> = Array::with_max_entries(1, 0);

/// The AF_XDP socket of each receive queue. A socket takes frames of its own queue only, so the queue is the index.
/// Empty where there are several devices.
#[map]
pub static XSKS: XskMap = XskMap::with_max_entries(MAX_QUEUES, 0);

/// Where there are several devices: by the kernel's number of each, the index of its queue 0 in [`DEVICE_XSKS`].
#[map]
pub static DEVICES: HashMap<u32, u32> = HashMap::with_max_entries(MAX_DEVICES, 0);

/// The AF_XDP socket of each receive queue of each device.
#[map]
pub static DEVICE_XSKS: XskMap = XskMap::with_max_entries(MAX_DEVICES * MAX_QUEUES, 0);

/// The counters of all receive queues.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(XdpCounter::MAP_ENTRIES, 0);

/// Bits of `tidegate_abi::syn_ack::feature`.
#[map]
pub static FEATURES: Array<u32> = Array::with_max_entries(1, 0);

/// IPv4 prefixes that are allowed or denied.
#[map]
pub static SOURCE_RULES_V4: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(MAX_SOURCE_RULES, 0);

/// IPv6 prefixes that are allowed or denied.
#[map]
pub static SOURCE_RULES_V6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(MAX_SOURCE_RULES, 0);

/// The limit of SYNs per source.
#[map]
pub static SYN_RATE: Array<SynRate> = Array::with_max_entries(1, 0);

/// By source, the time at which it has saved up nothing.
#[map]
pub static SYN_SOURCES: LruHashMap<SourceKey, u64> = LruHashMap::with_max_entries(DEFAULT_SYN_SOURCES, 0);

/// The keys of both key ids, and the next epoch's.
#[map]
pub static COOKIE_KEYS: Array<[u64; 2]> = Array::with_max_entries(3, 0);

/// A `tidegate_abi::syn_ack::cookie_switch` for each receive queue.
#[map]
pub static COOKIE_SWITCHES: Array<u32> = Array::with_max_entries(MAX_QUEUES, 0);

/// The settings for all segments.
#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// The flows that engines have; userspace writes them in the map's own memory. The loader sets the size.
#[map]
pub static FLOWS: Array<Bucket> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What is in each bucket of [`FLOWS`], written as those are.
#[map]
pub static FLOW_COUNTS: Array<Counts> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Handshakes whose cookies were found genuine, which userspace reads in the map's own memory.
#[map]
pub static HANDSHAKES: Array<u64> = Array::with_max_entries(handshake::SLOTS, BPF_F_MMAPABLE);

/// For each receive queue, a second in the upper half of a word and in the lower the segments of no flow that went on
/// to the engine in it.
#[map]
pub static STRAYS: Array<u64> = Array::with_max_entries(MAX_QUEUES, 0);

/// Whether what is dropped and answered is captured: 0 or 1, which userspace writes in the map's own memory.
#[map]
pub static CAPTURE_SWITCH: Array<u32> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Captured frames on their way to userspace, as `tidegate_abi::capture::Sample`.
#[map]
pub static CAPTURE: RingBuf = RingBuf::with_byte_size(RING_OCTETS, 0);

/// For each CPU, a jiffy in the upper half of a word and in the lower the samples that were taken in it.
#[map]
pub static CAPTURE_RATE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Values that pass through a map for the verifier's sake.
#[repr(C)]
pub struct ScratchValues {
    pub at: u64,
    pub offer: u64,
}

/// The values of each CPU.
#[map]
pub static SCRATCH: PerCpuArray<ScratchValues> = PerCpuArray::with_max_entries(1, 0);

/// Whether there is an engine behind receive queue `queue`: always, unless the program may outlive the engines.
#[inline(always)]
pub fn is_attended(queue: u32, features: u32) -> bool {
    features & feature::OUTLIVES == 0 || XSKS.get(queue).is_some()
}

/// Whether the map `keys`, before which `slots` is looked at, holds `key`.
#[inline(always)]
pub fn holds(slots: &Array<ListenerKey>, keys: &HashMap<ListenerKey, u32>, key: &ListenerKey) -> bool {
    match slots.get(key.slot()) {
        Some(first) if first == key => true,
        Some(first) if first.is_empty_slot() => false,
        _ => keys.get_ptr(key).is_some(),
    }
}
