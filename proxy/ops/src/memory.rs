//! How much memory this process has.

use std::fs;

/// What the process has in memory, in bytes, as the kernel counts it (`VmRSS`, proc_pid_status(5)); `None`: it does not say.
pub fn resident() -> Option<u64> {
    of_status(&fs::read_to_string("/proc/self/status").ok()?)
}

fn of_status(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_it_in_kibibytes() {
        assert_eq!(of_status("Name:\tx\nVmHWM:\t 9 kB\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(of_status("Name:\tx\n"), None);
        assert!(resident().is_none_or(|bytes| bytes > 1 << 16));
    }
}
