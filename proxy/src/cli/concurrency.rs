//! Settings of what limits the requests that the app has in progress.

use std::time::Duration;

/// What limits the requests that the app has in progress.
#[derive(Debug, Clone, clap::Args)]
pub struct ConcurrencyArgs {
    /// Let in no more requests at once than the app answers without delay, and answer others 503. How many that are, the
    /// proxy finds out from how long answers take, as Envoy's adaptive concurrency filter does.
    #[arg(long, env = "SELVEDGE_ADAPTIVE_CONCURRENCY", conflicts_with = "gateway")]
    pub adaptive_concurrency: bool,

    /// With `--adaptive-concurrency`, the most requests in progress that it ever lets in.
    #[arg(
        long,
        env = "SELVEDGE_ADAPTIVE_CONCURRENCY_MAX",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(3..=1_000_000)
    )]
    pub adaptive_concurrency_max: u32,

    /// With `--adaptive-concurrency`, how often the proxy measures how long answers take when nothing waits. For 50
    /// requests it then lets in only 3 at once. Less than 1s counts as 1s.
    #[arg(
        long,
        env = "SELVEDGE_ADAPTIVE_CONCURRENCY_INTERVAL",
        default_value = "60s",
        value_parser = humantime::parse_duration
    )]
    pub adaptive_concurrency_interval: Duration,
}
