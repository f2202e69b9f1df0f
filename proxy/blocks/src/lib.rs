//! The allocator of a proxy: what a worker frees, it keeps for what it allocates next.
//!
//! A request allocates ten to two dozen blocks, of the same sizes as the one before it. glibc keeps up to seven of a size for each
//! thread, and only up to 1,032 bytes: beyond, such as for hyper's 8 KiB to read into and for each TLS record, a block costs 900
//! instructions in each direction (glibc 2.36). Here every block costs a few, whatever its size up to [`LARGEST`].
//!
//! All blocks are [`System`]'s, of exactly the size that it would have given: whoever frees one may give it back there, so threads
//! that keep none, and blocks that go from one thread to another, need nothing.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    ptr,
};

/// The largest block that is kept: one record of TLS (RFC 8446, section 5.2), and what is around it.
const LARGEST: usize = 20 << 10;
/// Blocks differ by as much: glibc's, which have 8 bytes before them that they share with nobody.
const STEP: usize = 16;
const BEFORE: usize = 8;
/// The least that glibc gives, in steps.
const LEAST: usize = 2;
const SIZES: usize = (LARGEST + BEFORE).div_ceil(STEP) + 1;
// Where a malloc aligns to less, its blocks are not of one layout.
const _: () = assert!(size_of::<usize>() == 8);
/// How many bytes one thread keeps at most.
const MOST: usize = 256 << 10;

/// See the module. Threads keep nothing unless they are told to ([`keep`]).
#[derive(Debug, Clone, Copy, Default)]
pub struct Blocks;

/// A block that nobody has now.
struct Free {
    next: *mut Self,
}

/// What one thread keeps.
struct Kept {
    /// The last that was freed, by its size in steps.
    last: [Cell<*mut Free>; SIZES],
    bytes: Cell<usize>,
    most: Cell<usize>,
    /// There was no room for a block.
    is_full: Cell<bool>,
}

thread_local! {
    /// Without a destructor, since a thread allocates until its end.
    static KEPT: Kept = const {
        Kept {
            last: [const { Cell::new(ptr::null_mut()) }; SIZES],
            bytes: Cell::new(0),
            most: Cell::new(0),
            is_full: Cell::new(false),
        }
    };
}

/// From now on the calling thread keeps what it frees: to be called by threads that carry traffic until the process ends, since
/// what a thread keeps at its end is lost.
pub fn keep() {
    KEPT.with(|kept| kept.most.set(MOST));
}

/// Gives back all that the calling thread keeps, if there was no room for more since the last time: it may be of sizes that are
/// not asked for any more. Takes less than a millisecond; for a quiet moment.
pub fn review() {
    KEPT.with(|kept| {
        if kept.is_full.replace(false) {
            kept.give_back();
        }
    });
}

/// The size in steps of what `layout` asks for; `None`: it is not kept.
#[inline]
const fn steps(layout: Layout) -> Option<usize> {
    if layout.align() > STEP || layout.size() > LARGEST {
        return None;
    }
    let steps = (layout.size() + BEFORE).div_ceil(STEP);
    Some(if steps < LEAST { LEAST } else { steps })
}

/// What is asked of [`System`] for a block of so many steps: all that it gives for it.
#[inline]
const fn usable(steps: usize) -> usize {
    steps * STEP - BEFORE
}

impl Kept {
    #[inline]
    fn take(&self, steps: usize) -> Option<*mut u8> {
        let last = &self.last[steps];
        let block = last.get();
        if block.is_null() {
            return None;
        }
        #[expect(
            unsafe_code,
            reason = "a list in the blocks themselves, since an allocator has nowhere else to keep one"
        )]
        // SAFETY: only `leave` puts blocks here, having written `next` into them, and nobody has them while they are here.
        last.set(unsafe { (*block).next });
        self.bytes.set(self.bytes.get() - steps * STEP);
        Some(block.cast())
    }

    /// Takes `block`, of so many steps, which nobody has any more; false: it does not.
    #[inline]
    fn leave(&self, block: *mut u8, steps: usize) -> bool {
        let (bytes, most) = (self.bytes.get() + steps * STEP, self.most.get());
        if bytes > most {
            // A thread that keeps none is never full.
            self.is_full.set(most > 0);
            return false;
        }
        let (block, last) = (block.cast::<Free>(), &self.last[steps]);
        #[expect(unsafe_code, reason = "see `take`")]
        // SAFETY: the block has at least 24 bytes, is aligned to 16, and is nobody else's since it was freed.
        unsafe {
            block.write(Free { next: last.get() });
        }
        last.set(block);
        self.bytes.set(bytes);
        true
    }

    #[cold]
    fn give_back(&self) {
        for steps in LEAST..SIZES {
            while let Some(block) = self.take(steps) {
                free(block, steps);
            }
        }
    }
}

/// Gives [`System`] back a block of so many steps.
#[inline]
fn free(block: *mut u8, steps: usize) {
    #[expect(unsafe_code, reason = "an allocator's work")]
    // SAFETY: `alloc` and `realloc` have all blocks of so many steps from `System` with this layout.
    unsafe {
        System.dealloc(block, of(steps));
    }
}

/// The layout with which a block of so many steps is asked for. Its alignment is what malloc has anyway.
#[inline]
#[expect(unsafe_code, reason = "an allocator must not panic, and checks would be made for each block")]
const fn of(steps: usize) -> Layout {
    // SAFETY: 16 is a power of two, and no size is near `isize::MAX`, since `steps` is below `SIZES`.
    unsafe { Layout::from_size_align_unchecked(usable(steps), STEP) }
}

#[expect(unsafe_code, reason = "nothing else is an allocator")]
// SAFETY: every block is `System`'s, has at least the size and alignment of its layout (`steps` rounds up, and nothing aligned to
// more than 16 is kept), and is in a list only between its `dealloc` and the `alloc` that takes it out. Whether a block is of
// `steps` or not follows from its layout alone, which is the same in `alloc`, `realloc` and `dealloc`. Nothing here panics:
// `steps` is always below `SIZES`.
unsafe impl GlobalAlloc for Blocks {
    // Not inlined: a call costs less than a megabyte more of code that is resident.
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(steps) = steps(layout) else { return unsafe { System.alloc(layout) } };
        match KEPT.with(|kept| kept.take(steps)) {
            Some(block) => block,
            None => unsafe { System.alloc(of(steps)) },
        }
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(steps) = steps(layout) else { return unsafe { System.alloc_zeroed(layout) } };
        match KEPT.with(|kept| kept.take(steps)) {
            Some(block) => {
                unsafe { block.write_bytes(0, layout.size()) };
                block
            }
            None => unsafe { System.alloc_zeroed(of(steps)) },
        }
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(steps) = steps(layout) else { return unsafe { System.dealloc(block, layout) } };
        if !KEPT.with(|kept| kept.leave(block, steps)) {
            free(block, steps);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let (before, after) = (steps(layout), steps(wanted));
        if before.is_some() && before == after {
            return block;
        }
        let layout = before.map_or(layout, of);
        // Of one alignment, so both come from malloc, or neither does.
        unsafe { System.realloc(block, layout, after.map_or(size, usable)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// A block of `Blocks`, full of one byte, which must still be there at its end.
    struct Held {
        at: *mut u8,
        layout: Layout,
        with: u8,
    }

    #[expect(unsafe_code, reason = "an allocator is called by unsafe functions")]
    impl Held {
        fn new(layout: Layout, with: u8, zeroed: bool) -> Self {
            let at = unsafe { if zeroed { Blocks.alloc_zeroed(layout) } else { Blocks.alloc(layout) } };
            assert!(!at.is_null() && at.addr().is_multiple_of(layout.align()));
            let mut held = Self { at, layout, with: 0 };
            if zeroed {
                held.check(layout.size());
            }
            held.fill(with);
            held
        }

        fn fill(&mut self, with: u8) {
            self.with = with;
            unsafe { self.at.write_bytes(with, self.layout.size()) };
        }

        fn check(&self, bytes: usize) {
            let all = unsafe { std::slice::from_raw_parts(self.at, bytes) };
            assert!(all.iter().all(|byte| *byte == self.with), "somebody else has written into this block");
        }

        fn resize(&mut self, size: usize) {
            self.at = unsafe { Blocks.realloc(self.at, self.layout, size) };
            let kept = size.min(self.layout.size());
            self.layout = layout(size, self.layout.align());
            self.check(kept);
            self.fill(self.with);
        }
    }

    #[expect(unsafe_code, reason = "as above")]
    impl Drop for Held {
        fn drop(&mut self) {
            self.check(self.layout.size());
            unsafe { Blocks.dealloc(self.at, self.layout) };
        }
    }

    fn bytes_kept() -> usize {
        KEPT.with(|kept| kept.bytes.get())
    }

    /// On a thread of its own, since what is kept is the thread's.
    fn alone(test: impl FnOnce() + Send) {
        std::thread::scope(|scope| scope.spawn(test).join().unwrap());
    }

    #[test]
    fn what_a_worker_frees_it_gets_again_whatever_its_size() {
        alone(|| {
            keep();
            for size in [1, 24, 25, 100, 1032, 1033, 1136, 3712, 8192, 16_406, LARGEST] {
                let first = Held::new(layout(size, 8), 1, false);
                let at = first.at;
                drop(first);
                assert!(bytes_kept() >= size);
                let second = Held::new(layout(size, 16), 2, true);
                assert_eq!(second.at, at, "{size}");
                assert_eq!(bytes_kept(), 0);
                KEPT.with(|kept| kept.most.set(0));
                drop(second);
                keep();
            }
        });
    }

    #[test]
    fn a_thread_that_is_not_told_to_keeps_nothing_and_what_is_too_large_or_aligned_to_more_is_not_kept() {
        alone(|| {
            drop(Held::new(layout(100, 8), 1, false));
            assert_eq!(bytes_kept(), 0);
            keep();
            drop(Held::new(layout(LARGEST + 1, 8), 1, false));
            drop(Held::new(layout(100, 64), 1, false));
            assert_eq!(bytes_kept(), 0);
        });
    }

    #[test]
    fn a_thread_keeps_no_more_than_it_may_and_begins_again_when_it_is_told_to() {
        alone(|| {
            keep();
            let all: Vec<Held> = (0..100).map(|_| Held::new(layout(8192, 8), 7, false)).collect();
            review();
            drop(all);
            let full = bytes_kept();
            assert!(full <= MOST && full + 8208 > MOST, "{full}");

            review();
            assert_eq!(bytes_kept(), 0);
            drop(Held::new(layout(100, 8), 1, false));
            review();
            assert!(bytes_kept() >= 100, "there was room");
            KEPT.with(Kept::give_back);
        });
    }

    #[test]
    fn a_block_may_be_freed_by_another_thread() {
        struct Sent(Held);
        #[expect(unsafe_code, reason = "it has its block to itself")]
        unsafe impl Send for Sent {}

        let sent = Sent(Held::new(layout(500, 8), 3, false));
        alone(move || {
            let sent = sent;
            keep();
            drop(sent.0);
            assert!(bytes_kept() >= 500);
            KEPT.with(Kept::give_back);
        });
    }

    proptest! {
        #[test]
        fn nobody_has_the_same_bytes_as_another(
            steps in prop::collection::vec((0_usize..8, 1_usize..30_000, 0_u32..8, any::<bool>()), 1..200)
        ) {
            alone(|| {
                keep();
                let mut all: Vec<Held> = Vec::new();
                for (number, (what, size, align, zeroed)) in steps.into_iter().enumerate() {
                    match (what, all.len()) {
                        (0..=3, _) | (_, 0) => all.push(Held::new(layout(size, 1 << align), number as u8, zeroed)),
                        (4 | 5, held) => drop(all.swap_remove(size % held)),
                        (_, held) => all[size % held].resize(size),
                    }
                }
                drop(all);
                KEPT.with(Kept::give_back);
            });
        }
    }
}
