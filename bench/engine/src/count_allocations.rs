//! The system's allocator, with counters.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    // Without a destructor and without an initialiser that runs, so it may be used from within the allocator at any
    // time.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static HELD: Cell<i64> = const { Cell::new(0) };
}

/// How often this thread has allocated or reallocated memory while a [`CountingAllocator`] is the program's
/// `#[global_allocator]`; zero otherwise. Freeing is not counted.
#[inline]
pub fn allocations() -> u64 {
    ALLOCATIONS.get()
}

/// The bytes of memory this thread has allocated and not freed, the allocator's share included, under the same
/// condition. Negative where it has freed what another thread had allocated.
#[inline]
pub fn held_bytes() -> i64 {
    HELD.get()
}

/// The memory glibc's malloc takes for an allocation: a header of 8 bytes, in multiples of 16, at least 32.
#[inline]
fn with_header(size: usize) -> i64 {
    (size + 8).next_multiple_of(16).max(32) as i64
}

#[inline]
fn count(size: usize) {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    HELD.set(HELD.get() + with_header(size));
}

#[inline]
fn discount(size: usize) {
    HELD.set(HELD.get() - with_header(size));
}

/// Counts what [`allocations`] and [`held_bytes`] return and leaves the rest to the system's allocator.
pub struct CountingAllocator;

// SAFETY: every method passes its arguments on to the system's allocator unchanged and returns what that returns; the
// counters neither allocate nor panic.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is the same here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size);
        discount(layout.size());
        // SAFETY: the caller got `pointer` from this allocator, so from the system's, with this layout.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        discount(layout.size());
        // SAFETY: as in `realloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}
