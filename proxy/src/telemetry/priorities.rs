//! How the endpoints of backends do now, group by group: the priorities of a failover, or the shares of a distribution.
//!
//! Nothing is counted for it: whoever renders metrics says what there is at that moment.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder},
    metrics::MetricType,
};
use selvedge_model::{BackendName, Locality};

use super::labels::LabelWriter;

/// The most groups that are shown, by the names of their backends.
pub const MOST_GROUPS: usize = 2_000;

/// How one group of a backend's endpoints does.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupHealth {
    /// The backend.
    pub backend: BackendName,
    /// The place of the group; 0: the highest priority, or the first share of a distribution.
    pub place: usize,
    /// Where its endpoints are, if all are in one place.
    pub locality: Option<Locality>,
    /// How many endpoints it has.
    pub endpoints: usize,
    /// Those that are not ejected and fail no health check.
    pub healthy: usize,
    /// What part of the backend's requests it gets now, 0 to 1.
    pub share: f64,
}

/// All groups, to be rendered once.
#[derive(Debug)]
pub(super) struct Groups(pub(super) Vec<GroupHealth>);

impl Collector for Groups {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(groups) = self;
        if groups.is_empty() {
            return Ok(());
        }
        let mut family = |name, help, value: fn(&GroupHealth) -> f64| {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            groups.iter().try_for_each(|group| metric.encode_family(group)?.encode_gauge(&value(group)))
        };
        family(
            "selvedge_outbound_priority_endpoints",
            "Endpoints by priority, of backends that have several, or whose endpoints may be ejected or fail health checks.",
            |group| group.endpoints as f64,
        )?;
        family(
            "selvedge_outbound_priority_endpoints_healthy",
            "Those of them that are not ejected and fail no health check.",
            |group| group.healthy as f64,
        )?;
        family(
            "selvedge_outbound_priority_share",
            "What part of the requests to the backend each priority gets now, 0 to 1. It can take 1.4 times its share of healthy endpoints.",
            |group| group.share,
        )
    }
}

impl EncodeLabelSet for GroupHealth {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let mut writer = LabelWriter(encoder);
        writer.backend(&self.backend)?;
        writer.label("priority", self.place)?;
        match &self.locality {
            Some(locality) => writer.text("locality", &locality.to_string()),
            None => Ok(()),
        }
    }
}
