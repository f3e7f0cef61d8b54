//! pcapng, as far as captures need it: one section with an interface for each device, packets with their options, and
//! statistics at the end (draft-ietf-opsawg-pcapng).

use std::io::{self, Read, Write};

use crate::ring::Direction;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const LINKTYPE_ETHERNET: u16 = 1;

/// Options that all blocks may have.
const OPT_COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const IF_FILTER: u16 = 11;
const EPB_FLAGS: u16 = 2;
const EPB_QUEUE: u16 = 6;
const EPB_VERDICT: u16 = 7;
const ISB_STARTTIME: u16 = 2;
const ISB_ENDTIME: u16 = 3;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;

/// The kind of verdict that epb_verdict tells: the return value of an XDP program.
const VERDICT_XDP: u8 = 2;
/// if_tsresol of nanoseconds.
const NANOSECONDS: u8 = 9;
/// if_filter with an expression as text.
const FILTER_TEXT: u8 = 0;

/// A packet beside its octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketMeta<'a> {
    /// The number of its interface, in the order of their blocks.
    pub interface: u32,
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Octets it had before it was cut off.
    pub length: u32,
    /// Whether it was received or sent.
    pub direction: Direction,
    /// The queue that received it, or that it is sent by.
    pub queue: u32,
    /// The action of the XDP program, where that is known.
    pub verdict: Option<u64>,
    /// Words about it.
    pub comment: &'a str,
}

/// The statistics of an interface at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals<'a> {
    /// Nanoseconds since 1970 of the first packet that might have been captured, and of the last.
    pub began: u64,
    /// See [`Totals::began`].
    pub ended: u64,
    /// Packets that match, those included that were lost.
    pub matched: u64,
    /// Those of them that are not in the capture, because it was too slow.
    pub lost: u64,
    /// The reasons.
    pub comment: &'a str,
}

/// Writes the blocks of one section.
#[derive(Debug)]
pub struct Writer<W> {
    output: W,
    /// The block that is being made.
    block: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a section; `program` is its name and version.
    ///
    /// # Errors
    ///
    /// The error of the output.
    pub fn new(output: W, program: &str) -> io::Result<Self> {
        let mut writer = Self {
            output,
            block: Vec::new(),
        };
        writer.begin(SECTION_HEADER);
        writer.put(&BYTE_ORDER_MAGIC.to_ne_bytes());
        // Version 1.0; the section's length is not known.
        writer.put(&1_u16.to_ne_bytes());
        writer.put(&0_u16.to_ne_bytes());
        writer.put(&u64::MAX.to_ne_bytes());
        writer.option(SHB_USERAPPL, &[program.as_bytes()]);
        writer.end()?;
        Ok(writer)
    }

    /// Describes the next interface, of Ethernet frames of which `snaplen` octets are kept.
    ///
    /// # Errors
    ///
    /// The error of the output.
    pub fn interface(&mut self, name: &str, snaplen: u32, filter: &str) -> io::Result<()> {
        self.begin(INTERFACE_DESCRIPTION);
        self.put(&LINKTYPE_ETHERNET.to_ne_bytes());
        self.put(&0_u16.to_ne_bytes());
        self.put(&snaplen.to_ne_bytes());
        self.option(IF_NAME, &[name.as_bytes()]);
        self.option(IF_TSRESOL, &[&[NANOSECONDS]]);
        if !filter.is_empty() {
            self.option(IF_FILTER, &[&[FILTER_TEXT], filter.as_bytes()]);
        }
        self.end()
    }

    /// Writes a packet, whose octets lie in two pieces.
    ///
    /// # Errors
    ///
    /// The error of the output.
    pub fn packet(&mut self, meta: &PacketMeta<'_>, octets: [&[u8]; 2]) -> io::Result<()> {
        self.begin(ENHANCED_PACKET);
        self.put(&meta.interface.to_ne_bytes());
        self.put_time(meta.time);
        self.put(&((octets[0].len() + octets[1].len()) as u32).to_ne_bytes());
        self.put(&meta.length.to_ne_bytes());
        self.put(octets[0]);
        self.put(octets[1]);
        self.pad();
        let flags: u32 = match meta.direction {
            Direction::Received => 1,
            Direction::Sent => 2,
        };
        self.option(EPB_FLAGS, &[&flags.to_ne_bytes()]);
        self.option(EPB_QUEUE, &[&meta.queue.to_ne_bytes()]);
        if let Some(verdict) = meta.verdict {
            self.option(EPB_VERDICT, &[&[VERDICT_XDP], &verdict.to_ne_bytes()]);
        }
        if !meta.comment.is_empty() {
            self.option(OPT_COMMENT, &[meta.comment.as_bytes()]);
        }
        self.end()
    }

    /// Writes the statistics of an interface.
    ///
    /// # Errors
    ///
    /// The error of the output.
    pub fn statistics(&mut self, interface: u32, totals: &Totals<'_>) -> io::Result<()> {
        self.begin(INTERFACE_STATISTICS);
        self.put(&interface.to_ne_bytes());
        self.put_time(totals.ended);
        for (code, time) in [(ISB_STARTTIME, totals.began), (ISB_ENDTIME, totals.ended)] {
            let (high, low) = halves(time);
            self.option(code, &[&high.to_ne_bytes(), &low.to_ne_bytes()]);
        }
        self.option(ISB_IFRECV, &[&totals.matched.to_ne_bytes()]);
        self.option(ISB_IFDROP, &[&totals.lost.to_ne_bytes()]);
        if !totals.comment.is_empty() {
            self.option(OPT_COMMENT, &[totals.comment.as_bytes()]);
        }
        self.end()
    }

    /// Has the output pass on what it holds back.
    ///
    /// # Errors
    ///
    /// The error of the output.
    pub fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }

    fn begin(&mut self, kind: u32) {
        self.block.clear();
        self.put(&kind.to_ne_bytes());
        // The length, once it is known.
        self.put(&[0; 4]);
    }

    fn put(&mut self, octets: &[u8]) {
        self.block.extend_from_slice(octets);
    }

    /// Fills up to a multiple of 4 octets.
    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    fn put_time(&mut self, time: u64) {
        let (high, low) = halves(time);
        self.put(&high.to_ne_bytes());
        self.put(&low.to_ne_bytes());
    }

    /// An option with a value in pieces, cut off where its length would not be told.
    fn option(&mut self, code: u16, pieces: &[&[u8]]) {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let length = length.min(usize::from(u16::MAX));
        self.put(&code.to_ne_bytes());
        self.put(&(length as u16).to_ne_bytes());
        let end = self.block.len() + length;
        for piece in pieces {
            self.put(piece);
        }
        self.block.truncate(end);
        self.pad();
    }

    fn end(&mut self) -> io::Result<()> {
        // The end of the options.
        self.put(&[0; 4]);
        let length = (self.block.len() + 4) as u32;
        self.put(&length.to_ne_bytes());
        self.block[4..8].copy_from_slice(&length.to_ne_bytes());
        self.output.write_all(&self.block)
    }
}

/// The kind of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// A packet.
    Packet,
    /// The statistics of an interface.
    Statistics {
        /// Packets that are missing.
        lost: u64,
    },
    /// Another.
    Other,
}

/// Octets of a block that may be read: more than any packet takes.
const MAX_BLOCK: usize = 1 << 20;

/// Reads the next block of what a [`Writer`] of this machine wrote into `block`; `None` at the end.
///
/// # Errors
///
/// The error of the input; also if it is no pcapng, or ends within a block.
pub fn read_block(input: &mut impl Read, block: &mut Vec<u8>) -> io::Result<Option<Block>> {
    block.resize(8, 0);
    if input.read(&mut block[..1])? == 0 {
        return Ok(None);
    }
    input.read_exact(&mut block[1..])?;
    let (kind, length) = (word(block, 0), word(block, 4) as usize);
    if !(12..=MAX_BLOCK).contains(&length) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no block of pcapng"));
    }
    block.resize(length, 0);
    input.read_exact(&mut block[8..])?;
    Ok(Some(match kind {
        ENHANCED_PACKET => Block::Packet,
        INTERFACE_STATISTICS => Block::Statistics { lost: lost(block) },
        _ => Block::Other,
    }))
}

/// The value of isb_ifdrop; 0 without it.
fn lost(block: &[u8]) -> u64 {
    let mut at = 20;
    while let Some(&[code_low, code_high, length_low, length_high]) = block.get(at..).and_then(<[u8]>::first_chunk) {
        let value = block.get(at + 4..).and_then(<[u8]>::first_chunk);
        if let (ISB_IFDROP, Some(value)) = (u16::from_ne_bytes([code_low, code_high]), value) {
            return u64::from_ne_bytes(*value);
        }
        at += 4 + usize::from(u16::from_ne_bytes([length_low, length_high])).next_multiple_of(4);
    }
    0
}

fn word(block: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// A time as the format splits it.
fn halves(time: u64) -> (u32, u32) {
    ((time >> 32) as u32, time as u32)
}

#[cfg(test)]
mod tests {
    use pcap_parser::pcapng::Block;
    use pcap_parser::traits::PcapNGPacketBlock;
    use pcap_parser::{PcapBlockOwned, PcapNGOption, PcapNGReader, traits::PcapReaderIterator};

    use super::*;

    /// The blocks of a file, as somebody else's parser reads them.
    fn read(file: &[u8], mut see: impl FnMut(&Block<'_>)) {
        let mut reader = PcapNGReader::new(1 << 16, file).expect("a section");
        loop {
            match reader.next() {
                Ok((length, PcapBlockOwned::NG(block))) => {
                    see(&block);
                    reader.consume(length);
                }
                Ok(_) => panic!("no pcapng"),
                Err(pcap_parser::PcapError::Eof) => return,
                Err(pcap_parser::PcapError::Incomplete(_)) => reader.refill().expect("octets in memory"),
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    fn value<'a>(options: &'a [PcapNGOption<'_>], code: u16) -> Option<&'a [u8]> {
        let option = options.iter().find(|option| option.code.0 == code)?;
        Some(&option.value[..usize::from(option.len)])
    }

    #[test]
    fn another_parser_reads_what_was_written() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, "tidegate 0.1.0").expect("a section");
        writer.interface("eth1", 262_144, "port 80").expect("an interface");
        writer.interface("eth2", 64, "").expect("an interface");
        let meta = PacketMeta {
            interface: 1,
            time: 1_700_000_000_123_456_789,
            length: 90,
            direction: Direction::Sent,
            queue: 3,
            verdict: Some(1),
            comment: "drop_syn_rate",
        };
        writer.packet(&meta, [&[1; 5], &[2; 2]]).expect("a packet");
        let totals = Totals {
            began: 5,
            ended: meta.time,
            matched: 9,
            lost: 8,
            comment: "why",
        };
        writer.statistics(0, &totals).expect("statistics");

        let (mut blocks, mut block, mut input) = (Vec::new(), Vec::new(), file.as_slice());
        while let Some(kind) = read_block(&mut input, &mut block).expect("a block") {
            blocks.push(kind);
        }
        let other = super::Block::Other;
        assert_eq!(
            blocks,
            [
                other,
                other,
                other,
                super::Block::Packet,
                super::Block::Statistics { lost: 8 }
            ]
        );
        assert!(
            read_block(&mut &file[..20], &mut block).is_err(),
            "it ends within a block"
        );

        let mut kinds = Vec::new();
        read(&file, |block| match block {
            Block::SectionHeader(section) => {
                kinds.push("section");
                assert_eq!(value(&section.options, SHB_USERAPPL), Some(&b"tidegate 0.1.0"[..]));
            }
            Block::InterfaceDescription(interface) => {
                kinds.push("interface");
                assert_eq!(interface.linktype.0, i32::from(LINKTYPE_ETHERNET));
                assert_eq!(interface.ts_resolution(), Some(1_000_000_000));
                let name = value(&interface.options, IF_NAME).expect("a name");
                let filter = (name == b"eth1").then_some(&b"\0port 80"[..]);
                assert_eq!(value(&interface.options, IF_FILTER), filter);
            }
            Block::EnhancedPacket(packet) => {
                kinds.push("packet");
                assert_eq!((packet.if_id, packet.orig_len()), (1, 90));
                let time = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                assert_eq!(time, meta.time);
                assert_eq!(packet.packet_data(), [1, 1, 1, 1, 1, 2, 2]);
                let options = &packet.options;
                assert_eq!(value(options, EPB_FLAGS), Some(&2_u32.to_ne_bytes()[..]));
                assert_eq!(value(options, EPB_QUEUE), Some(&3_u32.to_ne_bytes()[..]));
                assert_eq!(value(options, OPT_COMMENT), Some(&b"drop_syn_rate"[..]));
                let verdict = [&[VERDICT_XDP][..], &1_u64.to_ne_bytes()].concat();
                assert_eq!(value(options, EPB_VERDICT), Some(verdict.as_slice()));
            }
            Block::InterfaceStatistics(statistics) => {
                kinds.push("statistics");
                assert_eq!(value(&statistics.options, ISB_IFRECV), Some(&9_u64.to_ne_bytes()[..]));
                assert_eq!(value(&statistics.options, ISB_IFDROP), Some(&8_u64.to_ne_bytes()[..]));
                assert_eq!(value(&statistics.options, OPT_COMMENT), Some(&b"why"[..]));
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(kinds, ["section", "interface", "interface", "packet", "statistics"]);
    }

    #[test]
    fn an_option_that_is_too_long_is_cut_off() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, "").expect("a section");
        writer.interface("eth1", 0, &"a".repeat(70_000)).expect("an interface");
        let mut filters = Vec::new();
        // Larger than the reader's buffer above.
        let mut reader = PcapNGReader::new(1 << 20, file.as_slice()).expect("a section");
        while let Ok((length, block)) = reader.next() {
            if let PcapBlockOwned::NG(Block::InterfaceDescription(interface)) = block {
                filters.push(value(&interface.options, IF_FILTER).map(<[u8]>::len));
            }
            reader.consume(length);
        }
        assert_eq!(filters, [Some(65_535)]);
    }
}
