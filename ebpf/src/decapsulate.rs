//! Decapsulation: a segment that a balancer has put into IPIP (RFC 2003, RFC 2473, RFC 4213) or GUE
//! (draft-ietf-intarea-gue, versions 0 and 1) loses its outer headers where it lies, and goes on as if it had come
//! without. All else is left as it came.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::bpf_xdp_adjust_head;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::XdpContext;
use tidegate_abi::ListenerKey;

use crate::frame::Frame;
use crate::headers::{IPV4_HEADER, IPV6_HEADER, protocol};
use crate::maps::{BALANCERS_V4, BALANCERS_V6, GUE_PORT, LISTENER_SLOTS, LISTENERS, OWN_ADDRESSES, holds};
use crate::parse::{self, ETHERNET_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_FRAGMENT, VLAN_TAG};
use crate::scratch::Scratch;

/// Version 4 and a header of five words: no options.
const PLAIN_IPV4: u8 = 0x45;

/// A destination options header with nothing but a tunnel encapsulation limit (RFC 2473, section 4.1.1), which Linux
/// puts into its tunnels by default: its length without the first 8 octets, and the option's type and length.
const ENCAPSULATION_LIMIT: [u8; 3] = [0, 4, 1];
const ENCAPSULATION_LIMIT_HEADER: usize = 8;

const UDP_HEADER: usize = 8;
/// Octets of GUE's header, version 0, without optional fields.
const GUE_HEADER: usize = 4;

/// The outcome for a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Decapsulated {
    /// It is as it came.
    No,
    /// Its outer headers are gone.
    Yes,
    /// It is as it came, and would not be if its source were a balancer.
    NotFromBalancer,
}

impl Decapsulated {
    #[inline(always)]
    fn from(number: u32) -> Self {
        match number {
            1 => Self::Yes,
            2 => Self::NotFromBalancer,
            _ => Self::No,
        }
    }
}

/// Removes the outer headers of a frame that a balancer sent to an address of this host, if what is in it is for a
/// listener. No access to the frame from before may be used afterwards.
#[inline(always)]
pub fn decapsulate(ctx: &XdpContext) -> Decapsulated {
    Decapsulated::from(decapsulate_frame(ctx.ctx))
}

/// A function of its own, so that the verifier goes on from here once for each outcome.
#[inline(never)]
fn decapsulate_frame(context: *mut xdp_md) -> u32 {
    let context = XdpContext::new(context);
    outcome(&context).unwrap_or(Decapsulated::No) as u32
}

/// `None`: it is no such frame.
#[inline(always)]
fn outcome(context: &XdpContext) -> Option<Decapsulated> {
    let frame = Frame::new(context);
    let (ethertype, ip) = parse::network(frame).ok()?;
    let outer = match ethertype {
        ETHERTYPE_IPV4 => outer_v4(frame, ip)?,
        ETHERTYPE_IPV6 => outer_v6(frame, ip)?,
        _ => return None,
    };
    let (inner, version) = inner_packet(frame, &outer)?;
    let scratch = Scratch::get()?;
    // The verifier goes through the inner packet once, and not for each of the ways to here.
    let (inner, version) = scratch.launder_both(inner, version);
    let destination = if version == 4 {
        parse::ipv4(frame, inner, None)
    } else {
        parse::ipv6(frame, inner, None)
    }
    .ok()?;
    if !holds(&LISTENER_SLOTS, &LISTENERS, &destination.listener) {
        return None;
    }
    if !outer.from_balancer {
        return Some(Decapsulated::NotFromBalancer);
    }
    let (ip, version) = scratch.launder_both(ip, version);
    remove(context, ip, inner, version).map(|()| Decapsulated::Yes)
}

/// The fields of an outer IP header to an address of this host.
struct Outer {
    /// Offset of what is behind the header.
    payload: usize,
    protocol: u8,
    from_balancer: bool,
}

#[inline(always)]
fn outer_v4(frame: Frame<'_>, ip: usize) -> Option<Outer> {
    let header: &[u8; IPV4_HEADER] = frame.header(ip)?;
    let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let is_fragment = u16::from_be_bytes([header[6], header[7]]) & IPV4_FRAGMENT != 0;
    let protocol = header[9];
    if header[0] != PLAIN_IPV4 || is_fragment || !is_encapsulation(protocol) || !frame.reaches(ip, total_length, None) {
        return None;
    }
    let &[.., s0, s1, s2, s3, d0, d1, d2, d3] = header;
    is_own(&ListenerKey::v4([d0, d1, d2, d3], 0)).then_some(())?;
    Some(Outer {
        payload: ip + IPV4_HEADER,
        protocol,
        from_balancer: BALANCERS_V4.get(Key::new(32, [s0, s1, s2, s3])).is_some(),
    })
}

#[inline(always)]
fn outer_v6(frame: Frame<'_>, ip: usize) -> Option<Outer> {
    let header: &[u8; IPV6_HEADER] = frame.header(ip)?;
    let payload_length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let (mut protocol, mut payload) = (header[6], ip + IPV6_HEADER);
    if header[0] >> 4 != 6 || !frame.reaches(payload, payload_length, None) {
        return None;
    }
    if protocol == protocol::DESTINATION_OPTIONS {
        let options: &[u8; ENCAPSULATION_LIMIT_HEADER] = frame.header(payload)?;
        if options[1..4] != ENCAPSULATION_LIMIT {
            return None;
        }
        protocol = options[0];
        payload += ENCAPSULATION_LIMIT_HEADER;
    }
    if !is_encapsulation(protocol) {
        return None;
    }
    let addresses: &[u8; 32] = frame.header(ip + crate::headers::IPV6_SOURCE)?;
    let (source, destination) = addresses.split_at(16);
    let (source, destination): (&[u8; 16], &[u8; 16]) = (source.try_into().ok()?, destination.try_into().ok()?);
    is_own(&ListenerKey::v6(*destination, 0)).then_some(())?;
    Some(Outer {
        payload,
        protocol,
        from_balancer: BALANCERS_V6.get(Key::new(128, *source)).is_some(),
    })
}

#[inline(always)]
fn is_encapsulation(protocol: u8) -> bool {
    matches!(protocol, protocol::IPV4 | protocol::IPV6 | protocol::UDP)
}

#[inline(always)]
fn is_own(address: &ListenerKey) -> bool {
    OWN_ADDRESSES.get_ptr(address).is_some()
}

/// The offset and the IP version of the packet in another.
#[inline(always)]
fn inner_packet(frame: Frame<'_>, outer: &Outer) -> Option<(usize, usize)> {
    let (protocol, packet) = if outer.protocol == protocol::UDP {
        let udp: &[u8; UDP_HEADER] = frame.header(outer.payload)?;
        let &port = GUE_PORT.get(0)?;
        if port == 0 || u32::from(u16::from_be_bytes([udp[2], udp[3]])) != port {
            return None;
        }
        gue(frame, outer.payload + UDP_HEADER)?
    } else {
        (outer.protocol, outer.payload)
    };
    match protocol {
        protocol::IPV4 => Some((packet, 4)),
        protocol::IPV6 => Some((packet, 6)),
        _ => None,
    }
}

/// The protocol of the packet in GUE at `offset`, and its own offset.
#[inline(always)]
fn gue(frame: Frame<'_>, offset: usize) -> Option<(u8, usize)> {
    let header: &[u8; GUE_HEADER] = frame.header(offset)?;
    match header[0] >> 4 {
        // Version 1 has no header: its two bits are the first of the IP version.
        4 => Some((protocol::IPV4, offset)),
        6 => Some((protocol::IPV6, offset)),
        // Version 0, data, without optional fields. With those, a packet may be only a part of one.
        0 if header[0] == 0 && header[2] == 0 && header[3] == 0 => Some((header[1], offset + GUE_HEADER)),
        _ => None,
    }
}

/// Moves the Ethernet header and its tags from before `ip` to before `inner`, and has the frame begin there.
#[inline(always)]
fn remove(context: &XdpContext, ip: usize, inner: usize, version: usize) -> Option<()> {
    let frame = Frame::new(context);
    let link = frame.words::<5>()?;
    let words = [0, 1, 2, 3, 4].map(|index| link.raw(index));
    let &[first, second] = frame.header(inner)?;
    // SAFETY: the context is that of this run. All access to the frame begins anew below.
    if unsafe { bpf_xdp_adjust_head(context.ctx, (inner - ip) as i32) } != 0 {
        return None;
    }
    let ethertype = if version == 4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
    let [high, low] = ethertype.to_be_bytes();
    // The ethertype, and the first octets of the packet, which are there already.
    let last = u32::from_ne_bytes([high, low, first, second]);
    // An IP header follows at least.
    let link = Frame::new(context).words::<6>()?;
    link.set_raw(0, words[0]);
    link.set_raw(1, words[1]);
    link.set_raw(2, words[2]);
    let tags = ip.wrapping_sub(ETHERNET_HEADER) / VLAN_TAG;
    if tags == 0 {
        link.set_raw(3, last);
        return Some(());
    }
    link.set_raw(3, words[3]);
    if tags == 1 {
        link.set_raw(4, last);
        return Some(());
    }
    link.set_raw(4, words[4]);
    link.set_raw(5, last);
    Some(())
}
