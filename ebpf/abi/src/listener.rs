//! The key under which the XDP program looks a destination up.

/// Slots of the arrays that are looked at before the maps of keys: a power of two.
pub const SLOTS: u32 = 1024;

/// Destination address and port of the flows to steer; or, for the flows of a client, the server's.
///
/// The layout is the map's: 24 bytes, no padding. Whole words, so that the XDP program carries three values about and
/// not twenty.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    /// IPv6 address in network byte order; an IPv4 address as `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2).
    address: [u64; 2],
    /// TCP port in host byte order, and from bit 16 on the IP version, 4 or 6, so that a v4-mapped IPv6 packet never
    /// matches an IPv4 listener.
    port_and_version: u64,
}

impl ListenerKey {
    /// The value of a slot without a key.
    pub const EMPTY_SLOT: Self = Self {
        address: [0; 2],
        port_and_version: 0,
    };

    /// Key of an IPv4 destination; `port` in host byte order.
    #[inline(always)]
    pub const fn v4(address: [u8; 4], port: u16) -> Self {
        let [a, b, c, d] = address;
        Self {
            address: [0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])],
            port_and_version: port as u64 | 4 << 16,
        }
    }

    /// Key of an IPv6 destination; `port` in host byte order.
    #[inline(always)]
    pub const fn v6(address: [u8; 16], port: u16) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
        Self {
            address: [
                u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
                u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
            ],
            port_and_version: port as u64 | 6 << 16,
        }
    }

    /// The address as octets of IPv6, in network byte order.
    pub const fn address(&self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h] = self.address[0].to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = self.address[1].to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// The port, in host byte order.
    pub const fn port(&self) -> u16 {
        self.port_and_version as u16
    }

    /// The IP version, 4 or 6.
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        (self.port_and_version >> 16) as u8
    }

    /// The slot this key belongs into, below [`SLOTS`], so that most look-ups compare one key instead of hashing for a
    /// map.
    #[inline(always)]
    pub const fn slot(&self) -> u32 {
        let folded = self.address[0] ^ self.address[1] ^ self.port_and_version;
        let folded = (folded ^ folded >> 32) as u32;
        folded.wrapping_mul(0x9e37_79b1) >> (u32::BITS - SLOTS.ilog2())
    }

    /// Whether a slot with this value holds no key: all of it is zero.
    #[inline(always)]
    pub const fn is_empty_slot(&self) -> bool {
        self.port_and_version == 0
    }
}

#[cfg(feature = "userspace")]
// SAFETY: `repr(C)`, only integers and an array of them, and no padding (16 + 8 = 24 bytes, alignment 8).
unsafe impl aya::Pod for ListenerKey {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_has_no_padding() {
        assert_eq!(size_of::<ListenerKey>(), 24);
        assert_eq!(align_of::<ListenerKey>(), 8);
    }

    #[test]
    fn a_mapped_v6_destination_is_not_the_v4_listener() {
        let v4 = ListenerKey::v4([198, 18, 0, 1], 80);
        let mapped = ListenerKey::v6(v4.address(), 80);
        assert_ne!(v4, mapped);
        assert_eq!(v4.address()[10..], [0xff, 0xff, 198, 18, 0, 1]);
        assert_eq!((v4.port(), v4.version(), mapped.version()), (80, 4, 6));
    }

    #[test]
    fn no_key_is_an_empty_slot() {
        let keys = [ListenerKey::v4([0; 4], 0), ListenerKey::v6([0; 16], 0)];
        assert!(keys.iter().all(|key| !key.is_empty_slot()));
        let empty = ListenerKey {
            address: [0; 2],
            port_and_version: 0,
        };
        assert!(empty.is_empty_slot());
    }

    #[test]
    fn neighbouring_listeners_have_slots_of_their_own() {
        let mut seen = [0_u8; SLOTS as usize];
        for port in 8000..8100 {
            seen[ListenerKey::v4([198, 18, 0, 1], port).slot() as usize] += 1;
        }
        let shared = seen.iter().filter(|&&keys| keys > 1).count();
        assert!(shared <= 10, "{shared} slots have more than one of 100 keys");
    }
}
