//! Istio's samples of routes, each with the requests that show what it does, through real sidecars.
//!
//! The files themselves count where they are at hand, in the directory beside the checkout where the acceptance documents
//! are. A plain clone has none: there the documents here say the same.
//!
//! Not here: samples that are bound to gateways only (`helloworld`, `httpbin`, `websockets`, `tcp-echo`), and those that
//! call hosts outside of the mesh, as `tls_outside` and `outside_names` do.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use selvedge_demo::{
    apps::reviews,
    call::{self, Answer, Call},
    workload::{AppKind, Spec},
};
use selvedge_tests::{Mesh, SOON, poll};

use crate::SELVEDGE;

/// The sample `file`, or `ours`.
fn sample(file: &str, ours: impl Into<String>) -> String {
    let samples =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/acceptance-yaml/istio/samples/bookinfo");
    fs::read_to_string(samples.join(file)).unwrap_or_else(|_| ours.into())
}

/// A `VirtualService` of `host` with these routes.
fn routes(host: &str, http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {host}}}\n\
         spec: {{hosts: [{host}], http: [{http}]}}\n"
    )
}

/// A share of the requests to `host`.
fn share(host: &str, subset: &str, weight: u32) -> String {
    format!("{{destination: {{host: {host}, subset: {subset}}}, weight: {weight}}}")
}

/// A route of all requests to `host`, or of those that `asks` for.
fn to(host: &str, asks: &str, subset: &str) -> String {
    format!("{{{asks}route: [{}]}}", share(host, subset, 100))
}

const OF_JASON: &str = "match: [{headers: {end-user: {exact: jason}}}], ";

/// A `DestinationRule` of each service.
fn subsets(policy: &str) -> String {
    let rule = |host: &str, versions: &[&str]| {
        let subset = |version: &&str| format!("{{name: {version}, labels: {{version: {version}}}}}");
        let subsets: Vec<String> = versions.iter().map(subset).collect();
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {host}}}\n\
             spec: {{host: {host}, {policy}subsets: [{}]}}\n---\n",
            subsets.join(", ")
        )
    };
    [
        rule("productpage", &["v1"]),
        rule("reviews", &["v1", "v2", "v3"]),
        rule("ratings", &["v1", "v2"]),
        rule("details", &["v1", "v2"]),
    ]
    .concat()
}

/// A `Service` of port 9080.
fn service(name: &str, selector: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{selector: {{{selector}}}, ports: [{{port: 9080, name: http}}]}}\n---\n"
    )
}

/// The services of the book shop, and one of each version of `reviews`.
fn services() -> String {
    let apps = ["productpage", "reviews", "ratings", "details"];
    let ours: String = apps.iter().map(|app| service(app, &format!("app: {app}"))).collect();
    let versions = ["v1", "v2", "v3"];
    let of_version =
        |version: &&str| service(&format!("reviews-{version}"), &format!("app: reviews, version: {version}"));
    let ours_of_versions: String = versions.iter().map(of_version).collect();
    let shop = sample("platform/kube/bookinfo.yaml", ours);
    format!("{shop}\n---\n{}", sample("platform/kube/bookinfo-versions.yaml", ours_of_versions))
}

fn server(app: &str, version: &str) -> Spec {
    let server = Spec::server(&format!("{app}-{version}"), app, 9080).label("version", version);
    Spec { app: AppKind::Reviews(version.to_owned()), ..server }
}

async fn shop() -> Mesh {
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.write("services.yaml", &services()).unwrap();
    mesh.write("subsets.yaml", &sample("networking/destination-rule-all.yaml", subsets(""))).unwrap();
    mesh.start_control_plane().await.unwrap();
    let servers = [("ratings", "v1"), ("details", "v1"), ("details", "v2")];
    let reviews = ["v1", "v2", "v3"].map(|version| Spec::reviews(&format!("reviews-{version}"), version));
    let servers = servers.map(|(app, version)| server(app, version));
    mesh.add([Spec::client("productpage")].into_iter().chain(reviews).chain(servers)).await.unwrap();
    mesh
}

fn of(host: &str) -> Call {
    call::to(&format!("{host}:9080"), "/")
}

fn of_jason(host: &str) -> Call {
    of(host).header("end-user", "jason")
}

async fn answer(mesh: &Mesh, call: Call) -> Result<Answer, String> {
    mesh.workload("productpage").call(call).await.map_err(|error| error.to_string())
}

/// The versions that answer 60 of these calls: each that has at least a tenth of them, with less than two in a thousand
/// missing it.
async fn versions(mesh: &Mesh, call: &Call) -> Result<String, String> {
    let mut seen = BTreeSet::new();
    for _ in 0..60 {
        let answer = answer(mesh, call.clone()).await?;
        seen.insert(answer.json::<reviews::Answer>().map_err(|_| answer.summary())?.version);
    }
    Ok(seen.into_iter().collect::<Vec<_>>().join(" "))
}

/// Puts `document` in force, and waits until calls are answered by these versions; then again, so that they stay.
async fn answers(mesh: &Mesh, document: &str, calls: &[(Call, &str)]) {
    mesh.write("route.yaml", document).unwrap();
    for (call, expected) in calls {
        poll(SOON, &format!("{expected}: {document}"), async || match versions(mesh, call).await {
            Ok(seen) if seen == *expected => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }
}

#[tokio::test]
async fn the_samples_of_shares_and_users_send_requests_where_they_say() {
    let mesh = shop().await;
    let (reviews, jason) = (of("reviews"), of_jason("reviews"));
    let split = |first: (&str, u32), second: (&str, u32)| {
        let shares = [first, second].map(|(version, weight)| share("reviews", version, weight));
        routes("reviews", &format!("{{route: [{}]}}", shares.join(", ")))
    };
    let by_user = |others: &str| {
        routes("reviews", &format!("{}, {}", to("reviews", OF_JASON, "v2"), to("reviews", "", others)))
    };

    let all: String = ["productpage", "reviews", "ratings", "details"]
        .iter()
        .map(|host| format!("{}---\n", routes(host, &to(host, "", "v1"))))
        .collect();
    let all = sample("networking/virtual-service-all-v1.yaml", all);
    answers(&mesh, &all, &[(reviews.clone(), "v1"), (of("details"), "v1"), (of("ratings"), "v1")]).await;
    let document = sample("networking/virtual-service-reviews-test-v2.yaml", by_user("v1"));
    answers(&mesh, &document, &[(jason.clone(), "v2"), (reviews.clone(), "v1")]).await;
    let document = sample("networking/virtual-service-reviews-jason-v2-v3.yaml", by_user("v3"));
    answers(&mesh, &document, &[(reviews.clone(), "v3"), (jason.clone(), "v2")]).await;
    let document = sample("networking/virtual-service-reviews-50-v3.yaml", split(("v1", 50), ("v3", 50)));
    answers(&mesh, &document, &[(reviews.clone(), "v1 v3"), (jason, "v1 v3")]).await;
    let document = sample("networking/virtual-service-reviews-80-20.yaml", split(("v1", 80), ("v2", 20)));
    answers(&mesh, &document, &[(reviews.clone(), "v1 v2")]).await;
    let details =
        sample("networking/virtual-service-details-v2.yaml", routes("details", &to("details", "", "v2")));
    answers(&mesh, &details, &[(of("details"), "v2"), (reviews, "v1 v2 v3")]).await;
}

#[tokio::test]
async fn the_samples_of_the_gateway_api_share_requests_between_the_services_of_versions() {
    let mesh = shop().await;
    let split = |first: (&str, u32), second: (&str, u32)| {
        let share = |(version, weight)| format!("{{name: reviews-{version}, port: 9080, weight: {weight}}}");
        let shares = [first, second].map(share);
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: reviews}}\n\
             spec: {{parentRefs: [{{group: '', kind: Service, name: reviews, port: 9080}}], \
             rules: [{{backendRefs: [{}]}}]}}\n",
            shares.join(", ")
        )
    };

    let document = sample("gateway-api/route-reviews-50-v3.yaml", split(("v1", 50), ("v3", 50)));
    answers(&mesh, &document, &[(of("reviews"), "v1 v3")]).await;
    let document = sample("gateway-api/route-reviews-90-10.yaml", split(("v1", 90), ("v2", 10)));
    answers(&mesh, &document, &[(of("reviews"), "v1 v2")]).await;
}

#[tokio::test]
async fn the_samples_of_faults_fail_and_delay_the_requests_that_they_name() {
    let mesh = shop().await;
    let faulty = |fault: &str| {
        let of_jason = format!("{{{OF_JASON}fault: {fault}, route: [{}]}}", share("ratings", "v1", 100));
        routes("ratings", &format!("{of_jason}, {}", to("ratings", "", "v1")))
    };
    let in_force = async |document: &str, call: &Call, status: u16| {
        mesh.write("route.yaml", document).unwrap();
        poll(SOON, document, async || match answer(&mesh, call.clone()).await {
            Ok(answer) if answer.status == status => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    };

    let abort = faulty("{abort: {percentage: {value: 100.0}, httpStatus: 500}}");
    let abort = sample("networking/virtual-service-ratings-test-abort.yaml", abort);
    in_force(&abort, &of_jason("ratings"), 500).await;
    let aborted = answer(&mesh, of_jason("ratings")).await.unwrap();
    assert!(aborted.proxy_error().unwrap().starts_with("fault: "), "{}", aborted.summary());
    assert_eq!(answer(&mesh, of("ratings")).await.unwrap().status, 200);

    let delay = faulty("{delay: {percentage: {value: 100.0}, fixedDelay: 7s}}");
    let delay = sample("networking/virtual-service-ratings-test-delay.yaml", delay);
    in_force(&delay, &of_jason("ratings"), 200).await;
    let began = Instant::now();
    assert_eq!(answer(&mesh, of_jason("ratings")).await.unwrap().status, 200);
    assert!(began.elapsed() >= Duration::from_secs(7), "{:?}", began.elapsed());
    assert_eq!(answer(&mesh, of("ratings").timeout(Duration::from_secs(5))).await.unwrap().status, 200);

    let details = routes(
        "details",
        &format!(
            "{{fault: {{abort: {{httpStatus: 555, percentage: {{value: 100}}}}}}, route: [{}]}}",
            share("details", "v1", 100)
        ),
    );
    mesh.write("subsets.yaml", "# in the sample").unwrap();
    let details =
        sample("networking/fault-injection-details-v1.yaml", format!("{details}---\n{}", subsets("")));
    in_force(&details, &of("details"), 555).await;
}

#[tokio::test]
async fn the_sample_of_mutual_tls_for_all_hosts_calls_every_server_over_it() {
    let mesh = shop().await;
    let all = sample(
        "networking/destination-rule-all-mtls.yaml",
        subsets("trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}, "),
    );
    mesh.write("subsets.yaml", &all).unwrap();
    let only_v2 = routes("reviews", &to("reviews", "", "v2"));

    answers(&mesh, &only_v2, &[(of("reviews"), "v2")]).await;
    for host in ["reviews", "ratings", "details"] {
        let seen: reviews::Answer = answer(&mesh, of(host)).await.unwrap().json().unwrap();
        let caller = seen.client_identity.unwrap_or_default();
        assert_eq!(caller, "spiffe://cluster.local/ns/default/sa/productpage", "{host}");
    }
}
