//! `selvedge app`: the demo's tiny apps, in this binary so that `cargo run -- demo` builds nothing else.

use selvedge_demo::apps::{self, App};

/// Runs one of the demo's apps.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    app: App,
}

/// Runs the app until it is killed.
///
/// # Errors
/// If its address cannot be listened on.
pub fn run(args: Args) -> anyhow::Result<()> {
    apps::run(args.app)
}
