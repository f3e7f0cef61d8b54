//! The limit of open files.

use anyhow::{Context, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Lets the process have `wanted` files open at once, as far as its hard limit goes.
///
/// # Errors
///
/// The hard limit is lower, or the kernel refuses.
pub(crate) fn allow_open_files(wanted: u64) -> anyhow::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    if soft >= wanted {
        return Ok(());
    }
    if hard < wanted {
        bail!("{wanted} open files are needed and {hard} allowed; ask for fewer connections or raise `ulimit -Hn`");
    }
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).context("cannot raise the limit of open files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_already_stays() {
        let before = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        allow_open_files(1).unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), before);
    }

    #[test]
    fn more_than_the_hard_limit_is_an_error_that_says_so() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let Some(wanted) = hard.checked_add(1) else { return };
        let error = allow_open_files(wanted).unwrap_err().to_string();
        assert!(
            error.contains(&wanted.to_string()) && error.contains("ulimit"),
            "{error}"
        );
    }
}
