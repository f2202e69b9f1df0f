//! What has changed between two lists of endpoints.
//!
//! A change of one endpoint of ten thousand is one endpoint on the wire, and whoever takes it over looks at that one alone.
//! The version of a list is a hash of [`Fingerprints`]: so a proxy can tell that what it has made of its own list and the
//! changes is the list that the control plane has, and applies nothing to another.

use std::collections::HashMap;

use aws_lc_rs::digest::{Context, SHA256, digest};
use selvedge_model::Endpoints;

use crate::{ResourceName, convert::endpoints_delta, wire};

/// Lists with fewer endpoints are always sent whole.
pub const FEWEST: usize = 32;

/// A part of a SHA-256: enough that no two contents meet, whoever makes them up.
type Fingerprint = [u8; 16];

/// What stands for a list of endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprints {
    /// For everything but the endpoints with addresses.
    rest: Fingerprint,
    /// For each of those, in their order.
    each: Vec<Fingerprint>,
}

/// Changes that do not fit the list that they are said to be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the changes do not fit the list: places are missing, are not in order, or are beyond its end")]
pub struct Misfit;

impl Fingerprints {
    /// Those of `endpoints`, which are left as they are.
    pub fn of(endpoints: &mut wire::Endpoints) -> Self {
        let wire::Endpoints { key, list, named, requested, requested_port, places } = endpoints;
        let mut buffer = Vec::new();
        let each = list.iter_mut().map(|endpoint| {
            buffer.clear();
            // Its number depends on what else is in the list.
            let place = std::mem::take(&mut endpoint.place);
            put(&mut buffer, endpoint);
            put_place(&mut buffer, places, place);
            endpoint.place = place;
            hash(&buffer)
        });
        let each = each.collect();
        buffer.clear();
        let rest = wire::Endpoints {
            key: key.clone(),
            requested: *requested,
            requested_port: *requested_port,
            ..wire::Endpoints::default()
        };
        put(&mut buffer, &rest);
        for endpoint in named {
            let place = std::mem::take(&mut endpoint.place);
            put(&mut buffer, endpoint);
            let begin = buffer.len();
            put_place(&mut buffer, places, place);
            // A place could be written as the next endpoint is.
            buffer.push(u8::from(buffer.len() > begin));
            endpoint.place = place;
        }
        Self { rest: hash(&buffer), each }
    }

    /// How many endpoints with addresses there are.
    pub fn len(&self) -> usize {
        self.each.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    /// The version of the list, as the resource called `name`.
    pub fn version(&self, name: &ResourceName) -> String {
        let name = name.to_string();
        let mut context = Context::new(&SHA256);
        context.update(&(name.len() as u64).to_be_bytes());
        context.update(name.as_bytes());
        context.update(&self.rest);
        context.update(self.each.as_flattened());
        let hash = context.finish();
        hash.as_ref()[..size_of::<Fingerprint>()].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Those of the list that `delta` makes of this one.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn edited(&self, delta: &mut wire::EndpointsDelta) -> Result<Self, Misfit> {
        let wire::EndpointsDelta { removed, added_at, added, places, .. } = delta;
        let mut new = wire::Endpoints {
            list: std::mem::take(added),
            places: std::mem::take(places),
            ..wire::Endpoints::default()
        };
        let hashes = Self::of(&mut new).each;
        (*added, *places) = (new.list, new.places);
        let each = edit(&self.each, removed, added_at.iter().copied().zip(hashes))?;
        Ok(Self { rest: self.rest, each })
    }

    /// What makes the list `now` of this one: what is removed of this, and what is added to that, by their places. `None`: it
    /// is not only the endpoints with addresses that differ.
    fn changes_to(&self, now: &Self) -> Option<(Vec<u32>, Vec<u32>)> {
        if self.rest != now.rest {
            return None;
        }
        let (old, new) = (&self.each, &now.each);
        let begin = old.iter().zip(new).take_while(|(one, other)| one == other).count();
        let (old, new) = (&old[begin..], &new[begin..]);
        let end = old.iter().rev().zip(new.iter().rev()).take_while(|(one, other)| one == other).count();
        let (old, new) = (&old[..old.len() - end], &new[..new.len() - end]);
        let places: HashMap<&Fingerprint, usize> = old.iter().zip(0..).collect();
        let mut kept = vec![false; old.len()];
        let (mut added, mut first) = (Vec::new(), 0);
        for (place, fingerprint) in new.iter().enumerate() {
            match places.get(fingerprint).filter(|place| **place >= first) {
                Some(before) => {
                    kept[*before] = true;
                    first = before + 1;
                }
                None => added.push(u32::try_from(begin + place).ok()?),
            }
        }
        let removed = kept.iter().enumerate().filter(|(_, kept)| !**kept);
        let removed = removed.map(|(place, _)| u32::try_from(begin + place).ok());
        Some((removed.collect::<Option<_>>()?, added))
    }
}

/// What makes the list `endpoints`, with the fingerprints `now`, of the one with the version `base`, whose fingerprints are
/// `before`. `None`: it is not only endpoints with addresses that differ.
pub fn between(
    base: &str,
    before: &Fingerprints,
    now: &Fingerprints,
    endpoints: &Endpoints,
) -> Option<wire::EndpointsDelta> {
    let (removed, added) = before.changes_to(now)?;
    let added = added.into_iter().map(|at| Some((at, endpoints.list.get(at as usize)?)));
    Some(endpoints_delta(base, removed, added.collect::<Option<Vec<_>>>()?))
}

/// The list `before` without what is at the places `removed`, and with these `added`, each at its place in the list that comes
/// of it.
///
/// # Errors
/// If the places do not fit.
pub fn edit<T: Clone>(
    before: &[T],
    removed: &[u32],
    added: impl IntoIterator<Item = (u32, T)>,
) -> Result<Vec<T>, Misfit> {
    let mut removed = removed.iter().map(|at| *at as usize).peekable();
    let mut added = added.into_iter().map(|(at, new)| (at as usize, new)).peekable();
    let mut list = Vec::with_capacity(before.len() + added.size_hint().0);
    let mut old = 0;
    loop {
        while let Some((_, new)) = added.next_if(|(at, _)| *at == list.len()) {
            list.push(new);
        }
        if old < before.len() && removed.next_if(|at| *at == old).is_some() {
            old += 1;
            continue;
        }
        // What is not in order is never met.
        let to_removed = removed.peek().map_or(Some(before.len()), |at| at.checked_sub(old)).ok_or(Misfit)?;
        let to_added = added.peek().map_or(Some(before.len()), |(at, _)| at.checked_sub(list.len()));
        let same = to_removed.min(to_added.ok_or(Misfit)?).min(before.len() - old);
        if same == 0 {
            break;
        }
        list.extend_from_slice(&before[old..old + same]);
        old += same;
    }
    if removed.next().is_none() && added.next().is_none() { Ok(list) } else { Err(Misfit) }
}

fn put(buffer: &mut Vec<u8>, message: &impl prost::Message) {
    message.encode_length_delimited(buffer).expect("a Vec takes whatever is written");
}

/// The place with this number, counted from 1, if there is one.
fn put_place(buffer: &mut Vec<u8>, places: &[wire::Place], number: u32) {
    let place = number.checked_sub(1).and_then(|index| places.get(index as usize));
    place.into_iter().for_each(|place| put(buffer, place));
}

fn hash(bytes: &[u8]) -> Fingerprint {
    let hash = digest(&SHA256, bytes);
    let mut fingerprint = Fingerprint::default();
    fingerprint.copy_from_slice(&hash.as_ref()[..size_of::<Fingerprint>()]);
    fingerprint
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use prost::Message as _;
    use selvedge_model::{Endpoint, HostPort, NamedEndpoint, Place, ServiceKey, locality::Locality};

    use super::*;
    use crate::convert::added_endpoints;

    fn key() -> ServiceKey {
        ServiceKey::new("reviews.shop.svc.cluster.local", 9080)
    }

    fn name() -> ResourceName {
        ResourceName::Endpoints(key())
    }

    fn endpoint((host, weight, zone): &(u16, u32, u8)) -> Endpoint {
        let [a, b] = host.to_be_bytes();
        let locality = Locality { zone: zone.to_string(), ..Locality::default() };
        let place = Place { locality, ..Place::default() };
        Endpoint {
            address: ([10, 0, a, b], 8080).into(),
            dial: ([10, 0, a, b], 4143).into(),
            identity: None,
            workload: Some(format!("shop/reviews-{host}").parse().unwrap()),
            labels: Arc::default(),
            weight: *weight,
            place: (*zone > 0).then(|| Arc::new(place)),
        }
    }

    fn endpoints(list: &[(u16, u32, u8)]) -> Endpoints {
        Endpoints::new(key(), list.iter().map(endpoint).collect())
    }

    fn fingerprints(endpoints: &Endpoints) -> Fingerprints {
        Fingerprints::of(&mut endpoints.into())
    }

    /// What a proxy makes of `list` and `delta`, sent over the wire.
    fn applied(
        list: &[Endpoint],
        fingerprints: &Fingerprints,
        delta: &wire::EndpointsDelta,
    ) -> Result<(Vec<Endpoint>, Fingerprints), Misfit> {
        let mut delta = wire::EndpointsDelta::decode(delta.encode_to_vec().as_slice()).unwrap();
        let now = fingerprints.edited(&mut delta)?;
        let removed = std::mem::take(&mut delta.removed);
        Ok((edit(list, &removed, added_endpoints(delta).unwrap())?, now))
    }

    fn lists() -> impl Strategy<Value = Vec<(u16, u32, u8)>> {
        prop::collection::vec((0_u16..40, 1_u32..3, 0_u8..3), 0..40)
    }

    proptest! {
        /// Any two lists: sorted or not, with endpoints that are there twice.
        #[test]
        fn a_delta_makes_the_whole_list_with_its_version(before in lists(), now in lists()) {
            let (before, now) = (endpoints(&before), endpoints(&now));
            let (old, new) = (fingerprints(&before), fingerprints(&now));
            let delta = between("1", &old, &new, &now).unwrap();

            let (list, made) = applied(&before.list, &old, &delta).unwrap();

            prop_assert_eq!(&list, &now.list);
            prop_assert_eq!(made.version(&name()), new.version(&name()));
            prop_assert_eq!(old == new, before == now);
        }

        /// Edits of a sorted list, one after the other, each a delta as small as the edit.
        #[test]
        fn a_delta_is_as_large_as_the_change(
            first in lists(),
            edits in prop::collection::vec((0_u16..40, 1_u32..3, 0_u8..4), 1..30),
        ) {
            let mut now = first;
            now.sort_unstable();
            now.dedup_by_key(|(host, ..)| *host);
            let mut held = (endpoints(&now).list, fingerprints(&endpoints(&now)));
            for (host, weight, zone) in edits {
                let before = fingerprints(&endpoints(&now));
                match now.binary_search_by_key(&host, |(host, ..)| *host) {
                    Ok(place) if zone == 3 => drop(now.remove(place)),
                    Ok(place) => now[place] = (host, weight, zone),
                    Err(place) => now.insert(place, (host, weight, zone)),
                }
                let endpoints = endpoints(&now);
                let delta = between("1", &before, &fingerprints(&endpoints), &endpoints).unwrap();
                prop_assert!(delta.removed.len() <= 1 && delta.added.len() <= 1, "{delta:?}");

                held = applied(&held.0, &held.1, &delta).unwrap();

                prop_assert_eq!(&held.0, &endpoints.list);
                prop_assert_eq!(&held.1, &fingerprints(&endpoints));
            }
        }

        /// A peer may send anything.
        #[test]
        fn changes_that_do_not_fit_are_told_from_those_that_do(
            before in prop::collection::vec(any::<u8>(), 0..6),
            removed in prop::collection::vec(0_u32..8, 0..4),
            added in prop::collection::vec((0_u32..8, any::<u8>()), 0..4),
        ) {
            let made = edit(&before, &removed, added.clone());

            let are_places = |places: &[u32], len: usize| {
                places.is_sorted_by(|one, other| one < other) && places.iter().all(|at| (*at as usize) < len)
            };
            let added_at: Vec<u32> = added.iter().map(|(at, _)| *at).collect();
            let len = (before.len() + added.len()).saturating_sub(removed.len());
            let fits = are_places(&removed, before.len()) && are_places(&added_at, len);
            prop_assert_eq!(made.is_ok(), fits);
            if let Ok(list) = made {
                prop_assert_eq!(list.len(), len);
                prop_assert!(added.iter().all(|(at, one)| list[*at as usize] == *one));
            }
        }
    }

    #[test]
    fn whatever_else_differs_is_no_delta_and_another_version() {
        let list = [(1, 1, 1), (2, 1, 0)];
        let one = endpoints(&list);
        let named = |zone: u8| NamedEndpoint {
            address: "reviews:80".parse::<HostPort>().unwrap(),
            dial: "reviews:80".parse().unwrap(),
            one_address: false,
            identity: None,
            workload: None,
            labels: Arc::default(),
            weight: 1,
            place: endpoint(&(1, 1, zone)).place,
        };
        let others = [
            Endpoints { requested: Some(80), ..one.clone() },
            Endpoints { requested: Some(443), ..one.clone() },
            Endpoints { named: vec![named(0)], ..one.clone() },
            Endpoints { named: vec![named(1)], ..one.clone() },
            Endpoints { named: vec![named(2)], ..one.clone() },
            Endpoints { key: ServiceKey::new("ratings", 80), ..one.clone() },
        ];
        let all: Vec<Fingerprints> = others.iter().chain([&one]).map(fingerprints).collect();

        for (place, before) in all.iter().enumerate() {
            for (other, now) in all.iter().enumerate().filter(|(other, _)| *other != place) {
                assert_ne!(before.version(&name()), now.version(&name()), "{place} {other}");
                assert_eq!(between("1", before, now, &one), None, "{place} {other}");
            }
        }
        let elsewhere = ResourceName::Endpoints(ServiceKey::new("ratings", 80));
        assert_ne!(all[0].version(&name()), all[0].version(&elsewhere));
    }

    #[test]
    fn a_place_is_not_taken_for_the_next_endpoint() {
        let named = |address: &str, dial: &str| wire::NamedEndpoint {
            address: address.to_owned(),
            dial: dial.to_owned(),
            ..wire::NamedEndpoint::default()
        };
        let place =
            wire::Place { region: "b:80".to_owned(), zone: "b:81".to_owned(), ..wire::Place::default() };
        assert_eq!(place.encode_to_vec(), named("b:80", "b:81").encode_to_vec(), "they look the same");

        let a = named("a:80", "a:80");
        let placed = wire::NamedEndpoint { place: 1, ..a.clone() };
        let mut one =
            wire::Endpoints { named: vec![placed], places: vec![place], ..wire::Endpoints::default() };
        let mut two = wire::Endpoints { named: vec![a, named("b:80", "b:81")], ..wire::Endpoints::default() };

        assert_ne!(Fingerprints::of(&mut one), Fingerprints::of(&mut two));
    }

    #[test]
    fn fingerprints_change_nothing() {
        let mut wire = wire::Endpoints::from(&endpoints(&[(1, 1, 1), (2, 1, 2), (3, 1, 0)]));
        let before = wire.clone();

        Fingerprints::of(&mut wire);

        assert_eq!(wire, before);
    }
}
