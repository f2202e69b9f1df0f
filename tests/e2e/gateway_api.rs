//! Which requests go where as Gateway API's routes say: what its conformance tests for meshes ask, through real sidecars.

use std::collections::BTreeMap;

use http::{Method, StatusCode, Version};
use selvedge_demo::{
    apps::reviews,
    call::{self, Call},
    workload::Spec,
};
use selvedge_tests::{Mesh, SOON, poll};

use crate::{BOTH_VERSIONS, SELVEDGE};

/// `echo` is both versions, and each has a service of its own.
pub(crate) fn services() -> String {
    let service = |name: &str, namespace: &str, selector: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{selector: {{{selector}}}, ports: [{{name: http, port: 80, targetPort: 9080}}, \
             {{name: http-alt, port: 8080, targetPort: 9080}}]}}\n---\n"
        )
    };
    [
        service("echo", "default", "app: reviews"),
        service("echo-v1", "default", "app: reviews, version: v1"),
        service("echo-v2", "default", "app: reviews, version: v2"),
        service("far", "elsewhere", "app: nothing"),
    ]
    .concat()
}

pub(crate) fn route(name: &str, namespace: &str, parent: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{parentRefs: [{{group: \"\", kind: Service, {parent}}}], rules: {rules}}}\n---\n"
    )
}

pub(crate) const V1: &str = "backendRefs: [{name: echo-v1, namespace: default, port: 8080}]";
pub(crate) const V2: &str = "backendRefs: [{name: echo-v2, namespace: default, port: 8080}]";

/// A mesh of both versions and a caller, in which these routes are.
pub(crate) async fn mesh_of(routes: &str) -> Mesh {
    mesh_with(Spec::client("caller"), routes).await
}

/// The same with a caller of its own.
pub(crate) async fn mesh_with(caller: Spec, routes: &str) -> Mesh {
    let specs = [caller, Spec::reviews("reviews-v1", "v1"), Spec::reviews("reviews-v2", "v2")];
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.write("services.yaml", &services()).unwrap();
    mesh.write("routes.yaml", routes).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add(specs).await.unwrap();
    poll(SOON, "both versions serve", async || {
        for host in ["echo-v1", "echo-v2"] {
            answer(&mesh, call::to(host, "/")).await?;
        }
        Ok::<_, String>(())
    })
    .await;
    mesh
}

/// The version that answers, or the status and what the sidecar says.
pub(crate) async fn answer(mesh: &Mesh, call: Call) -> Result<String, String> {
    let answer = mesh.workload("caller").call(call).await.map_err(|error| error.to_string())?;
    match answer.status {
        StatusCode::OK => Ok(answer.json::<reviews::Answer>().map_err(|error| error.to_string())?.version),
        _ => Err(answer.summary()),
    }
}

#[tokio::test]
async fn requests_follow_the_most_specific_match() {
    let rules = format!(
        "[{{matches: [{{path: {{type: PathPrefix, value: /}}}}, {{headers: [{{name: version, value: one}}]}}], {V1}}}, \
         {{matches: [{{path: {{type: PathPrefix, value: /v2}}}}, {{headers: [{{name: version, value: two}}]}}], {V2}}}]"
    );
    let mesh = mesh_of(&route("matching", "default", "name: echo, port: 80", &rules)).await;

    for version in BOTH_VERSIONS {
        let to = |path: &str| call::to("echo", path).version(version);
        for (call, expected) in [
            (to("/"), "v1"),
            (to("/example"), "v1"),
            (to("/").header("version", "one"), "v1"),
            (to("/v2"), "v2"),
            (to("/v2/"), "v2"),
            (to("/v2/example"), "v2"),
            (to("/").header("version", "two"), "v2"),
            (to("/v2example"), "v1"),
            (to("/foo/v2/example"), "v1"),
        ] {
            let shown = format!("{call:?}");
            assert_eq!(answer(&mesh, call).await.as_deref(), Ok(expected), "{shown}");
        }
    }
}

#[tokio::test]
async fn queries_and_exact_paths_are_matched_and_the_rest_has_no_route() {
    let query = |name: &str, value: &str| format!("{{name: {name}, value: {value}}}");
    let rules = format!(
        "[{{matches: [{{queryParams: [{}]}}], {V1}}}, \
         {{matches: [{{queryParams: [{}]}}], {V2}}}, \
         {{matches: [{{queryParams: [{}, {}]}}], {V2}}}, \
         {{matches: [{{path: {{type: Exact, value: /path5}}, queryParams: [{}]}}, {{path: {{type: Exact, value: /v2}}}}], {V2}}}, \
         {{matches: [{{method: POST, path: {{value: /post}}}}], {V1}}}]",
        query("animal", "whale"),
        query("animal", "dolphin"),
        query("animal", "whale"),
        query("color", "blue"),
        query("animal", "hydra"),
    );
    let mesh = mesh_of(&route("matching", "default", "name: echo, port: 80", &rules)).await;

    let none = Err("404 (selvedge-error: no-route");
    for (call, expected) in [
        (call::to("echo", "/?animal=whale"), Ok("v1")),
        (call::to("echo", "/?animal=dolphin"), Ok("v2")),
        (call::to("echo", "/?animal=whale&color=blue"), Ok("v2")),
        (call::to("echo", "/?color=blue"), none),
        (call::to("echo", "/?animal=dog"), none),
        (call::to("echo", "/?animal=whaledolphin"), none),
        (call::to("echo", "/"), none),
        (call::to("echo", "/path5?animal=hydra"), Ok("v2")),
        (call::to("echo", "/v2"), Ok("v2")),
        (call::to("echo", "/v2/"), none),
        (call::to("echo", "/post").method(Method::POST), Ok("v1")),
        (call::to("echo", "/post"), none),
    ] {
        let shown = format!("{call:?}");
        let found = answer(&mesh, call).await;
        match expected {
            Ok(version) => assert_eq!(found.as_deref(), Ok(version), "{shown}"),
            Err(start) => {
                assert!(found.as_ref().is_err_and(|why| why.starts_with(start)), "{shown}: {found:?}")
            }
        }
    }
}

#[tokio::test]
async fn a_route_holds_on_the_ports_of_its_parent_alone() {
    let mesh =
        mesh_of(&route("ports", "default", "name: echo, sectionName: http", &format!("[{{{V1}}}]"))).await;

    for _ in 0..20 {
        assert_eq!(answer(&mesh, call::to("echo:80", "/")).await.as_deref(), Ok("v1"));
    }
    poll(SOON, "the other port has no route, and both versions answer", async || {
        match answer(&mesh, call::to("echo:8080", "/")).await {
            Ok(version) if version == "v2" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn shares_are_as_the_weights_say() {
    let rules = "[{backendRefs: [{name: echo-v1, port: 8080, weight: 70}, {name: echo-v2, port: 8080, weight: 30}, \
                 {name: echo-v2, port: 80, weight: 0}]}]";
    let mesh = mesh_of(&route("weights", "default", "name: echo, port: 80", rules)).await;

    let mut counted: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..500 {
        *counted.entry(answer(&mesh, call::to("echo", "/")).await.unwrap()).or_default() += 1;
    }
    // Five standard deviations.
    assert!(counted["v1"].abs_diff(350) <= 51, "{counted:?}");
}

#[tokio::test]
async fn a_consumers_route_is_for_clients_of_its_own_namespace() {
    let v2 = format!("[{{{V2}}}]");
    let to_v1 = route("producer", "default", "name: echo", &format!("[{{{V1}}}]"));
    let of_others = route("others", "guest", "name: echo, namespace: default", &v2);
    let of_far = route("own", "default", "name: far, namespace: elsewhere", &v2);
    let mesh = mesh_of(&[of_others, to_v1, of_far].concat()).await;

    for _ in 0..20 {
        let near = answer(&mesh, call::to("echo", "/")).await;
        assert_eq!(near.as_deref(), Ok("v1"), "the route in guest is not for the caller");
        let far = answer(&mesh, call::to("far.elsewhere", "/")).await;
        assert_eq!(far.as_deref(), Ok("v2"), "the route in default is the caller's own");
    }
}

#[tokio::test]
async fn a_call_that_no_grpc_route_names_is_unimplemented() {
    let rules =
        "[{matches: [{method: {service: a.B, method: Get}}], backendRefs: [{name: echo-v1, port: 8080}]}]";
    let calls = route("calls", "default", "name: echo", rules).replace("HTTPRoute", "GRPCRoute");
    let mesh = mesh_of(&calls).await;

    let call = |path: &str| {
        let call = call::to("echo", path).version(Version::HTTP_2).method(Method::POST);
        call.header("content-type", "application/grpc").header("te", "trailers")
    };
    let answer = mesh.workload("caller").call(call("/a.B/Put")).await.unwrap();
    assert_eq!(answer.headers["grpc-status"], "12", "{answer:?}");
    assert!(answer.proxy_error().unwrap().starts_with("no-route"), "{answer:?}");
    let answer = mesh.workload("caller").call(call("/a.B/Get")).await.unwrap();
    assert_eq!(answer.proxy_error(), None, "{answer:?}");
    assert_eq!(answer.json::<reviews::Answer>().unwrap().version, "v1");
}

#[tokio::test]
async fn a_redirect_says_where_as_gateway_api_lists_it() {
    let rule = |path: &str, fields: &str| {
        format!(
            "{{matches: [{{path: {{value: {path}}}}}], filters: [{{type: RequestRedirect, requestRedirect: {{{fields}}}}}]}}"
        )
    };
    let full = "path: {type: ReplaceFullPath, replaceFullPath: /full-path-replacement}";
    let prefix = "path: {type: ReplacePrefixMatch, replacePrefixMatch: /replacement}";
    let rules = [
        rule("/host", "hostname: example.org"),
        rule("/moved", "hostname: example.org, statusCode: 301"),
        rule("/303", "hostname: example.org, statusCode: 303"),
        rule("/307", "hostname: example.org, statusCode: 307"),
        rule("/308", "hostname: example.org, statusCode: 308"),
        rule("/port", "port: 8083"),
        rule("/port-and-host", "port: 8083, hostname: example.org"),
        rule("/scheme", "scheme: https"),
        rule("/scheme-and-host", "scheme: https, hostname: example.org"),
        rule("/scheme-and-port", "scheme: https, port: 443"),
        rule("/full", full),
        rule("/full-and-host", &format!("{full}, hostname: example.org, statusCode: 301")),
        rule("/original", prefix),
    ];
    let rules = format!("[{{{V1}}}, {}]", rules.join(", "));
    let mesh = mesh_of(&route("redirects", "default", "name: echo, port: 80", &rules)).await;

    for version in BOTH_VERSIONS {
        for (path, status, location) in [
            ("/host", 302, "http://example.org/host"),
            ("/moved?a=b", 301, "http://example.org/moved?a=b"),
            ("/303", 303, "http://example.org/303"),
            ("/307", 307, "http://example.org/307"),
            ("/308", 308, "http://example.org/308"),
            ("/port", 302, "http://echo:8083/port"),
            ("/port-and-host", 302, "http://example.org:8083/port-and-host"),
            ("/scheme", 302, "https://echo/scheme"),
            ("/scheme-and-host", 302, "https://example.org/scheme-and-host"),
            ("/scheme-and-port", 302, "https://echo/scheme-and-port"),
            ("/full/path", 302, "http://echo/full-path-replacement"),
            ("/full-and-host", 301, "http://example.org/full-path-replacement"),
            ("/original/lemon", 302, "http://echo/replacement/lemon"),
            ("/original", 302, "http://echo/replacement"),
        ] {
            let call = call::to("echo", path).version(version);
            let answer = mesh.workload("caller").call(call).await.unwrap();
            assert_eq!(answer.status.as_u16(), status, "{version:?} {path}: {answer:?}");
            assert_eq!(answer.headers["location"], location, "{version:?} {path}");
        }
    }
}

#[tokio::test]
async fn paths_are_rewritten_as_gateway_api_lists_it() {
    let rule = |path: &str, fields: &str| {
        format!(
            "{{matches: [{{path: {{value: {path}}}}}], filters: [{{type: URLRewrite, urlRewrite: {{{fields}}}}}], {V1}}}"
        )
    };
    let prefix = |to: &str| format!("path: {{type: ReplacePrefixMatch, replacePrefixMatch: {to}}}");
    let rules = [
        rule("/prefix/one", &prefix("/one")),
        rule("/strip", &prefix("/")),
        rule("/empty", &prefix("\"\"")),
        rule("/full/one", "hostname: other.example, path: {type: ReplaceFullPath, replaceFullPath: /one}"),
    ];
    let mesh =
        mesh_of(&route("rewrites", "default", "name: echo, port: 80", &format!("[{}]", rules.join(", "))))
            .await;

    for (path, seen, host) in [
        ("/prefix/one/two", "/one/two", "echo"),
        ("/prefix/one/two?x=y", "/one/two?x=y", "echo"),
        ("/strip/three", "/three", "echo"),
        ("/strip/", "/", "echo"),
        ("/strip", "/", "echo"),
        ("/empty", "/", "echo"),
        ("/empty/a", "/a", "echo"),
        ("/full/one/two", "/one", "other.example"),
    ] {
        let answer = mesh.workload("caller").call(call::to("echo", path)).await.unwrap();
        let answer = answer.json::<reviews::Answer>().unwrap();
        assert_eq!((answer.path.as_str(), answer.headers["host"].as_str()), (seen, host), "{path}");
    }
}

#[tokio::test]
async fn headers_of_requests_are_changed_for_a_rule_and_for_a_share() {
    let filters = "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: new}], \
                   add: [{name: X-Add, value: more}], remove: [X-Remove]}}, \
                   {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Answer, value: ours}]}}]";
    let rules = format!(
        "[{{matches: [{{path: {{value: /rule}}}}], {filters}, {V1}}}, \
          {{matches: [{{path: {{value: /share}}}}], backendRefs: [{{name: echo-v1, port: 80, {filters}}}]}}]"
    );
    let mesh = mesh_of(&route("headers", "default", "name: echo, port: 80", &rules)).await;

    for path in ["/rule", "/share"] {
        let call = call::to("echo", path);
        let call = call.header("x-set", "old").header("x-add", "some").header("x-remove", "gone");
        let answer = mesh.workload("caller").call(call.header("x-other", "same")).await.unwrap();
        assert_eq!(answer.headers["x-answer"], "ours", "{path}");
        let seen = answer.json::<reviews::Answer>().unwrap().headers;
        let value = |name: &str| seen.get(name).map(String::as_str);
        assert_eq!((value("x-set"), value("x-remove"), value("x-other")), (Some("new"), None, Some("same")));
        assert!(
            value("x-add").is_some_and(|value| value.replace(' ', "") == "some,more"),
            "{path}: {seen:?}"
        );
    }
}

#[tokio::test]
async fn what_has_no_backend_that_can_be_used_is_answered_500() {
    let rules = "[{matches: [{path: {value: /none}}]}, \
        {matches: [{path: {value: /zero}}], backendRefs: [{name: echo-v1, port: 80, weight: 0}]}, \
        {matches: [{path: {value: /gone}}], backendRefs: [{name: gone, port: 80}]}, \
        {matches: [{path: {value: /sieve}}], filters: [{type: ExtensionRef, extensionRef: {group: x.y, kind: Sieve, name: s}}], backendRefs: [{name: echo-v1, port: 80}]}]";
    let mesh = mesh_of(&route("broken", "default", "name: echo, port: 80", rules)).await;

    for path in ["/none", "/zero", "/gone", "/sieve"] {
        let answer = mesh.workload("caller").call(call::to("echo", path)).await.unwrap();
        assert_eq!(answer.status.as_u16(), 500, "{path}: {answer:?}");
        assert!(answer.proxy_error().is_some(), "{path}: {answer:?}");
    }
}
