//! A container's environment and command line: values from elsewhere, and `$(NAME)` in them.

use std::collections::BTreeMap;

use selvedge_tests::kubernetes::Api;
use serde_json::Value;

use super::{NODE, items, pod::Facts, text};

/// The environment of a container, in the order of its pod object.
pub(super) async fn environment(
    api: &Api,
    pod: &Value,
    facts: &Facts,
    container: &Value,
    image: &[(String, String)],
) -> Vec<(String, String)> {
    let mut all = vec![
        ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("HOSTNAME".to_owned(), text(&pod["metadata"]["name"]).to_owned()),
        ("KUBERNETES_SERVICE_HOST".to_owned(), "10.96.0.1".to_owned()),
        ("KUBERNETES_SERVICE_PORT".to_owned(), "443".to_owned()),
        // Entropy of the processor's jitter costs 50 ms of each start, and tests start much.
        ("AWS_LC_SYS_NO_JITTER_ENTROPY".to_owned(), "1".to_owned()),
    ];
    all.extend(image.iter().cloned());
    for variable in items(&container["env"]) {
        let name = text(&variable["name"]);
        let value = match &variable["valueFrom"] {
            Value::Null => Some(expanded(text(&variable["value"]), &all)),
            from => from_elsewhere(api, pod, facts, container, from).await,
        };
        if let Some(value) = value {
            all.retain(|(known, _)| known != name);
            all.push((name.to_owned(), value));
        }
    }
    all
}

async fn from_elsewhere(
    api: &Api,
    pod: &Value,
    facts: &Facts,
    container: &Value,
    from: &Value,
) -> Option<String> {
    if let Some(path) = from["fieldRef"]["fieldPath"].as_str() {
        return Some(field(pod, facts, path));
    }
    if let Some(resource) = from["resourceFieldRef"]["resource"].as_str() {
        return Some(quantity(container, resource, text(&from["resourceFieldRef"]["divisor"])));
    }
    let namespace = text(&pod["metadata"]["namespace"]);
    for (source, plural) in [("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")] {
        let reference = &from[source];
        let Some(name) = reference["name"].as_str() else { continue };
        let object = api.get(&format!("/api/v1/namespaces/{namespace}/{plural}/{name}")).await;
        let value = object
            .ok()
            .and_then(|object| object["data"][text(&reference["key"])].as_str().map(str::to_owned));
        assert!(value.is_some() || reference["optional"] == true, "no {reference} in {namespace}");
        return value;
    }
    panic!("a variable from {from}, which this kubelet does not know");
}

/// What the downward API says at a path, such as `metadata.labels['app']`.
pub(super) fn field(pod: &Value, facts: &Facts, path: &str) -> String {
    let metadata = &pod["metadata"];
    let keyed = |map: &str| {
        let key = path.strip_prefix(map)?.strip_prefix("['")?.strip_suffix("']")?;
        Some(text(&metadata[map.trim_start_matches("metadata.")][key]).to_owned())
    };
    if let Some(value) = keyed("metadata.labels").or_else(|| keyed("metadata.annotations")) {
        return value;
    }
    match path {
        "metadata.name" | "metadata.namespace" | "metadata.uid" => {
            text(&metadata[path.trim_start_matches("metadata.")]).to_owned()
        }
        "metadata.labels" => lines(&metadata["labels"]),
        "metadata.annotations" => lines(&metadata["annotations"]),
        "spec.nodeName" => NODE.to_owned(),
        "spec.serviceAccountName" => text(&pod["spec"]["serviceAccountName"]).to_owned(),
        "status.podIP" | "status.podIPs" => facts.address.to_string(),
        "status.hostIP" => facts.host.to_string(),
        other => panic!("the field {other}, which this kubelet does not know"),
    }
}

/// A map in the form of the downward API's files.
fn lines(map: &Value) -> String {
    let sorted: BTreeMap<&String, &Value> = map.as_object().into_iter().flatten().collect();
    sorted.iter().map(|(key, value)| format!("{key}={value}\n")).collect::<String>().trim_end().to_owned()
}

/// A limit or request, in units of the divisor; unset limits are those of the machine.
fn quantity(container: &Value, resource: &str, divisor: &str) -> String {
    let (kind, name) = resource.split_once('.').expect("such as limits.cpu");
    let text = container["resources"][kind][name].as_str();
    let fallback = if name == "cpu" { 2.0 } else { f64::from(1 << 30) };
    let value = text.map_or(fallback, number);
    let unit = if divisor.is_empty() || divisor == "0" { 1.0 } else { number(divisor) };
    format!("{:.0}", (value / unit).ceil())
}

fn number(quantity: &str) -> f64 {
    let digits = quantity.trim_end_matches(|c: char| c.is_alphabetic());
    let scale = match &quantity[digits.len()..] {
        "m" => 0.001,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        _ => 1.0,
    };
    digits.parse::<f64>().expect("a quantity") * scale
}

/// A text with each `$(NAME)` replaced that is known; `$$(NAME)` stays `$(NAME)`.
pub(super) fn expanded(text: &str, known: &[(String, String)]) -> String {
    let mut rest = text;
    let mut all = String::new();
    while let Some(start) = rest.find('$') {
        all.push_str(&rest[..start]);
        let after = &rest[start + 1..];
        let name = after.strip_prefix('(').and_then(|name| name.split_once(')'));
        let value = name.and_then(|(name, _)| known.iter().rev().find(|(known, _)| known == name));
        match (after.starts_with('$'), name, value) {
            (true, ..) => {
                all.push('$');
                rest = &after[1..];
                // What follows an escaped one is text.
                if let Some(end) = rest.strip_prefix('(').and_then(|tail| tail.find(')')) {
                    all.push_str(&rest[..end + 2]);
                    rest = &rest[end + 2..];
                }
            }
            (false, Some((_, tail)), Some((_, value))) => {
                all.push_str(value);
                rest = tail;
            }
            _ => {
                all.push('$');
                rest = after;
            }
        }
    }
    all.push_str(rest);
    all
}

#[test]
fn references_are_replaced_where_they_are_known() {
    let known = [("A".to_owned(), "1".to_owned())];

    assert_eq!(expanded("x$(A)y$(B)$$(A)$", &known), "x1y$(B)$(A)$");
}
