//! Received frames, and how any thread reads them.

use xsk_rs::FrameDesc;

use crate::frame::Frame;
use crate::multi_buffer::Packet;
use crate::socket::Socket;

/// A received frame with the place of its contents. Its owner, and nobody else, may read them. It has to go back
/// to its socket: one that is dropped is lost.
#[must_use = "a frame that is put nowhere is lost"]
#[derive(Debug)]
pub struct RxFrame {
    pub(crate) frame: Frame,
    /// As the kernel gave it.
    pub(crate) descriptor: FrameDesc,
    /// The UMEM it is in.
    pub(crate) umem_id: u32,
    pub(crate) device: u8,
    /// The contents, if they came in several frames. The others have gone back, and this is the last.
    pub(crate) packet: Option<Box<Packet>>,
}

impl RxFrame {
    /// The device it was received from.
    #[inline]
    pub fn device(&self) -> u8 {
        self.device
    }

    /// Bytes of its contents, Ethernet header included.
    #[inline]
    pub fn length(&self) -> usize {
        match &self.packet {
            None => self.descriptor.lengths().data(),
            Some(packet) => packet.bytes.len(),
        }
    }
}

/// The UMEMs of several sockets, for reading.
///
/// A frame that was handed to another thread is read where it lies; only its token travels.
#[derive(Debug)]
pub struct Umems {
    /// The number of the first.
    first: u32,
    /// By number from there on; `None` for those of other sockets.
    umems: Box<[Option<xsk_rs::Umem>]>,
}

impl Umems {
    /// The UMEMs of `sockets`.
    pub fn of<'a>(sockets: impl Iterator<Item = &'a Socket> + Clone) -> Self {
        let ids = sockets.clone().map(|socket| socket.umem_id);
        let first = ids.clone().min().unwrap_or(0);
        let count = ids.max().map_or(0, |last| (last - first) as usize + 1);
        let mut umems = vec![None; count];
        for socket in sockets {
            umems[(socket.umem_id - first) as usize] = Some(socket.umem.clone());
        }
        Self {
            first,
            umems: umems.into_boxed_slice(),
        }
    }

    /// The contents of a frame, Ethernet header first.
    ///
    /// # Panics
    ///
    /// The frame is of none of these UMEMs, if its contents lie in one.
    #[inline]
    pub fn bytes<'a>(&'a self, frame: &'a RxFrame) -> &'a [u8] {
        if let Some(packet) = &frame.packet {
            return &packet.bytes;
        }
        let index = frame.umem_id.wrapping_sub(self.first) as usize;
        let Some(Some(umem)) = self.umems.get(index) else {
            panic!("a frame of another UMEM");
        };
        // SAFETY: an `RxFrame` is only made by `Socket::receive`, from a descriptor the kernel gave for a frame of the
        // UMEM with this number, and no two UMEMs have the same. It has the only token of its frame, so neither the
        // kernel nor another thread writes to that while it exists, and the result borrows it. Threads that pass it on
        // order the kernel's and the owner's writes before the reads here: a value cannot be sent otherwise.
        unsafe { umem.data(&frame.descriptor) }.contents()
    }
}
