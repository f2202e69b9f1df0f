//! What the policy of a `Service` says of retries and of sessions (`XBackendTrafficPolicy`), wherever its requests come from.

use http::{StatusCode, header::SET_COOKIE};
use selvedge_demo::{call, workload::Spec};
use selvedge_tests::{Mesh, SOON, gateway::Gateway, poll};
use tokio::net::TcpListener;

use super::{pod_of, specs};
use crate::{
    SELVEDGE,
    retries::server::{answer, serve},
};

const HOST: &str = "shop.example.com";

/// The policy `name` for the Service `target`.
fn policy(name: &str, target: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackendTrafficPolicy\nmetadata: {{name: {name}}}\n\
         spec:\n  targetRefs: [{{group: '', kind: Service, name: {target}}}]\n  {spec}\n"
    )
}

#[tokio::test]
async fn a_service_is_sent_no_more_retries_than_its_policy_allows_and_further_requests_are_answered_503() {
    let mut mesh = Mesh::empty(SELVEDGE);
    let address = mesh.ground().socket(201, 9003).unwrap();
    let asked = serve(TcpListener::bind(address).await.unwrap(), |_, _| async { answer(500, "") });
    let (ip, port) = (address.ip(), address.port());
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: failing}}\n\
         spec: {{ports: [{{name: http, port: 80, targetPort: {port}}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: failing-1, labels: {{kubernetes.io/service-name: failing}}}}\naddressType: IPv4\n\
         ports: [{{name: http, port: {port}}}]\nendpoints: [{{addresses: [{ip}], conditions: {{ready: true}}}}]\n---\n\
         apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: failing}}\nspec:\n  \
         hosts: [failing]\n  http: [{{route: [{{destination: {{host: failing}}}}], retries: {{attempts: 1, retryOn: 5xx}}}}]\n"
    );
    mesh.write("service.yaml", &service).unwrap();
    // Half of the requests of ten minutes, and one more of each hour.
    let constraint =
        "retryConstraint: {budget: {percent: 50, interval: 10m}, minRetryRate: {count: 1, interval: 1h}}";
    mesh.write("policy.yaml", &policy("failing", "failing", constraint)).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::client("caller")]).await.unwrap();

    let mut refused = 0;
    for _ in 0..100 {
        let answer = mesh.workload("caller").call(call::to("failing", "/")).await.unwrap();
        match answer.status {
            StatusCode::INTERNAL_SERVER_ERROR => {}
            StatusCode::SERVICE_UNAVAILABLE => {
                let error = answer.proxy_error().unwrap();
                assert!(error.starts_with("overflow: no more retries to"), "{error}");
                refused += 1;
            }
            _ => panic!("{}", answer.summary()),
        }
    }
    assert_eq!((asked.count(), refused), (151, 49));

    let explained = std::process::Command::new(SELVEDGE)
        .args(["explain", "request", "--from", "default/caller", "--to", "http://failing/", "--config-dir"])
        .arg(mesh.config_dir())
        .output()
        .unwrap();
    let explained = String::from_utf8_lossy(&explained.stdout);
    let words = "retries: at most 50 % of the requests of 10m, and 1 more; a request that would need another one is answered 503";
    assert!(explained.contains(words), "{explained}");
}

#[tokio::test]
async fn a_session_of_a_services_policy_is_kept_by_whatever_route_leads_there() {
    let mesh = Mesh::of(SELVEDGE, specs(3)).await;
    let documents = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec: {{gatewayClassName: \
         selvedge, listeners: [{{name: http, port: 80, protocol: HTTP}}]}}\n---\napiVersion: \
         gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: edge}}\nspec:\n  parentRefs: [{{name: edge}}]\n  \
         rules: [{{backendRefs: [{{name: reviews, port: 9080}}]}}]\n{}",
        policy("sticky", "reviews", "sessionPersistence: {sessionName: cart}")
    );
    mesh.write("edge.yaml", &documents).unwrap();
    let gateway = Gateway::start(&mesh, "default/edge", &[80]).await;

    let (first, token) = poll(SOON, "a session begins", async || {
        let answer = gateway.call(80, call::to(HOST, "/")).await.map_err(|error| error.to_string())?;
        let cookie = answer.headers.get(SET_COOKIE).map(|cookie| cookie.to_str().unwrap().to_owned());
        let cookie = cookie.filter(|_| answer.status == StatusCode::OK).ok_or_else(|| answer.summary())?;
        let (token, _) = cookie.split_once("; ").unwrap();
        Ok::<_, String>((pod_of(&answer), token.to_owned()))
    })
    .await;
    assert!(token.starts_with("cart="), "{token}");

    let kept = async |answer: selvedge_demo::call::Answer| {
        let again = answer.headers.get(SET_COOKIE);
        if pod_of(&answer) == first && again.is_none() { Ok(()) } else { Err(answer.summary()) }
    };
    for _ in 0..20 {
        kept(gateway.call(80, call::to(HOST, "/").header("cookie", &token)).await.unwrap()).await.unwrap();
    }
    // A sidecar whose requests follow no route at all.
    poll(SOON, "a sidecar keeps the session of the edge", async || {
        for _ in 0..20 {
            let call = call::to("reviews:9080", "/").header("cookie", &token);
            kept(mesh.workload("caller").call(call).await.unwrap()).await?;
        }
        Ok::<_, String>(())
    })
    .await;
}
