//! In which form a command prints what it has found: the same flags for all commands.

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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

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
