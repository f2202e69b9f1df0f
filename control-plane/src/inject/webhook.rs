//! The port that the API server calls: `/inject` for pods, `/validate` for documents.
//!
//! Its certificate is issued by our own CA, for the name of our Service; the API server gets that CA as `caBundle`. If a
//! namespace is not known yet, the webhook waits for it, because a pod may come directly after its namespace. If it is
//! still unknown then, the webhook fails, and its `failurePolicy` decides.
//!
//! Every client that reaches the port is answered, unless `--webhook-client-ca` says whom to trust. So an answer changes
//! nothing by itself, and there are limits for what one caller can hold or keep busy.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{ConnectInfo, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use selvedge_certs::{
    DnsName, ServerName,
    tls::{ClientCa, ClientCaError},
};
use selvedge_ops::{
    Drain, http1,
    listen::{self, ListenError},
    seated::{Patience, Reading},
    shares::Shares,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    Decision, InjectionSettings, NamespaceFacts,
    bodies::{Bodies, BodyError, Room},
    decide,
    review::{Answer, Request, Review},
    settings::service_name,
    validate::{Verdict, validate},
};
use crate::{
    compile,
    resources::Resources,
    serve::{
        connection::{Accepted, ConnectionTimeouts, Port},
        own::{OwnCertificate, OwnError, OwnIssuing},
    },
    sources::Loaded,
    status::Problems,
};

/// What is expected of the API server, and of whoever comes in its stead.
const PATIENCE: Patience = Patience {
    reading: Reading::Requests { head: Duration::from_secs(2), idle: Duration::from_secs(90) },
    writing: Duration::from_secs(10),
    bytes: u64::MAX,
};
/// Documents that are checked at once; each takes as long as compiling the mesh.
const CHECKS: usize = 2;
/// Of them those that one address has or waits for next. An API server has one address; whoever else reaches the port, others.
const CHECKS_OF_ONE: usize = 2;
/// Connections that were accepted and wait to be served.
const WAITING: usize = 64;
/// How long we go on when we should end: until then the API server may not know that it should call another.
const LINGER: Duration = Duration::from_secs(3);
/// How long a namespace is waited for; the API server waits for us 10 s.
const NAMESPACE_WAIT: Duration = Duration::from_secs(3);

/// The settings of the port.
#[derive(Debug, Clone, clap::Args)]
pub struct WebhookArgs {
    /// Where the webhooks listen, as IP:PORT. The API server calls them over HTTPS to inject sidecars and to check
    /// documents.
    #[arg(long, env = "SELVEDGE_WEBHOOK_LISTEN", default_value = "[::]:8443")]
    pub webhook_listen: SocketAddr,

    /// The DNS name by which the API server calls the webhooks. Default: the name of the Service selvedge-control-plane
    /// in the control plane's namespace.
    #[arg(long, env = "SELVEDGE_WEBHOOK_NAME", value_name = "NAME")]
    pub webhook_name: Option<String>,

    /// Answer only clients with a certificate of this CA (PEM). The API server has one if its AdmissionConfiguration
    /// names a kubeconfig for webhooks. Without this flag, every client that reaches the port is answered.
    #[arg(long, env = "SELVEDGE_WEBHOOK_CLIENT_CA", value_name = "FILE")]
    pub webhook_client_ca: Option<PathBuf>,

    /// With --webhook-client-ca, a name that the client's certificate must have, as common name or DNS name. Without
    /// this flag, every certificate of that CA is accepted. Repeatable.
    #[arg(
        long = "webhook-client-name",
        env = "SELVEDGE_WEBHOOK_CLIENT_NAMES",
        value_name = "NAME",
        value_delimiter = ',',
        requires = "webhook_client_ca"
    )]
    pub webhook_client_names: Vec<String>,
}

/// Why there is no webhook.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The port cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// It has no address.
    #[error("--webhook-listen: {0}")]
    Address(#[from] io::Error),
    /// There is no certificate for it.
    #[error(transparent)]
    Own(#[from] OwnError),
    /// The name is not a DNS name.
    #[error("--webhook-name: {0:?} is not a DNS name")]
    Name(String),
    /// Nobody could be trusted.
    #[error("--webhook-client-ca {}: {source}", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ClientCaError,
    },
}

/// A webhook whose port is open, and that does nothing yet.
#[derive(Debug)]
pub struct Webhook {
    listener: std::net::TcpListener,
    address: SocketAddr,
    names: Vec<ServerName<'static>>,
    clients: Option<ClientCa>,
}

/// What the answers depend on.
#[derive(Debug, Clone)]
pub struct WebhookInputs {
    /// How sidecars are injected.
    pub inject: watch::Receiver<Arc<InjectionSettings>>,
    /// How documents are compiled.
    pub compile: Arc<compile::MeshSettings>,
    /// What the cluster holds.
    pub loaded: watch::Receiver<Arc<Loaded>>,
    /// What is wrong with it.
    pub problems: Arc<Problems>,
}

/// [`WebhookInputs`], and who asks now.
#[derive(Debug)]
struct Handler {
    knowledge: WebhookInputs,
    bodies: Arc<Bodies>,
    checks: Shares,
}

impl Webhook {
    /// Opens the port.
    ///
    /// # Errors
    /// If it is taken, or the name is not a DNS name.
    pub fn prepare(args: &WebhookArgs, namespace: &str, cluster_domain: &str) -> Result<Self, WebhookError> {
        let name = args.webhook_name.clone().unwrap_or_else(|| service_name(namespace));
        let names = [name.to_owned(), format!("{name}.{cluster_domain}")];
        let server_name = |name: String| match DnsName::try_from(name.clone()) {
            Ok(dns) => Ok(ServerName::DnsName(dns)),
            Err(_) => Err(WebhookError::Name(name)),
        };
        let names = names.into_iter().map(server_name).collect::<Result<_, _>>()?;
        let listener = listen::tcp("--webhook-listen", args.webhook_listen)?;
        let clients = args.webhook_client_ca.as_deref();
        let clients = clients.map(|path| believed(path, &args.webhook_client_names)).transpose()?;
        Ok(Self { address: listener.local_addr()?, listener, names, clients })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `LINGER` after the drain has begun; renews its certificate meanwhile.
    ///
    /// # Errors
    /// If there is no certificate, or the listener cannot be used.
    pub async fn run(
        self,
        issuing: OwnIssuing,
        knowledge: WebhookInputs,
        drain: Drain,
    ) -> Result<(), WebhookError> {
        let (own, renewing) = OwnCertificate::for_names(issuing, self.names, self.clients)?;
        let (accepted, mut connections) = mpsc::channel(WAITING);
        let router = router(knowledge);
        let manners = ConnectionTimeouts { stranger: PATIENCE, known: PATIENCE };
        let port = Port { name: "the webhook's port", own, manners, crowded: None };
        let accepted = Accepted { strangers: accepted.clone(), known: accepted };
        let accepting = port.accept(self.listener, accepted, Drain::default());
        let serving = async {
            let mut open = JoinSet::new();
            while let Some(Ok(connection)) = connections.recv().await {
                let client = connection.client;
                open.spawn(http1::carry(client.address, connection.stream, client.activity, router.clone()));
                while open.try_join_next().is_some() {}
            }
        };
        tokio::select! {
            (accepted, ()) = async { tokio::join!(accepting, serving) } => Ok(accepted?),
            () = renewing => Ok(()),
            () = async {
                drain.drained().await;
                tokio::time::sleep(LINGER).await;
            } => Ok(()),
        }
    }
}

fn believed(path: &Path, names: &[String]) -> Result<ClientCa, WebhookError> {
    ClientCa::load(path, names).map_err(|source| WebhookError::ClientCa { path: path.to_owned(), source })
}

fn router(knowledge: WebhookInputs) -> Router {
    let (bodies, checks) = (Arc::default(), Shares::new(CHECKS, CHECKS_OF_ONE));
    Router::new()
        .route("/inject", post(inject))
        .route("/validate", post(check))
        .with_state(Arc::new(Handler { knowledge, bodies, checks }))
}

/// Why there is no answer to a review.
enum Failure {
    /// It is not one.
    Malformed(StatusCode, String),
    /// We cannot say yet.
    NotYet(String),
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, words) = match self {
            Self::Malformed(status, words) => (status, words),
            Self::NotYet(words) => (StatusCode::SERVICE_UNAVAILABLE, words),
        };
        tracing::warn!(%status, "webhook: {words}");
        (status, format!("selvedge: {words}\n")).into_response()
    }
}

impl Handler {
    /// The request of a review, and the room that it takes as long as anything of it is held.
    async fn request(&self, body: Body) -> Result<(Request, Room), Failure> {
        let body = self.bodies.read(body).await.map_err(|error| {
            let status = match error {
                BodyError::TooLong | BodyError::TooMany => StatusCode::PAYLOAD_TOO_LARGE,
                BodyError::Slow => StatusCode::REQUEST_TIMEOUT,
                BodyError::Dropped => StatusCode::SERVICE_UNAVAILABLE,
                BodyError::Broken => StatusCode::BAD_REQUEST,
            };
            Failure::Malformed(status, error.to_string())
        })?;
        let request = Review::request(&body.bytes);
        let request = request.map_err(|words| Failure::Malformed(StatusCode::BAD_REQUEST, words))?;
        Ok((request, body.room))
    }
}

async fn inject(State(asked): State<Arc<Handler>>, body: Body) -> Result<Json<Answer>, Failure> {
    let (request, _room) = asked.request(body).await?;
    if request.kind.kind != "Pod" || request.operation != "CREATE" {
        return Ok(Json(Answer::allowed(&request)));
    }
    let namespace = asked.knowledge.namespace(&request.namespace).await?;
    let settings = asked.knowledge.inject.borrow().with_own_group();
    let answer = match decide(&request.object, &namespace, &settings, false) {
        // The API server tells whoever creates the pod, and a controller writes it into an Event.
        Err(refused) => Answer::refused(&request, &refused.to_string()),
        Ok(Decision::Skip { patch, .. }) => patched(&request, &patch)?,
        Ok(Decision::Inject { patch, warnings }) => patched(&request, &patch)?.with_warnings(warnings),
    };
    tracing::debug!(namespace = request.namespace, allowed = answer.is_allowed(), "pod reviewed");
    Ok(Json(answer))
}

fn patched(request: &Request, patch: &[super::Operation]) -> Result<Answer, Failure> {
    Answer::patched(request, patch).map_err(|error| Failure::NotYet(format!("no patch: {error}")))
}

async fn check(
    State(asked): State<Arc<Handler>>,
    Extension(ConnectInfo(client)): Extension<ConnectInfo<SocketAddr>>,
    body: Body,
) -> Result<Json<Answer>, Failure> {
    let (mut request, room) = asked.request(body).await?;
    if !request.object.is_object() {
        return Ok(Json(Answer::allowed(&request)));
    }
    let turn = asked.checks.turn(client.ip()).await;
    let knowledge = &asked.knowledge;
    let loaded = Arc::clone(&knowledge.loaded.borrow());
    let known = knowledge.problems.now();
    let compile = Arc::clone(&knowledge.compile);
    // A large mesh takes long enough to hold up other reviews.
    let checked = tokio::task::spawn_blocking(move || {
        let object = request.object.take();
        let verdict = validate(object, &request.namespace, &loaded.resources, &compile, &known);
        // Also if nobody waits for it any more.
        drop((room, turn));
        (request, verdict)
    });
    let (request, Verdict { errors, warnings }) =
        checked.await.map_err(|_| Failure::NotYet("the document could not be compiled".to_owned()))?;
    let answer = match errors.is_empty() {
        true => Answer::allowed(&request),
        false => Answer::refused(&request, &errors.join("; ")),
    };
    Ok(Json(answer.with_warnings(warnings)))
}

impl WebhookInputs {
    /// The namespace `name`, waited for if need be.
    async fn namespace(&self, name: &str) -> Result<NamespaceFacts, Failure> {
        let mut loaded = self.loaded.clone();
        let known = async {
            loop {
                let found = find(&loaded.borrow_and_update().resources, name);
                if let Some(found) = found {
                    return Some(found);
                }
                loaded.changed().await.ok()?;
            }
        };
        timeout(NAMESPACE_WAIT, known).await.ok().flatten().ok_or_else(|| {
            Failure::NotYet(format!("namespace {name} is not known yet; look at the control plane's /ready"))
        })
    }
}

fn find(resources: &Resources, namespace: &str) -> Option<NamespaceFacts> {
    let found = resources.namespaces.iter().find(|document| *document.name.name == *namespace)?;
    Some(NamespaceFacts {
        name: namespace.to_owned(),
        labels: found.metadata.labels.clone(),
        annotations: found.metadata.annotations.clone(),
    })
}

#[cfg(test)]
mod tests;
