//! What a node does with a pod: runs its containers, in order, with exactly what the pod object says.
//!
//! A pod has a network namespace, and each container a root of its own with the pod's volumes mounted in it; it runs
//! as the user, with the capabilities and the environment that it is given. An image is a program of this machine.
//! What a pod says and this does not do (limits of memory, images to pull) it leaves out; what would change how the
//! mesh behaves is done as kubelets do it. It does nothing of itself: [`Kubelet::sync`] is one round of its work.

mod container;
mod environment;
mod forward;
mod image;
mod pod;
mod probe;
mod volumes;

use std::collections::BTreeMap;

use selvedge_demo::processes::{Exits, Processes};
use selvedge_tests::{
    kubernetes::{Api, ApiServer},
    netns::network::{Network, NetworkPlace},
};
use serde_json::{Value, json};

use self::forward::Forwarding;
pub(crate) use self::{image::Image, pod::Pod};

/// The node that all pods run on.
pub(crate) const NODE: &str = "node-1";

/// The containers of one node.
pub(crate) struct Kubelet {
    api: Api,
    images: Vec<Image>,
    processes: Processes,
    _exits: Exits,
    directory: std::path::PathBuf,
    pods: BTreeMap<String, Pod>,
    forwarding: Forwarding,
    /// What the API server would have kept of pods if it were newer, by namespace and Job.
    newer: BTreeMap<(String, String), Value>,
}

impl Kubelet {
    /// A node with nothing on it yet, which the API server is told of.
    pub(crate) async fn new(server: &ApiServer, images: Vec<Image>, host: &NetworkPlace) -> Self {
        let logs = server.directory().join("containers");
        std::fs::create_dir(&logs).unwrap();
        // A mount namespace of its own, where nothing that it mounts is seen by others.
        let (processes, exits) = Processes::new(std::path::Path::new("unshare"), &logs);
        let (certificate, key) = server.kubelet_certificate(host.address);
        let forwarding =
            Forwarding::start(host, (&certificate, &key), std::path::Path::new(&server.ca_file()));
        register(server.api(), host).await;
        Self {
            api: server.api().clone(),
            images,
            processes,
            _exits: exits,
            directory: server.directory().join("pods"),
            pods: BTreeMap::new(),
            forwarding,
            newer: BTreeMap::new(),
        }
    }

    /// One round: runs pods that are new, ends those that are to go, asks the probes, and writes what is so.
    pub(crate) async fn sync(&mut self, network: &mut Network) {
        let list = self.api.get("/api/v1/pods").await.unwrap();
        let mut gone: Vec<String> = self.pods.keys().cloned().collect();
        for object in list["items"].as_array().expect("a list of pods") {
            let object = &self.as_a_newer_server_has_it(object.clone());
            let uid = text(&object["metadata"]["uid"]).to_owned();
            gone.retain(|known| *known != uid);
            if object["metadata"]["deletionTimestamp"].is_string() {
                self.end(&uid, object).await;
            } else if !self.pods.contains_key(&uid) {
                let pod = self.admit(object, network).await;
                self.pods.insert(uid.clone(), pod);
            }
            if let Some(pod) = self.pods.get_mut(&uid) {
                pod.sync(&self.api, object, &self.images, &self.processes).await;
            }
        }
        for uid in gone {
            if let Some(pod) = self.pods.remove(&uid) {
                self.forwarding.remove(&pod.namespace, &pod.name);
                pod.kill().await;
            }
        }
    }

    /// Runs the pods of a Job by this `spec`: Kubernetes 1.20 takes no pod with a native sidecar.
    pub(crate) fn run_instead(&mut self, namespace: &str, job: &str, spec: &Value) {
        self.newer.insert((namespace.to_owned(), job.to_owned()), spec.clone());
    }

    fn as_a_newer_server_has_it(&self, mut pod: Value) -> Value {
        let job = text(&pod["metadata"]["labels"]["job-name"]).to_owned();
        if let Some(spec) = self.newer.get(&(text(&pod["metadata"]["namespace"]).to_owned(), job)) {
            let account = pod["spec"]["serviceAccountName"].clone();
            pod["spec"] = spec.clone();
            pod["spec"]["serviceAccountName"] = account;
        }
        pod
    }

    /// The running pod of that name.
    pub(crate) fn pod(&self, namespace: &str, name: &str) -> &Pod {
        self.pods
            .values()
            .find(|pod| pod.namespace == namespace && pod.name == name)
            .unwrap_or_else(|| panic!("no pod {namespace}/{name} runs"))
    }

    /// Prints the ends of all containers' logs.
    pub(crate) fn print_logs(&self) {
        for log in self.processes.logs() {
            let name = log.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            eprintln!("--- {name}\n{}", selvedge_demo::processes::tail(&log));
        }
    }

    /// Schedules a pod to this node, and gives it a network.
    async fn admit(&self, object: &Value, network: &mut Network) -> Pod {
        let metadata = &object["metadata"];
        let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
        });
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/binding");
        self.api.create(&path, &binding).await.unwrap();
        let host = network.on_host();
        let place = if object["spec"]["hostNetwork"] == true {
            host.clone()
        } else {
            network.join(&format!("{namespace}/{name}"))
        };
        self.forwarding.add(namespace, name, &place);
        Pod::new(object, place, host, &self.directory)
    }

    async fn end(&mut self, uid: &str, object: &Value) {
        if let Some(mut pod) = self.pods.remove(uid) {
            self.forwarding.remove(&pod.namespace, &pod.name);
            pod.terminate().await;
        }
        let metadata = &object["metadata"];
        let path =
            format!("/api/v1/namespaces/{}/pods/{}", text(&metadata["namespace"]), text(&metadata["name"]));
        // Somebody may have forced it away meanwhile.
        let _ = self.api.delete(&path).await;
    }
}

/// Says where the node is, and where its kubelet listens.
async fn register(api: &Api, host: &NetworkPlace) {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}});
    api.create("/api/v1/nodes", &node).await.unwrap();
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": host.address}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": forward::PORT}},
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    api.merge(&format!("/api/v1/nodes/{NODE}/status"), &status).await.unwrap();
}

/// A text that the API server guarantees to be there; empty if it is not.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The elements of a list that may be missing.
pub(crate) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
