//! `selvedge control-plane`, and the slim `selvedge-control-plane`.

pub use selvedge_control_plane::cli::Args;

/// Runs a control plane until it is told to end.
///
/// # Errors
/// If a setting cannot be used, or the control plane cannot go on.
#[allow(clippy::needless_pass_by_value)] // the shape of every subcommand
pub fn run(args: Args) -> anyhow::Result<()> {
    Ok(selvedge_control_plane::run(&args)?)
}
