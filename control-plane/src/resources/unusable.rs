//! A document that cannot be used is replaced by the strictest document that it could have been.
//!
//! Leaving the document out would open what it protects. A policy is read as if it refused everything that its kind can
//! refuse, for every workload that it may be for. A workload or a service keeps its name and its addresses, so that
//! nothing is sent there in plaintext as to an unknown destination. The part that can be read limits this: fields that
//! cannot be read are removed one after the other, until the rest is a valid document.

mod backend_tls;
mod document;
mod route;
mod strict;
mod text;

use std::{path::Path, sync::Arc};

pub use self::route::of_route;
use self::strict::{Whom, strict, strict_calico, strict_network};
pub(super) use self::text::of_text;
use super::{
    Location, Resource,
    decode::{meant, nearest_policy, read_kind},
    document::MetadataYaml,
    kinds::{self, GROUPS_OF_POLICIES},
    node::{Node, Value},
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
        None if holds_policy(node) => return Some(strict(unnamed(STRICTEST), location, Whom::Anybody)),
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
        let whom = this.spec.labels.clone().map_or(Whom::Anybody, Whom::Labelled);
        return (!same).then(|| strict(this.name.clone(), &this.location, whom));
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
    let whom = whom_of(resource)?;
    (!same).then(|| strict(resource.name().clone(), resource.location(), whom))
}

/// The stand-ins of a file or directory that cannot be read, which may hold policies of any kind: one of each. The first
/// says what they come to.
pub fn of_path(path: &Path) -> [StandIn; 3] {
    let location = Location { path: Some(Arc::from(path)), index: 0, line: 1, lines: None };
    [NETWORK, AUTHORIZATION, STRICTEST].map(|kind| strict(unnamed(kind), &location, Whom::Anybody))
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

/// Whom a policy that can be read is for; `None`: it is no policy, or says so in another way.
fn whom_of(resource: &Resource) -> Option<Whom> {
    let (selector, services, gateways) = match resource {
        Resource::PeerAuthentication(document) => (&document.spec.selector, None, &[][..]),
        Resource::AuthorizationPolicy(document) => {
            (&document.spec.selector, document.spec.services.as_ref(), &document.spec.gateways[..])
        }
        Resource::RequestAuthentication(document) => {
            (&document.spec.selector, document.spec.services.as_ref(), &document.spec.gateways[..])
        }
        Resource::Server(document) => return document.spec.labels.clone().map(Whom::Labelled),
        _ => return None,
    };
    Some(match services {
        None => Whom::Labelled(selector.clone()),
        Some(services) => Whom::Named { services: services.clone(), gateways: gateways.to_vec() },
    })
}
