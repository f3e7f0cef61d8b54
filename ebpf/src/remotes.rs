//! The servers that this host's own clients talk to over AF_XDP: a client's addresses and ports may be millions, so its
//! segments are told by where they come from.

use tidegate_abi::ListenerKey;
use tidegate_abi::syn_ack::feature;

use crate::frame::Frame;
use crate::headers::{IPV4_SOURCE, IPV6_SOURCE};
use crate::maps::{REMOTE_SLOTS, REMOTES, holds};
use crate::parse::Segment;
use crate::sources;

/// Whether a segment comes from one of them. Servers send no IP options or extension headers to be expected here: a
/// segment behind such is left to the kernel.
#[inline(always)]
pub fn is_source(frame: Frame<'_>, segment: &Segment, version: u8) -> bool {
    if sources::features() & feature::REMOTES == 0 || !segment.is_plain() {
        return false;
    }
    // Behind both addresses of a plain header comes the source port.
    let packet = frame.from(segment.ip);
    let key = if version == 4 {
        let Some(&[a, b, c, d, _, _, _, _, high, low]) = packet.skip::<IPV4_SOURCE>().first::<10>() else {
            return false;
        };
        ListenerKey::v4([a, b, c, d], u16::from_be_bytes([high, low]))
    } else {
        let Some(&[a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, .., high, low]) =
            packet.skip::<IPV6_SOURCE>().first::<34>()
        else {
            return false;
        };
        let address = [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p];
        ListenerKey::v6(address, u16::from_be_bytes([high, low]))
    };
    holds(&REMOTE_SLOTS, &REMOTES, &key)
}
