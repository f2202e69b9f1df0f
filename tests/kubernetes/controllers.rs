//! What a cluster's controllers do, as far as the mesh meets it: pods for Deployments and Jobs, EndpointSlices for
//! Services, their statuses, and what is left of what was deleted.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use selvedge_tests::kubernetes::Api;
use serde_json::{Value, json};

use crate::kubelet::{NODE, items, text};

/// Everything that they look at.
pub(crate) struct State {
    pub(crate) services: Vec<Value>,
    pub(crate) slices: Vec<Value>,
    pods: Vec<Value>,
}

/// One round of all controllers.
pub(crate) async fn sync(api: &Api) -> State {
    let pods = list(api, "/api/v1/pods").await;
    let deployments = list(api, "/apis/apps/v1/deployments").await;
    for deployment in &deployments {
        deploy(api, deployment, &pods).await;
    }
    let jobs = list(api, "/apis/batch/v1/jobs").await;
    for job in &jobs {
        work(api, job, &pods).await;
    }
    let owners: Vec<&Value> = deployments.iter().chain(&jobs).collect();
    for pod in pods.iter().filter(|pod| !is_going(pod)) {
        let mut references = items(&pod["metadata"]["ownerReferences"]).peekable();
        let is_there =
            |reference: &Value| owners.iter().any(|owner| owner["metadata"]["uid"] == reference["uid"]);
        if references.peek().is_some() && !references.any(is_there) {
            terminate(api, pod).await;
        }
    }
    for namespace in list(api, "/api/v1/namespaces").await.iter().filter(|namespace| is_going(namespace)) {
        empty(api, namespace).await;
    }
    let services = list(api, "/api/v1/services").await;
    let slices = endpoints(api, &services, &pods).await;
    State { services, slices, pods }
}

impl State {
    /// The pods that are ready.
    pub(crate) fn ready(&self) -> impl Iterator<Item = &Value> {
        self.pods.iter().filter(|pod| is_ready(pod))
    }
}

async fn list(api: &Api, path: &str) -> Vec<Value> {
    let list = api.get(path).await.unwrap();
    items(&list["items"]).cloned().collect()
}

/// The pods of an owner, and a pod of its template.
async fn deploy(api: &Api, deployment: &Value, pods: &[Value]) {
    let (metadata, spec) = (&deployment["metadata"], &deployment["spec"]);
    let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
    let hash = hash(&spec["template"]);
    let owned: Vec<&Value> = pods.iter().filter(|pod| is_owned(pod, metadata) && !is_going(pod)).collect();
    let (current, old): (Vec<&Value>, Vec<&Value>) =
        owned.iter().partition(|pod| pod["metadata"]["labels"]["pod-template-hash"] == hash.as_str());
    let wanted = usize::try_from(spec["replicas"].as_u64().unwrap_or(1)).expect("few");
    for _ in current.len()..wanted {
        let set = format!("{name}-{hash}");
        let labels = json!({"pod-template-hash": hash});
        create(api, namespace, &spec["template"], &set, "ReplicaSet", metadata, &labels).await;
    }
    let ready = current.iter().filter(|pod| is_ready(pod)).count();
    // The old go when the new are there.
    let surplus = current.iter().skip(wanted);
    let replaced = if ready >= wanted { &old[..] } else { &[] };
    for pod in surplus.chain(replaced) {
        terminate(api, pod).await;
    }
    let status = json!({
        "observedGeneration": metadata["generation"],
        "replicas": owned.len(),
        "updatedReplicas": current.len(),
        "readyReplicas": ready,
        "availableReplicas": ready,
    });
    if differs(&deployment["status"], &status) {
        let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}/status");
        let _ = api.merge(&path, &json!({"status": status})).await; // it may be gone meanwhile
    }
}

async fn work(api: &Api, job: &Value, pods: &[Value]) {
    let metadata = &job["metadata"];
    let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
    let Some(pod) = pods.iter().find(|pod| is_owned(pod, metadata)) else {
        let labels = json!({"job-name": name});
        return create(api, namespace, &job["spec"]["template"], name, "Job", metadata, &labels).await;
    };
    if pod["status"]["phase"] == "Succeeded" && job["status"]["succeeded"] != 1 {
        let path = format!("/apis/batch/v1/namespaces/{namespace}/jobs/{name}/status");
        let done =
            json!({"status": {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}});
        let _ = api.merge(&path, &done).await; // it may be gone meanwhile
    }
}

async fn create(
    api: &Api,
    namespace: &str,
    template: &Value,
    owner: &str,
    kind: &str,
    of: &Value,
    labels: &Value,
) {
    let mut pod = template.clone();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["generateName"] = format!("{owner}-").into();
    for (key, value) in labels.as_object().into_iter().flatten() {
        pod["metadata"]["labels"][key] = value.clone();
    }
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": if kind == "Job" { "batch/v1" } else { "apps/v1" },
        "kind": kind,
        "name": owner,
        "uid": of["uid"],
        "controller": true,
    }]);
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    // A webhook that does not answer refuses: controllers try again.
    if let Err(error) = api.create(&path, &pod).await {
        eprintln!("no pod of {namespace}/{owner} yet: {error}");
    }
}

/// Deletes everything in a namespace, and then itself.
async fn empty(api: &Api, namespace: &Value) {
    let name = text(&namespace["metadata"]["name"]);
    let groups = api.get("/apis").await.unwrap();
    let versions = items(&groups["groups"])
        .map(|group| format!("/apis/{}", text(&group["preferredVersion"]["groupVersion"])));
    for version in std::iter::once("/api/v1".to_owned()).chain(versions) {
        let Ok(kinds) = api.get(&version).await else { continue };
        let may_delete = |kind: &&Value| items(&kind["verbs"]).any(|verb| verb == "deletecollection");
        for kind in items(&kinds["resources"]).filter(|kind| kind["namespaced"] == true).filter(may_delete) {
            // Pods take the time that they are given: the next round sees them gone.
            let _ =
                api.delete_gracefully(&format!("{version}/namespaces/{name}/{}", text(&kind["name"]))).await;
        }
    }
    if list(api, &format!("/api/v1/namespaces/{name}/pods")).await.is_empty() {
        let mut done = namespace.clone();
        done["spec"]["finalizers"] = json!([]);
        let _ = api.replace(&format!("/api/v1/namespaces/{name}/finalize"), &done).await; // or in the next round
    }
}

async fn terminate(api: &Api, pod: &Value) {
    let metadata = &pod["metadata"];
    let path =
        format!("/api/v1/namespaces/{}/pods/{}", text(&metadata["namespace"]), text(&metadata["name"]));
    let _ = api.delete_gracefully(&path).await; // it may be gone meanwhile
}

/// One slice for each Service that selects pods, written when it changes.
async fn endpoints(api: &Api, services: &[Value], pods: &[Value]) -> Vec<Value> {
    let existing = list(api, "/apis/discovery.k8s.io/v1/endpointslices").await;
    let mut slices = Vec::new();
    for service in services.iter().filter(|service| service["spec"]["selector"].is_object()) {
        let slice = slice(service, pods);
        let metadata = &slice["metadata"];
        let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
        let collection = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
        let known = existing
            .iter()
            .find(|known| known["metadata"]["namespace"] == namespace && known["metadata"]["name"] == name);
        let written = match known {
            None => api.create(&collection, &slice).await.map(drop),
            Some(known) if differs(known, &slice) => {
                api.merge(&format!("{collection}/{name}"), &slice).await.map(drop)
            }
            Some(_) => Ok(()),
        };
        written.unwrap_or_else(|error| panic!("an EndpointSlice: {error}"));
        slices.push(slice);
    }
    for known in existing {
        let metadata = &known["metadata"];
        let ours =
            text(&metadata["labels"]["endpointslice.kubernetes.io/managed-by"]).starts_with("endpointslice");
        let wanted = slices.iter().any(|slice| {
            slice["metadata"]["namespace"] == metadata["namespace"]
                && slice["metadata"]["name"] == metadata["name"]
        });
        if ours && !wanted {
            let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
            let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{name}");
            let _ = api.delete(&path).await;
        }
    }
    slices
}

fn slice(service: &Value, pods: &[Value]) -> Value {
    let metadata = &service["metadata"];
    let name = text(&metadata["name"]);
    let selected: Vec<&Value> = pods
        .iter()
        .filter(|pod| pod["metadata"]["namespace"] == metadata["namespace"] && selects(service, pod))
        .filter(|pod| pod["status"]["podIP"].is_string())
        .filter(|pod| !matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed"))
        .collect();
    let endpoint = |pod: &&Value| {
        let (ready, going) = (is_ready(pod), is_going(pod));
        json!({
            "addresses": [pod["status"]["podIP"]],
            "conditions": {"ready": ready && !going, "serving": ready, "terminating": going},
            "nodeName": NODE,
            "targetRef": {
                "kind": "Pod",
                "namespace": pod["metadata"]["namespace"],
                "name": pod["metadata"]["name"],
                "uid": pod["metadata"]["uid"],
            },
        })
    };
    let port = |port: &Value| {
        let target = match port["targetPort"].as_str() {
            Some(named) => selected.iter().find_map(|pod| named_port(pod, named)),
            None => port["targetPort"].as_u64().or_else(|| port["port"].as_u64()),
        };
        let mut one = json!({
            "name": text(&port["name"]),
            "port": target,
            "protocol": port["protocol"].as_str().unwrap_or("TCP"),
        });
        if port["appProtocol"].is_string() {
            one["appProtocol"] = port["appProtocol"].clone();
        }
        one
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": metadata["namespace"],
            "name": format!("{name}-1"),
            "labels": {
                "kubernetes.io/service-name": name,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        },
        "addressType": "IPv4",
        "endpoints": selected.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": items(&service["spec"]["ports"]).map(port).collect::<Vec<_>>(),
    })
}

fn named_port(pod: &Value, name: &str) -> Option<u64> {
    items(&pod["spec"]["containers"])
        .flat_map(|container| items(&container["ports"]))
        .find(|port| port["name"] == name)?["containerPort"]
        .as_u64()
}

fn selects(service: &Value, pod: &Value) -> bool {
    let selector: BTreeMap<_, _> = service["spec"]["selector"].as_object().into_iter().flatten().collect();
    selector.iter().all(|(key, value)| pod["metadata"]["labels"][key.as_str()] == **value)
}

/// Whether a pod has all that it needs to be sent requests.
pub(crate) fn is_ready(pod: &Value) -> bool {
    items(&pod["status"]["conditions"]).any(|one| one["type"] == "Ready" && one["status"] == "True")
}

fn is_going(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_string()
}

fn is_owned(pod: &Value, owner: &Value) -> bool {
    items(&pod["metadata"]["ownerReferences"]).any(|reference| reference["uid"] == owner["uid"])
}

/// Whether something that is wanted is not so.
fn differs(is: &Value, wanted: &Value) -> bool {
    match wanted {
        Value::Object(fields) => fields.iter().any(|(key, value)| differs(&is[key], value)),
        // What is unset may be left out.
        wanted => is != wanted && !(is.is_null() && *wanted == json!(0)),
    }
}

fn hash(template: &Value) -> String {
    let mut hasher = DefaultHasher::new();
    template.to_string().hash(&mut hasher);
    format!("{:08x}", hasher.finish() & 0xffff_ffff)
}
