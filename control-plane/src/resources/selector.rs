//! The workloads that a policy of Istio's is for, or whose sidecars follow a rule, by their labels.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    document::{Reading, wrong},
    typed::FieldError,
};

/// `spec.selector` of a policy, `spec.workloadSelector` of a rule.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SelectorYaml {
    match_labels: BTreeMap<String, String>,
}

impl SelectorYaml {
    /// The labels that a workload must have.
    ///
    /// # Errors
    /// If it says more than labels: read over, that would select more workloads than meant. And, as in Istio, if a label is
    /// none that a workload could have: it would select nobody.
    pub(super) fn read(self, reading: &mut Reading<'_>) -> Result<BTreeMap<String, String>, FieldError> {
        self.read_at("spec.selector", reading)
    }

    /// The same of one at `field`.
    pub(super) fn read_at(
        self,
        field: &str,
        reading: &mut Reading<'_>,
    ) -> Result<BTreeMap<String, String>, FieldError> {
        match reading.take_unknown_below(field).first() {
            Some(unknown) => {
                Err(wrong(unknown.field.clone(), "is not understood; select workloads by matchLabels"))
            }
            None => self.labels(&format!("{field}.matchLabels")),
        }
    }

    fn labels(self, field: &str) -> Result<BTreeMap<String, String>, FieldError> {
        if self.match_labels.contains_key("") {
            return Err(wrong(
                field,
                "has a label without a name, which no workload has; name it, or remove it",
            ));
        }
        let has_star = |(key, value): &(&String, &String)| key.contains('*') || value.contains('*');
        if let Some((key, value)) = self.match_labels.iter().find(has_star) {
            let message = format!(
                "{key}: {value:?} selects nobody, because labels are compared letter by letter; leave the label out to select \
                 workloads whatever it is"
            );
            return Err(wrong(field, message));
        }
        Ok(self.match_labels)
    }
}
