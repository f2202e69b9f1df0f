//! Kinds that the API server does not bring along, as definitions without a schema: they keep every field.
//!
//! Those of the Gateway API, Istio, Linkerd and Calico stand for their projects' own definitions, EndpointSlice `v1` for that of
//! Kubernetes 1.21, whose `v1beta1` the tests' server has switched off. (There is no such way to PodDisruptionBudget
//! `v1`: a definition's group has a dot in it, and `policy` has none.)

use serde_json::{Value, json};

/// A kind to be served.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    /// The first one is stored.
    versions: &'static [&'static str],
    /// Whether `status` is written by its own path.
    status: bool,
}

const fn kind(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    versions: &'static [&'static str],
) -> Kind {
    Kind { group, kind, plural, versions, status: true }
}

/// Of Kubernetes itself.
pub const CORE: &[Kind] =
    &[Kind { status: false, ..kind("discovery.k8s.io", "EndpointSlice", "endpointslices", &["v1"]) }];

/// Of the Gateway API.
pub const GATEWAY: &[Kind] = &[
    kind("gateway.networking.k8s.io", "GatewayClass", "gatewayclasses", &["v1", "v1beta1"]),
    kind("gateway.networking.k8s.io", "Gateway", "gateways", &["v1", "v1beta1"]),
    kind("gateway.networking.k8s.io", "ListenerSet", "listenersets", &["v1"]),
    kind("gateway.networking.x-k8s.io", "XListenerSet", "xlistenersets", &["v1alpha1"]),
    kind("gateway.networking.k8s.io", "HTTPRoute", "httproutes", &["v1", "v1beta1"]),
    kind("gateway.networking.k8s.io", "GRPCRoute", "grpcroutes", &["v1"]),
    kind("gateway.networking.k8s.io", "TCPRoute", "tcproutes", &["v1alpha2"]),
    kind("gateway.networking.k8s.io", "TLSRoute", "tlsroutes", &["v1", "v1alpha3", "v1alpha2"]),
    kind("gateway.networking.k8s.io", "ReferenceGrant", "referencegrants", &["v1", "v1beta1"]),
    kind("gateway.networking.k8s.io", "BackendTLSPolicy", "backendtlspolicies", &["v1", "v1alpha3"]),
    kind("gateway.networking.x-k8s.io", "XBackendTrafficPolicy", "xbackendtrafficpolicies", &["v1alpha1"]),
];

const NETWORKING: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const SECURITY: &[&str] = &["v1", "v1beta1"];

/// Of Istio.
pub const ISTIO: &[Kind] = &[
    kind("networking.istio.io", "VirtualService", "virtualservices", NETWORKING),
    kind("networking.istio.io", "DestinationRule", "destinationrules", NETWORKING),
    kind("networking.istio.io", "ServiceEntry", "serviceentries", NETWORKING),
    kind("networking.istio.io", "WorkloadEntry", "workloadentries", NETWORKING),
    kind("networking.istio.io", "Gateway", "gateways", NETWORKING),
    kind("networking.istio.io", "Sidecar", "sidecars", NETWORKING),
    kind("security.istio.io", "PeerAuthentication", "peerauthentications", SECURITY),
    kind("security.istio.io", "AuthorizationPolicy", "authorizationpolicies", SECURITY),
    kind("security.istio.io", "RequestAuthentication", "requestauthentications", SECURITY),
];

const POLICIES: &[&str] = &["v1alpha1"];

/// Of Linkerd.
pub const LINKERD: &[Kind] = &[
    kind("policy.linkerd.io", "Server", "servers", &["v1beta3", "v1beta1"]),
    kind("policy.linkerd.io", "AuthorizationPolicy", "authorizationpolicies", POLICIES),
    kind("policy.linkerd.io", "MeshTLSAuthentication", "meshtlsauthentications", POLICIES),
    kind("policy.linkerd.io", "NetworkAuthentication", "networkauthentications", POLICIES),
    kind("policy.linkerd.io", "HTTPRoute", "httproutes", &["v1beta3", "v1beta1"]),
];

/// Of Calico.
pub const CALICO: &[Kind] = &[
    kind("projectcalico.org", "GlobalNetworkPolicy", "globalnetworkpolicies", &["v3"]),
    kind("projectcalico.org", "GlobalNetworkSet", "globalnetworksets", &["v3"]),
    kind("projectcalico.org", "NetworkPolicy", "networkpolicies", &["v3"]),
];

impl Kind {
    /// The name of its definition.
    pub fn name(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }

    fn is_cluster_wide(&self) -> bool {
        self.kind == "GatewayClass" || self.kind.starts_with("Global")
    }

    fn definition(&self) -> Value {
        let schema =
            json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
        let version = |(index, name): (usize, &&str)| {
            let mut version = json!({"name": name, "served": true, "storage": index == 0, "schema": schema});
            if self.status {
                version["subresources"] = json!({"status": {}});
            }
            version
        };
        let versions: Vec<Value> = self.versions.iter().enumerate().map(version).collect();
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": self.name(),
                "annotations": {
                    // Asked of every definition in Kubernetes' own groups.
                    "api-approved.kubernetes.io": "unapproved, for tests",
                    "gateway.networking.k8s.io/bundle-version": "v1.4.0",
                },
            },
            "spec": {
                "group": self.group,
                "names": {"kind": self.kind, "plural": self.plural, "singular": self.kind.to_lowercase()},
                "scope": if self.is_cluster_wide() { "Cluster" } else { "Namespaced" },
                "versions": versions,
            },
        })
    }
}

impl super::ApiServer {
    /// Has these kinds served, and waits until they are.
    ///
    /// # Panics
    /// If they are not.
    pub async fn serve(&self, kinds: &[Kind]) {
        const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        for kind in kinds {
            self.api().create(DEFINITIONS, &kind.definition()).await.unwrap();
        }
        for kind in kinds {
            for version in kind.versions {
                let path = format!("/apis/{}/{version}/{}", kind.group, kind.plural);
                crate::poll(crate::SOON, &format!("{path} is served"), async || self.api().get(&path).await)
                    .await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use selvedge_control_plane::resources::kinds::followed;

    use super::*;

    #[test]
    fn what_is_served_in_tests_is_what_the_control_plane_follows() {
        for served in [CORE, GATEWAY, ISTIO, LINKERD, CALICO].concat() {
            let known = followed().find(|known| (known.group(), known.kind) == (served.group, served.kind));
            let known = known.unwrap_or_else(|| panic!("nobody follows {}", served.kind));

            assert_eq!(known.plural, served.plural);
            assert_eq!(known.namespaced, !served.is_cluster_wide(), "{}", served.kind);
            for version in served.versions {
                let version = format!("{}/{version}", served.group);
                assert!(known.api_versions.contains(&version.as_str()), "{} {version}", served.kind);
            }
        }
    }
}
