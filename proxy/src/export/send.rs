//! One message to the collector, over gRPC or HTTP.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use prost::Message;
use selvedge_api::otlp::{
    logs::v1::{
        ExportLogsServiceRequest, ExportLogsServiceResponse, LogRecord, ResourceLogs, ScopeLogs,
        logs_service_client::LogsServiceClient,
    },
    trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse, PartialSuccess, ResourceSpans, ScopeSpans,
        Span, trace_service_client::TraceServiceClient,
    },
};
use selvedge_certs::tls::{ALPN_HTTP2, Outside, OutsideError, explain_outside};
use selvedge_model::{TlsOrigination, Trusted};
use selvedge_ops::Resolver;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, rustls};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use super::{Collector, Protocol, otlp};
use crate::checks::drive;

/// For one message, connecting included.
const LIMIT: Duration = Duration::from_secs(10);
/// For one of its addresses, so that there is time for others.
const ADDRESS_LIMIT: Duration = Duration::from_secs(2);
/// The longest answer that is read, in bytes.
const LONGEST_ANSWER: usize = 64 << 10;

/// What is sent at once.
#[derive(Debug, Clone)]
pub(super) enum Parcel {
    Spans(ExportTraceServiceRequest),
    Lines(ExportLogsServiceRequest),
}

/// Why something was not taken.
#[derive(Debug)]
pub(super) struct SendError {
    pub(super) what: String,
    /// The same without what differs each time, such as an address.
    pub(super) kind: String,
    /// It would not be taken if it were sent again.
    pub(super) is_final: bool,
}

impl Parcel {
    pub(super) fn spans(resource: otlp::Resource, spans: Vec<Span>) -> Self {
        let scope_spans = vec![ScopeSpans { scope: Some(otlp::scope()), spans }];
        let spans =
            ResourceSpans { resource: Some(resource), scope_spans, schema_url: otlp::SCHEMA.to_owned() };
        Self::Spans(ExportTraceServiceRequest { resource_spans: vec![spans] })
    }

    pub(super) fn lines(resource: otlp::Resource, log_records: Vec<LogRecord>) -> Self {
        let scope_logs = vec![ScopeLogs { scope: Some(otlp::scope()), log_records }];
        Self::Lines(ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs { resource: Some(resource), scope_logs }],
        })
    }

    /// How many spans, and how many lines.
    pub(super) fn counts(&self) -> (u64, u64) {
        match self {
            Self::Spans(request) => {
                let scopes = request.resource_spans.iter().flat_map(|spans| &spans.scope_spans);
                (scopes.map(|scope| scope.spans.len() as u64).sum(), 0)
            }
            Self::Lines(request) => {
                let scopes = request.resource_logs.iter().flat_map(|logs| &logs.scope_logs);
                (0, scopes.map(|scope| scope.log_records.len() as u64).sum())
            }
        }
    }

    fn path(&self) -> &'static str {
        match self {
            Self::Spans(_) => "/v1/traces",
            Self::Lines(_) => "/v1/logs",
        }
    }

    fn encoded(&self) -> Bytes {
        match self {
            Self::Spans(request) => request.encode_to_vec().into(),
            Self::Lines(request) => request.encode_to_vec().into(),
        }
    }

    /// How many of it `answer` says were rejected. What cannot be read says nothing.
    fn rejected(&self, answer: Bytes) -> u64 {
        let partial = match self {
            Self::Spans(_) => {
                ExportTraceServiceResponse::decode(answer).ok().and_then(|it| it.partial_success)
            }
            Self::Lines(_) => {
                ExportLogsServiceResponse::decode(answer).ok().and_then(|it| it.partial_success)
            }
        };
        rejected(partial)
    }
}

fn rejected(partial: Option<PartialSuccess>) -> u64 {
    partial.map_or(0, |partial| u64::try_from(partial.rejected).unwrap_or_default())
}

/// What carries messages: TCP, or TLS over it.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Whom a collector's certificate has to be from.
#[derive(Debug)]
struct Trust {
    settings: TlsOrigination,
    /// What connections are made with, until a certificate is not believed: then a file may have been replaced, and is read
    /// again.
    ready: Option<Outside>,
}

/// The way to the collector.
#[derive(Debug)]
pub(super) struct Link {
    collector: Collector,
    protocol: Protocol,
    resolver: Arc<Resolver>,
    /// `None`: it is spoken to without TLS.
    trust: Option<Trust>,
    /// gRPC's connection, as long as it works.
    channel: Option<Channel>,
}

impl Link {
    /// The way to `collector`. Where that is spoken to over TLS, its certificate has to be from an authority in `ca_file`, or
    /// from one of the system's.
    pub(super) fn new(
        collector: Collector,
        protocol: Protocol,
        resolver: Arc<Resolver>,
        ca_file: Option<PathBuf>,
    ) -> Self {
        let trusted = ca_file.map_or(Trusted::System, |path| Trusted::File(path.display().to_string()));
        let settings = TlsOrigination { trusted, ..TlsOrigination::default() };
        let trust = collector.is_tls().then_some(Trust { settings, ready: None });
        Self { collector, protocol, resolver, trust, channel: None }
    }

    /// Sends it. Returns how many were rejected.
    pub(super) async fn send(&mut self, parcel: &Parcel) -> Result<u64, SendError> {
        let sending = async {
            match self.protocol {
                Protocol::Grpc => self.by_grpc(parcel).await,
                Protocol::Http => self.by_http(parcel).await,
            }
        };
        let sent = timeout(LIMIT, sending).await;
        let sent =
            sent.unwrap_or_else(|_| Err(again("too slow", format!("it has not answered within {LIMIT:?}"))));
        sent.map_err(|error| {
            self.channel = None;
            SendError { what: format!("{}: {}", self.collector, error.what), ..error }
        })
    }

    async fn by_grpc(&mut self, parcel: &Parcel) -> Result<u64, SendError> {
        let channel = match &self.channel {
            Some(channel) => channel.clone(),
            None => {
                let made = self.connect().await?;
                self.channel.insert(made).clone()
            }
        };
        let refused = |status: tonic::Status| SendError {
            what: format!("{:?}: {}", status.code(), status.message()),
            kind: format!("{:?}", status.code()),
            is_final: matches!(
                status.code(),
                Code::InvalidArgument | Code::Unimplemented | Code::Unauthenticated | Code::PermissionDenied
            ),
        };
        let partial = match parcel {
            Parcel::Spans(request) => {
                let answer = TraceServiceClient::new(channel).export(request.clone()).await;
                answer.map_err(refused)?.into_inner().partial_success
            }
            Parcel::Lines(request) => {
                let answer = LogsServiceClient::new(channel).export(request.clone()).await;
                answer.map_err(refused)?.into_inner().partial_success
            }
        };
        Ok(rejected(partial))
    }

    async fn connect(&mut self) -> Result<Channel, SendError> {
        let mut ready = Some(TokioIo::new(self.stream().await?));
        let once = tower::service_fn(move |_| {
            let stream = ready.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
            std::future::ready(stream)
        });
        let authority = self.collector.authority(self.protocol);
        // The stream that it is given speaks TLS already, if anybody is to.
        let endpoint = Endpoint::from_shared(format!("http://{authority}"))
            .map_err(|error| again("no connection", error.to_string()))?;
        let origin = format!("{}://{authority}", self.collector.scheme()).parse::<http::Uri>();
        let endpoint = match origin {
            Ok(origin) => endpoint.origin(origin),
            Err(_) => endpoint,
        };
        endpoint.connect_with_connector(once).await.map_err(|error| again("no connection", error.to_string()))
    }

    async fn by_http(&mut self, parcel: &Parcel) -> Result<u64, SendError> {
        let stream = TokioIo::new(self.stream().await?);
        let handshake = hyper::client::conn::http1::handshake(stream).await;
        let (mut sender, connection) =
            handshake.map_err(|error| again("no connection", error.to_string()))?;
        let _driver = drive(connection);
        let request = http::Request::post(format!("{}{}", self.collector.path(), parcel.path()))
            .header(HOST, self.collector.authority(self.protocol))
            .header(CONTENT_TYPE, "application/x-protobuf")
            .body(Full::new(parcel.encoded()))
            .map_err(|error| SendError { is_final: true, ..again("no connection", error.to_string()) })?;
        let answer =
            sender.send_request(request).await.map_err(|error| again("no connection", error.to_string()))?;
        let status = answer.status();
        if !status.is_success() {
            let is_final = status.is_client_error() && !matches!(status.as_u16(), 408 | 429);
            let (what, kind) = (format!("it answers {status}"), status.to_string());
            return Err(SendError { what, kind, is_final });
        }
        let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await;
        Ok(body.map_or(0, |body| parcel.rejected(body.to_bytes())))
    }

    /// A connection to it, over TLS if that is asked for.
    async fn stream(&mut self) -> Result<Box<dyn Stream>, SendError> {
        let tcp = self.tcp().await?;
        let Some(trust) = &mut self.trust else { return Ok(Box::new(tcp)) };
        let ready = match trust.ready.take() {
            Some(ready) => ready,
            None => trust.load(self.collector.host()).await?,
        };
        let ready = trust.ready.insert(ready);
        let config = match self.protocol {
            Protocol::Grpc => &ready.http2,
            Protocol::Http => &ready.http1,
        };
        let connecting = TlsConnector::from(Arc::clone(config)).connect(ready.server_name.clone(), tcp).await;
        let stream = match connecting {
            Ok(stream) => stream,
            Err(error) => {
                let what = no_tls(&error, &trust.settings, ready);
                if is_doubt(&error) {
                    trust.ready = None;
                }
                return Err(again("no TLS", what));
            }
        };
        if self.protocol == Protocol::Grpc && stream.get_ref().1.alpn_protocol() != Some(ALPN_HTTP2) {
            let what = "it does not offer HTTP/2 over TLS (ALPN h2), which gRPC needs; set --otlp-protocol http if it speaks that";
            return Err(again("no TLS", what.to_owned()));
        }
        Ok(Box::new(stream))
    }

    /// A connection to the first of its addresses that takes one.
    async fn tcp(&self) -> Result<TcpStream, SendError> {
        let found = self.resolver.all_addresses(self.collector.host()).await;
        let found = found.map_err(|error| again("no name", format!("its name {error}")))?;
        let mut last = "its name has no address".to_owned();
        for ip in found.addresses {
            let address = SocketAddr::new(ip, self.collector.port(self.protocol));
            match timeout(ADDRESS_LIMIT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Without it a message is only sent later.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = format!("{address}: {error}"),
                Err(_) => last = format!("{address}: it does not answer within {ADDRESS_LIMIT:?}"),
            }
        }
        Err(again("no connection", last))
    }
}

impl Trust {
    /// Reads whom to trust. Not on this thread, which has more to do: a system has some hundred authorities.
    async fn load(&self, host: &str) -> Result<Outside, SendError> {
        let (settings, host) = (self.settings.clone(), host.to_owned());
        let loaded = tokio::task::spawn_blocking(move || Outside::load(&settings, &host)).await;
        let loaded = loaded.map_err(|error| again("no TLS", error.to_string()))?;
        loaded.map_err(|error| again("no TLS", not_loaded(error)))
    }
}

/// Why nobody can be trusted, in the words of the settings of collectors.
fn not_loaded(error: OutsideError) -> String {
    let named = |path: &Path| format!("--otlp-ca-file {}", path.display());
    match error {
        OutsideError::Read { path, source, .. } => format!("{} cannot be read: {source}", named(&path)),
        OutsideError::Empty { path, what, .. } => format!("{} has no {what} in PEM form", named(&path)),
        OutsideError::NoSystemRoots { reason } => format!(
            "this system has no certificate authorities of its own{reason}; set --otlp-ca-file, or mount them and set SSL_CERT_FILE"
        ),
        other => other.to_string(),
    }
}

/// Whether the collector's certificate was not believed. What else fails says nothing about whom to trust.
fn is_doubt(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}

/// Why there is no TLS with a collector.
fn no_tls(error: &io::Error, settings: &TlsOrigination, outside: &Outside) -> String {
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::AlertReceived(alert)) => format!(
            "it ended the TLS handshake with the alert {alert:?}; it may want a client certificate, which no proxy shows to a collector"
        ),
        _ => format!("no TLS with it: {}", explain_outside(error, settings, outside)),
    }
}

/// What may be sent again.
fn again(kind: &str, what: String) -> SendError {
    SendError { what, kind: kind.to_owned(), is_final: false }
}

#[cfg(test)]
mod tests;
