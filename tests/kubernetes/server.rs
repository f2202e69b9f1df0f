//! That the tests' API server is as strict as those that people run.

use http::StatusCode;
use selvedge_tests::kubernetes::{AUDIENCE, ApiServer, assets, kinds};
use serde_json::json;

#[tokio::test]
async fn the_api_server_is_as_strict_as_a_clusters() {
    let Some(assets) = assets() else { return };
    let mut server = ApiServer::start(assets).await;
    server.serve(kinds::CORE).await;
    server.api().service_account("default", "reviews").await;

    nobody_may_do_what_no_role_allows(&server).await;
    a_token_is_good_for_its_audience_alone(&server).await;
    nobody_watches_from_before_a_restart(&mut server).await;
}

async fn nobody_may_do_what_no_role_allows(server: &ApiServer) {
    let kubeconfig = server.kubeconfig_of("default", "reviews").await;
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());

    let refused = server.kubectl(&[&kubeconfig, "get", "pods"], "").await.unwrap_err();
    assert!(refused.contains("system:serviceaccount:default:reviews"), "{refused}");
    assert!(refused.contains("Forbidden"), "{refused}");

    server
        .apply(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: reader}\n\
             rules: [{apiGroups: [''], resources: [pods], verbs: [get, list]}]\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: reader}\n\
             roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}\n\
             subjects: [{kind: ServiceAccount, name: reviews, namespace: default}]\n",
        )
        .await;
    server.kubectl(&[&kubeconfig, "get", "pods"], "").await.unwrap();
}

async fn a_token_is_good_for_its_audience_alone(server: &ApiServer) {
    let token = server.api().token("default", "reviews", Some(AUDIENCE), None).await.unwrap();
    let review = async |audience: &str| {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        });
        server.api().create("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.unwrap()
    };

    let good = review(AUDIENCE).await;
    assert_eq!(good["status"]["authenticated"], true, "{good}");
    assert_eq!(good["status"]["user"]["username"], "system:serviceaccount:default:reviews");
    let other = review("https://elsewhere").await;
    assert_ne!(other["status"]["authenticated"], true, "{other}");
}

async fn nobody_watches_from_before_a_restart(server: &mut ApiServer) {
    let version = server.api().get("/api/v1/pods").await.unwrap()["metadata"]["resourceVersion"].clone();
    let version = version.as_str().unwrap().to_owned();
    server.namespace("later", json!({})).await;
    server.compact().await;
    server.kill().await;
    server.api().get("/readyz").await.expect_err("it was killed");
    server.start_again().await;

    let watched =
        server.api().get(&format!("/api/v1/pods?watch=1&timeoutSeconds=2&resourceVersion={version}")).await;

    // As an event of the watch, or as the answer's own status: clients see either.
    let gone = match watched {
        Ok(event) => event["object"]["code"] == 410,
        Err(refused) => refused.status == Some(StatusCode::GONE),
    };
    assert!(gone, "a watch from before is served");
    server.api().get("/api/v1/namespaces/later").await.unwrap();
}
