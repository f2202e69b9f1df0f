//! What the Gateway API's conformance tests for gateways ask, through a real gateway.
//! [The guide](../../../control-plane/conformance.md) says which test has the cases of which of theirs.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use selvedge_demo::{
    apps::reviews,
    call::{self, Answer, Call},
    workload::Spec,
};
use selvedge_tests::{Mesh, SOON, poll};

use super::{Edge, HOST, WORKLOAD, gateway, http_listener, requests::listening, start};
use crate::{
    BOTH_VERSIONS, SELVEDGE,
    gateway_api::{V1, V2, services},
};

/// Both versions behind a gateway with these listeners, and these documents. It is waited for an answer of `HOST/ready`.
pub(super) async fn edge_of(listeners: &str, documents: &str) -> Edge {
    let mesh =
        Mesh::of(SELVEDGE, [Spec::reviews("reviews-v1", "v1"), Spec::reviews("reviews-v2", "v2")]).await;
    let ready = route("ready", "parentRefs: [{name: edge}]", "ready.example", &format!("{{{V1}}}"));
    let other = ready.replace("name: ready,", "name: ready-v2,").replace("ready.example", "ready-v2.example");
    let other = other.replace(V1, V2);
    let documents = [WORKLOAD, &gateway(listeners), &services(), &ready, &other, documents].concat();
    mesh.write("edge.yaml", &documents).unwrap();
    let (process, admin) = start(&mesh, &[]).await;
    let edge = Edge { mesh, process, admin };
    for host in ["ready.example", "ready-v2.example"] {
        poll(SOON, "both versions answer", async || {
            let answer = edge.call(call::to(host, "/")).await?;
            if answer.status.is_success() { Ok(()) } else { Err(answer.summary()) }
        })
        .await;
    }
    edge
}

pub(super) async fn edge(documents: &str) -> Edge {
    edge_of(&http_listener("http", 80), documents).await
}

pub(super) fn route(name: &str, parents: &str, hostname: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{{parents}, hostnames: ['{hostname}'], rules: [{rules}]}}\n---\n"
    )
}

/// A route of [`HOST`] at the gateway.
pub(super) fn web(rules: &str) -> String {
    route("web", "parentRefs: [{name: edge}]", HOST, rules)
}

/// The version that answers, or the status.
pub(super) async fn version(edge: &Edge, call: Call) -> Result<String, u16> {
    let answer = edge.call(call).await.unwrap();
    match answer.status {
        StatusCode::OK => Ok(answer.json::<reviews::Answer>().unwrap().version),
        status => Err(status.as_u16()),
    }
}

pub(super) async fn seen(edge: &Edge, call: Call) -> (reviews::Answer, Answer) {
    let answer = edge.call(call).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.summary());
    (answer.json().unwrap(), answer)
}

#[tokio::test]
async fn requests_follow_the_most_specific_match_of_all_routes() {
    let first = format!(
        "{{matches: [{{path: {{value: /}}}}, {{headers: [{{name: version, value: one}}]}}], {V1}}}, \
         {{matches: [{{path: {{value: /m}}, method: POST}}], {V2}}}, \
         {{matches: [{{path: {{type: Exact, value: /exact}}}}], {V2}}}, \
         {{matches: [{{path: {{value: /q}}, queryParams: [{{name: animal, value: whale}}, {{name: color, value: blue}}]}}], {V2}}}"
    );
    let second = format!(
        "{{matches: [{{path: {{value: /v2}}}}, {{headers: [{{name: version, value: two}}]}}], {V2}}}, \
         {{matches: [{{path: {{value: /m}}, headers: [{{name: a, value: b}}]}}], {V1}}}, \
         {{matches: [{{path: {{value: /q}}, queryParams: [{{name: animal, value: whale}}]}}], {V1}}}"
    );
    let second = route("web-2", "parentRefs: [{name: edge}]", HOST, &second);
    let edge = edge(&(web(&first) + &second)).await;

    for http in BOTH_VERSIONS {
        let to = |path: &str| call::to(HOST, path).version(http);
        for (call, expected) in [
            (to("/"), "v1"),
            (to("/example"), "v1"),
            (to("/").header("version", "one"), "v1"),
            (to("/v2"), "v2"),
            (to("/v2/example"), "v2"),
            (to("/").header("version", "two"), "v2"),
            (to("/v2/").header("version", "one"), "v2"),
            (to("/v2example"), "v1"),
            (to("/exact"), "v2"),
            (to("/exact/"), "v1"),
            (to("/exact?a=b"), "v2"),
            (to("/m").method(Method::POST).header("a", "b"), "v2"),
            (to("/m").header("a", "b"), "v1"),
            (to("/q?animal=whale"), "v1"),
            (to("/q?color=blue&animal=whale"), "v2"),
        ] {
            let shown = format!("{call:?}");
            assert_eq!(version(&edge, call).await.as_deref(), Ok(expected), "{shown}");
        }
    }
}

#[tokio::test]
async fn listeners_of_one_port_are_isolated_by_their_host_names() {
    let names = [
        ("any", ""),
        ("wide", "*.example.com"),
        ("foo", "*.foo.example.com"),
        ("abc", "abc.foo.example.com"),
    ];
    let listener = |(name, host): (&str, &str)| {
        let host = if host.is_empty() { String::new() } else { format!(", hostname: '{host}'") };
        format!("{{name: {name}, port: 80, protocol: HTTP{host}}}")
    };
    let at = |name: &str| {
        let rules = format!("{{matches: [{{path: {{value: /{name}}}}}], {V1}}}");
        let parents = format!("parentRefs: [{{name: edge, sectionName: {name}}}]");
        route(name, &parents, "", &rules).replace("hostnames: ['']", "hostnames: []")
    };
    let listeners = names.map(listener).join(", ");
    let shared = route(
        "shared",
        "parentRefs: [{name: edge, sectionName: wide}]",
        "very.specific.com",
        &format!("{{{V1}}}"),
    )
    .replace("['very.specific.com']", "['very.specific.com', 'shared.example.com', '*.bar.example.com']");
    let edge = edge_of(&listeners, &(names.map(|(name, _)| at(name)).concat() + &shared)).await;

    for (host, serves) in [
        ("bar.com", "any"),
        ("example.com", "any"),
        ("bar.example.com", "wide"),
        ("foo.example.com", "wide"),
        ("bar.foo.example.com", "foo"),
        ("abc.foo.example.com", "abc"),
    ] {
        for http in BOTH_VERSIONS {
            for (name, _) in names {
                let found = version(&edge, call::to(host, &format!("/{name}")).version(http)).await;
                let expected = if name == serves { Ok("v1".to_owned()) } else { Err(404) };
                assert_eq!(found, expected, "{host} /{name} {http:?}");
            }
        }
    }
    for (host, expected) in [
        ("shared.example.com", Ok("v1".to_owned())),
        ("a.bar.example.com", Ok("v1".to_owned())),
        ("very.specific.com", Err(404)),
    ] {
        assert_eq!(version(&edge, call::to(host, "/x")).await, expected, "{host}");
    }
}

#[tokio::test]
async fn a_redirect_says_where_and_the_port_of_the_listener_counts() {
    let rule = |path: &str, fields: &str| {
        format!(
            "{{matches: [{{path: {{value: {path}}}}}], filters: [{{type: RequestRedirect, requestRedirect: {{{fields}}}}}]}}"
        )
    };
    let full = "path: {type: ReplaceFullPath, replaceFullPath: /full}";
    let prefix = "path: {type: ReplacePrefixMatch, replacePrefixMatch: /replacement}";
    let rules = [
        rule("/host", "hostname: example.org"),
        rule("/301", "hostname: example.org, statusCode: 301"),
        rule("/303", "statusCode: 303, hostname: example.org"),
        rule("/307", "statusCode: 307, hostname: example.org"),
        rule("/308", "statusCode: 308, hostname: example.org"),
        rule("/port", "port: 8083"),
        rule("/https", "scheme: https"),
        rule("/http", "scheme: http"),
        rule("/https-443", "scheme: https, port: 443"),
        rule("/https-8443", "scheme: https, port: 8443"),
        rule("/http-80", "scheme: http, port: 80"),
        rule("/http-8080", "scheme: http, port: 8080"),
        rule("/path", full),
        rule("/original", prefix),
    ];
    let edge = edge_of(
        &format!("{}, {}", http_listener("http", 80), http_listener("alt", 8080)),
        &web(&rules.join(", ")),
    )
    .await;

    for (path, status, at_80, at_8080) in [
        ("/host", 302, "http://example.org/host", "http://example.org:8080/host"),
        ("/301?a=b", 301, "http://example.org/301?a=b", "http://example.org:8080/301?a=b"),
        ("/303", 303, "http://example.org/303", "http://example.org:8080/303"),
        ("/307", 307, "http://example.org/307", "http://example.org:8080/307"),
        ("/308", 308, "http://example.org/308", "http://example.org:8080/308"),
        ("/port", 302, "http://HOST:8083/port", "http://HOST:8083/port"),
        ("/https", 302, "https://HOST/https", "https://HOST/https"),
        ("/http", 302, "http://HOST/http", "http://HOST/http"),
        ("/https-443", 302, "https://HOST/https-443", "https://HOST/https-443"),
        ("/https-8443", 302, "https://HOST:8443/https-8443", "https://HOST:8443/https-8443"),
        ("/http-80", 302, "http://HOST/http-80", "http://HOST/http-80"),
        ("/http-8080", 302, "http://HOST:8080/http-8080", "http://HOST:8080/http-8080"),
        ("/path/x", 302, "http://HOST/full", "http://HOST:8080/full"),
        ("/original/lemon", 302, "http://HOST/replacement/lemon", "http://HOST:8080/replacement/lemon"),
    ] {
        for (port, authority, location) in
            [(80, HOST.to_owned(), at_80), (8080, format!("{HOST}:8080"), at_8080)]
        {
            let answer = call::send(edge.at(port).await, call::to(&authority, path)).await.unwrap();
            assert_eq!(answer.status.as_u16(), status, "{port} {path}: {}", answer.summary());
            assert_eq!(answer.headers["location"], location.replace("HOST", HOST), "{port} {path}");
        }
    }
}

#[tokio::test]
async fn paths_hosts_and_headers_are_changed_for_a_rule_and_for_a_share() {
    let rewrite = |path: &str, fields: &str| {
        format!(
            "{{matches: [{{path: {{value: {path}}}}}], filters: [{{type: URLRewrite, urlRewrite: {{{fields}}}}}], {V1}}}"
        )
    };
    let filters = "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: new}], \
                   add: [{name: X-Add, value: more}], remove: [X-Remove]}}, \
                   {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Answer, value: ours}], remove: [Server]}}]";
    let rules = [
        rewrite("/prefix/one", "path: {type: ReplacePrefixMatch, replacePrefixMatch: /one}"),
        rewrite("/strip", "path: {type: ReplacePrefixMatch, replacePrefixMatch: /}"),
        rewrite("/full", "hostname: other.example, path: {type: ReplaceFullPath, replaceFullPath: /one}"),
        format!("{{matches: [{{path: {{value: /rule}}}}], {filters}, {V1}}}"),
        format!(
            "{{matches: [{{path: {{value: /share}}}}], backendRefs: [{{name: echo-v1, port: 80, {filters}}}]}}"
        ),
    ];
    let edge = edge(&web(&rules.join(", "))).await;

    for http in BOTH_VERSIONS {
        for (path, expected, host) in [
            ("/prefix/one/two?x=y", "/one/two?x=y", HOST),
            ("/strip/three", "/three", HOST),
            ("/strip", "/", HOST),
            ("/full/two", "/one", "other.example"),
        ] {
            let (app, _) = seen(&edge, call::to(HOST, path).version(http)).await;
            assert_eq!((app.path.as_str(), app.headers["host"].as_str()), (expected, host), "{path}");
        }
        for path in ["/rule", "/share"] {
            let call = call::to(HOST, path).version(http).header("x-set", "old").header("x-add", "some");
            let (app, answer) = seen(&edge, call.header("x-remove", "gone").header("x-other", "same")).await;
            assert_eq!(answer.headers["x-answer"], "ours", "{path}");
            let value = |name: &str| app.headers.get(name).map(String::as_str);
            assert_eq!(
                (value("x-set"), value("x-remove"), value("x-other")),
                (Some("new"), None, Some("same"))
            );
            assert_eq!(
                value("x-add").map(|value| value.replace(' ', "")).as_deref(),
                Some("some,more"),
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn copies_go_to_every_mirror_as_often_as_it_says() {
    let ((one, mut at_one), (two, mut at_two)) = (listening().await, listening().await);
    let app = |name: &str, port: u16| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
             spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80, targetPort: {port}}}]}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}, namespace: default}}\n\
             spec: {{address: 127.0.0.1, labels: {{app: {name}}}}}\n---\n"
        )
    };
    let mirror = |to: &str, more: &str| {
        format!("{{type: RequestMirror, requestMirror: {{backendRef: {{name: {to}, port: 80}}{more}}}}}")
    };
    let rule = |path: &str, mirrors: &[String]| {
        format!("{{matches: [{{path: {{value: {path}}}}}], filters: [{}], {V1}}}", mirrors.join(", "))
    };
    let rules = [
        rule("/both", &[mirror("one", ""), mirror("two", "")]),
        rule(
            "/shares",
            &[mirror("one", ", percent: 0"), mirror("two", ", fraction: {numerator: 5, denominator: 5}")],
        ),
    ];
    let edge = edge(&(web(&rules.join(", ")) + &app("one", one) + &app("two", two))).await;

    assert_eq!(version(&edge, call::to(HOST, "/both")).await.as_deref(), Ok("v1"));
    assert_eq!(at_one.recv().await.unwrap(), "GET /both HTTP/1.1");
    assert_eq!(at_two.recv().await.unwrap(), "GET /both HTTP/1.1");
    for place in 0..10 {
        let path = format!("/shares/{place}");
        assert_eq!(version(&edge, call::to(HOST, &path)).await.as_deref(), Ok("v1"));
        assert_eq!(at_two.recv().await.unwrap(), format!("GET {path} HTTP/1.1"));
    }
    // Had it got any of those, they would come before this one.
    version(&edge, call::to(HOST, "/both/last")).await.unwrap();
    assert_eq!(at_one.recv().await.unwrap(), "GET /both/last HTTP/1.1");
}

#[tokio::test]
async fn requests_end_when_their_time_is_over() {
    let rule = |path: &str, timeouts: &str| {
        format!("{{matches: [{{path: {{value: {path}}}}}], timeouts: {{{timeouts}}}, {V1}}}")
    };
    let rules = [
        rule("/request", "request: 500ms"),
        rule("/backend", "backendRequest: 500ms"),
        rule("/disabled", "request: 0s"),
    ];
    let edge = edge(&web(&rules.join(", "))).await;

    for path in ["/request", "/backend"] {
        assert_eq!(version(&edge, call::to(HOST, path)).await.as_deref(), Ok("v1"), "{path}");
        let late = call::to(HOST, &format!("{path}?delay=20s"));
        assert_eq!(version(&edge, late).await, Err(504), "{path}");
    }
    assert_eq!(version(&edge, call::to(HOST, "/disabled?delay=1s")).await.as_deref(), Ok("v1"));
}

#[tokio::test]
async fn shares_are_as_the_weights_say_and_what_cannot_be_used_is_answered_500() {
    let rule = |path: &str, backends: &str| {
        format!("{{matches: [{{path: {{value: {path}}}}}], backendRefs: [{backends}]}}")
    };
    let rules = [
        rule(
            "/weights",
            "{name: echo-v1, port: 80, weight: 70}, {name: echo-v2, port: 80, weight: 30}, {name: gone, port: 80, weight: 0}",
        ),
        rule("/half", "{name: echo-v1, port: 80}, {name: gone, port: 80}"),
        rule("/gone", "{name: gone, port: 80}"),
        rule("/kind", "{group: x.org, kind: Thing, name: a, port: 80}"),
        rule("/foreign", "{name: far, namespace: elsewhere, port: 80}"),
        rule("/half-foreign", "{name: far, namespace: elsewhere, port: 80}, {name: echo-v2, port: 80}"),
        rule("/zero", "{name: echo-v1, port: 80, weight: 0}, {name: echo-v2, port: 80, weight: 0}"),
    ];
    let edge = edge(&web(&rules.join(", "))).await;
    let counted = async |path: &str, calls: usize| {
        let mut counted: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..calls {
            let found =
                version(&edge, call::to(HOST, path)).await.unwrap_or_else(|status| status.to_string());
            *counted.entry(found).or_default() += 1;
        }
        counted
    };

    let shares = counted("/weights", 500).await;
    // Five standard deviations.
    assert!(shares["v1"].abs_diff(350) <= 51 && shares["v1"] + shares["v2"] == 500, "{shares:?}");
    for (path, version) in [("/half", "v1"), ("/half-foreign", "v2")] {
        let half = counted(path, 200).await;
        assert!(half[version].abs_diff(100) <= 35 && half[version] + half["500"] == 200, "{path}: {half:?}");
    }
    for path in ["/gone", "/kind", "/foreign", "/zero"] {
        assert_eq!(version(&edge, call::to(HOST, path)).await, Err(500), "{path}");
    }
}

#[tokio::test]
async fn pages_of_the_origins_that_a_filter_names_may_call() {
    let cors = "filters: [{type: CORS, cors: {allowOrigins: ['https://shop.example', 'https://*.shop.example'], \
                allowMethods: [GET, PUT], allowHeaders: [X-A], exposeHeaders: [X-B], allowCredentials: true, maxAge: 60}}]";
    let edge = edge(&web(&format!("{{{cors}, {V1}}}"))).await;

    for http in BOTH_VERSIONS {
        let asking = |origin: &str| {
            let call = call::to(HOST, "/").version(http).header("origin", origin).method(Method::OPTIONS);
            call.header("access-control-request-method", "PUT")
        };
        for origin in ["https://shop.example", "https://a.shop.example"] {
            let allowed = edge.call(asking(origin)).await.unwrap();
            assert!(allowed.status.is_success(), "{}", allowed.summary());
            assert_eq!(allowed.headers["access-control-allow-origin"], origin);
            assert_eq!(allowed.headers["access-control-allow-credentials"], "true");
            assert_eq!(allowed.headers["access-control-max-age"], "60");
            let (_, simple) = seen(&edge, call::to(HOST, "/").version(http).header("origin", origin)).await;
            assert_eq!(simple.headers["access-control-allow-origin"], origin);
            assert_eq!(
                simple.headers["access-control-expose-headers"].to_str().unwrap().to_lowercase(),
                "x-b"
            );
        }
        let other = edge.call(asking("https://evil.example")).await.unwrap();
        assert!(!other.headers.contains_key("access-control-allow-origin"), "{other:?}");
    }
}

#[tokio::test]
async fn a_route_may_name_a_port_and_its_rules_have_names() {
    let at_alt =
        route("alt", "parentRefs: [{name: edge, port: 8080}]", HOST, &format!("{{name: named, {V2}}}"));
    let edge =
        edge_of(&format!("{}, {}", http_listener("http", 80), http_listener("alt", 8080)), &at_alt).await;

    assert_eq!(version(&edge, call::to(HOST, "/")).await, Err(404));
    let answer = call::send(edge.at(8080).await, call::to(HOST, "/")).await.unwrap();
    assert_eq!(answer.json::<reviews::Answer>().unwrap().version, "v2", "{}", answer.summary());
    let metrics = edge.admin("/metrics").await.text();
    assert!(metrics.contains(r#"route="HTTPRoute default/alt rules[0] named""#), "{metrics}");
}
