//! What groups of endpoints have in common, in words.

use std::fmt;

use super::{
    Failover, LocalityOrder, LocalityPolicy,
    arrange::{Arrangement, By, LeftOut, PLACES},
};

impl LocalityPolicy {
    /// What the group at `index` of `arrangement`, which was made by this, has in common.
    pub fn words(&self, arrangement: &Arrangement, index: usize) -> String {
        let Some(group) = arrangement.groups.get(index) else { return String::new() };
        match (arrangement.by, &self.order) {
            (By::Hints, _) if group.key == 0 => {
                "meant for this client by the hints of EndpointSlices".to_owned()
            }
            (By::Hints, _) => "meant for others by the hints of EndpointSlices".to_owned(),
            (By::Priority, LocalityOrder::Failover(failover)) => failover.words(group.key),
            (By::Weight, LocalityOrder::Distribute(_)) => format!("{} % of requests", group.weight),
            _ => "all alike".to_owned(),
        }
    }
}

impl Failover {
    fn words(&self, key: u32) -> String {
        let place = match key % PLACES {
            0 => "the same region, zone and subzone",
            1 => "the same region and zone",
            2 => "the same region",
            3 => "another region",
            _ => "a region that failover does not lead to",
        };
        let place = if self.by_place { place } else { "" };
        let differing = usize::try_from(key / PLACES).unwrap_or(usize::MAX);
        let agreed = self.labels.len().saturating_sub(differing);
        let labels: Vec<String> = self.labels[..agreed].iter().map(ToString::to_string).collect();
        let labels = match (self.labels.is_empty(), agreed) {
            (true, _) => String::new(),
            (_, 0) => format!("another {}", self.labels[0]),
            _ => format!("the same {}", labels.join(", ")),
        };
        match (labels.is_empty(), place.is_empty()) {
            (false, false) => format!("{labels}; {place}"),
            _ => format!("{labels}{place}"),
        }
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local =
            "internalTrafficPolicy: Local of its Service leaves only endpoints on this workload's node";
        match self {
            Self::OtherNode => f.write_str(local),
            Self::UnknownNode => write!(f, "{local}, and that node is not known"),
            Self::NoShare(from) => {
                write!(
                    f,
                    "distribute of localityLbSetting sends requests from {from} only to places that it names"
                )
            }
        }
    }
}
