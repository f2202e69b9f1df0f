//! Where endpoints and their clients are, and which endpoints come first because of it.
//!
//! Istio's words and rules: `localityLbSetting` of a `DestinationRule`, and what a Kubernetes `Service` says of traffic.
//! [`arrange`] groups the endpoints of a backend for one client. How much each group gets while endpoints are ejected is
//! for the proxy, which knows who is.

mod arrange;
mod words;

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

pub use self::arrange::{Arrangement, By, Group, LeftOut, arrange};

/// The label of a region, as Kubernetes' nodes have it.
pub const REGION_LABEL: &str = "topology.kubernetes.io/region";
/// The label of a zone, as Kubernetes' nodes have it.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Istio's label of a part of a zone.
pub const SUBZONE_LABEL: &str = "topology.istio.io/subzone";
/// The label of a node's name.
pub const NODE_LABEL: &str = "kubernetes.io/hostname";
/// Istio's label of a network.
pub const NETWORK_LABEL: &str = "topology.istio.io/network";

/// A region, a zone of it, and a part of that. A part that is empty is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Locality {
    /// Such as `europe-west1`.
    pub region: String,
    /// Such as `europe-west1-b`.
    pub zone: String,
    /// Such as a rack.
    pub subzone: String,
}

impl Locality {
    /// What `text` says, which is `REGION/ZONE/SUBZONE` or the beginning of that. Further parts are left out, as in Istio.
    pub fn of(text: &str) -> Self {
        let mut parts = text.split('/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Self { region: next(), zone: next(), subzone: next() }
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty() && self.subzone.is_empty()
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { region, zone, subzone } = self;
        match (zone.is_empty(), subzone.is_empty()) {
            (true, true) => f.write_str(region),
            (_, true) => write!(f, "{region}/{zone}"),
            (_, false) => write!(f, "{region}/{zone}/{subzone}"),
        }
    }
}

/// Where a workload or an endpoint is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// Its region, zone and subzone.
    pub locality: Locality,
    /// The node that it runs on.
    pub node: Option<String>,
    /// The zones whose clients it is meant for (`hints.forZones` of an `EndpointSlice`).
    pub for_zones: Vec<String>,
    /// The nodes whose clients it is meant for (`hints.forNodes` of an `EndpointSlice`).
    pub for_nodes: Vec<String>,
}

impl Place {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A region with its zones, or one of these: `*`, `REGION`, `REGION/*`, `REGION/ZONE`, `REGION/ZONE/*`,
/// `REGION/ZONE/SUBZONE`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct LocalityPattern(pub Locality);

impl LocalityPattern {
    /// Whether a place is there. As in Istio, a part that is empty or `*` is any.
    pub fn matches(&self, locality: &Locality) -> bool {
        let Locality { region, zone, subzone } = &self.0;
        let any = |pattern: &str| pattern.is_empty() || pattern == "*";
        (region == "*" || *region == locality.region)
            && (any(zone) || *zone == locality.zone)
            && (any(subzone) || *subzone == locality.subzone)
    }
}

impl fmt::Display for LocalityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which endpoints of a backend come first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct LocalityPolicy {
    /// Whether only endpoints on the client's own node are called (`internalTrafficPolicy: Local`).
    pub own_node: bool,
    /// Whether the hints of `EndpointSlice`s count, as for kube-proxy: if all endpoints have some, and some of them are
    /// for the client.
    pub hints: bool,
    /// Which come first where hints do not say it.
    pub order: LocalityOrder,
}

impl LocalityPolicy {
    /// Whether where the client is makes no difference.
    pub fn is_indifferent(&self) -> bool {
        *self == Self::default()
    }
}

/// Which endpoints come first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub enum LocalityOrder {
    /// None.
    #[default]
    Alike,
    /// Those that agree with the client in most; further ones as far as those before them fail.
    Failover(Failover),
    /// Each place gets its share (`distribute`). The first entry that fits the client counts; if there is none,
    /// all endpoints are alike.
    Distribute(Vec<Distribution>),
}

/// In what endpoints agree with their client, the most important first: labels, and then the place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Failover {
    /// `failoverPriority`: a label counts if all before it agree.
    pub labels: Vec<PriorityLabel>,
    /// Whether the place counts: subzone, zone, region. It does if there are no labels, or regions are given beside them.
    pub by_place: bool,
    /// `failover`: from which region to which other; further ones come last.
    pub regions: Vec<(String, String)>,
}

impl Failover {
    /// What `PreferSameZone` and `PreferClose` of a `Service` mean in Istio.
    pub fn same_zone() -> Self {
        let labels = [NETWORK_LABEL, REGION_LABEL, ZONE_LABEL].map(PriorityLabel::of);
        Self { labels: labels.into(), by_place: false, regions: Vec::new() }
    }

    /// What `PreferSameNode` of a `Service` means in Istio.
    pub fn same_node() -> Self {
        let labels = [NETWORK_LABEL, REGION_LABEL, ZONE_LABEL, SUBZONE_LABEL, NODE_LABEL];
        Self { labels: labels.map(PriorityLabel::of).into(), by_place: false, regions: Vec::new() }
    }

    /// What outlier detection alone means in Istio: the nearest first.
    pub fn nearest() -> Self {
        Self { labels: Vec::new(), by_place: true, regions: Vec::new() }
    }
}

/// A label in which endpoints agree with their client.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct PriorityLabel {
    /// Its name; those of places ([`ZONE_LABEL`] and others) are what is known of the place.
    pub name: String,
    /// What it must be. `None`: the same as the client's.
    pub value: Option<String>,
}

impl PriorityLabel {
    /// `NAME`, or `NAME=VALUE`.
    pub fn of(text: &str) -> Self {
        match text.split_once('=') {
            None => Self { name: text.to_owned(), value: None },
            Some((name, value)) => Self { name: name.to_owned(), value: Some(value.to_owned()) },
        }
    }
}

impl fmt::Display for PriorityLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            None => f.write_str(&self.name),
            Some(value) => write!(f, "{}={value}", self.name),
        }
    }
}

/// What clients in one place send to which others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Distribution {
    /// Where the client is.
    pub from: LocalityPattern,
    /// The percentages, 1 to 100 each, of all requests. A place that is not among them gets none.
    pub to: Vec<(LocalityPattern, u32)>,
}

/// Where somebody is of whom that is not known.
static NOWHERE: Locality = Locality { region: String::new(), zone: String::new(), subzone: String::new() };

/// Where somebody is, and the labels.
#[derive(Debug, Clone, Copy)]
pub struct Located<'a> {
    /// Where. `None`: not known.
    pub place: Option<&'a Place>,
    /// The labels of the workload.
    pub labels: &'a BTreeMap<String, String>,
}

impl<'a> Located<'a> {
    fn locality(&self) -> &'a Locality {
        self.place.map_or(&NOWHERE, |place| &place.locality)
    }

    fn region(&self) -> &'a str {
        &self.locality().region
    }

    fn zone(&self) -> &'a str {
        &self.locality().zone
    }

    fn subzone(&self) -> &'a str {
        &self.locality().subzone
    }

    fn node(&self) -> Option<&'a str> {
        self.place.and_then(|place| place.node.as_deref())
    }

    /// What it has as the label `name`; empty if it has none.
    fn label(&self, name: &str) -> &'a str {
        let known = match name {
            REGION_LABEL => self.region(),
            ZONE_LABEL => self.zone(),
            SUBZONE_LABEL => self.subzone(),
            NODE_LABEL => self.node().unwrap_or_default(),
            _ => "",
        };
        match known {
            "" => self.labels.get(name).map(String::as_str).unwrap_or_default(),
            known => known,
        }
    }
}

#[cfg(test)]
mod tests;
