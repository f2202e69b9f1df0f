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

#[global_allocator]
static ALLOCATOR: selvedge_blocks::Blocks = selvedge_blocks::Blocks;

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
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Selvedge::command().debug_assert();
    }

    /// Commands with an argument that asks for JSON, each by what is typed.
    fn with_json(command: &clap::Command, typed: &str, found: &mut BTreeSet<String>) {
        if command.get_arguments().any(|argument| argument.get_long() == Some("json")) {
            found.insert(typed.to_owned());
        }
        for one in command.get_subcommands() {
            with_json(one, format!("{typed} {}", one.get_name()).trim_start(), found);
        }
    }

    #[test]
    fn the_guide_for_programs_has_a_section_for_each_command_that_prints_json() {
        let mut found = BTreeSet::new();
        with_json(&Selvedge::command(), "", &mut found);
        let guide = include_str!("../../json.md");
        let sections = guide.lines().filter_map(|line| line.strip_prefix("## selvedge "));

        // One section may be of several: `authz` of `authz matrix` and `authz try`.
        let sections: BTreeSet<&str> = sections.collect();
        for command in &found {
            let is_it = |section: &&str| command == section || command.starts_with(&format!("{section} "));
            assert!(sections.iter().any(is_it), "json.md has nothing of selvedge {command}");
            assert!(
                guide.contains(&format!("selvedge {command}")),
                "json.md does not name selvedge {command}"
            );
        }
        for section in sections {
            let is_it = |command: &String| command == section || command.starts_with(&format!("{section} "));
            assert!(found.iter().any(is_it), "selvedge {section} prints no JSON");
        }
    }
}
