//! A document that cannot be used is replaced by the strictest document that it could have been.
//!
//! Leaving the document out would open what it protects. A policy is read as if it refused everything that its kind can
//! refuse, for every workload that it may be for. A workload or a service keeps its name and its addresses, so that
//! nothing is sent there in plaintext as to an unknown destination. The part that can be read limits this: fields that
//! cannot be read are removed one after the other, until the rest is a valid document.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use selvedge_model::MtlsMode;

use super::{
    AuthorizationAction, AuthorizationPolicySpec, CalicoPolicySpec, DestinationRuleSpec, Document,
    Expression, LabelSelector, Location, Metadata, NetworkPolicySpec, PeerAuthenticationSpec,
    RequestAuthenticationSpec, Resource, ServiceEntrySpec, WorkloadEntrySpec,
    decode::{meant, nearest_policy, read_kind},
    destination_rule::PolicyBlocks,
    document::MetadataYaml,
    export_to::ExportTo,
    kinds::{self, GROUPS_OF_POLICIES},
    linkerd_policy,
    node::{Node, Value},
    service_entry::{EntryEndpoints, Resolution},
    typed,
};
use crate::problem::DocumentName;

/// More fields that cannot be read are too many to look for what is left.
const MOST_TAKEN_OUT: usize = 16;

/// What a policy of unknown kind is taken for.
const STRICTEST: &str = "PeerAuthentication";

/// The kind whose strictest document refuses everything.
const AUTHORIZATION: &str = "AuthorizationPolicy";

/// The kind whose strictest document refuses everything, in both directions.
const NETWORK: &str = "NetworkPolicy";

/// The kind whose strictest document accepts no token.
const AUTHENTICATION: &str = "RequestAuthentication";
/// The kind that has a port refuse what no policy allows. No other kind of Linkerd's refuses anything.
const SERVER: &str = "Server";

/// The service account of a workload whose own cannot be read. Nobody has it, so nobody passes for that workload.
const NOBODY: &str = "cannot.be.read";

/// What a policy is called whose name cannot be read.
const UNNAMED: &str = "of unknown name";

/// What stands in for a document that cannot be used.
#[derive(Debug, Clone, PartialEq)]
pub struct StandIn {
    /// What counts in its place; it says itself that it is not usable.
    pub resource: Resource,
    /// What that comes to, for whoever wrote the document.
    pub words: String,
}

/// A document that cannot be used, as far as anything is known of it.
struct Unusable<'a> {
    name: DocumentName,
    location: &'a Location,
    node: &'a Node,
    /// What was taken out so that the rest is a document.
    lost: Vec<String>,
}

/// The stand-in of the document `node`; `None` if leaving it out opens nothing.
pub(super) fn of_document(
    node: &Node,
    name: Option<&DocumentName>,
    location: &Location,
    default_namespace: &str,
) -> Option<StandIn> {
    let (written, version) = (text_in_any_case(node, "kind"), text_in_any_case(node, "apiVersion"));
    let of_policies = is_of_policies(version);
    let of_group = meant(written, version);
    let mut known = kinds::acted_on().iter();
    let kind = match of_group.or_else(|| known.find(|known| known.kind.eq_ignore_ascii_case(written))) {
        Some(known) => known.called,
        // Only policies are in these groups, so this is one, whatever its kind was to be.
        None if of_policies => nearest_policy(written, version).unwrap_or(STRICTEST),
        None if holds_policy(node) => return Some(strict(unnamed(STRICTEST), location, None)),
        None => written,
    };
    let name = match name {
        Some(name) => DocumentName { kind: kind.into(), ..name.clone() },
        None => DocumentName {
            kind: kind.into(),
            namespace: namespace_of(node, default_namespace).unwrap_or_default().into(),
            name: UNNAMED.into(),
        },
    };
    let (left, lost) = left_of(node, &name, location);
    Unusable { name, location, node, lost }.stand_in(left)
}

/// Whether only policies have this `apiVersion`.
pub(super) fn is_of_policies(version: &str) -> bool {
    GROUPS_OF_POLICIES
        .iter()
        .any(|group| version.get(..group.len()).is_some_and(|start| start.eq_ignore_ascii_case(group)))
}

/// Whether a document somewhere in `node` seems to be a policy.
pub(super) fn holds_policy(node: &Node) -> bool {
    let is_policy = |text: &str| kinds::policies().any(|kind| kind.eq_ignore_ascii_case(text));
    match &node.value {
        Value::Text(text) => is_policy(text) || (is_of_policies(text) && text.contains('/')),
        Value::List(items) => items.iter().any(holds_policy),
        Value::Map(entries) => entries.iter().any(|entry| holds_policy(&entry.node)),
        _ => false,
    }
}

/// The text of the field `key`, whatever the case of its letters; empty if there is none.
fn text_in_any_case<'n>(node: &'n Node, key: &str) -> &'n str {
    let Value::Map(entries) = &node.value else { return "" };
    let texts = entries.iter().filter(|entry| entry.key.eq_ignore_ascii_case(key));
    let mut texts = texts.filter_map(|entry| match &entry.node.value {
        Value::Text(text) => Some(text.as_str()),
        _ => None,
    });
    texts.next().unwrap_or_default()
}

/// The stand-in of a text that is not even YAML, which seems to hold a document called `name`.
pub(super) fn of_text(
    text: &str,
    name: Option<&DocumentName>,
    path: &Arc<Path>,
    line: u64,
    default_namespace: &str,
) -> Option<StandIn> {
    let location = Location { path: Some(Arc::clone(path)), index: 0, line, lines: None };
    let text = text.to_ascii_lowercase();
    let mentions = |word: &str| text.contains(&word.to_ascii_lowercase());
    if kinds::policies().chain(GROUPS_OF_POLICIES.iter().copied()).any(mentions) {
        // Only where the text names one namespace and no other is it surely that.
        let said: BTreeSet<_> = values(&text, "namespace").collect();
        let is_there = |name: &&DocumentName| said.iter().eq([&&*name.namespace]);
        let known =
            name.filter(|name| kinds::policies().any(|policy| policy == &*name.kind)).filter(is_there);
        let kind = [NETWORK, AUTHORIZATION, AUTHENTICATION]
            .into_iter()
            .find(|kind| mentions(kind))
            .unwrap_or(STRICTEST);
        return Some(strict(known.cloned().unwrap_or_else(|| unnamed(kind)), &location, None));
    }
    if mentions(linkerd_policy::GROUP) && values(&text, "kind").any(|kind| kind == "server") {
        let said: BTreeSet<_> = values(&text, "namespace").collect();
        let known = name.filter(|name| &*name.kind == SERVER && said.iter().eq([&&*name.namespace]));
        return Some(strict(known.cloned().unwrap_or_else(|| unnamed(SERVER)), &location, None));
    }
    let seems = match name {
        Some(name) => &*name.kind == "DestinationRule",
        None => mentions("DestinationRule"),
    };
    (seems && mentions("tls")).then(|| {
        let only = |key: &str| {
            let values: BTreeSet<_> = values(&text, key).collect();
            (values.len() == 1).then(|| values.into_iter().next()).flatten()
        };
        let namespace = only("namespace").filter(|namespace| is_namespace(namespace));
        let name = name.cloned().unwrap_or_else(|| DocumentName {
            namespace: namespace.unwrap_or(default_namespace).into(),
            ..unnamed("DestinationRule")
        });
        refused_host(name, &location, only("host").unwrap_or("*").to_owned())
    })
}

/// What a text that is not even YAML (or JSON) seems to say of each field `key`.
fn values<'t>(text: &'t str, key: &str) -> impl Iterator<Item = &'t str> {
    let after = text.match_indices(key).filter_map(|(at, key)| {
        let stands_alone =
            !text[..at].ends_with(|before: char| before.is_alphanumeric() || "-_./".contains(before));
        let rest = &text[at + key.len()..];
        let rest = rest.trim_start_matches(['"', '\'']).trim_start().strip_prefix(':')?;
        stands_alone.then_some(rest)
    });
    let value = |rest: &'t str| rest.split(['\n', ',', '}', ']']).next().unwrap_or(rest);
    let values = after.map(value).map(|value| value.split(" #").next().unwrap_or(value));
    values.map(|value| value.trim().trim_matches(['"', '\''])).filter(|value| !value.is_empty())
}

/// Whether `resource` says who may do what.
pub fn is_policy(resource: &Resource) -> bool {
    kinds::is_policy(&resource.name().kind)
}

/// The stand-in of a policy that is understood and not in use, because `first` has its name and says something else.
pub fn of_passed_over(first: Option<&Resource>, resource: &Resource) -> Option<StandIn> {
    if let Resource::CalicoPolicy(this) = resource {
        let same = matches!(first, Some(Resource::CalicoPolicy(first)) if first.spec == this.spec);
        return (!same).then(|| strict_calico(this.name.clone(), &this.location, Some(&this.spec)));
    }
    if let Resource::NetworkPolicy(this) = resource {
        let same = matches!(first, Some(Resource::NetworkPolicy(first)) if first.spec == this.spec);
        let pods = Some(this.spec.pods.clone());
        return (!same).then(|| strict_network(this.name.clone(), &this.location, pods));
    }
    if let Resource::Server(this) = resource {
        let same = matches!(first, Some(Resource::Server(first)) if first.spec == this.spec);
        return (!same).then(|| strict(this.name.clone(), &this.location, this.spec.labels.clone()));
    }
    let same = match (first, resource) {
        (Some(Resource::PeerAuthentication(first)), Resource::PeerAuthentication(this)) => {
            first.spec == this.spec
        }
        (Some(Resource::AuthorizationPolicy(first)), Resource::AuthorizationPolicy(this)) => {
            first.spec == this.spec
        }
        (Some(Resource::RequestAuthentication(first)), Resource::RequestAuthentication(this)) => {
            first.spec == this.spec
        }
        _ => false,
    };
    let selector = selector_of(resource)?;
    (!same).then(|| strict(resource.name().clone(), resource.location(), Some(selector)))
}

/// The stand-ins of a file or directory that cannot be read, which may hold policies of any kind: one of each. The first
/// says what they come to.
pub fn of_path(path: &Path) -> [StandIn; 3] {
    let location = Location { path: Some(Arc::from(path)), index: 0, line: 1, lines: None };
    [NETWORK, AUTHORIZATION, STRICTEST].map(|kind| strict(unnamed(kind), &location, None))
}

fn unnamed(kind: &str) -> DocumentName {
    DocumentName { kind: kind.into(), namespace: "".into(), name: UNNAMED.into() }
}

/// What `node` is without the fields that cannot be read, and which those are.
fn left_of(node: &Node, name: &DocumentName, location: &Location) -> (Option<Resource>, Vec<String>) {
    let mut node = node.clone();
    let mut lost = Vec::new();
    while lost.len() < MOST_TAKEN_OUT {
        match read_kind(&node, name, location) {
            Ok((resource, _)) => return (Some(resource), lost),
            Err(error) => match node.take_out(&error.field) {
                Some(field) => lost.push(field),
                None => break,
            },
        }
    }
    (None, lost)
}

/// The namespace that a document says it is in; `None` if that cannot be read.
fn namespace_of(node: &Node, default_namespace: &str) -> Option<String> {
    let metadata = node.field("metadata").map(|entry| &entry.node);
    match metadata.and_then(|metadata| metadata.field("namespace")).map(|entry| &entry.node.value) {
        Some(Value::Text(namespace)) if is_namespace(namespace) => Some(namespace.clone()),
        Some(Value::Text(namespace)) if !namespace.is_empty() => None,
        Some(Value::Text(_)) | None if !may_be_misspelt(node, metadata) => Some(default_namespace.to_owned()),
        _ => None,
    }
}

/// Whether a document that says no namespace may do so in a field of a wrong name or at a wrong place.
fn may_be_misspelt(node: &Node, metadata: Option<&Node>) -> bool {
    let has = |node: &Node, keys: &[&str]| match &node.value {
        Value::Map(entries) => entries.iter().any(|entry| {
            keys.iter().any(|key| entry.key.eq_ignore_ascii_case(key)) && entry.node.value != Value::Null
        }),
        _ => true,
    };
    let Some(metadata) = metadata else { return has(node, &["metadata", "namespace"]) };
    let unknown = match typed::decode::<MetadataYaml>(metadata) {
        Ok((_, unknown)) => !unknown.is_empty(),
        Err(_) => !has(metadata, &["name"]),
    };
    unknown
        || has(node, &["namespace"])
        || (metadata.field("namespace").is_none() && has(metadata, &["namespace"]))
}

fn is_namespace(text: &str) -> bool {
    selvedge_model::WorkloadName::new(text, "a").is_ok()
}

impl Unusable<'_> {
    fn has_lost(&self, field: &str) -> bool {
        self.lost.iter().any(|lost| lost.starts_with(field) || field.starts_with(lost.as_str()))
    }

    fn document<T>(&self, metadata: Metadata, spec: T) -> Arc<Document<T>> {
        let (name, location) = (self.name.clone(), self.location.clone());
        Arc::new(Document { name, metadata, location, spec, unusable: true })
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
        let says_whom = !["spec.selector", "spec.targetRef", "spec.targetRefs", "spec.podSelector"]
            .iter()
            .any(|at| self.has_lost(at));
        let selector = left.filter(|_| says_whom).and_then(selector_of);
        let stand_in = strict(self.name, self.location, selector);
        with_places_of(left, stand_in)
    }

    fn stand_in(self, left: Option<Resource>) -> Option<StandIn> {
        match (&*self.name.kind, left) {
            (AUTHORIZATION, Some(Resource::AuthorizationPolicy(left))) if self.refuses_nothing(&left) => None,
            (kind, left) if is_calico(kind) => Some(self.calico_policy(left)),
            (NETWORK, left) => Some(self.network_policy(left)),
            (STRICTEST | AUTHORIZATION | AUTHENTICATION | SERVER, left) => Some(self.policy(left.as_ref())),
            ("DestinationRule", left) => self.destination_rule(left),
            ("ServiceEntry", Some(Resource::ServiceEntry(left))) => Some(self.service_entry(&left)),
            ("WorkloadEntry", Some(Resource::WorkloadEntry(left))) => Some(self.workload_entry(&left)),
            ("Revocation", Some(Resource::Revocation(left))) => Some(StandIn {
                resource: Resource::Revocation(self.document(left.metadata.clone(), left.spec.clone())),
                words: format!("the entries that can be read are in use, without {}", self.lost.join(", ")),
            }),
            ("Service", Some(Resource::Service(left))) => Some(StandIn {
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

    fn destination_rule(self, left: Option<Resource>) -> Option<StandIn> {
        let spec = self.node.field("spec").map(|entry| &entry.node)?;
        let about_tls = spec.has_field("tls") || !matches!(spec.value, Value::Map(_));
        about_tls.then(|| {
            let host = match left {
                Some(Resource::DestinationRule(left)) => left.spec.host.clone(),
                _ => spec.text("host").unwrap_or("*").to_ascii_lowercase(),
            };
            refused_host(self.name.clone(), self.location, host)
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

/// The labels of the workloads that a policy selects; `None`: it is no policy, or selects them in another way.
fn selector_of(resource: &Resource) -> Option<BTreeMap<String, String>> {
    match resource {
        Resource::PeerAuthentication(document) => Some(document.spec.selector.clone()),
        Resource::AuthorizationPolicy(document) if document.spec.services.is_none() => {
            Some(document.spec.selector.clone())
        }
        Resource::RequestAuthentication(document) if document.spec.services.is_none() => {
            Some(document.spec.selector.clone())
        }
        Resource::Server(document) => document.spec.labels.clone(),
        // Not for its services alone: nobody knows what was to be in the rest of it.
        _ => None,
    }
}

/// The strictest policy of the kind that `name` says, for the workloads that `selector` selects; `None`: for whichever it
/// may select.
fn strict(name: DocumentName, location: &Location, selector: Option<BTreeMap<String, String>>) -> StandIn {
    if &*name.kind == NETWORK {
        return strict_network(name, location, None);
    }
    if is_calico(&name.kind) {
        return strict_calico(name, location, None);
    }
    if &*name.kind == AUTHENTICATION {
        return strict_tokens(name, location, selector);
    }
    let (reach, accepts) = match (&*name.namespace, &selector) {
        ("", _) => ("every workload of the mesh".to_owned(), "accepts"),
        (namespace, Some(selector)) if !selector.is_empty() => {
            (format!("the workloads of namespace {namespace} that it selects"), "accept")
        }
        (namespace, _) => (format!("every workload of namespace {namespace}"), "accepts"),
    };
    if matches!(&*name.kind, AUTHORIZATION | SERVER) {
        let spec = AuthorizationPolicySpec {
            any_workload: selector.is_none(),
            selector: selector.unwrap_or_default(),
            services: None,
            action: AuthorizationAction::Deny,
            dry_run: false,
            rules: Vec::new(),
        };
        let document = Document {
            name,
            metadata: Metadata::default(),
            location: location.clone(),
            spec,
            unusable: true,
        };
        return StandIn {
            resource: Resource::AuthorizationPolicy(Arc::new(document)),
            words: format!(
                "until it is repaired, {reach} {accepts} nothing (read as a policy that denies everything)"
            ),
        };
    }
    let spec = PeerAuthenticationSpec {
        any_workload: selector.is_none(),
        selector: selector.unwrap_or_default(),
        mode: Some(MtlsMode::Strict),
        ports: BTreeMap::new(),
    };
    let document =
        Document { name, metadata: Metadata::default(), location: location.clone(), spec, unusable: true };
    StandIn {
        resource: Resource::PeerAuthentication(Arc::new(document)),
        words: format!(
            "until it is repaired, {reach} {accepts} mutual TLS only, at every port (read as STRICT)"
        ),
    }
}

/// A `NetworkPolicy` that refuses everything, in both directions, for the workloads that `pods` selects; `None`: for
/// whichever it may select.
fn strict_network(name: DocumentName, location: &Location, pods: Option<LabelSelector>) -> StandIn {
    let reach = match (&*name.namespace, &pods) {
        ("", _) => "every workload of the mesh".to_owned(),
        (namespace, Some(pods)) if !pods.is_empty() => {
            format!("each workload of namespace {namespace} that it selects")
        }
        (namespace, _) => format!("every workload of namespace {namespace}"),
    };
    let spec = NetworkPolicySpec {
        any_workload: pods.is_none(),
        pods: pods.unwrap_or_default(),
        ingress: Some(Vec::new()),
        egress: Some(Vec::new()),
    };
    let (metadata, location) = (Metadata::default(), location.clone());
    let document = Document { name, metadata, location, spec, unusable: true };
    StandIn {
        resource: Resource::NetworkPolicy(Arc::new(document)),
        words: format!(
            "until it is repaired, {reach} accepts nothing and calls nobody (read as a policy that denies everything)"
        ),
    }
}

/// Whether documents called `kind` are policies of Calico's.
fn is_calico(kind: &str) -> bool {
    kind.starts_with("GlobalNetworkPolicy") || (kind.starts_with(NETWORK) && kind != NETWORK)
}

/// A policy of Calico's that refuses everything, in both directions, for the workloads that `known` is for; `None`: for
/// whichever it may be for.
fn strict_calico(name: DocumentName, location: &Location, known: Option<&CalicoPolicySpec>) -> StandIn {
    let reach = match &*name.namespace {
        "" => "every workload of the mesh that it may select".to_owned(),
        namespace => format!("every workload of namespace {namespace} that it may select"),
    };
    let spec = CalicoPolicySpec {
        selector: known.map_or(Expression::All, |known| known.selector.clone()),
        any_workload: known.is_none(),
        namespaces: known.and_then(|known| known.namespaces.clone()),
        accounts: known.and_then(|known| known.accounts.clone()),
        order: None,
        ingress: Some(Vec::new()),
        egress: Some(Vec::new()),
        is_without_effect: false,
    };
    let (metadata, location) = (Metadata::default(), location.clone());
    let document = Document { name, metadata, location, spec, unusable: true };
    StandIn {
        resource: Resource::CalicoPolicy(Arc::new(document)),
        words: format!(
            "until it is repaired, {reach} accepts nothing and calls nobody (read as a policy that denies everything)"
        ),
    }
}

/// A `RequestAuthentication` that accepts no token, for the workloads that `selector` selects; `None`: for whichever it
/// may select.
fn strict_tokens(
    name: DocumentName,
    location: &Location,
    selector: Option<BTreeMap<String, String>>,
) -> StandIn {
    let spec = RequestAuthenticationSpec {
        any_workload: selector.is_none(),
        selector: selector.unwrap_or_default(),
        ..RequestAuthenticationSpec::default()
    };
    let (metadata, location) = (Metadata::default(), location.clone());
    let document = Document { name, metadata, location, spec, unusable: true };
    StandIn {
        resource: Resource::RequestAuthentication(Arc::new(document)),
        words: "until it is repaired, the workloads that it may select accept no token by it, and answer 401 to a request \
                with one"
            .to_owned(),
    }
}

/// `stand_in`, which looks for tokens also where `left`, which can be read of the document, does.
fn with_places_of(left: Option<&Resource>, mut stand_in: StandIn) -> StandIn {
    if let (Some(Resource::RequestAuthentication(left)), Resource::RequestAuthentication(document)) =
        (left, &mut stand_in.resource)
    {
        Arc::make_mut(document).spec.rules.clone_from(&left.spec.rules);
    }
    stand_in
}

/// Refuses every call to `host`.
fn refused_host(name: DocumentName, location: &Location, host: String) -> StandIn {
    let words = format!(
        "calls to {host} are refused until it is repaired, because it has TLS settings for that host"
    );
    let spec = DestinationRuleSpec {
        export_to: ExportTo::default(),
        host,
        policy: PolicyBlocks::default(),
        subsets: Vec::new(),
    };
    let document =
        Document { name, metadata: Metadata::default(), location: location.clone(), spec, unusable: true };
    StandIn { resource: Resource::DestinationRule(Arc::new(document)), words }
}
