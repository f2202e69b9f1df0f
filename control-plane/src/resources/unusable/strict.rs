//! The strictest document of each kind.

use std::{collections::BTreeMap, sync::Arc};

use selvedge_model::MtlsMode;

use super::{
    super::{
        AuthorizationAction, AuthorizationPolicySpec, CalicoPolicySpec, DEFAULT_TIER, DestinationRuleSpec,
        Document, Expression, LabelSelector, Location, Metadata, NetworkPolicySpec, PeerAuthenticationSpec,
        RequestAuthenticationSpec, Resource, destination_rule::PolicyBlocks, export_to::ExportTo,
    },
    AUTHENTICATION, AUTHORIZATION, NETWORK, SERVER, StandIn,
};
use crate::problem::DocumentName;

/// Whom a policy that cannot be used may be for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Whom {
    /// Nobody knows: every workload of its namespace, and every gateway of its namespace, wherever that runs.
    Anybody,
    /// The workloads of its namespace with these labels.
    Labelled(BTreeMap<String, String>),
    /// Those that are behind these Services of its namespace, or are one of these Gateways.
    Named { services: Vec<String>, gateways: Vec<String> },
    /// Every gateway of its namespace.
    AnyGateway,
}

impl Whom {
    /// The same as a policy of Istio's has it: its selector, whether it may be for each, and the Services and Gateways that
    /// it names.
    fn fields(self) -> (BTreeMap<String, String>, bool, Option<Vec<String>>, Vec<String>) {
        match self {
            Self::Anybody => (BTreeMap::new(), true, None, Vec::new()),
            Self::Labelled(labels) => (labels, false, None, Vec::new()),
            Self::Named { services, gateways } => (BTreeMap::new(), false, Some(services), gateways),
            Self::AnyGateway => (BTreeMap::new(), true, Some(Vec::new()), Vec::new()),
        }
    }
}

/// The strictest policy of the kind that `name` says, for `whom`.
pub(super) fn strict(name: DocumentName, location: &Location, whom: Whom) -> StandIn {
    if &*name.kind == NETWORK {
        return strict_network(name, location, None);
    }
    if is_calico(&name.kind) {
        return strict_calico(name, location, None);
    }
    if &*name.kind == AUTHENTICATION {
        return strict_tokens(name, location, whom);
    }
    let (reach, accepts) = match (&*name.namespace, &whom) {
        ("", Whom::AnyGateway) => ("every gateway of the mesh".to_owned(), "accepts"),
        ("", _) => ("every workload of the mesh".to_owned(), "accepts"),
        (namespace, Whom::Labelled(selector)) if !selector.is_empty() => {
            (format!("the workloads of namespace {namespace} that it selects"), "accept")
        }
        (namespace, Whom::Named { .. }) => (format!("what it names in namespace {namespace}"), "accepts"),
        (namespace, Whom::AnyGateway) => (format!("every gateway of namespace {namespace}"), "accepts"),
        (namespace, _) => (format!("every workload of namespace {namespace}"), "accepts"),
    };
    let (selector, any_workload, services, gateways) = whom.fields();
    if matches!(&*name.kind, AUTHORIZATION | SERVER) {
        let spec = AuthorizationPolicySpec {
            any_workload,
            selector,
            services,
            gateways,
            action: AuthorizationAction::Deny,
            dry_run: false,
            rules: Vec::new(),
        };
        let document = Document::standing_in(name, Metadata::default(), location.clone(), spec);
        return StandIn {
            resource: Resource::AuthorizationPolicy(Arc::new(document)),
            words: format!(
                "until it is repaired, {reach} {accepts} nothing (read as a policy that denies everything)"
            ),
        };
    }
    let spec = PeerAuthenticationSpec {
        any_workload,
        selector,
        mode: Some(MtlsMode::Strict),
        ports: BTreeMap::new(),
    };
    let document = Document::standing_in(name, Metadata::default(), location.clone(), spec);
    StandIn {
        resource: Resource::PeerAuthentication(Arc::new(document)),
        words: format!(
            "until it is repaired, {reach} {accepts} mutual TLS only, at every port (read as STRICT)"
        ),
    }
}

/// A `NetworkPolicy` that refuses everything, in both directions, for the workloads that `pods` selects; `None`: for
/// whichever it may select.
pub(super) fn strict_network(
    name: DocumentName,
    location: &Location,
    pods: Option<LabelSelector>,
) -> StandIn {
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
    let document = Document::standing_in(name, metadata, location, spec);
    StandIn {
        resource: Resource::NetworkPolicy(Arc::new(document)),
        words: format!(
            "until it is repaired, {reach} accepts nothing and calls nobody (read as a policy that denies everything)"
        ),
    }
}

/// Whether documents called `kind` are policies of Calico's.
pub(super) fn is_calico(kind: &str) -> bool {
    kind.starts_with("GlobalNetworkPolicy") || (kind.starts_with(NETWORK) && kind != NETWORK)
}

/// A policy of Calico's that refuses everything, in both directions, for the workloads that `known` is for; `None`: for
/// whichever it may be for.
pub(super) fn strict_calico(
    name: DocumentName,
    location: &Location,
    known: Option<&CalicoPolicySpec>,
) -> StandIn {
    let reach = match &*name.namespace {
        "" => "every workload of the mesh that it may select".to_owned(),
        namespace => format!("every workload of namespace {namespace} that it may select"),
    };
    let spec = CalicoPolicySpec {
        selector: known.map_or(Expression::All, |known| known.selector.clone()),
        any_workload: known.is_none(),
        namespaces: known.and_then(|known| known.namespaces.clone()),
        accounts: known.and_then(|known| known.accounts.clone()),
        tier: DEFAULT_TIER.to_owned(),
        order: None,
        ingress: Some(Vec::new()),
        egress: Some(Vec::new()),
        is_without_effect: false,
    };
    let (metadata, location) = (Metadata::default(), location.clone());
    let document = Document::standing_in(name, metadata, location, spec);
    StandIn {
        resource: Resource::CalicoPolicy(Arc::new(document)),
        words: format!(
            "until it is repaired, {reach} accepts nothing and calls nobody (read as a policy that denies everything)"
        ),
    }
}

/// A `RequestAuthentication` that accepts no token, for `whom`.
pub(super) fn strict_tokens(name: DocumentName, location: &Location, whom: Whom) -> StandIn {
    let (selector, any_workload, services, gateways) = whom.fields();
    let spec = RequestAuthenticationSpec { selector, any_workload, services, gateways, rules: Vec::new() };
    let (metadata, location) = (Metadata::default(), location.clone());
    let document = Document::standing_in(name, metadata, location, spec);
    StandIn {
        resource: Resource::RequestAuthentication(Arc::new(document)),
        words: "until it is repaired, the workloads that it may select accept no token by it, and answer 401 to a request \
                with one"
            .to_owned(),
    }
}

/// `stand_in`, which looks for tokens also where `left`, which can be read of the document, does.
pub(super) fn with_places_of(left: Option<&Resource>, mut stand_in: StandIn) -> StandIn {
    if let (Some(Resource::RequestAuthentication(left)), Resource::RequestAuthentication(document)) =
        (left, &mut stand_in.resource)
    {
        Arc::make_mut(document).spec.rules.clone_from(&left.spec.rules);
    }
    stand_in
}

/// Refuses every call to `host`. `selector`: those of the clients in its namespace alone that have these labels.
pub(super) fn refused_host(
    name: DocumentName,
    location: &Location,
    host: String,
    selector: Option<BTreeMap<String, String>>,
) -> StandIn {
    let words = format!(
        "calls to {host} are refused until it is repaired, because it has TLS settings for that host"
    );
    let spec = DestinationRuleSpec {
        export_to: if selector.is_some() { ExportTo::own() } else { ExportTo::default() },
        selector,
        host,
        policy: PolicyBlocks::default(),
        subsets: Vec::new(),
        health_check: None,
        hedge: None,
    };
    let document = Document::standing_in(name, Metadata::default(), location.clone(), spec);
    StandIn { resource: Resource::DestinationRule(Arc::new(document)), words }
}
