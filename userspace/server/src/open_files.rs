//! The limit of open files, and what of it is for the files http sends.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// Descriptors of the process besides those of its shards: standard streams, the XDP program and its maps, signals,
/// what is read now and then.
const PROCESS_FILES: u64 = 128;

/// Descriptors of each shard besides files that are sent: its socket, what it waits for, the root directory, and the
/// file whose request is being answered.
const SHARD_FILES: u64 = 16;

/// Raises the limit of open files to the hard one, and returns how many of `wanted` files each of `shards` shards may
/// have open to send them: at least one.
pub(crate) fn for_sending(wanted: usize, shards: u32) -> usize {
    let limit = match raise_limit() {
        Ok(limit) => limit,
        Err(error) => {
            warn!("cannot raise the limit of open files: {error}");
            return wanted;
        }
    };
    let allowed = allowed(limit, shards);
    if allowed < wanted as u64 {
        warn!(
            "{allowed} files can be open in each of {shards} shards, not the {wanted} of http.max_open_files: the hard \
             limit of open files is {limit} (ulimit -Hn)"
        );
        // Less than a usize.
        return allowed as usize;
    }
    wanted
}

fn raise_limit() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

fn allowed(limit: u64, shards: u32) -> u64 {
    let shards = u64::from(shards.max(1));
    (limit.saturating_sub(PROCESS_FILES + shards * SHARD_FILES) / shards).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_shards_may_open_is_within_the_limit() {
        for limit in [1024, 4096, 1 << 20] {
            for shards in [1, 2, 16] {
                let all = u64::from(shards) * (allowed(limit, shards) + SHARD_FILES) + PROCESS_FILES;
                assert!(all <= limit && all + u64::from(shards) > limit, "{limit} {shards}");
            }
        }
        assert_eq!(allowed(10, 64), 1);
        assert_eq!(allowed(4096, 0), allowed(4096, 1));
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(for_sending(1, 1), 1);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
