//! What holds when nobody says otherwise, and what little words mean: each line of the table in SECURITY.md.

use selvedge_demo::{call, workload::Spec};
use selvedge_tests::{Mesh, SOON, poll};

use crate::SELVEDGE;

/// What a caller with a sidecar is answered, and one without.
async fn answers(mesh: &Mesh) -> Result<[u16; 2], String> {
    let meshed = mesh.workload("caller").call(call::to("reviews:9080", "/")).await;
    let inbound = mesh.workload("reviews-a").inbound;
    let plain = call::send(inbound, call::to("reviews:9080", "/")).await;
    let status = |answer: Result<call::Answer, call::CallError>| {
        answer.map(|answer| answer.status.as_u16()).map_err(|error| error.to_string())
    };
    Ok([status(meshed)?, status(plain)?])
}

/// A policy in this namespace with this `spec`.
fn policy(kind: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: a, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

#[tokio::test]
async fn each_line_of_the_table_holds() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller"), Spec::server("reviews-a", "reviews", 9080)]).await;
    assert_eq!(answers(&mesh).await, Ok([200, 200]), "no policy");
    let authorization = |spec: &str| policy("AuthorizationPolicy", "default", spec);
    let mtls = |namespace: &str, spec: &str| policy("PeerAuthentication", namespace, spec);
    let selected = "selector: {matchLabels: {app: reviews}}";
    // Between two lines everybody is let in again, so that each is seen to come into force.
    for (what, text, wanted) in [
        ("STRICT for the mesh", mtls("istio-system", "{mtls: {mode: STRICT}}"), [200, 403]),
        ("STRICT for the namespace", mtls("default", "{mtls: {mode: STRICT}}"), [200, 403]),
        ("ALLOW without rules", authorization("{}"), [403, 403]),
        ("ALLOW without rules, for some", authorization(&format!("{{{selected}}}")), [403, 403]),
        (
            "ALLOW for others",
            authorization("{rules: [{from: [{source: {serviceAccounts: [other]}}]}]}"),
            [403, 403],
        ),
        (
            "ALLOW for the mesh",
            authorization("{rules: [{from: [{source: {principals: ['*']}}]}]}"),
            [200, 403],
        ),
        ("DENY with a rule for all", authorization("{action: DENY, rules: [{}]}"), [403, 403]),
        (
            "CUSTOM, which does not exist yet",
            authorization("{action: CUSTOM, provider: {name: x}, rules: [{}]}"),
            [403, 403],
        ),
        ("a field that nobody knows", authorization("{rulez: []}"), [403, 403]),
    ] {
        mesh.write("policy.yaml", &text).unwrap();
        poll(SOON, &format!("{what}: {wanted:?}"), async || match answers(&mesh).await {
            Ok(found) if found == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        mesh.remove("policy.yaml").unwrap();
        poll(SOON, &format!("after {what} everybody is let in"), async || match answers(&mesh).await {
            Ok([200, 200]) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }
    // These change nothing: a later document shows that they were in force meanwhile.
    for (what, text) in [
        ("a selector that selects nothing", authorization("{selector: {matchLabels: {app: nobody}}}")),
        ("DENY without rules", authorization("{action: DENY}")),
    ] {
        let allow =
            authorization("{rules: [{from: [{source: {principals: ['*']}}]}]}").replace("name: a", "name: b");
        mesh.write("policy.yaml", &text).unwrap();
        mesh.write("marker.yaml", &allow).unwrap();
        poll(SOON, "the marker is in force", async || match answers(&mesh).await {
            Ok([200, 403]) => Ok(()),
            other => Err(format!("{what}: {other:?}")),
        })
        .await;
        mesh.remove("marker.yaml").unwrap();
        poll(SOON, &format!("{what} changes nothing"), async || match answers(&mesh).await {
            Ok([200, 200]) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }
}
