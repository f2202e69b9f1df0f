//! The mesh of our pair, as its users would write it.

use std::net::{IpAddr, SocketAddr};

use super::{Algorithm, Variant};
use crate::netspace;

/// The app's name in the mesh.
pub(super) const AUTHORITY: &str = "app.bench.svc.cluster.local";

/// Routes beside the one that requests take and the one with a match on a header.
const OTHERS: usize = 998;

const RETRIES: &str = "
      attempts: 2
      perTryTimeout: 5s
      retryOn: connect-failure,refused-stream,unavailable,cancelled,5xx";

/// It serves nothing, so it has no port.
const CLIENT: &str = "---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: client
  namespace: bench
spec:
  address: 127.0.0.1
  serviceAccount: client
  labels:
    app: client
    security.istio.io/tlsMode: istio
";

/// Left out, there would be the default policy.
const NO_RETRIES: &str = "
      attempts: 0";

/// What a route may do to requests and answers, besides its time limit. The path becomes what it is.
const FILTERS: &str = "
    rewrite:
      uri: /
      authority: app.example
    headers:
      request:
        set: {x-client: bench}
        add: {x-seen: \"1\"}
        remove: [x-internal]
      response:
        set: {x-served: bench}
        remove: [x-powered-by]";

/// Instead of `LEAST_REQUEST`.
const PEAK_EWMA: &str = "  annotations: {config.selvedge.io/load-balancer: PEAK_EWMA}\n";

/// Balancing and ejection.
pub(super) const DESTINATION_RULE: &str = "\
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: app
  namespace: bench
spec:
  host: app.bench.svc.cluster.local
  trafficPolicy:
    loadBalancer:
      simple: LEAST_REQUEST
    outlierDetection:
      consecutive5xxErrors: 5
      interval: 1s
      baseEjectionTime: 2s
      maxEjectionPercent: 100
";

/// As many requests as may be said: nobody is refused.
const IDENTITY_LIMIT: &str = "\
---
apiVersion: selvedge.io/v1alpha1
kind: RateLimit
metadata:
  name: app
  namespace: bench
spec:
  limits:
  - key: clientIdentity
    requests: 1000000
";

/// The same of each tenant.
const TENANT_LIMIT: &str = "\
---
apiVersion: selvedge.io/v1alpha1
kind: RateLimit
metadata:
  name: app
  namespace: bench
spec:
  limits:
  - header: x-tenant
    requests: 1000000
";

/// Both sidecars write down each request.
const ACCESS_LOG: &str = "\
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata:
  name: log
  namespace: bench
spec:
  accessLogging:
  - providers:
    - name: json
";

/// One request of a hundred is traced.
const FEW_TRACES: &str = "\
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata:
  name: traces
  namespace: bench
spec:
  tracing:
  - randomSamplingPercentage: 1
";

/// Each is.
const ALL_TRACES: &str = "\
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata:
  name: traces
  namespace: bench
spec:
  tracing:
  - randomSamplingPercentage: 100
";

/// Nobody comes in without mutual TLS.
pub(super) const STRICT: &str = "\
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  name: default
  namespace: bench
spec:
  mtls:
    mode: STRICT
";

/// The service, and how it is to be reached: routing, retries, ejection and mutual TLS.
pub(super) fn services(app: SocketAddr, variant: Variant) -> String {
    let others = if variant == Variant::Routes { OTHERS } else { 0 };
    let others: String = (0..others).map(other_route).collect();
    let retries = if variant == Variant::WithoutRetries { NO_RETRIES } else { RETRIES };
    let filters = if variant == Variant::Filters { FILTERS } else { "" };
    let limit = match variant {
        Variant::IdentityLimit => IDENTITY_LIMIT,
        Variant::TenantLimit => TENANT_LIMIT,
        Variant::AccessLog => ACCESS_LOG,
        Variant::Traces(100) => ALL_TRACES,
        Variant::Traces(_) => FEW_TRACES,
        _ => "",
    };
    let rule = match variant {
        Variant::Balance(Algorithm::PeakEwma) | Variant::Slow(Algorithm::PeakEwma) => {
            DESTINATION_RULE.replace("namespace: bench\n", &format!("namespace: bench\n{PEAK_EWMA}"))
        }
        Variant::Balance(algorithm) | Variant::Slow(algorithm) => {
            DESTINATION_RULE.replace("simple: LEAST_REQUEST", algorithm.words())
        }
        _ => DESTINATION_RULE.to_owned(),
    };
    format!(
        "apiVersion: v1
kind: Service
metadata:
  name: app
  namespace: bench
spec:
  selector:
    app: app
  ports:
  - name: http
    port: 80
    targetPort: {port}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: app
  namespace: bench
spec:
  hosts: [{AUTHORITY}]
  http:
  - match:
    - headers:
        end-user:
          exact: jason
    timeout: 5s
    route:
    - destination:
        host: {AUTHORITY}
{others}  - timeout: 10s
    retries:{retries}{filters}
    route:
    - destination:
        host: {AUTHORITY}
{rule}{STRICT}{limit}",
        port = app.port()
    )
}

/// The same for opaque connections to an address of the service's own: routing, ejection and mutual TLS.
pub(super) fn opaque_services(app: SocketAddr, own: IpAddr) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata:
  name: app
  namespace: bench
spec:
  clusterIP: {own}
  selector:
    app: app
  ports:
  - name: tcp
    port: {service_port}
    targetPort: {port}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: app
  namespace: bench
spec:
  hosts: [{AUTHORITY}]
  tcp:
  - match:
    - port: {service_port}
      sourceLabels:
        app: client
    route:
    - destination:
        host: {AUTHORITY}
{DESTINATION_RULE}{STRICT}",
        service_port = netspace::PORT,
        port = app.port()
    )
}

/// A route that no request of the benchmark takes.
fn other_route(number: usize) -> String {
    format!(
        "  - match:
    - uri:
        prefix: /other/{number}/
    route:
    - destination:
        host: {AUTHORITY}
"
    )
}

/// The client's workload and the app's, which says where its sidecar listens once that is known.
pub(super) fn workloads(app: SocketAddr, inbound: Option<SocketAddr>, variant: Variant) -> String {
    let local = IpAddr::from([127, 0, 0, 1]);
    let at = SocketAddr::new(local, app.port());
    let mut all = workload("app", "app", at, inbound.map(|inbound| (local, inbound.port())));
    all += CLIENT;
    if let Some(inbound) = inbound {
        for number in 1..variant.endpoints() {
            let address = IpAddr::from([127, 2, (number / 250) as u8, (number % 250 + 1) as u8]);
            let at = SocketAddr::new(address, app.port());
            all += &workload(&format!("app-{number}"), "app", at, Some((address, inbound.port())));
        }
    }
    all
}

/// The endpoint whose app is slow, at `app`; it says where its sidecar listens once that is known.
pub(super) fn slow_workload(app: SocketAddr, inbound: Option<SocketAddr>) -> String {
    let address = IpAddr::from([127, 3, 0, 1]);
    let at = SocketAddr::new(address, app.port());
    workload("app-slow", "app-slow", at, inbound.map(|inbound| (address, inbound.port())))
}

fn workload(name: &str, account: &str, at: SocketAddr, inbound: Option<(IpAddr, u16)>) -> String {
    let annotations = inbound
        .map(|(ip, port)| format!("\n  annotations:\n    config.selvedge.io/inbound: \"{ip}:{port}\""))
        .unwrap_or_default();
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: {name}
  namespace: bench{annotations}
spec:
  address: {address}
  ports:
    http: {port}
  serviceAccount: {account}
  labels:
    app: app
    security.istio.io/tlsMode: istio
",
        address = at.ip(),
        port = at.port()
    )
}
