//! The last step of the inbound path: hands the request to the app.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use http::HeaderValue;
use selvedge_model::{AppConnections, ConnectionPool, Workload};

use crate::{
    connect::{SendError, Terms},
    error::{Failure, Reason},
    fields::{
        FORWARDED_CLIENT_CERT, grpc_status, has_failed,
        reserved::{RETRIED, take_what_sidecars_said},
    },
    step::{AnswerFacts, Error, Request, Response, Step, reused},
    worker::Worker,
};

/// How requests are sent to the app. It is on this host, so there is little time to connect.
const TERMS: Terms<'static> = Terms::unlimited(Duration::from_secs(5));

/// The last step of the way in.
pub fn forward(worker: Rc<Worker>) -> impl Step<Request> {
    reused(move |request| send(Rc::clone(&worker), request))
}

async fn send(worker: Rc<Worker>, request: Request) -> Result<Response, Error> {
    let Request { mut http, conn, .. } = request;
    let Some(inbound) = conn.inbound() else {
        // Cannot happen: this is the last step of the inbound path.
        return Err(Error::new(Reason::AppUnreachable, "the connection does not go to the app"));
    };
    let app = inbound.app.as_ref().map_err(|failure| Failure::clone(failure))?;
    // What the client says in our name, `normalize` has taken away.
    let fresh = take_what_sidecars_said(http.headers_mut());
    if let Some(client) = &inbound.xfcc {
        http.headers_mut().insert(FORWARDED_CLIENT_CERT, client.clone());
    }
    let (connections, pool) = (said(&worker, inbound.entry.port), ConnectionPool::UNLIMITED);
    let pool = ConnectionPool {
        idle_timeout: connections.idle_timeout,
        max_requests_per_connection: connections.max_requests,
        ..pool
    };
    let connect_timeout = connections.connect_timeout.unwrap_or(TERMS.connect_timeout);
    let terms = Terms { connect_timeout, pool: &pool, fresh, ..TERMS };
    let given_up_before = worker.given_up.calls();
    match worker.pools.send(app, &conn, http, &terms).await {
        Ok(mut http) => {
            let failed = || has_failed(http.status().as_u16(), grpc_status(http.headers()));
            let tells = conn.identity().is_some() && failed();
            if tells && worker.given_up.take(given_up_before) {
                http.headers_mut().insert(RETRIED, const { HeaderValue::from_static("1") });
            }
            Ok(Response { http, facts: AnswerFacts::default() })
        }
        Err(SendError { failure, .. }) if failure.reason == Reason::ConnectFailure => {
            Err(unreachable(&worker, app.dial, &failure.what).into())
        }
        Err(SendError { failure, .. }) => Err(failure.into()),
    }
}

/// What is said of connections to our app's `port`.
fn said(worker: &Worker, port: u16) -> AppConnections {
    let said = |own: &Arc<Workload>| own.app_connections.get(&port).copied();
    worker.view.with(|table| table.own.as_ref().and_then(said)).unwrap_or_default()
}

/// Time to connect to our app's `port`.
pub(crate) fn connect_timeout(worker: &Worker, port: u16) -> Duration {
    said(worker, port).connect_timeout.unwrap_or(TERMS.connect_timeout)
}

/// The failure of a connection to the app: the sidecar is there, and the app is not. While the proxy shuts down, the
/// app may have gone first, which is not its fault.
pub(crate) fn unreachable(worker: &Worker, app: SocketAddr, why: &dyn std::fmt::Display) -> Failure {
    let hint = match worker.settings.own.redirected {
        false => "(--app)",
        true => "(if it listens only on 127.0.0.1, let it listen on all addresses)",
    };
    if worker.leave.told().is_draining() {
        return Failure::new(
            Reason::Draining,
            "this workload is shutting down, and its app has closed its port",
        );
    }
    let what = format!("the app does not accept connections at {app} {hint}: {why}");
    Failure::new(Reason::AppUnreachable, what)
}
