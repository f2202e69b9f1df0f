//! Random routes, and random requests for them. What is drawn comes from few words, so that requests often match, and all of
//! it is valid, so that no document is left out.

use fastrand::Rng;
use http::{Method, Version};

/// Services with routes of their own; the kind of their routes goes round.
pub(super) const SERVICES: usize = 12;

/// The headers that routes look at and change.
pub(super) const HEADERS: [&str; 4] = ["x-a", "x-b", "x-c", "x-envoy-original-path"];

pub(super) const PATHS: [&str; 8] =
    ["/", "/a", "/a/b", "/ab", "/a/b/c", "/c", "/pkg.Svc/Get", "/pkg.Svc/Put"];
const QUERIES: [&str; 4] = ["", "?q=1", "?q=2&r", "?r=1&q=1"];
const METHODS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];

/// What all services have in common: a `Service` of each version, and who may not be asked to delete.
pub(super) const COMMON: &str = "
apiVersion: v1
kind: Service
metadata: {name: v1}
spec: {selector: {version: v1}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: v2}
spec: {selector: {version: v2}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: all}
spec: {selector: {app: reviews}, ports: [{name: http, port: 80}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: keep}
spec:
  selector: {matchLabels: {version: v2}}
  action: DENY
  rules:
  - to: [{operation: {methods: [DELETE]}}]
  - to: [{operation: {paths: [/c, /new/*]}}]
    when: [{key: 'request.headers[x-b]', values: ['1']}]
";

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) host: String,
    pub(super) method: Method,
    /// With the query.
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, String)>,
    /// The gRPC method that it calls, if it is such a call.
    pub(super) grpc: Option<&'static str>,
    pub(super) version: Version,
}

/// The documents of the service at `place`.
pub(super) fn service(rng: &mut Rng, place: usize) -> String {
    let name = format!("s{place}");
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{selector: {{app: reviews}}, ports: [{{name: http, port: 80}}]}}\n---\n"
    );
    text += &match place % 3 {
        0 => virtual_service(rng, &name),
        1 => gateway_route(rng, &name, "HTTPRoute", http_rule),
        _ => gateway_route(rng, &name, "GRPCRoute", grpc_rule),
    };
    text + "---\n"
}

/// A request to the service at `place`.
pub(super) fn request(rng: &mut Rng, place: usize) -> Asked {
    let is_grpc = place % 3 == 2 || rng.u8(..6) == 0;
    let mut headers = Vec::new();
    for name in ["x-a", "x-b"] {
        if rng.bool() {
            headers.push((name, one(rng, &["1", "2", "12"]).to_owned()));
        }
    }
    let odd = one(rng, &["/a/./b", "/%61/b", "/c/../a"]);
    let call = one(rng, &["pkg.Svc/Get", "pkg.Svc/Put", "pkg.Other/Get"]);
    let path = match (is_grpc, rng.u8(..8)) {
        (true, _) => format!("/{call}"),
        (false, 0) => format!("{odd}{}", one(rng, &QUERIES)),
        (false, _) => format!("{}{}", one(rng, &PATHS), one(rng, &QUERIES)),
    };
    let method = if is_grpc { Method::POST } else { one(rng, &METHODS).parse().expect("a method") };
    let h2 = is_grpc || rng.bool();
    Asked {
        host: format!("s{place}"),
        method,
        path,
        headers,
        grpc: is_grpc.then_some(call),
        version: if h2 { Version::HTTP_2 } else { Version::HTTP_11 },
    }
}

pub(super) fn one<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(..of.len())]
}

/// Each of `parts` with a chance of one in `of`, as a flow mapping.
fn some(rng: &mut Rng, of: u8, parts: &[String]) -> String {
    let chosen: Vec<&str> = parts.iter().filter(|_| rng.u8(..of) == 0).map(String::as_str).collect();
    chosen.join(", ")
}

fn text_match(rng: &mut Rng, words: &[&str]) -> String {
    let word = one(rng, words);
    match rng.u8(..4) {
        0 => format!("{{prefix: '{}'}}", &word[..word.len().min(2)]),
        1 => format!("{{regex: '{word}.*'}}"),
        _ => format!("{{exact: '{word}'}}"),
    }
}

fn virtual_service(rng: &mut Rng, name: &str) -> String {
    let rules: Vec<String> = (0..rng.usize(2..6)).map(|_| istio_rule(rng, name)).collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}}}\nspec: {{host: {name}, subsets: \
         [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\n\
         spec:\n  hosts: [{name}]\n  http:\n{}",
        rules.concat()
    )
}

fn istio_match(rng: &mut Rng) -> String {
    let parts = [
        format!("uri: {}", text_match(rng, &PATHS)),
        format!("method: {}", text_match(rng, &METHODS)),
        format!("headers: {{x-a: {}}}", text_match(rng, &["1", "12"])),
        format!("withoutHeaders: {{x-b: {}}}", text_match(rng, &["1", "2"])),
        format!("queryParams: {{q: {}}}", text_match(rng, &["1", "2"])),
        format!("sourceLabels: {{app: {}}}", one(rng, &["caller", "caller", "other"])),
        format!("authority: {}", text_match(rng, &["s1:80", "s2:80", "s"])),
        "ignoreUriCase: true".to_owned(),
    ];
    format!("{{{}}}", some(rng, 6, &parts))
}

fn changes(rng: &mut Rng) -> String {
    let parts = [
        format!("set: {{x-a: '{}'}}", one(rng, &["1", "9"])),
        "add: {x-c: 'of-%REQ(x-b)%.'}".to_owned(),
        "remove: [x-b]".to_owned(),
    ];
    format!("{{{}}}", some(rng, 2, &parts))
}

pub(super) fn istio_rule(rng: &mut Rng, name: &str) -> String {
    let matches: Vec<String> = (0..rng.usize(..3)).map(|_| istio_match(rng)).collect();
    let matches =
        if matches.is_empty() { String::new() } else { format!("match: [{}], ", matches.join(", ")) };
    let headers = format!("headers: {{request: {}, response: {{set: {{x-said: a}}}}}}, ", changes(rng));
    let action = match rng.u8(..8) {
        0 => "redirect: {uri: /elsewhere, authority: other.example, redirectCode: 302}".to_owned(),
        1 => "directResponse: {status: 299, body: {string: fixed}}".to_owned(),
        _ => istio_backends(rng, name),
    };
    format!("  - {{{matches}{headers}{action}}}\n")
}

fn istio_backends(rng: &mut Rng, name: &str) -> String {
    let share = |rng: &mut Rng, weight: u32| {
        let subset =
            one(rng, &["subset: v1", "subset: v2", "subset: v2", "subset: gone", "port: {number: 80}"]);
        let headers = if rng.bool() { ", headers: {request: {set: {x-c: share}}}" } else { "" };
        format!("{{destination: {{host: {name}, {subset}}}, weight: {weight}{headers}}}")
    };
    let shares = match rng.u8(..3) {
        0 => [share(rng, 1), share(rng, 3)].join(", "),
        _ => share(rng, 100),
    };
    let rewrite = match rng.u8(..5) {
        0 => "rewrite: {uri: /new, authority: other.example}, ",
        1 => r"rewrite: {uriRegexRewrite: {match: '^/a/(.*)$', rewrite: '/new/\1'}}, ",
        2 => "rewrite: {authority: 'other.example:81'}, ",
        _ => "",
    };
    let fault = match rng.u8(..8) {
        0 => "fault: {abort: {httpStatus: 418, percentage: {value: 100}}}, ",
        1 => "fault: {abort: {httpStatus: 418, percentage: {value: 0}}}, ",
        2 => "fault: {delay: {fixedDelay: 1ms, percentage: {value: 100}}}, ",
        _ => "",
    };
    let mirror = if rng.u8(..4) == 0 { "mirror: {host: v2}, " } else { "" };
    format!("{fault}{rewrite}{mirror}route: [{shares}]")
}

fn gateway_route(rng: &mut Rng, name: &str, kind: &str, rule: fn(&mut Rng) -> String) -> String {
    let mut rules: Vec<String> = (0..rng.usize(2..5)).map(|_| rule(rng)).collect();
    if rng.bool() {
        rules.push("  - {backendRefs: [{name: all, port: 80}]}\n".to_owned());
    }
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, name: {name}}}]\n  rules:\n{}",
        rules.concat()
    )
}

fn named(rng: &mut Rng, name: &str) -> String {
    let kind = one(rng, &["Exact", "Exact", "RegularExpression"]);
    format!("[{{name: {name}, type: {kind}, value: '{}'}}]", one(rng, &["1", "2"]))
}

fn http_match(rng: &mut Rng, prefix: Option<&str>) -> String {
    let kind = one(rng, &["Exact", "PathPrefix", "PathPrefix", "RegularExpression"]);
    let path = match prefix {
        Some(prefix) => format!("path: {{type: PathPrefix, value: {prefix}}}"),
        None => format!("path: {{type: {kind}, value: '{}'}}", one(rng, &PATHS)),
    };
    let parts = [
        format!("headers: {}", named(rng, "x-a")),
        format!("queryParams: {}", named(rng, "q")),
        format!("method: {}", one(rng, &METHODS)),
    ];
    let more = some(rng, 5, &parts);
    if more.is_empty() { format!("{{{path}}}") } else { format!("{{{path}, {more}}}") }
}

pub(super) fn http_rule(rng: &mut Rng) -> String {
    let mut filters = vec![modifier(rng)];
    let mut prefix = None;
    match rng.u8(..6) {
        0 => {
            prefix = Some(one(rng, &["/a", "/a/b", "/"]));
            filters.push("{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}".to_owned());
        }
        1 => filters.push(
            "{type: URLRewrite, urlRewrite: {hostname: other.example, path: {type: ReplaceFullPath, replaceFullPath: /new/x}}}".to_owned(),
        ),
        2 => filters.push(
            "{type: RequestRedirect, requestRedirect: {port: 8443, scheme: https, statusCode: 301}}".to_owned(),
        ),
        3 => filters.push(
            "{type: RequestMirror, requestMirror: {backendRef: {name: v1, port: 80}}}".to_owned(),
        ),
        _ => {}
    }
    let redirects = filters.last().is_some_and(|filter| filter.contains("RequestRedirect"));
    let matches: Vec<String> = match prefix {
        Some(prefix) => vec![http_match(rng, Some(prefix))],
        None => (0..rng.usize(1..3)).map(|_| http_match(rng, None)).collect(),
    };
    let backends =
        if redirects { String::new() } else { format!(", backendRefs: [{}]", gateway_backends(rng)) };
    format!("  - {{matches: [{}], filters: [{}]{backends}}}\n", matches.join(", "), filters.join(", "))
}

fn modifier(rng: &mut Rng) -> String {
    let parts = ["set: [{name: x-a, value: '9'}]", "add: [{name: x-c, value: rule}]", "remove: [x-b]"];
    let parts = parts.map(ToOwned::to_owned);
    format!("{{type: RequestHeaderModifier, requestHeaderModifier: {{{}}}}}", some(rng, 2, &parts))
}

fn gateway_backends(rng: &mut Rng) -> String {
    let share = |rng: &mut Rng, weight: u32| {
        let name = one(rng, &["v1", "v2", "v1", "v2", "gone"]);
        let filters = if rng.bool() { format!(", filters: [{}]", modifier(rng)) } else { String::new() };
        format!("{{name: {name}, port: 80, weight: {weight}{filters}}}")
    };
    match rng.u8(..4) {
        0 => [share(rng, 1), share(rng, 2)].join(", "),
        1 => [share(rng, 0), share(rng, 1)].join(", "),
        _ => share(rng, 1),
    }
}

fn grpc_rule(rng: &mut Rng) -> String {
    let method = one(
        rng,
        &[
            "{service: pkg.Svc}",
            "{service: pkg.Svc, method: Get}",
            "{method: Put}",
            "{type: RegularExpression, service: 'pkg[.].*', method: 'G.t'}",
        ],
    );
    let headers = if rng.bool() { format!(", headers: {}", named(rng, "x-a")) } else { String::new() };
    let (filter, backends) = (modifier(rng), gateway_backends(rng));
    format!(
        "  - {{matches: [{{method: {method}{headers}}}], filters: [{filter}], backendRefs: [{backends}]}}\n"
    )
}
