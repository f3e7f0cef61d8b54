//! The XDP programs beside a flood: one that counts its answers, and the bare ones that show the machine's own limits.

use std::os::fd::RawFd;
use std::sync::Mutex;

use anyhow::Context;
use aya::Ebpf;
use aya::maps::{MapData, XskMap};
use aya::programs::links::FdLink;
use tidegate_traffic_abi::{
    self as traffic, MAP_NEXT, MAP_SINK, MAP_SOCKETS, PROGRAM_FILTER, PROGRAM_REFLECT, PROGRAM_SINK, counter,
};

use crate::attached::Attached;
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
    /// Octets of all of them, Ethernet's header included.
    pub octets: u64,
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
        let mut ebpf = load_with(v4, v6)?;
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
            octets: self.counters.get(counter::SINK_OCTETS),
        }
    }
}

/// A bare program in native mode. Dropping it detaches it, unless it is before another one.
pub struct Bare {
    _link: Option<FdLink>,
    // A map of programs is emptied when nobody has it open.
    _ebpf: Ebpf,
    counters: Counters,
    counter: u32,
}

impl Bare {
    /// Attaches to `interface` a program that sends every TCP SYN back as a SYN-ACK, without looking anything up, and
    /// passes everything else.
    ///
    /// # Errors
    ///
    /// The kernel or the interface's driver refuses it, or there is a program already.
    pub fn reflect(interface: &str) -> anyhow::Result<Self> {
        Self::attach(object::load()?, interface, PROGRAM_REFLECT, counter::SYNS)
    }

    /// Attaches to `interface` a program that drops everything from `v4` and `v6`, and passes everything else.
    ///
    /// # Errors
    ///
    /// As those of [`Bare::reflect`].
    pub fn filter(interface: &str, v4: Prefix, v6: Prefix) -> anyhow::Result<Self> {
        Self::attach(load_with(v4, v6)?, interface, PROGRAM_FILTER, counter::FILTERED)
    }

    /// Puts the same program before the one that `process` has attached, which gets everything else, until the process
    /// ends. Drop it only then: without it, the kernel gets everything else.
    ///
    /// # Errors
    ///
    /// The process has attached none, or the kernel refuses the change.
    pub fn filter_before(process: u32, v4: Prefix, v6: Prefix) -> anyhow::Result<Self> {
        let mut ebpf = load_with(v4, v6)?;
        let counters = Counters::take(&mut ebpf)?;
        let attached = Attached::of(process)?;
        object::set_program(&mut ebpf, MAP_NEXT, &attached.program)?;
        attached.replace(object::load_program(&mut ebpf, PROGRAM_FILTER)?)?;
        Ok(Self {
            _link: None,
            _ebpf: ebpf,
            counters,
            counter: counter::FILTERED,
        })
    }

    fn attach(mut ebpf: Ebpf, interface: &str, program: &str, counter: u32) -> anyhow::Result<Self> {
        let counters = Counters::take(&mut ebpf)?;
        Ok(Self {
            _link: Some(object::attach(&mut ebpf, program, interface)?),
            _ebpf: ebpf,
            counters,
            counter,
        })
    }

    /// The frames it has sent back or dropped so far.
    pub fn count(&self) -> u64 {
        self.counters.get(self.counter)
    }
}

/// The programs, with the prefixes of a flood's sources.
fn load_with(v4: Prefix, v6: Prefix) -> anyhow::Result<Ebpf> {
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
    Ok(ebpf)
}

#[cfg(test)]
mod tests {
    use aya::programs::Xdp;
    use aya::{TestRun, TestRunOptions};

    use super::*;
    use crate::interface::Interface;
    use crate::plan::{Kind, Plan};
    use crate::template::Template;

    /// `XDP_DROP`, `XDP_PASS` and `XDP_TX` (linux/bpf.h).
    const DROP: u32 = 1;
    const PASS: u32 = 2;
    const TX: u32 = 3;

    /// A frame of `kind` to `target` from one of `sources`.
    fn frame(kind: Kind, target: &str, sources: Prefix) -> Vec<u8> {
        let interface = Interface {
            index: 1,
            mac: [2, 0, 0, 0, 0, 2],
        };
        let plan = Plan {
            sources: Some(sources),
            ..Plan::new("lo", target.parse().unwrap(), kind)
        };
        let settings = plan.settings(&interface, [2, 0, 0, 0, 0, 1]);
        Template::new(settings, 1).next_frame().unwrap().to_vec()
    }

    fn verdict(filter: &Xdp, frame: &[u8]) -> u32 {
        let options = TestRunOptions {
            data_in: Some(frame),
            ..TestRunOptions::default()
        };
        filter.test_run(options).unwrap().return_value
    }

    #[test]
    fn the_filter_drops_the_flood_and_leaves_the_rest_to_the_next_program() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: needs root: XDP programs can only be loaded with CAP_BPF and CAP_NET_ADMIN");
            return;
        }
        let mut ebpf = load_with(Prefix::SOURCES_V4, Prefix::SOURCES_V6).unwrap();
        object::load_program(&mut ebpf, PROGRAM_FILTER).unwrap();
        let mut next = object::load().unwrap();
        let reflect = object::load_program(&mut next, PROGRAM_REFLECT).unwrap();
        let mut dropped = 0;
        for rest in [PASS, TX] {
            let filter = <&Xdp>::try_from(ebpf.program(PROGRAM_FILTER).unwrap()).unwrap();
            for (target, flood, client) in [
                ("198.18.0.1:80", Prefix::SOURCES_V4, "198.18.0.2/32"),
                ("[2001:2::1]:80", Prefix::SOURCES_V6, "2001:2::2/128"),
            ] {
                for kind in [Kind::Syn, Kind::Ack, Kind::Fragment, Kind::UdpNoise] {
                    assert_eq!(
                        verdict(filter, &frame(kind, target, flood)),
                        DROP,
                        "{kind:?} to {target}"
                    );
                    dropped += 1;
                }
                let syn = frame(Kind::Syn, target, client.parse().unwrap());
                assert_eq!(verdict(filter, &syn), rest, "from {client}");
            }
            // The program that reflects SYNs is the next in the second round.
            object::set_program(&mut ebpf, MAP_NEXT, reflect.fd().unwrap()).unwrap();
        }
        let counters = Counters::take(&mut ebpf).unwrap();
        assert_eq!(counters.get(counter::FILTERED), dropped);
    }
}
