//! A document of which something can be read: the strictest one that it could have been.

use std::sync::Arc;

use selvedge_model::Host;

use super::{
    super::{
        AuthorizationAction, AuthorizationPolicySpec, Document, Metadata, Resource, ServiceEntrySpec,
        WorkloadEntrySpec,
        destination_rule::SELECTOR,
        http_route,
        node::Value,
        service_entry::{EntryEndpoints, Resolution},
    },
    AUTHENTICATION, AUTHORIZATION, NETWORK, NOBODY, SERVER, STRICTEST, StandIn, Unusable, backend_tls,
    namespace_of,
    strict::{Whom, is_calico, refused_host, strict, strict_calico, strict_network, with_places_of},
    whom_of,
};

/// The fields of a policy that say whom it is for.
const WHOM: [&str; 4] = ["spec.selector", "spec.targetRef", "spec.targetRefs", "spec.podSelector"];

/// All others that policies for Gateways have.
const PARTS: [&str; 4] = ["spec.action", "spec.provider", "spec.rules", "spec.jwtRules"];

impl Unusable<'_> {
    pub(super) fn has_lost(&self, field: &str) -> bool {
        self.lost.iter().any(|lost| lost.starts_with(field) || field.starts_with(lost.as_str()))
    }

    pub(super) fn document<T>(&self, metadata: Metadata, spec: T) -> Arc<Document<T>> {
        let (name, location) = (self.name.clone(), self.location.clone());
        Arc::new(Document::standing_in(name, metadata, location, spec))
    }

    /// A policy that nobody reads is for the whole mesh if it does not say for which namespace it is.
    fn widen(&mut self) {
        if namespace_of(self.node, &self.name.namespace).is_none() {
            self.name.namespace = "".into();
        }
    }

    fn calico_policy(mut self, left: Option<Resource>) -> StandIn {
        if !self.name.namespace.is_empty() {
            self.widen();
        }
        let spec = match left {
            Some(Resource::CalicoPolicy(left)) if !self.has_lost_selectors() => Some(left.spec.clone()),
            _ => None,
        };
        strict_calico(self.name, self.location, spec.as_ref())
    }

    fn network_policy(mut self, left: Option<Resource>) -> StandIn {
        self.widen();
        let pods = match left {
            Some(Resource::NetworkPolicy(left)) if !self.has_lost("spec.podSelector") => {
                Some(left.spec.pods.clone())
            }
            _ => None,
        };
        strict_network(self.name, self.location, pods)
    }

    /// Of any other kind that refuses.
    fn policy(mut self, left: Option<&Resource>) -> StandIn {
        self.widen();
        let whom = self.whom(left);
        let stand_in = strict(self.name, self.location, whom);
        with_places_of(left, stand_in)
    }

    /// Whom a policy may be for, of which `left` can be read.
    fn whom(&self, left: Option<&Resource>) -> Whom {
        // What is called by a name that nobody knows may say that it is for others, too.
        if self.is_for_classes() && !self.has_lost_targets(is_of_targets) {
            return Whom::AnyGateway;
        }
        if WHOM.iter().any(|at| self.has_lost(at)) {
            return Whom::Anybody;
        }
        match left.and_then(whom_of) {
            // What is called by a name that nobody knows may have been targets.
            Some(Whom::Labelled(labels)) if labels.is_empty() && self.has_lost_targets(|_| false) => {
                Whom::Anybody
            }
            Some(Whom::Labelled(labels)) => Whom::Labelled(labels),
            // Not for what it names alone: nobody knows what was to be in the rest of it.
            _ => Whom::Anybody,
        }
    }

    /// Whether a field is lost that may have said which Gateways or workloads a policy is for, under another name. Those that
    /// are `read` anyway are none.
    fn has_lost_targets(&self, read: impl Fn(&str) -> bool) -> bool {
        let is_known = |lost: &str| lost.starts_with("metadata") || PARTS.contains(&lost) || read(lost);
        matches!(&*self.name.kind, AUTHORIZATION | AUTHENTICATION)
            && self.lost.iter().any(|lost| lost.matches('.').count() < 2 && !is_known(lost))
    }

    /// Whether all that it names are classes of gateways.
    fn is_for_classes(&self) -> bool {
        let Some(spec) = self.node.field("spec").map(|entry| &entry.node) else { return false };
        let listed = match spec.field("targetRefs").map(|entry| &entry.node.value) {
            Some(Value::List(targets)) => targets.as_slice(),
            Some(_) => return false,
            None => &[],
        };
        let alone = spec.field("targetRef").map(|entry| &entry.node);
        let mut all = listed.iter().chain(alone).peekable();
        spec.field("selector").is_none()
            && all.peek().is_some()
            && all.all(|target| target.text("kind") == Some("GatewayClass"))
    }

    pub(super) fn stand_in(self, left: Option<Resource>) -> Option<StandIn> {
        match (&*self.name.kind, left) {
            (AUTHORIZATION, Some(Resource::AuthorizationPolicy(left))) if self.refuses_nothing(&left) => None,
            (kind, left) if is_calico(kind) => Some(self.calico_policy(left)),
            (NETWORK, left) => Some(self.network_policy(left)),
            (STRICTEST | AUTHORIZATION | AUTHENTICATION | SERVER, left) => Some(self.policy(left.as_ref())),
            ("DestinationRule", left) => self.destination_rule(left.as_ref()),
            (backend_tls::KIND, _) => Some(self.backend_tls()),
            ("ServiceEntry", Some(Resource::ServiceEntry(left))) => Some(self.service_entry(&left)),
            ("WorkloadEntry", Some(Resource::WorkloadEntry(left))) => Some(self.workload_entry(&left)),
            ("HTTPRoute" | "GRPCRoute" | http_route::LINKERDS, left) => self.route(left.as_ref()),
            ("Revocation", Some(Resource::Revocation(left))) => Some(StandIn {
                resource: Resource::Revocation(self.document(left.metadata.clone(), left.spec.clone())),
                words: format!("the entries that can be read are in use, without {}", self.lost.join(", ")),
            }),
            ("Service", Some(Resource::Service(left))) if self.is_a_host() => Some(StandIn {
                resource: Resource::Service(self.document(left.metadata.clone(), left.spec.clone())),
                words: format!("the parts that can be read are in use, without {}", self.lost.join(", ")),
            }),
            ("Pod", Some(Resource::Pod(left))) => {
                let mut spec = left.spec.clone();
                // Whoever calls it expects its sidecar at every port.
                spec.skipped_ports.clear();
                Some(StandIn {
                    resource: Resource::Pod(self.document(left.metadata.clone(), spec)),
                    words: format!("the parts that can be read are in use, without {}", self.lost.join(", ")),
                })
            }
            _ => None,
        }
    }

    /// Whether a Service of its name can be called at all. What cannot be would only be shown, and its name may be anything.
    fn is_a_host(&self) -> bool {
        format!("{}.{}", self.name.name, self.name.namespace).parse::<Host>().is_ok()
    }

    /// Whether it cannot be read which workloads a policy of Calico's is for.
    fn has_lost_selectors(&self) -> bool {
        ["spec.selector", "spec.namespaceSelector", "spec.serviceAccountSelector"]
            .iter()
            .any(|field| self.has_lost(field))
    }

    /// Whether `left`, which is all that can be read of a policy, says that it only counts.
    fn refuses_nothing(&self, left: &Document<AuthorizationPolicySpec>) -> bool {
        let counts = left.spec.dry_run && !self.has_lost("metadata");
        counts || (left.spec.action == AuthorizationAction::Audit && !self.has_lost("spec.action"))
    }

    fn destination_rule(self, left: Option<&Resource>) -> Option<StandIn> {
        let spec = self.node.field("spec").map(|entry| &entry.node)?;
        let about_tls = spec.has_field("tls") || !matches!(spec.value, Value::Map(_));
        about_tls.then(|| {
            let left = match left {
                Some(Resource::DestinationRule(left)) => Some(&left.spec),
                _ => None,
            };
            let host = || spec.text("host").unwrap_or("*").to_ascii_lowercase();
            let host = left.map_or_else(host, |left| left.host.clone());
            // Whom it selects nobody knows if that cannot be read: perhaps all that it may be for.
            let selects = spec.field("workloadSelector").is_some();
            let known = left.filter(|_| !self.has_lost(SELECTOR)).and_then(|left| left.selector.clone());
            refused_host(self.name.clone(), self.location, host, selects.then(|| known.unwrap_or_default()))
        })
    }

    fn service_entry(&self, left: &Document<ServiceEntrySpec>) -> StandIn {
        let mut spec = left.spec.clone();
        spec.endpoints = EntryEndpoints::Inline(Vec::new());
        spec.resolution = Resolution::Static;
        let words = format!("calls to {} are refused until it is repaired", spec.hosts.join(", "));
        let resource = Resource::ServiceEntry(self.document(left.metadata.clone(), spec));
        StandIn { resource, words }
    }

    fn workload_entry(&self, left: &Document<WorkloadEntrySpec>) -> StandIn {
        let mut spec = left.spec.clone();
        spec.meshed |= self.has_lost("spec.labels") || self.has_lost("metadata.labels");
        if self.has_lost("spec.serviceAccount") {
            NOBODY.clone_into(&mut spec.service_account);
        }
        let words = match spec.meshed {
            true => "it is called over mutual TLS only, and accepts nothing else".to_owned(),
            false => format!("the parts that can be read are in use, without {}", self.lost.join(", ")),
        };
        let resource = Resource::WorkloadEntry(self.document(left.metadata.clone(), spec));
        StandIn { resource, words }
    }
}

/// Whether the field `lost` is one of `targetRef` or `targetRefs`.
fn is_of_targets(lost: &str) -> bool {
    let name = lost.strip_prefix("spec.").and_then(|field| field.split(['.', '[']).next());
    matches!(name, Some("targetRef" | "targetRefs"))
}
