//! The maximum that AF_XDP in copy mode can do between the lab's two devices: frames as long as tidegate's, and as many
//! each way, go to and fro between two loops that do nothing but swap their Ethernet addresses, without TCP, HTTP or
//! even IP.
//!
//! As many frames are under way at once as the workloads have connections.

use std::hint;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use tidegate_flood::interface::Interface;
use tidegate_impair::ETHERNET_HEADER;
use tidegate_lab::Cores;
use tidegate_lab::arrangement::{CLIENT_DEVICE, SERVER_DEVICE};
use tidegate_lab::machine;
use tidegate_lab::{Lab, Place};
use tidegate_load::Close;
use tidegate_traffic_abi::TO_SOCKET_ETHER_TYPE;

use super::cpu::{self, Observed, SetOnDrop};
use super::frame_pattern::{Lengths, Pattern};
use super::plan::{Scale, Shape};
use super::raw_port::RawPort;

/// The time for which nothing may come back.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The time the last frames are waited for.
const LAST: Duration = Duration::from_millis(100);

/// The rate of one shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reflected {
    /// Which.
    pub(super) shape: Shape,
    /// Frames the reflector received and sent.
    pub(super) frames: u64,
    /// In this time.
    pub(super) seconds: f64,
    /// Frames that did not come back in the end. Each lost one makes the rest slower, so there should be none.
    pub(super) lost: usize,
    /// Processor time meanwhile.
    pub(super) observed: Option<Observed>,
}

/// The state that the two ends share.
struct Shared {
    stop: AtomicBool,
    /// Which of all shapes it is.
    shape: AtomicUsize,
}

/// Measures both shapes with `window` frames under way, the connections being those that `close` ends.
///
/// # Errors
///
/// A socket cannot be opened at one of the ends, or no frame comes back.
pub(super) fn measure(
    lab: &Lab,
    cores: Cores,
    lengths: Lengths,
    close: Close,
    window: usize,
    scale: &Scale,
) -> anyhow::Result<Vec<Reflected>> {
    let server = lab.inside(Place::Server, || Interface::find(SERVER_DEVICE))?;
    let shared = Shared {
        stop: AtomicBool::new(false),
        shape: AtomicUsize::new(0),
    };
    let ways = Shape::ALL.map(|shape| lengths.ways(shape, close));
    let reflected = ways.clone().map(|[there, back]| Pattern::new(there.len(), back));
    let reflector_patterns = reflected.clone();
    let shared = &shared;
    let (ready, is_ready) = mpsc::channel();
    thread::scope(|scope| {
        let reflector = scope.spawn(move || {
            lab.inside(Place::Server, move || {
                reflect(cores.server, reflector_patterns, shared, &ready)
            })
        });
        let found = {
            let _end = SetOnDrop(&shared.stop);
            match is_ready.recv() {
                Ok(()) => lab.inside(Place::Client, || {
                    machine::pin_this_thread(cores.client)?;
                    let mut port = RawPort::open(CLIENT_DEVICE)?;
                    let client = Interface::find(CLIENT_DEVICE)?;
                    let mut found = Vec::new();
                    for (index, (shape, [there, back])) in Shape::ALL.into_iter().zip(ways).enumerate() {
                        shared.shape.store(index, Ordering::Relaxed);
                        let longest = there.iter().copied().max().unwrap_or_default();
                        let mut end = ClientEnd {
                            port: &mut port,
                            template: frame(server.mac, client.mac, longest),
                            pattern: Pattern::new(back.len(), there),
                            reflector: &reflected[index],
                        };
                        let watched = cpu::watch(lab, cores, None, || end.exchange(window, scale));
                        let ((frames, seconds, lost), observed) = watched?;
                        found.push(Reflected {
                            shape,
                            frames,
                            seconds,
                            lost,
                            observed,
                        });
                    }
                    Ok(found)
                }),
                // Why there is no reflector is told below.
                Err(_) => Ok(Vec::new()),
            }
        };
        reflector
            .join()
            .unwrap_or_else(|_| Err(anyhow!("the reflector's thread panicked")))
            .context("the reflector failed")?;
        found
    })
}

/// The server's end.
fn reflect(
    cpu: usize,
    mut patterns: [Pattern; Shape::ALL.len()],
    shared: &Shared,
    ready: &Sender<()>,
) -> anyhow::Result<()> {
    machine::pin_this_thread(cpu)?;
    let mut port = RawPort::open(SERVER_DEVICE)?;
    // Nobody waits only if the other end has panicked, and then it has said so.
    let _ = ready.send(());
    while !shared.stop.load(Ordering::Relaxed) {
        let pattern = &mut patterns[shared.shape.load(Ordering::Relaxed)];
        if port.reflect(pattern, &[])? == (0, 0) {
            hint::spin_loop();
        }
    }
    Ok(())
}

/// The client's end, for one shape.
struct ClientEnd<'a> {
    port: &'a mut RawPort,
    /// A frame of the greatest length.
    template: Vec<u8>,
    pattern: Pattern,
    /// The phase of the other end.
    reflector: &'a Pattern,
}

impl ClientEnd<'_> {
    /// Keeps `window` frames under way. Returns how many the reflector received and sent, in how many seconds, and how
    /// many were lost.
    fn exchange(&mut self, window: usize, scale: &Scale) -> anyhow::Result<(u64, f64, usize)> {
        self.port.send(&self.template, window)?;
        let warm_up = self.keep_going(scale.warm_up)?;
        let begin = Instant::now();
        let (received, sent) = self.keep_going(scale.reflect)?;
        let seconds = begin.elapsed().as_secs_f64();
        let expected = self.reflector.sent_for(window + warm_up.1 + sent);
        let mut back = warm_up.0 + received;
        let end = Instant::now() + LAST;
        while back < expected && Instant::now() < end {
            back += self.port.discard()?;
        }
        Ok(((received + sent) as u64, seconds, expected.saturating_sub(back)))
    }

    /// Answers every frame that comes back. Returns how many these were, and how many were sent.
    fn keep_going(&mut self, time: Duration) -> anyhow::Result<(usize, usize)> {
        let begin = Instant::now();
        let mut last = begin;
        let mut total = (0, 0);
        loop {
            let now = Instant::now();
            if now - begin >= time {
                return Ok(total);
            }
            let (received, sent) = self.port.reflect(&mut self.pattern, &self.template)?;
            total = (total.0 + received, total.1 + sent);
            if received > 0 {
                last = now;
            } else if now - last > TIMEOUT {
                bail!("no frame has come back for {} s", TIMEOUT.as_secs());
            } else {
                hint::spin_loop();
            }
        }
    }
}

fn frame(destination: [u8; 6], source: [u8; 6], length: usize) -> Vec<u8> {
    let mut frame = [&destination[..], &source, &TO_SOCKET_ETHER_TYPE.to_be_bytes()].concat();
    frame.resize(length.max(ETHERNET_HEADER), 0);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_a_type_nobody_else_uses() {
        let frame = frame([1; 6], [2; 6], 60);
        assert_eq!(frame.len(), 60);
        assert_eq!(frame[..14], [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0x88, 0xb5]);
        assert!(frame[14..].iter().all(|&octet| octet == 0));
    }
}
