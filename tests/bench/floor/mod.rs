//! The floor: a pair of proxies that only forward, each with as little between its sockets as hyper
//! and rustls allow.
//!
//! It is the yardstick for the product, so it shares what a sidecar cannot do without (mutual TLS 1.3
//! with the same provider and options, one thread, pooled connections, HTTP/1.1 or HTTP/2 between the
//! two, or the bytes as they are) and has nothing else: no routing, no policy, no retries, no timeouts, no metrics.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use http::header::{CONNECTION, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use self::relay::Relay;
use self::upstream::{Answer, Upstream};
use crate::process::{announce, exit_when_stdin_closes};

mod relay;
mod tls;
mod upstream;

/// Large enough that 1 KiB answers and bulk alike never wait for a window.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const STREAMS: u32 = 4096;

/// What a failed forward is to hyper, which then closes the connection.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Which half of the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Half {
    /// Plain HTTP in, mutual TLS out.
    Client,
    /// Mutual TLS in, plain HTTP out.
    Server,
}

impl Half {
    /// As the command line spells it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// What the two halves speak inside TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Carrier {
    Http1,
    Http2,
    /// Whatever the client does: opaque bytes.
    Tcp,
}

impl Carrier {
    /// As the command line spells it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Tcp => "tcp",
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long, value_enum)]
    half: Half,
    #[arg(long, value_enum, default_value = "http2")]
    carrier: Carrier,
    /// Where to listen; port 0 takes a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where to forward to: the other half, or the app.
    #[arg(long)]
    to: SocketAddr,
    /// A directory with ca.pem, cert.pem and key.pem.
    #[arg(long)]
    certificates: PathBuf,
    #[arg(long, hide = true)]
    exit_on_stdin_close: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    if args.exit_on_stdin_close {
        exit_when_stdin_closes();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(serve(args))
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}; is the port taken?", args.listen))?;
    if args.carrier == Carrier::Tcp {
        let relay = Relay::new(&args)?;
        return each(listener, move |stream| relay.clone().connection(stream)).await;
    }
    let forwarder = Forwarder::new(&args)?;
    each(listener, move |stream| forwarder.clone().connection(stream)).await
}

/// Gives each connection to `carry`.
async fn each<F>(listener: TcpListener, carry: impl Fn(TcpStream) -> F) -> anyhow::Result<()>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    announce("floor", listener.local_addr()?)?;
    loop {
        // Out of descriptors or a caller that gave up: nothing that ends the floor.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let carried = carry(stream);
        tokio::spawn(async move {
            if let Err(error) = carried.await {
                eprintln!("connection: {error}");
            }
        });
    }
}

/// What every connection of this half needs.
#[derive(Clone)]
struct Forwarder {
    acceptor: Option<TlsAcceptor>,
    carrier: Carrier,
    /// The next hop of requests that the client sent in HTTP/1.1, and in HTTP/2: the app is spoken to as its
    /// client speaks, as the product does it, which says so between the halves by a preamble and the floor by
    /// ALPN.
    http1: Arc<Upstream>,
    http2: Arc<Upstream>,
}

impl Forwarder {
    fn new(args: &Args) -> anyhow::Result<Self> {
        let upstream = |app| -> anyhow::Result<Arc<Upstream>> {
            Ok(Arc::new(match args.half {
                Half::Client => {
                    Upstream::new(args.to, Some(tls::client(&args.certificates, app)?), args.carrier)
                }
                Half::Server => Upstream::new(args.to, None, app),
            }))
        };
        let (http1, http2) = (upstream(Carrier::Http1)?, upstream(Carrier::Http2)?);
        let acceptor = match args.half {
            Half::Client => None,
            Half::Server => Some(tls::server(&args.certificates)?),
        };
        Ok(Self { acceptor, carrier: args.carrier, http1, http2 })
    }

    async fn connection(self, stream: TcpStream) -> Result<(), Failure> {
        stream.set_nodelay(true)?;
        match self.acceptor.clone() {
            Some(acceptor) => {
                let stream = acceptor.accept(stream).await?;
                let upstream = match tls::app_protocol(&stream) {
                    Carrier::Http1 | Carrier::Tcp => &self.http1,
                    Carrier::Http2 => &self.http2,
                };
                requests(Arc::clone(upstream), self.carrier, stream).await
            }
            None => {
                let mut start = [0; 4];
                // A client that sends less at first is none of ours.
                stream.peek(&mut start).await?;
                match &start {
                    b"PRI " => requests(self.http2, Carrier::Http2, stream).await,
                    _ => requests(self.http1, Carrier::Http1, stream).await,
                }
            }
        }
    }
}

/// Carries what `arrives` on one connection.
async fn requests<S>(upstream: Arc<Upstream>, arrives: Carrier, stream: S) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| forward(Arc::clone(&upstream), arrives, request));
    let stream = TokioIo::new(stream);
    match arrives {
        Carrier::Http1 | Carrier::Tcp => {
            hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await?
        }
        Carrier::Http2 => {
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_concurrent_streams(STREAMS)
                .serve_connection(stream, service)
                .await?;
        }
    }
    Ok(())
}

async fn forward(
    upstream: Arc<Upstream>,
    arrives: Carrier,
    mut request: Request<Incoming>,
) -> Result<Response<Answer>, Failure> {
    // What a client wants of its connection is nothing to the next one.
    request.headers_mut().remove(CONNECTION);
    match (arrives, upstream.carrier()) {
        (Carrier::Http1, Carrier::Http2) => to_http2(&mut request)?,
        (Carrier::Http2, Carrier::Http1) => to_http1(&mut request)?,
        _ => {}
    }
    let mut response = upstream.send(request).await?;
    *response.version_mut() = Version::HTTP_11;
    Ok(response)
}

/// HTTP/2 names the authority in the URI, not in a header.
fn to_http2(request: &mut Request<Incoming>) -> Result<(), Failure> {
    let host = request.headers_mut().remove(HOST).ok_or("the request has no host")?;
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(Authority::try_from(host.as_bytes())?);
    *request.uri_mut() = Uri::from_parts(parts)?;
    *request.version_mut() = Version::HTTP_2;
    Ok(())
}

/// HTTP/1.1 names the authority in a header, not in the URI.
fn to_http1(request: &mut Request<Incoming>) -> Result<(), Failure> {
    let parts = std::mem::take(request.uri_mut()).into_parts();
    if let Some(authority) = parts.authority {
        request.headers_mut().insert(HOST, authority.as_str().try_into()?);
    }
    *request.uri_mut() = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
    *request.version_mut() = Version::HTTP_11;
    Ok(())
}
