//! Every invalid document about routes is refused by `selvedge check`, with its path, the line and what to do, and by the
//! validating webhook, which runs the same code. Istio's validation and the Gateway API's rules say what is invalid.

use crate::invalid::all_are_refused;

/// The kind, its spec, and words of the message: what is wrong, and what to do.
type Row = (&'static str, &'static str, [&'static str; 2]);

const VS: &str = "VirtualService";
const HTTP: &str = "HTTPRoute";
const GRPC: &str = "GRPCRoute";

/// Below `spec`. A `VirtualService` has the host `a`, a route of the Gateway API the parent `a`; a route that says no
/// destination goes to `a`.
const ROWS: &[Row] = &[
    // Regular expressions.
    (
        VS,
        "http:\n- match:\n  - uri:\n      regex: '(' # <-\n  TO_A",
        ["is not an RE2 regular expression", "unclosed"],
    ),
    (VS, "http:\n- match:\n  - headers:\n      x:\n        regex: '[' # <-\n  TO_A", ["RE2", "unclosed"]),
    (
        VS,
        "http:\n- match:\n  - queryParams:\n      x:\n        regex: 'a{2,1}' # <-\n  TO_A",
        ["RE2", "repetition"],
    ),
    (VS, "http:\n- match:\n  - authority:\n      regex: '\\z(?=a)' # <-\n  TO_A", ["RE2", "look-around"]),
    (
        VS,
        "http:\n- rewrite:\n    uriRegexRewrite:\n      match: '(' # <-\n      rewrite: /\n  TO_A",
        ["RE2", "unclosed"],
    ),
    (
        VS,
        "http:\n- rewrite:\n    uriRegexRewrite:\n      match: a\n      rewrite: \\1 # <-\n  TO_A",
        ["names a group that the expression does not have", "; "],
    ),
    (VS, "http:\n- corsPolicy:\n    allowOrigins:\n    - regex: '(' # <-\n  TO_A", ["RE2", "unclosed"]),
    (
        HTTP,
        "rules:\n- matches:\n  - path:\n      type: RegularExpression\n      value: '(' # <-",
        ["RE2", "unclosed"],
    ),
    (
        HTTP,
        "rules:\n- matches:\n  - headers:\n    - type: RegularExpression\n      name: x\n      value: '(' # <-",
        ["RE2", "unclosed"],
    ),
    (
        HTTP,
        "rules:\n- matches:\n  - queryParams:\n    - type: RegularExpression\n      name: x\n      value: '(' # <-",
        ["RE2", "unclosed"],
    ),
    (
        GRPC,
        "rules:\n- matches:\n  - method:\n      type: RegularExpression\n      service: '(' # <-",
        ["RE2", "unclosed"],
    ),
    // Fields that exclude each other, and routes that do nothing.
    (
        VS,
        "http:\n- redirect:\n    uri: /b\n  rewrite: # <-\n    uri: /c",
        ["stands beside redirect", "remove one"],
    ),
    (
        VS,
        "http:\n- redirect:\n    uri: /b\n  route: # <-\n  - destination:\n      host: a",
        ["stands beside redirect", "remove one"],
    ),
    (
        VS,
        "http:\n- redirect:\n    uri: /b\n  fault: # <-\n    abort:\n      httpStatus: 500",
        ["stands beside", "remove one"],
    ),
    (
        VS,
        "http:\n- directResponse:\n    status: 200\n  route: # <-\n  - destination:\n      host: a",
        ["stands beside", "remove one"],
    ),
    (
        VS,
        "http:\n- redirect:\n    uri: /b\n  directResponse: # <-\n    status: 200",
        ["stands beside redirect", "remove one"],
    ),
    (
        VS,
        "http:\n- delegate:\n    name: b\n  route: # <-\n  - destination:\n      host: a",
        ["stands beside delegate", "remove one"],
    ),
    (
        VS,
        "http:\n- mirror: # <-\n    host: b\n  mirrors:\n  - destination:\n      host: c\n  TO_A",
        ["stands beside mirrors", "remove one"],
    ),
    (
        VS,
        "http:\n- rewrite: # <-\n    uri: /b\n    uriRegexRewrite:\n      match: a\n      rewrite: b\n  TO_A",
        ["gives both uri and uriRegexRewrite", "keep one"],
    ),
    (VS, "http:\n- rewrite: {} # <-\n  TO_A", ["; give ", "authority"]),
    (VS, "http:\n- redirect: {} # <-", ["; give ", "authority"]),
    (VS, "http:\n- name: nothing # <-", ["has no route", "name at least one destination"]),
    (VS, "http:\n- retries: # <-\n    perTryTimeout: 1s\n  TO_A", ["says how to retry", "add attempts"]),
    (
        HTTP,
        "rules:\n- filters: # <-\n  - type: RequestRedirect\n    requestRedirect:\n      hostname: a\n  - type: URLRewrite\n    urlRewrite:\n      hostname: a",
        ["exclude each other", "keep one of them"],
    ),
    (HTTP, "rules:\n- filters:\n  - type: RequestRedirect # <-", ["is missing", "needs it"]),
    (
        HTTP,
        "rules:\n- matches: # <-\n  - path:\n      type: Exact\n      value: /a\n  filters:\n  - type: URLRewrite\n    urlRewrite:\n      path:\n        type: ReplacePrefixMatch\n        replacePrefixMatch: /b",
        ["replacePrefixMatch", "needs exactly one match"],
    ),
    // Weights.
    (
        VS,
        "http:\n- route: # <-\n  - destination:\n      host: a\n    weight: 0\n  - destination:\n      host: b\n    weight: 0",
        ["sum to 0", "give at least one"],
    ),
    (
        VS,
        "http:\n- route:\n  - destination:\n      host: a\n    weight: -1 # <-",
        ["cannot be used here", "write a whole number"],
    ),
    (
        HTTP,
        "rules:\n- backendRefs:\n  - name: a\n    port: 1\n    weight: 1000001 # <-",
        ["is more than 1000000", "use 0 to"],
    ),
    (
        GRPC,
        "rules:\n- backendRefs:\n  - name: a\n    port: 1\n    weight: -1 # <-",
        ["cannot be used here", "write a whole number"],
    ),
    // Statuses.
    (VS, "http:\n- fault:\n    abort:\n      httpStatus: 999 # <-\n  TO_A", ["999", "use"]),
    (
        VS,
        "http:\n- fault:\n    abort:\n      grpcStatus: SOMETIMES # <-\n  TO_A",
        ["is not the name of a gRPC status", "write for example UNAVAILABLE"],
    ),
    (VS, "http:\n- directResponse:\n    status: 99 # <-", ["99", "use"]),
    (
        VS,
        "http:\n- redirect:\n    uri: /b\n    redirectCode: 300 # <-",
        ["is not the status of a redirect", "use 301"],
    ),
    (
        VS,
        "http:\n- retries:\n    attempts: 1\n    retryOn: '999' # <-\n  TO_A",
        ["is not a retry condition", "use for example"],
    ),
    (
        VS,
        "http:\n- retries:\n    attempts: 1\n    retryOn: sometimes # <-\n  TO_A",
        ["is not a retry condition", "use for example"],
    ),
    (
        HTTP,
        "rules:\n- filters:\n  - type: RequestRedirect\n    requestRedirect:\n      statusCode: 200 # <-",
        ["is not the status of a redirect", "use 301"],
    ),
    (HTTP, "rules:\n- retry:\n    codes: [200] # <-", ["is not the status of a failure", "use 400 to 599"]),
    // Shares of requests.
    (
        VS,
        "http:\n- fault:\n    abort:\n      httpStatus: 500\n      percentage:\n        value: 100.5 # <-\n  TO_A",
        ["100.5", "100"],
    ),
    (
        VS,
        "http:\n- fault:\n    delay:\n      fixedDelay: 1s\n      percentage:\n        value: -1 # <-\n  TO_A",
        ["is not a percentage", "use 0 to 100"],
    ),
    (
        VS,
        "http:\n- fault:\n    delay:\n      fixedDelay: 1s\n      percent: 101 # <-\n  TO_A",
        ["101", "100"],
    ),
    (VS, "http:\n- mirror:\n    host: b\n  mirrorPercentage:\n    value: 101 # <-\n  TO_A", ["101", "100"]),
    (
        VS,
        "http:\n- mirrors:\n  - destination:\n      host: b\n    percentage:\n      value: 101 # <-\n  TO_A",
        ["101", "100"],
    ),
    (
        HTTP,
        "rules:\n- filters:\n  - type: RequestMirror\n    requestMirror:\n      backendRef:\n        name: a\n        port: 1\n      percent: 101 # <-",
        ["101 is more than 100", "use 0 to 100"],
    ),
    (
        HTTP,
        "rules:\n- filters:\n  - type: RequestMirror\n    requestMirror:\n      backendRef:\n        name: a\n        port: 1\n      fraction:\n        numerator: 1\n        denominator: 0 # <-",
        ["denominator: is 0", "use for example 100"],
    ),
    (
        HTTP,
        "rules:\n- filters:\n  - type: RequestMirror\n    requestMirror:\n      backendRef:\n        name: a\n        port: 1\n      fraction: # <-\n        numerator: 3\n        denominator: 2",
        ["3 of 2 is more than all", "use for example 1 of 100"],
    ),
    // Headers.
    (
        VS,
        "http:\n- match:\n  - headers:\n      'a b': # <-\n        exact: x\n  TO_A",
        ["is not the name of a header", "correct it"],
    ),
    (
        VS,
        "http:\n- headers:\n    request:\n      set:\n        'a b': x # <-\n  TO_A",
        ["is not the name of a header", "correct it"],
    ),
    (
        VS,
        "http:\n- headers:\n    request:\n      set:\n        ':path': /x # <-\n  TO_A",
        ["cannot be changed here", "by rewrite.uri"],
    ),
    (
        VS,
        "http:\n- headers:\n    response:\n      add:\n        ':status': '200' # <-\n  TO_A",
        ["cannot be changed here", "by rewrite.uri"],
    ),
    (
        VS,
        "http:\n- headers:\n    request:\n      remove:\n      - '' # <-\n  TO_A",
        ["is not the name of a header", "correct it"],
    ),
    (
        VS,
        "http:\n- route:\n  - destination:\n      host: a\n    headers:\n      request:\n        add:\n          x: '50%' # <-",
        ["a % begins a command", "write %%"],
    ),
    (
        HTTP,
        "rules:\n- matches:\n  - headers:\n    - name: ':path' # <-\n      value: a",
        ["is not the name of a header", "correct it"],
    ),
    (
        HTTP,
        "rules:\n- filters:\n  - type: RequestHeaderModifier\n    requestHeaderModifier:\n      set:\n      - name: a b # <-\n        value: x",
        ["is not the name of a header", "correct it"],
    ),
    (
        HTTP,
        "rules:\n- filters:\n  - type: ResponseHeaderModifier\n    responseHeaderModifier:\n      add:\n      - name: ':status' # <-\n        value: '200'",
        ["is not the name of a header", "correct it"],
    ),
    (
        GRPC,
        "rules:\n- matches:\n  - headers:\n    - name: a b # <-\n      value: a",
        ["is not the name of a header", "correct it"],
    ),
    // Paths, methods, ports, hosts.
    (VS, "http:\n- match:\n  - uri:\n      prefix: '' # <-\n  TO_A", ["is empty", "write /"]),
    (VS, "http:\n- match:\n  - uri: {} # <-\n  TO_A", ["is empty", "give exact, prefix or regex"]),
    (
        VS,
        "http:\n- match:\n  - uri: # <-\n      exact: /a\n      prefix: /b\n  TO_A",
        ["more than one", "keep one"],
    ),
    (VS, "http:\n- match:\n  - port: 70000 # <-\n  TO_A", ["is not a port", "use 1 to 65535"]),
    (
        VS,
        "http:\n- match:\n  - sourceNamespace: A B # <-\n  TO_A",
        ["is not a namespace", "write the name of one"],
    ),
    (
        VS,
        "http:\n- route:\n  - destination:\n      host: a\n      port:\n        number: 0 # <-",
        ["is not a port", "use 1 to 65535"],
    ),
    (VS, "http:\n- route:\n  - destination:\n      host: '' # <-", ["names nothing", "name a host"]),
    (VS, "http:\n- rewrite:\n    uri: b # <-\n  TO_A", ["is not a path", "write it as"]),
    (VS, "http:\n- rewrite:\n    authority: a b # <-\n  TO_A", ["is not a host", "correct it"]),
    (HTTP, "rules:\n- matches:\n  - path:\n      value: a # <-", ["is not a path", "begin it with /"]),
    (HTTP, "rules:\n- matches:\n  - path:\n      value: /a//b # <-", ["which no path has", "remove it"]),
    (HTTP, "rules:\n- matches:\n  - method: get # <-", ["is not known here", "use one of GET"]),
    (
        HTTP,
        "rules:\n- matches:\n  - queryParams:\n    - name: '' # <-\n      value: a",
        ["is empty", "name a query parameter"],
    ),
    (
        HTTP,
        "rules:\n- filters:\n  - type: RequestRedirect\n    requestRedirect:\n      hostname: '*.a' # <-",
        ["is not a host name", "use lower-case"],
    ),
    (
        HTTP,
        "rules:\n- filters:\n  - type: RequestRedirect\n    requestRedirect:\n      scheme: ftp # <-",
        ["is not known here", "use one of http, https"],
    ),
    (HTTP, "rules:\n- filters:\n  - type: Sieve # <-", ["is not known here", "use one of"]),
    (HTTP, "rules:\n- backendRefs:\n  - name: a\n    port: 70000 # <-", ["is not a port", "use 1 to 65535"]),
    (GRPC, "rules:\n- matches:\n  - method: {} # <-", ["is empty", "give service, method or both"]),
    (
        GRPC,
        "rules:\n- matches:\n  - method:\n      service: a/b # <-",
        ["is not the name of a service", "correct it"],
    ),
    // Times.
    (VS, "http:\n- timeout: 5 # <-\n  TO_A", ["has no unit", "write 5s"]),
    (VS, "http:\n- timeout: -1s # <-\n  TO_A", ["is not a duration", "write it as"]),
    (
        VS,
        "http:\n- fault:\n    delay:\n      fixedDelay: soon # <-\n  TO_A",
        ["is not a duration", "write it as"],
    ),
    (VS, "http:\n- retries:\n    attempts: 1\n    backoff: 0s # <-\n  TO_A", ["is 0", "write for example"]),
    (HTTP, "rules:\n- timeouts:\n    request: 1.5s # <-", ["is not a duration", "write it as"]),
    (
        HTTP,
        "rules:\n- timeouts:\n    request: 1s\n    backendRequest: 2s # <-",
        ["is longer than", "make it shorter"],
    ),
    (HTTP, "rules:\n- retry:\n    backoff: 0s # <-", ["is 0", "write for example"]),
    // Opaque connections.
    (VS, "tls:\n- match:\n  - sniHosts: [] # <-\n  TO_A", ["is empty", "name at least one host"]),
    (
        VS,
        "tcp:\n- route: # <-\n  - destination:\n      host: a\n    weight: 0\n  - destination:\n      host: b\n    weight: 0",
        ["sum to 0", "give at least one"],
    ),
    (
        VS,
        "tcp:\n- match:\n  - destinationSubnets: [10.0.0.0/99] # <-\n  TO_A",
        ["is not a subnet", "write it as"],
    ),
];

/// The document of a row.
fn document((kind, spec, _): &Row) -> String {
    let spec = spec.replace("TO_A", "route: [{destination: {host: a}}]").replace('\n', "\n  ");
    let (version, to) = match *kind {
        VS => ("networking.istio.io/v1", "hosts: [a]"),
        _ => ("gateway.networking.k8s.io/v1", "parentRefs: [{group: '', kind: Service, name: a}]"),
    };
    format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\nspec:\n  {to}\n  {spec}\n")
}

#[test]
fn every_invalid_route_is_refused_with_its_line_and_what_to_do_by_check_and_by_the_webhook() {
    all_are_refused(ROWS.iter().map(|row| (document(row), row.2)));
}
