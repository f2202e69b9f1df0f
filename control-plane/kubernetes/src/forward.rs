//! A connection into a pod, as `kubectl port-forward` makes it.
//!
//! The API server asks who we are and whether we may, and the kubelet connects inside the pod: there we are a
//! caller on the same host, so what answers on loopback only need not answer anybody else.

use std::{fmt, pin::Pin};

use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Client, Error};

/// Both ways at once.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection into a pod.
pub struct Forwarded {
    /// What is said there. It ends at once if nothing listens.
    pub stream: Box<dyn Stream>,
    /// Ends with the connection: what the kubelet says of a failure, if it was one.
    pub failure: Pin<Box<dyn Future<Output = Option<String>> + Send>>,
}

impl fmt::Debug for Forwarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forwarded")
    }
}

impl Client {
    /// Connects to `port` of the pod `namespace/name`. Needs the permission to get `pods/portforward`, from
    /// Kubernetes 1.35 also to create it (<https://github.com/kubernetes/kubernetes/pull/134577>).
    ///
    /// # Errors
    /// If the API server does not answer, or refuses.
    pub async fn forward(&self, namespace: &str, name: &str, port: u16) -> Result<Forwarded, Error> {
        let pods: Api<Pod> = Api::namespaced(self.inner.clone(), namespace);
        let mut forwarder = self.within(pods.portforward(name, &[port])).await?;
        let taken = forwarder.take_stream(port).zip(forwarder.take_error(port));
        let (stream, failure) = taken
            .ok_or_else(|| Error::NotFound(format!("no connection to port {port} of {namespace}/{name}")))?;
        Ok(Forwarded { stream: Box::new(stream), failure: Box::pin(failure) })
    }
}
