//! The runtime's part in a take-over by another process, and what is left of those it took over from.

use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel;
use tidegate_exchange::{Exchange, Handover};
use tidegate_xsk::Umems;

use super::{ANSWER_TIMEOUT, Runtime, open};
use crate::error::Error;
use crate::mailbox::{Command, tell_all};
use crate::port::Port;
use crate::relay::{Relay, RelayPort};
use crate::shard_port::ShardPort as _;
use crate::take_over::{NewPort, Offering, Release, Rest, Step, relayed};
use crate::xdp::Kept;

/// The pause between attempts to bind the queues of an interface that is down; each makes a UMEM.
const DOWN_PAUSE: Duration = Duration::from_secs(1);

/// The outcome of putting another socket in the place of each.
#[derive(Debug)]
enum Replaced {
    /// It is in the place of all.
    All,
    /// It could not be for one, for this reason, and is in the place of none.
    None(Error),
}

/// The outcome of an attempt to have the devices back.
#[derive(Debug)]
enum Attempt {
    /// They are this process's.
    Done,
    /// There is to be another one.
    Again {
        pause: Duration,
        /// That which has to change, if it may take long.
        reason: Option<Error>,
    },
}

/// Judges the result of an attempt to bind the queues again. Before it the process that failed `lived` or did not;
/// `check_link` looks for the interfaces.
///
/// # Errors
///
/// Another attempt would come to the same; where an interface is gone, that error.
fn judge(
    resumed: Result<(), Error>,
    lived: bool,
    check_link: impl FnOnce() -> Result<(), Error>,
) -> Result<Attempt, Error> {
    let again = |pause, reason| Ok(Attempt::Again { pause, reason });
    match resumed {
        Ok(()) => Ok(Attempt::Done),
        // It learns that it has failed when it says that it serves, and ends.
        Err(Error::QueueBusy { .. }) if lived => again(Duration::ZERO, None),
        Err(error) => {
            check_link()?;
            match error {
                Error::InterfaceDown { .. } => again(DOWN_PAUSE, Some(error)),
                error => Err(error),
            }
        }
    }
}

/// The descriptors of a port's sockets, by device.
pub(super) fn sockets_of(port: &Port) -> Vec<RawFd> {
    let socket = port.socket();
    (0..socket.devices()).map(|device| socket.fd(device)).collect()
}

/// Device, queue and socket of each of the sockets, which are by queue and device.
pub(super) fn each(sockets: &[Vec<RawFd>]) -> impl Iterator<Item = (u8, u32, RawFd)> {
    (0..)
        .zip(sockets)
        .flat_map(|(queue, sockets)| (0..).zip(sockets).map(move |(device, &socket)| (device, queue, socket)))
}

/// Has `set` put `other` in the place of each of the sockets. If it fails for one, those before it are put back.
///
/// # Errors
///
/// That of putting one back.
fn replace_all(
    sockets: &[Vec<RawFd>],
    other: RawFd,
    mut set: impl FnMut(u8, u32, RawFd) -> Result<(), Error>,
) -> Result<Replaced, Error> {
    for (done, (device, queue, _)) in each(sockets).enumerate() {
        if let Err(error) = set(device, queue, other) {
            for (device, queue, socket) in each(sockets).take(done) {
                set(device, queue, socket)?;
            }
            return Ok(Replaced::None(error));
        }
    }
    Ok(Replaced::All)
}

impl Runtime {
    /// Whether another process serves the interfaces now, and this one has only the connections it had.
    pub fn is_taken_over(&self) -> bool {
        self.succession
            .as_ref()
            .is_some_and(|succession| succession.is_complete())
    }

    /// Whether this process took the interfaces over from another that lives.
    pub fn has_taken_over(&self) -> bool {
        !self.earlier.is_empty()
    }

    /// The number of connections and of what is left of them in TIME-WAIT.
    ///
    /// # Errors
    ///
    /// [`Error::Shard`] when a shard does not answer within a second.
    pub fn flows(&self) -> Result<u64, Error> {
        let shards = self.ask_all()?;
        let in_time_wait = shards.iter().map(|shard| u64::from(shard.population.time_wait));
        Ok(in_time_wait.sum::<u64>() + open(&shards))
    }

    /// Whether the devices are another process's, or about to be.
    pub(super) fn has_no_devices(&self) -> bool {
        self.succession
            .as_ref()
            .is_some_and(|succession| succession.has_begun())
    }

    pub(super) fn check_take_over(&mut self) -> Result<(), Error> {
        self.forget_ended();
        let Some(mut succession) = self.succession.take() else {
            return Ok(());
        };
        let queues = self.queues.len() as u32;
        let step = succession.step(queues, self.tcp.mtu, |secret| {
            Offering::new(
                &self.steering,
                &self.devices,
                queues,
                self.tcp.mtu,
                secret,
                self.first,
                &self.earlier,
            )
        });
        let result = match step {
            Step::Nothing => Ok(()),
            Step::Release {
                nowhere,
                relays,
                conversation,
            } => match self.release(&nowhere, &relays) {
                Ok(Replaced::All) => {
                    succession.released(nowhere, conversation);
                    Ok(())
                }
                Ok(Replaced::None(error)) => {
                    tracing::warn!("another process cannot take over: {error}; this one goes on");
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Step::Resume(mut failing) => {
                // The kernel lets queues go a moment after their process has ended.
                let lived = failing.lives();
                let resumed = self.resume();
                let attempt = judge(resumed, lived, || {
                    // An interface that is deleted loses its name before anything is told of it.
                    self.links().look_soon();
                    self.check_link()
                });
                attempt.map(|attempt| match attempt {
                    Attempt::Done => succession.resume(failing),
                    Attempt::Again { pause, reason } => {
                        if let Some(reason) = reason {
                            failing.tell_once(|| tracing::warn!("{reason}; its queues are bound again then"));
                        }
                        succession.wait_for_devices(failing, pause);
                    }
                })
            }
            Step::Forget(first) => {
                // Its shards may have had some for a moment.
                let lost = self.steering.flow_filter().end_all(first, queues as u16);
                tracing::info!("the process that failed to take over has ended, and {lost} flows with it");
                Ok(())
            }
            Step::Leave => {
                self.cookies.leave();
                self.steering.leave();
                // The next process has them now, and is the one whose end they are to hear of.
                self.earlier.clear();
                Ok(())
            }
            Step::Lost => Err(Error::SuccessorGone),
        };
        self.succession = Some(succession);
        result
    }

    /// Has all shards close their sockets and go on by relays. What arrives meanwhile is dropped. From then on maps and
    /// cookies are the other process's. Where not all were replaced, all is as before.
    ///
    /// # Errors
    ///
    /// [`Error::Load`]: some of what arrives is dropped, and cannot be had back.
    fn release(&mut self, nowhere: &OwnedFd, relays: &[Arc<Relay>]) -> Result<Replaced, Error> {
        let kept = match self.steering.give_up() {
            Ok(kept) => kept,
            Err(error) => return Ok(Replaced::None(error)),
        };
        self.cookies.pause();
        let steering = &mut self.steering;
        let replaced = replace_all(&self.sockets, nowhere.as_raw_fd(), |device, queue, socket| {
            steering.set_socket(device, queue, socket)
        });
        if let Replaced::None(error) = replaced? {
            self.restore(&kept);
            return Ok(Replaced::None(error));
        }
        self.kept = Some(kept);
        let rest = Rest::new(relays.len());
        let (released, are_released) = channel::bounded(relays.len());
        for (mailbox, relay) in self.mailboxes.iter().zip(relays) {
            let release = Release::new(RelayPort::new(Arc::clone(relay)), &rest, released.clone());
            // One that takes no more commands does not release its port either, and the other process is refused it.
            let _ = mailbox.send(Command::Release(Box::new(release)));
        }
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let _ = (0..relays.len()).try_for_each(|_| are_released.recv_deadline(deadline));
        Ok(Replaced::All)
    }

    /// Has the XDP program steer as before, and controls cookies again.
    fn restore(&mut self, kept: &Kept) {
        if let Err(error) = self.steering.restore(kept) {
            tracing::error!("the XDP program does not do all that it did before the take-over failed: {error}");
        }
        self.cookies.resume();
    }

    /// Gives all shards sockets again.
    fn resume(&mut self) -> Result<(), Error> {
        let names: Vec<&str> = self.devices.iter().map(String::as_str).collect();
        let routes = self.links().routes();
        let mut ports = Vec::new();
        for info in &self.queues {
            let mut port = Port::open(&names, info.queue, &self.afxdp, &self.plan, self.steering.attached())?;
            port.set_routes(routes);
            ports.push(port);
        }
        let shards = ports.len() as u16;
        let memory = Arc::new(Umems::of(ports.iter().map(Port::socket)));
        let exchange = Arc::new(Exchange::with_relayed(
            shards,
            self.places * shards,
            self.afxdp.handover_queue as usize,
            self.afxdp.frames as usize,
        ));
        self.sockets = ports.iter().map(sockets_of).collect();
        for (index, port) in (0..).zip(ports) {
            let port = NewPort {
                port,
                memory: Arc::clone(&memory),
                handover: Handover::new(Arc::clone(&exchange), index),
                relays: relayed(&self.earlier, self.places, &exchange, index, shards),
            };
            if self.mailboxes[usize::from(index)]
                .send(Command::Port(Box::new(port)))
                .is_err()
            {
                return Err(Error::Shard {
                    queue: u32::from(index),
                    what: "it takes no more commands".to_owned(),
                });
            }
        }
        if let Some(kept) = self.kept.take() {
            self.restore(&kept);
        }
        for (device, queue, socket) in each(&self.sockets) {
            self.steering.set_socket(device, queue, socket)?;
        }
        Ok(())
    }

    /// Relays nothing any more to processes that have ended, and ends the flows they have left.
    fn forget_ended(&mut self) {
        let shards = self.queues.len() as u16;
        let ended: Vec<_> = self.earlier.extract_if(.., |earlier| earlier.has_ended()).collect();
        for earlier in ended {
            tell_all(
                &self.mailboxes,
                &self.threads,
                || Command::Forget(earlier.first),
                ANSWER_TIMEOUT,
            );
            match self.steering.flow_filter().end_all(earlier.first, shards) {
                0 => tracing::info!("a process that this one took over from has ended, and no connection with it"),
                lost => tracing::warn!("a process that this one took over from has ended, and {lost} flows with it"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const NOWHERE: RawFd = 99;

    /// Sockets of three queues of two devices.
    fn sockets() -> Vec<Vec<RawFd>> {
        vec![vec![10, 11], vec![12, 13], vec![14, 15]]
    }

    /// The map of the sockets, replaced, and the result; `fails` tells of each call of the kernel, from 0 on, whether
    /// it fails.
    fn replaced(fails: impl Fn(usize) -> bool) -> (Vec<RawFd>, Result<Replaced, Error>) {
        let sockets = sockets();
        let place = |device, queue| (queue, device);
        let mut map: BTreeMap<_, _> = each(&sockets)
            .map(|(device, queue, socket)| (place(device, queue), socket))
            .collect();
        let mut calls = 0..;
        let result = replace_all(&sockets, NOWHERE, |device, queue, socket| {
            if fails(calls.next().expect("a number")) {
                return Err(Error::Load("no memory".to_owned()));
            }
            map.insert(place(device, queue), socket);
            Ok(())
        });
        (map.into_values().collect(), result)
    }

    #[test]
    fn sockets_that_cannot_all_be_replaced_are_put_back() {
        let (map, result) = replaced(|_| false);
        assert!(matches!(result, Ok(Replaced::All)));
        assert_eq!(map, [NOWHERE; 6]);
        for failing in 0..6 {
            let (map, result) = replaced(|call| call == failing);
            assert!(matches!(result, Ok(Replaced::None(_))));
            assert_eq!(map, sockets().concat(), "call {failing}");
        }
        // None of what cannot be put back goes unnoticed.
        let (_, result) = replaced(|call| call >= 3);
        assert!(result.is_err());
    }

    #[test]
    fn queues_are_waited_for_while_they_are_anothers_or_their_interface_is_down() {
        let name = || "eth1".to_owned();
        let busy = || Err(Error::QueueBusy { name: name(), queue: 0 });
        let down = || Err(Error::InterfaceDown { name: name() });
        let there = || Ok(());
        let gone = || Err(Error::LinkGone { name: name() });

        assert!(matches!(judge(Ok(()), true, gone), Ok(Attempt::Done)));
        assert!(matches!(
            judge(busy(), true, gone),
            Ok(Attempt::Again {
                pause: Duration::ZERO,
                reason: None
            })
        ));
        // Nobody is left who might let them go.
        assert!(matches!(judge(busy(), false, there), Err(Error::QueueBusy { .. })));
        for lived in [false, true] {
            assert!(matches!(
                judge(down(), lived, there),
                Ok(Attempt::Again {
                    pause: DOWN_PAUSE,
                    reason: Some(Error::InterfaceDown { .. })
                })
            ));
            assert!(matches!(judge(down(), lived, gone), Err(Error::LinkGone { .. })));
        }
    }
}
