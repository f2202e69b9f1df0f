//! What a control plane that follows a cluster is tried with: two apps, and sidecars that call them.

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
    kubernetes::{AUDIENCE, ApiServer},
    poll,
};
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, processes};

pub(crate) const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/reviews-1";

/// An API server, two apps, and a sidecar that calls them by the name of their Service.
pub(crate) struct World {
    pub(crate) server: ApiServer,
    pub(crate) processes: Processes,
    _exits: Exits,
    ground: Ground,
    apps: Vec<(String, SocketAddr, Process)>,
    pub(crate) data: PathBuf,
}

impl World {
    pub(crate) async fn new(server: ApiServer) -> Self {
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
            .create(
                "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
                &world.slice(&["reviews-a"]),
            )
            .await;
        world
    }

    pub(crate) async fn create(&self, path: &str, object: &Value) {
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

    pub(crate) fn slice(&self, of: &[&str]) -> Value {
        let endpoint = |of: &&str| {
            let (_, address, _) = self.apps.iter().find(|(name, ..)| name == of).unwrap();
            json!({
                "addresses": [address.ip()], "conditions": {"ready": true},
                "targetRef": {"kind": "Pod", "name": of, "namespace": "default"},
            })
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "reviews-1", "labels": {"kubernetes.io/service-name": "reviews"}},
            "addressType": "IPv4",
            "endpoints": of.iter().map(endpoint).collect::<Vec<_>>(),
            "ports": [{"name": "http", "port": 9080, "protocol": "TCP"}],
        })
    }

    /// The Service is this app's from now on.
    pub(crate) async fn point_at(&self, name: &str) {
        self.server.api().merge(SLICE, &self.slice(&[name])).await.unwrap();
    }

    /// A sidecar of a Pod of its own, which proves itself by a ServiceAccount token.
    pub(crate) async fn caller(&self, name: &str, host: u8, control_plane: &ControlPlane) -> Caller {
        let newcomer = self.newcomer(name, host).await;
        self.join(&newcomer, control_plane).await
    }

    /// A Pod that has a token, and no sidecar yet.
    pub(crate) async fn newcomer(&self, name: &str, host: u8) -> Newcomer {
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        self.server.api().service_account("default", name).await;
        let address = IpAddr::from(self.ground.address(host));
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"serviceAccountName": name, "containers": [{"name": "app", "image": "app"}]},
        });
        self.create("/api/v1/namespaces/default/pods", &pod).await;
        let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}});
        self.server.api().merge(&format!("{path}/status"), &status).await.unwrap();
        let pod = self.server.api().get(&path).await.unwrap();
        let token = self.server.api().token("default", name, Some(AUDIENCE), Some(&pod)).await.unwrap();
        let file = self.data.join(format!("{name}.token"));
        std::fs::write(&file, token).unwrap();
        let roots =
            self.server.api().get("/api/v1/namespaces/selvedge/configmaps/selvedge-trust-roots").await;
        let roots = roots.unwrap()["data"]["root-sha256"].as_str().unwrap().to_owned();
        Newcomer { name: name.to_owned(), token: file, roots }
    }

    /// Starts its sidecar, which need not come in.
    pub(crate) async fn join(&self, newcomer: &Newcomer, control_plane: &ControlPlane) -> Caller {
        let arguments = [
            "proxy".to_owned(),
            "--exit-on-stdin-close".to_owned(),
            format!("--workload=default/{}", newcomer.name),
            format!("--control-plane={}", control_plane.grpc),
            format!("--token-file={}", newcomer.token.display()),
            format!("--trust-roots={}", newcomer.roots),
            "--app=127.0.0.1:1".to_owned(),
            "--outbound=127.0.0.1:0".to_owned(),
            "--inbound=127.0.0.1:0".to_owned(),
            "--admin=127.0.0.1:0".to_owned(),
        ];
        let process = self.processes.start(&newcomer.name, arguments).unwrap();
        let outbound = process.listener("outbound", SOON).await.unwrap();
        Caller { process, outbound }
    }
}

/// A Pod, and how it proves who it is.
pub(crate) struct Newcomer {
    name: String,
    token: PathBuf,
    roots: String,
}

/// A sidecar, by which we call.
pub(crate) struct Caller {
    pub(crate) process: Process,
    outbound: SocketAddr,
}

impl Caller {
    /// Waits until the Service is answered by that app.
    pub(crate) async fn reaches(&self, name: &str, limit: Duration) {
        poll(limit, &format!("the Service is {name}'s"), async || match self.answer().await? {
            found if found == name => Ok(()),
            found => Err(found),
        })
        .await;
    }

    /// The app that answers now.
    pub(crate) async fn answer(&self) -> Result<String, String> {
        let answer = call::send(self.outbound, call::to("reviews:9080", "/")).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let unread = |_| format!("{}\n{}", answer.summary(), self.process.log_tail());
        answer.json::<Answer>().map(|found| found.pod).map_err(unread)
    }
}
