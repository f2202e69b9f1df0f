//! `localityLbSetting` of a `DestinationRule`, and the traffic distribution of a `Service`: which endpoints come first, by
//! where they are. What is refused is what Istio's validation refuses.

use std::collections::BTreeMap;

use selvedge_model::{
    Locality,
    locality::{
        Distribution, Failover, LocalityPattern, PriorityLabel, REGION_LABEL, SUBZONE_LABEL, ZONE_LABEL,
    },
};
use selvedge_ops::plain::is_hidden;
use serde::Deserialize;

use super::{
    document::{Reading, wrong},
    typed::FieldError,
};

/// Istio's annotation for services whose documents have no `trafficDistribution`.
pub(super) const DISTRIBUTION_ANNOTATION: &str = "networking.istio.io/traffic-distribution";

/// As many labels as Envoy has priorities for, with five places for each.
const MOST_LABELS: usize = 25;

/// How long a place may be written, in bytes: three values of labels.
const LONGEST_LOCALITY: usize = 3 * 63 + 2;

/// `localityLbSetting`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalitySetting {
    /// `enabled: false`: all endpoints are alike.
    Off,
    /// `distribute`.
    Distribute(Vec<Distribution>),
    /// `failover` and `failoverPriority`, or neither: the nearest come first. Only with outlier detection.
    Failover(Failover),
}

/// `trafficDistribution` of a `Service`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrafficDistribution {
    /// `PreferSameZone`, and its older name `PreferClose`.
    SameZone,
    /// `PreferSameNode`.
    SameNode,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LocalityYaml {
    enabled: Option<bool>,
    distribute: Vec<DistributeYaml>,
    failover: Vec<FailoverYaml>,
    failover_priority: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DistributeYaml {
    from: String,
    to: BTreeMap<String, u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FailoverYaml {
    from: String,
    to: String,
}

impl LocalityYaml {
    /// The setting at `field`.
    pub(super) fn read(self, field: &str, reading: &mut Reading<'_>) -> Result<LocalitySetting, FieldError> {
        if !self.distribute.is_empty() && !self.failover.is_empty() {
            let message = "has both distribute and failover, which exclude each other; remove one of them";
            return Err(wrong(field, message));
        }
        let labels = self.labels(field)?;
        let regions = self.regions(field)?;
        let distributions = self.distributions(field)?;
        if self.enabled == Some(false) {
            for (name, is_given) in [
                ("distribute", !self.distribute.is_empty()),
                ("failover", !self.failover.is_empty()),
                ("failoverPriority", !self.failover_priority.is_empty()),
            ] {
                if is_given {
                    let message = "has no effect beside enabled: false; remove one of them";
                    reading.warning(format!("{field}.{name}"), message);
                }
            }
            return Ok(LocalitySetting::Off);
        }
        if distributions.is_empty() {
            let by_place = labels.is_empty() || !regions.is_empty();
            return Ok(LocalitySetting::Failover(Failover { labels, by_place, regions }));
        }
        if !labels.is_empty() {
            let message = "has no effect beside distribute; remove one of them";
            reading.warning(format!("{field}.failoverPriority"), message);
        }
        Ok(LocalitySetting::Distribute(distributions))
    }

    fn labels(&self, field: &str) -> Result<Vec<PriorityLabel>, FieldError> {
        let labels = &self.failover_priority;
        if labels.len() > MOST_LABELS {
            let message = format!("names {} labels; name at most {MOST_LABELS}", labels.len());
            return Err(wrong(format!("{field}.failoverPriority"), message));
        }
        let mut read = Vec::new();
        for (index, text) in labels.iter().enumerate() {
            let field = format!("{field}.failoverPriority[{index}]");
            let label = PriorityLabel::of(text);
            if label.name.is_empty() || label.value.as_ref().is_some_and(|value| value.contains('=')) {
                return Err(wrong(field, format!("{text:?} is not a label; write NAME or NAME=VALUE")));
            }
            let is_of_place = [REGION_LABEL, ZONE_LABEL, SUBZONE_LABEL].contains(&text.as_str());
            if is_of_place && !self.failover.is_empty() {
                let message = format!("{text} and failover exclude each other; remove one of them");
                return Err(wrong(field, message));
            }
            read.push(label);
        }
        Ok(read)
    }

    fn regions(&self, field: &str) -> Result<Vec<(String, String)>, FieldError> {
        for (index, FailoverYaml { from, to }) in self.failover.iter().enumerate() {
            let field = format!("{field}.failover[{index}]");
            for (name, region) in [("from", from), ("to", to)] {
                if region.is_empty() || region.contains(['/', '*']) {
                    let message = format!("{region:?} is not a region; write its name alone");
                    return Err(wrong(format!("{field}.{name}"), message));
                }
            }
            if from == to {
                return Err(wrong(field, format!("leads from {from} to itself; name two regions")));
            }
        }
        Ok(self.failover.iter().map(|one| (one.from.clone(), one.to.clone())).collect())
    }

    fn distributions(&self, field: &str) -> Result<Vec<Distribution>, FieldError> {
        let mut read: Vec<Distribution> = Vec::new();
        for (index, DistributeYaml { from, to }) in self.distribute.iter().enumerate() {
            let field = format!("{field}.distribute[{index}]");
            let pattern = pattern(from, &format!("{field}.from"))?;
            if let Some(earlier) = read.iter().find(|earlier| hides(&earlier.from, &pattern)) {
                let message =
                    format!("{pattern} is in {}, which comes before it; remove one of them", earlier.from);
                return Err(wrong(format!("{field}.from"), message));
            }
            read.push(Distribution { from: pattern, to: shares(to, &format!("{field}.to"))? });
        }
        Ok(read)
    }
}

/// The shares at `field`.
fn shares(to: &BTreeMap<String, u32>, field: &str) -> Result<Vec<(LocalityPattern, u32)>, FieldError> {
    let mut read: Vec<(LocalityPattern, u32)> = Vec::new();
    for (text, percent) in to {
        let field = format!("{field}.{text}");
        let pattern = pattern(text, &field)?;
        if !(1..=100).contains(percent) {
            return Err(wrong(
                field,
                format!("{percent} is not a share; use 1 to 100, and leave out places with 0"),
            ));
        }
        if let Some((other, _)) = read.iter().find(|(other, _)| overlap(other, &pattern)) {
            return Err(wrong(field, format!("overlaps with {other}; name each place once")));
        }
        read.push((pattern, *percent));
    }
    let sum: u32 = read.iter().map(|(_, percent)| percent).sum();
    if sum != 100 {
        return Err(wrong(field, format!("has shares that sum to {sum}; let them sum to 100")));
    }
    Ok(read)
}

/// The pattern that `text` is.
fn pattern(text: &str, field: &str) -> Result<LocalityPattern, FieldError> {
    let parts: Vec<&str> = text.split('/').collect();
    let wildcards = text.matches('*').count();
    let ends_well = wildcards == 0 || wildcards == 1 && parts.last() == Some(&"*");
    if parts.len() > 3 || parts.contains(&"") || !ends_well {
        let message = format!(
            "{text:?} is not a place; write REGION, REGION/ZONE or REGION/ZONE/SUBZONE, where the last may be *"
        );
        return Err(wrong(field, message));
    }
    Ok(LocalityPattern(Locality::of(text)))
}

fn is_any(part: &str) -> bool {
    part.is_empty() || part == "*"
}

fn parts(pattern: &LocalityPattern) -> [&str; 3] {
    let Locality { region, zone, subzone } = &pattern.0;
    [region, zone, subzone]
}

/// Whether some place is in both.
fn overlap(one: &LocalityPattern, other: &LocalityPattern) -> bool {
    parts(one).into_iter().zip(parts(other)).all(|(one, other)| is_any(one) || is_any(other) || one == other)
}

/// Whether a `later` pattern never counts because of an `earlier` one; as in Istio also if it is a region of which a part
/// came before.
fn hides(earlier: &LocalityPattern, later: &LocalityPattern) -> bool {
    let covers = parts(earlier)
        .into_iter()
        .zip(parts(later))
        .all(|(earlier, later)| is_any(earlier) || earlier == later);
    covers || (later.0.zone.is_empty() && later.0.region == earlier.0.region)
}

/// The traffic distribution that `field` of a `Service` or [the annotation](DISTRIBUTION_ANNOTATION) of it or a
/// `ServiceEntry` says.
pub(super) fn traffic_distribution(
    field: Option<&str>,
    reading: &mut Reading<'_>,
) -> Result<Option<TrafficDistribution>, FieldError> {
    let known = |word: &str| match word.to_ascii_lowercase().as_str() {
        "preferclose" | "prefersamezone" => Some(TrafficDistribution::SameZone),
        "prefersamenode" => Some(TrafficDistribution::SameNode),
        _ => None,
    };
    let remedy = "write PreferSameZone or PreferSameNode";
    if let Some(word) = field.filter(|word| !word.is_empty()) {
        return match word {
            // Words of a newer Kubernetes are to do no harm.
            "PreferClose" | "PreferSameZone" | "PreferSameNode" => Ok(known(word)),
            _ => {
                let message = format!("{word:?} is not acted on: all endpoints are alike; {remedy}");
                reading.not_acted_on("spec.trafficDistribution", message);
                Ok(None)
            }
        };
    }
    let annotation = format!("metadata.annotations[{DISTRIBUTION_ANNOTATION}]");
    match reading.metadata.annotations.get(DISTRIBUTION_ANNOTATION).cloned() {
        None => Ok(None),
        Some(word) if word.is_empty() || word.eq_ignore_ascii_case("any") => Ok(None),
        Some(word) => match known(&word) {
            Some(known) => Ok(Some(known)),
            None => {
                reading.not_acted_on(annotation, format!("{word:?} is not acted on; {remedy}"));
                Ok(None)
            }
        },
    }
}

/// The place that `locality` at `field` of a workload says.
pub(super) fn locality(text: Option<&str>, field: &str, reading: &mut Reading<'_>) -> Locality {
    let text = text.unwrap_or_default();
    let parts: Vec<&str> = text.split('/').collect();
    if !text.is_empty() && (parts.len() > 3 || parts.contains(&"") || text.contains('*')) {
        let message = format!("{text:?} is not REGION/ZONE/SUBZONE, or the beginning of that; correct it");
        reading.warning(field, message);
    }
    // It is sent to all who call what is there, and shown.
    if text.len() > LONGEST_LOCALITY || text.chars().any(is_hidden) {
        reading.warning(
            field,
            format!(
                "does not count: it has more than {LONGEST_LOCALITY} bytes, or characters that nobody sees"
            ),
        );
        return Locality::of("");
    }
    Locality::of(text)
}
