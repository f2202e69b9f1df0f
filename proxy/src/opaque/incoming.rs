//! An opaque connection to the app: what is known about it, and how its client is told what happened.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use selvedge_api::preamble;
use selvedge_model::SpiffeId;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::{
    arrival::OriginalDestination,
    error::Failure,
    io::{Abort, Framed, Prefixed},
    lifetime::Until,
    telemetry::Peer,
};

/// How long a client that is refused may take to hear why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A client's end.
pub(crate) trait Client: AsyncRead + AsyncWrite + Abort + Unpin {
    /// Tells the client that the connection is accepted, with the app's first bytes.
    fn accept(&mut self);

    /// Tells the client why it is not.
    fn refuse(&mut self, failure: &Failure) -> impl Future<Output = ()>;
}

/// A mesh peer's sidecar, which is told.
impl<S: AsyncRead + AsyncWrite + Abort + Unpin> Client for Framed<S> {
    fn accept(&mut self) {
        self.send_along(preamble::ACCEPTED);
    }

    async fn refuse(&mut self, failure: &Failure) {
        let telling = async {
            self.write_all(&preamble::encode_refusal(&failure.to_string())).await?;
            self.close().await
        };
        if let Ok(Err(error)) = tokio::time::timeout(LAST_WORDS, telling).await {
            tracing::debug!(%error, "the reason of a refusal could not be sent");
        }
    }
}

/// A plain client, which can only be told by a reset.
impl<S: AsyncRead + AsyncWrite + Abort + Unpin> Client for Prefixed<S> {
    fn accept(&mut self) {}

    async fn refuse(&mut self, _: &Failure) {
        self.abort();
    }
}

/// A connection that has come in, and what is known about it.
pub(crate) struct Incoming<C> {
    /// The client's end.
    pub(crate) client: C,
    /// Where it is.
    pub(crate) peer: SocketAddr,
    /// Where it was going when it was redirected to us. `None`: nobody redirects.
    pub(crate) original: Option<OriginalDestination>,
    /// Who it has proven to be.
    pub(crate) identity: Option<SpiffeId>,
    /// What it is called, if metrics tell callers apart.
    pub(crate) caller: Option<Arc<Peer>>,
    /// The workload's port that is meant.
    pub(crate) port: u16,
    /// That port as metrics have it: 0 if it is not known to be the app's.
    pub(crate) counted: u16,
    /// Where the app is.
    pub(crate) app: SocketAddr,
    /// Until when it is served.
    pub(crate) until: Until,
}

impl<C> Incoming<C> {
    /// The same, with another end.
    pub(super) fn map<D>(self, end: impl FnOnce(C) -> D) -> Incoming<D> {
        let Self { client, peer, original, identity, caller, port, counted, app, until } = self;
        Incoming { client: end(client), peer, original, identity, caller, port, counted, app, until }
    }
}
