//! `selvedge authz`: who may call whom, before anybody does, and whom a change would refuse.
//!
//! The verdicts are those of the model, which sidecars ask, on the mesh that the control plane's own code makes of the
//! documents.

mod matrix;
mod output;
#[cfg(test)]
mod tests;
mod trying;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use selvedge_control_plane::{
    compile::compile,
    problem::{Problem, Severity},
};
use selvedge_model::Mesh;

use self::output::Format;
use crate::documents::DocumentArgs;

/// Show who may call whom, and try what a change of policies would refuse
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Matrix(Box<MatrixArgs>),
    Try(Box<TryArgs>),
}

/// Show which workload may call which port of which other, and by which rule
///
/// A pair whose requests decide "depends on the request"; `selvedge explain request` says what becomes of one. A client
/// without a sidecar calls in plaintext. Of a server without a sidecar only the client's sidecar is asked. Pairs without any
/// sidecar are left out.
///
/// Exit status: 0, or 2 if the documents cannot be used.
#[derive(Debug, clap::Args)]
struct MatrixArgs {
    #[command(flatten)]
    documents: DocumentArgs,

    /// In which form to print the matrix; dot is a picture for Graphviz
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// Say which pairs of workloads would be refused if documents were added or changed
///
/// Documents of the files take the place of those of the same name. The matrix before is compared with the matrix after.
///
/// It knows who could call whom, and not who really does. Where requests decide before and after, by policies that are not
/// the same, it says that and does not say which requests would be refused.
///
/// Exit status: 0 if nobody loses anything, 1 if a pair would be refused that is let in now, or some of its requests might
/// be, 2 if the documents cannot be used.
#[derive(Debug, clap::Args)]
struct TryArgs {
    #[command(flatten)]
    documents: DocumentArgs,

    /// A file with new or changed documents; may be given several times
    #[arg(short, long = "file", value_name = "FILE", required_unless_present = "strict")]
    files: Vec<PathBuf>,

    /// Ask the same of mutual TLS for the whole mesh: a PeerAuthentication of the root namespace that says STRICT
    ///
    /// It takes the place of those that are for the whole mesh. Those of a namespace or a workload stay, and overrule it.
    #[arg(long)]
    strict: bool,

    /// In which form to print the result; json is one JSON object
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: trying::Format,
}

/// Answers; the exit status says whether somebody would be refused.
///
/// # Errors
/// If the answer cannot be written.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let answered = match args.what {
        What::Matrix(args) => matrix_of(&args).map(|text| (text, false)),
        What::Try(args) => trying::answer(&args),
    };
    let (text, breaks) = match answered {
        Ok(answered) => answered,
        Err(error) => {
            eprintln!("selvedge: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(if breaks { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn matrix_of(args: &MatrixArgs) -> Result<String, String> {
    let loaded = args.documents.load()?;
    let (mesh, problems) = compile(&loaded.resources, &args.documents.settings(), &Mesh::default());
    let is_error = |problem: &&Problem| problem.severity == Severity::Error;
    for problem in loaded.problems.iter().chain(&problems).filter(is_error) {
        eprintln!("selvedge: {problem}");
    }
    output::written(&matrix::of(&mesh), args.output)
}
