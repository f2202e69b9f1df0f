//! The way to the API server: from a kubeconfig, or from inside a pod.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::de::DeserializeOwned;

use crate::error::{Error, causes};

/// A request that is not a watch has failed after this long.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// To an API server that is away, a new attempt is better than a long one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How to find the API server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connect {
    /// This kubeconfig and no other; `None`: that which KUBECONFIG or ~/.kube/config names, and without
    /// one the ServiceAccount of the pod that we run in.
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; `None` = its current one.
    pub context: Option<String>,
}

/// An API server that can be asked.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: kube::Client,
    server: String,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Client {
    /// Prepares to talk to the API server. Nothing is sent yet; it need not be there yet.
    ///
    /// # Errors
    /// If neither a kubeconfig nor a pod's ServiceAccount says where it is, or if they cannot be used.
    pub async fn connect(connect: &Connect) -> Result<Self, Error> {
        let mut config = configuration(connect).await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let inner = kube::Client::try_from(config).map_err(|error| Error::Configuration(causes(&error)))?;
        Ok(Self { inner, server })
    }

    /// The API server's address, such as `https://10.96.0.1:443`.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The API server's version, such as `v1.33.1`.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn server_version(&self) -> Result<String, Error> {
        let version = self.within(self.inner.apiserver_version()).await?;
        Ok(version.git_version)
    }

    /// Sends one request that has no body, such as `GET /readyz`, and returns the text of the answer.
    ///
    /// # Errors
    /// If it does not answer, or refuses.
    pub async fn text(&self, path: &str) -> Result<String, Error> {
        let request = http::Request::get(path).body(Vec::new());
        let request = request.map_err(|error| self.unreachable(error.to_string()))?;
        self.within(self.inner.request_text(request)).await
    }

    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, Error> {
        let request = request.map_err(|error| self.unreachable(causes(&error)))?;
        self.within(self.inner.request::<T>(request)).await
    }

    /// `answer`, which must come in time.
    pub(crate) async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
            Ok(answer) => answer.map_err(|error| Error::of_kube(&error, &self.server)),
            Err(_) => Err(self.unreachable(format!("no answer within {REQUEST_TIMEOUT:?}"))),
        }
    }

    fn unreachable(&self, reason: String) -> Error {
        Error::Unreachable { server: self.server.clone(), reason }
    }
}

async fn configuration(connect: &Connect) -> Result<kube::Config, Error> {
    let options = KubeConfigOptions { context: connect.context.clone(), ..KubeConfigOptions::default() };
    if let Some(path) = &connect.kubeconfig {
        return from_file(path, &options).await;
    }
    if connect.context.is_some() {
        return kube::Config::from_kubeconfig(&options).await.map_err(|error| unusable(&error));
    }
    kube::Config::infer().await.map_err(|error| unusable(&error))
}

async fn from_file(path: &Path, options: &KubeConfigOptions) -> Result<kube::Config, Error> {
    let named = |error: &dyn std::error::Error| {
        Error::Configuration(format!("{}: {}", path.display(), causes(error)))
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(|error| named(&error))?;
    kube::Config::from_custom_kubeconfig(kubeconfig, options).await.map_err(|error| named(&error))
}

fn unusable(error: &dyn std::error::Error) -> Error {
    Error::Configuration(causes(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kubeconfig_that_is_missing_is_named() {
        let connect = Connect { kubeconfig: Some("/nonexistent/config".into()), context: None };

        let error = Client::connect(&connect).await.unwrap_err().to_string();

        assert!(error.contains("/nonexistent/config") && error.contains("--kubeconfig"), "{error}");
    }

    #[tokio::test]
    async fn an_api_server_that_is_away_is_named_when_it_is_asked() {
        let directory = std::env::temp_dir().join(format!("selvedge-kubeconfig-{}", std::process::id()));
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
                    clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]\n\
                    contexts: [{name: a, context: {cluster: a, user: a}}]\nusers: [{name: a, user: {}}]\n";
        std::fs::write(&directory, text).unwrap();
        let connect = Connect { kubeconfig: Some(directory.clone()), context: None };

        let client = Client::connect(&connect).await.unwrap();
        let error = client.server_version().await.unwrap_err().to_string();

        std::fs::remove_file(&directory).unwrap();
        assert!(error.contains("http://127.0.0.1:1 does not answer"), "{error}");
    }
}
