//! A connection into a pod, as `kubectl port-forward` makes it.
//!
//! The API server asks who we are and whether we may, and the kubelet connects inside the pod: there we are a
//! caller on the same host, so what answers on loopback only need not answer anybody else.

use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Client, Error};

impl Client {
    /// Connects to `port` of the pod `namespace/name`. Needs the permission to create `pods/portforward`.
    ///
    /// # Errors
    /// If the API server does not answer, or refuses. That nothing listens in the pod shows later, as a
    /// connection that ends at once.
    pub async fn forward(
        &self,
        namespace: &str,
        name: &str,
        port: u16,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + use<>, Error> {
        let pods: Api<Pod> = Api::namespaced(self.inner.clone(), namespace);
        let mut forwarder = self.within(pods.portforward(name, &[port])).await?;
        forwarder
            .take_stream(port)
            .ok_or_else(|| Error::NotFound(format!("no connection to port {port} of {namespace}/{name}")))
    }
}
