//! The relay between a shard that has the socket of a queue and one of an earlier process that had it before: segments
//! for flows of the earlier one go one way, with the answer whether it knew the flow; its frames go the other way.
//!
//! All of it is in memory that both processes map: two rings of slots, each with one writer and one reader, and their
//! indexes, each written by one side. What does not fit stays where it is: segments wait with the shard they were
//! handed to, and an engine finds no room to send.

mod port;
mod shards;

use core::ptr::NonNull;
use core::slice;
use core::sync::atomic::{AtomicU32, Ordering, fence};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};

pub(crate) use port::RelayPort;
pub(crate) use shards::{RelayedShard, Relays};

/// Segments that may wait for the earlier process, or for its answer to be seen.
const IN_SLOTS: u32 = 512;

/// Frames of the earlier process that may wait to be sent.
const OUT_SLOTS: u32 = 1024;

/// Octets of a slot before its contents.
const SLOT_HEADER: usize = 8;

/// A word on a line of the cache of its own: who writes it does not take the others away from who reads them.
#[repr(C, align(64))]
struct Line(AtomicU32);

/// The beginning of the memory. Indexes count slots and wrap.
#[repr(C)]
struct Header {
    /// Segments given to the earlier process. The later one writes it.
    in_head: Line,
    /// Segments it has answered. The earlier one writes it, as the next two.
    in_done: Line,
    /// Frames to be sent.
    out_head: Line,
    earlier_sleeps: Line,
    /// Frames taken to be sent. The later one writes it.
    out_tail: Line,
    later_sleeps: Line,
}

/// The memory of one shard's relay, and a bell for each side.
#[derive(Debug)]
pub(crate) struct Relay {
    start: NonNull<Header>,
    length: usize,
    slot_size: usize,
    memory: OwnedFd,
    earlier_bell: File,
    later_bell: File,
}

// SAFETY: the memory belongs to no thread; of it, indexes are atomics, and slots are used by the rules of `slot`.
unsafe impl Send for Relay {}
// SAFETY: as above.
unsafe impl Sync for Relay {}

impl Relay {
    /// A relay for frames of up to `max_frame` octets.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn new(max_frame: usize) -> io::Result<Arc<Self>> {
        let slot_size = slot_size(max_frame);
        let memory = memfd_create(c"tidegate-relay", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        File::from(memory.try_clone()?).set_len(length(slot_size) as u64)?;
        fcntl(
            &memory,
            FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL),
        )?;
        let bell = || EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        Self::open([memory, bell()?.into(), bell()?.into()], max_frame)
    }

    /// The relay that another process made, by its descriptors in the order of [`Relay::descriptors`].
    ///
    /// # Errors
    ///
    /// The kernel's, or that it is for frames of another size.
    pub(crate) fn open([memory, earlier_bell, later_bell]: [OwnedFd; 3], max_frame: usize) -> io::Result<Arc<Self>> {
        let slot_size = slot_size(max_frame);
        let length = length(slot_size);
        let file = File::from(memory);
        let seals = SealFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GET_SEALS)?);
        if file.metadata()?.len() != length as u64 || !seals.contains(SealFlag::F_SEAL_SHRINK) {
            return Err(io::Error::other("the memory of a relay is of another size"));
        }
        // SAFETY: the kernel chooses an address where nothing is; the file has so many octets, and cannot shrink.
        let start = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("it was mapped at address 0"))?;
        Ok(Arc::new(Self {
            start,
            length,
            slot_size,
            memory: file.into(),
            earlier_bell: earlier_bell.into(),
            later_bell: later_bell.into(),
        }))
    }

    /// The memory, the bell of the earlier process and that of the later one.
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [self.memory.as_fd(), self.earlier_bell.as_fd(), self.later_bell.as_fd()]
    }

    fn header(&self) -> &Header {
        // SAFETY: the memory is mapped as long as `self`, begins with a header, and any bits are one.
        unsafe { self.start.as_ref() }
    }

    /// The slot with number `index` of the ring that begins `first` slots after the header.
    fn slot(&self, first: u32, slots: u32, index: u32) -> NonNull<u8> {
        let offset = size_of::<Header>() + (first + index % slots) as usize * self.slot_size;
        // SAFETY: it is within the mapping: see `length`.
        unsafe { self.start.cast::<u8>().add(offset) }
    }

    fn in_slot(&self, index: u32) -> NonNull<u8> {
        self.slot(0, IN_SLOTS, index)
    }

    fn out_slot(&self, index: u32) -> NonNull<u8> {
        self.slot(IN_SLOTS, OUT_SLOTS, index)
    }

    /// The room of a slot.
    ///
    /// # Safety
    ///
    /// The slot is between the indexes of the side that calls this, and nothing else refers to it.
    unsafe fn room<'a>(&self, slot: NonNull<u8>) -> &'a mut [u8] {
        // SAFETY: the slot is mapped, has so many octets, and is the caller's.
        unsafe { slice::from_raw_parts_mut(slot.as_ptr().add(SLOT_HEADER), self.slot_size - SLOT_HEADER) }
    }

    /// Writes length and device of what is in a slot.
    ///
    /// # Safety
    ///
    /// As for [`Relay::room`].
    unsafe fn describe(&self, slot: NonNull<u8>, length: usize, device: u8) {
        // SAFETY: a slot begins with these octets, at a multiple of 64.
        unsafe {
            slot.cast::<u32>().write(length as u32);
            slot.add(4).write(device);
        }
    }

    /// The contents of a slot, and the device. A length that cannot be is cut.
    ///
    /// # Safety
    ///
    /// The slot is between the indexes of the side that calls this, which does not write to it meanwhile.
    unsafe fn contents<'a>(&self, slot: NonNull<u8>) -> (&'a [u8], u8) {
        // SAFETY: as in `describe` and `room`.
        unsafe {
            let length = (slot.cast::<u32>().read() as usize).min(self.slot_size - SLOT_HEADER);
            let bytes = slice::from_raw_parts(slot.as_ptr().add(SLOT_HEADER), length);
            (bytes, slot.add(4).read())
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nobody holds a reference into it any more. On failure it stays.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

fn slot_size(max_frame: usize) -> usize {
    (max_frame + SLOT_HEADER).next_multiple_of(64)
}

fn length(slot_size: usize) -> usize {
    size_of::<Header>() + (IN_SLOTS + OUT_SLOTS) as usize * slot_size
}

/// Whether the slot with number `index` is before that with number `other`, of which neither is far from the other.
fn is_before(index: u32, other: u32) -> bool {
    let distance = other.wrapping_sub(index);
    distance != 0 && distance <= u32::MAX / 2
}

/// Wakes the side that `sleeps` is of, if it sleeps or is about to. To be called after what it is to find is in a ring:
/// as with a mailbox's bell, both sides have a sequentially consistent fence between their store and their load.
fn wake(sleeps: &Line, mut bell: &File) {
    fence(Ordering::SeqCst);
    if sleeps.0.load(Ordering::Relaxed) != 0 && sleeps.0.swap(0, Ordering::AcqRel) != 0 {
        // It is full only when it has been rung.
        let _ = bell.write(&1u64.to_ne_bytes());
    }
}

fn announce_sleep(sleeps: &Line) {
    sleeps.0.store(1, Ordering::Relaxed);
    fence(Ordering::SeqCst);
}

fn silence(mut bell: &File) {
    // Nothing to read: it was not rung.
    let _ = bell.read(&mut [0; 8]);
}

/// The side of the later process, which has the socket.
#[derive(Debug)]
pub(crate) struct Later {
    relay: Arc<Relay>,
    in_head: u32,
    /// Answers seen.
    in_seen: u32,
    out_tail: u32,
    /// Whether something was given or taken since the last [`Later::publish`].
    is_changed: bool,
}

impl Later {
    /// The side of a relay that no other process uses any more. What was given to it before, and not answered, is lost.
    pub(crate) fn new(relay: Arc<Relay>) -> Self {
        let header = relay.header();
        let in_head = header.in_head.0.load(Ordering::Acquire);
        Self {
            in_head,
            in_seen: in_head,
            out_tail: header.out_tail.0.load(Ordering::Acquire),
            is_changed: false,
            relay,
        }
    }

    /// The bell that the earlier process rings.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.relay.later_bell.as_fd()
    }

    /// Gives the earlier process a segment. False: there is no room.
    fn give(&mut self, bytes: &[u8], device: u8) -> bool {
        if !self.has_room() || bytes.len() > self.relay.slot_size - SLOT_HEADER {
            return false;
        }
        let slot = self.relay.in_slot(self.in_head);
        // SAFETY: the earlier process reads what is before `in_head`, and has answered what was in this slot.
        unsafe {
            self.relay.room(slot)[..bytes.len()].copy_from_slice(bytes);
            self.relay.describe(slot, bytes.len(), device);
        }
        self.in_head = self.in_head.wrapping_add(1);
        self.is_changed = true;
        true
    }

    fn has_room(&self) -> bool {
        let in_done = self.relay.header().in_done.0.load(Ordering::Acquire);
        // What another process gave before this one may be unanswered yet, so that no answer to it will be seen.
        let unanswered = self.in_head.wrapping_sub(in_done);
        self.in_head.wrapping_sub(self.in_seen).max(unanswered) < IN_SLOTS
    }

    /// Whether the next segment of those given is answered.
    fn is_answered(&self) -> bool {
        let in_done = self.relay.header().in_done.0.load(Ordering::Acquire);
        self.in_seen != self.in_head && is_before(self.in_seen, in_done)
    }

    /// The next answer: whether the segment was taken in.
    fn answer(&mut self) -> Option<bool> {
        if !self.is_answered() {
            return None;
        }
        let slot = self.relay.in_slot(self.in_seen);
        self.in_seen = self.in_seen.wrapping_add(1);
        // SAFETY: the earlier process has written this octet of a slot and is done with it.
        Some(unsafe { slot.add(5).read() } != 0)
    }

    /// Shows `send` up to `limit` frames to be sent, until it does not take one. Returns the number it took.
    fn take_frames(&mut self, limit: usize, mut send: impl FnMut(&[u8], u8) -> bool) -> usize {
        let head = self.relay.header().out_head.0.load(Ordering::Acquire);
        let mut taken = 0;
        while self.out_tail != head && taken < limit {
            // SAFETY: the earlier process has written it, and writes it again only when `out_tail` is behind it.
            let (bytes, device) = unsafe { self.relay.contents(self.relay.out_slot(self.out_tail)) };
            if !send(bytes, device) {
                break;
            }
            self.out_tail = self.out_tail.wrapping_add(1);
            taken += 1;
        }
        self.is_changed |= taken > 0;
        taken
    }

    /// Tells the earlier process of what was given and taken.
    fn publish(&mut self) {
        if self.is_changed {
            self.is_changed = false;
            let header = self.relay.header();
            header.in_head.0.store(self.in_head, Ordering::Release);
            header.out_tail.0.store(self.out_tail, Ordering::Release);
            wake(&header.earlier_sleeps, &self.relay.earlier_bell);
        }
    }

    /// Whether frames or answers wait.
    fn is_waiting(&self) -> bool {
        let header = self.relay.header();
        header.out_head.0.load(Ordering::Acquire) != self.out_tail || self.is_answered()
    }

    /// Has the earlier process ring from now on.
    fn announce_sleep(&self) {
        announce_sleep(&self.relay.header().later_sleeps);
    }

    /// And from now on not.
    fn end_sleep(&self) {
        self.relay.header().later_sleeps.0.store(0, Ordering::Relaxed);
        silence(&self.relay.later_bell);
    }
}

#[cfg(test)]
mod tests;
