//! `selvedge token`: join tokens, by which a workload outside Kubernetes gets its first certificate.

mod create;
mod list;
mod place;
mod revoke;

/// Create, list and revoke join tokens, with which workloads get their first certificate
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Create(create::CreateArgs),
    List(list::ListArgs),
    Revoke(revoke::RevokeArgs),
}

/// Runs `selvedge token`.
///
/// # Errors
/// If the data directory or the cluster cannot be used, if no such token can be made, or if there is none of that id.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Create(args) => create::run(&args),
        Command::List(args) => list::run(&args),
        Command::Revoke(args) => revoke::run(&args),
    }
}
