//! `mirror` and `mirrors`: who gets a copy of requests. Sidecars send none yet, so each is checked, reported and left out.

use serde::Deserialize;

use super::{
    TargetWords,
    fault::{PercentWords, read_percent},
    read_target,
};
use crate::resources::{
    document::{Reading, wrong},
    typed::FieldError,
};

/// The words of a route about mirrors.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) mirror: Option<TargetWords>,
    pub(super) mirrors: Vec<MirrorWords>,
    pub(super) percentage: Option<PercentWords>,
    pub(super) percent: Option<u32>,
}

/// One entry of `mirrors`.
#[derive(Debug, Deserialize)]
pub(super) struct MirrorWords {
    destination: TargetWords,
    percentage: Option<PercentWords>,
}

/// Checks the mirrors of the route at `field`, and reports each.
pub(super) fn check(words: Words, field: &str, reading: &mut Reading<'_>) -> Result<(), FieldError> {
    let mut report = |field| reading.not_acted_on(field, "is not acted on: no copy is sent");
    read_percent(words.percentage, words.percent, field, "mirrorPercentage", "mirrorPercent")?;
    if let Some(target) = words.mirror {
        let field = format!("{field}.mirror");
        if !words.mirrors.is_empty() {
            return Err(wrong(field, "stands beside mirrors; move it there, or remove one of them"));
        }
        read_target(target, 0, &field)?;
        report(field);
    }
    for (index, words) in words.mirrors.into_iter().enumerate() {
        let field = format!("{field}.mirrors[{index}]");
        read_percent(words.percentage, None, &field, "percentage", "percentage")?;
        read_target(words.destination, index, &format!("{field}.destination"))?;
        report(field);
    }
    Ok(())
}
