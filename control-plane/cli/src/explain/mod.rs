//! `selvedge explain`: what would become of a request or a connection, before anybody sends it.
//!
//! Each question is answered by the code that sidecars and gateways run: the request is settled, matched and changed by the proxy and
//! the model, on the mesh that the control plane's own code makes of the documents.

mod arguments;
mod backends;
pub(crate) mod caller;
mod condition;
mod connection;
mod endpoints;
pub(crate) mod ends;
mod explanation;
mod filters;
mod gateway;
mod limits;
mod meaning;
mod passage;
mod places;
mod policy;
mod question;
mod request;
mod rule;
#[cfg(test)]
mod tests;
mod token;
mod tree;

use std::process::ExitCode;

use self::arguments::{ConnectionArgs, RequestArgs};
use crate::output::{OutputArgs, verdict};

/// Explain what would become of a request or a connection
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Request(Box<RequestArgs>),
    Connection(Box<ConnectionArgs>),
}

/// Explains; the exit status says whether the request would be sent, or the connection let in.
///
/// # Errors
/// If the explanation cannot be written.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let explained = match args.what {
        What::Request(args) => of_request(&args),
        What::Connection(args) => of_connection(&args),
    };
    let (text, passes) = match explained {
        Ok(explained) => explained,
        Err(error) => {
            eprintln!("selvedge: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    verdict(&text, passes)
}

/// The explanation in words, and whether the request would be sent.
fn of_request(args: &RequestArgs) -> Result<(String, bool), String> {
    let explanation = request::explain(args)?;
    Ok((written(args.output, &explanation, tree::text)?, explanation.sent))
}

/// The explanation in words, and whether the connection would be let in.
fn of_connection(args: &ConnectionArgs) -> Result<(String, bool), String> {
    if args.from.is_none() {
        let explanation = connection::to_gateway(args)?;
        return Ok((written(args.output, &explanation, tree::of_connection)?, explanation.sent));
    }
    let explanation = connection::explain(args)?;
    Ok((written(args.output, &explanation, connection::text)?, explanation.is_allowed()))
}

fn written<T: serde::Serialize>(
    output: OutputArgs,
    explanation: &T,
    text: impl Fn(&T) -> String,
) -> Result<String, String> {
    match output.is_json() {
        false => Ok(text(explanation)),
        true => serde_json::to_string_pretty(explanation)
            .map(|text| text + "\n")
            .map_err(|error| error.to_string()),
    }
}
