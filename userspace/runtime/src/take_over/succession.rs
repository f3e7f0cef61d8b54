//! The earlier process's part in a take-over: it offers its devices, gives them away, and has them back when the later
//! process fails.

use core::time::Duration;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use tidegate_abi::siphash::Key;

use super::conversation::{Conversation, Door, MAX_DESCRIPTORS, Offer, Word, is_hung_up};
use super::{Earlier, Limits, NUMBERS, VERSION, free_numbers, max_frame, object_hash};
use crate::error::Error;
use crate::relay::Relay;
use crate::xdp::{Attached, Steering};

/// The progress of giving the devices to the next process.
enum State {
    /// Nobody has called.
    Alone,
    /// Somebody was made an offer, and prepares.
    Offered { conversation: Conversation, since: Instant },
    /// The sockets are closed, and the next process binds its own.
    Released {
        conversation: Conversation,
        /// In the kernel's map in the place of the sockets.
        nowhere: OwnedFd,
        since: Instant,
    },
    /// It has failed, and this process does not have the devices yet.
    Failing(Failing),
    /// It has failed, this process serves again, and it has not ended yet.
    Failed(Conversation),
    /// It serves.
    Taken(Conversation),
}

/// The next step of the runtime towards the process that takes over.
pub(crate) enum Step {
    Nothing,
    /// The shards are to release their ports, and the kernel to give what arrives to the socket.
    Release {
        nowhere: OwnedFd,
        relays: Vec<Arc<Relay>>,
        conversation: Next,
    },
    /// The shards need ports again. Until they have them, the kernel drops what arrives by the socket.
    Resume(Failing),
    /// The process that failed has ended, whose first shard has this number in the flow filter.
    Forget(u16),
    /// The other process serves.
    Leave,
    /// It did, and is no more.
    Lost,
}

/// A conversation that [`Succession::released`] goes on with.
pub(crate) struct Next(Conversation);

/// The state of things until this process has its devices back.
pub(crate) struct Failing {
    conversation: Conversation,
    /// In the place of the sockets.
    _nowhere: OwnedFd,
    /// The time of the next attempt.
    retry_at: Instant,
    /// A log line says that it is waited for.
    is_told: bool,
}

impl Failing {
    /// Logs `line`, if it is the first one.
    pub(crate) fn tell_once(&mut self, line: impl FnOnce()) {
        if !core::mem::replace(&mut self.is_told, true) {
            line();
        }
    }

    /// Whether the process that failed may have sockets yet.
    pub(crate) fn lives(&self) -> bool {
        !is_hung_up(&self.conversation)
    }
}

/// The giving of the devices to the next process.
pub(crate) struct Succession {
    door: Option<Door>,
    state: State,
    /// Open as long as this process lives; the next one has the other end.
    _life: OwnedFd,
    life: OwnedFd,
    secret: Key,
    limits: Limits,
    /// The number in the flow filter that the first shard of the process has which was made the last offer.
    next_first: u16,
    /// The path could not be had back.
    is_shut: bool,
}

impl Succession {
    /// Lets others take over at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(crate) fn new(path: &Path, secret: Key, limits: Limits) -> Result<Self, Error> {
        let failed = |error| Error::io(format!("cannot let others take over at {}", path.display()), error);
        let door = Door::open(path).map_err(failed)?;
        let (life, own) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| failed(errno.into()))?;
        Ok(Self {
            door: Some(door),
            state: State::Alone,
            _life: own,
            life,
            secret,
            limits,
            next_first: NUMBERS,
            is_shut: false,
        })
    }

    /// Whether another process has the devices, or is about to.
    pub(crate) fn has_begun(&self) -> bool {
        matches!(self.state, State::Released { .. } | State::Failing(_) | State::Taken(_))
    }

    /// Whether another process has them.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.state, State::Taken(_))
    }

    /// The step that is due. `offer` makes the offer to a process that calls.
    pub(crate) fn step(&mut self, queues: u32, mtu: u16, offer: impl FnOnce(Key) -> io::Result<Offering>) -> Step {
        match core::mem::replace(&mut self.state, State::Alone) {
            State::Alone => {
                if self.is_shut {
                    self.reopen();
                }
                if let Some(conversation) = self.door.as_ref().and_then(Door::answer) {
                    self.offer(conversation, offer(self.secret));
                }
                Step::Nothing
            }
            State::Offered { conversation, since } => {
                if !conversation.has_news() {
                    if since.elapsed() < self.limits.preparation {
                        self.state = State::Offered { conversation, since };
                    } else {
                        tracing::warn!(
                            "the process that was to take over is not ready after {:?} (afxdp.take_over_preparation), \
                             and is waited for no longer; this one goes on",
                            self.limits.preparation
                        );
                    }
                    return Step::Nothing;
                }
                match ready(&conversation, queues, mtu) {
                    Ok((nowhere, relays)) => Step::Release {
                        nowhere,
                        relays,
                        conversation: Next(conversation),
                    },
                    Err(error) => {
                        tracing::warn!("the process that was to take over has given up ({error}); this one goes on");
                        Step::Nothing
                    }
                }
            }
            State::Released {
                conversation,
                nowhere,
                since,
            } => {
                if !conversation.has_news() && since.elapsed() < self.limits.step {
                    self.state = State::Released {
                        conversation,
                        nowhere,
                        since,
                    };
                    return Step::Nothing;
                }
                match conversation.expect(Word::Taken, Duration::ZERO) {
                    Ok(()) => {
                        self.state = State::Taken(conversation);
                        // The next process listens there.
                        self.door = None;
                        Step::Leave
                    }
                    Err(error) => {
                        tracing::warn!("the process that was to take over has failed ({error}); this one goes on");
                        // If it lives yet, it is to learn that it comes too late.
                        conversation.refuse();
                        Step::Resume(Failing {
                            conversation,
                            _nowhere: nowhere,
                            retry_at: Instant::now(),
                            is_told: false,
                        })
                    }
                }
            }
            State::Failing(failing) if Instant::now() < failing.retry_at => {
                self.state = State::Failing(failing);
                Step::Nothing
            }
            State::Failing(failing) => Step::Resume(failing),
            State::Failed(conversation) => {
                if is_hung_up(&conversation) {
                    return Step::Forget(self.next_first);
                }
                self.state = State::Failed(conversation);
                Step::Nothing
            }
            State::Taken(conversation) => {
                let is_lost = is_hung_up(&conversation);
                self.state = State::Taken(conversation);
                if is_lost { Step::Lost } else { Step::Nothing }
            }
        }
    }

    fn offer(&mut self, conversation: Conversation, offering: io::Result<Offering>) {
        let sent = offering.and_then(|offering| {
            self.next_first = offering.next_first()?;
            let descriptors = offering.descriptors(&self.life);
            if descriptors.len() > MAX_DESCRIPTORS {
                return Err(io::Error::other(
                    "too many processes before this one have connections yet",
                ));
            }
            let borrowed: Vec<_> = descriptors.iter().map(|fd| fd.as_fd()).collect();
            conversation.send(&offering.offer, &borrowed)
        });
        match sent {
            Ok(()) => {
                self.state = State::Offered {
                    conversation,
                    since: Instant::now(),
                }
            }
            Err(error) => tracing::warn!("cannot offer the interface to another process: {error}"),
        }
    }

    /// The shards have released their ports.
    pub(crate) fn released(&mut self, nowhere: OwnedFd, Next(conversation): Next) {
        // Whether it still listens, the next step finds.
        let _ = conversation.send(&Word::Released, &[]);
        self.state = State::Released {
            conversation,
            nowhere,
            since: Instant::now(),
        };
    }

    /// This process does not have the devices yet, and tries again with the first step after `pause`.
    pub(crate) fn wait_for_devices(&mut self, mut failing: Failing, pause: Duration) {
        failing.retry_at = Instant::now() + pause;
        self.state = State::Failing(failing);
    }

    /// This process has the devices again, and lets others take over as before, when the one that failed has ended.
    pub(crate) fn resume(&mut self, failing: Failing) {
        self.state = State::Failed(failing.conversation);
        self.reopen();
    }

    /// Listens at the path again, where the other process may have listened.
    fn reopen(&mut self) {
        let Some(door) = &mut self.door else { return };
        match door.reopen() {
            Ok(()) => self.is_shut = false,
            Err(error) => {
                if !self.is_shut {
                    tracing::warn!("no process can take over from this one: {error}; it is tried again");
                }
                self.is_shut = true;
            }
        }
    }
}

/// An offer with its descriptors.
pub(crate) struct Offering {
    offer: Offer,
    program: Vec<OwnedFd>,
    earlier: Vec<OwnedFd>,
}

impl Offering {
    /// The offer of a server whose first shard has number `first`.
    pub(crate) fn new(
        steering: &Steering,
        devices: &[String],
        queues: u32,
        mtu: u16,
        secret: Key,
        first: u16,
        earlier: &[Earlier],
    ) -> io::Result<Self> {
        let (maps, mut program) = steering.maps()?;
        program.extend(steering.links()?);
        let descriptors = earlier.iter().flat_map(Earlier::descriptors);
        Ok(Self {
            offer: Offer {
                version: VERSION,
                object: object_hash(),
                program: steering.program().to_owned(),
                first,
                queues,
                devices: devices.to_vec(),
                generic: steering
                    .attached_to()
                    .map(|attached| attached == Attached::Generic)
                    .collect(),
                mtu,
                secret: [secret.0, secret.1],
                maps,
                earlier: earlier.iter().map(|earlier| earlier.first).collect(),
            },
            earlier: descriptors
                .map(|fd| fd.try_clone_to_owned())
                .collect::<Result<_, _>>()?,
            program,
        })
    }

    /// The number of the first shard of the process that takes it.
    fn next_first(&self) -> io::Result<u16> {
        let taken: Vec<u16> = self.offer.earlier.iter().copied().chain([self.offer.first]).collect();
        free_numbers(self.offer.queues as u16, &taken)
            .ok_or_else(|| io::Error::other("too many processes before this one have connections yet"))
    }

    fn descriptors<'a>(&'a self, life: &'a OwnedFd) -> Vec<&'a OwnedFd> {
        self.program.iter().chain([life]).chain(&self.earlier).collect()
    }
}

/// The answer to an offer: the socket that receives nothing, and the relays.
fn ready(conversation: &Conversation, queues: u32, mtu: u16) -> io::Result<(OwnedFd, Vec<Arc<Relay>>)> {
    let (word, descriptors) = conversation.receive::<Word>(Duration::ZERO)?;
    if word != Word::Ready || descriptors.len() != 1 + 3 * queues as usize {
        return Err(io::Error::other("it does not answer the offer"));
    }
    let max_frame = max_frame(mtu);
    let mut descriptors = descriptors.into_iter();
    let mut next = || descriptors.next().ok_or(io::ErrorKind::InvalidData);
    let nowhere = next()?;
    let relays = (0..queues).map(|_| Relay::open([next()?, next()?, next()?], max_frame));
    Ok((nowhere, relays.collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::{Predecessor, tell_taken};
    use super::*;

    const LIMITS: Limits = Limits {
        preparation: Duration::from_secs(60),
        step: Duration::from_secs(10),
    };
    const SOON: Duration = LIMITS.step;
    const QUEUES: u32 = 2;
    const MTU: u16 = 1500;

    /// The offer of a process whose first shard has number 0, and which is the first.
    fn offering() -> Offering {
        Offering {
            offer: Offer {
                version: VERSION,
                object: object_hash(),
                program: "tidegate".to_owned(),
                first: 0,
                queues: QUEUES,
                devices: Vec::new(),
                generic: Vec::new(),
                mtu: MTU,
                secret: [1, 2],
                maps: Vec::new(),
                earlier: Vec::new(),
            },
            program: Vec::new(),
            earlier: Vec::new(),
        }
    }

    fn step(succession: &mut Succession) -> Step {
        succession.step(QUEUES, MTU, |_| Ok(offering()))
    }

    /// Another process takes over until this one has released its sockets.
    fn release(succession: &mut Succession, path: &Path) -> Predecessor {
        thread::scope(|scope| {
            let called = scope.spawn(|| {
                let predecessor = Predecessor::call(path, LIMITS).expect("an offer").expect("it is there");
                predecessor.release().expect("it releases them");
                predecessor
            });
            let began = Instant::now();
            while !called.is_finished() {
                assert!(began.elapsed() < SOON, "it does not get on");
                if let Step::Release {
                    nowhere,
                    relays,
                    conversation,
                } = step(succession)
                {
                    assert_eq!(relays.len(), QUEUES as usize);
                    succession.released(nowhere, conversation);
                }
            }
            called.join().expect("it has taken over so far")
        })
    }

    #[test]
    fn a_process_that_serves_is_waited_for_and_missed_when_it_has_ended() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("door");
        let mut succession = Succession::new(&path, Key(1, 2), LIMITS).expect("a socket");
        let later = release(&mut succession, &path);
        assert_eq!(later.first, 2);
        assert!(succession.has_begun() && !succession.is_complete());
        assert!(matches!(step(&mut succession), Step::Nothing));
        let earlier = later.into_earlier();
        let next = Succession::new(&path, Key(1, 2), LIMITS).expect("a socket");
        tell_taken(&earlier, &path).expect("it waits");
        assert!(matches!(step(&mut succession), Step::Leave));
        assert!(succession.is_complete() && matches!(step(&mut succession), Step::Nothing));
        assert!(
            Conversation::call(&path).expect("a call").is_some(),
            "the path is the next one's"
        );
        drop(earlier);
        assert!(matches!(step(&mut succession), Step::Lost));
        drop(succession);
        assert!(path.exists());
        drop(next);
        assert!(!path.exists());
    }

    #[test]
    fn after_a_process_that_fails_another_can_take_over_when_that_has_ended() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("door");
        let mut succession = Succession::new(&path, Key(1, 2), LIMITS).expect("a socket");
        for _ in 0..2 {
            let later = release(&mut succession, &path);
            let door = Succession::new(&path, Key(1, 2), LIMITS).expect("a socket");
            drop(later);
            let Step::Resume(failing) = step(&mut succession) else {
                panic!("it goes on")
            };
            assert!(!failing.lives());
            // Sockets are closed later than the conversation.
            succession.wait_for_devices(failing, LIMITS.preparation);
            assert!(matches!(step(&mut succession), Step::Nothing), "it is too early");
            assert!(succession.has_begun());
            if let State::Failing(failing) = &mut succession.state {
                failing.retry_at = Instant::now();
            }
            let Step::Resume(failing) = step(&mut succession) else {
                panic!("it tries again")
            };
            succession.resume(failing);
            assert!(!succession.has_begun());
            assert!(matches!(step(&mut succession), Step::Forget(2)));
            drop(door);
        }
    }

    #[test]
    fn a_process_that_is_too_late_learns_it_and_no_other_takes_over_before_it_ends() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("door");
        let mut succession = Succession::new(&path, Key(1, 2), LIMITS).expect("a socket");
        let earlier = release(&mut succession, &path).into_earlier();
        let State::Released { since, .. } = &mut succession.state else {
            panic!("it waits")
        };
        *since = since.checked_sub(SOON).expect("the machine has run for so long");
        let Step::Resume(failing) = step(&mut succession) else {
            panic!("it goes on")
        };
        assert!(failing.lives());
        succession.resume(failing);
        let error = tell_taken(&earlier, &path).expect_err("too late").to_string();
        assert!(error.contains("afxdp.take_over_timeout"), "{error}");
        let caller = Conversation::call(&path).expect("a call").expect("it is there");
        assert!(matches!(step(&mut succession), Step::Nothing));
        assert!(!caller.has_news(), "not yet");
        drop(earlier);
        assert!(matches!(step(&mut succession), Step::Forget(2)));
        assert!(matches!(step(&mut succession), Step::Nothing));
        caller.receive::<Offer>(SOON).expect("an offer");
    }

    #[test]
    fn an_offer_holds_for_a_while() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("door");
        let mut succession = Succession::new(&path, Key(1, 2), LIMITS).expect("a socket");
        let call = || Conversation::call(&path).expect("a call").expect("it is there");
        let (silent, next) = (call(), call());
        assert!(matches!(step(&mut succession), Step::Nothing));
        assert!(matches!(step(&mut succession), Step::Nothing));
        silent.receive::<Offer>(SOON).expect("an offer");
        assert!(!silent.has_news() && !next.has_news());
        let State::Offered { since, .. } = &mut succession.state else {
            panic!("it waits")
        };
        *since = since
            .checked_sub(LIMITS.preparation)
            .expect("the machine has run for so long");
        assert!(matches!(step(&mut succession), Step::Nothing));
        assert!(is_hung_up(&silent));
        assert!(matches!(step(&mut succession), Step::Nothing));
        next.receive::<Offer>(SOON).expect("an offer");
    }

    #[test]
    fn the_path_is_had_back_as_soon_as_it_is_free() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("door");
        let mut succession = Succession::new(&path, Key(1, 2), LIMITS).expect("a socket");
        drop(release(&mut succession, &path));
        std::fs::remove_file(&path).expect("a socket");
        std::fs::write(&path, "").expect("a file");
        let Step::Resume(failing) = step(&mut succession) else {
            panic!("it goes on")
        };
        succession.resume(failing);
        assert!(matches!(step(&mut succession), Step::Forget(2)));
        assert!(matches!(step(&mut succession), Step::Nothing));
        std::fs::remove_file(&path).expect("a file");
        assert!(matches!(step(&mut succession), Step::Nothing));
        release(&mut succession, &path);
    }
}
