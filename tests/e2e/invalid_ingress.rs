//! Every `Ingress` that the API server refuses is refused by `selvedge check`, with its path, the line and what to do, and
//! by the validating webhook, which runs the same code (Kubernetes, `ValidateIngress`).

use crate::invalid::all_are_refused;

/// Below `spec`, and words of the message: what is wrong, and what to do.
type Row = (&'static str, [&'static str; 2]);

const ROWS: &[Row] = &[
    ("spec: {} # <-", ["neither rules nor a defaultBackend", "give one of them"]),
    ("spec:\n  ingressClassName: '' # <-\n  rules: [{host: a}]", ["is empty", "name a class"]),
    // Hosts.
    ("spec:\n  rules:\n  - host: 10.0.0.1 # <-", ["is not a host", "DNS name"]),
    ("spec:\n  rules:\n  - host: Shop.example.com # <-", ["is not a host", "lower case"]),
    ("spec:\n  rules:\n  - host: shop.example.com:80 # <-", ["is not a host", "DNS name"]),
    ("spec:\n  rules:\n  - host: 'shop.*.com' # <-", ["is not a host", "*.example.com"]),
    ("spec:\n  rules:\n  - host: '*' # <-", ["is not a host", "*.example.com"]),
    ("spec:\n  rules: [{host: a}]\n  tls:\n  - hosts:\n    - 'a b' # <-", ["is not a host", "DNS name"]),
    // Paths.
    ("spec:\n  rules:\n  - http:\n      paths: [] # <-", ["is empty", "give a path"]),
    (
        "spec:\n  rules:\n  - http:\n      paths:\n      - path: /a # <-\n        BACKEND",
        ["pathType", "Prefix"],
    ),
    (
        "spec:\n  rules:\n  - http:\n      paths:\n      - pathType: prefix # <-\n        BACKEND",
        ["prefix", "Prefix"],
    ),
    (
        "spec:\n  rules:\n  - http:\n      paths:\n      - pathType: Prefix # <-\n        BACKEND",
        ["is not a path", "begin it with /"],
    ),
    (
        "spec:\n  rules:\n  - http:\n      paths:\n      - pathType: Exact\n        path: a # <-\n        BACKEND",
        ["is not a path", "begin it with /"],
    ),
    (
        "spec:\n  rules:\n  - http:\n      paths:\n      - pathType: ImplementationSpecific\n        path: a # <-\n        BACKEND",
        ["is not a path", "begin it with /"],
    ),
    (
        "spec:\n  rules:\n  - http:\n      paths:\n      - pathType: Prefix\n        path: /a/../b # <-\n        BACKEND",
        ["which no path has", "remove it"],
    ),
    (
        "spec:\n  rules:\n  - http:\n      paths:\n      - pathType: Exact\n        path: //a # <-\n        BACKEND",
        ["which no path has", "remove it"],
    ),
    // Backends.
    ("spec:\n  defaultBackend: {} # <-", ["names no service", "name and port"]),
    (
        "spec:\n  rules:\n  - http:\n      paths:\n      - pathType: Prefix # <-\n        path: /a",
        ["names no service", "name and port"],
    ),
    (
        "spec:\n  defaultBackend: # <-\n    service: {name: a, port: {number: 80}}\n    resource: {kind: A, name: a}",
        ["a service and a resource", "keep one"],
    ),
    ("spec:\n  defaultBackend:\n    resource: {kind: A} # <-", ["needs a kind and a name", ""]),
    ("spec:\n  defaultBackend:\n    service: {port: {number: 80}} # <-", ["is missing", "name a Service"]),
    ("spec:\n  defaultBackend:\n    service: {name: a} # <-", ["is missing", "its number or its name"]),
    (
        "spec:\n  defaultBackend:\n    service:\n      name: a\n      port: {number: 0} # <-",
        ["is not a port", "use 1 to 65535"],
    ),
    (
        "spec:\n  defaultBackend:\n    service:\n      name: a\n      port: {number: 80, name: http} # <-",
        ["a number and a name", "keep one"],
    ),
    (
        "spec:\n  defaultBackend:\n    service:\n      name: a\n      port: {name: 80} # <-",
        ["is a number", "write number:"],
    ),
];

#[test]
fn every_invalid_ingress_is_refused_with_its_line_and_a_remedy() {
    let rows = ROWS.iter().map(|(rest, words)| {
        let rest = rest.replace("BACKEND", "backend: {service: {name: a, port: {number: 80}}}");
        let metadata = "metadata: {name: web}";
        (format!("apiVersion: networking.k8s.io/v1\nkind: Ingress\n{metadata}\n{rest}\n"), *words)
    });
    let both = (
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: web\n  annotations:\n    \
         kubernetes.io/ingress.class: a # <-\nspec:\n  ingressClassName: a\n  rules: [{host: a}]\n"
            .to_owned(),
        ["cannot be given beside spec.ingressClassName", "remove the annotation"],
    );
    let class = (
        "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: web}\nspec: {} # <-\n"
            .to_owned(),
        ["is missing", "write selvedge.io/ingress"],
    );
    all_are_refused(rows.chain([both, class]));
}
