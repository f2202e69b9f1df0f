//! The command that people type: one file per subcommand, each with its `Args` and its `run`.
//!
//! A library beside the binaries, so that `selvedge`, `selvedge-proxy` and `selvedge-control-plane` share
//! one way to start and one way to fail.

use std::{io, process::ExitCode};

pub mod app;
pub mod authz;
pub mod certs;
pub mod check;
pub mod cluster;
pub mod completions;
pub mod control_plane;
pub mod daemon;
pub mod dashboard;
pub mod demo;
pub mod diagnostics;
#[cfg(test)]
mod documented;
pub mod documents;
pub mod explain;
pub mod inject;
pub mod install;
pub mod man;
mod manifests;
mod output;
mod patience;
mod place;
pub mod proxy;
mod replicas;
pub mod revoke;
pub mod rotate;
pub mod seeing;
pub mod status;
mod table;
#[cfg(test)]
mod testing;
pub mod token;
pub mod uninject;
pub mod uninstall;

/// Turns what a command came to into the process's exit status; a failure is one message on stderr.
///
/// A reader who closed our output (`selvedge … | head`) is not a failure.
pub fn finish(program: &str, outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, each once: many of our messages end in their cause already.
fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let missing = std::path::Path::new("/nowhere/a.pem");
        let error = anyhow::Error::from(selvedge_certs::files::read_certificates(missing).unwrap_err());

        let text = told(&error.context("no CA"));

        assert_eq!(text, "no CA: cannot read /nowhere/a.pem: No such file or directory (os error 2)");
    }

    #[test]
    fn a_reader_who_left_is_no_failure() {
        let closed = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        let missing = anyhow::Error::from(io::Error::from(io::ErrorKind::NotFound));

        assert!(is_closed_pipe(&closed));
        assert!(!is_closed_pipe(&missing));
    }
}
