//! A netlink socket for routing: requests, and what the kernel answers and tells by itself (netlink(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use netlink_bindings::builtin::Nlmsghdr;
use netlink_bindings::traits::{NetlinkRequest, Protocol};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};

/// Room for what the kernel tells while nobody looks, in bytes.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Room for one datagram. The kernel's own listings have at most half of it.
const DATAGRAM: usize = 64 << 10;

/// The time the kernel may take to go on with a listing.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    sequence: u32,
    pub(crate) payload: &'a [u8],
}

/// The socket.
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// A socket that is told what these multicast groups are told, a bit each (1 << (number - 1)).
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn open(groups: u32) -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )?;
        if setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            // As much as anybody may have.
            setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Self {
            fd,
            sequence: 0,
            buffer: vec![0; DATAGRAM],
        })
    }

    /// For an epoll.
    pub(crate) fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Sends a request made by the bindings. Returns its number.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn request(&mut self, request: &impl NetlinkRequest) -> io::Result<u32> {
        let Protocol::Raw { request_type, .. } = request.protocol() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        self.send(request_type, request.flags(), request.payload())
    }

    /// Sends a request. Returns its number.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn send(&mut self, kind: u16, flags: u16, payload: &[u8]) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let header = Nlmsghdr {
            len: (size_of::<Nlmsghdr>() + payload.len()) as u32,
            r#type: kind,
            flags: flags | libc::NLM_F_REQUEST as u16,
            seq: self.sequence,
            pid: 0,
        };
        let message = [header.as_slice(), payload].concat();
        send(self.fd.as_raw_fd(), &message, MsgFlags::empty())?;
        Ok(self.sequence)
    }

    /// Shows `visitor` the messages of the next datagram. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// ENOBUFS when messages were lost, or the kernel's.
    pub(crate) fn receive(&mut self, mut visitor: impl FnMut(&Message<'_>)) -> io::Result<bool> {
        let length = match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC) {
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let Some(datagram) = self.buffer.get(..length) else {
            return Err(Errno::ENOBUFS.into());
        };
        messages(datagram).for_each(|message| visitor(&message));
        Ok(true)
    }

    /// Waits until there is something to receive, for at most `timeout`. Returns whether there is.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Receives until the listing asked for by request `sequence` is at its end, and shows `visitor` all there is,
    /// whether it belongs to the listing or not.
    ///
    /// # Errors
    ///
    /// EINTR when the listing has to be asked for again, ENOBUFS when messages were lost, or the kernel's.
    pub(crate) fn receive_listing(&mut self, sequence: u32, mut visitor: impl FnMut(&Message<'_>)) -> io::Result<()> {
        let mut end = None;
        let mut is_interrupted = false;
        let began = Instant::now();
        while end.is_none() {
            if !self.wait(TIMEOUT)? && began.elapsed() >= TIMEOUT {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.receive(|message| {
                if message.sequence == sequence {
                    is_interrupted |= i32::from(message.flags) & libc::NLM_F_DUMP_INTR != 0;
                    end = end.or(message.end());
                }
                visitor(message);
            })?;
        }
        match end {
            Some(0) if is_interrupted => Err(Errno::EINTR.into()),
            Some(0) | None => Ok(()),
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

impl Message<'_> {
    /// The error number that ends a request, 0 for none; `None` if the message is no end.
    fn end(&self) -> Option<i32> {
        let kind = i32::from(self.kind);
        let is_end = kind == libc::NLMSG_DONE || kind == libc::NLMSG_ERROR;
        is_end.then(|| {
            let code = self.payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
            -code.min(0)
        })
    }

    /// The error with which the kernel refused a request.
    pub(crate) fn refusal(&self) -> Option<io::Error> {
        let is_error = i32::from(self.kind) == libc::NLMSG_ERROR;
        let errno = self.end().filter(|&errno| is_error && errno != 0)?;
        Some(io::Error::from_raw_os_error(errno))
    }
}

/// The messages in a datagram.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    core::iter::from_fn(move || {
        let (header, _) = bytes.split_at_checked(size_of::<Nlmsghdr>())?;
        let header = Nlmsghdr::new_from_slice(header)?;
        let length = header.len as usize;
        let payload = bytes.get(size_of::<Nlmsghdr>()..length)?;
        let message = Message {
            kind: header.r#type,
            flags: header.flags,
            sequence: header.seq,
            payload,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    })
}

#[cfg(test)]
impl<'a> Message<'a> {
    /// A message that the kernel tells by itself.
    pub(crate) fn told(kind: u16, flags: i32, payload: &'a [u8]) -> Self {
        Self {
            kind,
            flags: flags as u16,
            sequence: 0,
            payload,
        }
    }
}
