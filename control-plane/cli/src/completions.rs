//! `selvedge completions`: what a shell completes of the command line.

use std::io::{self, Write as _};

use clap_complete::Shell;

/// Print completions for a shell
///
/// For bash: selvedge completions bash > ~/.local/share/bash-completion/completions/selvedge. For zsh, into a file _selvedge
/// in a directory of $fpath; for fish, into ~/.config/fish/completions/selvedge.fish.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// For which shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

/// Prints the completions of `command`.
///
/// # Errors
/// If they cannot be written.
#[allow(clippy::needless_pass_by_value)] // the shape of every subcommand
pub fn run(args: Args, command: &mut clap::Command) -> anyhow::Result<()> {
    let mut completions = Vec::new();
    clap_complete::generate(args.shell, command, "selvedge", &mut completions);
    io::stdout().lock().write_all(&completions)?;
    Ok(())
}
