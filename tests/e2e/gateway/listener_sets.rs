//! Listeners of several documents at one gateway.

use http::StatusCode;
use selvedge_demo::{call, workload::Spec};
use selvedge_tests::{SOON, poll};

use super::{Edge, gateway, http_listener, route};

/// A listener, routes and a grant, of a team in a namespace of its own.
const TEAM: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: team}
spec:
  parentRef: {name: edge, namespace: default}
  listeners:
  - {name: web, port: 80, protocol: HTTP, hostname: '*.team.example'}
  - {name: alt, port: 8080, protocol: HTTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: team}
spec:
  parentRefs: [{kind: ListenerSet, name: more}]
  rules: [{backendRefs: [{name: reviews, namespace: default, port: 9080}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: team, namespace: default}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: team}]
  to: [{group: '', kind: Service, name: reviews}]
---
";

#[tokio::test]
async fn another_teams_listeners_are_served_beside_those_of_the_gateway() {
    let edge = Edge::of([Spec::reviews("reviews-1", "v1")], &route("HTTPRoute", "reviews", 9080)).await;
    edge.served("/").await;
    let at = edge.at(80).await;
    let status = async |host: &str| {
        let answer = call::send(at, call::to(host, "/")).await.map_err(|error| error.to_string())?;
        Ok::<_, String>(answer.status)
    };
    let becomes = async |host: &str, expected: StatusCode| {
        poll(SOON, &format!("{host} answers {expected}"), async || match status(host).await? {
            found if found == expected => Ok(()),
            found => Err(found.to_string()),
        })
        .await;
    };

    // Nobody asked the gateway's owner.
    edge.mesh.write("team.yaml", TEAM).unwrap();
    let own = gateway(&http_listener("http", 80));
    let allowing = own.replace("spec: {", "spec: {allowedListeners: {namespaces: {from: All}}, ");
    assert_eq!(status("a.team.example").await, Ok(StatusCode::NOT_FOUND));
    edge.mesh.edit("edge.yaml", |text| text.replace(&own, &allowing)).unwrap();

    becomes("a.team.example", StatusCode::OK).await;
    assert_eq!(status(super::HOST).await, Ok(StatusCode::OK), "the gateway's own listener goes on");
    let alt = edge.at(8080).await;
    let answer = call::send(alt, call::to("any.example", "/")).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.summary());

    // Without the grant, its backend is none.
    edge.mesh
        .edit("team.yaml", |text| text.replace("kind: Service, name: reviews", "kind: Service, name: other"))
        .unwrap();
    becomes("a.team.example", StatusCode::INTERNAL_SERVER_ERROR).await;

    edge.mesh.edit("edge.yaml", |text| text.replace(&allowing, &own)).unwrap();
    becomes("a.team.example", StatusCode::NOT_FOUND).await;
    assert_eq!(status(super::HOST).await, Ok(StatusCode::OK));
}
