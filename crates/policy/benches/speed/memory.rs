//! What the benchmark has allocated, counted to the byte.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, with a count.
pub(crate) struct Counting;

// SAFETY: every call goes to the system's allocator as it came, and what that returns goes back; the counts touch no memory
// that was handed out.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the pointer came from `alloc` above, and so from the system's allocator, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        HELD.fetch_sub(layout.size(), Relaxed);
        took(size);
        // SAFETY: the pointer came from the system's allocator with this layout; the caller answers for the size.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn took(size: usize) {
    let held = HELD.fetch_add(size, Relaxed) + size;
    MOST.fetch_max(held, Relaxed);
}

/// What is allocated now, in bytes.
pub(crate) fn held() -> usize {
    HELD.load(Relaxed)
}

/// The most that was allocated at once since the last call, in bytes.
pub(crate) fn most() -> usize {
    MOST.swap(held(), Relaxed)
}
