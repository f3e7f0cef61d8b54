//! The system's allocator, with a counter.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Memory that is allocated at present, by all threads.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    // Without a destructor and without an initialiser that runs, so it may be used from within the allocator at any
    // time.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// How often this thread has allocated or reallocated memory while a [`CountingAllocator`] is the program's
/// `#[global_allocator]`; zero otherwise. Freeing is not counted.
#[inline]
pub fn allocations() -> u64 {
    ALLOCATIONS.get()
}

#[inline]
fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

/// Memory in bytes that the program has allocated and not freed, the allocator's share included, while a
/// [`CountingAllocator`] is its `#[global_allocator]`; zero otherwise.
pub fn allocated() -> usize {
    ALLOCATED.load(Ordering::Relaxed)
}

/// What glibc's malloc takes for an allocation: a header of 8 bytes, in multiples of 16, at least 32.
fn with_header(size: usize) -> usize {
    (size + 8).next_multiple_of(16).max(32)
}

#[inline]
fn add(size: usize) {
    ALLOCATED.fetch_add(with_header(size), Ordering::Relaxed);
}

#[inline]
fn subtract(size: usize) {
    ALLOCATED.fetch_sub(with_header(size), Ordering::Relaxed);
}

/// Counts what [`allocations`] and [`allocated`] return and leaves the rest to the system's allocator.
pub struct CountingAllocator;

// SAFETY: every method passes its arguments on to the system's allocator unchanged and returns what that returns; the
// counter neither allocates nor panics.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        add(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is the same here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        add(layout.size());
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        subtract(layout.size());
        add(new_size);
        // SAFETY: the caller got `pointer` from this allocator, so from the system's, with this layout.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        subtract(layout.size());
        // SAFETY: as in `realloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}
