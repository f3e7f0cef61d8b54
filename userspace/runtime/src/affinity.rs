//! On which CPU a shard runs.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::error::Error;

/// The calling thread, for the two system calls.
const THIS_THREAD: Pid = Pid::from_raw(0);

/// The CPUs the calling thread may run on, in ascending order; never empty.
///
/// # Errors
///
/// [`Error::Io`] when the kernel does not say.
pub(crate) fn allowed() -> Result<Vec<usize>, Error> {
    let set =
        sched_getaffinity(THIS_THREAD).map_err(|errno| Error::io("cannot read the CPU affinity mask", errno.into()))?;
    Ok(members(&set))
}

/// Binds the calling thread to `cpu`.
///
/// # Errors
///
/// [`Error::Io`] when the kernel refuses, as it does for a CPU that was taken offline meanwhile.
pub(crate) fn pin(cpu: usize) -> Result<(), Error> {
    let mut set = CpuSet::new();
    set.set(cpu)
        .and_then(|()| sched_setaffinity(THIS_THREAD, &set))
        .map_err(|errno| {
            Error::io(
                format!("cannot pin a shard to CPU {cpu}; pin_threads = false does without"),
                errno.into(),
            )
        })
}

/// The CPU of shard `shard`: CPUs are given out in order, and again from the first when there are more shards.
pub(crate) fn cpu_of(shard: usize, allowed: &[usize]) -> Option<usize> {
    match allowed.len() {
        0 => None,
        count => Some(allowed[shard % count]),
    }
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
    fn shards_take_the_allowed_cpus_in_turn() {
        let allowed = [2, 3, 7];
        let cpus: Vec<_> = (0..5).map(|shard| cpu_of(shard, &allowed)).collect();
        assert_eq!(cpus, [Some(2), Some(3), Some(7), Some(2), Some(3)]);
        assert_eq!(cpu_of(0, &[]), None);
    }

    #[test]
    fn the_mask_is_listed_in_ascending_order() {
        let mut set = CpuSet::new();
        for cpu in [9, 0, 4] {
            set.set(cpu).expect("a CPU number in range");
        }
        assert_eq!(members(&set), [0, 4, 9]);
        assert!(!allowed().expect("an affinity mask").is_empty());
    }
}
