//! A network device as a source and sink of whole frames: an `AF_PACKET` socket of type `SOCK_RAW`.

use std::ffi::{c_int, c_uint, c_void};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use anyhow::{Context, anyhow, bail};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket};

use crate::frame::{Frame, Received, Tag};

/// Frames moved by one system call at most.
pub(crate) const BATCH: usize = 64;

/// Receive buffer of the socket in bytes: room for some thousand frames while this process does not run.
const RECEIVE_BUFFER: usize = 32 << 20;

/// A device whose frames are all received, and on which frames of any address can be sent.
pub(crate) struct Device {
    socket: OwnedFd,
    name: String,
    mtu: usize,
}

/// Room for one control message with `tpacket_auxdata`, aligned as control messages have to be.
#[derive(Clone, Copy)]
#[repr(align(8))]
struct Control([u8; 64]);

impl Device {
    /// Opens `name`, which must be an Ethernet device that is up.
    ///
    /// # Errors
    ///
    /// There is no such device, it is none of Ethernet's, it is down, or the kernel refuses the socket.
    pub(crate) fn open(name: &str) -> anyhow::Result<Self> {
        let index = usable_index(name)?;
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            // Nothing is received before the socket is bound, and so nothing from other devices.
            None,
        )
        .context("cannot open a packet socket; that takes root or the capability CAP_NET_RAW")?;
        // Above the system's limit only with CAP_NET_ADMIN; else as much as that limit allows.
        setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER)
            .or_else(|_| setsockopt(&socket, RcvBuf, &RECEIVE_BUFFER))
            .with_context(|| format!("cannot set the receive buffer of the socket on {name}"))?;
        let device = Self {
            mtu: mtu(&socket, name).with_context(|| format!("cannot read the MTU of {name}"))?,
            socket,
            name: name.to_owned(),
        };
        device
            .bind(index)
            .with_context(|| format!("cannot receive all frames of {name}"))?;
        Ok(device)
    }

    /// Binds to device number `index`, promiscuously, leaving out what this machine sends on it.
    fn bind(&self, index: c_int) -> io::Result<()> {
        set_packet_option(&self.socket, libc::PACKET_IGNORE_OUTGOING, &1)?;
        set_packet_option(&self.socket, libc::PACKET_AUXDATA, &1)?;
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: pointer and length are those of `address`, which outlives the call.
        let result = unsafe {
            libc::bind(
                self.socket.as_raw_fd(),
                (&raw const address).cast::<libc::sockaddr>(),
                mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let promiscuous = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: libc::PACKET_MR_PROMISC as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set_packet_option(&self.socket, libc::PACKET_ADD_MEMBERSHIP, &promiscuous)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its MTU in bytes when it was opened.
    pub(crate) fn mtu(&self) -> usize {
        self.mtu
    }

    /// Receives into the buffers of the first frames, [`BATCH`] at most, without waiting. Returns how many there were.
    ///
    /// # Errors
    ///
    /// The kernel's error, once: `ENETDOWN` when the device went down, after which receiving may be tried again.
    pub(crate) fn receive(&self, frames: &mut [Frame]) -> io::Result<usize> {
        let count = frames.len().min(BATCH);
        let (mut messages, mut parts) = empty_batch();
        let mut controls = [Control([0; 64]); BATCH];
        for (((message, part), control), frame) in messages
            .iter_mut()
            .zip(&mut parts)
            .zip(&mut controls)
            .zip(frames.iter_mut())
        {
            let room = frame.room();
            part.iov_base = room.as_mut_ptr().cast::<c_void>();
            part.iov_len = room.len();
            message.msg_hdr.msg_iov = ptr::from_mut(part);
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control = control.0.as_mut_ptr().cast::<c_void>();
            message.msg_hdr.msg_controllen = control.0.len();
        }
        // SAFETY: the first `count` headers point to one part each, and that to a frame's room; the control buffers
        // have the length given. All of them outlive the call, and nothing else refers to them.
        let received = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                messages.as_mut_ptr(),
                count as c_uint,
                // With MSG_TRUNC the length is the frame's, not the buffer's.
                libc::MSG_DONTWAIT | libc::MSG_TRUNC,
                ptr::null_mut(),
            )
        };
        let Ok(received) = usize::try_from(received) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                _ => Err(error),
            };
        };
        for (message, frame) in messages.iter().zip(frames).take(received) {
            // SAFETY: the kernel filled in this header; its control buffer is one of `controls`, which is still there.
            let auxiliary = unsafe { auxiliary_data(&message.msg_hdr) };
            frame.set_received(described(message.msg_len as usize, auxiliary));
        }
        Ok(received)
    }

    /// Sends the first frames, [`BATCH`] at most, without waiting. Returns how many the kernel took, at least one.
    ///
    /// # Errors
    ///
    /// The kernel's error for the first frame; none was sent then.
    pub(crate) fn send(&self, frames: &[Frame]) -> io::Result<usize> {
        let count = frames.len().min(BATCH);
        let (mut messages, mut parts) = empty_batch();
        for ((message, part), frame) in messages.iter_mut().zip(&mut parts).zip(frames) {
            let bytes = frame.bytes();
            part.iov_base = bytes.as_ptr().cast_mut().cast::<c_void>();
            part.iov_len = bytes.len();
            message.msg_hdr.msg_iov = ptr::from_mut(part);
            message.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: the first `count` headers point to one part each, and that to a frame's bytes, which the kernel only
        // reads. All of them outlive the call.
        let sent = unsafe {
            libc::sendmmsg(
                self.socket.as_raw_fd(),
                messages.as_mut_ptr(),
                count as c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Frames the kernel dropped since the last call because they were not received in time.
    ///
    /// # Errors
    ///
    /// The statistics cannot be read.
    pub(crate) fn take_overruns(&self) -> io::Result<u64> {
        let mut statistics = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let mut length = mem::size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the pointer and the length are those of `statistics`, and both outlive the call.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast::<c_void>(),
                &raw mut length,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(u64::from(statistics.tp_drops))
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The number of device `name`, if frames can be relayed through it.
fn usable_index(name: &str) -> anyhow::Result<c_int> {
    // Every device has an entry with its link-layer address, whether it has others or not.
    let mut known = Vec::new();
    for entry in getifaddrs().context("cannot list the network devices")? {
        let Some(address) = entry.address.as_ref().and_then(|address| address.as_link_addr()) else {
            continue;
        };
        if entry.interface_name != name {
            known.push(entry.interface_name);
            continue;
        }
        if entry.flags.contains(InterfaceFlags::IFF_LOOPBACK) || address.hatype() != libc::ARPHRD_ETHER {
            bail!("{name} is not an Ethernet device; frames can only be relayed between such");
        }
        if !entry.flags.contains(InterfaceFlags::IFF_UP) {
            bail!("{name} is down; run `ip link set dev {name} up`");
        }
        return c_int::try_from(address.ifindex()).context("the device's number is out of range");
    }
    known.sort();
    Err(anyhow!(
        "there is no network device {name} in this network namespace; there are: {}",
        known.join(", ")
    ))
}

fn mtu(socket: &OwnedFd, name: &str) -> io::Result<usize> {
    // SAFETY: this is integers and a union of such and a pointer, for which zero is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays zero, which ends the name.
    let room = request.ifr_name.len() - 1;
    if name.len() > room {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: SIOCGIFMTU reads and writes one ifreq, which is what the pointer leads to.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: SIOCGIFMTU has filled in this field, and any bits are a number.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    usize::try_from(mtu).map_err(|_| io::Error::other(format!("{mtu} is no MTU")))
}

/// Sets an option of level `SOL_PACKET`; `T` is the plain structure or number the option takes.
fn set_packet_option<T: Copy>(socket: &OwnedFd, option: c_int, value: &T) -> io::Result<()> {
    // SAFETY: pointer and length are those of `value`, which the kernel only reads.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            ptr::from_ref(value).cast::<c_void>(),
            mem::size_of::<T>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The auxiliary data of `PACKET_AUXDATA`.
///
/// # Safety
///
/// The control buffer of `header` must be there, with its length as the kernel left it.
unsafe fn auxiliary_data(header: &libc::msghdr) -> Option<libc::tpacket_auxdata> {
    let needed = mem::size_of::<libc::cmsghdr>() + mem::size_of::<libc::tpacket_auxdata>();
    if header.msg_controllen < needed {
        return None;
    }
    // SAFETY: the header is a valid one, and its control buffer has room for a message by the check above.
    let message = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: the pointer is that of the control buffer, whose first message the kernel wrote.
    let (level, kind, length) = unsafe { ((*message).cmsg_level, (*message).cmsg_type, (*message).cmsg_len) };
    if level != libc::SOL_PACKET || kind != libc::PACKET_AUXDATA || length < needed {
        return None;
    }
    // SAFETY: the data is within the control buffer by the checks above, and any bits are a value of its integers.
    Some(unsafe {
        libc::CMSG_DATA(message)
            .cast::<libc::tpacket_auxdata>()
            .read_unaligned()
    })
}

fn described(length: usize, auxiliary: Option<libc::tpacket_auxdata>) -> Received {
    let Some(auxiliary) = auxiliary else {
        return Received {
            length,
            ..Received::default()
        };
    };
    let has = |flag: u32| auxiliary.tp_status & flag != 0;
    Received {
        length,
        tag: has(libc::TP_STATUS_VLAN_VALID).then_some(Tag {
            tpid: if has(libc::TP_STATUS_VLAN_TPID_VALID) {
                auxiliary.tp_vlan_tpid
            } else {
                libc::ETH_P_8021Q as u16
            },
            tci: auxiliary.tp_vlan_tci,
        }),
        checksum_missing: has(libc::TP_STATUS_CSUMNOTREADY),
    }
}

/// Returns messages without parts, and parts without buffers.
fn empty_batch() -> ([libc::mmsghdr; BATCH], [libc::iovec; BATCH]) {
    // SAFETY: these are integers and pointers, for which zero is a value.
    unsafe { mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_that_cannot_be_relayed_are_refused_with_a_sentence() {
        let error = usable_index("lo").unwrap_err().to_string();
        assert!(error.contains("not an Ethernet device"), "{error}");
        let error = usable_index("no-such-device").unwrap_err().to_string();
        assert!(error.contains("there is no network device no-such-device"), "{error}");
        assert!(error.contains("lo"), "{error}");
    }

    #[test]
    fn what_the_kernel_says_of_a_frame_is_understood() {
        let auxiliary = |tp_status, tp_vlan_tpid| libc::tpacket_auxdata {
            tp_status,
            tp_len: 0,
            tp_snaplen: 0,
            tp_mac: 0,
            tp_net: 0,
            tp_vlan_tci: 7,
            tp_vlan_tpid,
        };
        let plain = described(60, Some(auxiliary(libc::TP_STATUS_USER, 0)));
        assert_eq!((plain.length, plain.tag, plain.checksum_missing), (60, None, false));
        assert_eq!(described(60, None), plain);
        let tagged = described(60, Some(auxiliary(libc::TP_STATUS_VLAN_VALID, 0)));
        assert_eq!(tagged.tag, Some(Tag { tpid: 0x8100, tci: 7 }));
        let status = libc::TP_STATUS_VLAN_VALID | libc::TP_STATUS_VLAN_TPID_VALID;
        let tagged = described(60, Some(auxiliary(status, 0x88a8)));
        assert_eq!(tagged.tag, Some(Tag { tpid: 0x88a8, tci: 7 }));
        assert!(described(60, Some(auxiliary(libc::TP_STATUS_CSUMNOTREADY, 0))).checksum_missing);
    }
}
