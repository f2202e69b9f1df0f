//! Whether a request may come in: the model's verdict on its connection, by the policy in force now.
//!
//! The connection is asked for first. If that decides, the answer holds for all its requests until the next table
//! comes into force; otherwise each request is asked for, without what the connection alone decides. So a connection that a new policy forbids is refused at its
//! next request, and the client is told by which rule. An opaque connection has no next request: it asks again
//! whenever policy changes, and ends when it is forbidden. So does a request in progress that was asked for by itself,
//! such as a stream of gRPC's.

mod notes;
mod step;

use std::time::Instant;

use selvedge_model::{
    ConnectionVerdict, InboundPolicy, Verdict,
    facts::{Connection, Source},
    policy::{By, Note},
};
use tracing::field::display;

pub(crate) use self::notes::{note_caller, note_opaque_caller};
pub use self::step::{Authorize, Watched, authorize, review};
use crate::{
    body::Admission,
    error::{Failure, Reason},
    facts,
    step::{Conn, Decided, Entry, Request},
    telemetry::Decision,
    worker::Worker,
};

/// Lets `request` in, or says why not. `Some`: policy has looked into it, and will again when it changes.
fn admitted(worker: &Worker, request: &Request) -> Result<Option<Admission>, Failure> {
    let conn = &request.conn;
    let Some(entry) = conn.entry() else { return Ok(None) };
    let generation = worker.view.refresh();
    if entry.decided_at(generation) == Some(Decided::LetIn) {
        return Ok(None);
    }
    match asked(worker, request, (entry, generation))? {
        // Each request may be another client's.
        Asked::Connection if conn.gateway().is_some_and(|gateway| gateway.trusted_hops > 0) => Ok(None),
        Asked::Connection => {
            entry.decided.set(Some((generation, Decided::LetIn)));
            Ok(None)
        }
        Asked::Request => Ok(Some(worker.admitted.admit(conn, |head| facts::keep(&request.http, head)))),
    }
}

/// What was let in.
enum Asked {
    /// The connection, with all its requests.
    Connection,
    /// One request.
    Request,
}

/// Asks for a request's connection, unless the policy in force has left that to its requests before; and for the request
/// itself if that decides, or if policies take note of it.
fn asked(worker: &Worker, request: &Request, (entry, generation): (&Entry, u64)) -> Result<Asked, Failure> {
    let connection = facts::of_client(request.conn.incoming(), &request.http);
    by_policy(worker, |policy| {
        if entry.decided_at(generation).is_none() {
            let final_verdict = match policy.authorize(&connection) {
                ConnectionVerdict::Final(verdict) => Some(verdict),
                ConnectionVerdict::DependsOnRequest { .. } => None,
            };
            let by_request = policy.has_notes() || policy.has_routes(connection.port);
            if let (Some(verdict), false) = (final_verdict, by_request) {
                return decided(worker, &connection, verdict).map(|()| Asked::Connection);
            }
            if !matches!(final_verdict, Some(Verdict::Deny { .. })) {
                entry.decided.set(Some((generation, Decided::ByRequest)));
            }
        }
        let request = facts::request(&request.http, &connection).map_err(|error| error.failure)?;
        policy.notes_on_request(&request, |note| note_down(worker, &connection, note));
        let verdict = match entry.decided_at(generation) {
            Some(_) => policy.authorize_next_request(&request),
            None => policy.authorize_request(&request),
        };
        decided(worker, &connection, verdict).map(|()| Asked::Request)
    })
}

/// Why no request at all may come in on `connection`; `None`: some may.
pub(crate) fn refusal(worker: &Worker, connection: &Connection<'_>) -> Option<Failure> {
    worker.view.refresh();
    let verdict = by_policy(worker, |policy| match policy.authorize(connection) {
        ConnectionVerdict::Final(verdict) => let_in(connection, verdict),
        ConnectionVerdict::DependsOnRequest { .. } => Ok(()),
    });
    verdict.err()
}

/// Why the request `head` on `connection`, which has come in, may not go on; `None`: it may.
pub(crate) fn refusal_of_request(
    worker: &Worker,
    connection: &Connection<'_>,
    head: &http::Request<()>,
) -> Option<Failure> {
    asked_again(worker, connection, head, let_in)
}

/// The same, counted and logged.
fn refusal_meanwhile(
    worker: &Worker,
    connection: &Connection<'_>,
    head: &http::Request<()>,
) -> Option<Failure> {
    asked_again(worker, connection, head, |connection, verdict| decided(worker, connection, verdict))
}

fn asked_again(
    worker: &Worker,
    connection: &Connection<'_>,
    head: &http::Request<()>,
    answer: impl Fn(&Connection<'_>, Verdict<'_>) -> Result<(), Failure>,
) -> Option<Failure> {
    worker.view.refresh();
    let connection = &facts::of_client(*connection, head);
    let verdict = by_policy(worker, |policy| {
        let request = facts::request(head, connection).map_err(|error| error.failure)?;
        answer(connection, policy.authorize_request(&request))
    });
    verdict.err()
}

/// Why nothing opaque may come in on `connection`; `None`: it may.
pub(crate) fn opaque_refusal(worker: &Worker, connection: &Connection<'_>) -> Option<Failure> {
    worker.view.refresh();
    by_policy(worker, |policy| let_in(connection, policy.authorize_opaque(connection))).err()
}

/// The same of a connection that comes in now: what policies say of it is counted and logged.
pub(crate) fn admit_opaque(worker: &Worker, connection: &Connection<'_>) -> Result<(), Failure> {
    worker.view.refresh();
    by_policy(worker, |policy| {
        policy.notes_on_opaque(connection, |note| note_down(worker, connection, note));
        decided(worker, connection, policy.authorize_opaque(connection))
    })
}

/// Asks the policy that the worker's table holds.
fn by_policy<T>(
    worker: &Worker,
    ask: impl FnOnce(&InboundPolicy) -> Result<T, Failure>,
) -> Result<T, Failure> {
    worker.view.with(|table| match &table.own {
        Some(own) => ask(&own.policy),
        // Cannot happen after the connection was taken; if it does, nothing is let in.
        None => Err(Failure::new(Reason::Policy, "this workload's policy is not known")),
    })
}

/// [`let_in`], counted and logged if it is refused.
fn decided(worker: &Worker, connection: &Connection<'_>, verdict: Verdict<'_>) -> Result<(), Failure> {
    if let Verdict::Deny { rule, why, .. } = verdict {
        worker.metrics.policy_decision(rule, Decision::Deny, worker.index);
        if let Some(left_out) = said_lately(worker, connection, rule) {
            let Source { address, identity, .. } = connection.source;
            let (peer, identity) = (address.map(display), identity.map(display));
            tracing::info!(peer, identity, port = connection.port, %rule, %why, left_out, "refused by policy");
        }
    }
    let_in(connection, verdict)
}

/// Counts and logs what a policy says that does not decide.
fn note_down(worker: &Worker, connection: &Connection<'_>, Note { rule, says }: Note<'_>) {
    worker.metrics.policy_decision(rule, says.into(), worker.index);
    let Source { address, identity, .. } = connection.source;
    let (peer, identity) = (address.map(display), identity.map(display));
    tracing::info!(peer, identity, port = connection.port, %rule, %says, "noted by policy");
}

/// How many refusals of this peer by this rule were left out of the log since the last line; `None`: that was lately. A peer
/// is known by its identity, or without one by its address.
fn said_lately(worker: &Worker, connection: &Connection<'_>, rule: &str) -> Option<u64> {
    let Source { address, identity, .. } = connection.source;
    let stranger = address.filter(|_| identity.is_none());
    worker.said.says((rule, identity, stranger), Instant::now())
}

/// Strangers are not told which policies there are: only what they can see for themselves.
fn let_in(connection: &Connection<'_>, verdict: Verdict<'_>) -> Result<(), Failure> {
    let Verdict::Deny { rule, why, by } = verdict else { return Ok(()) };
    let reason = if by == By::Route { Reason::NoRoute } else { Reason::Policy };
    let failure = Failure::new(reason, format!("{rule}: {why}"));
    Err(match (connection.source.identity, by) {
        (Some(_), _) => failure,
        (None, By::Mtls) => failure.told_only_the_last(why.len()),
        (None, By::Network | By::Authorization | By::Route) => failure.told_only_the_last(0),
    })
}

/// Completes when a policy that comes into force later lets no request in on `conn`, and requests are in
/// progress, as `in_progress` says. Without any, the next request is refused, and its client told why.
pub(crate) async fn forbidden_meanwhile(
    worker: &Worker,
    conn: &Conn,
    in_progress: impl Fn() -> bool,
) -> Failure {
    let mut changed = worker.view.store().subscribe();
    loop {
        if changed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        if in_progress()
            && let Some(failure) = refusal(worker, &conn.incoming())
        {
            return failure;
        }
    }
}

/// Completes when a policy, the one in force now or a later one, does not let what `refusal` asks about in.
pub(crate) async fn forbidden(worker: &Worker, refusal: impl Fn(&Worker) -> Option<Failure>) -> Failure {
    let mut changed = worker.view.store().subscribe();
    loop {
        if let Some(failure) = refusal(worker) {
            return failure;
        }
        if changed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
