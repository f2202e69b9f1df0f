//! `VirtualService`s that leave routes to others, with fields in snake_case and of an old API version.

use selvedge_demo::{
    apps::reviews,
    call::{self, Call},
    workload::Spec,
};
use selvedge_tests::{Mesh, SOON, poll};
use serde_json::Value;

use crate::SELVEDGE;

const ROOT: &str = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: root}
spec:
  hosts: [reviews]
  http:
  - match: [{uri: {prefix: /team}}]
    delegate: {name: child, namespace: team}
  - route: [{destination: {host: reviews, subset: v1}}]
";

const CHILD: &str = r"
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {name: child, namespace: team}
spec:
  http:
  - match:
    - uri: {prefix: /team/two}
      query_params: {a: {exact: b}}
      without_headers: {x: {exact: c}}
    retries: {attempts: 1, per_try_timeout: 5s, retry_on: reset-before-request}
    route: [{destination: {host: reviews.default.svc.cluster.local, subset: v2}}]
";

async fn version(mesh: &Mesh, call: Call) -> Result<String, String> {
    let answer = mesh.workload("caller").call(call).await.map_err(|error| error.to_string())?;
    Ok(answer.json::<reviews::Answer>().map_err(|error| error.to_string())?.version)
}

/// A call that the delegate sends to v2.
fn of_child() -> Call {
    call::to("reviews:9080", "/team/two?a=b")
}

#[tokio::test]
async fn a_delegate_decides_below_its_root_and_its_last_good_version_holds() {
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.service("reviews", 9080);
    mesh.write("root.yaml", ROOT).unwrap();
    mesh.write("child.yaml", CHILD).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::client("caller"), Spec::reviews("reviews-v1", "v1"), Spec::reviews("reviews-v2", "v2")])
        .await
        .unwrap();
    poll(SOON, "the delegate's route is in force", async || match version(&mesh, of_child()).await {
        Ok(version) if version == "v2" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;

    assert_eq!(version(&mesh, call::to("reviews:9080", "/two?a=b")).await.unwrap(), "v1");
    for call in [call::to("reviews:9080", "/team/two?a=c"), of_child().header("x", "c")] {
        assert_eq!(
            version(&mesh, call).await.unwrap(),
            "v1",
            "what the delegate does not match goes on below"
        );
    }

    mesh.edit("child.yaml", |text| format!("{text}    redirect: {{uri: /elsewhere}}\n")).unwrap();
    let problem = poll(SOON, "the delegate's error", async || {
        let problems = mesh.control_plane_admin("/problems").await;
        let problems: Vec<Value> =
            problems.and_then(|answer| answer.json()).map_err(|error| error.to_string())?;
        let of_child = |problem: &&Value| problem["field"] == "spec.http[0].route";
        problems.iter().find(of_child).cloned().ok_or_else(|| format!("{problems:?}"))
    })
    .await;
    assert_eq!(problem["line"], 12, "{problem}");
    assert!(problem.to_string().contains("last good version stays in use"), "{problem}");
    assert_eq!(version(&mesh, of_child()).await.unwrap(), "v2");
}
