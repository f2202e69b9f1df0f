//! `selvedge control-plane`, and the slim `selvedge-control-plane`.

use std::net::{Ipv4Addr, SocketAddr};

use crate::{daemon::Daemon, dashboard};

/// Where a control plane's admin port is if nobody says otherwise.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9990);

/// What a control plane's command line says.
pub type Args = Daemon<selvedge_control_plane::cli::Args>;

/// Runs a control plane until it is told to end, or waits for one.
///
/// # Errors
/// If a setting cannot be used, the control plane cannot go on, or the one that is waited for is not ready
/// in time.
#[allow(clippy::needless_pass_by_value)] // the shape of every subcommand
pub fn run(args: Args) -> anyhow::Result<()> {
    match args {
        Daemon::Run(args) => Ok(selvedge_control_plane::run(&args, dashboard::pages)?),
        Daemon::Wait(wait) => wait.run(ADMIN),
    }
}
