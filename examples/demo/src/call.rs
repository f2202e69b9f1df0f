//! One HTTP request on a connection of its own, read to its end; within a time limit.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// How long a call may take if it does not say.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nothing listens there, or it cannot be reached.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The connection ended, or did not speak HTTP.
    #[error("the connection to {address} broke: {}", causes(source))]
    Broken {
        /// Who.
        address: SocketAddr,
        /// Where in the exchange.
        source: hyper::Error,
    },
    /// No whole answer in time.
    #[error("no answer from {address} within {limit:?}")]
    Timeout {
        /// Who.
        address: SocketAddr,
        /// How long it had.
        limit: Duration,
    },
    /// The request itself cannot be sent.
    #[error("the request is invalid: {0}")]
    Invalid(#[from] http::Error),
    /// The answer is not JSON of the expected form.
    #[error("{status} with a body that is not the JSON expected ({source}): {body}")]
    Json {
        /// The answer's status.
        status: StatusCode,
        /// The answer's body.
        body: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// An error and what caused it, since hyper keeps the useful half in the cause.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Call {
    method: Method,
    authority: String,
    path: String,
    version: Version,
    headers: HeaderMap,
    body: Bytes,
    timeout: Duration,
}

/// A GET of `path` from `authority`.
pub fn to(authority: &str, path: &str) -> Call {
    Call {
        method: Method::GET,
        authority: authority.to_owned(),
        path: path.to_owned(),
        version: Version::HTTP_11,
        headers: HeaderMap::new(),
        body: Bytes::new(),
        timeout: TIMEOUT,
    }
}

impl Call {
    /// With another method.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Over HTTP/2 with prior knowledge, or HTTP/1.1.
    #[must_use]
    pub fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// With one more header.
    ///
    /// # Panics
    /// If it is not a header; the callers write them as literals.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).expect("a header value from our own source");
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    /// With a body; a GET becomes a POST.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        if self.method == Method::GET {
            self.method = Method::POST;
        }
        self
    }

    /// With another time limit.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn request(self) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut builder = Request::builder().method(self.method);
        if self.version == Version::HTTP_2 {
            builder = builder.uri(format!("http://{}{}", self.authority, self.path));
        } else {
            builder = builder.uri(self.path).header(http::header::HOST, self.authority);
        }
        let mut request = builder.body(Full::new(self.body))?;
        request.headers_mut().extend(self.headers);
        Ok(request)
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its protocol.
    pub version: Version,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// What came after the body.
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// If it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        serde_json::from_slice(&self.body).map_err(|source| CallError::Json {
            status: self.status,
            body: self.text(),
            source,
        })
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What `selvedge-error` says, if a proxy made this answer itself.
    pub fn proxy_error(&self) -> Option<&str> {
        self.headers.get("selvedge-error")?.to_str().ok()
    }

    /// One line for a report: status, and the proxy's reason if it has one.
    pub fn summary(&self) -> String {
        match self.proxy_error() {
            Some(reason) => format!("{} (selvedge-error: {reason})", self.status.as_u16()),
            None => self.status.as_u16().to_string(),
        }
    }
}

/// Connects to `address`, sends `call`, and reads the whole answer.
///
/// # Errors
/// If there is none within the call's time limit.
pub async fn send(address: SocketAddr, call: Call) -> Result<Answer, CallError> {
    let limit = call.timeout;
    match tokio::time::timeout(limit, exchange(address, call)).await {
        Ok(result) => result,
        Err(_) => Err(CallError::Timeout { address, limit }),
    }
}

async fn exchange(address: SocketAddr, call: Call) -> Result<Answer, CallError> {
    let stream =
        TcpStream::connect(address).await.map_err(|source| CallError::Connect { address, source })?;
    over(stream, address, call).await
}

/// Sends `call` over `stream`, which leads to `address`, and reads the whole answer. The call's time limit is the caller's
/// to keep.
///
/// # Errors
/// If there is none.
pub async fn over<S>(stream: S, address: SocketAddr, call: Call) -> Result<Answer, CallError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let broken = |source| CallError::Broken { address, source };
    let version = call.version;
    let request = call.request()?;
    let io = TokioIo::new(stream);
    if version == Version::HTTP_2 {
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
        let (mut sender, connection) = handshake.await.map_err(broken)?;
        whole(sender.send_request(request), connection).await.map_err(broken)
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(broken)?;
        whole(sender.send_request(request), connection).await.map_err(broken)
    }
}

/// Drives the connection beside the exchange, so that no task outlives it.
async fn whole(
    response: impl Future<Output = hyper::Result<http::Response<hyper::body::Incoming>>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> hyper::Result<Answer> {
    let answer = async {
        let (parts, body) = response.await?.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned();
        let (status, version, headers) = (parts.status, parts.version, parts.headers);
        Ok(Answer { status, version, headers, body: body.to_bytes(), trailers })
    };
    let connection = async {
        // Its error, if any, comes out of the exchange as well.
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        answer = answer => answer,
        () = connection => unreachable!("pending"),
    }
}
