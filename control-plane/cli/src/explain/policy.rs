//! What a proxy asks of its workload's policies, in the order in which it asks it.

use http::Request;
use selvedge_model::{ConnectionVerdict, InboundPolicy, Verdict, facts::Connection, policy::By};
use selvedge_proxy::{error::Reason, step::Error};

use super::ends::{Judgement, Outcome};

/// The rule of what policies of a kind say nothing of.
const NOTHING_SAID: &str = "nothing: none of them is about this";

/// What policies say of a connection.
#[derive(Debug)]
pub(super) enum Asked<'p> {
    /// This, of the request or of all requests.
    Final(Verdict<'p>),
    /// Only a request decides, and none is given.
    DependsOnRequest {
        /// The first rule that asks what only a request says.
        rule: &'p str,
    },
}

impl From<Asked<'_>> for Judgement {
    fn from(asked: Asked<'_>) -> Self {
        match asked {
            Asked::Final(verdict) => Self::of(verdict),
            Asked::DependsOnRequest { rule } => Self::by(Outcome::DependsOnTheRequest, rule),
        }
    }
}

/// What `policy` says of `connection`, and of `request` on it if there is one. `is_opaque`: it carries bytes that are not
/// looked at.
///
/// # Errors
/// If the request names no authority.
pub(super) fn ask<'p>(
    policy: &'p InboundPolicy,
    connection: &Connection<'_>,
    request: Option<&Request<()>>,
    is_opaque: bool,
) -> Result<Asked<'p>, Error> {
    if is_opaque {
        return Ok(Asked::Final(policy.authorize_opaque(connection)));
    }
    Ok(match (policy.authorize(connection), request) {
        (ConnectionVerdict::Final(verdict), _) if !policy.has_routes(connection.port) => {
            Asked::Final(verdict)
        }
        (_, Some(request)) => {
            Asked::Final(policy.authorize_request(&selvedge_proxy::facts::request(request, connection)?))
        }
        // Requests that no route of the server is for are answered, whoever sends them.
        (ConnectionVerdict::Final(denied @ Verdict::Deny { .. }), None) => Asked::Final(denied),
        (ConnectionVerdict::Final(Verdict::Allow { rule }), None)
        | (ConnectionVerdict::DependsOnRequest { rule }, None) => Asked::DependsOnRequest { rule },
    })
}

/// Each kind of policy that `policy` has beside mutual TLS, as if there were no other.
pub(super) fn kinds(policy: &InboundPolicy) -> Vec<(&'static str, InboundPolicy)> {
    let network = policy
        .network
        .is_some()
        .then(|| ("NetworkPolicy (ingress)", InboundPolicy { network: policy.network.clone(), ..open() }));
    let istio = policy.authorization.is_some().then(|| {
        ("AuthorizationPolicy", InboundPolicy { authorization: policy.authorization.clone(), ..open() })
    });
    let linkerd = policy
        .servers
        .is_some()
        .then(|| ("Linkerd's policies", InboundPolicy { servers: policy.servers.clone(), ..open() }));
    [network, istio, linkerd].into_iter().flatten().collect()
}

/// A policy that lets everything in.
pub(super) fn open() -> InboundPolicy {
    let mut open = InboundPolicy::default();
    open.default.name = NOTHING_SAID.into();
    open
}

/// The reason of refusal of what a policy of this kind refuses.
pub(super) fn reason(by: By) -> Reason {
    match by {
        By::Route => Reason::NoRoute,
        By::Mtls | By::Network | By::Authorization => Reason::Policy,
    }
}
