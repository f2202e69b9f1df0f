//! `selvedge certs`: certificates for local mTLS, usable with openssl and curl and no mesh.

/// Make and look at certificates, with no mesh running
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {}

/// Runs `selvedge certs`.
///
/// # Errors
/// What failed, with which file, and what to do.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {}
}
