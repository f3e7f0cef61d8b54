//! Text that the application has given to be sent and the kernel has not taken.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::mem;
use std::os::fd::AsRawFd;

use bytes::{Buf, Bytes, BytesMut};
use mio::net::TcpStream;
use nix::sys::socket::{MsgFlags, sendmsg};

/// Buffers given to the kernel at once: enough for a few responses of head and body.
const FEW: usize = 16;

/// Buffers given to the kernel at once where there are more, as with pipelined requests.
const MANY: usize = 128;

/// Copies up to this size (bytes) are put behind one another.
const MAX_JOINED: usize = 1024;

/// The largest buffer made of them, in bytes.
const MAX_CHUNK: usize = 16 << 10;

/// A queue of shared buffers, none of them empty, and of a chunk of small copies behind them.
#[derive(Default)]
pub(crate) struct SendQueue {
    buffers: VecDeque<Bytes>,
    chunk: BytesMut,
    length: usize,
}

impl SendQueue {
    /// Bytes in the queue.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Whether everything was taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends `data`.
    #[inline]
    pub(crate) fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.close_chunk();
            self.length += data.len();
            self.buffers.push_back(data);
        }
    }

    /// Appends a copy of `data`. Of a peer that has it sent in single bytes, the queue holds little more than those.
    pub(crate) fn push_copy(&mut self, data: &[u8]) {
        if data.len() > MAX_JOINED {
            self.push(Bytes::copy_from_slice(data));
            return;
        }
        if self.chunk.len() + data.len() > MAX_CHUNK {
            self.close_chunk();
        }
        self.chunk.extend_from_slice(data);
        self.length += data.len();
    }

    /// Makes a buffer of the chunk.
    #[inline]
    fn close_chunk(&mut self) {
        if !self.chunk.is_empty() {
            self.push_chunk();
        }
    }

    #[inline(never)]
    fn push_chunk(&mut self) {
        self.buffers.push_back(mem::take(&mut self.chunk).freeze());
    }

    /// Takes the memory of `spare`, if the queue has none of its own: most connections need some within a callback
    /// only, so it is lent to one after the other.
    pub(crate) fn borrow_from(&mut self, spare: &mut VecDeque<Bytes>) {
        if self.buffers.capacity() == 0 {
            mem::swap(&mut self.buffers, spare);
        }
    }

    /// Gives the memory back, if the queue is empty.
    pub(crate) fn give_back_to(&mut self, spare: &mut VecDeque<Bytes>) {
        if self.buffers.is_empty() {
            if spare.capacity() == 0 {
                mem::swap(&mut self.buffers, spare);
            } else if self.buffers.capacity() > 0 {
                self.buffers = VecDeque::new();
            }
        }
    }

    /// Drops what is queued.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Gives the kernel as much of the queue as goes into one system call. False if it did not take all of that: its
    /// send buffer is full. With `fin_follows`, the last segment is held back for FIN to go with it.
    ///
    /// # Errors
    ///
    /// The kernel's error, [`io::ErrorKind::WouldBlock`] among them.
    pub(crate) fn write_to(&mut self, socket: &TcpStream, fin_follows: bool) -> io::Result<bool> {
        self.close_chunk();
        if self.buffers.len() == 1 && !fin_follows {
            return self.write_one(socket);
        }
        if self.buffers.len() <= FEW {
            self.write_front::<FEW>(socket, fin_follows)
        } else {
            self.write_front::<MANY>(socket, fin_follows)
        }
    }

    /// As [`SendQueue::write_front`], for one buffer that nothing follows: a cheaper system call.
    fn write_one(&mut self, mut socket: &TcpStream) -> io::Result<bool> {
        let offered = self.length;
        let written = socket.write(&self.buffers[0])?;
        self.consume(written);
        Ok(written == offered)
    }

    fn write_front<const MOST: usize>(&mut self, socket: &TcpStream, fin_follows: bool) -> io::Result<bool> {
        let mut slices = [IoSlice::new(&[]); MOST];
        let mut offered = 0;
        for (slice, buffer) in slices.iter_mut().zip(&self.buffers) {
            *slice = IoSlice::new(buffer);
            offered += buffer.len();
        }
        let slices = &slices[..self.buffers.len().min(MOST)];
        let mut flags = libc::MSG_NOSIGNAL;
        if fin_follows || offered < self.length {
            flags |= libc::MSG_MORE;
        }
        // nix has no name for MSG_MORE.
        let flags = MsgFlags::from_bits_retain(flags);
        let written =
            socket.try_io(|| sendmsg::<()>(socket.as_raw_fd(), slices, &[], flags, None).map_err(io::Error::from))?;
        self.consume(written);
        Ok(written == offered)
    }

    fn consume(&mut self, mut count: usize) {
        self.length -= count;
        while let Some(front) = self.buffers.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.buffers.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn any_number_of_buffers_arrives_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = TcpStream::from_std(socket);
        for buffers in [1, FEW, FEW + 1, MANY, 3 * MANY] {
            let mut queue = SendQueue::default();
            let mut expected = Vec::new();
            for index in 0..buffers {
                let buffer = vec![index as u8; index % 5];
                expected.extend_from_slice(&buffer);
                queue.push(Bytes::from(buffer));
            }
            while !queue.is_empty() {
                queue.write_to(&socket, false).unwrap();
            }
            let mut received = vec![0; expected.len()];
            peer.read_exact(&mut received).unwrap();
            assert_eq!(received, expected, "{buffers} buffers");
        }
    }

    #[test]
    fn what_the_kernel_does_not_take_stays() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = TcpStream::from_std(socket);
        let mut queue = SendQueue::default();
        for value in 0..64_u8 {
            queue.push(Bytes::from(vec![value; 1 << 20]));
        }
        let mut received = Vec::new();
        let mut chunk = vec![0; 1 << 20];
        let mut refused = 0;
        while received.len() < 64 << 20 {
            match queue.write_to(&socket, false) {
                Ok(true) => {}
                Ok(false) => refused += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            let count = peer.read(&mut chunk).unwrap();
            received.extend_from_slice(&chunk[..count]);
        }
        assert!(refused > 0, "64 MiB went into the send buffer at once");
        for (value, part) in received.chunks(1 << 20).enumerate() {
            assert!(part.iter().all(|&byte| usize::from(byte) == value), "in part {value}");
        }
    }

    #[test]
    fn single_bytes_are_put_behind_one_another() {
        let mut queue = SendQueue::default();
        for value in 0..50_000_u32 {
            queue.push_copy(&[value as u8]);
        }
        queue.push(Bytes::from_static(b"end"));
        assert_eq!(queue.len(), 50_003);
        assert_eq!(queue.buffers.len(), 5, "four chunks and what is shared");
        let bytes: Vec<u8> = queue.buffers.iter().flatten().copied().collect();
        assert!((0..50_000_u32).all(|at| bytes[at as usize] == at as u8));
    }

    #[test]
    fn memory_is_lent_and_given_back() {
        let mut spare = VecDeque::with_capacity(8);
        let mut queue = SendQueue::default();
        queue.borrow_from(&mut spare);
        queue.push(Bytes::from_static(b"one"));
        assert_eq!(spare.capacity(), 0);
        queue.give_back_to(&mut spare);
        assert_eq!(spare.capacity(), 0, "it is in use");
        queue.consume(3);
        queue.give_back_to(&mut spare);
        assert!(spare.capacity() >= 8 && queue.buffers.capacity() == 0);
    }
}
