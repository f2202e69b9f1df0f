//! The kinds that are followed in a cluster, whether they are acted on yet or not.
//!
//! A kind that nothing acts on is followed all the same: who writes such an object must be told.

use super::Role;

/// A kind that is followed where it is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Such as `VirtualService`.
    pub kind: &'static str,
    /// The versions that mean the same, best first.
    pub api_versions: &'static [&'static str],
    /// What its objects are to us.
    pub role: Role,
}

const CORE: &[&str] = &["v1"];
const DISCOVERY: &[&str] = &["discovery.k8s.io/v1"];
const CLUSTER_NETWORKING: &[&str] = &["networking.k8s.io/v1"];
const GATEWAY: &[&str] = &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"];
/// Kinds that have not come as far as `v1` everywhere.
const YOUNG_GATEWAY: &[&str] = &[
    "gateway.networking.k8s.io/v1",
    "gateway.networking.k8s.io/v1alpha3",
    "gateway.networking.k8s.io/v1alpha2",
];
const ISTIO_NETWORKING: &[&str] =
    &["networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"];
const ISTIO_SECURITY: &[&str] = &["security.istio.io/v1", "security.istio.io/v1beta1"];
const ISTIO_TELEMETRY: &[&str] = &["telemetry.istio.io/v1", "telemetry.istio.io/v1alpha1"];
const ISTIO_EXTENSIONS: &[&str] = &["extensions.istio.io/v1alpha1"];

const OURS: &[&str] = &["selvedge.io/v1alpha1"];

const fn wanted(kind: &'static str, api_versions: &'static [&'static str], role: Role) -> Wanted {
    Wanted { kind, api_versions, role }
}

/// Every kind that is followed.
pub const KINDS: &[Wanted] = &[
    wanted("Namespace", CORE, Role::Running),
    wanted("Pod", CORE, Role::Running),
    wanted("Service", CORE, Role::Core),
    wanted("EndpointSlice", DISCOVERY, Role::Running),
    wanted("NetworkPolicy", CLUSTER_NETWORKING, Role::Core),
    wanted("Ingress", CLUSTER_NETWORKING, Role::Core),
    wanted("GatewayClass", GATEWAY, Role::Other),
    wanted("Gateway", GATEWAY, Role::Other),
    wanted("HTTPRoute", GATEWAY, Role::Route),
    wanted("GRPCRoute", GATEWAY, Role::Route),
    wanted("TCPRoute", YOUNG_GATEWAY, Role::Route),
    wanted("TLSRoute", YOUNG_GATEWAY, Role::Route),
    wanted("ReferenceGrant", GATEWAY, Role::Other),
    wanted("BackendTLSPolicy", YOUNG_GATEWAY, Role::Other),
    wanted("VirtualService", ISTIO_NETWORKING, Role::Istio),
    wanted("DestinationRule", ISTIO_NETWORKING, Role::Istio),
    wanted("ServiceEntry", ISTIO_NETWORKING, Role::Istio),
    wanted("WorkloadEntry", ISTIO_NETWORKING, Role::Istio),
    wanted("WorkloadGroup", ISTIO_NETWORKING, Role::Istio),
    wanted("Gateway", ISTIO_NETWORKING, Role::Istio),
    wanted("Sidecar", ISTIO_NETWORKING, Role::Istio),
    wanted("EnvoyFilter", ISTIO_NETWORKING, Role::Istio),
    wanted("ProxyConfig", &["networking.istio.io/v1beta1"], Role::Istio),
    wanted("PeerAuthentication", ISTIO_SECURITY, Role::Istio),
    wanted("AuthorizationPolicy", ISTIO_SECURITY, Role::Istio),
    wanted("RequestAuthentication", ISTIO_SECURITY, Role::Istio),
    wanted("Telemetry", ISTIO_TELEMETRY, Role::Istio),
    wanted("WasmPlugin", ISTIO_EXTENSIONS, Role::Istio),
    wanted("Revocation", OURS, Role::Core),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::decode::KINDS as ACTED_ON;

    #[test]
    fn every_kind_that_is_acted_on_is_followed() {
        for (kind, versions) in ACTED_ON {
            let followed = KINDS.iter().any(|wanted| {
                wanted.kind == *kind && wanted.api_versions.iter().any(|version| versions.contains(version))
            });
            assert!(followed, "{kind}");
        }
    }
}
