//! `targetRefs` of the Gateway API's policies.

use std::collections::BTreeSet;

use super::{document::wrong, typed::FieldError};

/// So many targets an API server lets a policy have.
const MOST: usize = 16;

/// One of `targetRefs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyTarget {
    /// Its place in the document.
    pub index: usize,
    /// The group of its kind; empty for `Service`.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name. It is in the policy's own namespace.
    pub name: String,
    /// The name of its port; `None` = every port.
    pub section: Option<String>,
}

impl PolicyTarget {
    /// Whether it is a `Service` of Kubernetes.
    pub fn is_service(&self) -> bool {
        matches!(self.group.as_str(), "" | "core") && self.kind == "Service"
    }
}

/// The targets, each of which is given once.
pub(super) fn each_once(
    targets: impl ExactSizeIterator<Item = PolicyTarget>,
) -> Result<Vec<PolicyTarget>, FieldError> {
    let list = "spec.targetRefs";
    if targets.len() > MOST {
        return Err(wrong(list, format!("has more than {MOST} entries; make it two policies")));
    }
    if targets.len() == 0 {
        return Err(wrong(list, "is empty; name a Service"));
    }
    let mut seen = BTreeSet::new();
    let mut once = Vec::new();
    for target in targets {
        let PolicyTarget { index, group, kind, name, section } = &target;
        if !seen.insert((group.clone(), kind.clone(), name.clone(), section.clone())) {
            return Err(wrong(format!("{list}[{index}]"), "is given twice; keep one"));
        }
        once.push(target);
    }
    Ok(once)
}
