//! `capture`: frames as pcapng, from the reply on to the end of the connection.

use core::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use serde_json::Value;
use tidegate_abi::XdpCounter;
use tidegate_capture::pcapng::{PacketMeta, Totals, Writer};
use tidegate_capture::{Filter, Peer};
use tidegate_control::Reply;
use tidegate_runtime::{Capture, CaptureSettings, Captured, Shown};

use super::Client;

/// The pause between two looks at the rings of a capture.
const INTERVAL: Duration = Duration::from_millis(5);

/// The time after which what is in them is taken however little it is. A shard on the same processor waits meanwhile,
/// and with it all its connections: a few frames at a time would have it wait too often.
const TAKE_INTERVAL: Duration = Duration::from_millis(20);

/// Octets of a write to the client.
const WRITE_BUFFER: usize = 256 * 1024;

/// The name of this program in files.
const PROGRAM: &str = concat!("tidegate ", env!("CARGO_PKG_VERSION"));

/// The return values of the XDP program.
const XDP_DROP: u64 = 1;
const XDP_TX: u64 = 3;

/// The time at which a command that goes on ends by itself.
pub(super) struct Limits {
    count: u64,
    until: Option<Instant>,
}

impl Limits {
    pub(super) fn new(count: Option<u64>, duration_ms: Option<u64>) -> Self {
        let duration = duration_ms.map(Duration::from_millis);
        Self {
            count: count.unwrap_or(u64::MAX),
            until: duration.and_then(|duration| Instant::now().checked_add(duration)),
        }
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

impl Client<'_> {
    /// Begins to capture the frames that `filter` matches, or replies why not.
    pub(super) fn capture(
        &self,
        filter: Filter,
        snaplen: u32,
        connections_of: Option<Peer>,
    ) -> io::Result<Option<Capture>> {
        let begin = self.caller.call(move |main| {
            let Some(serving) = &main.serving else {
                return Err("the interfaces are gone; there is nothing to capture".to_owned());
            };
            let limits = &main.settings.config.control;
            let settings = CaptureSettings {
                filter: Arc::new(filter),
                snaplen,
                connections_of,
                ring: limits.capture_ring,
                max_captures: limits.max_captures,
            };
            serving.runtime.capture(&settings).map_err(|error| error.to_string())
        });
        let begun = begin.unwrap_or_else(|error| Err(error.to_string()));
        match begun {
            Ok(capture) => {
                self.reply(&Reply::Ok(Value::Null))?;
                Ok(Some(capture))
            }
            Err(sentence) => {
                self.reply(&Reply::Error(sentence))?;
                Ok(None)
            }
        }
    }

    /// Whether the client has ended its side.
    fn has_ended(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        !matches!(
            recv(self.stream.as_raw_fd(), &mut [0], flags),
            Ok(1..) | Err(Errno::EAGAIN | Errno::EINTR)
        )
    }

    /// Shows `see` what is captured until it breaks, the client ends its side, the time is over, or the shards end.
    pub(super) fn follow(
        &self,
        capture: &mut Capture,
        limits: &Limits,
        mut see: impl FnMut(Seen<'_>) -> ControlFlow<io::Result<()>>,
    ) -> io::Result<()> {
        let mut taken = Instant::now();
        loop {
            // Before what is taken last.
            let is_last = limits.is_over() || capture.is_over() || self.has_ended();
            if !is_last && !capture.is_urgent() && taken.elapsed() < TAKE_INTERVAL {
                thread::sleep(INTERVAL);
                continue;
            }
            taken = Instant::now();
            let mut shown = capture.take(is_last, |shown| see(Seen::Shown(shown)));
            if shown.is_continue() {
                shown = see(Seen::AllForNow);
            }
            match shown {
                ControlFlow::Break(result) => return result,
                ControlFlow::Continue(()) if is_last => return Ok(()),
                ControlFlow::Continue(()) => thread::sleep(INTERVAL),
            }
        }
    }
}

/// `ctl capture`.
///
/// # Errors
///
/// The client takes no more.
pub(super) fn run(client: &Client<'_>, filter: &str, snaplen: u32, limits: &Limits) -> io::Result<()> {
    let compiled: Filter = match filter.parse() {
        Ok(compiled) => compiled,
        Err(error) => return client.answer::<()>(Err(error.to_string())),
    };
    let Some(mut capture) = client.capture(compiled, snaplen, None)? else {
        return Ok(());
    };
    let mut file = File::new(
        BufWriter::with_capacity(WRITE_BUFFER, client.stream),
        &capture,
        filter,
        snaplen,
    )?;
    client.follow(&mut capture, limits, |seen| {
        let written = match seen {
            Seen::Shown(Shown::Frame(frame)) => file.write(&frame),
            // Nobody asks for it.
            Seen::Shown(Shown::Happened(_)) => Ok(()),
            Seen::AllForNow => file.writer.flush(),
        };
        match written {
            Ok(()) if file.frames() < limits.count => ControlFlow::Continue(()),
            ended => ControlFlow::Break(ended),
        }
    })?;
    file.end(&capture)?;
    // Before the client knows, so that it may begin another one.
    drop(capture);
    // The client has what there is; that is the end of the file.
    client.stream.shutdown(Shutdown::Write)
}

/// A capture as it is written.
struct File<W: Write> {
    writer: Writer<W>,
    /// By device, its frames.
    frames: Vec<u64>,
    began: u64,
    /// That of the frame which is being written.
    comment: String,
}

impl<W: Write> File<W> {
    fn new(output: W, capture: &Capture, filter: &str, snaplen: u32) -> io::Result<Self> {
        let mut writer = Writer::new(output, PROGRAM)?;
        let mut frames = Vec::new();
        for device in capture.devices() {
            writer.interface(device, snaplen, filter)?;
            frames.push(0);
        }
        // Readers such as Wireshark show nothing before they have the blocks of the interfaces.
        writer.flush()?;
        let began = capture.now();
        Ok(Self {
            writer,
            frames,
            began,
            comment: String::new(),
        })
    }

    fn write(&mut self, frame: &Captured<'_>) -> io::Result<()> {
        if let Some(frames) = self.frames.get_mut(frame.device as usize) {
            *frames += 1;
        }
        self.comment.clear();
        // Writing to a string does not fail.
        let _ = match frame.verdict {
            None => write!(self.comment, "shard {}", frame.queue),
            Some(verdict) => write!(self.comment, "xdp_{}", verdict.name()),
        };
        let meta = PacketMeta {
            interface: frame.device,
            time: frame.time,
            length: frame.length,
            direction: frame.direction,
            queue: frame.queue,
            verdict: frame.verdict.map(|verdict| match verdict {
                XdpCounter::TxSynCookie => XDP_TX,
                _ => XDP_DROP,
            }),
            comment: &self.comment,
        };
        self.writer.packet(&meta, frame.octets)
    }

    fn frames(&self) -> u64 {
        self.frames.iter().sum()
    }

    /// Writes what was lost; of several devices it is not known which had it.
    fn end(&mut self, capture: &Capture) -> io::Result<()> {
        let (by_shards, by_program) = (capture.lost_by_shards(), capture.lost_by_program());
        let comment = format!("lost: {by_shards} of shards, {by_program} that XDP dropped or answered");
        for (interface, &frames) in (0..).zip(&self.frames) {
            let lost = if interface == 0 { by_shards + by_program } else { 0 };
            let totals = Totals {
                began: self.began,
                ended: capture.now(),
                matched: frames + lost,
                lost,
                comment: if interface == 0 { &comment } else { "" },
            };
            self.writer.statistics(interface, &totals)?;
        }
        self.writer.flush()
    }
}

/// The view of a command that goes on.
pub(super) enum Seen<'a> {
    /// The next.
    Shown(Shown<'a>),
    /// There is no other at the moment.
    AllForNow,
}
