//! One fetch: a key set, or an issuer's configuration and then the key set that it names.
//!
//! Each URL on the way has its host resolved, and its addresses checked, here: what was checked is what is connected to.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use selvedge_certs::{
    tls::{Outside, explain_outside},
    token::KeySet,
};
use selvedge_model::{TlsOrigination, token::LONGEST_KEY_SET};
use selvedge_ops::Resolver;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{error::FetchError, refused::refused};
use crate::resources::{BadUrl, KeyAddress, key_url};

/// How many redirects are followed.
const MOST_REDIRECTS: usize = 5;
/// The longest OpenID configuration, in bytes.
const LONGEST_CONFIGURATION: usize = 64 * 1024;
/// The longest head of an answer, in bytes.
const LONGEST_HEAD: usize = 64 * 1024;
/// How long one of a host's addresses may keep the next one waiting.
const CONNECT: Duration = Duration::from_secs(2);
const USER_AGENT: &str = concat!("selvedge-control-plane/", env!("CARGO_PKG_VERSION"));

/// Fetches keys.
#[derive(Debug)]
pub(super) struct Fetcher {
    pub(super) resolver: Resolver,
    /// Whether loopback is asked.
    pub(super) may_be_loopback: bool,
    /// Whom servers must prove themselves by.
    pub(super) tls: TlsOrigination,
}

/// What an issuer says of itself (OpenID Connect Discovery 1.0, section 3), as far as it matters here.
#[derive(Debug, Deserialize)]
struct Configuration {
    issuer: Option<String>,
    jwks_uri: String,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Fetcher {
    /// The key set at `address`, all within `limit`.
    ///
    /// # Errors
    /// If there is none, or it cannot be used.
    pub(super) async fn keys(&self, address: &KeyAddress, limit: Duration) -> Result<Arc<str>, FetchError> {
        match timeout(limit, self.keys_at(address)).await {
            Ok(fetched) => fetched,
            Err(_) => Err(FetchError::Timeout(limit)),
        }
    }

    async fn keys_at(&self, address: &KeyAddress) -> Result<Arc<str>, FetchError> {
        let uri = if address.is_issuer { self.named_by(&address.url).await? } else { key_url(&address.url)? };
        let text = self.text(uri, LONGEST_KEY_SET).await?.ok_or(FetchError::NotKeys)?;
        KeySet::read(&text)?;
        Ok(Arc::from(text))
    }

    /// Where the keys of `issuer` are, as it says itself.
    async fn named_by(&self, issuer: &str) -> Result<Uri, FetchError> {
        let issuer = issuer.trim_end_matches('/');
        let uri = key_url(&format!("{issuer}/.well-known/openid-configuration"))?;
        let is_https = is_https(&uri);
        let text = self.text(uri, LONGEST_CONFIGURATION).await?.ok_or(FetchError::NotConfiguration)?;
        let Configuration { issuer: named, jwks_uri } =
            serde_json::from_str(&text).map_err(|_| FetchError::NotConfiguration)?;
        if named.is_some_and(|named| named.trim_end_matches('/') != issuer) {
            return Err(FetchError::OtherIssuer);
        }
        let uri = key_url(&jwks_uri).map_err(FetchError::JwksUri)?;
        if is_https && !self::is_https(&uri) { Err(FetchError::Downgrade) } else { Ok(uri) }
    }

    /// The document at `uri`, or where that leads; `None` if it is not text.
    async fn text(&self, mut uri: Uri, longest: usize) -> Result<Option<String>, FetchError> {
        for _ in 0..=MOST_REDIRECTS {
            let answer = self.answer(&uri).await?;
            match answer.status().as_u16() {
                200 => return Ok(String::from_utf8(body(answer, longest).await?).ok()),
                301 | 302 | 303 | 307 | 308 => uri = redirected(&uri, &answer)?,
                _ => return Err(FetchError::Status(answer.status())),
            }
        }
        Err(FetchError::Redirects(MOST_REDIRECTS))
    }

    async fn answer(&self, uri: &Uri) -> Result<Response<Incoming>, FetchError> {
        let stream = self.connected(uri).await?;
        let handshake =
            http1::Builder::new().max_buf_size(LONGEST_HEAD).handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let request = Request::get(path)
            .header(header::HOST, authority)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::CONNECTION, HeaderValue::from_static("close"))
            .body(Empty::<Bytes>::new())
            .map_err(|_| FetchError::Url(BadUrl::NotAUrl))?;
        // It ends with the answer's body, or when that is dropped.
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?)
    }

    async fn connected(&self, uri: &Uri) -> Result<Box<dyn Stream>, FetchError> {
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_https = is_https(uri);
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let tcp = self.tcp(host, port).await?;
        if !is_https {
            return Ok(Box::new(tcp));
        }
        let (name, settings) = (host.to_owned(), self.tls.clone());
        // Reads the authorities from disk: they may have changed.
        let outside = tokio::task::spawn_blocking(move || Outside::load(&settings, &name));
        let outside = outside.await.map_err(|_| FetchError::BrokeOff)??;
        let connector = TlsConnector::from(Arc::clone(&outside.http1));
        let tls = connector.connect(outside.server_name.clone(), tcp).await;
        let tls = tls.map_err(|error| FetchError::Handshake(explain_outside(&error, &self.tls, &outside)))?;
        Ok(Box::new(tls))
    }

    /// A connection to the first address of `host` that may be asked and takes it.
    async fn tcp(&self, host: &str, port: u16) -> Result<TcpStream, FetchError> {
        let mut failed = None;
        for address in self.resolver.all_addresses(host).await?.addresses {
            match self.tcp_to(address, port).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.unwrap_or(FetchError::BrokeOff))
    }

    async fn tcp_to(&self, address: IpAddr, port: u16) -> Result<TcpStream, FetchError> {
        if let Some(why) = refused(address, self.may_be_loopback) {
            return Err(FetchError::Refused { address, why });
        }
        let connected = match timeout(CONNECT, TcpStream::connect((address, port))).await {
            Ok(connected) => connected,
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        };
        connected.map_err(|source| FetchError::Connect { address, source })
    }
}

fn is_https(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

/// Where `answer`, to a request for `from`, leads.
fn redirected<B>(from: &Uri, answer: &Response<B>) -> Result<Uri, FetchError> {
    let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let location = location.filter(|location| !location.is_empty()).ok_or(FetchError::Nowhere)?;
    let scheme = from.scheme_str().unwrap_or("https");
    let authority = from.authority().map_or("", |authority| authority.as_str());
    // Of the relative ones, those that servers send: another host, or a path from the root.
    let absolute = match location {
        rest if rest.starts_with("//") => format!("{scheme}:{rest}"),
        path if path.starts_with('/') => format!("{scheme}://{authority}{path}"),
        absolute => absolute.to_owned(),
    };
    let to = key_url(&absolute).map_err(FetchError::Redirect)?;
    if is_https(from) && !is_https(&to) { Err(FetchError::Downgrade) } else { Ok(to) }
}

async fn body(answer: Response<Incoming>, longest: usize) -> Result<Vec<u8>, FetchError> {
    match Limited::new(answer.into_body(), longest).collect().await {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLong(longest)),
        Err(_) => Err(FetchError::BrokeOff),
    }
}
