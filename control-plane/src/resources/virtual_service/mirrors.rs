//! `mirror` and `mirrors`: who gets a copy of requests. Sidecars send none yet, so each is checked, reported and left out.

use serde::Deserialize;

use super::{
    TargetYaml,
    fault::{PercentYaml, read_percent},
    read_target,
};
use crate::resources::{
    document::{Reading, wrong},
    typed::FieldError,
};

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

/// Checks the mirrors of the route at `field`, and reports each.
pub(super) fn check(yaml: Yaml, field: &str, reading: &mut Reading<'_>) -> Result<(), FieldError> {
    let mut report = |field| reading.not_acted_on(field, "is not acted on: no copy is sent");
    read_percent(yaml.percentage, yaml.percent, field, "mirrorPercentage", "mirrorPercent")?;
    if let Some(target) = yaml.mirror {
        let field = format!("{field}.mirror");
        if !yaml.mirrors.is_empty() {
            return Err(wrong(field, "stands beside mirrors; move it there, or remove one of them"));
        }
        read_target(target, 0, &field)?;
        report(field);
    }
    for (index, yaml) in yaml.mirrors.into_iter().enumerate() {
        let field = format!("{field}.mirrors[{index}]");
        read_percent(yaml.percentage, None, &field, "percentage", "percentage")?;
        read_target(yaml.destination, index, &format!("{field}.destination"))?;
        report(field);
    }
    Ok(())
}
