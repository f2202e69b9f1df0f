//! Both ends of a connection: what each one's sidecar says of it, and by which document.
//!
//! `selvedge explain connection` and `selvedge authz` ask this. The verdicts are those of the code that sidecars run.

mod judgement;
mod parties;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::Request;
use selvedge_model::{
    InboundPolicy, Mesh, SpiffeId, Workload,
    facts::{Connection, Source},
    token::TokenRule,
};
use selvedge_proxy::{bind, normalize::settle};
use serde::Serialize;

pub(super) use self::parties::source;
pub(crate) use self::{
    judgement::{Judgement, Outcome},
    parties::{Client, Server},
};
use super::{
    caller::revoked,
    policy::{self, open},
    token,
};

/// Both ends of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends<'a> {
    pub(crate) mesh: &'a Mesh,
    pub(crate) client: Client<'a>,
    pub(crate) server: Server<'a>,
    /// A request on the connection, if one is asked for.
    pub(crate) request: Option<&'a Request<()>>,
}

/// One question that is asked of a connection, and the answer.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    /// Which kind of policy is asked.
    pub(crate) asked: &'static str,
    #[serde(flatten)]
    pub(crate) judgement: Judgement,
}

/// A request as a sidecar judges it, and what is said of its token.
type Arrived = (Request<()>, Option<String>);

impl<'a> Ends<'a> {
    /// What both ends make of it together.
    pub(crate) fn judge(&self) -> Judgement {
        if let Some(refused) = self.let_out().filter(|one| one.outcome == Outcome::Denied) {
            return refused;
        }
        match self.guarded() {
            Err(why) => Judgement::by(Outcome::Allowed, why),
            Ok(server) => self.revoked().unwrap_or_else(|| match self.arrived() {
                Some(Err(refused)) => refused,
                Some(Ok((request, _))) => self.let_in(&server.policy, Some(&request)),
                None => self.let_in(&server.policy, None),
            }),
        }
    }

    /// The identity that the server must prove; `None`: the client calls in plaintext.
    pub(crate) fn expected(&self) -> Option<&'a SpiffeId> {
        self.server.expected.filter(|_| self.client.identity.is_some())
    }

    /// The workload whose sidecar is asked; or why none is.
    fn guarded(&self) -> Result<&'a Workload, &'static str> {
        match self.server.workload {
            None => Err("nobody: no document declares a workload there"),
            Some(server) if !server.meshed => Err("nobody: the server has no sidecar"),
            Some(_) if self.server.is_skipped(self.mesh) => {
                Err("nobody: connections to this port pass by the sidecar")
            }
            Some(server) => Ok(server),
        }
    }

    /// What the client's own sidecar says; `None`: it has no rules. Nothing keeps a workload from itself.
    pub(crate) fn let_out(&self) -> Option<Judgement> {
        let rules = self.client.egress?;
        let server = self.server.workload.map(|server| &server.name);
        if server.is_some() && server == self.client.workload {
            return None;
        }
        // What is not known matches no rule that names addresses.
        let address = self.server.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let address = SocketAddr::new(address, self.server.port);
        let dial = self.server.dial.unwrap_or(address);
        Some(match bind::judged(rules, address, dial, self.expected(), |_, _| {}) {
            Ok(rule) => Judgement::by(Outcome::Allowed, rule.map_or("nothing: it calls itself", |rule| rule)),
            Err(bind::Refused { rule, why, .. }) => Judgement::denied(rule, why),
        })
    }

    /// What the server's sidecar asks, kind by kind; each kind of policy by itself.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let Ok(server) = self.guarded() else { return Vec::new() };
        let policy = &server.policy;
        let arrived = self.arrived();
        let request = arrived.as_ref().and_then(|arrived| arrived.as_ref().ok()).map(|(request, _)| request);
        let ask = |asked, policy: InboundPolicy| Step { asked, judgement: self.let_in(&policy, request) };
        let modes = InboundPolicy { default: policy.default.clone(), ports: policy.ports.clone(), ..open() };
        let mut steps: Vec<Step> =
            self.revoked().map(|judgement| Step { asked: "Revocation", judgement }).into_iter().collect();
        steps.push(ask("PeerAuthentication", modes));
        // Whom mutual TLS and network policies keep out is not asked for a token.
        let (network, others): (Vec<_>, Vec<_>) =
            policy::kinds(policy).into_iter().partition(|(_, kind)| kind.network.is_some());
        steps.extend(network.into_iter().map(|(asked, policy)| ask(asked, policy)));
        steps.extend(self.token(arrived.as_ref()));
        if let Some(Err(_)) = arrived {
            // It comes no further.
            return steps;
        }
        steps.extend(others.into_iter().map(|(asked, policy)| ask(asked, policy)));
        steps
    }

    /// What a sidecar with `policy` says; `request` is the one that has arrived.
    fn let_in(&self, policy: &InboundPolicy, request: Option<&Request<()>>) -> Judgement {
        match policy::ask(policy, &self.connection(), request, self.server.is_opaque()) {
            Ok(asked) => asked.into(),
            Err(error) => Judgement::denied("the sidecar", &error.failure.to_string()),
        }
    }

    /// The request as the server's sidecar judges it, and what is said of its token; or why it refuses it before. `None`: there
    /// is none that policies see.
    fn arrived(&self) -> Option<Result<Arrived, Judgement>> {
        let request = self.request.filter(|_| !self.server.is_opaque())?;
        let server = self.server.workload?;
        let connection = self.connection();
        let mut arrived = request.clone();
        // It settles for itself what the request means.
        let settled = settle(&mut arrived, connection.source.identity.is_some(), false)
            .map_err(|error| Judgement::denied("the sidecar", &error.failure.to_string()));
        let token = settled.and_then(|()| {
            token::check(&server.policy, &connection, &mut arrived)
                .map_err(|token::Refusal { rule, why }| Judgement::denied(&rule, &why))
        });
        Some(token.map(|words| (arrived, words)))
    }

    /// What the server's sidecar makes of tokens, if there is something to say.
    fn token(&self, arrived: Option<&Result<Arrived, Judgement>>) -> Option<Step> {
        let judgement = match arrived {
            Some(Ok((_, words))) => Judgement::by(Outcome::Allowed, words.as_ref()?),
            Some(Err(refused)) => refused.clone(),
            None => {
                let rules = &self.server.workload?.policy.authentication.as_ref()?.rules;
                let is_for = |rule: &&TokenRule| rule.is_for(self.server.port) && !self.server.is_opaque();
                let rule = rules.iter().find(is_for)?;
                let words = format!("{}, which refuses requests whose token is not accepted", rule.name);
                Judgement::by(Outcome::DependsOnTheRequest, &words)
            }
        };
        Some(Step { asked: "RequestAuthentication", judgement })
    }

    /// That one of the two is revoked, whose identities both must prove.
    fn revoked(&self) -> Option<Judgement> {
        self.expected()?;
        let client = self.client.identity.and_then(|one| revoked(self.mesh, one, self.client.workload));
        let of_server = |one: &Workload| revoked(self.mesh, &one.identity, Some(&one.name));
        let rule = client.or_else(|| self.server.workload.and_then(of_server))?;
        Some(Judgement::denied(&rule, "a revoked identity is refused by everybody"))
    }

    fn connection(&self) -> Connection<'a> {
        let identity = self.client.identity.filter(|_| self.server.expected.is_some());
        let namespace = identity.map(SpiffeId::namespace);
        let source = Source { address: self.client.address, identity, namespace, ..Source::UNKNOWN };
        // Where connections are redirected, they arrive at the app's own address.
        let own = self.server.address.filter(|_| self.server.dial.is_none());
        let destination = own.map(|own| SocketAddr::new(own, self.server.port));
        Connection { destination, arrived_at: own, ..Connection::new(source, self.server.port) }
    }
}
