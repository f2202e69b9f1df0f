//! `selvedge-init`: redirects a workload's connections to its sidecar, before the workload starts.

use std::process::ExitCode;

use clap::Parser;
use selvedge_cli::finish;

/// Redirects the connections of this network namespace to the sidecar in it, and verifies that they are
#[derive(Debug, Parser)]
#[command(name = "selvedge-init", version)]
struct SelvedgeInit {
    #[command(flatten)]
    args: selvedge_init::Args,
}

fn main() -> ExitCode {
    let outcome = selvedge_init::run(&SelvedgeInit::parse().args);
    finish("selvedge-init", outcome.map_err(Into::into))
}
