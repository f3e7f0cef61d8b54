//! The permissions the process needs, checked before anything is touched.

use std::fs;

use tidegate_xsk::options;

use crate::config::{Attach, MAX_MTU};
use crate::error::Error;
use crate::xdp::kernel_release;

const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
pub(crate) const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// The capabilities needed, what for, and which numbers will do.
const NEEDED: [(&str, &str, &[u32]); 4] = [
    ("CAP_BPF", "loading the XDP program", &[CAP_BPF, CAP_SYS_ADMIN]),
    (
        "CAP_PERFMON",
        "having the kernel take the XDP program's pointer arithmetic",
        &[CAP_PERFMON, CAP_SYS_ADMIN],
    ),
    ("CAP_NET_ADMIN", "attaching the XDP program", &[CAP_NET_ADMIN]),
    ("CAP_NET_RAW", "opening AF_XDP sockets", &[CAP_NET_RAW]),
];

/// The same for running below a dispatcher. CAP_SYS_ADMIN stands for CAP_PERFMON as well, and nothing for it.
pub(crate) const NEEDED_BELOW_DISPATCHER: (&str, &str, &[u32]) = (
    "CAP_SYS_ADMIN and CAP_PERFMON",
    "loading the XDP program as an extension of another (BPF_PROG_TYPE_EXT)",
    &[CAP_SYS_ADMIN],
);

/// Checks capabilities and that the kernel has AF_XDP.
///
/// # Errors
///
/// [`Error::NotPermitted`] with the first capability that is missing, or [`Error::NoAfXdp`].
pub(crate) fn check(attach: Attach) -> Result<(), Error> {
    missing(attach)?.into_iter().next().map_or(Ok(()), Err)
}

/// All that [`check`] may fail with.
///
/// # Errors
///
/// [`Error::Io`] when the kernel cannot be asked.
pub(crate) fn missing(attach: Attach) -> Result<Vec<Error>, Error> {
    let path = "/proc/self/status";
    let status = fs::read_to_string(path).map_err(|source| Error::io(format!("cannot read {path}"), source))?;
    // Without the line (a /proc of another kind) the system calls themselves will say what is missing.
    let lacking = effective(&status).map_or_else(Vec::new, |effective| lacking(effective, attach).collect());
    let mut errors: Vec<Error> = lacking
        .iter()
        .map(|&(capability, what)| Error::NotPermitted {
            what: what.to_owned(),
            capability,
        })
        .collect();
    if !lacking.iter().any(|(capability, _)| *capability == "CAP_NET_RAW")
        && let Err(error) = options::probe_af_xdp()
    {
        errors.push(match error.raw_os_error() {
            Some(libc::EAFNOSUPPORT) => Error::NoAfXdp,
            Some(libc::EPERM | libc::EACCES) => Error::NotPermitted {
                what: "opening AF_XDP sockets".to_owned(),
                capability: "CAP_NET_RAW",
            },
            _ => Error::io("cannot open an AF_XDP socket", error),
        });
    }
    Ok(errors)
}

/// Whether the process has a capability, as far as /proc tells.
pub(crate) fn has(capability: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective(&status).is_some_and(|effective| effective & (1 << capability) != 0)
}

/// Checks that the kernel's AF_XDP has packets of several buffers, which the MTU of `interface` takes.
///
/// # Errors
///
/// [`Error::Config`] when it has not, [`Error::Io`] when it cannot be asked.
pub(crate) fn check_multi_buffer(interface: &str, mtu: u32) -> Result<(), Error> {
    match options::probe_multi_buffer() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Config(format!(
            "interface {interface} has an MTU of {mtu}, and above {MAX_MTU} packets come in several buffers, which AF_XDP \
             has from Linux 6.6 on; this is {}: lower it with `ip link set dev {interface} mtu {MAX_MTU}`",
            kernel_release()
        ))),
        Err(error) => Err(Error::io("cannot open an AF_XDP socket", error)),
    }
}

/// The effective capabilities in the text of `/proc/PID/status`.
fn effective(status: &str) -> Option<u64> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

/// The capabilities missing in `effective`, and what each is needed for.
fn lacking(effective: u64, attach: Attach) -> impl Iterator<Item = (&'static str, &'static str)> {
    let below = (attach == Attach::Dispatcher).then_some(&NEEDED_BELOW_DISPATCHER);
    NEEDED
        .iter()
        .chain(below)
        .filter(move |(_, _, any)| !any.iter().any(|&bit| effective & (1 << bit) != 0))
        .map(|&(name, what, _)| (name, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read() {
        let status = "Name:\ttidegate\nCapPrm:\t000001ffffffffff\nCapEff:\t0000008000003000\nCapBnd:\t0\n";
        assert_eq!(effective(status), Some(0x80_0000_3000));
        assert_eq!(effective("Name:\ttidegate\n"), None);
        assert_eq!(effective("CapEff:\tnothing\n"), None);
    }

    #[test]
    fn every_missing_capability_is_named() {
        let lacking_for = |effective, attach| lacking(effective, attach).map(|(name, _)| name).collect::<Vec<_>>();
        let lacking = |effective| lacking_for(effective, Attach::Link);
        let (bpf, admin, raw, sys) = (
            1 << CAP_BPF | 1 << CAP_PERFMON,
            1 << CAP_NET_ADMIN,
            1 << CAP_NET_RAW,
            1 << CAP_SYS_ADMIN,
        );
        assert!(lacking(bpf | admin | raw).is_empty());
        // Before CAP_BPF and CAP_PERFMON were split off (Linux 5.8), CAP_SYS_ADMIN stood for them; it still does.
        assert!(lacking(sys | admin | raw).is_empty());
        assert_eq!(lacking(0), ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_NET_RAW"]);
        assert_eq!(lacking(bpf | raw), ["CAP_NET_ADMIN"]);
        assert_eq!(lacking(bpf | admin), ["CAP_NET_RAW"]);
        let below = |effective| lacking_for(effective, Attach::Dispatcher);
        assert!(below(sys | admin | raw).is_empty());
        assert_eq!(below(bpf | admin | raw), ["CAP_SYS_ADMIN and CAP_PERFMON"]);
    }
}
