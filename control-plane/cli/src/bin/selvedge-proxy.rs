//! `selvedge-proxy`: the sidecar alone, for images.

use std::process::ExitCode;

use clap::Parser;
use selvedge_cli::{finish, proxy};

/// The sidecar: carries one workload's traffic, in and out
#[derive(Debug, Parser)]
#[command(name = "selvedge-proxy", version)]
struct SelvedgeProxy {
    #[command(flatten)]
    args: proxy::Args,
}

#[global_allocator]
static ALLOCATOR: selvedge_blocks::Blocks = selvedge_blocks::Blocks;

fn main() -> ExitCode {
    finish("selvedge-proxy", proxy::run(SelvedgeProxy::parse().args))
}
