//! What all documents that are for a workload change of Istio's metrics.
//!
//! Istio's rules: the overrides of the mesh, of the namespace and of the workload's own document are applied one after the
//! other, each on top of those before. Providers are those that the last one names; what is said for others only does not
//! count. Once all metrics are disabled, any later override turns them on again.

use selvedge_model::telemetry::{MetricChange, MetricChanges, StandardMetric};

use crate::resources::{MetricRule, Ways};

/// What `rules` change of one direction, the widest first.
pub(super) fn changes<'r, I: DoubleEndedIterator<Item = &'r MetricRule>>(
    rules: impl Fn() -> I,
    is_for: &impl Fn(Ways) -> bool,
) -> MetricChanges {
    let mut changes = MetricChanges::new();
    let is_told = rules().rev().find_map(|rule| rule.is_of_prometheus).unwrap_or(true);
    let mut all_off = !is_told;
    let mut counts = true;
    for rule in rules() {
        counts = rule.is_of_prometheus.unwrap_or(counts);
        if !counts || !is_told {
            continue;
        }
        for change in rule.overrides.iter().filter(|change| is_for(change.ways)) {
            let is_of_all = change.metrics.len() == StandardMetric::ALL.len();
            all_off = is_of_all && change.disabled == Some(true);
            if all_off {
                continue;
            }
            for metric in &change.metrics {
                let changed = changes.entry(*metric).or_default();
                changed.disabled = change.disabled.unwrap_or(changed.disabled);
                changed
                    .labels
                    .extend(change.labels.iter().map(|(name, label)| (name.clone(), label.clone())));
            }
        }
    }
    if all_off {
        let off = || MetricChange { disabled: true, ..MetricChange::default() };
        return StandardMetric::ALL.into_iter().map(|metric| (metric, off())).collect();
    }
    for changed in changes.values_mut().filter(|changed| changed.disabled) {
        changed.labels.clear();
    }
    changes.retain(|_, changed| *changed != MetricChange::default());
    changes
}
