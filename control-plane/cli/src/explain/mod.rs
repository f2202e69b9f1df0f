//! `selvedge explain`: what would become of a request, before anybody sends it.
//!
//! Each question is answered by the code that a sidecar runs: the request is settled, matched and changed by the proxy and
//! the model, on the mesh that the control plane's own code makes of the documents.

mod arguments;
mod backends;
pub(crate) mod caller;
mod condition;
mod endpoints;
mod explanation;
mod filters;
mod limits;
mod meaning;
mod passage;
mod question;
mod request;
mod rule;
#[cfg(test)]
mod tests;
mod tree;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use self::{
    arguments::{Format, RequestArgs},
    explanation::Explanation,
};

/// Explain what would become of a request
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Request(Box<RequestArgs>),
}

/// Explains; the exit status says whether the request would be sent.
///
/// # Errors
/// If the explanation cannot be written.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let What::Request(args) = args.what;
    let explained =
        request::explain(&args).and_then(|explanation| Ok((written(&args, &explanation)?, explanation)));
    let (text, explanation) = match explained {
        Ok(explained) => explained,
        Err(error) => {
            eprintln!("selvedge: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(if explanation.sent { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn written(args: &RequestArgs, explanation: &Explanation) -> Result<String, String> {
    match args.output {
        Format::Text => Ok(tree::text(explanation)),
        Format::Json => serde_json::to_string_pretty(explanation)
            .map(|text| text + "\n")
            .map_err(|error| error.to_string()),
    }
}
