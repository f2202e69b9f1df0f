//! The one list of kinds. A new kind is one file beside this one, which says all that is peculiar to it in its
//! `KIND`, and one line in the table below.
//!
//! Some kinds are followed in a cluster although nothing acts on them: who writes such an object must be told.

use std::sync::Arc;

use serde_json::Value;

use super::{
    AuthorizationPolicySpec, CalicoPolicySpec, DestinationRuleSpec, Document, EndpointSliceSpec,
    HttpRouteSpec, Location, MeshTlsSpec, Metadata, NamespaceSpec, NetworkPolicySpec, NetworkSetSpec,
    NetworksSpec, PeerAuthenticationSpec, PodSpec, RequestAuthenticationSpec, RevocationSpec,
    ServerAuthorizationSpec, ServerPolicySpec, ServerSpec, ServiceEntrySpec, ServiceSpec, TcpRouteSpec,
    VirtualServiceSpec, WorkloadEntrySpec, authorization_policy, calico, destination_rule,
    document::wrong,
    endpoint_slice,
    fields::{self, KnownField},
    gateway_tcp, grpc_route, http_route,
    linkerd_policy::{self, authentication, authorization, server, server_authorization},
    namespace, network_policy, peer_authentication, pod, request_authentication, revocation, service,
    service_entry, trim,
    unread::{Envelope, Read, Unread},
    virtual_service, workload_entry,
};
use crate::problem::DocumentName;

/// Versions of Kubernetes' first kinds.
pub(super) const CORE: &[&str] = &["v1"];
/// Versions of `EndpointSlice`.
pub(super) const DISCOVERY: &[&str] = &["discovery.k8s.io/v1"];
/// Versions of Kubernetes' policies of networks.
pub(super) const CLUSTER_NETWORKING: &[&str] = &["networking.k8s.io/v1"];
/// Versions of the kinds of the Gateway API that are `v1` everywhere.
pub(super) const GATEWAY: &[&str] = &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"];
/// Versions of those that are not. `v1alpha3` is of `TLSRoute` and `BackendTLSPolicy` alone; their fields have stayed
/// the same from one version to the next.
pub(super) const YOUNG_GATEWAY: &[&str] = &[
    "gateway.networking.k8s.io/v1",
    "gateway.networking.k8s.io/v1beta1",
    "gateway.networking.k8s.io/v1alpha3",
    "gateway.networking.k8s.io/v1alpha2",
];
/// Versions of Istio's kinds for traffic.
pub(super) const ISTIO_NETWORKING: &[&str] =
    &["networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"];
/// Versions of Istio's policies.
pub(super) const ISTIO_SECURITY: &[&str] = &["security.istio.io/v1", "security.istio.io/v1beta1"];
const ISTIO_TELEMETRY: &[&str] = &["telemetry.istio.io/v1", "telemetry.istio.io/v1alpha1"];
const ISTIO_EXTENSIONS: &[&str] = &["extensions.istio.io/v1alpha1"];
/// Versions of our own kinds.
pub(super) const OURS: &[&str] = &["selvedge.io/v1alpha1"];

/// The groups that have policies only.
pub(super) const GROUPS_OF_POLICIES: &[&str] = &["security.istio.io"];

/// One kind of objects.
#[derive(Debug, Clone, Copy)]
pub struct ResourceKind {
    /// Such as `VirtualService`.
    pub kind: &'static str,
    /// What its documents are called here: `kind`, and where another kind has that name the group, too.
    pub called: &'static str,
    /// The versions that mean the same, best first: each with its group, such as `networking.istio.io/v1`.
    pub api_versions: &'static [&'static str],
    /// Its name in paths, such as `virtualservices`.
    pub plural: &'static str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Where those who write its objects are told what became of them.
    pub feedback: Feedback,
    /// The annotations of an object that are acted on: all others are reported. `None` = annotations are others' business.
    pub(super) annotations: Option<&'static [&'static str]>,
    /// Whether it says who may do what. One that cannot be used, or has a field that nobody understands, is read as
    /// [strictly as it may be meant](super::unusable).
    pub(super) is_policy: bool,
    /// Drops of an object what no mesh reads.
    trim: fn(&mut Value),
    /// Reads a document.
    pub(super) read: fn(&Unread<'_>) -> Read,
    /// The fields that `read` knows.
    fields: fn() -> Vec<KnownField>,
}

/// Where those who write the objects of a kind are told what became of them, in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feedback {
    /// Nowhere: controllers make these objects by the thousand.
    Nowhere,
    /// In Events.
    Events,
    /// In `status.parents`, which has a place for every controller, and in Events: the routes of the Gateway API.
    Parents,
    /// In `status.conditions`, and in Events: Istio's kinds.
    Conditions,
}

impl ResourceKind {
    /// A kind in namespaces that nothing acts on.
    pub(super) const fn new(
        kind: &'static str,
        api_versions: &'static [&'static str],
        plural: &'static str,
        feedback: Feedback,
    ) -> Self {
        Self {
            kind,
            called: kind,
            api_versions,
            plural,
            namespaced: true,
            feedback,
            annotations: Some(&[]),
            is_policy: false,
            trim: trim::status,
            read: |unread| Err(wrong("kind", format!("{} is not acted on", unread.kind.kind))),
            fields: Vec::new,
        }
    }

    /// Another group has a kind of that name.
    pub(super) const fn called(self, called: &'static str) -> Self {
        Self { called, ..self }
    }

    /// It lives in no namespace.
    pub(super) const fn cluster_wide(self) -> Self {
        Self { namespaced: false, ..self }
    }

    /// `trim` drops of an object what no mesh reads, instead of its status alone.
    pub(super) const fn trimmed(self, trim: fn(&mut Value)) -> Self {
        Self { trim, ..self }
    }

    /// It is acted on: `read` reads one whose `spec` has the fields of `Y`.
    pub(super) const fn read_as_spec<Y: for<'de> serde::Deserialize<'de>>(
        self,
        read: fn(&Unread<'_>) -> Read,
    ) -> Self {
        Self { read, fields: fields::of::<Envelope<Y>>, ..self }
    }

    /// It is acted on: `read` reads one which as a whole has the fields of `Y`.
    pub(super) const fn read_as_whole<Y: for<'de> serde::Deserialize<'de>>(
        self,
        read: fn(&Unread<'_>) -> Read,
    ) -> Self {
        Self { read, fields: fields::of::<Y>, ..self }
    }

    /// The annotations that are acted on.
    pub(super) const fn with_annotations(self, names: &'static [&'static str]) -> Self {
        Self { annotations: Some(names), ..self }
    }

    /// Whoever runs such objects has many annotations of his own there: none is reported.
    pub(super) const fn with_any_annotations(self) -> Self {
        Self { annotations: None, ..self }
    }

    /// It says who may do what.
    pub(super) const fn policy(self) -> Self {
        Self { is_policy: true, ..self }
    }

    /// Such as `networking.istio.io`; empty for Kubernetes' first kinds.
    pub fn group(&self) -> &'static str {
        self.api_versions[0].rsplit_once('/').map_or("", |(group, _)| group)
    }

    /// Drops of `object`, which is of this kind, what no mesh reads.
    pub(crate) fn trim(&self, object: &mut Value) {
        trim::metadata(object);
        (self.trim)(object);
    }

    /// Every field that its decoder knows, but for what all kinds have in common.
    pub fn known_fields(&self) -> Vec<KnownField> {
        let mut fields = (self.fields)();
        fields.retain(|field| !["apiVersion", "kind", "metadata", "status"].contains(&field.path.as_str()));
        fields
    }
}

/// The kinds that are acted on.
pub fn acted_on() -> &'static [ResourceKind] {
    ACTED_ON
}

/// The kinds that are followed in a cluster, whether they are acted on or not.
pub fn followed() -> impl Iterator<Item = &'static ResourceKind> {
    ACTED_ON.iter().chain(NOT_ACTED_ON)
}

/// The kind whose documents are called `called`, if it is acted on.
pub(super) fn find(called: &str) -> Option<&'static ResourceKind> {
    ACTED_ON.iter().find(|known| known.called == called)
}

/// The kind `kind` of `version`, if it is acted on.
pub(super) fn of(kind: &str, version: &str) -> Option<&'static ResourceKind> {
    ACTED_ON.iter().find(|known| known.kind == kind && known.api_versions.contains(&version))
}

/// The kinds of this name that are acted on.
pub(super) fn named(kind: &str) -> impl Iterator<Item = &'static ResourceKind> {
    ACTED_ON.iter().filter(move |known| known.kind == kind)
}

/// What the kinds are called that are acted on, say who may do what, and have names by which a document that cannot be
/// read may be known: those of Linkerd are words that stand in any text (`Server`), and are known by their group.
pub(super) fn policies() -> impl Iterator<Item = &'static str> {
    let named = |kind: &&ResourceKind| kind.is_policy && kind.group() != linkerd_policy::GROUP;
    ACTED_ON.iter().filter(named).map(|kind| kind.called)
}

/// Whether the kind that is called so says who may do what.
pub(super) fn is_policy(called: &str) -> bool {
    find(called).is_some_and(|kind| kind.is_policy)
}

/// Whether objects of the kind that is called so live in no namespace.
pub(super) fn is_cluster_wide(called: &str) -> bool {
    followed().any(|known| known.called == called && !known.namespaced)
}

/// Each line is a list of documents, what one is called and holds, and the kinds that are in it.
macro_rules! table {
    ($($list:ident: $resource:ident($spec:ident) = $($kind:path),+;)*) => {
        const ACTED_ON: &[ResourceKind] = &[$($($kind),+),*];

        /// Every document that is acted on, each list in its order of precedence (oldest first).
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct Resources {
            $(
                #[doc = concat!("Each `", stringify!($resource), "`.")]
                pub $list: Vec<Arc<Document<$spec>>>,
            )*
        }

        /// One document of any kind that is acted on.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Resource {
            $(
                #[doc = concat!("Of [`Resources::", stringify!($list), "`].")]
                $resource(Arc<Document<$spec>>),
            )*
        }

        $(
            impl From<Arc<Document<$spec>>> for Resource {
                fn from(document: Arc<Document<$spec>>) -> Self {
                    Self::$resource(document)
                }
            }
        )*

        impl Resource {
            /// What it is called.
            pub fn name(&self) -> &DocumentName {
                match self { $(Self::$resource(document) => &document.name,)* }
            }

            /// Its labels, annotations and age.
            pub fn metadata(&self) -> &Metadata {
                match self { $(Self::$resource(document) => &document.metadata,)* }
            }

            /// Whether it stands in for a document that cannot be used.
            pub fn is_stand_in(&self) -> bool {
                match self { $(Self::$resource(document) => document.unusable,)* }
            }

            /// Where it stands.
            pub fn location(&self) -> &Location {
                match self { $(Self::$resource(document) => &document.location,)* }
            }
        }

        impl Resources {
            /// Adds `resource` behind those of its kind that are already there.
            pub fn push(&mut self, resource: Resource) {
                match resource { $(Resource::$resource(document) => self.$list.push(document),)* }
            }

            /// Puts `resource` in the place of the one of its name, or behind those of its kind that are there.
            pub fn put(&mut self, resource: Resource) {
                match resource { $(Resource::$resource(document) => put(&mut self.$list, document),)* }
            }

            /// How many documents there are.
            pub fn len(&self) -> usize {
                0 $(+ self.$list.len())*
            }

            /// Whether there is no document at all.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }
    };
}

fn put<T>(list: &mut Vec<Arc<Document<T>>>, document: Arc<Document<T>>) {
    match list.iter_mut().find(|there| there.name == document.name) {
        Some(there) => *there = document,
        None => list.push(document),
    }
}

table! {
    namespaces: Namespace(NamespaceSpec) = namespace::KIND;
    pods: Pod(PodSpec) = pod::KIND;
    services: Service(ServiceSpec) = service::KIND;
    endpoint_slices: EndpointSlice(EndpointSliceSpec) = endpoint_slice::KIND;
    workload_entries: WorkloadEntry(WorkloadEntrySpec) = workload_entry::KIND;
    service_entries: ServiceEntry(ServiceEntrySpec) = service_entry::KIND;
    virtual_services: VirtualService(VirtualServiceSpec) = virtual_service::KIND;
    destination_rules: DestinationRule(DestinationRuleSpec) = destination_rule::KIND;
    peer_authentications: PeerAuthentication(PeerAuthenticationSpec) = peer_authentication::KIND;
    authorization_policies: AuthorizationPolicy(AuthorizationPolicySpec) = authorization_policy::KIND;
    request_authentications: RequestAuthentication(RequestAuthenticationSpec) = request_authentication::KIND;
    network_policies: NetworkPolicy(NetworkPolicySpec) = network_policy::KIND;
    calico_policies: CalicoPolicy(CalicoPolicySpec) =
        calico::policy::GLOBAL, calico::policy::NAMESPACED, calico::policy::GLOBAL_KEPT, calico::policy::NAMESPACED_KEPT;
    network_sets: NetworkSet(NetworkSetSpec) =
        calico::network_set::GLOBAL, calico::network_set::NAMESPACED, calico::network_set::GLOBAL_KEPT,
        calico::network_set::NAMESPACED_KEPT;
    tcp_routes: TcpRoute(TcpRouteSpec) = gateway_tcp::TCP_ROUTE, gateway_tcp::TLS_ROUTE;
    http_routes: HttpRoute(HttpRouteSpec) = http_route::KIND, grpc_route::KIND, http_route::LINKERD;
    servers: Server(ServerSpec) = server::KIND;
    server_policies: ServerPolicy(ServerPolicySpec) = authorization::KIND;
    server_authorizations: ServerAuthorization(ServerAuthorizationSpec) = server_authorization::KIND;
    mesh_tls_authentications: MeshTlsAuthentication(MeshTlsSpec) = authentication::MESH_TLS;
    network_authentications: NetworkAuthentication(NetworksSpec) = authentication::NETWORK;
    revocations: Revocation(RevocationSpec) = revocation::KIND;
}

/// The kinds that nothing acts on, and that are followed so that this is reported.
const NOT_ACTED_ON: &[ResourceKind] = &[
    ResourceKind::new("Ingress", CLUSTER_NETWORKING, "ingresses", Feedback::Events),
    ResourceKind::new("GatewayClass", GATEWAY, "gatewayclasses", Feedback::Events).cluster_wide(),
    ResourceKind::new("Gateway", GATEWAY, "gateways", Feedback::Events),
    ResourceKind::new("ReferenceGrant", GATEWAY, "referencegrants", Feedback::Events),
    ResourceKind::new("BackendTLSPolicy", YOUNG_GATEWAY, "backendtlspolicies", Feedback::Events),
    ResourceKind::new("WorkloadGroup", ISTIO_NETWORKING, "workloadgroups", Feedback::Conditions),
    ResourceKind::new("Gateway", ISTIO_NETWORKING, "gateways", Feedback::Conditions),
    ResourceKind::new("Sidecar", ISTIO_NETWORKING, "sidecars", Feedback::Conditions),
    ResourceKind::new("EnvoyFilter", ISTIO_NETWORKING, "envoyfilters", Feedback::Conditions),
    ResourceKind::new("ProxyConfig", &["networking.istio.io/v1beta1"], "proxyconfigs", Feedback::Conditions),
    ResourceKind::new("Telemetry", ISTIO_TELEMETRY, "telemetries", Feedback::Conditions),
    ResourceKind::new("WasmPlugin", ISTIO_EXTENSIONS, "wasmplugins", Feedback::Conditions),
];

/// Who could enforce a policy that Selvedge does not act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Enforcer {
    /// A service mesh.
    Mesh,
    /// The network of a cluster: where there is one, it does so without us.
    Network,
}

/// Policies that nothing here acts on: their group, their kinds (none listed: all of the group), and who could.
const UNENFORCED: &[(&str, &[&str], Enforcer)] = &[
    ("policy.linkerd.io", &[], Enforcer::Mesh),
    ("policy.networking.k8s.io", &[], Enforcer::Network),
    ("projectcalico.org", CALICO, Enforcer::Network),
    ("crd.projectcalico.org", CALICO, Enforcer::Network),
    ("cilium.io", &["CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"], Enforcer::Network),
];

const CALICO: &[&str] = &[
    "StagedNetworkPolicy",
    "StagedGlobalNetworkPolicy",
    "StagedKubernetesNetworkPolicy",
    "Tier",
    "HostEndpoint",
    "Profile",
];

/// If a document of `kind` and `version` is a policy that nothing here acts on, who could.
pub(super) fn unenforced(kind: &str, version: &str) -> Option<Enforcer> {
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    if named(kind).any(|known| known.group() == group) {
        return None;
    }
    let mut known = UNENFORCED.iter();
    let (.., enforcer) = known.find(|(of, kinds, _)| {
        let is_one = kinds.is_empty() || kinds.iter().any(|one| one.eq_ignore_ascii_case(kind));
        of.eq_ignore_ascii_case(group) && is_one
    })?;
    Some(*enforcer)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_kind_of_a_group_is_listed_once_and_all_its_versions_are_of_that_group() {
        let (mut seen, mut called) = (BTreeSet::new(), BTreeSet::new());
        for kind in followed() {
            assert!(seen.insert((kind.group(), kind.kind)), "{} {}", kind.group(), kind.kind);
            assert!(
                kind.called.split('.').next() == Some(kind.kind),
                "{} is called {}",
                kind.kind,
                kind.called
            );
            for version in kind.api_versions {
                let group = version.rsplit_once('/').map_or("", |(group, _)| group);
                assert_eq!(group, kind.group(), "{}", kind.kind);
            }
        }
        for kind in acted_on() {
            assert!(called.insert(kind.called), "two kinds are called {}", kind.called);
        }
    }

    #[test]
    fn what_is_acted_on_has_fields_and_what_is_not_has_none() {
        for kind in acted_on() {
            assert!(!kind.known_fields().is_empty(), "{}", kind.kind);
        }
        for kind in NOT_ACTED_ON {
            assert!(kind.known_fields().is_empty(), "{}", kind.kind);
        }
    }

    #[test]
    fn the_guide_names_every_kind_that_is_acted_on_and_no_other() {
        let guide = include_str!("../../README.md");
        let table = guide.lines().skip_while(|line| !line.starts_with("| kind |")).skip(2);
        let first_cells =
            table.take_while(|line| line.starts_with('|')).filter_map(|line| line.split('|').nth(1));
        let named: BTreeSet<&str> = first_cells
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .filter(|name| !name.contains('/'))
            .collect();

        // Kinds of one name in several groups may share a line.
        let listed = |kind: &ResourceKind| if named.contains(kind.called) { kind.called } else { kind.kind };
        let listed: BTreeSet<&str> = acted_on().iter().map(listed).collect();
        assert_eq!(named, listed);
    }
}
