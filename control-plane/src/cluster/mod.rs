//! What the control plane stores in its cluster: its CA, its Lease, and the status of documents.
//!
//! All replicas do the same. The first one makes what is missing, and no replica keeps state for itself. Only the replica
//! that holds the Lease writes what must not be written by several.

mod authority;
#[cfg(test)]
pub(crate) mod canned;
mod gateways;
mod injection;
mod published;
pub mod rotation;
pub mod status;

use std::{path::Path, sync::Arc, time::Duration};

use selvedge_certs::ca::Authority;
use selvedge_kubernetes::{Client, Connect, Election};
use tokio::{sync::watch, task::JoinSet};

use self::gateways::Gateways;
pub use self::{
    authority::{CA_SECRET, CaError, TOKEN_KEY_SECRET},
    gateways::{CLASS, MADE_FOR_GATEWAYS},
    published::{INJECT_WEBHOOK, TRUST_ROOTS, VALIDATE_WEBHOOK},
};
use crate::{
    inject::InjectionSettings,
    sources::Loaded,
    status::{OwnCertificates, Verdicts},
};

/// The Lease of the replica that writes.
pub const LEASE: &str = "selvedge-control-plane";
/// How long a start waits for an API server that is away.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two attempts meanwhile.
const PAUSE: Duration = Duration::from_secs(2);

/// The cluster, and our place in it.
#[derive(Debug, Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
    /// Which replica we are.
    identity: String,
}

/// What goes on elsewhere, and is to be written into the cluster.
#[derive(Debug)]
pub(crate) struct News {
    /// What is wrong with documents.
    pub(crate) verdicts: watch::Receiver<Arc<Verdicts>>,
    /// The documents.
    pub(crate) loaded: watch::Receiver<Arc<Loaded>>,
    /// How proxies are put into the pods of gateways. `None`: nothing is made for gateways.
    pub(crate) gateways: Option<watch::Receiver<Arc<InjectionSettings>>>,
}

impl Cluster {
    /// Prepares to talk to the API server that `kubeconfig` names, or else the surroundings do. Our own
    /// objects are in `namespace`; `pod_name` tells us from other replicas (otherwise the host's name does).
    ///
    /// # Errors
    /// If nothing says where it is.
    pub async fn open(
        kubeconfig: Option<&Path>,
        namespace: &str,
        pod_name: Option<&str>,
    ) -> Result<Self, selvedge_kubernetes::Error> {
        let connect = Connect { kubeconfig: kubeconfig.map(Path::to_owned), context: None };
        let client = Client::connect(&connect).await?;
        let identity = pod_name.map(str::to_owned).or_else(host_name).unwrap_or_else(random_name);
        Ok(Self { client, namespace: namespace.to_owned(), identity })
    }

    /// The cluster behind `client`, for a command that only changes our objects in it.
    pub fn of(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned(), identity: random_name() }
    }

    /// The API server.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The namespace of the control plane's own objects.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Starts everything that goes on beside serving.
    pub(crate) fn keep(
        self,
        authority: Arc<Authority>,
        shown: Arc<OwnCertificates>,
        news: News,
        parts: &mut JoinSet<&'static str>,
    ) {
        let News { verdicts, loaded, gateways } = news;
        let (holding, held) = watch::channel(false);
        let election = Election {
            namespace: self.namespace.clone(),
            name: LEASE.to_owned(),
            identity: self.identity.clone(),
        };
        let client = self.client.clone();
        parts.spawn(async move {
            client.take_part(election, holding).await;
            "taking part in the election of the replica that writes"
        });
        if let Some(settings) = gateways {
            let gateways = Gateways {
                client: self.client.clone(),
                namespace: self.namespace.clone(),
                settings,
                loaded: loaded.clone(),
                verdicts: verdicts.clone(),
            };
            let holds = held.clone();
            parts.spawn(async move {
                gateways.run(holds).await;
                "keeping gateways running"
            });
        }
        let (teller, holds) = (self.clone(), held.clone());
        parts.spawn(async move {
            teller.write_injection_events(loaded, holds).await;
            "writing what happened to pods"
        });
        let writer = status::Writer::new(self.client.clone(), &self.identity);
        parts.spawn(async move {
            writer.run(verdicts, held).await;
            "writing what became of documents"
        });
        parts.spawn(async move {
            self.keep_authority(&authority, &shown).await;
            "following the CA's Secret"
        });
    }

    /// Gives the Lease up, so that another replica goes on writing at once.
    pub(crate) async fn leave(&self) {
        let election = Election {
            namespace: self.namespace.clone(),
            name: LEASE.to_owned(),
            identity: self.identity.clone(),
        };
        if let Err(error) = self.client.give_up(&election).await {
            tracing::debug!(%error, "the Lease is not given up; it runs out by itself");
        }
    }
}

/// Tries again while the API server does not answer, but not for ever.
async fn patiently<T, F: Future<Output = Result<T, selvedge_kubernetes::Error>>>(
    mut ask: impl FnMut() -> F,
) -> Result<T, selvedge_kubernetes::Error> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Err(error @ selvedge_kubernetes::Error::Unreachable { .. })
                if tokio::time::Instant::now() < deadline =>
            {
                tracing::warn!(%error, "waiting for the Kubernetes API server");
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// Inside a pod, the pod's name.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

fn random_name() -> String {
    format!("selvedge-{:016x}", fastrand::u64(..))
}
