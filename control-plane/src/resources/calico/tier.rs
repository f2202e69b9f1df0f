//! `Tier`: policies that decide together, before those of the next tier.

use selvedge_model::policy::network::EndOfTier;
use serde::Deserialize;

use super::{KEPT, WRITTEN};
use crate::resources::{
    document::wrong,
    kinds::{Feedback, ResourceKind},
    typed::FieldError,
    unread::{Read, Unread},
};

/// The tier that is always there. Policies that name no tier are in it, and those of Kubernetes.
pub const DEFAULT_TIER: &str = "default";
/// Its place, which Calico lets nobody change.
pub const DEFAULT_TIER_ORDER: f64 = 1_000_000.0;
/// The tiers that Calico makes for Kubernetes' `AdminNetworkPolicy` and `BaselineAdminNetworkPolicy`: nobody may put a
/// policy of Calico's there.
pub(super) const TIERS_OF_KUBERNETES: [&str; 4] =
    ["adminnetworkpolicy", "baselineadminnetworkpolicy", "kube-admin", "kube-baseline"];

const PLURAL: &str = "tiers";

/// Its lines in the [list of kinds](crate::resources::kinds).
pub(in crate::resources) const TIER: ResourceKind = kind(WRITTEN);
/// As clusters keep it.
pub(in crate::resources) const TIER_KEPT: ResourceKind = kind(KEPT).called("Tier.crd.projectcalico.org");

const fn kind(versions: &'static [&'static str]) -> ResourceKind {
    ResourceKind::new("Tier", versions, PLURAL, Feedback::Events)
        .cluster_wide()
        .with_any_annotations()
        .read_as_spec::<Yaml>(read_document)
}

fn read_document(document: &Unread<'_>) -> Read {
    let name = document.name.name.clone();
    document.with_spec_or_default(|yaml, _| read(&yaml, &name))
}

/// What a tier says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TierSpec {
    /// Its place among others: the lowest first, and those without a number last.
    pub order: Option<f64>,
    /// What becomes of what no rule of it decides.
    pub otherwise: EndOfTier,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Yaml {
    order: Option<f64>,
    default_action: Option<String>,
}

fn read(yaml: &Yaml, name: &str) -> Result<TierSpec, FieldError> {
    let otherwise = match yaml.default_action.as_deref() {
        None | Some("" | "Deny") => EndOfTier::Deny,
        Some("Pass") => EndOfTier::Pass,
        Some(other) => {
            let message = format!("{other:?} is not what a tier may do; write Deny or Pass");
            return Err(wrong("spec.defaultAction", message));
        }
    };
    if name == DEFAULT_TIER {
        // Calico keeps the number with six zeros; one that was never written means the same.
        if yaml.order.is_some_and(|order| order.total_cmp(&DEFAULT_TIER_ORDER).is_ne()) {
            let message = format!("must be {DEFAULT_TIER_ORDER} for the tier {DEFAULT_TIER}; remove it");
            return Err(wrong("spec.order", message));
        }
        if otherwise == EndOfTier::Pass {
            let message = format!("must be Deny for the tier {DEFAULT_TIER}; remove it");
            return Err(wrong("spec.defaultAction", message));
        }
    }
    Ok(TierSpec { order: yaml.order, otherwise })
}
