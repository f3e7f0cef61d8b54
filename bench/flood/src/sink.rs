//! The XDP programs beside a flood: one that counts its answers, and the bare ones that show the machine's own limits.

use std::os::fd::RawFd;
use std::sync::Mutex;

use anyhow::Context;
use aya::maps::{MapData, XskMap};
use aya::programs::links::FdLink;
use tidegate_traffic_abi::{
    self as traffic, MAP_SINK, MAP_SOCKETS, PROGRAM_DROP, PROGRAM_REFLECT, PROGRAM_SINK, counter,
};

use crate::object::{self, Counters};
use crate::ranges::Prefix;

/// The segments that came back from a flood's target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkCounts {
    /// SYN-ACKs.
    pub syn_acks: u64,
    /// RSTs.
    pub rsts: u64,
    /// Other TCP segments.
    pub others: u64,
}

/// A program in native mode on the interface a flood leaves by, which takes the answers to its sources, to the flood
/// where its kind needs them, and passes everything else. Dropping it detaches it.
///
/// Being native, it also lets the other end of a veth pair send by XDP.
pub struct Sink {
    _link: FdLink,
    counters: Counters,
    sockets: Mutex<XskMap<MapData>>,
}

impl Sink {
    /// Attaches it to `interface`, for answers to sources in `v4` and `v6`.
    ///
    /// # Errors
    ///
    /// The kernel or the interface's driver refuses it, or there is a program already.
    pub fn attach(interface: &str, v4: Prefix, v6: Prefix) -> anyhow::Result<Self> {
        let ([v4, ..], [v4_mask, ..]) = v4.words();
        let (v6, v6_mask) = v6.words();
        let mut ebpf = object::load()?;
        let settings = traffic::Sink {
            v4,
            v4_mask,
            v6,
            v6_mask,
        };
        object::set_only_entry(&mut ebpf, MAP_SINK, settings)?;
        let counters = Counters::take(&mut ebpf)?;
        let sockets = object::take_sockets(&mut ebpf)?;
        Ok(Self {
            _link: object::attach(&mut ebpf, PROGRAM_SINK, interface)?,
            counters,
            sockets: Mutex::new(sockets),
        })
    }

    /// Takes what arrives on `queue` to the AF_XDP socket of this descriptor, until that is closed.
    pub(crate) fn take_to(&self, queue: u32, socket: RawFd) -> anyhow::Result<()> {
        // Nothing that could panic is done with it.
        let mut sockets = self.sockets.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        sockets
            .set(queue, socket, 0)
            .with_context(|| format!("cannot write the map {MAP_SOCKETS}"))
    }

    /// The segments that have come so far.
    pub fn counts(&self) -> SinkCounts {
        SinkCounts {
            syn_acks: self.counters.get(counter::SYN_ACKS),
            rsts: self.counters.get(counter::RSTS),
            others: self.counters.get(counter::OTHERS),
        }
    }
}

/// The treatment of SYNs by a bare program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareKind {
    /// Sends them back as SYN-ACKs.
    Reflect,
    /// Drops them.
    Drop,
}

/// A program in native mode that treats every TCP SYN alike, without looking anything up, and passes everything else.
/// Dropping it detaches it.
pub struct Bare {
    _link: FdLink,
    counters: Counters,
}

impl Bare {
    /// Attaches it to `interface`.
    ///
    /// # Errors
    ///
    /// The kernel or the interface's driver refuses it, or there is a program already.
    pub fn attach(interface: &str, kind: BareKind) -> anyhow::Result<Self> {
        let mut ebpf = object::load()?;
        let counters = Counters::take(&mut ebpf)?;
        let program = match kind {
            BareKind::Reflect => PROGRAM_REFLECT,
            BareKind::Drop => PROGRAM_DROP,
        };
        Ok(Self {
            _link: object::attach(&mut ebpf, program, interface)?,
            counters,
        })
    }

    /// SYNs so far.
    pub fn count(&self) -> u64 {
        self.counters.get(counter::SYNS)
    }
}
