//! The XDP program that another process has attached, and one put before it.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use aya::programs::{ProgramFd, Xdp, loaded_programs};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// `BPF_LINK_UPDATE` (linux/bpf.h).
const LINK_UPDATE: libc::c_int = 29;

/// The arguments of [`LINK_UPDATE`]: descriptors and flags.
#[repr(C)]
struct LinkUpdate {
    link: i32,
    new_program: i32,
    flags: u32,
    old_program: u32,
}

/// The XDP link of a process, and the program it had.
pub(crate) struct Attached {
    link: OwnedFd,
    /// The program that the process attached.
    pub(crate) program: ProgramFd,
}

impl Attached {
    /// Finds the first XDP link of process `id`.
    ///
    /// # Errors
    ///
    /// It has none, or the kernel does not give it out (root, or CAP_SYS_PTRACE and CAP_BPF; Linux 5.9).
    pub(crate) fn of(id: u32) -> anyhow::Result<Self> {
        let (descriptor, program) = find(id)?;
        let process = Pid::from_raw(id.cast_signed()).context("0 is no process")?;
        let process = pidfd_open(process, PidfdFlags::empty()).context("cannot open the process (pidfd_open)")?;
        let link = pidfd_getfd(&process, descriptor, PidfdGetfdFlags::empty())
            .context("cannot take the link of the process (pidfd_getfd)")?;
        let info = loaded_programs()
            .filter_map(Result::ok)
            .find(|info| info.id() == program)
            .with_context(|| format!("the XDP program {program} of process {id} is gone"))?;
        Ok(Self {
            link,
            program: info.fd()?,
        })
    }

    /// Has `program` run in place of the one attached, until the process ends the link.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub(crate) fn replace(&self, program: &Xdp) -> anyhow::Result<()> {
        let update = LinkUpdate {
            link: self.link.as_raw_fd(),
            new_program: program.fd()?.as_fd().as_raw_fd(),
            flags: 0,
            old_program: 0,
        };
        // SAFETY: the kernel reads as many octets as it is told, and those are of a value that lives until it returns.
        let result = unsafe { libc::syscall(libc::SYS_bpf, LINK_UPDATE, &raw const update, size_of::<LinkUpdate>()) };
        if result != 0 {
            let error = std::io::Error::last_os_error();
            return Err(anyhow!(error).context("cannot replace the program of an XDP link (BPF_LINK_UPDATE)"));
        }
        Ok(())
    }
}

/// Returns the descriptor of process `id` that is an XDP link, and the number of its program.
fn find(id: u32) -> anyhow::Result<(RawFd, u32)> {
    let directory = PathBuf::from(format!("/proc/{id}/fdinfo"));
    let entries = fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries.filter_map(Result::ok) {
        // It may have been closed since.
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let descriptor = entry.file_name().to_string_lossy().parse();
        if let (Some(program), Ok(descriptor)) = (program_of_xdp_link(&text), descriptor) {
            return Ok((descriptor, program));
        }
    }
    bail!("process {id} has attached no XDP program by a link (Linux 5.9)");
}

/// Returns the number of the program, if `text` describes an XDP link.
fn program_of_xdp_link(text: &str) -> Option<u32> {
    let field = |name| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    (field("link_type:")? == "xdp").then_some(())?;
    field("prog_id:")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_told_by_its_description() {
        let text = "pos:\t0\nlink_type:\txdp\nlink_id:\t5\nprog_tag:\t00ff\nprog_id:\t12\nifindex:\t3\n";
        assert_eq!(program_of_xdp_link(text), Some(12));
        assert_eq!(program_of_xdp_link(&text.replace("xdp", "cgroup")), None);
        assert_eq!(program_of_xdp_link("pos:\t0\nflags:\t02\nmap_type:\t1\n"), None);
    }

    #[test]
    fn a_process_without_a_link_is_named() {
        let error = Attached::of(std::process::id()).map(drop).unwrap_err().to_string();
        assert!(error.contains("has attached no XDP program"), "{error}");
    }
}
