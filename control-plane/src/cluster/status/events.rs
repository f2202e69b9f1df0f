//! The Events that tell of documents' problems. Pure.

use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use selvedge_kubernetes::Kind;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    problem::{Problem, Severity},
    resources::Object,
    status::{CONTROLLER, said, shortened},
};

/// The name of the Event that tells of `problem`: the same from every replica.
pub(super) fn event_name(object: &Object, problem: &Problem) -> String {
    let words = format!("{}\n{:?}\n{}\n{}", object.uid, problem.severity, problem.field, problem.message);
    let hash = digest(&SHA256, words.as_bytes());
    let hash: String = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    // Names have at most 253 letters.
    let name: String = object.name.name.chars().take(200).collect();
    format!("{name}.{hash}")
}

/// The Event (events.k8s.io/v1) that tells of `problem`.
pub(super) fn event(
    object: &Object,
    problem: &Problem,
    name: &str,
    instance: &str,
    now: SystemTime,
) -> Value {
    let (severity, reason) = match problem.severity {
        Severity::Error => ("Warning", "Invalid"),
        Severity::Warning => ("Warning", "Doubtful"),
        Severity::NotActedOn => ("Normal", "NotActedOn"),
    };
    // Events about what has no namespace are in the default one.
    let namespace = if object.name.namespace.is_empty() { "default" } else { &object.name.namespace };
    let mut regarding = json!({
        "apiVersion": &*object.api_version,
        "kind": object.kind(),
        "name": &*object.name.name,
        "uid": &*object.uid,
    });
    if !object.name.namespace.is_empty() {
        regarding["namespace"] = (*object.name.namespace).into();
    }
    let words = EventWords { severity, reason, action: "Compile", note: said([problem].into_iter()) };
    event_object(namespace, name, &regarding, words, instance, now)
}

/// What an Event says.
pub(in crate::cluster) struct EventWords {
    /// `Normal` or `Warning`.
    pub(in crate::cluster) severity: &'static str,
    /// What happened, in one word.
    pub(in crate::cluster) reason: &'static str,
    /// What we were doing, in one word.
    pub(in crate::cluster) action: &'static str,
    /// The whole of it.
    pub(in crate::cluster) note: String,
}

/// The kind of what [`event_object`] makes.
pub(in crate::cluster) fn event_kind() -> Kind {
    Kind::namespaced("events.k8s.io/v1", "Event", "events")
}

/// An Event (events.k8s.io/v1) of ours about `regarding`.
pub(in crate::cluster) fn event_object(
    namespace: &str,
    name: &str,
    regarding: &Value,
    words: EventWords,
    instance: &str,
    now: SystemTime,
) -> Value {
    let EventWords { severity, reason, action, note } = words;
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": { "name": name, "namespace": namespace },
        "eventTime": micro_time(now),
        "type": severity,
        "reason": reason,
        "action": action,
        "note": shortened(&note),
        "regarding": regarding,
        "reportingController": CONTROLLER,
        "reportingInstance": shorter(instance),
    })
}

/// At most 128 letters, as Events want it.
fn shorter(instance: &str) -> String {
    instance.chars().take(128).collect()
}

/// With exactly six digits behind the dot, as Kubernetes' `MicroTime` has it.
fn micro_time(now: SystemTime) -> String {
    let now = OffsetDateTime::from(now);
    let micros = now.microsecond();
    let whole = now.replace_nanosecond(0).unwrap_or(now);
    let text = whole.format(&Rfc3339).unwrap_or_default();
    text.replace('Z', &format!(".{micros:06}Z"))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::{
        problem::{DocumentName, Fault},
        resources::kinds::Feedback,
    };

    #[test]
    fn an_event_names_its_object_and_has_one_name_everywhere() {
        let object = Object {
            name: DocumentName { kind: "TCPRoute".into(), namespace: "shop".into(), name: "a".into() },
            feedback: Feedback::Events,
            api_version: "gateway.networking.k8s.io/v1alpha2".into(),
            uid: "u-1".into(),
            generation: 7,
            parents: None,
        };
        let problem = Problem {
            severity: Severity::Warning,
            document: None,
            path: None,
            line: None,
            field: "spec.ports".to_owned(),
            message: "is doubtful".to_owned(),
            fault: Fault::Between,
        };
        let name = event_name(&object, &problem);
        let at = UNIX_EPOCH + Duration::from_micros(1_500_000);

        let event = event(&object, &problem, &name, "replica-1", at);

        assert!(name.starts_with("a.") && name.len() == 18, "{name}");
        assert_eq!(event["eventTime"], "1970-01-01T00:00:01.500000Z");
        assert_eq!((&event["type"], &event["reason"]), (&json!("Warning"), &json!("Doubtful")));
        assert_eq!(event["note"], "spec.ports: is doubtful");
        assert_eq!(event["regarding"]["uid"], "u-1");
        assert_eq!(event["metadata"]["namespace"], "shop");
    }
}
