//! `selvedge stat`, `edges`, `routes` and `endpoints`: what goes through the mesh, and how it does.
//!
//! They ask every replica of the control plane what its sidecars have told it, and add that up.

mod again;
pub(crate) mod ask;
pub mod edges;
pub mod endpoints;
pub(crate) mod filter;
pub(crate) mod known;
pub mod logs;
pub(crate) mod numbers;
pub mod routes;
pub mod stat;
pub mod tap;
#[cfg(test)]
mod tests;
pub mod top;

use std::{fmt::Write as _, process::ExitCode};

use serde::Serialize;

use crate::{
    cluster,
    output::{OutputArgs, verdict},
    patience::patiently,
};

/// What a command has found out.
struct Answer<T> {
    /// For programs.
    found: T,
    /// For people.
    text: String,
    /// Whether it is as it should be.
    is_well: bool,
    /// Whether all that is not as it should be is that the control plane has just started.
    is_early: bool,
}

/// The exit status if a command cannot say yet whether all is well, because the control plane has just started.
const EARLY: u8 = 3;

/// Prints what `answer` comes to. The exit status says whether it is as it should be.
fn print<T: Serialize>(
    answer: impl Future<Output = anyhow::Result<Answer<T>>>,
    output: OutputArgs,
) -> anyhow::Result<ExitCode> {
    let answer = match cluster::runtime()?.block_on(patiently(answer)) {
        Ok(answer) => answer,
        Err(error) => {
            eprintln!("selvedge: {error:#}");
            return Ok(ExitCode::from(2));
        }
    };
    let text =
        if output.is_json() { serde_json::to_string_pretty(&answer.found)? + "\n" } else { answer.text };
    let verdict = verdict(&text, answer.is_well)?;
    Ok(if answer.is_early { ExitCode::from(EARLY) } else { verdict })
}

/// For a query: all but what never means anything.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    encoded
}
