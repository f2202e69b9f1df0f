//! `selvedge authz`: who may call whom, before anybody does, and whom a change would refuse.
//!
//! The verdicts are those of the model, which sidecars ask, on the mesh that the control plane's own code makes of the
//! documents.

mod filter;
pub(crate) mod matrix;
mod output;
mod seen;
#[cfg(test)]
mod tests;
mod told;
mod trying;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use selvedge_control_plane::{
    compile::compile,
    problem::{Problem, Severity},
};
use selvedge_model::Mesh;

use self::{
    filter::{Filter, Workloads},
    output::Format,
};
use crate::{
    documents::DocumentArgs,
    output::{OutputArgs, verdict},
};

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
/// without a sidecar calls in plaintext; a gateway calls with its own identity. Of a server without a sidecar only the
/// client's sidecar is asked. Pairs of which nobody has a sidecar, and whose client is no gateway, are left out.
///
/// Exit status: 0, or 2 if the documents cannot be used.
#[derive(Debug, clap::Args)]
struct MatrixArgs {
    #[command(flatten)]
    documents: DocumentArgs,

    /// Of which clients: a workload, a ServiceAccount, or all of a namespace; may be given several times; default: of all
    #[arg(long, value_name = "NAMESPACE/NAME|NAMESPACE/*")]
    from: Vec<Workloads>,

    /// Of which servers, in the same way
    #[arg(long, value_name = "NAMESPACE/NAME|NAMESPACE/*")]
    to: Vec<Workloads>,

    /// In which form to print the matrix; dot is a picture for Graphviz
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: Format,

    /// The same as --output json
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

/// Say which pairs of workloads would be refused if documents were added or changed
///
/// Documents of the files take the place of those of the same name. The matrix before is compared with the matrix after.
///
/// First of all it says who talks now and would be refused: it asks the control plane what sidecars have seen in the last
/// hour, in a cluster, or on this host with --admin. If no control plane can be asked, it says so, and compares only who could
/// call whom. Where requests decide before and after, by policies that are not the same, it says that and does not say which
/// requests would be refused.
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

    /// The admin port of a control plane on this host, as IP:PORT, which knows who talks now; default: those in the cluster,
    /// and with --config-dir none
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<SocketAddr>,

    #[command(flatten)]
    output: OutputArgs,
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
    verdict(&text, !breaks)
}

fn matrix_of(args: &MatrixArgs) -> Result<String, String> {
    let loaded = args.documents.load()?;
    let (mesh, problems) = compile(&loaded.resources, &args.documents.settings(), &Mesh::default());
    let is_error = |problem: &&Problem| problem.severity == Severity::Error;
    for problem in loaded.problems.iter().chain(&problems).filter(is_error) {
        eprintln!("selvedge: {problem}");
    }
    let filter = Filter { from: args.from.clone(), to: args.to.clone() };
    filter.check(&mesh)?;
    let format = if args.json { Format::Json } else { args.output };
    output::written(&matrix::of_some(&mesh, &filter), format)
}
