//! One message to the collector, over gRPC or HTTP.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

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
use selvedge_ops::Resolver;
use tokio::{net::TcpStream, time::timeout};
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

/// The way to the collector.
#[derive(Debug)]
pub(super) struct Link {
    collector: Collector,
    protocol: Protocol,
    resolver: Arc<Resolver>,
    /// gRPC's connection, as long as it works.
    channel: Option<Channel>,
}

impl Link {
    pub(super) fn new(collector: Collector, protocol: Protocol, resolver: Arc<Resolver>) -> Self {
        Self { collector, protocol, resolver, channel: None }
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
            None => self.channel.insert(self.connect().await?).clone(),
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

    async fn connect(&self) -> Result<Channel, SendError> {
        let mut ready = Some(TokioIo::new(self.stream().await?));
        let once = tower::service_fn(move |_| {
            let stream = ready.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
            std::future::ready(stream)
        });
        let authority = self.collector.authority(self.protocol);
        let endpoint = Endpoint::from_shared(format!("http://{authority}"))
            .map_err(|error| again("no connection", error.to_string()))?;
        endpoint.connect_with_connector(once).await.map_err(|error| again("no connection", error.to_string()))
    }

    async fn by_http(&self, parcel: &Parcel) -> Result<u64, SendError> {
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

    /// A connection to the first of its addresses that takes one.
    async fn stream(&self) -> Result<TcpStream, SendError> {
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

/// What may be sent again.
fn again(kind: &str, what: String) -> SendError {
    SendError { what, kind: kind.to_owned(), is_final: false }
}
