//! The XDP program under test: loaded, given listeners and a socket, run on one frame at a time.

mod settings;

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use aya::maps::{Array, HashMap, MapData, PerCpuArray, XskMap};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunOptions, TestRunResult};
use tidegate_abi::{
    ListenerKey, MAP_COUNTERS, MAP_FLOW_COUNTS, MAP_FLOWS, MAP_LISTENER_SLOTS, MAP_LISTENERS, MAP_REMOTE_SLOTS,
    MAP_REMOTES, MAP_XSKS, PROGRAM_STEER, PROGRAM_STEER_BALANCED, PROGRAM_STEER_FRAGS, XdpCounter,
};

use crate::frames::{served_v4, served_v6};

/// `enum xdp_action` of linux/bpf.h.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// Buckets of the flow filter: as many as with one queue and the default limits.
pub(crate) const BUCKETS: u32 = 1 << 16;

/// Room for octets that the program adds to a frame, which it must not.
const SPARE: usize = 64;

/// The program, loaded and not attached, with maps of its own.
pub(crate) struct Program {
    ebpf: Ebpf,
    /// The one that is run.
    name: &'static str,
    socket: Option<OwnedFd>,
}

impl Program {
    /// The program with nothing served and no socket; `None`, and a loud line, without root.
    pub(crate) fn load() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root: the XDP program can only be loaded with CAP_BPF and CAP_NET_ADMIN");
            return None;
        }
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(MAP_FLOWS, BUCKETS)
            .map_max_entries(MAP_FLOW_COUNTS, BUCKETS)
            .load(tidegate_runtime::object())
            .expect("the object is read and its maps are made");
        load(&mut ebpf, PROGRAM_STEER);
        Some(Self::of(ebpf))
    }

    /// The program of an object that is loaded already.
    pub(crate) fn of(ebpf: Ebpf) -> Self {
        Self {
            ebpf,
            name: PROGRAM_STEER,
            socket: None,
        }
    }

    /// From now on the program that decapsulates is run.
    pub(crate) fn decapsulates(&mut self) {
        self.name = PROGRAM_STEER_BALANCED;
        load(&mut self.ebpf, self.name);
    }

    /// From now on the program for frames in several buffers is run.
    pub(crate) fn use_several_buffers(&mut self) {
        self.name = PROGRAM_STEER_FRAGS;
        load(&mut self.ebpf, self.name);
    }

    /// The program with both destinations of [`frames`] served, and a socket on queue 0.
    pub(crate) fn serving() -> Option<Self> {
        let mut program = Self::load()?;
        program.serve(served_v4());
        program.serve(served_v6());
        program.open_socket();
        Some(program)
    }

    /// As [`Program::serving`], for frames in several buffers.
    pub(crate) fn serving_several_buffers() -> Option<Self> {
        let mut program = Self::serving()?;
        program.use_several_buffers();
        Some(program)
    }

    /// Adds a destination to the served ones.
    pub(crate) fn serve(&mut self, destination: ListenerKey) {
        self.add(MAP_LISTENERS, MAP_LISTENER_SLOTS, destination);
    }

    /// Adds a source whose segments are steered.
    pub(crate) fn steer_from(&mut self, remote: ListenerKey) {
        self.add(MAP_REMOTES, MAP_REMOTE_SLOTS, remote);
    }

    fn add(&mut self, name: &str, slots: &str, key: ListenerKey) {
        let map = self.ebpf.map_mut(name).expect("the object has the map");
        let mut map = HashMap::<_, ListenerKey, u32>::try_from(map).expect("key and value have the map's sizes");
        map.insert(key, 0_u32, 0).expect("the map has room for one more");
        let slots = self.ebpf.map_mut(slots).expect("the object has the slots");
        let mut slots = Array::<_, ListenerKey>::try_from(slots).expect("the value has the map's size");
        if slots
            .get(&key.slot(), 0)
            .expect("the slot is in the map")
            .is_empty_slot()
        {
            slots.set(key.slot(), key, 0).expect("the slot is in the map");
        }
    }

    /// Puts an AF_XDP socket in the place of queue 0. It is bound to nothing: the test run stops at the verdict.
    pub(crate) fn open_socket(&mut self) {
        // SAFETY: socket() takes no pointers.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(fd >= 0, "AF_XDP socket: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor was just made, and nothing else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // From Linux 7.2 on only a socket with a receive ring gets a place (ENOBUFS).
        let entries: libc::c_int = 64;
        // SAFETY: the pointer and the length are those of `entries`, which the kernel only reads.
        let failed = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_XDP,
                libc::XDP_RX_RING,
                (&raw const entries).cast(),
                size_of_val(&entries) as libc::socklen_t,
            )
        };
        assert_eq!(failed, 0, "receive ring: {}", std::io::Error::last_os_error());
        let map = self.ebpf.map_mut(MAP_XSKS).expect("the object has the map");
        let mut sockets = XskMap::try_from(map).expect("it is a map of AF_XDP sockets");
        sockets.set(0, socket.as_raw_fd(), 0).expect("queue 0 is in the map");
        self.socket = Some(socket);
    }

    /// Closes the socket of queue 0.
    pub(crate) fn close_socket(&mut self) {
        drop(self.socket.take());
    }

    /// The number of queues that the map of sockets has room for.
    pub(crate) fn queues(&mut self) -> u32 {
        let map = self.ebpf.map_mut(MAP_XSKS).expect("the object has the map");
        XskMap::try_from(map).expect("it is a map of AF_XDP sockets").len()
    }

    /// The counters of queue 0, on which a test run arrives, summed over the CPUs.
    fn counts(&self) -> Vec<u64> {
        let counters = self.counters();
        XdpCounter::ALL
            .iter()
            .map(|counter| sum_of_cpus(&counters, counter.index(0)))
            .collect()
    }

    /// The sum of all counters of all queues.
    pub(crate) fn total(&self) -> u64 {
        let counters = self.counters();
        assert_eq!(counters.len(), XdpCounter::MAP_ENTRIES);
        (0..counters.len()).map(|index| sum_of_cpus(&counters, index)).sum()
    }

    fn counters(&self) -> PerCpuArray<&MapData, u64> {
        let map = self.ebpf.map(MAP_COUNTERS).expect("the object has the map");
        PerCpuArray::try_from(map).expect("the counters are 64 bits wide")
    }

    /// Runs the program on `frame` and returns its action, and the frame as the program left it.
    fn run(&self, frame: &[u8]) -> (u32, Vec<u8>) {
        let mut after = vec![0; frame.len() + SPARE];
        let result = self.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut after),
            ..TestRunOptions::new()
        });
        after.truncate(result.data_size_out as usize);
        (result.return_value, after)
    }

    /// Runs the program as `options` say.
    pub(crate) fn test_run(&self, options: TestRunOptions<'_>) -> TestRunResult {
        let program: &Xdp = self
            .ebpf
            .program(self.name)
            .expect("the object has the program")
            .try_into()
            .expect("it is an XDP program");
        program.test_run(options).expect("the kernel runs the program")
    }

    /// Runs the program on `frame` and returns the reason it gave: the one counter that went up, and by one. The action
    /// must be that reason's. With it comes the frame as the program left it: as it was, unless it is answered.
    #[track_caller]
    pub(crate) fn verdict(&self, frame: &[u8]) -> (XdpCounter, Vec<u8>) {
        let (reason, is_decapsulated, left) = self.counted_verdict(frame);
        assert!(!is_decapsulated, "nothing was to be decapsulated");
        if reason != XdpCounter::TxSynCookie {
            assert_eq!(left, frame, "the program changed the frame");
        }
        (reason, left)
    }

    /// The same of a frame that may be decapsulated; and whether it was.
    #[track_caller]
    pub(crate) fn counted_verdict(&self, frame: &[u8]) -> (XdpCounter, bool, Vec<u8>) {
        let before = self.counts();
        let (action, left) = self.run(frame);
        let after = self.counts();
        let moved: Vec<(XdpCounter, u64)> = XdpCounter::ALL
            .iter()
            .zip(before.iter().zip(&after))
            .filter(|(_, (before, after))| before != after)
            .map(|(&counter, (before, after))| (counter, after - before))
            .collect();
        let (reason, is_decapsulated) = match *moved.as_slice() {
            [(reason, 1)] => (reason, false),
            [(reason, 1), (XdpCounter::Decapsulated, 1)] => (reason, true),
            _ => panic!("one frame adds one to one counter, and not {moved:?}"),
        };
        assert_eq!(action, action_of(reason), "the action that goes with {reason:?}");
        (reason, is_decapsulated, left)
    }

    /// The reason the program gives for `frame`.
    #[track_caller]
    pub(crate) fn reason(&self, frame: &[u8]) -> XdpCounter {
        self.verdict(frame).0
    }

    /// Fails the test unless the program gives `reason` for `frame`, which is `what`.
    #[track_caller]
    pub(crate) fn expect(&self, reason: XdpCounter, frame: &[u8], what: impl std::fmt::Display) {
        assert_eq!(self.reason(frame), reason, "{what}");
    }
}

/// Loads a program, unless it is.
fn load(ebpf: &mut Ebpf, name: &str) {
    let program: &mut Xdp = ebpf
        .program_mut(name)
        .expect("the object has the program")
        .try_into()
        .expect("it is an XDP program");
    if program.fd().is_err() {
        program.load().expect("the verifier accepts the program");
    }
}

fn action_of(reason: XdpCounter) -> u32 {
    match reason {
        XdpCounter::Redirect
        | XdpCounter::RedirectCookie
        | XdpCounter::RedirectNoFlow
        | XdpCounter::RedirectSyn
        | XdpCounter::RedirectTooBig
        | XdpCounter::RedirectRemote => XDP_REDIRECT,
        XdpCounter::TxSynCookie => XDP_TX,
        XdpCounter::DropSourceDenied
        | XdpCounter::DropSynRate
        | XdpCounter::DropSynFlags
        | XdpCounter::DropSynMalformed
        | XdpCounter::DropBadSource
        | XdpCounter::DropNoFlow
        | XdpCounter::DropBadCookie => XDP_DROP,
        XdpCounter::PassNoSocket
        | XdpCounter::PassNotServed
        | XdpCounter::PassNotTcp
        | XdpCounter::PassNotBalancer
        | XdpCounter::PassNotIp
        | XdpCounter::PassFragment
        | XdpCounter::PassMalformed
        | XdpCounter::PassVlanDepth
        | XdpCounter::PassExtensionHeader
        | XdpCounter::PassNotUnicast => XDP_PASS,
        XdpCounter::Decapsulated | XdpCounter::CaptureLost => panic!("not a verdict"),
    }
}

fn sum_of_cpus(counters: &PerCpuArray<&MapData, u64>, index: u32) -> u64 {
    counters.get(&index, 0).expect("the index is in the map").iter().sum()
}
