//! Where documents come from, and what else that place gives: a CA, proofs of identity.

use std::sync::Arc;

use selvedge_certs::ca::Authority;
use tokio::sync::watch;

use super::{LAST_GOOD, error::AppError};
use crate::{
    cli::{Args, SourceKind},
    cluster::Cluster,
    compile::naming,
    data_dir::DataDir,
    serve::attestation::{Attestor, RecordSecret},
    sources::{
        Loaded,
        directory::{Directory, Options},
        kubernetes::Kubernetes,
    },
};

/// Where documents come from, opened.
#[derive(Debug)]
pub(super) enum OpenedSource {
    Directory(Box<Directory>),
    Kubernetes(Cluster),
}

impl OpenedSource {
    pub(super) async fn open(args: &Args) -> Result<Self, AppError> {
        match args.source {
            SourceKind::Directory => {
                let directory = args.config_dir.as_deref().ok_or(AppError::NoDirectory)?;
                let options = Options {
                    poll_interval: args.poll_interval,
                    default_namespace: args.default_namespace.clone(),
                    last_good: Some(args.data_dir.join(LAST_GOOD)),
                };
                Ok(Self::Directory(Box::new(Directory::new(directory, options))))
            }
            SourceKind::Kubernetes => {
                let kubeconfig = args.kubeconfig.as_deref();
                let cluster = Cluster::open(kubeconfig, &args.namespace, args.pod_name.as_deref()).await?;
                Ok(Self::Kubernetes(cluster))
            }
        }
    }

    /// The CA, from where this source's control planes keep theirs.
    pub(super) async fn authority(&self, data: &DataDir, args: &Args) -> Result<Authority, AppError> {
        match self {
            Self::Directory(_) => Ok(Authority::load_or_create(data.path(), &args.trust_domain)?),
            Self::Kubernetes(cluster) => Ok(cluster.authority(&args.trust_domain).await?),
        }
    }

    pub(super) async fn attestor(&self, data: &DataDir, args: &Args) -> Result<Attestor, AppError> {
        if let Self::Kubernetes(cluster) = self {
            cluster.fetch_token_key(data.path()).await?;
            let records = RecordSecret::new(cluster.client().clone(), cluster.namespace());
            return Ok(Attestor::open(data.path(), &args.trust_domain)?.shared(records));
        }
        Ok(Attestor::open(data.path(), &args.trust_domain)?)
    }

    pub(super) fn cluster(&self) -> Option<&Cluster> {
        match self {
            Self::Directory(_) => None,
            Self::Kubernetes(cluster) => Some(cluster),
        }
    }

    pub(super) async fn watch(
        self,
        found: watch::Sender<Arc<Loaded>>,
        default_namespace: String,
        root_namespace: String,
    ) -> &'static str {
        match self {
            Self::Directory(directory) => {
                directory.watch(found).await;
                "reading the configuration directory"
            }
            Self::Kubernetes(cluster) => {
                let source = Kubernetes::new(cluster.client().clone(), &default_namespace);
                source.with(naming(root_namespace)).watch(found).await;
                "watching the cluster"
            }
        }
    }
}
