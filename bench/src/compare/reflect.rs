//! What AF_XDP in copy mode can do at most between the lab's two devices: frames as long as tidegate's go to and fro
//! between two loops that do nothing but swap their Ethernet addresses, without TCP, HTTP or even IP.
//!
//! As many frames are under way at once as the rps workload has requests under way.

use std::hint;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use tidegate_abi::traffic::TO_SOCKET_ETHER_TYPE;

use super::cpu::{self, Observed, SetOnDrop};
use super::plan::{Scale, Shape};
use super::raw_port::RawPort;
use crate::flood::interface::Interface;
use crate::lab::arrangement::{CLIENT_DEVICE, Cores, SERVER_DEVICE};
use crate::lab::machine;
use crate::lab::namespaces::{Lab, Place};

/// Octets of an Ethernet header, and of the longest frame, which the lab's MTU decides.
const ETHERNET_HEADER: usize = 14;
const LONGEST_FRAME: usize = ETHERNET_HEADER + 1500;

/// Octets of the IP headers.
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// Octets of a TCP header with timestamps (RFC 7323), which both ends of a connection with tidegate use.
const TCP_HEADER: usize = 32;

/// How long nothing may come back.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the last frames are waited for.
const LAST: Duration = Duration::from_millis(100);

/// The lengths of the two frames of a request without pipelining, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lengths {
    /// Of the one that carries the request.
    pub(super) request: usize,
    /// Of the one that carries the response.
    pub(super) response: usize,
}

impl Lengths {
    /// Those of frames that carry so many octets.
    pub(super) fn of(request: usize, response: usize, is_ipv4: bool) -> Self {
        let ip = if is_ipv4 { IPV4_HEADER } else { IPV6_HEADER };
        let frame = |octets: usize| (ETHERNET_HEADER + ip + TCP_HEADER + octets).min(LONGEST_FRAME);
        Self {
            request: frame(request),
            response: frame(response),
        }
    }

    /// How long the reflector makes its frames.
    fn reply(self, shape: Shape) -> usize {
        match shape {
            Shape::Exchange => self.response,
            Shape::Request => self.request,
        }
    }
}

/// What one shape gave.
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
    /// What the processors did meanwhile.
    pub(super) observed: Option<Observed>,
}

/// What the two ends tell each other.
struct Shared {
    stop: AtomicBool,
    /// How long the reflector makes its frames.
    reply: AtomicUsize,
}

/// Measures both shapes with `window` frames under way.
///
/// # Errors
///
/// A socket cannot be opened at one of the ends, or no frame comes back.
pub(super) fn measure(
    lab: &Lab,
    cores: Cores,
    lengths: Lengths,
    window: usize,
    scale: &Scale,
) -> anyhow::Result<Vec<Reflected>> {
    let server = lab.inside(Place::Server, || Interface::find(SERVER_DEVICE))?;
    let shared = Shared {
        stop: AtomicBool::new(false),
        reply: AtomicUsize::new(lengths.request),
    };
    let shared = &shared;
    let (ready, is_ready) = mpsc::channel();
    thread::scope(|scope| {
        let reflector = scope.spawn(move || lab.inside(Place::Server, move || reflect(cores.server, shared, &ready)));
        let found = {
            let _end = SetOnDrop(&shared.stop);
            match is_ready.recv() {
                Ok(()) => lab.inside(Place::Client, || {
                    machine::pin_this_thread(cores.client)?;
                    let mut port = RawPort::open(CLIENT_DEVICE)?;
                    let client = Interface::find(CLIENT_DEVICE)?;
                    let frame = frame(server.mac, client.mac, lengths.request);
                    let one = |shape| -> anyhow::Result<Reflected> {
                        shared.reply.store(lengths.reply(shape), Ordering::Relaxed);
                        let watched = cpu::watch(lab, cores, None, || exchange(&mut port, &frame, window, scale));
                        let ((frames, seconds, lost), observed) = watched?;
                        Ok(Reflected {
                            shape,
                            frames,
                            seconds,
                            lost,
                            observed,
                        })
                    };
                    Shape::ALL.into_iter().map(one).collect()
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
fn reflect(cpu: usize, shared: &Shared, ready: &Sender<()>) -> anyhow::Result<()> {
    machine::pin_this_thread(cpu)?;
    let mut port = RawPort::open(SERVER_DEVICE)?;
    // Nobody waits only if the other end has panicked, and then it has said so.
    let _ = ready.send(());
    while !shared.stop.load(Ordering::Relaxed) {
        if port.reflect(shared.reply.load(Ordering::Relaxed))? == 0 {
            hint::spin_loop();
        }
    }
    Ok(())
}

/// The client's end: frames that the reflector received and sent, in how many seconds, and how many of the `window` were
/// lost.
fn exchange(port: &mut RawPort, frame: &[u8], window: usize, scale: &Scale) -> anyhow::Result<(u64, f64, usize)> {
    port.send(frame, window)?;
    keep_going(port, frame.len(), scale.warm_up)?;
    let begin = Instant::now();
    let returned = keep_going(port, frame.len(), scale.reflect)?;
    let seconds = begin.elapsed().as_secs_f64();
    let end = Instant::now() + LAST;
    let mut back = 0;
    while back < window && Instant::now() < end {
        back += port.discard()?;
    }
    Ok((2 * returned, seconds, window.saturating_sub(back)))
}

/// Sends every frame again that comes back. Returns how many there were.
fn keep_going(port: &mut RawPort, length: usize, time: Duration) -> anyhow::Result<u64> {
    let begin = Instant::now();
    let mut last = begin;
    let mut returned = 0;
    loop {
        let now = Instant::now();
        if now - begin >= time {
            return Ok(returned);
        }
        let count = port.reflect(length)?;
        returned += count as u64;
        if count > 0 {
            last = now;
        } else if now - last > PATIENCE {
            bail!("no frame has come back for {} s", PATIENCE.as_secs());
        } else {
            hint::spin_loop();
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
    fn frames_are_as_long_as_those_of_a_connection() {
        let lengths = Lengths::of(85, 300, true);
        assert_eq!((lengths.request, lengths.response), (66 + 85, 66 + 300));
        assert_eq!(Lengths::of(85, 300, false).request, 86 + 85);
        assert_eq!(Lengths::of(85, 100_000, true).response, 1514);
        assert_eq!(lengths.reply(Shape::Exchange), 366);
        assert_eq!(lengths.reply(Shape::Request), 151);
    }

    #[test]
    fn a_frame_has_a_type_nobody_else_uses() {
        let frame = frame([1; 6], [2; 6], 60);
        assert_eq!(frame.len(), 60);
        assert_eq!(frame[..14], [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0x88, 0xb5]);
        assert!(frame[14..].iter().all(|&octet| octet == 0));
    }
}
