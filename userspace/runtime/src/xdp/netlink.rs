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
