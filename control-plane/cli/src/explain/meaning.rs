//! What the name in a request means to its sender.

use std::sync::Arc;

use selvedge_control_plane::{inject::annotations, resources::Resources};
use selvedge_model::{
    Endpoint, Lookup, Mesh, Protocol, Service,
    service::OPAQUE_PORTS,
    snapshot::{self, Clients, ServiceViews},
};
use selvedge_proxy::{error::Reason, settings::OutboundTrafficPolicy};

use super::{caller::Caller, explanation::Answer};

/// What a name means.
#[derive(Debug)]
pub(super) enum Meaning<'m> {
    /// A port of a service.
    Service(&'m Arc<Service>),
    /// The address of a workload, or of another endpoint.
    Endpoint(Endpoint),
    /// Nothing that documents say.
    Nothing {
        /// What becomes of the request then.
        words: String,
        /// The answer, if it is not let out.
        answer: Option<Answer>,
    },
}

impl<'m> Meaning<'m> {
    pub(super) fn of(
        mesh: &'m Mesh,
        caller: &Caller,
        authority: &str,
        policy: OutboundTrafficPolicy,
    ) -> Self {
        match mesh.lookup(&caller.namespace, authority) {
            Lookup::Service(key) => match mesh.services.get(&key) {
                Some(views) => Self::Service(views.for_clients(&caller.clients)),
                None => Self::nothing(caller, authority, policy, ""),
            },
            Lookup::Address(address) => match address.endpoint {
                Some(endpoint) => Self::Endpoint(endpoint),
                None => Self::nothing(
                    caller,
                    authority,
                    policy,
                    "; unless DNS, which only the sidecar asks, says that a name in a document has this address",
                ),
            },
            Lookup::None => Self::nothing(caller, authority, policy, ""),
        }
    }

    fn nothing(caller: &Caller, authority: &str, policy: OutboundTrafficPolicy, unless: &str) -> Self {
        let what = format!("no document declares {authority}");
        if policy == OutboundTrafficPolicy::RegistryOnly {
            return Self::Nothing {
                words: format!(
                    "{what}: the outbound traffic policy registry-only does not let it out{unless}"
                ),
                answer: Some(Answer::failure(Reason::RegistryOnly, what)),
            };
        }
        let out = "by the outbound traffic policy allow-any it goes out in plaintext";
        let refused = snapshot::address(authority)
            .and_then(|address| caller.egress.permit(address, address, None).refusal())
            .map(|failure| Answer::failure(failure.reason, failure.what));
        Self::Nothing {
            words: format!("{what}: {out}, to the address that the name has{unless}"),
            answer: refused,
        }
    }

    /// In words, what `authority` is.
    pub(super) fn words(&self, mesh: &Mesh, caller: &Caller, authority: &str) -> String {
        match self {
            Self::Service(service) => {
                let view = mesh.services.get(&service.key).and_then(|views| seen_by(views, &caller.clients));
                let view =
                    view.map(|clients| format!(", as clients in {clients} see it")).unwrap_or_default();
                format!("{authority} is the service {}{view}; {}", service.key, spoken(service))
            }
            Self::Endpoint(endpoint) => match &endpoint.workload {
                Some(workload) => {
                    format!("{authority} is an address of the workload {workload}, which has no routes")
                }
                None => {
                    format!("{authority} is an endpoint of a service, which has no routes at its own address")
                }
            },
            Self::Nothing { words, .. } => words.clone(),
        }
    }
}

/// Who else sees a service as `clients` do, if not everybody does.
fn seen_by(views: &ServiceViews, clients: &Clients) -> Option<String> {
    match views.own_of(clients) {
        Some(_) => Some(clients.to_string()),
        None => {
            let namespace = &clients.namespace;
            views.by_namespace.contains_key(namespace).then(|| namespace.to_string())
        }
    }
}

/// Whether connections to `service` carry opaque bytes, so that rules for requests do not see them.
pub(super) fn is_opaque(service: &Service) -> bool {
    service.protocol.spoken(service.key.port, &OPAQUE_PORTS) == Protocol::Tcp
}

fn spoken(service: &Service) -> &'static str {
    match service.protocol.spoken(service.key.port, &OPAQUE_PORTS) {
        Protocol::Tcp => "its connections are opaque (TCP), so rules for requests do not see them",
        Protocol::Unspecified => {
            "it is not said what it speaks there, so it is told by the first bytes; this is HTTP"
        }
        Protocol::Http => "it speaks HTTP there",
        Protocol::Http2 => "it speaks HTTP/2 there",
    }
}

/// What the sidecar of `caller` does with what no document declares: as its pod's annotation says, or its namespace's.
pub(super) fn outbound_policy(resources: &Resources, caller: &Caller) -> OutboundTrafficPolicy {
    let key = format!("{}outbound-traffic-policy", annotations::PREFIX);
    let pod = caller.workload.as_ref().and_then(|workload| {
        resources.pods.iter().find(|pod| {
            *pod.name.namespace == *workload.name.namespace() && *pod.name.name == *workload.name.name()
        })
    });
    let namespace = resources.namespaces.iter().find(|one| *one.name.name == *caller.namespace);
    let said = pod.and_then(|pod| pod.metadata.annotations.get(&key));
    let said = said.or_else(|| namespace.and_then(|one| one.metadata.annotations.get(&key)));
    match said.map(String::as_str) {
        Some("registry-only") => OutboundTrafficPolicy::RegistryOnly,
        _ => OutboundTrafficPolicy::AllowAny,
    }
}
