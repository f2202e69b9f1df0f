//! The Gateway API's conformance tests for meshes, case by case, through real sidecars.
//!
//! | case | test |
//! |---|---|
//! | MeshBasic, HTTPRouteSimpleSameNamespace | `what_has_no_route_goes_to_its_service_and_a_route_takes_all_of_it` |
//! | MeshSplit | `the_cases_whose_documents_are_at_hand_hold_with_them_unchanged`, `exact_paths_split_a_service` |
//! | HTTPRouteMatching | the same, and `gateway_api::requests_follow_the_most_specific_match` |
//! | HTTPRouteQueryParamMatching | `gateway_api::queries_and_exact_paths_are_matched_and_the_rest_has_no_route` |
//! | HTTPRouteNamedRouteRule | `a_rule_may_have_a_name_and_the_sidecar_says_it` |
//! | HTTPRouteRequestHeaderModifier | `gateway_api::headers_of_requests_are_changed_for_a_rule_and_for_a_share` |
//! | HTTPRouteRewritePath | `gateway_api::paths_are_rewritten_as_gateway_api_lists_it` |
//! | HTTPRouteRedirect… (host, status, 303, 307, 308, path, port, scheme) | `gateway_api::a_redirect_says_where_as_gateway_api_lists_it` |
//! | HTTPRouteWeight | `gateway_api::shares_are_as_the_weights_say` |
//! | GRPCRouteWeight, GRPCRouteRequestHeaderModifier | `calls_are_shared_and_their_metadata_is_changed_as_grpc_routes_say` |
//! | MeshConsumerRoute | `gateway_api::a_consumers_route_is_for_clients_of_its_own_namespace` |
//! | MeshPorts | `a_route_is_for_the_port_that_its_parent_names_or_for_every_port` |
//! | MeshFrontend, MeshFrontendHostname | `rules_belong_to_the_service_that_is_called_not_to_the_name_in_the_request` |

use std::{collections::BTreeMap, fs, path::Path};

use http::{Method, Version};
use selvedge_demo::{
    apps::reviews,
    call::{self, Answer, Call},
    cluster::entry_file,
    workload::Spec,
};
use selvedge_tests::{Mesh, SOON, poll};

use crate::{
    BOTH_VERSIONS, SELVEDGE,
    gateway_api::{V1, V2, answer, mesh_of, mesh_with, route},
};

async fn called(mesh: &Mesh, call: Call) -> Answer {
    mesh.workload("caller").call(call).await.unwrap()
}

/// A filter that shows in the answer that its rule was followed.
fn sets(value: &str) -> String {
    format!(
        "filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: X-Header-Set, value: {value}}}]}}}}]"
    )
}

/// What that filter says in an answer.
fn set(answer: &Answer) -> Option<&str> {
    assert_eq!(answer.status, 200, "{}", answer.summary());
    answer.headers.get("x-header-set").map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn what_has_no_route_goes_to_its_service_and_a_route_takes_all_of_it() {
    let mesh =
        mesh_of(&route("simple", "default", "name: echo-v1, port: 8080", &format!("[{{{V2}}}]"))).await;

    for version in BOTH_VERSIONS {
        let to = |host: &str| call::to(host, "/any/path?x=y").version(version);
        assert_eq!(answer(&mesh, to("echo-v2")).await.as_deref(), Ok("v2"));
        assert_eq!(answer(&mesh, to("echo-v1:80")).await.as_deref(), Ok("v1"));
        assert_eq!(answer(&mesh, to("echo-v1:8080")).await.as_deref(), Ok("v2"));
    }
}

#[tokio::test]
async fn exact_paths_split_a_service() {
    let exact =
        |path: &str, to: &str| format!("{{matches: [{{path: {{type: Exact, value: {path}}}}}], {to}}}");
    let rules = format!("[{}, {}]", exact("/v1", V1), exact("/v2", V2));
    splits(&mesh_of(&route("mesh-split", "default", "name: echo", &rules)).await, "echo").await;
}

async fn splits(mesh: &Mesh, host: &str) {
    for version in BOTH_VERSIONS {
        for (path, expected) in [("/v1", "v1"), ("/v2", "v2")] {
            assert_eq!(answer(mesh, call::to(host, path).version(version)).await.as_deref(), Ok(expected));
        }
        assert_eq!(called(mesh, call::to(host, "/missing").version(version)).await.status, 404);
    }
}

#[tokio::test]
async fn a_rule_may_have_a_name_and_the_sidecar_says_it() {
    let rule = |path: &str, rest: &str| format!("{{matches: [{{path: {{value: {path}}}}}], {rest}}}");
    let named = rule("/named", &format!("name: named-rule, {V1}"));
    let refused = rule("/refused", "name: refused, backendRefs: [{name: gone, port: 80}]");
    let rules = format!("[{named}, {}, {refused}]", rule("/unnamed", V2));
    let mesh = mesh_of(&route("http-named-rules", "default", "name: echo, port: 80", &rules)).await;

    assert_eq!(answer(&mesh, call::to("echo", "/named")).await.as_deref(), Ok("v1"));
    assert_eq!(answer(&mesh, call::to("echo", "/unnamed")).await.as_deref(), Ok("v2"));
    assert_eq!(called(&mesh, call::to("echo", "/refused")).await.status, 500);
    let metrics = mesh.workload("caller").admin("/metrics").await.unwrap().text();
    for name in ["rules[0] named-rule", "rules[1]", "rules[2] refused"] {
        let name = format!("route=\"HTTPRoute default/http-named-rules {name}\"");
        assert!(metrics.contains(&name), "{name}: {metrics}");
    }
}

#[tokio::test]
async fn a_route_is_for_the_port_that_its_parent_names_or_for_every_port() {
    let at_80 = format!("[{{{}, {V1}}}]", sets("v1"));
    let everywhere = format!("[{{{}, {V2}}}]", sets("v2"));
    let routes = [
        route("mesh-ports", "default", "name: echo-v1, port: 80", &at_80),
        route("mesh-all-ports", "default", "name: echo-v2", &everywhere),
    ];
    let mesh = mesh_of(&routes.concat()).await;

    for (host, expected) in [
        ("echo-v1", Some("v1")),
        ("echo-v1:8080", None),
        ("echo-v2", Some("v2")),
        ("echo-v2:8080", Some("v2")),
    ] {
        let answer = called(&mesh, call::to(host, "/")).await;
        assert_eq!(set(&answer), expected, "{host}");
        assert_eq!(answer.json::<reviews::Answer>().unwrap().version, host[5..7], "{host}");
    }
}

#[tokio::test]
async fn rules_belong_to_the_service_that_is_called_not_to_the_name_in_the_request() {
    let caller = Spec::client("caller").flag("--upstream", "0=echo-v1:80").flag("--upstream", "0=echo-v2:80");
    let rules = format!("[{{{}, {V2}}}]", sets("set"));
    let mesh = mesh_with(caller, &route("mesh-frontend", "default", "name: echo-v2", &rules)).await;

    assert_eq!(set(&called(&mesh, call::to("echo-v2", "/")).await), Some("set"));
    let of_pod = mesh.workload("reviews-v2").app.to_string();
    let answer = called(&mesh, call::to(&of_pod, "/")).await;
    assert_eq!(set(&answer), None, "a workload that is called itself");
    assert_eq!(answer.json::<reviews::Answer>().unwrap().version, "v2");

    let sidecar = mesh.workload("caller").sidecar_process().unwrap();
    for (service, host, expected) in [("echo-v2", "echo-v1", Some("set")), ("echo-v1", "echo-v2", None)] {
        let listener = sidecar.listener(&format!("upstream {service}:80"), SOON).await.unwrap();
        let answer = call::send(listener, call::to(host, "/")).await.unwrap();
        assert_eq!(set(&answer), expected, "{service} called as {host}");
        assert_eq!(answer.json::<reviews::Answer>().unwrap().version, service[5..]);
    }
}

#[tokio::test]
async fn calls_are_shared_and_their_metadata_is_changed_as_grpc_routes_say() {
    let filter = |changes: &str| {
        format!("filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{{changes}}}}}]")
    };
    let of_method = |method: &str, rest: &str| {
        format!("{{matches: [{{method: {{service: echo.Echo, method: {method}}}}}], {rest}}}")
    };
    let several = filter(
        "set: [{name: X-Set-1, value: one}, {name: X-Set-2, value: two}], add: [{name: X-Add-1, value: one}], \
         remove: [X-Remove-1, X-Remove-2]",
    );
    let rules = [
        of_method("Set", &format!("{}, {V1}", filter("set: [{name: X-Set-1, value: overwrites}]"))),
        of_method("Add", &format!("{}, {V1}", filter("add: [{name: X-Add-1, value: appends}]"))),
        of_method("Remove", &format!("{}, {V1}", filter("remove: [X-Remove-1]"))),
        of_method("Several", &format!("{several}, {V2}")),
        "{backendRefs: [{name: echo-v1, port: 80, weight: 70}, {name: echo-v2, port: 80, weight: 30}]}"
            .to_owned(),
    ];
    let routes = route("calls", "default", "name: echo, port: 80", &format!("[{}]", rules.join(", ")));
    let mesh = mesh_of(&routes.replace("HTTPRoute", "GRPCRoute")).await;

    let calls = |method: &str| {
        let call =
            call::to("echo", &format!("/echo.Echo/{method}")).version(Version::HTTP_2).method(Method::POST);
        call.header("content-type", "application/grpc").header("te", "trailers")
    };
    for (method, version, changed) in [
        ("Set", "v1", ["overwrites", "", "some", "gone", "gone"]),
        ("Add", "v1", ["old", "", "some,appends", "gone", "gone"]),
        ("Remove", "v1", ["old", "", "some", "", "gone"]),
        ("Several", "v2", ["one", "two", "some,one", "", ""]),
    ] {
        let call = calls(method).header("x-set-1", "old").header("x-add-1", "some");
        let call = call.header("x-remove-1", "gone").header("x-remove-2", "gone");
        let seen: reviews::Answer = called(&mesh, call).await.json().unwrap();
        let names = ["x-set-1", "x-set-2", "x-add-1", "x-remove-1", "x-remove-2"];
        let values = names.map(|name| seen.headers.get(name).cloned().unwrap_or_default().replace(' ', ""));
        assert_eq!(
            (seen.version.as_str(), values.as_slice()),
            (version, changed.map(str::to_owned).as_slice())
        );
    }
    let mut counted: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..500 {
        *counted.entry(answer(&mesh, calls("Other")).await.unwrap()).or_default() += 1;
    }
    // Five standard deviations.
    assert!(counted["v1"].abs_diff(350) <= 51, "{counted:?}");
}

/// The documents of the conformance tests, in the directory beside the checkout where the acceptance documents are; a
/// plain clone has none.
#[tokio::test]
async fn the_cases_whose_documents_are_at_hand_hold_with_them_unchanged() {
    let shared =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/acceptance-yaml/gateway-api/conformance");
    let Ok(manifests) = fs::read_to_string(shared.join("mesh/manifests.yaml")) else { return };
    let case = |name: &str| fs::read_to_string(shared.join("tests/mesh").join(name)).unwrap();
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.write("manifests.yaml", &manifests).unwrap();
    mesh.start_control_plane().await.unwrap();
    let specs =
        [Spec::client("caller"), Spec::reviews("reviews-v1", "v1"), Spec::reviews("reviews-v2", "v2")];
    mesh.add(specs).await.unwrap();
    for version in ["v1", "v2"] {
        // Both ports of the service lead to the app, which stands for the Deployment's. Its address belongs to the namespace
        // that declared it first, so that declaration goes.
        mesh.remove(&entry_file(&format!("reviews-{version}"))).unwrap();
        let app = mesh.workload(&format!("reviews-{version}")).app;
        let entry = format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {version}, namespace: gateway-conformance-mesh}}\n\
             spec: {{address: {}, labels: {{app: echo, version: {version}}}, ports: {{http: {port}, http-alt: {port}}}}}\n",
            app.ip(),
            port = app.port()
        );
        mesh.write(&format!("app-{version}.yaml"), &entry).unwrap();
    }
    // A file that is gone counts later than one that is new.
    for version in ["v1", "v2"] {
        let to = || call::to(&format!("echo-{version}.gateway-conformance-mesh"), "/");
        poll(SOON, "its address is the new namespace's", async || match answer(&mesh, to()).await {
            Ok(found) if found == version => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }
    let host = "echo.gateway-conformance-mesh";
    let in_force = async |file: &str, path: &str, expected: Result<&str, u16>| {
        mesh.write("route.yaml", &case(file)).unwrap();
        poll(SOON, file, async || {
            let answer = mesh
                .workload("caller")
                .call(call::to(host, path))
                .await
                .map_err(|error| error.to_string())?;
            let found = match answer.json::<reviews::Answer>() {
                Ok(found) => Ok(found.version),
                Err(_) => Err(answer.status.as_u16()),
            };
            if found.as_deref() == expected.as_ref().copied() { Ok(()) } else { Err(answer.summary()) }
        })
        .await;
    };

    in_force("mesh-split.yaml", "/missing", Err(404)).await;
    splits(&mesh, host).await;
    in_force("httproute-matching.yaml", "/", Ok("v1")).await;
    for (path, header, expected) in [
        ("/", None, "v1"),
        ("/example", None, "v1"),
        ("/", Some("one"), "v1"),
        ("/v2/example", None, "v2"),
        ("/", Some("two"), "v2"),
        ("/v2/", None, "v2"),
        ("/v2example", None, "v1"),
        ("/foo/v2/example", None, "v1"),
    ] {
        let call = header.iter().fold(call::to(host, path), |call, header| call.header("version", header));
        assert_eq!(answer(&mesh, call).await.as_deref(), Ok(expected), "{path} {header:?}");
    }
}
