//! `selvedge uninject`: manifests as they were before `selvedge inject`.

use selvedge_control_plane::inject::revert::revert;

use crate::manifests::{self, ChangeOutcome, Input};

/// Take the sidecars out of the pods of manifests, and print the manifests
///
/// Probes, hooks and Prometheus' annotations become what they were before. Annotations config.selvedge.io/NAME stay.
/// Every document without a sidecar is printed unchanged.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    input: Input,
}

/// Takes them out.
///
/// # Errors
/// If something cannot be read.
#[allow(clippy::needless_pass_by_value)] // the shape of every subcommand
pub fn run(args: Args) -> anyhow::Result<()> {
    manifests::change(&args.input, |pod, _| match revert(pod) {
        true => (ChangeOutcome::Changed, Vec::new()),
        false => (ChangeOutcome::Kept("it has no sidecar".to_owned()), Vec::new()),
    })
}
