//! What injection needs of the cluster: our CA in the webhooks' configurations, and Events about pods.
//!
//! By every replica, whether it holds the Lease or not: each is called, and who was called knows what happened.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use selvedge_certs::ca::{Authority, to_pem};
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    Cluster,
    status::words::{EventWords, event_kind, event_object},
};
use crate::inject::events::Event;

/// Time between two looks at the configurations: somebody may have applied them anew.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// The same after a failure.
const RETRY: Duration = Duration::from_secs(2);

impl Cluster {
    /// Keeps our CA in the webhooks' configurations. Never ends.
    pub(crate) async fn keep_webhooks(&self, authority: Arc<Authority>) {
        let pem = to_pem(&authority.bundle().roots);
        loop {
            let pause = match self.keep_ca_bundle(&pem).await {
                Ok(()) => LOOK_INTERVAL,
                Err(error) => {
                    tracing::warn!(%error, "the webhooks' configurations may lack our CA");
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Writes what happened to pods, until nobody can tell any more. An Event that cannot be written is lost.
    pub(crate) async fn write_injection_events(&self, mut happened: mpsc::Receiver<Event>) {
        let kind = event_kind();
        while let Some(Event { subject, warning, reason, message }) = happened.recv().await {
            let regarding = json!({
                "apiVersion": subject.api_version,
                "kind": subject.kind,
                "namespace": subject.namespace,
                "name": subject.name,
                "uid": subject.uid,
            });
            let words = EventWords {
                severity: if warning { "Warning" } else { "Normal" },
                reason,
                action: "Inject",
                note: message,
            };
            // Names have at most 253 letters, and a pod's may yet end in a dash.
            let name: String = subject.name.trim_end_matches('-').chars().take(200).collect();
            let name = format!("{name}.{:016x}", fastrand::u64(..));
            let now = SystemTime::now();
            let event = event_object(&subject.namespace, &name, &regarding, words, &self.identity, now);
            if let Err(error) = self.client.create(&kind, Some(&subject.namespace), &event).await {
                tracing::debug!(%error, namespace = subject.namespace, "an Event could not be written");
            }
        }
    }
}
