//! What injection tells a sidecar: whose probes to make in the app's place, and that an ingress controller dials
//! pods and means services.

use std::collections::BTreeSet;

use selvedge_demo::{
    apps::reviews,
    call::{self, Answer},
};
use selvedge_tests::{SOON, poll};

use crate::{
    mesh::{APP_PORT, Mesh, Mode, Workload, client, server},
    network::Kind,
    rights::netns,
};

/// As the injector writes them, for the app's port.
const PROBES: &str = r#"{
    "/app-health/reviews/readyz": { "httpGet": { "path": "/", "port": "http" }, "portNumber": 9080 },
    "/app-health/reviews/livez": { "tcpSocket": { "port": 9080 } },
    "/app-health/reviews/startupz": { "httpGet": { "path": "/", "port": 9081 } }
}"#;

const METRICS: &str = r#"{ "port": "9080", "path": "/" }"#;

/// The mesh's default is `STRICT`: who has no sidecar gets nothing from the app, and the kubelet has none.
#[test]
fn the_kubelet_is_answered_for_an_app_that_policy_closes_to_it() {
    netns(async || {
        let mut mesh = Mesh::on(Kind::Bridge).await;
        let reviews = server("reviews-v1", "reviews", "v1");
        let reviews = reviews.flags(&["--app-probes", PROBES, "--app-metrics", METRICS]);
        mesh.add([reviews, client("node").mode(Mode::NoSidecar)]).await;
        let (node, reviews) = (mesh.workload("node"), mesh.workload("reviews-v1"));

        let direct = node.call(reviews.address(), call::to("reviews:9080", "/")).await.unwrap();
        assert_eq!(direct.status, 403, "{}", direct.summary());

        for path in ["/app-health/reviews/readyz", "/app-health/reviews/livez"] {
            let probed = admin(node, reviews, path).await;
            assert_eq!(probed.status, 200, "{path}: {}", probed.text());
        }
        let failed = admin(node, reviews, "/app-health/reviews/startupz").await;
        assert_eq!(failed.status, 503);
        assert!(failed.text().contains("no connection"), "{}", failed.text());
        let scraped = admin(node, reviews, "/metrics/app").await;
        assert_eq!(scraped.json::<reviews::Answer>().unwrap().pod, "reviews-v1");
        // What changes something stays closed to it.
        assert_eq!(admin(node, reviews, "/config").await.status, 403);
    });
}

async fn admin(caller: &Workload, of: &Workload, path: &str) -> Answer {
    let mut address = of.address();
    address.set_port(4191);
    caller.call(address, call::to(&address.to_string(), path)).await.unwrap()
}

/// A Service with an address of its own, whose pods an ingress controller dials one by one.
#[test]
fn an_ingress_controller_dials_a_pod_and_gets_the_service() {
    netns(async || {
        let mut mesh = Mesh::on(Kind::Bridge).await;
        mesh.write(
            "front.yaml",
            &format!(
                "apiVersion: v1\nkind: Service\nmetadata:\n  name: front\n  namespace: default\nspec:\n  \
                 clusterIP: 10.96.0.10\n  selector:\n    app: reviews\n  ports:\n    - name: http\n      port: {APP_PORT}\n"
            ),
        );
        mesh.add([
            client("ingress").flags(&["--ingress"]),
            client("client"),
            server("reviews-v1", "reviews", "v1"),
            server("reviews-v2", "reviews", "v2"),
        ])
        .await;

        let both = ["v1", "v2"].map(str::to_owned).into();
        poll(SOON, "the Host beats the pod that was dialled", async || {
            let seen = versions(&mesh, "ingress", "front:9080").await;
            if seen == both { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
        // Whoever is no ingress controller gets whom he dials, and so does that one for a name of nobody's.
        for (caller, host) in [("client", "front:9080"), ("ingress", "shop.example"), ("ingress", "10.0.0.1")]
        {
            assert_eq!(versions(&mesh, caller, host).await, ["v2".to_owned()].into(), "{caller} {host}");
        }
    });
}

/// Whose answers 24 calls get that dial `reviews-v2`.
async fn versions(mesh: &Mesh, caller: &str, host: &str) -> BTreeSet<String> {
    let address = mesh.workload("reviews-v2").address();
    let mut seen = BTreeSet::new();
    for _ in 0..24 {
        let answer = mesh.workload(caller).call(address, call::to(host, "/")).await.unwrap();
        match answer.json::<reviews::Answer>() {
            Ok(answer) => {
                let sidecar = format!("spiffe://cluster.local/ns/default/sa/{caller}");
                assert_eq!(answer.client_identity, Some(sidecar), "never without mutual TLS");
                seen.insert(answer.version);
            }
            Err(_) => drop(seen.insert(answer.summary())),
        }
    }
    seen
}

/// A stranger's connections make room for each other, and not for themselves in the place of the kubelet's.
#[test]
fn a_stranger_on_the_network_does_not_make_probes_fail() {
    netns(async || {
        let mut mesh = Mesh::on(Kind::Bridge).await;
        let reviews = server("reviews-v1", "reviews", "v1");
        let reviews = reviews.flags(&["--app-probes", PROBES, "--app-metrics", METRICS]);
        let others = ["node", "stranger"].map(|name| client(name).mode(Mode::NoSidecar));
        mesh.add([vec![reviews], others.to_vec()].concat()).await;
        let [reviews, node, stranger] = ["reviews-v1", "node", "stranger"].map(|name| mesh.workload(name));
        let mut admin_port = reviews.address();
        admin_port.set_port(4191);

        let scrapes = "GET /metrics/app?x=1 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20);
        let mut held = Vec::new();
        for sent in ["", "GET /live HTTP/1.1\r\nx: ", &scrapes] {
            held.extend((0..200).filter_map(|_| {
                let stream = stranger.namespace().inside(|| std::net::TcpStream::connect(admin_port)).ok()?;
                // One whose place has been given away says so.
                let _ = std::io::Write::write_all(&mut &stream, sent.as_bytes());
                Some(stream)
            }));
            for path in ["/live", "/ready", "/app-health/reviews/readyz", "/metrics", "/metrics/app"] {
                let answer = admin(node, reviews, path).await;
                assert_eq!(answer.status, 200, "{path} beside {sent:?}: {}", answer.text());
            }
        }
    });
}
