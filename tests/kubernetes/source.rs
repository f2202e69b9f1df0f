//! The control plane follows a cluster, whatever happens to it. What it knows is seen by a real sidecar's requests.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use selvedge_demo::call;
use selvedge_tests::{
    SOON,
    kubernetes::{ApiServer, assets, kinds},
    poll,
};
use serde_json::{Value, json};

use crate::{
    control_plane::{ACCOUNT, ControlPlane, NAMESPACE, rights},
    faults::{Fault, Faults},
    kubelet::text,
    places::the_zone_of_the_client_is_called_first,
    root::Root,
    world::{Caller, SLICE, World},
};

/// How long the Lease of a replica that died is kept, and then some.
const TAKE_OVER: Duration = Duration::from_secs(40);

/// How long a client may take to come back after an API server was away: it waits longer and longer.
const COME_BACK: Duration = Duration::from_secs(90);

/// How long the API server is away here, if the environment does not say otherwise: longer than a Lease is good for,
/// and than clients wait between two attempts at first.
const AWAY: Duration = Duration::from_secs(20);
const AWAY_VARIABLE: &str = "SELVEDGE_TEST_API_SERVER_AWAY_SECONDS";

const ROUTES: &str = "/apis/networking.istio.io/v1/namespaces/default/virtualservices";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/selvedge/leases/selvedge-control-plane";

/// A route for an app that there is not: something to have words about.
fn route(name: &str) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": name},
        "spec": {"hosts": ["reviews"], "http": [{"route": [{"destination": {"host": format!("nobody-of-{name}")}}]}]},
    })
}

#[tokio::test]
async fn a_cluster_is_followed_whatever_happens_to_it() {
    let Some(assets) = assets() else { return };
    let server = ApiServer::start(assets).await;
    server.serve(kinds::CORE).await;
    let kubeconfig = rights(&server).await;
    let (root, ca) = (Root::new(), "/api/v1/namespaces/selvedge/secrets");
    server.api().create(ca, &root.secret(1, None)).await.unwrap();
    let mut world = World::new(server).await;
    let first = ControlPlane::start(&world.processes, "replica-1", &kubeconfig, &world.data).await;
    let caller = world.caller("caller", 21, &first).await;

    caller.reaches("reviews-a", SOON).await;
    world.point_at("reviews-b").await;
    caller.reaches("reviews-b", SOON).await;

    the_zone_of_the_client_is_called_first(&world, &caller, "caller").await;
    world.point_at("reviews-b").await;
    a_restarted_server_is_followed_again(&mut world, &caller).await;
    a_kind_that_comes_later_is_picked_up(&world, &first).await;
    the_next_ca_is_taken_and_another_root_step_by_step(&world, &first, &caller, &root).await;
    a_server_that_is_away_for_long_is_missed_by_newcomers_alone(&mut world, &first, &caller, &kubeconfig)
        .await;
    the_next_replica_takes_over(&world, first, &kubeconfig).await;
    drop(caller);
    faults_are_survived(&world).await;
}

/// Its watches cannot be resumed: what was before is gone.
async fn a_restarted_server_is_followed_again(world: &mut World, caller: &Caller) {
    world.server.compact().await;
    world.server.kill().await;
    caller.reaches("reviews-b", SOON).await;
    world.server.start_again().await;
    world.point_at("reviews-a").await;

    caller.reaches("reviews-a", COME_BACK).await;
}

/// As cert-manager renews a CA that is below another; then step by step to another root. Nobody is restarted.
async fn the_next_ca_is_taken_and_another_root_step_by_step(
    world: &World,
    control_plane: &ControlPlane,
    caller: &Caller,
    root: &Root,
) {
    let give = async |secret: Value| {
        let path = "/api/v1/namespaces/selvedge/secrets/selvedge-ca";
        world.server.api().merge(path, &secret).await.unwrap();
    };
    let becomes = async |what: &str, is_so: &dyn Fn(&Value) -> bool| {
        poll(SOON, what, async || {
            let config = control_plane.admin("/config").await;
            let path = "/api/v1/namespaces/selvedge/configmaps/selvedge-trust-roots";
            let roots = world.server.api().get(path).await.map_err(|error| error.to_string())?;
            let seen = json!({"own": config["certificates"], "published": roots["data"]});
            if is_so(&seen) { Ok(()) } else { Err(seen.to_string()) }
        })
        .await;
    };
    let ends = async || {
        let config = control_plane.admin("/config").await;
        text(&config["certificates"]["issuer"]["not_after"]).to_owned()
    };
    let published = |seen: &Value| text(&seen["published"]["ca.pem"]).matches("BEGIN CERTIFICATE").count();
    let (next, before) = (Root::new(), ends().await);
    let map = "/api/v1/namespaces/selvedge/configmaps/selvedge-trust-roots";
    let old = world.server.api().get(map).await.unwrap()["data"]["root-sha256"].clone();

    give(root.secret(2, Some(&next))).await;
    becomes("both roots are believed", &|seen| published(seen) == 2).await;
    becomes("the next CA signs", &|seen| text(&seen["own"]["issuer"]["not_after"]) > before.as_str()).await;
    let early = world.caller("of-the-next-ca", 34, control_plane).await;

    let before = ends().await;
    give(next.secret(3, Some(root))).await;
    becomes("the new root's CA signs, and newcomers are told of it", &|seen| {
        text(&seen["own"]["issuer"]["not_after"]) > before.as_str() && seen["published"]["root-sha256"] != old
    })
    .await;
    let late = world.caller("of-the-next-root", 35, control_plane).await;
    // Those of before have been told, or they would not know the control plane again.
    world.point_at("reviews-b").await;
    for one in [caller, &early, &late] {
        one.reaches("reviews-b", SOON).await;
    }
    world.point_at("reviews-a").await;
    for one in [caller, &early, &late] {
        one.reaches("reviews-a", SOON).await;
    }
}

/// What is known goes on. Who is new is let in by the cluster's keys, where they are asked for; by TokenReview, as
/// soon as the server is back.
async fn a_server_that_is_away_for_long_is_missed_by_newcomers_alone(
    world: &mut World,
    first: &ControlPlane,
    caller: &Caller,
    kubeconfig: &Path,
) {
    let by_keys = ["--webhook-listen=127.0.0.1:0", "--token-verification=jwks"];
    let by_keys =
        ControlPlane::start_with(&world.processes, "by-keys", kubeconfig, &world.data, &by_keys).await;
    let reviews = |server: &ApiServer| {
        let asked = server.asked_by(&format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}"));
        asked.iter().filter(|one| one.resource == "tokenreviews").count()
    };
    let before = reviews(&world.server);
    let early = world.caller("early", 31, &by_keys).await;
    early.reaches("reviews-a", SOON).await;
    assert_eq!(reviews(&world.server), before, "the cluster's keys are enough");
    let [by_key, by_review] = [world.newcomer("by-key", 32).await, world.newcomer("by-review", 33).await];

    world.server.kill().await;
    let gone = Instant::now();
    let by_key = world.join(&by_key, &by_keys).await;
    by_key.reaches("reviews-a", SOON).await;
    let by_review = world.join(&by_review, first).await;
    poll(SOON, "the newcomer is told why it has to wait", async || {
        let log = by_review.process.whole_log().map_err(|error| error.to_string())?;
        if log.contains("the ServiceAccount token cannot be checked now") { Ok(()) } else { Err(log) }
    })
    .await;
    let away = std::env::var(AWAY_VARIABLE).ok().and_then(|seconds| seconds.parse().ok());
    while gone.elapsed() < away.map_or(AWAY, Duration::from_secs) {
        for one in [caller, &early, &by_key] {
            one.reaches("reviews-a", SOON).await;
        }
        for replica in [first, &by_keys] {
            let ready = call::send(replica.admin, call::to("control-plane", "/ready")).await.unwrap();
            assert_eq!(ready.status, 200, "{}", ready.text());
        }
    }

    world.server.start_again().await;
    world.point_at("reviews-b").await;
    for one in [caller, &early, &by_key, &by_review] {
        one.reaches("reviews-b", COME_BACK).await;
    }
    world.create(ROUTES, &route("back")).await;
    has_a_verdict(world, "back", TAKE_OVER).await;
    world.server.api().delete(&format!("{ROUTES}/back")).await.unwrap();
    by_keys.lacked_no_right(&world.server).await;
    by_keys.process.terminate(SOON).await.unwrap();
    poll(TAKE_OVER, "the other replica holds the Lease", async || match holder(world).await {
        holder if holder == "replica-1" => Ok(()),
        holder => Err(holder),
    })
    .await;
    world.point_at("reviews-a").await;
    caller.reaches("reviews-a", SOON).await;
}

async fn a_kind_that_comes_later_is_picked_up(world: &World, control_plane: &ControlPlane) {
    world.server.serve(kinds::ISTIO).await;
    world.create(ROUTES, &route("early")).await;

    control_plane.problems("the route is known", |problems| problems.contains("nobody-of-early")).await;
    has_a_verdict(world, "early", SOON).await;
    let events = "/apis/events.k8s.io/v1/namespaces/default/events";
    poll(SOON, "an Event tells of the route", async || {
        let events = world.server.api().get(events).await.map_err(|error| error.to_string())?;
        let found = events.to_string().contains("nobody-of-early");
        if found { Ok(()) } else { Err(events.to_string()) }
    })
    .await;
    world.server.api().delete(&format!("{ROUTES}/early")).await.unwrap();
    control_plane.problems("the route is forgotten", |problems| !problems.contains("nobody-of-early")).await;
}

/// That the object's status says what became of it.
async fn has_a_verdict(world: &World, name: &str, limit: Duration) {
    poll(limit, &format!("the route {name} has a status"), async || {
        let found =
            world.server.api().get(&format!("{ROUTES}/{name}")).await.map_err(|error| error.to_string())?;
        let conditions = found["status"]["conditions"].as_array().map_or(0, Vec::len);
        if conditions > 0 { Ok(()) } else { Err(found["status"].to_string()) }
    })
    .await;
}

/// By the Lease, whatever the clock of the one that died has said.
async fn the_next_replica_takes_over(world: &World, first: ControlPlane, kubeconfig: &Path) {
    let api = world.server.api();
    let second = ControlPlane::start(&world.processes, "replica-2", kubeconfig, &world.data).await;
    assert_eq!(holder(world).await, "replica-1");
    // Both have the same authority: whoever joins by the second is known to the first's.
    let caller = world.caller("caller-2", 22, &second).await;
    caller.reaches("reviews-a", SOON).await;

    first.lacked_no_right(&world.server).await;
    first.process.kill().await.unwrap();
    let ahead = json!({"spec": {"renewTime": "2099-01-01T00:00:00.000000Z"}});
    api.merge(LEASE, &ahead).await.unwrap();
    world.create(ROUTES, &route("later")).await;

    has_a_verdict(world, "later", TAKE_OVER).await;
    assert_eq!(holder(world).await, "replica-2");
    second.lacked_no_right(&world.server).await;
    second.process.terminate(SOON).await.unwrap();
    assert_eq!(holder(world).await, "", "it was given up at the end");
    api.delete(&format!("{ROUTES}/later")).await.unwrap();
}

/// Who writes.
async fn holder(world: &World) -> String {
    let lease = world.server.api().get(LEASE).await.unwrap();
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

/// What a real API server does only when one does not look.
async fn faults_are_survived(world: &World) {
    let faults = Faults::before(&world.server).await;
    let control_plane =
        ControlPlane::start(&world.processes, "replica-3", faults.kubeconfig(), &world.data).await;
    let caller = world.caller("caller-3", 23, &control_plane).await;
    caller.reaches("reviews-a", SOON).await;

    for (fault, there) in [
        (Fault::CutWatches, "reviews-b"),
        (Fault::Gone, "reviews-a"),
        (Fault::Broken, "reviews-b"),
        (Fault::Away, "reviews-a"),
    ] {
        faults.seen();
        faults.set(fault);
        // What is open ends with the next thing that it tells of.
        let change = json!({"metadata": {"labels": {"fault": format!("{fault:?}")}}});
        world.server.api().merge(SLICE, &change).await.unwrap();
        if fault != Fault::Away {
            poll(COME_BACK, &format!("the control plane has met {fault:?}"), async || {
                let seen = faults.seen();
                if seen.iter().any(|asked| asked.contains("watch=")) {
                    Ok(())
                } else {
                    Err(format!("{seen:?}"))
                }
            })
            .await;
        }
        world.point_at(there).await;
        faults.set(Fault::None);

        caller.reaches(there, COME_BACK).await;
    }
}
