//! The last step of the way in: hand the request to the app, and take back nothing that only proxies say.

use std::{
    rc::Rc,
    sync::{Arc, atomic::AtomicU32},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::{FutureExt, LocalBoxFuture};
use http::HeaderName;
use tower::Service;

use crate::{
    bind::{APP_SLOT, Target},
    connect::{FRESH_CONNECTION, FreshConnection, SendError},
    error::{Failure, Reason, SELVEDGE_ERROR},
    step::{Error, Facts, Request, Response},
    worker::Worker,
};

/// The peer's verified identity, for the app (Envoy's header, Envoy's format).
const FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Time to connect to the app: it is on this host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Clone)]
pub struct Forward {
    worker: Rc<Worker>,
    app: Arc<Target>,
}

/// The last step of the way in.
pub fn forward(worker: Rc<Worker>) -> Forward {
    let dial = worker.settings.app;
    let app =
        Target { slot: APP_SLOT, dial, port: dial.port(), identity: None, in_flight: AtomicU32::new(0) };
    Forward { worker, app: Arc::new(app) }
}

impl Service<Request> for Forward {
    type Response = Response;
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Response, Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        send(Rc::clone(&self.worker), Arc::clone(&self.app), request).boxed_local()
    }
}

async fn send(worker: Rc<Worker>, app: Arc<Target>, request: Request) -> Result<Response, Error> {
    let Request { mut http, conn } = request;
    http.headers_mut().remove(FORWARDED_CLIENT_CERT);
    if http.headers_mut().remove(FRESH_CONNECTION).is_some() && conn.identity.is_some() {
        http.extensions_mut().insert(FreshConnection);
    }
    if let Some(client) = &conn.xfcc {
        http.headers_mut().insert(FORWARDED_CLIENT_CERT, client.clone());
    }
    match worker.pools.send(&app, conn.version, http, CONNECT_TIMEOUT).await {
        Ok(mut http) => {
            http.headers_mut().remove(SELVEDGE_ERROR);
            Ok(Response { http, facts: Facts::default() })
        }
        Err(SendError { failure, .. }) => Err(unreachable(&app, failure).into()),
    }
}

/// A failed connection to the app has its own name: the sidecar is there, the app is not.
fn unreachable(app: &Target, failure: Failure) -> Failure {
    if failure.reason != Reason::ConnectFailure {
        return failure;
    }
    let what = format!("the app does not accept connections at {} (--app): {}", app.dial, failure.what);
    Failure::new(Reason::AppUnreachable, what)
}
