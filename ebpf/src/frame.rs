//! Access to the packet: the frame that the program runs on, read and written by offsets.
//!
//! Verifiers differ in what they know of a number. Up to Linux 6.16 one that has changed its byte order may be anything
//! again; later ones refuse what compilers make of `offset - 1`. Compilers differ in the order in which they add, and a
//! verifier takes a sum in another order for another pointer, of which it knows nothing. So nothing is left to either:
//! an offset is masked and added in assembly, which the compiler does not look into, right before the comparison with
//! the frame's end, and what is read is at a constant distance from the pointer that was compared.

use core::arch::asm;
use core::marker::PhantomData;

use aya_ebpf::{bindings::xdp_md, helpers::bpf_xdp_get_buff_len, programs::XdpContext};

/// No offset in a frame is greater: 22 octets of Ethernet header and tags, 40 of IPv6, and six extension headers of
/// 2,048 are less. One bit more, and together with what is read there it might exceed what verifiers follow, 65,535
/// octets.
const MAX_OFFSET: usize = 0x3fff;

/// No packet is longer: lengths in IP headers have 16 bits, and IPv6 does not count its own header.
const MAX_LENGTH: usize = 0x1_ffff;

/// A received frame, from the first octet of its Ethernet header to its last octet, or what is left of it from some
/// octet on. Of a frame in several buffers it is the part in the first one. Offsets are at most [`MAX_OFFSET`].
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    start: usize,
    context: *mut xdp_md,
    run: PhantomData<&'a XdpContext>,
}

impl<'a> Frame<'a> {
    /// The frame that the program runs on.
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self {
            start: start(ctx.ctx),
            context: ctx.ctx,
            run: PhantomData,
        }
    }

    /// The kernel's description of the frame, for its helpers.
    #[inline(always)]
    pub fn context(self) -> *mut xdp_md {
        self.context
    }

    /// The kernel's number of the device that received the frame (ifindex).
    #[inline(always)]
    pub fn device(self) -> u32 {
        // SAFETY: the kernel gave the pointer for this run of the program.
        unsafe { (*self.context).ingress_ifindex }
    }

    /// The rest of the frame, from `offset` on. Cheaper than several reads by offset where the offset is computed.
    #[inline(always)]
    pub fn from(self, offset: usize) -> Self {
        Self {
            start: advance(self.start, offset),
            ..self
        }
    }

    /// The rest of the frame behind its first `COUNT` octets.
    #[inline(always)]
    pub fn skip<const COUNT: usize>(self) -> Self {
        // Nothing to be bounded in a constant, and the compiler makes it a part of what it adds anyway.
        Self {
            start: self.start + COUNT,
            ..self
        }
    }

    /// The first `N` octets, unless there are not so many.
    #[inline(always)]
    pub fn first<const N: usize>(self) -> Option<&'a [u8; N]> {
        let octets = at::<[u8; N]>(self.context, self.start)?;
        // SAFETY: these octets lie within the frame, as was just compared (the verifier proves it again). The frame
        // outlives the run of the program, for which `'a` stands; what is written to it goes through `Words` and
        // `WordCursor`, after the last use of what was read there. An array of octets needs no alignment.
        Some(unsafe { &*octets })
    }

    /// The `N` octets at `offset`, unless the frame ends before them.
    #[inline(always)]
    pub fn header<const N: usize>(self, offset: usize) -> Option<&'a [u8; N]> {
        self.from(offset).first()
    }

    /// The first `N` 32-bit words, to be read and written, unless there are not so many. No reference from
    /// [`Frame::first`] to these octets is to be used after one of them is written.
    #[inline(always)]
    pub fn words<const N: usize>(self) -> Option<Words<N>> {
        at::<[[u8; 4]; N]>(self.context, self.start).map(|words| Words {
            words,
            context: self.context,
        })
    }

    /// Exchanges the Ethernet addresses that the frame begins with, unless it is too short. No reference from
    /// [`Frame::first`] to them is to be used afterwards.
    #[inline(always)]
    pub fn swap_macs(self) -> Option<()> {
        let addresses = at::<[EthernetAddress; 2]>(self.context, self.start)?;
        // SAFETY: `at` has compared the frame's end with that of these octets (the verifier proves it again). The frame
        // outlives the run of the program, and nothing else reads or writes it meanwhile. Packed types need no
        // alignment.
        unsafe {
            let [destination, source] = [(*addresses)[0], (*addresses)[1]];
            (*addresses)[0].0 = source.0;
            (*addresses)[0].1 = source.1;
            (*addresses)[1].0 = destination.0;
            (*addresses)[1].1 = destination.1;
        }
        Some(())
    }

    /// All 32-bit words, one after the other, to be read and written as with [`Frame::words`].
    #[inline(always)]
    pub fn word_cursor(self) -> WordCursor {
        WordCursor {
            address: self.start,
            context: self.context,
        }
    }

    /// Whether a whole frame has at least `length` octets from `offset` on; `length` is at most 131,071. `of_all`: the
    /// octets in all its buffers, where it may have several; nothing else here knows of others than the first.
    #[inline(always)]
    pub fn reaches(self, offset: usize, length: usize, of_all: Option<u64>) -> bool {
        match of_all {
            None => reaches(self.context, self.from(offset).start, length),
            Some(of_all) => offset as u64 + length as u64 <= of_all,
        }
    }
}

/// Six octets, as the two largest integers that LLVM moves at once: of an array it would move each octet by itself.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct EthernetAddress(u32, u16);

/// `N` words of a frame, which was found to hold them. They need no alignment.
#[derive(Clone, Copy)]
pub struct Words<const N: usize> {
    words: *mut [[u8; 4]; N],
    context: *mut xdp_md,
}

impl<const N: usize> Words<N> {
    /// The `index`th word, in host byte order; 0 if there are not so many.
    #[inline(always)]
    pub fn get(self, index: usize) -> u32 {
        u32::from_be(self.raw(index))
    }

    /// The `index`th word, as it lies in memory ([`u32::from_ne_bytes`]); 0 if there are not so many.
    #[inline(always)]
    pub fn raw(self, index: usize) -> u32 {
        if index >= N {
            return 0;
        }
        // SAFETY: `Frame::words` has compared the frame's end with that of these words (the verifier proves it again).
        // The frame outlives the run of the program, and nothing else writes to it meanwhile.
        u32::from_ne_bytes(unsafe { (*self.words)[index] })
    }

    /// Replaces the `index`th word by `word`, which is in host byte order; does nothing if there are not so many.
    #[inline(always)]
    pub fn set(self, index: usize, word: u32) {
        self.set_raw(index, word.to_be());
    }

    /// Replaces the `index`th word by `word`, as it is to lie in memory; does nothing if there are not so many.
    #[inline(always)]
    pub fn set_raw(self, index: usize, word: u32) {
        if index < N {
            // SAFETY: as in `raw`, and no reference to these octets is used any more.
            unsafe { (*self.words)[index] = word.to_ne_bytes() };
        }
    }

    /// The words behind these.
    #[inline(always)]
    pub fn cursor_behind(self) -> WordCursor {
        WordCursor {
            address: self.words as usize + 4 * N,
            context: self.context,
        }
    }
}

/// The 32-bit words of a frame from some octet on.
pub struct WordCursor {
    address: usize,
    context: *mut xdp_md,
}

impl WordCursor {
    /// The next word, in host byte order; `None` where the frame ends.
    #[inline(always)]
    pub fn read(&mut self) -> Option<u32> {
        let word = self.next()?;
        // SAFETY: the frame's end was compared with that of this word (the verifier proves it again). The frame
        // outlives the run of the program, and nothing else writes to it meanwhile.
        Some(u32::from_be_bytes(unsafe { *word }))
    }

    /// Replaces the next word by `word`, as it is to lie in memory; `None` where the frame ends.
    #[inline(always)]
    pub fn write_raw(&mut self, word: u32) -> Option<()> {
        let place = self.next()?;
        // SAFETY: as in `read`, and no reference to these octets is used any more.
        unsafe { *place = word.to_ne_bytes() };
        Some(())
    }

    #[inline(always)]
    fn next(&mut self) -> Option<*mut [u8; 4]> {
        let word = at(self.context, self.address)?;
        self.address = next_word(self.address);
        Some(word)
    }
}

/// The address of the frame's first octet.
#[inline(always)]
fn start(ctx: *mut xdp_md) -> usize {
    // SAFETY: the context is valid while the program runs, and its `data` is an aligned `u32`.
    unsafe { (*ctx).data as usize }
}

/// The address behind the frame's last octet, asked for anew each time: the compiler is not to conclude from one
/// comparison that a later one is not needed.
#[inline(always)]
fn end(ctx: *mut xdp_md) -> usize {
    // SAFETY: as in `start`, for `data_end`.
    unsafe { core::ptr::read_volatile(&raw const (*ctx).data_end) as usize }
}

/// The octets of the frame in all its buffers.
#[inline(always)]
pub fn length_of_all_buffers(ctx: &XdpContext) -> u64 {
    // SAFETY: the context is that of the running program, and the helper only reads it.
    unsafe { bpf_xdp_get_buff_len(ctx.ctx) }
}

/// The place of a `T` at `address`, which [`start`], [`advance`] or [`next_word`] gave, unless the frame ends before
/// the end of it.
#[inline(always)]
fn at<T>(ctx: *mut xdp_md, address: usize) -> Option<*mut T> {
    const { assert!(size_of::<T>() <= MAX_OFFSET) };
    (address + size_of::<T>() <= end(ctx)).then_some(address as *mut T)
}

/// The address `offset` octets behind `address`.
#[inline(always)]
fn advance(address: usize, offset: usize) -> usize {
    sum::<MAX_OFFSET>(address, offset)
}

/// Whether the frame reaches at least `length` octets past `address`.
#[inline(always)]
fn reaches(ctx: *mut xdp_md, address: usize, length: usize) -> bool {
    // Addresses are compared, and no length is computed: subtracting packet pointers takes CAP_PERFMON.
    sum::<MAX_LENGTH>(address, length) <= end(ctx)
}

/// `address + offset`, of which the verifier knows that no more than `MAX` was added. The compiler knows nothing of it,
/// not even that a sum with a constant does not wrap: from that it would make `sum >= end` of `sum + 1 > end`, and of
/// the former verifiers conclude nothing.
#[inline(always)]
fn sum<const MAX: usize>(address: usize, offset: usize) -> usize {
    let mut sum = address;
    // SAFETY: two instructions that change the registers they are given, and nothing else.
    unsafe {
        asm!(
            "{offset} &= {MAX}",
            "{sum} += {offset}",
            offset = inout(reg) offset => _,
            sum = inout(reg) sum,
            MAX = const MAX,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// `address + 4`, of which the compiler knows nothing: a loop that steps by it need not be unrolled to be understood.
#[inline(always)]
fn next_word(address: usize) -> usize {
    let mut next = address;
    // SAFETY: one instruction that changes the register it is given, and nothing else.
    unsafe {
        asm!("{next} += 4", next = inout(reg) next, options(pure, nomem, nostack, preserves_flags));
    }
    next
}
