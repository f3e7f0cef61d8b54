//! The XDP programs of an interface, by rtnetlink.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_bindings::rt_link::{Ifinfomsg, Request};
use netlink_socket2::NetlinkSocket;

/// Where the kernel runs an XDP program, by the names of `ip link`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the driver.
    Native,
    /// In the kernel's stack.
    Generic,
    /// In the device.
    Offloaded,
}

impl Place {
    /// The word that `ip link set dev IFACE` removes such a program by, with `off` behind it.
    pub(super) fn keyword(self) -> &'static str {
        match self {
            Self::Native => "xdpdrv",
            Self::Generic => "xdpgeneric",
            Self::Offloaded => "xdpoffload",
        }
    }
}

/// The numbers of the programs on the interface with number `index`, at most one at each place. Needs no privileges.
///
/// # Errors
///
/// The kernel's, or that its answer cannot be read.
pub(super) fn programs(index: u32) -> io::Result<Vec<(Place, u32)>> {
    let request = Request::new().op_getlink_do(&header(index));
    let mut socket = NetlinkSocket::new();
    let mut reply = socket.request(&request)?;
    let (_, attributes) = reply.recv_one()?;
    // An interface without XDP has no such attribute.
    let Ok(xdp) = attributes.get_xdp() else {
        return Ok(Vec::new());
    };
    Ok([
        (Place::Native, xdp.get_drv_prog_id()),
        (Place::Generic, xdp.get_skb_prog_id()),
        (Place::Offloaded, xdp.get_hw_prog_id()),
    ]
    .into_iter()
    .filter_map(|(place, id)| Some((place, id.ok()?)))
    .collect())
}

/// Flags of `IFLA_XDP_FLAGS` (include/uapi/linux/if_link.h).
const UPDATE_IF_NOEXIST: u32 = 1;
const SKB_MODE: u32 = 1 << 1;
const DRV_MODE: u32 = 1 << 2;
const HW_MODE: u32 = 1 << 3;
const REPLACE: u32 = 1 << 4;

/// Puts a program in the place of `old` on an interface, in one step; without `new` there is none then. It stays until
/// it is replaced, whoever ends.
///
/// # Errors
///
/// The kernel's: EEXIST or EBUSY when another than `old` is there.
pub(super) fn replace(
    index: u32,
    place: Place,
    old: Option<BorrowedFd<'_>>,
    new: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mode = match place {
        Place::Native => DRV_MODE,
        Place::Generic => SKB_MODE,
        Place::Offloaded => HW_MODE,
    };
    let mut request = Request::new().op_setlink_do(&header(index));
    let xdp = request
        .encode()
        .nested_xdp()
        .push_fd(new.map_or(-1, |new| new.as_raw_fd()));
    match old {
        Some(old) => xdp.push_flags(mode | REPLACE).push_expected_fd(old.as_raw_fd()),
        None => xdp.push_flags(mode | UPDATE_IF_NOEXIST),
    };
    let mut socket = NetlinkSocket::new();
    socket.request(&request)?.recv_ack()?;
    Ok(())
}

fn header(index: u32) -> Ifinfomsg {
    Ifinfomsg {
        ifi_index: index as i32,
        ..Ifinfomsg::new()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::thread;

    use aya::Ebpf;
    use aya::programs::Xdp;
    use nix::sched::{CloneFlags, unshare};
    use nix::unistd::geteuid;

    use super::*;

    /// The loopback interface of a network namespace that is the thread's own.
    const LOOPBACK: u32 = 1;

    /// A loaded program, and its number.
    fn program() -> (Ebpf, u32) {
        let mut ebpf = Ebpf::load(super::super::dispatcher::DISPATCHER_OBJECT).expect("the object is read");
        let (_, program) = ebpf.programs_mut().next().expect("the object has a program");
        let program: &mut Xdp = program.try_into().expect("it is an XDP program");
        program.load().expect("the kernel takes it");
        let id = program.info().expect("it is loaded").id();
        (ebpf, id)
    }

    fn replace(old: Option<&Ebpf>, new: Option<&Ebpf>) -> Result<(), i32> {
        let fd = |ebpf: &Ebpf| {
            let (_, program) = ebpf.programs().next().expect("the object has a program");
            program.fd().expect("it is loaded").try_clone().expect("a descriptor")
        };
        let (old, new) = (old.map(fd), new.map(fd));
        let [old, new] = [&old, &new].map(|fd| fd.as_ref().map(|fd| fd.as_fd()));
        super::replace(LOOPBACK, Place::Generic, old, new).map_err(|error| error.raw_os_error().unwrap_or(0))
    }

    #[test]
    fn a_program_takes_the_place_of_the_one_that_is_expected_and_of_no_other() {
        if !geteuid().is_root() {
            eprintln!("SKIPPED: needs root: a network namespace, and XDP");
            return;
        }
        let test = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            let ((first, first_id), (second, second_id)) = (program(), program());
            assert_eq!(programs(LOOPBACK).expect("an answer"), []);
            replace(None, Some(&first)).expect("nothing is there");
            assert_eq!(programs(LOOPBACK).expect("an answer"), [(Place::Generic, first_id)]);
            for (old, new) in [
                (None, Some(&second)),
                (Some(&second), Some(&second)),
                (Some(&second), None),
            ] {
                let refused = replace(old, new).expect_err("another is there");
                assert!([libc::EBUSY, libc::EEXIST].contains(&refused), "{refused}");
            }
            replace(Some(&first), Some(&second)).expect("the one that is expected is there");
            assert_eq!(programs(LOOPBACK).expect("an answer"), [(Place::Generic, second_id)]);
            replace(Some(&second), None).expect("the one that is expected is there");
            assert_eq!(programs(LOOPBACK).expect("an answer"), []);
        };
        thread::spawn(test).join().expect("as expected");
    }
}
