//! Clients that are no more than a few numbers each and a set of frames all share.

use tidegate_tcp::wire::{Flags, Options, Segment};

use crate::addresses::{CLIENTS, Endpoint};
use crate::frames::Frames;
use crate::template::{
    ACK, DATA_OFFSET, DESTINATION_PORT, FLAGS, IP, IP_DESTINATION, IP_TOTAL_LENGTH, SEQ, TCP, Template, long, word,
};

/// A request after which the connection stays open.
pub(crate) const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: 198.18.0.1\r\n\r\n";
/// A request after whose response the server closes.
pub(crate) const LAST_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: 198.18.0.1\r\nConnection: close\r\n\r\n";

/// The segments a client sends. None carries timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// SYN with MSS, window scale and SACK-permitted; answered with SYN-ACK.
    Syn,
    /// ACK without text, of all that was received; not answered.
    Ack,
    /// A request on a persistent connection, which also acknowledges the last response; answered with the response.
    Request,
    /// A request with `Connection: close`; answered with response and FIN in one segment.
    LastRequest,
    /// FIN and ACK; answered with ACK.
    Fin,
}

/// The segments the server sent, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Segments.
    pub segments: usize,
    /// Segments that acknowledge everything their client has sent.
    pub acknowledging: usize,
    /// Segments with SYN.
    pub syns: usize,
    /// Segments with text.
    pub texts: usize,
    /// Segments with FIN.
    pub fins: usize,
}

impl Step {
    /// The number of answers of a server when `clients` of them take this step.
    pub fn answers(self, clients: usize) -> Answers {
        let some = |yes: bool| if yes { clients } else { 0 };
        Answers {
            segments: some(self != Self::Ack),
            acknowledging: some(self != Self::Ack),
            syns: some(self == Self::Syn),
            texts: some(matches!(self, Self::Request | Self::LastRequest)),
            fins: some(self == Self::LastRequest),
        }
    }
}

#[derive(Clone, Copy)]
struct Flow {
    /// SND.NXT.
    seq: u32,
    /// RCV.NXT.
    ack: u32,
    /// The last draw this flow was in.
    draw: u32,
}

/// Clients with consecutive numbers, addressed by their index from 0.
pub struct TemplateClient {
    first: u64,
    flows: Vec<Flow>,
    syn: Template,
    bare_ack: Template,
    request: Template,
    last_request: Template,
    fin: Template,
}

impl TemplateClient {
    /// Clients with the numbers from `first` on, `flows` of them; each has sent and received nothing.
    ///
    /// # Panics
    ///
    /// If their numbers would reach [`CLIENTS`].
    pub fn new(first: u64, flows: u32) -> Self {
        assert!(
            first.saturating_add(u64::from(flows)) <= CLIENTS,
            "there are {CLIENTS} clients, and not {flows} after number {first}"
        );
        let syn_options = Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            ..Options::default()
        };
        let plain = |flags: Flags, payload: &[u8]| Template::new(flags, Options::default(), payload);
        Self {
            first,
            flows: fresh(first, flows).collect(),
            syn: Template::new(Flags::SYN, syn_options, b""),
            bare_ack: plain(Flags::ACK, b""),
            request: plain(Flags::ACK | Flags::PSH, REQUEST),
            last_request: plain(Flags::ACK | Flags::PSH, LAST_REQUEST),
            fin: plain(Flags::ACK | Flags::FIN, b""),
        }
    }

    /// The number of clients.
    pub fn flows(&self) -> u32 {
        self.flows.len() as u32
    }

    /// Goes on with as many clients that have not been there before, or not for long.
    pub fn renew(&mut self) {
        let count = self.flows.len() as u64;
        self.first += count;
        if self.first + count > CLIENTS {
            self.first = 0;
        }
        let fresh = fresh(self.first, self.flows());
        for (flow, new) in self.flows.iter_mut().zip(fresh) {
            *flow = new;
        }
    }

    /// Notes that the client is in draw number `draw`; false if it was already.
    pub(crate) fn claim(&mut self, flow: u32, draw: u32) -> bool {
        let last = &mut self.flows[flow as usize].draw;
        let is_new = *last != draw;
        *last = draw;
        is_new
    }

    /// Writes the segment with which the client at index `flow` takes a step.
    ///
    /// # Panics
    ///
    /// If there is no such client, or no buffer in `out`.
    #[inline]
    pub fn write(&mut self, step: Step, flow: u32, out: &mut Frames) {
        let from = Endpoint::of_client(self.first + u64::from(flow));
        let flow = &mut self.flows[flow as usize];
        let template = match step {
            Step::Syn => &self.syn,
            Step::Ack => &self.bare_ack,
            Step::Request => &self.request,
            Step::LastRequest => &self.last_request,
            Step::Fin => &self.fin,
        };
        let buffer = out.slot().expect("more segments than buffers");
        let length = template.write(from, flow.seq, flow.ack, buffer);
        out.fill(length);
        flow.seq = flow.seq.wrapping_add(template.length);
    }

    /// Takes in what the server sent. What is not for one of these clients counts as a segment and nothing else.
    pub fn read(&mut self, frames: &Frames) -> Answers {
        let mut answers = Answers::default();
        for frame in frames.all().iter() {
            debug_assert!(
                is_intact(frame),
                "the server sent a frame that cannot be read: {frame:02x?}"
            );
            answers.segments += 1;
            let to = Endpoint {
                address: long(frame, IP_DESTINATION),
                port: word(frame, DESTINATION_PORT),
            };
            let Some(index) = to.client().and_then(|number| number.checked_sub(self.first)) else {
                continue;
            };
            let Some(flow) = self.flows.get_mut(index as usize) else {
                continue;
            };
            let flags = Flags(frame[FLAGS]);
            let headers = (TCP - IP) as u32 + u32::from(frame[DATA_OFFSET] >> 4) * 4;
            let text = u32::from(word(frame, IP_TOTAL_LENGTH)) - headers;
            let takes_number = flags.intersects(Flags::SYN | Flags::FIN);
            flow.ack = long(frame, SEQ).wrapping_add(text + u32::from(takes_number));
            answers.acknowledging += usize::from(flags.contains(Flags::ACK) && long(frame, ACK) == flow.seq);
            answers.syns += usize::from(flags.contains(Flags::SYN));
            answers.texts += usize::from(text > 0);
            answers.fins += usize::from(flags.contains(Flags::FIN));
        }
        answers
    }
}

/// Clients at their beginning, with initial sequence numbers all over the space.
fn fresh(first: u64, flows: u32) -> impl Iterator<Item = Flow> {
    (first..first + u64::from(flows)).map(|number| Flow {
        seq: (number as u32).wrapping_mul(0x9e37_79b9),
        ack: 0,
        draw: 0,
    })
}

/// Whether a frame whose Ethernet header may be blank holds a segment with the right checksums.
fn is_intact(frame: &[u8]) -> bool {
    let mut copy = frame.to_vec();
    copy[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    Segment::parse(&copy, true).is_ok()
}
