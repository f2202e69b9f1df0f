//! A tunnel that a client asked for by CONNECT. It is opened before the client is answered, and carried after that.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use futures_util::future::{FutureExt, LocalBoxFuture};

use super::{
    endpoint::{EndpointSide, open},
    outbound::{exchange, note, refuse},
    outgoing::Outgoing,
};
use crate::{
    arrival::Direction,
    body::OpenTunnel,
    detect::{
        Detected, First, detect_until,
        hello::{HELLO_TIMEOUT, hello},
    },
    error::Failure,
    io::{Duplex, Prefixed},
    telemetry::Passed,
    worker::Worker,
};

/// How long the client of a new tunnel may say nothing, where what it says decides on the route.
const SILENCE: Duration = Duration::from_secs(3);

/// A tunnel that its client will be told of.
pub(crate) struct PromisedTunnel {
    worker: Rc<Worker>,
    outgoing: Outgoing,
    /// `None`: where it goes depends on what its client says first.
    endpoint: Option<EndpointSide>,
    started: Instant,
}

impl std::fmt::Debug for PromisedTunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PromisedTunnel")
            .field("to", &self.outgoing.destination.authority)
            .finish_non_exhaustive()
    }
}

impl PromisedTunnel {
    /// Connects to an endpoint, unless it is not known yet to which.
    ///
    /// # Errors
    /// If there is no way to one; it has been counted. It is written down with the request, whose answer says why.
    pub(crate) async fn open(worker: Rc<Worker>, outgoing: Outgoing) -> Result<Self, Failure> {
        let started = Instant::now();
        if outgoing.needs_name() {
            return Ok(Self { worker, outgoing, endpoint: None, started });
        }
        match open(&worker, &outgoing).await {
            Ok(endpoint) => Ok(Self { worker, outgoing, endpoint: Some(endpoint), started }),
            Err(refused) => {
                let told = Some(Rc::default());
                note(&worker, &Outgoing { told, ..outgoing }, &refused, started);
                Err(refused.failure)
            }
        }
    }

    async fn carry(self, mut client: Box<dyn Duplex>) {
        let Self { worker, outgoing, endpoint, started } = self;
        let mut read = BytesMut::new();
        let (outgoing, endpoint) = match endpoint {
            Some(endpoint) => (outgoing, endpoint),
            None => {
                let Some(outgoing) = with_name(&worker, outgoing, &mut client, &mut read).await else {
                    return;
                };
                match open(&worker, &outgoing).await {
                    Ok(endpoint) => (outgoing, endpoint),
                    Err(refused) => return refuse(&worker, &outgoing, &client, &refused, started),
                }
            }
        };
        exchange(&worker, &outgoing, Prefixed::new(read.freeze(), client), endpoint, started).await;
    }
}

impl OpenTunnel for PromisedTunnel {
    fn carry(
        mut self: Box<Self>,
        client: Box<dyn Duplex>,
        is_told: bool,
    ) -> LocalBoxFuture<'static, Option<Passed>> {
        let told = is_told.then(Rc::default);
        self.outgoing.told.clone_from(&told);
        let carried = Self::carry(*self, client);
        async move {
            carried.await;
            told?.take()
        }
        .boxed_local()
    }
}

/// Waits for the client's first bytes, and adds the name that its TLS asks for, if it is TLS. `None`: the client has left.
async fn with_name(
    worker: &Worker,
    outgoing: Outgoing,
    client: &mut impl Duplex,
    read: &mut BytesMut,
) -> Option<Outgoing> {
    let over = worker.leave.closed(Direction::Outbound);
    match detect_until(client, read, Some(SILENCE), HELLO_TIMEOUT, over).await? {
        First::End => None,
        First::Bytes(Detected::Tls) => {
            let hello = tokio::time::timeout(HELLO_TIMEOUT, hello(client, read)).await.ok()?.ok()?;
            Some(outgoing.with_tls(hello.server_name()))
        }
        First::Bytes(_) | First::Silence => Some(outgoing),
    }
}
