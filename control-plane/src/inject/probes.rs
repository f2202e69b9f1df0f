//! What others ask of the app, through the sidecar: the kubelet's probes and hooks, and Prometheus.
//!
//! These requests come in plaintext and without an identity, and a `STRICT` policy refuses them. So each is directed to
//! the proxy's admin port, which is never redirected. The proxy gets the original (`SELVEDGE_APP_PROBES`,
//! `SELVEDGE_APP_METRICS`) and asks the app itself. The originals are kept unchanged there, so that
//! [`revert`](super::revert) can restore them.

use serde_json::{Map, Value, json};

use super::{
    ADMIN_PORT,
    patch::{Operation, Pointer},
};

/// The probes of a container, and what the proxy calls each.
pub(super) const PROBES: [(&str, &str); 3] =
    [("livenessProbe", "livez"), ("readinessProbe", "readyz"), ("startupProbe", "startupz")];
/// The hooks of a container, and what the proxy calls each.
pub(super) const HOOKS: [(&str, &str); 2] = [("postStart", "poststartz"), ("preStop", "prestopz")];
/// What a probe or hook may do over the network.
const HANDLERS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];

/// Whether Prometheus is to scrape a pod.
const SCRAPE: &str = "prometheus.io/scrape";
/// Where, each with what it is called in what the proxy is handed.
pub(super) const SCRAPED: [(&str, &str); 3] =
    [("prometheus.io/port", "port"), ("prometheus.io/path", "path"), ("prometheus.io/scheme", "scheme")];
/// Where the proxy passes on the app's metrics.
const METRICS_PATH: &str = "/metrics/app";

/// What became of a pod's probes.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    /// The originals, by the path at which the proxy answers for each.
    pub(super) originals: Map<String, Value>,
    /// What changes in the pod.
    pub(super) operations: Vec<Operation>,
    /// What stays as it is although that may not work.
    pub(super) warnings: Vec<String>,
}

/// Where the proxy answers for a probe of a container.
pub(super) fn probe_path(container: &str, name: &str) -> String {
    format!("/app-health/{container}/{name}")
}

/// Where the proxy answers for a hook of a container.
pub(super) fn hook_path(container: &str, name: &str) -> String {
    format!("/app-lifecycle/{container}/{name}")
}

/// Points the probes and hooks of all containers at the proxy.
pub(super) fn rewrite(spec: &Value) -> Rewritten {
    let mut rewritten = Rewritten::default();
    for list in ["initContainers", "containers"] {
        for (index, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            let Some(name) = container["name"].as_str() else { continue };
            let at = Pointer::new(&["spec", list]).item(index);
            for (probe, short) in PROBES {
                rewritten.one(container, &container[probe], &at.field(probe), &probe_path(name, short));
            }
            for (hook, short) in HOOKS {
                let at = at.field("lifecycle").field(hook);
                rewritten.one(container, &container["lifecycle"][hook], &at, &hook_path(name, short));
            }
        }
    }
    rewritten
}

impl Rewritten {
    fn one(&mut self, container: &Value, probe: &Value, at: &Pointer, path: &str) {
        let Some(probe) = probe.as_object() else { return };
        let handler = HANDLERS.into_iter().find(|handler| probe.get(*handler).is_some_and(Value::is_object));
        let Some(handler) = handler else { return };
        let original = &probe[handler];
        // Somebody else's host is asked by the kubelet itself, and not through this pod.
        if original["host"].as_str().is_some_and(|host| !host.is_empty()) {
            return;
        }
        let Some(number) = port(container, &original["port"]) else {
            let warning = format!(
                "{at}: port {} is not a port of its container; the probe is left unchanged",
                original["port"]
            );
            self.warnings.push(warning);
            return;
        };
        let mut entry = Map::from_iter([(handler.to_owned(), original.clone())]);
        if !original["port"].is_number() {
            entry.insert("portNumber".to_owned(), number.into());
        }
        if let Some(timeout) = probe.get("timeoutSeconds").filter(|timeout| timeout.is_number()) {
            entry.insert("timeoutSeconds".to_owned(), timeout.clone());
        }
        self.originals.insert(path.to_owned(), entry.into());
        let asked = json!({ "path": path, "port": ADMIN_PORT });
        self.operations.push(Operation::replace(at.clone(), with_handler(probe, handler, "httpGet", asked)));
    }
}

/// `probe` with another handler in the place of the old.
pub(super) fn with_handler(probe: &Map<String, Value>, old: &str, new: &str, handler: Value) -> Value {
    let mut handler = Some(handler);
    let field = |(key, value): (&String, &Value)| match key == old {
        true => (new.to_owned(), handler.take().unwrap_or_default()),
        false => (key.clone(), value.clone()),
    };
    probe.iter().map(field).collect()
}

/// The number of a port that is given by number or by the name that its container has for it.
fn port(container: &Value, port: &Value) -> Option<u16> {
    let number = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
    if let Some(number) = number(port) {
        return Some(number);
    }
    let name = port.as_str()?;
    let mut ports = container["ports"].as_array().into_iter().flatten();
    let named = ports.find(|port| port["name"] == name).and_then(|port| number(&port["containerPort"]));
    named.or_else(|| name.parse().ok())
}

/// What Prometheus' annotations become, and what the proxy is handed of the originals.
#[derive(Debug)]
pub(super) struct Scraped {
    pub(super) annotations: Vec<(String, String)>,
    pub(super) original: Value,
}

/// Points Prometheus at the proxy, if the pod's annotations ask it to scrape.
///
/// # Errors
/// A warning, if they do not say enough to find the app's metrics; then they stay as they are.
pub(super) fn scraped(pod: &Value) -> Result<Option<Scraped>, String> {
    let annotations = &pod["metadata"]["annotations"];
    if annotations[SCRAPE] != "true" {
        return Ok(None);
    }
    let mut original = Map::new();
    for (annotation, name) in SCRAPED {
        if let Some(value) = annotations.get(annotation) {
            original.insert(name.to_owned(), value.clone());
        }
    }
    let Some(number) = metrics_port(pod, annotations) else {
        return Err("prometheus.io/port: is missing or not a port; without it Prometheus scrapes the app \
                    directly and not through the sidecar, and STRICT refuses that"
            .to_owned());
    };
    if original.get("port").is_none() {
        original.insert("portNumber".to_owned(), number.into());
    }
    let values = [ADMIN_PORT.to_string(), METRICS_PATH.to_owned(), "http".to_owned()];
    let annotations = SCRAPED.into_iter().zip(values);
    let annotations = annotations
        // HTTP is what Prometheus asks for by itself.
        .filter(|((_, name), _)| *name != "scheme" || original.contains_key("scheme"))
        .map(|((annotation, _), value)| (annotation.to_owned(), value))
        .collect();
    Ok(Some(Scraped { annotations, original: original.into() }))
}

/// The port that Prometheus would ask: the one that is annotated, or the only one that there is.
fn metrics_port(pod: &Value, annotations: &Value) -> Option<u16> {
    if let Some(annotated) = annotations.get(SCRAPED[0].0) {
        return annotated.as_str()?.parse().ok().filter(|port| *port != 0);
    }
    let containers = pod["spec"]["containers"].as_array()?;
    let mut ports = containers.iter().filter_map(|one| one["ports"].as_array()).flatten();
    let only = ports.next()?["containerPort"].as_u64()?;
    ports.next().is_none().then(|| u16::try_from(only).ok()).flatten()
}
