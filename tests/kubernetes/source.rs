//! The control plane follows a cluster, whatever happens to it. What it knows is seen by a real sidecar's requests.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use selvedge_demo::{
    apps::reviews::Answer,
    call,
    ground::Ground,
    processes::{Exits, Process, Processes},
};
use selvedge_tests::{
    SOON,
    kubernetes::{AUDIENCE, ApiServer, assets, kinds},
    poll,
};
use serde_json::{Value, json};

use crate::{
    control_plane::{ControlPlane, processes, rights},
    faults::{Fault, Faults},
};

/// How long the Lease of a replica that died is kept, and then some.
const TAKE_OVER: Duration = Duration::from_secs(40);

/// How long a client may take to come back after an API server was away: it waits longer and longer.
const COME_BACK: Duration = Duration::from_secs(90);

const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/reviews-1";
const ROUTES: &str = "/apis/networking.istio.io/v1/namespaces/default/virtualservices";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/selvedge/leases/selvedge-control-plane";

/// An API server, two apps, and a sidecar that calls them by the name of their Service.
struct World {
    server: ApiServer,
    processes: Processes,
    _exits: Exits,
    ground: Ground,
    apps: Vec<(String, SocketAddr, Process)>,
    data: PathBuf,
}

impl World {
    async fn new(server: ApiServer) -> Self {
        let (processes, exits) = processes(&server);
        let data = server.directory().join("data");
        std::fs::create_dir(&data).unwrap();
        let ground = Ground::claim().unwrap();
        let mut world = Self { server, processes, _exits: exits, ground, apps: Vec::new(), data };
        for (host, name) in [(11, "reviews-a"), (12, "reviews-b")] {
            world.app(host, name).await;
        }
        // Without an address of its own: a sidecar that is called by name has no other way to it.
        world
            .server
            .apply(
                "apiVersion: v1\nkind: Service\nmetadata: {name: reviews}\n\
                 spec: {clusterIP: None, selector: {app: reviews}, ports: [{name: http, port: 9080}]}\n",
            )
            .await;
        world
            .create("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &world.slice("reviews-a"))
            .await;
        world
    }

    async fn create(&self, path: &str, object: &Value) {
        self.server.api().create(path, object).await.unwrap();
    }

    /// An app on loopback, and the Pod that it is.
    async fn app(&mut self, host: u8, name: &str) {
        let address = SocketAddr::new(self.ground.address(host).into(), 9080);
        let listen = address.to_string();
        let arguments = ["app", "reviews", "--exit-on-stdin-close", "--name", name, "--listen", &listen];
        let process = self.processes.start(name, arguments).unwrap();
        process.listener("app", SOON).await.unwrap();
        self.pod(name, "reviews", address.ip()).await;
        self.apps.push((name.to_owned(), address, process));
    }

    async fn pod(&self, name: &str, app: &str, address: IpAddr) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": app}},
            "spec": {"containers": [{"name": "app", "image": "app"}]},
        });
        self.create("/api/v1/namespaces/default/pods", &pod).await;
        let status = json!({"status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }});
        let path = format!("/api/v1/namespaces/default/pods/{name}/status");
        self.server.api().merge(&path, &status).await.unwrap();
    }

    fn slice(&self, of: &str) -> Value {
        let (_, address, _) = self.apps.iter().find(|(name, ..)| name == of).unwrap();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "reviews-1", "labels": {"kubernetes.io/service-name": "reviews"}},
            "addressType": "IPv4",
            "endpoints": [{
                "addresses": [address.ip()], "conditions": {"ready": true},
                "targetRef": {"kind": "Pod", "name": of, "namespace": "default"},
            }],
            "ports": [{"name": "http", "port": 9080, "protocol": "TCP"}],
        })
    }

    /// The Service is this app's from now on.
    async fn point_at(&self, name: &str) {
        self.server.api().merge(SLICE, &self.slice(name)).await.unwrap();
    }

    /// A sidecar of a Pod of its own, which proves itself by a ServiceAccount token.
    async fn caller(&self, name: &str, host: u8, control_plane: &ControlPlane) -> Caller {
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        if self.server.api().get(&path).await.is_err() {
            self.server.api().service_account("default", name).await;
            let address = IpAddr::from(self.ground.address(host));
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "labels": {"app": name}},
                "spec": {"serviceAccountName": name, "containers": [{"name": "app", "image": "app"}]},
            });
            self.create("/api/v1/namespaces/default/pods", &pod).await;
            let status =
                json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}});
            self.server.api().merge(&format!("{path}/status"), &status).await.unwrap();
        }
        let pod = self.server.api().get(&path).await.unwrap();
        let token = self.server.api().token("default", name, Some(AUDIENCE), Some(&pod)).await.unwrap();
        let file = self.data.join(format!("{name}.token"));
        std::fs::write(&file, token).unwrap();
        let roots =
            self.server.api().get("/api/v1/namespaces/selvedge/configmaps/selvedge-trust-roots").await;
        let roots = roots.unwrap()["data"]["root-sha256"].as_str().unwrap().to_owned();
        let arguments = [
            "proxy".to_owned(),
            "--exit-on-stdin-close".to_owned(),
            format!("--workload=default/{name}"),
            format!("--control-plane={}", control_plane.grpc),
            format!("--token-file={}", file.display()),
            format!("--trust-roots={roots}"),
            "--app=127.0.0.1:1".to_owned(),
            "--outbound=127.0.0.1:0".to_owned(),
            "--inbound=127.0.0.1:0".to_owned(),
            "--admin=127.0.0.1:0".to_owned(),
        ];
        let process = self.processes.start(name, arguments).unwrap();
        let outbound = process.listener("outbound", SOON).await.unwrap();
        Caller { process, outbound }
    }
}

/// A sidecar, by which we call.
struct Caller {
    process: Process,
    outbound: SocketAddr,
}

impl Caller {
    /// Waits until the Service is answered by that app.
    async fn reaches(&self, name: &str, limit: Duration) {
        poll(limit, &format!("the Service is {name}'s"), async || {
            let answer = call::send(self.outbound, call::to("reviews:9080", "/")).await;
            let answer = answer.map_err(|error| error.to_string())?;
            match answer.json::<Answer>() {
                Ok(found) if found.pod == name => Ok(()),
                Ok(found) => Err(found.pod),
                Err(_) => Err(format!("{}\n{}", answer.summary(), self.process.log_tail())),
            }
        })
        .await;
    }
}

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
    let mut world = World::new(server).await;
    let first = ControlPlane::start(&world.processes, "replica-1", &kubeconfig, &world.data).await;
    let caller = world.caller("caller", 21, &first).await;

    caller.reaches("reviews-a", SOON).await;
    world.point_at("reviews-b").await;
    caller.reaches("reviews-b", SOON).await;

    a_restarted_server_is_followed_again(&mut world, &caller).await;
    a_kind_that_comes_later_is_picked_up(&world, &first).await;
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
async fn the_next_replica_takes_over(world: &World, first: ControlPlane, kubeconfig: &std::path::Path) {
    let api = world.server.api();
    let second = ControlPlane::start(&world.processes, "replica-2", kubeconfig, &world.data).await;
    let holder = async || {
        api.get(LEASE).await.unwrap()["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(holder().await, "replica-1");
    // Both have the same authority: whoever joins by the second is known to the first's.
    let caller = world.caller("caller-2", 22, &second).await;
    caller.reaches("reviews-a", SOON).await;

    first.lacked_no_right();
    first.process.kill().await.unwrap();
    let ahead = json!({"spec": {"renewTime": "2099-01-01T00:00:00.000000Z"}});
    api.merge(LEASE, &ahead).await.unwrap();
    world.create(ROUTES, &route("later")).await;

    has_a_verdict(world, "later", TAKE_OVER).await;
    assert_eq!(holder().await, "replica-2");
    second.lacked_no_right();
    second.process.terminate(SOON).await.unwrap();
    assert_eq!(holder().await, "", "it was given up at the end");
    api.delete(&format!("{ROUTES}/later")).await.unwrap();
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
