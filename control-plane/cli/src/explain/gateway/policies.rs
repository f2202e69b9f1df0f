//! What a gateway's own policies say of its clients: tokens, and who may do what.

use http::Request;
use selvedge_model::{
    InboundPolicy, Mesh, Verdict,
    facts::{Client, Connection, Source},
    limit::Asker,
};
use selvedge_proxy::{error::Reason, facts::of_client};

use super::{entry::Came, find::Known, outside::Outside, view::GatewayView};
use crate::explain::{
    ends::{Judgement, Outcome, Step},
    explanation::{Answer, Refusal},
    policy::{self, Asked},
    token,
};

/// The policies of a gateway, and one connection to it.
pub(super) struct Policies<'a> {
    policy: InboundPolicy,
    connection: Connection<'a>,
}

impl<'a> Policies<'a> {
    pub(super) fn new(mesh: &Mesh, found: &Known<'_>, came: &'a Came<'_>, outside: &Outside) -> Self {
        let own = found.workload.with_sets(|part| mesh.sets.get(part).cloned());
        let source = Source { address: outside.address, ..Source::UNKNOWN };
        let connection = Connection {
            layer: came.layer(),
            server_name: came.server_name(),
            client: if outside.trusted_hops > 0 { Client::OfRequest } else { Client::Source },
            ..Connection::new(source, came.port.port)
        };
        Self { policy: own.policy.at_gateway(), connection }
    }

    /// Lets `request` in, or says what is answered.
    pub(super) fn let_in(&self, request: &mut Request<()>, view: &mut GatewayView) -> Result<(), Answer> {
        let connection = of_client(self.connection, request);
        match token::check(&self.policy, &connection, request) {
            Ok(Some(words)) => view.policies.push(step(TOKENS, Judgement::by(Outcome::Allowed, &words))),
            Ok(None) => {}
            Err(token::Refusal { rule, why }) => {
                view.policies.push(step(TOKENS, Judgement::denied(&rule, &why)));
                return Err(Answer::failure(Reason::Token, format!("{rule}: {why}")));
            }
        }
        let failed =
            |error: selvedge_proxy::step::Error| Answer::failure(error.failure.reason, error.failure.what);
        for (asked, policy) in policy::kinds(&self.policy) {
            let said = policy::ask(&policy, &connection, Some(request), false).map_err(failed)?;
            view.policies.push(step(asked, said.into()));
        }
        match policy::ask(&self.policy, &connection, Some(request), false).map_err(failed)? {
            Asked::Final(Verdict::Deny { rule, why, by }) => {
                Err(Answer::failure(policy::reason(by), format!("{rule}: {why}")))
            }
            Asked::Final(Verdict::Allow { .. }) | Asked::DependsOnRequest { .. } => {
                view.limits = self.limits(&connection, request);
                Ok(())
            }
        }
    }

    /// The rate limits that `request` on `connection` must be within, in words. How full they are only a gateway knows.
    fn limits(&self, connection: &Connection<'_>, request: &Request<()>) -> Vec<String> {
        let asker = Asker {
            address: connection.client_address(),
            identity: connection.source.identity,
            headers: request.headers(),
            route: None,
        };
        let limits = self.policy.limits.iter();
        limits.flat_map(|limits| limits.for_request(connection.port, asker)).collect()
    }

    /// Lets the connection in, whose bytes are carried as they are; or says how it is refused.
    pub(super) fn let_connection_in(&self, view: &mut GatewayView) -> Result<(), Refusal> {
        for (asked, policy) in policy::kinds(&self.policy) {
            view.policies.push(step(asked, Judgement::of(policy.authorize_opaque(&self.connection))));
        }
        match self.policy.authorize_opaque(&self.connection) {
            Verdict::Allow { .. } => Ok(()),
            Verdict::Deny { rule, why, by } => {
                Err(Refusal::reset(policy::reason(by), format!("{rule}: {why}")))
            }
        }
    }
}

const TOKENS: &str = "RequestAuthentication";

fn step(asked: &'static str, judgement: Judgement) -> Step {
    Step { asked, judgement }
}
