//! What the Gateway API's conformance tests for gateways ask of `GRPCRoute`s.

use std::collections::BTreeMap;

use http::{Method, Version};
use selvedge_demo::{
    apps::reviews,
    call::{self, Call},
};

use super::{
    Edge, HOST,
    conformance::{edge, edge_of, route},
    http_listener,
    requests::listening,
    to_apps::app,
};
use crate::gateway_api::{V1, V2};

/// A `GRPCRoute` at the gateway.
fn calls_at(name: &str, parents: &str, hostname: &str, rules: &str) -> String {
    route(name, parents, hostname, rules).replace("HTTPRoute", "GRPCRoute")
}

/// One of [`HOST`].
fn calls(rules: &str) -> String {
    calls_at("calls", "parentRefs: [{name: edge}]", HOST, rules)
}

/// A call of `method`, such as `a.Echo/Get`.
fn to(host: &str, method: &str) -> Call {
    let call = call::to(host, &format!("/{method}")).version(Version::HTTP_2).method(Method::POST);
    call.header("content-type", "application/grpc").header("te", "trailers")
}

/// The app that answers, or the gRPC status.
async fn called(edge: &Edge, call: Call) -> Result<reviews::Answer, String> {
    let answer = edge.call(call).await.unwrap();
    match answer.headers.get("grpc-status") {
        Some(status) => Err(status.to_str().unwrap().to_owned()),
        None => Ok(answer.json().unwrap()),
    }
}

async fn version(edge: &Edge, call: Call) -> Result<String, String> {
    called(edge, call).await.map(|answer| answer.version)
}

/// gRPC's code of a method that nobody serves.
const UNIMPLEMENTED: Result<&str, &str> = Err("12");

#[tokio::test]
async fn calls_follow_their_service_method_and_metadata() {
    let rule = |matches: &str, to: &str| format!("{{matches: [{matches}], {to}}}");
    let method = |text: &str| format!("{{method: {{{text}}}}}");
    let headers = |list: &str| format!("{{headers: [{list}]}}");
    let rules = [
        rule(&method("service: a.Echo, method: One"), V1),
        rule(&method("service: a.Echo, method: Two"), V2),
        rule(&method("service: b.Echo"), V2),
        rule(&method("method: Three"), V1),
        rule(&headers("{name: version, value: one}"), V1),
        rule(&headers("{name: version, value: two}"), V2),
        rule(&headers("{name: version, value: two}, {name: color, value: orange}"), V1),
        rule(&[headers("{name: color, value: blue}"), headers("{name: color, value: green}")].join(", "), V1),
        rule("{method: {service: c.Echo}, headers: [{name: color, value: red}]}", V2),
    ];
    let edge = edge(&calls(&rules.join(", "))).await;

    for (called, fields, expected) in [
        ("a.Echo/One", &[][..], Ok("v1")),
        ("a.Echo/Two", &[], Ok("v2")),
        ("a.Echo/Four", &[], UNIMPLEMENTED),
        ("b.Echo/Any", &[], Ok("v2")),
        ("c.Echo/Three", &[], Ok("v1")),
        ("c.Echo/Any", &[], UNIMPLEMENTED),
        ("c.Echo/Any", &[("version", "one")], Ok("v1")),
        ("c.Echo/Any", &[("version", "two")], Ok("v2")),
        ("c.Echo/Any", &[("version", "two"), ("color", "orange")], Ok("v1")),
        ("c.Echo/Any", &[("color", "blue")], Ok("v1")),
        ("c.Echo/Any", &[("color", "green")], Ok("v1")),
        ("c.Echo/Any", &[("color", "red")], Ok("v2")),
        ("d.Echo/Any", &[("color", "red")], UNIMPLEMENTED),
        ("c.Echo/Any", &[("color", "purple")], UNIMPLEMENTED),
    ] {
        let call = fields.iter().fold(to(HOST, called), |call, (name, value)| call.header(name, value));
        let found = version(&edge, call).await;
        let found = found.as_deref().map_err(String::as_str);
        assert_eq!(found, expected, "{called} {fields:?}");
    }
}

#[tokio::test]
async fn calls_choose_their_listener_by_host_name() {
    let names = [
        ("exact", "bar.com"),
        ("one", "foo.bar.com"),
        ("below-bar", "*.bar.com"),
        ("below-foo", "*.foo.com"),
    ];
    let listeners =
        names.map(|(name, host)| format!("{{name: {name}, port: 80, protocol: HTTP, hostname: '{host}'}}"));
    let listeners = listeners.join(", ") + ", " + &http_listener("any", 80);
    let at = |name: &str, to: &str| {
        let parents = format!("parentRefs: [{{name: edge, sectionName: {name}}}]");
        calls_at(name, &parents, "", &format!("{{{to}}}")).replace("hostnames: ['']", "hostnames: []")
    };
    let routes = [at("exact", V1), at("one", V2), at("below-bar", V2), at("below-foo", V1)].concat();
    let edge = edge_of(&listeners, &routes).await;

    for (host, expected) in [
        ("bar.com", Ok("v1")),
        ("foo.bar.com", Ok("v2")),
        ("baz.bar.com", Ok("v2")),
        ("boo.bar.com", Ok("v2")),
        ("multiple.prefixes.bar.com", Ok("v2")),
        ("multiple.prefixes.foo.com", Ok("v1")),
        ("foo.com", UNIMPLEMENTED),
        ("no.matching.host", UNIMPLEMENTED),
    ] {
        let found = version(&edge, to(host, "a.Echo/One")).await;
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{host}");
    }
}

#[tokio::test]
async fn calls_are_shared_changed_copied_and_counted_as_their_route_says() {
    let (port, mut copied) = listening().await;
    let of = |method: &str, rest: &str| {
        format!("{{matches: [{{method: {{service: a.Echo, method: {method}}}}}], {rest}}}")
    };
    let change = "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: new}], \
                  add: [{name: X-Add, value: more}], remove: [X-Remove]}}]";
    let copy = "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: mirror, port: 80}}}]";
    let rules = [
        of("Changed", &format!("{change}, {V1}")),
        of("Copied", &format!("{copy}, {V1}")),
        format!("{{name: named, matches: [{{method: {{service: b.Echo}}}}], {V2}}}"),
        "{backendRefs: [{name: echo-v1, port: 80, weight: 70}, {name: echo-v2, port: 80, weight: 30}]}"
            .to_owned(),
    ];
    let edge = edge(&(app("mirror", "grpc", port) + &calls(&rules.join(", ")))).await;

    let changed = to(HOST, "a.Echo/Changed").header("x-set", "old").header("x-add", "some");
    let seen = called(&edge, changed.header("x-remove", "gone").header("x-other", "same")).await.unwrap();
    let value = |name: &str| seen.headers.get(name).map(|value| value.replace(' ', ""));
    let expected = [Some("new"), Some("some,more"), None, Some("same")].map(|one| one.map(str::to_owned));
    assert_eq!(["x-set", "x-add", "x-remove", "x-other"].map(value), expected);

    assert_eq!(version(&edge, to(HOST, "a.Echo/Copied")).await.as_deref(), Ok("v1"));
    assert_eq!(copied.recv().await.unwrap(), "PRI * HTTP/2.0");

    assert_eq!(version(&edge, to(HOST, "b.Echo/Any")).await.as_deref(), Ok("v2"));
    let metrics = edge.admin("/metrics").await.text();
    assert!(metrics.contains(r#"route="GRPCRoute default/calls rules[2] named""#), "{metrics}");

    let mut counted: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..500 {
        *counted.entry(version(&edge, to(HOST, "c.Echo/Any")).await.unwrap()).or_default() += 1;
    }
    // Five standard deviations.
    assert!(counted["v1"].abs_diff(350) <= 51, "{counted:?}");
}
