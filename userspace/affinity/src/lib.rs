//! The CPUs that a thread may run on: [`allowed`] lists them, [`pin_this_thread`] and [`pin`] restrict them to one, and
//! [`Pinned`] does so until it is dropped.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! let cpus = tidegate_affinity::allowed()?;
//! tidegate_affinity::pin_this_thread(cpus[0])?;
//! assert_eq!(tidegate_affinity::allowed()?, cpus[..1]);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The calling thread, for the two system calls.
const THIS_THREAD: Pid = Pid::from_raw(0);

/// Returns the CPUs the calling thread may run on, in ascending order; never empty.
///
/// # Errors
///
/// The affinity mask cannot be read.
pub fn allowed() -> io::Result<Vec<usize>> {
    Ok(members(&sched_getaffinity(THIS_THREAD)?))
}

/// Binds the calling thread to `cpu`. Threads and processes that it starts afterwards inherit that.
///
/// # Errors
///
/// The process may not use `cpu`, or there is no such CPU.
pub fn pin_this_thread(cpu: usize) -> io::Result<()> {
    Ok(set_only(THIS_THREAD, cpu)?)
}

/// Binds the thread with id `thread` to `cpu`.
///
/// # Errors
///
/// The thread is gone or belongs to someone else, or there is no such CPU for it.
pub fn pin(thread: i32, cpu: usize) -> io::Result<()> {
    Ok(set_only(Pid::from_raw(thread), cpu)?)
}

/// The calling thread's binding to one CPU, which ends when this is dropped. Threads that it starts meanwhile stay
/// bound.
#[derive(Debug)]
pub struct Pinned {
    before: CpuSet,
}

impl Pinned {
    /// Binds the calling thread to `cpu`.
    ///
    /// # Errors
    ///
    /// The process may not use `cpu`, or there is no such CPU.
    pub fn to(cpu: usize) -> io::Result<Self> {
        let before = sched_getaffinity(THIS_THREAD)?;
        set_only(THIS_THREAD, cpu)?;
        Ok(Self { before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // The kernel takes a mask that was in force, unless its CPUs have gone meanwhile; then this one is as good.
        let _ = sched_setaffinity(THIS_THREAD, &self.before);
    }
}

fn set_only(thread: Pid, cpu: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(thread, &set)
}

fn members(set: &CpuSet) -> Vec<usize> {
    (0..CpuSet::count())
        .filter(|&cpu| set.is_set(cpu).unwrap_or(false))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_is_listed_in_ascending_order() {
        let mut set = CpuSet::new();
        for cpu in [9, 0, 4] {
            set.set(cpu).expect("a CPU number in range");
        }
        assert_eq!(members(&set), [0, 4, 9]);
    }

    #[test]
    fn the_mask_comes_back() {
        let before = allowed().unwrap();
        assert!(!before.is_empty());
        let pinned = Pinned::to(before[0]).unwrap();
        assert_eq!(allowed().unwrap(), before[..1]);
        drop(pinned);
        assert_eq!(allowed().unwrap(), before);
        assert!(Pinned::to(usize::MAX).is_err());
    }

    #[test]
    fn a_cpu_that_is_not_there_is_refused() {
        assert!(pin_this_thread(CpuSet::count() - 1).is_err());
        assert!(pin(std::process::id().cast_signed(), CpuSet::count() - 1).is_err());
    }
}
