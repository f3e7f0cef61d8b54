//! Maps of the XDP program in this process's memory: what is written there needs no system call.

use core::ptr::{self, NonNull};
use core::slice;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::Map;
use tidegate_exchange::SharedWords;

use super::missing;
use crate::error::Error;

/// An integer of which any bits are a value, and which is changed as a whole.
pub(super) trait Word: Send + Sync + 'static {}

impl Word for AtomicU8 {}
impl Word for AtomicU32 {}
impl Word for AtomicU64 {}

/// The memory of a map, for as long as this lives. The kernel keeps the map meanwhile, whoever closes its descriptor.
struct Words<T> {
    start: NonNull<T>,
    count: usize,
}

// SAFETY: the memory belongs to no thread, and is only used as atomics.
unsafe impl<T: Word> Send for Words<T> {}
// SAFETY: as above.
unsafe impl<T: Word> Sync for Words<T> {}

impl<T> Words<T> {
    /// Maps `count` words of a map that was made with BPF_F_MMAPABLE.
    fn map(descriptor: impl AsFd, count: usize) -> io::Result<Self> {
        // SAFETY: the kernel chooses an address where nothing is, and refuses what the map does not have.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                count * size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                descriptor.as_fd().as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        match NonNull::new(start.cast()) {
            Some(start) => Ok(Self { start, count }),
            None => Err(io::Error::other("the kernel mapped it at address 0")),
        }
    }
}

impl<T: Word> AsRef<[T]> for Words<T> {
    fn as_ref(&self) -> &[T] {
        // SAFETY: so many words are mapped there until this is dropped, at the beginning of a page; any bits are a
        // `Word`, and all who use them, the XDP program included, read or write each as a whole.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl<T> Drop for Words<T> {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nobody holds a reference into it any more. On failure it stays.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.count * size_of::<T>()) };
    }
}

/// The first `count` words of the array `name`.
///
/// # Errors
///
/// [`Error::Load`] when the map is not there, or cannot be mapped.
pub(super) fn words<T: Word>(ebpf: &Ebpf, name: &'static str, count: usize) -> Result<SharedWords<T>, Error> {
    let Map::Array(map) = ebpf.map(name).ok_or_else(|| missing(name))? else {
        return Err(Error::Load(format!("map {name} is no array")));
    };
    let words = Words::<T>::map(map.fd(), count)
        .map_err(|error| Error::Load(format!("map {name} cannot be mapped into memory: {error}")))?;
    Ok(Arc::new(words))
}
