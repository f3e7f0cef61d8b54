//! A peer: makes segments out of what the input says, and judges what the engine sends to it.

use std::net::SocketAddr;

use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::time::Instant;
use tidegate_tcp::wire::emit::{self, Header};
use tidegate_tcp::wire::options::Timestamps;
use tidegate_tcp::wire::{Flags, FlowKey, LinkHeader, Options, Segment, checksum};

use crate::application::Queued;
use crate::input::{Forged, Offer, Place};

pub const PEERS: usize = 4;
pub const MTU: usize = 1500;
/// Ethernet header with two tags.
pub const MAX_LINK_HEADER: usize = 22;

const ENGINE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ENGINE_V4: &str = "198.18.0.1:80";
const ENGINE_V6: &str = "[2001:2::1]:80";

/// The engine's listeners, in their order.
pub const LISTENERS: [&str; 2] = [ENGINE_V4, ENGINE_V6];

/// Both addresses and the tags between Ethernet addresses and ethertype, of each peer.
const FLOWS: [(&str, &str, &[u8]); PEERS] = [
    (ENGINE_V4, "198.18.0.2:40000", &[]),
    (ENGINE_V4, "198.18.0.2:40001", &[]),
    (ENGINE_V6, "[2001:2::2]:40000", &[]),
    (ENGINE_V4, "198.18.0.3:40000", &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 7]),
];

/// A segment is never cut to less text than this, whatever the peer's MSS.
const MIN_TEXT: usize = 48;

/// SYNs with different sequence numbers one peer sends at most.
const MAX_STREAMS: usize = 32;

/// The octet of every peer's stream at `seq`: the place shows in the text.
pub fn text_at(seq: SeqNumber) -> u8 {
    (seq.0.wrapping_mul(0x9e37_79b1) >> 24) as u8
}

/// The parts sent of the stream that begins after one SYN: disjoint ranges of sequence space from its start on, sorted.
struct Stream {
    start: SeqNumber,
    sent: Vec<(u32, u32)>,
}

impl Stream {
    fn offset(&self, seq: SeqNumber) -> u32 {
        seq.saturating_since(self.start)
    }

    fn record(&mut self, seq: SeqNumber, length: u32) {
        let mut merged = (self.offset(seq), self.offset(seq + length));
        if merged.0 >= merged.1 {
            return;
        }
        self.sent.retain(|&(left, right)| {
            let apart = right < merged.0 || left > merged.1;
            if !apart {
                merged = (merged.0.min(left), merged.1.max(right));
            }
            apart
        });
        let at = self.sent.partition_point(|&(left, _)| left < merged.0);
        self.sent.insert(at, merged);
    }

    /// Whether everything before `ack` was sent.
    fn reaches(&self, ack: SeqNumber) -> bool {
        let end = match self.sent.first() {
            Some(&(0, end)) => end,
            _ => 0,
        };
        ack - self.start <= end
    }

    /// Whether what lies between was sent. What was sent before the stream's start counts as sent.
    fn contains(&self, left: SeqNumber, right: SeqNumber) -> bool {
        let (left, right) = (self.offset(left), self.offset(right));
        left >= right || self.sent.iter().any(|&(from, to)| from <= left && right <= to)
    }
}

pub struct Peer {
    /// The flow as the peer sees it.
    key: FlowKey,
    /// The link header of what it sends.
    link: Vec<u8>,
    streams: Vec<Stream>,
    /// Its next octet in good order.
    snd_nxt: SeqNumber,
    /// The engine's last acknowledgment.
    acked: SeqNumber,
    /// The number of the next octet it expects.
    rcv_nxt: SeqNumber,
    window: u16,
    /// Timestamps were agreed on.
    stamped: bool,
    echo: u32,
    /// The largest MSS it ever offered.
    mss: usize,
    /// Sequence numbers of the SYNs and SYN-ACKs it was sent.
    engine_starts: Vec<SeqNumber>,
    /// A SYN or SYN-ACK may have been made that found no frame, so `engine_starts` may not be all.
    pub blind: bool,
    /// The last segment with text it was sent.
    last_text: Option<Vec<u8>>,
}

/// A segment to be sent.
struct Outgoing {
    seq: SeqNumber,
    ack: SeqNumber,
    flags: Flags,
    options: Options,
    length: usize,
}

impl Peer {
    pub fn new(index: usize) -> Self {
        let (engine, peer, tags) = FLOWS[index];
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let key = FlowKey::new(address(peer), address(engine));
        let mac = [2, 0, 0, 0, 1, index as u8];
        let untagged = LinkHeader::new(ENGINE_MAC, mac, key.is_v4());
        let (addresses, ethertype) = untagged.as_bytes().split_at(12);
        let start = SeqNumber(0xffff_f000) + 0x1000_0000 * index as u32;
        Self {
            key,
            link: [addresses, tags, ethertype].concat(),
            streams: Vec::new(),
            snd_nxt: start,
            acked: start,
            rcv_nxt: SeqNumber(0),
            window: u16::MAX,
            stamped: false,
            echo: 0,
            mss: if key.is_v4() { 536 } else { 1220 },
            engine_starts: Vec::new(),
            blind: false,
            last_text: None,
        }
    }

    /// The engine's address.
    pub fn engine(&self) -> SocketAddr {
        self.key.peer()
    }

    /// The peer's address.
    pub fn address(&self) -> SocketAddr {
        self.key.local()
    }

    /// The header with which the engine opens a connection to the peer; `None` behind tags, which only answers can
    /// carry.
    pub fn way_back(&self) -> Option<LinkHeader> {
        let mut mac = [0; 6];
        mac.copy_from_slice(&self.link[6..12]);
        (self.link.len() == 14).then(|| LinkHeader::new(mac, ENGINE_MAC, self.key.is_v4()))
    }

    /// Whether the peer has been sent a SYN or SYN-ACK.
    pub fn knows_engine(&self) -> bool {
        !self.engine_starts.is_empty()
    }

    fn clock(now: Instant) -> SeqNumber {
        SeqNumber((now.as_millis() as u32).wrapping_add(0xffff_0000))
    }

    fn stamps(&self, now: Instant) -> Option<Timestamps> {
        self.stamped.then(|| Timestamps {
            value: Self::clock(now).0,
            echo: self.echo,
        })
    }

    /// Notes what is sent, and makes the frame.
    fn frame(&mut self, outgoing: &Outgoing) -> Vec<u8> {
        let text = outgoing.seq + u32::from(outgoing.flags.contains(Flags::SYN));
        let taken = outgoing.length as u32 + u32::from(outgoing.flags.contains(Flags::FIN));
        for stream in &mut self.streams {
            stream.record(text, taken);
        }
        let header = Header {
            seq: outgoing.seq,
            ack: outgoing.ack,
            flags: outgoing.flags,
            window: self.window,
            options: outgoing.options,
            ecn_capable: false,
        };
        let link = LinkHeader::new(ENGINE_MAC, [2; 6], self.key.is_v4());
        let mut buffer = vec![0; 200 + outgoing.length];
        let length = emit::frame(&mut buffer, &link, &self.key, &header, outgoing.length, |octets| {
            for (index, octet) in octets.iter_mut().enumerate() {
                *octet = text_at(text + index as u32);
            }
        });
        [&self.link[..], &buffer[link.as_bytes().len()..length]].concat()
    }

    /// A SYN (with `ack`, a SYN-ACK) at `seq`; returns where the stream after it starts. `None`: enough of those.
    pub fn syn(&mut self, seq: SeqNumber, ack: bool, offer: Offer, now: Instant) -> Option<(SeqNumber, Vec<u8>)> {
        let start = self.begin(seq)?;
        self.mss = self.mss.max(offer.mss.map_or(0, usize::from));
        let mut flags = Flags::SYN;
        if ack {
            flags |= Flags::ACK;
            self.snd_nxt = start;
        }
        if offer.ecn {
            flags |= Flags::ECE | Flags::CWR;
        }
        let options = Options {
            mss: offer.mss,
            window_scale: offer.window_scale.map(|shift| shift % 16),
            sack_permitted: offer.sack,
            timestamps: offer.timestamps.then(|| Timestamps {
                value: Self::clock(now).0,
                echo: if ack { self.echo } else { 0 },
            }),
            ..Options::default()
        };
        if ack {
            self.stamped = offer.timestamps && self.stamped;
        }
        let frame = self.frame(&Outgoing {
            seq,
            ack: if ack { self.rcv_nxt } else { SeqNumber(0) },
            flags,
            options,
            length: 0,
        });
        Some((start, frame))
    }

    /// Remembers that a stream may begin after a SYN at `seq`.
    fn begin(&mut self, seq: SeqNumber) -> Option<SeqNumber> {
        let start = seq + 1;
        if !self.streams.iter().any(|stream| stream.start == start) {
            if self.streams.len() >= MAX_STREAMS {
                return None;
            }
            self.streams.push(Stream {
                start,
                sent: Vec::new(),
            });
        }
        Some(start)
    }

    /// The position of a SYN that begins something new.
    pub fn new_start(&self, place: Place) -> SeqNumber {
        place.from(self.snd_nxt + 100_000)
    }

    /// Text in good order.
    pub fn text(&mut self, length: u16, fin: bool, now: Instant) -> Vec<u8> {
        let length = usize::from(length % Forged::MAX_LENGTH);
        let outgoing = Outgoing {
            seq: self.snd_nxt,
            ack: self.rcv_nxt,
            flags: if fin { Flags::ACK | Flags::FIN } else { Flags::ACK },
            options: Options {
                timestamps: self.stamps(now),
                ..Options::default()
            },
            length,
        };
        self.snd_nxt += length as u32 + u32::from(fin);
        self.frame(&outgoing)
    }

    /// An acknowledgment of all that was received, from now on with this window. Text goes on behind what was
    /// acknowledged.
    pub fn acknowledgment(&mut self, window: u16, now: Instant) -> Vec<u8> {
        self.window = window;
        self.snd_nxt = self.acked;
        self.text(0, false, now)
    }

    /// Any segment; also where a stream may start, if it has SYN.
    pub fn forged(&mut self, forged: Forged, now: Instant) -> (Option<SeqNumber>, Vec<u8>) {
        let seq = forged.seq.from(self.acked);
        let mut flags = Flags(forged.flags);
        let mut start = None;
        if flags.contains(Flags::SYN) {
            start = self.begin(seq);
            if start.is_none() {
                flags = Flags(flags.0 & !Flags::SYN.0);
            }
        }
        let mut options = Options {
            timestamps: forged.stamp.map(|place| Timestamps {
                value: place.from(Self::clock(now)).0,
                echo: self.echo,
            }),
            ..Options::default()
        };
        let blocks = forged.sack.into_iter().flatten();
        options.set_sack_blocks(blocks.map(|(place, length)| {
            let left = place.from(self.rcv_nxt);
            (left, left + u32::from(length))
        }));
        self.window = forged.window;
        let frame = self.frame(&Outgoing {
            seq,
            ack: forged.ack.from(self.rcv_nxt),
            flags,
            options,
            length: usize::from(forged.length % Forged::MAX_LENGTH),
        });
        (start, frame)
    }

    /// A router's word that the last segment with text was too big; `seq` is put into the quote.
    pub fn too_big(&self, mtu: u16, seq: Place) -> Option<Vec<u8>> {
        let packet = self.last_text.as_ref()?.get(self.link.len()..)?;
        let ip = if self.key.is_v4() { 20 } else { 40 };
        let mut quote = packet.get(..ip + 8)?.to_vec();
        let place = quote.get_mut(ip + 4..ip + 8)?;
        let quoted = SeqNumber(u32::from_be_bytes([place[0], place[1], place[2], place[3]]));
        place.copy_from_slice(&seq.from(quoted).0.to_be_bytes());
        let [high, low] = mtu.to_be_bytes();
        let kind = if self.key.is_v4() { [3, 4] } else { [2, 0] };
        let mut message = [&kind[..], &[0, 0, 0, 0, high, low], &quote].concat();
        let sum = if self.key.is_v4() {
            checksum::icmp_v4(&message)
        } else {
            checksum::icmp_v6(&self.key.local, &self.key.remote, &message)
        };
        message[2..4].copy_from_slice(&sum.to_ne_bytes());
        let length = message.len() as u16;
        let header = if self.key.is_v4() {
            let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0];
            header.extend_from_slice(&self.key.local[12..]);
            header.extend_from_slice(&self.key.remote[12..]);
            header[2..4].copy_from_slice(&(20 + length).to_be_bytes());
            let sum = checksum::ipv4_header(&header);
            header[10..12].copy_from_slice(&sum);
            header
        } else {
            let mut header = vec![0x60, 0, 0, 0, 0, 0, 58, 64];
            header[4..6].copy_from_slice(&length.to_be_bytes());
            header.extend_from_slice(&self.key.local);
            header.extend_from_slice(&self.key.remote);
            header
        };
        Some([&self.link[..], &header, &message].concat())
    }

    pub fn is_addressed_by(&self, segment: &Segment<'_>) -> bool {
        segment.key == self.key
    }

    /// Judges a segment the engine sent to this peer, and takes it in. `queued` is all the application ever queued.
    pub fn receive(&mut self, segment: &Segment<'_>, frame: &[u8], queued: &[Queued]) {
        let flags = segment.flags;
        assert_eq!(
            segment.link.reply().as_bytes(),
            self.link,
            "sent another way than it came: {segment:?}"
        );
        assert!(frame.len() <= self.link.len() + MTU, "longer than the link's MTU");
        assert!(
            segment.payload.len() <= self.mss.max(MIN_TEXT),
            "longer than the peer's MSS"
        );
        if flags.contains(Flags::RST) {
            assert!(segment.payload.is_empty() && !flags.intersects(Flags::SYN | Flags::FIN));
            return;
        }
        assert!(
            flags.contains(Flags::ACK) || flags.contains(Flags::SYN),
            "no ACK: {segment:?}"
        );
        if flags.contains(Flags::ACK) {
            assert!(
                self.streams.iter().any(|stream| stream.reaches(segment.ack)),
                "acknowledges what was not sent: {segment:?}"
            );
            self.acked = segment.ack;
        }
        for &(left, right) in segment.options.sack.as_slice() {
            assert!(left.before(right), "an empty block: {segment:?}");
            assert!(
                self.streams.iter().any(|stream| stream.contains(left, right)),
                "reports what was not sent: {segment:?}"
            );
        }
        if let Some(timestamps) = segment.options.timestamps {
            self.echo = timestamps.value;
        }
        if flags.contains(Flags::SYN) {
            assert!(segment.payload.is_empty() && !flags.contains(Flags::FIN));
            if !self.engine_starts.contains(&segment.seq) {
                self.engine_starts.push(segment.seq);
            }
            self.rcv_nxt = segment.seq + 1;
            self.stamped = segment.options.timestamps.is_some();
            if flags.contains(Flags::ACK) {
                self.snd_nxt = segment.ack;
            }
            return;
        }
        assert!(
            self.blind || self.may_stand(segment, queued),
            "nobody queued that there: {segment:?}"
        );
        if !segment.payload.is_empty() {
            self.last_text = Some(frame.to_vec());
        }
        if segment.seq == self.rcv_nxt {
            self.rcv_nxt += segment.length();
        }
    }

    /// Whether one of the connections to this peer could have sent the segment.
    fn may_stand(&self, segment: &Segment<'_>, queued: &[Queued]) -> bool {
        let fin = segment.flags.contains(Flags::FIN);
        let address = self.address();
        let texts = || {
            let own = queued.iter().filter(move |queued| queued.peer == address);
            own.map(|queued| &queued.text[..])
        };
        self.engine_starts.iter().any(|&iss| {
            if segment.payload.is_empty() && !fin {
                // From a probe before the first octet to an acknowledgment after the last one and FIN.
                let most = texts().map(<[u8]>::len).max().unwrap_or(0);
                return segment.seq - iss <= most as u32 + 2;
            }
            let from = (segment.seq - (iss + 1)) as usize;
            let to = from + segment.payload.len();
            texts().any(|text| {
                text.get(from..to).is_some_and(|there| there == segment.payload) && (!fin || to == text.len())
            })
        })
    }
}
