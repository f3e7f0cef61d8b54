//! Events, as they are decoded from the fuzzer's bytes.

use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use tidegate_tcp::seq::SeqNumber;

use crate::peer::PEERS;

/// Steps beyond this are ignored, so that one input does not take seconds.
pub const MAX_STEPS: usize = 256;

/// A whole run.
#[derive(Arbitrary, Debug)]
pub struct Input {
    pub settings: Settings,
    pub behaviour: Behaviour,
    pub steps: Vec<Step>,
}

/// Settings of the engine that change what it does.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Settings {
    pub receive_buffer: Size,
    pub send_buffer: Size,
    pub nagle: bool,
    pub rack: bool,
    /// Reno, CUBIC, BBR with the default tolerance of losses, and with that of version 1, by the two lowest bits.
    pub congestion: u8,
    pub ecn: bool,
}

/// A buffer.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Size {
    Least,
    Small,
    Large,
}

impl Size {
    pub fn bytes(self) -> u32 {
        match self {
            Self::Least => 4096,
            Self::Small => 10_000,
            Self::Large => 60_000,
        }
    }
}

/// The behaviour of the application from now on.
#[derive(Arbitrary, Clone, Copy, Debug, Default)]
pub struct Behaviour {
    /// Sends back what it reads.
    pub echo: bool,
    /// The most it reads at a time; `None`: all.
    pub appetite: Option<u16>,
    /// Octets sent when a connection opens.
    pub greeting: u16,
    /// Its behaviour after that.
    pub after_greeting: Ending,
    /// Its behaviour when the peer has finished.
    pub at_end: Ending,
    /// Aborts when it reads this octet.
    pub abort_on: Option<u8>,
    /// Milliseconds, from the opening, until `on_timer` happens.
    pub timer: Option<u16>,
    pub on_timer: OnTimer,
}

#[derive(Arbitrary, Clone, Copy, Debug, Default)]
pub enum Ending {
    #[default]
    Stay,
    Shutdown,
    Close,
    Abort,
}

#[derive(Arbitrary, Clone, Copy, Debug, Default)]
pub enum OnTimer {
    #[default]
    Nothing,
    /// Sends this many octets and sets the timer again.
    Write(u16),
    End(Ending),
}

/// One of the peers.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Who(u8);

impl Who {
    pub fn index(self) -> usize {
        usize::from(self.0) % PEERS
    }
}

/// The options of a SYN.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Offer {
    pub mss: Option<u16>,
    pub window_scale: Option<u8>,
    pub sack: bool,
    pub timestamps: bool,
    pub ecn: bool,
}

/// A number, given from where it would be in good order.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Place {
    Next,
    Near(i8),
    Far(i16),
    Anywhere(u32),
}

impl Place {
    pub fn from(self, base: SeqNumber) -> SeqNumber {
        match self {
            Self::Next => base,
            Self::Near(distance) => SeqNumber(base.0.wrapping_add_signed(distance.into())),
            Self::Far(distance) => SeqNumber(base.0.wrapping_add_signed(distance.into())),
            Self::Anywhere(number) => SeqNumber(number),
        }
    }
}

/// A segment no peer in its right mind would send, or just the right one.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Forged {
    /// From what the engine has acknowledged.
    pub seq: Place,
    /// From what the peer has received.
    pub ack: Place,
    pub flags: u8,
    /// Octets of text, modulo [`Forged::MAX_LENGTH`].
    pub length: u16,
    pub window: u16,
    /// From the peer's clock; `None`: no timestamps.
    pub stamp: Option<Place>,
    /// From what the peer has received: start, length.
    pub sack: [Option<(Place, u16)>; 3],
}

impl Forged {
    pub const MAX_LENGTH: u16 = 3000;
}

/// A time.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Span {
    Micros(u16),
    Millis(u16),
    Seconds(u16),
    Days(u8),
}

impl Span {
    pub fn duration(self) -> Duration {
        match self {
            Self::Micros(micros) => Duration::from_micros(micros.into()),
            Self::Millis(millis) => Duration::from_millis(millis.into()),
            Self::Seconds(seconds) => Duration::from_secs(seconds.into()),
            Self::Days(days) => Duration::from_secs(u64::from(days) * 24 * 3600),
        }
    }
}

/// The frames there are.
#[derive(Arbitrary, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Supply {
    #[default]
    All,
    NoneForHandshakes,
    NoneForText,
    None,
}

/// One thing that happens.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Step {
    /// The peer opens a connection: SYN and, if a SYN-ACK comes, the third segment.
    Open { who: Who, offer: Offer },
    /// The peer sends a SYN and leaves it at that.
    Syn { who: Who, offer: Offer, seq: Place },
    /// The engine opens a connection.
    Connect { who: Who },
    /// The peer answers the engine's SYN.
    Accept { who: Who, offer: Offer },
    /// The peer sends text in good order.
    Text { who: Who, length: u16, fin: bool },
    /// The peer acknowledges all it has received.
    Acknowledge { who: Who, window: u16 },
    /// The peer, or someone else in its name, sends any segment.
    Segment { who: Who, segment: Forged },
    /// A router says that the last segment with text was too big.
    TooBig { who: Who, mtu: u16, seq: Place },
    /// Time passes, and every timer fires on time.
    Pass(Span),
    /// Time passes while the engine is not called.
    Jump(Span),
    /// Frames run out, or come back.
    Frames(Supply),
    /// The application changes its mind.
    Behave(Behaviour),
    /// The server is going to stop.
    Drain,
    /// The server stops.
    AbortAll,
}
