//! Fuzzes with the check of the same name. A single allocation above [`ALLOCATION_BYTES_MAX`] is a finding: the length
//! that a reply claims must not be reserved.
#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;

#[path = "../checks/replies.rs"]
mod replies;
#[path = "../checks/scripted_redis.rs"]
mod scripted_redis;

/// Long enough for the first call.
const REPEATS: Duration = Duration::from_millis(20);
/// Far above the largest input.
const ALLOCATION_BYTES_MAX: usize = 8 << 20;

struct BoundedAllocator;

// SAFETY: every call is passed to the allocator of the system, or ends the process.
unsafe impl GlobalAlloc for BoundedAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check_size(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check_size(size);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn check_size(bytes: usize) {
    if bytes > ALLOCATION_BYTES_MAX {
        // A panic would allocate.
        std::process::abort();
    }
}

#[global_allocator]
static ALLOCATOR: BoundedAllocator = BoundedAllocator;

fuzz_target!(
    init: {
        // As in every Rust program: a write to a closed socket is an error, and ends no process.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    },
    |input: &[u8]| replies::check(input, REPEATS)
);
