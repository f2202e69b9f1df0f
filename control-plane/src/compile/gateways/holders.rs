//! The documents that have listeners: `Gateway`s, and the `ListenerSet`s that add listeners to them.
//!
//! The listeners of a gateway are its own, and then those of its `ListenerSet`s, oldest first
//! (<https://gateway-api.sigs.k8s.io/geps/gep-1713/>).

use std::collections::{BTreeMap, HashMap};

use super::super::{Problems, certificates::Remark, network::NamespaceLabels};
use crate::{
    problem::{Detached, DocumentName, Fault, ListenerFault, Problem, Severity},
    resources::{
        Document, GatewaySpec, ListenerSetSpec, Resources,
        gateway::{FromNamespaces, ListenerSpec},
    },
};

/// A document that has listeners.
#[derive(Debug, Clone, Copy)]
pub(super) enum Holder<'a> {
    Gateway(&'a Document<GatewaySpec>),
    Set(&'a Document<ListenerSetSpec>),
}

impl<'a> Holder<'a> {
    pub(super) fn name(self) -> &'a DocumentName {
        match self {
            Self::Gateway(gateway) => &gateway.name,
            Self::Set(set) => &set.name,
        }
    }

    pub(super) fn listeners(self) -> &'a [ListenerSpec] {
        match self {
            Self::Gateway(gateway) => &gateway.spec.listeners,
            Self::Set(set) => &set.spec.listeners,
        }
    }

    /// An error about a listener, at `field`.
    pub(super) fn error(self, field: &str, message: impl Into<String>, why: ListenerFault) -> Problem {
        let problem = match self {
            Self::Gateway(gateway) => gateway.problem(Severity::Error, field, message),
            Self::Set(set) => set.problem(Severity::Error, field, message),
        };
        Problem { fault: Fault::Listener(why), ..problem }
    }

    /// Tells what is to be done about something that a listener names at `field`, and that is in use.
    pub(super) fn tell(self, field: &str, remark: Remark, problems: &mut Problems) {
        match self {
            Self::Gateway(gateway) => remark.report(gateway, field, problems),
            Self::Set(set) => remark.report(set, field, problems),
        }
    }

    /// What tells virtual hosts of its listeners from those of others at the gateway `namespace/name`.
    pub(super) fn key(self, namespace: &str, name: &str, listener: &str) -> String {
        match self {
            Self::Gateway(_) => format!("{namespace}/{name}/{listener}"),
            Self::Set(set) => {
                let DocumentName { kind, namespace: of, name: set } = &set.name;
                format!("{namespace}/{name}/{kind}/{of}/{set}/{listener}")
            }
        }
    }
}

/// The namespace and the name of a `Gateway`.
pub(super) type GatewayName<'a> = (&'a str, &'a str);

/// Whether a document has a part in a gateway of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing<'a> {
    /// It is the one of this place among the holders of this gateway.
    Ours(GatewayName<'a>, usize),
    /// It would be, but this gateway does not allow it.
    NotAllowed(GatewayName<'a>),
    /// It is others', or nobody's.
    Others,
}

/// Every document that has listeners.
#[derive(Debug)]
pub(super) struct Holders<'a> {
    /// The gateways that are ours: each itself, and then its `ListenerSet`s.
    pub(super) gateways: BTreeMap<GatewayName<'a>, Vec<Holder<'a>>>,
    by_name: HashMap<(&'a str, &'a str, &'a str), Standing<'a>>,
}

impl<'a> Holders<'a> {
    pub(super) fn new(
        resources: &'a Resources,
        namespaces: &NamespaceLabels<'a>,
        problems: &mut Problems,
    ) -> Self {
        let mut holders = Self { gateways: BTreeMap::new(), by_name: HashMap::new() };
        for gateway in &resources.gateways {
            let gateway: &'a Document<GatewaySpec> = gateway;
            let name = (&*gateway.name.namespace, &*gateway.name.name);
            let is_ours = is_ours(resources, gateway);
            let standing = if is_ours { Standing::Ours(name, 0) } else { Standing::Others };
            holders.by_name.insert(("Gateway", name.0, name.1), standing);
            if is_ours {
                holders.gateways.insert(name, vec![Holder::Gateway(gateway)]);
            }
        }
        for set in &resources.listener_sets {
            holders.add_set(set, namespaces, problems);
        }
        holders
    }

    /// The document of this kind, namespace and name; `None`: there is none.
    pub(super) fn find(&self, kind: &str, namespace: &str, name: &str) -> Option<Standing<'a>> {
        self.by_name.get(&(kind, namespace, name)).copied()
    }

    /// All of them that have a part in a gateway of ours, or ask for one, each with that gateway.
    pub(super) fn asking(
        &self,
    ) -> impl Iterator<Item = ((&'a str, &'a str, &'a str), Standing<'a>)> + use<'_, 'a> {
        self.by_name.iter().map(|(name, standing)| (*name, *standing))
    }

    fn add_set(
        &mut self,
        set: &'a Document<ListenerSetSpec>,
        namespaces: &NamespaceLabels<'a>,
        problems: &mut Problems,
    ) {
        let namespace = set.spec.namespace.as_deref().unwrap_or(&set.name.namespace);
        let gateway = (namespace, set.spec.gateway.as_str());
        let standing = match self.gateways.get_mut(&gateway) {
            None => {
                if self.find("Gateway", gateway.0, gateway.1).is_none() {
                    let message = format!(
                        "there is no Gateway {namespace}/{}; add it or correct the name",
                        set.spec.gateway
                    );
                    problems.fault(set, "spec.parentRef", message, not_taken(Detached::NoSuchParent));
                }
                Standing::Others
            }
            Some(holders) => match allows(&holders[0], set, namespaces) {
                Ok(()) => {
                    holders.push(Holder::Set(set));
                    Standing::Ours(gateway, holders.len() - 1)
                }
                Err(message) => {
                    problems.fault(set, "spec.parentRef", message, not_taken(Detached::NotAllowed));
                    Standing::NotAllowed(gateway)
                }
            },
        };
        self.by_name.insert((&set.name.kind, &set.name.namespace, &set.name.name), standing);
    }
}

fn not_taken(why: Detached) -> Fault {
    Fault::Parent { index: 0, why }
}

/// Whether `gateway` takes listeners of `set`; otherwise why not.
fn allows(
    gateway: &Holder<'_>,
    set: &Document<ListenerSetSpec>,
    namespaces: &NamespaceLabels<'_>,
) -> Result<(), String> {
    let Holder::Gateway(gateway) = gateway else { return Ok(()) };
    let namespace = &set.name.namespace;
    let is_allowed = match &gateway.spec.allowed_sets {
        FromNamespaces::Same => gateway.name.namespace == *namespace,
        FromNamespaces::All => true,
        FromNamespaces::None => false,
        FromNamespaces::Selected(selector) => namespaces.are_selected(namespace, selector),
    };
    let message = || {
        format!(
            "{} takes no listeners of the namespace {namespace}; change its spec.allowedListeners.namespaces",
            gateway.name
        )
    };
    is_allowed.then_some(()).ok_or_else(message)
}

/// Whether `gateway` is ours: in a directory all are, in a cluster those of our classes.
pub(super) fn is_ours(resources: &Resources, gateway: &Document<GatewaySpec>) -> bool {
    let mut classes = resources.gateway_classes.iter();
    gateway.location.path.is_some()
        || classes.any(|class| *class.name.name == *gateway.spec.class && class.spec.is_ours())
}
