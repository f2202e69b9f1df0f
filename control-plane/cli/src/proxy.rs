//! `selvedge proxy`, and the slim `selvedge-proxy`: the sidecar.

use std::net::{Ipv4Addr, SocketAddr};

use crate::daemon::Daemon;

/// Where a sidecar's admin port is if nobody says otherwise.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4191);

/// What a sidecar's command line says.
pub type Args = Daemon<selvedge_proxy::cli::Args>;

/// Runs a sidecar until it is told to end, or waits for one.
///
/// # Errors
/// If a setting cannot be used, the proxy cannot go on, or the one that is waited for is not ready in time.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args {
        Daemon::Run(args) => selvedge_proxy::run(args),
        Daemon::Wait(wait) => wait.run(ADMIN),
    }
}
