//! `mirror` and `mirrors`: who gets a copy of requests.

use selvedge_model::filter::Fraction;
use serde::Deserialize;

use super::{
    Destination, TargetYaml,
    fault::{PercentYaml, read_percent},
    read_target,
};
use crate::resources::{document::wrong, typed::FieldError};

/// Who gets copies of a route's requests. Each field for itself, because a document that others delegate to takes over
/// each for itself (Istio `mergeHTTPRoute`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mirrors {
    /// `mirror`.
    pub single: Option<Destination>,
    /// `mirrorPercentage`: of how many requests `mirror` gets a copy.
    pub percentage: Option<Fraction>,
    /// `mirrorPercent`, which counts where there is no `mirrorPercentage`.
    pub percent: Option<Fraction>,
    /// `mirrors`.
    pub list: Vec<Mirror>,
}

/// One entry of `mirrors`.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    /// Where copies go.
    pub to: Destination,
    /// Of how many requests.
    pub fraction: Fraction,
}

/// The fields of a route about mirrors.
#[derive(Debug)]
pub(super) struct Yaml {
    pub(super) mirror: Option<TargetYaml>,
    pub(super) mirrors: Vec<MirrorYaml>,
    pub(super) percentage: Option<PercentYaml>,
    pub(super) percent: Option<u32>,
}

/// One entry of `mirrors`.
#[derive(Debug, Deserialize)]
pub(super) struct MirrorYaml {
    destination: TargetYaml,
    percentage: Option<PercentYaml>,
}

/// The mirrors of the route at `field`.
pub(super) fn read(yaml: Yaml, field: &str) -> Result<Mirrors, FieldError> {
    let percentage = read_percent(yaml.percentage, None, field, "mirrorPercentage", "mirrorPercent")?;
    let percent = read_percent(None, yaml.percent, field, "mirrorPercentage", "mirrorPercent")?;
    let own = format!("{field}.mirror");
    if yaml.mirror.is_some() && !yaml.mirrors.is_empty() {
        return Err(wrong(own, "stands beside mirrors; move it there, or remove one of them"));
    }
    let single = yaml.mirror.map(|target| read_target(target, 0, &own)).transpose()?;
    let mut list = Vec::new();
    for (index, yaml) in yaml.mirrors.into_iter().enumerate() {
        let field = format!("{field}.mirrors[{index}]");
        let fraction = read_percent(yaml.percentage, None, &field, "percentage", "percentage")?;
        let to = read_target(yaml.destination, index, &format!("{field}.destination"))?;
        list.push(Mirror { to, fraction: fraction.unwrap_or(Fraction::ALL) });
    }
    Ok(Mirrors { single, percentage, percent, list })
}
