//! One workload of a mesh: what it is to be, and, while it runs, where it is and what its sidecar says.

use std::net::SocketAddr;

use serde_json::Value;

use crate::{
    call::{self, Answer, Call, CallError},
    processes::Process,
};

/// What a workload is to be.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// Its namespace; at first `default`.
    pub namespace: &'static str,
    /// The service account whose identity it has.
    pub service_account: String,
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// What runs in it.
    pub app: AppKind,
    /// The port that its app listens on.
    pub port: u16,
    /// Whether it has a sidecar.
    pub sidecar: bool,
    /// More flags for its sidecar; one that it would have had anyway is replaced.
    pub flags: Vec<String>,
}

/// What runs in a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppKind {
    /// `selvedge app reviews`, of this version.
    Reviews(String),
    /// `selvedge app frontend`.
    Frontend,
    /// `selvedge app grpc`.
    Grpc,
    /// Nothing: whoever uses the cluster is the app.
    None,
}

impl Spec {
    fn new(name: &str, app_label: &str, app: AppKind, port: u16) -> Self {
        Self {
            name: name.to_owned(),
            namespace: "default",
            service_account: app_label.to_owned(),
            labels: vec![("app".to_owned(), app_label.to_owned())],
            app,
            port,
            sidecar: true,
            flags: Vec::new(),
        }
    }

    /// A `reviews` server of one version.
    pub fn reviews(name: &str, version: &str) -> Self {
        Self::new(name, "reviews", AppKind::Reviews(version.to_owned()), 9080).label("version", version)
    }

    /// A server like `reviews`, behind the service `service` and with its service account.
    pub fn server(name: &str, service: &str, port: u16) -> Self {
        Self::new(name, service, AppKind::Reviews("v1".to_owned()), port)
    }

    /// The app that asks for reviews.
    pub fn frontend(name: &str) -> Self {
        Self::new(name, "frontend", AppKind::Frontend, 8080)
    }

    /// A gRPC server, behind the service `echo`.
    pub fn grpc(name: &str) -> Self {
        Self::new(name, "echo", AppKind::Grpc, 9090)
    }

    /// A workload with no app: a client that is this very process.
    pub fn client(name: &str) -> Self {
        Self::new(name, name, AppKind::None, 8080)
    }

    /// With one more label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.push((key.to_owned(), value.to_owned()));
        self
    }

    /// In another namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &'static str) -> Self {
        self.namespace = namespace;
        self
    }

    /// With one more flag for its sidecar.
    #[must_use]
    pub fn flag(mut self, name: &str, value: &str) -> Self {
        self.flags.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Without a sidecar.
    #[must_use]
    pub fn without_sidecar(mut self) -> Self {
        self.sidecar = false;
        self
    }
}

/// A workload that runs.
#[derive(Debug)]
pub struct Workload {
    /// What it was to be.
    pub spec: Spec,
    /// Where its app listens.
    pub app: SocketAddr,
    /// Where its sidecar takes the app's requests.
    pub outbound: SocketAddr,
    /// Where its sidecar takes other sidecars' connections.
    pub inbound: SocketAddr,
    /// Its sidecar's admin port.
    pub admin: SocketAddr,
    pub(crate) app_process: Option<Process>,
    pub(crate) sidecar_process: Option<Process>,
}

impl Workload {
    /// Its app's process, while there is one.
    pub fn app_process(&self) -> Option<&Process> {
        self.app_process.as_ref()
    }

    /// Its sidecar's process, while there is one.
    pub fn sidecar_process(&self) -> Option<&Process> {
        self.sidecar_process.as_ref()
    }

    /// Sends `call` the way its app would: to its sidecar.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn call(&self, call: Call) -> Result<Answer, CallError> {
        call::send(self.outbound, call).await
    }

    /// What its sidecar's admin port says at `path`.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn admin(&self, path: &str) -> Result<Answer, CallError> {
        call::send(self.admin, call::to(&self.admin.to_string(), path)).await
    }

    /// What its sidecar's admin port says at `path`, as JSON.
    ///
    /// # Errors
    /// If there is no answer, or no JSON.
    pub async fn admin_json(&self, path: &str) -> Result<Value, CallError> {
        self.admin(path).await?.json()
    }

    /// One number of its sidecar's `/metrics`: the sum of all series of that name.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn metric(&self, name: &str) -> Result<Option<f64>, CallError> {
        Ok(sum_of(&self.admin("/metrics").await?.text(), name))
    }
}

/// The sum of all series called `name` in the Prometheus text format.
pub fn sum_of(metrics: &str, name: &str) -> Option<f64> {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let rest = match rest.strip_prefix('{') {
            Some(labelled) => labelled.rsplit_once('}')?.1,
            None => rest.strip_prefix(' ')?,
        };
        rest.split_whitespace().next()?.parse::<f64>().ok()
    };
    metrics.lines().filter_map(value).reduce(|sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_the_sum_of_its_series() {
        let text = "# TYPE a counter\na_total{x=\"1 } 2\"} 3\na_total{x=\"b\"} 4 1234\na_totally 9\nb 7\n";

        assert_eq!(sum_of(text, "a_total"), Some(7.0));
        assert_eq!(sum_of(text, "b"), Some(7.0));
        assert_eq!(sum_of(text, "c"), None);
    }
}
