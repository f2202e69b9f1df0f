//! The port that the API server calls: `/inject` for pods, `/validate` for documents.
//!
//! Its certificate is our own authority's, for the name of our Service; the bundle that the API server must be
//! given (`caBundle`) is the authority's. A namespace that is not known yet is waited for, since a pod may come
//! right behind its namespace; what is still unknown then is a failure, and the webhook's `failurePolicy` says what
//! comes of it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use selvedge_certs::{DnsName, ServerName, ca::Authority};
use selvedge_ops::{
    Drain, admin,
    listen::{self, ListenError},
};
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    Decision, INJECTED, NamespaceFacts, Settings, decide,
    events::{Event, Events},
    review::{Answer, Request, Review},
    settings::service_name,
    validate::{Verdict, validate},
};
use crate::{
    compile,
    resources::Resources,
    serve::{
        connection,
        own::{OwnCertificate, OwnError},
    },
    sources::Loaded,
    status::{OwnCertificates, Problems},
};

/// The largest body: an object of 3 MiB, the most that the API server takes, twice.
const MAX_BODY: usize = 6 << 20;
/// Connections that were accepted and wait to be served.
const WAITING: usize = 64;
/// How long we go on when we should end: until then the API server may not know that it should call another.
const LINGER: Duration = Duration::from_secs(3);
/// How long a namespace is waited for; the API server waits for us 10 s.
const NAMESPACE_WAIT: Duration = Duration::from_secs(3);

/// The settings of the port.
#[derive(Debug, Clone, clap::Args)]
pub struct WebhookArgs {
    /// Where the API server calls us to inject sidecars and to check documents (HTTPS), as IP:PORT.
    #[arg(long, env = "SELVEDGE_WEBHOOK_LISTEN", default_value = "[::]:8443")]
    pub webhook_listen: SocketAddr,

    /// The name by which it calls us. Default: that of the Service selvedge-control-plane in our namespace.
    #[arg(long, env = "SELVEDGE_WEBHOOK_NAME", value_name = "NAME")]
    pub webhook_name: Option<String>,
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
    /// The name is none.
    #[error("--webhook-name: {0:?} is no DNS name")]
    Name(String),
}

/// A webhook whose port is open, and that does nothing yet.
#[derive(Debug)]
pub struct Webhook {
    listener: std::net::TcpListener,
    address: SocketAddr,
    names: Vec<ServerName<'static>>,
}

/// What the answers depend on.
#[derive(Debug, Clone)]
pub struct Knowledge {
    /// How sidecars are injected.
    pub inject: watch::Receiver<Arc<Settings>>,
    /// How documents are compiled.
    pub compile: Arc<compile::Settings>,
    /// What the cluster holds.
    pub loaded: watch::Receiver<Arc<Loaded>>,
    /// What is wrong with it.
    pub problems: Arc<Problems>,
    /// Who tells it of what happened.
    pub events: Events,
}

impl Webhook {
    /// Opens the port.
    ///
    /// # Errors
    /// If it is taken, or the name is none.
    pub fn prepare(args: &WebhookArgs, namespace: &str, cluster_domain: &str) -> Result<Self, WebhookError> {
        let name = args.webhook_name.clone().unwrap_or_else(|| service_name(namespace));
        let names = [name.to_owned(), format!("{name}.{cluster_domain}")];
        let server_name = |name: String| match DnsName::try_from(name.clone()) {
            Ok(dns) => Ok(ServerName::DnsName(dns)),
            Err(_) => Err(WebhookError::Name(name)),
        };
        let names = names.into_iter().map(server_name).collect::<Result<_, _>>()?;
        let listener = listen::tcp("--webhook-listen", args.webhook_listen)?;
        Ok(Self { address: listener.local_addr()?, listener, names })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until [`LINGER`] after the drain has begun; renews its certificate meanwhile.
    ///
    /// # Errors
    /// If there is no certificate, or the listener cannot be used.
    pub async fn run(
        self,
        authority: Arc<Authority>,
        ttl: Duration,
        knowledge: Knowledge,
        shown: Arc<OwnCertificates>,
        drain: Drain,
    ) -> Result<(), WebhookError> {
        let (own, renewing) = OwnCertificate::for_names(authority, ttl, self.names, shown)?;
        let (accepted, mut connections) = mpsc::channel(WAITING);
        let router = router(knowledge);
        let accepting =
            connection::accept("the webhook's port", self.listener, own, accepted, Drain::default());
        let serving = async {
            let mut open = JoinSet::new();
            while let Some(Ok(connection)) = connections.recv().await {
                open.spawn(admin::carry(connection.peer_address(), connection, router.clone()));
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

fn router(knowledge: Knowledge) -> Router {
    Router::new()
        .route("/inject", post(inject))
        .route("/validate", post(check))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(knowledge)
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

fn request(body: Result<Bytes, BytesRejection>) -> Result<Request, Failure> {
    let body = body.map_err(|error| Failure::Malformed(error.status(), error.body_text()))?;
    Review::request(&body).map_err(|words| Failure::Malformed(StatusCode::BAD_REQUEST, words))
}

async fn inject(
    State(knowledge): State<Knowledge>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Answer>, Failure> {
    let request = request(body)?;
    if request.kind.kind != "Pod" || request.operation != "CREATE" {
        return Ok(Json(Answer::allowed(&request)));
    }
    let namespace = knowledge.namespace(&request.namespace).await?;
    let settings = knowledge.inject.borrow().with_own_group();
    let decided = decide(&request.object, &namespace, &settings, false);
    let pod = event_subject(&request);
    let (answer, event) = match decided {
        Err(refused) => {
            let words = refused.to_string();
            (Answer::refused(&request, &words), Some(Event::warning(pod, "InjectionRefused", words)))
        }
        Ok(Decision::Skip { reason, patch }) => {
            let told = !patch.is_empty();
            let event = told.then(|| Event::normal(pod, "InjectionSkipped", reason.to_string()));
            (patched(&request, &patch)?, event)
        }
        Ok(Decision::Inject { patch, warnings }) => {
            let words = format!("sidecar injected ({INJECTED}: {})", settings.version);
            let event = Event::normal(pod, "Injected", words);
            (patched(&request, &patch)?.with_warnings(warnings), Some(event))
        }
    };
    tracing::debug!(namespace = request.namespace, allowed = answer.is_allowed(), ?event, "pod reviewed");
    if let Some(event) = event
        && request.dry_run != Some(true)
    {
        knowledge.events.send(event);
    }
    Ok(Json(answer))
}

fn patched(request: &Request, patch: &[super::Operation]) -> Result<Answer, Failure> {
    Answer::patched(request, patch).map_err(|error| Failure::NotYet(format!("no patch: {error}")))
}

/// Whom an event about a pod is shown with: its owner, since the pod does not exist yet and may have no name.
fn event_subject(request: &Request) -> super::events::Subject {
    let owners = request.object["metadata"]["ownerReferences"].as_array();
    let owner = owners.and_then(|owners| {
        owners.iter().find(|owner| owner["controller"] == true).or_else(|| owners.first())
    });
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match owner {
        Some(owner) => super::events::Subject {
            api_version: text(&owner["apiVersion"]),
            kind: text(&owner["kind"]),
            namespace: request.namespace.clone(),
            name: text(&owner["name"]),
            uid: text(&owner["uid"]),
        },
        None => super::events::Subject {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: request.namespace.clone(),
            // Its own, or what the API server will make one from.
            name: match &request.object["metadata"] {
                metadata if metadata["name"].is_string() => text(&metadata["name"]),
                metadata => text(&metadata["generateName"]),
            },
            uid: String::new(),
        },
    }
}

async fn check(
    State(knowledge): State<Knowledge>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Answer>, Failure> {
    let mut request = request(body)?;
    if !request.object.is_object() {
        return Ok(Json(Answer::allowed(&request)));
    }
    let loaded = Arc::clone(&knowledge.loaded.borrow());
    let known = knowledge.problems.now();
    let compile = Arc::clone(&knowledge.compile);
    // A large mesh takes long enough to hold up other reviews.
    let checked = tokio::task::spawn_blocking(move || {
        let object = request.object.take();
        let verdict = validate(object, &request.namespace, &loaded.resources, &compile, &known);
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

impl Knowledge {
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
