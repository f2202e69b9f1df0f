//! What the system says of this process, by the names that all of Prometheus' clients use (prometheus.io, "Writing client
//! libraries", "Process metrics").

use std::{fmt::Write as _, fs, time::Duration};

use rustix::process::{Resource, getrlimit};

use crate::memory;

/// The families, as OpenMetrics text. What the system does not say is left out.
pub fn text() -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, unit: &str, help: &str, value: Option<f64>| {
        let Some(value) = value else { return };
        let suffix = if kind == "counter" { "_total" } else { "" };
        let _ = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} {kind}");
        if !unit.is_empty() {
            let _ = writeln!(text, "# UNIT {name} {unit}");
        }
        let _ = writeln!(text, "{name}{suffix} {value}");
    };
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let stat = Stat::read(&stat);
    let cpu = stat.as_ref().map(|stat| stat.cpu.as_secs_f64());
    family("process_cpu_seconds", "counter", "seconds", "Processor time that the process has used", cpu);
    let resident = memory::resident().map(|bytes| bytes as f64);
    family(
        "process_resident_memory_bytes",
        "gauge",
        "bytes",
        "Memory of the process that is in RAM",
        resident,
    );
    let whole = stat.as_ref().map(|stat| stat.whole as f64);
    family(
        "process_virtual_memory_bytes",
        "gauge",
        "bytes",
        "Addresses that the process has reserved",
        whole,
    );
    let threads = stat.as_ref().map(|stat| stat.threads as f64);
    family("process_threads", "gauge", "", "Threads of the process", threads);
    let started = stat.as_ref().and_then(|stat| Some((boot_time()? + stat.started).as_secs_f64()));
    let help = "When the process started, in seconds since 1970";
    family("process_start_time_seconds", "gauge", "seconds", help, started);
    let open = open_files().map(|open| open as f64);
    family("process_open_fds", "gauge", "", "Files that the process has open", open);
    let most = getrlimit(Resource::Nofile).current.map(|most| most as f64);
    family("process_max_fds", "gauge", "", "Files that the process may have open", most);
    text
}

/// How many files the process has open.
fn open_files() -> Option<u64> {
    const DIRECTORY: &str = "/proc/self/fd";
    // Since Linux 6.2 its size is their number; before, it is 0. Ten thousand connections are not listed for each scrape.
    let size = fs::metadata(DIRECTORY).ok()?.len();
    if size > 0 {
        return Some(size);
    }
    // The directory that is read is itself an open file while it is read.
    Some(fs::read_dir(DIRECTORY).ok()?.count().saturating_sub(1) as u64)
}

/// What `/proc/self/stat` says (proc(5)).
#[derive(Debug, PartialEq)]
struct Stat {
    cpu: Duration,
    /// Since the system started.
    started: Duration,
    threads: u64,
    /// In bytes.
    whole: u64,
}

impl Stat {
    fn read(text: &str) -> Option<Self> {
        // The second field is the program's name in brackets, which may have anything in it.
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // The first of these is the third of the manual.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = rustix::param::clock_ticks_per_second();
        let time = |count: u64| Duration::from_secs_f64(count as f64 / ticks as f64);
        Some(Self {
            cpu: time(field(14)? + field(15)?),
            threads: field(20)?,
            started: time(field(22)?),
            whole: field(23)?,
        })
    }
}

/// When the system started, since 1970.
fn boot_time() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(Duration::from_secs(seconds.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_hides_no_field() {
        let text = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9 0 1000 4096 3 18446744073709551615";
        let stat = Stat::read(text).expect("all fields");
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(stat.cpu, Duration::from_secs_f64(200.0 / ticks));
        assert_eq!((stat.threads, stat.whole), (9, 4096));
        assert_eq!(Stat::read("nonsense"), None);
    }

    #[test]
    fn open_files_are_as_many_as_are_listed() {
        // Tests beside this one may open and close some.
        let is_alike = || {
            let listed = fs::read_dir("/proc/self/fd").expect("proc").count() as u64 - 1;
            open_files().is_some_and(|open| open.abs_diff(listed) <= 4)
        };
        assert!((0..100).any(|_| is_alike()));
        let before = open_files().expect("proc");
        let opened: Vec<_> = (0..200).map(|_| fs::File::open("/proc/self/stat").expect("proc")).collect();
        assert!(open_files().expect("proc") >= before + 100, "{before}");
        drop(opened);
    }

    #[test]
    fn this_process_tells_all_of_it() {
        let text = text();
        for name in
            ["cpu_seconds_total", "resident_memory_bytes", "start_time_seconds", "open_fds", "max_fds"]
        {
            let start = format!("process_{name} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&start)).expect(name);
            assert!(line.parse::<f64>().expect(name) > 0.0 || name == "cpu_seconds_total", "{name}: {line}");
        }
    }
}
