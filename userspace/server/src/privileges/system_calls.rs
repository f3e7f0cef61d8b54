//! The system calls within reach, by seccomp.

use std::collections::BTreeMap;

use libc::{
    AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, AF_XDP, CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS,
    CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS, ENOSYS,
};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};
use tracing::warn;

use super::Seccomp;

/// The names of system calls as their numbers.
macro_rules! numbers {
    ($($name:ident)*) => { [$(libc::$name),*] };
}

/// Memory and threads.
const MEMORY_AND_THREADS: [i64; 35] = numbers! {
    SYS_brk SYS_madvise SYS_membarrier SYS_memfd_create SYS_mincore SYS_mlock SYS_mmap SYS_mprotect SYS_mremap SYS_munlock
    SYS_munmap SYS_exit SYS_exit_group SYS_futex SYS_get_robust_list SYS_set_robust_list SYS_rseq SYS_set_tid_address
    SYS_gettid SYS_getpid SYS_getppid SYS_getcpu SYS_sched_getaffinity SYS_sched_setaffinity SYS_sched_yield
    SYS_sched_getscheduler SYS_sched_getparam SYS_prctl SYS_prlimit64 SYS_getrusage SYS_times SYS_uname SYS_sysinfo
    SYS_getrandom SYS_restart_syscall
};

/// Signals and time.
const SIGNALS_AND_TIME: [i64; 15] = numbers! {
    SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigtimedwait SYS_rt_sigpending SYS_sigaltstack
    SYS_kill SYS_tgkill SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_nanosleep SYS_gettimeofday
    SYS_timerfd_create SYS_timerfd_settime
};

/// Files. Which of them, Landlock decides.
const FILES: [i64; 42] = numbers! {
    SYS_openat SYS_openat2 SYS_read SYS_readv SYS_pread64 SYS_write SYS_writev SYS_pwrite64 SYS_lseek SYS_close
    SYS_close_range SYS_fstat SYS_newfstatat SYS_statx SYS_statfs SYS_fstatfs SYS_getdents64 SYS_readlinkat SYS_faccessat
    SYS_faccessat2 SYS_fcntl SYS_flock SYS_ftruncate SYS_fallocate SYS_fsync SYS_fdatasync SYS_fadvise64 SYS_sendfile
    SYS_dup SYS_dup3 SYS_pipe2 SYS_unlinkat SYS_mkdirat SYS_renameat SYS_renameat2 SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat
    SYS_umask SYS_getcwd SYS_utimensat
};

/// Sockets, waiting for them, and BPF: maps, links, and programs where they are loaded again.
const SOCKETS: [i64; 28] = numbers! {
    SYS_socketpair SYS_bind SYS_listen SYS_accept SYS_accept4 SYS_connect SYS_getsockname SYS_getpeername SYS_setsockopt
    SYS_getsockopt SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_sendmmsg SYS_recvmmsg SYS_shutdown SYS_ppoll
    SYS_pselect6 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_ioctl SYS_bpf
    SYS_io_getevents SYS_geteuid
};

/// Giving privileges up: a thread that is started before the filter is there may do it later.
const PRIVILEGES: [i64; 14] = numbers! {
    SYS_capget SYS_capset SYS_setresuid SYS_setresgid SYS_setgroups SYS_getgroups SYS_getuid SYS_getgid SYS_getegid
    SYS_getresuid SYS_getresgid SYS_landlock_restrict_self SYS_seccomp SYS_setrlimit
};

/// System calls that other architectures have in newer forms only.
#[cfg(target_arch = "x86_64")]
const OLD_FORMS: [i64; 24] = numbers! {
    SYS_open SYS_stat SYS_lstat SYS_access SYS_readlink SYS_unlink SYS_mkdir SYS_rmdir SYS_rename SYS_chmod
    SYS_chown SYS_lchown SYS_dup2 SYS_pipe SYS_poll SYS_select SYS_epoll_create SYS_epoll_wait SYS_eventfd SYS_time
    SYS_getrlimit SYS_arch_prctl SYS_alarm SYS_getpgrp
};
#[cfg(not(target_arch = "x86_64"))]
const OLD_FORMS: [i64; 0] = [];

/// Confines all threads to the system calls of serving. A kernel that has no seccomp is told of in the log.
pub(super) fn filter(seccomp: Seccomp) {
    let action = match seccomp {
        Seccomp::Off => return,
        Seccomp::Log => SeccompAction::Log,
        // Libraries have an older way for what a kernel has not, such as clone for clone3.
        Seccomp::On => SeccompAction::Errno(ENOSYS as u32),
    };
    let applied = program(action)
        .map_err(seccompiler::Error::from)
        .and_then(|program| apply_filter_all_threads(&program));
    if let Err(error) = applied {
        warn!("system calls are not out of reach: {error}");
    }
}

fn program(otherwise: SeccompAction) -> Result<BpfProgram, BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let all = [
        &MEMORY_AND_THREADS[..],
        &SIGNALS_AND_TIME,
        &FILES,
        &SOCKETS,
        &PRIVILEGES,
        &OLD_FORMS,
    ];
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = all.concat().into_iter().map(|call| (call, vec![])).collect();
    // No raw packets, no other protocols.
    let families = [AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_XDP].map(|family| {
        let is = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family as u64)?;
        SeccompRule::new(vec![is])
    });
    rules.insert(libc::SYS_socket, families.into_iter().collect::<Result<_, _>>()?);
    // Threads, and no namespaces. Of clone3 the flags are out of the filter's sight, so it is not there.
    let namespaces = CLONE_NEWCGROUP
        | CLONE_NEWIPC
        | CLONE_NEWNET
        | CLONE_NEWNS
        | CLONE_NEWPID
        | CLONE_NEWUSER
        | CLONE_NEWUTS
        | libc::CLONE_THREAD;
    let threads = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(namespaces as u32 as u64),
        libc::CLONE_THREAD as u64,
    )?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![threads])?]);
    SeccompFilter::new(rules, otherwise, SeccompAction::Allow, arch)?.try_into()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::{fs, io, thread};

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    use seccompiler::apply_filter;

    use super::*;

    #[test]
    fn a_thread_serves_and_starts_no_program_and_makes_no_namespace_or_raw_socket() {
        thread::spawn(|| {
            apply_filter(&program(SeccompAction::Errno(ENOSYS as u32)).unwrap()).unwrap();
            let missing = |error: io::Error| error.raw_os_error() == Some(ENOSYS);
            assert!(missing(std::process::Command::new("/bin/true").status().unwrap_err()));
            assert!(missing(
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)
                    .unwrap_err()
                    .into()
            ));
            let packets = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None);
            assert!(missing(packets.unwrap_err().into()));
            // What serving takes goes on.
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            thread::spawn(move || TcpStream::connect(address).unwrap())
                .join()
                .unwrap();
            listener.accept().unwrap();
            UdpSocket::bind("127.0.0.1:0").unwrap();
            let scratch = tempfile::tempdir().unwrap();
            fs::write(scratch.path().join("file"), "text").unwrap();
            fs::rename(scratch.path().join("file"), scratch.path().join("other")).unwrap();
            assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
        })
        .join()
        .unwrap();
    }
}
