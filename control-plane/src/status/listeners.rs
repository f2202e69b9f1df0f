//! What the status of a `Gateway` or `ListenerSet` says of its listeners. Pure.
//!
//! The conditions and reasons are those of
//! <https://gateway-api.sigs.k8s.io/reference/spec/#listenerconditiontype> and of the types below it there.

use serde_json::{Value, json};

use super::{
    conditions::{is_error, said},
    gateways::{Said, all_dated},
};
use crate::{
    compile::Overlap,
    problem::{Fault, ListenerFault, Problem},
    resources::gateway::{FrontendClients, GATEWAY_GROUP, ListenerSpec},
};

/// The condition of a listener whose TLS overlaps with that of another. It is there only where that is so.
pub(super) const OVERLAPPING: &str = "OverlappingTLSConfig";

fn overlapping(overlap: &Overlap) -> (&'static str, Said) {
    let Overlap { of_certificates, names: (own, other), with } = overlap;
    let (reason, what) = match of_certificates {
        true => ("OverlappingCertificates", "its certificate is for"),
        false => ("OverlappingHostnames", "its hostname is"),
    };
    let message = format!(
        "{what} {own}, and that of {with} {other}: a request for one that comes on a connection to the other is answered 421"
    );
    (OVERLAPPING, (true, reason, message))
}

/// What is known of the listeners of one document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listeners<'a> {
    pub(super) specs: &'a [ListenerSpec],
    /// What is wrong with their document.
    pub(super) problems: &'a [&'a Problem],
    /// Whom they ask for a certificate where they do not say it themselves, and what is wrong with the document of that.
    pub(super) clients: (&'a FrontendClients, &'a [&'a Problem]),
}

/// What is to be said of a listener: reasons with messages.
pub(super) struct Judged {
    conflicted: Option<Reason>,
    /// Why not it, but what it is to do cannot be.
    refused: Option<Reason>,
    unresolved: Option<Reason>,
    /// What is wrong with it and does no harm to the whole.
    remarks: String,
}

type Reason = (&'static str, String);

impl Listeners<'_> {
    pub(super) fn judged(self) -> Vec<Judged> {
        self.specs.iter().map(|listener| self.judge(listener)).collect()
    }

    fn judge(self, listener: &ListenerSpec) -> Judged {
        let field = format!("spec.listeners[{}]", listener.index);
        let own: Vec<&Problem> = below(self.problems, &field);
        let mut faults = own.clone();
        if listener.ends_tls()
            && listener.tls.clients.is_none()
            && let Some(clients) = self.clients.0.at(listener.port)
        {
            faults.extend(below(self.clients.1, &clients.field));
        }
        let reason_of = |reason: fn(ListenerFault) -> Option<&'static str>| {
            let those: Vec<(&'static str, &Problem)> = faults
                .iter()
                .filter_map(|problem| match problem.fault {
                    Fault::Listener(why) if is_error(problem) => Some((reason(why)?, *problem)),
                    _ => None,
                })
                .collect();
            let (first, _) = those.first()?;
            Some((*first, said(those.iter().map(|(_, problem)| *problem))))
        };
        let kinds = || unsupported_kinds(listener).map(|message| ("InvalidRouteKinds", message));
        Judged {
            conflicted: reason_of(conflict),
            refused: reason_of(refusal),
            unresolved: reason_of(unresolved).or_else(kinds),
            remarks: said(own.into_iter().filter(|problem| !is_error(problem))),
        }
    }

    /// `status.listeners`: how many routes each has, and what was judged of each.
    pub(super) fn statuses(
        self,
        judged: &[Judged],
        (attached, overlaps): (&[usize], &[Option<Overlap>]),
        with_ports: bool,
        is_programmed: bool,
        dating: Dating<'_>,
    ) -> Vec<Value> {
        let status = |(index, (listener, judged)): (usize, (&ListenerSpec, &Judged))| {
            let before = dating.existing["listeners"].as_array().into_iter().flatten();
            let before = before.clone().find(|before| before["name"] == listener.name.as_str());
            let before = before.map_or(&Value::Null, |before| &before["conditions"]);
            let mut conditions = judged.conditions(is_programmed);
            conditions.extend(overlaps.get(index).and_then(Option::as_ref).map(overlapping));
            let mut status = json!({
                "name": listener.name,
                "supportedKinds": supported(listener),
                "attachedRoutes": attached.get(index).copied().unwrap_or_default(),
                "conditions": all_dated(conditions, dating.generation, before, dating.now),
            });
            if with_ports {
                status["port"] = listener.port.into();
            }
            status
        };
        self.specs.iter().zip(judged).enumerate().map(status).collect()
    }

    /// How many are valid, and which are not, for the condition of their document; `None`: all are.
    pub(super) fn not_valid(self, judged: &[Judged]) -> Option<(usize, String)> {
        let invalid: Vec<String> = self
            .specs
            .iter()
            .zip(judged)
            .filter_map(|(listener, judged)| Some(format!("{} ({})", listener.name, judged.why_not_valid()?)))
            .collect();
        let (all, valid) = (judged.len(), judged.len() - invalid.len());
        let message = format!("{valid} of {all} listeners are valid; not served: {}", invalid.join(", "));
        (!invalid.is_empty()).then_some((valid, message))
    }
}

/// When a status is written, and what it says before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dating<'a> {
    pub(super) generation: i64,
    pub(super) existing: &'a Value,
    pub(super) now: &'a str,
}

/// Of `problems`, those about `field` and what is below it.
fn below<'p>(problems: &[&'p Problem], field: &str) -> Vec<&'p Problem> {
    let is_below = |problem: &&Problem| {
        let rest = problem.field.strip_prefix(field);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    problems.iter().copied().filter(is_below).collect()
}

fn conflict(why: ListenerFault) -> Option<&'static str> {
    match why {
        ListenerFault::SameHostname => Some("HostnameConflict"),
        ListenerFault::OtherProtocol => Some("ProtocolConflict"),
        _ => None,
    }
}

fn refusal(why: ListenerFault) -> Option<&'static str> {
    match why {
        ListenerFault::UnsupportedProtocol => Some("UnsupportedProtocol"),
        ListenerFault::NoAuthority => Some("NoValidCACertificate"),
        _ => None,
    }
}

fn unresolved(why: ListenerFault) -> Option<&'static str> {
    match why {
        ListenerFault::Certificate => Some("InvalidCertificateRef"),
        ListenerFault::NotPermitted => Some("RefNotPermitted"),
        ListenerFault::AuthorityKind => Some("InvalidCACertificateKind"),
        ListenerFault::Authority => Some("InvalidCACertificateRef"),
        _ => None,
    }
}

impl Judged {
    /// The reason why it is not served; `None`: it is.
    fn why_not_valid(&self) -> Option<&'static str> {
        // One whose listed kinds are not all known serves the others.
        let unresolved = self.unresolved.iter().filter(|(reason, _)| *reason != "InvalidRouteKinds");
        let mut all = self.conflicted.iter().chain(&self.refused).chain(unresolved);
        all.next().map(|(reason, _)| *reason)
    }

    fn conditions(&self, is_programmed: bool) -> Vec<(&'static str, Said)> {
        let remarks = if self.remarks.is_empty() { "in use".to_owned() } else { self.remarks.clone() };
        let (conflicted, accepted) = match &self.conflicted {
            Some((reason, message)) => {
                ((true, *reason, message.clone()), Some((false, "Invalid", message.clone())))
            }
            None => ((false, "NoConflicts", "no other listener excludes it".to_owned()), None),
        };
        let not_so = |(reason, message): Reason| (false, reason, message);
        let accepted = self.refused.clone().map(not_so).or(accepted);
        let resolved = || (true, "ResolvedRefs", "everything that it names exists".to_owned());
        let programmed = match (self.why_not_valid(), is_programmed) {
            (None, true) => (true, "Programmed", "it is served".to_owned()),
            (None, false) => (false, "Pending", "its gateway is not programmed".to_owned()),
            (Some(_), _) => (false, "Invalid", "it is not served; see the other conditions".to_owned()),
        };
        vec![
            ("Accepted", accepted.unwrap_or((true, "Accepted", remarks))),
            ("Conflicted", conflicted),
            ("Programmed", programmed),
            ("ResolvedRefs", self.unresolved.clone().map(not_so).unwrap_or_else(resolved)),
        ]
    }
}

/// `supportedKinds`: those that fit its protocol, and that it lists if it lists any.
fn supported(listener: &ListenerSpec) -> Vec<Value> {
    let fitting = listener.protocol.route_kinds().iter().filter(|kind| {
        let listed = listener.allowed.kinds.as_ref();
        listed.is_none_or(|listed| listed.iter().any(|one| one.is(kind)))
    });
    fitting.map(|kind| json!({ "group": GATEWAY_GROUP, "kind": kind })).collect()
}

/// The kinds that it lists and that do not fit its protocol.
fn unsupported_kinds(listener: &ListenerSpec) -> Option<String> {
    let fitting = listener.protocol.route_kinds();
    let listed = listener.allowed.kinds.iter().flatten();
    let others: Vec<&str> =
        listed.filter(|one| !fitting.iter().any(|kind| one.is(kind))).map(|one| one.kind.as_str()).collect();
    let message = || format!("{} cannot be attached to a listener of this protocol", others.join(", "));
    (!others.is_empty()).then(message)
}
