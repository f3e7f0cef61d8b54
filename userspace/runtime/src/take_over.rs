//! Taking the devices over from a server that runs, and giving them to the next.
//!
//! The later process calls the earlier one, is offered its maps and links, prepares everything, and says so. Then the
//! earlier one has the kernel drop what arrives, deals with what has arrived, closes its sockets, and goes on with its
//! connections by [`relay`](crate::relay); the later one binds its own sockets, serves, and says so. Until then it can
//! end, and the earlier one takes its queues back.

mod conversation;
mod succession;

use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crossbeam::channel::Sender;
use tidegate_abi::siphash::Key;
use tidegate_exchange::{Exchange, Handover};
use tidegate_xsk::{RxFrame, Umems, options};

use self::conversation::{Conversation, Offer, Word, is_hung_up};
pub(crate) use self::succession::{Offering, Step, Succession};
use crate::config::{Config, LINK_HEADERS, MAX_JUMBO_MTU, MAX_MTU};
use crate::error::Error;
use crate::port::Port;
use crate::relay::{Later, Relay, RelayPort, RelayedShard};
use crate::xdp::Attached;

/// The version of the conversation and of all that two processes share.
const VERSION: u32 = 1;

/// The time that the other process has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// To be ready, from an offer on.
    preparation: Duration,
    /// For each other step.
    step: Duration,
}

impl Limits {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            preparation: config.take_over_preparation,
            step: config.take_over_timeout,
        }
    }
}

/// The pause before another call.
const CALL_STEP: Duration = Duration::from_millis(50);

/// The time shards have to come to rest.
const REST: Duration = Duration::from_millis(500);

/// The numbers of shards in the flow filter.
const NUMBERS: u16 = 64;

/// Queues of a server that others can take over from: both have as many numbers of shards.
pub(crate) const MAX_SHARED_QUEUES: u32 = NUMBERS as u32 / 2;

/// The order to a shard to release its port.
pub(crate) struct Release {
    pub(crate) port: RelayPort,
    rest: Arc<Rest>,
    pub(crate) released: Sender<()>,
}

/// Shards that come to rest together.
pub(crate) struct Rest {
    shards: usize,
    arrived: AtomicUsize,
    deadline: Instant,
}

impl Rest {
    pub(crate) fn new(shards: usize) -> Arc<Self> {
        Arc::new(Self {
            shards,
            arrived: AtomicUsize::new(0),
            deadline: Instant::now() + REST,
        })
    }
}

impl Release {
    pub(crate) fn new(port: RelayPort, rest: &Arc<Rest>, released: Sender<()>) -> Self {
        Self {
            port,
            rest: Arc::clone(rest),
            released,
        }
    }

    /// Whether no more is waited for.
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.rest.deadline
    }

    /// This shard waits for nobody any more, and hands nothing to others.
    pub(crate) fn arrive(&self) {
        self.rest.arrived.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn have_all_arrived(&self) -> bool {
        self.rest.arrived.load(Ordering::Acquire) == self.rest.shards
    }
}

impl fmt::Debug for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Release")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// A port for a shard that has released its own.
pub(crate) struct NewPort {
    pub(crate) port: Port,
    pub(crate) memory: Arc<Umems>,
    pub(crate) handover: Handover<RxFrame>,
    pub(crate) relays: Vec<RelayedShard<RxFrame>>,
}

impl fmt::Debug for NewPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewPort").finish_non_exhaustive()
    }
}

/// A process that had the devices before, and has connections yet.
pub(crate) struct Earlier {
    /// Its place among the processes before, from 1 on, by which the engines call its shards. It keeps it when others
    /// end.
    place: u16,
    /// The number of its first shard in the flow filter.
    pub(crate) first: u16,
    /// By shard.
    relays: Vec<Arc<Relay>>,
    /// A pipe whose other end it alone has.
    life: OwnedFd,
    /// By which it knows whether the process that has the devices lives.
    conversation: Conversation,
}

impl Earlier {
    /// Whether the process is no more.
    pub(crate) fn has_ended(&self) -> bool {
        is_hung_up(&self.life)
    }

    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let relays = self.relays.iter().flat_map(|relay| relay.descriptors());
        [self.life.as_fd(), self.conversation.as_fd()].into_iter().chain(relays)
    }
}

/// Makes the shards of processes before that one shard of this process, `index` of `shards`, relays to. There were
/// `places` processes at first, of which `earlier` live.
pub(crate) fn relayed(
    earlier: &[Earlier],
    places: u16,
    exchange: &Arc<Exchange<RxFrame>>,
    index: u16,
    shards: u16,
) -> Vec<RelayedShard<RxFrame>> {
    let shard = |place| {
        let lives = earlier.iter().find(|earlier| earlier.place == place);
        let relay = lives.and_then(|earlier| earlier.relays.get(usize::from(index)));
        let later = relay.map(|relay| Later::new(Arc::clone(relay)));
        // No command is about one that does not live.
        let first = lives.map_or(NUMBERS, |earlier| earlier.first);
        RelayedShard::new(later, first, Arc::clone(exchange), place * shards + index)
    };
    (1..=places).map(shard).collect()
}

/// Octets of the longest frame on an interface with this MTU, also after it was changed as far as it may be.
fn max_frame(mtu: u16) -> usize {
    let longest = if u32::from(mtu) > MAX_MTU {
        MAX_JUMBO_MTU
    } else {
        MAX_MTU
    };
    (longest + LINK_HEADERS) as usize
}

/// A hash of the XDP object, by which two processes know that they have the same.
fn object_hash() -> u64 {
    // FNV-1a: nobody chooses the object.
    crate::xdp::object().iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// The server that runs, to a process that wants to take its devices over.
pub(crate) struct Predecessor {
    conversation: Conversation,
    path: String,
    limits: Limits,
    offer: Offer,
    /// By name.
    pub(crate) maps: Vec<(String, OwnedFd)>,
    /// By device.
    pub(crate) links: Vec<OwnedFd>,
    life: OwnedFd,
    earlier: Vec<Earlier>,
    /// The number of the first shard of this process.
    pub(crate) first: u16,
    relays: Vec<Arc<Relay>>,
    /// Before the end of the take-over, what arrives is for it.
    nowhere: OwnedFd,
}

impl Predecessor {
    /// Calls the server that lets others take over at `path`; `None`: there is none.
    ///
    /// # Errors
    ///
    /// [`Error::TakeOver`] when it is not one that can be taken over from.
    pub(crate) fn call(path: &Path, limits: Limits) -> Result<Option<Self>, Error> {
        let path_text = path.display().to_string();
        let failed = |reason: String| Error::TakeOver {
            path: path_text.clone(),
            reason,
        };
        let began = Instant::now();
        let (conversation, offer, descriptors) = loop {
            let called = Conversation::call(path).map_err(|error| failed(error.to_string()))?;
            let Some(conversation) = called else {
                return Ok(None);
            };
            match conversation.receive::<Offer>(limits.step) {
                Ok((offer, descriptors)) => break (conversation, offer, descriptors),
                // It has just given its queues to another, which listens there now, or soon.
                Err(error) if error.kind() != io::ErrorKind::TimedOut && began.elapsed() < limits.step => {
                    thread::sleep(CALL_STEP);
                }
                Err(error) => return Err(failed(format!("it offers nothing: {error}"))),
            }
        };
        Self::new(conversation, path_text.clone(), limits, offer, descriptors)
            .map(Some)
            .map_err(|error| failed(error.to_string()))
    }

    fn new(
        conversation: Conversation,
        path: String,
        limits: Limits,
        offer: Offer,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<Self> {
        if offer.version != VERSION {
            return Err(io::Error::other(format!(
                "it speaks version {} of the take-over, and this program version {VERSION}",
                offer.version
            )));
        }
        if offer.object != object_hash() {
            return Err(io::Error::other(
                "it has another XDP program, whose maps this one cannot use",
            ));
        }
        let max_frame = max_frame(offer.mtu);
        let mut descriptors = descriptors.into_iter();
        let mut next = || {
            descriptors
                .next()
                .ok_or_else(|| io::Error::other("descriptors are missing"))
        };
        let mut maps = Vec::new();
        for name in &offer.maps {
            maps.push((name.clone(), next()?));
        }
        let mut links = Vec::new();
        for _ in &offer.devices {
            links.push(next()?);
        }
        let life = next()?;
        let mut earlier = Vec::new();
        // Place 1 is that of the process which makes the offer.
        for (place, &first) in (2..).zip(&offer.earlier) {
            let (life, conversation) = (next()?, next()?.into());
            let mut relays = Vec::new();
            for _ in 0..offer.queues {
                relays.push(Relay::open([next()?, next()?, next()?], max_frame)?);
            }
            earlier.push(Earlier {
                place,
                first,
                relays,
                life,
                conversation,
            });
        }
        let taken: Vec<u16> = offer.earlier.iter().copied().chain([offer.first]).collect();
        let first = free_numbers(offer.queues as u16, &taken).ok_or_else(|| {
            io::Error::other("too many processes before it have connections yet; wait until some end")
        })?;
        let relays = (0..offer.queues).map(|_| Relay::new(max_frame));
        Ok(Self {
            relays: relays.collect::<Result<_, _>>()?,
            nowhere: options::unbound()?,
            conversation,
            path,
            limits,
            offer,
            maps,
            links,
            life,
            earlier,
            first,
        })
    }

    fn failed(&self, reason: impl Into<String>) -> Error {
        Error::TakeOver {
            path: self.path.clone(),
            reason: reason.into(),
        }
    }

    /// Checks that this process would serve the same queues of the same devices.
    ///
    /// # Errors
    ///
    /// [`Error::TakeOver`].
    pub(crate) fn check(&self, devices: &[&str], queues: u32, program: &str) -> Result<(), Error> {
        let Offer {
            devices: its_devices,
            queues: its_queues,
            program: its_program,
            ..
        } = &self.offer;
        if its_devices != devices {
            return Err(self.failed(format!(
                "it serves {}, and this program is to serve {}",
                its_devices.join(" and "),
                devices.join(" and ")
            )));
        }
        if *its_queues != queues {
            return Err(self.failed(format!(
                "it serves {its_queues} queues, and this program is to serve {queues}; they must be as many"
            )));
        }
        if its_program != program {
            return Err(self.failed(format!(
                "it runs the XDP program {its_program}, and the settings of this one need {program}"
            )));
        }
        Ok(())
    }

    /// By device, where the kernel runs the program.
    pub(crate) fn attached(&self) -> Vec<Attached> {
        let generic = self.offer.generic.iter();
        generic
            .map(|&generic| if generic { Attached::Generic } else { Attached::Native })
            .collect()
    }

    /// The secret of its SYN cookies.
    pub(crate) fn secret(&self) -> Key {
        let [first, second] = self.offer.secret;
        Key(first, second)
    }

    /// The numbers of the first shards of the processes before this one, this predecessor's first.
    pub(crate) fn numbers(&self) -> Arc<[u16]> {
        let earlier = self.earlier.iter().map(|earlier| earlier.first);
        [self.offer.first].into_iter().chain(earlier).collect()
    }

    /// Has it close its sockets. Its shards go on by relays from then on, so that this process has to serve soon.
    ///
    /// # Errors
    ///
    /// [`Error::TakeOver`] when it does not.
    pub(crate) fn release(&self) -> Result<(), Error> {
        let relays = self.relays.iter().flat_map(|relay| relay.descriptors());
        let descriptors: Vec<_> = [self.nowhere.as_fd()].into_iter().chain(relays).collect();
        self.conversation
            .send(&Word::Ready, &descriptors)
            .and_then(|()| self.conversation.expect(Word::Released, self.limits.step))
            .map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => self
                    .failed(
                        "it has given this program up, as it does when that is not ready in time \
                         (afxdp.take_over_preparation of the server that runs); its log says why",
                    ),
                io::ErrorKind::TimedOut => self.failed(format!(
                    "it does not release its sockets within {:?} (afxdp.take_over_timeout)",
                    self.limits.step
                )),
                _ => self.failed(format!("it does not release its sockets: {error}")),
            })
    }

    /// The processes that have connections yet, the last one first. They need relays.
    pub(crate) fn into_earlier(self) -> Vec<Earlier> {
        let last = Earlier {
            place: 1,
            first: self.offer.first,
            relays: self.relays,
            life: self.life,
            conversation: self.conversation,
        };
        [last].into_iter().chain(self.earlier).collect()
    }
}

/// Says to the process before this one, which listened at `path`, that this one serves now.
///
/// # Errors
///
/// [`Error::TakeOver`] when it has waited too long, and serves itself again, or is about to.
pub(crate) fn tell_taken(earlier: &[Earlier], path: &Path) -> Result<(), Error> {
    let Some(last) = earlier.first() else { return Ok(()) };
    match last.conversation.send(&Word::Taken, &[]) {
        Err(_) if !last.has_ended() => Err(Error::TakeOver {
            path: path.display().to_string(),
            reason: "it has waited longer for this program to bind its queues than afxdp.take_over_timeout of its \
                     settings lets it"
                .to_owned(),
        }),
        // One that has ended has no connections that it could hear of.
        _ => Ok(()),
    }
}

/// The first of as many numbers of shards that no process has.
fn free_numbers(shards: u16, taken: &[u16]) -> Option<u16> {
    let mut firsts = (0..NUMBERS / shards.max(1)).map(|place| place * shards);
    firsts.find(|first| !taken.contains(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_free_when_no_process_has_them() {
        assert_eq!(free_numbers(2, &[0]), Some(2));
        assert_eq!(free_numbers(2, &[0, 2, 6]), Some(4));
        assert_eq!(free_numbers(64, &[0]), None);
        assert_eq!(free_numbers(48, &[0]), None, "there are 64");
        assert_eq!(free_numbers(32, &[32]), Some(0));
    }
}
