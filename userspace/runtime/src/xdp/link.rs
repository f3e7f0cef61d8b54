//! The bpf_link that keeps the program on its interface, and whether it still does.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::programs::links::FdLink;

const FDINFO: &str = "/proc/self/fdinfo";

/// A bpf_link of an XDP program. Dropping it detaches the program.
pub(super) struct XdpLink {
    /// Its description by the kernel; `None` where /proc is not mounted.
    fdinfo: Option<PathBuf>,
    link: Link,
}

/// The descriptor.
enum Link {
    /// Of a link that this process made.
    Own(#[expect(dead_code, reason = "closing it detaches the program")] FdLink),
    /// Of one that another process made.
    Taken(OwnedFd),
}

impl XdpLink {
    pub(super) fn new(link: FdLink) -> Self {
        let fdinfo = link.info().ok().and_then(|info| find(Path::new(FDINFO), info.id()));
        Self {
            fdinfo,
            link: Link::Own(link),
        }
    }

    /// The link of another process, which stays attached until both have closed it.
    pub(super) fn taken(link: OwnedFd) -> Self {
        Self {
            fdinfo: Some(Path::new(FDINFO).join(link.as_raw_fd().to_string())),
            link: Link::Taken(link),
        }
    }

    /// Another descriptor of it.
    ///
    /// # Errors
    ///
    /// The kernel's, or that /proc is not mounted.
    pub(super) fn copy(&self) -> io::Result<OwnedFd> {
        if let Link::Taken(link) = &self.link {
            return link.try_clone();
        }
        let number = self
            .fdinfo
            .as_ref()
            .and_then(|path| path.file_name()?.to_str()?.parse().ok());
        let number = number.ok_or_else(|| io::Error::other("/proc does not tell the descriptor of its link"))?;
        // SAFETY: it is the descriptor of `link`, which is open as long as this.
        unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned()
    }

    /// Whether the program is on an interface: not after that was deleted, or somebody detached the program. Where the
    /// kernel cannot be asked, it is taken to be.
    pub(super) fn is_attached(&self) -> bool {
        let text = self.fdinfo.as_ref().and_then(|path| fs::read_to_string(path).ok());
        text.and_then(|text| field(&text, "ifindex")) != Some(0)
    }
}

/// The file below `fdinfo` that is about the bpf_link `id`: its descriptor is not told otherwise.
fn find(fdinfo: &Path, id: u32) -> Option<PathBuf> {
    fs::read_dir(fdinfo)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            let text = fs::read_to_string(path);
            text.is_ok_and(|text| field(&text, "link_id") == Some(id))
        })
}

/// The number after `name:` on a line of its own.
pub(super) fn field(text: &str, name: &str) -> Option<u32> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(field, _)| *field == name)
        .and_then(|(_, value)| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_is_found_by_its_id_and_says_where_it_is() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let text = |ifindex| format!("pos:\t0\nflags:\t02000000\nlink_type:\txdp\nlink_id:\t12\nifindex:\t{ifindex}\n");
        for (name, text) in [("3", "pos:\t0\n".to_owned()), ("4", text(7))] {
            fs::write(directory.path().join(name), text).expect("a file");
        }
        assert_eq!(find(directory.path(), 12), Some(directory.path().join("4")));
        assert_eq!(find(directory.path(), 1), None);
        assert_eq!(field(&text(7), "ifindex"), Some(7));
        assert_eq!(field(&text(0), "ifindex"), Some(0));
        assert_eq!(field("pos:\t0\n", "ifindex"), None);
    }
}
