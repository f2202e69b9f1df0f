//! What a proxy lacks: the difference between the resources that it has and those that it should have.
//!
//! Everything normally goes out as one transaction. A transaction that was refused comes apart: then each
//! part is sent alone, and the part that the proxy refuses waits until it changes, so that one bad
//! service holds up no other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use selvedge_api::{ResourceName, encoded::Transaction};

use super::{
    Encoded,
    held::{Changes, Held, SharedStamps, Stamp},
    view::{Part, Subject},
};

/// A part of a transaction is closed when it has grown to this many bytes.
const CHUNK: usize = 1 << 20;

/// What the parts of transactions consisted of that were refused.
pub type Refused = BTreeMap<Subject, Vec<Arc<Stamp>>>;

/// Whether all parts go out together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pace {
    /// As one transaction.
    #[default]
    Together,
    /// One part after the other, because together they were refused.
    OneByOne,
}

/// What is to be sent.
#[derive(Debug, Clone, Default)]
pub struct Difference {
    /// New or changed.
    pub upserts: Vec<Encoded>,
    /// Held and no longer meant to be.
    pub removals: Vec<ResourceName>,
    /// The parts that the upserts belong to.
    pub parts: Vec<Part>,
}

impl Difference {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty()
    }

    /// What becomes of what is held once this is applied.
    pub fn changes(&self) -> Changes {
        let upserts = self.upserts.iter().map(|resource| Arc::clone(resource.stamp())).collect();
        Changes { upserts, removals: self.removals.clone() }
    }

    /// What is held once this is applied.
    #[cfg(test)]
    fn applied_to(&self, held: &Held) -> Held {
        let mut next = held.clone();
        next.apply(self.changes());
        next
    }

    /// The messages of this transaction: one, or several where it is large.
    pub fn messages(self, nonce: u64) -> Vec<Transaction> {
        let mut messages = Vec::new();
        let mut message = Transaction { nonce, ..Transaction::default() };
        let mut size = 0;
        for resource in self.upserts {
            let bytes = resource.bytes();
            if size > 0 && size + bytes.len() > CHUNK {
                let next = Transaction { nonce, ..Transaction::default() };
                messages.push(Transaction { more: true, ..std::mem::replace(&mut message, next) });
                size = 0;
            }
            size += bytes.len();
            message.upserts.push(bytes);
        }
        message.removals = self.removals.iter().map(ToString::to_string).collect();
        messages.push(message);
        messages
    }
}

/// The next transaction for a proxy that holds `held` and is to hold `parts`.
pub fn next(parts: &[Part], held: &Held, refused: &Refused, pace: Pace) -> Difference {
    let mut difference = Difference::default();
    let mut seen = BTreeSet::new();
    let mut any_refused = false;
    // Nearly all that a proxy holds is the very thing that it is to hold: only the rest is looked for by its name.
    let shared = held.shared();
    for part in parts {
        if refused.get(&part.subject).is_some_and(|refused| is_of(refused, part)) {
            any_refused = true;
            continue;
        }
        let before = difference.upserts.len();
        let others = part.resources.iter().filter(|resource| !shared.has(resource.stamp()));
        for resource in others.filter(|resource| !held.has(resource)) {
            if seen.insert(resource.name()) {
                difference.upserts.push(resource.clone());
            }
        }
        if difference.upserts.len() > before {
            difference.parts.push(part.clone());
            if pace == Pace::OneByOne {
                return difference;
            }
        }
    }
    difference.removals = removals(parts, held, &shared, any_refused);
    difference
}

/// The same for one that holds all that it is to hold but for what is new in `parts`, which name nothing that it has not.
pub fn next_of(parts: Vec<Part>, held: &Held) -> Difference {
    let mut difference = Difference::default();
    for part in parts {
        let before = difference.upserts.len();
        for resource in part.resources.iter().filter(|resource| !held.has(resource)) {
            if !difference.upserts.iter().any(|other| other.name() == resource.name()) {
                difference.upserts.push(resource.clone());
            }
        }
        if difference.upserts.len() > before {
            difference.parts.push(part);
        }
    }
    difference
}

/// `parts` as they are now, which a proxy has refused.
pub fn refused(parts: Vec<Part>) -> Refused {
    let stamps = |part: &Part| part.resources.iter().map(|resource| Arc::clone(resource.stamp())).collect();
    parts.into_iter().map(|part| (part.subject.clone(), stamps(&part))).collect()
}

/// Whether `part` is what was refused.
fn is_of(refused: &[Arc<Stamp>], part: &Part) -> bool {
    refused.iter().eq(part.resources.iter().map(Encoded::stamp))
}

/// What a refused part replaces is still in use, and which of the rest that is only the proxy knows: so
/// while something is refused only lookups that nobody asks for are taken away.
fn removals(parts: &[Part], held: &Held, shared: &SharedStamps, any_refused: bool) -> Vec<ResourceName> {
    let wanted = || parts.iter().flat_map(|part| part.resources.iter());
    let others: BTreeSet<&ResourceName> =
        wanted().filter(|resource| !shared.has(resource.stamp())).map(Encoded::name).collect();
    let kept = |name: &ResourceName| any_refused && !matches!(name, ResourceName::Lookup(_));
    let unwanted = shared.without(wanted().map(Encoded::stamp));
    let names = held.at(unwanted).map(|stamp| &stamp.name);
    names.filter(|name| !others.contains(name) && !kept(name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use prost::bytes::Bytes;
    use selvedge_api::wire::{self, resource::Body};

    use super::*;

    fn resource(authority: &str, contents: &str) -> Encoded {
        let lookup = wire::Lookup { authority: contents.into(), ..wire::Lookup::default() };
        Encoded::new(ResourceName::Lookup(authority.into()), Body::Lookup(lookup))
    }

    fn service(host: &str, contents: usize) -> Encoded {
        let key = selvedge_model::ServiceKey::new(host, 80);
        let roots = vec![Bytes::from(vec![0; contents])];
        let body = Body::Bundle(wire::Bundle { roots, ..Default::default() });
        Encoded::new(ResourceName::Service(key), body)
    }

    fn part(authority: &str, resources: &[&Encoded]) -> Part {
        let resources = resources.iter().map(|resource| (*resource).clone()).collect();
        Part { subject: Subject::Authority(authority.into()), resources }
    }

    /// Something that nobody asks for any more.
    fn old() -> Arc<Stamp> {
        Arc::new(Stamp { name: ResourceName::Lookup("old".into()), version: "1".into() })
    }

    fn names(difference: &Difference) -> Vec<String> {
        difference.upserts.iter().map(|resource| resource.name().to_string()).collect()
    }

    #[test]
    fn only_what_differs_is_sent_and_what_nobody_needs_is_removed() {
        let (a, b) = (resource("a", "1"), resource("b", "1"));
        let mut held = next(&[part("a", &[&a])], &Held::default(), &Refused::new(), Pace::Together)
            .applied_to(&Held::default());
        held.apply(Changes { upserts: vec![old()], removals: vec![] });

        let difference = next(&[part("a", &[&a]), part("b", &[&b])], &held, &Refused::new(), Pace::Together);

        assert_eq!(names(&difference), ["lookup/b"]);
        assert_eq!(difference.removals, [ResourceName::Lookup("old".into())]);
        let held = difference.applied_to(&held);
        assert!(
            next(&[part("a", &[&a]), part("b", &[&b])], &held, &Refused::new(), Pace::Together).is_empty()
        );
    }

    #[test]
    fn what_two_parts_share_is_sent_once() {
        let shared = service("s", 1);
        let parts = [part("a", &[&resource("a", "1"), &shared]), part("b", &[&resource("b", "1"), &shared])];

        let difference = next(&parts, &Held::default(), &Refused::new(), Pace::Together);

        assert_eq!(names(&difference), ["lookup/a", "service/s:80", "lookup/b"]);
    }

    #[test]
    fn one_by_one_a_part_comes_whole_and_removals_come_last() {
        let shared = service("s", 1);
        let parts = [part("a", &[&resource("a", "1"), &shared]), part("b", &[&resource("b", "1"), &shared])];
        let mut held = Held::default();
        held.apply(Changes { upserts: vec![old()], removals: vec![] });
        let mut sent = Vec::new();

        for _ in 0..3 {
            let difference = next(&parts, &held, &Refused::new(), Pace::OneByOne);
            sent.push((names(&difference), difference.removals.len()));
            held = difference.applied_to(&held);
        }

        assert_eq!(
            sent,
            [
                (vec!["lookup/a".to_owned(), "service/s:80".to_owned()], 0),
                (vec!["lookup/b".to_owned()], 0),
                (vec![], 1),
            ]
        );
    }

    #[test]
    fn a_refused_part_waits_until_it_changes_and_holds_up_no_other() {
        let bad = part("bad", &[&resource("bad", "1")]);
        let good = part("good", &[&resource("good", "1")]);
        let parts = [bad.clone(), good];
        let refused = refused(next(&[bad], &Held::default(), &Refused::new(), Pace::OneByOne).parts);

        let difference = next(&parts, &Held::default(), &refused, Pace::Together);
        assert_eq!(names(&difference), ["lookup/good"]);

        let changed = [part("bad", &[&resource("bad", "2")])];
        assert_eq!(names(&next(&changed, &Held::default(), &refused, Pace::Together)), ["lookup/bad"]);
    }

    #[test]
    fn what_a_refused_part_may_still_use_is_not_taken_away() {
        let bad = part("bad", &[&resource("bad", "2")]);
        let first = next(std::slice::from_ref(&bad), &Held::default(), &Refused::new(), Pace::OneByOne);
        let refused = refused(first.parts);
        let mut held = Held::default();
        held.apply(Changes { upserts: vec![Arc::clone(service("s", 1).stamp()), old()], removals: vec![] });

        let difference = next(&[bad], &held, &refused, Pace::Together);

        assert_eq!(difference.removals, [ResourceName::Lookup("old".into())]);
    }

    #[test]
    fn what_is_lacked_and_what_is_too_much_is_found_whether_names_are_shared_or_only_the_same() {
        let mut random = fastrand::Rng::with_seed(3);
        let all: Vec<Encoded> =
            (0..12).map(|n| resource(&(n % 6).to_string(), &(n / 6).to_string())).collect();
        for _ in 0..500 {
            let mut held = Held::default();
            let (mut upserts, mut wanted) = (Vec::new(), Vec::<&Encoded>::new());
            for n in 0..6 {
                let stamp = all[n + 6 * random.usize(0..2)].stamp();
                let copy = Stamp { name: stamp.name.clone(), version: Arc::clone(&stamp.version) };
                match random.u8(0..4) {
                    0 => upserts.push(Arc::new(copy)),
                    1 => upserts.push(Arc::clone(stamp)),
                    _ => {}
                }
                if random.bool() {
                    wanted.push(&all[n + 6 * random.usize(0..2)]);
                }
            }
            held.apply(Changes { upserts, removals: vec![] });
            let parts = wanted.chunks(2).map(|some| part("a", some)).collect::<Vec<_>>();

            let difference = next(&parts, &held, &Refused::new(), Pace::Together);

            let lacked = wanted.iter().filter(|one| held.version(one.name()) != Some(one.version()));
            assert_eq!(names(&difference), lacked.map(|one| one.name().to_string()).collect::<Vec<_>>());
            let too_much = held.iter().filter(|stamp| wanted.iter().all(|one| *one.name() != stamp.name));
            assert_eq!(difference.removals, too_much.map(|stamp| stamp.name.clone()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_large_transaction_is_cut_between_resources() {
        let large: Vec<Encoded> = (0..3).map(|n| service(&format!("s{n}"), CHUNK / 2)).collect();
        let parts = [part("a", &large.iter().collect::<Vec<_>>())];

        let messages = next(&parts, &Held::default(), &Refused::new(), Pace::Together).messages(7);

        assert!(messages.iter().all(|message| message.nonce == 7));
        assert_eq!(messages.iter().map(|message| message.upserts.len()).collect::<Vec<_>>(), [1, 1, 1]);
        assert_eq!(messages.iter().map(|message| message.more).collect::<Vec<_>>(), [true, true, false]);
    }
}
