//! How late a thread's event loop is: how long after its time a timer is noticed. While it is late, everything that the
//! thread carries waits.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// How often a thread looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Upper bounds of the buckets, in seconds. Tokio's own timers are up to a millisecond late.
const BOUNDS: [f64; 7] = [0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

/// What one thread has noticed.
#[derive(Debug, Default)]
pub struct Lag {
    /// By bucket; the last has no bound.
    counts: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl Lag {
    /// Looks again and again, without end. To be polled by the thread that it is about.
    pub async fn watch(&self) {
        loop {
            let due = Instant::now() + PAUSE;
            tokio::time::sleep_until(due).await;
            self.record(due.elapsed());
        }
    }

    fn record(&self, late: Duration) {
        let bucket = BOUNDS.partition_point(|bound| *bound < late.as_secs_f64());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// The lags of `threads`, each with its name, as a family of OpenMetrics whose name begins with `prefix`.
pub fn text<'a>(prefix: &str, threads: impl Iterator<Item = (String, &'a Lag)>) -> String {
    let name = format!("{prefix}_event_loop_lag_seconds");
    let mut text = format!(
        "# HELP {name} How late the event loop of a thread was, looked at twice a second.\n\
         # TYPE {name} histogram\n# UNIT {name} seconds\n"
    );
    for (thread, lag) in threads {
        let mut count = 0;
        for (place, counted) in lag.counts.iter().enumerate() {
            count += counted.load(Ordering::Relaxed);
            let bound = BOUNDS.get(place).map_or("+Inf".to_owned(), |bound| format!("{bound:?}"));
            let _ = writeln!(text, "{name}_bucket{{thread=\"{thread}\",le=\"{bound}\"}} {count}");
        }
        let sum = Duration::from_nanos(lag.nanos.load(Ordering::Relaxed)).as_secs_f64();
        let _ = writeln!(text, "{name}_sum{{thread=\"{thread}\"}} {sum}");
        let _ = writeln!(text, "{name}_count{{thread=\"{thread}\"}} {count}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_was_late_is_told() {
        let lag = Lag::default();
        lag.record(Duration::from_millis(1));
        lag.record(Duration::from_millis(60));
        lag.record(Duration::from_secs(3));

        let text = text("a", [("worker-0".to_owned(), &lag)].into_iter());
        for line in [
            r#"a_event_loop_lag_seconds_bucket{thread="worker-0",le="0.002"} 1"#,
            r#"a_event_loop_lag_seconds_bucket{thread="worker-0",le="0.1"} 2"#,
            r#"a_event_loop_lag_seconds_bucket{thread="worker-0",le="+Inf"} 3"#,
            r#"a_event_loop_lag_seconds_sum{thread="worker-0"} 3.061"#,
            r#"a_event_loop_lag_seconds_count{thread="worker-0"} 3"#,
        ] {
            assert!(text.lines().any(|other| other == line), "{line}: {text}");
        }
    }
}
