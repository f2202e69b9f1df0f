//! The pod of a gateway: the same proxy, with the same settings and the same proof of who it is, and no app beside it.
//!
//! Nothing is redirected there, so it needs no `selvedge-init` and no capability.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    INJECT, InjectionSettings, Refused, annotations, patch,
    sidecar::{Sidecar, is_less},
};

/// Settings that have a meaning only beside an app.
const OF_SIDECARS: [&str; 9] = [
    "init-image",
    "native-sidecar",
    "skip-inbound-ports",
    "skip-outbound-ports",
    "skip-outbound-networks",
    "opaque-ports",
    "default-opaque-ports",
    "outbound-traffic-policy",
    "ingress",
];
/// What is reserved for a gateway that says nothing: it serves many clients, where a sidecar serves one app.
const REQUESTS: [(&str, &str); 2] = [("proxy-cpu-request", "100m"), ("proxy-memory-request", "64Mi")];
/// How a gateway leaves that says nothing. Load balancers go on sending to it for a while: until they have heard of it, or
/// their own checks have failed. Its clients are told at once to move, and are served meanwhile.
const DRAIN: [(&str, &str); 2] = [("drain-delay", "15s"), ("drain-timeout", "60s")];
/// How much longer than the proxy's own `drain-timeout` a gateway has, in seconds.
const SPARE_SECONDS: u64 = 15;

/// The label that keeps injection away from a gateway's pod.
pub const NOT_INJECTED: (&str, &str) = (INJECT, "disabled");

/// The `spec` of a gateway's pod, whose annotations are `annotations` and whose service account is `account`. `ports`
/// are those of its container that have a name. `resources` are settings such as `proxy-cpu-limit`, which come before
/// those of the annotations.
///
/// # Errors
/// If an annotation is a setting that cannot be meant.
pub fn pod_spec(
    settings: &InjectionSettings,
    annotations: &BTreeMap<String, String>,
    resources: &BTreeMap<&'static str, String>,
    ports: &[(String, u16)],
    account: &str,
) -> Result<Value, Refused> {
    let set = set(settings, annotations, resources)?;
    let secrets = set.get("image-pull-secrets").map(|names| {
        let names = annotations::names(names);
        names.map(|name| json!({ "name": name })).collect::<Vec<_>>()
    });
    let drain = set.get("drain-timeout").and_then(|time| humantime::parse_duration(time).ok());
    let grace = drain.unwrap_or_default().as_secs().saturating_add(SPARE_SECONDS);
    let sidecar = Sidecar { settings, set, probes: Map::new(), metrics: None };
    let mut spec = json!({
        "serviceAccountName": account,
        // It never calls the API server.
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": grace,
        "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [sidecar.gateway(ports)],
        "volumes": sidecar.volumes(),
    });
    if let Some(secrets) = secrets {
        spec["imagePullSecrets"] = secrets.into();
    }
    Ok(spec)
}

/// All settings of a gateway's pod, by name.
fn set(
    settings: &InjectionSettings,
    annotations: &BTreeMap<String, String>,
    resources: &BTreeMap<&'static str, String>,
) -> Result<BTreeMap<&'static str, String>, Refused> {
    let mut reasons = Vec::new();
    let own = annotations.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let mut set = annotations::read(own, "spec.infrastructure", &mut reasons);
    for name in OF_SIDECARS.iter().filter(|name| set.contains_key(**name)) {
        let key = format!("{}{name}", annotations::PREFIX);
        reasons.push(format!("spec.infrastructure: annotation {key} has no effect at a gateway; remove it"));
    }
    set.extend(resources.iter().map(|(name, value)| (*name, value.clone())));
    reasons.extend(patch::amounts_that_contradict(&set));
    if !reasons.is_empty() {
        return Err(Refused { reasons });
    }
    for (name, value) in REQUESTS {
        let limit = set.get(name.replace("request", "limit").as_str()).cloned();
        let value = limit.filter(|limit| is_less(limit, value)).unwrap_or_else(|| value.to_owned());
        set.entry(name).or_insert(value);
    }
    let defaults = settings.defaults.iter().filter(|(name, _)| !OF_SIDECARS.contains(name));
    for (name, value) in defaults {
        set.entry(name).or_insert_with(|| value.clone());
    }
    for (name, value) in DRAIN {
        set.entry(name).or_insert_with(|| value.to_owned());
    }
    Ok(set)
}

#[cfg(test)]
mod tests;
