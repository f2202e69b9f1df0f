//! Sidecars into pods: what is asked for, the patch that does it, and the webhook that the API server calls.
//!
//! `patch` is pure, so that the webhook and `selvedge inject` do the same; whatever is set on a pod or a
//! namespace goes through one table (`annotations`), and what is not in it is refused.

pub mod annotations;
mod asked;
mod bodies;
pub mod events;
pub mod gateway;
mod namespace;
pub mod patch;
mod probes;
pub mod revert;
pub mod review;
pub mod settings;
mod sidecar;
#[cfg(test)]
mod tests;
pub mod validate;
pub mod webhook;

pub use annotations::{SETTINGS, Setting};
pub use asked::Reason;
pub use namespace::{NamespaceFacts, pod_security_warning};
pub use patch::{Decision, Operation, Refused, decide};
pub use settings::{InjectArgs, InjectionSettings};

/// Whether a sidecar is asked for: an annotation or label of namespaces and pods, `enabled` or `disabled`.
pub const INJECT: &str = "selvedge.io/inject";
/// The annotation of pods that have a sidecar: the version that injected it.
pub const INJECTED: &str = "selvedge.io/injected";
/// The annotation of pods that have a sidecar: the Secrets that came with it to pull its images.
pub const PULL_SECRETS: &str = "selvedge.io/injected-pull-secrets";
/// The annotation of pods that have none although somebody asked for it: why.
pub const SKIPPED: &str = "selvedge.io/inject-skipped";
/// The label by which everybody knows that a pod has a sidecar of ours, with the value [`SIDECAR_INJECTED`].
pub use crate::resources::pod::{SIDECAR_INJECTED, SIDECAR_LABEL};
/// Istio's label for the same. Istio's clients would take a pod that has it for one of theirs, so injection does not
/// set it; it once did, and what was injected then is reverted too.
const TLS_MODE: &str = "security.istio.io/tlsMode";
/// The container that carries the traffic.
pub const PROXY_CONTAINER: &str = "selvedge-proxy";
/// The container that sets the redirection rules, and ends.
pub const INIT_CONTAINER: &str = "selvedge-init";
/// The volume of the token by which the proxy proves whose sidecar it is.
const TOKEN_VOLUME: &str = "selvedge-token";
/// The volume that SPIRE's CSI driver makes, which has its agent's socket.
const WORKLOAD_API_VOLUME: &str = "selvedge-workload-api";
/// The volume with the authorities that an OpenTelemetry collector is believed by.
const OTLP_CA_VOLUME: &str = "selvedge-otlp-ca";
/// All volumes that a proxy may have.
const VOLUMES: [&str; 3] = [TOKEN_VOLUME, WORKLOAD_API_VOLUME, OTLP_CA_VOLUME];
/// Where the token is mounted.
const TOKEN_DIRECTORY: &str = "/var/run/secrets/selvedge.io";
/// Whom that token is for: an API server's TokenReview says so to nobody else.
pub const TOKEN_AUDIENCE: &str = "selvedge";
/// The user that the proxy runs as; the rules leave its connections alone.
const PROXY_UID: u32 = 2102;
/// The proxy's ports, which no app may have.
const OUTBOUND_PORT: u16 = 4140;
const INBOUND_PORT: u16 = 4143;
const ADMIN_PORT: u16 = 4191;
