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
    view::{Part, Subject},
};

/// A part of a transaction is closed when it has grown to this many bytes.
const CHUNK: usize = 1 << 20;

/// Versions by resource name.
pub type Versions = BTreeMap<ResourceName, Arc<str>>;

/// What becomes of what is held: the new version of each resource, `None` = it is gone.
pub type Changes = Vec<(ResourceName, Option<Arc<str>>)>;

/// Makes these changes to what is held.
pub fn apply(changes: Changes, held: &mut Versions) {
    for (name, version) in changes {
        match version {
            Some(version) => drop(held.insert(name, version)),
            None => drop(held.remove(&name)),
        }
    }
}

/// The parts that were refused, each as it was then.
pub type Refused = BTreeMap<Subject, Versions>;

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
    /// The parts that the upserts belong to, and what they are.
    pub parts: Refused,
}

impl Difference {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty()
    }

    /// What becomes of what is held once this is applied.
    pub fn changes(&self) -> Changes {
        let new = |resource: &Encoded| (resource.name().clone(), Some(Arc::clone(resource.version())));
        let gone = self.removals.iter().map(|name| (name.clone(), None));
        self.upserts.iter().map(new).chain(gone).collect()
    }

    /// What is held once this is applied.
    #[cfg(test)]
    fn applied_to(&self, held: &Versions) -> Versions {
        let mut next = held.clone();
        apply(self.changes(), &mut next);
        next
    }

    /// The messages of this transaction: one, or several where it is large.
    pub fn messages(self, nonce: u64) -> Vec<Transaction> {
        let mut messages = Vec::new();
        let mut message = Transaction { nonce, ..Transaction::default() };
        let mut size = 0;
        for resource in self.upserts {
            if size > 0 && size + resource.bytes().len() > CHUNK {
                let next = Transaction { nonce, ..Transaction::default() };
                messages.push(Transaction { more: true, ..std::mem::replace(&mut message, next) });
                size = 0;
            }
            size += resource.bytes().len();
            message.upserts.push(resource.bytes().clone());
        }
        message.removals = self.removals.iter().map(ToString::to_string).collect();
        messages.push(message);
        messages
    }
}

/// The next transaction for a proxy that holds `held` and is to hold `parts`.
pub fn next(parts: &[Part], held: &Versions, refused: &Refused, pace: Pace) -> Difference {
    let mut difference = Difference::default();
    let mut seen = BTreeSet::new();
    let mut any_refused = false;
    for part in parts {
        if refused.get(&part.subject).is_some_and(|refused| *refused == versions(part)) {
            any_refused = true;
            continue;
        }
        let lacking =
            part.resources.iter().filter(|resource| held.get(resource.name()) != Some(resource.version()));
        let before = difference.upserts.len();
        for resource in lacking {
            if seen.insert(resource.name().clone()) {
                difference.upserts.push(resource.clone());
            }
        }
        if difference.upserts.len() > before {
            difference.parts.insert(part.subject.clone(), versions(part));
            if pace == Pace::OneByOne {
                return difference;
            }
        }
    }
    difference.removals = removals(parts, held, any_refused);
    difference
}

fn versions(part: &Part) -> Versions {
    let version = |resource: &Encoded| (resource.name().clone(), Arc::clone(resource.version()));
    part.resources.iter().map(version).collect()
}

/// What a refused part replaces is still in use, and which of the rest that is only the proxy knows: so
/// while something is refused only lookups that nobody asks for are taken away.
fn removals(parts: &[Part], held: &Versions, any_refused: bool) -> Vec<ResourceName> {
    let wanted: BTreeSet<&ResourceName> =
        parts.iter().flat_map(|part| part.resources.iter()).map(Encoded::name).collect();
    let kept = |name: &ResourceName| any_refused && !matches!(name, ResourceName::Lookup(_));
    held.keys().filter(|name| !wanted.contains(name) && !kept(name)).cloned().collect()
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

    fn names(difference: &Difference) -> Vec<String> {
        difference.upserts.iter().map(|resource| resource.name().to_string()).collect()
    }

    #[test]
    fn only_what_differs_is_sent_and_what_nobody_needs_is_removed() {
        let (a, b) = (resource("a", "1"), resource("b", "1"));
        let mut held = next(&[part("a", &[&a])], &Versions::new(), &Refused::new(), Pace::Together)
            .applied_to(&Versions::new());
        held.insert(ResourceName::Lookup("old".into()), "1".into());

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

        let difference = next(&parts, &Versions::new(), &Refused::new(), Pace::Together);

        assert_eq!(names(&difference), ["lookup/a", "service/s:80", "lookup/b"]);
    }

    #[test]
    fn one_by_one_a_part_comes_whole_and_removals_come_last() {
        let shared = service("s", 1);
        let parts = [part("a", &[&resource("a", "1"), &shared]), part("b", &[&resource("b", "1"), &shared])];
        let mut held = Versions::from([(ResourceName::Lookup("old".into()), Arc::from("1"))]);
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
        let refused = next(&[bad], &Versions::new(), &Refused::new(), Pace::OneByOne).parts;

        let difference = next(&parts, &Versions::new(), &refused, Pace::Together);
        assert_eq!(names(&difference), ["lookup/good"]);

        let changed = [part("bad", &[&resource("bad", "2")])];
        assert_eq!(names(&next(&changed, &Versions::new(), &refused, Pace::Together)), ["lookup/bad"]);
    }

    #[test]
    fn what_a_refused_part_may_still_use_is_not_taken_away() {
        let bad = part("bad", &[&resource("bad", "2")]);
        let refused =
            next(std::slice::from_ref(&bad), &Versions::new(), &Refused::new(), Pace::OneByOne).parts;
        let held = Versions::from([
            (service("s", 1).name().clone(), Arc::from("1")),
            (ResourceName::Lookup("old".into()), Arc::from("1")),
        ]);

        let difference = next(&[bad], &held, &refused, Pace::Together);

        assert_eq!(difference.removals, [ResourceName::Lookup("old".into())]);
    }

    #[test]
    fn a_large_transaction_is_cut_between_resources() {
        let large: Vec<Encoded> = (0..3).map(|n| service(&format!("s{n}"), CHUNK / 2)).collect();
        let parts = [part("a", &large.iter().collect::<Vec<_>>())];

        let messages = next(&parts, &Versions::new(), &Refused::new(), Pace::Together).messages(7);

        assert!(messages.iter().all(|message| message.nonce == 7));
        assert_eq!(messages.iter().map(|message| message.upserts.len()).collect::<Vec<_>>(), [1, 1, 1]);
        assert_eq!(messages.iter().map(|message| message.more).collect::<Vec<_>>(), [true, true, false]);
    }
}
