//! What injection writes to the cluster: our CA into the webhooks' configurations, and Events about pods.
//!
//! Every replica writes the CA. Only the replica that holds the Lease writes Events.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use selvedge_certs::ca::{Authority, to_pem};
use selvedge_kubernetes::{Error, Version};
use serde_json::json;
use time::OffsetDateTime;
use tokio::sync::watch;

use super::{
    Cluster, patiently,
    status::events::{EventWords, event_kind, event_object},
};
use crate::{
    inject::{
        InjectionSettings,
        events::{self, Event},
    },
    sources::Loaded,
};

/// Time between two looks at the configurations: somebody may have applied them again.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// The same after a failure.
const RETRY: Duration = Duration::from_secs(2);

/// Time between two looks at the cluster's version: it may be upgraded under us.
const VERSION_INTERVAL: Duration = Duration::from_secs(300);

impl Cluster {
    /// The cluster's version; `None` if its answer has no version.
    ///
    /// # Errors
    /// If the API server does not answer for long, or refuses.
    pub async fn version(&self) -> Result<Option<Version>, Error> {
        let text = patiently(|| self.client.server_version()).await?;
        Ok(Version::parse(&text))
    }

    /// Keeps `settings` at what `fit` makes of the cluster's version, which was `version`, and of what else it knows,
    /// which `changes`. Never ends.
    pub(crate) async fn keep_fitting(
        &self,
        settings: watch::Sender<Arc<InjectionSettings>>,
        mut version: Option<Version>,
        mut changes: watch::Receiver<u64>,
        fit: impl Fn(Option<Version>) -> InjectionSettings,
    ) {
        loop {
            let _ = tokio::time::timeout(VERSION_INTERVAL, changes.changed()).await;
            // Of one that is away nothing new is known.
            if let Ok(text) = self.client.server_version().await {
                version = Version::parse(&text);
            }
            let newest = fit(version);
            settings.send_if_modified(|settings| {
                let changed = **settings != newest;
                if changed {
                    let how = if newest.are_native() { "native" } else { "ordinary containers" };
                    let kubernetes = version.map(tracing::field::display);
                    tracing::info!(kubernetes, "new sidecars are {how}, and get the current trust roots");
                    *settings = Arc::new(newest);
                }
                changed
            });
        }
    }

    /// Keeps our CA in the webhooks' configurations. Never ends.
    pub(crate) async fn keep_webhooks(&self, authority: Arc<Authority>) {
        let mut changes = authority.changes();
        loop {
            let pem = to_pem(&authority.bundle().roots);
            let pause = match self.keep_ca_bundle(&pem).await {
                Ok(()) => LOOK_INTERVAL,
                Err(error) => {
                    tracing::warn!(%error, "the webhooks' configurations may lack the control plane's CA");
                    RETRY
                }
            };
            // A new root must be known before a certificate of it is shown.
            let _ = tokio::time::timeout(pause, changes.changed()).await;
        }
    }

    /// Writes what happened to pods, while `held` says that we hold the Lease. Never ends. An Event that cannot be
    /// written is lost.
    pub(super) async fn write_injection_events(
        &self,
        mut loaded: watch::Receiver<Arc<Loaded>>,
        mut held: watch::Receiver<bool>,
    ) {
        let mut told = HashSet::new();
        loop {
            if held.wait_for(|held| *held).await.is_err() || loaded.changed().await.is_err() {
                // Whoever could tell anything is gone: the process is ending.
                return std::future::pending().await;
            }
            let newest = Arc::clone(&loaded.borrow_and_update());
            let pods = newest.resources.pods.iter().map(AsRef::as_ref);
            for event in events::news(pods, &mut told, OffsetDateTime::now_utc()) {
                self.write_injection_event(&event).await;
            }
        }
    }

    async fn write_injection_event(&self, event: &Event) {
        let Event { namespace, name, uid, reason, message } = event;
        let regarding =
            json!({ "apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": uid });
        let words = EventWords { severity: "Normal", reason, action: "Inject", note: message.clone() };
        // One name for one thing that happened, whichever replica tells of it.
        let hash = digest(&SHA256, format!("{uid} {reason}").as_bytes());
        let hash: String = hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        // Names have at most 253 letters.
        let name = format!("{}.{hash}", &name[..name.floor_char_boundary(200)]);
        let object = event_object(namespace, &name, &regarding, words, &self.identity, SystemTime::now());
        match self.client.create(&event_kind(), Some(namespace), &object).await {
            Ok(_) | Err(Error::AlreadyExists(_)) => {}
            Err(error) => tracing::debug!(%error, namespace, "an Event could not be written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use selvedge_model::TrustDomain;

    use super::*;
    use crate::{cluster::canned::Canned, inject::InjectArgs};

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        inject: InjectArgs,
    }

    fn says(server: &Canned, version: &str) {
        let numbers: Vec<&str> = version.trim_start_matches('v').split('.').collect();
        server.say(
            "/version",
            json!({
                "major": numbers[0], "minor": numbers[1], "gitVersion": version, "gitCommit": "",
                "gitTreeState": "clean", "buildDate": "2026-01-01T00:00:00Z", "goVersion": "go1", "compiler": "gc",
                "platform": "linux/amd64",
            }),
        );
    }

    #[tokio::test(start_paused = true)]
    async fn sidecars_fit_the_clusters_version_also_after_an_upgrade() {
        let server = Canned::start().await;
        says(&server, "v1.28.15");
        let cluster = Cluster::open(Some(&server.kubeconfig()), "selvedge", Some("one")).await.unwrap();
        let args = Program::parse_from(["control-plane"]).inject;
        let fit = move |version| args.settings_on(version, Vec::new(), TrustDomain::default(), "selvedge");

        let version = cluster.version().await.unwrap();
        let (settings, mut seen) = watch::channel(Arc::new(fit(version)));
        assert!(!seen.borrow().are_native());
        says(&server, "v1.29.1");
        let (_roots, changes) = watch::channel(0);
        let following =
            tokio::spawn(async move { cluster.keep_fitting(settings, version, changes, fit).await });

        seen.changed().await.unwrap();
        assert!(seen.borrow().are_native());
        following.abort();
    }
}
