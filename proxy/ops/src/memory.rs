//! How much memory this process has.

use std::fs;

/// What the process has in memory, in bytes, as the kernel counts it (`VmRSS`, proc_pid_status(5)); `None`: it does not say.
pub fn resident() -> Option<u64> {
    of_status(&fs::read_to_string("/proc/self/status").ok()?)
}

/// Blocks from this size on come from the kernel itself, so that of a buffer that is never filled only the pages count that
/// are: HTTP/2 has one of 16 KiB for each connection, and mostly uses its first 100 bytes.
pub const OWN_PAGES: i32 = 16_000;
/// The most such blocks: Linux lets a process have 65,530 mappings by default (`vm.max_map_count`). Beyond, blocks come from
/// where all others do.
const MOST_MAPPINGS: i32 = 32_768;

/// For a process with thousands of connections: has the allocator take large blocks from the kernel one by one. To be called
/// at the start.
pub fn map_large_blocks() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "nothing else sets what mallopt(3) does, and it takes plain numbers")]
    // SAFETY: it may be called at any time, from any thread, and with these parameters changes nothing that exists.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES);
        libc::mallopt(libc::M_MMAP_MAX, MOST_MAPPINGS);
    }
}

/// Gives the kernel back what was allocated for a moment, such as for thousands of handshakes at once. It may take a tenth of a
/// second, in which others wait for memory.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "nothing else does what malloc_trim(3) does, and it takes a plain number")]
    // SAFETY: it may be called at any time and from any thread; it touches nothing that is allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn of_status(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_env = "gnu")]
    #[test]
    fn what_was_allocated_for_a_moment_is_given_back() {
        let resident = || resident().unwrap();
        // Small blocks, so that none is a mapping of its own; the last one keeps the heap from shrinking by itself.
        let mut blocks: Vec<Vec<u8>> = (0..64 << 10).map(|_| vec![1; 1000]).collect();
        let last = blocks.pop();
        let full = resident();
        drop(blocks);

        give_back();

        assert!(resident() + (32 << 20) < full, "{} of {full}", resident());
        drop(last);
    }

    #[test]
    fn the_kernel_says_it_in_kibibytes() {
        assert_eq!(of_status("Name:\tx\nVmHWM:\t 9 kB\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(of_status("Name:\tx\n"), None);
        assert!(resident().is_none_or(|bytes| bytes > 1 << 16));
    }
}
