//! A pod as it was before its sidecar was injected.
//!
//! No other record is needed: the containers, the volume and the marks have names of their own, and the proxy's
//! environment has the original of every probe and annotation that injection changed.

use serde_json::{Map, Value};

use super::{
    INIT_CONTAINER, INJECTED, PROXY_CONTAINER, PULL_SECRETS, SIDECAR_LABEL, SKIPPED, TLS_MODE, VOLUMES,
    probes::{HOOKS, PROBES, SCRAPED, hook_path, probe_path, with_handler},
    sidecar::unescaped,
};

/// Takes the sidecar out of `pod` (a `Pod`, or the template of one). `false`: it has none, and is as it was.
pub fn revert(pod: &mut Value) -> bool {
    let annotated = |pod: &Value, annotation: &str| pod["metadata"]["annotations"].get(annotation).is_some();
    if annotated(pod, SKIPPED) {
        remove_from(&mut pod["metadata"], "annotations", &[SKIPPED]);
        return true;
    }
    if !annotated(pod, INJECTED) {
        return false;
    }
    let originals = |variable: &str| match proxy_variable(pod, variable).as_deref().and_then(unescaped) {
        Some(Value::Object(originals)) => originals,
        _ => Map::new(),
    };
    let (probes, metrics) = (originals("SELVEDGE_APP_PROBES"), proxy_variable(pod, "SELVEDGE_APP_METRICS"));
    let metrics = metrics.as_deref().and_then(unescaped);
    let ours = pod["metadata"]["annotations"][PULL_SECRETS].as_str().unwrap_or_default();
    let ours: Vec<String> = ours.split(',').map(str::to_owned).collect();
    let spec = &mut pod["spec"];
    for list in ["initContainers", "containers"] {
        keep(spec, list, |one| one["name"] != INIT_CONTAINER && one["name"] != PROXY_CONTAINER);
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            put_back(container, &probes);
        }
    }
    keep(spec, "volumes", |volume| VOLUMES.iter().all(|name| volume["name"] != *name));
    keep(spec, "imagePullSecrets", |secret| !ours.iter().any(|name| secret["name"] == **name));
    let metadata = &mut pod["metadata"];
    if let Some(metrics) = metrics {
        scrape_again(metadata, &metrics);
    }
    remove_from(metadata, "annotations", &[INJECTED, PULL_SECRETS]);
    // Whoever has our own label was given no other: Istio's is the pod's own then.
    let label = if metadata["labels"].get(SIDECAR_LABEL).is_some() { SIDECAR_LABEL } else { TLS_MODE };
    remove_from(metadata, "labels", &[label]);
    if let Some(pod) = pod.as_object_mut()
        && pod["metadata"].as_object().is_some_and(Map::is_empty)
    {
        pod.shift_remove("metadata");
    }
    true
}

/// The value of a variable of the proxy's.
fn proxy_variable(pod: &Value, name: &str) -> Option<String> {
    let lists = ["initContainers", "containers"].map(|list| &pod["spec"][list]);
    let mut containers = lists.into_iter().filter_map(Value::as_array).flatten();
    let proxy = containers.find(|one| one["name"] == PROXY_CONTAINER)?;
    let mut env = proxy["env"].as_array()?.iter();
    Some(env.find(|variable| variable["name"] == name)?["value"].as_str()?.to_owned())
}

fn keep(spec: &mut Value, list: &str, keeps: impl Fn(&Value) -> bool) {
    let Some(items) = spec.get_mut(list).and_then(Value::as_array_mut) else { return };
    let before = items.len();
    items.retain(keeps);
    if items.is_empty()
        && before > 0
        && let Some(spec) = spec.as_object_mut()
    {
        spec.shift_remove(list);
    }
}

fn put_back(container: &mut Value, probes: &Map<String, Value>) {
    let Some(name) = container["name"].as_str().map(str::to_owned) else { return };
    let put = |probe: Option<&mut Value>, path: &str| {
        let original = probes.get(path).and_then(Value::as_object).and_then(|entry| entry.iter().next());
        if let (Some(probe), Some((handler, original))) = (probe, original)
            && let Some(fields) = probe.as_object()
        {
            *probe = with_handler(fields, "httpGet", handler, original.clone());
        }
    };
    for (probe, short) in PROBES {
        put(container.get_mut(probe), &probe_path(&name, short));
    }
    for (hook, short) in HOOKS {
        let lifecycle = container.get_mut("lifecycle");
        put(lifecycle.and_then(|lifecycle| lifecycle.get_mut(hook)), &hook_path(&name, short));
    }
}

fn scrape_again(metadata: &mut Value, metrics: &Value) {
    let Some(annotations) = metadata["annotations"].as_object_mut() else { return };
    for (annotation, name) in SCRAPED {
        match metrics.get(name) {
            Some(original) => drop(annotations.insert(annotation.to_owned(), original.clone())),
            None => drop(annotations.shift_remove(annotation)),
        }
    }
}

/// Takes entries out of a map, and the map out if nothing is left in it.
fn remove_from(metadata: &mut Value, map: &str, keys: &[&str]) {
    let Some(metadata) = metadata.as_object_mut() else { return };
    let Some(entries) = metadata.get_mut(map).and_then(Value::as_object_mut) else { return };
    for key in keys {
        entries.shift_remove(*key);
    }
    if entries.is_empty() {
        metadata.shift_remove(map);
    }
}
