//! A fake API server for tests, with fixed answers: for versions and answers that the real API server of the end-to-end
//! tests does not have.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use selvedge_kubernetes::{Client, Connect};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

#[derive(Debug, Default)]
struct Said {
    answers: BTreeMap<String, Value>,
    asked: BTreeMap<String, usize>,
}

/// Answers GET requests, until it is dropped.
#[derive(Debug)]
pub(crate) struct Canned {
    said: Arc<Mutex<Said>>,
    serving: JoinHandle<()>,
    directory: tempfile::TempDir,
}

impl Canned {
    /// One that says nothing yet.
    pub(crate) async fn start() -> Self {
        let said = Arc::<Mutex<Said>>::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&said));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let directory = tempfile::tempdir().unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "canned",
            "clusters": [{ "name": "canned", "cluster": { "server": format!("http://{address}") } }],
            "contexts": [{ "name": "canned", "context": { "cluster": "canned", "user": "anybody" } }],
            "users": [{ "name": "anybody", "user": {} }],
        });
        std::fs::write(directory.path().join("kubeconfig"), config.to_string()).unwrap();
        Self { said, serving, directory }
    }

    /// How clients find it.
    pub(crate) fn kubeconfig(&self) -> std::path::PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// A client of it.
    pub(crate) async fn client(&self) -> Client {
        let connect = Connect { kubeconfig: Some(self.kubeconfig()), context: None };
        Client::connect(&connect).await.unwrap()
    }

    /// From now on that is at `path`.
    pub(crate) fn say(&self, path: &str, what: Value) {
        self.said.lock().unwrap().answers.insert(path.to_owned(), what);
    }

    /// From now on nothing is at `path`.
    pub(crate) fn say_nothing(&self, path: &str) {
        self.said.lock().unwrap().answers.remove(path);
    }

    /// How often somebody asked for `path`.
    pub(crate) fn asked(&self, path: &str) -> usize {
        self.said.lock().unwrap().asked.get(path).copied().unwrap_or_default()
    }
}

impl Drop for Canned {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(State(said): State<Arc<Mutex<Said>>>, uri: Uri) -> Response {
    let mut said = said.lock().unwrap();
    *said.asked.entry(uri.path().to_owned()).or_default() += 1;
    match said.answers.get(uri.path()) {
        Some(what) => Json(what.clone()).into_response(),
        None => {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
                "message": format!("there is nothing at {}", uri.path()),
            });
            (StatusCode::NOT_FOUND, Json(status)).into_response()
        }
    }
}
