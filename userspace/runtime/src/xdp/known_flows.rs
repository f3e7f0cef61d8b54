//! The counts of known flows: a map of the XDP program, in this process's memory as well, since a system call for every
//! connection that opens or closes would cost a good part of what the connection itself does.

use core::ptr::{self, NonNull};
use core::slice;
use core::sync::atomic::AtomicU8;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::Map;
use tidegate_abi::MAP_KNOWN_FLOWS;
use tidegate_abi::known_flows::FlowSlots;
use tidegate_tcp::known_flows::KnownFlows;

use super::missing;
use crate::error::Error;

/// The memory of the map, for as long as this lives. The kernel keeps the map meanwhile, whoever closes its descriptor.
struct Counts {
    start: NonNull<AtomicU8>,
    length: usize,
}

// SAFETY: the memory belongs to no thread, and is only used as atomics.
unsafe impl Send for Counts {}
// SAFETY: as above.
unsafe impl Sync for Counts {}

impl Counts {
    /// Maps `length` octets of a map that was made with BPF_F_MMAPABLE.
    fn map(descriptor: impl AsFd, length: usize) -> io::Result<Self> {
        // SAFETY: the kernel chooses an address where nothing is, and refuses what the map does not have.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
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
            Some(start) => Ok(Self { start, length }),
            None => Err(io::Error::other("the kernel mapped it at address 0")),
        }
    }
}

impl AsRef<[AtomicU8]> for Counts {
    fn as_ref(&self) -> &[AtomicU8] {
        // SAFETY: so many octets are mapped there until this is dropped; any value is an `AtomicU8`, and all who use
        // them, the XDP program included, read or write each as a whole.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Counts {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nobody holds a reference into it any more. On failure it stays.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// The counts of `slots`, in the program's map.
///
/// # Errors
///
/// [`Error::Load`] when the map is not there, or cannot be mapped.
pub(super) fn map(ebpf: &Ebpf, slots: FlowSlots) -> Result<KnownFlows, Error> {
    let Map::Array(map) = ebpf.map(MAP_KNOWN_FLOWS).ok_or_else(|| missing(MAP_KNOWN_FLOWS))? else {
        return Err(Error::Load(format!("map {MAP_KNOWN_FLOWS} is no array")));
    };
    let counts = Counts::map(map.fd(), slots.count() as usize)
        .map_err(|error| Error::Load(format!("map {MAP_KNOWN_FLOWS} cannot be mapped into memory: {error}")))?;
    Ok(KnownFlows::new(slots, Arc::new(counts)))
}
