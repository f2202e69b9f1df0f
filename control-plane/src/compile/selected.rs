//! What a selector selects without effect.

use std::collections::HashMap;

use selvedge_model::facts::selects;

use super::{Problems, clients::Labels};
use crate::resources::{Document, PodSpec, Resources, service_entry::EntryEndpoints};

/// Reports each `ServiceEntry` whose selector selects pods: in Istio they would be behind it, here only
/// `WorkloadEntry`s are.
pub(super) fn report_pods(resources: &Resources, problems: &mut Problems) {
    let mut pods: HashMap<&str, Vec<&Document<PodSpec>>> = HashMap::new();
    // Many entries may ask for the same: the first pod is looked for once.
    let mut first: HashMap<(&str, &Labels), Option<&Document<PodSpec>>> = HashMap::new();
    for entry in &resources.service_entries {
        let EntryEndpoints::Selected(selector) = &entry.spec.endpoints else { continue };
        if pods.is_empty() {
            for pod in resources.pods.iter().filter(|pod| !pod.spec.has_ended()) {
                pods.entry(&*pod.name.namespace).or_default().push(pod);
            }
        }
        let namespace = &*entry.name.namespace;
        let here = pods.get(namespace).map(Vec::as_slice).unwrap_or_default();
        let found = first
            .entry((namespace, selector))
            .or_insert_with(|| here.iter().copied().find(|pod| selects(selector, &pod.metadata.labels)));
        if let Some(pod) = found {
            let message = format!(
                "selects {} too, which gets no requests by it: only WorkloadEntries do; write a Service for pods",
                pod.name
            );
            problems.error(entry, "spec.workloadSelector", message);
        }
    }
}
