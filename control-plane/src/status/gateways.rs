//! The status of a `GatewayClass`, of a `Gateway` and of a `ListenerSet` of the Gateway API. Pure.
//!
//! The conditions and reasons are those of <https://gateway-api.sigs.k8s.io/reference/spec/#gatewayconditiontype> and of the
//! types below it there.

use serde_json::{Value, json};

use super::{
    conditions::{condition, dated, is_error, said},
    features::FEATURES,
    listeners::{Dating, Judged, Listeners, OVERLAPPING},
};
use crate::{
    compile::Overlap,
    problem::{Detached, Fault, Problem},
    resources::{GatewaySpec, ListenerSetSpec},
};

/// The condition of a `Gateway` that serves clients without a certificate although it asks for one.
const INSECURE: &str = "InsecureFrontendValidationMode";

/// The condition of a `Gateway` that names a certificate for backends.
const RESOLVED: &str = "ResolvedRefs";

/// How a gateway runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Run {
    /// Why it does not run as it is wanted.
    pub(crate) hindrance: Option<Hindrance>,
    /// Whether a pod of it is there for clients.
    pub(crate) is_available: bool,
    /// Where clients find it, as `status.addresses` has it.
    pub(crate) addresses: Vec<Value>,
    /// Where its Service says that clients find it, as `status.loadBalancer.ingress` has it.
    pub(crate) ingress: Vec<Value>,
}

/// Why a gateway does not run as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hindrance {
    /// Whether it cannot be as it is written: then it is not accepted.
    pub(crate) is_refusal: bool,
    /// The reason of the condition.
    pub(crate) reason: &'static str,
    /// What is wrong, and what to change.
    pub(crate) message: String,
}

/// A `Gateway`, and what is known of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GatewayFacts<'a> {
    pub(crate) spec: &'a GatewaySpec,
    pub(crate) generation: i64,
    /// What is wrong with it.
    pub(crate) problems: &'a [&'a Problem],
    /// How many routes each of its listeners has.
    pub(crate) attached: &'a [usize],
    /// What the TLS of each overlaps with.
    pub(crate) overlaps: &'a [Option<Overlap>],
    /// How many `ListenerSet`s are accepted.
    pub(crate) sets: usize,
    pub(crate) run: &'a Run,
}

/// A condition, before it is dated: its status, reason and message.
pub(super) type Said = (bool, &'static str, String);

impl GatewayFacts<'_> {
    /// The status that it should have where it has `existing`; `now` as RFC 3339 writes it.
    pub(crate) fn status(&self, existing: &Value, now: &str) -> Value {
        let dating = Dating { generation: self.generation, existing, now };
        let listeners = self.listeners();
        let judged = listeners.judged();
        let (accepted, programmed) = self.conditions(&judged);
        let listeners =
            listeners.statuses(&judged, (self.attached, self.overlaps), false, programmed.0, dating);
        let mut conditions = vec![("Accepted", accepted), ("Programmed", programmed)];
        conditions.extend(self.resolved().map(|said| (RESOLVED, said)));
        if self.spec.clients.is_any_optional() {
            let message = "a client without a certificate is served (AllowInsecureFallback)".to_owned();
            conditions.push((INSECURE, (true, "ConfigurationChanged", message)));
        }
        let conditions = all_dated(conditions, self.generation, &existing["conditions"], now);
        let mut status = json!({
            "addresses": self.run.addresses,
            "conditions": conditions,
            "listeners": listeners,
        });
        // Older definitions of the kind have no such field.
        if self.sets > 0 || !existing["attachedListenerSets"].is_null() {
            status["attachedListenerSets"] = self.sets.into();
        }
        status
    }

    /// Whether what it shows to backends can be shown; `None`: it names nothing.
    fn resolved(&self) -> Option<Said> {
        self.spec.to_backends.as_ref()?;
        let first = self.problems.iter().find_map(|problem| match problem.fault {
            Fault::ToBackends { is_permitted } => Some((problem, is_permitted)),
            _ => None,
        });
        Some(match first {
            None => (true, RESOLVED, "its certificate is shown to backends that ask for one".to_owned()),
            Some((problem, is_permitted)) => {
                let reason = if is_permitted { "InvalidClientCertificateRef" } else { "RefNotPermitted" };
                (false, reason, said([*problem].into_iter()))
            }
        })
    }

    /// Whether it is accepted, and whether it is programmed.
    pub(crate) fn outcome(&self) -> (bool, bool) {
        let (accepted, programmed) = self.conditions(&self.listeners().judged());
        (accepted.0, programmed.0)
    }

    fn listeners(&self) -> Listeners<'_> {
        let clients = (&self.spec.clients, self.problems);
        Listeners { specs: &self.spec.listeners, problems: self.problems, clients }
    }

    /// `Accepted` and `Programmed` of the whole.
    fn conditions(&self, judged: &[Judged]) -> (Said, Said) {
        let accepted = match (&self.run.hindrance, unusable(self.problems)) {
            (Some(hindrance), _) if hindrance.is_refusal => {
                (false, hindrance.reason, hindrance.message.clone())
            }
            (_, Some(why)) => (false, "Invalid", why),
            _ => by_listeners(self.listeners(), judged),
        };
        let programmed = match &self.run.hindrance {
            _ if !accepted.0 => (false, "Invalid", "it is not accepted".to_owned()),
            Some(hindrance) => (false, hindrance.reason, hindrance.message.clone()),
            None if self.run.addresses.is_empty() => {
                (false, "AddressNotAssigned", "its Service has no address yet".to_owned())
            }
            None if !self.run.is_available => (false, "Pending", "no pod of it is ready yet".to_owned()),
            None => (true, "Programmed", "it is served".to_owned()),
        };
        (accepted, programmed)
    }
}

/// Why nothing of a document can be used.
fn unusable(problems: &[&Problem]) -> Option<String> {
    let is_whole = |problem: &&&Problem| is_error(problem) && problem.fault == Fault::Unusable;
    let first = problems.iter().find(is_whole)?;
    Some(said([*first].into_iter()))
}

/// `Accepted` of a document of which nothing but its listeners can be wrong.
fn by_listeners(listeners: Listeners<'_>, judged: &[Judged]) -> Said {
    match listeners.not_valid(judged) {
        Some((valid, message)) => (valid > 0, "ListenersNotValid", message),
        None => (true, "Accepted", "in use".to_owned()),
    }
}

/// A `ListenerSet`, and what is known of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SetFacts<'a> {
    pub(crate) spec: &'a ListenerSetSpec,
    pub(crate) generation: i64,
    /// What is wrong with it.
    pub(crate) problems: &'a [&'a Problem],
    /// How many routes each of its listeners has. `None`: its gateway does not allow it.
    pub(crate) attached: Option<&'a [usize]>,
    /// What the TLS of each overlaps with.
    pub(crate) overlaps: &'a [Option<Overlap>],
    /// Its gateway.
    pub(crate) gateway: GatewayFacts<'a>,
}

impl SetFacts<'_> {
    /// The status that it should have where it has `existing`; with the ports of its listeners if its version has them.
    pub(crate) fn status(&self, with_ports: bool, existing: &Value, now: &str) -> Value {
        let dating = Dating { generation: self.generation, existing, now };
        let listeners = self.listeners();
        let judged = listeners.judged();
        let (accepted, programmed) = self.conditions(&judged);
        let listeners = self.attached.map_or_else(Vec::new, |attached| {
            listeners.statuses(&judged, (attached, self.overlaps), with_ports, programmed.0, dating)
        });
        let conditions = vec![("Accepted", accepted), ("Programmed", programmed)];
        let conditions = all_dated(conditions, self.generation, &existing["conditions"], now);
        json!({ "conditions": conditions, "listeners": listeners })
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.conditions(&self.listeners().judged()).0.0
    }

    fn listeners(&self) -> Listeners<'_> {
        let clients = (&self.gateway.spec.clients, self.gateway.problems);
        Listeners { specs: &self.spec.listeners, problems: self.problems, clients }
    }

    fn conditions(&self, judged: &[Judged]) -> (Said, Said) {
        let not_allowed = self.problems.iter().copied().filter(|problem| {
            matches!(problem.fault, Fault::Parent { why: Detached::NotAllowed, .. }) && is_error(problem)
        });
        let (is_accepted, is_programmed) = self.gateway.outcome();
        let accepted = match unusable(self.problems) {
            _ if self.attached.is_none() => (false, "NotAllowed", said(not_allowed)),
            Some(why) => (false, "Invalid", why),
            None if !is_accepted => (false, "ParentNotAccepted", "its Gateway is not accepted".to_owned()),
            None => by_listeners(self.listeners(), judged),
        };
        let programmed = match accepted.0 {
            false => (false, accepted.1, accepted.2.clone()),
            true if is_programmed => (true, "Programmed", "it is served".to_owned()),
            true => (false, "ParentNotProgrammed", "its Gateway is not programmed".to_owned()),
        };
        (accepted, programmed)
    }
}

/// The annotation that says which version of the Gateway API a definition is of.
pub(crate) const BUNDLE_VERSION: &str = "gateway.networking.k8s.io/bundle-version";

/// Whether the definitions of the Gateway API in the cluster, of which the annotation says this version, are those that are
/// acted on: of version 1, whose kinds stay as they are.
fn supported(version: Option<&str>) -> Said {
    let is_supported = |version: &str| {
        let mut numbers = version.strip_prefix('v').unwrap_or_default().split('.');
        let minor = (numbers.next(), numbers.next());
        matches!(minor, (Some("1"), Some(minor)) if minor.parse::<u16>().is_ok())
    };
    match version {
        Some(version) if is_supported(version) => {
            (true, "SupportedVersion", format!("the cluster has the Gateway API {version}"))
        }
        Some(version) => {
            let message = format!(
                "the cluster has the Gateway API {version}, and v1.0.0 and later of version 1 is acted on; what is read of \
                 it is acted on all the same"
            );
            (false, "UnsupportedVersion", message)
        }
        None => {
            let message = format!(
                "the definition of GatewayClass does not say its version ({BUNDLE_VERSION}); apply one of the releases of \
                 the Gateway API"
            );
            (false, "UnsupportedVersion", message)
        }
    }
}

/// The status of a class of ours, where the definitions in the cluster have this version. `None`: nobody knows; `Some(None)`:
/// they do not say.
pub(crate) fn class_status(
    generation: i64,
    version: Option<Option<&str>>,
    existing: &Value,
    now: &str,
) -> Value {
    let accepted = (true, "Accepted", "a Deployment is made for each of its Gateways".to_owned());
    let supported = version.map(|version| ("SupportedVersion", supported(version)));
    let all = [("Accepted", accepted)].into_iter().chain(supported).collect();
    let conditions = all_dated(all, generation, &existing["conditions"], now);
    let features: Vec<Value> = FEATURES.iter().map(|feature| json!({ "name": feature })).collect();
    json!({ "conditions": conditions, "supportedFeatures": features })
}

pub(super) fn all_dated(
    conditions: Vec<(&'static str, Said)>,
    generation: i64,
    before: &Value,
    now: &str,
) -> Vec<Value> {
    let dated = |(kind, (is_so, reason, message)): (&str, Said)| {
        let mut new = condition(kind, if is_so { "True" } else { "False" }, reason, &message);
        new["observedGeneration"] = generation.into();
        let old = before.as_array().and_then(|list| list.iter().find(|old| old["type"] == kind));
        dated(new, old, now)
    };
    let ours: Vec<&str> = conditions.iter().map(|(kind, _)| *kind).collect();
    let mut all: Vec<Value> = conditions.into_iter().map(dated).collect();
    // What other controllers say there stays.
    let before = before.as_array().into_iter().flatten();
    let is_ours = |one: &&Value| {
        [INSECURE, RESOLVED, OVERLAPPING].iter().any(|kind| one["type"] == *kind)
            || ours.iter().any(|kind| one["type"] == *kind)
    };
    all.extend(before.filter(|one| !is_ours(one)).cloned());
    all
}

#[cfg(test)]
mod tests;
