//! The floods of connections: peers that open one and misuse it.
//!
//! A peer is no TCP. It has a record of some 50 octets ([`peer`]), completes the handshake, and from then on sends what
//! its [`script`] says, whatever a TCP would do: each kind is a file in [`scripts`]. Nothing is kept of the request but
//! how much of it the server has, and of the response how much came. [`crowd`] is all of them, [`tuples`] says where
//! they are, [`port`] is how their segments leave and arrive, past the kernel, which knows nothing of the connections.
//!
//! All is bounded: by the connections that are asked for, and what one turn sends by the frames that are free.

mod crowd;
mod peer;
mod port;
mod script;
mod scripts;
#[cfg(test)]
mod tests;
mod tuples;

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::Context;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::emit::{self, Header};
use tidegate_tcp::wire::{FlowKey, LinkHeader, Segment};

use self::crowd::Crowd;
use self::peer::{Arrival, Outgoing};
use self::port::Port;
use self::script::Script;
use crate::plan::Plan;
use crate::ranges;
use crate::sink::Sink;

/// Connections begun in one turn, so that what they are answered with is looked at soon enough.
const MAX_BEGUN: u32 = 64;

/// The connections of a flood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Connections begun, each with a SYN from another address or port.
    pub begun: u64,
    /// Handshakes completed.
    pub completed: u64,
    /// Established and kept now, as far as the peers know.
    pub kept: u64,
    /// Reset by the server, those whose SYN it refused included.
    pub reset: u64,
    /// Ended by the server's FIN.
    pub ended: u64,
    /// SYNs sent three times in vain.
    pub unanswered: u64,
}

/// The peers of one flood.
pub(crate) struct Peers {
    port: Port,
    /// Takes the server's segments to the port, unless somebody else's does.
    _sink: Option<Sink>,
    link: LinkHeader,
    target: SocketAddr,
    crowd: Crowd,
    /// Room for what arrives in one turn.
    arrivals: Vec<(u32, Arrival)>,
    /// Room for what is sent in one turn.
    outgoing: Vec<(u32, Outgoing)>,
    sent: u64,
}

impl Peers {
    /// Prepares those of `plan`. What arrives for them is taken by `sink`, or by one of their own.
    ///
    /// # Errors
    ///
    /// The plan's kind needs no connections, there are fewer pairs of address and port than connections (a usage
    /// error), or the kernel refuses the program, the memory or a socket.
    pub(crate) fn prepare(plan: &Plan, target_mac: [u8; 6], sink: Option<&Sink>) -> anyhow::Result<Self> {
        let script = script::of(plan).with_context(|| format!("{} needs no connections", plan.kind.name()))?;
        let crowd = Crowd::new(script, plan)?;
        let interface = tidegate_runtime::interface_info(&plan.interface)?;
        let mac = interface
            .mac
            .with_context(|| format!("{} is not an Ethernet interface", plan.interface))?;
        let own_sink = match sink {
            Some(_) => None,
            None => Some(plan.attach_sink()?),
        };
        let sink = sink.or(own_sink.as_ref()).context("there is no sink")?;
        Ok(Self {
            port: Port::open(&plan.interface, interface.rx_queues, sink)?,
            _sink: own_sink,
            link: LinkHeader::new(target_mac, mac, plan.target.is_ipv4()),
            target: plan.target,
            crowd,
            arrivals: Vec::new(),
            outgoing: Vec::new(),
            sent: 0,
        })
    }

    /// Takes what arrived and sends what is due, `connections` new ones among it. Whether there was anything.
    ///
    /// # Errors
    ///
    /// The interface is down or gone.
    pub(crate) fn turn(&mut self, now: Instant, connections: u32) -> anyhow::Result<bool> {
        let (target, tuples) = (self.target, self.crowd.tuples);
        self.port.receive(&mut self.arrivals, |frame| {
            let segment = Segment::parse(frame, false).ok()?;
            let number = tuples.number(segment.key.local())?;
            (segment.key.peer() == target).then(|| (number, Arrival::of(&segment)))
        });
        let mut busy = !self.arrivals.is_empty();
        for (number, arrival) in self.arrivals.drain(..) {
            self.crowd.segment_arrives(now, number, &arrival, &mut self.outgoing);
        }
        let room = self.port.room() as usize;
        self.crowd.time_passes(now, room, &mut self.outgoing);
        self.crowd
            .begin(now, connections.min(MAX_BEGUN), room, &mut self.outgoing);
        busy |= !self.outgoing.is_empty();
        for (number, outgoing) in self.outgoing.drain(..) {
            let local = tuples.local(number);
            check_addresses(local, target)?;
            let (link, script) = (&self.link, &*self.crowd.script);
            // What finds no frame is lost as on any link.
            let queued = self
                .port
                .queue(number, |buffer| write(buffer, link, local, target, &outgoing, script));
            self.sent += u64::from(queued);
        }
        self.port.flush()?;
        Ok(busy)
    }

    /// Segments given to the kernel so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    pub(crate) fn connections(&self) -> Connections {
        self.crowd.counts
    }
}

/// The last check before a frame is made: nothing leaves the ranges of benchmarks, whoever asked for it.
fn check_addresses(local: SocketAddr, target: SocketAddr) -> anyhow::Result<()> {
    for address in [local.ip(), target.ip()] {
        ranges::check_address(address).map_err(anyhow::Error::msg)?;
    }
    Ok(())
}

/// Writes the frame of a segment from `local` to `target`. Returns its length.
fn write(
    buffer: &mut [u8],
    link: &LinkHeader,
    local: SocketAddr,
    target: SocketAddr,
    outgoing: &Outgoing,
    script: &dyn Script,
) -> usize {
    let header = Header {
        seq: SeqNumber(outgoing.seq),
        ack: SeqNumber(outgoing.ack),
        flags: outgoing.flags,
        window: outgoing.window,
        options: outgoing.options,
        ecn_capable: false,
    };
    let (begin, end) = outgoing.text;
    let length = (end - begin) as usize;
    emit::frame(buffer, link, &FlowKey::new(local, target), &header, length, |text| {
        for (octet, index) in text.iter_mut().zip(begin..end) {
            *octet = script.octet(index);
        }
    })
}
