//! Why the control plane did not start, or ended.

use std::io;

use selvedge_certs::{ca::AuthorityError, files::FileError};
use selvedge_ops::{listen::ListenError, logging::LoggingError};

use super::workload_roots::WorkloadRootsError;
use crate::{
    cluster::CaError,
    data_dir::DataDirError,
    inject::webhook::WebhookError,
    serve::{ServeError, attestation::TokenError, own::OwnError},
};

/// Why there is no control plane, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The log filter is not valid.
    #[error("--log: {0}")]
    Logging(#[from] LoggingError),
    /// The source is a directory, and none is named.
    #[error("--config-dir is missing: name the directory of documents, or give --source kubernetes")]
    NoDirectory,
    /// The API server cannot be used.
    #[error(transparent)]
    Kubernetes(#[from] selvedge_kubernetes::Error),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// There is no CA.
    #[error("the CA in --data-dir: {0}")]
    Authority(#[from] AuthorityError),
    /// There is no CA in the cluster.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// What vouches for workloads beside the CA cannot be used.
    #[error(transparent)]
    WorkloadRoots(#[from] WorkloadRootsError),
    /// Tokens cannot be checked.
    #[error("join tokens: {0}")]
    Token(#[from] TokenError),
    /// The directory for join tokens cannot be made.
    #[error("--token-dir: {0}; choose one that this user may write to")]
    TokenDir(FileError),
    /// There is no certificate for the port.
    #[error(transparent)]
    Own(#[from] OwnError),
    /// The webhook cannot be served.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// A port cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The gRPC port ended.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The operating system refuses what every process may have.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// A part that never ends has ended: a fault of ours.
    #[error("{part} has stopped; the log says why")]
    Stopped {
        /// Which part.
        part: &'static str,
    },
}
