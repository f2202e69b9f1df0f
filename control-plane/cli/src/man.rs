//! `selvedge man`: pages for `man`, of the same texts as `--help`.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap_mangen::Man;

/// Print the manual page, or write the pages of all commands into a directory
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to write selvedge.1, selvedge-stat.1 and so on, such as ~/.local/share/man/man1
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Prints the page of `command`, or writes all pages.
///
/// # Errors
/// If they cannot be written.
#[allow(clippy::needless_pass_by_value)] // the shape of every subcommand
pub fn run(args: Args, mut command: clap::Command) -> anyhow::Result<()> {
    command.build();
    match args.directory {
        Some(directory) => {
            let unwritable = || format!("cannot write into {}", directory.display());
            fs::create_dir_all(&directory).with_context(unwritable)?;
            write(&command, "selvedge", &directory).with_context(unwritable)
        }
        None => Ok(io::stdout().lock().write_all(&page(&command, "selvedge")?)?),
    }
}

/// The pages of `command` and of all below it.
fn write(command: &clap::Command, name: &str, directory: &Path) -> io::Result<()> {
    fs::write(directory.join(format!("{name}.1")), page(command, name)?)?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help")
    {
        write(below, &format!("{name}-{}", below.get_name()), directory)?;
    }
    Ok(())
}

fn page(command: &clap::Command, name: &str) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone().display_name(name)).render(&mut page)?;
    Ok(page)
}
