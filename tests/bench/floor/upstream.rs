//! Pooled connections to the next hop: many for HTTP/1.1, one shared for HTTP/2.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::tls::Connector;
use super::{CONNECTION_WINDOW, Carrier, Failure, STREAM_WINDOW};

type Http1 = http1::SendRequest<Incoming>;
type Http2 = http2::SendRequest<Incoming>;
type Idle = Arc<Mutex<Vec<Http1>>>;

/// The next hop.
pub(super) struct Upstream {
    address: SocketAddr,
    tls: Option<Connector>,
    carrier: Carrier,
    idle: Idle,
    shared: Mutex<Option<Http2>>,
    /// Held while the shared connection is opened, so that one request opens it and the others wait.
    opening: tokio::sync::Mutex<()>,
}

impl Upstream {
    pub(super) fn new(address: SocketAddr, tls: Option<Connector>, carrier: Carrier) -> Self {
        Self {
            address,
            tls,
            carrier,
            idle: Idle::default(),
            shared: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    pub(super) const fn carrier(&self) -> Carrier {
        self.carrier
    }

    pub(super) async fn send(&self, request: Request<Incoming>) -> Result<Response<Answer>, Failure> {
        match self.carrier {
            Carrier::Http1 | Carrier::Tcp => {
                let mut lease = Lease { sender: Some(self.http1().await?), idle: Arc::clone(&self.idle) };
                let sender = lease.sender.as_mut().expect("it was put there above");
                let response = sender.send_request(request).await?;
                Ok(response.map(|body| Answer { body, lease: Some(lease) }))
            }
            Carrier::Http2 => {
                let response = self.http2().await?.send_request(request).await?;
                Ok(response.map(|body| Answer { body, lease: None }))
            }
        }
    }

    async fn http1(&self) -> Result<Http1, Failure> {
        while let Some(mut sender) = pop(&self.idle) {
            // Not ready means that its task has yet to note the end of the last answer, or that it is closed.
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        Box::pin(self.open_http1()).await
    }

    /// Called boxed: its future has a TLS handshake in it, and requests that connect nowhere would carry it.
    async fn open_http1(&self) -> Result<Http1, Failure> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        match &self.tls {
            Some(tls) => http1_over(tls.connect(tcp).await?).await,
            None => http1_over(tcp).await,
        }
    }

    async fn http2(&self) -> Result<Http2, Failure> {
        match self.shared() {
            Some(sender) => Ok(sender),
            None => Box::pin(self.open_http2()).await,
        }
    }

    /// Called boxed, as [`Self::open_http1`] is.
    async fn open_http2(&self) -> Result<Http2, Failure> {
        let _opening = self.opening.lock().await;
        if let Some(sender) = self.shared() {
            return Ok(sender);
        }
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let sender = match &self.tls {
            Some(tls) => http2_over(tls.connect(tcp).await?).await?,
            None => http2_over(tcp).await?,
        };
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender.clone());
        Ok(sender)
    }

    fn shared(&self) -> Option<Http2> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.as_ref().filter(|sender| !sender.is_closed()).cloned()
    }
}

fn pop(idle: &Idle) -> Option<Http1> {
    idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

async fn http1_over<S>(stream: S) -> Result<Http1, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn http2_over<S>(stream: S) -> Result<Http2, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// A connection in use; it goes back to the idle ones when it is let go.
struct Lease {
    sender: Option<Http1>,
    idle: Idle,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take().filter(|sender| !sender.is_closed()) {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        }
    }
}

/// An answer's body, which lets its connection go when it ends.
pub(super) struct Answer {
    body: Incoming,
    lease: Option<Lease>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() {
            self.lease = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
