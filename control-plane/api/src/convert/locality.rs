//! Where endpoints are, and which come first because of it.

use std::{collections::HashMap, sync::Arc};

use selvedge_model::{
    Locality, LocalityPolicy, Place,
    locality::{Distribution, Failover, LocalityOrder, LocalityPattern, PriorityLabel},
};

use super::ConvertError;
use crate::wire::{self, locality_policy::Order};

impl From<&Place> for wire::Place {
    fn from(place: &Place) -> Self {
        let Locality { region, zone, subzone } = place.locality.clone();
        let (for_zones, for_nodes) = (place.for_zones.clone(), place.for_nodes.clone());
        Self { region, zone, subzone, node: place.node.clone(), for_zones, for_nodes }
    }
}

impl From<wire::Place> for Place {
    fn from(place: wire::Place) -> Self {
        let wire::Place { region, zone, subzone, node, for_zones, for_nodes } = place;
        Self { locality: Locality { region, zone, subzone }, node, for_zones, for_nodes }
    }
}

/// The places of endpoints, each once, by the numbers that endpoints have instead of them.
#[derive(Default)]
pub(super) struct PlaceTable<'a> {
    numbers: HashMap<&'a Place, u32>,
    pub(super) list: Vec<wire::Place>,
}

impl<'a> PlaceTable<'a> {
    /// The number of `place`, counted from 1; 0: none is known.
    pub(super) fn number(&mut self, place: Option<&'a Arc<Place>>) -> u32 {
        let Some(place) = place else { return 0 };
        let list = &mut self.list;
        *self.numbers.entry(&**place).or_insert_with(|| {
            list.push((&**place).into());
            u32::try_from(list.len()).unwrap_or_default()
        })
    }
}

/// The place with this number.
pub(super) fn numbered(places: &[Arc<Place>], number: u32) -> Result<Option<Arc<Place>>, ConvertError> {
    let Some(index) = number.checked_sub(1) else { return Ok(None) };
    match places.get(index as usize) {
        Some(place) => Ok(Some(Arc::clone(place))),
        None => Err(ConvertError::OutOfRange {
            field: "endpoint place",
            value: number.into(),
            largest: places.len() as u64,
        }),
    }
}

impl From<&LocalityPolicy> for wire::LocalityPolicy {
    fn from(policy: &LocalityPolicy) -> Self {
        let order = match &policy.order {
            LocalityOrder::Alike => None,
            LocalityOrder::Failover(failover) => Some(Order::Failover(failover.into())),
            LocalityOrder::Distribute(list) => {
                Some(Order::Distribute(wire::Distributions { list: list.iter().map(Into::into).collect() }))
            }
        };
        Self { own_node: policy.own_node, hints: policy.hints, order }
    }
}

impl TryFrom<wire::LocalityPolicy> for LocalityPolicy {
    type Error = ConvertError;

    fn try_from(policy: wire::LocalityPolicy) -> Result<Self, ConvertError> {
        let order = match policy.order {
            None => LocalityOrder::Alike,
            Some(Order::Failover(failover)) => LocalityOrder::Failover(failover.into()),
            Some(Order::Distribute(distributions)) => {
                let list = distributions.list.into_iter().map(TryInto::try_into);
                LocalityOrder::Distribute(list.collect::<Result<_, _>>()?)
            }
        };
        Ok(Self { own_node: policy.own_node, hints: policy.hints, order })
    }
}

impl From<&Failover> for wire::Failover {
    fn from(failover: &Failover) -> Self {
        let regions = failover.regions.iter();
        let regions = regions.map(|(from, to)| wire::RegionFailover { from: from.clone(), to: to.clone() });
        Self {
            labels: failover.labels.iter().map(ToString::to_string).collect(),
            by_place: failover.by_place,
            regions: regions.collect(),
        }
    }
}

impl From<wire::Failover> for Failover {
    fn from(failover: wire::Failover) -> Self {
        Self {
            labels: failover.labels.iter().map(|label| PriorityLabel::of(label)).collect(),
            by_place: failover.by_place,
            regions: failover.regions.into_iter().map(|region| (region.from, region.to)).collect(),
        }
    }
}

impl From<&Distribution> for wire::Distribution {
    fn from(distribution: &Distribution) -> Self {
        let to = distribution.to.iter().map(|(pattern, percent)| wire::LocalityShare {
            locality: pattern.to_string(),
            percent: *percent,
        });
        Self { from: distribution.from.to_string(), to: to.collect() }
    }
}

impl TryFrom<wire::Distribution> for Distribution {
    type Error = ConvertError;

    fn try_from(distribution: wire::Distribution) -> Result<Self, ConvertError> {
        let pattern = |text: &str| LocalityPattern(Locality::of(text));
        let to = distribution.to.iter().map(|share| match share.percent {
            percent @ 1..=100 => Ok((pattern(&share.locality), percent)),
            value => Err(ConvertError::OutOfRange {
                field: "share of a place, 1 to 100,",
                value: value.into(),
                largest: 100,
            }),
        });
        Ok(Self { from: pattern(&distribution.from), to: to.collect::<Result<_, _>>()? })
    }
}
