//! What the facts of a cluster mean: for each check whether it passed, and if not, what to do. Pure: it asks nobody.

pub(super) mod certificates;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use selvedge_control_plane::inject::{INJECT, INJECTED, PROXY_CONTAINER, SKIPPED, pod_security_warning};
use selvedge_kubernetes::Version;
use serde_json::Value;

use super::{
    facts::{Expected, Facts, Ground},
    finding::Findings,
};
use crate::status::{State, rows as proxies};

/// This program's version; proxies and control plane have the same if they were installed together.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The oldest Kubernetes that has the kinds in the versions that are used: EndpointSlice and
/// PodDisruptionBudget `v1`.
const OLDEST_KUBERNETES: Version = Version(1, 21);
/// How many of many are named.
const NAMED: usize = 10;

/// The cluster, and the caller's rights in it.
pub(super) fn ground(ground: &Ground, findings: &mut Findings) {
    findings.section("kubernetes");
    findings.ok(format!("the API server at {} answers", ground.server));
    match Version::parse(&ground.version) {
        Some(version) if version < OLDEST_KUBERNETES => findings.error(
            format!("Kubernetes {} is too old", ground.version),
            format!("upgrade the cluster to {OLDEST_KUBERNETES} or newer"),
        ),
        Some(version) if version < Version::SIDECARS => findings.warning(
            format!(
                "Kubernetes {} has no native sidecars: sidecars are ordinary containers, jobs do not complete by \
                 themselves, and init containers are not in the mesh",
                ground.version
            ),
            format!("upgrade the cluster to {} or newer; the control plane notices it", Version::SIDECARS),
        ),
        _ => findings.ok(format!("Kubernetes {}", ground.version)),
    }
    if ground.missing_rights.is_empty() {
        findings.ok("you may install and upgrade");
    } else {
        findings.warning(
            format!("you may not install or upgrade: {}", some_of(&ground.missing_rights)),
            "ask somebody with the ClusterRole cluster-admin",
        );
    }
}

/// What there is of an installation.
pub(super) fn installation(facts: &Facts, now: SystemTime, findings: &mut Findings) {
    findings.section("control plane");
    for unknown in &facts.unknown {
        findings.warning(format!("cannot be checked: {unknown}"), "get the permission, then check again");
    }
    objects(facts, findings);
    if !facts.is_installed() {
        return;
    }
    versions(facts, findings);
    replicas(facts, findings);
    findings.section("certificates");
    let roots = certificates::trust_roots(facts, now, findings);
    certificates::of_replicas(facts, now, findings);
    findings.section("webhooks");
    ca_bundles(facts, &roots, findings);
    tried_pod(facts, findings);
    findings.section("sidecars");
    namespaces(facts, findings);
    pods(facts, findings);
    configuration(facts, findings);
}

fn objects(facts: &Facts, findings: &mut Findings) {
    let mut missing = Vec::new();
    for object in &facts.objects {
        match &object.found {
            Ok(None) if needed(object, facts) => missing.push(object.named.to_string()),
            Ok(_) => {}
            Err(error) => findings.warning(
                format!("{} cannot be checked: {error}", object.named),
                "get the permission, then check again",
            ),
        }
    }
    let namespace = &facts.namespace;
    if !facts.is_installed() {
        findings.error(
            format!("there is no control plane in the namespace {namespace}"),
            "selvedge install | kubectl apply -f -, or name another namespace with --namespace",
        );
        return;
    }
    match missing.is_empty() {
        true => findings.ok("every object of the installation exists"),
        false => {
            findings.error(format!("missing: {}", some_of(&missing)), "install again with the same values")
        }
    }
    for object in &facts.objects {
        let Ok(Some(found)) = &object.found else { continue };
        let lacking = lacking_rules(&object.wanted, found);
        if !lacking.is_empty() {
            findings.error(
                format!("{} lacks permissions that this version needs: {}", object.named, some_of(&lacking)),
                "install again: selvedge install | kubectl apply -f -",
            );
        }
    }
}

/// Whether `object` belongs to every installation: some depend on values.
fn needed(object: &Expected, facts: &Facts) -> bool {
    match &*object.named.kind.kind {
        "PodDisruptionBudget" => {
            let deployment = facts.found("Deployment");
            deployment.is_some_and(|found| found["spec"]["replicas"].as_u64() > Some(1))
        }
        // `validator.enabled` and `networkPolicy.enabled` may be false.
        "ValidatingWebhookConfiguration" | "NetworkPolicy" => false,
        _ => true,
    }
}

/// The rules of a role that `found` has not, in words.
fn lacking_rules(wanted: &Value, found: &Value) -> Vec<String> {
    let rules = |role: &Value| -> BTreeSet<(String, String, String, String)> {
        let mut all = BTreeSet::new();
        for rule in list(&role["rules"]) {
            let names = match list(&rule["resourceNames"]).count() {
                0 => vec![String::new()],
                _ => texts(&rule["resourceNames"]),
            };
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        for name in &names {
                            all.insert((group.clone(), resource.clone(), verb.clone(), name.clone()));
                        }
                    }
                }
            }
        }
        all
    };
    let found = rules(found);
    let lacking = rules(wanted).into_iter().filter(|rule| !found.contains(rule));
    lacking.map(|(_, resource, verb, name)| format!("{verb} {resource} {name}").trim().to_owned()).collect()
}

fn versions(facts: &Facts, findings: &mut Findings) {
    let Some(version) = control_plane_version(facts) else { return };
    match skew(VERSION, version) {
        Skew::Same => findings.ok(format!("the control plane has this command's version, {version}")),
        _ => findings.warning(
            format!("the control plane has version {version}, this command {VERSION}"),
            "use the command of the same version, because it knows what that version installs",
        ),
    }
}

fn control_plane_version(facts: &Facts) -> Option<&str> {
    facts.found("Deployment")?["metadata"]["labels"]["app.kubernetes.io/version"].as_str()
}

fn replicas(facts: &Facts, findings: &mut Findings) {
    let Some(deployment) = facts.found("Deployment") else { return };
    let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
    let ready = deployment["status"]["readyReplicas"].as_u64().unwrap_or(0);
    let mut reasons = BTreeSet::new();
    for pod in facts.control_plane_pods.iter().filter(|pod| !is_ready(pod)) {
        reasons.insert(format!("{}: {}", name(pod), why_not_ready(pod)));
    }
    let reasons: Vec<String> = reasons.into_iter().collect();
    let look = format!(
        "kubectl --namespace {} describe pods, and logs deployment/selvedge-control-plane",
        facts.namespace
    );
    let words = match reasons.is_empty() {
        true => format!("{ready} of {wanted} replicas are ready"),
        false => format!("{ready} of {wanted} replicas are ready ({})", some_of(&reasons)),
    };
    match ready {
        0 => findings.error(words, look),
        ready if ready < wanted => findings.warning(words, look),
        _ => findings.ok(words),
    }
}

fn is_ready(pod: &Value) -> bool {
    list(&pod["status"]["conditions"])
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn why_not_ready(pod: &Value) -> String {
    let waiting = list(&pod["status"]["containerStatuses"])
        .filter_map(|container| container.pointer("/state/waiting/reason").and_then(Value::as_str))
        .next();
    let unscheduled = list(&pod["status"]["conditions"])
        .filter(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False")
        .filter_map(|condition| condition["message"].as_str())
        .next();
    waiting.or(unscheduled).or_else(|| pod["status"]["phase"].as_str()).unwrap_or("not ready").to_owned()
}

/// Each webhook must hold the roots by which the API server knows us.
fn ca_bundles(facts: &Facts, roots: &[Vec<u8>], findings: &mut Findings) {
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        for webhook in facts.found(kind).map(|found| list(&found["webhooks"])).into_iter().flatten() {
            let name = webhook["name"].as_str().unwrap_or_default();
            let bundle = webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default();
            let held: Vec<Vec<u8>> = BASE64_STANDARD
                .decode(bundle)
                .ok()
                .and_then(|text| pem::parse_many(text).ok())
                .unwrap_or_default()
                .into_iter()
                .map(pem::Pem::into_contents)
                .collect();
            if held.is_empty() {
                findings.error(
                    format!("{name} has no caBundle: the API server cannot call it"),
                    "a ready control plane puts it there; if not, its log says why",
                );
            } else if !roots.is_empty() && !roots.iter().all(|root| held.contains(root)) {
                findings.error(
                    format!("{name} has the caBundle of another CA"),
                    "restart the control plane, which then puts its own CA there",
                );
            } else {
                findings.ok(format!("{name} has the caBundle of this CA"));
            }
        }
    }
}

fn tried_pod(facts: &Facts, findings: &mut Findings) {
    match &facts.tried_pod {
        None => {}
        Some(Ok(pod)) => match sidecar(pod) {
            Some(("initContainers", container)) if container["restartPolicy"] != "Always" => findings.error(
                "a pod that asks for a sidecar gets a native one, which the API server does not know: the sidecar would \
                 never start (tried, not created)",
                "leave --native-sidecars (the chart's injector.nativeSidecars) at auto, or set it to false",
            ),
            Some(("initContainers", _)) => {
                findings.ok("a pod that asks for a sidecar gets a native one (tried, not created)");
            }
            Some(_) => findings.ok("a pod that asks for a sidecar gets one, as an ordinary container (tried, not created)"),
            None => findings.error(
                "a pod that asks for a sidecar gets none (tried, not created)",
                "look at the MutatingWebhookConfiguration selvedge-inject and the control plane's log",
            ),
        },
        Some(Err(error)) if error.contains("failed calling webhook") => findings.error(
            format!("the API server cannot call the webhook: {error}"),
            "check that the control plane is ready, and that the API server can reach its port 8443",
        ),
        Some(Err(error)) => {
            findings.warning(
                format!("injection cannot be tried: {error}"),
                "get permission to create pods in the namespace default",
            );
        }
    }
}

/// The sidecar of a pod, and among which containers it is.
fn sidecar(pod: &Value) -> Option<(&'static str, &Value)> {
    let places = ["initContainers", "containers"].into_iter();
    let mut containers =
        places.flat_map(|place| list(&pod["spec"][place]).map(move |container| (place, container)));
    containers.find(|(_, container)| container["name"] == PROXY_CONTAINER)
}

fn namespaces(facts: &Facts, findings: &mut Findings) {
    let asking: Vec<&Value> = facts.namespaces.iter().filter(|namespace| asks(namespace)).collect();
    for namespace in &asking {
        let labels = &namespace["metadata"]["labels"];
        let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
        let by_name = labels.as_object().into_iter().flatten().filter_map(text).collect();
        if let Some(warning) = pod_security_warning(name(namespace), &by_name) {
            findings.error(warning, "no injected pod can start there");
        }
        if labels[INJECT] != "enabled" {
            findings.warning(
                format!("namespace {} asks for sidecars by an annotation and not by a label: while no control plane answers, its pods start without a sidecar", name(namespace)),
                format!("kubectl label namespace {} {INJECT}=enabled", name(namespace)),
            );
        }
    }
    if asking.is_empty() {
        findings.warning(
            "no namespace asks for sidecars",
            format!("kubectl label namespace NAMESPACE {INJECT}=enabled, then restart its workloads"),
        );
    }
}

fn asks(namespace: &Value) -> bool {
    ["labels", "annotations"].into_iter().any(|place| namespace["metadata"][place][INJECT] == "enabled")
}

fn pods(facts: &Facts, findings: &mut Findings) {
    let asking: BTreeSet<&str> =
        facts.namespaces.iter().filter(|namespace| asks(namespace)).map(name).collect();
    let runs = |pod: &&Value| pod["status"]["phase"] == "Running" || pod["status"]["phase"] == "Pending";
    let (mut versions, mut without, mut unready) =
        (BTreeMap::<&str, Vec<String>>::new(), Vec::new(), Vec::new());
    let mut skipped = Vec::new();
    for pod in facts.pods.iter().filter(runs) {
        let metadata = &pod["metadata"];
        let full_name = format!("{}/{}", metadata["namespace"].as_str().unwrap_or_default(), name(pod));
        if let Some(version) = metadata["annotations"][INJECTED].as_str() {
            versions.entry(version).or_default().push(full_name.clone());
            if pod["status"]["phase"] == "Running" && !sidecar_is_ready(pod) {
                unready.push(full_name);
            }
        } else if let Some(reason) = metadata["annotations"][SKIPPED].as_str() {
            skipped.push(format!("{full_name} ({reason})"));
        } else if asking.contains(metadata["namespace"].as_str().unwrap_or_default()) && !declines(pod) {
            without.push(full_name);
        }
    }
    proxy_versions(&versions, control_plane_version(facts).unwrap_or(VERSION), findings);
    if !unready.is_empty() {
        findings.error(
            format!("the sidecars of these pods are not ready: {}", some_of(&unready)),
            format!("kubectl logs POD --container {PROXY_CONTAINER} says why"),
        );
    }
    if !without.is_empty() {
        findings.warning(
            format!(
                "these pods have no sidecar, although their namespace asks for one: {}",
                some_of(&without)
            ),
            "they were created before the namespace asked, or while no control plane answered: restart them",
        );
    }
    if !skipped.is_empty() {
        findings.warning(
            format!("these pods asked for a sidecar and could not have one: {}", some_of(&skipped)),
            format!("the annotation {SKIPPED} and an Event of their owner say why"),
        );
    }
}

/// How far proxies may be behind the control plane: one minor version, and never ahead.
fn proxy_versions(versions: &BTreeMap<&str, Vec<String>>, control_plane: &str, findings: &mut Findings) {
    for (version, pods) in versions {
        let many = format!("{} sidecars have version {version}", pods.len());
        match skew(version, control_plane) {
            Skew::Same => findings.ok(format!("{many}, like the control plane")),
            Skew::Older => findings.warning(
                format!("{many}, the control plane has {control_plane}: {}", some_of(pods)),
                "restart them before the next upgrade: kubectl --namespace NAMESPACE rollout restart deployment",
            ),
            Skew::TooOld | Skew::Newer => findings.error(
                format!("{many}, which a control plane of version {control_plane} does not support: {}", some_of(pods)),
                "proxies may be one minor version older, never newer: restart them, or upgrade the control plane first",
            ),
        }
    }
}

fn sidecar_is_ready(pod: &Value) -> bool {
    ["initContainerStatuses", "containerStatuses"]
        .into_iter()
        .flat_map(|place| list(&pod["status"][place]))
        .any(|status| status["name"] == PROXY_CONTAINER && status["ready"] == true)
}

fn declines(pod: &Value) -> bool {
    ["labels", "annotations"].into_iter().any(|place| pod["metadata"][place][INJECT] == "disabled")
}

fn configuration(facts: &Facts, findings: &mut Findings) {
    let (mut rows, mut asked) = (Vec::new(), 0);
    for (replica, config) in &facts.replicas {
        match config {
            Ok(config) => {
                asked += 1;
                rows.extend(proxies(config, replica));
            }
            Err(error) => findings.warning(
                format!("{replica} does not say which configuration its proxies have: {error}"),
                "get permission for get pods/portforward, from Kubernetes 1.35 also for create",
            ),
        }
    }
    if asked == 0 {
        return;
    }
    let of = |state| -> Vec<String> {
        let rows = rows.iter().filter(|row| row.state == state);
        rows.map(|row| match &row.reason {
            Some(reason) => format!("{} ({reason})", row.workload),
            None => row.workload.to_string(),
        })
        .collect()
    };
    let (refused, behind) = (of(State::Refused), of(State::Behind));
    if !refused.is_empty() {
        findings.error(
            format!("these proxies refuse the newest configuration: {}", some_of(&refused)),
            "restart them if their version is older than the control plane's; otherwise report it with the reason",
        );
    }
    if !behind.is_empty() {
        findings.warning(
            format!("these proxies do not have the newest configuration yet: {}", some_of(&behind)),
            "selvedge status --wait 30s",
        );
    }
    if refused.is_empty() && behind.is_empty() {
        findings.ok(format!("the newest configuration has arrived at all {} connected proxies", rows.len()));
    }
}

/// How a version is to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Skew {
    Same,
    /// The same minor version or the one before: supported.
    Older,
    TooOld,
    Newer,
}

fn skew(this: &str, other: &str) -> Skew {
    if this == other {
        return Skew::Same;
    }
    let (Some(this), Some(other)) = (Version::parse(this), Version::parse(other)) else {
        return Skew::TooOld;
    };
    match (this.0 == other.0, other.1.checked_sub(this.1)) {
        (true, Some(0 | 1)) => Skew::Older,
        (true, None) => Skew::Newer,
        (false, _) if this.0 > other.0 => Skew::Newer,
        _ => Skew::TooOld,
    }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn texts(value: &Value) -> Vec<String> {
    list(value).filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The first of them, and how many more there are.
fn some_of(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let first = names[..names.len() - more].join(", ");
    if more == 0 { first } else { format!("{first} and {more} more") }
}

#[cfg(test)]
mod tests;
