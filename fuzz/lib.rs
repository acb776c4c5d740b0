//! What all fuzz targets share: a limit on each allocation.
//!
//! An input of some kilobytes that makes a decoder ask for many megabytes is a defect: a length in the data was believed.
//! libFuzzer's own `-malloc_limit_mb` works under a sanitizer only, which stable Rust does not have.

use std::alloc::{GlobalAlloc, Layout, System};

/// More than any input of libFuzzer's size may make a decoder ask for at once.
const ALLOCATION_MAX: usize = 32 << 20;

struct Bounded;

fn check(size: usize) {
    if size > ALLOCATION_MAX {
        // No formatting and no unwinding: both allocate.
        eprintln!("an allocation of more than {ALLOCATION_MAX} bytes was asked for");
        std::process::abort();
    }
}

// SAFETY: every call is handed on to the system's allocator with the arguments it came with.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size);
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

/// Makes a fuzz target of one of lakeward's entry points.
#[macro_export]
macro_rules! target {
    ($entry:path) => {
        libfuzzer_sys::fuzz_target!(|input: &[u8]| $entry(input));
    };
}
