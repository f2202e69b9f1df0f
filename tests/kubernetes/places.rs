//! Nodes' labels say where pods are, and a Service that prefers its clients' zone, or whose slices have hints, is called there.

use selvedge_tests::{SOON, poll};
use serde_json::json;

use crate::world::{Caller, SLICE, World};

const SERVICE: &str = "/api/v1/namespaces/default/services/reviews";

/// As the caller runs on one node and each app on another.
pub(crate) async fn the_zone_of_the_client_is_called_first(world: &World, caller: &Caller, name: &str) {
    for (node, pod) in [("n1", "reviews-a"), ("n2", "reviews-b"), ("n3", name)] {
        let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}});
        world.create("/api/v1/nodes", &object).await;
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        world.create(&format!("/api/v1/namespaces/default/pods/{pod}/binding"), &binding).await;
    }
    world.server.api().merge(SLICE, &world.slice(&["reviews-a", "reviews-b"])).await.unwrap();
    answers(caller, &["reviews-a", "reviews-b"]).await;
    // This API server knows no trafficDistribution yet.
    let prefer = |word: Option<&str>| json!({"metadata": {"annotations": {"networking.istio.io/traffic-distribution": word}}});
    world.server.api().merge(SERVICE, &prefer(Some("PreferClose"))).await.unwrap();

    for (zones, expected) in [
        ([("n1", "a"), ("n2", "b"), ("n3", "a")], "reviews-a"),
        ([("n1", "a"), ("n2", "b"), ("n3", "b")], "reviews-b"),
        ([("n1", "b"), ("n2", "a"), ("n3", "b")], "reviews-a"),
    ] {
        for (node, zone) in zones {
            let labels = json!({"topology.kubernetes.io/region": "us", "topology.kubernetes.io/zone": zone});
            let path = format!("/api/v1/nodes/{node}");
            world.server.api().merge(&path, &json!({"metadata": {"labels": labels}})).await.unwrap();
        }
        answers(caller, &[expected]).await;
    }

    world.server.api().merge(SERVICE, &prefer(None)).await.unwrap();
    answers(caller, &["reviews-a", "reviews-b"]).await;
    // The caller's zone is b.
    for (hints, expected) in [
        (["b", "a"], &["reviews-a"][..]),
        (["a", "b"], &["reviews-b"]),
        (["a", "a"], &["reviews-a", "reviews-b"]),
    ] {
        let mut slice = world.slice(&["reviews-a", "reviews-b"]);
        for (endpoint, zone) in slice["endpoints"].as_array_mut().unwrap().iter_mut().zip(hints) {
            endpoint["hints"] = json!({"forZones": [{"name": zone}]});
        }
        world.server.api().merge(SLICE, &slice).await.unwrap();
        answers(caller, expected).await;
    }
    world.server.api().merge(SLICE, &world.slice(&["reviews-a", "reviews-b"])).await.unwrap();
    answers(caller, &["reviews-a", "reviews-b"]).await;
}

/// Waits until exactly these apps answer.
async fn answers(caller: &Caller, apps: &[&str]) {
    poll(SOON, &format!("{apps:?} answer"), async || {
        let mut found = std::collections::BTreeSet::new();
        for _ in 0..24 {
            found.insert(caller.answer().await?);
        }
        if found.iter().map(String::as_str).eq(apps.iter().copied()) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
}
