//! The CPU of each shard.

use crate::error::Error;

/// The CPUs the calling thread may run on, in ascending order; never empty.
///
/// # Errors
///
/// [`Error::Io`] when the kernel does not say.
pub(crate) fn allowed() -> Result<Vec<usize>, Error> {
    tidegate_affinity::allowed().map_err(|error| Error::io("cannot read the CPU affinity mask", error))
}

/// Binds the calling thread to `cpu`.
///
/// # Errors
///
/// [`Error::Io`] when the kernel refuses, as it does for a CPU that was taken offline meanwhile.
pub(crate) fn pin(cpu: usize) -> Result<(), Error> {
    tidegate_affinity::pin_this_thread(cpu).map_err(|error| {
        Error::io(
            format!("cannot pin a shard to CPU {cpu}; pin_threads = false does without"),
            error,
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
}
