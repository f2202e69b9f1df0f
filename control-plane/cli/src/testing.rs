//! Documents that the tests of several commands are about.

/// The lesson's exercise 3.
pub(crate) const EXERCISE_3: &str =
    include_str!("../../../tests/kubernetes/seeds/exercise3-networkpolicies.yaml");
pub(crate) const BY_SERVICE_ACCOUNT: &str =
    include_str!("../../../examples/policies/allow-by-service-account.yaml");
pub(crate) const STRICT: &str = include_str!("../../../examples/policies/strict-mtls.yaml");
pub(crate) const LINKERD: &str = include_str!("../../../examples/policies/linkerd-server.yaml");

/// A workload at 127.0.0.`host` with a sidecar of its own (in explicit mode).
pub(crate) fn meshed(name: &str, host: u8, ports: &str) -> String {
    let annotation = format!("annotations: {{config.selvedge.io/inbound: '127.0.0.{host}:4143'}}");
    entry(name, host, ports, &annotation, ", security.istio.io/tlsMode: istio")
}

/// A workload without a sidecar.
pub(crate) fn plain(name: &str, host: u8) -> String {
    entry(name, host, "{http: 9080}", "annotations: {}", "")
}

fn entry(name: &str, host: u8, ports: &str, annotations: &str, label: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {name}, {annotations}}}
spec:
  address: 127.0.0.{host}
  labels: {{app: {name}, tier: {name}{label}}}
  ports: {ports}
  serviceAccount: {name}
---
"
    )
}

/// Workloads that call the vault, with sidecars and without.
pub(crate) fn vault() -> String {
    [
        meshed("vault", 1, "{http: 9080, tcp-metrics: 9090}"),
        meshed("web", 2, "{}"),
        meshed("other", 3, "{}"),
        plain("legacy", 4),
    ]
    .concat()
}
