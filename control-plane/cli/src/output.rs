//! In which form a command prints what it has found, and what its exit status says of it: the same for all commands.

use std::{io, process::ExitCode};

/// In which form a result is printed.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct OutputArgs {
    /// In which form to print the result; json is one JSON value, for programs
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    output: Format,

    /// The same as --output json
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    #[value(alias = "table")]
    Text,
    /// For programs.
    Json,
}

impl OutputArgs {
    /// Whether it is JSON.
    pub(crate) fn is_json(self) -> bool {
        self.json || self.output == Format::Json
    }
}

/// Prints what a command has found. The exit status says whether that is as it should be, also to those who have read enough of
/// it (`selvedge … | head`).
///
/// # Errors
/// If it cannot be written for another reason.
pub(crate) fn verdict(text: &str, is_well: bool) -> anyhow::Result<ExitCode> {
    written(io::stdout().lock(), text)?;
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn written(mut out: impl io::Write, text: &str) -> io::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// Takes nothing.
    struct Closed(io::ErrorKind);

    impl io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_has_read_enough_is_no_failure_and_a_full_disk_is_one() {
        assert!(written(Closed(io::ErrorKind::BrokenPipe), "a").is_ok());
        assert!(written(Closed(io::ErrorKind::StorageFull), "a").is_err());
    }

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        output: OutputArgs,
    }

    #[test]
    fn json_is_asked_for_in_either_way() {
        let is_json = |words: &[&str]| {
            let line = Line::try_parse_from([&["a"], words].concat());
            line.map(|line| line.output.is_json()).ok()
        };
        for (words, expected) in [
            (&[][..], Some(false)),
            (&["-o", "text"], Some(false)),
            (&["-o", "table"], Some(false)),
            (&["-o", "json"], Some(true)),
            (&["--json"], Some(true)),
            (&["--json", "-o", "json"], None),
            (&["-o", "yaml"], None),
        ] {
            assert_eq!(is_json(words), expected, "{words:?}");
        }
    }
}
