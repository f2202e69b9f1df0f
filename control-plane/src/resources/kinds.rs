//! The one list of kinds. A new kind is one file beside this one, which says all that is peculiar to it in its
//! `KIND`, and one line in the table below.
//!
//! Some kinds are followed in a cluster although nothing acts on them: who writes such an object must be told.

mod kind;
mod unenforced;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use selvedge_model::expression::Expression;

pub use self::kind::{Feedback, ResourceKind};
pub(super) use self::unenforced::{Enforcer, unenforced};
use super::{
    AuthorizationPolicySpec, BackendTlsPolicySpec, BackendTrafficPolicySpec, CalicoPolicySpec, ConfigMapSpec,
    DestinationRuleSpec, Document, EndpointSliceSpec, GatewayClassSpec, GatewaySpec, HttpRouteSpec,
    IngressClassSpec, IngressSpec, IstioGatewaySpec, ListenerSetSpec, Location, MeshTlsSpec, Metadata,
    NamespaceSpec, NetworkPolicySpec, NetworkSetSpec, NetworksSpec, NodeSpec, PeerAuthenticationSpec,
    PodSpec, RateLimitSpec, ReferenceGrantSpec, RequestAuthenticationSpec, RevocationSpec, SecretSpec,
    ServerAuthorizationSpec, ServerLimitSpec, ServerPolicySpec, ServerSpec, ServiceAccountSpec,
    ServiceEntrySpec, ServiceSpec, TcpRouteSpec, TelemetrySpec, TierSpec, VirtualServiceSpec,
    WorkloadEntrySpec, authorization_policy, backend_tls_policy, backend_traffic_policy, calico,
    cluster_node, destination_rule, endpoint_slice, gateway, gateway_class, gateway_tcp, grpc_route,
    http_route, ingress, ingress_class, istio_gateway,
    linkerd_policy::{self, authentication, authorization, server, server_authorization},
    listener_set, namespace, network_policy, peer_authentication, pod, rate_limit, reference_grant,
    request_authentication, revocation, secret, service, service_account, service_entry, telemetry,
    virtual_service, workload_entry,
};
use crate::problem::{DocumentName, Fault, Problem, Severity};

/// Versions of Kubernetes' first kinds.
pub(super) const CORE: &[&str] = &["v1"];
/// Versions of `EndpointSlice`.
pub(super) const DISCOVERY: &[&str] = &["discovery.k8s.io/v1"];
/// Versions of Kubernetes' policies of networks, and of its `Ingress`.
pub(super) const CLUSTER_NETWORKING: &[&str] = &["networking.k8s.io/v1"];
/// Versions of the kinds of the Gateway API that are `v1` everywhere.
pub(super) const GATEWAY: &[&str] = &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"];
/// Versions of those that are not. `v1alpha3` is of `TLSRoute` alone; its fields have stayed
/// the same from one version to the next.
pub(super) const YOUNG_GATEWAY: &[&str] = &[
    "gateway.networking.k8s.io/v1",
    "gateway.networking.k8s.io/v1beta1",
    "gateway.networking.k8s.io/v1alpha3",
    "gateway.networking.k8s.io/v1alpha2",
];
/// Versions of `ListenerSet`.
pub(super) const LISTENER_SETS: &[&str] = &["gateway.networking.k8s.io/v1"];
/// Versions of it while it was called `XListenerSet`.
pub(super) const OLD_LISTENER_SETS: &[&str] = &["gateway.networking.x-k8s.io/v1alpha1"];
/// Versions of Istio's kinds for traffic.
pub(super) const ISTIO_NETWORKING: &[&str] =
    &["networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"];
/// Versions of Istio's policies.
pub(super) const ISTIO_SECURITY: &[&str] = &["security.istio.io/v1", "security.istio.io/v1beta1"];
/// Versions of `Telemetry`.
pub(super) const ISTIO_TELEMETRY: &[&str] = &["telemetry.istio.io/v1", "telemetry.istio.io/v1alpha1"];
const ISTIO_EXTENSIONS: &[&str] = &["extensions.istio.io/v1alpha1"];
/// Versions of our own kinds.
pub(super) const OURS: &[&str] = &["selvedge.io/v1alpha1"];

/// The groups that have policies only.
pub(super) const GROUPS_OF_POLICIES: &[&str] = &["security.istio.io"];

/// The kinds that are acted on.
pub fn acted_on() -> &'static [ResourceKind] {
    ACTED_ON
}

/// The kinds that are followed in a cluster, whether they are acted on or not. Secrets are not: those that are needed are
/// fetched by name.
pub fn followed() -> impl Iterator<Item = &'static ResourceKind> {
    ACTED_ON.iter().filter(|kind| !kind.is_secret).chain(NOT_ACTED_ON)
}

/// The kind `called`, if its objects are read only by their names.
pub fn by_name(called: &str) -> Option<&'static ResourceKind> {
    ACTED_ON.iter().find(|kind| kind.is_secret && kind.called == called)
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
        #[derive(Debug, Clone, Default)]
        pub struct Resources {
            $(
                #[doc = concat!("Each `", stringify!($resource), "`.")]
                pub $list: Vec<Arc<Document<$spec>>>,
            )*
        }

        impl PartialEq for Resources {
            fn eq(&self, other: &Self) -> bool {
                true $(&& same(&self.$list, &other.$list))*
            }
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

            /// The regular expressions in what it says.
            pub fn expressions(&self) -> &[Expression] {
                match self { $(Self::$resource(document) => &document.expressions,)* }
            }

            /// An error in its `spec` that other documents have a part in.
            pub fn error_between(&self, message: String) -> Problem {
                let problem = match self {
                    $(Self::$resource(document) => document.problem(Severity::Error, "spec", message),)*
                };
                Problem { fault: Fault::Between, ..problem }
            }

            /// Where it stands.
            pub fn location(&self) -> &Location {
                match self { $(Self::$resource(document) => &document.location,)* }
            }

            /// Whether `other` is the very same one, and not only says the same.
            pub(crate) fn is(&self, other: &Self) -> bool {
                match (self, other) {
                    $((Self::$resource(one), Self::$resource(other)) => Arc::ptr_eq(one, other),)*
                    _ => false,
                }
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

            /// The documents that have regular expressions, kind by kind.
            pub fn with_expressions(&self) -> Vec<Resource> {
                let mut found: Vec<Resource> = Vec::new();
                $(
                    let asking = self.$list.iter().filter(|document| !document.expressions.is_empty());
                    found.extend(asking.cloned().map(Resource::$resource));
                )*
                found
            }

            /// Whether all documents say the same as those of `other`, whose `Arc`s are then taken over, but for those kinds of which
            /// a change is compiled alone: workloads and endpoints (pods, `WorkloadEntry`s, `EndpointSlice`s), `Service`s, `ServiceEntry`s,
            /// `AuthorizationPolicy`s, `PeerAuthentication`s, `RequestAuthentication`s, `RateLimit`s and network policies, and where requests go (routes and `DestinationRule`s).
            pub(crate) fn takes_over_what_is_compiled_together(&mut self, other: &Self) -> bool {
                const LEFT_OUT: [&str; 15] = [
                    "authorization_policies",
                    "request_authentications",
                    "rate_limits",
                    "network_policies",
                    "calico_policies",
                    "peer_authentications",
                    "pods",
                    "workload_entries",
                    "endpoint_slices",
                    "services",
                    "service_entries",
                    "virtual_services",
                    "http_routes",
                    "tcp_routes",
                    "destination_rules",
                ];
                true $(&& (LEFT_OUT.contains(&stringify!($list)) || takes_over(&mut self.$list, &other.$list)))*
            }

            /// Puts `new` in the place of the very document `old`, which is of the same kind; whether that was there.
            pub(crate) fn exchange(&mut self, old: &Resource, new: Resource) -> bool {
                match (old, new) {
                    $((Resource::$resource(old), Resource::$resource(new)) => {
                        let there = self.$list.iter_mut().find(|there| Arc::ptr_eq(there, old));
                        there.map(|there| *there = new).is_some()
                    })*
                    _ => false,
                }
            }

            /// Removes the very document `resource`; whether that was there.
            pub(crate) fn take(&mut self, resource: &Resource) -> bool {
                match resource {
                    $(Resource::$resource(document) => {
                        let place = self.$list.iter().position(|there| Arc::ptr_eq(there, document));
                        place.map(|place| self.$list.remove(place)).is_some()
                    })*
                }
            }

            /// Puts `resource` before those of its kind that come after it by [`Document::seniority`], where all are in that order.
            pub(crate) fn insert_by_place(&mut self, resource: Resource) {
                match resource {
                    $(Resource::$resource(document) => {
                        let before = |there: &Arc<Document<$spec>>| there.seniority() < document.seniority();
                        let place = self.$list.partition_point(before);
                        self.$list.insert(place, document);
                    })*
                }
            }

            /// Puts `resource` among those of its very kind, which stand together in the order of [`Document::seniority`]; whether
            /// it is known where they stand.
            pub(crate) fn insert_in_kind(&mut self, resource: Resource) -> bool {
                match resource { $(Resource::$resource(document) => insert_in_kind(&mut self.$list, document),)* }
            }

            /// Removes the document of `resource`.
            pub fn remove(&mut self, resource: &Resource) {
                match resource {
                    $(Resource::$resource(document) => self.$list.retain(|there| there.name != document.name),)*
                }
            }

            /// The namespaces in which there are documents.
            pub(crate) fn inhabited(&self) -> HashSet<&str> {
                let mut namespaces = HashSet::new();
                $(namespaces.extend(self.$list.iter().map(|document| &*document.name.namespace));)*
                namespaces
            }

            /// How many documents there are of each kind, by what it is called.
            pub fn counts(&self) -> BTreeMap<Arc<str>, usize> {
                let mut counts = BTreeMap::new();
                $(
                    for document in &self.$list {
                        *counts.entry(Arc::clone(&document.name.kind)).or_default() += 1;
                    }
                )*
                counts
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

/// Whether both lists say the same. Documents that were not read again are the same `Arc`s: they are not compared.
fn same<T: PartialEq>(one: &[Arc<Document<T>>], other: &[Arc<Document<T>>]) -> bool {
    let mut pairs = one.iter().zip(other);
    one.len() == other.len() && pairs.all(|(one, other)| Arc::ptr_eq(one, other) || one == other)
}

/// Whether both lists say the same; the `Arc`s of `other` are taken over as far as they do.
fn takes_over<T: PartialEq>(one: &mut [Arc<Document<T>>], other: &[Arc<Document<T>>]) -> bool {
    let same = |(one, other): (&mut Arc<Document<T>>, &Arc<Document<T>>)| {
        let is_it = Arc::ptr_eq(one, other);
        let same = is_it || *one == *other;
        if same && !is_it {
            *one = Arc::clone(other);
        }
        same
    };
    one.len() == other.len() && one.iter_mut().zip(other).all(same)
}

/// See [`Resources::insert_in_kind`].
fn insert_in_kind<T>(list: &mut Vec<Arc<Document<T>>>, document: Arc<Document<T>>) -> bool {
    let is_one = |there: &Arc<Document<T>>| there.name.kind == document.name.kind;
    let range = match list.iter().position(is_one) {
        Some(first) => first..list.iter().rposition(is_one).map_or(first, |last| last + 1),
        None if list.is_empty() => 0..0,
        None => return false,
    };
    let before = |there: &Arc<Document<T>>| there.seniority() < document.seniority();
    let place = range.start + list[range].partition_point(before);
    list.insert(place, document);
    true
}

fn put<T>(list: &mut Vec<Arc<Document<T>>>, document: Arc<Document<T>>) {
    match list.iter_mut().find(|there| there.name == document.name) {
        Some(there) => *there = document,
        None => list.push(document),
    }
}

table! {
    namespaces: Namespace(NamespaceSpec) = namespace::KIND;
    nodes: Node(NodeSpec) = cluster_node::KIND;
    pods: Pod(PodSpec) = pod::KIND;
    services: Service(ServiceSpec) = service::KIND;
    service_accounts: ServiceAccount(ServiceAccountSpec) = service_account::KIND;
    endpoint_slices: EndpointSlice(EndpointSliceSpec) = endpoint_slice::KIND;
    workload_entries: WorkloadEntry(WorkloadEntrySpec) = workload_entry::KIND;
    service_entries: ServiceEntry(ServiceEntrySpec) = service_entry::KIND;
    istio_gateways: IstioGateway(IstioGatewaySpec) = istio_gateway::KIND;
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
    tiers: Tier(TierSpec) = calico::tier::TIER, calico::tier::TIER_KEPT;
    tcp_routes: TcpRoute(TcpRouteSpec) = gateway_tcp::TCP_ROUTE, gateway_tcp::TLS_ROUTE;
    http_routes: HttpRoute(HttpRouteSpec) = http_route::KIND, grpc_route::KIND, http_route::LINKERD;
    gateway_classes: GatewayClass(GatewayClassSpec) = gateway_class::KIND;
    gateways: Gateway(GatewaySpec) = gateway::KIND;
    listener_sets: ListenerSet(ListenerSetSpec) = listener_set::KIND, listener_set::OLD;
    backend_tls_policies: BackendTlsPolicy(BackendTlsPolicySpec) = backend_tls_policy::KIND;
    backend_traffic_policies: BackendTrafficPolicy(BackendTrafficPolicySpec) = backend_traffic_policy::KIND;
    secrets: Secret(SecretSpec) = secret::SECRET;
    config_maps: ConfigMap(ConfigMapSpec) = secret::CONFIG_MAP;
    reference_grants: ReferenceGrant(ReferenceGrantSpec) = reference_grant::KIND;
    ingress_classes: IngressClass(IngressClassSpec) = ingress_class::KIND;
    ingresses: Ingress(IngressSpec) = ingress::KIND;
    servers: Server(ServerSpec) = server::KIND;
    server_policies: ServerPolicy(ServerPolicySpec) = authorization::KIND;
    server_authorizations: ServerAuthorization(ServerAuthorizationSpec) = server_authorization::KIND;
    mesh_tls_authentications: MeshTlsAuthentication(MeshTlsSpec) = authentication::MESH_TLS;
    network_authentications: NetworkAuthentication(NetworksSpec) = authentication::NETWORK;
    server_limits: ServerLimit(ServerLimitSpec) = linkerd_policy::rate_limit::KIND;
    revocations: Revocation(RevocationSpec) = revocation::KIND;
    rate_limits: RateLimit(RateLimitSpec) = rate_limit::KIND;
    telemetries: Telemetry(TelemetrySpec) = telemetry::KIND;
}

/// The kinds that nothing acts on, and that are followed so that this is reported.
const NOT_ACTED_ON: &[ResourceKind] = &[
    ResourceKind::new("WorkloadGroup", ISTIO_NETWORKING, "workloadgroups", Feedback::Conditions),
    ResourceKind::new("Sidecar", ISTIO_NETWORKING, "sidecars", Feedback::Conditions),
    ResourceKind::new("EnvoyFilter", ISTIO_NETWORKING, "envoyfilters", Feedback::Conditions),
    ResourceKind::new("ProxyConfig", &["networking.istio.io/v1beta1"], "proxyconfigs", Feedback::Conditions),
    ResourceKind::new("WasmPlugin", ISTIO_EXTENSIONS, "wasmplugins", Feedback::Conditions),
];

#[cfg(test)]
mod tests;
