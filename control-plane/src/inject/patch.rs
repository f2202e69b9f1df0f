//! A pod, its namespace and the settings to the JSON patch that gives it a sidecar, or the reason for none.
//!
//! Pure. The patch (RFC 6902) only adds, except that it directs probes to the proxy. Applying it twice changes nothing
//! more, because a pod with a sidecar does not get another.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    ADMIN_PORT, INBOUND_PORT, INJECTED, InjectionSettings, NamespaceFacts, OUTBOUND_PORT, PROXY_UID,
    PULL_SECRETS, Reason, SIDECAR_INJECTED, SIDECAR_LABEL, SKIPPED, VOLUMES,
    annotations::{self, Acts, PREFIX, SETTINGS, Setting},
    asked,
    namespace::pod_security_warning,
    probes,
    sidecar::{self, Sidecar},
};

/// What is to be done with a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// It gets a sidecar by this patch.
    Inject {
        /// What changes.
        patch: Vec<Operation>,
        /// What its owner should know.
        warnings: Vec<String>,
    },
    /// It gets none.
    Skip {
        /// Why.
        reason: Reason,
        /// Writes the reason on the pod, if somebody asked for a sidecar.
        patch: Vec<Operation>,
    },
}

/// What was asked for cannot be done; nothing was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no sidecar can be injected: {}", reasons.join("; "))]
pub struct Refused {
    /// Everything that is wrong, each with what to change.
    pub reasons: Vec<String>,
}

/// One operation of a JSON patch (RFC 6902).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Operation {
    op: &'static str,
    path: Pointer,
    value: Value,
}

impl Operation {
    fn add(path: Pointer, value: impl Into<Value>) -> Self {
        Self { op: "add", path, value: value.into() }
    }

    pub(super) fn replace(path: Pointer, value: Value) -> Self {
        Self { op: "replace", path, value }
    }
}

/// A place in a document (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Pointer(String);

impl Pointer {
    pub(super) fn new(fields: &[&str]) -> Self {
        fields.iter().fold(Self(String::new()), |pointer, field| pointer.field(field))
    }

    pub(super) fn field(&self, name: &str) -> Self {
        Self(format!("{}/{}", self.0, name.replace('~', "~0").replace('/', "~1")))
    }

    pub(super) fn item(&self, index: usize) -> Self {
        Self(format!("{}/{index}", self.0))
    }

    fn last(&self) -> Self {
        Self(format!("{}/-", self.0))
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.trim_start_matches('/').replace('/', ".").as_str())
    }
}

/// What is to be done with `pod` (a `Pod`, or the template of one) in `namespace`. `asked_anyway`: it gets a
/// sidecar unless it says itself that it wants none.
///
/// # Errors
/// If a setting cannot be meant, or the pod is such that its sidecar could not work.
pub fn decide(
    pod: &Value,
    namespace: &NamespaceFacts,
    settings: &InjectionSettings,
    asked_anyway: bool,
) -> Result<Decision, Refused> {
    match asked::skip(pod, namespace, asked_anyway) {
        Err(reason) => Err(Refused { reasons: vec![reason] }),
        Ok(Some(reason)) => Ok(Decision::Skip { reason, patch: skipped(pod, reason) }),
        Ok(None) => inject(pod, namespace, settings),
    }
}

fn skipped(pod: &Value, reason: Reason) -> Vec<Operation> {
    if !reason.is_told() {
        return Vec::new();
    }
    let metadata = Metadata::of(pod);
    metadata.with("annotations", vec![(SKIPPED.to_owned(), reason.word().to_owned())])
}

fn inject(
    pod: &Value,
    namespace: &NamespaceFacts,
    settings: &InjectionSettings,
) -> Result<Decision, Refused> {
    let mut reasons = Vec::new();
    let set = set(pod, namespace, settings, &mut reasons);
    reasons.extend(conflicts(&pod["spec"]));
    if !reasons.is_empty() {
        return Err(Refused { reasons });
    }
    let mut warnings = Vec::from_iter(pod_security_warning(&namespace.name, &namespace.labels));
    let rewritten = probes::rewrite(&pod["spec"]);
    warnings.extend(rewritten.warnings);
    let scraped = probes::scraped(pod).unwrap_or_else(|warning| {
        warnings.push(warning);
        None
    });
    let (mut annotations, metrics) = match scraped {
        Some(scraped) => (scraped.annotations, Some(scraped.original)),
        None => (Vec::new(), None),
    };
    annotations.push((INJECTED.to_owned(), settings.version.to_owned()));
    annotations.extend(inherited(pod, &set));
    let secrets = missing_secrets(&pod["spec"], &set);
    if !secrets.is_empty() {
        annotations.push((PULL_SECRETS.to_owned(), secrets.join(",")));
    }
    let sidecar = Sidecar { settings, set, probes: rewritten.originals, metrics };
    if !sidecar.is_native() {
        warnings.extend(classic_warnings(pod));
    }

    let metadata = Metadata::of(pod);
    let mut patch = metadata.with("annotations", annotations);
    let label = (SIDECAR_LABEL.to_owned(), SIDECAR_INJECTED.to_owned());
    patch.extend(metadata.with_more("labels", vec![label]));
    // Before the containers move.
    patch.extend(rewritten.operations);
    patch.extend(containers(&pod["spec"], &sidecar));
    patch.extend(volumes(&pod["spec"], &sidecar));
    patch.extend(pull_secrets(&pod["spec"], &secrets));
    Ok(Decision::Inject { patch, warnings })
}

/// What the control plane will read from the pod, and its namespace says.
fn inherited(pod: &Value, set: &BTreeMap<&str, String>) -> Vec<(String, String)> {
    // Nobody may speak mutual TLS to a port that the sidecar does not see.
    let read_there =
        SETTINGS.iter().filter(|one| one.acts == Acts::ControlPlane || one.name == "skip-inbound-ports");
    let entry = |setting: &Setting| {
        let key = format!("{PREFIX}{}", setting.name);
        let own = pod["metadata"]["annotations"].get(&key).is_some();
        set.get(setting.name).filter(|_| !own).map(|value| (key, value.clone()))
    };
    read_there.filter_map(entry).collect()
}

/// All settings of a pod, by name.
fn set(
    pod: &Value,
    namespace: &NamespaceFacts,
    settings: &InjectionSettings,
    wrong: &mut Vec<String>,
) -> BTreeMap<&'static str, String> {
    let of_namespace = namespace.annotations.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let mut set = annotations::read(of_namespace, &format!("namespace {}", namespace.name), wrong);
    let own = pod["metadata"]["annotations"].as_object().into_iter().flatten();
    // What is not text is not an annotation; the API server refuses it, and says so.
    let own = own.map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()));
    set.extend(annotations::read(own, "the pod", wrong));
    wrong.extend(amounts_that_contradict(&set));
    let misplaced = annotations::OF_GATEWAYS.iter().filter(|name| set.contains_key(**name));
    wrong.extend(misplaced.map(|name| {
        let key = format!("{}{name}", annotations::PREFIX);
        format!("annotation {key} has no effect at a sidecar; set it on a Gateway's spec.infrastructure.annotations")
    }));
    let defaults = settings.defaults.iter().filter(|(name, _)| !annotations::OF_GATEWAYS.contains(name));
    for (name, value) in defaults {
        set.entry(name).or_insert_with(|| value.clone());
    }
    set
}

/// Limits that are less than what is requested.
pub(super) fn amounts_that_contradict(set: &BTreeMap<&'static str, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for what in ["cpu", "memory"] {
        let (request, limit) = (format!("proxy-{what}-request"), format!("proxy-{what}-limit"));
        if let (Some(request), Some(limit)) = (set.get(&*request), set.get(&*limit))
            && sidecar::is_less(limit, request)
        {
            wrong.push(format!("proxy-{what}-limit {limit} is less than proxy-{what}-request {request}"));
        }
    }
    wrong
}

/// What in a pod its sidecar could not live with.
fn conflicts(spec: &Value) -> Vec<String> {
    let mut conflicts = Vec::new();
    let lists = [&spec["initContainers"], &spec["containers"]];
    let containers = || lists.into_iter().filter_map(Value::as_array).flatten();
    for container in containers() {
        let name = container["name"].as_str().unwrap_or("without a name");
        for port in container["ports"].as_array().into_iter().flatten() {
            let taken = [OUTBOUND_PORT, INBOUND_PORT, ADMIN_PORT].into_iter().find(|taken| {
                port["containerPort"] == *taken && port["protocol"].as_str().unwrap_or("TCP") == "TCP"
            });
            if let Some(taken) = taken {
                conflicts.push(format!(
                    "container {name} has port {taken}, which is the sidecar's; give it another port"
                ));
            }
        }
        if container["securityContext"]["runAsUser"] == PROXY_UID {
            conflicts.push(format!(
                "container {name} runs as user {PROXY_UID}, whose connections bypass the mesh; give it another"
            ));
        }
    }
    if spec["securityContext"]["runAsUser"] == PROXY_UID {
        conflicts.push(format!(
            "the pod runs as user {PROXY_UID}, whose connections bypass the mesh; give it another"
        ));
    }
    for name in VOLUMES {
        let mut volumes = spec["volumes"].as_array().into_iter().flatten();
        if volumes.any(|volume| volume["name"] == name) {
            conflicts.push(format!("the pod has a volume {name}, which is the sidecar's; rename it"));
        }
    }
    conflicts
}

/// What a sidecar that is an ordinary container cannot do.
fn classic_warnings(pod: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    let restarts = pod["spec"]["restartPolicy"].as_str().unwrap_or("Always");
    if restarts != "Always" {
        warnings.push(format!(
            "restartPolicy {restarts}: with native-sidecar disabled the pod does not complete by itself; let \
             the app end with a POST to http://127.0.0.1:{ADMIN_PORT}/shutdown"
        ));
    }
    if pod["spec"]["initContainers"].as_array().is_some_and(|list| !list.is_empty()) {
        warnings.push(
            "with native-sidecar disabled the pod's own init containers are not in the mesh".to_owned(),
        );
    }
    warnings
}

/// The two containers, each in its place.
fn containers(spec: &Value, sidecar: &Sidecar<'_>) -> Vec<Operation> {
    let at = Pointer::new(&["spec", "initContainers"]);
    let has_own = spec["initContainers"].is_array();
    if sidecar.is_native() {
        // The pod's own init containers come after both, and are in the mesh.
        return match has_own {
            true => {
                vec![Operation::add(at.item(0), sidecar.init()), Operation::add(at.item(1), sidecar.proxy())]
            }
            false => vec![Operation::add(at, vec![sidecar.init(), sidecar.proxy()])],
        };
    }
    // Nobody would carry what comes after the rules; so they come last.
    let init = match has_own {
        true => Operation::add(at.last(), sidecar.init()),
        false => Operation::add(at, vec![sidecar.init()]),
    };
    vec![init, Operation::add(Pointer::new(&["spec", "containers"]).item(0), sidecar.proxy())]
}

fn volumes(spec: &Value, sidecar: &Sidecar<'_>) -> Vec<Operation> {
    let at = Pointer::new(&["spec", "volumes"]);
    match spec["volumes"].is_array() {
        true => sidecar.volumes().into_iter().map(|volume| Operation::add(at.last(), volume)).collect(),
        false => vec![Operation::add(at, sidecar.volumes())],
    }
}

/// The Secrets that pull our images and that the pod does not name itself.
fn missing_secrets(spec: &Value, set: &BTreeMap<&'static str, String>) -> Vec<String> {
    let has = |name: &str| {
        spec["imagePullSecrets"].as_array().into_iter().flatten().any(|secret| secret["name"] == name)
    };
    let wanted = set.get("image-pull-secrets").into_iter().flat_map(|names| annotations::names(names));
    let mut missing: Vec<String> = wanted.filter(|name| !has(name)).map(str::to_owned).collect();
    missing.sort();
    missing.dedup();
    missing
}

fn pull_secrets(spec: &Value, names: &[String]) -> Vec<Operation> {
    let at = Pointer::new(&["spec", "imagePullSecrets"]);
    let secrets = names.iter().map(|name| serde_json::json!({ "name": name }));
    match spec["imagePullSecrets"].is_array() {
        true => secrets.map(|secret| Operation::add(at.last(), secret)).collect(),
        false if names.is_empty() => Vec::new(),
        false => vec![Operation::add(at, secrets.collect::<Vec<_>>())],
    }
}

/// The maps of a pod's metadata, of which any may be missing.
struct Metadata<'a>(&'a Value);

impl<'a> Metadata<'a> {
    fn of(pod: &'a Value) -> Self {
        Self(&pod["metadata"])
    }

    /// Adds to one of the maps, which with all above it may be missing.
    fn with(&self, map: &str, entries: Vec<(String, String)>) -> Vec<Operation> {
        let mut patch = Vec::new();
        if !self.0.is_object() {
            patch.push(Operation::add(Pointer::new(&["metadata"]), Map::new()));
        }
        patch.extend(self.with_more(map, entries));
        patch
    }

    /// The same, of metadata that is there.
    fn with_more(&self, map: &str, entries: Vec<(String, String)>) -> Vec<Operation> {
        let at = Pointer::new(&["metadata", map]);
        if self.0[map].is_object() {
            return entries.into_iter().map(|(key, value)| Operation::add(at.field(&key), value)).collect();
        }
        let entries = entries.into_iter().map(|(key, value)| (key, Value::from(value)));
        vec![Operation::add(at, Map::from_iter(entries))]
    }
}
