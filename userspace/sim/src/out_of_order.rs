//! A peer that sends every second byte of the window, so that none is in order and each is a range of its own
//! (CVE-2018-5390 and its kind).

use core::time::Duration;

use bytes::Bytes;
use tidegate_tcp::Config;

use crate::engine_host::{EngineHost, EngineSettings};
use crate::host::{ClockStart, Host};
use crate::scenario::{Scenario, small_config};
use crate::script::{Ending, Plan, Script};
use crate::segment::{ACK, Draft, RST, SYN, View};

/// The peer's window scale option; it sends nothing that would need it.
const OPTIONS: &[u8] = &[2, 4, 5, 0xb4, 1, 3, 3, 7, 4, 2, 1, 1];

const PEER_ISN: u32 = u32::MAX - 1000;

/// The outcome of the attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Segments of one byte that were sent.
    pub segments: u64,
    /// Bytes the engine held at most, overhead included.
    pub held: u64,
    /// Bytes it was allowed to hold.
    pub limit: u64,
}

/// Sends every second byte of a window of `window` bytes (4 KiB to 1 GiB) to an engine that may hold `limit` bytes out
/// of order, then resets the connection.
///
/// # Errors
///
/// The engine held more than its limit, kept something after the reset, or did not answer as it should.
pub fn every_second_byte(window: u32, limit: u32) -> Result<Report, String> {
    let settings = EngineSettings {
        config: Config {
            receive_buffer: window,
            receive_buffer_initial: window,
            reassembly_bytes: limit,
            ..small_config()
        },
        secrets: 1,
        frame_shortage: 0,
    };
    let (peer, local) = Scenario::clean(0, false, 0, 0).ends();
    let script = Script::new(Plan::simple(Bytes::new(), Bytes::new()));
    let start = ClockStart::At(1_000_000);
    let mut engine = EngineHost::new(&settings, start, script, (local, peer), true);
    let now = Duration::from_millis(1);
    let mut frame = Vec::new();
    let draft = |seq, ack, flags| Draft {
        from: peer,
        to: local,
        seq,
        ack,
        flags,
        window: u16::MAX,
        options: &[],
        text: &[],
    };
    let (first, ack) = connect(&mut engine, now, draft)?;

    let mut report = Report {
        segments: 0,
        held: 0,
        limit: u64::from(limit),
    };
    for offset in (1..window).step_by(2) {
        let segment = Draft {
            text: b"x",
            ..draft(first.wrapping_add(offset), ack, ACK)
        };
        segment.write(&mut frame);
        engine.receive(now, &frame);
        engine.outbox().clear();
        report.segments += 1;
        report.held = report.held.max(engine.reassembly_bytes());
        if report.held > report.limit {
            return Err(format!(
                "{} bytes are held out of order after {} segments",
                report.held, report.segments
            ));
        }
    }

    draft(first, ack, RST).write(&mut frame);
    engine.receive(now, &frame);
    engine.check_empty()?;
    match engine.script().ending() {
        Some(Ending::Reset) => Ok(report),
        ending => Err(format!("the connection ended: {ending:?}")),
    }
}

/// Opens a connection; returns the peer's next sequence number and what it acknowledges.
fn connect<'a>(
    engine: &mut EngineHost,
    now: Duration,
    draft: impl Fn(u32, u32, u8) -> Draft<'a>,
) -> Result<(u32, u32), String> {
    let mut frame = Vec::new();
    let syn = Draft {
        options: OPTIONS,
        ..draft(PEER_ISN, 0, SYN)
    };
    syn.write(&mut frame);
    engine.receive(now, &frame);
    let isn = engine
        .outbox()
        .pop()
        .as_deref()
        .and_then(View::read)
        .filter(|answer| answer.has(SYN | ACK))
        .map(|answer| answer.seq)
        .ok_or("the engine did not answer the SYN")?;
    let (first, ack) = (PEER_ISN.wrapping_add(1), isn.wrapping_add(1));
    draft(first, ack, ACK).write(&mut frame);
    engine.receive(now, &frame);
    if !engine.script().is_open() {
        return Err("the connection was not opened".to_owned());
    }
    Ok((first, ack))
}
