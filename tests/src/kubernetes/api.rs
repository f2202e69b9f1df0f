//! What a test asks of the API server as its administrator: JSON over HTTP, by way of `kubectl proxy`.
//!
//! That listens on a socket in the file system, so that it is reached from every network namespace and takes no
//! port; and the test itself need not speak TLS.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// The administrator's way to the API server.
#[derive(Debug, Clone)]
pub struct Api {
    socket: PathBuf,
}

/// The API server does not do what it was asked to, or cannot be reached.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The answer's status; none if there was no answer.
    pub status: Option<StatusCode>,
    /// What it says.
    pub message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "{status}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Refused {}

impl Api {
    pub(super) fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// What is at a path, such as `/api/v1/namespaces/default/pods`.
    ///
    /// # Errors
    /// If the server refuses, as for something that does not exist.
    pub async fn get(&self, path: &str) -> Result<Value, Refused> {
        self.ask(Method::GET, path, "", None).await
    }

    /// Creates an object in the collection at a path.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, Refused> {
        self.ask(Method::POST, path, "application/json", Some(object)).await
    }

    /// Replaces the object at a path.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn replace(&self, path: &str, object: &Value) -> Result<Value, Refused> {
        self.ask(Method::PUT, path, "application/json", Some(object)).await
    }

    /// Changes the object at a path by a merge patch (RFC 7386).
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn merge(&self, path: &str, patch: &Value) -> Result<Value, Refused> {
        self.ask(Method::PATCH, path, "application/merge-patch+json", Some(patch)).await
    }

    /// Deletes what is at a path, at once.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn delete(&self, path: &str) -> Result<Value, Refused> {
        let at_once = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
        self.ask(Method::DELETE, path, "application/json", Some(&at_once)).await
    }

    /// Asks for the end of the object at a path, in its own time.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn delete_gracefully(&self, path: &str) -> Result<Value, Refused> {
        self.ask(Method::DELETE, path, "application/json", None).await
    }

    /// Makes a service account.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn service_account(&self, namespace: &str, name: &str) {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
        self.create(&format!("/api/v1/namespaces/{namespace}/serviceaccounts"), &account).await.unwrap();
    }

    /// A token of a service account, by TokenRequest: for an audience, and bound to a pod if one is named.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn token(
        &self,
        namespace: &str,
        account: &str,
        audience: Option<&str>,
        pod: Option<&Value>,
    ) -> Result<String, Refused> {
        let mut spec = json!({"expirationSeconds": 3600});
        spec["audiences"] = audience.map_or(json!([]), |audience| json!([audience]));
        if let Some(pod) = pod {
            let metadata = &pod["metadata"];
            spec["boundObjectRef"] = json!({
                "apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"],
            });
        }
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let answer = self.create(&path, &request).await?;
        Ok(answer["status"]["token"].as_str().expect("a TokenRequest is answered by a token").to_owned())
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Option<&Value>,
    ) -> Result<Value, Refused> {
        let what = format!("{method} {path}");
        let unreachable =
            |error: &dyn fmt::Display| Refused { status: None, message: format!("{what}: {error}") };
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, kind)
            .header(header::ACCEPT, "application/json")
            .body(Full::new(body))
            .expect("a request of our own");
        let answer = tokio::time::timeout(LIMIT, self.exchange(request)).await;
        let (status, body) = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(unreachable(&error)),
            Err(_) => return Err(unreachable(&format!("no answer within {LIMIT:?}"))),
        };
        // A probe's answer is a word, not an object.
        let value = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
        if status.is_success() {
            return Ok(value);
        }
        let message = value["message"].as_str().map_or_else(|| value.to_string(), str::to_owned);
        Err(Refused { status: Some(status), message: format!("{what}: {message}") })
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), String> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| error.to_string())?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
        let answer = async {
            let (parts, body) = sender.send_request(request).await?.into_parts();
            Ok::<_, hyper::Error>((parts.status, body.collect().await?.to_bytes()))
        };
        tokio::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => answer.map_err(|error| error.to_string()),
            ended = connection => match ended {
                Ok(()) => answer.await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            },
        }
    }
}
