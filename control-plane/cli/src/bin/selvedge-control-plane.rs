//! `selvedge-control-plane`: the control plane alone, for images.

use std::process::ExitCode;

use clap::Parser;
use selvedge_cli::{control_plane, finish};

/// The control plane: turns YAML into configuration, and issues certificates
#[derive(Debug, Parser)]
#[command(name = "selvedge-control-plane", version)]
struct SelvedgeControlPlane {
    #[command(flatten)]
    args: control_plane::Args,
}

fn main() -> ExitCode {
    finish("selvedge-control-plane", control_plane::run(SelvedgeControlPlane::parse().args))
}
