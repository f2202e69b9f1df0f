//! `selvedge`: a whole mesh in one command.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use selvedge_cli::{
    app, authz, certs, check, completions, control_plane, dashboard, demo, diagnostics, explain, finish,
    inject, install, man, proxy, revoke,
    seeing::{edges, endpoints, logs, routes, stat, tap, top},
    status, token, uninject, uninstall,
};

/// A service mesh: identities, mutual TLS, routing, retries and metrics, without changes to your apps.
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
    Authz(authz::Args),
    Certs(certs::Args),
    Check(check::Args),
    Completions(completions::Args),
    ControlPlane(Box<control_plane::Args>),
    Dashboard(dashboard::Args),
    Demo(demo::Args),
    Diagnostics(diagnostics::Args),
    Edges(edges::Args),
    Endpoints(endpoints::Args),
    Explain(explain::Args),
    Inject(inject::Args),
    Install(install::Args),
    Logs(logs::Args),
    Man(man::Args),
    Proxy(Box<proxy::Args>),
    Revoke(revoke::Args),
    Routes(routes::Args),
    Stat(stat::Args),
    Status(status::Args),
    Tap(Box<tap::Args>),
    Token(token::Args),
    Top(top::Args),
    Uninject(uninject::Args),
    Uninstall(uninstall::Args),
}

fn main() -> ExitCode {
    let outcome = match Selvedge::parse().command {
        Command::App(args) => app::run(args),
        Command::Authz(args) => match authz::run(args) {
            Ok(status) => return status,
            Err(error) => Err(error),
        },
        Command::Certs(args) => certs::run(args),
        Command::Check(args) => match check::run(args) {
            Ok(status) => return status,
            Err(error) => Err(error),
        },
        Command::Completions(args) => completions::run(args, &mut Selvedge::command()),
        Command::ControlPlane(args) => control_plane::run(*args),
        Command::Dashboard(args) => match dashboard::run(args) {
            Ok(status) => return status,
            Err(error) => Err(error),
        },
        Command::Demo(args) => demo::run(args),
        Command::Diagnostics(args) => match diagnostics::run(&args) {
            Ok(status) => return status,
            Err(error) => Err(error),
        },
        Command::Edges(args) => match edges::run(args) {
            Ok(status) => return status,
            Err(error) => Err(error),
        },
        Command::Endpoints(args) => match endpoints::run(args) {
            Ok(status) => return status,
            Err(error) => Err(error),
        },
        Command::Explain(args) => match explain::run(args) {
            Ok(status) => return status,
            Err(error) => Err(error),
        },
        Command::Inject(args) => inject::run(args),
        Command::Install(args) => install::run(args),
        Command::Logs(args) => match logs::run(args) {
            Ok(status) => return status,
            Err(error) => Err(error),
        },
        Command::Man(args) => man::run(args, Selvedge::command()),
        Command::Proxy(args) => proxy::run(*args),
        Command::Revoke(args) => revoke::run(args),
        Command::Routes(args) => match routes::run(args) {
            Ok(status) => return status,
            Err(error) => Err(error),
        },
        Command::Stat(args) => match stat::run(args) {
            Ok(status) => return status,
            Err(error) => Err(error),
        },
        Command::Status(args) => match status::run(args) {
            Ok(status) => return status,
            Err(error) => Err(error),
        },
        Command::Tap(args) => match tap::run(*args) {
            Ok(status) => return status,
            Err(error) => Err(error),
        },
        Command::Token(args) => token::run(args),
        Command::Top(args) => match top::run(args) {
            Ok(status) => return status,
            Err(error) => Err(error),
        },
        Command::Uninject(args) => uninject::run(args),
        Command::Uninstall(args) => uninstall::run(args),
    };
    finish("selvedge", outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Selvedge::command().debug_assert();
    }
}
