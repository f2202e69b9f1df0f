//! Events about pods, for `kubectl describe`. They are about pods that exist in the cluster, not about requests to the
//! webhook: anybody who reaches the webhook can send any request, and another webhook may refuse what it allows.
//!
//! The text is ours. From the pod it repeats only the name of the version, shortened and escaped.

use std::collections::HashSet;

use selvedge_ops::plain_within;
use time::OffsetDateTime;

use super::{INJECTED, Reason, SKIPPED};
use crate::resources::{Document, PodSpec};

/// Of older pods everything has been said.
const NEWS: time::Duration = time::Duration::minutes(5);
/// How much is repeated of a version's name, in bytes.
const MAX_VERSION: usize = 64;

/// One thing that happened to a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The pod's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// One word in camel case.
    pub reason: &'static str,
    /// The whole of it, for people.
    pub message: String,
}

/// What is to be told of `pods`, but for those in `told`, which is brought up to date.
pub fn news<'a>(
    pods: impl Iterator<Item = &'a Document<PodSpec>>,
    told: &mut HashSet<String>,
    now: OffsetDateTime,
) -> Vec<Event> {
    let mut recent = HashSet::new();
    let mut events = Vec::new();
    for pod in pods {
        let Some(uid) = &pod.metadata.uid else { continue };
        if pod.metadata.created.is_none_or(|created| now - created > NEWS) {
            continue;
        }
        let Some((reason, message)) = words(pod) else { continue };
        recent.insert(uid.clone());
        if !told.contains(uid) {
            let (namespace, name) = (pod.name.namespace.to_string(), pod.name.name.to_string());
            events.push(Event { namespace, name, uid: uid.clone(), reason, message });
        }
    }
    *told = recent;
    events
}

fn words(pod: &Document<PodSpec>) -> Option<(&'static str, String)> {
    let annotations = &pod.metadata.annotations;
    if let Some(version) = annotations.get(INJECTED).filter(|_| pod.spec.meshed) {
        let version = plain_within(version, MAX_VERSION);
        return Some(("Injected", format!("sidecar injected ({INJECTED}: {version})")));
    }
    let reason = Reason::of_word(annotations.get(SKIPPED)?)?;
    Some(("InjectionSkipped", reason.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::resources::{
        DecodeOutcome, Resources, decode_value,
        pod::{SIDECAR_INJECTED, SIDECAR_LABEL},
    };

    fn pods(annotations: &Value, created: &str) -> Resources {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "u", "creationTimestamp": created,
                "annotations": annotations, "labels": { SIDECAR_LABEL: SIDECAR_INJECTED },
            },
            "spec": { "containers": [] },
        });
        let DecodeOutcome::Understood(pod) = decode_value(pod, "default").outcome else { panic!() };
        let mut resources = Resources::default();
        resources.push(pod);
        resources
    }

    fn told(annotations: &Value, created: &str) -> Vec<Event> {
        let now = time::macros::datetime!(2026-11-28 12:00 UTC);
        news(pods(annotations, created).pods.iter().map(AsRef::as_ref), &mut HashSet::new(), now)
    }

    const JUST_NOW: &str = "2026-11-28T11:59:50Z";

    #[test]
    fn a_pod_is_told_of_once_and_in_our_words() {
        let resources = pods(&json!({ INJECTED: "0.1.0\nforged\u{202e}" }), JUST_NOW);
        let mut known = HashSet::new();
        let now = time::macros::datetime!(2026-11-28 12:00 UTC);
        let mut news = || news(resources.pods.iter().map(AsRef::as_ref), &mut known, now);

        let first = news();
        assert_eq!(first[0].reason, "Injected");
        assert_eq!(first[0].message, format!("sidecar injected ({INJECTED}: 0.1.0\\nforged\\u{{202e}})"));
        assert_eq!(news(), []);
    }

    #[test]
    fn a_reason_is_one_of_ours_or_nothing_is_told() {
        let skipped = told(&json!({ SKIPPED: "host-network" }), JUST_NOW);
        assert_eq!(skipped[0].reason, "InjectionSkipped");
        assert!(skipped[0].message.contains("hostNetwork"), "{skipped:?}");
        assert_eq!(told(&json!({ SKIPPED: "call 555-0100 at once" }), JUST_NOW), []);
    }

    #[test]
    fn nothing_is_told_of_a_pod_that_has_been_there_for_long() {
        assert_eq!(told(&json!({ INJECTED: "0.1.0" }), "2026-11-28T11:00:00Z"), []);
    }
}
