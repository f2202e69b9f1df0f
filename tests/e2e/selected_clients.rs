//! A `DestinationRule` with a `workloadSelector` is for those clients of its namespace alone that have these labels, as long as
//! they have them.

use selvedge_demo::{apps::reviews, call, workload::Spec};
use selvedge_tests::{Mesh, SOON, gateway::Gateway, poll};

use crate::SELVEDGE;

/// All send to the subset `stable`, which is v1 for whoever no other rule is for.
const ROUTES: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews, reviews.example.com]
  gateways: [mesh, edge]
  http: [{route: [{destination: {host: reviews, subset: stable}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: stable, labels: {version: v1}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
";

/// For clients in `namespace` at the front: the subset is v2, and each has one request in progress.
fn for_the_front(namespace: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: front, namespace: {namespace}}}\n\
         spec:\n  host: reviews.default.svc.cluster.local\n  workloadSelector: {{matchLabels: {{tier: front}}}}\n  \
         trafficPolicy: {{connectionPool: {{http: {{http2MaxRequests: 1}}}}}}\n  \
         subsets: [{{name: stable, labels: {{version: v2}}}}]\n"
    )
}

/// Two clients in one namespace, and one in another, which are at the front or not; and both versions of the server.
async fn mesh() -> Mesh {
    let specs = [
        Spec::client("web").label("tier", "front"),
        Spec::client("batch").label("tier", "back"),
        Spec::client("far").label("tier", "front").namespace("shop"),
        Spec::reviews("reviews-v1", "v1"),
        Spec::reviews("reviews-v2", "v2"),
    ];
    let mesh = Mesh::of(SELVEDGE, specs).await;
    mesh.write("routes.yaml", ROUTES).unwrap();
    mesh
}

/// The version that answers what `client` asks.
async fn version(mesh: &Mesh, client: &str) -> Result<String, String> {
    let call = call::to("reviews.default:9080", "/");
    let answer = mesh.workload(client).call(call).await.map_err(|error| error.to_string())?;
    answer.json::<reviews::Answer>().map(|answer| answer.version).map_err(|_| answer.summary())
}

/// So many answers of one version are no accident.
const IN_A_ROW: usize = 16;

/// Waits until each of the clients is answered by this version.
async fn answered_by(mesh: &Mesh, expected: [(&str, &str); 3]) {
    for (client, wanted) in expected {
        poll(SOON, &format!("{client} is answered by {wanted}"), async || {
            // Before there is a rule, either of the two answers.
            for _ in 0..IN_A_ROW {
                let found = version(mesh, client).await?;
                if found != wanted {
                    return Err(found);
                }
            }
            Ok(())
        })
        .await;
    }
    for (client, wanted) in expected {
        assert_eq!(version(mesh, client).await.unwrap(), wanted, "{client}");
    }
}

/// How many of two requests of `client` at once are refused because there are too many.
async fn refused_of_two(mesh: &Mesh, client: &str) -> usize {
    let send = async || {
        let answer =
            mesh.workload(client).call(call::to("reviews.default:9080", "/?delay=500ms")).await.unwrap();
        let why = answer.proxy_error().unwrap_or_default().to_owned();
        assert_eq!(answer.status == 503, why.starts_with("overflow"), "{}", answer.summary());
        usize::from(answer.status == 503)
    };
    let (one, other) = tokio::join!(send(), send());
    one + other
}

/// Gives a workload another tier.
fn move_to(mesh: &Mesh, file: &str, from: &str, to: &str) {
    mesh.edit(file, |text| text.replace(&format!("tier: {from}"), &format!("tier: {to}"))).unwrap();
}

#[tokio::test]
async fn a_rule_is_for_those_clients_alone_that_it_selects_and_follows_their_labels() {
    let mesh = mesh().await;
    answered_by(&mesh, [("web", "v1"), ("batch", "v1"), ("far", "v1")]).await;

    mesh.write("front.yaml", &for_the_front("default")).unwrap();
    answered_by(&mesh, [("web", "v2"), ("batch", "v1"), ("far", "v1")]).await;
    assert_eq!(refused_of_two(&mesh, "web").await, 1);
    assert_eq!(refused_of_two(&mesh, "batch").await, 0);
    assert_eq!(refused_of_two(&mesh, "far").await, 0);

    // They are connected all the while.
    move_to(&mesh, "workload-web.yaml", "front", "back");
    answered_by(&mesh, [("web", "v1"), ("batch", "v1"), ("far", "v1")]).await;
    assert_eq!(refused_of_two(&mesh, "web").await, 0);
    move_to(&mesh, "workload-batch.yaml", "back", "front");
    answered_by(&mesh, [("batch", "v2"), ("web", "v1"), ("far", "v1")]).await;
    assert_eq!(refused_of_two(&mesh, "batch").await, 1);

    mesh.edit("front.yaml", |text| text.replace("http2MaxRequests: 1", "http2MaxRequests: 9")).unwrap();
    poll(SOON, "more are let through", async || {
        let refused = refused_of_two(&mesh, "batch").await;
        if refused == 0 { Ok(()) } else { Err(refused) }
    })
    .await;

    mesh.write("front.yaml", &for_the_front("shop")).unwrap();
    answered_by(&mesh, [("far", "v2"), ("batch", "v1"), ("web", "v1")]).await;
    assert_eq!(refused_of_two(&mesh, "far").await, 1);
    mesh.remove("front.yaml").unwrap();
    answered_by(&mesh, [("far", "v1"), ("batch", "v1"), ("web", "v1")]).await;
}

#[tokio::test]
async fn a_rule_may_select_the_pods_of_a_gateway() {
    let mesh = mesh().await;
    mesh.write("front.yaml", &for_the_front("default")).unwrap();
    let labels = "istio: ingressgateway, tier: back";
    let gateway = Gateway::start_with_labels(&mesh, "default/edge", &[80], labels).await;
    let answered_by = async |wanted: &str| {
        poll(SOON, &format!("the gateway's client is answered by {wanted}"), async || {
            let answer = gateway.call(80, call::to("reviews.example.com", "/")).await;
            let answer = answer.map_err(|error| error.to_string())?;
            let found = answer.json::<reviews::Answer>().map_err(|_| answer.summary())?.version;
            if found == wanted { Ok(()) } else { Err(found) }
        })
        .await;
    };

    answered_by("v1").await;
    move_to(&mesh, "gateway.yaml", "back", "front");
    answered_by("v2").await;
    mesh.remove("front.yaml").unwrap();
    answered_by("v1").await;
}
