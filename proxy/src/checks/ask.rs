//! One question to one endpoint outside the mesh, on a connection of its own.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use selvedge_api::wire::Carrier;
use selvedge_model::{HealthCheck, HealthQuestion};
use tokio::{net::TcpStream, time::timeout};
use tonic::client::Grpc;

use super::{drive, grpc};
use crate::{
    bind::{ClientTls, Egress, Permit, Target},
    io::Stream,
    settings::{OwnListeners, Way},
};

/// How we name ourselves.
const USER_AGENT: HeaderValue = HeaderValue::from_static("selvedge-health-check");

/// What is asked of whom.
#[derive(Debug)]
pub(super) struct Asked {
    /// The endpoint.
    pub(super) target: Arc<Target>,
    /// What, and how often.
    pub(super) check: HealthCheck,
    /// The host that requests call there.
    pub(super) host: Arc<str>,
    /// Where it is asked.
    pub(super) dial: SocketAddr,
    /// Whether network policies let us ask there; `None`: they are not asked.
    pub(super) permit: Option<Arc<Permit>>,
    /// Our own listeners, which are no endpoint.
    pub(super) own: Arc<OwnListeners>,
}

impl Asked {
    /// `target` is to be asked this.
    pub(super) fn new(
        target: &Arc<Target>,
        check: &HealthCheck,
        host: &Arc<str>,
        own: &Arc<OwnListeners>,
        egress: &Egress,
    ) -> Self {
        let (dial, permit) = match check.port {
            None => (target.dial, target.permit.clone()),
            Some(port) => {
                let dial = SocketAddr::new(target.dial.ip(), port);
                (dial, Some(egress.permit(dial, dial, None)))
            }
        };
        let (target, host, own) = (Arc::clone(target), Arc::clone(host), Arc::clone(own));
        Self { target, check: check.clone(), host, dial, permit, own }
    }

    /// Asks once; an error says why the answer is bad.
    pub(super) async fn ask(&self) -> Result<(), String> {
        let limit = self.check.timeout;
        let asking = async {
            match &self.check.question {
                HealthQuestion::Tcp => self.open(Carrier::Tcp).await.map(drop),
                HealthQuestion::Http { path, host, statuses } => {
                    let status = self.get(path, self.host(host.as_deref())).await?;
                    let is_good = |(first, last): &(u16, u16)| (*first..=*last).contains(&status.as_u16());
                    let bad = || format!("answered GET {path} with {status}");
                    statuses.iter().any(is_good).then_some(()).ok_or_else(bad)
                }
                HealthQuestion::Grpc { host, service } => {
                    self.call(service, &self.host(host.as_deref())).await
                }
            }
        };
        timeout(limit, asking).await.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
    }

    /// The host that is named to it.
    fn host<'a>(&'a self, said: Option<&'a str>) -> String {
        let host = said.unwrap_or(&self.host);
        // A wildcard is no name: what is there is asked as itself.
        if host.starts_with('*') { self.target.dial.to_string() } else { host.to_owned() }
    }

    async fn open(&self, carrier: Carrier) -> Result<Stream, String> {
        let dial = self.dial;
        self.own.refuse_own(dial, Way::Out).map_err(|failure| failure.what.into_owned())?;
        if let Some(failure) = self.permit.as_ref().and_then(|permit| permit.refusal()) {
            return Err(failure.what.into_owned());
        }
        let failed = |error: std::io::Error| format!("no connection to {dial}: {error}");
        let tcp = TcpStream::connect(dial).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        match &self.target.tls {
            ClientTls::Outside(outside) => {
                let stream = outside.connect(tcp, carrier).await;
                Ok(Stream::Tls(Box::new(stream.map_err(|failure| failure.what.into_owned())?)))
            }
            ClientTls::ByIdentity | ClientTls::Impossible => Ok(Stream::Plain(tcp)),
        }
    }

    async fn get(&self, path: &str, host: String) -> Result<StatusCode, String> {
        let broken = |error: hyper::Error| format!("no HTTP answer: {error}");
        let stream = self.open(Carrier::Http1).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let _driver = drive(connection);
        let request = Request::get(path)
            .header(header::HOST, host)
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::ACCEPT, "*/*")
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new());
        let request = request.map_err(|error| error.to_string())?;
        Ok(sender.send_request(request).await.map_err(broken)?.status())
    }

    async fn call(&self, service: &str, host: &str) -> Result<(), String> {
        let broken = |error: hyper::Error| format!("no HTTP/2: {error}");
        let stream = self.open(Carrier::Http2).await?;
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(broken)?;
        let _driver = drive(connection);
        let scheme = if self.target.is_tls_outside() { "https" } else { "http" };
        let origin = format!("{scheme}://{host}").parse().map_err(|_| format!("{host:?} is not a host"))?;
        let service_of = tower::service_fn(move |request| {
            let mut sender = sender.clone();
            async move {
                sender.ready().await?;
                sender.send_request(request).await
            }
        });
        grpc::serving(Grpc::with_origin(service_of, origin), service).await
    }
}
