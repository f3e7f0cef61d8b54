//! Frames as bytes: what arrives is read into a [`Segment`], what leaves is written by [`emit`].

pub mod address;
pub mod checksum;
pub mod emit;
pub mod ethernet;
pub mod icmp;
pub mod ip;
mod ip_options;
pub mod options;
mod plain;
pub mod tcp;

pub use address::FlowKey;
pub use ethernet::{Frame, LinkHeader, ReceivedLink};
pub use options::Options;
pub use tcp::Flags;

use tidegate_abi::siphash::Key;

use crate::seq::SeqNumber;

/// The reason a frame was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Not TCP over IPv4 or IPv6, a fragment, or lengths that contradict each other.
    Malformed,
    /// The IPv4 header's or the TCP checksum is wrong.
    Checksum,
    /// The IPv4 header has a source route, which hosts do not follow (RFC 7126, sections 4.3 and 4.4).
    SourceRoute,
}

/// A received TCP segment. "Remote" is its source, "local" its destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Link header it came with.
    pub link: ReceivedLink<'a>,
    /// Addresses and ports.
    pub key: FlowKey,
    /// SEG.SEQ.
    pub seq: SeqNumber,
    /// SEG.ACK; meaningful only with [`Flags::ACK`].
    pub ack: SeqNumber,
    /// Control bits.
    pub flags: Flags,
    /// SEG.WND as it stands in the header, not scaled.
    pub window: u16,
    /// Options that are understood.
    pub options: Options,
    /// A router marked the packet that brought it: CE (RFC 3168).
    pub congestion_experienced: bool,
    /// Text of the segment.
    pub payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads a frame that starts at its Ethernet header.
    ///
    /// # Errors
    ///
    /// [`ParseError`] says whether the frame is no TCP segment or a damaged one.
    #[inline]
    pub fn parse(frame: &'a [u8], verify_checksums: bool) -> Result<Self, ParseError> {
        let mut segment = Self::blank();
        segment.read(frame, verify_checksums).map(|()| segment)
    }

    /// A segment to be read into.
    #[inline]
    pub(crate) fn blank() -> Self {
        Self {
            link: ReceivedLink::untagged(&[0; 14]),
            key: FlowKey {
                remote: [0; 16],
                local: [0; 16],
                remote_port: 0,
                local_port: 0,
            },
            seq: SeqNumber(0),
            ack: SeqNumber(0),
            flags: Flags(0),
            window: 0,
            options: Options::default(),
            congestion_experienced: false,
            payload: &[],
        }
    }

    /// [`Segment::parse`] into a segment that is not moved after it was written: the processor would have to wait for
    /// the writing. What is in it before makes no difference; after an error, what is in it means nothing.
    #[inline(always)]
    pub(crate) fn read(&mut self, frame: &'a [u8], verify_checksums: bool) -> Result<(), ParseError> {
        if let Some(result) = plain::parse(frame, verify_checksums, self) {
            return result;
        }
        *self = Self::parse_any(frame, verify_checksums)?;
        Ok(())
    }

    /// [`Segment::parse`] for every frame, layer by layer.
    #[inline(never)]
    fn parse_any(frame: &'a [u8], verify_checksums: bool) -> Result<Self, ParseError> {
        let (link, ethertype, rest) = ethernet::parse(frame).ok_or(ParseError::Malformed)?;
        let packet = ip::parse(ethertype, rest, verify_checksums)?;
        let header = tcp::parse(packet.payload).ok_or(ParseError::Malformed)?;
        if verify_checksums && checksum::tcp(&packet.source, &packet.destination, packet.payload) != 0 {
            return Err(ParseError::Checksum);
        }
        Ok(Self {
            link,
            key: FlowKey {
                remote: packet.source,
                local: packet.destination,
                remote_port: header.source_port,
                local_port: header.destination_port,
            },
            seq: header.seq,
            ack: header.ack,
            flags: header.flags,
            window: header.window,
            options: Options::parse(header.options),
            congestion_experienced: packet.congestion_experienced,
            payload: header.payload,
        })
    }

    /// [`FlowKey::table_hash`] of a frame's flow, for less than reading all of it costs; `None` where no segment can be
    /// read from it. What it returns for a damaged frame may be of no flow at all.
    #[inline]
    pub(crate) fn flow_hash(frame: &'a [u8], key: Key) -> Option<u64> {
        if let Some(words) = plain::flow_words(frame) {
            return Some(address::table_hash_v4(words, key));
        }
        let flow = plain::flow_v6(frame).or_else(|| Self::parse_any(frame, false).ok().map(|segment| segment.key));
        flow.map(|flow| flow.table_hash(key))
    }

    /// SEG.LEN: octets of sequence space, SYN and FIN counting one each.
    #[inline]
    pub fn length(&self) -> u32 {
        self.payload.len() as u32
            + u32::from(self.flags.contains(Flags::SYN))
            + u32::from(self.flags.contains(Flags::FIN))
    }
}
