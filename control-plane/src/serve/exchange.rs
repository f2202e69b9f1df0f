//! One connection, served by one task: HTTP/2, its requests, and the conversations on its configuration streams.
//!
//! This is what a server of gRPC does, on `h2` alone. A general server has a task for the connection, one for each request and
//! channels between them, all of which a stream keeps for as long as it is open, and each of which a change has to pass. Here
//! they are values of one task: whoever is told something is woken once, and all that it is about lies together.

mod messages;
mod outgoing;
mod vigil;

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use h2::{
    RecvStream, SendStream,
    server::{self, Handshake, SendResponse},
};
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use selvedge_api::{MAX_SIGN_REQUEST, wire::certificates_server::CertificatesServer};
use selvedge_ops::{Drain, when_woken};
use tokio::{sync::mpsc, time::timeout};
use tonic::{Status, TimeoutExpired, codegen::Service as _};

pub(super) use self::{
    messages::Messages,
    outgoing::{Outgoing, Passed},
    vigil::Heard,
};
use self::{
    outgoing::{Gone, poll_room},
    vigil::{End, Vigil},
};
use super::{
    certificates::Certificates,
    connection::{Client, Connection, GrpcConnection},
    stream::Streams,
};

/// From a request's head to the head of its answer. Who signs may have to ask the API server about a token.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest list of header fields, in bytes.
const MAX_HEADERS: u32 = 8 << 10;
/// Streams that the client has reset and we have not begun with; more of them end the connection.
const MAX_RESETS: usize = 16;
/// The path of configuration streams.
const STREAM: &str = "/selvedge.v1.Discovery/Stream";

/// What a client may have at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Requests.
    pub(super) streams: u32,
    /// Bytes that it has sent on one stream and that nobody has read yet.
    pub(super) stream_window: u32,
    /// The same of all its streams.
    pub(super) connection_window: u32,
}

/// Who answers.
#[derive(Debug)]
pub(super) struct Services {
    pub(super) certificates: Arc<Certificates>,
    pub(super) streams: Arc<Streams>,
    /// Ends every connection, once what is open on it is over.
    pub(super) drain: Drain,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection and everything that is open on it. Done when it has ended.
pub(super) struct Exchange {
    state: State,
    client: Arc<Client>,
    services: Arc<Services>,
    /// At most as many as the client may have requests at once.
    answers: Vec<Work>,
    /// Whoever has the other end sees by it when the last connection has ended.
    _open: mpsc::Sender<Infallible>,
}

enum State {
    Greeting(Handshake<GrpcConnection, Bytes>, Heard),
    Open(server::Connection<GrpcConnection, Bytes>, Option<Vigil>),
}

impl Exchange {
    pub(super) fn new(
        connection: Connection,
        limits: Limits,
        services: &Arc<Services>,
        open: mpsc::Sender<Infallible>,
    ) -> Self {
        let (connection, client) = GrpcConnection::new(connection);
        let heard = connection.heard();
        let handshake = server::Builder::new()
            .max_concurrent_streams(limits.streams)
            .initial_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .max_header_list_size(MAX_HEADERS)
            .max_pending_accept_reset_streams(MAX_RESETS)
            .handshake(connection);
        Self {
            state: State::Greeting(handshake, heard),
            client: Arc::new(client),
            services: Arc::clone(services),
            answers: Vec::new(),
            _open: open,
        }
    }

    /// Whether the connection is still open.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let State::Open(connection, vigil) = &mut self.state else { return Poll::Ready(Ok(())) };
        if let Some(Poll::Ready(end)) = vigil.as_mut().map(|vigil| vigil.poll_unpin(context)) {
            *vigil = None;
            match end {
                End::Drained => connection.graceful_shutdown(),
                End::Silent => connection.abrupt_shutdown(h2::Reason::NO_ERROR),
            }
        }
        loop {
            // First, because what they send is written below.
            self.answers.retain_mut(|answer| answer.as_mut().poll(context).is_pending());
            let Some(request) = ready!(connection.poll_accept(context)) else { return Poll::Ready(Ok(())) };
            let (request, respond) = request?;
            self.answers.extend(begin(&self.services, &self.client, request, respond));
        }
    }
}

impl Future for Exchange {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if let State::Greeting(handshake, heard) = &mut this.state {
            match ready!(Pin::new(handshake).poll(context)) {
                Ok(mut connection) => {
                    let vigil = connection
                        .ping_pong()
                        .map(|pings| vigil::keep(pings, heard.clone(), this.services.drain.clone()));
                    this.state = State::Open(connection, vigil);
                }
                Err(error) => {
                    tracing::debug!(address = %this.client.address, %error, "a connection has ended");
                    return Poll::Ready(());
                }
            }
        }
        if let Err(error) = ready!(this.poll_open(context)) {
            tracing::debug!(address = %this.client.address, %error, "a connection has ended");
        }
        // What is still open sees that its stream has ended, and may have something to say of it.
        this.answers.retain_mut(|answer| answer.as_mut().poll(context).is_pending());
        Poll::Ready(())
    }
}

/// Begins to answer `request`; nothing, if it is answered.
fn begin(
    services: &Arc<Services>,
    client: &Arc<Client>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Option<Work> {
    if request.uri().path() != STREAM {
        let certificates = Arc::clone(&services.certificates);
        return Some(Box::pin(when_woken(call(certificates, (**client).clone(), request, respond))));
    }
    // Of its head nothing is kept: a stream may be open for a day.
    let body = request.into_body();
    let conversation = match services.streams.conversation(client) {
        Ok(conversation) => conversation,
        Err(status) => {
            // It fails only if the client has gone.
            drop(respond.send_response(status.into_http(), true));
            return None;
        }
    };
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let stream = respond.send_response(response, false).ok()?;
    Some(Box::pin(when_woken(conversation.run(Messages::new(body), Outgoing::new(stream)))))
}

/// Answers a request for a certificate, or for what there is not.
async fn call(
    certificates: Arc<Certificates>,
    client: Client,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let mut request = request.map(Incoming);
    request.extensions_mut().insert(client);
    let mut service = CertificatesServer::from_arc(certificates).max_decoding_message_size(MAX_SIGN_REQUEST);
    let called = tokio::select! {
        called = timeout(REQUEST_TIMEOUT, service.call(request)) => called,
        _ = poll_fn(|context| respond.poll_reset(context)) => return,
    };
    let response = match called {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => Status::from_error(Box::new(TimeoutExpired(()))).into_http(),
    };
    let (head, body) = response.into_parts();
    let ends = body.is_end_stream();
    if let Ok(stream) = respond.send_response(Response::from_parts(head, ()), ends)
        && !ends
    {
        send(body, stream).await;
    }
}

/// Sends a whole `body`, as far as the client takes it.
async fn send(mut body: tonic::body::Body, mut stream: SendStream<Bytes>) {
    while let Some(Ok(frame)) = body.frame().await {
        let sent = match frame.into_data() {
            Ok(data) => match poll_fn(|context| poll_room(&mut stream, context)).await {
                Ok(()) => stream.send_data(data, false).is_ok(),
                Err(Gone) => false,
            },
            Err(frame) => frame.into_trailers().is_ok_and(|trailers| stream.send_trailers(trailers).is_ok()),
        };
        if !sent {
            return;
        }
    }
}

/// What a client says in a request.
struct Incoming(RecvStream);

impl Body for Incoming {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let data = ready!(self.0.poll_data(context));
        Poll::Ready(data.map(|data| {
            let data = data?;
            self.0.flow_control().release_capacity(data.len())?;
            Ok(Frame::data(data))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::stream::Conversation, *};

    fn size_of_future<A, B, C, F: Future>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// Ten thousand of them are open at once, each mostly for a day.
    #[test]
    fn what_is_kept_of_a_connection_is_small() {
        let sizes = (size_of::<Exchange>(), size_of_future(Conversation::run));

        assert!(sizes.0 <= 2_048 && sizes.1 <= 1_536, "{sizes:?}");
    }
}
