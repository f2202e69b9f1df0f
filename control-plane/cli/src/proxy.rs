//! `selvedge proxy`, and the slim `selvedge-proxy`: the sidecar.

pub use selvedge_proxy::cli::Args;

/// Runs a sidecar until it is told to end.
///
/// # Errors
/// If a setting cannot be used, or the proxy cannot go on.
pub fn run(args: Args) -> anyhow::Result<()> {
    selvedge_proxy::run(args)
}
