//! The workloads that a policy of Istio's is for, by their labels.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    document::{Reading, wrong},
    typed::FieldError,
};

/// `spec.selector`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SelectorYaml {
    match_labels: BTreeMap<String, String>,
}

impl SelectorYaml {
    /// The labels that a workload must have.
    ///
    /// # Errors
    /// If it says more than labels: read over, that would select more workloads than meant.
    pub(super) fn read(self, reading: &mut Reading<'_>) -> Result<BTreeMap<String, String>, FieldError> {
        match reading.take_unknown_below("spec.selector").first() {
            Some(unknown) => {
                Err(wrong(unknown.field.clone(), "is not understood; select workloads by matchLabels"))
            }
            None => Ok(self.match_labels),
        }
    }
}
