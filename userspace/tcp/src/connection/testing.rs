//! Connections without an engine, for tests.

use bytes::Bytes;

use super::keepalive::KeepaliveTable;
use super::open::Origin;
use super::{State, Tcb};
use crate::config::Config;
use crate::link::LinkTable;
use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::wire::{FlowKey, LinkHeader};

/// The time at which they are made.
pub(super) const NOW: Instant = Instant::from_millis(5000);

/// A connection in ESTABLISHED with `outstanding` bytes of text sent, in full segments for a link of 1500 bytes.
pub(crate) fn tcb(ipv4: bool, timestamps: bool, outstanding: u32) -> Tcb {
    let (local, remote) = if ipv4 {
        ("198.18.0.1:80", "198.18.0.2:40000")
    } else {
        ("[2001:2::1]:80", "[2001:2::2]:40000")
    };
    let key = FlowKey::new(local.parse().unwrap(), remote.parse().unwrap());
    let config = Config::default();
    let link = LinkTable::default()
        .acquire(&LinkHeader::new([2; 6], [4; 6], ipv4))
        .unwrap();
    let origin = Origin {
        key: &key,
        link,
        listener: None,
        iss: SeqNumber(u32::MAX - 500),
        timestamp_offset: 0,
        keepalive: KeepaliveTable::default().number(config.keepalive()),
    };
    let mut tcb = Tcb::new(origin, &config, NOW);
    tcb.state = State::Established;
    tcb.timestamps = timestamps;
    tcb.mss = tcb.text_in_packet(1500);
    tcb.sending.send_queue.push(Bytes::from(vec![0; 100_000]), None);
    tcb.snd_nxt = tcb.snd_una + outstanding;
    tcb
}
