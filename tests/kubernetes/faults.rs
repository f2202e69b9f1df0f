//! An API server that misbehaves as a test says: it passes everything on to the real one, but for the faults.
//!
//! It speaks HTTP without TLS, with the administrator's rights. So what a watch says can be cut where the worst
//! place is: in the middle of an object.

use std::{
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{
    body::{Body, Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use selvedge_tests::kubernetes::ApiServer;
use serde_json::json;
use tokio::{
    net::{TcpListener, UnixStream},
    sync::watch,
    task::JoinHandle,
};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Watches end in the middle of the next object that they tell of, as they do with all faults.
    CutWatches,
    /// Watches from any version are answered by 410 Gone; lists are served.
    Gone,
    /// Nothing is answered: connections are closed, also those that were open.
    Away,
    /// Everything is answered by 500.
    Broken,
}

/// The misbehaving server.
pub(crate) struct Faults {
    fault: watch::Sender<Fault>,
    seen: Arc<Mutex<Vec<String>>>,
    kubeconfig: PathBuf,
    serving: JoinHandle<()>,
}

impl Faults {
    /// One before the real server, with nothing wrong yet.
    pub(crate) async fn before(server: &ApiServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let kubeconfig = server.directory().join(format!("faults-{}.kubeconfig", address.port()));
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "faults", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "anybody", "user": {}}],
            "contexts": [{"name": "faults", "context": {"cluster": "faults", "user": "anybody"}}],
            "current-context": "faults",
        });
        fs::write(&kubeconfig, config.to_string()).unwrap();
        let (fault, faults) = watch::channel(Fault::None);
        let seen = Arc::default();
        let serving = tokio::spawn(serve(listener, server.socket().to_owned(), faults, Arc::clone(&seen)));
        Self { fault, seen, kubeconfig, serving }
    }

    /// What a client is told to come here.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// From now on this goes wrong.
    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// The requests since the last question, such as `GET /api/v1/pods?watch=1`.
    pub(crate) fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(
    listener: TcpListener,
    socket: PathBuf,
    faults: watch::Receiver<Fault>,
    seen: Arc<Mutex<Vec<String>>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (socket, faults, seen) = (socket.clone(), faults.clone(), Arc::clone(&seen));
        let mut away = faults.clone();
        tokio::spawn(async move {
            let respond = service_fn(move |request: Request<Incoming>| {
                let (socket, faults) = (socket.clone(), faults.clone());
                let asked = format!("{} {}", request.method(), request.uri());
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
                async move { Ok::<_, Infallible>(respond(request, &socket, faults).await) }
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), respond);
            tokio::select! {
                // Whoever asks is let down in the middle, too.
                _ = connection => {}
                _ = away.wait_for(|fault| *fault == Fault::Away) => {}
            }
        });
    }
}

type AnyBody = BoxBody<Bytes, Broken>;

/// Why an answer ends early.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the answer ends early")
    }
}

impl std::error::Error for Broken {}

async fn respond(
    request: Request<Incoming>,
    socket: &Path,
    faults: watch::Receiver<Fault>,
) -> Response<AnyBody> {
    let watches = request.uri().query().is_some_and(|query| query.contains("watch="));
    let fault = *faults.borrow();
    match fault {
        Fault::Broken => return refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        Fault::Gone if watches => return refusal(StatusCode::GONE, "Expired"),
        _ => {}
    }
    match pass_on(request, socket).await {
        Ok(response) if watches => response.map(|body| BoxBody::new(Watched { body, faults, cut: false })),
        Ok(response) => response.map(|body| body.map_err(|_| Broken).boxed()),
        Err(error) => refusal(StatusCode::BAD_GATEWAY, &error),
    }
}

fn refusal(status: StatusCode, reason: &str) -> Response<AnyBody> {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": reason, "message": reason, "code": status.as_u16(),
    });
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {});
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    response.body(body.boxed()).expect("a response of our own")
}

async fn pass_on(mut request: Request<Incoming>, socket: &Path) -> Result<Response<Incoming>, String> {
    let stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let host = header::HeaderValue::from_static("localhost");
    request.headers_mut().insert(header::HOST, host);
    sender.send_request(request).await.map_err(|error| error.to_string())
}

/// What a watch says, until it is cut.
struct Watched {
    body: Incoming,
    faults: watch::Receiver<Fault>,
    cut: bool,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.cut {
            return Poll::Ready(Some(Err(Broken)));
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        if *self.faults.borrow() == Fault::None {
            return Poll::Ready(frame.map(|frame| frame.map_err(|_| Broken)));
        }
        self.cut = true;
        let data = frame.and_then(Result::ok).and_then(|frame| frame.into_data().ok());
        Poll::Ready(match data {
            Some(mut data) if data.len() > 1 => Some(Ok(Frame::data(data.split_to(data.len() / 2)))),
            _ => Some(Err(Broken)),
        })
    }
}
