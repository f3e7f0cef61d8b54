//! The key under which the XDP program looks a destination up.

/// Destination address and port of the flows to steer; or, for the flows of a client, the server's.
///
/// The layout is the map's: 20 bytes, no implicit padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    /// IPv6 address in network byte order; an IPv4 address as `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2).
    pub address: [u8; 16],
    /// TCP port in network byte order.
    pub port: [u8; 2],
    /// IP version, 4 or 6, so that a v4-mapped IPv6 packet never matches an IPv4 listener.
    pub version: u8,
    /// Always zero.
    pub reserved: u8,
}

impl ListenerKey {
    /// Key of an IPv4 destination; `port` in host byte order.
    #[inline(always)]
    pub const fn v4(address: [u8; 4], port: u16) -> Self {
        let [a, b, c, d] = address;
        Self {
            address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d],
            port: port.to_be_bytes(),
            version: 4,
            reserved: 0,
        }
    }

    /// Key of an IPv6 destination; `port` in host byte order.
    #[inline(always)]
    pub const fn v6(address: [u8; 16], port: u16) -> Self {
        Self {
            address,
            port: port.to_be_bytes(),
            version: 6,
            reserved: 0,
        }
    }
}

#[cfg(feature = "userspace")]
// SAFETY: `repr(C)`, only integers and arrays of them, and no padding (16 + 2 + 1 + 1 = 20 bytes, alignment 1).
unsafe impl aya::Pod for ListenerKey {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_has_no_padding() {
        assert_eq!(size_of::<ListenerKey>(), 20);
        assert_eq!(align_of::<ListenerKey>(), 1);
    }

    #[test]
    fn a_mapped_v6_destination_is_not_the_v4_listener() {
        let v4 = ListenerKey::v4([198, 18, 0, 1], 80);
        let mapped = ListenerKey::v6(v4.address, 80);
        assert_ne!(v4, mapped);
        assert_eq!(v4.port, [0, 80]);
    }
}
