//! A place among the programs of a dispatcher, by libxdp's protocol (`lib/libxdp/protocol.org` of xdp-tools).
//!
//! The dispatcher is the program on the interface. Others run in the places of functions of it, in the order of their
//! priorities, and are kept there by links pinned below a directory of the dispatcher's own. It is never changed: who
//! comes or goes makes another with the programs there are to be, and has the kernel replace the one by the other in
//! one step, unless somebody else was faster.

mod object;
mod pins;

use core::sync::atomic::{AtomicU32, Ordering};
use std::io;
use std::os::fd::AsFd as _;

use aya::maps::{Array, Map, MapData};
use aya::programs::links::FdLink;
use aya::programs::{Extension, ProgramError, ProgramFd, Xdp, loaded_programs};
use aya::{Ebpf, EbpfLoader};
use nix::net::if_::if_nametoindex;
use tidegate_abi::dispatcher::{CONTINUE, Config, MAGIC, MAX_PROGRAMS, VERSION};
use tidegate_abi::{PROGRAM_STEER, PROGRAM_STEER_BALANCED};

#[cfg(test)]
pub(super) use self::object::DISPATCHER as DISPATCHER_OBJECT;
pub(super) use self::object::without_trimming;
use self::pins::{Claim, Pins, bpffs};
use super::netlink::{self, Place};
use super::present::{DISPATCHER, PresentProgram, programs_on};
use super::{Attached, Refusal, errno, missing, program_load_error};
use crate::capability::NEEDED_BELOW_DISPATCHER;
use crate::config::XdpMode;
use crate::error::{Error, with_causes};

/// Attempts to replace a dispatcher that others replace as well.
const MAX_ATTEMPTS: u32 = 10;

/// The action after which the programs behind tidegate's are run: what is not for it.
const PASS: u32 = 2;

/// tidegate's program below a dispatcher.
pub(super) struct Membership {
    interface: String,
    index: u32,
    /// The number of the program.
    program: u32,
    place: Place,
    /// The last dispatcher that was seen to run it.
    dispatcher: AtomicU32,
    pins: Pins,
    _claim: Claim,
}

/// A program below a dispatcher, or to be.
struct Member<P> {
    program: P,
    name: String,
    priority: u32,
    actions: u32,
    flags: u32,
}

/// A dispatcher on an interface.
struct Dispatcher {
    id: u32,
    fd: ProgramFd,
    place: Place,
    members: Vec<Member<Extension>>,
}

/// A dispatcher that is on no interface yet, with its programs linked and pinned.
struct Built {
    id: u32,
    program: Ebpf,
}

/// Why an interface's dispatcher was not replaced.
enum Failure {
    /// Another is there by now.
    Raced,
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl Membership {
    /// Loads the program of `ebpf` and has it run on `interface` by a dispatcher: with those that are below one there,
    /// in the place that is due to its priority, or alone.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyAttached`] with programs that are below no dispatcher, [`Error::Dispatcher`], and those of
    /// loading and attaching.
    pub(super) fn join(
        interface: &str,
        mode: XdpMode,
        priority: u32,
        name: &str,
        ebpf: &mut Ebpf,
    ) -> Result<Self, Error> {
        if name == PROGRAM_STEER_BALANCED {
            tracing::warn!(
                "the XDP program on {interface} changes the length of packets, as it has to behind balancers: libxdp \
                 before 1.5.5 on Linux 6.13 or later (and 6.12 in Debian 13) can neither add other programs nor remove \
                 them while it is there"
            );
        }
        let failed = |reason: String| dispatcher_error(interface, reason);
        let index = if_nametoindex(interface).map_err(|errno| failed(errno.to_string()))?;
        let pins = Pins::open(index).map_err(failed)?;
        let claim = pins.claim().map_err(failed)?;
        let own: &mut Extension = ebpf
            .program_mut(name)
            .ok_or_else(|| missing(name))?
            .try_into()
            .map_err(|error: ProgramError| Error::Load(with_causes(&error)))?;
        let mut site = Site { interface, index, pins };
        for _ in 0..MAX_ATTEMPTS {
            match site.add(own, mode, priority) {
                Ok((dispatcher, place)) => {
                    let program = own.info().map_err(|error| failed(with_causes(&error)))?.id();
                    return Ok(Self {
                        interface: interface.to_owned(),
                        index,
                        program,
                        place,
                        dispatcher: AtomicU32::new(dispatcher),
                        pins: site.pins,
                        _claim: claim,
                    });
                }
                Err(Failure::Raced) => {}
                Err(Failure::Final(error)) => return Err(error),
            }
        }
        Err(Error::already_attached(interface))
    }

    /// Where the kernel runs the dispatcher.
    pub(super) fn attached(&self) -> Attached {
        match self.place {
            Place::Generic => Attached::Generic,
            Place::Native | Place::Offloaded => Attached::Native,
        }
    }

    /// Whether the dispatcher on the interface runs the program, as far as can be told.
    pub(super) fn is_attached(&self) -> bool {
        let Ok(programs) = netlink::programs(self.index) else {
            return true;
        };
        let Some(&(_, id)) = programs.first() else {
            return false;
        };
        if id == self.dispatcher.load(Ordering::Relaxed) {
            return true;
        }
        // Somebody has come or gone.
        let is_member = self.pins.place_of(id, self.program).is_some();
        if is_member {
            self.dispatcher.store(id, Ordering::Relaxed);
        }
        is_member
    }

    /// Takes the program away, and the dispatcher if it was the last.
    fn leave(&self) -> Result<(), Error> {
        for _ in 0..MAX_ATTEMPTS {
            match self.remove() {
                Err(Failure::Raced) => {}
                Err(Failure::Final(error)) => return Err(error),
                Ok(()) => return Ok(()),
            }
        }
        Err(dispatcher_error(
            &self.interface,
            "others keep changing them".to_owned(),
        ))
    }

    fn remove(&self) -> Result<(), Failure> {
        let site = Site {
            interface: &self.interface,
            index: self.index,
            pins: self.pins.clone(),
        };
        let _lock = site.lock()?;
        // Gone, or moved to another network namespace; or somebody else has removed them all.
        let Some(old) = site.read().unwrap_or(None) else {
            self.pins.forget(self.program);
            return Ok(());
        };
        let Some(own) = self.pins.place_of(old.id, self.program) else {
            self.pins.forget(self.program);
            return Ok(());
        };
        let Dispatcher {
            id,
            fd,
            place,
            mut members,
        } = old;
        members.remove(own);
        let mut others: Vec<Member<&mut Extension>> = members.iter_mut().map(Member::by_reference).collect();
        if others.is_empty() {
            netlink::replace(self.index, place, Some(fd.as_fd()), None).map_err(|error| site.refused(&error, true))?;
        } else {
            let built = site.build(&mut others)?;
            site.swap(built, place, Some(&fd))?;
        }
        self.pins.remove(id);
        Ok(())
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Err(error) = self.leave() {
            tracing::error!(
                "the XDP program stays on {} and passes everything: {error}",
                self.interface
            );
        }
    }
}

/// An interface, and where its dispatchers are pinned.
struct Site<'a> {
    interface: &'a str,
    index: u32,
    pins: Pins,
}

impl Site<'_> {
    /// Adds a program to those on the interface. Returns the dispatcher's number, and where it runs.
    fn add(&mut self, own: &mut Extension, mode: XdpMode, priority: u32) -> Result<(u32, Place), Failure> {
        let _lock = self.lock()?;
        let mut old = self.read()?;
        // The process with the claim is the only tidegate here: another is the rest of one that was killed.
        if let Some(old) = &mut old {
            old.members.retain(|member| !member.name.starts_with(PROGRAM_STEER));
        }
        // Its dispatcher has no other: the place is chosen anew.
        if let Some(rest) = old.take_if(|old| old.members.is_empty()) {
            netlink::replace(self.index, rest.place, Some(rest.fd.as_fd()), None)
                .map_err(|error| self.refused(&error, true))?;
            self.pins.remove(rest.id);
        }
        let mut members = match &mut old {
            Some(old) => old.members.iter_mut().map(Member::by_reference).collect(),
            None => Vec::new(),
        };
        members.push(Member {
            program: own,
            name: PROGRAM_STEER.to_owned(),
            priority,
            actions: 1 << PASS,
            flags: 0,
        });
        if members.len() > MAX_PROGRAMS {
            let reason = format!("there are {MAX_PROGRAMS} already, as many as there can be");
            return Err(self.error(reason).into());
        }
        // As libxdp does where priorities are the same; what is there already is first.
        members.sort_by(|one, other| (one.priority, &one.name).cmp(&(other.priority, &other.name)));
        let built = self.build(&mut members)?;
        let dispatcher = built.id;
        let Some(old) = old else {
            return Ok((dispatcher, self.swap_in(built, mode)?));
        };
        let unlike = match old.place {
            Place::Native | Place::Offloaded => mode == XdpMode::Generic,
            Place::Generic => mode == XdpMode::Native,
        };
        if unlike {
            self.pins.remove(dispatcher);
            return Err(self
                .error("they run in the other mode; use xdp_mode = \"auto\"".to_owned())
                .into());
        }
        self.swap(built, old.place, Some(&old.fd))?;
        self.pins.remove(old.id);
        Ok((dispatcher, old.place))
    }

    /// Puts a dispatcher on an interface without a program, in the driver if `mode` lets it and the driver does.
    fn swap_in(&self, built: Built, mode: XdpMode) -> Result<Place, Failure> {
        if mode != XdpMode::Generic {
            match netlink::replace(self.index, Place::Native, None, Some(built.fd()?.as_fd())) {
                Ok(()) => return Ok(Place::Native),
                Err(error) if mode == XdpMode::Auto && Refusal::of(error.raw_os_error()) == Refusal::Unsupported => {
                    super::warn_of_fallback(self.interface, &error.to_string());
                }
                Err(error) => {
                    self.pins.remove(built.id);
                    return Err(self.refused(&error, false));
                }
            }
        }
        self.swap(built, Place::Generic, None)?;
        Ok(Place::Generic)
    }

    /// Puts a dispatcher in the place of `old`. If it cannot be done, it is gone.
    fn swap(&self, built: Built, place: Place, old: Option<&ProgramFd>) -> Result<(), Failure> {
        let old = old.map(ProgramFd::as_fd);
        netlink::replace(self.index, place, old, Some(built.fd()?.as_fd())).map_err(|error| {
            self.pins.remove(built.id);
            self.refused(&error, old.is_some())
        })
    }

    /// The meaning of the kernel's refusal to attach a dispatcher.
    fn refused(&self, error: &io::Error, replaces: bool) -> Failure {
        match Refusal::of(error.raw_os_error()) {
            // Each attempt begins with what is there.
            Refusal::AlreadyAttached => Failure::Raced,
            Refusal::Unsupported if replaces => self.error(error.to_string()).into(),
            refusal => refusal.into_error(self.interface, error.to_string()).into(),
        }
    }

    /// Reads what is on the interface; `None`: nothing is.
    fn read(&self) -> Result<Option<Dispatcher>, Error> {
        let programs = programs_on(self.index).map_err(|error| self.error(error.to_string()))?;
        match programs.as_slice() {
            [] => Ok(None),
            [program] if program.is_dispatcher() => self.read_dispatcher(program).map(Some),
            _ => Err(Error::AlreadyAttached {
                name: self.interface.to_owned(),
                programs,
            }),
        }
    }

    fn read_dispatcher(&self, program: &PresentProgram) -> Result<Dispatcher, Error> {
        let PresentProgram { id, place, .. } = *program;
        let failed = |error: &dyn std::error::Error| self.error(with_causes(error));
        let info = loaded_programs()
            .filter_map(Result::ok)
            .find(|info| info.id() == id)
            .ok_or_else(|| self.error(format!("the kernel does not show program {id}")))?;
        let maps = info.map_ids().map_err(|error| failed(&error))?.unwrap_or_default();
        let [map] = maps[..] else {
            return Err(self.error(format!("program {id} is no dispatcher, it has {} maps", maps.len())));
        };
        let map = MapData::from_id(map).map_err(|error| failed(&error))?;
        let config = Array::<MapData, Config>::try_from(Map::Array(map))
            .and_then(|map| map.get(&0, 0))
            .ok()
            .filter(|config| config.magic == MAGIC && config.version == VERSION)
            .filter(|config| usize::from(config.programs) <= MAX_PROGRAMS)
            .ok_or_else(|| {
                self.error(format!(
                    "their dispatcher is not of version {VERSION} of libxdp's protocol, as those of xdp-tools 1.3 to 1.5"
                ))
            })?;
        let members = (0..usize::from(config.programs)).map(|place| {
            let path = self.pins.program(id, place);
            let program = Extension::from_pin(&path)
                .map_err(|error| self.error(format!("{} cannot be read: {}", path.display(), with_causes(&error))))?;
            let info = program.info().map_err(|error| failed(&error))?;
            Ok(Member {
                name: info.name_as_str().unwrap_or_default().to_owned(),
                program,
                priority: config.priorities[place],
                actions: config.chain_call_actions[place],
                flags: config.flags[place],
            })
        });
        Ok(Dispatcher {
            id,
            fd: info.fd().map_err(|error| failed(&error))?,
            place,
            members: members.collect::<Result<_, Error>>()?,
        })
    }

    /// Makes a dispatcher that runs `members`, loading the one of them that is not yet.
    fn build(&self, members: &mut [Member<&mut Extension>]) -> Result<Built, Error> {
        let failed = |error: &dyn std::error::Error| self.error(with_causes(error));
        let config = config(members);
        let mut program = EbpfLoader::new()
            .override_global("CONFIG", &config, true)
            .load(object::DISPATCHER)
            .map_err(|error| failed(&error))?;
        let dispatcher: &mut Xdp = program
            .program_mut(DISPATCHER)
            .ok_or_else(|| missing(DISPATCHER))?
            .try_into()
            .map_err(|error: ProgramError| failed(&error))?;
        dispatcher
            .load()
            .map_err(|error| program_load_error(DISPATCHER, &error))?;
        let fd = dispatcher
            .fd()
            .and_then(|fd| Ok(fd.try_clone()?))
            .map_err(|error| failed(&error))?;
        let id = dispatcher.info().map_err(|error| failed(&error))?.id();
        for (place, member) in members.iter_mut().enumerate() {
            let pinned = link(member.program, &fd, place).and_then(|link| {
                self.pins
                    .pin(id, place, link, member.program)
                    .map_err(|error| self.error(error))
            });
            if let Err(error) = pinned {
                self.pins.remove(id);
                return Err(error);
            }
        }
        Ok(Built { id, program })
    }

    fn lock(&self) -> Result<pins::Lock, Error> {
        self.pins.lock().map_err(|error| self.error(error))
    }

    fn error(&self, reason: String) -> Error {
        dispatcher_error(self.interface, reason)
    }
}

impl Built {
    fn fd(&self) -> Result<&ProgramFd, Error> {
        let program: &Xdp = self
            .program
            .program(DISPATCHER)
            .ok_or_else(|| missing(DISPATCHER))?
            .try_into()
            .map_err(|error: ProgramError| Error::Load(with_causes(&error)))?;
        program.fd().map_err(|error| Error::Load(with_causes(&error)))
    }
}

impl Member<Extension> {
    fn by_reference(&mut self) -> Member<&mut Extension> {
        Member {
            program: &mut self.program,
            name: self.name.clone(),
            priority: self.priority,
            actions: self.actions,
            flags: self.flags,
        }
    }
}

/// Checks that there is a file system where dispatchers of `interface` can be pinned.
///
/// # Errors
///
/// [`Error::Dispatcher`].
pub(crate) fn check_bpffs(interface: &str) -> Result<(), Error> {
    bpffs().map(drop).map_err(|reason| dispatcher_error(interface, reason))
}

/// Puts `program` in the place of a function of the dispatcher, for as long as the link is open or pinned.
fn link(program: &mut Extension, dispatcher: &ProgramFd, place: usize) -> Result<FdLink, Error> {
    let function = format!("prog{place}");
    if program.fd().is_err() {
        let dispatcher = dispatcher.try_clone().map_err(|error| Error::Load(error.to_string()))?;
        program.load(dispatcher, &function).map_err(load_error)?;
    }
    program
        .attach_to_program(dispatcher, &function)
        .and_then(|link| program.take_link(link))
        .map(FdLink::from)
        .map_err(|error| Error::Load(with_causes(&error)))
}

fn load_error(error: ProgramError) -> Error {
    if errno(&error) == Some(libc::EPERM) {
        let (capability, what, _) = NEEDED_BELOW_DISPATCHER;
        return Error::NotPermitted {
            what: what.to_owned(),
            capability,
        };
    }
    program_load_error(PROGRAM_STEER, &error)
}

/// The configuration of a dispatcher that runs `members`.
fn config<P>(members: &[Member<P>]) -> Config {
    let mut config = Config {
        programs: members.len() as u8,
        ..Config::EMPTY
    };
    for (place, member) in members.iter().enumerate() {
        config.chain_call_actions[place] = member.actions | 1 << CONTINUE;
        config.priorities[place] = member.priority;
        config.flags[place] = member.flags;
    }
    config
}

fn dispatcher_error(interface: &str, reason: String) -> Error {
    Error::Dispatcher {
        name: interface.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_has_what_libxdp_reads() {
        let member = |name: &str, priority, actions| Member {
            program: (),
            name: name.to_owned(),
            priority,
            actions,
            flags: 0,
        };
        let config = config(&[
            member("xdpfilt_alw_all", 10, 1 << PASS),
            member("tidegate", 50, 1 << 31 | 1),
        ]);
        assert_eq!(
            (config.magic, config.version, config.programs, config.frags),
            (236, 2, 2, 0)
        );
        assert_eq!(config.priorities[..3], [10, 50, 0]);
        assert_eq!(config.chain_call_actions[..3], [0x8000_0004, 0x8000_0001, 0]);
    }
}
