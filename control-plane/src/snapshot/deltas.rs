//! Lists of endpoints as they were, and what has changed in them since: so that a proxy which has one of them is told only that.
//!
//! Of a list that is not current any more only hashes are kept, and of few versions ([`MOST_VERSIONS`]), within a bound for all
//! together ([`MOST_ENDPOINTS`]). Whoever has an older one gets the whole list. What has changed between two versions is kept
//! for others who have the same, within a bound, too ([`MOST_BYTES`]).

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use selvedge_api::{ResourceName, delta::Fingerprints};

use super::Encoded;

/// Versions of one list that are kept: a proxy that has not answered meanwhile is seldom further behind.
const MOST_VERSIONS: usize = 16;

/// Endpoints in all of them together; each takes 16 bytes. The oldest go first.
const MOST_ENDPOINTS: usize = 1 << 20;

/// Deltas of one version that are kept: to the newest, and to the one before for who is looking at that still.
const MOST_DELTAS: usize = 2;

/// Bytes of all deltas together. When there are more, all are forgotten: who needs one makes it again.
const MOST_BYTES: usize = 16 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Deltas(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// The oldest version of each comes first.
    lists: HashMap<ResourceName, VecDeque<Version>>,
    /// All of them, in the order in which they came.
    order: VecDeque<(ResourceName, Arc<str>)>,
    /// In all of them.
    endpoints: usize,
    /// Of all deltas that were made since all were forgotten.
    bytes: usize,
}

#[derive(Debug)]
struct Version {
    version: Arc<str>,
    fingerprints: Arc<Fingerprints>,
    /// What makes later versions of it.
    deltas: VecDeque<(Arc<str>, Made)>,
}

/// Set by the first who needs it, for whom the others wait. `None`: the whole list is sent.
type Made = Arc<OnceLock<Option<Encoded>>>;

impl Deltas {
    /// Keeps what stands for this list, if it may be told by what has changed.
    pub(super) fn keep(&self, list: &Encoded) {
        let Some(fingerprints) = list.fingerprints() else { return };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let versions = kept.lists.entry(list.name().clone()).or_default();
        if versions.iter().any(|known| known.version == *list.version()) {
            return;
        }
        let (version, fingerprints) = (Arc::clone(list.version()), Arc::clone(fingerprints));
        let endpoints = fingerprints.len();
        versions.push_back(Version { version: Arc::clone(&version), fingerprints, deltas: VecDeque::new() });
        let surplus = versions.front().filter(|_| versions.len() > MOST_VERSIONS);
        let surplus = surplus.map(|oldest| Arc::clone(&oldest.version));
        kept.endpoints += endpoints;
        kept.order.push_back((list.name().clone(), version));
        if let Some(oldest) = surplus {
            kept.forget(list.name(), &oldest);
            kept.order.retain(|(name, version)| *version != oldest || name != list.name());
        }
        kept.within(MOST_ENDPOINTS);
    }

    /// What makes `list` of the version `base`. `None`: it is sent whole.
    pub(super) fn find_or_make(&self, base: &str, list: &Encoded) -> Option<Encoded> {
        let (before, made) = {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let versions = kept.lists.get_mut(list.name())?;
            let before = versions.iter_mut().find(|known| &*known.version == base)?;
            let known = before.deltas.iter().find(|(version, _)| version == list.version());
            let made = known.map(|(_, made)| Arc::clone(made)).unwrap_or_else(|| {
                let made = Made::default();
                before.deltas.push_back((Arc::clone(list.version()), Arc::clone(&made)));
                if before.deltas.len() > MOST_DELTAS {
                    before.deltas.pop_front();
                }
                made
            });
            (Arc::clone(&before.fingerprints), made)
        };
        let mut is_new = false;
        let delta = made.get_or_init(|| {
            is_new = true;
            list.delta(base, &before)
        });
        if let Some(delta) = delta.as_ref().filter(|_| is_new) {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.made(delta.bytes().len(), MOST_BYTES);
        }
        delta.clone()
    }
}

impl Kept {
    /// Forgets the oldest versions until there are at most so many endpoints in all.
    fn within(&mut self, most: usize) {
        while self.endpoints > most
            && let Some((name, version)) = self.order.pop_front()
        {
            self.forget(&name, &version);
        }
    }

    /// A delta was made of so many `bytes`.
    fn made(&mut self, bytes: usize, most: usize) {
        self.bytes += bytes;
        if self.bytes > most {
            self.bytes = 0;
            self.lists.values_mut().flatten().for_each(|version| version.deltas = VecDeque::new());
        }
    }

    fn forget(&mut self, name: &ResourceName, version: &str) {
        let Some(versions) = self.lists.get_mut(name) else { return };
        if let Some(place) = versions.iter().position(|known| &*known.version == version) {
            let gone = versions.remove(place);
            self.endpoints -= gone.map_or(0, |gone| gone.fingerprints.len());
        }
        if versions.is_empty() {
            self.lists.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use selvedge_api::{
        delta::FEWEST,
        wire::{self, resource::Body},
    };
    use selvedge_model::{Endpoint, Endpoints, ServiceKey};

    use super::*;
    use crate::snapshot::encoding::Encodings;

    fn endpoints(host: &str, ports: impl IntoIterator<Item = u16>) -> Arc<Endpoints> {
        let endpoint = |port| Endpoint {
            address: ([10, 0, 0, 1], port).into(),
            dial: ([10, 0, 0, 1], port).into(),
            identity: None,
            workload: None,
            labels: Arc::default(),
            weight: 1,
            place: None,
        };
        Arc::new(Endpoints::new(ServiceKey::new(host, 80), ports.into_iter().map(endpoint).collect()))
    }

    /// What is sent of `list` to who holds `base`.
    fn sent(encodings: &Encodings, base: Option<&Encoded>, list: &Encoded) -> Encoded {
        let mut resources = [list.clone()];
        encodings.shorten(&mut resources, |_| base.map(|base| &**base.version()));
        let [sent] = resources;
        sent
    }

    #[test]
    fn one_endpoint_more_is_one_endpoint_on_the_wire_and_made_once() {
        let encodings = Encodings::default();
        let (before, after) = (endpoints("a", 1..=1000), endpoints("a", 1..=1001));
        let (before, after) = (encodings.endpoints(&before), encodings.endpoints(&after));

        let delta = sent(&encodings, Some(&before), &after);

        let resource = wire::Resource::decode(delta.bytes()).unwrap();
        let Some(Body::EndpointsDelta(body)) = resource.body else { panic!("{resource:?}") };
        assert_eq!(
            (body.base.as_str(), resource.version.as_str()),
            (&**before.version(), &**after.version())
        );
        assert_eq!((body.removed.len(), body.added.len(), body.added_at), (0, 1, vec![1000]));
        assert!(delta.is_delta() && delta.bytes().len() < 200, "{} bytes", delta.bytes().len());
        let again = sent(&encodings, Some(&before), &after);
        assert_eq!(again.bytes().as_ptr(), delta.bytes().as_ptr(), "it is shared");
    }

    #[test]
    fn whoever_holds_nothing_known_or_lacks_much_gets_the_whole_list() {
        let encodings = Encodings::default();
        let lists = [endpoints("a", 1..=100), endpoints("a", 80..=179), endpoints("a", 1..=101)];
        let other = Encodings::default().endpoints(&endpoints("a", 5..=60));
        let [first, elsewhere, last] = lists.each_ref().map(|list| encodings.endpoints(list));
        let few = endpoints("b", 1..FEWEST as u16);
        let fewer = endpoints("b", 2..FEWEST as u16);
        let (few, fewer) = (encodings.endpoints(&few), encodings.endpoints(&fewer));

        assert!(!sent(&encodings, None, &last).is_delta(), "nothing is held");
        assert!(!sent(&encodings, Some(&other), &last).is_delta(), "nobody knows what is held");
        assert!(!sent(&encodings, Some(&elsewhere), &last).is_delta(), "most is different");
        assert!(!sent(&encodings, Some(&few), &fewer).is_delta(), "the list is short");
        assert!(sent(&encodings, Some(&first), &last).is_delta());
    }

    #[test]
    fn deltas_are_forgotten_together_when_they_are_too_many_and_made_again() {
        let encodings = Encodings::default();
        let (before, after) = (endpoints("a", 1..=1000), endpoints("a", 1..=1001));
        let (before, after) = (encodings.endpoints(&before), encodings.endpoints(&after));
        let first = sent(&encodings, Some(&before), &after);
        let kept = || encodings.deltas().0.lock().unwrap();
        assert_eq!(kept().bytes, first.bytes().len());

        kept().made(40, first.bytes().len() + 40);
        assert_eq!(sent(&encodings, Some(&before), &after).bytes().as_ptr(), first.bytes().as_ptr());
        kept().made(1, first.bytes().len() + 40);

        assert_eq!(kept().bytes, 0);
        let again = sent(&encodings, Some(&before), &after);
        assert_eq!(again.bytes(), first.bytes());
        assert_ne!(again.bytes().as_ptr(), first.bytes().as_ptr());
    }

    #[test]
    fn what_is_kept_of_old_lists_is_bounded() {
        let encodings = Encodings::default();
        let of = |host: &str, first: u16| encodings.endpoints(&endpoints(host, first..=first + 99));
        let last = || encodings.endpoints(&endpoints("a", 1..=101));

        let first = of("a", 1);
        for version in 2..=MOST_VERSIONS {
            of("a", u16::try_from(version).unwrap());
        }
        assert!(sent(&encodings, Some(&first), &of("a", 2)).is_delta());
        last();
        assert!(!sent(&encodings, Some(&first), &of("a", 2)).is_delta(), "there are too many");

        let deltas = Deltas::default();
        deltas.keep(&of("never changes", 1));
        for version in 1..=3 * MOST_VERSIONS {
            deltas.keep(&of("changes often", u16::try_from(version).unwrap()));
        }
        let kept = deltas.0.into_inner().unwrap();
        let most = MOST_VERSIONS + 1;
        assert_eq!((kept.endpoints, kept.order.len(), kept.lists.len()), (100 * most, most, 2));

        let deltas = Deltas::default();
        for version in 1..=5 {
            for host in ["a", "b"] {
                deltas.keep(&of(host, version));
            }
        }
        let mut kept = deltas.0.into_inner().unwrap();
        assert_eq!((kept.endpoints, kept.order.len(), kept.lists.len()), (1000, 10, 2));
        kept.within(150);
        assert_eq!((kept.endpoints, kept.order.len(), kept.lists.len()), (100, 1, 1));
        assert!(kept.lists.contains_key(&ResourceName::Endpoints(ServiceKey::new("b", 80))));
        kept.within(0);
        assert_eq!((kept.endpoints, kept.order.len(), kept.lists.len()), (0, 0, 0));
    }
}
