//! A daemon's command line: its settings, or `wait`.
//!
//! This is written by hand and not derived, because a health check runs in the daemon's own environment. Some of the
//! daemon's settings are environment variables there; others were given as flags and are missing. `wait` must work
//! without them.

use std::{net::SocketAddr, time::Duration};

use clap::{ArgMatches, Command, FromArgMatches};
use selvedge_ops::wait;

/// What a daemon's binary is asked to do.
#[derive(Debug, Clone)]
pub enum Daemon<A> {
    /// To be the daemon.
    Run(A),
    /// To wait for one.
    Wait(WaitArgs),
}

/// Wait until the daemon on this host is ready, then exit with status 0
///
/// Use it as a health check, and before a program that must not start earlier. When the time is over it exits with
/// status 1 and says what is missing.
#[derive(Debug, Clone, clap::Args)]
pub struct WaitArgs {
    /// The daemon's admin port, as IP:PORT; default: its usual port on this host
    #[arg(long, env = "SELVEDGE_ADMIN")]
    admin: Option<SocketAddr>,

    /// How long to wait
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

const WAIT: &str = "wait";

impl WaitArgs {
    /// Waits; `usual` is where the daemon answers if nobody says otherwise.
    ///
    /// # Errors
    /// If the daemon is not ready in time.
    pub fn run(&self, usual: SocketAddr) -> anyhow::Result<()> {
        Ok(wait::until_ready(self.admin.unwrap_or(usual), self.timeout)?)
    }
}

impl<A: FromArgMatches> FromArgMatches for Daemon<A> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        match matches.subcommand_matches(WAIT) {
            Some(matches) => WaitArgs::from_arg_matches(matches).map(Self::Wait),
            None => A::from_arg_matches(matches).map(Self::Run),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<A: clap::Args> clap::Args for Daemon<A> {
    fn augment_args(command: Command) -> Command {
        with_wait(A::augment_args(command))
    }

    fn augment_args_for_update(command: Command) -> Command {
        with_wait(A::augment_args_for_update(command))
    }
}

fn with_wait(command: Command) -> Command {
    let wait = <WaitArgs as clap::Args>::augment_args(Command::new(WAIT));
    command.subcommand(wait).args_conflicts_with_subcommands(true).subcommand_negates_reqs(true)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        daemon: Daemon<selvedge_proxy::cli::Args>,
    }

    #[test]
    fn waiting_needs_none_of_the_daemons_settings() {
        let program = Program::parse_from(["proxy", "wait", "--timeout", "2s"]);

        let Daemon::Wait(wait) = program.daemon else { panic!("{program:?}") };
        assert_eq!((wait.timeout, wait.admin), (Duration::from_secs(2), None));
    }

    #[test]
    fn the_daemon_itself_still_does() {
        let whole = ["proxy", "--workload", "shop/a", "--token-file", "t", "--app", "127.0.0.1:1"];

        assert!(matches!(Program::parse_from(whole).daemon, Daemon::Run(_)));
        let error = Program::try_parse_from(&whole[..3]).unwrap_err();
        assert!(error.to_string().contains("--token-file"), "{error}");
    }
}
