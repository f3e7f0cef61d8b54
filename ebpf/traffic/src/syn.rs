//! The cheapest answer to a SYN: itself.

use aya_ebpf::{bindings::xdp_action::XDP_TX, programs::XdpContext};
use tidegate_traffic_abi::counter;
use tidegate_traffic_abi::packet::ETHERNET_HEADER;

use crate::counters;
use crate::frame::{
    ACK, FIN, HEADERS_V4, HEADERS_V6, IPV4_HEADER, IPV6_HEADER, RST, SYN, TCP_FLAGS, segment_v4, segment_v6,
};

/// Offset of the checksum in a TCP header.
const TCP_CHECKSUM: usize = 16;

const TCP_V4: usize = ETHERNET_HEADER + IPV4_HEADER;
const TCP_V6: usize = ETHERNET_HEADER + IPV6_HEADER;

/// Where the source address is, the destination being right behind it, in pairs of octets.
const SOURCE_V4: usize = (ETHERNET_HEADER + 12) / 2;
const SOURCE_V6: usize = (ETHERNET_HEADER + 8) / 2;

/// Counts a SYN and sends it back as a SYN-ACK, all but its flags as it came; `None` for anything else.
#[inline(always)]
pub fn reflect(ctx: &XdpContext) -> Option<u32> {
    match segment_v4(ctx) {
        Some(segment) => {
            // SAFETY: these octets are in the frame, as was compared for the pointer, and nothing else refers to them.
            // Drivers put frames at even addresses, as pairs of octets need it.
            let pairs = unsafe { &mut *segment.cast::<[u16; HEADERS_V4 / 2]>() };
            answer(pairs, TCP_V4 / 2)?;
            pairs.swap(SOURCE_V4, SOURCE_V4 + 2);
            pairs.swap(SOURCE_V4 + 1, SOURCE_V4 + 3);
        }
        None => {
            // SAFETY: as above.
            let pairs = unsafe { &mut *segment_v6(ctx)?.cast::<[u16; HEADERS_V6 / 2]>() };
            answer(pairs, TCP_V6 / 2)?;
            pairs.swap(SOURCE_V6, SOURCE_V6 + 8);
            pairs.swap(SOURCE_V6 + 1, SOURCE_V6 + 9);
            pairs.swap(SOURCE_V6 + 2, SOURCE_V6 + 10);
            pairs.swap(SOURCE_V6 + 3, SOURCE_V6 + 11);
            pairs.swap(SOURCE_V6 + 4, SOURCE_V6 + 12);
            pairs.swap(SOURCE_V6 + 5, SOURCE_V6 + 13);
            pairs.swap(SOURCE_V6 + 6, SOURCE_V6 + 14);
            pairs.swap(SOURCE_V6 + 7, SOURCE_V6 + 15);
        }
    }
    counters::add_one(counter::SYNS);
    Some(XDP_TX)
}

#[inline(always)]
fn is_syn(flags: u8) -> bool {
    flags & (FIN | SYN | RST | ACK) == SYN
}

/// Makes the SYN whose TCP header is at pair `tcp` a SYN-ACK to where it came from, but for its IP addresses. `None`,
/// and nothing is changed, if it is no SYN.
#[inline(always)]
fn answer<const N: usize>(pairs: &mut [u16; N], tcp: usize) -> Option<()> {
    let flags = u16::from_be(pairs[tcp + TCP_FLAGS / 2]);
    if !is_syn(flags as u8) {
        return None;
    }
    pairs[tcp + TCP_FLAGS / 2] = (flags | u16::from(ACK)).to_be();
    // What changes places leaves the checksum as it is, and ACK, which was not set, adds its own value to the sum
    // (RFC 1624, equation 3).
    let checksum = u16::from_be(pairs[tcp + TCP_CHECKSUM / 2]);
    let sum = u32::from(!checksum) + u32::from(ACK);
    let checksum = !((sum >> 16) + (sum & 0xffff)) as u16;
    pairs[tcp + TCP_CHECKSUM / 2] = checksum.to_be();
    // Ports, and Ethernet addresses.
    pairs.swap(tcp, tcp + 1);
    pairs.swap(0, 3);
    pairs.swap(1, 4);
    pairs.swap(2, 5);
    Some(())
}
