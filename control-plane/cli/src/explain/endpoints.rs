//! A backend's endpoints: how each is called, and what its own sidecar says of the request.

use http::Request;
use selvedge_model::{
    Backend, Endpoint, Endpoints, Mesh, SpiffeId, Transport, Verdict, Workload,
    facts::{self, Connection, Source},
    limit::Asker,
    policy::By,
};
use selvedge_proxy::{error::Reason, normalize::settle};

use super::{
    caller::{Caller, revoked},
    explanation::{Answer, EndpointView},
    places::Arranged,
    policy::{self, Asked},
    token,
};

/// What is asked of endpoints.
pub(super) struct Judge<'a> {
    pub(super) mesh: &'a Mesh,
    pub(super) caller: &'a Caller,
    /// The request as they get it.
    pub(super) request: &'a Request<()>,
    /// Whether it is carried as opaque bytes, so that policies do not see it.
    pub(super) is_opaque: bool,
}

impl Judge<'_> {
    /// The endpoints of `backend`, of all `endpoints` of its service, and in words which come first.
    pub(super) fn all(
        &self,
        backend: &Backend,
        endpoints: Option<&Endpoints>,
    ) -> (Vec<EndpointView>, Vec<String>) {
        let Some(endpoints) = endpoints else { return (Vec::new(), Vec::new()) };
        let fixed = endpoints.list.iter().filter(|one| facts::selects(&backend.labels, &one.labels));
        let named = endpoints.named.iter().filter(|one| facts::selects(&backend.labels, &one.labels));
        let of_fixed = fixed.clone().map(|one| (one.place.as_deref(), &*one.labels));
        let of_named = named.clone().map(|one| (one.place.as_deref(), &*one.labels));
        let arranged = Arranged::of(self.caller, backend, of_fixed.chain(of_named));
        let fixed = fixed.map(|one| self.one(backend, one));
        let named = named.map(|one| {
            let transport = Transport::of(backend.policy.tls.as_ref(), one.identity.as_ref());
            EndpointView {
                address: format!("{} (as the sidecar's DNS says)", one.address),
                workload: one.workload.as_ref().map(ToString::to_string),
                locality: None,
                priority: None,
                mutual_tls: matches!(transport, Transport::Mutual(_)),
                how: how(transport, one.identity.is_some(), self.workload(one.workload.as_ref())),
                verdict: None,
                refused: impossible(transport),
            }
        });
        let mut views: Vec<EndpointView> = fixed.chain(named).collect();
        arranged.tell(&mut views);
        (views, arranged.words(backend))
    }

    /// One endpoint.
    pub(super) fn one(&self, backend: &Backend, endpoint: &Endpoint) -> EndpointView {
        let transport = Transport::of(backend.policy.tls.as_ref(), endpoint.identity.as_ref());
        let workload = self.workload(endpoint.workload.as_ref());
        let unsent = impossible(transport).or_else(|| self.not_let_out(endpoint, transport));
        let judged = match (&unsent, workload.filter(|workload| workload.meshed)) {
            (None, Some(workload)) => Some(self.verdict(workload, endpoint, transport)),
            _ => None,
        };
        let (verdict, refused) = match judged {
            Some(Ok(words)) => (Some(words), None),
            Some(Err(answer)) => (Some(answer.why.clone()), Some(answer)),
            None => (None, unsent),
        };
        let dialled = if endpoint.dial == endpoint.address {
            String::new()
        } else {
            format!(", dialled at {}", endpoint.dial)
        };
        EndpointView {
            address: format!("{}{dialled}", endpoint.address),
            workload: endpoint.workload.as_ref().map(ToString::to_string),
            locality: None,
            priority: None,
            mutual_tls: matches!(transport, Transport::Mutual(_)),
            how: how(transport, endpoint.identity.is_some(), workload),
            verdict,
            refused,
        }
    }

    /// Why network policies keep the caller from `endpoint`. Nothing keeps it from itself.
    fn not_let_out(&self, endpoint: &Endpoint, transport: Transport<'_>) -> Option<Answer> {
        let own = self.caller.workload.as_ref().map(|own| &own.name);
        if own.is_some() && endpoint.workload.as_ref() == own {
            return None;
        }
        let identity = match transport {
            Transport::Mutual(identity) => Some(identity.clone()),
            _ => None,
        };
        let permit = self.caller.egress.permit(endpoint.address, endpoint.dial, identity);
        permit.refusal().map(|failure| Answer::failure(failure.reason, failure.what))
    }

    fn workload(&self, name: Option<&selvedge_model::WorkloadName>) -> Option<&Workload> {
        self.mesh.workloads.get(name?).map(|workload| &**workload)
    }

    /// Whether the sidecar of `workload` lets the request in, and by which document.
    fn verdict(
        &self,
        workload: &Workload,
        endpoint: &Endpoint,
        transport: Transport<'_>,
    ) -> Result<String, Answer> {
        let identity = matches!(transport, Transport::Mutual(_)).then_some(&self.caller.identity);
        if let Some(why) = identity.and_then(|identity| self.revoked(identity)) {
            return Err(Answer::failure(Reason::Policy, why));
        }
        let namespace = identity.map(SpiffeId::namespace);
        let source = Source { address: self.caller.sends_from, identity, namespace, ..Source::UNKNOWN };
        // Where connections are redirected, they arrive at the app's own address.
        let redirected = Some(endpoint.address).filter(|address| *address == endpoint.dial);
        let connection = Connection {
            destination: redirected,
            arrived_at: redirected.map(|address| address.ip()),
            ..Connection::new(source, endpoint.address.port())
        };
        let failed =
            |error: selvedge_proxy::step::Error| Answer::failure(error.failure.reason, error.failure.what);
        // It settles for itself what the request means.
        let mut arrived = self.request.clone();
        settle(&mut arrived, identity.is_some(), false).map_err(failed)?;
        let Workload { policy, .. } = workload.with_sets(|part| self.mesh.sets.get(part).cloned());
        let token = match self.is_opaque {
            true => None,
            false => token::check(&policy, &connection, &mut arrived).map_err(|refused| {
                let token::Refusal { rule, why } = refused;
                Answer::failure(Reason::Token, format!("its sidecar refuses this by {rule} (token): {why}"))
            })?,
        };
        let token = token.map(|words| format!("; {words}")).unwrap_or_default();
        match policy::ask(&policy, &connection, Some(&arrived), self.is_opaque).map_err(failed)? {
            Asked::Final(Verdict::Allow { rule }) => {
                let (address, headers) = (connection.source.address, arrived.headers());
                let asker = Asker { address, identity, headers, route: None };
                let limits = policy.limits.iter().filter(|_| !self.is_opaque);
                let limits = limits.flat_map(|limits| limits.for_request(connection.port, asker));
                let limits: String = limits.map(|words| format!("; limited by {words}")).collect();
                Ok(format!("its sidecar lets this in, by {rule}{token}{limits}"))
            }
            Asked::Final(Verdict::Deny { rule, why, by }) => {
                let kind = match by {
                    By::Mtls => "mutual TLS",
                    By::Network => "network policy",
                    By::Authorization => "policy",
                    By::Route => "routes of a server",
                };
                let why = format!("its sidecar refuses this by {rule} ({kind}): {why}{token}");
                Err(Answer::failure(policy::reason(by), why))
            }
            // Of a request this is not said.
            Asked::DependsOnRequest { rule } => Ok(format!("its sidecar asks {rule} of each request{token}")),
        }
    }

    /// Why `identity` is refused everywhere, if it is.
    fn revoked(&self, identity: &SpiffeId) -> Option<String> {
        let workload = self.caller.workload.as_ref().map(|workload| &workload.name);
        revoked(self.mesh, identity, workload)
    }
}

pub(super) fn impossible(transport: Transport<'_>) -> Option<Answer> {
    let why = "the backend asks for mutual TLS of the mesh (ISTIO_MUTUAL), and it has no sidecar";
    (transport == Transport::Impossible).then(|| Answer::failure(Reason::NoEndpoint, why))
}

/// How an endpoint is called, and why so; `asks`: whether it asks for mutual TLS itself.
pub(super) fn how(transport: Transport<'_>, asks: bool, workload: Option<&Workload>) -> String {
    match transport {
        Transport::Mutual(identity) => {
            format!("mutual TLS, because its workload has a sidecar; {identity} must answer")
        }
        Transport::Plaintext if asks => "plaintext, because a DestinationRule says DISABLE".to_owned(),
        Transport::Plaintext => match workload {
            None => "plaintext, because no workload is known there".to_owned(),
            Some(workload) if workload.meshed => {
                format!("plaintext, because mutual TLS is disabled there by {}", workload.policy.default.name)
            }
            Some(_) => "plaintext, because its workload has no sidecar".to_owned(),
        },
        Transport::Impossible => "not at all".to_owned(),
        Transport::Originated(settings) => {
            let by = settings.policy.as_deref().unwrap_or("a DestinationRule");
            match &settings.sni {
                Some(name) => format!("TLS of a server outside of the mesh, as {name}, because {by} says so"),
                None => format!("TLS of a server outside of the mesh, because {by} says so"),
            }
        }
    }
}
