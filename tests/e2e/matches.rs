//! Which route a request takes, by each condition that a `VirtualService` may give; in either version of HTTP alike.

use http::Method;
use selvedge_demo::{
    apps::reviews,
    call::{self, Call},
    workload::Spec,
};
use selvedge_tests::{Mesh, SOON, poll};

use crate::{BOTH_VERSIONS, SELVEDGE};

/// The subsets that routes lead to.
const SUBSETS: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: reviews}\nspec:\n  \
                       host: reviews\n  subsets:\n  - {name: v1, labels: {version: v1}}\n  - {name: v2, labels: \
                       {version: v2}}\n";

/// A condition, what a request must have to fulfil it, and what one may have that does not.
struct Case {
    condition: &'static str,
    yes: fn(Call) -> Call,
    /// `None`: see [`OPPOSITES`].
    no: Option<fn(Call) -> Call>,
}

const fn case(condition: &'static str, yes: fn(Call) -> Call, no: fn(Call) -> Call) -> Case {
    Case { condition, yes, no: Some(no) }
}

/// A condition that every request here fulfils.
const fn always(condition: &'static str) -> Case {
    Case { condition, yes: as_it_is, no: None }
}

fn as_it_is(call: Call) -> Call {
    call
}

/// Each is tried at a path of its own, `/<place>/a`; what must not hold there may ask for another path instead.
const CASES: &[Case] = &[
    case("headers: {x: {exact: ab}}", |c| c.header("x", "ab"), |c| c.header("x", "abc")),
    case("headers: {x: {prefix: ab}}", |c| c.header("x", "abc"), |c| c.header("x", "a")),
    case("headers: {x: {regex: 'a|b'}}", |c| c.header("x", "b"), |c| c.header("x", "ab")),
    case("headers: {x: {}}", |c| c.header("x", ""), as_it_is),
    case("headers: {x: {regex: '*'}}", |c| c.header("x", "y"), as_it_is),
    case(
        "headers: {End-User: {exact: jason}}",
        |c| c.header("end-user", "jason"),
        |c| c.header("end-user", "Jason"),
    ),
    case("headers: {x: {exact: 'a,b'}}", |c| c.header("x", "a").header("x", "b"), |c| c.header("x", "a")),
    case(
        "headers: {cookie: {regex: '^(.*?; )?(user=jason)(;.*)?$'}}",
        |c| c.header("cookie", "a=1; user=jason"),
        |c| c.header("cookie", "a=1; user=jane"),
    ),
    always("headers: {host: {exact: 'reviews:9080'}}"),
    always("headers: {Host: {prefix: 'reviews:'}}"),
    always("headers: {':authority': {regex: 'reviews(:[0-9]+)?'}}"),
    always("headers: {host: {}}"),
    always("authority: {exact: 'reviews:9080'}"),
    always("authority: {prefix: reviews}"),
    always("authority: {regex: 'reviews:.*'}"),
    case("headers: {':method': {exact: PUT}}", |c| c.method(Method::PUT), as_it_is),
    case("method: {exact: PUT}", |c| c.method(Method::PUT), as_it_is),
    case("method: {prefix: P}", |c| c.method(Method::POST), as_it_is),
    case("method: {regex: 'PUT|POST'}", |c| c.method(Method::POST), |c| c.method(Method::PATCH)),
    always("headers: {':scheme': {exact: http}}"),
    always("scheme: {exact: http}"),
    case("withoutHeaders: {x: {exact: a}}", |c| c.header("x", "b"), |c| c.header("x", "a")),
    case("withoutHeaders: {x: {prefix: a}}", as_it_is, |c| c.header("x", "ab")),
    case("withoutHeaders: {x: {regex: 'a+'}}", |c| c.header("x", "b"), |c| c.header("x", "aa")),
    case("withoutHeaders: {x: {}}", as_it_is, |c| c.header("x", "a")),
    always("port: 9080"),
];

/// Those that the same request cannot break: what must not hold is tried by the condition's opposite.
const OPPOSITES: &[&str] = &[
    "headers: {host: {exact: reviews}}",
    "headers: {':authority': {exact: 'Reviews:9080'}}",
    "authority: {exact: reviews}",
    "authority: {regex: reviews}",
    "headers: {':scheme': {exact: https}}",
    "scheme: {exact: https}",
    "withoutHeaders: {host: {prefix: reviews}}",
    "withoutHeaders: {':authority': {}}",
    "port: 80",
];

/// Paths and queries: the condition, what fulfils it and what does not.
const PATHS: &[(&str, &str, &str)] = &[
    ("uri: {exact: /exact}", "/exact", "/exact/"),
    ("uri: {exact: /Case}, ignoreUriCase: true", "/cASE", "/cases"),
    ("uri: {prefix: /Pre}, ignoreUriCase: true", "/prefix", "/pr"),
    ("uri: {prefix: /begin}", "/beginning", "/Begin"),
    ("uri: {regex: '/r|/s/.*'}", "/s/x", "/rs/x"),
    ("uri: {exact: '/exact-%c3%A9'}", "/exact-%C3%a9", "/exact-%C3%aa"),
    ("uri: {prefix: '/q-%c3'}", "/q-%C3%A9", "/q-%C4"),
    ("uri: {prefix: '/Q-%C3'}, ignoreUriCase: true", "/Q-%c3%A9", "/q-%c4"),
    ("uri: {regex: '/regex-%C3%.9'}", "/regex-%c3%a9", "/regex-%c4%a9"),
    ("headers: {':path': {exact: '/whole?a=b'}}", "/whole?a=b", "/whole"),
    ("uri: {prefix: /q1}, queryParams: {a: {exact: b}}", "/q1?a=b&a=c", "/q1?a=c&a=b"),
    ("uri: {prefix: /q2}, queryParams: {a: {prefix: b}}", "/q2?a=bc", "/q2?A=bc"),
    ("uri: {prefix: /q3}, queryParams: {a: {regex: 'b|c'}}", "/q3?a=c", "/q3?a=bc"),
    ("uri: {prefix: /q4}, queryParams: {a: {exact: ''}}", "/q4?a", "/q4"),
    ("uri: {prefix: /q5}, queryParams: {a: {}}", "/q5?a=x", "/q5?b=x"),
];

fn route(condition: &str) -> String {
    format!("  - match: [{{{condition}}}]\n    route: [{{destination: {{host: reviews, subset: v2}}}}]\n")
}

fn document() -> String {
    let mut text =
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews}\nspec:\n  \
                    hosts: [reviews]\n  http:\n"
            .to_owned();
    for (place, case) in CASES.iter().enumerate() {
        text += &route(&format!("uri: {{prefix: /{place}/}}, {}", case.condition));
    }
    for (place, condition) in OPPOSITES.iter().enumerate() {
        text += &route(&format!("uri: {{prefix: /not/{place}/}}, {condition}"));
    }
    for (condition, ..) in PATHS {
        text += &route(condition);
    }
    text += "  - route: [{destination: {host: reviews, subset: v1}}]\n";
    text
}

/// The version that answers.
async fn version(mesh: &Mesh, call: Call) -> Result<String, String> {
    let answer = mesh.workload("caller").call(call).await.map_err(|error| error.to_string())?;
    Ok(answer.json::<reviews::Answer>().map_err(|error| error.to_string())?.version)
}

#[tokio::test]
async fn every_condition_of_a_match_holds_in_either_version_of_http_alike() {
    let specs =
        [Spec::client("caller"), Spec::reviews("reviews-v1", "v1"), Spec::reviews("reviews-v2", "v2")];
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.service("reviews", 9080);
    mesh.write("subsets.yaml", SUBSETS).unwrap();
    mesh.write("routes.yaml", &document()).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add(specs).await.unwrap();
    poll(SOON, "the routes are in force", async || {
        match version(&mesh, call::to("reviews:9080", "/exact")).await {
            Ok(version) if version == "v2" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    for http in BOTH_VERSIONS {
        let to = |path: &str| call::to("reviews:9080", path).version(http);
        for (place, case) in CASES.iter().enumerate() {
            let path = format!("/{place}/a");
            let held = version(&mesh, (case.yes)(to(&path))).await;
            assert_eq!(held.as_deref(), Ok("v2"), "{http:?}: {}", case.condition);
            if let Some(no) = case.no {
                let broken = version(&mesh, no(to(&path))).await;
                assert_eq!(broken.as_deref(), Ok("v1"), "{http:?}: not {}", case.condition);
            }
        }
        for (place, condition) in OPPOSITES.iter().enumerate() {
            let broken = version(&mesh, to(&format!("/not/{place}/a"))).await;
            assert_eq!(broken.as_deref(), Ok("v1"), "{http:?}: not {condition}");
        }
        for (condition, yes, no) in PATHS {
            let (held, broken) = (version(&mesh, to(yes)).await, version(&mesh, to(no)).await);
            assert_eq!(held.as_deref(), Ok("v2"), "{http:?}: {condition} at {yes}");
            assert_eq!(broken.as_deref(), Ok("v1"), "{http:?}: {condition} at {no}");
        }
    }
}

#[tokio::test]
async fn a_route_of_another_namespace_counts_only_if_that_is_allowed() {
    let specs =
        [Spec::client("caller"), Spec::reviews("reviews-v1", "v1"), Spec::reviews("reviews-v2", "v2")];
    let capture = document()
        .replace("metadata: {name: reviews}", "metadata: {name: capture, namespace: guest}")
        .replace("[reviews]", "[reviews.default.svc.cluster.local]")
        .replace("host: reviews,", "host: reviews.default.svc.cluster.local,");
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.service("reviews", 9080);
    mesh.write("subsets.yaml", SUBSETS).unwrap();
    mesh.write("capture.yaml", &capture).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add(specs).await.unwrap();

    // As in Istio; `/exact` leads to v2 there.
    for _ in 0..8 {
        assert_eq!(version(&mesh, call::to("reviews:9080", "/exact")).await.as_deref(), Ok("v2"));
    }

    mesh.control_plane_flag("--route-ownership", "namespace");
    mesh.kill_control_plane().await.unwrap();
    mesh.start_control_plane().await.unwrap();
    poll(SOON, "both versions answer, as without a route", async || {
        match version(&mesh, call::to("reviews:9080", "/exact")).await {
            Ok(version) if version == "v1" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let output = tokio::process::Command::new(SELVEDGE)
        .args(["check", "--route-ownership", "namespace", "--config-dir"])
        .arg(mesh.config_dir())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let words =
        "is of namespace default, and this document of namespace guest: by --route-ownership namespace";
    assert!(said.lines().any(|line| line.contains("capture.yaml") && line.contains(words)), "{said}");
}
