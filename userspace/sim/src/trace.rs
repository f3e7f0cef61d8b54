//! A run as lines of text, one for each segment, in tcpdump's manner.

use core::fmt::{self, Write as _};
use core::time::Duration;
use std::io::{self, Write};

use crate::link::Fate;
use crate::segment::{ACK, FIN, PSH, RST, SYN, View};
use crate::side::Side;

/// Writes what is sent, when, and what becomes of it. Sequence numbers are relative to the SYNs, once these were seen.
pub struct Trace {
    out: Box<dyn Write>,
    first: [Option<u32>; 2],
    failed: Option<io::Error>,
}

impl Trace {
    /// A trace to `out`.
    pub fn new(out: Box<dyn Write>) -> Self {
        Self {
            out,
            first: [None; 2],
            failed: None,
        }
    }

    /// The first error met in writing, if there was one.
    ///
    /// # Errors
    ///
    /// That error.
    pub fn finish(mut self) -> io::Result<()> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.out.flush(),
        }
    }

    /// A line about a frame before the link has it; [`Trace::sent`] writes it.
    pub(crate) fn describe(&mut self, from: Side, frame: &[u8]) -> String {
        let Some(view) = View::read(frame) else {
            return format!("{from} > {}: {} bytes, no segment", from.other(), frame.len());
        };
        if view.has(SYN) {
            self.first[from.index()] = Some(view.seq);
        }
        let seq = view.seq.wrapping_sub(self.first[from.index()].unwrap_or(0));
        let ack = view.ack.wrapping_sub(self.first[from.other().index()].unwrap_or(0));
        let mut line = format!("{from} > {}: Flags [{}], seq {seq}", from.other(), Flags(view.flags));
        // Writing to a string cannot fail.
        if !view.text.is_empty() {
            let _ = write!(line, ":{}", seq.wrapping_add(view.text.len() as u32));
        }
        if view.has(ACK) {
            let _ = write!(line, ", ack {ack}");
        }
        let _ = write!(line, ", win {}", view.window);
        if !view.options.is_empty() {
            let _ = write!(
                line,
                ", options [{}]",
                Options(view.options, self.first[from.other().index()])
            );
        }
        let _ = write!(line, ", length {}", view.text.len());
        line
    }

    /// A frame, as [`Trace::describe`] described it, met its fate.
    pub(crate) fn sent(&mut self, now: Duration, line: &str, fate: Fate) {
        let what = fate.to_string();
        match fate {
            Fate::Arrives { at, .. } if what.is_empty() => {
                self.line(now, format_args!("{line} -> {}", Seconds(at)));
            }
            Fate::Arrives { at, .. } => self.line(now, format_args!("{line} -> {} ({what})", Seconds(at))),
            _ => self.line(now, format_args!("{line} ({what})")),
        }
    }

    /// Something else happened.
    pub(crate) fn note(&mut self, now: Duration, what: &str) {
        self.line(now, format_args!("{what}"));
    }

    fn line(&mut self, now: Duration, what: fmt::Arguments<'_>) {
        if self.failed.is_none() {
            self.failed = writeln!(self.out, "{} {what}", Seconds(now)).err();
        }
    }
}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0.as_secs(), self.0.subsec_micros())
    }
}

struct Flags(u8);

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = [
            (SYN, 'S'),
            (FIN, 'F'),
            (RST, 'R'),
            (PSH, 'P'),
            (0x20, 'U'),
            (0x40, 'E'),
            (0x80, 'W'),
            (ACK, '.'),
        ];
        for (flag, letter) in known {
            if self.0 & flag != 0 {
                f.write_char(letter)?;
            }
        }
        Ok(())
    }
}

/// The option field, and the sequence number that SACK blocks are relative to.
struct Options<'a>(&'a [u8], Option<u32>);

impl fmt::Display for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut field = self.0;
        let mut separator = "";
        while let Some((&kind, rest)) = field.split_first() {
            f.write_str(separator)?;
            separator = ",";
            if kind <= 1 {
                f.write_str(if kind == 0 { "eol" } else { "nop" })?;
                field = if kind == 0 { &[] } else { rest };
                continue;
            }
            let length = rest.first().map_or(0, |&length| usize::from(length));
            let Some(body) = field.get(2..length) else {
                return f.write_str("malformed");
            };
            let word = |at: usize| {
                body.get(at..)
                    .and_then(|rest| rest.first_chunk::<4>())
                    .map_or(0, |word| u32::from_be_bytes(*word))
            };
            match (kind, body) {
                (2, [high, low]) => write!(f, "mss {}", u16::from_be_bytes([*high, *low]))?,
                (3, [shift]) => write!(f, "wscale {shift}")?,
                (4, []) => f.write_str("sackOK")?,
                (5, _) => {
                    f.write_str("sack")?;
                    let first = self.1.unwrap_or(0);
                    for at in (0..body.len() / 8).map(|block| block * 8) {
                        let (left, right) = (word(at).wrapping_sub(first), word(at + 4).wrapping_sub(first));
                        write!(f, " {left}:{right}")?;
                    }
                }
                (8, _) => write!(f, "TS val {} ecr {}", word(0), word(4))?,
                _ => write!(f, "unknown-{kind}")?,
            }
            field = &field[length..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{Draft, Endpoint};

    fn frame(seq: u32, ack: u32, flags: u8, options: &[u8], text: &[u8]) -> Vec<u8> {
        let end = |number: u8| Endpoint {
            mac: [2, 0, 0, 0, 0, number],
            address: format!("198.18.0.{number}:7").parse().unwrap(),
        };
        Draft {
            from: end(2),
            to: end(1),
            seq,
            ack,
            flags,
            window: 1000,
            options,
            text,
        }
        .frame()
    }

    #[test]
    fn lines_look_like_those_of_tcpdump() {
        let mut trace = Trace::new(Box::new(io::sink()));
        let syn = frame(4_000_000_000, 0, SYN, b"\x02\x04\x05\xb4\x04\x02\x01\x01", b"");
        assert_eq!(
            trace.describe(Side::Client, &syn),
            "client > server: Flags [S], seq 0, win 1000, options [mss 1460,sackOK,nop,nop], length 0"
        );
        trace.describe(Side::Server, &frame(100, 4_000_000_001, SYN | ACK, b"", b""));
        let data = frame(
            4_000_000_001,
            101,
            ACK | PSH,
            b"\x05\x0a\0\0\0\x6e\0\0\0\x78\x08\x01",
            b"four",
        );
        assert_eq!(
            trace.describe(Side::Client, &data),
            "client > server: Flags [P.], seq 1:5, ack 1, win 1000, options [sack 10:20,malformed], length 4"
        );
        assert_eq!(
            trace.describe(Side::Server, &[0; 60]),
            "server > client: 60 bytes, no segment"
        );
    }
}
