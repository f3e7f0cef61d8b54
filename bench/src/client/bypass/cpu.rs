//! The CPU of the client's thread.

use anyhow::Context;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The calling thread, for the two system calls.
const THIS_THREAD: Pid = Pid::from_raw(0);

/// Binds the calling thread to one CPU as long as it lives; the threads it starts meanwhile inherit that.
pub(super) struct BoundTo {
    before: CpuSet,
}

impl BoundTo {
    /// Binds the calling thread to `cpu`.
    ///
    /// # Errors
    ///
    /// There is no such CPU for this process.
    pub(super) fn cpu(cpu: usize) -> anyhow::Result<Self> {
        let before = sched_getaffinity(THIS_THREAD).context("cannot read the CPU affinity mask")?;
        let mut set = CpuSet::new();
        set.set(cpu)
            .and_then(|()| sched_setaffinity(THIS_THREAD, &set))
            .with_context(|| format!("cannot run the client on CPU {cpu}; is there one?"))?;
        Ok(Self { before })
    }
}

impl Drop for BoundTo {
    fn drop(&mut self) {
        // The kernel takes a mask that was in force, unless its CPUs have gone meanwhile; then this one is as good.
        let _ = sched_setaffinity(THIS_THREAD, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_comes_back() {
        let before = sched_getaffinity(THIS_THREAD).unwrap();
        let cpu = (0..CpuSet::count()).find(|&cpu| before.is_set(cpu).unwrap()).unwrap();
        let bound = BoundTo::cpu(cpu).unwrap();
        let during = sched_getaffinity(THIS_THREAD).unwrap();
        let count = (0..CpuSet::count()).filter(|&cpu| during.is_set(cpu).unwrap()).count();
        assert_eq!((count, during.is_set(cpu)), (1, Ok(true)));
        drop(bound);
        assert_eq!(sched_getaffinity(THIS_THREAD).unwrap(), before);
        assert!(BoundTo::cpu(usize::MAX).is_err());
    }
}
