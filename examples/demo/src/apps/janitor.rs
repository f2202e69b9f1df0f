//! Removes a mesh's directory when its owner is gone, even if that was killed with SIGKILL.
//!
//! The directory holds a CA's private key: it must not lie about in a temporary directory. Only directories
//! that a demo mesh made are removed.

use std::{io, path::PathBuf, time::Duration};

use anyhow::bail;

use crate::{cluster::DIRECTORY_PREFIX, wait};

/// Daemons may take a moment to leave after their own stdin closed, and write until then.
const LIMIT: Duration = Duration::from_secs(20);

/// What to remove.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The directory of a demo mesh.
    #[arg(long)]
    directory: PathBuf,
}

/// Waits for stdin to close, then removes the directory.
///
/// # Errors
/// If it is not a demo mesh's directory, or cannot be removed.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let name = args.directory.file_name().unwrap_or_default().to_string_lossy();
    if !name.starts_with(DIRECTORY_PREFIX) {
        bail!("{} was not made by a demo mesh", args.directory.display());
    }
    tokio::task::spawn_blocking(super::read_stdin_to_its_end).await?;
    wait::until(LIMIT, &format!("{} is removed", args.directory.display()), async || {
        match std::fs::remove_dir_all(&args.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    })
    .await?;
    Ok(())
}
