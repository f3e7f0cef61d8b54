//! A socket of the kernel's TCP as an application of tidegate sees it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use bytes::Bytes;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Linger;
use tidegate_tcp::application::{CloseReason, ListenerId, Stream};
use tidegate_tcp::time::Instant;
use tidegate_tcp::wire::checksum::TextSum;

use crate::send_queue::SendQueue;

/// Bytes queued at most before the kernel takes them. Its own send buffer comes on top, so this need only be large
/// enough to keep that one full.
pub const SEND_BUFFER: usize = 256 * 1024;

/// The time the peer's FIN is waited for after [`Stream::close`]: as long as in tidegate's engine.
const FIN_WAIT_2: Duration = Duration::from_secs(60);

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// The listener that accepted it, and the address and port that has, which may be the unspecified one; `None` for a
    /// connection that this side opened.
    pub(crate) listener: Option<(ListenerId, SocketAddr)>,
    /// The peer.
    pub(crate) peer: SocketAddr,
}

/// The kernel's [`Stream`].
pub(crate) struct KernelStream {
    socket: TcpStream,
    origin: Origin,
    now: Instant,
    queue: SendQueue,
    timer: Instant,
    /// The end of the wait for the peer's FIN.
    fin_deadline: Instant,
    peer_finished: bool,
    fin_queued: bool,
    fin_sent: bool,
    /// Octets from the peer are thrown away.
    read_closed: bool,
    aborted: bool,
    /// The send queue was exhausted and the application has not been told that there is room.
    wants_writable: bool,
    /// The kernel's send buffer is full.
    blocked: bool,
    /// The registration includes writing.
    watches_writing: bool,
    failed: Option<CloseReason>,
    /// Bytes the kernel has taken since this was last asked for.
    sent: u64,
}

impl KernelStream {
    /// A stream on `socket`, which is registered for reading, and for writing, too, if this side opens it.
    pub(crate) fn new(socket: TcpStream, origin: Origin, now: Instant) -> Self {
        Self {
            socket,
            origin,
            now,
            queue: SendQueue::default(),
            timer: Instant::NEVER,
            fin_deadline: Instant::NEVER,
            peer_finished: false,
            fin_queued: false,
            fin_sent: false,
            read_closed: false,
            aborted: false,
            wants_writable: false,
            blocked: false,
            watches_writing: origin.listener.is_none(),
            failed: None,
            sent: 0,
        }
    }

    /// Begins to handle what happened at `now`, with the memory of `spare` for the send queue.
    pub(crate) fn begin(&mut self, now: Instant, spare: &mut VecDeque<Bytes>) {
        self.now = now;
        self.queue.borrow_from(spare);
    }

    /// Gives the memory back that is not needed any more. Returns how many bytes the kernel has taken since the last
    /// call.
    pub(crate) fn finish(&mut self, spare: &mut VecDeque<Bytes>) -> u64 {
        self.queue.give_back_to(spare);
        std::mem::take(&mut self.sent)
    }

    /// The kernel's send buffer has room again.
    pub(crate) fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Reads into `buffer`; `Ok(0)` is the peer's FIN.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.socket.read(buffer)?;
        if count == 0 {
            self.peer_finished = true;
        }
        Ok(count)
    }

    /// Writes what is queued as far as the kernel takes it, and FIN after it.
    #[inline]
    pub(crate) fn flush(&mut self) {
        if self.fin_queued || !self.queue.is_empty() {
            self.write_queue();
        }
    }

    fn write_queue(&mut self) {
        if self.aborted || self.failed.is_some() {
            return;
        }
        let queued = self.queue.len();
        while !self.blocked && !self.queue.is_empty() {
            match self.queue.write_to(&self.socket, self.fin_queued) {
                Ok(all) => self.blocked = !all,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.blocked = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.fail(&error),
            }
        }
        self.sent += (queued - self.queue.len()) as u64;
        if self.fin_queued && !self.fin_sent && self.queue.is_empty() {
            self.fin_sent = true;
            // The socket is closed now after the peer's FIN, and where nobody waits for that. That sends FIN, too.
            if !self.peer_finished
                && !self.closes_at_once()
                && let Err(error) = self.socket.shutdown(Shutdown::Write)
            {
                return self.fail(&error);
            }
        }
        if self.fin_sent && self.read_closed && self.fin_deadline == Instant::NEVER {
            self.fin_deadline = self.now + FIN_WAIT_2;
        }
    }

    /// The connection broke.
    pub(crate) fn fail(&mut self, error: &io::Error) {
        self.failed = Some(reason(error));
        self.queue.clear();
    }

    /// The error the kernel keeps for the socket.
    pub(crate) fn take_error(&mut self) {
        match self.socket.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => self.fail(&error),
        }
    }

    /// Why the connection is no more, if so. What remains to be sent and acknowledged is the kernel's then.
    pub(crate) fn ended(&self) -> Option<CloseReason> {
        if self.aborted {
            Some(CloseReason::Aborted)
        } else if self.failed.is_some() {
            self.failed
        } else {
            (self.fin_sent && (self.peer_finished || self.closes_at_once())).then_some(CloseReason::Finished)
        }
    }

    /// Whether the peer's FIN is left to the kernel: a client that closes has what it wanted.
    fn closes_at_once(&self) -> bool {
        self.read_closed && self.origin.listener.is_none()
    }

    /// Why the connection was not opened.
    pub(crate) fn connect_error(&self) -> io::Error {
        match self.socket.take_error() {
            Ok(Some(error)) | Err(error) => error,
            Ok(None) => ErrorKind::NotConnected.into(),
        }
    }

    /// Whether the application is to be called with what arrives.
    pub(crate) fn is_read(&self) -> bool {
        !self.read_closed && !self.aborted && self.failed.is_none()
    }

    /// Whether the application has to be told that there is room to send; if so, it counts as told.
    pub(crate) fn take_writable(&mut self) -> bool {
        let tell = self.wants_writable && self.send_space() >= SEND_BUFFER / 2;
        if tell {
            self.wants_writable = false;
        }
        tell
    }

    /// The time at which something is due.
    pub(crate) fn deadline(&self) -> Instant {
        self.timer.min(self.fin_deadline)
    }

    /// Whether the peer's FIN has been waited for long enough.
    pub(crate) fn is_fin_overdue(&self) -> bool {
        self.fin_deadline <= self.now
    }

    /// Whether the application's timer has run out; if so, it is off.
    pub(crate) fn take_timer(&mut self) -> bool {
        let due = self.timer <= self.now;
        if due {
            self.timer = Instant::NEVER;
        }
        due
    }

    /// Has the kernel tell when its send buffer has room again, if it is full. Most connections never get there, so
    /// their registration is for reading only.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub(crate) fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        if self.blocked && !self.watches_writing {
            self.watches_writing = true;
            registry.reregister(&mut self.socket, token, Interest::READABLE | Interest::WRITABLE)?;
        }
        Ok(())
    }

    /// Has RST sent when the socket is closed.
    pub(crate) fn reset_on_close(&self) {
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        // It cannot fail on a TCP socket, and if it did, the peer would get FIN instead.
        let _ = setsockopt(&self.socket, Linger, &linger);
    }

    fn note_exhaustion(&mut self) {
        if self.queue.len() >= SEND_BUFFER {
            self.wants_writable = true;
        }
    }

    /// Gives `data` to the kernel if nothing waits before it, which spares the copy. Returns how much was taken.
    fn write_at_once(&mut self, data: &[u8]) -> usize {
        if data.is_empty() || self.blocked || self.failed.is_some() || !self.queue.is_empty() {
            return 0;
        }
        match self.socket.write(data) {
            Ok(count) => {
                self.blocked = count < data.len();
                self.sent += count as u64;
                count
            }
            Err(error) => {
                match error.kind() {
                    ErrorKind::WouldBlock => self.blocked = true,
                    ErrorKind::Interrupted => {}
                    _ => self.fail(&error),
                }
                0
            }
        }
    }
}

impl Stream for KernelStream {
    fn listener(&self) -> Option<ListenerId> {
        self.origin.listener.map(|(listener, _)| listener)
    }

    fn local(&self) -> SocketAddr {
        match self.origin.listener {
            Some((_, listening)) if !listening.ip().is_unspecified() => listening,
            // Without the address the port is still right.
            Some((_, listening)) => self.socket.local_addr().unwrap_or(listening),
            None => {
                let any = match self.origin.peer {
                    SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                    SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                };
                self.socket.local_addr().unwrap_or(SocketAddr::new(any, 0))
            }
        }
    }

    fn peer(&self) -> SocketAddr {
        self.origin.peer
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn peer_finished(&self) -> bool {
        self.peer_finished
    }

    fn send_space(&self) -> usize {
        if self.fin_queued || self.aborted {
            0
        } else {
            SEND_BUFFER - self.queue.len()
        }
    }

    fn send(&mut self, data: &mut Bytes) -> usize {
        let count = data.len().min(self.send_space());
        self.queue.push(data.split_to(count));
        self.note_exhaustion();
        count
    }

    fn send_whole(&mut self, data: &Bytes, _: TextSum) -> bool {
        let fits = data.len() <= self.send_space();
        if fits {
            self.queue.push(data.clone());
            self.note_exhaustion();
        }
        fits
    }

    fn send_copy(&mut self, data: &[u8]) -> usize {
        let count = data.len().min(self.send_space());
        let written = self.write_at_once(&data[..count]);
        if written < count {
            self.queue.push_copy(&data[written..count]);
            self.note_exhaustion();
        }
        count
    }

    fn unacknowledged(&self) -> usize {
        let mut in_kernel: libc::c_int = 0;
        // SAFETY: of a socket, this request (SIOCOUTQ) reads nothing and writes one int to where the pointer leads, and
        // there is one.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut in_kernel) };
        // It fails only for sockets that are not connected, which have nothing on their way.
        let in_kernel = if result == 0 {
            usize::try_from(in_kernel).unwrap_or(0)
        } else {
            0
        };
        self.queue.len() + in_kernel
    }

    fn shutdown(&mut self) {
        self.fin_queued = true;
    }

    fn close(&mut self) {
        self.fin_queued = true;
        self.read_closed = true;
    }

    fn abort(&mut self) {
        self.aborted = true;
        self.queue.clear();
    }

    fn set_timer(&mut self, after: Option<Duration>) {
        self.timer = after.map_or(Instant::NEVER, |after| self.now + after);
    }
}

/// The meaning of an error of a connected socket.
fn reason(error: &io::Error) -> CloseReason {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => CloseReason::TimedOut,
        // ECONNRESET, and EPIPE for what is written after it.
        _ => CloseReason::ResetByPeer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream, and its peer.
    fn pair() -> (KernelStream, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listening = listener.local_addr().unwrap();
        let peer = std::net::TcpStream::connect(listening).unwrap();
        let (socket, address) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let origin = Origin {
            listener: Some((ListenerId(0), (Ipv4Addr::UNSPECIFIED, listening.port()).into())),
            peer: address,
        };
        let stream = KernelStream::new(TcpStream::from_std(socket), origin, Instant::ZERO);
        (stream, peer)
    }

    #[test]
    fn what_the_kernel_has_not_sent_counts_as_unacknowledged() {
        let (mut stream, mut peer) = pair();
        let chunk = vec![7_u8; 64 * 1024];
        let mut sent = 0;
        while !stream.blocked {
            sent += stream.send_copy(&chunk);
        }
        assert!(stream.unacknowledged() > stream.queue.len());
        peer.set_nonblocking(true).unwrap();
        let mut received = 0;
        let mut buffer = vec![0; 64 * 1024];
        while stream.unacknowledged() > 0 || received < sent {
            match peer.read(&mut buffer) {
                Ok(count) => received += count,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            stream.unblock();
            stream.flush();
        }
        assert_eq!(received, sent);
    }

    #[test]
    fn there_is_no_room_after_the_end_and_none_beyond_the_send_buffer() {
        let (mut stream, mut peer) = pair();
        stream.blocked = true;
        let mut data = Bytes::from(vec![7_u8; SEND_BUFFER + 1]);
        assert_eq!(stream.send(&mut data), SEND_BUFFER);
        assert_eq!((data.len(), stream.send_space(), stream.take_writable()), (1, 0, false));
        peer.set_nonblocking(true).unwrap();
        while !stream.queue.is_empty() {
            match peer.read(&mut [0; 4096]) {
                Ok(count) => assert!(count > 0),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            stream.unblock();
            stream.flush();
        }
        assert!(stream.take_writable() && !stream.take_writable());
        stream.shutdown();
        assert_eq!((stream.send(&mut data), stream.send_copy(b"x")), (0, 0));
    }

    #[test]
    fn the_local_address_is_that_of_the_connection() {
        let (stream, peer) = pair();
        assert_eq!(stream.local(), peer.peer_addr().unwrap());
        assert_eq!(stream.peer(), peer.local_addr().unwrap());
    }

    #[test]
    fn errors_have_a_reason() {
        for (code, expected) in [
            (libc::ETIMEDOUT, CloseReason::TimedOut),
            (libc::EHOSTUNREACH, CloseReason::TimedOut),
            (libc::ECONNRESET, CloseReason::ResetByPeer),
            (libc::EPIPE, CloseReason::ResetByPeer),
        ] {
            assert_eq!(reason(&io::Error::from_raw_os_error(code)), expected, "{code}");
        }
    }
}
