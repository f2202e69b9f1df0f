//! One pod on a node: its containers in their order, its probes, and its status.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use selvedge_demo::{processes::Processes, wait};
use selvedge_tests::{kubernetes::Api, netns::network::NetworkPlace};
use serde_json::{Value, json};

use super::{
    Image,
    container::{Container, Ground, user, write_etc},
    items, probe, text, volumes,
};

/// How long an init container, or the start of a sidecar, may take.
const INIT_LIMIT: Duration = Duration::from_secs(60);

/// What is known of a pod beside its object.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) address: IpAddr,
    pub(super) host: IpAddr,
    /// The user of all containers, if they have the same.
    pub(super) only_user: Option<u32>,
    /// The group that owns the volumes.
    pub(super) group: Option<u32>,
    pub(super) resolv_conf: String,
}

/// A pod that runs here.
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) place: NetworkPlace,
    host: NetworkPlace,
    directory: PathBuf,
    facts: Facts,
    init: Vec<Container>,
    containers: Vec<Container>,
    /// Which init container comes next; all containers run once none is left.
    next: usize,
    version: String,
    reported: Value,
    over: bool,
}

impl Pod {
    pub(super) fn new(object: &Value, place: NetworkPlace, host: NetworkPlace, below: &Path) -> Self {
        let metadata = &object["metadata"];
        let (namespace, name) = (text(&metadata["namespace"]).to_owned(), text(&metadata["name"]).to_owned());
        let directory = below.join(text(&metadata["uid"]));
        std::fs::create_dir_all(directory.join("volumes")).unwrap();
        let group = object["spec"]["securityContext"]["fsGroup"].as_u64();
        let facts = Facts {
            address: place.address,
            host: host.address,
            only_user: None,
            group: group.and_then(|group| u32::try_from(group).ok()),
            resolv_conf: format!(
                "nameserver {}\nsearch {namespace}.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n",
                host.address
            ),
        };
        Self {
            namespace,
            name,
            place,
            host,
            directory,
            facts,
            init: Vec::new(),
            containers: Vec::new(),
            next: 0,
            version: String::new(),
            reported: Value::Null,
            over: false,
        }
    }

    /// Does the next of what is to be done, and writes what is so.
    pub(super) async fn sync(&mut self, api: &Api, object: &Value, images: &[Image], processes: &Processes) {
        if self.over {
            return;
        }
        let version = text(&object["metadata"]["resourceVersion"]);
        if self.version.is_empty() {
            self.facts.only_user = only_user(object, images);
            write_etc(&self.directory, &self.facts, &self.name);
        }
        if self.version != version {
            version.clone_into(&mut self.version);
            volumes::fill(api, object, &self.facts, &self.directory.join("volumes")).await;
        }
        let namespace = self.place.namespace.clone();
        let directory = self.directory.clone();
        let ground = Ground { api, processes, namespace: &namespace, directory: &directory };
        if self.initialise(&ground, object, images).await {
            self.run(&ground, object, images).await;
            self.probe().await;
            self.finish(object).await;
        }
        self.report(api, object).await;
    }

    /// One init container after the other: to its end, or until it has started if it goes on beside the others.
    async fn initialise(&mut self, ground: &Ground<'_>, object: &Value, images: &[Image]) -> bool {
        let wanted: Vec<&Value> = items(&object["spec"]["initContainers"]).collect();
        while let Some(next) = wanted.get(self.next) {
            let container = Container::start(ground, object, &self.facts, next, images).await;
            let mut container = container;
            if container.sidecar {
                container.hook("postStart").await;
                self.wait_until_started(&mut container).await;
            } else {
                let what =
                    format!("{}/{}: the init container {} ends", self.namespace, self.name, container.name);
                let ended = wait::until(INIT_LIMIT, &what, async || {
                    container.exit_code().ok_or_else(|| container.process().log_tail())
                });
                let code = ended.await.unwrap_or_else(|error| panic!("{error}"));
                assert!(code == 0, "{what} with {code}:\n{}", container.process().log_tail());
            }
            self.init.push(container);
            self.next += 1;
        }
        true
    }

    async fn wait_until_started(&self, container: &mut Container) {
        let probe = container.object["startupProbe"].clone();
        if probe.is_object() {
            let what = format!("{}/{}: {} has started", self.namespace, self.name, container.name);
            let host = &self.host.namespace;
            wait::until(INIT_LIMIT, &what, async || {
                probe::ask(&probe, container, self.facts.address, host)
                    .await
                    .map_err(|error| format!("{error}\n{}", container.process().log_tail()))
            })
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        }
        container.started = true;
    }

    /// Starts the containers that do not run and should, in their order.
    async fn run(&mut self, ground: &Ground<'_>, object: &Value, images: &[Image]) {
        for (index, wanted) in items(&object["spec"]["containers"]).enumerate() {
            if self.containers.len() == index {
                let container = Container::start(ground, object, &self.facts, wanted, images).await;
                // The next one waits for this hook: whoever comes first may hold up the others.
                container.hook("postStart").await;
                self.containers.push(container);
            } else if self.containers[index].exit_code().is_some_and(|code| restarts(object, code)) {
                let restarts = self.containers[index].restarts + 1;
                let mut again = Container::start(ground, object, &self.facts, wanted, images).await;
                again.restarts = restarts;
                again.hook("postStart").await;
                self.containers[index] = again;
            }
        }
    }

    async fn probe(&mut self) {
        let (address, host) = (self.facts.address, &self.host.namespace);
        for container in self.containers.iter_mut().chain(self.init.iter_mut().filter(|init| init.sidecar)) {
            let runs = container.exit_code().is_none();
            let startup = &container.object["startupProbe"];
            if !container.started {
                container.started = runs
                    && (startup.is_null() || probe::ask(startup, container, address, host).await.is_ok());
            }
            let readiness = &container.object["readinessProbe"];
            container.ready = runs
                && container.started
                && (readiness.is_null() || probe::ask(readiness, container, address, host).await.is_ok());
        }
    }

    /// A pod whose containers have all ended, and are not run again, is over; its sidecars are ended then.
    async fn finish(&mut self, object: &Value) {
        let over = self
            .containers
            .iter()
            .all(|container| container.exit_code().is_some_and(|code| !restarts(object, code)));
        if over && !self.containers.is_empty() {
            for sidecar in self.init.iter().rev().filter(|init| init.sidecar) {
                sidecar.terminate(grace(object)).await;
            }
            self.over = true;
        }
    }

    /// Writes the status, if it is another than before.
    async fn report(&mut self, api: &Api, object: &Value) {
        let ready = !self.over
            && !self.containers.is_empty()
            && self.containers.iter().all(|container| container.ready);
        let failed =
            self.containers.iter().any(|container| container.exit_code().is_some_and(|code| code != 0));
        let phase = match (self.over, failed) {
            (false, _) => "Running",
            (true, false) => "Succeeded",
            (true, true) => "Failed",
        };
        let address = self.facts.address.to_string();
        let condition =
            |kind: &str, so: bool| json!({"type": kind, "status": if so { "True" } else { "False" }});
        let status = json!({
            "phase": phase,
            "hostIP": self.facts.host.to_string(),
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [
                condition("Initialized", true),
                condition("Ready", ready),
                condition("ContainersReady", ready),
                condition("PodScheduled", true),
            ],
            "initContainerStatuses": self.init.iter().map(status).collect::<Vec<_>>(),
            "containerStatuses": self.containers.iter().map(status).collect::<Vec<_>>(),
        });
        if status != self.reported {
            let name = text(&object["metadata"]["name"]);
            let path = format!("/api/v1/namespaces/{}/pods/{name}/status", self.namespace);
            if api.merge(&path, &json!({"status": status})).await.is_ok() {
                self.reported = status;
            }
        }
    }

    /// Ends it as kubelets do: containers first, then the sidecars, the last one first.
    pub(super) async fn terminate(&mut self) {
        let limit = Duration::from_secs(10);
        futures_util::future::join_all(self.containers.iter().map(|container| container.terminate(limit)))
            .await;
        for sidecar in self.init.iter().rev().filter(|init| init.sidecar) {
            sidecar.terminate(limit).await;
        }
    }

    /// Ends it at once.
    pub(super) async fn kill(self) {
        for container in self.containers.iter().chain(&self.init) {
            let _ = container.process().kill().await;
        }
    }

    /// One of its containers, init containers included.
    pub(crate) fn container(&self, name: &str) -> &Container {
        self.containers
            .iter()
            .chain(&self.init)
            .find(|container| container.name == name)
            .unwrap_or_else(|| panic!("{}/{} has no container {name}", self.namespace, self.name))
    }
}

fn status(container: &Container) -> Value {
    let state = match container.exit_code() {
        None => json!({"running": {"startedAt": null}}),
        Some(code) => json!({"terminated": {"exitCode": code}}),
    };
    json!({
        "name": container.name,
        "image": container.image,
        "imageID": container.image,
        "ready": container.ready || (container.exit_code() == Some(0) && !container.sidecar),
        "started": container.started,
        "restartCount": container.restarts,
        "state": state,
    })
}

fn restarts(pod: &Value, code: i32) -> bool {
    match pod["spec"]["restartPolicy"].as_str() {
        Some("Never") => false,
        Some("OnFailure") => code != 0,
        _ => true,
    }
}

fn grace(pod: &Value) -> Duration {
    Duration::from_secs(pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30).min(20))
}

fn only_user(pod: &Value, images: &[Image]) -> Option<u32> {
    let mut users =
        items(&pod["spec"]["initContainers"]).chain(items(&pod["spec"]["containers"])).map(|object| {
            let image = images.iter().find(|image| image.is(text(&object["image"])));
            image.map(|image| user(pod, object, image))
        });
    let first = users.next().flatten()?;
    users.all(|user| user == Some(first)).then_some(first)
}
