//! Which documents a command reads, from a directory or a cluster, and what their meaning depends on besides themselves.

use std::{path::PathBuf, sync::Arc, time::Duration};

use selvedge_control_plane::{
    compile::{MeshSettings, RouteOwnership, naming},
    sources::{
        Loaded,
        directory::{self, Options},
        kubernetes::Kubernetes,
    },
};
use selvedge_model::TrustDomain;
use tokio::{sync::watch, time::timeout};

use crate::cluster::{self, ClusterArgs};

/// How long the documents of a cluster may take to be listed.
const LISTING_TIME: Duration = Duration::from_secs(30);

/// Which documents, and what their meaning depends on.
#[derive(Debug, clap::Args)]
pub struct DocumentArgs {
    /// The directory of YAML and JSON files to read, instead of a cluster
    #[arg(long, env = "SELVEDGE_CONFIG_DIR", value_name = "DIR")]
    pub(crate) config_dir: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,

    /// The trust domain of every identity
    #[arg(long, env = "SELVEDGE_TRUST_DOMAIN", value_name = "NAME", default_value_t)]
    pub(crate) trust_domain: TrustDomain,

    /// The DNS suffix of Kubernetes services
    #[arg(long, env = "SELVEDGE_CLUSTER_DOMAIN", value_name = "NAME", default_value = "cluster.local")]
    pub(crate) cluster_domain: String,

    /// The namespace of documents that do not name a namespace
    #[arg(long, env = "SELVEDGE_DEFAULT_NAMESPACE", value_name = "NAME", default_value = "default")]
    pub(crate) default_namespace: String,

    /// The namespace whose documents are for the whole mesh
    #[arg(long, env = "SELVEDGE_ROOT_NAMESPACE", value_name = "NAME", default_value = "istio-system")]
    pub(crate) root_namespace: String,

    /// Which VirtualServices count for a host; use the value that the control plane has
    #[arg(long, env = "SELVEDGE_ROUTE_OWNERSHIP", value_name = "WHOSE", default_value = "exported")]
    pub(crate) route_ownership: RouteOwnership,
}

impl DocumentArgs {
    /// What the documents' meaning depends on.
    pub(crate) fn settings(&self) -> MeshSettings {
        MeshSettings {
            trust_domain: self.trust_domain.clone(),
            cluster_domain: self.cluster_domain.clone(),
            default_namespace: self.default_namespace.clone(),
            root_namespace: self.root_namespace.clone(),
            own_namespace: self.cluster.namespace.clone(),
            route_ownership: self.route_ownership,
            ..MeshSettings::default()
        }
    }

    /// All documents: of the directory if one is given, and otherwise of the cluster.
    pub(crate) fn load(&self) -> Result<Arc<Loaded>, String> {
        match &self.config_dir {
            Some(directory) => {
                let default_namespace = self.default_namespace.clone();
                let options = Options { default_namespace, ..Options::default() };
                directory::load(directory, options).map_err(|error| error.to_string())
            }
            None => cluster::runtime()
                .and_then(|runtime| runtime.block_on(crate::patience::patiently(self.of_cluster())))
                .map_err(|error| format!("{error:#}; to read a directory of documents, give --config-dir")),
        }
    }

    /// All documents of the cluster, as the control plane reads them.
    ///
    /// # Errors
    /// If they cannot all be listed in time.
    pub(crate) async fn of_cluster(&self) -> anyhow::Result<Arc<Loaded>> {
        let source = Kubernetes::new(self.cluster.connect().await?, &self.default_namespace)
            .with(naming(self.root_namespace.clone()));
        let (sender, mut loaded) = watch::channel(Arc::new(Loaded::default()));
        let following = source.watch(sender);
        let first = async {
            tokio::select! {
                () = following => None,
                changed = loaded.changed() => changed.ok(),
            }
        };
        match timeout(LISTING_TIME, first).await {
            Ok(Some(())) => Ok(Arc::clone(&loaded.borrow())),
            _ => anyhow::bail!("not all kinds of documents could be listed within {LISTING_TIME:?}"),
        }
    }
}
