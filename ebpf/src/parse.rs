//! From a frame's bytes to the destination it is looked up by.
//!
//! Every header is read through [`Frame::header`], which compares with the frame's end the very address it then reads
//! from. The verifier accepts nothing else.

use aya_ebpf::programs::XdpContext;
use tidegate_abi::{ListenerKey, XdpCounter};

use crate::icmp;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// IEEE 802.1Q customer tag.
const ETHERTYPE_VLAN: u16 = 0x8100;
/// IEEE 802.1ad service tag, the outer one of two.
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;

/// The group bit of an Ethernet address: multicast, or broadcast.
const GROUP_BIT: u8 = 0x01;

/// Octets of an Ethernet header.
pub const ETHERNET_HEADER: usize = 14;
const VLAN_TAG: usize = 4;
/// Tags that are skipped: a service tag and a customer tag.
const MAX_VLAN_TAGS: usize = 2;

/// Octets of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// "More fragments" and the fragment offset (RFC 791, section 3.1). "Don't fragment" is not among them.
const IPV4_FRAGMENT: u16 = 0x3fff;

/// Offset of the destination address in an IPv4 header.
const IPV4_DESTINATION: usize = 16;

/// Offset of the destination address in an IPv6 header.
const IPV6_DESTINATION: usize = 24;

/// Octets of an IPv6 header.
pub const IPV6_HEADER: usize = 40;
/// Extension headers are a multiple of 8 octets long, and never shorter (RFC 8200, section 4).
const EXTENSION_UNIT: usize = 8;
/// Extension headers that are walked before the rest is left to the kernel. The verifier wants a bound; clients send
/// one or none.
const MAX_EXTENSION_HEADERS: usize = 6;

/// Octets of a TCP header without options.
pub const TCP_HEADER: usize = 20;

/// Protocol numbers (IPv4) and next-header values (IPv6), as IANA assigns them.
pub mod protocol {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ICMPV4: u8 = 1;
    pub const TCP: u8 = 6;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const ENCAPSULATING_SECURITY_PAYLOAD: u8 = 50;
    pub const AUTHENTICATION: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub const DESTINATION_OPTIONS: u8 = 60;
    pub const MOBILITY: u8 = 135;
    pub const HOST_IDENTITY: u8 = 139;
    pub const SHIM6: u8 = 140;
    /// Two values for experiments (RFC 3692), on IANA's list of extension headers.
    pub const EXPERIMENT_1: u8 = 253;
    pub const EXPERIMENT_2: u8 = 254;
}

/// A received frame, from the first octet of its Ethernet header to its last octet.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    start: usize,
    context: &'a XdpContext,
}

impl<'a> Frame<'a> {
    /// The frame that the program runs on.
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self {
            start: ctx.data(),
            context: ctx,
        }
    }

    /// The kernel's description of the frame, for its helpers.
    #[inline(always)]
    pub fn context(self) -> *mut aya_ebpf::bindings::xdp_md {
        self.context.ctx
    }

    /// The address behind the frame's last octet, asked for anew each time. LLVM would otherwise conclude from one
    /// comparison that a later one is not needed, and leave it out; the verifier does not conclude, and would refuse.
    #[inline(always)]
    fn end(self) -> usize {
        // SAFETY: the context is valid while the program runs, and its `data_end` is an aligned `u32`.
        unsafe { core::ptr::read_volatile(&raw const (*self.context.ctx).data_end) as usize }
    }

    /// The `N` octets at `offset`, unless the frame ends before them.
    #[inline(always)]
    pub fn header<const N: usize>(self, offset: usize) -> Option<&'a [u8; N]> {
        let address = self.start + offset;
        if address + N > self.end() {
            return None;
        }
        // SAFETY: the `N` octets at `address` lie within the frame, as was just compared (the verifier proves it
        // again). The frame outlives the run of the program, for which `'a` stands; what is written to it goes
        // through `write`, after the last use of what was read there. An array of octets needs no alignment.
        Some(unsafe { &*(address as *const [u8; N]) })
    }

    /// The octet at `offset`, which is not the first of the frame.
    #[inline(always)]
    pub fn octet(self, offset: usize) -> Option<u8> {
        // With the one before it: LLVM asks for a single one whether its address is below the end, and from that the
        // verifier concludes nothing.
        self.header(offset - 1).map(|&[_, octet]| octet)
    }

    /// The 16-bit number at `offset`, in host byte order.
    #[inline(always)]
    pub fn number(self, offset: usize) -> Option<u16> {
        self.header(offset).map(|&octets| u16::from_be_bytes(octets))
    }

    /// The 32-bit number at `offset`, in host byte order.
    #[inline(always)]
    pub fn word(self, offset: usize) -> Option<u32> {
        self.header(offset).map(|&octets| u32::from_be_bytes(octets))
    }

    /// The `N` octets at `offset`, to be read and written as 32-bit words, unless the frame ends before them. No reference
    /// from [`Frame::header`] to these octets is to be used after one of them is written.
    #[inline(always)]
    pub fn words<const N: usize>(self, offset: usize) -> Option<Words<N>> {
        let address = self.start + offset;
        if address + 4 * N > self.end() {
            return None;
        }
        Some(Words(address as *mut [u8; 4]))
    }

    /// Whether the frame reaches at least `length` octets past `offset`.
    #[inline(always)]
    fn holds(self, offset: usize, length: usize) -> bool {
        // Addresses are compared, and no length is computed: subtracting packet pointers takes CAP_PERFMON.
        self.start + offset + length <= self.end()
    }
}

/// `N` words of a frame, which was found to hold them. They need no alignment.
#[derive(Clone, Copy)]
pub struct Words<const N: usize>(*mut [u8; 4]);

impl<const N: usize> Words<N> {
    /// The `index`th word, in host byte order; 0 if there are not so many.
    #[inline(always)]
    pub fn get(self, index: usize) -> u32 {
        if index >= N {
            return 0;
        }
        // SAFETY: `Frame::words` has compared the frame's end with that of these words (the verifier proves it again).
        // The frame outlives the run of the program, and nothing else writes to it meanwhile.
        u32::from_be_bytes(unsafe { *self.0.add(index) })
    }

    /// Replaces the `index`th word by `word`, which is in host byte order; does nothing if there are not so many.
    #[inline(always)]
    pub fn set(self, index: usize, word: u32) {
        if index < N {
            // SAFETY: as in `get`, and no reference to these octets is used any more.
            unsafe { *self.0.add(index) = word.to_be_bytes() };
        }
    }
}

/// Where the headers of a TCP segment are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Offset of the IP header, and with it how many VLAN tags there are.
    pub ip: usize,
    /// The segment's control bits, CWR to FIN.
    pub flags: u8,
    /// Octets of the TCP header, 20 to 60.
    pub header_length: usize,
    /// Octets of the segment, from the TCP header to the end of the text.
    pub length: usize,
    /// The IP header has no options, or no extension headers behind it.
    pub plain: bool,
}

impl Segment {
    /// In the place of one where there is none. Not an `Option`: without one LLVM would leave any value in its fields, and
    /// the verifier refuses what may be added to the frame's address on the way, used or not.
    const NONE: Self = Self {
        ip: 0,
        flags: 0,
        header_length: 0,
        length: 0,
        plain: false,
    };
}

/// What a frame is for.
pub struct Destination {
    /// The address and port it is looked up by: a segment's destination, or the source of the one that was too big.
    pub listener: ListenerKey,
    /// What it brings is ICMP "too big" about a segment, and not one.
    pub too_big: bool,
    /// The segment that it brings.
    pub segment: Segment,
}

/// What a frame is for if it holds a whole TCP header, or ICMP "too big" that quotes one; else why it is not looked up.
#[inline(always)]
pub fn destination(frame: Frame<'_>) -> Result<Destination, XdpCounter> {
    let ethernet: &[u8; ETHERNET_HEADER] = frame.header(0).ok_or(XdpCounter::PassMalformed)?;
    if ethernet[0] & GROUP_BIT != 0 {
        return Err(XdpCounter::PassNotUnicast);
    }

    let mut ethertype = u16::from_be_bytes([ethernet[12], ethernet[13]]);
    let mut offset = ETHERNET_HEADER;
    for _ in 0..MAX_VLAN_TAGS {
        if !is_vlan(ethertype) {
            break;
        }
        let tag: &[u8; VLAN_TAG] = frame.header(offset).ok_or(XdpCounter::PassMalformed)?;
        ethertype = u16::from_be_bytes([tag[2], tag[3]]);
        offset += VLAN_TAG;
    }

    match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, offset),
        ETHERTYPE_IPV6 => ipv6(frame, offset),
        _ if is_vlan(ethertype) => Err(XdpCounter::PassVlanDepth),
        _ => Err(XdpCounter::PassNotIp),
    }
}

#[inline(always)]
fn is_vlan(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_SERVICE_VLAN
}

/// The destination of the IPv4 packet at `offset` (RFC 791, section 3.1).
#[inline(always)]
fn ipv4(frame: Frame<'_>, offset: usize) -> Result<Destination, XdpCounter> {
    let ip: &[u8; IPV4_HEADER] = frame.header(offset).ok_or(XdpCounter::PassMalformed)?;
    let header_length = usize::from(ip[0] & 0x0f) * 4;
    let total_length = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    if ip[0] >> 4 != 4
        || header_length < IPV4_HEADER
        || total_length < header_length
        || !frame.holds(offset, total_length)
    {
        return Err(XdpCounter::PassMalformed);
    }
    // The first fragment as well: the kernel can put a packet together only if it sees all of it.
    if u16::from_be_bytes([ip[6], ip[7]]) & IPV4_FRAGMENT != 0 {
        return Err(XdpCounter::PassFragment);
    }
    let (payload, length) = (offset + header_length, total_length - header_length);
    match ip[9] {
        protocol::TCP => {
            let (port, flags, header_length) = tcp(frame, payload, length)?;
            let address = frame
                .header(offset + IPV4_DESTINATION)
                .ok_or(XdpCounter::PassMalformed)?;
            Ok(Destination {
                listener: ListenerKey::v4(*address, port),
                too_big: false,
                segment: Segment {
                    ip: offset,
                    flags,
                    header_length,
                    length,
                    plain: payload == offset + IPV4_HEADER,
                },
            })
        }
        protocol::ICMPV4 => too_big(icmp::too_big_v4(frame, payload, length)),
        _ => Err(XdpCounter::PassNotTcp),
    }
}

/// The destination of the IPv6 packet at `offset`, past its extension headers (RFC 8200, sections 3 and 4).
#[inline(always)]
fn ipv6(frame: Frame<'_>, offset: usize) -> Result<Destination, XdpCounter> {
    let ip: &[u8; IPV6_HEADER] = frame.header(offset).ok_or(XdpCounter::PassMalformed)?;
    let payload_length = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    if ip[0] >> 4 != 6 || !frame.holds(offset + IPV6_HEADER, payload_length) {
        return Err(XdpCounter::PassMalformed);
    }

    let mut next = ip[6];
    let ip_offset = offset;
    let plain = next == protocol::TCP;
    let mut offset = offset + IPV6_HEADER;
    // Routers put no extension header before it; behind one it is left to the kernel.
    if next == protocol::ICMPV6 {
        return too_big(icmp::too_big_v6(frame, offset, payload_length));
    }

    // Octets of the packet from `offset` to its end.
    let mut left = payload_length;
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !is_walked(next) {
            break;
        }
        let extension: &[u8; EXTENSION_UNIT] = frame.header(offset).ok_or(XdpCounter::PassMalformed)?;
        let length = (usize::from(extension[1]) + 1) * EXTENSION_UNIT;
        if length > left {
            return Err(XdpCounter::PassMalformed);
        }
        // With segments left, the destination in the IPv6 header is not the final one (RFC 8200, section 4.4).
        if next == protocol::ROUTING && extension[3] != 0 {
            return Err(XdpCounter::PassExtensionHeader);
        }
        next = extension[0];
        offset += length;
        left -= length;
    }

    match next {
        protocol::TCP => {
            let (port, flags, header_length) = tcp(frame, offset, left)?;
            let address = frame
                .header(ip_offset + IPV6_DESTINATION)
                .ok_or(XdpCounter::PassMalformed)?;
            Ok(Destination {
                listener: ListenerKey::v6(*address, port),
                too_big: false,
                segment: Segment {
                    ip: ip_offset,
                    flags,
                    header_length,
                    length: left,
                    plain,
                },
            })
        }
        protocol::FRAGMENT => Err(XdpCounter::PassFragment),
        protocol::ENCAPSULATING_SECURITY_PAYLOAD
        | protocol::AUTHENTICATION
        | protocol::MOBILITY
        | protocol::HOST_IDENTITY
        | protocol::SHIM6
        | protocol::EXPERIMENT_1
        | protocol::EXPERIMENT_2 => Err(XdpCounter::PassExtensionHeader),
        _ if is_walked(next) => Err(XdpCounter::PassExtensionHeader),
        _ => Err(XdpCounter::PassNotTcp),
    }
}

/// The destination of an ICMP message, given the listener it is about.
#[inline(always)]
fn too_big(listener: Option<ListenerKey>) -> Result<Destination, XdpCounter> {
    match listener {
        Some(listener) => Ok(Destination {
            listener,
            too_big: true,
            segment: Segment::NONE,
        }),
        None => Err(XdpCounter::PassNotTcp),
    }
}

/// Whether an extension header of this kind is walked past.
#[inline(always)]
fn is_walked(next_header: u8) -> bool {
    matches!(
        next_header,
        protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS
    )
}

/// The destination port, in host byte order, the control bits and the octets of the header of the TCP segment of `length` octets at `offset`
/// (RFC 9293, section 3.1).
#[inline(always)]
fn tcp(frame: Frame<'_>, offset: usize, length: usize) -> Result<(u16, u8, usize), XdpCounter> {
    let tcp: &[u8; TCP_HEADER] = frame.header(offset).ok_or(XdpCounter::PassMalformed)?;
    let data_offset = usize::from(tcp[12] >> 4) * 4;
    if data_offset < TCP_HEADER || data_offset > length {
        return Err(XdpCounter::PassMalformed);
    }
    Ok((u16::from_be_bytes([tcp[2], tcp[3]]), tcp[13], data_offset))
}
