//! `trace`: segments and changes of connections in words, a line each.

use std::io;
use std::ops::ControlFlow;

use serde_json::Value;
use tidegate_capture::{Direction, Peer, words};
use tidegate_control::Reply;
use tidegate_runtime::{Captured, Happened, Happening, Shown};

use super::Client;
use super::capture::{Limits, Seen};

/// Octets of each segment: its headers.
const SNAPLEN: u32 = 128;

/// `ctl trace`.
///
/// # Errors
///
/// The client takes no more.
pub(super) fn run(client: &Client<'_>, peer: &str, limits: &Limits) -> io::Result<()> {
    let peer: Peer = match peer.parse() {
        Ok(peer) => peer,
        Err(error) => return client.answer::<()>(Err(format!("{error}"))),
    };
    let Some(mut capture) = client.capture(peer.filter(), SNAPLEN, Some(peer))? else {
        return Ok(());
    };
    client.follow(&mut capture, limits, |seen| {
        let line = match seen {
            Seen::Shown(Shown::Frame(frame)) => segment_line(&frame),
            Seen::Shown(Shown::Happened(happened)) => happened_line(&happened),
            Seen::AllForNow => return ControlFlow::Continue(()),
        };
        match client.reply(&Reply::Ok(line.into())) {
            Ok(()) => ControlFlow::Continue(()),
            broken => ControlFlow::Break(broken),
        }
    })?;
    let lost = capture.lost_by_shards() + capture.lost_by_program() + capture.lost_happenings();
    if lost > 0 {
        client.reply(&Reply::Ok(
            format!("{lost} lines are missing: they came too fast").into(),
        ))?;
    }
    client.reply(&Reply::Ok(Value::Null))
}

fn segment_line(frame: &Captured<'_>) -> String {
    let direction = match frame.direction {
        Direction::Received => "In ",
        Direction::Sent => "Out",
    };
    let octets = frame.octets.concat();
    let verdict = match frame.verdict {
        Some(verdict) => format!(" (xdp_{})", verdict.name()),
        None => String::new(),
    };
    format!("{} {direction} {}{verdict}", time(frame.time), words::packet(&octets))
}

fn happened_line(happened: &Happened) -> String {
    let what = match happened.happening {
        Happening::State { from, to } => format!("{from} -> {to}"),
        Happening::Timeout => "retransmission timeout".to_owned(),
        Happening::Recovery => "fast recovery".to_owned(),
        Happening::TailProbe => "tail loss probe".to_owned(),
    };
    let (peer, local) = (happened.peer, happened.local);
    format!(
        "{}     {} - {}: {what}",
        time(happened.time),
        words::end(peer.ip(), peer.port()),
        words::end(local.ip(), local.port()),
    )
}

/// The time of day, of UTC, to the microsecond.
fn time(nanoseconds: u64) -> String {
    let micros = nanoseconds / 1000;
    let seconds = micros / 1_000_000 % 86_400;
    format!(
        "{:02}:{:02}:{:02}.{:06}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        micros % 1_000_000
    )
}

#[cfg(test)]
mod tests {
    use tidegate_abi::XdpCounter;
    use tidegate_tcp::State;

    use super::*;

    #[test]
    fn lines_say_when_where_and_what() {
        // 2023-11-14 22:13:20 UTC.
        let when = 1_700_000_000_123_456_789;
        let happened = Happened {
            time: when,
            peer: "198.18.0.2:40000".parse().unwrap(),
            local: "198.18.0.1:80".parse().unwrap(),
            happening: Happening::State {
                from: State::Established,
                to: State::FinWait1,
            },
        };
        assert_eq!(
            happened_line(&happened),
            "22:13:20.123456     198.18.0.2.40000 - 198.18.0.1.80: ESTABLISHED -> FIN-WAIT-1"
        );
        let frame = Captured {
            time: when,
            length: 60,
            direction: Direction::Received,
            device: 0,
            queue: 0,
            verdict: Some(XdpCounter::DropNoFlow),
            octets: [&[0; 20], &[0; 40]],
        };
        assert_eq!(
            segment_line(&frame),
            "22:13:20.123456 In  not IP, length 60 (xdp_drop_no_flow)"
        );
    }
}
