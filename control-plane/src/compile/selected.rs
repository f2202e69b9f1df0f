//! What a selector selects without effect.

use selvedge_model::facts::selects;

use super::Problems;
use crate::resources::{Resources, service_entry::EntryEndpoints};

/// Reports each `ServiceEntry` whose selector selects pods: in Istio they would be behind it, here only
/// `WorkloadEntry`s are.
pub(super) fn report_pods(resources: &Resources, problems: &mut Problems) {
    for entry in &resources.service_entries {
        let EntryEndpoints::Selected(selector) = &entry.spec.endpoints else { continue };
        let here = resources.pods.iter().filter(|pod| pod.name.namespace == entry.name.namespace);
        let mut selected =
            here.filter(|pod| !pod.spec.has_ended() && selects(selector, &pod.metadata.labels));
        if let Some(pod) = selected.next() {
            let message = format!(
                "selects {} too, which gets no requests by it: only WorkloadEntries do; write a Service for pods",
                pod.name
            );
            problems.error(entry, "spec.workloadSelector", message);
        }
    }
}
