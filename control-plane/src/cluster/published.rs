//! What the control plane publishes in the cluster: the trust roots, and the CA of its webhooks.

use std::time::{Duration, SystemTime};

use selvedge_certs::{
    ca::{Authority, to_pem},
    facts::Fingerprint,
};
use selvedge_kubernetes::{Error, Kind, objects::Change};
use serde_json::{Value, json};

use super::{Cluster, authority::RenewalError};
use crate::status::OwnCertificates;

/// The ConfigMap with the root certificate (`ca.pem`) and its SHA-256 (`root-sha256`), which proxies are
/// given to know us by.
pub const TRUST_ROOTS: &str = "selvedge-trust-roots";
/// The configuration of the webhook that injects sidecars.
pub const INJECT_WEBHOOK: &str = "selvedge-inject";
/// The configuration of the webhook that checks documents.
pub const VALIDATE_WEBHOOK: &str = "selvedge-validate";

/// Time between two looks at the CA's Secret and at what we have published: somebody may have changed them.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

impl Cluster {
    /// Keeps the ConfigMap [`TRUST_ROOTS`] right, and signs by what the CA's Secret holds while that changes below
    /// the same root. Never ends.
    pub(super) async fn keep_authority(&self, authority: &Authority, shown: &OwnCertificates) {
        let kind = Kind::namespaced("v1", "ConfigMap", "configmaps");
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut trouble: Option<String> = None;
        loop {
            looks.tick().await;
            match self.renew(authority, SystemTime::now()).await {
                // What was so is so still, as far as is known.
                Err(RenewalError::Unknown(error)) => {
                    tracing::debug!(%error, secret = super::CA_SECRET, "the CA's Secret cannot be read");
                }
                Err(error) => {
                    let words = Some(error.to_string());
                    if trouble != words {
                        tracing::error!(
                            secret = super::CA_SECRET,
                            %error,
                            "the CA's Secret has changed to a CA that cannot take over; this replica keeps the CA that it has: repair the \
                             Secret, or restart all replicas and all pods with sidecars"
                        );
                    }
                    trouble = words;
                }
                Ok(renewed) => {
                    trouble = None;
                    if renewed {
                        shown.use_authority(authority);
                        tracing::info!(
                            "certificates are signed by a new issuer below the same root from now on"
                        );
                    }
                }
            }
            // Roots that are no longer the Secret's are not for new pods.
            if trouble.is_none()
                && let Err(error) = self.keep_config_map(&kind, &trust_roots(authority)).await
            {
                tracing::warn!(%error, name = TRUST_ROOTS, "the trust roots are not published");
            }
        }
    }

    async fn keep_config_map(&self, kind: &Kind, wanted: &Value) -> Result<(), Error> {
        let namespace = Some(self.namespace.as_str());
        let found = self.client.get(kind, namespace, TRUST_ROOTS).await?;
        if found.is_some_and(|found| found["data"] == wanted["data"]) {
            return Ok(());
        }
        self.client.change(kind, namespace, TRUST_ROOTS, Change::Apply(wanted)).await?;
        tracing::info!(namespace = self.namespace, name = TRUST_ROOTS, "published the trust roots");
        Ok(())
    }

    /// Keeps `caBundle` of every webhook in [`INJECT_WEBHOOK`] and [`VALIDATE_WEBHOOK`] at `pem`, the CA
    /// certificates (PEM) that our webhook server's certificate leads to. A configuration that is not there
    /// is left alone.
    ///
    /// # Errors
    /// If the API server does not answer, or refuses.
    pub async fn keep_ca_bundle(&self, pem: &str) -> Result<(), Error> {
        let group = "admissionregistration.k8s.io/v1";
        let mutating =
            Kind::cluster_wide(group, "MutatingWebhookConfiguration", "mutatingwebhookconfigurations");
        let validating =
            Kind::cluster_wide(group, "ValidatingWebhookConfiguration", "validatingwebhookconfigurations");
        for (kind, name) in [(mutating, INJECT_WEBHOOK), (validating, VALIDATE_WEBHOOK)] {
            let Some(found) = self.client.get(&kind, None, name).await? else { continue };
            let Some(patch) = ca_bundle_patch(&found, &base64(pem.as_bytes())) else { continue };
            self.client.change(&kind, None, name, Change::Json(&patch)).await?;
            tracing::info!(%kind, name, "put the control plane's CA into the webhook's configuration");
        }
        Ok(())
    }
}

fn trust_roots(authority: &Authority) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": TRUST_ROOTS, "labels": { "app.kubernetes.io/part-of": "selvedge" } },
        "data": {
            "root-sha256": Fingerprint(authority.root_sha256()).to_string(),
            "ca.pem": to_pem(&authority.bundle().roots),
        },
    })
}

/// What must change in `configuration` so that every webhook has `ca_bundle`; `None` if nothing must.
///
/// Each operation first tests that the webhook at its place is still the same: they may have been reordered.
fn ca_bundle_patch(configuration: &Value, ca_bundle: &str) -> Option<Value> {
    let mut operations = Vec::new();
    for (index, webhook) in configuration["webhooks"].as_array()?.iter().enumerate() {
        if webhook["clientConfig"]["caBundle"] != ca_bundle {
            let at = format!("/webhooks/{index}");
            operations.push(json!({"op": "test", "path": format!("{at}/name"), "value": webhook["name"]}));
            let path = format!("{at}/clientConfig/caBundle");
            operations.push(json!({"op": "add", "path": path, "value": ca_bundle}));
        }
    }
    (!operations.is_empty()).then_some(Value::Array(operations))
}

/// With padding, as JSON's byte strings have it in Kubernetes.
fn base64(bytes: &[u8]) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};
    BASE64_STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use selvedge_certs::ca::CaPem;
    use selvedge_model::TrustDomain;

    use super::*;

    #[test]
    fn only_webhooks_with_another_ca_are_changed() {
        let webhook = |name: &str, ca: Option<&str>| match ca {
            Some(ca) => json!({"name": name, "clientConfig": {"caBundle": ca}}),
            None => json!({"name": name, "clientConfig": {}}),
        };
        let configuration = json!({"webhooks": [webhook("a", Some("bmV3")), webhook("b", None)]});

        assert_eq!(
            ca_bundle_patch(&configuration, "bmV3"),
            Some(json!([
                {"op": "test", "path": "/webhooks/1/name", "value": "b"},
                {"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": "bmV3"},
            ]))
        );
        let right = json!({"webhooks": [webhook("a", Some("bmV3"))]});
        assert_eq!(ca_bundle_patch(&right, "bmV3"), None);
        assert_eq!(ca_bundle_patch(&json!({}), "bmV3"), None);
    }

    #[test]
    fn the_trust_roots_are_what_a_proxy_takes() {
        let trust_domain = TrustDomain::default();
        let pem = CaPem::new_root(&trust_domain, SystemTime::now()).unwrap();
        let authority = Authority::from_pem(&pem, &trust_domain, SystemTime::now()).unwrap();

        let roots = trust_roots(&authority);

        let sha256 = roots["data"]["root-sha256"].as_str().unwrap();
        assert_eq!(sha256.len(), 64, "{sha256}");
        assert_eq!(roots["data"]["ca.pem"].as_str().unwrap().as_bytes(), pem.certificate);
    }
}
