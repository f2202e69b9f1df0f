//! A collector of OpenTelemetry's that keeps what it is sent, over gRPC and over HTTP.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use hyper::server::conn::{http1, http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use prost::Message as _;
use selvedge_api::otlp::{
    logs::v1::{
        ExportLogsServiceRequest, ExportLogsServiceResponse,
        logs_service_server::{LogsService, LogsServiceServer},
    },
    trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse, KeyValue, Resource,
        any_value::Value,
        status::StatusCode as Outcome,
        trace_service_server::{TraceService, TraceServiceServer},
    },
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, service::Routes, transport::Server};

/// Attributes, by name.
pub type Attributes = BTreeMap<String, String>;

/// A span, as the collector was told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenSpan {
    /// The trace's id in hexadecimal.
    pub trace: String,
    /// The span's.
    pub id: String,
    /// That of the span that it is in; empty: none.
    pub parent: String,
    /// What it is called.
    pub name: String,
    /// 1 = internal, 2 = server, 3 = client.
    pub kind: i32,
    /// How long it took, in nanoseconds.
    pub nanos: u64,
    /// Whether it failed.
    pub is_error: bool,
    /// What is said of it.
    pub attributes: Attributes,
    /// What is said of who tells it.
    pub resource: Attributes,
}

/// A line of a log, as the collector was told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenLine {
    /// The trace that it belongs to; empty: none.
    pub trace: String,
    /// Its text.
    pub body: String,
    /// What is said of it.
    pub attributes: Attributes,
    /// What is said of who tells it.
    pub resource: Attributes,
}

#[derive(Debug, Default)]
struct Seen {
    spans: Vec<SeenSpan>,
    lines: Vec<SeenLine>,
    messages: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Collector {
    /// Where it speaks gRPC.
    pub grpc: SocketAddr,
    /// Where it speaks HTTP.
    pub http: SocketAddr,
    seen: Shared,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Clone, Default)]
struct Shared(Arc<Mutex<Seen>>);

impl Collector {
    /// Starts one on ports of its own.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start() -> Self {
        let seen = Shared::default();
        let mut tasks = JoinSet::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let grpc = listener.local_addr().expect("its address");
        let server = Server::builder()
            .add_service(TraceServiceServer::new(seen.clone()))
            .add_service(LogsServiceServer::new(seen.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tasks.spawn(async move { server.await.expect("it serves") });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let http = listener.local_addr().expect("its address");
        let router = seen.by_http();
        tasks.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { grpc, http, seen, _tasks: tasks }
    }

    /// Starts one that speaks TLS alone, as `config` says but for the protocols that it offers.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start_over_tls(config: ServerConfig) -> Self {
        let seen = Shared::default();
        let mut tasks = JoinSet::new();
        let grpc = over_tls(&mut tasks, seen.by_grpc(), &config, b"h2").await;
        let http = over_tls(&mut tasks, seen.by_http(), &config, b"http/1.1").await;
        Self { grpc, http, seen, _tasks: tasks }
    }

    /// The spans that it was told of.
    pub fn spans(&self) -> Vec<SeenSpan> {
        self.seen.lock().spans.clone()
    }

    /// The lines that it was told of.
    pub fn lines(&self) -> Vec<SeenLine> {
        self.seen.lock().lines.clone()
    }

    /// How many messages it was sent.
    pub fn messages(&self) -> usize {
        self.seen.lock().messages
    }
}

/// Serves `router` over TLS with this protocol alone. Returns where.
async fn over_tls(
    tasks: &mut JoinSet<()>,
    router: Router,
    config: &ServerConfig,
    protocol: &'static [u8],
) -> SocketAddr {
    let mut config = config.clone();
    config.alpn_protocols = vec![protocol.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    tasks.spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.expect("it listens");
            let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
            tokio::spawn(async move {
                // Whoever does not believe it, or leaves, is of no interest.
                let Ok(stream) = acceptor.accept(tcp).await else { return };
                let stream = TokioIo::new(stream);
                let _ = match protocol {
                    b"h2" => {
                        http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await
                    }
                    _ => http1::Builder::new().serve_connection(stream, service).await,
                };
            });
        }
    });
    address
}

impl Shared {
    fn by_grpc(&self) -> Router {
        let routes = Routes::new(TraceServiceServer::new(self.clone()));
        routes.add_service(LogsServiceServer::new(self.clone())).prepare().into_axum_router()
    }

    fn by_http(&self) -> Router {
        Router::new().route("/v1/traces", post(traces)).route("/v1/logs", post(logs)).with_state(self.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_spans(&self, request: ExportTraceServiceRequest) {
        let mut seen = self.lock();
        seen.messages += 1;
        for of_resource in request.resource_spans {
            let resource = of(of_resource.resource);
            for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                seen.spans.push(SeenSpan {
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    kind: span.kind,
                    nanos: span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
                    is_error: span.status.is_some_and(|status| status.code == i32::from(Outcome::Error)),
                    name: span.name,
                    attributes: named(span.attributes),
                    resource: resource.clone(),
                });
            }
        }
    }

    fn take_lines(&self, request: ExportLogsServiceRequest) {
        let mut seen = self.lock();
        seen.messages += 1;
        for of_resource in request.resource_logs {
            let resource = of(of_resource.resource);
            for line in of_resource.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
                seen.lines.push(SeenLine {
                    trace: hex(&line.trace_id),
                    body: line.body.map(|body| text(body.value)).unwrap_or_default(),
                    attributes: named(line.attributes),
                    resource: resource.clone(),
                });
            }
        }
    }
}

#[tonic::async_trait]
impl TraceService for Shared {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take_spans(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Shared {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.take_lines(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

async fn traces(State(seen): State<Shared>, body: Bytes) -> Result<Vec<u8>, StatusCode> {
    let request = ExportTraceServiceRequest::decode(body).map_err(|_| StatusCode::BAD_REQUEST)?;
    seen.take_spans(request);
    Ok(ExportTraceServiceResponse::default().encode_to_vec())
}

async fn logs(State(seen): State<Shared>, body: Bytes) -> Result<Vec<u8>, StatusCode> {
    let request = ExportLogsServiceRequest::decode(body).map_err(|_| StatusCode::BAD_REQUEST)?;
    seen.take_lines(request);
    Ok(ExportLogsServiceResponse::default().encode_to_vec())
}

fn of(resource: Option<Resource>) -> Attributes {
    resource.map(|resource| named(resource.attributes)).unwrap_or_default()
}

fn named(attributes: Vec<KeyValue>) -> Attributes {
    let attribute = |one: KeyValue| (one.key, one.value.map(|value| text(value.value)).unwrap_or_default());
    attributes.into_iter().map(attribute).collect()
}

fn text(value: Option<Value>) -> String {
    match value {
        None => String::new(),
        Some(Value::StringValue(text)) => text,
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) => value.to_string(),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String grows");
        text
    })
}
