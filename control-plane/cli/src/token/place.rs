//! Where the key of join tokens and their records are: a data directory, or a cluster.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::Context;
use selvedge_certs::ca::Authority;
use selvedge_control_plane::{
    cluster::Cluster,
    data_dir::DataDir,
    serve::attestation::{TokenKey, spent_tokens},
};
use selvedge_model::TrustDomain;

use crate::place::Place;

/// Which place that is.
#[derive(Debug, clap::Args)]
pub(super) struct PlaceArgs {
    /// The control plane's data directory
    #[arg(long, env = "SELVEDGE_DATA_DIR", value_name = "DIR", required_unless_present = "kubernetes")]
    pub(super) data_dir: Option<PathBuf>,

    /// Use it if the control plane runs in a Kubernetes cluster: the key of join tokens is in a Secret there
    #[arg(long)]
    pub(super) kubernetes: bool,

    /// The kubeconfig of that cluster; default: KUBECONFIG or ~/.kube/config
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    pub(super) kubeconfig: Option<PathBuf>,

    /// The control plane's namespace in that cluster
    #[arg(long, value_name = "NAMESPACE", default_value = "selvedge")]
    pub(super) control_plane_namespace: String,
}

impl PlaceArgs {
    pub(super) async fn open(&self) -> anyhow::Result<Place> {
        match &self.data_dir {
            Some(data_dir) if !self.kubernetes => Ok(Place::Directory(DataDir::open(data_dir)?)),
            _ => {
                let kubeconfig = self.kubeconfig.as_deref();
                Ok(Place::Cluster(Cluster::open(kubeconfig, &self.control_plane_namespace, None).await?))
            }
        }
    }
}

impl Place {
    /// The CA; it is made if there is none.
    pub(super) async fn authority(&self, trust_domain: &TrustDomain) -> anyhow::Result<Authority> {
        match self {
            Self::Directory(data) => {
                Authority::load_or_create(data.path(), trust_domain).context("the CA in --data-dir")
            }
            Self::Cluster(cluster) => Ok(cluster.authority(trust_domain).await?),
        }
    }

    /// The key of join tokens; it is made if there is none.
    pub(super) async fn key(&self) -> anyhow::Result<TokenKey> {
        match self {
            Self::Directory(data) => Ok(TokenKey::load_or_create(data.path())?),
            Self::Cluster(cluster) => Ok(cluster.token_key().await?),
        }
    }

    /// The ids of the tokens for one use that were used.
    pub(super) fn spent(&self) -> anyhow::Result<BTreeSet<String>> {
        match self {
            Self::Directory(data) => Ok(spent_tokens(data.path())?.into_keys().collect()),
            Self::Cluster(_) => Ok(BTreeSet::new()),
        }
    }
}
