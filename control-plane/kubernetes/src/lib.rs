//! The Kubernetes API server, as far as a mesh needs it: the only crate that knows `kube`.
//!
//! Everything here speaks of documents as JSON and of what the API server says of them; what they mean is
//! the control plane's business. A crate of its own, because `k8s-openapi` takes long to build.
