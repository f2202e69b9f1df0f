//! `selvedge`: a whole mesh in one command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use selvedge_cli::{app, certs, check, demo, finish, proxy};

/// A service mesh: identities, routing, retries and metrics for apps that stay as they are.
#[derive(Debug, Parser)]
#[command(name = "selvedge", version)]
struct Selvedge {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(hide = true)]
    App(app::Args),
    Certs(certs::Args),
    Check(check::Args),
    Demo(demo::Args),
    Proxy(proxy::Args),
}

fn main() -> ExitCode {
    let outcome = match Selvedge::parse().command {
        Command::App(args) => app::run(args),
        Command::Certs(args) => certs::run(args),
        Command::Check(args) => match check::run(args) {
            Ok(status) => return status,
            Err(error) => Err(error),
        },
        Command::Demo(args) => demo::run(args),
        Command::Proxy(args) => proxy::run(args),
    };
    finish("selvedge", outcome)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Selvedge::command().debug_assert();
    }
}
