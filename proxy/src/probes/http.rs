//! One GET of the app, on a connection of its own.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    HeaderMap, Request, Response, Uri,
    body::Incoming,
    client::conn::http1,
    header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use selvedge_certs::{ServerName, tls::unverified_client};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};
use tokio_rustls::TlsConnector;

use super::{Failed, ProbeSettings, connect};
use crate::checks::drive;

/// How much of a failure's body is passed on.
const MAX_SAID: usize = 1024;
/// How often the app may redirect a probe to another path of its own (as for the kubelet).
const MAX_REDIRECTS: usize = 10;

/// `httpGet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HttpGet {
    /// The path, with its query.
    pub(super) path: String,
    /// Whether to use TLS. Any certificate is accepted.
    pub(super) tls: bool,
    /// `httpHeaders`.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

/// An answer whose body is still coming.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    /// The task that drives the connection. It ends when this is dropped.
    pub(super) driver: JoinSet<()>,
}

impl HttpGet {
    /// Whether the app says that it is well: 200 to 399. What `asked` does not let be asked, no redirect leads to either:
    /// our own admin port would ask the app again, and so on for ever.
    pub(super) async fn passes(
        &self,
        at: SocketAddr,
        from: &HeaderMap,
        asked: &ProbeSettings,
    ) -> Result<(), Failed> {
        let (mut get, mut at) = (self.clone(), at);
        for _ in 0..=MAX_REDIRECTS {
            let Answer { response, driver: _driver } = get.ask(at, from).await?;
            let status = response.status();
            if status.is_redirection() {
                let next = response.headers().get(LOCATION).and_then(|to| get.redirected(at, to));
                // To somebody else: the app itself is well, and the kubelet looks no further.
                let Some(next) = next else { return Ok(()) };
                (get, at) = next;
                asked.refuse_own(at)?;
                continue;
            }
            if status.is_success() {
                return Ok(());
            }
            return Err(Failed::Status { status, body: beginning(response).await });
        }
        Err(Failed::Otherwise(format!("was redirected more than {MAX_REDIRECTS} times")))
    }

    /// Asks the app; `from` is what we were asked with.
    pub(super) async fn ask(&self, at: SocketAddr, from: &HeaderMap) -> Result<Answer, Failed> {
        let stream = connect(at).await?;
        if !self.tls {
            return self.over(stream, at, from).await;
        }
        let name = ServerName::from(at.ip());
        let stream = TlsConnector::from(unverified_client()).connect(name, stream).await;
        let stream = stream.map_err(|error| Failed::Otherwise(format!("no TLS: {error}")))?;
        self.over(stream, at, from).await
    }

    async fn over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        at: SocketAddr,
        from: &HeaderMap,
    ) -> Result<Answer, Failed> {
        let broken = |error: hyper::Error| Failed::Otherwise(format!("no HTTP answer: {error}"));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let driver = drive(connection);
        let response = sender.send_request(self.request(at, from)?).await.map_err(broken)?;
        Ok(Answer { response, driver })
    }

    fn request(&self, at: SocketAddr, from: &HeaderMap) -> Result<Request<Empty<Bytes>>, Failed> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() =
            self.path.parse().map_err(|_| Failed::Otherwise(format!("{:?} is not a path", self.path)))?;
        let headers = request.headers_mut();
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        let host = || HeaderValue::from_str(&at.to_string()).ok();
        if let Some(host) = host().filter(|_| !headers.contains_key(HOST)) {
            headers.insert(HOST, host);
        }
        let agent = from.get(USER_AGENT).filter(|agent| is_prober(agent)).cloned();
        let agent = agent.unwrap_or_else(|| HeaderValue::from_static(super::USER_AGENT));
        headers.entry(USER_AGENT).or_insert(agent);
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        Ok(request)
    }

    /// Where the app at `at` sends the request on to, if that is the app itself.
    fn redirected(&self, at: SocketAddr, to: &HeaderValue) -> Option<(Self, SocketAddr)> {
        let to = to.to_str().ok()?;
        let mut next = self.clone();
        if to.starts_with('/') && !to.starts_with("//") {
            to.clone_into(&mut next.path);
            return Some((next, at));
        }
        let uri: Uri = match to.strip_prefix("//") {
            Some(rest) => format!("{}://{rest}", if self.tls { "https" } else { "http" }).parse().ok()?,
            None if to.contains("://") => to.parse().ok()?,
            None => {
                let path = self.path.split('?').next().unwrap_or_default();
                let directory = path.rfind('/').map_or("/", |slash| &path[..=slash]);
                next.path = format!("{directory}{to}");
                return Some((next, at));
            }
        };
        let host = uri.host()?.trim_matches(['[', ']']);
        if host.parse() != Ok(at.ip()) {
            return None;
        }
        next.tls = uri.scheme_str() == Some("https");
        next.path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let port = uri.port_u16().unwrap_or(if next.tls { 443 } else { 80 });
        Some((next, SocketAddr::new(at.ip(), port)))
    }
}

/// Whether somebody names himself as the kubelet or Prometheus does: what else a caller says of himself is not
/// passed on.
fn is_prober(agent: &HeaderValue) -> bool {
    let short = agent.to_str().ok().filter(|agent| agent.len() <= 64);
    short.is_some_and(|agent| {
        ["kube-probe/", "Prometheus/"].iter().any(|known| agent.starts_with(known))
            && agent.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/.+-~".contains(&byte))
    })
}

/// The beginning of a body.
async fn beginning(response: Response<Incoming>) -> String {
    let mut body = Limited::new(response.into_body(), MAX_SAID);
    let mut said = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        said.extend(frame.into_data().unwrap_or_default());
    }
    String::from_utf8_lossy(&said).into_owned()
}
