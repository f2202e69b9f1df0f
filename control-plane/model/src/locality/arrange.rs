//! Groups the endpoints of a backend for one client.

use std::collections::BTreeMap;

use super::{Distribution, Failover, LocalityOrder, LocalityPattern, LocalityPolicy, Located, PriorityLabel};

/// Ranks that places have: the same subzone, zone, region; another region; a region that failover does not name.
pub(super) const PLACES: u32 = 5;

/// The endpoints of a backend as one client calls them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrangement {
    /// By what they are grouped.
    pub by: By,
    /// The groups; none is empty. Those by priority begin with the highest.
    pub groups: Vec<Group>,
    /// The endpoints that the client does not call, by their indices.
    pub left_out: Vec<usize>,
    /// Why it does not call them; `None`: it calls all.
    pub why: Option<LeftOut>,
}

/// By what endpoints are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Not at all: all are alike.
    Nothing,
    /// By hints of `EndpointSlice`s, as priorities.
    Hints,
    /// As priorities.
    Priority,
    /// By shares of requests.
    Weight,
}

/// Endpoints that are alike for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What they have in common: it stays when endpoints come or leave. By priority: how much they differ from the client.
    pub key: u32,
    /// Their share of requests, among all groups' by weight; otherwise 1.
    pub weight: u32,
    /// Their indices, in order.
    pub members: Vec<usize>,
}

/// Why a client does not call some endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeftOut {
    /// They are not on its node.
    OtherNode,
    /// It is not known which node it is on.
    UnknownNode,
    /// Its place sends nothing to theirs.
    NoShare(LocalityPattern),
}

/// Groups `endpoints` as `policy` asks for `client`.
pub fn arrange(policy: &LocalityPolicy, client: Located<'_>, endpoints: &[Located<'_>]) -> Arrangement {
    let mut all: Vec<usize> = (0..endpoints.len()).collect();
    let (mut left_out, mut why) = (Vec::new(), None);
    if policy.own_node {
        let node = client.node();
        let here = |index: &usize| node.is_some() && endpoints[*index].node() == node;
        (all, left_out) = all.into_iter().partition(here);
        if !left_out.is_empty() {
            why = Some(if node.is_some() { LeftOut::OtherNode } else { LeftOut::UnknownNode });
        }
    }
    let hinted = if policy.hints { hinted(client, endpoints, &all) } else { None };
    if let Some(is_hinted) = hinted {
        let key = |index: usize| u32::from(!is_hinted(&endpoints[index]));
        return Arrangement { by: By::Hints, groups: ranked(all, key), left_out, why };
    }
    match &policy.order {
        LocalityOrder::Alike => Arrangement { by: By::Nothing, groups: alike(all), left_out, why },
        LocalityOrder::Failover(failover) => {
            let groups = ranked(all, |index| rank(failover, client, endpoints[index]));
            let by = if groups.len() > 1 { By::Priority } else { By::Nothing };
            Arrangement { by, groups, left_out, why }
        }
        LocalityOrder::Distribute(distributions) => {
            match distributions.iter().find(|one| one.from.matches(client.locality())) {
                None => Arrangement { by: By::Nothing, groups: alike(all), left_out, why },
                Some(distribution) => distributed(distribution, endpoints, all, left_out, why),
            }
        }
    }
}

/// Whether an endpoint is meant for a client.
type IsHinted<'a> = Box<dyn Fn(&Located<'_>) -> bool + 'a>;

/// How it is seen whether an endpoint is meant for `client`, if all have hints and some are: first by nodes and then by
/// zones, as kube-proxy does.
fn hinted<'a>(client: Located<'a>, endpoints: &[Located<'_>], all: &[usize]) -> Option<IsHinted<'a>> {
    let places = || all.iter().map(|index| endpoints[*index].place);
    let (node, zone) = (client.node().unwrap_or_default(), client.zone());
    if places().all(|place| place.is_some_and(|place| !place.for_nodes.is_empty())) {
        let is_hinted = move |endpoint: &Located<'_>| {
            endpoint.place.is_some_and(|place| place.for_nodes.iter().any(|name| name == node))
        };
        if all.iter().any(|index| is_hinted(&endpoints[*index])) {
            return Some(Box::new(is_hinted));
        }
    }
    if places().all(|place| place.is_some_and(|place| !place.for_zones.is_empty())) {
        let is_hinted = move |endpoint: &Located<'_>| {
            endpoint.place.is_some_and(|place| place.for_zones.iter().any(|name| name == zone))
        };
        if all.iter().any(|index| is_hinted(&endpoints[*index])) {
            return Some(Box::new(is_hinted));
        }
    }
    None
}

/// The endpoints at `all` in one group, if there are any.
fn alike(members: Vec<usize>) -> Vec<Group> {
    let only = (!members.is_empty()).then_some(Group { key: 0, weight: 1, members });
    only.into_iter().collect()
}

/// The endpoints at `all` in groups by their `key`, the smallest first.
fn ranked(all: Vec<usize>, key: impl Fn(usize) -> u32) -> Vec<Group> {
    let mut groups: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for index in all {
        groups.entry(key(index)).or_default().push(index);
    }
    groups.into_iter().map(|(key, members)| Group { key, weight: 1, members }).collect()
}

/// How much `endpoint` differs from `client`; 0: in nothing that is asked for.
fn rank(failover: &Failover, client: Located<'_>, endpoint: Located<'_>) -> u32 {
    let Failover { labels, by_place, regions } = failover;
    let differs = |label: &PriorityLabel| {
        let wanted = label.value.as_deref().unwrap_or_else(|| client.label(&label.name));
        wanted != endpoint.label(&label.name)
    };
    let agreed = labels.iter().take_while(|label| !differs(label)).count();
    let by_labels = u32::try_from(labels.len() - agreed).unwrap_or(u32::MAX / PLACES - 1);
    let by_place = if *by_place { rank_of_place(client, endpoint, regions) } else { 0 };
    by_labels.saturating_mul(PLACES).saturating_add(by_place)
}

fn rank_of_place(client: Located<'_>, endpoint: Located<'_>, regions: &[(String, String)]) -> u32 {
    if client.region() == endpoint.region() {
        let same_zone = client.zone() == endpoint.zone();
        return match (same_zone, same_zone && client.subzone() == endpoint.subzone()) {
            (_, true) => 0,
            (true, false) => 1,
            (false, false) => 2,
        };
    }
    match regions.iter().find(|(from, _)| from == client.region()) {
        Some((_, to)) if to != endpoint.region() => 4,
        _ => 3,
    }
}

fn distributed(
    distribution: &Distribution,
    endpoints: &[Located<'_>],
    all: Vec<usize>,
    mut left_out: Vec<usize>,
    why: Option<LeftOut>,
) -> Arrangement {
    let Distribution { from, to } = distribution;
    let mut groups: Vec<Group> =
        (0..).zip(to).map(|(key, (_, weight))| Group { key, weight: *weight, members: Vec::new() }).collect();
    let before = left_out.len();
    for index in all {
        match to.iter().position(|(pattern, _)| pattern.matches(endpoints[index].locality())) {
            Some(place) => groups[place].members.push(index),
            None => left_out.push(index),
        }
    }
    let why = why.or_else(|| (left_out.len() > before).then(|| LeftOut::NoShare(from.clone())));
    groups.retain(|group| !group.members.is_empty());
    Arrangement { by: By::Weight, groups, left_out, why }
}
